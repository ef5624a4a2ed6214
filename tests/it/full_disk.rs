//! A disk without space: one append fails by name, and everything else goes on.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::entries;
use raftwood::vfs::Vfs;
use raftwood::vfs::sim::{ENOSPC, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{Durability, Engine, ErrorKind, RegionId, WriteError};

const R: RegionId = RegionId(7);
const PAYLOAD: usize = 20 << 10;

fn open(vfs: &SimVfs, run: u64) -> Result<Engine, raftwood::Error> {
    of_run(vfs, run).open(DIR)
}

fn append(engine: &Engine, index: u64) -> Result<raftwood::Lsn, WriteError> {
    entries::append(engine, R, index, PAYLOAD)
}

/// Appends until the disk is full; returns the last index that was acknowledged, and the error.
fn fill(engine: &Engine) -> (u64, WriteError) {
    let mut index = engine.region(R).last_index();
    loop {
        match append(engine, index + 1) {
            Ok(_) => index += 1,
            Err(e) => return (index, e),
        }
        assert!(index < 1000, "the disk never fills");
    }
}

fn compact(engine: &Engine, through: u64) {
    entries::compact(engine, R, through).unwrap();
}

#[track_caller]
fn holds(engine: &Engine, indexes: std::ops::RangeInclusive<u64>) {
    entries::holds(engine, R, indexes, PAYLOAD);
}

/// A store with room for about a dozen segments, filled up.
fn full() -> (SimVfs, Engine, u64) {
    let vfs = SimVfs::new(3);
    vfs.set_capacity(Some(1 << 20));
    let engine = open(&vfs, 1).unwrap();
    engine.tick().unwrap();
    let (last, error) = fill(&engine);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(last > 20, "{last}");
    (vfs, engine, last)
}

#[test]
fn a_full_disk_fails_the_append_that_needs_space_and_nothing_else() {
    let (vfs, engine, last) = full();
    // It comes back, and can be tried again.
    let error = append(&engine, last + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let again = error.into_batch().unwrap();
    holds(&engine, 1..=last);
    // What fits into the active segment is taken, and a crash loses nothing of it.
    let mut small = engine.batch();
    small.region(RegionId(8)).set_hard_state(b"vote").unwrap();
    engine.write(small, Durability::Synced).unwrap();
    let cut = vfs.crash(LossPolicy::LoseAll);
    let after = open(&cut, 2).unwrap();
    holds(&after, 1..=last);
    assert_eq!(after.region(RegionId(8)).hard_state().unwrap(), "vote");
    // Space comes back when it is given back, and the batch is welcome then.
    compact(&engine, last - 1);
    engine.purge().unwrap();
    engine.write(again, Durability::Synced).unwrap();
    holds(&engine, last..=last + 1);
    let after = open(&vfs.crash(LossPolicy::LoseAll), 2).unwrap();
    holds(&after, last..=last + 1);
}

#[test]
fn a_full_disk_purges_though_not_a_block_is_free() {
    let (vfs, engine, last) = full();
    compact(&engine, last - 1);
    vfs.set_capacity(Some(vfs.allocated()));
    assert_eq!(vfs.open_dir(DIR.as_ref()).unwrap().free_space().unwrap(), 0);
    let report = engine.purge().unwrap();
    assert!(report.segments_freed > 5, "{report:?}");
    let (later, _) = fill(&engine);
    assert!(later > last + 5, "{later}");
    holds(&engine, last..=later);
}

/// Where syncing a directory takes space, a store that had been closed did not open on a full disk.
#[test]
fn a_store_whose_directory_cannot_be_synced_is_read_at_once_and_written_to_once_it_can() {
    let vfs = SimVfs::new(4);
    let engine = open(&vfs, 1).unwrap();
    for index in 1..=20 {
        append(&engine, index).unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    vfs.settle();
    let before = vfs.list();
    for life in 2..=4 {
        vfs.set_fault(Fault::error(ENOSPC).on(OpKind::SyncDir).forever());
        let engine = open(&vfs, life).unwrap();
        holds(&engine, 1..=20);
        if life != 3 {
            // As often as it is tried: the files of the pool that a purge may need are not forgotten.
            let pool = engine.stats().pool_bytes;
            for _ in 0..10 {
                assert_eq!(append(&engine, 21).unwrap_err().kind(), ErrorKind::NoSpace);
            }
            assert!(pool > 0 && engine.stats().pool_bytes == pool);
            assert_eq!(vfs.list(), before, "nothing was made, named or removed");
        }
        match life {
            2 | 3 => engine.close().unwrap(),
            _ => {
                vfs.clear_faults();
                append(&engine, 21).unwrap();
                holds(&open(&vfs.crash(LossPolicy::LoseAll), 9).unwrap(), 1..=21);
                compact(&engine, 20);
                engine.purge().unwrap();
                append(&engine, 22).unwrap();
                holds(&engine, 21..=22);
                return;
            }
        }
        vfs.clear_faults();
        assert_eq!(vfs.list(), before);
    }
}

#[test]
fn a_store_on_a_full_disk_opens_and_takes_what_makes_room() {
    let (vfs, engine, last) = full();
    vfs.set_capacity(Some(vfs.allocated()));
    kill(&vfs, engine);
    assert_eq!(vfs.open_dir(DIR.as_ref()).unwrap().free_space().unwrap(), 0);
    let engine = open(&vfs, 2).unwrap();
    holds(&engine, 1..=last);
    compact(&engine, last - 1);
    holds(&engine, last..=last);
    // A part of the reserve went into opening. The rest is for the footers and checkpoints that have to
    // come before any segment goes.
    vfs.set_capacity(Some(vfs.allocated()));
    engine.purge().unwrap();
    append(&engine, last + 1).unwrap();
    holds(&engine, last..=last + 1);
}
