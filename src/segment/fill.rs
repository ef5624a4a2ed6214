//! Fills a new segment with zeros before it is written to, a piece at a time.
//!
//! A write into blocks that hold zeros already is cheaper to sync than one into blocks that are merely
//! reserved: the file system has nothing to note of it. Therefore the segment that comes next is filled while
//! the one before it is used. Nobody waits for that: a segment that is needed earlier is written to as it is.
//!
//! Invariant: **no zero is written once the segment is claimed**, and every write of a record claims it
//! first. Zeros go through a handle that lies in a lock, with the lock held; a claim takes the handle away
//! under the same lock. A piece that is on its way has ended before the claim returns, and without the
//! handle there is none after it.

use super::Unwritten;
use crate::format::file_header::SEGMENT_HEADER_LEN;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::vfs::VfsFile;
use crate::vfs::io::write_parts_at;
use std::path::Path;

/// The most that is written at once: a claim waits for so much, and a sync of the log beside it for what the
/// device has to do for it.
const PIECE_BYTES: u64 = 128 << 10;

/// Zeros are synced so many at a time. In between they are only handed to the device: where the file system
/// has a journal, each sync would be a commit of it, which the log's own syncs have to wait for.
const SYNCED_BYTES: u64 = 1 << 20;

/// A segment is filled this many pieces ahead of what its predecessor's use asks for.
const LEAD_PIECES: u64 = 16;

/// How far a segment is filled, and the right to fill it.
#[derive(Debug)]
pub(crate) struct Filling {
    /// What zeros are written through, with the lock held. `None` once the segment is claimed, or
    /// full of zeros.
    handle: Mutex<Option<Arc<dyn VfsFile>>>,
    /// Bytes below are filled, or are not to be any more. Only for those who decide when to fill: it proves
    /// nothing.
    filled: AtomicU64,
    /// Where the records have to end: what stands there is not filled.
    end: u64,
}

/// What filling failed at.
#[derive(Debug)]
pub(crate) enum FillError {
    /// Zeros could not be written, where no record is.
    Write(Unwritten),
    /// Zeros could not be synced: records that were written meanwhile may be lost with them.
    Sync(Unwritten),
}

impl Filling {
    /// Of a segment that needs none.
    pub(crate) fn none() -> Filling {
        Filling { handle: Mutex::default(), filled: AtomicU64::new(0), end: 0 }
    }

    /// Of a segment that holds a header in its first block, and none of whose blocks before `end` was written
    /// otherwise. The handle must not be shared: the kernel reports a failed write-back once to each, and
    /// this one must not swallow what a sync of the log has to see.
    pub(crate) fn of(handle: Arc<dyn VfsFile>, end: u64) -> Filling {
        let start = u64::from(SEGMENT_HEADER_LEN);
        Filling { handle: Mutex::new(Some(handle)), filled: AtomicU64::new(start), end }
    }

    /// From here on no zero is written. Waits for the piece that is being written.
    pub(crate) fn claim(&self) {
        let mut handle = self.handle.lock();
        if handle.is_some() && !planted(Bug::ZerosOverRecords) {
            *handle = None;
            self.filled.store(self.end, Ordering::Relaxed);
        }
    }

    /// Whether a piece is due when `share` of `of` bytes of the segment before this one are used.
    pub(crate) fn is_due(&self, share: u64, of: u64) -> bool {
        let filled = self.filled.load(Ordering::Relaxed);
        // Both are offsets in segments, which have 32 bits.
        filled < self.end && filled < self.end * share / of.max(1) + LEAD_PIECES * self.piece()
    }

