//! What each operation does, on a disk in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use raftwood::vfs::sim::SimVfs;
use raftwood::{Compacted, Durability, EntryId, ErrorKind, RegionId};
use raftwood_raftstore::{Hints, LogBatch, RaftLog, STORE};
use std::ops::ControlFlow;
use support::{indexes, open, put};

const R: RegionId = RegionId(1);
const OTHER: RegionId = RegionId(2);

fn new() -> RaftLog {
    open(&SimVfs::new(1))
}

fn consume(log: &RaftLog, build: impl FnOnce(&mut LogBatch)) {
    let mut batch = log.batch();
    build(&mut batch);
    log.consume(&mut batch, Durability::Synced).unwrap();
}

/// Regions 1 and 2 with entries 1 to 9 of term 1.
fn two_logs() -> RaftLog {
    let log = new();
    consume(&log, |b| {
        put(b, R, 1, 1..=9);
        put(b, OTHER, 1, 1..=9);
    });
    log
}

#[test]
fn an_append_over_a_conflicting_suffix_cuts_it_and_the_last_index_follows() {
    let log = two_logs();
    consume(&log, |b| {
        put(b, R, 3, 5..=6);
        b.put_hard_state(R, b"term 3").unwrap();
    });
    let state = log.raft_state(R).unwrap().unwrap();
    assert_eq!((&state.hard_state[..], state.log.last, state.log.last_term), (&b"term 3"[..], 6, Some(3)));
    assert_eq!(log.entry(R, 4).unwrap().unwrap().id.term, 1);
    assert_eq!(log.entry(R, 7).unwrap(), None);
    consume(&log, |b| {
        b.cut_from(R, 3);
    });
    assert_eq!(log.raft_state(R).unwrap().unwrap().log.last, 2);
}

#[test]
fn a_group_without_a_hard_state_has_no_raft_state() {
    assert_eq!(two_logs().raft_state(R).unwrap(), None);
    assert_eq!(new().raft_state(R).unwrap(), None);
}

#[test]
fn a_batch_that_leaves_a_gap_is_refused_and_holds_what_it_held() {
    let log = two_logs();
    let mut batch = log.batch();
    put(&mut batch, OTHER, 1, 10..=10);
    put(&mut batch, R, 1, 20..=20);
    let bytes = batch.bytes();
    assert_eq!(log.consume(&mut batch, Durability::Synced).unwrap_err().kind(), ErrorKind::Gap);
    assert_eq!(batch.bytes(), bytes);
    assert_eq!(log.entry(OTHER, 10).unwrap(), None, "none of it was written");
    consume(&log, |b| put(b, R, 1, 10..=19));
    log.consume(&mut batch, Durability::Synced).unwrap();
    assert!(log.entry(R, 20).unwrap().is_some());
}

#[test]
fn a_batch_is_empty_after_it_was_consumed_and_its_bytes_are_reported() {
    let log = two_logs();
    let mut batch = log.batch();
    for n in 0..3 {
        put(&mut batch, R, 1, 10 + n..=10 + n);
        let estimate = batch.bytes() as u64;
        let consumed = log.consume(&mut batch, Durability::Written).unwrap();
        assert!(batch.is_empty());
        assert!(consumed.bytes > 100 && consumed.bytes <= estimate + 512, "{} of {estimate}", consumed.bytes);
    }
    assert_eq!(log.consume(&mut batch, Durability::Synced).unwrap().bytes, 0);
}

#[test]
fn a_state_is_the_newest_at_or_below_the_apply_index() {
    let log = new();
    consume(&log, |b| {
        for at in [5u64, 60, 300] {
            b.put_region_state(R, at, format!("region {at}").as_bytes()).unwrap();
            b.put_apply_state(R, at, format!("apply {at}").as_bytes()).unwrap();
        }
        b.put_mark(R, "s", b"sorts between the two kinds").unwrap();
    });
    for (asked, found) in [(4, None), (5, Some(5)), (59, Some(5)), (299, Some(60)), (u64::MAX, Some(300))] {
        let text = |kind: &str| found.map(|at: u64| format!("{kind} {at}").into_bytes());
        assert_eq!(log.region_state(R, asked).map(|s| s.to_vec()), text("region"), "{asked}");
        assert_eq!(log.apply_state(R, asked).map(|s| s.to_vec()), text("apply"), "{asked}");
    }
    let all: Vec<u64> = log.region_states(R).into_iter().map(|(at, _)| at).collect();
    assert_eq!(all, [5, 60, 300]);
    assert_eq!(log.region_state(OTHER, 300), None);
}

