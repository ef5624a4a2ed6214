//! A footer as it is read: its tables packed on the heap, and the rest, which is much more, where
//! its bytes are.
//!
//! A mapped block that the device cannot read ends the process. Therefore only readers of entries look
//! through a mapping, and only at locations: what decides whether the footer can be believed, and all that
//! upkeep does, goes through reads that can fail.

use super::Tail;
use super::delta::{RegionDelta, read_deltas};
use super::header::{
    FOOTER_HEADER_LEN, FooterHeader, LOC_LZ4_LEN, RANGE_LEN, RangeRow, SECTIONS_AT, Sections,
};
use super::tables::{Row, Tables};
use crate::codec::checksum::crc32;
use crate::codec::{Cursor, Malformed};
use crate::format::batch::{Install, Loc};
use crate::format::file_header::{FILE_HEADER_LEN, FileHeader, FileKind, HeaderError, Identity};
use crate::planted::{Bug, planted};
use crate::types::RegionId;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

/// The file of a footer, as far as a footer needs it.
pub(crate) trait FooterFile: Debug + Send + Sync {
    /// The bytes of a range, all of them.
    fn read(&self, at: Range<usize>) -> io::Result<Vec<u8>>;
}

/// Where the bytes of a footer are.
#[derive(Debug)]
enum Source {
    /// On the heap: it was built here, and could not be read back.
    Memory(Bytes),
    /// In its file, which readers may have a mapping of.
    File { file: Box<dyn FooterFile>, map: Option<Bytes> },
}

impl Source {
    /// The bytes of a range, in a way that fails where the device does.
    fn read(&self, at: Range<usize>) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Source::Memory(bytes) => Ok(slice(bytes, at)),
            Source::File { file, .. } => file.read(at).map(Cow::Owned),
        }
    }

    /// The same, borrowed from the mapping where there is one.
    fn look(&self, at: Range<usize>) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Source::File { map: Some(map), .. } => Ok(slice(map, at)),
            other => other.read(at),
        }
    }
}

fn slice(bytes: &Bytes, at: Range<usize>) -> Cow<'_, [u8]> {
    Cow::Borrowed(bytes.get(at).unwrap_or_default())
}

/// The footer of one segment.
#[derive(Debug)]
pub(crate) struct Footer {
    source: Source,
    len: usize,
    /// The ranges and the runs, once they were looked at, or what is wrong with them.
    tables: OnceLock<Result<Tables, Malformed>>,
    header: FooterHeader,
    sections: Sections,
    identity: Identity,
}

impl Footer {
    /// Opens the footer of the segment with this identity, all of which is on the heap. Checks the
    /// headers only.
    pub(crate) fn open(bytes: Bytes, identity: &Identity) -> Result<Footer, Malformed> {
        let len = bytes.len();
        Footer::over(Source::Memory(bytes), len, identity)
    }

    /// The same in a file of `len` bytes; `map` is a mapping of all of it.
    pub(crate) fn open_file(
        file: Box<dyn FooterFile>,
        len: usize,
        map: Option<Bytes>,
        identity: &Identity,
    ) -> Result<Footer, Malformed> {
        Footer::over(Source::File { file, map }, len, identity)
    }

    fn over(source: Source, len: usize, identity: &Identity) -> Result<Footer, Malformed> {
        let (header, sections) = read_headers(&source, len, identity)?;
        Ok(Footer { source, len, tables: OnceLock::new(), header, sections, identity: *identity })
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
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn range_count(&self) -> usize {
        self.header.range_count as usize
    }

    /// The length of the footer's file.
    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    /// All of its file.
    pub(crate) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        self.source.read(0..self.len)
    }

    /// Whether ranges and runs are what the writer wrote. The answer is kept: all calls but the
    /// first are free.
    pub(crate) fn verify_tables(&self) -> Result<(), Malformed> {
        self.tables().map(drop)
    }

    fn tables(&self) -> Result<&Tables, Malformed> {
        self.tables.get_or_init(|| self.read_tables()).as_ref().map_err(|e| *e)
    }

    fn read_tables(&self) -> Result<Tables, Malformed> {
        let ranges = self.source.read(self.sections.ranges.clone()).map_err(|_| UNREAD)?;
        let runs = self.source.read(self.sections.runs.clone()).map_err(|_| UNREAD)?;
        Tables::read(&ranges, &runs, &self.header, self.seed())
    }

    /// Whether every byte of it is what the writer wrote, as of now: what was found good once may
    /// have rotted since.
    pub(crate) fn is_right(&self) -> bool {
        self.is_as_read()
            && self.ranges().all(|range| range.verify_locs())
            && self.has_deltas().is_ok()
            && self.installs().is_ok()
    }

