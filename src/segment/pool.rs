//! Makes segment files, keeps a few ready, and takes back those that nobody needs.
//!
//! ```text
//!  create + sync  ->  0000000007.free  --header, sync, rename, sync dir-->  0000000042.log  (ready, then filled)
//!                          ^                                                     |
//!                          +---------- rename, if whole and there is room -------+  retired
//! ```
//!
//! A file whose blocks are reserved is ready at once, and filled with zeros while the segment before it
//! is used ([`Filling`]). Where the file system reserves nothing, it is filled before anything else: a
//! batch that was accepted must not meet a full disk. And the first segment of a run is, which is small
//! and has no time to be filled later.
//!
//! All of it happens off the path of a write. The number of files that lie about unused is capped.

use super::demand::Demand;
use super::held::Held;
use super::{FillError, Filling, Notes, Retire, RetiredFile, SYNC_SLOTS, Segment, Unwritten};
use crate::clock;
use crate::disk_watch::DiskWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::{
    FORMAT_VERSION, FileHeader, FileKind, Identity, SEGMENT_HEADER_LEN, SegmentKind, StoreId,
};
use crate::format::names::FileName;
use crate::options::{Options, ReadMode, STARTER_BYTES};
use crate::planted::{Bug, planted};
use crate::salt::SaltSource;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::vfs::io::{read_up_to, write_parts_at};
use crate::vfs::meaning::{if_readable, if_there};
use crate::vfs::{Dir, OpenMode, Reserved, VfsFile};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Files of the reserve: for the copies of the tail when a store opens again and again on a full disk, for
/// the record that compacts, and for what a purge has to write before it can give anything back.
const RESERVE_FILES: usize = 4;

/// How much is zero-filled at once.
const FILL_BYTES: usize = 1 << 20;

/// A file of an earlier run is looked at in pieces of so many bytes, with a pause after each.
const LOOK_BYTES: usize = 256 << 10;
const LOOK_PAUSE: Duration = Duration::from_micros(200);

/// A file without content that matters.
#[derive(Clone, Debug)]
struct FreeFile {
    name: String,
    len: u64,
    holds: Holds,
    /// Its blocks are reserved and were never written: it is to be filled.
    unwritten: bool,
}

/// What a free file holds, which does not matter but for what it may look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holds {
    /// It was made by this run, and was only ever zeros.
    Zeros,
    /// The generation with this salt.
    Generation(u64),
    /// What an earlier run left: nothing is known of it.
    Unknown,
}

impl Holds {
    /// The salt of the generation before the next, as a header has it: any but 0 says that stale bytes are
    /// possible.
    fn salt(self) -> u64 {
        match self {
            Holds::Zeros => 0,
            Holds::Generation(salt) => salt,
            Holds::Unknown => u64::MAX,
        }
    }
}

/// When a new file is filled, where blocks can be reserved for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fill {
    /// Before it is ready.
    First,
    /// While the segment before it is used.
    Later,
}

/// A cold segment in the making.
#[derive(Debug)]
pub(crate) struct ColdFile {
    pub(crate) identity: Identity,
    pub(crate) temp: String,
    pub(crate) file: Arc<dyn VfsFile>,
}

/// The maker and keeper of segment files.
#[derive(Debug)]
pub(crate) struct SegmentFactory {
    pub(crate) dir: Dir,
    pub(crate) store: StoreId,
    segment_bytes: u64,
    prewrite: bool,
    files_max: usize,
    /// No more than so many where the disk budget says so.
    files_in_budget: AtomicUsize,
    mapped: bool,
    salts: SaltSource,
    next_file: AtomicU32,
    next_free: AtomicU32,
    free: Mutex<VecDeque<FreeFile>>,
    demand: Mutex<Demand>,
    retired: Mutex<Vec<RetiredFile>>,
    /// Files without a name that entries of the caller's still show.
    held: Held,
    /// Small files that only a full disk makes us touch: one becomes the first segment of an open that finds
    /// no space, and all are removed so that a purge can write footers and its checkpoint.
    reserve: Mutex<Vec<FreeFile>>,
    /// The engine is closed, and another one may have the directory: no file is made, named or
    /// removed any more.
    shut: AtomicBool,
    /// The names that this run found are not known to be durable: none is made, given or removed
    /// before they are.
    owes_sync: AtomicBool,
    /// Bytes written to fill files with zeros.
    pub(crate) filled_bytes: AtomicU64,
    /// What is done here, and by upkeep, with the disk.
    pub(crate) watch: DiskWatch,
}

