//! The threads that work for the pipeline, and those that sleep meanwhile.
//!
//! A thread that needs the work to go on takes a step of it, or sleeps while others do. Who goes on, who is
//! woken and who is called back is decided where a stage ends; and so is the end of all writing.

use super::completion::Completions;
use super::counters::Counters;
use super::gate::Gate;
use super::hooks::Hooks;
use super::pending::Waiting;
use super::pipeline::Pipeline;
use super::progress::Progress;
use super::settled::Settled;
use super::sleepers::Woken;
use super::waking::Waking;
use super::watchers::Watchers;
use crate::clock;
use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::segment::pool::SegmentFactory;
use crate::sync::{Arc, Mutex, MutexGuard, thread};
use crate::types::{Durability, Lsn};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How often a thread that is about to write for a sync lets others run before.
const YIELDS: u32 = 4;

/// The pipeline, and the threads that come to it.
pub(super) struct Workers {
    pipeline: Mutex<Pipeline>,
    pub(super) progress: Progress,
    pub(super) gate: Gate,
    pub(super) counters: Counters,
    pub(super) hooks: Arc<dyn Hooks>,
    /// Its watch is notified of what took long.
    factory: Arc<SegmentFactory>,
    completions: Completions,
    pub(super) waking: Waking,
    pub(super) watchers: Watchers,
    /// No threads of the engine: a thread that waits does everything.
    pub(super) manual: bool,
}

impl Workers {
    pub(super) fn new(
        pipeline: Pipeline,
        progress: Progress,
        hooks: Arc<dyn Hooks>,
        factory: Arc<SegmentFactory>,
        manual: bool,
    ) -> Workers {
        Workers {
            pipeline: Mutex::new(pipeline),
            progress,
            gate: Gate::default(),
            counters: Counters::default(),
            hooks,
            factory,
            completions: Completions::default(),
            waking: Waking::default(),
            watchers: Watchers::default(),
            manual,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock()
    }

    /// What became of a batch, if that is known.
    ///
    /// Once the gate is shut the log comes no further: what is not reached by then never is.
    pub(super) fn outcome(&self, batch: Waiting) -> Option<Result<Lsn>> {
        let is_reached = || self.progress.reached(batch.durability) >= batch.end;
        if is_reached() {
            return Some(Ok(batch.end));
        }
        let refused = self.gate.check().err()?;
        Some(if is_reached() { Ok(batch.end) } else { Err(refused) })
    }

    /// Whether the calling thread is in a callback.
    pub(super) fn is_in_callback(&self) -> bool {
        self.completions.is_delivering()
    }

    // ---- who works, and for how long ----------------------------------------------------------------------

    /// Works until the batch is complete, or sleeps while others do.
    pub(super) fn drive<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>, mine: Waiting) -> Result<Lsn> {
        let is_settled = || self.outcome(mine).is_some();
        loop {
            if let Some(outcome) = self.outcome(mine) {
                // A thread that was woken to work and leaves passes the work on.
                self.waking.hand_off(p);
                return outcome;
            }
            match self.step(p, is_settled) {
                Ok(passed_on) => {
                    if passed_on && let Some(outcome) = self.outcome(mine) {
                        return outcome;
                    }
                    p = self.lock();
                }
                Err(busy) => {
                    let (woken, watched) = self.waking.sleep(busy, mine, is_settled);
                    if woken == Woken::Settled
                        && let Some(outcome) = self.outcome(mine)
                    {
                        return outcome;
                    }
                    p = self.lock();
                    p.end_watch(watched, woken == Woken::TimedOut);
                }
            }
        }
    }

    /// Without threads of the engine a ticket is driven by the thread that looks at it.
    pub(super) fn drive_if_manual(&self, mine: Waiting) {
        if self.manual {
            let _ = self.drive(self.lock(), mine);
        }
    }

    /// Does all the work there is.
    pub(super) fn drain(&self) {
        while self.step(self.lock(), || false).is_ok() {}
    }

    /// The thread that works for tickets nobody waits for. Returns when the engine closes.
    pub(super) fn run(&self) {
        let mut p = self.lock();
        loop {
            p = match self.step(p, || false) {
                Ok(_) => self.lock(),
                Err(p) if p.closed && p.is_drained() => return,
                Err(p) => self.waking.wait_for_work(p),
            };
        }
    }

    /// Works until everything accepted so far is durable, or waits while others do.
    pub(super) fn flush(&self) -> Result<()> {
        self.gate.check()?;
        let target = self.progress.accepted();
        let mut p = self.lock();
        p.sync.flush_to(target);
        while self.progress.durable() < target {
            self.gate.check()?;
            p = self.step_or_wait(p, false);
        }
        self.waking.hand_off(p);
        Ok(())
    }

