//! Replays the corpora of the fuzz targets, which need a nightly toolchain, on any.
//!
//! `RAFTWOOD_WRITE_SEEDS=1 cargo test -p raftwood-torture --test fuzz_corpus` writes the seeds: valid inputs
//! to start from. What fuzzing found beside them is kept too, so that no bug comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use raftwood_torture::fuzzing::{TARGETS, seeds, taken};
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

#[test]
fn every_kept_input_is_survived() {
    for (target, run) in TARGETS {
        let mut files: Vec<_> =
            std::fs::read_dir(corpus(target)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no corpus");
        let (files, paths, mut took) = (files.len(), files, 0);
        for file in paths {
            let bytes = std::fs::read(&file).unwrap();
            assert!(bytes.len() <= 4096, "{} has {} bytes: keep corpora small", file.display(), bytes.len());
            // The name, should it panic.
            println!("{}", file.display());
            let before = taken();
            run(&bytes);
            took += usize::from(taken() > before);
        }
        // Once every header among the seeds was of a version that is not written any more: they were rejected
        // at the door, and this test went on to pass.
        assert!(took * 2 >= files, "{target} rejected all but {took} of {files} inputs");
    }
}

/// `RAFTWOOD_REPLAY=operations:path cargo test -p raftwood-torture --test fuzz_corpus replay --
/// --nocapture` runs one input.
#[test]
fn replay_one_input() {
    let Ok(what) = std::env::var("RAFTWOOD_REPLAY") else { return };
    let (target, path) = what.split_once(':').expect("target:path");
    let (_, run) = TARGETS.iter().find(|t| t.0 == target).expect("a target");
    run(&std::fs::read(path).unwrap());
}

#[test]
fn kept_seeds_are_those_of_this_version_and_small() {
    for (target, name, bytes) in seeds() {
        assert!(bytes.len() <= 4096, "{target}/{name} has {} bytes", bytes.len());
        assert!(TARGETS.iter().any(|t| t.0 == target));
        if std::env::var_os("RAFTWOOD_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(corpus(target).join(&name), &bytes).unwrap();
        }
        let kept = std::fs::read(corpus(target).join(&name)).unwrap_or_default();
        assert_eq!(
            kept, bytes,
            "{target}/{name} is out of date: write the seeds again with RAFTWOOD_WRITE_SEEDS=1"
        );
    }
}

#[test]
fn every_target_has_its_fuzzer() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path().file_stem().unwrap().to_owned()).collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|t| t.0).collect();
    files.sort();
    targets.sort_unstable();
    assert_eq!(files, targets);
}

// Records with the right checksum and malformed content panicked at open, and a number on
// disk said how much to allocate.
#[test]
fn malformed_bytes_under_right_checksums_are_an_error_and_no_panic() {
    let mut tried = 0;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (target, _, seed) in raftwood_torture::fuzzing::seeds() {
        // These put the checksums right after the change.
        let run: fn(&[u8]) = match target {
            "file_header" => raftwood_torture::fuzzing::file_header,
            "record" => raftwood_torture::fuzzing::record,
            "batch" => raftwood_torture::fuzzing::batch,
            "footer" => raftwood_torture::fuzzing::footer,
            "checkpoint" => raftwood_torture::fuzzing::checkpoint,
            "directory" => raftwood_torture::fuzzing::directory,
            "decompress" => raftwood_torture::fuzzing::decompress,
            _ => continue,
        };
        for round in 0..60 {
            let mut bytes = seed.clone();
            for _ in 0..=round % 4 {
                let at = next() as usize % bytes.len().max(1);
                // Large numbers and zeros where lengths and counts stand.
                let with = [0, 0xff, 0x7f, next() as u8][next() as usize % 4];
                bytes.iter_mut().skip(at).take(1 + next() as usize % 8).for_each(|b| *b = with);
            }
            run(&bytes);
            tried += 1;
        }
    }
    // Four billion bytes from ten.
    raftwood_torture::fuzzing::decompress(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6]);
    assert!(tried > 500, "{tried}");
}
