//! A footer as it is read: a view of its bytes, which are usually a map of its file.

use super::Tail;
use super::delta::{RegionDelta, read_deltas};
use super::header::{
    FOOTER_HEADER_LEN, FooterHeader, LOC_LZ4_LEN, LOC_RAW_LEN, RANGE_LEN, RUN_LEN, RangeRow, SECTIONS_AT,
    Sections,
};
use crate::codec::checksum::crc32;
use crate::codec::{Malformed, Reader};
use crate::format::batch::{Install, Loc};
use crate::format::file_header::{FILE_HEADER_LEN, FileHeader, FileKind, HeaderError, Identity};
use crate::limits::INDEX_MAX;
use crate::planted::{Bug, planted};
use crate::types::RegionId;
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

/// The footer of one segment.
#[derive(Debug)]
pub(crate) struct Footer {
    bytes: Bytes,
    header: FooterHeader,
    sections: Sections,
    seed: u32,
    /// The outcome of [`verify_tables`](Footer::verify_tables): unknown, good or bad.
    ///
    /// - It is a pure function of bytes that never change: two threads that both find it unknown store the same.
    /// - Nothing else is published with it, so `Relaxed` suffices.
    tables: AtomicU8,
}

const UNKNOWN: u8 = 0;
const GOOD: u8 = 1;
const BAD: u8 = 2;

impl Footer {
    /// Opens the footer of the segment with this identity. Checks the headers only.
    pub(crate) fn open(bytes: Bytes, identity: &Identity) -> Result<Footer, Malformed> {
        let file = FileHeader::decode(&bytes).map_err(|e| match e {
            HeaderError::Malformed(e) => e,
            HeaderError::NewerVersion(_) | HeaderError::UnknownFlags(_) => {
                Malformed("the footer is of a newer release")
            }
        })?;
        if file.kind != FileKind::Footer || file.identity != *identity {
            return Err(Malformed("the footer belongs to another segment, or to another life of it"));
        }
        if file.len != bytes.len() as u64 {
            return Err(Malformed("the footer is not as long as it should be"));
        }
        let seed = identity.seed();
        let header = bytes.get(FILE_HEADER_LEN..SECTIONS_AT).unwrap_or_default();
        debug_assert_eq!(SECTIONS_AT - FILE_HEADER_LEN, FOOTER_HEADER_LEN);
        let header = FooterHeader::decode(header, seed)?;
        let sections = header.sections(bytes.len())?;
        Ok(Footer { bytes, header, sections, seed, tables: AtomicU8::new(UNKNOWN) })
    }

    /// Where the segment's records end.
    pub(crate) fn tail(&self) -> Tail {
        self.header.tail
    }

    /// How many entries the footer locates.
    pub(crate) fn entry_count(&self) -> u64 {
        self.header.entry_count
    }

    /// How many ranges there are.
    pub(crate) fn range_count(&self) -> usize {
        self.header.range_count as usize
    }

    /// The length of the footer's file.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether ranges and runs are what the writer wrote. The answer is kept: all calls but the first are free.
    pub(crate) fn verify_tables(&self) -> Result<(), Malformed> {
        let outcome = match self.tables.load(Ordering::Relaxed) {
            GOOD => return Ok(()),
            BAD => Err(Malformed("the tables of the footer were found bad before")),
            _ => self.check_tables(),
        };
        self.tables.store(if outcome.is_ok() { GOOD } else { BAD }, Ordering::Relaxed);
        outcome
    }

    /// Whether every byte of it is what the writer wrote, as of now: what was found good once may have rotted since.
    pub(crate) fn is_right(&self) -> bool {
        self.check_tables().is_ok()
            && (0..self.range_count()).all(|i| self.range(i).is_some_and(|r| r.verify_locs()))
            && self.deltas().is_ok()
            && self.installs().is_ok()
    }

