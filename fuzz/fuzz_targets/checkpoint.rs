#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftwood_torture::fuzzing::checkpoint(data));
