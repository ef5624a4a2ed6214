//! What a replica's store gives of entries that are damaged here, and what it never gives.

use crate::support::engines::{DIR, of_run};
use crate::support::files;
use crate::support::two_regions::*;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{
    Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Reader, RegionId, RepairReport,
    ScrubOptions,
};
use std::path::PathBuf;

const OTHER_DIR: &str = "/replica";

/// The store of a replica with entries 1 to `last` of both regions, and what `more` does to it.
fn replica(vfs: &SimVfs, last: u64, more: impl FnOnce(&Engine)) -> Reader {
    let engine = of_run(vfs, 70).open(OTHER_DIR).unwrap();
    append(&engine, R, 1..=last);
    append(&engine, OTHER, 1..=last);
    more(&engine);
    engine.close().unwrap();
    of_run(vfs, 71).open_read_only(OTHER_DIR).unwrap()
}

/// Entries 1 to 8 of both regions, of which these of the first are rotten, and noticed.
fn rotten(sealed: bool, indexes: &[u64]) -> (Fixture, Engine) {
    let mut f = Fixture::new();
    let engine = if sealed { f.sealed() } else { f.active() };
    indexes.iter().for_each(|index| f.rot(R, *index));
    engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap();
    let noticed: Vec<u64> = damaged(&engine, R).into_iter().flatten().collect();
    assert_eq!(noticed, indexes);
    (f, engine)
}

/// The file of a store that holds an entry of the first region, and where.
fn place_of(vfs: &SimVfs, dir: &str, index: u64) -> (PathBuf, u64) {
    let all = files::files(vfs).into_iter().filter(|(path, _)| path.starts_with(dir));
    let mut found =
        all.filter_map(|(path, bytes)| Some((path, files::position(&bytes, &payload(R, index))?)));
    found.next().unwrap()
}

fn left(report: &RepairReport) -> Vec<(RegionId, u64, ErrorKind)> {
    let of = |e: &raftwood::Error| (e.region().unwrap(), *e.entries().unwrap().start(), e.kind());
    report.left.iter().map(of).collect()
}

#[test]
fn damaged_entries_come_back_as_they_were_and_last() {
    for sealed in [false, true] {
        let (f, engine) = rotten(sealed, &[2, 3, 5, 8]);
        let other = replica(&f.vfs, 8, |_| {});
        let report = engine.repair_from(&other).unwrap();
        assert_eq!((report.repaired, left(&report)), (4, vec![]));
        let check = |engine: &Engine| {
            is_whole(engine, R, 1..=8);
            is_whole(engine, OTHER, 1..=8);
            assert_eq!(engine.region(R).health(), Health::Healthy);
        };
        check(&engine);
        check(&of_run(&f.vfs.crash(LossPolicy::LoseAll), 9).open(DIR).unwrap());
        engine.close().unwrap();
        let engine = of_run(&f.vfs, 10).open(DIR).unwrap();
        check(&engine);
        assert!(engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap().damage.is_empty());
        assert_eq!(engine.repair_from(&other).unwrap().repaired, 0, "nothing is wrong any more");
    }
}

#[test]
fn a_replica_with_another_term_or_other_bytes_or_a_shorter_log_gives_nothing() {
    let other_bytes = |engine: &Engine| {
        let mut batch = engine.batch();
        let mut region = batch.region(R);
        region.truncate_from(4);
        // Another term at 4, other bytes at 5, other lengths beyond.
        let mut bytes = payload(R, 5);
        bytes[9] ^= 1;
        let (fourth, sixth) = (payload(R, 4), b"short".to_vec());
        region.append([(EntryId::new(term(4) - 1, 4), &fourth[..])]).unwrap();
        region
            .append([(EntryId::new(term(5), 5), &bytes[..]), (EntryId::new(term(6), 6), &sixth[..])])
            .unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    };
    for sealed in [false, true] {
        let (f, engine) = rotten(sealed, &[3, 4, 5, 6, 8]);
        let other = replica(&f.vfs, 8, other_bytes);
        let report = engine.repair_from(&other).unwrap();
        assert_eq!(report.repaired, 1, "{report:?}");
        let mut refused = left(&report);
        refused.sort_by_key(|e| e.1);
        let wrong = ErrorKind::InvalidArgument;
        let expected = [(R, 4, wrong), (R, 5, wrong), (R, 6, wrong), (R, 8, ErrorKind::Unavailable)];
        assert_eq!(refused, expected);
        assert_eq!(damaged(&engine, R), [4..=6, 8..=8]);
        engine.region(R).entry(3).unwrap();
        engine.region(R).entry(5).unwrap_err();
    }
}

