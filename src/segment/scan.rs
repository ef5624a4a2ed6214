//! Reads the records of a segment front to back, believing nothing.
//!
//! Used where a footer is missing: at open for the unsealed tail, when a full segment is sealed, and when a
//! footer has to be rebuilt. Reads go through a bounded window of positional reads, not the mapping, so that
//! a bad sector is an error and not a signal, and memory does not grow with the segment.

use super::verify::wrong_entries;
use crate::codec::checksum::crc32;
use crate::codec::mend::{Flip, find_flip};
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Install};
use crate::format::copies::{Copies, RecordCopy};
use crate::format::file_header::{Identity, SEGMENT_HEADER_LEN};
use crate::format::record::{RECORD_HEADER_LEN, RECORD_MAGIC, RecordHeader, RecordKind, Shape, record_len};
use crate::limits::SECTOR;
use crate::planted::{Bug, planted};
use crate::types::Lsn;
use crate::vfs::VfsFile;
use crate::vfs::io::read_up_to;
use crate::vfs::meaning::if_readable;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;

/// A record whose header and description are right. Its payload has not been looked at.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) offset: u32,
    pub(crate) header: RecordHeader,
    pub(crate) shape: Shape,
    pub(crate) desc: Bytes,
    /// The header or the description was not right as it stands: a flipped bit was undone, or it was rebuilt
    /// from the next record, or from a copy.
    pub(crate) mended: bool,
}

impl Record {
    /// Offset of the description.
    pub(crate) fn desc_at(&self) -> u32 {
        self.offset + RECORD_HEADER_LEN
    }

    /// Offset of the payload.
    pub(crate) fn payload_at(&self) -> u32 {
        self.offset + RECORD_HEADER_LEN + self.header.desc_len
    }

    /// Offset one past the record.
    pub(crate) fn end(&self) -> u32 {
        (u64::from(self.offset) + record_len(self.header.desc_len, self.header.payload_len)) as u32
    }
}

/// What stands at an offset where a record could begin.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record whose header and description are right.
    Record(Record),
    /// The header is right and the description is not.
    BadDescription(RecordHeader),
    /// No header of this file's present generation: zeros, an older generation, or rot.
    Nothing,
}

/// A header that was [sought](Scanner::seek), and is right.
pub(crate) struct Sought {
    pub(crate) offset: u32,
    pub(crate) header: RecordHeader,
}

/// A window onto one segment file.
pub(crate) struct Scanner<'a> {
    file: &'a dyn VfsFile,
    path: &'a Path,
    seed: u32,
    segment: u32,
    /// Nothing is read at or beyond.
    limit: u64,
    window: Vec<u8>,
    window_at: u64,
    /// Sectors that the device could not read.
    bad: BTreeSet<u64>,
    /// What stands in for headers and descriptions that cannot be read.
    copies: Option<&'a Copies>,
}

