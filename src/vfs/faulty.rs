//! A file system that makes those planted mistakes that a disk can make. Built with `--cfg planted` alone.
//!
//! A sync that the engine forgets cannot be told from one that does nothing. The engine's code therefore says
//! nothing of such a mistake: with one planted, the directories that it opens are wrapped, and break a
//! promise at that one place, which is known by the name of the file and the call before.

use super::{DirEntry, FileId, LockMode, Map, OpenMode, Reserved, VfsDir, VfsFile};
use crate::planted::{Bug, planted};
use std::any::Any;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Lock = Box<dyn Send + Sync>;

/// `inner` with the mistake that is planted.
pub(super) fn faulty(inner: Arc<dyn VfsDir>, path: &Path) -> Arc<dyn VfsDir> {
    Arc::new(FaultyDir { inner, path: path.into(), changed: Mutex::new(Changed::Nothing) })
}

/// What a directory has to make durable, by the last change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Changed {
    /// Whatever was changed, it was not through this handle.
    Nothing,
    Created,
    /// A file of the pool became a segment.
    Named,
    /// A segment became a file of the pool.
    Freed,
    Else,
}

#[derive(Debug)]
struct FaultyDir {
    inner: Arc<dyn VfsDir>,
    path: Arc<Path>,
    changed: Mutex<Changed>,
}

impl FaultyDir {
    fn note(&self, changed: Changed) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = changed;
    }
}

impl VfsDir for FaultyDir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        self.inner.list()
    }

    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let inner = self.inner.open(name, mode)?;
        if mode == OpenMode::CreateNew {
            self.note(if name == "MARK" { Changed::Created } else { Changed::Else });
        }
        Ok(Arc::new(FaultyFile { inner, name: name.into(), mode, synced: AtomicBool::new(false) }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.note(Changed::Else);
        self.inner.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.note(Changed::Else);
        self.inner.rename(from, to)
    }

    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.note(match (ending(from), ending(to)) {
            ("free", "log") => Changed::Named,
            ("log" | "cold", "free") => Changed::Freed,
            _ => Changed::Else,
        });
        if planted(Bug::PathLookedUpAgain) {
            return std::fs::rename(self.path.join(from), self.path.join(to));
        }
        self.inner.rename_new(from, to)
    }

    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        match to.downcast_ref::<FaultyDir>() {
            Some(to) => self.inner.hard_link(name, &*to.inner, new),
            None => Err(ErrorKind::CrossesDevices.into()),
        }
    }

    fn sync(&self) -> Result<()> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = match *changed {
            Changed::Nothing => planted(Bug::DirectoryNotSyncedAtOpen),
            Changed::Created => planted(Bug::MarkNotSynced),
            Changed::Named => planted(Bug::NameNotSynced),
            Changed::Freed => planted(Bug::FreeNameNotSynced),
            Changed::Else => false,
        };
        *changed = Changed::Else;
        drop(changed);
        if forgotten { Ok(()) } else { self.inner.sync() }
    }

    fn lock(&self, mode: LockMode) -> Result<Lock> {
        if planted(Bug::DirectoryNotLocked) {
            return Err(ErrorKind::Unsupported.into());
        }
        if planted(Bug::LockNotTaken) {
            return Ok(Box::new(()));
        }
        self.inner.lock(mode)
    }

    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Lock> {
        let lock = self.inner.lock_file(name, mode);
        if planted(Bug::LockNotTaken) { Ok(Box::new(lock)) } else { lock }
    }

    fn free_space(&self) -> Result<u64> {
        self.inner.free_space()
    }

    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        if planted(Bug::NamesNotWatched) { Ok(None) } else { self.inner.id_of(name) }
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn VfsFile>,
    /// That it was opened by.
    name: String,
    mode: OpenMode,
    /// A sync through this handle came to its end, or was forgotten.
    synced: AtomicBool,
}

impl FaultyFile {
    /// Whether a sync of the bytes is forgotten.
    fn is_forgotten(&self) -> bool {
        match ending(&self.name) {
            // The header is synced under the name that the file had in the pool, by the same handle.
            "free" if !self.synced.swap(true, Ordering::Relaxed) => planted(Bug::HeaderNotSynced),
            "free" | "log" => planted(Bug::SyncForgotten),
            _ => self.name == "MARK" && planted(Bug::MarkInCacheBelieved),
        }
    }
}

impl VfsFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        match self.inner.read_at(buf, offset) {
            Err(e) if is_bad_sector(&e) && planted(Bug::BadSectorIsNoDamage) => Err(Error::other(e)),
            Err(e) if is_bad_sector(&e) && planted(Bug::BadSectorEndsTheLog) => Ok(0),
            read => read,
        }
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        match self.inner.write_at(bufs, offset) {
            Ok(_) if planted(Bug::ShortWriteIsWhole) => Ok(bufs.iter().map(|b| b.len()).sum()),
            Err(e) if e.kind() == ErrorKind::Interrupted && planted(Bug::InterruptedIsFatal) => {
                Err(Error::other(e))
            }
            written => written,
        }
    }

    fn allocate(&self, len: u64) -> Result<Reserved> {
        if planted(Bug::SpaceNotReserved) {
            return self.inner.set_len(len).map(|()| Reserved::Blocks);
        }
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        if self.is_forgotten() {
            return Ok(());
        }
        self.inner.sync_data().or_else(|e| match planted(Bug::FailedSyncRetried) {
            true => self.inner.sync_data(),
            false => Err(e),
        })
    }

    fn sync_all(&self) -> Result<()> {
        let forgotten = match ending(&self.name) {
            // In a store no file gets such a name before it is complete.
            "log" | "cold" | "foot" => planted(Bug::BackupNotSynced) && self.mode == OpenMode::CreateNew,
            _ if self.name == "MARK" => planted(Bug::MarkNotSynced),
            _ => self.name == "checkpoint.tmp" && planted(Bug::CheckpointNotSynced),
        };
        if forgotten { Ok(()) } else { self.inner.sync_all() }
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        if self.name == "MARK" && planted(Bug::MarkInCacheBelieved) {
            return Ok(());
        }
        self.inner.drop_cache(range)
    }

    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        self.inner.map(len)
    }

    fn id(&self) -> Result<Option<FileId>> {
        self.inner.id()
    }
}

/// What says which kind of file it is.
fn ending(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// EIO, which has the same number on all systems that we know.
fn is_bad_sector(e: &Error) -> bool {
    e.raw_os_error() == Some(5)
}
