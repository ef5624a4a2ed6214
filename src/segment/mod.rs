//! One file of the log: made, appended to, sealed, mapped, read, and one day used again.
//!
//! ```text
//!  pool                    commit                         maintenance
//!  free file -> ready  ->  active (written in place)  ->  sealed (footer beside it)  ->  dead -> free file
//! ```
//!
//! A log segment is written front to back by the thread that leads a commit group, and by nobody after that.
//! Readers go through a shared mapping of the whole file (or positional reads), except for bytes that were
//! accepted and not yet written: those are served from the batch itself.
//!
//! Invariants
//!
//! - Bytes below [`Segment::written`] never change again while a `Segment` value for the file lives. A file
//!   is recycled only when the last reader has let go of the `Segment` and of all bytes borrowed from it.
//! - A `.log` name always stands for a file with a valid header: a new generation is prepared and synced
//!   under a `.free` name, then renamed.
//! - The footer is a pure function of the records, so it can be thrown away and built again.

mod audit;
mod body;
mod demand;
mod fill;
mod footer_file;
mod held;
pub(crate) mod mark_file;
mod notes;
pub(crate) mod pool;
pub(crate) mod scan;
mod set;
mod unreadable;
mod unwritten;
pub(crate) mod verify;

use body::Body;
use scan::Scanner;

pub(crate) use audit::audit;
pub(crate) use fill::{FillError, Filling};
pub(crate) use footer_file::{
    build_footer, build_footer_of_full, footer_name, load_footer, open_built, rebuild_footer, write_footer,
};
pub(crate) use notes::Notes;
pub(crate) use set::{SegmentSet, Unsealed};
pub(crate) use unreadable::Unreadable;
pub(crate) use unwritten::Unwritten;

use crate::codec::checksum::entry_checksum;
use crate::codec::compress::decompress;
use crate::error::{Error, Result};
use crate::format::batch::Loc;
use crate::format::copies::Copies;
use crate::format::file_header::{
    FORMAT_VERSION, FileHeader, FileKind, Identity, SEGMENT_HEADER_LEN, SegmentKind,
};
use crate::format::footer::Footer;
use crate::format::names::FileName;
use crate::format::record::RECORD_HEADER_LEN;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak};
use crate::types::{EntryId, Lsn, RegionId};
use crate::vfs::io::read_exact_at;
use crate::vfs::meaning::if_readable;
use crate::vfs::{Map, VfsFile};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::fence;

/// How many fdatasyncs of one segment may run side by side.
///
/// One: with two, 16 writers on two cores complete a quarter fewer batches, because each group is smaller,
/// and 2 writers gain what is lost in the noise (`docs/decisions/0002-one-sync-at-a-time.md`). The pipeline
/// copes with more. Each then needs a handle of its own, because a kernel reports a failed write-back once
/// per open file: with one shared handle, the sync of a later group could swallow the error of an earlier
/// one, which would then be acknowledged.
pub(crate) const SYNC_SLOTS: usize = 1;

/// Bytes of one batch that were accepted and may not have reached the file.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    /// Offset of the record.
    pub(crate) start: u32,
    pub(crate) desc_len: u32,
    pub(crate) payload: Bytes,
}

impl InFlight {
    fn payload_start(&self) -> u64 {
        u64::from(self.start) + u64::from(RECORD_HEADER_LEN) + u64::from(self.desc_len)
    }
}

