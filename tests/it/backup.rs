//! A copy of a store that is written to: whole, durable, and its own.

use crate::support::engines::{DIR, of_run};
use crate::support::entries;
use crate::support::files::Files;
use crate::support::two_regions::*;
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, Moment, OpKind, SimVfs};
use raftwood::{Durability, Engine, EntryId, ErrorKind, Health, Options, RegionId, ScrubOptions};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const COPY: &str = "/copy";

fn open_copy(vfs: &SimVfs) -> Engine {
    of_run(vfs, 90).open(COPY).unwrap()
}

/// Entries 1 to 8 of two regions, half of them sealed, and more segments of a third region.
fn busy(f: &mut Fixture) -> Engine {
    let engine = f.sealed();
    append(&engine, R, 9..=12);
    fill(&engine, 1..=6);
    engine.tick().unwrap();
    append(&engine, R, 13..=14);
    engine
}

fn fill(engine: &Engine, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        entries::append(engine, RegionId(50), index, 30 << 10).unwrap();
    }
}

#[track_caller]
fn has_all(engine: &Engine) {
    is_whole(engine, R, 1..=14);
    is_whole(engine, OTHER, 1..=8);
    assert_eq!(engine.region(RegionId(50)).last_index(), 6);
    assert!(engine.open_report().damage.is_empty(), "{:?}", engine.open_report());
}

fn files(vfs: &SimVfs, dir: &str) -> Files {
    let all = crate::support::files::files(vfs);
    all.into_iter().filter(|(path, _)| path.starts_with(dir)).collect()
}