    /// All ranges, in the order of region and index; none if the tables are not right, which
    /// [`verify_tables`](Footer::verify_tables) says.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = RangeRef<'_>> {
        let rows = self.tables().map(Tables::rows).into_iter().flatten();
        rows.map(|row| RangeRef { footer: self, row })
    }

    /// The range with this ordinal.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn range(&self, ordinal: usize) -> Option<RangeRef<'_>> {
        Some(RangeRef { footer: self, row: self.tables().ok()?.row(ordinal)? })
    }

    /// The range that holds this entry, if one does.
    pub(crate) fn find(&self, region: RegionId, index: u64) -> Result<Option<RangeRef<'_>>, Malformed> {
        Ok(self.tables()?.find(region, index).map(|row| RangeRef { footer: self, row }))
    }

    /// What the segment did to each region, in a list.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn deltas(&self) -> Result<Vec<RegionDelta>, Malformed> {
        let mut all = Vec::new();
        self.each_delta(|delta| {
            all.push(delta);
            Ok::<(), Malformed>(())
        })?;
        Ok(all)
    }

    /// Whether the deltas can be read, and the segment did anything to any region.
    pub(crate) fn has_deltas(&self) -> Result<bool, Malformed> {
        let mut any = false;
        self.each_delta(|_| {
            any = true;
            Ok::<(), Malformed>(())
        })?;
        Ok(any)
    }

    /// Hands out what the segment did to each region, sorted by region; nothing for a cold segment. Checked
    /// at each call: nothing is handed out of bytes whose checksum is wrong.
    pub(crate) fn each_delta<E: From<Malformed>>(
        &self,
        each: impl FnMut(RegionDelta) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = &*self.source.read(self.sections.deltas.clone()).map_err(|_| UNREAD)?;
        if crc32(self.seed(), bytes) != self.header.deltas_crc && !planted(Bug::FooterNotVerified) {
            return Err(Malformed("the checksum of the footer's deltas is wrong").into());
        }
        read_deltas(bytes, each)
    }

    /// The installs that the segment holds, in order. Checked at each call.
    pub(crate) fn installs(&self) -> Result<Vec<Install>, Malformed> {
        let bytes = &*self.source.read(self.sections.installs.clone()).map_err(|_| UNREAD)?;
        if crc32(self.seed(), bytes) != self.header.installs_crc {
            return Err(Malformed("the checksum of the footer's installs is wrong"));
        }
        let mut r = Cursor::new(bytes);
        let count = r.count(4)?;
        let mut installs = Vec::new();
        for _ in 0..count {
            let len = r.varint_u32()? as usize;
            installs.push(Install::decode(r.bytes(len)?)?);
        }
        match r.bytes(r.remaining())? {
            padding if padding.len() < 8 && padding.iter().all(|b| *b == 0) => Ok(installs),
            _ => Err(Malformed("bytes are left after the footer's installs")),
        }
    }

    /// Whether headers and tables still stand in the file as they were read from it.
    fn is_as_read(&self) -> bool {
        let headers = read_headers(&self.source, self.len, &self.identity);
        headers.is_ok_and(|(header, sections)| (header, sections) == (self.header, self.sections.clone()))
            && self.tables().is_ok_and(|tables| self.read_tables().is_ok_and(|now| now == *tables))
    }

    fn seed(&self) -> u32 {
        self.identity.seed()
    }
}

/// The headers, checked, and where the sections lie.
fn read_headers(
    source: &Source,
    len: usize,
    identity: &Identity,
) -> Result<(FooterHeader, Sections), Malformed> {
    let bytes = source.read(0..SECTIONS_AT.min(len)).map_err(|_| UNREAD)?;
    let file = FileHeader::decode(&bytes).map_err(|e| match e {
        HeaderError::Malformed(e) => e,
        HeaderError::NewerVersion(_) | HeaderError::UnknownFlags(_) => {
            Malformed("the footer is of a newer release")
        }
    })?;
    if file.kind != FileKind::Footer || file.identity != *identity {
        return Err(Malformed("the footer belongs to another segment, or to another generation of it"));
    }
    if file.len != len as u64 {
        return Err(Malformed("the footer is not as long as it should be"));
    }
    let header = bytes.get(FILE_HEADER_LEN..SECTIONS_AT).unwrap_or_default();
    debug_assert_eq!(SECTIONS_AT - FILE_HEADER_LEN, FOOTER_HEADER_LEN);
    let header = FooterHeader::decode(header, identity.seed())?;
    let sections = header.sections(len)?;
    Ok((header, sections))
}

const UNREAD: Malformed = Malformed("the footer cannot be read");

/// Consecutive entries of one region in one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeRef<'a> {
    footer: &'a Footer,
    row: Row<'a>,
}

