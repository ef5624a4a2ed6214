//! From record to record over segments whose ends are known.

use super::item::{LogItem, LogOp, LogRecord, RecordContent, RecordOptions, RegionOps, TermRange};
use crate::engine::reader::names;
use crate::error::{Error, Result};
use crate::format::batch::{Announcement, Batch, Install, Op, Step};
use crate::format::copies::Copies;
use crate::format::file_header::{Identity, SegmentKind};
use crate::format::record::{RecordKind, Shape, record_len};
use crate::planted::{Bug, planted};
use crate::recovery::Recovered;
use crate::segment::scan::{FIRST_RECORD, Found, Record, Scanner};
use crate::segment::verify::{StoredEntry, each_entry};
use crate::types::{Entry, Lsn};
use crate::vfs::{Dir, VfsFile};
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// So many bytes of the log are turned into items at once: as much as one read of the file gives.
const STRETCH_BYTES: u32 = 256 << 10;

/// What lies on the way.
#[derive(Debug)]
pub(super) enum Link {
    Segment(LogSegment),
    /// The file of a segment was missing, or was not the one that it should be.
    Hole {
        id: u32,
        name: String,
        path: PathBuf,
    },
}

impl Link {
    pub(super) fn id(&self) -> u32 {
        match self {
            Link::Segment(segment) => segment.id,
            Link::Hole { id, .. } => *id,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Link::Segment(segment) => &segment.name,
            Link::Hole { name, .. } => name,
        }
    }
}

/// A log segment on the way.
#[derive(Debug)]
pub(super) struct LogSegment {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) identity: Identity,
    /// What stands in for records that cannot be read.
    pub(super) copies: Option<Arc<Copies>>,
    /// Where its records have to end.
    pub(super) records_end: u64,
    /// Where they end in this log. For the last one of a log that goes on: so far.
    pub(super) end: u32,
}

impl LogSegment {
    pub(super) fn new(
        id: u32,
        name: String,
        path: PathBuf,
        file: Arc<dyn VfsFile>,
        identity: Identity,
        records_end: u64,
    ) -> LogSegment {
        LogSegment { id, name, path, file, identity, copies: None, records_end, end: FIRST_RECORD }
    }

    pub(super) fn scanner(&self, limit: u64) -> Scanner<'_> {
        Scanner::new(&*self.file, &self.path, &self.identity, limit).with_copies(self.copies.as_deref())
    }
}

/// The segments of the log in `state`, those that are empty left out.
pub(super) fn links(state: &Recovered) -> VecDeque<Link> {
    let logs = state.segments.values().filter(|s| s.kind == SegmentKind::Log);
    let links = logs.filter_map(|s| {
        let (id, name, path, end) = (s.id, s.name(), s.path.to_path_buf(), s.sealed_end());
        let (identity, records_end) = (s.identity, s.records_end);
        match s.file() {
            Ok(file) => (end > FIRST_RECORD).then(|| {
                let (file, copies) = (file.clone(), s.copies().cloned());
                Link::Segment(LogSegment { id, name, path, file, identity, copies, records_end, end })
            }),
            Err(_) => Some(Link::Hole { id, name, path }),
        }
    });
    links.collect()
}

/// A place in the log, and what comes next.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) dir: Dir,
    pub(super) options: RecordOptions,
    /// Also what is not known to be on the device.
    show_unproven: bool,
    /// The segment that is read, and those after it.
    pub(super) links: VecDeque<Link>,
    /// Offset in the first of them.
    pub(super) at: u32,
    /// What the next record has to follow.
    pub(super) before: Before,
    /// The end of the last record that was shown, or passed over.
    pub(super) shown: Lsn,
    /// The last of the segments is still written to: its end is only so far its end.
    pub(super) is_open: bool,
    /// What ends here or before is known to be on the device.
    pub(super) durable: Lsn,
    /// Where the log ends.
    pub(super) end: Lsn,
    /// The segment that was read is gone, and what is lost by that has not been said yet.
    pub(super) gone: bool,
    ready: VecDeque<LogItem>,
}

impl Walk {
    pub(super) fn new(dir: &Dir, state: &Recovered, options: RecordOptions, show_unproven: bool) -> Walk {
        let mut links = links(state);
        links.retain(|link| link.id() >= options.from.segment());
        Walk {
            dir: dir.clone(),
            options,
            show_unproven,
            links,
            at: FIRST_RECORD,
            before: if options.from == Lsn::ZERO {
                Before::Record(Shape::default())
            } else {
                Before::Position(options.from)
            },
            shown: options.from,
            is_open: true,
            durable: state.durable,
            end: state.end(),
            gone: false,
            ready: VecDeque::new(),
        }
    }

    /// The log ends with the segments that are there.
    pub(super) fn close_last(&mut self) {
        self.is_open = false;
    }

    pub(super) fn pop(&mut self) -> Option<LogItem> {
        self.ready.pop_front()
    }

    pub(super) fn push(&mut self, item: LogItem) {
        self.ready.push_back(item);
    }

