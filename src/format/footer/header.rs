//! The fixed part of a footer, and what follows from it: where each section lies.

use super::Tail;
use crate::codec::checksum::crc32;
use crate::codec::{Cursor, Malformed};
use crate::format::file_header::FILE_HEADER_LEN;
use crate::format::record::Shape;
use crate::types::{Lsn, RegionId};
use std::ops::Range;

/// What follows the file header. Every checksum that the sections need is here or in a range's row, so all of
/// the file hangs on this one header's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FooterHeader {
    pub(super) tail: Tail,
    pub(super) entry_count: u64,
    pub(super) range_count: u32,
    pub(super) run_count: u32,
    pub(super) deltas_len: u64,
    pub(super) installs_len: u64,
    pub(super) locs_len: u64,
    pub(super) deltas_crc: u32,
    pub(super) installs_crc: u32,
    pub(super) ranges_crc: u32,
    pub(super) runs_crc: u32,
}

impl FooterHeader {
    /// The header as it stands on disk.
    pub(super) fn encode(&self, seed: u32) -> Vec<u8> {
        let mut body = Vec::with_capacity(FOOTER_HEADER_LEN);
        body.extend_from_slice(&self.tail.end.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        self.tail.last.put(&mut body);
        let mut put = |field: &[u8]| body.extend_from_slice(field);
        put(&self.tail.watermark.to_u64().to_le_bytes());
        put(&self.entry_count.to_le_bytes());
        put(&self.range_count.to_le_bytes());
        put(&self.run_count.to_le_bytes());
        put(&self.deltas_len.to_le_bytes());
        put(&self.installs_len.to_le_bytes());
        put(&self.locs_len.to_le_bytes());
        put(&self.deltas_crc.to_le_bytes());
        put(&self.installs_crc.to_le_bytes());
        put(&self.ranges_crc.to_le_bytes());
        put(&self.runs_crc.to_le_bytes());
        self.tail.follows.put(&mut body);
        body.resize(FOOTER_HEADER_LEN - 8, 0);
        let mut out = Vec::with_capacity(FOOTER_HEADER_LEN);
        out.extend_from_slice(&FOOTER_MAGIC);
        out.extend_from_slice(&crc32(seed, &body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads what [`encode`](FooterHeader::encode) wrote.
    pub(super) fn decode(bytes: &[u8], seed: u32) -> Result<FooterHeader, Malformed> {
        let mut r = Cursor::new(bytes);
        if r.array()? != FOOTER_MAGIC {
            return Err(Malformed("the footer's header has a bad magic"));
        }
        let crc = r.u32()?;
        let body = r.bytes(FOOTER_HEADER_LEN - 8)?;
        r.finish()?;
        if crc32(seed, body) != crc {
            return Err(Malformed("the checksum of the footer's header is wrong"));
        }
        let mut r = Cursor::new(body);
        let end = r.u32()?;
        let reserved = r.u32()?;
        let last = Shape::read(&mut r)?;
        let mut header = FooterHeader {
            tail: Tail { end, last, watermark: Lsn::from_u64(r.u64()?), ..Tail::default() },
            entry_count: r.u64()?,
            range_count: r.u32()?,
            run_count: r.u32()?,
            deltas_len: r.u64()?,
            installs_len: r.u64()?,
            locs_len: r.u64()?,
            deltas_crc: r.u32()?,
            installs_crc: r.u32()?,
            ranges_crc: r.u32()?,
            runs_crc: r.u32()?,
        };
        header.tail.follows = Shape::read(&mut r)?;
        if reserved != 0 || r.bytes(r.remaining())?.iter().any(|b| *b != 0) {
            return Err(Malformed("reserved bytes of the footer's header are not zero"));
        }
        Ok(header)
    }

    /// Where the sections lie in a file of `file_len` bytes, which they must fill exactly.
    pub(super) fn sections(&self, file_len: usize) -> Result<Sections, Malformed> {
        let mut at = SECTIONS_AT;
        let mut next = |len: u64| {
            let start = at;
            at = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).ok_or(MISFIT)?;
            Ok(start..at)
        };
        let sections = Sections {
            deltas: next(self.deltas_len)?,
            installs: next(self.installs_len)?,
            ranges: next(u64::from(self.range_count) * RANGE_LEN as u64)?,
            runs: next(u64::from(self.run_count) * RUN_LEN as u64)?,
            locs: next(self.locs_len)?,
        };
        if sections.locs.end == file_len { Ok(sections) } else { Err(MISFIT) }
    }
}

/// The byte range of each section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sections {
    pub(super) deltas: Range<usize>,
    pub(super) installs: Range<usize>,
    pub(super) ranges: Range<usize>,
    pub(super) runs: Range<usize>,
    pub(super) locs: Range<usize>,
}

/// One row of the range table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RangeRow {
    pub(super) region: RegionId,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Bytes a location takes: 16, or 12 when no entry of the range is in a compressed block.
    pub(super) stride: u32,
    /// The range's first run, as an ordinal in the run table.
    pub(super) runs_at: u32,
    pub(super) run_count: u32,
    /// The range's first location, as an offset in the section.
    pub(super) locs_at: u64,
    /// Payload bytes, uncompressed.
    pub(super) bytes: u64,
    pub(super) locs_crc: u32,
}

impl RangeRow {
    /// Appends the row.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.region.0.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.stride.to_le_bytes());
        out.extend_from_slice(&self.runs_at.to_le_bytes());
        out.extend_from_slice(&self.run_count.to_le_bytes());
        out.extend_from_slice(&self.locs_at.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.locs_crc.to_le_bytes());
        out.extend_from_slice(&[0; 12]);
    }

    /// Reads a row; whether its numbers make sense is for the caller to find out.
    pub(super) fn read(row: &[u8]) -> Result<RangeRow, Malformed> {
        let mut r = Cursor::new(row);
        let row = RangeRow {
            region: RegionId(r.u64()?),
            first: r.u64()?,
            count: r.u32()?,
            stride: r.u32()?,
            runs_at: r.u32()?,
            run_count: r.u32()?,
            locs_at: r.u64()?,
            bytes: r.u64()?,
            locs_crc: r.u32()?,
        };
        match r.bytes(r.remaining())?.iter().all(|b| *b == 0) {
            true => Ok(row),
            false => Err(Malformed("reserved bytes of a range are not zero")),
        }
    }

    /// The index of the last entry; of the first when the row is inconsistent.
    pub(super) fn last(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count.saturating_sub(1)))
    }
}

/// Where the first section starts.
pub(super) const SECTIONS_AT: usize = FILE_HEADER_LEN + FOOTER_HEADER_LEN;

/// The length of the footer header.
pub(super) const FOOTER_HEADER_LEN: usize = 128;

/// The length of a row of the range table.
pub(super) const RANGE_LEN: usize = 64;

/// The length of a row of the run table.
pub(super) const RUN_LEN: usize = 16;

/// The length of a location of an entry that is stored as it is.
pub(super) const LOC_RAW_LEN: u32 = 12;

/// The length of a location in a range with compressed entries.
pub(super) const LOC_LZ4_LEN: u32 = 16;

const FOOTER_MAGIC: [u8; 4] = [0xd7, b'f', b'o', b't'];

const MISFIT: Malformed = Malformed("the footer's sections do not fill its file");
