//! The tables of a footer as they are kept on the heap: checked once, and packed.
//!
//! Regions that append little have a range of one entry in each of a hundred segments; at 64 bytes a row
//! and 16 a run as in the file (`docs/format.md`), the tables would be more than all else that the
//! engine knows of them. Therefore a row is kept as the difference from the one before, about six bytes, and
//! every [`MARK_EVERY`]th is known by its place, which a search starts from. The term of a range that
//! has but one stands in its row.

use super::header::{FooterHeader, LOC_LZ4_LEN, LOC_RAW_LEN, RANGE_LEN, RUN_LEN, RangeRow};
use crate::codec::checksum::crc32;
use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::limits::INDEX_MAX;
use crate::types::RegionId;

/// A search decodes at most so many rows.
const MARK_EVERY: usize = 16;

/// The ranges and runs of a footer, which were found right.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Tables {
    packed: Box<[u8]>,
    marks: Box<[Mark]>,
    /// First index and term of each run of the ranges that have several.
    runs: Box<[(u64, u64)]>,
}

/// Where a row stands that can be read without the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    region: RegionId,
    first: u64,
    /// Of all locations, the length of those of earlier rows.
    locs: u64,
    /// Where it stands in [`Tables::packed`].
    at: u32,
    /// How many of [`Tables::runs`] belong to earlier rows.
    runs: u32,
}

/// A row with its terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) ordinal: usize,
    /// But for the checksum of its locations, which is not kept, and the place of its runs.
    pub(super) row: RangeRow,
    /// The term of all entries, where there is but one.
    term: u64,
    /// Otherwise first index and term of each run.
    runs: &'a [(u64, u64)],
}

impl Row<'_> {
    /// The term of the entry at `index`, which lies in the range.
    pub(super) fn term(&self, index: u64) -> u64 {
        let past = self.runs.partition_point(|(first, _)| *first <= index);
        past.checked_sub(1).map_or(self.term, |at| self.runs[at].1)
    }

    /// The index that each term starts at, and the term, in order.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn runs(&self) -> Vec<(u64, u64)> {
        match self.runs {
            [] => vec![(self.row.first, self.term)],
            runs => runs.to_vec(),
        }
    }
}

impl Tables {
    /// Checks what the file has of ranges and runs against the footer's header, and packs it.
    pub(super) fn read(
        ranges: &[u8],
        runs: &[u8],
        header: &FooterHeader,
        seed: u32,
    ) -> Result<Tables, Malformed> {
        if crc32(seed, ranges) != header.ranges_crc {
            return Err(Malformed("the checksum of the footer's ranges is wrong"));
        }
        if crc32(seed, runs) != header.runs_crc {
            return Err(Malformed("the checksum of the footer's runs is wrong"));
        }
        let mut out = Packer { packed: Vec::with_capacity(ranges.len() / 6), ..Packer::default() };
        let (mut runs_seen, mut entries, mut terms) = (0u64, 0u64, Vec::new());
        let mut before: Option<RangeRow> = None;
        for cell in ranges.chunks(RANGE_LEN) {
            let row = RangeRow::read(cell)?;
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
            if u64::from(row.runs_at) != runs_seen
                || row.locs_at != out.locs
                || ![LOC_RAW_LEN, LOC_LZ4_LEN].contains(&row.stride)
            {
                return Err(Malformed("a range does not follow on the one before"));
            }
            read_runs(&row, runs, &mut terms)?;
            out.row(&row, &terms)?;
            // Below 2^32 rows with less than 2^36 bytes of locations each: no sum overflows.
            runs_seen += u64::from(row.run_count);
            entries += u64::from(row.count);
            before = Some(row);
        }
        let counts = (runs_seen, out.locs, entries);
        if counts != (u64::from(header.run_count), header.locs_len, header.entry_count) {
            return Err(Malformed("the footer's ranges do not fill its other sections"));
        }
        Ok(Tables { packed: out.packed.into(), marks: out.marks.into(), runs: out.runs.into() })
    }

    /// All rows, in the order of region and index.
    pub(super) fn rows(&self) -> Rows<'_> {
        self.rows_from(0)
    }

    /// The row with this ordinal.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn row(&self, ordinal: usize) -> Option<Row<'_>> {
        self.rows_from(ordinal / MARK_EVERY).nth(ordinal % MARK_EVERY)
    }

    /// The row that holds this entry, if one does.
    pub(super) fn find(&self, region: RegionId, index: u64) -> Option<Row<'_>> {
        let past = self.marks.partition_point(|m| (m.region, m.first) <= (region, index));
        let rows = self.rows_from(past.checked_sub(1)?).take(MARK_EVERY);
        let upto = rows.take_while(|r| (r.row.region, r.row.first) <= (region, index));
        upto.last().filter(|r| r.row.region == region && r.row.last() >= index)
    }

    /// The rows from this mark on.
    fn rows_from(&self, mark: usize) -> Rows<'_> {
        let (at, locs, runs) = self
            .marks
            .get(mark)
            .map_or((self.packed.len(), 0, 0), |m| (m.at as usize, m.locs, m.runs as usize));
        let rest = Cursor::new(self.packed.get(at..).unwrap_or_default());
        Rows { tables: self, rest, ordinal: mark * MARK_EVERY, region: 0, locs, runs }
    }
}