#[test]
fn a_trim_keeps_the_newest_state_at_or_below_and_all_above() {
    let log = new();
    consume(&log, |b| {
        for at in 1..=9 {
            b.put_apply_state(R, at * 10, b"s").unwrap();
        }
        b.put_region_state(R, 10, b"r").unwrap();
        b.put_mark(R, "flushed default", b"7").unwrap();
    });
    let mut batch = log.batch();
    log.trim_states(&mut batch, R, 69).unwrap();
    log.consume(&mut batch, Durability::Synced).unwrap();
    let left: Vec<u64> = log.apply_states(R).into_iter().map(|(at, _)| at).collect();
    assert_eq!(left, [60, 70, 80, 90]);
    assert_eq!(log.region_state(R, 69).as_deref(), Some(&b"r"[..]), "the only one stays");
    assert_eq!(log.mark(R, "flushed default").as_deref(), Some(&b"7"[..]));
    log.trim_states(&mut batch, R, 5).unwrap();
    assert!(batch.is_empty(), "nothing is that old");
}

#[test]
fn a_collection_of_many_regions_reports_each_and_none_refuses_the_others() {
    let log = two_logs();
    let mut batch = log.batch();
    batch.gc(R, 5).gc(RegionId(99), 5).gc(OTHER, 50).gc(R, 3).gc(R, 0);
    let consumed = log.consume(&mut batch, Durability::Written).unwrap();
    let done: Vec<_> = consumed.collected.iter().map(|c| (c.region, c.done)).collect();
    let dropped = |last| Compacted::Dropped { first: 1, base: EntryId::new(1, last) };
    let expected =
        [(R, dropped(4)), (RegionId(99), Compacted::Gone), (OTHER, dropped(9)), (R, Compacted::Nothing)];
    assert_eq!(done, expected);
    assert_eq!((log.entry(R, 4).unwrap(), log.entry(R, 5).unwrap().map(|e| e.id.index)), (None, Some(5)));
}

