//! Keeps both engines out of a source while it is read.

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
        io::ErrorKind::WouldBlock => Failure::CannotRun(format!(
            "{} is locked: a program has the store open, or migrates it; end that first",
            path.display()
        )),
        _ => Failure::io("locking", path, &e),
    })?;
    Ok(file)
}
