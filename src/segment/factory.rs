//! Makes segments out of free files, and takes back the files of those that nobody needs.
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
//! All of it happens off the path of a write.

use super::free_files::{Fill, FreeFile, FreeFiles, Holds};
use super::retired::RetiredFiles;
use super::{FileMaker, FillError, Filling, Notes, Retire, RetiredFile, SYNC_SLOTS, Segment, Unwritten};
use crate::disk_watch::DiskWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::{
    FORMAT_VERSION, FileHeader, FileKind, Identity, SEGMENT_HEADER_LEN, SegmentKind, StoreId,
};
use crate::format::names::FileName;
use crate::options::{Options, ReadMode, STARTER_BYTES};
use crate::planted::{Bug, planted};
use crate::salt::SaltSource;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::vfs::io::write_parts_at;
use crate::vfs::{Dir, VfsFile};

/// The maker of segments.
#[derive(Debug)]
pub(crate) struct SegmentFactory {
    pub(crate) files: Arc<FileMaker>,
    pub(crate) free: FreeFiles,
    retired: RetiredFiles,
    store: StoreId,
    segment_bytes: u64,
    pub(super) mapped: bool,
    salts: SaltSource,
    next_file: AtomicU32,
    /// What is done here, and by upkeep, with the disk.
    pub(crate) watch: DiskWatch,
}

impl SegmentFactory {
    pub(crate) fn new(dir: &Dir, options: &Options, store: StoreId, next_file: u32) -> SegmentFactory {
        let files = Arc::new(FileMaker::new(dir));
        SegmentFactory {
            free: FreeFiles::new(files.clone(), options),
            files,
            retired: RetiredFiles::default(),
            store,
            segment_bytes: options.segment_bytes,
            mapped: options.read_mode == ReadMode::Map,
            salts: options.salts.clone(),
            next_file: AtomicU32::new(next_file),
            watch: DiskWatch::new(options.stall_after),
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

    /// What tells a new segment from all others.
    pub(super) fn next_identity(&self) -> Result<Identity> {
        let file = self.take_id()?;
        Ok(Identity { store: self.store, file, salt: self.salts.next() })
    }

    /// How long the first segment of a run is.
    pub(crate) fn first_len(&self) -> u64 {
        self.free.reserve_len()
    }

    /// The first segment of a run. Somebody waits for it: a file of the pool that is much longer, and would
    /// have to be looked at first, is left for later ones. A full disk does not keep a store from recovering,
    /// nor from taking what makes room.
    pub(crate) fn prepare_first(&self, len: u64) -> Result<Arc<Segment>, Unwritten> {
        let is_awaited = || true;
        match self.prepare_from(len, Fill::First, &is_awaited) {
            Err(full @ Unwritten::NoSpace(_)) if len <= self.first_len() => {
                let spare = self.free.take_spare(len, &is_awaited);
                spare.map_or(Err(full), |spare| self.format_free(spare))
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
            let free = match self.free.take(len..=longest, is_awaited) {
                Some(free) => free,
                None => self.free.create(len, fill)?,
            };
            self.format_free(free)
        })
    }

    fn format_free(&self, free: FreeFile) -> Result<Arc<Segment>, Unwritten> {
        if let Err(e) = self.files.check_open() {
            self.free.keep(free);
            return Err(e);
        }
        let identity = self.next_identity().map_err(Unwritten::Failed)?;
        self.free.used();
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(SegmentKind::Log),
            identity,
            len: free.len,
            previous_salt: if planted(Bug::FormerGenerationForgotten) { 0 } else { free.holds.salt() },
        };
        let name = FileName::Log(identity.file).to_string();
        let mut renamed = false;
        let made = self.format(&free, &header, &name, &mut renamed);
        match made.is_err() {
            // It has the new name already and may lose it in a crash: it goes the way of a dead segment.
            true if renamed => {
                self.retired.push(RetiredFile {
                    name,
                    len: free.len,
                    salt: header.identity.salt,
                    recyclable: true,
                    map: None,
                    has_footer: false,
                });
            }
            // It may be half formatted: its content does not matter, under the free name at least.
            true => self.free.put_back(free),
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
        let files = &self.files;
        let (before, path) = (files.dir.join(&free.name), files.dir.join(name));
        let file = files.open(&free.name)?;
        // One that was made for this is zeros, and has to stay so.
        if free.holds != Holds::Zeros {
            file.begin_generation()
                .map_err(|e| Unwritten::io("beginning another generation of a file", &before, e))?;
        }
        write_headers(&*file, header).map_err(|e| Unwritten::io("writing a segment header", &before, e))?;
        file.sync_data().map_err(|e| Unwritten::io("syncing a segment header", &before, e))?;
        files.dir.rename_new(&free.name, name).map_err(|e| Unwritten::io("naming a segment", &path, e))?;
        *renamed = true;
        files.sync_dir()?;
        let handles = (0..SYNC_SLOTS)
            .map(|slot| if slot == 0 { Ok(file.clone()) } else { files.open(name) })
            .collect::<Result<Vec<_>, Unwritten>>()?;
        let named = files.dir.by_name(name, &file);
        let named = named.map_err(|e| Unwritten::io("looking at a segment", &path, e))?;
        let mut segment = Segment::new(SegmentKind::Log, header, path, free.len, named, handles, self.mapped)
            .map_err(Unwritten::Failed)?;
        if free.unwritten {
            segment.filling = Filling::of(files.open(name)?, segment.records_end);
        }
        segment.notes = Notes::new(free.len);
        segment.recyclable.store(true, Ordering::Release);
        Ok(Arc::new(segment))
    }

    /// Fills the next piece of a segment that was prepared.
    pub(crate) fn fill_piece(&self, segment: &Segment) -> std::result::Result<(), FillError> {
        let piece = || segment.filling.fill_piece(&segment.path);
        let filled = self.watch.during("filling a segment", piece)?;
        self.files.filled_bytes.fetch_add(filled, Ordering::Relaxed);
        Ok(())
    }

    /// Makes free files of the retired ones, or removes them; `ready` files lie ready as segments. In an idle
    /// store, files go that were kept for a burst. Returns how many bytes the file system got back.
    pub(crate) fn absorb_retired(&self, ready: usize) -> Result<u64, Unwritten> {
        match (self.retired.is_empty(), self.free.is_idle()) {
            (false, _) => self.retired.absorb(&self.files, &self.free, ready),
            (true, true) => self.free.give_surplus_back(),
            (true, false) => Ok(0),
        }
    }

    /// Bytes of files without a name that entries of the caller's still show.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.retired.held_bytes()
    }
}

/// How long a segment file has to be for records of `bytes` in sum: a block with its header before
/// them, and one after.
pub(crate) fn segment_len_for(bytes: u64) -> u64 {
    let block = u64::from(SEGMENT_HEADER_LEN);
    2 * block + bytes.next_multiple_of(block)
}

/// Writes a segment's header into its first block and its last: neither is lost with the other.
pub(super) fn write_headers(file: &dyn VfsFile, header: &FileHeader) -> std::io::Result<()> {
    let block = header.encode_segment_block();
    header.copies_at().into_iter().try_for_each(|at| write_parts_at(file, &[&block], at))
}

impl Retire for SegmentFactory {
    fn retire(&self, file: RetiredFile) {
        // In a fork the file is not ours, and the lock may be held by nobody.
        if self.files.dir.is_here() {
            self.retired.push(file);
        }
    }
}
