//! A tail of the log that goes on as its writer does.

use super::item::{LogItem, RecordOptions};
use super::walk::{Before, Link, LogSegment, Walk, links};
use crate::clock;
use crate::engine::reader::{names, recover_beside};
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::{FileKind, SegmentKind, StoreId};
use crate::format::names::FileName;
use crate::format::record::Shape;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::recovery::{Purpose, Recovered, read_header};
use crate::segment::mark_file::read_marks;
use crate::segment::scan::{FIRST_RECORD, Found};
use crate::types::Lsn;
use crate::vfs::meaning::if_there;
use crate::vfs::{Dir, OpenMode};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long it sleeps where there is nothing new.
const POLL: Duration = Duration::from_millis(5);

/// How often it looks at the whole store at most, where the records do not lead on: more and more seldom
/// while that says nothing new.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// So many bytes of the log are gone through before anything of them is shown.
const AHEAD_BYTES: u32 = 1 << 20;

/// A tail of a log that goes on as its writer does: what [`Reader::follow`](crate::Reader::follow) returns.
///
/// ```
/// use raftwood::{Durability, Engine, LogItem, Options, RecordOptions, RegionId};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// engine.append_next(RegionId(7), ["a"], Durability::Synced)?;
/// let all = Options::new().show_unproven(true);
/// let mut tail = all.open_read_only(dir.path())?.follow(RecordOptions::new());
/// while let Some(item) = tail.next_within(Duration::ZERO)? {
///     if let LogItem::Record(record) = item {
///         println!("{}..{}, on the device: {}", record.start, record.end, record.durable);
///     }
/// }
/// // Kept by the program: where another tail goes on after a restart of it.
/// let next = RecordOptions::new().from(tail.position());
/// # drop(next);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Follow {
    walk: Walk,
    options: Options,
    store: StoreId,
    /// The last whole record of the log that was found. What stands before the walk's end was seen.
    scouted: Shape,
    looked: Instant,
    /// Not before so long after that it looks at the whole store again.
    pause: Duration,
}

impl Follow {
    pub(super) fn new(dir: &Dir, options: Options, state: &Recovered, what: RecordOptions) -> Follow {
        let walk = Walk::new(dir, state, what, options.show_unproven);
        Follow {
            walk,
            options,
            store: state.run.store,
            scouted: state.chain,
            looked: clock::now(),
            pause: PAUSE_MIN,
        }
    }

    /// The next item; `None` if there was none for so long. It sleeps in between, and looks some
    /// hundred times a second.
    ///
    /// # Errors
    /// `Io` from the operating system, `Locked` where files come and go faster than they can be looked at,
    /// `Damaged` where the store would not open as it is now. It does not lose its place by that: another
    /// call tries again.
    pub fn next_within(&mut self, at_most: Duration) -> Result<Option<LogItem>> {
        let until = clock::now().checked_add(at_most);
        loop {
            if let Some(item) = self.walk.pop() {
                return Ok(Some(item));
            }
            if self.walk.refill()? || self.scout()? {
                continue;
            }
            let left = until.map_or(POLL, |until| until.saturating_duration_since(clock::now()));
            if left.is_zero() {
                return Ok(None);
            }
            clock::sleep(POLL.min(left));
        }
    }

    /// The end of the last record that was shown, or passed over: where a later one can go on
    /// ([`RecordOptions::from`]).
    pub fn position(&self) -> Lsn {
        self.walk.shown
    }

    /// Up to where the log is known to be durable.
    pub fn durable(&self) -> Lsn {
        self.walk.durable
    }

