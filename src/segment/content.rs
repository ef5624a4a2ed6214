//! The bytes of a segment: in its file, which may be mapped; of a batch on its way, in memory; or nowhere any
//! more.
//!
//! Of a segment whose file is gone or cannot be recognised a hole is left. The region table still knows which
//! entries lay in it. They answer for their terms where those are known, and any read of them is an error
//! that names the file; every other region goes on.

use super::Unreadable;
use super::in_flight::{InFlight, InFlightQueue};
use crate::error::{Error, Result};
use crate::format::batch::Loc;
use crate::format::file_header::SEGMENT_HEADER_LEN;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::vfs::io::read_exact_at;
use crate::vfs::meaning::if_readable;
use crate::vfs::{Map, VfsFile};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

/// What a segment's bytes stand in.
#[derive(Debug)]
enum Body {
    /// Opened by name once the segment is sealed: then it holds no descriptor. The name stays as long as the
    /// segment.
    File(Arc<dyn VfsFile>),
    /// The file is missing, or cannot be recognised.
    Hole,
}

/// The bytes of one segment.
#[derive(Debug)]
pub(crate) struct Content {
    /// For messages.
    path: Arc<Path>,
    /// Length of the file.
    len: u64,
    body: Body,
    map: Option<Arc<Map>>,
    /// Bytes below are in the operating system's hands and final.
    written: AtomicU64,
    in_flight: InFlightQueue,
}

impl Content {
    /// Of a file that is `mapped`, if the system can do that, or read by its handle.
    ///
    /// # Errors
    /// Of the operating system.
    pub(super) fn of(file: Arc<dyn VfsFile>, path: Arc<Path>, len: u64, mapped: bool) -> Result<Content> {
        let map = match mapped && len > 0 {
            true => file.map(len).map_err(|e| Error::io("mapping a segment", &path, e))?,
            false => None,
        };
        Ok(Content { map, ..Content::over(Body::File(file), path, len) })
    }

    /// Of a file that is gone or cannot be recognised.
    pub(super) fn hole(path: Arc<Path>) -> Content {
        Content::over(Body::Hole, path, 0)
    }

    fn over(body: Body, path: Arc<Path>, len: u64) -> Content {
        let written = AtomicU64::new(u64::from(SEGMENT_HEADER_LEN));
        Content { path, len, body, map: None, written, in_flight: InFlightQueue::default() }
    }

    pub(super) fn is_hole(&self) -> bool {
        matches!(self.body, Body::Hole)
    }

    /// The file.
    ///
    /// # Errors
    /// `Damaged` for a hole.
    pub(super) fn file(&self) -> Result<&Arc<dyn VfsFile>> {
        match &self.body {
            Body::File(file) => Ok(file),
            Body::Hole => Err(Error::damaged(
                "the segment is missing; put its file back, or restore the store from a backup",
            )
            .at(&self.path, None)),
        }
    }

    /// Whether its bytes are borrowed out of a mapping.
    pub(super) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// The mapping, with which the file is retired.
    pub(super) fn take_map(&mut self) -> Option<Arc<Map>> {
        self.map.take()
    }

    // ---- the writer's side --------------------------------------------------------------------------------

    /// Makes an accepted batch readable before it is written. Calls come in the order of positions.
    pub(crate) fn push_in_flight(&self, batch: InFlight) {
        self.in_flight.push(batch);
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
        self.in_flight.drop_below(end);
    }

    /// Offset below which all bytes are in the file.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
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

    /// As [`bytes`](Content::bytes), and never through the mapping: a bad sector is an error then, and does
    /// not end the process.
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
            if let Some(bytes) = self.in_flight.bytes(from, to) {
                return Ok(Some(bytes));
            }
        }
        Ok((from == to).then(Bytes::new))
    }

    /// Reads from the file itself.
    fn read_file(&self, from: u64, len: u32) -> Result<Bytes, Unreadable> {
        let mut buf = vec![0; len as usize];
        let file = self.file().map_err(Unreadable::Wrong)?;
        let failed =
            |e| Unreadable::read("reading a segment failed", e).map(|e| e.at(&self.path, Some(from)));
        read_patiently(&**file, &mut buf, from).map_err(failed)?;
        Ok(Bytes::from(buf))
    }
}

/// Fills `buf` from `offset`. What the device cannot read it is asked for once more: it may have
/// been the cable.
pub(super) fn read_patiently(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
    match if_readable(read_exact_at(file, buf, offset))? {
        Some(()) => Ok(()),
        None => read_exact_at(file, buf, offset),
    }
}
