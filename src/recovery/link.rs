//! One segment of the log: its records, what they follow, and where they end.

use super::Unrecovered;
use super::judge::refuse;
use super::recognise::cut_short;
use super::tail::bytes_of;
use crate::error::{Error, Result};
use crate::format::batch::Announcement;
use crate::format::footer::Footer;
use crate::format::record::{RECORD_HEADER_LEN, RecordKind, Shape, record_len};
use crate::limits::SECTOR;
use crate::options::Options;
use crate::report::{OpenReport, SegmentFinding};
use crate::segment::Segment;
use crate::segment::scan::{FIRST_RECORD, Found, Record, Scanner, Sought};
use crate::types::Lsn;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What records say of the log before them.
pub(super) struct Said {
    /// Up to where the log was durable: by what was known before, by watermarks, and by footers.
    pub(super) watermark: Lsn,
    /// Records that were whole once, by position.
    pub(super) announced: BTreeMap<Lsn, Shape>,
    /// Records were dropped that may have been acknowledged.
    pub(super) loss: bool,
}

impl Said {
    /// Nothing yet, but that the log was durable up to `known`.
    pub(super) fn new(known: Lsn) -> Said {
        Said { watermark: known, announced: BTreeMap::new(), loss: false }
    }

    fn listen(&mut self, record: &Record) {
        if record.header.kind == RecordKind::Announcement
            && let Ok(announcement) = Announcement::decode(&record.desc)
        {
            self.loss |= announcement.loss;
            self.announced.extend(announcement.records.into_iter().map(|shape| (shape.position, shape)));
        }
    }
}

/// One log segment on the way.
pub(super) struct Link {
    pub(super) segment: Arc<Segment>,
    /// Those that were read, of a segment that was scanned.
    pub(super) records: Vec<ReadRecord>,
    /// What its records follow; `None` while it has none.
    pub(super) follows: Option<Shape>,
    /// End of its content.
    pub(super) end: u32,
    pub(super) last: Shape,
    pub(super) sealed: bool,
    /// It is sealed, and the header of its first record cannot be read: what it follows is not known.
    pub(super) is_headless: bool,
    /// Valid records past a hole, if there are any.
    pub(super) past_hole: Option<PastHole>,
    /// Why nobody can say that no record stands past its end.
    unclear: Option<Error>,
    /// Records that were recovered.
    pub(super) mended: u64,
    pub(super) batches: u64,
}

/// A record of a segment that was scanned.
pub(super) struct ReadRecord {
    /// One past it.
    pub(super) end: u32,
    pub(super) shape: Shape,
    /// What it says that was durable.
    pub(super) watermark: Lsn,
}

/// Valid records past a hole.
#[derive(Clone, Copy)]
pub(super) struct PastHole {
    /// The highest among them.
    pub(super) watermark: Lsn,
    pub(super) bytes: u64,
}

impl Link {
    /// Reads it as far as its records lead, or as its footer says.
    pub(super) fn read(segment: &Arc<Segment>, footer: Option<Arc<Footer>>, said: &mut Said) -> Result<Link> {
        let mut scanner = segment.scanner(segment.records_end)?;
        let mut link = Link {
            segment: segment.clone(),
            records: Vec::new(),
            follows: None,
            end: FIRST_RECORD,
            last: Shape::default(),
            sealed: false,
            is_headless: false,
            past_hole: None,
            unclear: None,
            mended: 0,
            batches: 0,
        };
        if let Some(footer) = footer.filter(|f| f.has_deltas().is_ok() && f.installs().is_ok()) {
            link.believe(footer, &mut scanner, said)?;
            return Ok(link);
        }
        link.read_records(&mut scanner, said)?;
        link.unclear = link.unclear_end(&mut scanner)?;
        Ok(link)
    }

    /// Why nobody can say that no record stands past the last complete one, if the bytes are gone in which
    /// its header would be, or some of those that its header says it has. Records stand side by side: what is
    /// gone anywhere else past the end held nothing.
    fn unclear_end(&self, scanner: &mut Scanner<'_>) -> Result<Option<Error>> {
        let len = match scanner.look(self.end)? {
            Found::BadDescription(header) => bytes_of(&header),
            _ => u64::from(RECORD_HEADER_LEN),
        };
        let from = u64::from(self.end);
        scanner.read(from, len as usize)?;
        if let Some(sector) = scanner.bad_sector(from..from + len) {
            let error = Error::damaged(
                "the device cannot read a sector past the last complete record: acknowledged records may stand there; \
                 copy the store to another device, or restore it",
            );
            return Ok(Some(error.at(&self.segment.path, Some(sector * SECTOR))));
        }
        let is_beyond = self.segment.is_cut && from + len > self.segment.records_end;
        Ok(is_beyond.then(|| cut_short(&self.segment)))
    }

    /// Nobody can say that the log ends where a record may have been that cannot be read any more.
    pub(super) fn judge_end(&self, options: &Options, report: &mut OpenReport) -> Result<(), Unrecovered> {
        let unclear = self.unclear.clone().map(Unrecovered::Damaged);
        unclear.map_or(Ok(()), |why| refuse(why, options, report))
    }

