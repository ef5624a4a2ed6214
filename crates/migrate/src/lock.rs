//! Keeps the engines out of a source while it is read.

use crate::failure::{Failure, Result};
use fs2::FileExt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Locks of a store, released when dropped.
pub(crate) struct Lock {
    _held: Vec<File>,
}

impl Lock {
    /// As raft-engine takes it: on the file `LOCK`, which is made if it is missing.
    pub(crate) fn of_theirs(dir: &Path, spill: Option<&Path>) -> Result<Lock> {
        let mut held = Vec::new();
        for dir in [Some(dir), spill].into_iter().flatten() {
            let path = dir.join("LOCK");
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            held.push(take(file, &path)?);
        }
        Ok(Lock { _held: held })
    }

    /// As RocksDB takes it: a record lock on the file `LOCK`, which is made if it is missing. This process
    /// may not open that file a second time: closing it would release the lock.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn of_rocksdb(dir: &Path) -> Result<Lock> {
        use rustix::fs::{FlockOperation, fcntl_lock};
        let path = dir.join("LOCK");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Failure::io("opening", &path, &e))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
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
        let mut held = vec![take(File::open(dir), dir)?];
        let path = dir.join("LOCK");
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            file => held.push(take(file, &path)?),
        }
        Ok(Lock { _held: held })
    }

    /// On a directory that this program made.
    pub(crate) fn of_place(dir: &Path) -> Result<Lock> {
        Ok(Lock { _held: vec![take(File::open(dir), dir)?] })
    }
}

fn take(file: io::Result<File>, path: &Path) -> Result<File> {
    let file = file.map_err(|e| Failure::io("opening", path, &e))?;
    file.try_lock_exclusive().map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => is_locked(path),
        _ => Failure::io("locking", path, &e),
    })?;
    Ok(file)
}

fn is_locked(path: &Path) -> Failure {
    Failure::CannotRun(format!(
        "{} is locked: a program has the store open, or migrates it; end that first",
        path.display()
    ))
}