/// Entries of the region table that lie in a segment, and their payload bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Live {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// One log or cold segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u32,
    pub(crate) kind: SegmentKind,
    pub(crate) identity: Identity,
    /// Initial value of every checksum of a place in this file.
    pub(crate) seed: u32,
    /// The salt of the file's generation before; 0 if there was none.
    pub(crate) previous_salt: u64,
    /// For messages.
    pub(crate) path: PathBuf,
    /// Length of the file.
    pub(crate) len: u64,
    /// Where the copies of its header stand.
    pub(crate) header_copies_at: [u64; 2],
    /// Where the records have to end.
    pub(crate) records_end: u64,
    body: Body,
    /// The handles that the file is written and synced through. They go when all records are durable through
    /// them: a kernel may report to nobody else a failed write-back.
    sync_handles: Mutex<Vec<Arc<dyn VfsFile>>>,
    map: Option<Arc<Map>>,
    /// Zeros that are written before the first record; claimed by every write of records.
    pub(crate) filling: Filling,
    /// Bytes below are in the operating system's hands and final.
    written: AtomicU64,
    /// What the records say, while the segment is written.
    pub(crate) notes: Notes,
    in_flight: Mutex<VecDeque<InFlight>>,
    footer: RwLock<Option<Arc<Footer>>>,
    /// Offset one past the last record once the segment takes no more; 0 before.
    sealed_end: AtomicU32,
    /// Entries of the region table that lie here: exact.
    live_entries: AtomicU64,
    /// Their payload bytes: exact until a range is trimmed, estimated by count from then on.
    live_bytes: AtomicU64,
    /// Bytes of the batches (with headers) written here.
    pub(crate) record_bytes: AtomicU64,
    /// The accepted position when the last live entry went away; unset while any lives.
    pub(crate) dead_since: OnceLock<Lsn>,
    /// The file is shorter than it was made.
    pub(crate) is_cut: bool,
    /// Its records are damaged, so that it never gets a footer.
    pub(crate) unsealable: AtomicBool,
    /// What stands in for records that cannot be read, where there are copies of them.
    copies: OnceLock<Arc<Copies>>,
    /// Made in this run of the engine. A file of an earlier run is removed and not recycled: bytes that a
    /// reader borrowed from the engine before may still be alive in this process, and nobody would know.
    pub(crate) recyclable: AtomicBool,
    /// Regions that lie in the same segments share the list of these. This is the newest one that ends here.
    pub(crate) list_to_here: Mutex<Option<Weak<[Arc<Segment>]>>>,
    /// Where the file goes when the last holder lets go of a retired segment.
    retired: Mutex<Option<Weak<dyn Retire>>>,
}

/// Takes the file of a segment that nobody can read any more.
pub(crate) trait Retire: Send + Sync {
    /// Called from whichever thread drops the last reference: must be quick and must not block.
    fn retire(&self, file: RetiredFile);
}

/// A file that waits to be recycled or removed.
#[derive(Debug)]
pub(crate) struct RetiredFile {
    pub(crate) name: String,
    pub(crate) len: u64,
    pub(crate) salt: u64,
    pub(crate) recyclable: bool,
    /// The mapping, which bytes that were handed out may still share: as long as they do, the file must not
    /// be written again. Without its name it lives until they are gone.
    pub(crate) map: Option<Arc<Map>>,
    /// It was a segment, and its footer goes with it: until now a reader may have needed that.
    pub(crate) has_footer: bool,
}

impl RetiredFile {
    /// Whether nobody can see the file's bytes any more.
    pub(crate) fn is_unseen(&self) -> bool {
        // The segment is gone, so nobody can take a new share.
        let unseen = self.map.as_ref().is_none_or(|map| Arc::strong_count(map) == 1);
        // The count is read relaxed: whatever the last holder of a share read, it read before the
        // file is written again.
        fence(Ordering::Acquire);
        unseen || planted(Bug::MappedFileReused)
    }
}

impl Segment {
    /// A segment over an open file whose header was read or has just been written. It holds a descriptor as
    /// long as it has `sync_handles`, where `file` is known by its name.
    pub(crate) fn new(
        kind: SegmentKind,
        header: &FileHeader,
        path: PathBuf,
        len: u64,
        file: Arc<dyn VfsFile>,
        sync_handles: Vec<Arc<dyn VfsFile>>,
        mapped: bool,
    ) -> Result<Segment> {
        let map = match mapped && len > 0 {
            true => file.map(len).map_err(|e| Error::io("mapping a segment", &path, e))?,
            false => None,
        };
        Ok(Segment::over(Body::File(file), kind, header, path, len, sync_handles, map))
    }

