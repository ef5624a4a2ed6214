//! Replays the corpora of the fuzz targets, which need a nightly toolchain, on any.
//!
//! `RAFTWOOD_WRITE_SEEDS=1 cargo test --features fuzzing --test fuzz_corpus` writes the seeds: valid inputs
//! to start from. What fuzzing found beside them is kept too, so that no bug comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![cfg(feature = "fuzzing")]

use raftwood::fuzzing::{TARGETS, seeds, taken};
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
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

/// `RAFTWOOD_REPLAY=operations:path cargo test --features fuzzing --test fuzz_corpus replay --
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
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path().file_stem().unwrap().to_owned()).collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|t| t.0).collect();
    files.sort();
    targets.sort_unstable();
    assert_eq!(files, targets);
}
