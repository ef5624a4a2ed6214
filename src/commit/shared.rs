//! What all threads share that come to the pipeline, and how a stage and all writing end.
//!
//! Who goes on, who is woken and who is called back is decided where a stage ends; and so is the end of all
//! writing.

use super::completion::Completions;
use super::counters::Counters;
use super::gate::{Gate, Stopped};
use super::hooks::Hooks;
use super::pending::Waiting;
use super::pipeline::Pipeline;
use super::progress::Progress;
use super::settled::Settled;
use super::waking::Waking;
use super::watchers::Watchers;
use crate::error::Error;
use crate::planted::{Bug, planted};
use crate::segment::Unwritten;
use crate::segment::factory::SegmentFactory;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::{Durability, Lsn};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The pipeline, and what stands beside it outside of its lock.
pub(super) struct Shared {
    pipeline: Mutex<Pipeline>,
    pub(super) progress: Progress,
    pub(super) gate: Gate,
    pub(super) counters: Counters,
    pub(super) hooks: Arc<dyn Hooks>,
    /// Its watch is notified of what took long.
    pub(super) factory: Arc<SegmentFactory>,
    pub(super) completions: Completions,
    pub(super) waking: Waking,
    pub(super) watchers: Watchers,
    /// No threads of the engine: a [thread that waits](super::workers) does everything.
    pub(super) manual: bool,
}

impl Shared {
    pub(super) fn new(
        pipeline: Pipeline,
        progress: Progress,
        hooks: Arc<dyn Hooks>,
        factory: Arc<SegmentFactory>,
        manual: bool,
    ) -> Shared {
        Shared {
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
    pub(super) fn outcome(&self, batch: Waiting) -> Option<Result<Lsn, Stopped>> {
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

    // ---- the end of a stage -------------------------------------------------------------------------------

    /// A stage has ended: wakes the thread that goes on with the work, then those whose batches it settled,
    /// and calls back, all without the lock. A thread that does not leave goes on by itself, unless it calls
    /// back first. Returns whether the work was passed on.
    pub(super) fn end_stage(
        &self,
        mut p: MutexGuard<'_, Pipeline>,
        mut settled: Settled,
        leaves: bool,
    ) -> bool {
        p.room.give_back(std::mem::take(&mut settled.taken));
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
    fn answer(&self, batch: Waiting) -> Option<Result<Lsn, Error>> {
        let outcome = self.outcome(batch);
        if let Some(Ok(_)) = outcome
            && !planted(Bug::SubmittedNotTimed)
        {
            self.counters.commit_times.since(batch.began);
        }
        outcome.map(|outcome| outcome.map_err(Error::from))
    }

    // ---- the end of all writing ---------------------------------------------------------------------------

    /// Stops all writing. Threads that wait are answered before the listeners are notified: a listener may
    /// close the engine, which waits for those threads.
    pub(super) fn poison(&self, p: MutexGuard<'_, Pipeline>, cause: Unwritten) {
        let first = !planted(Bug::GateLeftOpen) && self.gate.trip(cause.clone());
        self.fail_all(p);
        if first {
            // A listener that panics must not take the thread along that works for others.
            let _ = catch_unwind(AssertUnwindSafe(|| self.hooks.poisoned(cause.error())));
        }
    }

    /// Nothing more is written, since the log [would go back](super::active::Segments::would_go_back).
    pub(super) fn refuse_to_go_back(&self, p: MutexGuard<'_, Pipeline>) -> Stopped {
        let cause = p.segments.would_go_back(self.progress.accepted());
        self.poison(p, Unwritten::Failed(cause.clone()));
        self.gate.check().err().unwrap_or_else(|| Stopped::by(&cause))
    }

    /// Everything that was not acknowledged fails with the first cause.
    pub(super) fn fail_all(&self, mut p: MutexGuard<'_, Pipeline>) {
        let mut settled = Settled::default();
        p.sync.settle(Lsn::from_u64(u64::MAX), &mut settled, &self.completions);
        while let Some(record) = p.queue.pop() {
            settled.add(record.taken, record.ticket, &self.completions);
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
