//! Which segment is written to, which comes next, and who makes it.
//!
//! ```text
//!  prepare (one at a time) ──▶ ready, by number, filled meanwhile ──▶ rotate ──▶ active
//! ```
//!
//! A segment gets its number when it is prepared, and the log is read in the order of the numbers. Therefore
//! the order in which segments are prepared, become ready and become active has to be one and the same,
//! however many threads want a next one.

use super::committer::{Committer, OnFull};
use super::pipeline::Pipeline;
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use crate::segment::pool::{SegmentFactory, segment_len_for};
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{FillError, Segment};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard};
use crate::trace;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A segment is filled as long as a sync covers less than this. What filling saves is paid once
/// a sync, and what it costs is paid by the byte: every byte is written twice. Where many share
/// a sync it is not worth that.
const FILLED_BELOW: u64 = 40 << 10;

impl Committer {
    /// Moves on to a segment that has room for a record of `len` bytes, waiting for one to be prepared if
    /// need be and the caller agrees.
    pub(super) fn rotate<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        len: u64,
        on_full: OnFull,
    ) -> Result<MutexGuard<'a, Pipeline>> {
        if p.ready.front().is_some_and(|s| s.fits(FIRST_RECORD, len))
            && let Some(next) = p.ready.pop_front()
        {
            if next.id < p.next_id {
                return Err(self.refuse_to_go_back(p));
            }
            self.end_active(&mut p);
            p.next_id = next.id.saturating_add(1);
            p.active = Some(next);
            self.hooks.segment_wanted();
            return Ok(p);
        }
        let need = segment_len_for(len);
        p.wanted_len = p.wanted_len.max(p.usual_len(&self.factory).max(need));
        if self.manual {
            drop(p);
            self.prepare_wanted()?;
            return Ok(self.lock());
        }
        // Only an attempt that began after this request counts: the disk may have been full a while ago.
        let asked = p.prepare_attempts;
        self.hooks.segment_wanted();
        if on_full == OnFull::Fail {
            let busy = "the next segment is not prepared yet; try again soon";
            return Err(match &p.prepare_error {
                // Perhaps of a while ago, so it is no answer by itself.
                Some((_, error)) => {
                    Error::new(ErrorKind::WouldBlock, format!("{busy} (the last attempt failed)"))
                        .caused_by(error.clone())
                }
                None => Error::new(ErrorKind::WouldBlock, busy),
            });
        }
        let p = self.wait_in_room(p);
        match &p.prepare_error {
            Some((attempt, error)) if *attempt > asked => Err(error.clone()),
            _ => Ok(p),
        }
    }

    /// Ends the active segment where it stands, if there is one, and makes it durable. No other takes its
    /// place before there is a record for it.
    pub(crate) fn roll(&self) -> Result<()> {
        self.gate.check()?;
        self.end_active(&mut self.lock());
        self.flush()
    }

    /// Nothing more is written to the active segment.
    fn end_active(&self, p: &mut Pipeline) {
        let end = std::mem::replace(&mut p.offset, FIRST_RECORD);
        if let Some(full) = p.active.take() {
            self.hooks.segment_full(full, end);
        }
    }

    /// The active segment and where its next record goes, if there is one.
    pub(crate) fn active(&self) -> Option<(Arc<Segment>, u32)> {
        let p = self.lock();
        p.active.clone().map(|active| (active, p.offset))
    }

    /// The number of the active segment; without one, the lowest that the next may have. Whatever is accepted
    /// from here on goes there or beyond.
    pub(crate) fn active_id(&self) -> u32 {
        let p = self.lock();
        p.active.as_ref().map_or(p.next_id, |active| active.id)
    }

    /// The next position would lie at or below one that was given already: what is written there would never
    /// be read, or would replace what was acknowledged. Nothing more is written.
    pub(super) fn refuse_to_go_back(&self, p: MutexGuard<'_, Pipeline>) -> Error {
        let (active, offset, accepted) = (p.active.as_ref().map_or(0, |s| s.id), p.offset, self.accepted());
        let ready: Vec<u32> = p.ready.iter().map(|s| s.id).collect();
        let cause = Error::new(
            ErrorKind::Io,
            format!(
                "the log would go back: records are accepted up to {accepted}, the next would go to offset {offset} of segment \
                 {active}, and {ready:?} are prepared; this is a bug of the engine: open the store again, and report it"
            ),
        );
        self.poison(p, cause.clone());
        self.gate.check().err().unwrap_or(cause)
    }

    // ---- preparing ----------------------------------------------------------------------------------------

    /// Makes the next segment ready: the first of a run when there is a record for it, and each later one
    /// well before the active one is full: from a recycled file where there is one, else from a new one.
    /// Files are not made ahead of that need: in the steady state every segment comes from the pool of
    /// recycled ones, and filling more with zeros would double what the device has to write.
    ///
    /// # Errors
    /// What it failed with, unless somebody waited for the segment and was answered.
    pub(crate) fn prepare(&self) -> Result<()> {
        loop {
            // A piece is filled in between: a segment that is wanted does not wait for more.
            let waited_for = self.lock().wanted_len > 0;
            self.prepare_wanted().or_else(|e| if waited_for && !self.manual { Ok(()) } else { Err(e) })?;
            if !self.fill_piece()? {
                return Ok(());
            }
        }
    }

    /// Fills a piece of the segment that comes next, if one is due. Whether there was.
    ///
    /// Nobody waits for it. A segment that cannot be filled is given back if it has not become active; if it
    /// has, its zeros do not matter, but for a failed sync, which may have taken records with it.
    fn fill_piece(&self) -> Result<bool> {
        // Held for the piece: a close waits for it, and no other follows.
        let ended = self.preparing.lock();
        if *ended {
            return Ok(false);
        }
        let Some(segment) = self.lock().due_for_filling().cloned() else { return Ok(false) };
        let Err(failed) = self.factory.fill_piece(&segment) else { return Ok(true) };
        let mut p = self.lock();
        let before = p.ready.len();
        p.ready.retain(|ready| ready.id != segment.id);
        match (p.ready.len() < before, failed) {
            (true, FillError::Write(error) | FillError::Sync(error)) => {
                drop(p);
                segment.give_up();
                self.retire(&segment);
                Err(error)
            }
            (false, FillError::Sync(cause)) => {
                // What is completed by this may call back, and close the engine.
                drop(ended);
                self.poison(p, cause.clone());
                Err(cause)
            }
            (false, FillError::Write(_)) => Ok(true),
        }
    }

    /// Prepares until nothing more is wanted, and says so if it was the space that ended or came back.
    fn prepare_wanted(&self) -> Result<()> {
        let mut any = false;
        let outcome = self.prepare_in_turn(&mut any);
        let exhausted = outcome.as_ref().err().filter(|e| e.kind() == ErrorKind::NoSpace);
        // Other errors say nothing of space, nor does it that no segment was wanted.
        let is = exhausted.is_some();
        let turned = (is || any) && self.exhausted.swap(is, Ordering::Relaxed) != is;
        if turned || is && planted(Bug::SpaceSaidEachTime) {
            self.hooks.space(exhausted);
        }
        outcome
    }

    /// Others that come meanwhile wait: numbers are given here, and what is prepared by two at once would
    /// become ready in another order. Says whether `any` segment was prepared.
    fn prepare_in_turn(&self, any: &mut bool) -> Result<()> {
        let ended = self.preparing.lock();
        let heeded = !planted(Bug::ClosedEngineWorks);
        if *ended && heeded {
            return Err(Error::closed());
        }
        let _one = Some(ended).filter(|_| !planted(Bug::TwoPrepareAtOnce));
        loop {
            let p = self.lock();
            if heeded {
                p.check_open()?;
            }
            let Some(wanted) = p.next_wanted() else { return Ok(()) };
            let first = p.active.is_none() && p.ready.is_empty();
            let len = p.usual_len(&self.factory).max(wanted);
            drop(p);
            let span = trace::rotate(len);
            let is_awaited = || {
                let p = self.lock();
                self.manual || p.wanted_len > 0 || p.closed
            };
            let prepare = || match first {
                true => self.factory.prepare_first(len),
                false => self.factory.prepare(len, &is_awaited),
            };
            // Somebody may be waiting for it, and has to be answered in any case.
            let prepared = catch_unwind(AssertUnwindSafe(prepare))
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "preparing a segment panicked")));
            let failed = prepared.as_ref().err().cloned();
            *any |= prepared.is_ok();
            drop(span);
            self.put_ready(prepared);
            if let Some(error) = failed {
                return Err(error);
            }
            if first && !self.is_recovering() {
                // From now on there is something to purge. What cannot be made here is made by upkeep; and
                // recovery needs all there is.
                let reserve = || self.factory.keep_reserve(0);
                let _ = self.factory.watch.during("making the reserve", reserve);
            }
        }
    }

    /// Hands over a prepared segment. One that is larger than usual replaces those that are too small.
    fn put_ready(&self, prepared: Result<Arc<Segment>>) {
        let mut p = self.lock();
        p.prepare_attempts += 1;
        let mut unused = VecDeque::new();
        match prepared {
            Ok(segment) => {
                if p.wanted_len > 0 && segment.len >= p.wanted_len {
                    let wanted = p.wanted_len;
                    let (keep, small) = p.ready.drain(..).partition(|s| s.len >= wanted);
                    p.ready = keep;
                    unused = small;
                    p.wanted_len = 0;
                }
                p.ready.push_back(segment);
                p.prepare_error = None;
            }
            Err(e) => {
                if e.kind() == ErrorKind::NoSpace {
                    self.counters.no_space.fetch_add(1, Ordering::Relaxed);
                }
                p.prepare_error = Some((p.prepare_attempts, e));
            }
        }
        drop(p);
        for segment in &unused {
            self.retire(segment);
        }
        self.room.notify_all();
    }

    /// How long the next segment is unless a batch needs more.
    pub(crate) fn usual_len(&self) -> u64 {
        self.lock().usual_len(&self.factory)
    }

    /// How many segments are prepared.
    pub(crate) fn ready_count(&self) -> usize {
        self.lock().ready.len()
    }

    /// The file of `segment` may be used again once nobody holds it.
    pub(crate) fn retire(&self, segment: &Segment) {
        let factory: Arc<dyn crate::segment::Retire> = self.factory.clone();
        segment.retire_to(Arc::downgrade(&factory));
    }

    /// Ends the active segment in its place, and gives back those that are prepared. None is
    /// prepared any more: the one that is being is waited for. After that the next file has the
    /// number that the next run begins with.
    pub(crate) fn end_segments(&self) {
        *self.preparing.lock() = true;
        let mut p = self.lock();
        self.end_active(&mut p);
        p.next_id = self.factory.next_file();
        let unused = std::mem::take(&mut p.ready);
        drop(p);
        unused.iter().for_each(|segment| self.retire(segment));
    }

    /// Whether anything was accepted in this run.
    pub(crate) fn has_written(&self) -> bool {
        self.accepted() > self.start
    }
}

impl Pipeline {
    /// Whether a segment should be prepared, and of what length somebody needs it; 0 if nobody waits.
    fn next_wanted(&self) -> Option<u64> {
        let filled = self.active.as_ref().is_some_and(|active| u64::from(self.offset) > active.len / 8);
        (self.wanted_len > 0 || filled && self.ready.is_empty()).then_some(self.wanted_len)
    }

    /// The segment that comes next, if it should be filled further by now: it is full of zeros
    /// when the active one is full.
    pub(super) fn due_for_filling(&self) -> Option<&Arc<Segment>> {
        if self.synced_at_once >= FILLED_BELOW && !planted(Bug::FilledForNothing) {
            return None;
        }
        let (active, next) = (self.active.as_ref()?, self.ready.front()?);
        let begun = active.len / 8;
        let used = u64::from(self.offset).saturating_sub(begun);
        next.filling.is_due(used, active.len - begun).then_some(next)
    }

    /// How long the next segment is unless a batch needs more.
    pub(super) fn usual_len(&self, factory: &SegmentFactory) -> u64 {
        self.active.as_ref().map_or(factory.first_len(), |active| factory.next_len(active.len))
    }

    /// Fails once the engine is closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::closed()) } else { Ok(()) }
    }
}
