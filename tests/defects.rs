//! As `it/defects.rs`: a mistake seen in log stores of this kind, held against the fuzz targets.

#![cfg(feature = "fuzzing")]

// Also: records with the right checksum and malformed content panicked at open, and a number on
// disk said how much to allocate.
#[test]
fn senseless_bytes_under_right_checksums_are_an_error_and_no_panic() {
    let mut tried = 0;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (target, _, seed) in raftwood::fuzzing::seeds() {
        // These put the checksums right after the change.
        let run: fn(&[u8]) = match target {
            "file_header" => raftwood::fuzzing::file_header,
            "record" => raftwood::fuzzing::record,
            "batch" => raftwood::fuzzing::batch,
            "footer" => raftwood::fuzzing::footer,
            "checkpoint" => raftwood::fuzzing::checkpoint,
            "directory" => raftwood::fuzzing::directory,
            "decompress" => raftwood::fuzzing::decompress,
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
    raftwood::fuzzing::decompress(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6]);
    assert!(tried > 500, "{tried}");
}