impl<'a> Scanner<'a> {
    /// Scans the first `limit` bytes of `file`.
    pub(crate) fn new(file: &'a dyn VfsFile, path: &'a Path, identity: &Identity, limit: u64) -> Scanner<'a> {
        Scanner {
            file,
            path,
            seed: identity.seed(),
            segment: identity.file,
            limit,
            window: Vec::new(),
            window_at: 0,
            bad: BTreeSet::new(),
            copies: None,
        }
    }

    /// The same, with these copies of records.
    pub(crate) fn with_copies(self, copies: Option<&'a Copies>) -> Scanner<'a> {
        Scanner { copies, ..self }
    }

    /// What stands at `offset`, or stood there by its copy.
    pub(crate) fn look(&mut self, offset: u32) -> Result<Found> {
        let found = self.look_in_file(offset)?;
        match self.copies.and_then(|copies| copies.get(&offset)) {
            Some(copy) if !matches!(found, Found::Record(_)) && self.has_room_for(copy) => {
                Ok(copied(copy, offset))
            }
            _ => Ok(found),
        }
    }

    /// Of a file that was cut nothing is there beyond its end.
    fn has_room_for(&self, copy: &RecordCopy) -> bool {
        copy.shape.end().is_some_and(|end| u64::from(end.offset()) <= self.limit)
    }

    fn look_in_file(&mut self, offset: u32) -> Result<Found> {
        let at = Lsn::new(self.segment, offset);
        let (seed, limit) = (self.seed, self.limit);
        let head = self.read(u64::from(offset), RECORD_HEADER_LEN as usize)?;
        if head.len() < RECORD_HEADER_LEN as usize {
            return Ok(Found::Nothing);
        }
        let decoded = RecordHeader::decode(head, seed, at);
        let mut mended = decoded.is_err();
        let Some((header, shape)) = decoded.ok().or_else(|| mend_header(head, seed, at)) else {
            return Ok(Found::Nothing);
        };
        if u64::from(offset) + record_len(header.desc_len, header.payload_len) > limit {
            return Ok(Found::BadDescription(header));
        }
        let from = u64::from(offset) + u64::from(RECORD_HEADER_LEN);
        let desc = Bytes::copy_from_slice(self.read(from, header.desc_len as usize)?);
        if desc.len() < header.desc_len as usize {
            return Ok(Found::BadDescription(header));
        }
        let found = crc32(0, &desc);
        if found == header.desc_crc || planted(Bug::DescriptionNotVerified) {
            return Ok(Found::Record(Record { offset, header, shape, desc, mended }));
        }
        mended = true;
        if header.kind == RecordKind::Copies {
            // It is of no use any more, and nothing is lost with it.
            return Ok(Found::Record(Record { offset, header, shape, desc: Bytes::new(), mended }));
        }
        let Some(desc) = mend_description(&desc, found, header.desc_crc) else {
            return Ok(Found::BadDescription(header));
        };
        let record = Record { offset, header, shape, desc, mended };
        match self.confirms(&record)? {
            true => Ok(Found::Record(record)),
            false => Ok(Found::BadDescription(header)),
        }
    }

    /// Whether a mended description fits the payloads: a second opinion, independent of its own checksum.
    fn confirms(&mut self, record: &Record) -> Result<bool> {
        if record.header.kind != RecordKind::Batch {
            return Ok(Install::decode(&record.desc).is_ok());
        }
        let Ok((batch, blocks)) = Batch::decode_desc(&record.desc, record.header.payload_len) else {
            return Ok(false);
        };
        let payload = self.payload(record)?;
        Ok(wrong_entries(&batch, &blocks, &payload).is_some_and(|wrong| wrong.is_empty()))
    }

    /// The record of this shape, whose own header is gone: its successor repeats what matters of it.
    pub(crate) fn rebuild(&mut self, shape: Shape, previous: Shape) -> Result<Option<Record>> {
        let offset = shape.position.offset();
        let end = u64::from(offset) + record_len(shape.desc_len, shape.payload_len);
        if shape.position.segment() != self.segment || end > self.limit {
            return Ok(None);
        }
        let from = u64::from(offset) + u64::from(RECORD_HEADER_LEN);
        let desc = Bytes::copy_from_slice(self.read(from, shape.desc_len as usize)?);
        Ok(RecordHeader::rebuilt_from(shape, &desc).ok().map(|header| Record {
            offset,
            header: RecordHeader { previous, ..header },
            shape,
            desc,
            mended: true,
        }))
    }

    /// As [`look`](Scanner::look), but where nothing stands that can be read, the next record after it is
    /// asked. `previous` is the shape of the record before, if there is one.
    pub(crate) fn look_ahead(&mut self, offset: u32, previous: Shape) -> Result<Found> {
        let found = self.look(offset)?;
        if let Found::Nothing = found
            && let Some(Sought { header: next, .. }) = self.seek(offset.saturating_add(8))?
            && next.previous.position == Lsn::new(self.segment, offset)
            && let Some(record) = self.rebuild(next.previous, previous)?
        {
            return Ok(Found::Record(record));
        }
        Ok(found)
    }

    /// The first valid header at or after `offset`, however far away.
    pub(crate) fn seek(&mut self, offset: u32) -> Result<Option<Sought>> {
        let mut at = u64::from(offset).next_multiple_of(8);
        while at + u64::from(RECORD_HEADER_LEN) <= self.limit {
            let (segment, seed) = (self.segment, self.seed);
            let want = WINDOW_BYTES.min((self.limit - at) as usize);
            let bytes = self.read(at, want)?;
            if bytes.len() < RECORD_HEADER_LEN as usize {
                return Ok(None);
            }
            let last = bytes.len() - RECORD_HEADER_LEN as usize;
            for (n, word) in bytes[..last + 8].chunks_exact(8).enumerate() {
                if word[..4] != RECORD_MAGIC {
                    continue;
                }
                let i = n * 8;
                let here = (at + i as u64) as u32;
                if let Ok((header, _)) = RecordHeader::decode(&bytes[i..], seed, Lsn::new(segment, here)) {
                    return Ok(Some(Sought { offset: here, header }));
                }
            }
            at += (last as u64 & !7) + 8;
        }
        Ok(None)
    }

    /// The payload of a record, as it stands.
    pub(crate) fn payload(&mut self, record: &Record) -> Result<Bytes> {
        let bytes = self.read(u64::from(record.payload_at()), record.header.payload_len as usize)?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    /// Up to `len` bytes at `offset`; fewer only at the end of the file.
    pub(crate) fn read(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = (offset + len as u64).min(self.limit);
        let have = self.window_at..self.window_at + self.window.len() as u64;
        if offset < have.start || end > have.end {
            // Lengths were checked against the limit, and the limit is the file's length: no
            // hostile allocation.
            let want = WINDOW_BYTES.max(len).min(self.limit.saturating_sub(offset) as usize);
            self.window.resize(want, 0);
            let read = if_readable(read_up_to(self.file, &mut self.window, offset));
            let got = match read.map_err(|e| self.failed(offset, e))? {
                Some(got) => got,
                None => self.read_around(offset)?,
            };
            self.window.truncate(got);
            self.window_at = offset;
        }
        let from = (offset - self.window_at) as usize;
        let to = (from + len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or(&[]))
    }

    /// Fills the window sector by sector. What the device cannot read is rot like any other: it shows as
    /// bytes that are right nowhere and look like no tear.
    fn read_around(&mut self, offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < self.window.len() {
            let at = offset + done as u64;
            let len = ((SECTOR - at % SECTOR) as usize).min(self.window.len() - done);
            let sector = &mut self.window[done..done + len];
            match if_readable(read_up_to(self.file, sector, at)) {
                Ok(Some(n)) if n < len => return Ok(done + n),
                Ok(Some(_)) => {}
                Ok(None) => {
                    sector.fill(UNREADABLE);
                    self.bad.insert(at / SECTOR);
                }
                Err(e) => return Err(self.failed(at, e)),
            }
            done += len;
        }
        Ok(done)
    }

    fn failed(&self, offset: u64, e: std::io::Error) -> Error {
        Error::io("reading a segment", self.path, e).at(self.path, Some(offset))
    }

    /// The first sector from `place` that the device could not read.
    pub(crate) fn bad_sector(&self, place: Range<u64>) -> Option<u64> {
        if place.is_empty() {
            return None;
        }
        self.bad.range(place.start / SECTOR..=(place.end - 1) / SECTOR).next().copied()
    }
}

/// The record of which this is a copy.
fn copied(copy: &RecordCopy, offset: u32) -> Found {
    let RecordCopy { header, shape, .. } = *copy;
    let desc = match &copy.desc {
        Some(desc) => desc.clone(),
        // Nobody asks what it had copies of.
        None if header.kind == RecordKind::Copies => Bytes::new(),
        None => return Found::BadDescription(header),
    };
    Found::Record(Record { offset, header, shape, desc, mended: true })
}

/// What stands for a byte that cannot be read.
const UNREADABLE: u8 = 0xa5;

/// The header with one bit flipped back, if that makes it right. Position, magic and checksum all
/// have to agree.
fn mend_header(head: &[u8], seed: u32, at: Lsn) -> Option<(RecordHeader, Shape)> {
    let mut bytes = [0; RECORD_HEADER_LEN as usize];
    bytes.copy_from_slice(head.get(..RECORD_HEADER_LEN as usize)?);
    let magic = bytes.iter().zip(RECORD_MAGIC).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    if magic > 1 {
        return None;
    }
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = RecordHeader::decode(&bytes, seed, at) {
            return Some(found);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

fn mend_description(desc: &Bytes, found: u32, stored: u32) -> Option<Bytes> {
    // The stored checksum is covered by the header's own: only the description can be wrong.
    let Flip::Message { byte, mask } = find_flip(desc.len(), found, stored)? else { return None };
    let mut bytes = desc.to_vec();
    *bytes.get_mut(byte)? ^= mask;
    Some(Bytes::from(bytes))
}

/// Where the first record of a segment stands.
pub(crate) const FIRST_RECORD: u32 = SEGMENT_HEADER_LEN;