#[test]
fn a_backup_has_everything_that_was_acknowledged_and_is_durable_on_return() {
    let mut f = Fixture::new();
    let engine = busy(&mut f);
    let report = engine.backup(COPY).unwrap();
    assert!(report.linked_segments > 0 && report.copied_segments > 0, "{report:?}");
    assert!(report.linked_bytes > report.copied_bytes, "{report:?}");
    assert_eq!(report.durable, engine.durable_lsn());
    append(&engine, R, 15..=15);
    for loss in [LossPolicy::LoseAll, LossPolicy::KeepAll] {
        let vfs = f.vfs.crash(loss);
        let checked = of_run(&vfs, 91).check(COPY, &ScrubOptions::default().rate_bytes(0), |_| {}).unwrap();
        assert!(checked.is_clean(), "{checked:?}");
        let copy = open_copy(&vfs);
        has_all(&copy);
        append(&copy, R, 15..=16);
        copy.close().unwrap();
    }
    assert_eq!(engine.backup(COPY).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_backup_stays_what_it_was_whatever_becomes_of_the_store() {
    let mut f = Fixture::new();
    let engine = f.open_with(|o| o.pool(raftwood::Pool::default().files_max(3).prewrite(false)));
    append(&engine, R, 1..=14);
    append(&engine, OTHER, 1..=8);
    fill(&engine, 1..=6);
    engine.tick().unwrap();
    engine.backup(COPY).unwrap();
    let before = files(&f.vfs, COPY);
    // Everything dies; its files are given back, and would be used again.
    let mut batch = engine.batch();
    batch.region(R).destroy();
    batch.region(OTHER).destroy();
    batch.region(RegionId(50)).compact_through(6).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    for round in 0..6 {
        engine.purge().unwrap();
        engine.tick().unwrap();
        let first = 7 + round * 4;
        fill(&engine, first..=first + 3);
        let mut batch = engine.batch();
        batch.region(RegionId(50)).compact_through(first + 3).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    assert_eq!(files(&f.vfs, COPY), before);
    let copy = open_copy(&f.vfs);
    is_whole(&copy, R, 1..=14);
    is_whole(&copy, OTHER, 1..=8);
    // And the other way round: what the copy does is no matter of the store's.
    drop(engine);
    let store = files(&f.vfs, DIR);
    let mut batch = copy.batch();
    batch.region(R).destroy();
    copy.write(batch, Durability::Synced).unwrap();
    copy.purge().unwrap();
    copy.close().unwrap();
    assert_eq!(files(&f.vfs, DIR), store);
}

#[test]
fn a_crash_at_any_call_of_a_backup_leaves_the_store_whole_and_no_half_copy_that_opens() {
    let mut f = Fixture::new();
    let engine = busy(&mut f);
    f.vfs.snapshot_every(Some(Moment::Before));
    engine.backup(COPY).unwrap();
    let mut snapshots = f.vfs.take_snapshots();
    f.vfs.snapshot_every(None);
    snapshots.push(f.vfs.freeze());
    let (mut complete, mut refused) = (0, 0);
    for snapshot in &snapshots {
        for loss in [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(1), LossPolicy::Random(2)] {
            let vfs = snapshot.crash(loss);
            has_all(&of_run(&vfs, 80).open(DIR).unwrap());
            match of_run(&vfs, 90).open(COPY) {
                // Before anything of it was durable.
                Ok(copy) if copy.open_report().created => {}
                Ok(copy) => {
                    has_all(&copy);
                    complete += 1;
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Damaged, "{e}");
                    refused += 1;
                }
            }
        }
    }
    assert!(complete >= 4 && refused > 10, "{complete} complete, {refused} refused");
}

#[test]
fn an_error_at_any_call_of_a_backup_is_told_and_costs_the_store_nothing() {
    let mut calls = 0;
    for n in 0.. {
        let mut f = Fixture::new();
        let engine = busy(&mut f);
        let before = f.vfs.ops();
        f.vfs.set_fault(Fault::error(EIO).at(before + 1 + n));
        let outcome = engine.backup(COPY);
        let last = f.vfs.ops();
        f.vfs.clear_faults();
        match outcome {
            // A link that cannot be made is a copy instead, a footer that cannot be looked for is rebuilt.
            Ok(_) => has_all(&open_copy(&f.vfs.crash(LossPolicy::LoseAll))),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{e:?}"),
        }
        has_all(&of_run(&f.vfs.crash(LossPolicy::LoseAll), 80).open(DIR).unwrap());
        calls = n;
        if last <= before + n {
            break;
        }
    }
    assert!(calls > 30, "{calls}");
}

#[test]
fn where_there_are_no_links_all_is_copied() {
    let mut f = Fixture::new();
    let engine = busy(&mut f);
    f.vfs.set_fault(Fault::error(raftwood::vfs::sim::EACCES).on(OpKind::HardLink).forever());
    let report = engine.backup(COPY).unwrap();
    assert_eq!(report.linked_segments, 0);
    has_all(&open_copy(&f.vfs.crash(LossPolicy::LoseAll)));
}

#[test]
fn damage_stays_named_in_the_copy() {
    let mut f = Fixture::new();
    let engine = busy(&mut f);
    f.rot(R, 4);
    engine.region(R).entry(4).unwrap_err();
    engine.backup(COPY).unwrap();
    let copy = open_copy(&f.vfs);
    assert_eq!(damaged(&copy, R), [4..=4]);
    assert_eq!(copy.region(OTHER).health(), Health::Healthy);
}

/// On a real disk, beside threads that write.
#[test]
fn a_backup_beside_writers_holds_what_they_were_told_and_is_one_state() {
    let root = tempfile::tempdir().unwrap();
    let engine = Options::new().segment_bytes(1 << 20).open(root.path().join("store")).unwrap();
    let stop = AtomicBool::new(false);
    let acked: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    let mut copies = 0;
    std::thread::scope(|scope| {
        for (n, acked) in acked.iter().enumerate() {
            let (engine, stop) = (&engine, &stop);
            scope.spawn(move || {
                for index in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Two regions in one batch: both or none.
                    let mut batch = engine.batch();
                    for region in [n as u64, 10 + n as u64] {
                        let payload = vec![index as u8; 3000];
                        batch
                            .region(RegionId(region))
                            .append([(EntryId::new(1, index), &payload[..])])
                            .unwrap();
                    }
                    engine.write(batch, Durability::Synced).unwrap();
                    acked.store(index, Ordering::SeqCst);
                }
            });
        }
        for n in 0..5 {
            let before: Vec<u64> = acked.iter().map(|a| a.load(Ordering::SeqCst)).collect();
            let dir = root.path().join(format!("copy {n}"));
            engine.backup(&dir).unwrap();
            let copy = Options::new().open(&dir).unwrap();
            for (region, least) in before.iter().enumerate() {
                let [a, b] =
                    [region as u64, 10 + region as u64].map(|r| copy.region(RegionId(r)).last_index());
                assert_eq!(a, b, "a batch is in the copy whole or not at all");
                assert!(a >= *least, "{a} of {least}");
                if a > 0 {
                    assert_eq!(copy.region(RegionId(region as u64)).entry(a).unwrap().payload[0], a as u8);
                }
            }
            assert!(copy.open_report().damage.is_empty());
            copies += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(copies, 5);
}

/// A close once waited until everything was copied.
#[test]
fn a_close_ends_a_backup_and_does_not_wait_for_it() {
    let mut f = Fixture::new();
    let engine = busy(&mut f);
    fill(&engine, 7..=20);
    // Nothing can be linked: all is copied, and each write of the copy takes its time.
    f.vfs.set_fault(Fault::error(raftwood::vfs::sim::EACCES).on(OpKind::HardLink).forever());
    let (begun, copies) = std::sync::mpsc::channel();
    let begun = std::sync::Mutex::new(begun);
    f.vfs.set_hook(Some(std::sync::Arc::new(move |op| {
        if op.path.starts_with(COPY) && op.kind == OpKind::Write {
            let _ = begun.lock().unwrap().send(());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    })));
    let inner = engine.clone();
    let backup = std::thread::spawn(move || inner.backup(COPY).map(drop).map_err(|e| e.kind()));
    copies.recv().unwrap();
    engine.close().unwrap();
    assert!(!backup.is_finished(), "the close waited for the copy");
    assert_eq!(backup.join().unwrap(), Err(ErrorKind::Closed));
    f.vfs.set_hook(None);
    f.vfs.clear_faults();
    // It has no checkpoint: no half copy opens.
    assert_eq!(of_run(&f.vfs, 91).open(COPY).map(drop).unwrap_err().kind(), ErrorKind::Damaged);
}
