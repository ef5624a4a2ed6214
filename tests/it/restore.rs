//! A store out of a copy of one: every entry, a name of its own, and no vote that it may act on.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::entries;
use crate::support::files;
use crate::support::two_regions::*;
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, Moment, SimVfs};
use raftwood::{
    Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Lookup, RegionId, RestoreOptions,
    RestoreReport, Result, ScrubOptions,
};

const COPY: &str = "/copy";
const NEW: &str = "/new";
const BULK: RegionId = RegionId(50);

/// A copy of entries 1 to 14 and 1 to 8 of two regions with hard states and keys, and of more segments of a
/// third.
fn copied() -> Fixture {
    let mut f = Fixture::new();
    let engine = f.sealed();
    append(&engine, R, 9..=12);
    for index in 1..=6 {
        entries::append(&engine, BULK, index, 30 << 10).unwrap();
    }
    engine.tick().unwrap();
    append(&engine, R, 13..=14);
    let mut batch = engine.batch();
    batch.region(R).set_hard_state(b"voted for 3").unwrap().put(b"key", b"value").unwrap();
    batch.region(R).compact_through(2).unwrap();
    batch.region(OTHER).set_hard_state(b"voted for 2").unwrap();
    batch.region(RegionId(60)).reset(EntryId::new(4, 90)).unwrap();
    batch.region(RegionId(61)).put(b"a", b"b").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let mut batch = engine.batch();
    batch.region(RegionId(61)).destroy();
    engine.write(batch, Durability::Synced).unwrap();
    engine.backup(COPY).unwrap();
    // The replica goes on: its files are given back, and used again.
    append(&engine, R, 15..=16);
    engine.close().unwrap();
    f
}

fn restore(vfs: &SimVfs, run: u64) -> Result<RestoreReport> {
    of_run(vfs, run).restore(COPY, NEW, &RestoreOptions::default(), |_| {})
}

fn open_new(vfs: &SimVfs) -> Engine {
    of_run(vfs, 95).open(NEW).unwrap()
}

#[track_caller]
fn has_all(engine: &Engine) {
    is_whole(engine, R, 3..=14);
    is_whole(engine, OTHER, 1..=8);
    let bulk = engine.region(BULK);
    assert_eq!((bulk.first_index(), bulk.last_index()), (1, 6));
    (1..=6).for_each(|index| assert_eq!(bulk.entry(index).unwrap().payload.len(), 30 << 10));
    assert_eq!(engine.region(R).get(b"key").as_deref(), Some(&b"value"[..]));
    assert_eq!(engine.region(R).term(2).unwrap(), term(2));
    assert_eq!(engine.region(RegionId(60)).term(90).unwrap(), 4);
    assert_eq!(engine.regions(), [R, OTHER, BULK, RegionId(60)]);
    assert!(engine.open_report().damage.is_empty(), "{:?}", engine.open_report());
}

fn is_lost(engine: &Engine, region: RegionId) -> bool {
    let lost = Health::Damaged { ranges: vec![], hard_state: HardStateHealth::Lost };
    engine.region(region).health() == lost && engine.region(region).hard_state_or_lost().is_err()
}

