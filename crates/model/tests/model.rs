//! What holds within the bounds, that it can fail, and what was found.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use raftwood_model::configs::{configs, findings, named};
use raftwood_model::explore::explore;
use raftwood_model::mistakes::{MISTAKES, Mistake};
use raftwood_model::state::REACHED;
use std::collections::BTreeSet;
use std::path::Path;

const THREADS: usize = 2;

/// One test, so that each configuration is explored once.
#[test]
fn every_promise_holds_and_every_action_and_every_row_of_the_table_is_reached() {
    let mut reached = BTreeSet::new();
    for config in configs() {
        let explored = explore(config, THREADS);
        println!("{}", explored.line());
        assert!(explored.broken.is_empty(), "{}", explored.story());
        reached.extend(explored.reached);
    }
    let missing: Vec<_> = REACHED.iter().filter(|what| !reached.contains(**what)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

/// Where each mistake is looked for: the configuration that finds it in the fewest states.
const FOUND_IN: &[(Mistake, &str)] = &[
    (Mistake::AckBeforeSync, "crashes"),
    (Mistake::SyncForgotten, "crashes"),
    (Mistake::OlderSegmentNotSynced, "crashes"),
    (Mistake::FailedSyncRetried, "errors"),
    (Mistake::AckAfterError, "errors"),
    (Mistake::GateLeftOpen, "errors"),
    (Mistake::SyncCoversLaterWrites, "crashes"),
    (Mistake::WatermarkTooFar, "crashes"),
    (Mistake::WatermarkStuck, "policies"),
    (Mistake::WatermarkInsideTheCopy, "crashes"),
    (Mistake::CopyNotSealed, "crashes"),
    (Mistake::HeaderNotSynced, "crashes"),
    (Mistake::NameNotSynced, "crashes"),
    (Mistake::FreeNameNotSynced, "closing"),
    (Mistake::FormerGenerationForgotten, "rebuild"),
    (Mistake::MissingMarkUnheeded, "purge"),
    (Mistake::DescriptionNotVerified, "policies"),
    (Mistake::BadSectorEndsTheLog, "policies"),
    (Mistake::DestroyLost, "checkpoints"),
    (Mistake::TruncationLost, "crashes"),
    (Mistake::CompactionLost, "purge"),
    (Mistake::OldHardStateWins, "crashes"),
    (Mistake::OnlyFirstRegionReplayed, "crashes"),
    (Mistake::PredecessorNotChecked, "crashes"),
    (Mistake::TailNotCutOff, "crashes"),
    (Mistake::UnfinishedCopyBelieved, "recycle"),
    (Mistake::CopyNotAnnounced, "crashes"),
    (Mistake::AnnouncementUnheeded, "recycle"),
    (Mistake::MarkBeforeSync, "crashes"),
    (Mistake::MarkNotSynced, "policies"),
    (Mistake::EntryNotMarked, "purge"),
    (Mistake::MarkNotBelieved, "policies"),
    (Mistake::UncleanEndForgotten, "unclean ends"),
    (Mistake::TornCopyBelieved, "crashes"),
    (Mistake::HoleTakenForTear, "policies"),
    (Mistake::TailNotRewritten, "crashes"),
    (Mistake::TailNotVerified, "crashes"),
    (Mistake::CheckpointBeforeLogSync, "checkpoints"),
    (Mistake::CheckpointNotSynced, "rebuild"),
    (Mistake::OneCheckpointKept, "closing"),
    (Mistake::UnlinkBeforeCheckpoint, "purge"),
    (Mistake::OlderCheckpointUnheeded, "purge"),
    (Mistake::LinkedFileReused, "backup"),
    (Mistake::BackupNotSynced, "backup"),
    (Mistake::OwnZerosTakenForTear, "zeros"),
    (Mistake::SuspectForgotten, "rot"),
    (Mistake::SuspectCalledDamaged, "rot"),
    (Mistake::LossNotSaid, "policies"),
    (Mistake::LossAlwaysAccepted, "purge"),
    (Mistake::SealedBeforeSync, "checkpoints"),
    (Mistake::DirectoryNotSyncedAtOpen, "deaths"),
];

#[test]
fn every_mistake_is_found() {
    assert!(MISTAKES.iter().all(|about| FOUND_IN.iter().any(|(mistake, _)| *mistake == about.mistake)));
    let mut missed = Vec::new();
    for &(mistake, name) in FOUND_IN {
        let mut config = named(name).unwrap();
        config.bounds.mistake = mistake;
        let explored = explore(config, THREADS);
        let wrong =
            explored.broken.first().and_then(|(_, path)| path.last().map(|(s, _)| s.world.ghost.wrong));
        println!("{:<26} {:<12} {:>7} states: {wrong:?}", format!("{mistake:?}"), name, explored.states);
        if wrong.is_none() {
            missed.push(mistake);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The engine's own list has each of them, under the same name.
#[test]
fn every_mistake_is_one_that_can_be_planted() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let planted = std::fs::read_to_string(root.join("src/planted.rs")).unwrap();
    for about in MISTAKES {
        let is_built_in = planted.contains(&format!("    {} caught by", about.name));
        let is_patch = root.join(format!("tests/planted/{}.patch", about.name)).exists();
        assert!(is_built_in || is_patch, "{} is neither in src/planted.rs nor in tests/planted", about.name);
    }
}

/// What `docs/model.md` tells: without the rules that ended the first three, and in the last two, the checker
/// finds the histories again.
#[test]
fn what_was_found_is_found_again() {
    for finding in findings() {
        let explored = explore(finding.config, THREADS);
        println!("{}\n{}", explored.line(), explored.story());
        assert!(explored.broken.iter().any(|(what, _)| *what == finding.breaks), "{}", explored.name);
    }
}
