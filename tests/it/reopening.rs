//! A store that lives through restarts: what each run leaves, and what it takes to begin.

use crate::support::engines::{kill, on, salts};
use crate::support::entries;
use crate::support::files::{bytes_of, of_kind, remove_all};
use crate::support::threads;
use raftwood::vfs::sim::{ENOSPC, EROFS, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Background, Engine, EntryId, Error, ErrorKind, Options, Pool, ReadLimit, RegionId, WriteError,
};

const R: RegionId = RegionId(1);

fn manual(vfs: &SimVfs) -> Options {
    on(vfs).salt_source(salts(1)).background(Background::Manual)
}

fn reopen(vfs: &SimVfs) -> Engine {
    manual(vfs).open("/db").unwrap()
}

fn append(engine: &Engine, index: u64, len: usize) -> Result<raftwood::Lsn, WriteError> {
    entries::append(engine, R, index, len)
}

fn vote(engine: &Engine, what: &str) -> Result<raftwood::Lsn, WriteError> {
    entries::vote(engine, R, what)
}

fn compact(engine: &Engine, index: u64) -> Result<raftwood::Lsn, WriteError> {
    entries::compact(engine, R, index)
}

/// Names, lengths and a digest of the bytes.
fn contents(vfs: &SimVfs) -> (Vec<(std::path::PathBuf, u64)>, u64) {
    let mut files = vfs.list();
    files.sort();
    (files, vfs.digest())
}

/// Each open once left a segment, which nothing gave back: a thousand runs that did nothing took 4 GiB, and
/// the next could not open any more.
#[test]
fn an_open_and_close_without_a_write_leaves_the_directory_as_it_was() {
    for background in [Background::Manual, Background::Threads] {
        let vfs = SimVfs::new(1);
        let open = || threads::options(&vfs).background(background).open("/db").unwrap();
        open().close().unwrap();
        for writes in [0, 3, 60] {
            let engine = open();
            let last = engine.region(R).last_index();
            (last + 1..=last + writes)
                .for_each(|index| assert!(append(&engine, index, 5000).unwrap() > raftwood::Lsn::ZERO));
            engine.close().unwrap();
            let before = contents(&vfs);
            for _ in 0..3 {
                let engine = open();
                assert_eq!(engine.region(R).last_index(), last + writes);
                match background {
                    Background::Manual => engine.tick().unwrap(),
                    _ => std::thread::sleep(std::time::Duration::from_millis(150)),
                }
                engine.close().unwrap();
                assert_eq!(contents(&vfs), before);
            }
        }
    }
}

/// Runs a store `runs` times, and returns the most files and bytes that a run left, but for
/// those of the first.
fn most(runs: u64, mut run: impl FnMut(&SimVfs, u64)) -> (usize, u64) {
    let vfs = SimVfs::new(2);
    let mut most = (0, 0);
    for n in 1..=runs {
        run(&vfs, n);
        let (files, bytes) = (vfs.list().len(), bytes_of(&vfs));
        most = (files.max(most.0), bytes.max(most.1));
    }
    most
}

#[test]
fn short_runs_leave_no_more_than_the_live_data_needs() {
    let segment = 64 << 10;
    let (files, bytes) = most(100, |vfs, n| {
        let engine = reopen(vfs);
        assert!(n == 1 || engine.region(R).hard_state().unwrap() == format!("{}", n - 1));
        vote(&engine, &n.to_string()).unwrap();
        engine.close().unwrap();
    });
    assert!(files < 30 && bytes < 12 * segment, "one vote: {files} files, {bytes} bytes");
    let (files, bytes) = most(100, |vfs, n| {
        let engine = reopen(vfs);
        assert_eq!(engine.region(R).last_index(), 5 * (n - 1));
        (5 * n - 4..=5 * n)
            .for_each(|index| assert!(append(&engine, index, 1000).unwrap() > raftwood::Lsn::ZERO));
        compact(&engine, 5 * n - 1).unwrap();
        engine.close().unwrap();
    });
    assert!(files < 30 && bytes < 12 * segment, "compacts all but one: {files} files, {bytes} bytes");
}

