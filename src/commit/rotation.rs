//! Who makes the segment that comes next, and moves on to it.
//!
//! ```text
//!  prepare (one at a time) ──▶ ready, by number, filled meanwhile ──▶ rotate ──▶ active
//! ```
//!
//! A segment gets its number when it is prepared, and the log is read in the order of the numbers. Therefore
//! the order in which segments are prepared, become ready and become active has to be one and the same,
//! however many threads want a next one.

use super::accept::{Accept, OnFull, Origin};
use super::active::{Full, Next};
use super::pipeline::Pipeline;
use super::shared::Shared;
use super::unsent::Unsent;
use crate::error::{Error, ErrorKind};
use crate::planted::{Bug, planted};
use crate::segment::factory::{SegmentFactory, segment_len_for};
use crate::segment::{FillError, Segment, Unwritten};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::trace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Prepares segments, and lets the log move on to them.
pub(super) struct Rotation {
    pub(super) factory: Arc<SegmentFactory>,
    /// Held while a segment is prepared; true once none may be any more. Never asked for with the
    /// pipeline's lock held.
    preparing: Mutex<bool>,
    /// The last attempt to prepare a segment found no space.
    exhausted: AtomicBool,
}

impl Rotation {
    pub(super) fn new(factory: Arc<SegmentFactory>) -> Rotation {
        Rotation { factory, preparing: Mutex::new(false), exhausted: AtomicBool::new(false) }
    }

