//! Makes segment files, keeps a few ready, and takes back those that nobody needs.
//!
//! ```text
//!  create + zero-fill + sync  ->  0000000007.free  --header, sync, rename, sync dir-->  0000000042.log  (ready)
//!                                      ^                                                     |
//!                                      +---------- rename, if whole and there is room -------+  retired
//! ```
//!
//! All of it happens off the path of a write. The number of files that lie about unused is capped.

use super::{Retire, RetiredFile, SYNC_SLOTS, Segment};
use crate::engine::options::{Options, ReadMode};
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::{FileHeader, FileKind, Identity, StoreId};
use crate::format::names::FileName;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::vfs::io::write_parts_at;
use crate::vfs::{OpenMode, Vfs, VfsFile};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Files of the reserve: a store that opens on a full disk still has one to purge with.
const RESERVE_FILES: usize = 2;

/// The first segment of an open that finds no free file. Small, so that opening never waits for a large fill; the
/// following ones grow fourfold up to the configured size, so that small stores stay small.
pub(crate) const STARTER_BYTES: u64 = 4 << 20;

/// How much is zero-filled at once.
const FILL_BYTES: usize = 1 << 20;

/// A file without content that matters.
#[derive(Clone, Debug)]
struct FreeFile {
    path: PathBuf,
    len: u64,
    /// The salt of its life before, 0 if it was only ever zeros.
    salt: u64,
}

/// A cold segment in the making.
#[derive(Debug)]
pub(crate) struct ColdFile {
    pub(crate) identity: Identity,
    pub(crate) temp: PathBuf,
    pub(crate) file: Arc<dyn VfsFile>,
}

/// The maker and keeper of segment files.
#[derive(Debug)]
pub(crate) struct SegmentFactory {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    segment_bytes: u64,
    prewrite: bool,
    files_max: usize,
    mapped: bool,
    salts: SaltSource,
    next_file: AtomicU32,
    next_free: AtomicU32,
    free: Mutex<VecDeque<FreeFile>>,
    retired: Mutex<Vec<RetiredFile>>,
    /// Small files that only a full disk makes us touch: one becomes the first segment of an open that finds no space, and all are
    /// removed so that a purge can write footers and its checkpoint.
    reserve: Mutex<Vec<FreeFile>>,
    /// Bytes written to fill files with zeros.
    pub(crate) filled_bytes: AtomicU64,
}

/// Where salts come from: a seam, so that a simulated run can be repeated.
#[derive(Clone)]
pub(crate) struct SaltSource(pub(crate) Arc<dyn Fn() -> u64 + Send + Sync>);

impl std::fmt::Debug for SaltSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltSource")
    }
}

impl SaltSource {
    /// Never the same twice: keyed hashing with the process's random keys, over time and a counter.
    pub(crate) fn random() -> SaltSource {
        use std::hash::{BuildHasher, Hasher, RandomState};
        static CALLS: AtomicU64 = AtomicU64::new(0);
        SaltSource(Arc::new(|| {
            let mut h = RandomState::new().build_hasher();
            h.write_u64(CALLS.fetch_add(1, Ordering::Relaxed));
            h.write_u32(std::process::id());
            if let Ok(t) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
                h.write_u128(t.as_nanos());
            }
            h.finish()
        }))
    }

    pub(crate) fn next(&self) -> u64 {
        // 0 says "no life before".
        (self.0)().max(1)
    }
}

impl SegmentFactory {
    pub(crate) fn new(dir: &Path, options: &Options, store: StoreId, next_file: u32) -> SegmentFactory {
        SegmentFactory {
            vfs: options.vfs.clone(),
            dir: dir.to_path_buf(),
            store,
            segment_bytes: options.segment_bytes,
            prewrite: options.pool.prewrite,
            files_max: options.pool.files_max,
            mapped: options.read_mode == ReadMode::Map,
            salts: options.salts.clone(),
            next_file: AtomicU32::new(next_file),
            next_free: AtomicU32::new(1),
            free: Mutex::default(),
            retired: Mutex::default(),
            reserve: Mutex::default(),
            filled_bytes: AtomicU64::new(0),
        }
    }

