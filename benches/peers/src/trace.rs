//! A file system that notes how long each operation took, and on which file: what an engine does there while
//! a write waits is what the wait is called.

use raftwood::vfs::{DirEntry, FileId, LockMode, Map, OpenMode, OsVfs, Reserved, Vfs, VfsDir, VfsFile};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One thing that took some time, or happened at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What a span is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A write or sync of the log itself: every latency overlaps some.
    Log,
    /// An operation of the disk that is not on the path of a write.
    Beside,
    /// The log went on in another segment.
    Rotation,
    /// An event of the engine.
    Event,
}

/// Everything that was noted.
#[derive(Default)]
pub(crate) struct Notes {
    spans: Mutex<Vec<Span>>,
    /// The segment that was last written to.
    active: Mutex<String>,
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notes")
    }
}

/// Operations that were shorter explain no stall.
const SHORT: Duration = Duration::from_micros(300);

impl Notes {
    pub(crate) fn add(&self, span: Span) {
        lock(&self.spans).push(span);
    }

    pub(crate) fn happened(&self, kind: Kind, name: String) {
        self.add(Span { began: Instant::now(), took: Duration::ZERO, name, kind });
    }

    /// Takes all, in the order in which they began.
    pub(crate) fn take(&self) -> Vec<Span> {
        let mut spans = std::mem::take(&mut *lock(&self.spans));
        spans.sort_by_key(|span| span.began);
        spans
    }

    fn timed<T>(&self, kind: Kind, what: &str, file: &str, operation: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = operation();
        let took = began.elapsed();
        if took >= SHORT {
            self.add(Span { began, took, name: format!("{what} {file}"), kind });
        }
        done
    }

    /// The log is written in `segment`.
    fn written(&self, segment: &str) {
        let mut active = lock(&self.active);
        if *active != segment {
            segment.clone_into(&mut active);
            self.happened(Kind::Rotation, format!("rotation to {segment}"));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The operating system's files, with notes.
#[derive(Debug)]
pub(crate) struct TraceVfs {
    inner: OsVfs,
    notes: Arc<Notes>,
}

impl TraceVfs {
    pub(crate) fn new(notes: Arc<Notes>) -> TraceVfs {
        TraceVfs { inner: OsVfs::default(), notes }
    }

    fn dir(&self, inner: Arc<dyn VfsDir>) -> Arc<dyn VfsDir> {
        Arc::new(TraceDir { inner, notes: self.notes.clone(), names: Mutex::default() })
    }
}

impl Vfs for TraceVfs {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(self.dir(self.inner.open_dir(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(self.dir(self.inner.create_dir_all(path)?))
    }
}

/// The name that a file has now: files of the pool become segments, and segments files of the pool.
type Name = Arc<Mutex<String>>;

#[derive(Debug)]
struct TraceDir {
    inner: Arc<dyn VfsDir>,
    notes: Arc<Notes>,
    names: Mutex<HashMap<String, Name>>,
}

impl TraceDir {
    fn renamed(&self, from: &str, to: &str) {
        let mut names = lock(&self.names);
        if let Some(name) = names.remove(from) {
            to.clone_into(&mut lock(&name));
            names.insert(to.to_owned(), name);
        }
    }
}

impl VfsDir for TraceDir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        self.inner.list()
    }

    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let inner = self.notes.timed(Kind::Beside, "open", name, || self.inner.open(name, mode))?;
        let mut names = lock(&self.names);
        let shared = names.entry(name.to_owned()).or_insert_with(|| Arc::new(Mutex::new(name.to_owned())));
        Ok(Arc::new(TraceFile { inner, notes: self.notes.clone(), name: shared.clone() }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        lock(&self.names).remove(name);
        self.notes.timed(Kind::Beside, "remove", name, || self.inner.remove(name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.notes.timed(Kind::Beside, "rename to", to, || self.inner.rename(from, to))?;
        self.renamed(from, to);
        Ok(())
    }

    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.notes.timed(Kind::Beside, "rename to", to, || self.inner.rename_new(from, to))?;
        self.renamed(from, to);
        Ok(())
    }

    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        match to.downcast_ref::<TraceDir>() {
            Some(to) => self.inner.hard_link(name, &*to.inner, new),
            None => Err(Error::from(ErrorKind::CrossesDevices)),
        }
    }

    fn sync(&self) -> Result<()> {
        self.notes.timed(Kind::Beside, "sync of", "the directory", || self.inner.sync())
    }

    fn lock(&self, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.inner.lock(mode)
    }

    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.inner.lock_file(name, mode)
    }

    fn free_space(&self) -> Result<u64> {
        self.inner.free_space()
    }

    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        self.inner.id_of(name)
    }
}

#[derive(Debug)]
struct TraceFile {
    inner: Arc<dyn VfsFile>,
    notes: Arc<Notes>,
    name: Name,
}

impl TraceFile {
    fn timed<T>(&self, what: &str, operation: impl FnOnce() -> T) -> T {
        let name = lock(&self.name).clone();
        let kind = if name == *lock(&self.notes.active) { Kind::Log } else { Kind::Beside };
        self.notes.timed(kind, what, &name, operation)
    }
}

impl VfsFile for TraceFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.timed("read of", || self.inner.read_at(buf, offset))
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let zeros = bufs.iter().flat_map(|b| b.iter()).take(16).all(|byte| *byte == 0);
        if !zeros && offset > 0 {
            let name = lock(&self.name).clone();
            if name.ends_with(".log") {
                self.notes.written(&name);
            }
        }
        self.timed(if zeros { "fill of" } else { "write to" }, || self.inner.write_at(bufs, offset))
    }

    fn allocate(&self, len: u64) -> Result<Reserved> {
        self.timed("allocation of", || self.inner.allocate(len))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.timed("cut of", || self.inner.set_len(len))
    }

    fn sync_data(&self) -> Result<()> {
        self.timed("sync of", || self.inner.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.timed("sync of", || self.inner.sync_all())
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn is_empty(&self) -> Result<bool> {
        self.inner.is_empty()
    }

    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        self.timed("cache drop of", || self.inner.drop_cache(range))
    }

    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        self.timed("mapping of", || self.inner.map(len))
    }

    fn id(&self) -> Result<Option<FileId>> {
        self.inner.id()
    }
}