    /// Moves on to a segment that has room for a record of `len` bytes, waiting for one to be prepared, and
    /// for full ones to get their footer, if need be and the caller agrees.
    pub(super) fn rotate<'a>(
        &self,
        shared: &'a Shared,
        mut p: MutexGuard<'a, Pipeline>,
        len: u64,
        how: &Accept<'_>,
    ) -> Result<MutexGuard<'a, Pipeline>, Unsent> {
        // What the engine itself writes may be what sealing waits for.
        let may_wait = matches!(how.origin, Origin::Caller { .. }) && !shared.manual;
        if may_wait
            && shared.hooks.awaits_footer()
            && let Some((at_most, begins)) = p.segments.await_footer()
        {
            return wait_for_footer(shared, p, how.on_full, at_most, begins);
        }
        match p.segments.turn_to_next(len) {
            Next::Active(full) => {
                report_full(shared, full);
                shared.hooks.segment_wanted();
                return Ok(p);
            }
            Next::Lower => return Err(shared.refuse_to_go_back(p).into()),
            Next::Lacking => {}
        }
        // Only an attempt that began after this request counts: the disk may have been full a while ago.
        let asked = p.segments.want(segment_len_for(len), &self.factory);
        if shared.manual {
            drop(p);
            self.prepare_wanted(shared)?;
            return Ok(shared.lock());
        }
        shared.hooks.segment_wanted();
        if how.on_full == OnFull::Fail {
            let busy = "the next segment is not prepared yet; try again soon";
            return Err(Unsent::Busy(match p.segments.failure_after(0) {
                // Perhaps of a while ago, so it is no answer by itself.
                Some(failed) => {
                    Error::new(ErrorKind::WouldBlock, format!("{busy} (the last attempt failed)"))
                        .caused_by(failed.error().clone())
                }
                None => Error::new(ErrorKind::WouldBlock, busy),
            }));
        }
        let p = shared.waking.wait_for_change(p);
        match p.segments.failure_after(asked) {
            Some(failed) => Err(failed.clone().into()),
            None => Ok(p),
        }
    }

    /// Ends the active segment where it stands, if there is one.
    pub(super) fn end_active(&self, shared: &Shared) {
        let mut p = shared.lock();
        report_full(shared, p.segments.end_active());
    }

    /// Ends the active segment in its place, and gives back those that are prepared. None is
    /// prepared any more: the one that is being is waited for. After that the next file has the
    /// number that the next run begins with.
    pub(super) fn end(&self, shared: &Shared) {
        *self.preparing.lock() = true;
        let mut p = shared.lock();
        report_full(shared, p.segments.end_active());
        let unused = p.segments.end_ready(self.factory.next_file());
        drop(p);
        unused.iter().for_each(|segment| self.retire(segment));
    }

    /// The file of `segment` may be used again once nobody holds it.
    pub(super) fn retire(&self, segment: &Segment) {
        let factory: Arc<dyn crate::segment::Retire> = self.factory.clone();
        segment.retire_to(Arc::downgrade(&factory));
    }

    // ---- preparing ----------------------------------------------------------------------------------------

    /// Makes the next segment ready: the first of a run when there is a record for it, and each later one
    /// well before the active one is full: from a recycled file where there is one, else from a new one.
    /// Files are not made ahead of that need: in the steady state every segment comes from the pool of
    /// recycled ones, and filling more with zeros would double what the device has to write.
    ///
    /// # Errors
    /// What it failed with, unless somebody waited for the segment and was answered.
    pub(super) fn prepare(&self, shared: &Shared) -> Result<(), Unwritten> {
        loop {
            // A piece is filled in between: a segment that is wanted does not wait for more.
            let answered = shared.lock().segments.is_awaited() && !shared.manual;
            self.prepare_wanted(shared).or_else(|e| if answered { Ok(()) } else { Err(e) })?;
            if !self.fill_piece(shared)? {
                return Ok(());
            }
        }
    }

    /// Fills a piece of the segment that comes next, if one is due. Whether there was.
    ///
    /// Nobody waits for it. A segment that cannot be filled is given back if it has not become active; if it
    /// has, its zeros do not matter, but for a failed sync, which may have taken records with it.
    fn fill_piece(&self, shared: &Shared) -> Result<bool, Unwritten> {
        // Held for the piece: a close waits for it, and no other follows.
        let ended = self.preparing.lock();
        if *ended {
            return Ok(false);
        }
        let Some(segment) = shared.lock().due_for_filling().cloned() else { return Ok(false) };
        let Err(failed) = self.factory.fill_piece(&segment) else { return Ok(true) };
        let mut p = shared.lock();
        match (p.segments.take_back(segment.id), failed) {
            (true, FillError::Write(error) | FillError::Sync(error)) => {
                drop(p);
                segment.give_up();
                self.retire(&segment);
                Err(error)
            }
            (false, FillError::Sync(cause)) => {
                // What is completed by this may call back, and close the engine.
                drop(ended);
                shared.poison(p, cause.clone());
                Err(cause)
            }
            (false, FillError::Write(_)) => Ok(true),
        }
    }

    /// Prepares until nothing more is wanted, and says so if it was the space that ended or came back.
    fn prepare_wanted(&self, shared: &Shared) -> Result<(), Unwritten> {
        let mut any = false;
        let outcome = self.prepare_in_turn(shared, &mut any);
        let exhausted = outcome.as_ref().err().and_then(Unwritten::no_space);
        // Other errors say nothing of space, nor does it that no segment was wanted.
        let is = exhausted.is_some();
        let turned = (is || any) && self.exhausted.swap(is, Ordering::Relaxed) != is;
        if turned || is && planted(Bug::SpaceSaidEachTime) {
            shared.hooks.space(exhausted);
        }
        outcome
    }

    /// Others that come meanwhile wait: numbers are given here, and what is prepared by two at once would
    /// become ready in another order. Says whether `any` segment was prepared.
    fn prepare_in_turn(&self, shared: &Shared, any: &mut bool) -> Result<(), Unwritten> {
        let ended = self.preparing.lock();
        let heeded = !planted(Bug::ClosedEngineWorks);
        if *ended && heeded {
            return Err(Unwritten::Failed(Error::closed()));
        }
        let _one = Some(ended).filter(|_| !planted(Bug::TwoPrepareAtOnce));
        loop {
            let p = shared.lock();
            if heeded {
                p.check_open().map_err(Unwritten::Failed)?;
            }
            let Some((len, first)) = p.segments.next_wanted(&self.factory) else { return Ok(()) };
            drop(p);
            let span = trace::rotate(len);
            let is_awaited = || {
                let p = shared.lock();
                shared.manual || p.segments.is_awaited() || p.closed
            };
            let prepare = || match first {
                true => self.factory.prepare_first(len),
                false => self.factory.prepare(len, &is_awaited),
            };
            // Somebody may be waiting for it, and has to be answered in any case.
            let panicked = || Error::new(ErrorKind::Io, "preparing a segment panicked");
            let prepared = catch_unwind(AssertUnwindSafe(prepare))
                .unwrap_or_else(|_| Err(Unwritten::Failed(panicked())));
            let failed = prepared.as_ref().err().cloned();
            *any |= prepared.is_ok();
            drop(span);
            self.put_ready(shared, prepared);
            if let Some(failed) = failed {
                return Err(failed);
            }
            if first && !shared.progress.is_recovering() {
                // From now on there is something to purge. What cannot be made here is made by upkeep; and
                // recovery needs all there is.
                let reserve = || self.factory.free.keep_reserve(0);
                let _ = self.factory.watch.during("making the reserve", reserve);
            }
        }
    }

    /// Hands over a prepared segment.
    fn put_ready(&self, shared: &Shared, prepared: Result<Arc<Segment>, Unwritten>) {
        if matches!(prepared, Err(Unwritten::NoSpace(_))) {
            shared.counters.no_space.fetch_add(1, Ordering::Relaxed);
        }
        let unused = shared.lock().segments.put_ready(prepared);
        unused.iter().for_each(|segment| self.retire(segment));
        shared.waking.announce_change();
    }
}

/// Waits until a full segment has its footer, or for so long at most.
fn wait_for_footer<'a>(
    shared: &'a Shared,
    p: MutexGuard<'a, Pipeline>,
    on_full: OnFull,
    at_most: Duration,
    begins: bool,
) -> Result<MutexGuard<'a, Pipeline>, Unsent> {
    if begins {
        shared.counters.throttled.fetch_add(1, Ordering::Relaxed);
        shared.hooks.upkeep_wanted();
    }
    if on_full == OnFull::Fail {
        let waits =
            "full segments wait for their footer, and the log moves on when one has it; try again soon";
        return Err(Unsent::Busy(Error::new(ErrorKind::WouldBlock, waits)));
    }
    Ok(shared.waking.wait_for_change_at_most(p, at_most))
}

/// The log has moved on. The caller holds the pipeline's lock: the segments become full in their order.
fn report_full(shared: &Shared, full: Option<Full>) {
    if let Some(Full { segment, end }) = full {
        shared.hooks.segment_full(segment, end);
    }
}