#[test]
fn a_restored_store_has_every_entry_and_no_hard_state_that_it_may_act_on() {
    let f = copied();
    let before = copy_of(&f.vfs);
    let mut seen = (0, 0);
    let report = of_run(&f.vfs, 90).restore(COPY, NEW, &RestoreOptions::default(), |p| {
        assert!(p.done_bytes <= p.total_bytes && p.done_bytes >= seen.0, "{p:?} after {seen:?}");
        seen = (p.done_bytes, p.total_bytes);
    });
    let report = report.unwrap();
    assert_eq!((report.regions, report.entries, report.hard_states_lost), (4, 26, 4), "{report:?}");
    assert!(report.segments > 1 && !report.started_over, "{report:?}");
    assert_eq!(seen.0, seen.1);
    assert_eq!(copy_of(&f.vfs), before, "the copy was changed");
    for loss in [LossPolicy::LoseAll, LossPolicy::KeepAll] {
        let vfs = f.vfs.crash(loss);
        let checked = of_run(&vfs, 91).check(NEW, &ScrubOptions::default().rate_bytes(0), |_| {}).unwrap();
        assert!(checked.is_clean() && checked.entries == 26, "{checked:?}");
        let engine = open_new(&vfs);
        has_all(&engine);
        assert_eq!(engine.open_report().regions, 4);
        for region in [R, OTHER, BULK, RegionId(60)] {
            assert!(is_lost(&engine, region), "{region}");
        }
        // It may have had them since, and may have put others in the place of these.
        let region = engine.region(R);
        assert_eq!(region.lookup(EntryId::new(term(15), 15)), Lookup::Unknown);
        assert_eq!(region.lookup(EntryId::new(99, 14)), Lookup::Unknown);
        assert_eq!(region.lookup(EntryId::new(term(14), 14)), Lookup::Have);
        drop(region);
        // All of that outlives a kill and a close, and ends with the hard state of a peer.
        kill(&vfs, engine);
        open_new(&vfs).close().unwrap();
        let engine = open_new(&vfs);
        has_all(&engine);
        let mut batch = engine.batch();
        batch.region(R).set_hard_state(b"peer 9").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        append(&engine, R, 15..=20);
        kill(&vfs, engine);
        let engine = open_new(&vfs);
        is_whole(&engine, R, 3..=20);
        assert!(engine.region(R).health() == Health::Healthy && is_lost(&engine, OTHER));
        engine.purge().unwrap();
        engine.close().unwrap();
        is_whole(&open_new(&vfs), R, 3..=20);
    }
}

fn copy_of(vfs: &SimVfs) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let all = files::files(vfs).into_iter();
    all.filter(|(path, _)| path.starts_with(COPY)).collect()
}

#[test]
fn of_a_cluster_that_is_restored_as_a_whole_the_hard_states_are_taken() {
    let f = copied();
    let how = RestoreOptions::default().whole_cluster(true);
    let report = of_run(&f.vfs, 90).restore(COPY, NEW, &how, |_| {}).unwrap();
    assert_eq!(report.hard_states_lost, 0);
    let engine = open_new(&f.vfs);
    has_all(&engine);
    assert_eq!(engine.region(R).hard_state_or_lost().unwrap().as_deref(), Some(&b"voted for 3"[..]));
    assert_eq!(engine.region(R).health(), Health::Healthy);
}

/// What was lost before the copy was made stays lost, although all others are restored with it.
#[test]
fn a_hard_state_that_the_copy_lacks_is_lost_in_a_whole_cluster_too() {
    let f = copied();
    restore(&f.vfs, 90).unwrap();
    let how = RestoreOptions::default().whole_cluster(true);
    let report = of_run(&f.vfs, 92).restore(NEW, "/newer", &how, |_| {}).unwrap();
    assert_eq!(report.hard_states_lost, 4);
    assert!(is_lost(&of_run(&f.vfs, 93).open("/newer").unwrap(), R));
}

#[test]
fn files_of_the_old_store_and_of_the_new_one_do_not_verify_in_each_other() {
    let f = copied();
    restore(&f.vfs, 90).unwrap();
    let headers = |dir: &str| -> Vec<Vec<u8>> {
        let all = files::files(&f.vfs).into_iter();
        let here = all.filter(|(path, bytes)| path.starts_with(dir) && bytes.len() > 40);
        here.map(|(_, bytes)| bytes[24..40].to_vec()).collect()
    };
    let (copy, new) = (headers(COPY), headers(NEW));
    assert!(copy.iter().all(|id| *id == copy[0]) && new.iter().all(|id| *id == new[0]));
    assert_ne!(copy[0], new[0]);
}