    /// Works until nothing is on its way, or waits while others do.
    pub(super) fn finish(&self) {
        let mut p = self.lock();
        loop {
            p = match self.step(p, || false) {
                Ok(_) => self.lock(),
                Err(p) if p.is_idle() => break,
                Err(p) => self.waking.wait_for_change(p),
            };
        }
        self.watchers.end();
    }

    /// Takes a step, or waits for the end of another's. `leaves`: what is left of the work is for others.
    pub(super) fn step_or_wait<'a>(
        &'a self,
        p: MutexGuard<'a, Pipeline>,
        leaves: bool,
    ) -> MutexGuard<'a, Pipeline> {
        match self.step(p, || leaves) {
            Ok(_) => self.lock(),
            Err(p) => self.waking.wait_for_change(p),
        }
    }

    // ---- one step -----------------------------------------------------------------------------------------

    /// Does a stage's worth of work, or a write and the sync after it, if there is any that no thread is
    /// doing. `Err` gives the lock back with nothing done; it was held all the time, so what the caller knew
    /// before is true still, and it may wait for the end of a stage.
    ///
    /// `is_done` says whether the caller has what it works for, and will not come back. Then what is left of
    /// the work is passed on, and else only if callbacks come before: `Ok` says whether it was.
    fn step<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        is_done: impl Fn() -> bool,
    ) -> Result<bool, MutexGuard<'a, Pipeline>> {
        let mut let_go = false;
        if p.can_write() {
            (p, let_go) = self.gather(p);
        }
        if self.gate.is_shut() {
            if p.is_drained() {
                return if let_go { Ok(false) } else { Err(p) };
            }
            self.fail_all(p);
            return Ok(true);
        }
        if p.can_write() {
            let Some((written, settled)) = self.write_stage(p) else { return Ok(true) };
            p = written;
            // No thread whose batch is settled waits for the sync.
            if settled.written.is_some() || p.awaiting_change > 0 || !p.sync.can_begin() || is_done() {
                return Ok(self.end_stage(p, settled, is_done()));
            }
        }
        if p.sync.can_begin() {
            let Some((synced, settled)) = self.sync_stage(p) else { return Ok(true) };
            return Ok(self.end_stage(synced, settled, is_done()));
        }
        if let_go { Ok(false) } else { Err(p) }
    }

    /// Lets the threads run whose batches the last sync settled: one that comes back at once with another
    /// batch shares the next write and sync, and would otherwise have to wait for the one after. No thread is
    /// waited for that is not ready to run: where a processor is idle, this returns at once.
    ///
    /// Says whether the lock was let go of meanwhile: then writing may have stopped, or the work be gone.
    fn gather<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> (MutexGuard<'a, Pipeline>, bool) {
        if p.queue.is_urgent() || p.sync.is_busy() {
            return (p, false);
        }
        let Some((returning, at_most)) = p.gathering.begin() else { return (p, false) };
        let all = p.queue.len() + returning;
        let began = clock::now();
        p.write.enter(began);
        for _ in 0..YIELDS {
            drop(p);
            thread::yield_now();
            p = self.lock();
            let is_whole = p.queue.len() >= all;
            if is_whole || p.queue.is_urgent() || self.gate.is_shut() || clock::since(began) > at_most {
                break;
            }
        }
        p.gathering.ended(clock::since(began));
        p.write.leave();
        if self.gate.is_shut() && p.awaiting_change > 0 {
            // What is left to do may be nothing, and a close waits for that.
            self.waking.announce_change();
        }
        (p, true)
    }

    /// Writes what is queued. Returns the lock and what that settles, or nothing when it failed and
    /// all was answered.
    fn write_stage<'a>(
        &'a self,
        mut guard: MutexGuard<'a, Pipeline>,
    ) -> Option<(MutexGuard<'a, Pipeline>, Settled)> {
        let p = &mut *guard;
        p.watched = false;
        if let Some(end) = p.push_copies(false) {
            self.progress.set_accepted(end);
        }
        let mut group = p.write.begin(&mut p.queue, &mut p.turns, p.sync.is_busy());
        drop(guard);
        let outcome = group.write(self.progress.watermark(), &self.counters);
        let mut guard = self.lock();
        let p = &mut *guard;
        self.factory.watch.ended(group.began);
        // If a sync failed meanwhile, what was written is not acknowledged any more, not even as written.
        if outcome.is_err() || self.gate.is_shut() {
            p.write.fail(group, &mut p.queue);
            match outcome {
                Err(cause) => self.poison(guard, cause),
                Ok(()) => self.fail_all(guard),
            }
            return None;
        }
        let (turns, sync, room) = (&mut p.turns, &mut p.sync, &mut p.room);
        let settled = p.write.end(group, turns, sync, room, &self.progress, &self.completions);
        Some((guard, settled))
    }

    /// Syncs what is written. Returns the lock and what that settles, or nothing when it failed and
    /// all was answered.
    fn sync_stage<'a>(
        &'a self,
        mut guard: MutexGuard<'a, Pipeline>,
    ) -> Option<(MutexGuard<'a, Pipeline>, Settled)> {
        let p = &mut *guard;
        p.watched = false;
        let mut job = p.sync.begin(&mut p.turns);
        // What is queued and may not wait is written beside the sync.
        self.waking.hand_off(guard);
        let outcome = job.sync(&self.counters);
        if outcome.is_ok() {
            self.note_entry(job.target);
        }
        let (began, batches) = (job.began, job.batches);
        let mut p = self.lock();
        self.factory.watch.ended(began);
        if let Err(cause) = outcome {
            p.sync.fail(job);
            self.poison(p, cause);
            return None;
        }
        if self.gate.is_shut() && !planted(Bug::AckAfterError) {
            p.sync.fail(job);
            // It may be durable, but nothing is acknowledged after the first error.
            self.fail_all(p);
            return None;
        }
        let mut settled = Settled::default();
        if let Some(reached) = p.sync.end(job) {
            self.progress.set_durable(reached.durable);
            p.sync.settle(reached.durable, &mut settled, &self.completions);
            settled.synced = Some(p.turns.settle(Durability::Synced, reached.turn));
            p.gathering.synced(batches, clock::since(began));
        }
        Some((p, settled))
    }

    /// Before anything in a new segment is acknowledged, a mark in another file says that the log leads
    /// there: all else that proves its records stands in itself, and would be lost with its file.
    fn note_entry(&self, durable: Lsn) {
        if !planted(Bug::EntryNotMarked) && self.progress.enters(durable) {
            self.hooks.segment_entered(durable);
        }
    }

    // ---- the end of a stage -------------------------------------------------------------------------------

    /// A stage has ended: wakes the thread that goes on with the work, then those whose batches it settled,
    /// and calls back, all without the lock. A thread that does not leave goes on by itself, unless it calls
    /// back first. Returns whether the work was passed on.
    fn end_stage(&self, mut p: MutexGuard<'_, Pipeline>, settled: Settled, leaves: bool) -> bool {
        p.room.give_back(settled.bytes);
        let passes_on = leaves || settled.tickets;
        let chosen = self.waking.choose(&mut p, passes_on);
        let is_further = settled.synced.is_some();
        drop(p);
        self.waking.wake(chosen, settled);
        if is_further {
            self.watchers.wake();
        }
        self.completions
            .deliver(|batch| self.answer(batch), |lsn, message| self.hooks.callback_panicked(lsn, message));
        passes_on
    }

    /// The outcome of a batch with a ticket, which is delivered once.
    fn answer(&self, batch: Waiting) -> Option<Result<Lsn>> {
        let outcome = self.outcome(batch);
        if let Some(Ok(_)) = outcome
            && !planted(Bug::SubmittedNotTimed)
        {
            self.counters.commit_times.since(batch.began);
        }
        outcome
    }

    // ---- the end of all writing ---------------------------------------------------------------------------

    /// Stops all writing. Threads that wait are answered before the listeners are notified: a listener may
    /// close the engine, which waits for those threads.
    pub(super) fn poison(&self, p: MutexGuard<'_, Pipeline>, cause: Error) {
        let first = !planted(Bug::GateLeftOpen) && self.gate.trip(cause.clone());
        self.fail_all(p);
        if first {
            // A listener that panics must not take the thread along that works for others.
            let _ = catch_unwind(AssertUnwindSafe(|| self.hooks.poisoned(&cause)));
        }
    }

    /// Nothing more is written, since the log [would go back](super::segments::Segments::would_go_back).
    pub(super) fn refuse_to_go_back(&self, p: MutexGuard<'_, Pipeline>) -> Error {
        let cause = p.segments.would_go_back(self.progress.accepted());
        self.poison(p, cause.clone());
        self.gate.check().err().unwrap_or(cause)
    }

    /// Everything that was not acknowledged fails with the first cause.
    fn fail_all(&self, mut p: MutexGuard<'_, Pipeline>) {
        let mut settled = Settled::default();
        p.sync.settle(Lsn::from_u64(u64::MAX), &mut settled, &self.completions);
        while let Some(record) = p.queue.pop() {
            settled.add(record.len(), record.ticket, &self.completions);
        }
        let turn = p.turns.end_group();
        settled.written = Some(p.turns.settle(Durability::Written, turn));
        settled.synced = Some(p.turns.settle(Durability::Synced, turn));
        if planted(Bug::WaitersNotWoken) {
            (settled.written, settled.synced) = (None, None);
        }
        self.end_stage(p, settled, true);
    }
}
