//! One file of the log: made, appended to, sealed, mapped, read, and one day used again.
//!
//! ```text
//!  factory                 commit                         upkeep
//!  free file -> ready  ->  active (written in place)  ->  sealed (footer beside it)  ->  dead -> free file
//! ```
//!
//! A log segment is written front to back by the thread that leads a commit group, and by nobody after that.
//! Readers go through a shared mapping of the whole file (or positional reads), except for bytes that were
//! accepted and not yet written: those are served from the batch itself.
//!
//! Invariants
//!
//! - Bytes below [`Content::written`] never change again while a `Segment` value for the file lives. A file
//!   is recycled only when the last reader has let go of the `Segment` and of all bytes borrowed from it.
//! - A `.log` name always stands for a file with a valid header: a new generation is prepared and synced
//!   under a `.free` name, then renamed.
//! - The footer is a pure function of the records, so it can be thrown away and built again.

mod audit;
mod cold_file;
mod content;
mod demand;
pub(crate) mod factory;
mod file_maker;
mod fill;
mod footer_file;
mod free_files;
mod held;
mod in_flight;
mod live;
pub(crate) mod mark_file;
mod notes;
mod retired;
pub(crate) mod scan;
mod set;
mod unreadable;
mod unwritten;
pub(crate) mod verify;

use content::Content;
use scan::Scanner;

pub(crate) use audit::audit;
pub(crate) use cold_file::ColdFile;
pub(crate) use file_maker::FileMaker;
pub(crate) use fill::{FillError, Filling};
pub(crate) use footer_file::{
    build_footer, build_footer_of_full, footer_name, load_footer, open_built, rebuild_footer, write_footer,
};
pub(crate) use in_flight::InFlight;
pub(crate) use live::{Live, LiveCount};
pub(crate) use notes::Notes;
pub(crate) use retired::{Retire, RetiredFile};
pub(crate) use set::{SegmentSet, Unsealed};
pub(crate) use unreadable::Unreadable;
pub(crate) use unwritten::Unwritten;

use crate::codec::checksum::entry_checksum;
use crate::codec::compress::decompress;
use crate::error::{Error, Result};
use crate::format::batch::Loc;
use crate::format::copies::Copies;
use crate::format::file_header::{FORMAT_VERSION, FileHeader, FileKind, Identity, SegmentKind};
use crate::format::footer::Footer;
use crate::format::names::FileName;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use crate::types::{EntryId, Lsn, RegionId};
use crate::vfs::VfsFile;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// How many fdatasyncs of one segment may run side by side.
///
/// One: with two, 16 writers on two cores complete a quarter fewer batches, because each group is smaller,
/// and 2 writers gain what is lost in the noise (`docs/decisions/0002-one-sync-at-a-time.md`). The pipeline
/// copes with more. Each then needs a handle of its own, because a kernel reports a failed write-back once
/// per open file: with one shared handle, the sync of a later group could swallow the error of an earlier
/// one, which would then be acknowledged.
pub(crate) const SYNC_SLOTS: usize = 1;

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
    pub(crate) path: Arc<Path>,
    /// Length of the file.
    pub(crate) len: u64,
    /// Where the copies of its header stand.
    pub(crate) header_copies_at: [u64; 2],
    /// Where the records have to end.
    pub(crate) records_end: u64,
    pub(crate) content: Content,
    /// The handles that the file is written and synced through. They go when all records are durable through
    /// them: a kernel may report to nobody else a failed write-back.
    sync_handles: Mutex<Vec<Arc<dyn VfsFile>>>,
    /// Zeros that are written before the first record; claimed by every write of records.
    pub(crate) filling: Filling,
    /// What the records say, while the segment is written.
    pub(crate) notes: Notes,
    footer: RwLock<Option<Arc<Footer>>>,
    /// Offset one past the last record once the segment takes no more; 0 before.
    sealed_end: AtomicU32,
    /// What of it the region table owns.
    pub(crate) live: LiveCount,
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
        let path: Arc<Path> = path.into();
        let content = Content::of(file, path.clone(), len, mapped)?;
        Ok(Segment::over(content, kind, header, path, len, sync_handles))
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
        let path: Arc<Path> = path.into();
        Segment::over(Content::hole(path.clone()), kind, &header, path, 0, Vec::new())
    }

    fn over(
        content: Content,
        kind: SegmentKind,
        header: &FileHeader,
        path: Arc<Path>,
        len: u64,
        sync_handles: Vec<Arc<dyn VfsFile>>,
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
            content,
            sync_handles: Mutex::new(sync_handles),
            filling: Filling::none(),
            notes: Notes::lacking(),
            footer: RwLock::new(None),
            sealed_end: AtomicU32::new(0),
            live: LiveCount::default(),
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
        self.content.is_hole()
    }

    /// The file that its records stand in.
    ///
    /// # Errors
    /// `Damaged` for a hole.
    pub(crate) fn file(&self) -> Result<&Arc<dyn VfsFile>> {
        self.content.file()
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

    // ---- its file -----------------------------------------------------------------------------------------

    /// Bytes of its file, and of its footer's.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.len + self.footer().map_or(0, |footer| footer.len())
    }

    /// How much of the file is no live payload.
    pub(crate) fn garbage_percent(&self) -> u8 {
        let live = self.live.bytes().min(self.len);
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

    // ---- the entries ------------------------------------------------------------------------------------

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
            true => self.content.bytes_from_file(loc.pos, loc.len),
            false => self
                .block_of(loc, |pos, len| self.content.bytes_from_file(pos, len))
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
            true => self.content.bytes(loc.pos, loc.len),
            false => self.inside(&self.block(loc)?, loc),
        }
    }

    /// The compressed block that a location points into, decompressed.
    fn block(&self, loc: Loc) -> Result<Bytes, Unreadable> {
        self.block_of(loc, |pos, len| self.content.bytes(pos, len))
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

    /// What a failed read of its footer means.
    pub(crate) fn footer_error(&self, e: std::io::Error) -> Unreadable {
        Unreadable::read("reading the footer of a segment failed", e).map(|e| e.at(&self.path, None))
    }

    /// What the file is called.
    pub(crate) fn name(&self) -> String {
        FileName::segment(self.kind, self.id).to_string()
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
                map: self.content.take_map(),
                has_footer: true,
            });
        }
    }
}