    /// What is still to be said at the end.
    pub(super) fn last_words(&mut self) -> Option<LogItem> {
        let gone = std::mem::take(&mut self.gone);
        gone.then_some(LogItem::Gone { after: self.shown, until: self.end })
    }

    /// Reads on, and says whether there is something new to show. False at the end of what is there, or of
    /// what is known to be durable.
    ///
    /// # Errors
    /// Of the operating system. Another call tries again at the same place.
    pub(super) fn refill(&mut self) -> Result<bool> {
        while self.ready.is_empty() {
            match self.links.front() {
                None => return Ok(false),
                Some(Link::Hole { path, .. }) => {
                    let says = "a segment of the log is missing: what it held cannot be shown";
                    self.ready.push_back(LogItem::Damaged(Error::damaged(says).at(path, None)));
                    self.leave();
                    self.before = Before::Any;
                }
                Some(Link::Segment(segment)) if self.at >= segment.end => {
                    if self.links.len() == 1 && self.is_open {
                        return Ok(false);
                    }
                    self.leave();
                }
                Some(Link::Segment(_)) => {
                    if !self.read_stretch()? {
                        break;
                    }
                }
            }
        }
        Ok(!self.ready.is_empty())
    }

    fn leave(&mut self) {
        self.links.pop_front();
        self.at = FIRST_RECORD;
    }

    /// Turns the next stretch of the first segment into items. False where what follows may not be shown.
    fn read_stretch(&mut self) -> Result<bool> {
        // Taken out while its bytes are looked at.
        let Some(Link::Segment(link)) = self.links.pop_front() else { return Ok(false) };
        let until = self.at.saturating_add(STRETCH_BYTES).min(link.end);
        let mut scanner = link.scanner(u64::from(link.end));
        let mut outcome = Ok(Next::GoOn);
        while self.at < until && matches!(outcome, Ok(Next::GoOn)) {
            outcome = self.step(&link, &mut scanner);
        }
        drop(scanner);
        let is_gone = match &outcome {
            Ok(Next::Gone) => true,
            // A file that is only known by its name.
            Err(_) => self.is_given_back(&link),
            _ => false,
        };
        if is_gone {
            (self.gone, self.at) = (true, FIRST_RECORD);
            return Ok(true);
        }
        self.links.push_front(Link::Segment(link));
        outcome.map(|next| next != Next::Stop)
    }

    /// Whether the engine beside gave the file back: it has another name before anything in it is
    /// overwritten.
    pub(super) fn is_given_back(&self, link: &LogSegment) -> bool {
        !planted(Bug::TailTrustsItsFiles) && names(&self.dir).is_ok_and(|names| !names.contains(&link.name))
    }

    fn step(&mut self, link: &LogSegment, scanner: &mut Scanner<'_>) -> Result<Next> {
        let here = Lsn::new(link.id, self.at);
        let mut found = scanner.look(self.at)?;
        if !matches!(found, Found::Record(_)) {
            if self.is_given_back(link) {
                return Ok(Next::Gone);
            }
            found = scanner.look_ahead(self.at, self.before.shape())?;
        }
        let Found::Record(record) = found else { return self.unreadable(link, scanner, &found) };
        let end = Lsn::new(link.id, record.end());
        let durable = end <= self.durable || planted(Bug::TailShowsUnproven);
        if !durable && !self.show_unproven {
            return Ok(Next::Stop);
        }
        if here >= self.options.from {
            // What is not known to be durable may still be on its way into the file.
            let Some(shown) = self.shown(link, scanner, &record, durable)? else {
                return match durable {
                    true => self.unreadable(link, scanner, &Found::BadDescription(record.header)),
                    false => Ok(Next::Stop),
                };
            };
            if !shown.damage.is_empty() && self.is_given_back(link) {
                return Ok(Next::Gone);
            }
            if self.gone || !self.before.is_followed_by(&record, here) {
                self.ready.push_back(LogItem::Gone { after: self.shown, until: here });
            }
            self.ready.push_back(LogItem::Record(shown));
        }
        self.gone = false;
        (self.at, self.before, self.shown) = (record.end(), Before::Record(record.shape), end);
        Ok(Next::GoOn)
    }

    /// No record stands where one was.
    fn unreadable(&mut self, link: &LogSegment, scanner: &mut Scanner<'_>, found: &Found) -> Result<Next> {
        if Lsn::new(link.id, self.at) >= self.durable {
            return Ok(Next::Stop);
        }
        let says = "a record of the log cannot be read: its header or description is damaged";
        let error = Error::damaged(says).at(&link.path, Some(u64::from(self.at)));
        self.ready.push_back(LogItem::Damaged(error));
        let next = match found {
            Found::BadDescription(header) => {
                u64::from(self.at) + record_len(header.desc_len, header.payload_len)
            }
            _ => match scanner.seek(self.at.saturating_add(8))? {
                Some(next) => u64::from(next.offset),
                None => u64::from(link.end),
            },
        };
        (self.at, self.before) = (next.min(u64::from(link.end)) as u32, Before::Any);
        Ok(Next::GoOn)
    }

