//! Files without content that matters: the pool, out of which segments are made, and the reserve, which only
//! a full disk makes us touch.
//!
//! How many lie in the pool is capped: by the options, by the disk budget, and by how many were used lately
//! ([`Demand`]).

use super::demand::Demand;
use super::{FileMaker, Unwritten};
use crate::clock;
use crate::error::{Error, Result};
use crate::format::names::FileName;
use crate::options::{Options, STARTER_BYTES};
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::vfs::io::read_up_to;
use crate::vfs::meaning::if_readable;
use crate::vfs::{OpenMode, Reserved};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Files of the reserve: for the copies of the tail when a store opens again and again on a full disk, for
/// the record that compacts, and for what a purge has to write before it can give anything back.
const RESERVE_FILES: usize = 4;

/// A file of an earlier run is looked at in pieces of so many bytes, with a pause after each.
const LOOK_BYTES: usize = 256 << 10;
const LOOK_PAUSE: Duration = Duration::from_micros(200);

/// A file without content that matters.
#[derive(Clone, Debug)]
pub(super) struct FreeFile {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) holds: Holds,
    /// Its blocks are reserved and were never written: it is to be filled.
    pub(super) unwritten: bool,
}

/// What a free file holds, which does not matter but for what it may look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holds {
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
    pub(super) fn salt(self) -> u64 {
        match self {
            Holds::Zeros => 0,
            Holds::Generation(salt) => salt,
            Holds::Unknown => u64::MAX,
        }
    }
}

/// When a new file is filled, where blocks can be reserved for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    /// Before it is ready.
    First,
    /// While the segment before it is used.
    Later,
}

/// The pool and the reserve.
#[derive(Debug)]
pub(crate) struct FreeFiles {
    files: Arc<FileMaker>,
    segment_bytes: u64,
    prewrite: bool,
    files_max: usize,
    /// No more than so many where the disk budget says so.
    files_in_budget: AtomicUsize,
    /// The number of the next one.
    next: AtomicU32,
    pool: Mutex<VecDeque<FreeFile>>,
    demand: Mutex<Demand>,
    /// Small files: one becomes the first segment of an open that finds no space, and all are removed so that
    /// a purge can write footers and its checkpoint.
    reserve: Mutex<Vec<FreeFile>>,
}

impl FreeFiles {
    pub(super) fn new(files: Arc<FileMaker>, options: &Options) -> FreeFiles {
        FreeFiles {
            files,
            segment_bytes: options.segment_bytes,
            prewrite: options.pool.prewrite,
            files_max: options.pool.files_max,
            files_in_budget: AtomicUsize::new(usize::MAX),
            next: AtomicU32::new(1),
            pool: Mutex::default(),
            demand: Mutex::default(),
            reserve: Mutex::default(),
        }
    }

    /// A free file was found at open. False if it is of no use: half made before a crash, or one too many.
    pub(crate) fn adopt(&self, number: u32, len: u64) -> bool {
        self.next.fetch_max(number.saturating_add(1), Ordering::Relaxed);
        let name = FileName::Free(number).to_string();
        let file = FreeFile { name, len, holds: Holds::Unknown, unwritten: false };
        let mut reserve = self.reserve.lock();
        match len == self.reserve_len() && reserve.len() < RESERVE_FILES {
            true => reserve.push(file),
            false if len < self.reserve_len() || self.count() >= self.files_max => return false,
            false => self.pool.lock().push_back(file),
        }
        true
    }

    /// A name that no free file had.
    pub(super) fn next_name(&self) -> String {
        FileName::Free(self.next.fetch_add(1, Ordering::Relaxed)).to_string()
    }

    /// How many files the pool has.
    pub(crate) fn count(&self) -> usize {
        self.pool.lock().len()
    }

    /// Bytes of all files, the reserve included.
    pub(crate) fn bytes(&self) -> u64 {
        let reserve = self.reserve.lock().iter().map(|f| f.len).sum::<u64>();
        reserve + self.pool.lock().iter().map(|f| f.len).sum::<u64>()
    }

    // ---- the pool -----------------------------------------------------------------------------------------

    /// The pool may take so many bytes, whatever else says that it may have more.
    pub(crate) fn set_budget(&self, bytes: u64) {
        let files = usize::try_from(bytes / self.segment_bytes).unwrap_or(usize::MAX);
        self.files_in_budget.store(files, Ordering::Relaxed);
    }

    /// A file is used for a segment.
    pub(super) fn used(&self) {
        self.demand.lock().used();
    }

    /// Segments became free. Returns how many files the pool should have.
    pub(super) fn freed(&self) -> usize {
        self.demand.lock().freed();
        let wanted = self.demand.lock().files(self.files_max);
        wanted.min(self.files_in_budget.load(Ordering::Relaxed))
    }