    /// The range with this ordinal, in the order of region and index. It is only right if
    /// [`verify_tables`](Footer::verify_tables) says so; until then it is merely safe to ask.
    pub(crate) fn range(&self, ordinal: usize) -> Option<RangeRef<'_>> {
        Some(RangeRef { footer: self, row: self.row(ordinal)? })
    }

    /// The range that holds this entry, if one does.
    pub(crate) fn find(&self, region: RegionId, index: u64) -> Result<Option<RangeRef<'_>>, Malformed> {
        self.verify_tables()?;
        let starts_behind = |row: RangeRow| (row.region, row.first) > (region, index);
        let behind = partition(self.range_count(), |at| self.row(at).is_some_and(|row| !starts_behind(row)));
        let range = behind.checked_sub(1).and_then(|at| self.range(at));
        Ok(range.filter(|range| range.region() == region && range.last() >= index))
    }

    /// What the segment did to each region; empty for a cold segment. Checked at each call.
    pub(crate) fn deltas(&self) -> Result<Vec<RegionDelta>, Malformed> {
        let bytes = self.section(&self.sections.deltas);
        if crc32(self.seed, bytes) != self.header.deltas_crc && !planted(Bug::FooterNotVerified) {
            return Err(Malformed("the checksum of the footer's deltas is wrong"));
        }
        read_deltas(bytes)
    }

    /// The installs that the segment holds, in order. Checked at each call.
    pub(crate) fn installs(&self) -> Result<Vec<Install>, Malformed> {
        let bytes = self.section(&self.sections.installs);
        if crc32(self.seed, bytes) != self.header.installs_crc {
            return Err(Malformed("the checksum of the footer's installs is wrong"));
        }
        let mut r = Reader::new(bytes);
        let count = r.count(4)?;
        let mut installs = Vec::new();
        for _ in 0..count {
            let len = r.varint_u32()? as usize;
            installs.push(Install::decode(r.bytes(len)?)?);
        }
        match r.bytes(r.remaining())? {
            padding if padding.len() < 8 && padding.iter().all(|b| *b == 0) => Ok(installs),
            _ => Err(Malformed("bytes are left behind the footer's installs")),
        }
    }

    fn section(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or_default()
    }

    fn row(&self, ordinal: usize) -> Option<RangeRow> {
        RangeRow::read(cell(self.section(&self.sections.ranges), ordinal, RANGE_LEN)?).ok()
    }

    /// The first index and the term of the run with this ordinal in the whole table.
    fn run(&self, ordinal: usize) -> Option<(u64, u64)> {
        let mut r = Reader::new(cell(self.section(&self.sections.runs), ordinal, RUN_LEN)?);
        Some((r.u64().ok()?, r.u64().ok()?))
    }

    fn check_tables(&self) -> Result<(), Malformed> {
        if crc32(self.seed, self.section(&self.sections.ranges)) != self.header.ranges_crc {
            return Err(Malformed("the checksum of the footer's ranges is wrong"));
        }
        if crc32(self.seed, self.section(&self.sections.runs)) != self.header.runs_crc {
            return Err(Malformed("the checksum of the footer's runs is wrong"));
        }
        let (mut runs, mut locs, mut entries) = (0u64, 0u64, 0u64);
        let mut before: Option<RangeRow> = None;
        for at in 0..self.range_count() {
            let row = self.row(at).ok_or(Malformed("the footer's range table is too short"))?;
            if before
                .is_some_and(|b| b.region > row.region || b.region == row.region && b.last() >= row.first)
            {
                return Err(Malformed("the footer's ranges are not sorted, or overlap"));
            }
            if row.count == 0
                || row.first.checked_add(u64::from(row.count) - 1).is_none_or(|last| last > INDEX_MAX)
            {
                return Err(Malformed("a range is empty or goes beyond the highest index"));
            }
            if u64::from(row.runs_at) != runs
                || row.locs_at != locs
                || ![LOC_RAW_LEN, LOC_LZ4_LEN].contains(&row.stride)
            {
                return Err(Malformed("a range does not follow on the one before"));
            }
            self.check_runs(&row)?;
            // Below 2^32 rows with less than 2^36 bytes of locations each: no sum overflows.
            runs += u64::from(row.run_count);
            locs = locs.saturating_add(u64::from(row.count) * u64::from(row.stride));
            entries += u64::from(row.count);
            before = Some(row);
        }
        if (runs, locs, entries)
            != (u64::from(self.header.run_count), self.header.locs_len, self.header.entry_count)
        {
            return Err(Malformed("the footer's ranges do not fill its other sections"));
        }
        Ok(())
    }

    /// The first run starts with the range, and each further one later, inside it.
    fn check_runs(&self, row: &RangeRow) -> Result<(), Malformed> {
        let mut before = None;
        for at in 0..row.run_count as usize {
            let (first, _) = self.run(row.runs_at as usize + at).ok_or(BAD_RUNS)?;
            if before.map_or(first != row.first, |before| first <= before) || first > row.last() {
                return Err(BAD_RUNS);
            }
            before = Some(first);
        }
        if before.is_some() { Ok(()) } else { Err(BAD_RUNS) }
    }
}

