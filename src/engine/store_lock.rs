//! Keeps two engines out of one store.
//!
//! Two locks are held: one on the directory itself, and one on the file `LOCK` in it. The directory's cannot
//! be removed by hand, and goes along when the directory is moved; the file's works where a directory cannot
//! be locked (NFS), and is the one that older releases ask for. A reader, `check` and a backup never take
//! either alone for themselves.

use crate::error::{Error, ErrorKind, Result};
use crate::format::names::FileName;
use crate::vfs::meaning::Unlocked;
use crate::vfs::{Dir, LockMode};
use std::path::Path;

/// The locks of a store; released when dropped.
pub(super) struct StoreLock {
    _file: Option<Held>,
    _directory: Option<Held>,
}

type Held = Box<dyn Send + Sync>;

impl StoreLock {
    /// For an engine: nobody else may hold either.
    ///
    /// # Errors
    /// `Locked`, which says which of the two is held, and `Io`.
    pub(super) fn exclusive(dir: &Dir) -> Result<StoreLock> {
        // The directory first: an engine that is locked out has made no file.
        let directory =
            lock_directory(dir, LockMode::Exclusive).map_err(|e| failed(e, "directory", dir.path()))?;
        let name = FileName::Lock.to_string();
        let file = dir.lock_file(&name, LockMode::Exclusive);
        let file = file.map_err(|e| failed(e.into(), "file", &dir.join(&name)))?;
        Ok(StoreLock { _file: Some(file), _directory: directory })
    }

    /// For those who look at a store and must not be disturbed: any number of them, while no engine
    /// has it. `None` when one has.
    pub(super) fn shared(dir: &Dir) -> Result<Option<StoreLock>> {
        let directory = match lock_directory(dir, LockMode::Shared) {
            Err(Unlocked::Busy) => return Ok(None),
            other => other.map_err(|e| failed(e, "directory", dir.path()))?,
        };
        let name = FileName::Lock.to_string();
        let file = match dir.lock_file(&name, LockMode::Shared).map_err(Unlocked::from) {
            // One that belongs to another user may be held by an engine of that user's.
            Err(Unlocked::Busy | Unlocked::Forbidden(_)) => return Ok(None),
            // It was never opened where it lies now.
            Err(Unlocked::Missing(_)) => None,
            other => Some(other.map_err(|e| failed(e, "file", &dir.join(&name)))?),
        };
        Ok(Some(StoreLock { _file: file, _directory: directory }))
    }
}

/// `None` where a directory cannot be locked.
fn lock_directory(dir: &Dir, mode: LockMode) -> Result<Option<Held>, Unlocked> {
    match dir.lock(mode).map_err(Unlocked::from) {
        Err(Unlocked::Unsupported(_)) => Ok(None),
        other => other.map(Some),
    }
}

fn failed(unlocked: Unlocked, what: &str, path: &Path) -> Error {
    match unlocked {
        Unlocked::Busy => Error::new(
            ErrorKind::Locked,
            format!(
                "the lock on the {what} is held: another engine has the store open, or a check of it is running; \
                 close it first, or open read-only to inspect it"
            ),
        )
        .at(path, None),
        Unlocked::Unsupported(e) | Unlocked::Missing(e) | Unlocked::Forbidden(e) | Unlocked::Failed(e) => {
            Error::io("locking the store", path, e)
        }
    }
}