    /// Looks for what is new, and says whether anything is.
    fn scout(&mut self) -> Result<bool> {
        if self.read_ahead()? {
            return Ok(true);
        }
        let marked = self.marked()?;
        let scouted = self.scouted.end().unwrap_or(Lsn::ZERO);
        // A mark in a later segment speaks for the log that leads there, which may have been cut before.
        if marked.segment() <= scouted.segment() && marked > self.walk.durable {
            self.walk.durable = marked;
            return Ok(true);
        }
        let names = names(&self.walk.dir)?;
        let leads_on = self.next_segment(&names)?;
        if leads_on == LeadsOn::Here {
            return Ok(true);
        }
        // What the writer added to this one before it went on.
        if self.read_ahead()? {
            return Ok(true);
        }
        let is_lost = self.walk.links.back().is_some_and(|link| !names.contains(link.name()));
        let is_stuck = marked > scouted && marked.segment() == scouted.segment();
        let is_due = clock::since(self.looked) >= self.pause;
        if is_due && (leads_on == LeadsOn::Elsewhere || is_lost || is_stuck || self.walk.gone) {
            return self.look_again();
        }
        Ok(false)
    }

    /// Goes on from record to record in the last segment.
    fn read_ahead(&mut self) -> Result<bool> {
        let Some(Link::Segment(link)) = self.walk.links.back() else { return Ok(false) };
        let began = link.end;
        let (mut end, mut durable) = (link.end, self.walk.durable);
        let mut scanner = link.scanner(link.records_end);
        while end - began < AHEAD_BYTES {
            match scanner.look(end) {
                Ok(Found::Record(record)) if record.header.previous == self.scouted => {
                    durable = durable.max(record.header.watermark);
                    (end, self.scouted) = (record.end(), record.shape);
                }
                Err(e) if !self.walk.is_given_back(link) => return Err(e),
                _ => break,
            }
        }
        drop(scanner);
        if let Some(Link::Segment(link)) = self.walk.links.back_mut() {
            link.end = end;
        }
        self.walk.durable = durable;
        Ok(end > began)
    }

    /// What the mark proves of this store.
    fn marked(&self) -> Result<Lsn> {
        let marks = read_marks(&self.walk.dir)?;
        let ours = marks.iter().filter(|mark| mark.store == self.store);
        Ok(ours.map(|mark| mark.durable).max().unwrap_or(Lsn::ZERO))
    }

    /// Goes on in the segment whose first record follows the last one that was found.
    fn next_segment(&mut self, names: &BTreeSet<String>) -> Result<LeadsOn> {
        let last = self.scouted.position.segment().max(self.walk.links.back().map_or(0, Link::id));
        let mut logs: Vec<u32> = names
            .iter()
            .filter_map(|name| match FileName::parse(name) {
                Some(FileName::Log(id)) if id > last => Some(id),
                _ => None,
            })
            .collect();
        logs.sort_unstable();
        let mut leads_on = LeadsOn::Nowhere;
        for id in logs {
            let Some(link) = self.open(id)? else { continue };
            let first = match link.scanner(link.records_end).look(FIRST_RECORD)? {
                Found::Record(record) => record,
                _ => continue,
            };
            if first.header.previous == self.scouted || planted(Bug::TailJumps) {
                self.scouted = first.header.previous;
                self.walk.links.push_back(Link::Segment(link));
                self.read_ahead()?;
                return Ok(LeadsOn::Here);
            }
            leads_on = LeadsOn::Elsewhere;
        }
        Ok(leads_on)
    }

    /// A segment that came since; `None` if it is no good, or is gone already.
    fn open(&self, id: u32) -> Result<Option<LogSegment>> {
        let dir = &self.walk.dir;
        let name = FileName::Log(id).to_string();
        let path = dir.join(&name);
        let opened = if_there(dir.open(&name, OpenMode::Read));
        let opened = opened.map_err(|e| Error::io("opening a segment", &path, e))?;
        let Some(file) = opened else { return Ok(None) };
        let ours = |identity: crate::format::file_header::Identity| {
            identity.store == self.store && identity.file == id
        };
        let read = read_header(&*file, &path, |h| {
            h.kind == FileKind::Segment(SegmentKind::Log) && ours(h.identity)
        })?;
        let Some(header) =
            read.ok().filter(|h| h.kind == FileKind::Segment(SegmentKind::Log) && ours(h.identity))
        else {
            return Ok(None);
        };
        let len = file.len().map_err(|e| Error::io("reading the length of a segment", &path, e))?;
        let records_end = header.records_end().min(len);
        Ok(Some(LogSegment::new(id, name, path, file, header.identity, records_end)))
    }

