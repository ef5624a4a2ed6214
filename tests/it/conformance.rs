//! The contract of the traits of `vfs`: what keeps it passes, and what breaks one sentence of it is found by
//! the name of that sentence's check.

#[path = "conformance/twisted.rs"]
mod twisted;

use raftwood::vfs::conformance::{self, Failure, Means, Report};
use raftwood::vfs::sim::{LossPolicy, Profile, SimVfs};
use raftwood::vfs::{OsVfs, Vfs};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use twisted::{Twist, Twisted};

fn on_os(vfs: &dyn Vfs) -> Result<Report, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let means = Means { link: Some(&|target, at| symlink(target, at)), ..Means::default() };
    conformance::check_with(vfs, dir.path(), &means)
}

/// `wrap` makes what is checked of a simulated disk, and of what a power cut leaves of it.
fn on_sim(disk: &SimVfs, wrap: &dyn Fn(SimVfs) -> Arc<dyn Vfs>) -> Result<Report, Failure> {
    let means = Means { power_cut: Some(&|| wrap(disk.crash(LossPolicy::LoseAll))), ..Means::default() };
    conformance::check_with(&*wrap(disk.clone()), Path::new("/scratch/deep"), &means)
}

fn skipped(report: &Report) -> Vec<&str> {
    report.skipped.iter().map(|(name, _)| *name).collect()
}

const LASTING: [&str; 3] = ["synced_bytes_survive", "synced_names_survive", "made_directories_survive"];

#[test]
fn the_real_file_system_keeps_the_contract() {
    assert_eq!(skipped(&on_os(&OsVfs::new()).unwrap()), LASTING);
    let without = on_os(&OsVfs::without_map()).unwrap();
    assert_eq!(skipped(&without)[0], "a_mapping_shows_what_was_written");
    assert_eq!(skipped(&without)[1..], LASTING);
}

#[test]
fn a_simulated_disk_of_every_kind_keeps_the_contract() {
    for profile in [
        Profile::Strict,
        Profile::Ext4Ordered,
        Profile::GarbageOnTear,
        Profile::NoSafePartialSector,
        Profile::FailedSyncCleansPages,
    ] {
        let disk = SimVfs::new(1).with_profile(profile);
        let report = on_sim(&disk, &|disk| Arc::new(disk)).unwrap();
        assert_eq!(skipped(&report), ["a_mapping_shows_what_was_written", "links_are_not_followed"]);
    }
}

#[test]
fn short_and_interrupted_calls_are_within_the_contract() {
    for seed in 0..10 {
        let disk = SimVfs::new(seed);
        disk.set_short_io(Some(3));
        on_sim(&disk, &|disk| Arc::new(disk)).unwrap();
    }
}

#[test]
fn a_wrapper_that_changes_nothing_keeps_the_contract() {
    on_os(&Twisted::new(Arc::new(OsVfs::new()), Twist::None)).unwrap();
    on_sim(&SimVfs::new(1), &|disk| Arc::new(Twisted::new(Arc::new(disk), Twist::None))).unwrap();
}

#[test]
fn every_broken_sentence_is_found_by_its_name() {
    let mut found = BTreeSet::new();
    for (twist, name) in twisted::TWISTS {
        // What a simulated disk has none of, links and mappings, is tried on the real file system.
        let simulated = on_sim(&SimVfs::new(1), &|disk| Arc::new(Twisted::new(Arc::new(disk), *twist)));
        let outcome = simulated.and_then(|_| on_os(&Twisted::new(Arc::new(OsVfs::new()), *twist)));
        let failure = outcome.err().unwrap_or_else(|| panic!("{twist:?} is not found"));
        assert_eq!(failure.check(), *name, "{twist:?}: {failure}");
        assert!(failure.to_string().contains(failure.difference()));
        found.insert(*name);
    }
    // No check that nothing can fail.
    let report = on_os(&OsVfs::new()).unwrap();
    let all: BTreeSet<&str> = report.held.iter().copied().chain(skipped(&report)).collect();
    assert_eq!(all, found);
}

#[test]
fn a_directory_that_is_in_use_is_not_checked() {
    let disk = SimVfs::new(1);
    on_sim(&disk, &|disk| Arc::new(disk)).unwrap();
    let failure = on_sim(&disk, &|disk| Arc::new(disk)).unwrap_err();
    assert!(failure.difference().contains("empty directory"), "{failure}");
}