impl SegmentFactory {
    pub(crate) fn new(dir: &Dir, options: &Options, store: StoreId, next_file: u32) -> SegmentFactory {
        SegmentFactory {
            dir: dir.clone(),
            store,
            segment_bytes: options.segment_bytes,
            prewrite: options.pool.prewrite,
            files_max: options.pool.files_max,
            files_in_budget: AtomicUsize::new(usize::MAX),
            mapped: options.read_mode == ReadMode::Map,
            salts: options.salts.clone(),
            next_file: AtomicU32::new(next_file),
            next_free: AtomicU32::new(1),
            free: Mutex::default(),
            demand: Mutex::default(),
            retired: Mutex::default(),
            held: Held::default(),
            reserve: Mutex::default(),
            shut: AtomicBool::new(false),
            owes_sync: AtomicBool::new(false),
            filled_bytes: AtomicU64::new(0),
            watch: DiskWatch::new(options.stall_after),
        }
    }

    /// From here on no file is made, named or removed.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    /// The directory cannot be synced, for lack of space: whatever makes, names or removes a file
    /// has to do it first.
    pub(crate) fn owe_sync(&self) {
        self.owes_sync.store(true, Ordering::Release);
    }

    /// Asked wherever a file is made, named or removed: it fails once the engine is closed, and while the
    /// names that are there cannot be made durable.
    pub(crate) fn check_open(&self) -> Result<(), Unwritten> {
        self.check_not_shut().map_err(Unwritten::Failed)?;
        if self.owes_sync.load(Ordering::Acquire) { self.sync_dir() } else { Ok(()) }
    }

    fn check_not_shut(&self) -> Result<()> {
        if self.shut.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
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
        let name = FileName::Free(number).to_string();
        let file = FreeFile { name, len, holds: Holds::Unknown, unwritten: false };
        let mut reserve = self.reserve.lock();
        match len == self.reserve_len() && reserve.len() < RESERVE_FILES {
            true => reserve.push(file),
            false if len < self.reserve_len() || self.free_count() >= self.files_max => return false,
            false => self.free.lock().push_back(file),
        }
        true
    }