    /// The hole that a segment leaves whose file is gone or cannot be recognised.
    pub(crate) fn hole(identity: Identity, kind: SegmentKind, path: PathBuf) -> Segment {
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(kind),
            identity,
            len: 0,
            previous_salt: 0,
        };
        Segment::over(Body::Hole, kind, &header, path, 0, Vec::new(), None)
    }

    fn over(
        body: Body,
        kind: SegmentKind,
        header: &FileHeader,
        path: PathBuf,
        len: u64,
        sync_handles: Vec<Arc<dyn VfsFile>>,
        map: Option<Arc<Map>>,
    ) -> Segment {
        Segment {
            id: header.identity.file,
            kind,
            identity: header.identity,
            seed: header.identity.seed(),
            previous_salt: header.previous_salt,
            path,
            len,
            header_copies_at: header.copies_at(),
            records_end: header.records_end().min(len),
            body,
            sync_handles: Mutex::new(sync_handles),
            map,
            filling: Filling::none(),
            written: AtomicU64::new(u64::from(SEGMENT_HEADER_LEN)),
            notes: Notes::lacking(),
            in_flight: Mutex::default(),
            footer: RwLock::new(None),
            sealed_end: AtomicU32::new(0),
            live_entries: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
            dead_since: OnceLock::new(),
            is_cut: false,
            unsealable: AtomicBool::new(false),
            copies: OnceLock::new(),
            recyclable: AtomicBool::new(false),
            list_to_here: Mutex::default(),
            retired: Mutex::new(None),
        }
    }

    /// Whether a [hole](Segment::hole) is all that is left of it.
    pub(crate) fn is_hole(&self) -> bool {
        matches!(self.body, Body::Hole)
    }

    /// The file that its records stand in.
    ///
    /// # Errors
    /// `Damaged` for a hole.
    pub(crate) fn file(&self) -> Result<&Arc<dyn VfsFile>> {
        self.body.file(&self.path)
    }

    /// Copies of its records stand in for those that cannot be read.
    pub(crate) fn set_copies(&self, copies: Copies) {
        // They are found once, by the recovery that needs them.
        drop(self.copies.set(Arc::new(copies)));
    }

    /// What stands in for records that cannot be read, if anything does.
    pub(crate) fn copies(&self) -> Option<&Arc<Copies>> {
        self.copies.get()
    }

    /// Reads its records, up to `limit`, with the copies that there are.
    ///
    /// # Errors
    /// `Damaged` for a hole.
    pub(crate) fn scanner(&self, limit: u64) -> Result<Scanner<'_>> {
        let scanner = Scanner::new(&**self.file()?, &self.path, &self.identity, limit);
        Ok(scanner.with_copies(self.copies.get().map(|copies| &**copies)))
    }

    /// Whether a record of `len` bytes fits after `offset`.
    pub(crate) fn fits(&self, offset: u32, len: u64) -> bool {
        u64::from(offset) + len <= self.records_end
    }

    // ---- the writer's side --------------------------------------------------------------------------------

    /// The handle for the sync in this slot.
    pub(crate) fn sync_handle(&self, slot: usize) -> Result<Arc<dyn VfsFile>> {
        match self.sync_handles.lock().get(slot) {
            Some(handle) => Ok(handle.clone()),
            None => self.file().cloned(),
        }
    }

    /// All records are durable through them and nothing else is written: the handles are closed.
    pub(crate) fn close_sync_handles(&self) {
        if !planted(Bug::DescriptorPerSegment) {
            self.sync_handles.lock().clear();
        }
    }

    /// Makes an accepted batch readable before it is written. Calls come in the order of positions.
    pub(crate) fn push_in_flight(&self, batch: InFlight) {
        self.lock_in_flight().push_back(batch);
    }

    /// The file was found, and all of it is there.
    pub(crate) fn set_found(&self) {
        self.written.store(self.len, Ordering::Release);
    }

    /// Everything below `end` is in the file now.
    pub(crate) fn advance_written(&self, end: u32) {
        let before = self.written.swap(u64::from(end), Ordering::Release);
        if let Some(map) = &self.map {
            map.note_written(before as usize..end as usize);
        }
        let mut queue = self.lock_in_flight();
        while queue.front().is_some_and(|b| b.start < end) {
            queue.pop_front();
        }
    }

    /// Offset below which all bytes are in the file.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The segment takes no more records; `end` is the offset one past the last one. It is
    /// sealed once it has a footer too.
    pub(crate) fn set_sealed_end(&self, end: u32) {
        self.sealed_end.store(end, Ordering::Release);
    }

    /// The end of the records, or 0 while the segment is active.
    pub(crate) fn sealed_end(&self) -> u32 {
        self.sealed_end.load(Ordering::Acquire)
    }

    /// The same, once it is known.
    pub(crate) fn known_end(&self) -> Option<u32> {
        Some(self.sealed_end()).filter(|end| *end > 0)
    }

    /// The footer, once there is one.
    pub(crate) fn footer(&self) -> Option<Arc<Footer>> {
        self.footer.read().clone()
    }

    /// Gives the segment its footer, or a better one.
    pub(crate) fn set_footer(&self, footer: Arc<Footer>) {
        *self.footer.write() = Some(footer);
    }

    /// The footer speaks of records that count no more.
    pub(crate) fn clear_footer(&self) {
        *self.footer.write() = None;
    }

    /// Whether there is a footer, or nothing to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        self.footer().is_some() || self.is_hole() || self.unsealable.load(Ordering::Acquire)
    }

    // ---- accounting ---------------------------------------------------------------------------------------

    /// Somebody owns this much more. Only an extent of the region table takes a share, and only by its
    /// constructors.
    pub(crate) fn add_live(&self, more: Live) {
        self.live_entries.fetch_add(more.entries, Ordering::Relaxed);
        self.live_bytes.fetch_add(more.bytes, Ordering::Relaxed);
    }

    /// Gives back a share, or a part of one.
    pub(crate) fn sub_live(&self, less: Live) {
        self.live_entries.fetch_sub(less.entries, Ordering::Relaxed);
        self.live_bytes.fetch_sub(less.bytes, Ordering::Relaxed);
    }

    /// What lives here.
    pub(crate) fn live(&self) -> Live {
        Live { entries: self.live_entries(), bytes: self.live_bytes() }
    }

    pub(crate) fn live_entries(&self) -> u64 {
        self.live_entries.load(Ordering::Relaxed)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of its file, and of its footer's.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.len + self.footer().map_or(0, |footer| footer.len())
    }

    /// How much of the file is no live payload.
    pub(crate) fn garbage_percent(&self) -> u8 {
        let live = self.live_bytes().min(self.len);
        ((self.len - live) * 100 / self.len.max(1)) as u8
    }

    /// The file has another name, outside of the store, under which it must stay as it is.
    pub(crate) fn keep_as_it_is(&self) {
        self.recyclable.store(planted(Bug::LinkedFileReused), Ordering::Release);
    }

    /// The file could not be written or synced: it is removed, and not used again.
    pub(crate) fn give_up(&self) {
        self.recyclable.store(false, Ordering::Release);
    }

    /// When the last holder is gone, hand the file to `to`.
    pub(crate) fn retire_to(&self, to: Weak<dyn Retire>) {
        *self.retired.lock() = Some(to);
    }

    // ---- the reader's side --------------------------------------------------------------------------------

    /// Asks for the bytes of as many of these entries as come to `bytes_max` or a little more, where they are
    /// read through the mapping, so that the device reads them together and nothing else. Returns of how
    /// many; of the first at least.
    pub(crate) fn will_need(&self, locs: &[Loc], bytes_max: u64) -> usize {
        let Some(map) = &self.map else { return locs.len() };
        let written = self.written();
        let (mut run, mut bytes) = (0..0, 0);
        let ask = |run: Range<u64>| map.will_need(run.start as usize..run.end.min(written) as usize);
        for (n, loc) in locs.iter().enumerate() {
            if bytes >= bytes_max && n > 0 {
                ask(run);
                return n;
            }
            // How long a compressed block is stands in it.
            let (at, len) = (u64::from(loc.pos), u64::from(loc.len));
            if at != run.end {
                ask(std::mem::replace(&mut run, at..at));
            }
            run.end = run.end.max(at + len);
            bytes += len;
        }
        ask(run);
        locs.len()
    }

    /// The bytes of one entry, verified.
    pub(crate) fn entry(&self, region: RegionId, id: EntryId, loc: Loc) -> Result<Bytes, Unreadable> {
        let bytes = self.unverified(loc)?;
        self.verify(region, id, loc, bytes)
    }

    /// The bytes of one entry, verified, read from the file and not through the mapping: a bad sector is an
    /// error then, and does not end the process. All upkeep reads through this.
    pub(crate) fn entry_from_file(
        &self,
        region: RegionId,
        id: EntryId,
        loc: Loc,
    ) -> Result<Bytes, Unreadable> {
        let bytes = match loc.is_raw() {
            true => self.bytes_from_file(loc.pos, loc.len),
            false => self
                .block_of(loc, |pos, len| self.bytes_from_file(pos, len))
                .and_then(|block| self.inside(&block, loc)),
        };
        self.verify(region, id, loc, bytes.map_err(|e| e.map(|e| e.in_region(region)))?)
    }

    /// Checks `bytes` against the checksum that was taken when the caller handed the entry over.
    pub(crate) fn verify(
        &self,
        region: RegionId,
        id: EntryId,
        loc: Loc,
        bytes: Bytes,
    ) -> Result<Bytes, Unreadable> {
        if entry_checksum(region, id, &bytes) == loc.crc || planted(Bug::EntryNotVerified) {
            return Ok(bytes);
        }
        Err(Unreadable::Wrong(self.damaged(region, id.index, loc)))
    }

    fn damaged(&self, region: RegionId, index: u64, loc: Loc) -> Error {
        Error::damaged(format!(
            "entry {index} does not match its checksum: it was acknowledged and is damaged now; \
             fetch it from a replica and hand it to repair(), or append over it"
        ))
        .in_region(region)
        .naming(index..=index)
        .at(&self.path, Some(u64::from(loc.pos)))
    }

    /// The bytes a location points to, before any check but bounds.
    pub(crate) fn unverified(&self, loc: Loc) -> Result<Bytes, Unreadable> {
        match loc.is_raw() {
            true => self.bytes(loc.pos, loc.len),
            false => self.inside(&self.block(loc)?, loc),
        }
    }

    /// The compressed block that a location points into, decompressed.
    fn block(&self, loc: Loc) -> Result<Bytes, Unreadable> {
        self.block_of(loc, |pos, len| self.bytes(pos, len))
    }

    pub(crate) fn block_of(
        &self,
        loc: Loc,
        read: impl Fn(u32, u32) -> Result<Bytes, Unreadable>,
    ) -> Result<Bytes, Unreadable> {
        let head = read(loc.pos, 8)?;
        let word = |at: usize| {
            let mut raw = [0; 4];
            raw.copy_from_slice(&head[at..at + 4]);
            u32::from_le_bytes(raw)
        };
        let (raw_len, stored_len) = (word(0), word(4));
        let start = loc.pos.checked_add(8).ok_or_else(|| self.bad_block(loc, "lies beyond the file"))?;
        let stored = read(start, stored_len)?;
        let raw = decompress(&stored, raw_len as usize)
            .map_err(|e| self.bad_block(loc, &format!("cannot be decompressed: {e}")))?;
        Ok(Bytes::from(raw))
    }

    /// One entry of a decompressed block.
    pub(crate) fn inside(&self, block: &Bytes, loc: Loc) -> Result<Bytes, Unreadable> {
        let (from, to) = (loc.inner as usize, loc.inner as usize + loc.len as usize);
        if to > block.len() {
            return Err(self.bad_block(loc, "is shorter than its entries"));
        }
        Ok(block.slice(from..to))
    }

    fn bad_block(&self, loc: Loc, what: &str) -> Unreadable {
        let error = Error::damaged(format!("a compressed block {what}"));
        Unreadable::Wrong(error.at(&self.path, Some(u64::from(loc.pos))))
    }

    /// `len` bytes at `pos` of the file, borrowed where the file is mapped.
    pub(crate) fn bytes(&self, pos: u32, len: u32) -> Result<Bytes, Unreadable> {
        let (from, to) = (u64::from(pos), u64::from(pos) + u64::from(len));
        if let Some(bytes) = self.at_hand(from, to)? {
            return Ok(bytes);
        }
        if let Some(map) = &self.map
            && let Some(bytes) = map.slice(from as usize..to as usize)
        {
            return Ok(bytes);
        }
        self.read_file(from, len)
    }

    /// As [`bytes`](Segment::bytes), and never through the mapping.
    pub(crate) fn bytes_from_file(&self, pos: u32, len: u32) -> Result<Bytes, Unreadable> {
        let (from, to) = (u64::from(pos), u64::from(pos) + u64::from(len));
        self.at_hand(from, to)?.map_or_else(|| self.read_file(from, len), Ok)
    }

    /// The bytes of a range that need no read: it is empty, or not in the file yet.
    fn at_hand(&self, from: u64, to: u64) -> Result<Option<Bytes>, Unreadable> {
        if to > self.len {
            let beyond = Error::damaged("a location lies beyond the end of its segment");
            return Err(Unreadable::Wrong(beyond.at(&self.path, Some(from))));
        }
        if to > self.written() {
            // The write may complete between the two looks, and the batch leave the queue: then the
            // file has it.
            if let Some(bytes) = self.bytes_in_flight(from, to) {
                return Ok(Some(bytes));
            }
        }
        Ok((from == to).then(Bytes::new))
    }

    /// Reads from the file itself.
    fn read_file(&self, from: u64, len: u32) -> Result<Bytes, Unreadable> {
        let mut buf = vec![0; len as usize];
        let file = self.file().map_err(Unreadable::Wrong)?;
        read_patiently(&**file, &mut buf, from).map_err(|e| self.read_error(from, e))?;
        Ok(Bytes::from(buf))
    }

    fn read_error(&self, offset: u64, e: std::io::Error) -> Unreadable {
        Unreadable::read("reading a segment failed", e).map(|e| e.at(&self.path, Some(offset)))
    }

    /// The same for a read of its footer.
    pub(crate) fn footer_error(&self, e: std::io::Error) -> Unreadable {
        Unreadable::read("reading the footer of a segment failed", e).map(|e| e.at(&self.path, None))
    }

    fn bytes_in_flight(&self, from: u64, to: u64) -> Option<Bytes> {
        let queue = self.lock_in_flight();
        let at = queue.partition_point(|b| b.payload_start() <= from).checked_sub(1)?;
        let batch = queue.get(at)?;
        let (a, b) = (from - batch.payload_start(), to - batch.payload_start());
        (b <= batch.payload.len() as u64).then(|| batch.payload.slice(a as usize..b as usize))
    }

    fn lock_in_flight(&self) -> MutexGuard<'_, VecDeque<InFlight>> {
        self.in_flight.lock()
    }

    /// What the file is called.
    pub(crate) fn name(&self) -> String {
        FileName::segment(self.kind, self.id).to_string()
    }
}

/// Fills `buf` from `offset`. What the device cannot read it is asked for once more: it may have
/// been the cable.
fn read_patiently(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
    match if_readable(read_exact_at(file, buf, offset))? {
        Some(()) => Ok(()),
        None => read_exact_at(file, buf, offset),
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let to = self.retired.get_mut().take();
        if let Some(to) = to.and_then(|w| w.upgrade()) {
            to.retire(RetiredFile {
                name: self.name(),
                len: self.len,
                salt: self.identity.salt,
                recyclable: self.recyclable.load(Ordering::Acquire),
                map: self.map.take(),
                has_footer: true,
            });
        }
    }
}