    /// The record as it is shown. `None` if what it holds does not fit together, or if it is not known to be
    /// durable and not all of it is there.
    fn shown(
        &self,
        link: &LogSegment,
        scanner: &mut Scanner<'_>,
        record: &Record,
        durable: bool,
    ) -> Result<Option<LogRecord>> {
        let mut damage = Vec::new();
        let content = match record.header.kind {
            RecordKind::Watermark => Some(RecordContent::Watermark),
            RecordKind::Copies => Some(RecordContent::Copies),
            RecordKind::Install => Install::decode(&record.desc)
                .ok()
                .map(|i| RecordContent::Install { cold: i.cold, sources: i.sources }),
            RecordKind::Announcement => Announcement::decode(&record.desc)
                .ok()
                .map(|a| RecordContent::Announcement { records: a.records.len() as u64, loss: a.loss }),
            RecordKind::Batch => {
                // The description is copied: a key that is kept keeps nothing else.
                let Ok((batch, blocks)) = Batch::decode_desc(&record.desc, record.header.payload_len) else {
                    return Ok(None);
                };
                let mut entries = Vec::new();
                if self.options.payloads || !durable {
                    let payload = scanner.payload(record)?;
                    let each = |found: StoredEntry| match found.right() {
                        Ok(entry) => entries.push(Some(entry)),
                        Err(wrong) => {
                            entries.push(None);
                            let at = u64::from(record.payload_at()) + u64::from(wrong.at.start);
                            let (region, index) = (wrong.region, wrong.id.index);
                            let says = format!("entry {index} does not match its checksum");
                            let error = Error::damaged(says).in_region(region).naming(index..=index);
                            damage.push(error.at(&link.path, Some(at)));
                        }
                    };
                    let fits = each_entry(&batch, &blocks, &payload, each).is_some();
                    if !fits || !durable && !damage.is_empty() {
                        return Ok(None);
                    }
                    if !self.options.payloads {
                        entries.clear();
                    }
                }
                Some(RecordContent::Batch(by_region(&batch, &entries)))
            }
        };
        Ok(content.map(|content| LogRecord {
            start: Lsn::new(link.id, record.offset),
            end: Lsn::new(link.id, record.end()),
            durable,
            mended: record.mended,
            content,
            damage,
        }))
    }
}

/// What the next record has to follow.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Before {
    /// This one; the default stands for the beginning of the log.
    Record(Shape),
    /// One that ends here: the walk begins in the midst of the log.
    Position(Lsn),
    /// Nothing is known of it.
    Any,
}

impl Before {
    fn shape(self) -> Shape {
        match self {
            Before::Record(shape) => shape,
            _ => Shape::default(),
        }
    }

    fn is_followed_by(self, record: &Record, here: Lsn) -> bool {
        let previous = record.header.previous;
        match self {
            Before::Record(shape) => shape == previous,
            Before::Position(from) => previous.end() == Some(from) || from.segment() == here.segment(),
            Before::Any => true,
        }
    }
}

/// How a walk goes on after a step.
#[derive(PartialEq)]
enum Next {
    GoOn,
    Stop,
    /// With the next segment: this one was given back.
    Gone,
}

fn by_region(batch: &Batch, entries: &[Option<Entry>]) -> Vec<RegionOps> {
    let mut regions: Vec<RegionOps> = Vec::with_capacity(batch.sections.len());
    for step in batch.steps().filter(|step| !step.op.is_void()) {
        let op = operation(&step, entries);
        match regions.last_mut() {
            Some(last) if last.region == step.region => last.ops.push(op),
            _ => regions.push(RegionOps { region: step.region, ops: vec![op] }),
        }
    }
    regions
}

fn operation(step: &Step<'_>, entries: &[Option<Entry>]) -> LogOp {
    match step.op {
        Op::Append { first, entries: count, .. } | Op::AppendNext { first, entries: count, .. } => {
            let mut next = *first;
            let term = |run: &crate::format::batch::TermRun| {
                let range =
                    TermRange { term: run.term, first: next, last: next + u64::from(run.entries) - 1 };
                next = range.last + 1;
                range
            };
            let own = entries.iter().skip(step.entries_at).take(step.entries.len());
            LogOp::Append {
                first: *first,
                last: *first + u64::from(*count) - 1,
                terms: step.runs.iter().map(term).collect(),
                bytes: step.entries.iter().map(|e| u64::from(e.len)).sum(),
                entries: own.flatten().cloned().collect(),
            }
        }
        Op::TruncateFrom(index) => LogOp::TruncateFrom(*index),
        Op::CompactThrough(id) | Op::CompactTo { id, .. } => LogOp::CompactThrough(*id),
        Op::Reset(id) => LogOp::Reset(*id),
        Op::SetHardState(state) => LogOp::SetHardState(copied(state)),
        Op::Put { key, value } => LogOp::Put { key: copied(key), value: copied(value) },
        Op::Delete { key } => LogOp::Delete { key: copied(key) },
        Op::Destroy => LogOp::Destroy,
        Op::ForgetLog => LogOp::ForgetLog,
    }
}

/// Small bytes on their own: they borrow a description of up to megabytes.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
