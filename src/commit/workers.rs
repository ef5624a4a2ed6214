//! The threads that work for the pipeline, and those that sleep meanwhile.
//!
//! A thread that needs the work to go on takes a step of it, or sleeps while others do.

use super::gate::Stopped;
use super::pending::Waiting;
use super::pipeline::Pipeline;
use super::settled::Settled;
use super::shared::Shared;
use super::sleepers::Woken;
use crate::clock;
use crate::planted::{Bug, planted};
use crate::sync::{MutexGuard, thread};
use crate::types::{Durability, Lsn};

/// How often a thread that is about to write for a sync lets others run before.
const YIELDS: u32 = 4;

/// The calling thread, as one that works for the pipeline.
#[derive(Clone, Copy)]
pub(super) struct Worker<'a> {
    shared: &'a Shared,
}

impl<'a> Worker<'a> {
    pub(super) fn of(shared: &'a Shared) -> Worker<'a> {
        Worker { shared }
    }

    // ---- who works, and for how long ----------------------------------------------------------------------

    /// Works until the batch is complete, or sleeps while others do.
    pub(super) fn drive(self, mut p: MutexGuard<'a, Pipeline>, mine: Waiting) -> Result<Lsn, Stopped> {
        let is_settled = || self.shared.outcome(mine).is_some();
        loop {
            if let Some(outcome) = self.shared.outcome(mine) {
                // A thread that was woken to work and leaves passes the work on.
                self.shared.waking.hand_off(p);
                return outcome;
            }
            match self.step(p, is_settled) {
                Ok(passed_on) => {
                    if passed_on && let Some(outcome) = self.shared.outcome(mine) {
                        return outcome;
                    }
                    p = self.shared.lock();
                }
                Err(busy) => {
                    let (woken, watched) = self.shared.waking.sleep(busy, mine, is_settled);
                    if woken == Woken::Settled
                        && let Some(outcome) = self.shared.outcome(mine)
                    {
                        return outcome;
                    }
                    p = self.shared.lock();
                    p.end_watch(watched, woken == Woken::TimedOut);
                }
            }
        }
    }

    /// Without threads of the engine a ticket is driven by the thread that looks at it.
    pub(super) fn drive_if_manual(self, mine: Waiting) {
        if self.shared.manual {
            let _ = self.drive(self.shared.lock(), mine);
        }
    }

    /// Does all the work there is.
    pub(super) fn drain(self) {
        while self.step(self.shared.lock(), || false).is_ok() {}
    }

    /// The thread that works for tickets nobody waits for. Returns when the engine closes.
    pub(super) fn run(self) {
        let mut p = self.shared.lock();
        loop {
            p = match self.step(p, || false) {
                Ok(_) => self.shared.lock(),
                Err(p) if p.closed && p.is_drained() => return,
                Err(p) => self.shared.waking.wait_for_work(p),
            };
        }
    }

    /// Works until everything accepted so far is durable, or waits while others do.
    pub(super) fn flush(self) -> Result<(), Stopped> {
        self.shared.gate.check()?;
        let target = self.shared.progress.accepted();
        let mut p = self.shared.lock();
        p.sync.flush_to(target);
        while self.shared.progress.durable() < target {
            self.shared.gate.check()?;
            p = self.step_or_wait(p, false);
        }
        self.shared.waking.hand_off(p);
        Ok(())
    }

    /// Works until nothing is on its way, or waits while others do.
    pub(super) fn finish(self) {
        let mut p = self.shared.lock();
        loop {
            p = match self.step(p, || false) {
                Ok(_) => self.shared.lock(),
                Err(p) if p.is_idle() => {
                    debug_assert_eq!(p.room.bytes(), 0, "taken and not given back");
                    break;
                }
                Err(p) => self.shared.waking.wait_for_change(p),
            };
        }
        self.shared.watchers.end();
    }

    /// Takes a step, or waits for the end of another's. `leaves`: what is left of the work is for others.
    pub(super) fn step_or_wait(self, p: MutexGuard<'a, Pipeline>, leaves: bool) -> MutexGuard<'a, Pipeline> {
        match self.step(p, || leaves) {
            Ok(_) => self.shared.lock(),
            Err(p) => self.shared.waking.wait_for_change(p),
        }
    }

    // ---- one step -----------------------------------------------------------------------------------------

    /// Does a stage's worth of work, or a write and the sync after it, if there is any that no thread is
    /// doing. `Err` gives the lock back with nothing done; it was held all the time, so what the caller knew
    /// before is true still, and it may wait for the end of a stage.
    ///
    /// `is_done` says whether the caller has what it works for, and will not come back. Then what is left of
    /// the work is passed on, and else only if callbacks come before: `Ok` says whether it was.
    fn step(
        self,
        mut p: MutexGuard<'a, Pipeline>,
        is_done: impl Fn() -> bool,
    ) -> Result<bool, MutexGuard<'a, Pipeline>> {
        let mut let_go = false;
        if p.can_write() {
            (p, let_go) = self.gather(p);
        }
        if self.shared.gate.is_shut() {
            if p.is_drained() {
                return if let_go { Ok(false) } else { Err(p) };
            }
            self.shared.fail_all(p);
            return Ok(true);
        }
        if p.can_write() {
            let Some((written, settled)) = self.write_stage(p) else { return Ok(true) };
            p = written;
            // No thread whose batch is settled waits for the sync.
            if settled.written.is_some() || p.awaiting_change > 0 || !p.sync.can_begin() || is_done() {
                return Ok(self.shared.end_stage(p, settled, is_done()));
            }
        }
        if p.sync.can_begin() {
            let Some((synced, settled)) = self.sync_stage(p) else { return Ok(true) };
            return Ok(self.shared.end_stage(synced, settled, is_done()));
        }
        if let_go { Ok(false) } else { Err(p) }
    }

    /// Lets the threads run whose batches the last sync settled: one that comes back at once with another
    /// batch shares the next write and sync, and would otherwise have to wait for the one after. No thread is
    /// waited for that is not ready to run: where a processor is idle, this returns at once.
    ///
    /// Says whether the lock was let go of meanwhile: then writing may have stopped, or the work be gone.
    fn gather(self, mut p: MutexGuard<'a, Pipeline>) -> (MutexGuard<'a, Pipeline>, bool) {
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
            p = self.shared.lock();
            let is_whole = p.queue.len() >= all;
            if is_whole || p.queue.is_urgent() || self.shared.gate.is_shut() || clock::since(began) > at_most
            {
                break;
            }
        }
        p.gathering.ended(clock::since(began));
        p.write.leave();
        if self.shared.gate.is_shut() && p.awaiting_change > 0 {
            // What is left to do may be nothing, and a close waits for that.
            self.shared.waking.announce_change();
        }
        (p, true)
    }