#[test]
fn a_cleaned_region_has_nothing_and_a_tombstone_in_the_same_batch_is_all_that_is_left() {
    let log = two_logs();
    consume(&log, |b| {
        for region in [R, OTHER] {
            b.put_hard_state(region, b"term 1").unwrap().put_region_state(region, 5, b"normal").unwrap();
            b.put_apply_state(region, 5, b"applied").unwrap().put_mark(region, "dirty", b"yes").unwrap();
        }
    });
    consume(&log, |b| {
        b.clean(R);
        b.clean(OTHER).put_region_state(OTHER, u64::MAX, b"tombstone").unwrap();
    });
    let mut groups = Vec::new();
    log.for_each_group(|region, state| {
        groups.push((region, state.is_empty()));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(groups, [(OTHER, true)]);
    assert_eq!(log.region_states(OTHER), [(u64::MAX, bytes::Bytes::from_static(b"tombstone"))]);
    for region in [R, OTHER] {
        assert_eq!(log.raft_state(region).unwrap(), None);
        assert_eq!((log.apply_state(region, u64::MAX), log.mark(region, "dirty")), (None, None));
        assert_eq!(log.entry(region, 5).unwrap(), None);
    }
}

#[test]
fn a_merged_batch_is_written_with_the_one_it_was_merged_into_in_its_order() {
    let log = new();
    let (mut all, mut one) = (log.batch(), log.batch());
    put(&mut all, R, 1, 1..=4);
    put(&mut one, R, 2, 3..=3);
    all.merge(&mut one).unwrap();
    assert!(one.is_empty());
    put(&mut one, OTHER, 1, 1..=2);
    all.merge(&mut one).unwrap();
    log.consume(&mut all, Durability::Synced).unwrap();
    assert_eq!(log.entry(R, 3).unwrap().unwrap().id.term, 2);
    assert_eq!((log.entry(R, 4).unwrap(), log.entry(OTHER, 2).unwrap().is_some()), (None, true));
}

#[test]
fn a_fetch_stops_at_its_size_and_gives_one_entry_at_least() {
    let log = two_logs();
    let mut to = Vec::new();
    // 100 bytes of payload each.
    assert_eq!(log.fetch(R, 2..8, Some(350), &mut to).unwrap(), 3);
    assert_eq!(log.fetch(R, 5..8, Some(0), &mut to).unwrap(), 1);
    assert_eq!(log.fetch(R, 6..10, None, &mut to).unwrap(), 4);
    assert_eq!(indexes(&to), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(log.fetch(R, 6..11, None, &mut to).unwrap_err().kind(), ErrorKind::Unavailable);
    consume(&log, |b| {
        b.gc(R, 4);
    });
    assert_eq!(log.fetch(R, 3..5, None, &mut to).unwrap_err().kind(), ErrorKind::Compacted);
    assert_eq!(to.len(), 8, "a fetch that fails adds nothing");
}

#[test]
fn a_log_begins_after_its_snapshot_and_the_states_stay() {
    let log = two_logs();
    consume(&log, |b| {
        b.put_hard_state(R, b"term 4").unwrap().put_region_state(R, 5, b"peers 1 2 3").unwrap();
        b.begin_after(R, EntryId::new(4, 100)).unwrap().put_apply_state(R, 100, b"applied").unwrap();
    });
    let state = log.raft_state(R).unwrap().unwrap().log;
    assert_eq!((state.base, state.first, state.last), (Some(EntryId::new(4, 100)), 101, 100));
    assert_eq!(log.region_state(R, 100).as_deref(), Some(&b"peers 1 2 3"[..]));
    consume(&log, |b| put(b, R, 4, 101..=101));
}

#[test]
fn a_store_with_an_ident_is_not_empty_and_has_no_group() {
    let log = new();
    assert!(log.is_empty());
    consume(&log, |b| {
        b.put_ident("cluster", b"6").unwrap().put_ident("prepared", b"region 1").unwrap();
    });
    assert!(!log.is_empty());
    assert_eq!(log.for_each_group(|region, _| ControlFlow::Break(region)), None);
    consume(&log, |b| {
        b.delete_ident("prepared").unwrap().clean(R);
    });
    assert_eq!((log.ident("cluster").as_deref(), log.ident("prepared")), (Some(&b"6"[..]), None));
    assert!(log.engine().region(STORE).exists());
}

#[test]
fn a_purge_names_the_regions_that_hold_old_segments_and_frees_them_once_they_are_collected() {
    let log = two_logs();
    // Many segments of the one; the other's nine entries stand in the first, among garbage.
    for index in 10..2500 {
        let mut batch = log.batch();
        put(&mut batch, R, 1, index..=index);
        batch.gc(R, index - 5);
        log.consume(&mut batch, Durability::Written).unwrap();
    }
    let pins = log.engine().pins(usize::MAX);
    assert_eq!((pins[0].region, pins[0].age >= 3, pins[0].garbage_percent > 50), (OTHER, true, true));
    let hints = Hints { age_min: 0, garbage_percent_min: 0, regions_max: 1 };
    let purged = log.purge(&hints).unwrap();
    assert!(purged.report.segments_freed > 0);
    assert_eq!(purged.holding.len(), 1);
    assert!(log.purge(&Hints { age_min: u32::MAX, ..hints }).unwrap().holding.is_empty());
    consume(&log, |b| {
        b.gc(OTHER, 10);
    });
    let all = Hints { regions_max: usize::MAX, ..hints };
    assert!(log.purge(&all).unwrap().holding.iter().all(|pin| pin.region == R));
}