    /// The number that the next file would get.
    pub(crate) fn next_file(&self) -> u32 {
        self.next_file.load(Ordering::Relaxed)
    }

    /// A number for a new log or cold segment; never given twice.
    pub(crate) fn take_id(&self) -> Result<u32> {
        self.next_file
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
            .map_err(|_| Error::new(ErrorKind::Unsupported, "all 2^32 segment numbers are used up"))
    }

    /// A free file was found at open. False if it is of no use: half made before a crash, or one too many.
    pub(crate) fn adopt_free(&self, number: u32, len: u64) -> bool {
        self.next_free.fetch_max(number.saturating_add(1), Ordering::Relaxed);
        let path = self.dir.join(FileName::Free(number).to_string());
        // What it holds is unknown, so its life before is too; any salt but 0 says that stale bytes are possible.
        let file = FreeFile { path, len, salt: u64::MAX };
        let mut reserve = lock(&self.reserve);
        match len == self.reserve_len() && reserve.len() < RESERVE_FILES {
            true => reserve.push(file),
            false if len < self.reserve_len() || self.free_count() >= self.files_max => return false,
            false => lock(&self.free).push_back(file),
        }
        true
    }

    /// How many files the reserve has.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn reserve_count(&self) -> usize {
        lock(&self.reserve).len()
    }

    /// How many files lie free.
    pub(crate) fn free_count(&self) -> usize {
        lock(&self.free).len()
    }

    /// Bytes of the free files, the reserve included.
    pub(crate) fn free_bytes(&self) -> u64 {
        let reserve = lock(&self.reserve).iter().map(|f| f.len).sum::<u64>();
        reserve + lock(&self.free).iter().map(|f| f.len).sum::<u64>()
    }

    fn reserve_len(&self) -> u64 {
        STARTER_BYTES.min(self.segment_bytes)
    }

    /// Makes what is missing of the reserve, as long as the disk has room to spare.
    pub(crate) fn keep_reserve(&self) -> Result<()> {
        let len = self.reserve_len();
        while lock(&self.reserve).len() < RESERVE_FILES {
            let roomy = self.vfs.free_space(&self.dir).is_ok_and(|free| free > 4 * len);
            if !roomy || planted(Bug::NoReserve) {
                break;
            }
            let number = self.next_free.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(FileName::Free(number).to_string());
            // Its blocks are what counts, not its content.
            if let Err(e) = self.create(&path, len)?.sync_all() {
                let _ = self.vfs.remove(&path);
                return Err(Error::io("syncing the reserve", &path, e));
            }
            lock(&self.reserve).push(FreeFile { path, len, salt: 0 });
        }
        Ok(())
    }

    /// Gives the reserve back to the file system, and the free files with it: the last resort of a full disk. True if
    /// there was any.
    pub(crate) fn spend_reserve(&self) -> Result<bool> {
        let mut files: Vec<FreeFile> = lock(&self.free).drain(..).collect();
        files.append(&mut lock(&self.reserve));
        for file in &files {
            self.vfs.remove(&file.path).map_err(|e| Error::io("removing a free file", &file.path, e))?;
        }
        Ok(!files.is_empty())
    }

    /// The first segment of an open. A full disk does not keep a store from opening.
    pub(crate) fn prepare_first(&self) -> Result<Arc<Segment>> {
        match self.prepare(self.reserve_len()) {
            Err(e) if e.kind() == ErrorKind::NoSpace => match lock(&self.reserve).pop() {
                Some(reserve) => self.dress_free(reserve),
                None => Err(e),
            },
            other => other,
        }
    }

    /// The size of the segment that should follow one of `previous` bytes.
    pub(crate) fn next_len(&self, previous: u64) -> u64 {
        (previous.max(STARTER_BYTES / 4) * 4).min(self.segment_bytes)
    }

    /// A log segment, ready to be written: its name and header are durable. Its file comes from the pool if there is
    /// one of at least `len` bytes, else it is made.
    pub(crate) fn prepare(&self, len: u64) -> Result<Arc<Segment>> {
        let free = match self.take_free(len) {
            Some(free) => free,
            None => self.create_free(len)?,
        };
        self.dress_free(free)
    }

    fn dress_free(&self, free: FreeFile) -> Result<Arc<Segment>> {
        let id = self.take_id()?;
        let header = FileHeader {
            kind: FileKind::Log,
            identity: Identity { store: self.store, file: id, salt: self.salts.next() },
            len: free.len,
            previous_salt: if planted(Bug::FormerLifeForgotten) { 0 } else { free.salt },
        };
        let path = self.dir.join(FileName::Log(id).to_string());
        let mut renamed = false;
        let made = self.dress(&free, &header, &path, &mut renamed);
        match made.is_err() {
            // It has the new name already and may lose it in a crash: it goes the way of a dead segment.
            true if renamed => {
                lock(&self.retired).push(RetiredFile {
                    path,
                    len: free.len,
                    salt: header.identity.salt,
                    recyclable: true,
                    map: None,
                });
            }
            // It may be half dressed: its content does not matter, under the free name at least.
            true => lock(&self.free).push_back(free),
            false => {}
        }
        made
    }

    fn dress(
        &self,
        free: &FreeFile,
        header: &FileHeader,
        path: &Path,
        renamed: &mut bool,
    ) -> Result<Arc<Segment>> {
        let file = self.open(&free.path)?;
        write_parts_at(&*file, &[&header.encode_segment_block()], 0)
            .map_err(|e| Error::io("writing a segment header", &free.path, e))?;
        if !planted(Bug::HeaderNotSynced) {
            file.sync_data().map_err(|e| Error::io("syncing a segment header", &free.path, e))?;
        }
        self.vfs.rename(&free.path, path).map_err(|e| Error::io("naming a segment", path, e))?;
        *renamed = true;
        if !planted(Bug::NameNotSynced) {
            self.sync_dir()?;
        }
        let handles = (0..SYNC_SLOTS)
            .map(|slot| if slot == 0 { Ok(file.clone()) } else { self.open(path) })
            .collect::<Result<Vec<_>>>()?;
        let segment = Segment::new(header, path.to_path_buf(), free.len, file, handles, self.mapped)?;
        segment.recyclable.store(true, Ordering::Release);
        Ok(Arc::new(segment))
    }

    /// A file for a cold segment of at most `len` bytes, under a temporary name.
    pub(crate) fn create_cold(&self, len: u64) -> Result<ColdFile> {
        let id = self.take_id()?;
        let temp = self.dir.join(FileName::Temp(id).to_string());
        let file = self.create(&temp, len)?;
        let identity = Identity { store: self.store, file: id, salt: self.salts.next() };
        Ok(ColdFile { identity, temp, file })
    }

    /// Finishes a cold segment: its header, the length it came to, its name.
    pub(crate) fn name_cold(&self, cold: &ColdFile, end: u32) -> Result<Arc<Segment>> {
        let len = u64::from(end).next_multiple_of(4096);
        let header = FileHeader { kind: FileKind::Cold, identity: cold.identity, len, previous_salt: 0 };
        write_parts_at(&*cold.file, &[&header.encode_segment_block()], 0)
            .map_err(|e| Error::io("writing a segment header", &cold.temp, e))?;
        cold.file.set_len(len).map_err(|e| Error::io("trimming a cold segment", &cold.temp, e))?;
        if !planted(Bug::ColdNotSynced) {
            cold.file.sync_all().map_err(|e| Error::io("syncing a cold segment", &cold.temp, e))?;
        }
        let path = self.dir.join(FileName::Cold(cold.identity.file).to_string());
        self.vfs.rename(&cold.temp, &path).map_err(|e| Error::io("naming a cold segment", &path, e))?;
        self.sync_dir()?;
        let segment = Segment::new(&header, path, len, cold.file.clone(), Vec::new(), self.mapped)?;
        segment.advance_written(end);
        segment.set_sealed_end(end);
        Ok(Arc::new(segment))
    }

    /// Gives up a cold segment that did not come to be.
    pub(crate) fn drop_cold(&self, cold: &ColdFile) {
        // A leftover is removed by the next open.
        let _ = self.vfs.remove(&cold.temp);
    }

    /// Makes free files of the retired ones, or removes them when the pool is full or they are of no use.
    pub(crate) fn absorb_retired(&self, ready: usize) -> Result<u64> {
        let mut files = std::mem::take(&mut *lock(&self.retired));
        let mut count = 0;
        let mut renamed: Vec<FreeFile> = Vec::new();
        let mut failed = None;
        while let Some(file) = files.pop() {
            let room = self.free_count() + renamed.len() + ready < self.files_max;
            let keep = room && file.recyclable && file.is_unseen() && file.len == self.segment_bytes;
            let done = match keep {
                true => {
                    let number = self.next_free.fetch_add(1, Ordering::Relaxed);
                    let path = self.dir.join(FileName::Free(number).to_string());
                    self.vfs
                        .rename(&file.path, &path)
                        .map(|()| renamed.push(FreeFile { path, len: file.len, salt: file.salt }))
                }
                false => self.vfs.remove(&file.path),
            };
            match done {
                Ok(()) => count += 1,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    failed = Some(Error::io("giving back a segment", &file.path, e));
                    files.push(file);
                    break;
                }
            }
        }
        // Before its new name is durable a file must not be dressed anew: a crash could bring the old name back, and
        // under it the header of another segment.
        if !renamed.is_empty() {
            let synced = if planted(Bug::FreeNameNotSynced) { Ok(()) } else { self.sync_dir() };
            match synced {
                Ok(()) => lock(&self.free).extend(renamed),
                Err(e) => {
                    files.extend(renamed.into_iter().map(|f| RetiredFile {
                        path: f.path,
                        len: f.len,
                        salt: f.salt,
                        recyclable: true,
                        map: None,
                    }));
                    failed = failed.or(Some(e));
                }
            }
        }
        lock(&self.retired).extend(files);
        failed.map_or(Ok(count), Err)
    }

    fn take_free(&self, len: u64) -> Option<FreeFile> {
        let mut free = lock(&self.free);
        let at = free.iter().position(|f| f.len >= len)?;
        free.remove(at)
    }

    fn create_free(&self, len: u64) -> Result<FreeFile> {
        let number = self.next_free.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(FileName::Free(number).to_string());
        let file = self.create(&path, len)?;
        let filled = match self.prewrite {
            true => self.fill(&*file, &path, len),
            false => file.sync_all().map_err(|e| Error::io("syncing a new file", &path, e)),
        };
        if let Err(e) = filled {
            // Half a file is no use, and on a full disk its space is.
            let _ = self.vfs.remove(&path);
            return Err(e);
        }
        Ok(FreeFile { path, len, salt: 0 })
    }

    fn create(&self, path: &Path, len: u64) -> Result<Arc<dyn VfsFile>> {
        let file =
            self.vfs.open(path, OpenMode::CreateNew).map_err(|e| Error::io("creating a file", path, e))?;
        // Blocks are reserved here, so that a full disk is met now and not by an accepted batch.
        let reserved = if planted(Bug::SpaceNotReserved) { file.set_len(len) } else { file.allocate(len) };
        if let Err(e) = reserved {
            drop(file);
            let _ = self.vfs.remove(path);
            return Err(Error::io("reserving space", path, e));
        }
        Ok(file)
    }

    fn fill(&self, file: &dyn VfsFile, path: &Path, len: u64) -> Result<()> {
        let zeros = vec![0u8; FILL_BYTES];
        let mut at = 0;
        while at < len {
            let n = FILL_BYTES.min((len - at) as usize);
            write_parts_at(file, &[&zeros[..n]], at).map_err(|e| Error::io("filling a file", path, e))?;
            at += n as u64;
        }
        self.filled_bytes.fetch_add(len, Ordering::Relaxed);
        file.sync_all().map_err(|e| Error::io("syncing a new file", path, e))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn VfsFile>> {
        self.vfs.open(path, OpenMode::ReadWrite).map_err(|e| Error::io("opening a segment", path, e))
    }

    /// Makes all names durable.
    pub(crate) fn sync_dir(&self) -> Result<()> {
        self.vfs.sync_dir(&self.dir).map_err(|e| Error::io("syncing the directory", &self.dir, e))
    }
}

impl Retire for SegmentFactory {
    fn retire(&self, file: RetiredFile) {
        lock(&self.retired).push(file);
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