    /// Looks at the store as a whole, as an open would, and finds the place again. Says whether
    /// there is anything new.
    fn look_again(&mut self) -> Result<bool> {
        self.looked = clock::now();
        let says = "the store that was followed is not there any more";
        let missing = || Error::new(ErrorKind::Unavailable, says).at(self.walk.dir.path(), None);
        let state = recover_beside(&self.walk.dir, &self.options, Purpose::Inspect)?.ok_or_else(missing)?;
        if state.run.store != self.store {
            let says = "another store has taken the place of the one that was followed: open it anew";
            return Err(Error::new(ErrorKind::Unavailable, says).at(self.walk.dir.path(), None));
        }
        let seen = (self.scouted, self.walk.durable, self.walk.links.len());
        self.find_place(&state)?;
        self.scouted = state.chain;
        self.walk.end = state.end();
        self.walk.durable = self.walk.durable.max(state.durable);
        let is_news = seen != (self.scouted, self.walk.durable, self.walk.links.len());
        self.pause = if is_news { PAUSE_MIN } else { PAUSE_MAX.min(self.pause * 2) };
        Ok(is_news)
    }

    /// Puts the segments of a new look in the place of the old ones, and says what became of the place
    /// between what was shown and what comes next.
    fn find_place(&mut self, state: &Recovered) -> Result<()> {
        let walk = &mut self.walk;
        let shown = walk.shown;
        let was_in = walk.links.front().map(Link::id);
        let mut found = links(state);
        let here = was_in.unwrap_or(shown.segment());
        found.retain(|link| link.id() >= here);
        walk.links = found;
        let end = state.end();
        let first = match walk.links.front() {
            Some(Link::Segment(first)) => first,
            // The walk says so when it comes there.
            Some(Link::Hole { .. }) => return Ok(()),
            None => {
                // Nothing is left of the log from there on.
                walk.at = FIRST_RECORD;
                if shown < end {
                    walk.push(LogItem::Gone { after: shown, until: end });
                } else if shown > end && shown > walk.options.from {
                    walk.push(LogItem::TakenBack { from: end });
                }
                (walk.before, walk.shown, walk.gone) = (Before::Record(state.chain), end, false);
                return Ok(());
            }
        };
        if was_in == Some(first.id) {
            if first.end < walk.at {
                let from = Lsn::new(first.id, first.end);
                (walk.at, walk.before, walk.shown) = (first.end, Before::Any, from);
                walk.push(LogItem::TakenBack { from });
            }
            return Ok(());
        }
        walk.at = FIRST_RECORD;
        let begins = match first.scanner(u64::from(first.end)).look(FIRST_RECORD) {
            // It went since it was found: the walk says so when it comes there.
            Err(_) if walk.is_given_back(first) => return Ok(()),
            begins => begins?,
        };
        // The log may lead past what was shown.
        if let Found::Record(record) = begins
            && let Some(from) = record.header.previous.end().filter(|from| *from < shown)
            && shown > walk.options.from
        {
            (walk.before, walk.shown) = (Before::Record(record.header.previous), from);
            walk.push(LogItem::TakenBack { from });
        }
        Ok(())
    }
}

/// Where the log goes on after its last known record.
#[derive(PartialEq)]
enum LeadsOn {
    /// In a segment that follows it.
    Here,
    /// There are later records, and they follow something else.
    Elsewhere,
    /// There is nothing later.
    Nowhere,
}
