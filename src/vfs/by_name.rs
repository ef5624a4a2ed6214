//! Files that are opened when they are needed, so that a store of many segments holds few descriptors.
//!
//! A sealed segment is read through its mapping. The few that need its file (scrub, check, backup, the
//! cleaner, a read that must see a bad sector as an error) open it by its name, relative to the
//! store's directory, and the last [`OPEN_MAX`] stay open for the next call. The name is right for as
//! long as the owner of the handle sees to it that the file keeps it; that it still means the same
//! file is checked at each opening.

use super::{FileId, Map, OpenMode, Reserved, VfsDir, VfsFile};
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many files that are known by name are open at a time.
pub(crate) const OPEN_MAX: usize = 32;

/// The files of one directory that were opened last.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// The one used last is at the end.
    open: Mutex<VecDeque<(u64, Arc<dyn VfsFile>)>>,
    next_key: AtomicU64,
}

impl OpenFiles {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<dyn VfsFile>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: u64) -> Option<Arc<dyn VfsFile>> {
        let mut open = self.lock();
        let at = open.iter().rposition(|(k, _)| *k == key)?;
        let found = open.remove(at)?;
        let file = found.1.clone();
        open.push_back(found);
        Some(file)
    }

    fn keep(&self, key: u64, file: Arc<dyn VfsFile>) {
        let mut open = self.lock();
        open.retain(|(k, _)| *k != key);
        open.push_back((key, file));
        // Closed once the lock is free: a close may take its time.
        let oldest = if open.len() > OPEN_MAX { open.pop_front() } else { None };
        drop(open);
        drop(oldest);
    }

    fn forget(&self, key: u64) {
        let mut open = self.lock();
        let at = open.iter().position(|(k, _)| *k == key);
        let gone = at.and_then(|at| open.remove(at));
        drop(open);
        drop(gone);
    }

    /// Closes all of them. False if none was open.
    pub(super) fn close_all(&self) -> bool {
        let all = std::mem::take(&mut *self.lock());
        !all.is_empty()
    }
}

/// Opens a file. If the process has no descriptor left, those that are only kept for the next call
/// are given up for it.
pub(super) fn open(
    dir: &dyn VfsDir,
    files: &OpenFiles,
    name: &str,
    mode: OpenMode,
) -> Result<Arc<dyn VfsFile>> {
    match dir.open(name, mode) {
        Err(e) if is_out_of_descriptors(&e) && files.close_all() => dir.open(name, mode),
        opened => opened,
    }
}

/// EMFILE or ENFILE, which have the same numbers on all systems that we know.
fn is_out_of_descriptors(e: &Error) -> bool {
    matches!(e.raw_os_error(), Some(24 | 23))
}

/// A file that holds no descriptor of its own.
#[derive(Debug)]
pub(super) struct ByName {
    dir: Arc<dyn VfsDir>,
    files: Arc<OpenFiles>,
    name: String,
    key: u64,
    id: Option<FileId>,
    /// The handle that it was made of, which is used for as long as somebody else holds it.
    first: Weak<dyn VfsFile>,
}

impl ByName {
    pub(super) fn new(
        dir: Arc<dyn VfsDir>,
        files: Arc<OpenFiles>,
        name: &str,
        file: &Arc<dyn VfsFile>,
    ) -> Result<ByName> {
        let key = files.next_key.fetch_add(1, Ordering::Relaxed);
        Ok(ByName { dir, files, name: name.into(), key, id: file.id()?, first: Arc::downgrade(file) })
    }

    fn file(&self) -> Result<Arc<dyn VfsFile>> {
        if let Some(file) = self.first.upgrade() {
            return Ok(file);
        }
        if let Some(file) = self.files.get(self.key) {
            return Ok(file);
        }
        let file = open(&*self.dir, &self.files, &self.name, OpenMode::Read)?;
        if file.id()? != self.id {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("another file has the name {} now", self.name),
            ));
        }
        self.files.keep(self.key, file.clone());
        Ok(file)
    }
}

impl Drop for ByName {
    fn drop(&mut self) {
        self.files.forget(self.key);
    }
}

impl VfsFile for ByName {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file()?.read_at(buf, offset)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        self.file()?.write_at(bufs, offset)
    }
    fn allocate(&self, len: u64) -> Result<Reserved> {
        self.file()?.allocate(len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.file()?.set_len(len)
    }
    fn sync_data(&self) -> Result<()> {
        self.file()?.sync_data()
    }
    fn sync_all(&self) -> Result<()> {
        self.file()?.sync_all()
    }
    fn len(&self) -> Result<u64> {
        self.file()?.len()
    }
    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        self.file()?.drop_cache(range)
    }
    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        self.file()?.map(len)
    }
    fn id(&self) -> Result<Option<FileId>> {
        Ok(self.id)
    }
    fn begin_generation(&self) -> Result<()> {
        self.file()?.begin_generation()
    }
}
