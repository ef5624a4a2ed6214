//! What is left of a store that was killed, or whose power went off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use raftwood::vfs::sim::{Crashes, LossPolicy, Profile, SimVfs, explore};
use raftwood::{Durability, EntryId, RegionId};
use raftwood_raftstore::RaftLog;
use std::ops::ControlFlow;
use support::{indexes, open, put};

/// Two groups that move in step, one that is made and given up again and again.
const LEFT: RegionId = RegionId(1);
const RIGHT: RegionId = RegionId(2);
const BRIEF: RegionId = RegionId(3);

const ROUNDS: u64 = 16;

fn number(bytes: Option<bytes::Bytes>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()))
}

/// One round of a store: what each group's thread wants written is merged and consumed as one.
fn round(log: &RaftLog, n: u64, durability: Durability) {
    let (mut all, mut one) = (log.batch(), log.batch());
    let number = n.to_le_bytes();
    for region in [LEFT, RIGHT] {
        // Three entries, of which the next round's leader overwrites the last.
        put(&mut one, region, n, 2 * n - 1..=2 * n + 1);
        one.put_hard_state(region, &number).unwrap().put_apply_state(region, n, &number).unwrap();
        if n.is_multiple_of(4) {
            one.put_region_state(region, n, &number).unwrap().gc(region, n);
            log.trim_states(&mut one, region, n - 2).unwrap();
        }
        all.merge(&mut one).unwrap();
    }
    match n % 3 {
        0 => all.clean(BRIEF).put_region_state(BRIEF, u64::MAX, &number).unwrap(),
        _ => all.clean(BRIEF).begin_after(BRIEF, EntryId::new(5, 5)).unwrap(),
    };
    all.put_ident("round", &number).unwrap();
    log.consume(&mut all, durability).unwrap();
    assert!(all.is_empty());
}

/// That the store is as it was after some round, whole; which one.
fn whole(log: &RaftLog) -> u64 {
    let n = number(log.ident("round"));
    if n == 0 {
        assert!(log.is_empty(), "no round, and yet there is something");
        return 0;
    }
    // States were trimmed and entries collected by the last round that was a multiple of four.
    let collected = n / 4 * 4;
    let first = collected.max(1);
    let oldest = collected.saturating_sub(2).max(1);
    for region in [LEFT, RIGHT] {
        let state = log.raft_state(region).unwrap().unwrap();
        assert_eq!((number(Some(state.hard_state)), state.log.last, state.log.first), (n, 2 * n + 1, first));
        let mut entries = Vec::new();
        log.fetch(region, first..2 * n + 2, None, &mut entries).unwrap();
        assert_eq!(indexes(&entries), (first..=2 * n + 1).collect::<Vec<_>>());
        for entry in entries {
            let term = entry.id.index.div_ceil(2).min(n);
            assert_eq!((entry.id.term, &entry.payload[..]), (term, &[term as u8; 100][..]));
        }
        let applied: Vec<u64> = log.apply_states(region).into_iter().map(|(at, _)| at).collect();
        assert_eq!(applied, (oldest..=n).collect::<Vec<_>>(), "round {n}");
        assert_eq!(number(log.region_state(region, n)), collected);
    }
    match n % 3 {
        0 => assert_eq!(number(log.region_state(BRIEF, u64::MAX)), n),
        _ => {
            assert_eq!(log.region_state(BRIEF, u64::MAX), None);
            assert_eq!(log.engine().region(BRIEF).state().base, Some(EntryId::new(5, 5)));
        }
    }
    let mut groups = 0;
    log.for_each_group(|_, _| {
        groups += 1;
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(groups, 3);
    n
}

/// Cuts the power at every call of a store that consumes with `durability` and syncs every so many rounds.
fn rounds(profile: Profile, durability: Durability, sync_every: u64) {
    let crashes = Crashes::new(7).profile(profile).crashes_max(1500);
    let workload = |disk: &SimVfs| {
        let log = open(disk);
        for n in 1..=ROUNDS {
            round(&log, n, durability);
            // Acknowledged is what one of the two made durable, each by itself.
            match durability {
                Durability::Synced => disk.set_mark(n),
                _ if n.is_multiple_of(sync_every) => {
                    log.sync()?;
                    disk.set_mark(n);
                }
                _ => {}
            }
        }
        Ok(())
    };
    let explored = explore(&crashes, workload, |disk, acknowledged| {
        let log = open(disk);
        let left = whole(&log);
        assert!(left >= acknowledged, "round {acknowledged} was acknowledged, {left} is what is left");
        // It goes on from there.
        round(&log, left + 1, Durability::Synced);
        assert_eq!(whole(&log), left + 1);
        Ok(())
    });
    let explored = explored.unwrap();
    assert!(explored.crashes > 100, "{explored:?}");
}

#[test]
fn after_a_power_cut_every_round_is_whole_and_those_that_were_synced_are_there() {
    rounds(Profile::Strict, Durability::Synced, 1);
    rounds(Profile::Ext4Ordered, Durability::Synced, 1);
}

#[test]
fn a_sync_makes_all_rounds_durable_that_were_only_written_before_it() {
    rounds(Profile::Strict, Durability::Written, 5);
}

#[test]
fn a_kill_loses_nothing_that_was_consumed_with_or_without_a_sync() {
    let disk = SimVfs::new(3);
    let log = open(&disk);
    for n in 1..=ROUNDS {
        round(&log, n, if n.is_multiple_of(2) { Durability::Synced } else { Durability::Written });
        assert_eq!(whole(&open(&disk.crash(LossPolicy::KeepAll))), n);
    }
}

#[test]
fn a_store_that_was_dropped_is_opened_again_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=ROUNDS {
        let log = RaftLog::open(dir.path()).unwrap();
        assert_eq!(log.recovered().created, n == 1);
        assert_eq!(whole(&log), n - 1);
        round(&log, n, Durability::Written);
    }
}
