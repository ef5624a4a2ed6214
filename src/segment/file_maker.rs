//! Makes files and gives them their names, as long as this engine may.
//!
//! It may not once it is closed, when another engine can have the directory; and not before the names that it
//! found are durable, for one that a crash brings back would stand beside what was made since.

use super::Unwritten;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::vfs::io::write_parts_at;
use crate::vfs::{Dir, OpenMode, Reserved, VfsFile};

/// How much is zero-filled at once.
const FILL_BYTES: usize = 1 << 20;

/// What makes, names and removes the files of segments.
#[derive(Debug)]
pub(crate) struct FileMaker {
    pub(crate) dir: Dir,
    /// The engine is closed, and another one may have the directory: no file is made, named or removed any
    /// more.
    shut: AtomicBool,
    /// The names that this run found are not known to be durable: none is made, given or removed before they
    /// are.
    owes_sync: AtomicBool,
    /// Bytes written to fill files with zeros.
    pub(crate) filled_bytes: AtomicU64,
}

impl FileMaker {
    pub(super) fn new(dir: &Dir) -> FileMaker {
        FileMaker {
            dir: dir.clone(),
            shut: AtomicBool::new(false),
            owes_sync: AtomicBool::new(false),
            filled_bytes: AtomicU64::new(0),
        }
    }

    /// From here on no file is made, named or removed.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    /// The directory cannot be synced, for lack of space: whatever makes, names or removes a file has to do
    /// it first.
    pub(crate) fn owe_sync(&self) {
        self.owes_sync.store(true, Ordering::Release);
    }

    /// Asked wherever a file is made, named or removed: it fails once the engine is closed, and while the
    /// names that are there cannot be made durable.
    pub(crate) fn check_open(&self) -> Result<(), Unwritten> {
        self.check_not_shut().map_err(Unwritten::Failed)?;
        if self.owes_sync.load(Ordering::Acquire) { self.sync_dir() } else { Ok(()) }
    }

    /// As [`check_open`](FileMaker::check_open), where names need not be durable.
    pub(super) fn check_not_shut(&self) -> Result<()> {
        if self.shut.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// Makes all names durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Unwritten> {
        self.dir.sync().map_err(|e| Unwritten::io("syncing the directory", self.dir.path(), e))?;
        self.owes_sync.store(false, Ordering::Release);
        Ok(())
    }

    /// Makes it durable that files were removed, where no sync since has done so.
    pub(crate) fn sync_removed(&self) -> Result<(), Unwritten> {
        if self.dir.owes_removal() { self.sync_dir() } else { Ok(()) }
    }

    /// A new file of `len` bytes. Its blocks are reserved here, so that a full disk is met now and not by an
    /// accepted batch.
    pub(super) fn create(&self, name: &str, len: u64) -> Result<(Arc<dyn VfsFile>, Reserved), Unwritten> {
        self.check_open()?;
        let path = self.dir.join(name);
        let created = self.dir.open(name, OpenMode::CreateNew);
        let file = created.map_err(|e| Unwritten::io("creating a file", &path, e))?;
        match file.allocate(len) {
            Ok(reserved) => Ok((file, reserved)),
            Err(e) => {
                drop(file);
                let _ = self.dir.remove(name);
                Err(Unwritten::io("reserving space", &path, e))
            }
        }
    }

    /// Writes zeros to all of a file, and syncs it.
    pub(super) fn fill(&self, file: &dyn VfsFile, name: &str, len: u64) -> Result<(), Unwritten> {
        let path = self.dir.join(name);
        let zeros = vec![0u8; FILL_BYTES];
        let mut at = 0;
        while at < len {
            let n = FILL_BYTES.min((len - at) as usize);
            write_parts_at(file, &[&zeros[..n]], at)
                .map_err(|e| Unwritten::io("filling a file", &path, e))?;
            at += n as u64;
        }
        self.filled_bytes.fetch_add(len, Ordering::Relaxed);
        file.sync_all().map_err(|e| Unwritten::io("syncing a new file", &path, e))
    }

    /// A handle of its own for a file that is there.
    pub(super) fn open(&self, name: &str) -> Result<Arc<dyn VfsFile>, Unwritten> {
        let opened = self.dir.open(name, OpenMode::ReadWrite);
        opened.map_err(|e| Unwritten::io("opening a segment", &self.dir.join(name), e))
    }
}
