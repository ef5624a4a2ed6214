//! The segment that is written to, and those that come next.

use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::planted::{Bug, planted};
use crate::segment::factory::SegmentFactory;
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{Segment, Unwritten};
use crate::sync::Arc;
use crate::types::Lsn;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A segment is filled as long as a sync covers less than this. What filling saves is paid once
/// a sync, and what it costs is paid by the byte: every byte is written twice. Where many share
/// a sync it is not worth that.
const FILLED_BELOW: u64 = 40 << 10;

/// A rotation waits no longer than this for a full segment to get its footer: what keeps that from happening,
/// say a listener that hangs, must not keep the log from moving on.
const FOOTER_AWAITED: Duration = Duration::from_millis(500);

/// Where one record goes.
pub(super) struct Placement {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    /// One past the record.
    pub(super) end: Lsn,
}

impl Placement {
    pub(super) fn start(&self) -> Lsn {
        Lsn::new(self.segment.id, self.offset)
    }
}

/// What was the active segment, and where its records end.
pub(super) struct Full {
    pub(super) segment: Arc<Segment>,
    pub(super) end: u32,
}

/// What a thread that needs a segment of a certain length finds.
pub(super) enum Next {
    /// It is the active one now, and the one before is full, if there was one.
    Active(Option<Full>),
    /// None is prepared.
    Lacking,
    /// Its number lies below one that was given already.
    Lower,
}

/// The active segment and those that are ready, in the order of their numbers.
pub(super) struct Segments {
    /// None before the first record of the run, and none once it was ended in its place.
    active: Option<Arc<Segment>>,
    /// Where the next record goes in `active`.
    offset: u32,
    /// The lowest number that a segment may have that becomes active next.
    next_id: u32,
    ready: VecDeque<Arc<Segment>>,
    /// A segment of at least this length is waited for; 0 if none is.
    wanted_len: u64,
    /// How many attempts to prepare one have ended, and why the last one failed if it did.
    attempts: u64,
    failed: Option<(u64, Unwritten)>,
    /// Since when the active one, which is full, waits for one before it to get its footer.
    stalled: Option<Instant>,
}

impl Segments {
    pub(super) fn new(first_id: u32) -> Segments {
        Segments {
            active: None,
            offset: FIRST_RECORD,
            next_id: first_id,
            ready: VecDeque::new(),
            wanted_len: 0,
            attempts: 0,
            failed: None,
            stalled: None,
        }
    }

    // ---- the active one -----------------------------------------------------------------------------------

    /// Where a record of `len` bytes goes, if the active segment has room for it.
    pub(super) fn place_for(&self, len: u64) -> Option<Placement> {
        let segment = self.active.clone().filter(|active| active.fits(self.offset, len))?;
        let end = Lsn::new(segment.id, self.offset + len as u32);
        Some(Placement { segment, offset: self.offset, end })
    }

    /// The next record goes to `offset`.
    pub(super) fn advance(&mut self, offset: u32) {
        self.offset = offset;
    }

    /// Makes the segment active that is ready, if it has room for a record of `len` bytes.
    pub(super) fn turn_to_next(&mut self, len: u64) -> Next {
        let fits = self.ready.front().is_some_and(|next| next.fits(FIRST_RECORD, len));
        let Some(next) = fits.then(|| self.ready.pop_front()).flatten() else { return Next::Lacking };
        if next.id < self.next_id {
            return Next::Lower;
        }
        let full = self.end_active();
        self.next_id = next.id.saturating_add(1);
        self.active = Some(next);
        Next::Active(full)
    }

    /// How much longer the active segment, which is full, may wait for another one to get its footer, and
    /// whether it begins to. `None` if it may not, or there is none.
    pub(super) fn await_footer(&mut self) -> Option<(Duration, bool)> {
        self.active.as_ref()?;
        let begins = self.stalled.is_none();
        let since = *self.stalled.get_or_insert_with(clock::now);
        let left = FOOTER_AWAITED.saturating_sub(clock::since(since));
        (!left.is_zero()).then_some((left, begins))
    }

    /// Nothing more is written to the active segment.
    pub(super) fn end_active(&mut self) -> Option<Full> {
        self.stalled = None;
        let end = std::mem::replace(&mut self.offset, FIRST_RECORD);
        self.active.take().map(|segment| Full { segment, end })
    }

    /// The active segment and where its next record goes, if there is one.
    pub(super) fn active(&self) -> Option<(Arc<Segment>, u32)> {
        self.active.clone().map(|active| (active, self.offset))
    }

    /// The number of the active segment; without one, the lowest that the next may have.
    pub(super) fn active_id(&self) -> u32 {
        self.active.as_ref().map_or(self.next_id, |active| active.id)
    }