    /// Writes the next piece, and sees to it that it gets to the device. Returns its length, 0 if there is
    /// nothing to fill any more.
    pub(crate) fn fill_piece(&self, path: &Path) -> std::result::Result<u64, FillError> {
        let mut handle = self.handle.lock();
        let Some(file) = handle.clone() else { return Ok(0) };
        let from = self.filled.load(Ordering::Relaxed);
        let len = self.end.saturating_sub(from).min(self.piece());
        let written = write_parts_at(&*file, &[&vec![0; len as usize]], from);
        if written.is_err() || from + len >= self.end {
            *handle = None;
        }
        self.filled.store(if handle.is_some() { from + len } else { self.end }, Ordering::Relaxed);
        drop(handle);
        written.map_err(|e| FillError::Write(Unwritten::io("filling a segment", path, e)))?;
        // Not with the lock held: a record may come, and its own sync is no slower for this one.
        let to = from + len;
        if to >= self.end || from / SYNCED_BYTES < to / SYNCED_BYTES {
            file.sync_data()
                .map_err(|e| FillError::Sync(Unwritten::io("syncing a filled segment", path, e)))?;
        } else {
            // Linux begins to write the pages that are dirty. Where it does not, the next sync does.
            let _ = file.drop_cache(from..to);
        }
        Ok(len)
    }

    /// A small segment has several too.
    fn piece(&self) -> u64 {
        let block = u64::from(SEGMENT_HEADER_LEN);
        PIECE_BYTES.min((self.end / 4).next_multiple_of(block)).max(block)
    }
}

#[cfg(feature = "sim")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::io::read_exact_at;
    use crate::vfs::sim::SimVfs;
    use crate::vfs::{OpenMode, Vfs};

    const END: u64 = 64 << 10;

    fn files() -> (Arc<dyn VfsFile>, Filling) {
        let vfs = SimVfs::new(1);
        vfs.create_dir_all(Path::new("/d")).unwrap();
        let dir = vfs.open_dir(Path::new("/d")).unwrap();
        let file = dir.open("f", OpenMode::CreateNew).unwrap();
        file.allocate(END + 4096).unwrap();
        let blocks = vec![7; 4096];
        write_parts_at(&*file, &[&blocks], 0).unwrap();
        write_parts_at(&*file, &[&blocks], END).unwrap();
        let filling = Filling::of(dir.open("f", OpenMode::ReadWrite).unwrap(), END);
        (file, filling)
    }

    fn is_all(file: &dyn VfsFile, from: u64, to: u64, byte: u8) -> bool {
        let mut bytes = vec![1; (to - from) as usize];
        read_exact_at(file, &mut bytes, from).unwrap();
        bytes.iter().all(|b| *b == byte)
    }

    #[test]
    fn no_zero_is_written_once_the_segment_is_claimed() {
        // A claim may come before each piece, and beside it.
        for pieces in 0..6 {
            let (file, filling) = files();
            for _ in 0..pieces {
                filling.fill_piece(Path::new("f")).unwrap();
            }
            filling.claim();
            write_parts_at(&*file, &[&vec![9; (END - 4096) as usize]], 4096).unwrap();
            assert!(!filling.is_due(1, 1));
            assert_eq!(filling.fill_piece(Path::new("f")).unwrap(), 0);
            assert!(is_all(&*file, 4096, END, 9), "after {pieces} pieces");
        }
        for _ in 0..50 {
            let (file, filling) = files();
            std::thread::scope(|s| {
                s.spawn(|| while filling.fill_piece(Path::new("f")).unwrap() > 0 {});
                filling.claim();
                write_parts_at(&*file, &[&vec![9; (END - 4096) as usize]], 4096).unwrap();
            });
            assert!(is_all(&*file, 4096, END, 9));
        }
    }

    #[test]
    fn what_is_filled_lies_between_the_headers_and_keeps_pace_with_the_segment_before() {
        let (file, filling) = files();
        let mut filled = 0;
        for used in 0..=100 {
            while filling.is_due(used, 100) {
                filled += filling.fill_piece(Path::new("f")).unwrap();
            }
            assert!(filled >= (END * used / 100).saturating_sub(4096), "{filled} at {used} %");
        }
        assert_eq!(filled, END - 4096);
        assert!(
            is_all(&*file, 0, 4096, 7) && is_all(&*file, 4096, END, 0) && is_all(&*file, END, END + 4096, 7)
        );
    }
}
