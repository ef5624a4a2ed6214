//! The end of a stage: who goes on, who is woken, who is called back; and the end of all writing.

use super::committer::Committer;
use super::pending::{Pending, Waiting};
use super::pipeline::{Pipeline, Settled};
use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard};
use crate::types::{Durability, Lsn};
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Committer {
    /// The outcome of so many bytes of batches, or of the one with a ticket, is known.
    pub(super) fn settle(&self, p: &mut Pipeline, bytes: usize, ticket: Option<Arc<Pending>>) {
        p.in_flight_bytes -= bytes;
        if let Some(pending) = ticket {
            self.completions.add(pending);
        }
    }

    /// A stage has ended: wakes the thread that goes on with the work, so that the disk does not idle, then
    /// those whose batches it settled, and calls back, all without the lock. A thread that does not leave
    /// goes on by itself, unless it calls back first. Returns whether the work was passed on.
    pub(super) fn end_stage(&self, mut p: MutexGuard<'_, Pipeline>, settled: Settled, leaves: bool) -> bool {
        let passed_on = leaves || settled.tickets;
        let next = if passed_on { self.next_worker(&mut p) } else { None };
        let room = p.in_room > 0;
        // The thread that drives what nobody waits for ends once everything has completed, no
        // matter which thread did it.
        let ends = p.closed && std::mem::take(&mut p.driver_sleeps);
        drop(p);
        self.notify(next);
        let mut wakes = u64::from(room);
        for (turns, durability) in
            [(&settled.synced, Durability::Synced), (&settled.written, Durability::Written)]
        {
            wakes += turns.clone().map_or(0, |turns| self.sleepers.wake(turns, durability));
        }
        if room {
            self.room.notify_all();
        }
        self.counters.wakes.fetch_add(wakes, Ordering::Relaxed);
        if settled.synced.is_some() {
            self.watchers.wake();
        }
        if ends {
            self.work.notify_all();
        }
        self.completions
            .deliver(|batch| self.answer(batch), |lsn, message| self.hooks.callback_panicked(lsn, message));
        passed_on
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

    /// Everything that was not acknowledged fails with the first cause.
    pub(super) fn fail_all(&self, mut p: MutexGuard<'_, Pipeline>) {
        while let Some(batch) = p.awaiting.pop_front() {
            self.settle(&mut p, batch.bytes, batch.ticket);
        }
        while let Some(record) = p.queue.pop_front() {
            self.settle(&mut p, record.len(), record.ticket);
        }
        p.queued_bytes = 0;
        let turn = p.turn;
        p.turn += 1;
        let mut settled = Settled {
            written: Some(p.settled_written + 1..=turn),
            synced: Some(p.settled_synced + 1..=turn),
            ..Settled::default()
        };
        (p.settled_written, p.settled_synced) = (turn, turn);
        if planted(Bug::WaitersNotWoken) {
            settled = Settled::default();
        }
        self.end_stage(p, settled, true);
    }
}