#[test]
fn killed_runs_leave_no_more_than_the_live_data_needs() {
    let segment = 64 << 10;
    for policy in [LossPolicy::KeepAll, LossPolicy::LoseAll] {
        let mut disk = SimVfs::new(3);
        for n in 1..=100 {
            let engine = reopen(&disk);
            assert!(n == 1 || engine.region(R).hard_state().unwrap() == format!("{}", n - 1));
            vote(&engine, &n.to_string()).unwrap();
            let next = disk.crash(policy);
            kill(&disk, engine);
            disk = next;
            let (files, bytes) = (disk.list().len(), bytes_of(&disk));
            assert!(files < 30 && bytes < 20 * segment, "run {n}: {files} files, {bytes} bytes");
        }
    }
}

/// Two restarts on a full disk once used up what the store had put by, and the third did not open.
#[test]
fn a_store_lives_through_restarts_on_a_full_disk() {
    for (writes, ticks) in [(false, 0), (true, 0), (true, 3)] {
        let vfs = SimVfs::new(4);
        let open = |n| {
            let engine = manual(&vfs).pool(Pool::default().prewrite(false).files_max(1)).open("/db");
            engine.unwrap_or_else(|e| panic!("restart {n} (writes: {writes}): {e}"))
        };
        vfs.set_capacity(Some(1 << 20));
        let engine = open(0);
        let mut last = 0;
        while append(&engine, last + 1, 9000).is_ok() {
            last += 1;
        }
        // Somebody else takes what is left.
        vfs.set_capacity(Some(bytes_of(&vfs) + 4096));
        kill(&vfs, engine);
        for n in 1..=10 {
            let engine = open(n);
            let read = engine.region(R).entries(.., ReadLimit::NONE).unwrap();
            assert_eq!((read.len() as u64, read.last().unwrap().id.index), (last, last));
            if writes {
                let _ = vote(&engine, "voted");
            }
            (0..ticks).for_each(|_| drop(engine.tick()));
            if n == 10 {
                compact(&engine, last - 1).unwrap();
                engine.purge().unwrap();
                append(&engine, last + 1, 1000).unwrap();
            }
            kill(&vfs, engine);
        }
        assert_eq!(open(11).region(R).last_index(), last + 1);
    }
}

#[test]
fn an_open_without_space_gives_an_engine_that_reads_and_purges() {
    let vfs = SimVfs::new(5);
    let engine = reopen(&vfs);
    (1..=100).for_each(|index| assert!(append(&engine, index, 9000).unwrap() > raftwood::Lsn::ZERO));
    compact(&engine, 99).unwrap();
    engine.close().unwrap();
    remove_all(&vfs, "free");
    vfs.set_capacity(Some(bytes_of(&vfs)));
    for _ in 0..3 {
        let engine = reopen(&vfs);
        assert_eq!(engine.region(R).entry(100).unwrap().payload, vec![100; 9000]);
        assert_eq!(append(&engine, 101, 100).unwrap_err().kind(), ErrorKind::NoSpace);
        engine.close().unwrap();
    }
    let engine = reopen(&vfs);
    let before = bytes_of(&vfs);
    vfs.set_capacity(Some(before + 8192));
    engine.purge().unwrap();
    assert!(bytes_of(&vfs) <= before);
}

/// Where new blocks are taken to write over old ones, a full disk is met by a write and not when the file is
/// made. The copy of the tail failed then, and with it every open, as `Poisoned`.
#[test]
fn a_full_disk_that_fails_writes_over_old_blocks_does_not_keep_a_store_from_opening() {
    let vfs = SimVfs::new(6);
    let engine = reopen(&vfs);
    (1..=5).for_each(|index| assert!(append(&engine, index, 1000).unwrap() > raftwood::Lsn::ZERO));
    kill(&vfs, engine);
    let free = |vfs: &SimVfs| of_kind(vfs, "free").len();
    assert_eq!(free(&vfs), 4);
    // It goes away with the first file that is given up.
    vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Write).path(".log").skip(1));
    let engine = reopen(&vfs);
    assert_eq!(engine.region(R).last_index(), 5);
    assert!(vfs.faults_struck() == 1 && free(&vfs) >= 3);
    append(&engine, 6, 1000).unwrap();
    kill(&vfs, engine);
    // Or does not.
    vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Write).path(".log").forever());
    let error: Error = manual(&vfs).open("/db").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    vfs.clear_faults();
    assert_eq!(reopen(&vfs).region(R).last_index(), 6);
}

