//! The real file system with its calls counted, and a sync that takes its time and does nothing.

use raftwood::vfs::{DirEntry, FileId, LockMode, Map, OpenMode, OsVfs, Reserved, Vfs, VfsDir, VfsFile};
use std::any::Any;
use std::io::{IoSlice, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

#[derive(Debug, Default)]
struct Counters {
    sync: Duration,
    writes: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    others: AtomicU64,
}

/// How often files were called so far.
pub(crate) struct Calls {
    pub(crate) writes: u64,
    pub(crate) bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) others: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Counted(Arc<Counters>);

impl Counted {
    pub(crate) fn new(sync: Duration) -> Counted {
        Counted(Arc::new(Counters { sync, ..Counters::default() }))
    }

    pub(crate) fn calls(&self) -> Calls {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let c = &self.0;
        Calls { writes: of(&c.writes), bytes: of(&c.bytes), syncs: of(&c.syncs), others: of(&c.others) }
    }
}

impl Vfs for Counted {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(Arc::new(Dir(OsVfs::default().open_dir(path)?, self.0.clone())))
    }
    fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(Arc::new(Dir(OsVfs::default().create_dir_all(path)?, self.0.clone())))
    }
}

#[derive(Debug)]
struct Dir(Arc<dyn VfsDir>, Arc<Counters>);

impl VfsDir for Dir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        self.0.list()
    }
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(File(self.0.open(name, mode)?, self.1.clone())))
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename_new(from, to)
    }
    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        self.0.hard_link(name, &*to.downcast_ref::<Dir>().unwrap().0, new)
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn lock(&self, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.0.lock(mode)
    }
    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.0.lock_file(name, mode)
    }
    fn free_space(&self) -> Result<u64> {
        self.0.free_space()
    }
    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        self.0.id_of(name)
    }
}

#[derive(Debug)]
struct File(Arc<dyn VfsFile>, Arc<Counters>);

impl File {
    fn other(&self) -> &dyn VfsFile {
        self.1.others.fetch_add(1, Relaxed);
        &*self.0
    }
}

impl VfsFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.other().read_at(buf, offset)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let written = self.0.write_at(bufs, offset)?;
        self.1.writes.fetch_add(1, Relaxed);
        self.1.bytes.fetch_add(written as u64, Relaxed);
        Ok(written)
    }
    fn allocate(&self, len: u64) -> Result<Reserved> {
        self.other().allocate(len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.other().set_len(len)
    }
    fn sync_data(&self) -> Result<()> {
        self.1.syncs.fetch_add(1, Relaxed);
        std::thread::sleep(self.1.sync);
        Ok(())
    }
    fn sync_all(&self) -> Result<()> {
        self.sync_data()
    }
    fn len(&self) -> Result<u64> {
        self.other().len()
    }
    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        self.other().drop_cache(range)
    }
    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        self.other().map(len)
    }
    fn id(&self) -> Result<Option<FileId>> {
        self.0.id()
    }
}