    /// Writes what is queued. Returns the lock and what that settles, or nothing when it failed and
    /// all was answered.
    fn write_stage(self, mut guard: MutexGuard<'a, Pipeline>) -> Option<(MutexGuard<'a, Pipeline>, Settled)> {
        let p = &mut *guard;
        p.watched = false;
        if let Some(end) = p.push_copies(false) {
            self.shared.progress.set_accepted(end);
        }
        let mut group = p.write.begin(&mut p.queue, &mut p.turns, p.sync.is_busy());
        drop(guard);
        let outcome = group.write(self.shared.progress.watermark(), &self.shared.counters);
        let mut guard = self.shared.lock();
        let p = &mut *guard;
        self.shared.factory.watch.ended(group.began);
        // If a sync failed meanwhile, what was written is not acknowledged any more, not even as written.
        if outcome.is_err() || self.shared.gate.is_shut() {
            p.write.fail(group, &mut p.queue);
            match outcome {
                Err(cause) => self.shared.poison(guard, cause),
                Ok(()) => self.shared.fail_all(guard),
            }
            return None;
        }
        let (turns, sync, room) = (&mut p.turns, &mut p.sync, &mut p.room);
        let settled = p.write.end(group, turns, sync, room, &self.shared.progress, &self.shared.completions);
        Some((guard, settled))
    }

    /// Syncs what is written. Returns the lock and what that settles, or nothing when it failed and
    /// all was answered.
    fn sync_stage(self, mut guard: MutexGuard<'a, Pipeline>) -> Option<(MutexGuard<'a, Pipeline>, Settled)> {
        let p = &mut *guard;
        p.watched = false;
        let mut job = p.sync.begin(&mut p.turns);
        // What is queued and may not wait is written beside the sync.
        self.shared.waking.hand_off(guard);
        let outcome = job.sync(&self.shared.counters);
        if outcome.is_ok() {
            self.note_entry(job.target);
        }
        let (began, batches) = (job.began, job.batches);
        let mut p = self.shared.lock();
        self.shared.factory.watch.ended(began);
        if let Err(cause) = outcome {
            p.sync.fail(job);
            self.shared.poison(p, cause);
            return None;
        }
        if self.shared.gate.is_shut() && !planted(Bug::AckAfterError) {
            p.sync.fail(job);
            // It may be durable, but nothing is acknowledged after the first error.
            self.shared.fail_all(p);
            return None;
        }
        let mut settled = Settled::default();
        if let Some(reached) = p.sync.end(job) {
            self.shared.progress.set_durable(reached.durable);
            p.sync.settle(reached.durable, &mut settled, &self.shared.completions);
            settled.synced = Some(p.turns.settle(Durability::Synced, reached.turn));
            p.gathering.synced(batches, clock::since(began));
        }
        Some((p, settled))
    }

    /// Before anything in a new segment is acknowledged, a mark in another file says that the log leads
    /// there: all else that proves its records stands in itself, and would be lost with its file.
    fn note_entry(self, durable: Lsn) {
        if !planted(Bug::EntryNotMarked) && self.shared.progress.enters(durable) {
            self.shared.hooks.segment_entered(durable);
        }
    }
}