/// One run: opens, writes a little, closes.
fn run(vfs: &SimVfs, last: &mut u64) -> Result<(), Error> {
    let engine = manual(vfs).open("/db")?;
    assert_eq!(engine.region(R).entries(.., ReadLimit::NONE)?.len() as u64, *last);
    for _ in 0..2 {
        append(&engine, *last + 1, 3000).map_err(WriteError::into_error)?;
        *last += 1;
    }
    engine.close()
}

#[test]
fn an_error_at_any_call_of_a_run_fails_that_run_alone() {
    use OpKind::{Allocate, Create, Remove, Rename, SetLen, SyncAll, SyncData, SyncDir, Write};
    let mut cases = 0;
    for kind in [Allocate, Create, Remove, Rename, SetLen, SyncAll, SyncData, SyncDir, Write] {
        for (errno, forever) in [(ENOSPC, false), (ENOSPC, true), (EROFS, false), (EROFS, true)] {
            for skip in 0.. {
                // A store that was killed: recovery has a tail to copy.
                let vfs = SimVfs::new(7);
                let engine = reopen(&vfs);
                (1..=3)
                    .for_each(|index| assert!(append(&engine, index, 3000).unwrap() > raftwood::Lsn::ZERO));
                kill(&vfs, engine);
                let fault = Fault::error(errno).on(kind).skip(skip);
                vfs.set_fault(if forever { fault.forever() } else { fault });
                let mut last = 3;
                let outcome = run(&vfs, &mut last);
                let struck = vfs.faults_struck() > 0;
                vfs.clear_faults();
                let case = format!("{kind:?} after {skip}, error {errno}, forever: {forever}");
                if let Err(e) = &outcome {
                    let fine = [ErrorKind::NoSpace, ErrorKind::Io, ErrorKind::Poisoned].contains(&e.kind());
                    assert!(fine && struck, "{case}: {e}");
                }
                // What was not acknowledged may be there.
                let engine = manual(&vfs).open("/db").unwrap_or_else(|e| panic!("{case}: {e}"));
                let there = engine.region(R).last_index();
                assert!(there == last || there == last + 1 && outcome.is_err(), "{case}: {there} of {last}");
                last = there;
                engine.close().unwrap();
                run(&vfs, &mut last).unwrap();
                cases += 1;
                if !struck {
                    break;
                }
            }
        }
    }
    assert!(cases > 100, "{cases}");
}

/// A blank file of an earlier run has that run's number and salt: what a later run writes goes to another.
#[test]
fn a_file_that_an_earlier_run_prepared_is_not_written_to_under_its_old_number() {
    let vfs = SimVfs::new(8);
    let engine = reopen(&vfs);
    // Enough for the next segment to be prepared.
    (1..=2).for_each(|index| assert!(append(&engine, index, 9000).unwrap() > raftwood::Lsn::ZERO));
    engine.tick().unwrap();
    let logs = |vfs: &SimVfs| of_kind(vfs, "log");
    let prepared = logs(&vfs).pop().unwrap();
    assert_eq!(logs(&vfs).len(), 2);
    kill(&vfs, engine);
    let engine = reopen(&vfs);
    append(&engine, 3, 100).unwrap();
    let newest = logs(&vfs).pop().unwrap();
    assert!(newest > prepared, "{newest:?}");
    engine.close().unwrap();
    // Nor does a closed run leave one.
    assert!(!logs(&vfs).contains(&prepared));
    assert_eq!(logs(&vfs).last(), Some(&newest));
    assert_eq!(reopen(&vfs).region(R).term(3).unwrap(), EntryId::new(1, 3).term);
}