const BAD_RUNS: Malformed = Malformed("the terms of a range do not fit it");

/// Consecutive entries of one region in one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeRef<'a> {
    footer: &'a Footer,
    row: RangeRow,
}

impl<'a> RangeRef<'a> {
    /// The region.
    pub(crate) fn region(&self) -> RegionId {
        self.row.region
    }

    /// The index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.row.first
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.row.last()
    }

    /// How many entries.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn count(&self) -> u32 {
        self.row.count
    }

    /// The length of their payloads, uncompressed.
    pub(crate) fn bytes(&self) -> u64 {
        self.row.bytes
    }

    /// The term of the first entry.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn first_term(&self) -> u64 {
        self.run(0).map_or(0, |run| run.1)
    }

    /// The term of the last entry.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn last_term(&self) -> u64 {
        self.row.run_count.checked_sub(1).and_then(|last| self.run(last)).map_or(0, |run| run.1)
    }

    /// Where the entry at `index` lies; `None` when it is not in the range.
    pub(crate) fn loc(&self, index: u64) -> Option<Loc> {
        let ordinal = self.ordinal(index)?;
        let mut r = Reader::new(cell(self.locs()?, ordinal, self.row.stride as usize)?);
        let (pos, len, crc) = (r.u32().ok()?, r.u32().ok()?, r.u32().ok()?);
        let inner = if self.row.stride == LOC_LZ4_LEN { r.u32().ok()? } else { Loc::RAW };
        Some(Loc { pos, inner, len, crc })
    }

    /// The term of the entry at `index`; `None` when it is not in the range.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        self.ordinal(index)?;
        let behind = partition(self.row.run_count as usize, |at| {
            u32::try_from(at).ok().and_then(|at| self.run(at)).is_some_and(|(first, _)| first <= index)
        });
        Some(self.run(u32::try_from(behind.checked_sub(1)?).ok()?)?.1)
    }

    /// The index that each term starts at, and the term, in order.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let range = *self;
        (0..self.row.run_count).map_while(move |at| range.run(at))
    }

    /// Whether the locations are what the writer wrote: asked when an entry did not verify.
    pub(crate) fn verify_locs(&self) -> bool {
        self.locs().is_some_and(|locs| crc32(self.footer.seed, locs) == self.row.locs_crc)
    }

    fn ordinal(&self, index: u64) -> Option<usize> {
        let ordinal = index.checked_sub(self.row.first).filter(|at| *at < u64::from(self.row.count))?;
        usize::try_from(ordinal).ok()
    }

    fn run(&self, at: u32) -> Option<(u64, u64)> {
        if at >= self.row.run_count {
            return None;
        }
        self.footer.run((self.row.runs_at as usize).checked_add(at as usize)?)
    }

    fn locs(&self) -> Option<&'a [u8]> {
        let len = u64::from(self.row.count).checked_mul(u64::from(self.row.stride))?;
        let start = usize::try_from(self.row.locs_at).ok()?;
        let locs = self.footer.section(&self.footer.sections.locs).get(start..)?;
        locs.get(..usize::try_from(len).ok()?)
    }
}

/// The cell of a table of cells of `len` bytes.
fn cell(table: &[u8], ordinal: usize, len: usize) -> Option<&[u8]> {
    let start = ordinal.checked_mul(len)?;
    table.get(start..start.checked_add(len)?)
}

/// How many of the ordinals below `count` are `before`, when all that are come first.
fn partition(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