#[test]
fn a_replica_that_is_damaged_in_the_same_place_gives_nothing_there() {
    let (f, engine) = rotten(true, &[4, 5]);
    drop(replica(&f.vfs, 8, |_| {}));
    let (path, at) = place_of(&f.vfs, OTHER_DIR, 4);
    files::rot(&f.vfs, path, at + 3);
    let other = of_run(&f.vfs, 72).open_read_only(OTHER_DIR).unwrap();
    let report = engine.repair_from(&other).unwrap();
    assert_eq!((report.repaired, left(&report)), (1, vec![(R, 4, ErrorKind::Unavailable)]));
    assert_eq!(damaged(&engine, R), [4..=4]);
}

#[test]
fn nothing_past_the_last_entry_and_no_hard_state_key_or_base_is_taken() {
    let (f, engine) = rotten(true, &[5]);
    let other = replica(&f.vfs, 12, |engine| {
        let mut batch = engine.batch();
        let mut region = batch.region(R);
        region.compact_through(2).unwrap();
        region.set_hard_state(b"the other's vote").unwrap().put(b"key", b"of the other").unwrap();
        batch.region(RegionId(9)).set_hard_state(b"a region that is not here").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    });
    let mut batch = engine.batch();
    batch.region(OTHER).set_hard_state(b"mine").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    assert_eq!(engine.repair_from(&other).unwrap().repaired, 1);
    is_whole(&engine, R, 1..=8);
    let region = engine.region(R);
    assert_eq!((region.first_index(), region.last_index()), (1, 8));
    assert_eq!((region.hard_state(), region.get(b"key")), (None, None));
    assert_eq!(engine.region(OTHER).hard_state().as_deref(), Some(&b"mine"[..]));
    assert_eq!(engine.regions(), [R, OTHER]);
}

/// Of a store that lost its votes the entries may come back, and the votes do not.
#[test]
fn a_lost_hard_state_stays_lost_whatever_the_replica_has() {
    let f = Fixture::new();
    let other = replica(&f.vfs, 8, |engine| {
        let mut batch = engine.batch();
        batch.region(R).set_hard_state(b"the other's vote").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    });
    let how = raftwood::RestoreOptions::default();
    of_run(&f.vfs, 73).restore(OTHER_DIR, DIR, &how, |_| {}).unwrap();
    let (path, at) = place_of(&f.vfs, DIR, 4);
    files::rot(&f.vfs, path, at + 3);
    let engine = of_run(&f.vfs, 74).open(DIR).unwrap();
    engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap();
    assert_eq!(engine.repair_from(&other).unwrap().repaired, 1);
    is_whole(&engine, R, 1..=8);
    let lost = Health::Damaged { ranges: vec![], hard_state: HardStateHealth::Lost };
    assert_eq!(engine.region(R).health(), lost);
    assert!(engine.region(R).hard_state_or_lost().is_err());
}

#[test]
fn of_a_segment_that_is_gone_nothing_is_recorded_and_one_error_says_so() {
    let (f, engine) = rotten(true, &[5]);
    let other = replica(&f.vfs, 8, |_| {});
    engine.close().unwrap();
    f.vfs.remove_file(place_of(&f.vfs, DIR, 2).0).unwrap();
    let engine = of_run(&f.vfs, 75).open(DIR).unwrap();
    let report = engine.repair_from(&other).unwrap();
    assert_eq!(report.repaired, 0);
    let gone = left(&report);
    assert_eq!(gone, [(R, 1, ErrorKind::Unavailable), (OTHER, 1, ErrorKind::Unavailable)]);
    assert_eq!(report.left[0].entries(), Some(1..=8));
}