    /// The next position would lie at or below one that was given already: what is written there would never
    /// be read, or would replace what was acknowledged.
    pub(super) fn would_go_back(&self, accepted: Lsn) -> Error {
        let (active, offset) = (self.active.as_ref().map_or(0, |s| s.id), self.offset);
        let ready: Vec<u32> = self.ready.iter().map(|s| s.id).collect();
        Error::new(
            ErrorKind::Io,
            format!(
                "the log would go back: records are accepted up to {accepted}, the next would go to offset {offset} of segment \
                 {active}, and {ready:?} are prepared; this is a bug of the engine: open the store again, and report it"
            ),
        )
    }

    // ---- those that come next -----------------------------------------------------------------------------

    /// A thread waits for a segment of at least `len` bytes, and none shorter than usual. Returns how many
    /// attempts to prepare one have ended: a later one is its answer.
    pub(super) fn want(&mut self, len: u64, factory: &SegmentFactory) -> u64 {
        self.wanted_len = self.wanted_len.max(self.usual_len(factory)).max(len);
        self.attempts
    }

    /// Whether a thread waits for one.
    pub(super) fn is_awaited(&self) -> bool {
        self.wanted_len > 0
    }

    /// Why the last attempt to prepare one failed, if it did, and if more than so many had ended by then.
    pub(super) fn failure_after(&self, attempts: u64) -> Option<&Unwritten> {
        self.failed.as_ref().filter(|(attempt, _)| *attempt > attempts).map(|(_, failed)| failed)
    }

    /// Whether the next one should be prepared, or filled further, by now: well before the active one is
    /// full.
    pub(super) fn is_next_due(&self, synced_at_once: u64) -> bool {
        self.is_begun() && (self.ready.is_empty() || self.due_for_filling(synced_at_once).is_some())
    }

    /// Of what length a segment should be prepared, if one should, and whether it is the first of the run.
    pub(super) fn next_wanted(&self, factory: &SegmentFactory) -> Option<(u64, bool)> {
        let is_wanted = self.is_awaited() || self.is_begun() && self.ready.is_empty();
        let first = self.active.is_none() && self.ready.is_empty();
        is_wanted.then(|| (self.usual_len(factory).max(self.wanted_len), first))
    }

    fn is_begun(&self) -> bool {
        self.active.as_ref().is_some_and(|active| u64::from(self.offset) > active.len / 8)
    }

    /// How long the next segment is unless a batch needs more.
    pub(super) fn usual_len(&self, factory: &SegmentFactory) -> u64 {
        self.active.as_ref().map_or(factory.first_len(), |active| factory.next_len(active.len))
    }

    /// The segment that comes next, if it should be filled further by now: it is full of zeros
    /// when the active one is full.
    pub(super) fn due_for_filling(&self, synced_at_once: u64) -> Option<&Arc<Segment>> {
        if synced_at_once >= FILLED_BELOW && !planted(Bug::FilledForNothing) {
            return None;
        }
        let (active, next) = (self.active.as_ref()?, self.ready.front()?);
        let begun = active.len / 8;
        let used = u64::from(self.offset).saturating_sub(begun);
        next.filling.is_due(used, active.len - begun).then_some(next)
    }

    /// An attempt to prepare one has ended. One that is larger than usual replaces those that are too small,
    /// which are returned.
    pub(super) fn put_ready(&mut self, prepared: Result<Arc<Segment>, Unwritten>) -> VecDeque<Arc<Segment>> {
        self.attempts += 1;
        let mut unused = VecDeque::new();
        match prepared {
            Ok(segment) => {
                if self.wanted_len > 0 && segment.len >= self.wanted_len {
                    let wanted = self.wanted_len;
                    let (keep, small) = self.ready.drain(..).partition(|s| s.len >= wanted);
                    self.ready = keep;
                    unused = small;
                    self.wanted_len = 0;
                }
                self.ready.push_back(segment);
                self.failed = None;
            }
            Err(e) => self.failed = Some((self.attempts, e)),
        }
        unused
    }

    /// Takes one back that is ready. Whether it was.
    pub(super) fn take_back(&mut self, id: u32) -> bool {
        let before = self.ready.len();
        self.ready.retain(|ready| ready.id != id);
        self.ready.len() < before
    }

    /// Those that are ready are not needed any more. The next run begins with this number.
    pub(super) fn end_ready(&mut self, next_id: u32) -> VecDeque<Arc<Segment>> {
        self.next_id = next_id;
        std::mem::take(&mut self.ready)
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn ready_bytes(&self) -> u64 {
        self.ready.iter().map(|s| s.len).sum()
    }
}