    /// How many files the reserve has.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn reserve_count(&self) -> usize {
        self.reserve.lock().len()
    }

    /// The pool may take so many bytes, whatever else says that it may have more.
    pub(crate) fn set_budget(&self, bytes: u64) {
        let files = usize::try_from(bytes / self.segment_bytes).unwrap_or(usize::MAX);
        self.files_in_budget.store(files, Ordering::Relaxed);
    }

    /// How many files lie free.
    pub(crate) fn free_count(&self) -> usize {
        self.free.lock().len()
    }

    /// Bytes of the free files, the reserve included.
    pub(crate) fn free_bytes(&self) -> u64 {
        let reserve = self.reserve.lock().iter().map(|f| f.len).sum::<u64>();
        reserve + self.free.lock().iter().map(|f| f.len).sum::<u64>()
    }

    fn reserve_len(&self) -> u64 {
        STARTER_BYTES.min(self.segment_bytes)
    }

    /// Whether the reserve lacks a file, and the disk has no room for one.
    pub(crate) fn is_scarce(&self) -> bool {
        self.reserve.lock().len() < RESERVE_FILES && !self.is_roomy()
    }

    fn is_roomy(&self) -> bool {
        self.dir.free_space().is_ok_and(|free| free > 4 * self.reserve_len())
    }

    /// Makes what is missing of the reserve, as long as the disk has room to spare, or was given back
    /// as much just now.
    pub(crate) fn keep_reserve(&self, mut given_back: u64) -> Result<(), Unwritten> {
        self.check_open()?;
        let len = self.reserve_len();
        while self.reserve.lock().len() < RESERVE_FILES {
            if !(self.is_roomy() || given_back >= len) {
                break;
            }
            given_back = given_back.saturating_sub(len);
            let number = self.next_free.fetch_add(1, Ordering::Relaxed);
            let name = FileName::Free(number).to_string();
            // Its blocks are what counts, not its content.
            let file = match self.create(&name, len) {
                // Others were faster.
                Err(Unwritten::NoSpace(_)) => break,
                made => made?.0,
            };
            if let Err(e) = file.sync_all() {
                let _ = self.dir.remove(&name);
                return Err(Unwritten::io("syncing the reserve", &self.dir.join(&name), e));
            }
            self.reserve.lock().push(FreeFile { name, len, holds: Holds::Zeros, unwritten: false });
        }
        Ok(())
    }

    /// Gives a free file back to the file system, one of the reserve if there is no other: the last resort of
    /// a full disk. False if there was none.
    pub(crate) fn spend_reserve(&self) -> Result<bool> {
        // Also where no name can be made durable: should an older one of this file come back,
        // what it held is still in it.
        self.check_not_shut()?;
        let spare = self.free.lock().pop_front();
        let Some(file) = spare.or_else(|| self.reserve.lock().pop()) else { return Ok(false) };
        let removed = self.dir.remove(&file.name);
        removed.map_err(|e| Error::io("removing a free file", &self.dir.join(&file.name), e))?;
        Ok(true)
    }

    /// How long the first segment of a run is.
    pub(crate) fn first_len(&self) -> u64 {
        self.reserve_len()
    }

    /// The first segment of a run. Somebody waits for it: a file of the pool that is much longer, and would
    /// have to be looked at first, is left for later ones. A full disk does not keep a store from recovering,
    /// nor from taking what makes room.
    pub(crate) fn prepare_first(&self, len: u64) -> Result<Arc<Segment>, Unwritten> {
        let is_awaited = || true;
        match self.prepare_from(len, Fill::First, &is_awaited) {
            Err(full @ Unwritten::NoSpace(_)) if len <= self.reserve_len() => {
                let spare = || self.reserve.lock().pop().or_else(|| self.take_free(len..=u64::MAX));
                self.sound(spare, &is_awaited).map_or(Err(full), |spare| self.format_free(spare))
            }
            other => other,
        }
    }

    /// The size of the segment that should follow one of `previous` bytes.
    pub(crate) fn next_len(&self, previous: u64) -> u64 {
        (previous.max(STARTER_BYTES / 4) * 4).min(self.segment_bytes)
    }

    /// A log segment, ready to be written: its name and header are durable. Its file comes from the pool if
    /// there is one of at least `len` bytes, else it is made, and may be filled from here on. Until it
    /// `is_awaited` nothing takes a processor from the writers for long.
    pub(crate) fn prepare(&self, len: u64, is_awaited: &dyn Fn() -> bool) -> Result<Arc<Segment>, Unwritten> {
        self.prepare_from(len, Fill::Later, is_awaited)
    }

    fn prepare_from(
        &self,
        len: u64,
        fill: Fill,
        is_awaited: &dyn Fn() -> bool,
    ) -> Result<Arc<Segment>, Unwritten> {
        self.watch.during("preparing a segment", || {
            let longest = if fill == Fill::First { len.saturating_mul(4) } else { u64::MAX };
            let free = match self.sound(|| self.take_free(len..=longest), is_awaited) {
                Some(free) => free,
                None => self.create_free(len, fill)?,
            };
            self.format_free(free)
        })
    }

    fn format_free(&self, free: FreeFile) -> Result<Arc<Segment>, Unwritten> {
        if let Err(e) = self.check_open() {
            self.keep(free);
            return Err(e);
        }
        let id = self.take_id().map_err(Unwritten::Failed)?;
        self.demand.lock().used();
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(SegmentKind::Log),
            identity: Identity { store: self.store, file: id, salt: self.salts.next() },
            len: free.len,
            previous_salt: if planted(Bug::FormerGenerationForgotten) { 0 } else { free.holds.salt() },
        };
        let name = FileName::Log(id).to_string();
        let mut renamed = false;
        let made = self.format(&free, &header, &name, &mut renamed);
        match made.is_err() {
            // It has the new name already and may lose it in a crash: it goes the way of a dead segment.
            true if renamed => {
                self.retired.lock().push(RetiredFile {
                    name,
                    len: free.len,
                    salt: header.identity.salt,
                    recyclable: true,
                    map: None,
                    has_footer: false,
                });
            }
            // It may be half formatted: its content does not matter, under the free name at least.
            true => self.free.lock().push_back(free),
            false => {}
        }
        made
    }

    fn format(
        &self,
        free: &FreeFile,
        header: &FileHeader,
        name: &str,
        renamed: &mut bool,
    ) -> Result<Arc<Segment>, Unwritten> {
        let (before, path) = (self.dir.join(&free.name), self.dir.join(name));
        let file = self.open(&free.name)?;
        // One that was made for this is zeros, and has to stay so.
        if free.holds != Holds::Zeros {
            file.begin_generation()
                .map_err(|e| Unwritten::io("beginning another generation of a file", &before, e))?;
        }
        write_headers(&*file, header).map_err(|e| Unwritten::io("writing a segment header", &before, e))?;
        file.sync_data().map_err(|e| Unwritten::io("syncing a segment header", &before, e))?;
        self.dir.rename_new(&free.name, name).map_err(|e| Unwritten::io("naming a segment", &path, e))?;
        *renamed = true;
        self.sync_dir()?;
        let handles = (0..SYNC_SLOTS)
            .map(|slot| if slot == 0 { Ok(file.clone()) } else { self.open(name) })
            .collect::<Result<Vec<_>, Unwritten>>()?;
        let named = self.dir.by_name(name, &file);
        let named = named.map_err(|e| Unwritten::io("looking at a segment", &path, e))?;
        let mut segment = Segment::new(SegmentKind::Log, header, path, free.len, named, handles, self.mapped)
            .map_err(Unwritten::Failed)?;
        if free.unwritten {
            segment.filling = Filling::of(self.open(name)?, segment.records_end);
        }
        segment.notes = Notes::new(free.len);
        segment.recyclable.store(true, Ordering::Release);
        Ok(Arc::new(segment))
    }

    /// A file for a cold segment of at most `len` bytes, under a temporary name.
    pub(crate) fn create_cold(&self, len: u64) -> Result<ColdFile, Unwritten> {
        let id = self.take_id().map_err(Unwritten::Failed)?;
        let temp = FileName::Temp(id).to_string();
        let (file, _) = self.create(&temp, len)?;
        let identity = Identity { store: self.store, file: id, salt: self.salts.next() };
        Ok(ColdFile { identity, temp, file })
    }

    /// Finishes a cold segment: its header, the length it came to, its name.
    pub(crate) fn name_cold(&self, cold: &ColdFile, end: u32) -> Result<Arc<Segment>, Unwritten> {
        self.check_open()?;
        let len = segment_len_for(u64::from(end) - u64::from(SEGMENT_HEADER_LEN));
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(SegmentKind::Cold),
            identity: cold.identity,
            len,
            previous_salt: 0,
        };
        let temp = self.dir.join(&cold.temp);
        cold.file.set_len(len).map_err(|e| Unwritten::io("trimming a cold segment", &temp, e))?;
        write_headers(&*cold.file, &header)
            .map_err(|e| Unwritten::io("writing a segment header", &temp, e))?;
        if !planted(Bug::ColdNotSynced) {
            cold.file.sync_all().map_err(|e| Unwritten::io("syncing a cold segment", &temp, e))?;
        }
        let name = FileName::Cold(cold.identity.file).to_string();
        let path = self.dir.join(&name);
        self.dir
            .rename_new(&cold.temp, &name)
            .map_err(|e| Unwritten::io("naming a cold segment", &path, e))?;
        self.sync_dir()?;
        let named = self.dir.by_name(&name, &cold.file);
        let named = named.map_err(|e| Unwritten::io("looking at a cold segment", &path, e))?;
        let segment = Segment::new(SegmentKind::Cold, &header, path, len, named, Vec::new(), self.mapped)
            .map_err(Unwritten::Failed)?;
        segment.advance_written(end);
        segment.set_sealed_end(end);
        Ok(Arc::new(segment))
    }

    /// Gives up a cold segment that did not come to be.
    pub(crate) fn drop_cold(&self, cold: &ColdFile) {
        // A leftover is removed by the next open.
        let _ = self.dir.remove(&cold.temp);
    }

    /// Makes free files of the retired ones, or removes them when pool and reserve are full or they are of no
    /// use. Returns how many bytes the file system got back.
    pub(crate) fn absorb_retired(&self, ready: usize) -> Result<u64, Unwritten> {
        if self.retired.lock().is_empty() {
            let is_idle = self.demand.lock().is_idle(clock::now());
            return if is_idle { self.give_surplus_back() } else { Ok(0) };
        }
        self.check_open()?;
        self.demand.lock().freed();
        let wanted = self.demand.lock().files(self.files_max);
        let files_max = wanted.min(self.files_in_budget.load(Ordering::Relaxed));
        let mut files = std::mem::take(&mut *self.retired.lock());
        let mut given_back = 0;
        let mut renamed: Vec<FreeFile> = Vec::new();
        let mut failed = None;
        while let Some(file) = files.pop() {
            let room = self.free_count() + renamed.len() + ready < files_max;
            let fits = room && file.len == self.segment_bytes || self.lacks_reserve(file.len, &renamed);
            let keep = fits && file.recyclable && file.is_unseen();
            // First: a footer without its log would look like a log that was lost.
            let footer = if file.has_footer { self.remove_footer(&file.name) } else { Ok(()) };
            let done = footer.and_then(|()| match keep {
                true => {
                    let number = self.next_free.fetch_add(1, Ordering::Relaxed);
                    let name = FileName::Free(number).to_string();
                    self.dir.rename_new(&file.name, &name).map(|()| {
                        renamed.push(FreeFile {
                            name,
                            len: file.len,
                            holds: Holds::Generation(file.salt),
                            unwritten: false,
                        })
                    })
                }
                false => self.dir.remove(&file.name).map(|()| {
                    self.held.note(&file);
                    given_back += file.len;
                }),
            });
            // One that is gone takes no room.
            if let Err(e) = if_there(done) {
                failed = Some(Unwritten::io("giving back a segment", &self.dir.join(&file.name), e));
                files.push(file);
                break;
            }
        }
        // Before its new name is durable a file must not be formatted again: a crash could bring the old name
        // back, and under it the header of another segment.
        if !renamed.is_empty() {
            match self.sync_dir() {
                Ok(()) => renamed.into_iter().for_each(|file| self.keep(file)),
                Err(e) => {
                    files.extend(renamed.into_iter().map(|f| RetiredFile {
                        name: f.name,
                        len: f.len,
                        salt: f.holds.salt(),
                        recyclable: true,
                        map: None,
                        has_footer: false,
                    }));
                    failed = failed.or(Some(e));
                }
            }
        }
        self.retired.lock().extend(files);
        failed.map_or(Ok(given_back), Err)
    }

    /// Bytes of files without a name that entries of the caller's still show.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// The store is not used any more, or not for now: free files go that were kept for a burst. Returns how
    /// many bytes the file system got back.
    pub(crate) fn give_surplus_back(&self) -> Result<u64, Unwritten> {
        self.demand.lock().end();
        let kept = self.demand.lock().files(self.files_max);
        let mut given_back = 0;
        while self.free_count() > kept {
            self.check_open()?;
            let Some(file) = self.free.lock().pop_back() else { break };
            let removed = self.dir.remove(&file.name);
            removed.map_err(|e| Unwritten::io("removing a free file", &self.dir.join(&file.name), e))?;
            given_back += file.len;
        }
        Ok(given_back)
    }

    /// Removes the footer of a segment of this name, which may have none.
    fn remove_footer(&self, segment: &str) -> std::io::Result<()> {
        let Some(FileName::Log(id) | FileName::Cold(id)) = FileName::parse(segment) else { return Ok(()) };
        self.dir.remove_if_there(&FileName::Footer(id).to_string()).map(drop)
    }

    /// Whether a file of this length is missing in the reserve, once these have found their place.
    fn lacks_reserve(&self, len: u64, renamed: &[FreeFile]) -> bool {
        let of_it = renamed.iter().filter(|f| f.len == self.reserve_len()).count();
        len == self.reserve_len() && self.reserve.lock().len() + of_it < RESERVE_FILES
    }

    /// A file of the pool, or of the reserve where that lacks one.
    fn keep(&self, file: FreeFile) {
        match self.lacks_reserve(file.len, &[]) {
            true => self.reserve.lock().push(file),
            false => self.free.lock().push_back(file),
        }
    }

    fn take_free(&self, lens: RangeInclusive<u64>) -> Option<FreeFile> {
        let mut free = self.free.lock();
        let at = free.iter().position(|f| lens.contains(&f.len))?;
        free.remove(at)
    }

    /// The next file of those that `take` gives that the device can read. The others go: a free
    /// file is nothing but space.
    fn sound(
        &self,
        mut take: impl FnMut() -> Option<FreeFile>,
        is_awaited: &dyn Fn() -> bool,
    ) -> Option<FreeFile> {
        loop {
            let free = take()?;
            if free.holds != Holds::Unknown
                || self.is_readable(&free, is_awaited)
                || planted(Bug::BadFreeFileUsed)
            {
                return Some(free);
            }
            // One that stays is looked at again by the next run.
            let _ = self.dir.remove(&free.name);
        }
    }

    /// Whether the device can read a file that an earlier run left. As a log it would have to be read to its
    /// end after a crash, to know that nothing stands past the last record; and nothing would be written, and
    /// thereby mended, there before.
    ///
    /// A file of 64 MiB that the page cache has takes 10 ms of a processor: in one piece, that was half of
    /// the writers' p99.9. Therefore it pauses, unless it `is_awaited`.
    fn is_readable(&self, free: &FreeFile, is_awaited: &dyn Fn() -> bool) -> bool {
        let Ok(file) = self.dir.open(&free.name, OpenMode::Read) else { return true };
        let mut piece = vec![0; LOOK_BYTES];
        for at in (0..free.len).step_by(LOOK_BYTES) {
            if let Ok(None) = if_readable(read_up_to(&*file, &mut piece, at)) {
                return false;
            }
            if !is_awaited() {
                clock::sleep(LOOK_PAUSE);
            }
        }
        true
    }

    fn create_free(&self, len: u64, fill: Fill) -> Result<FreeFile, Unwritten> {
        let number = self.next_free.fetch_add(1, Ordering::Relaxed);
        let name = FileName::Free(number).to_string();
        let (file, reserved) = self.create(&name, len)?;
        let at_once = fill == Fill::First || reserved == Reserved::Nothing;
        let filled = match self.prewrite && at_once {
            true => self.fill(&*file, &name, len),
            false => {
                file.sync_all().map_err(|e| Unwritten::io("syncing a new file", &self.dir.join(&name), e))
            }
        };
        if let Err(e) = filled {
            // Half a file is no use, and on a full disk its space is.
            let _ = self.dir.remove(&name);
            return Err(e);
        }
        Ok(FreeFile { name, len, holds: Holds::Zeros, unwritten: self.prewrite && !at_once })
    }

    fn create(&self, name: &str, len: u64) -> Result<(Arc<dyn VfsFile>, Reserved), Unwritten> {
        self.check_open()?;
        let path = self.dir.join(name);
        let created = self.dir.open(name, OpenMode::CreateNew);
        let file = created.map_err(|e| Unwritten::io("creating a file", &path, e))?;
        // Blocks are reserved here, so that a full disk is met now and not by an accepted batch.
        match file.allocate(len) {
            Ok(reserved) => Ok((file, reserved)),
            Err(e) => {
                drop(file);
                let _ = self.dir.remove(name);
                Err(Unwritten::io("reserving space", &path, e))
            }
        }
    }

    /// Fills the next piece of a segment that was prepared.
    pub(crate) fn fill_piece(&self, segment: &Segment) -> std::result::Result<(), FillError> {
        let piece = || segment.filling.fill_piece(&segment.path);
        let filled = self.watch.during("filling a segment", piece)?;
        self.filled_bytes.fetch_add(filled, Ordering::Relaxed);
        Ok(())
    }

    fn fill(&self, file: &dyn VfsFile, name: &str, len: u64) -> Result<(), Unwritten> {
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

    fn open(&self, name: &str) -> Result<Arc<dyn VfsFile>, Unwritten> {
        let opened = self.dir.open(name, OpenMode::ReadWrite);
        opened.map_err(|e| Unwritten::io("opening a segment", &self.dir.join(name), e))
    }

    /// Makes all names durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Unwritten> {
        self.dir.sync().map_err(|e| Unwritten::io("syncing the directory", self.dir.path(), e))?;
        self.owes_sync.store(false, Ordering::Release);
        Ok(())
    }
}

/// How long a segment file has to be for records of `bytes` in sum: a block with its header before
/// them, and one after.
pub(crate) fn segment_len_for(bytes: u64) -> u64 {
    let block = u64::from(SEGMENT_HEADER_LEN);
    2 * block + bytes.next_multiple_of(block)
}

/// Writes a segment's header into its first block and its last: neither is lost with the other.
fn write_headers(file: &dyn VfsFile, header: &FileHeader) -> std::io::Result<()> {
    let block = header.encode_segment_block();
    header.copies_at().into_iter().try_for_each(|at| write_parts_at(file, &[&block], at))
}

impl Retire for SegmentFactory {
    fn retire(&self, file: RetiredFile) {
        // In a fork the file is not ours, and the lock may be held by nobody.
        if self.dir.is_here() {
            self.retired.lock().push(file);
        }
    }
}
