//! What the records of a segment say, kept while it is written: its footer is built from that and not from
//! the file, which would be read, payloads and all, to find a few bytes of each record.
//!
//! It is a copy of headers and descriptions as they were written, and goes through the same decoders as what
//! is read. It is therefore right or not there: a segment of another run, or one that has more to keep than
//! is worth the memory, is read.

use super::scan::{FIRST_RECORD, Record};
use crate::codec::checksum::crc32;
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader};
use crate::sync::Mutex;
use crate::types::Lsn;
use bytes::Bytes;

/// The most that is kept, as a share of the segment: batches of four entries of 1 KiB need two
/// fifths of that.
const SHARE: u64 = 16;

/// Headers and descriptions of the records of one segment, from its first on.
#[derive(Debug)]
pub(crate) struct Told(Mutex<State>);

#[derive(Debug)]
enum State {
    Kept {
        bytes: Vec<u8>,
        end: u32,
        bytes_max: usize,
    },
    /// It is not all there.
    Lacking,
}

impl Told {
    /// Of a segment of `len` bytes that has no records yet.
    pub(crate) fn new(len: u64) -> Told {
        let bytes_max = (len / SHARE) as usize;
        Told(Mutex::new(State::Kept { bytes: Vec::new(), end: FIRST_RECORD, bytes_max }))
    }

    /// Of a segment that has to be read.
    pub(crate) fn lacking() -> Told {
        Told(Mutex::new(State::Lacking))
    }

    /// The record at `start` was written. Calls come in the order of positions.
    pub(crate) fn note(&self, start: u32, record_end: u32, header: &[u8], desc: &[u8]) {
        let mut state = self.0.lock();
        match &mut *state {
            State::Kept { bytes, end, bytes_max }
                if *end == start && bytes.len() + header.len() + desc.len() <= *bytes_max =>
            {
                bytes.extend_from_slice(header);
                bytes.extend_from_slice(desc);
                *end = record_end;
            }
            lacking => *lacking = State::Lacking,
        }
    }

    /// Takes what is known of the records before `end`, if that is everything.
    pub(super) fn take(&self, end: u32) -> Option<Bytes> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Lacking) {
            State::Kept { bytes, end: known, .. } if known == end => Some(Bytes::from(bytes)),
            _ => None,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &*self.0.lock() {
            State::Kept { bytes, .. } => bytes.capacity(),
            State::Lacking => 0,
        }
    }
}

/// Reads what was taken, front to back.
pub(super) struct Retold {
    pub(super) bytes: Bytes,
    pub(super) segment: u32,
    pub(super) seed: u32,
}

impl Retold {
    /// The next record, which stands at `offset` of the file. `None` where memory does not hold
    /// what was written: the file may.
    pub(super) fn next(&mut self, offset: u32) -> Option<Record> {
        let at = Lsn::new(self.segment, offset);
        let (header, shape) = RecordHeader::decode(&self.bytes, self.seed, at).ok()?;
        let desc_at = RECORD_HEADER_LEN as usize;
        let desc_end = desc_at + header.desc_len as usize;
        if desc_end > self.bytes.len() {
            return None;
        }
        let desc = self.bytes.slice(desc_at..desc_end);
        self.bytes = self.bytes.slice(desc_end..);
        (crc32(0, &desc) == header.desc_crc).then_some(Record { offset, header, shape, desc, mended: false })
    }
}
