//! What the records of a segment say, kept while it is written: its footer is built from that and not from
//! the file, which would be read, payloads and all, to find a few bytes of each record.
//!
//! It is a copy of headers and descriptions as they were written, and goes through the same decoders as what
//! is read. It is therefore right or not there: a segment of another run, or one that has more to keep than
//! is worth the memory, is read.

use super::scan::{FIRST_RECORD, Record};
use crate::codec::checksum::crc32;
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind};
use crate::sync::Mutex;
use crate::types::Lsn;
use bytes::Bytes;

/// The most that is kept, as a share of the segment: batches of four entries of 1 KiB need two
/// fifths of that.
const SHARE: u64 = 16;

/// The length of a chunk, unless one record has more.
const CHUNK: usize = 32 << 10;

/// Headers and descriptions of the records of one segment, from its first on.
#[derive(Debug)]
pub(crate) struct Notes(Mutex<State>);

#[derive(Debug)]
enum State {
    Kept {
        /// Each holds whole records. A list that grows as one piece would be copied again and again, and
        /// leave gaps on the heap in which the next one has no room.
        chunks: Vec<Vec<u8>>,
        bytes: usize,
        end: u32,
        bytes_max: usize,
    },
    /// It is not all there.
    Lacking,
}

impl Notes {
    /// Of a segment of `len` bytes that has no records yet.
    pub(crate) fn new(len: u64) -> Notes {
        let bytes_max = (len / SHARE) as usize;
        Notes(Mutex::new(State::Kept { chunks: Vec::new(), bytes: 0, end: FIRST_RECORD, bytes_max }))
    }

    /// Of a segment that has to be read.
    pub(crate) fn lacking() -> Notes {
        Notes(Mutex::new(State::Lacking))
    }

    /// The record at `start` was written. Calls come in the order of positions.
    pub(crate) fn note(&self, start: u32, record_end: u32, header: &[u8], desc: &[u8]) {
        let more = header.len() + desc.len();
        let mut state = self.0.lock();
        match &mut *state {
            State::Kept { chunks, bytes, end, bytes_max } if *end == start && *bytes + more <= *bytes_max => {
                if chunks.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < more) {
                    chunks.push(Vec::with_capacity(more.max(CHUNK.min(*bytes_max))));
                }
                if let Some(chunk) = chunks.last_mut() {
                    chunk.extend_from_slice(header);
                    chunk.extend_from_slice(desc);
                }
                *bytes += more;
                *end = record_end;
            }
            lacking => *lacking = State::Lacking,
        }
    }

    /// Takes what is known of the records before `end`, if that is everything.
    pub(super) fn take(&self, end: u32) -> Option<Vec<Vec<u8>>> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Lacking) {
            State::Kept { chunks, end: known, .. } if known == end => Some(chunks),
            _ => None,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &*self.0.lock() {
            State::Kept { chunks, .. } => chunks.iter().map(Vec::capacity).sum(),
            State::Lacking => 0,
        }
    }
}

/// Reads what was taken, front to back, and lets go of what was read.
pub(super) struct NotesReader {
    chunks: std::vec::IntoIter<Vec<u8>>,
    /// The rest of the chunk that is read.
    bytes: Bytes,
    segment: u32,
    seed: u32,
}

impl NotesReader {
    /// Of the segment with this number, whose checksums start from `seed`.
    pub(super) fn new(chunks: Vec<Vec<u8>>, segment: u32, seed: u32) -> NotesReader {
        NotesReader { chunks: chunks.into_iter(), bytes: Bytes::new(), segment, seed }
    }

    /// The next record, which stands at `offset` of the file. `None` where memory does not hold
    /// what was written: the file may.
    pub(super) fn next(&mut self, offset: u32) -> Option<Record> {
        if self.bytes.is_empty() {
            self.bytes = Bytes::from(self.chunks.next()?);
        }
        let at = Lsn::new(self.segment, offset);
        let (header, shape) = RecordHeader::decode(&self.bytes, self.seed, at).ok()?;
        let desc_at = RECORD_HEADER_LEN as usize;
        // Of copies the header alone is noted: no footer has anything of theirs.
        let is_noted = header.kind != RecordKind::Copies;
        let desc_end = desc_at + if is_noted { header.desc_len as usize } else { 0 };
        if desc_end > self.bytes.len() {
            return None;
        }
        let desc = self.bytes.slice(desc_at..desc_end);
        self.bytes = self.bytes.slice(desc_end..);
        let is_right = !is_noted || crc32(0, &desc) == header.desc_crc;
        is_right.then_some(Record { offset, header, shape, desc, mended: false })
    }
}