#[test]
fn a_crash_at_any_call_leaves_no_store_or_a_whole_one_and_calling_again_makes_it() {
    let f = copied();
    f.vfs.snapshot_every(Some(Moment::Before));
    restore(&f.vfs, 90).unwrap();
    let mut snapshots = f.vfs.take_snapshots();
    f.vfs.snapshot_every(None);
    snapshots.push(f.vfs.freeze());
    let (mut none, mut refused, mut complete, mut over) = (0, 0, 0, 0);
    for snapshot in &snapshots {
        for loss in [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(1), LossPolicy::Random(2)] {
            let vfs = snapshot.crash(loss);
            let has_any = files::files(&vfs).keys().any(|path| {
                path.starts_with(NEW) && ["cold", "foot", "tmp"].iter().any(|ext| files::is_a(path, ext))
            });
            match of_run(&vfs.crash(LossPolicy::KeepAll), 95).open(NEW) {
                Ok(engine) if engine.open_report().created => {
                    assert!(!has_any, "what is there of a store was mistaken for none");
                    none += 1;
                }
                Ok(engine) => {
                    has_all(&engine);
                    assert!(is_lost(&engine, R) && is_lost(&engine, OTHER));
                    assert_eq!(restore(&vfs, 96).unwrap_err().kind(), ErrorKind::InvalidArgument);
                    complete += 1;
                    continue;
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Damaged, "{e}");
                    refused += 1;
                }
            }
            over += u64::from(restore(&vfs, 96).unwrap().started_over);
            let engine = open_new(&vfs.crash(LossPolicy::LoseAll));
            has_all(&engine);
            assert!(is_lost(&engine, R) && is_lost(&engine, OTHER));
            assert!(engine.open_report().foreign.is_empty() && engine.open_report().removed.is_empty());
        }
    }
    assert!(none > 3 && refused > 20 && complete >= 4 && over > 20, "{none} {refused} {complete} {over}");
}

#[test]
fn an_error_at_any_call_is_said_and_calling_again_goes_on() {
    let f = copied();
    let mut failed = 0;
    for n in 0.. {
        let vfs = f.vfs.crash(LossPolicy::KeepAll);
        let before = vfs.ops();
        vfs.set_fault(Fault::error(EIO).at(before + 1 + n));
        let outcome = restore(&vfs, 90);
        let last = vfs.ops();
        vfs.clear_faults();
        if outcome.is_err() {
            failed += 1;
            // An error with the very last call: the checkpoint has its name.
            match restore(&vfs, 91) {
                Ok(_) => {}
                Err(e) => assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}"),
            }
        }
        has_all(&open_new(&vfs.crash(LossPolicy::KeepAll)));
        if last <= before + n {
            break;
        }
    }
    assert!(failed > 30, "{failed}");
}

#[test]
fn a_copy_that_is_not_whole_is_refused_and_nothing_is_made() {
    let f = copied();
    let damaged = f.vfs.crash(LossPolicy::KeepAll);
    let (path, at) = files::files(&damaged)
        .into_iter()
        .filter(|(path, _)| path.starts_with(COPY))
        .find_map(|(path, bytes)| Some((path, files::position(&bytes, &payload(R, 13))?)))
        .unwrap();
    files::rot(&damaged, path, at + 3);
    let error = restore(&damaged, 90).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("region 7") && cause.contains("13"), "{cause}");
    assert!(!files::files(&damaged).keys().any(|path| path.starts_with(NEW)));
    let half = f.vfs.crash(LossPolicy::KeepAll);
    let log = files::of_kind(&half, "log").into_iter().find(|path| path.starts_with(COPY)).unwrap();
    half.remove_file(log).unwrap();
    assert_eq!(restore(&half, 90).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn what_is_in_use_or_not_empty_or_no_store_is_left_alone() {
    let f = copied();
    let engine = of_run(&f.vfs, 90).open(COPY).unwrap();
    assert_eq!(restore(&f.vfs, 91).unwrap_err().kind(), ErrorKind::Locked);
    engine.close().unwrap();
    let to = |to: &str| of_run(&f.vfs, 92).restore(COPY, to, &RestoreOptions::default(), |_| {});
    let before = files::files(&f.vfs);
    assert_eq!(to(DIR).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(to(COPY).unwrap_err().kind(), ErrorKind::Locked);
    let from = of_run(&f.vfs, 93).restore("/nothing", NEW, &RestoreOptions::default(), |_| {});
    assert_eq!(from.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(files::files(&f.vfs), before);
    // One that was opened and closed is a copy still.
    restore(&f.vfs, 94).unwrap();
    has_all(&open_new(&f.vfs));
}
