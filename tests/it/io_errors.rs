//! What the system or the device refuses is no damage: it is said to be what it is, and may be tried again.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::entries;
use crate::support::files::newest;
use raftwood::vfs::sim::{EACCES, EIO, EMFILE, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{Durability, Engine, Error, ErrorKind, ReadLimit, RegionId, WriteError};

const R: RegionId = RegionId(3);

fn append(engine: &Engine, index: u64, len: usize) -> Result<(), Error> {
    entries::append(engine, R, index, len).map(drop).map_err(WriteError::into_error)
}

/// Twenty entries in a store that was killed: its log is unsealed, and open reads all of it.
fn killed() -> SimVfs {
    let vfs = SimVfs::new(8);
    let engine = of_run(&vfs, 1).open(DIR).unwrap();
    (1..=20).for_each(|index| append(&engine, index, 1000).unwrap());
    kill(&vfs, engine);
    vfs
}

fn is_whole(engine: &Engine, last: u64) {
    let entries = engine.region(R).entries(.., ReadLimit::NONE).unwrap();
    assert!(entries.iter().map(|e| e.id.index).eq(1..=last));
    assert!(entries.iter().all(|e| e.payload.iter().all(|b| *b == e.id.index as u8)));
}

/// A cable that was loose for a second was damage: of the store, with the advice to restore it from a backup.
#[test]
fn what_the_device_refuses_once_is_read_and_for_good_is_an_io_error() {
    let vfs = killed();
    for file in [".ckpt", ".log"] {
        let disk = vfs.crash(LossPolicy::KeepAll);
        disk.set_fault(Fault::error(EIO).on(OpKind::Read).path(file));
        let engine = of_run(&disk, 2).open(DIR).unwrap();
        assert!(disk.faults_struck() > 0 && engine.open_report().bad_checkpoints == 0, "{file}");
        assert!(engine.open_report().damage.is_empty(), "{file}");
        is_whole(&engine, 20);
        kill(&disk, engine);
    }
    // The log is whole, and gives back what the only checkpoint held.
    for call in [OpKind::Read, OpKind::Open] {
        let disk = vfs.crash(LossPolicy::KeepAll);
        disk.set_fault(Fault::error(EIO).on(call).path(".ckpt").forever());
        let engine = of_run(&disk, 2).open(DIR).unwrap();
        assert_eq!(engine.open_report().bad_checkpoints, 1);
        is_whole(&engine, 20);
        kill(&disk, engine);
    }
    // Without its beginning it does not.
    let gap = vfs.crash(LossPolicy::KeepAll);
    gap.remove_file(format!("{DIR}/0000000001.log")).unwrap();
    gap.set_fault(Fault::error(EIO).on(OpKind::Read).path(".ckpt").forever());
    let error = of_run(&gap, 2).open(DIR).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Io, true), "{error:?}");
    let refusals = [
        (EIO, OpKind::Read, ".log"),
        (EIO, OpKind::Open, ".log"),
        (EIO, OpKind::List, ""),
        (EMFILE, OpKind::Open, ".ckpt"),
        (EMFILE, OpKind::Open, ".log"),
        (EACCES, OpKind::List, ""),
        (EACCES, OpKind::Lock, ""),
    ];
    for (errno, call, file) in refusals {
        let disk = vfs.crash(LossPolicy::KeepAll);
        disk.set_fault(Fault::error(errno).on(call).path(file).forever());
        let error = of_run(&disk, 2).open(DIR).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{errno} at {call:?} of {file}: {error:?}");
        assert!(error.is_retryable() && error.path().is_some(), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.to_string().contains(&cause), "`{error}` says what its source says: `{cause}`");
        assert!(format!("{error:?}").contains(&cause), "{error:?}");
        disk.clear_faults();
        is_whole(&of_run(&disk, 3).open(DIR).unwrap(), 20);
    }
}