    /// Whether nobody has used a file for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.demand.lock().is_idle(clock::now())
    }

    /// Whether the pool has files of this length.
    pub(super) fn suits(&self, len: u64) -> bool {
        len == self.segment_bytes
    }

    /// A file of the pool, or of the reserve where that lacks one.
    pub(super) fn keep(&self, file: FreeFile) {
        match self.lacks_reserve(file.len, &[]) {
            true => self.reserve.lock().push(file),
            false => self.pool.lock().push_back(file),
        }
    }

    /// A file of the pool that may be half formatted: its content does not matter.
    pub(super) fn put_back(&self, file: FreeFile) {
        self.pool.lock().push_back(file);
    }

    /// A file of such a length, out of the pool.
    pub(super) fn take(&self, lens: RangeInclusive<u64>, is_awaited: &dyn Fn() -> bool) -> Option<FreeFile> {
        self.sound(|| self.take_unseen(lens.clone()), is_awaited)
    }

    /// A file out of the reserve, or one that is no shorter.
    pub(super) fn take_spare(&self, len: u64, is_awaited: &dyn Fn() -> bool) -> Option<FreeFile> {
        let spare = || self.reserve.lock().pop().or_else(|| self.take_unseen(len..=u64::MAX));
        self.sound(spare, is_awaited)
    }

    fn take_unseen(&self, lens: RangeInclusive<u64>) -> Option<FreeFile> {
        let mut pool = self.pool.lock();
        let at = pool.iter().position(|f| lens.contains(&f.len))?;
        pool.remove(at)
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
            let _ = self.files.dir.remove(&free.name);
        }
    }

    /// Whether the device can read a file that an earlier run left. As a log it would have to be read to its
    /// end after a crash, to know that nothing stands past the last record; and nothing would be written, and
    /// thereby mended, there before.
    ///
    /// A file of 64 MiB that the page cache has takes 10 ms of a processor: in one piece, that was half of
    /// the writers' p99.9. Therefore it pauses, unless it `is_awaited`.
    fn is_readable(&self, free: &FreeFile, is_awaited: &dyn Fn() -> bool) -> bool {
        let Ok(file) = self.files.dir.open(&free.name, OpenMode::Read) else { return true };
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

    /// Makes a file for the pool.
    pub(super) fn create(&self, len: u64, fill: Fill) -> Result<FreeFile, Unwritten> {
        let name = self.next_name();
        let (file, reserved) = self.files.create(&name, len)?;
        let at_once = fill == Fill::First || reserved == Reserved::Nothing;
        let filled = match self.prewrite && at_once {
            true => self.files.fill(&*file, &name, len),
            false => {
                let path = || self.files.dir.join(&name);
                file.sync_all().map_err(|e| Unwritten::io("syncing a new file", &path(), e))
            }
        };
        if let Err(e) = filled {
            // Half a file is no use, and on a full disk its space is.
            let _ = self.files.dir.remove(&name);
            return Err(e);
        }
        Ok(FreeFile { name, len, holds: Holds::Zeros, unwritten: self.prewrite && !at_once })
    }

    /// The store is not used any more, or not for now: free files go that were kept for a burst. Returns how
    /// many bytes the file system got back.
    pub(crate) fn give_surplus_back(&self) -> Result<u64, Unwritten> {
        self.demand.lock().end();
        let kept = self.demand.lock().files(self.files_max);
        let mut given_back = 0;
        while self.count() > kept {
            self.files.check_open()?;
            let Some(file) = self.pool.lock().pop_back() else { break };
            let removed = self.files.dir.remove_for_good(&file.name);
            let path = || self.files.dir.join(&file.name);
            removed.map_err(|e| Unwritten::io("removing a free file", &path(), e))?;
            given_back += file.len;
        }
        Ok(given_back)
    }

    // ---- the reserve --------------------------------------------------------------------------------------

    /// How long its files are.
    pub(super) fn reserve_len(&self) -> u64 {
        STARTER_BYTES.min(self.segment_bytes)
    }

    /// How many files it has.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn reserve_count(&self) -> usize {
        self.reserve.lock().len()
    }

    /// Whether it lacks a file, and the disk has no room for one.
    pub(crate) fn is_scarce(&self) -> bool {
        self.reserve.lock().len() < RESERVE_FILES && !self.is_roomy()
    }

    fn is_roomy(&self) -> bool {
        self.files.dir.free_space().is_ok_and(|free| free > 4 * self.reserve_len())
    }

    /// Whether it lacks a file of this length, once these have found their place.
    pub(super) fn lacks_reserve(&self, len: u64, renamed: &[FreeFile]) -> bool {
        let of_it = renamed.iter().filter(|f| f.len == self.reserve_len()).count();
        len == self.reserve_len() && self.reserve.lock().len() + of_it < RESERVE_FILES
    }

    /// Makes what it lacks, as long as the disk has room to spare, or was given back as much just now.
    pub(crate) fn keep_reserve(&self, mut given_back: u64) -> Result<(), Unwritten> {
        self.files.check_open()?;
        let len = self.reserve_len();
        while self.reserve.lock().len() < RESERVE_FILES {
            if !(self.is_roomy() || given_back >= len) {
                break;
            }
            given_back = given_back.saturating_sub(len);
            let name = self.next_name();
            // Its blocks are what counts, not its content.
            let file = match self.files.create(&name, len) {
                // Others were faster.
                Err(Unwritten::NoSpace(_)) => break,
                made => made?.0,
            };
            if let Err(e) = file.sync_all() {
                let _ = self.files.dir.remove(&name);
                return Err(Unwritten::io("syncing the reserve", &self.files.dir.join(&name), e));
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
        self.files.check_not_shut()?;
        let spare = self.pool.lock().pop_front();
        let Some(file) = spare.or_else(|| self.reserve.lock().pop()) else { return Ok(false) };
        let removed = self.files.dir.remove(&file.name);
        removed.map_err(|e| Error::io("removing a free file", &self.files.dir.join(&file.name), e))?;
        Ok(true)
    }
}