impl<'a> RangeRef<'a> {
    /// The region.
    pub(crate) fn region(&self) -> RegionId {
        self.row.row.region
    }

    /// The index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.row.row.first
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.row.row.last()
    }

    /// How many entries.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn count(&self) -> u32 {
        self.row.row.count
    }

    /// The length of their payloads, uncompressed.
    pub(crate) fn bytes(&self) -> u64 {
        self.row.row.bytes
    }

    /// The term of the first entry.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn first_term(&self) -> u64 {
        self.row.term(self.first())
    }

    /// The term of the last entry.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn last_term(&self) -> u64 {
        self.row.term(self.last())
    }

    /// Where the entry at `index` lies; `None` when it is not in the range.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn loc(&self, index: u64) -> Option<Loc> {
        self.locs(index, index).ok()?.get(index)
    }

    /// The locations of the entries `first..=last`, for a reader: out of the mapping where there is one.
    /// Those that are not in the range are missing.
    pub(crate) fn locs(&self, first: u64, last: u64) -> io::Result<Locs<'a>> {
        Ok(self.cells(first, self.footer.source.look(self.cells_at(first, last))?))
    }

    /// The same for upkeep: never out of a mapping.
    pub(crate) fn locs_from_file(&self, first: u64, last: u64) -> io::Result<Locs<'a>> {
        Ok(self.cells(first, self.footer.source.read(self.cells_at(first, last))?))
    }

    fn cells(&self, first: u64, bytes: Cow<'a, [u8]>) -> Locs<'a> {
        Locs { bytes, first, stride: self.row.row.stride }
    }

    /// The term of the entry at `index`; `None` when it is not in the range.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        self.ordinal(index)?;
        Some(self.row.term(index))
    }

    /// The index that each term starts at, and the term, in order.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.row.runs().into_iter()
    }

    /// Whether the locations are what the writer wrote, by the checksum that stands in the file: asked
    /// when an entry did not verify.
    pub(crate) fn verify_locs(&self) -> bool {
        let source = &self.footer.source;
        let row = self.row_at().and_then(|at| RangeRow::read(&source.read(at).ok()?).ok());
        let locs = source.read(self.cells_at(self.first(), self.last()));
        row.zip(locs.ok()).is_some_and(|(row, locs)| crc32(self.footer.seed(), &locs) == row.locs_crc)
    }

    /// Where in the file its row stands.
    fn row_at(&self) -> Option<Range<usize>> {
        let start =
            self.footer.sections.ranges.start.checked_add(self.row.ordinal.checked_mul(RANGE_LEN)?)?;
        Some(start..start.checked_add(RANGE_LEN)?)
    }

    fn ordinal(&self, index: u64) -> Option<usize> {
        let ordinal = index.checked_sub(self.first()).filter(|at| *at < u64::from(self.row.row.count))?;
        usize::try_from(ordinal).ok()
    }

    /// Where in the file the locations of `first..=last` stand; empty if they do not all lie in the
    /// range, or the row is inconsistent.
    fn cells_at(&self, first: u64, last: u64) -> Range<usize> {
        let section = &self.footer.sections.locs;
        let find = || {
            let (from, to) = (self.ordinal(first)?, self.ordinal(last)?.checked_add(1)?);
            let start = section.start.checked_add(usize::try_from(self.row.row.locs_at).ok()?)?;
            let at = |ordinal: usize| start.checked_add(ordinal.checked_mul(self.row.row.stride as usize)?);
            let range = at(from)?..at(to)?;
            (range.start <= range.end && range.end <= section.end).then_some(range)
        };
        find().unwrap_or(section.start..section.start)
    }
}

/// Locations of consecutive entries.
#[derive(Debug)]
pub(crate) struct Locs<'a> {
    bytes: Cow<'a, [u8]>,
    first: u64,
    stride: u32,
}

impl Locs<'_> {
    /// Where the entry at `index` lies, if it is one of these.
    pub(crate) fn get(&self, index: u64) -> Option<Loc> {
        let ordinal = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let mut r = Cursor::new(cell(&self.bytes, ordinal, self.stride as usize)?);
        let (pos, len, crc) = (r.u32().ok()?, r.u32().ok()?, r.u32().ok()?);
        let inner = if self.stride == LOC_LZ4_LEN { r.u32().ok()? } else { Loc::RAW };
        Some(Loc { pos, inner, len, crc })
    }
}

/// The cell of a table of cells of `len` bytes.
fn cell(table: &[u8], ordinal: usize, len: usize) -> Option<&[u8]> {
    let start = ordinal.checked_mul(len)?;
    table.get(start..start.checked_add(len)?)
}