    /// A footer is only written once its records are durable. That of an empty segment says nothing.
    fn believe(&mut self, footer: Arc<Footer>, scanner: &mut Scanner<'_>, said: &mut Said) -> Result<()> {
        let tail = footer.tail();
        if tail.end > FIRST_RECORD {
            // Nothing else of its records is needed.
            self.follows = match scanner.look(FIRST_RECORD)? {
                Found::Record(first) => {
                    said.listen(&first);
                    Some(first.header.previous)
                }
                Found::BadDescription(header) => Some(header.previous),
                Found::Nothing => Some(tail.follows).filter(|follows| !follows.is_none()),
            };
            self.is_headless = self.follows.is_none();
            said.watermark = said.watermark.max(tail.watermark).max(Lsn::new(self.segment.id, tail.end));
        }
        (self.end, self.last, self.sealed) = (tail.end, tail.last, true);
        self.segment.set_footer(footer);
        Ok(())
    }

    fn read_records(&mut self, scanner: &mut Scanner<'_>, said: &mut Said) -> Result<()> {
        let mut previous: Option<Shape> = None;
        while let Some(record) = self.next_record(scanner, previous)? {
            // The position is part of the checksum and so is the predecessor: a record that follows something
            // else belongs to no log of this generation.
            if previous.is_some_and(|p| p != record.header.previous) {
                break;
            }
            if previous.is_none() {
                self.follows = Some(record.header.previous);
            }
            said.listen(&record);
            said.watermark = said.watermark.max(record.header.watermark);
            self.mended += u64::from(record.mended);
            self.batches += u64::from(record.header.kind != RecordKind::Copies);
            self.end = record.end();
            self.last = record.shape;
            let (end, shape, watermark) = (record.end(), record.shape, record.header.watermark);
            self.records.push(ReadRecord { end, shape, watermark });
            previous = Some(record.shape);
        }
        Ok(())
    }

    /// The record at the end of those that were read, rebuilt from the one after it if need be. `None` at the
    /// end, and at a hole: what stands past that is noted.
    fn next_record(&mut self, scanner: &mut Scanner<'_>, previous: Option<Shape>) -> Result<Option<Record>> {
        let found = match scanner.look(self.end)? {
            Found::Record(record) => return Ok(Some(record)),
            found => found,
        };
        let Some(next) = scanner.seek(self.end.saturating_add(8))? else { return Ok(None) };
        let here = next.header.previous.position == Lsn::new(self.segment.id, self.end);
        match scanner.rebuild(next.header.previous, previous.unwrap_or_default())? {
            Some(record) if here && matches!(found, Found::Nothing) && previous.is_some() => Ok(Some(record)),
            _ => {
                self.past_hole = Some(past_hole(scanner, next)?);
                Ok(None)
            }
        }
    }

    /// How many of its records end at this position or before it.
    pub(super) fn records_until(&self, position: Lsn) -> usize {
        self.records.partition_point(|r| Lsn::new(self.segment.id, r.end) <= position)
    }

    /// Ends it after so many of its records.
    pub(super) fn end_at(&mut self, records: usize) {
        self.records.truncate(records);
        let last = self.records.last();
        self.end = last.map_or(FIRST_RECORD, |record| record.end);
        self.last = last.map_or(Shape::default(), |record| record.shape);
    }

    /// The segment holds nothing that counts.
    pub(super) fn forget(&mut self) {
        self.records.clear();
        self.segment.clear_footer();
        (self.end, self.last, self.follows, self.sealed) = (FIRST_RECORD, Shape::default(), None, false);
        self.is_headless = false;
    }

    /// The same for those who ask what was found.
    pub(super) fn found(&self, in_log: bool) -> SegmentFinding {
        SegmentFinding {
            id: self.segment.id,
            sealed: self.sealed,
            records: self.records.len() as u64,
            end: self.end,
            follows: self.follows.map(|shape| shape.end().unwrap_or(Lsn::ZERO)),
            in_log,
            past_hole: self.past_hole.map_or(0, |past| past.bytes),
        }
    }
}

/// The records from `first` on.
fn past_hole(scanner: &mut Scanner<'_>, first: Sought) -> Result<PastHole> {
    let mut past = PastHole { watermark: Lsn::ZERO, bytes: 0 };
    let mut next = Some(first);
    while let Some(Sought { offset, header }) = next {
        past.watermark = past.watermark.max(header.watermark);
        past.bytes += record_len(header.desc_len, header.payload_len);
        next = scanner.seek(offset.saturating_add(8))?;
    }
    Ok(past)
}

/// A segment from before the replay: only its index is needed, and its last record if that is known.
pub(super) fn settle_old(segment: &Segment, footer: Option<Arc<Footer>>) -> Result<Option<Shape>> {
    match footer {
        Some(footer) => {
            let tail = footer.tail();
            segment.set_sealed_end(tail.end);
            segment.set_footer(footer);
            Ok((tail.end > FIRST_RECORD).then_some(tail.last))
        }
        None => {
            let Scanned { end, last } = scan_to_end(segment)?;
            let known = segment.known_end();
            if known.is_none() {
                segment.set_sealed_end(end);
            }
            // What the next record follows, if this is the last segment.
            Ok(last.filter(|_| known.is_none_or(|known| known == end)))
        }
    }
}

/// A segment as far as its records go.
pub(super) struct Scanned {
    pub(super) end: u32,
    pub(super) last: Option<Shape>,
}

/// Reads its records to their end.
pub(super) fn scan_to_end(segment: &Segment) -> Result<Scanned> {
    let mut scanner = segment.scanner(segment.records_end)?;
    let mut scanned = Scanned { end: FIRST_RECORD, last: None };
    while let Found::Record(record) = scanner.look(scanned.end)? {
        scanned = Scanned { end: record.end(), last: Some(record.shape) };
    }
    Ok(scanned)
}