/// Reads the runs of a row. The first one starts with it, and each further one later, inside it.
fn read_runs(row: &RangeRow, runs: &[u8], found: &mut Vec<(u64, u64)>) -> Result<(), Malformed> {
    found.clear();
    let start = (row.runs_at as usize).checked_mul(RUN_LEN).ok_or(BAD_RUNS)?;
    let len = (row.run_count as usize).checked_mul(RUN_LEN).ok_or(BAD_RUNS)?;
    let cells = start.checked_add(len).and_then(|end| runs.get(start..end)).ok_or(BAD_RUNS)?;
    for cell in cells.chunks(RUN_LEN) {
        let mut r = Cursor::new(cell);
        let (first, term) = (r.u64()?, r.u64()?);
        if found.last().map_or(first != row.first, |before| first <= before.0) || first > row.last() {
            return Err(BAD_RUNS);
        }
        found.push((first, term));
    }
    if found.is_empty() { Err(BAD_RUNS) } else { Ok(()) }
}

#[derive(Default)]
struct Packer {
    packed: Vec<u8>,
    marks: Vec<Mark>,
    runs: Vec<(u64, u64)>,
    rows: usize,
    region: u64,
    locs: u64,
}

impl Packer {
    fn row(&mut self, row: &RangeRow, runs: &[(u64, u64)]) -> Result<(), Malformed> {
        if self.rows.is_multiple_of(MARK_EVERY) {
            let at = u32::try_from(self.packed.len()).map_err(|_| TOO_LONG)?;
            let runs = u32::try_from(self.runs.len()).map_err(|_| TOO_LONG)?;
            self.marks.push(Mark { region: row.region, first: row.first, locs: self.locs, at, runs });
            self.region = 0;
        }
        self.rows += 1;
        let out = &mut self.packed;
        put_varint(out, row.region.0 - self.region);
        put_varint(out, row.first);
        let flag = |bit: u64, set: bool| if set { bit } else { 0 };
        let flags = flag(LZ4, row.stride == LOC_LZ4_LEN) | flag(SEVERAL_TERMS, runs.len() > 1);
        put_varint(out, u64::from(row.count) << 2 | flags);
        put_varint(out, row.bytes);
        match runs {
            [(_, term)] => put_varint(out, *term),
            several => {
                put_varint(out, several.len() as u64);
                self.runs.extend_from_slice(several);
            }
        }
        self.region = row.region.0;
        self.locs = self.locs.saturating_add(u64::from(row.count) * u64::from(row.stride));
        Ok(())
    }
}

const LZ4: u64 = 1;
const SEVERAL_TERMS: u64 = 2;

/// Rows in order.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    tables: &'a Tables,
    rest: Cursor<'a>,
    ordinal: usize,
    region: u64,
    locs: u64,
    runs: usize,
}

impl<'a> Rows<'a> {
    fn read(&mut self) -> Result<Row<'a>, Malformed> {
        let r = &mut self.rest;
        if self.ordinal.is_multiple_of(MARK_EVERY) {
            self.region = 0;
        }
        self.region += r.varint()?;
        let (first, count_and_flags, bytes) = (r.varint()?, r.varint()?, r.varint()?);
        let term_or_runs = r.varint()?;
        let row = RangeRow {
            region: RegionId(self.region),
            first,
            count: (count_and_flags >> 2) as u32,
            stride: if count_and_flags & LZ4 == 0 { LOC_RAW_LEN } else { LOC_LZ4_LEN },
            runs_at: self.runs as u32,
            run_count: if count_and_flags & SEVERAL_TERMS == 0 { 0 } else { term_or_runs as u32 },
            locs_at: self.locs,
            bytes,
            locs_crc: 0,
        };
        let ordinal = self.ordinal;
        let runs = self.runs..self.runs + row.run_count as usize;
        self.ordinal += 1;
        self.runs = runs.end;
        self.locs += u64::from(row.count) * u64::from(row.stride);
        Ok(Row { ordinal, row, term: term_or_runs, runs: self.tables.runs.get(runs).unwrap_or_default() })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        // It is our own encoding, of what was checked: nothing but its end is an error.
        self.read().ok()
    }
}

const BAD_RUNS: Malformed = Malformed("the terms of a range do not fit it");

const TOO_LONG: Malformed = Malformed("the footer has more ranges or terms than a segment can");