/// Of several checkpoints the newest serves. One that cannot be opened for want of a descriptor is not a bad
/// one, for which an older one would do.
#[test]
fn a_lack_of_descriptors_is_not_taken_for_a_bad_checkpoint() {
    let vfs = SimVfs::new(9);
    for life in 1..=3 {
        let engine = of_run(&vfs, life).open(DIR).unwrap();
        append(&engine, life, 1000).unwrap();
        engine.close().unwrap();
    }
    let name = newest(&vfs, "ckpt").file_name().unwrap().to_string_lossy().into_owned();
    vfs.set_fault(Fault::error(EMFILE).on(OpKind::Open).path(name).forever());
    assert_eq!(of_run(&vfs, 9).open(DIR).unwrap_err().kind(), ErrorKind::Io);
    vfs.clear_faults();
    let engine = of_run(&vfs, 10).open(DIR).unwrap();
    assert_eq!(engine.open_report().bad_checkpoints, 0);
    is_whole(&engine, 3);
}

/// A failed sync of the log stops all writing, and so does a failed write to it. A file or a name that cannot
/// be made stops only what needs it: it is tried again, with another file. What was acknowledged is there
/// after a power cut in any case.
#[test]
fn an_error_outside_of_the_log_fails_what_needed_it_and_nothing_else() {
    let mut survived = 0;
    for call in [OpKind::SyncDir, OpKind::Rename, OpKind::Create, OpKind::Allocate] {
        for skip in 0..4 {
            let vfs = SimVfs::new(10);
            let engine = of_run(&vfs, 1).open(DIR).unwrap();
            append(&engine, 1, 1000).unwrap();
            vfs.set_fault(Fault::error(EIO).on(call).skip(skip));
            let (mut next, mut failed) = (2, 0);
            while next <= 60 {
                match append(&engine, next, 6000) {
                    Ok(()) => next += 1,
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Io, "{call:?} {skip}: {e:?}");
                        failed += 1;
                        assert!(failed < 5, "{call:?} {skip}: it goes on failing: {e:?}");
                    }
                }
            }
            survived += vfs.faults_struck();
            let cut = vfs.crash(LossPolicy::LoseAll);
            is_whole(&of_run(&cut, 2).open(DIR).unwrap(), 60);
        }
    }
    assert!(survived >= 10, "{survived} faults struck");
    for call in [OpKind::Write, OpKind::SyncData] {
        let vfs = SimVfs::new(11);
        let engine = of_run(&vfs, 1).open(DIR).unwrap();
        append(&engine, 1, 1000).unwrap();
        vfs.set_fault(Fault::error(EIO).on(call).path(".log"));
        let outcome = append(&engine, 2, 1000);
        let poisoned = outcome.and_then(|()| append(&engine, 3, 1000)).unwrap_err();
        assert!(engine.is_poisoned(), "{call:?}");
        assert_eq!((poisoned.kind(), poisoned.is_retryable()), (ErrorKind::Poisoned, false), "{call:?}");
        assert_eq!(append(&engine, 3, 1000).unwrap_err().kind(), ErrorKind::Poisoned, "{call:?}");
        // A batch may be on the disk, and does not come back; one without operations is not.
        let mut batch = engine.batch();
        batch.region(R).put(b"key", b"value").unwrap();
        for (batch, comes_back) in [(batch, false), (engine.batch(), true)] {
            for durability in [Durability::Synced, Durability::Written] {
                let written = engine.write(batch.clone(), durability).map(drop);
                let submitted = engine.submit(batch.clone(), durability).map(drop);
                for refused in [written.unwrap_err(), submitted.unwrap_err()] {
                    assert_eq!(refused.kind(), ErrorKind::Poisoned, "{call:?}");
                    assert_eq!(refused.into_batch().is_some(), comes_back, "{call:?} {durability:?}");
                }
            }
        }
        assert_eq!(engine.region(R).entry(1).unwrap().payload.len(), 1000);
    }
}
