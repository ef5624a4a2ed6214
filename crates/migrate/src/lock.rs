//! Keeps the engines out of a source while it is read.

use crate::failure::{Failure, Result};
use fs2::FileExt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A program that has closed a store may share its lock for a moment with a process that it is starting.
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(10);

/// Locks of a store, released when dropped.
pub(crate) struct Lock {
    _held: Vec<File>,
}

impl Lock {
    /// As raft-engine takes it: on the file `LOCK`.
    pub(crate) fn of_theirs(dir: &Path, spill: Option<&Path>) -> Result<Lock> {
        let mut held = Vec::new();
        for dir in [Some(dir), spill].into_iter().flatten() {
            let path = dir.join("LOCK");
            held.push(take(lock_file(&path)?.0, &path)?);
        }
        Ok(Lock { _held: held })
    }

    /// As RocksDB takes it: a record lock on the file `LOCK`; a shared one, which keeps RocksDB out as well,
    /// where that file may only be read. This process may not open that file a second time: closing it would
    /// release the lock.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn of_rocksdb(dir: &Path) -> Result<Lock> {
        use rustix::fs::{FlockOperation, fcntl_lock};
        let path = dir.join("LOCK");
        let (file, is_writable) = lock_file(&path)?;
        let kind = match is_writable {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        match fcntl_lock(&file, kind).map_err(io::Error::from) {
            Ok(()) => Ok(Lock { _held: vec![file] }),
            // Which of the two a system answers is its own choice.
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied) => {
                Err(is_locked(&path))
            }
            Err(e) => Err(Failure::io("locking", &path, &e)),
        }
    }

    /// As Raftwood takes it: on the directory, and on the file `LOCK` if that is there.
    pub(crate) fn of_ours(dir: &Path) -> Result<Lock> {
        let mut held = vec![take(opened(File::open(dir), dir)?, dir)?];
        let path = dir.join("LOCK");
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            file => held.push(take(opened(file, &path)?, &path)?),
        }
        Ok(Lock { _held: held })
    }

    /// On a directory that this program made.
    pub(crate) fn of_place(dir: &Path) -> Result<Lock> {
        Ok(Lock { _held: vec![take(opened(File::open(dir), dir)?, dir)?] })
    }
}

fn opened(file: io::Result<File>, path: &Path) -> Result<File> {
    file.map_err(|e| Failure::io("opening", path, &e))
}

/// A lock file, made if it is missing; and whether it may be written to. Where that is forbidden, one that is
/// there is as good to lock. One that is missing is not: what cannot be made here may be made through another
/// mount, by a program that then opens the store.
fn lock_file(path: &Path) -> Result<(File, bool)> {
    let refused = match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path) {
        Ok(file) => return Ok((file, true)),
        Err(e) => e,
    };
    let is_forbidden =
        matches!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
    match File::open(path) {
        Ok(file) if is_forbidden => Ok((file, false)),
        Err(e) if is_forbidden && e.kind() == io::ErrorKind::NotFound => Err(Failure::CannotRun(format!(
            "{} is not there and cannot be made ({refused}): without it a program could open the store meanwhile. \
             Copy the directory to where it can be written, and import the copy",
            path.display()
        ))),
        _ => Err(Failure::io("opening", path, &refused)),
    }
}

fn take(file: File, path: &Path) -> Result<File> {
    let began = Instant::now();
    loop {
        match file.try_lock_exclusive() {
            Ok(()) => return Ok(file),
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(Failure::io("locking", path, &e)),
            Err(_) if began.elapsed() > PATIENCE => return Err(is_locked(path)),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn is_locked(path: &Path) -> Failure {
    Failure::CannotRun(format!(
        "{} is locked: a program has the store open, or migrates it; end that first",
        path.display()
    ))
}
