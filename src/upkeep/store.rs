//! What upkeep works on: an open engine without its threads.

use super::done::Done;
use super::pauses::Pauses;
use super::turn::UpkeepTurns;
use crate::checkpoint::{Checkpoints, Run};
use crate::commit::{Committer, Hooks, Level};
use crate::disk_watch::{Pressure, Stall};
use crate::error::{Error, Result};
use crate::index::Table;
use crate::listener::{Event, Listeners};
use crate::news::News;
use crate::options::{Options, Tuned};
use crate::read::Reads;
use crate::segment::factory::SegmentFactory;
use crate::segment::mark_file::{MarkFile, Rest};
use crate::segment::{Segment, SegmentSet};
use crate::sync::{Arc, Mutex, Signal};
use crate::types::Lsn;
use crate::vfs::Dir;
use std::fmt;

/// So many regions to compact are named where the disk budget becomes low.
const HINTED_MAX: usize = 16;

/// An open engine without its threads.
pub(crate) struct Store {
    pub(crate) options: Options,
    /// Of these, what may change while the engine runs.
    pub(crate) tuned: Tuned,
    pub(crate) dir: Dir,
    pub(crate) run: Run,
    pub(crate) table: Arc<Table>,
    pub(crate) segments: Arc<SegmentSet>,
    pub(crate) factory: Arc<SegmentFactory>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) mark: Arc<MarkFile>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) notified: Notified,
    pub(crate) turns: UpkeepTurns,
    pub(crate) pauses: Pauses,
    pub(crate) reads: Reads,
    pub(crate) news: Arc<News>,
    pub(crate) done: Done,
}

/// What listeners were notified of last, of what comes and goes.
#[derive(Debug, Default)]
pub(crate) struct Notified {
    pub(crate) stall: Mutex<Stall>,
    pub(crate) pressure: Mutex<Pressure>,
    pub(crate) budget: Mutex<Level>,
}

/// What wakes the threads of the engine: one each.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) upkeep: Signal,
    pub(crate) pool: Signal,
    pub(crate) clean: Signal,
    pub(crate) scrub: Signal,
    pub(crate) watcher: Signal,
    pub(crate) names: Signal,
}

/// What the pipeline reaches of the rest.
pub(crate) struct PipelineHooks {
    pub(crate) segments: Arc<SegmentSet>,
    pub(crate) mark: Arc<MarkFile>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) signals: Arc<Signals>,
}

impl Hooks for PipelineHooks {
    fn segment_full(&self, segment: Arc<Segment>, end: u32) {
        segment.set_sealed_end(end);
        self.segments.add(segment.clone());
        self.listeners.rotated(segment.id, end);
        self.segments.await_seal(segment, end);
        self.signals.upkeep.raise();
    }

    fn segment_entered(&self, durable: Lsn) {
        if self.mark.enter(durable).is_err() {
            // A listener may write, and what is written waits for this thread.
            self.signals.upkeep.raise();
        }
    }

    fn awaits_footer(&self) -> bool {
        self.segments.is_crowded()
    }

    fn upkeep_wanted(&self) {
        self.signals.upkeep.raise();
    }

    fn full_bytes(&self) -> u64 {
        self.segments.all().iter().map(|s| s.bytes_on_disk()).sum()
    }

    fn segment_wanted(&self) {
        self.signals.pool.raise();
    }

    fn poisoned(&self, cause: &Error) {
        self.listeners.deliver(&Event::Poisoned { error: cause });
    }

    fn space(&self, exhausted: Option<&Error>) {
        self.listeners.deliver(&match exhausted {
            Some(error) => Event::SpaceExhausted { error },
            None => Event::SpaceRegained,
        });
    }

    fn callback_panicked(&self, lsn: Lsn, message: &str) {
        self.listeners.deliver(&Event::CallbackPanicked { lsn, message });
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Store {
    /// Notes in the mark file up to where the log is durable, if nothing is on its way: what says that the
    /// last record was acknowledged must not lie beside it.
    ///
    /// # Errors
    /// Of the operating system, also those of marks that were noted meanwhile.
    pub(crate) fn note_mark(&self) -> Result<()> {
        self.mark.take_failure().map_or(Ok(()), Err)?;
        let lacks = |rest: &Rest| self.mark.lacks(rest);
        if self.committer.at_rest().filter(lacks).is_none() {
            return Ok(());
        }
        self.committer.copy_for_rest()?;
        self.committer.at_rest().filter(lacks).map_or(Ok(()), |rest| self.mark.note(rest))
    }

    /// As [`note_mark`](Store::note_mark), once the log has been at rest since the last call: a writer that
    /// is merely slow does not pay for a mark after each of its batches.
    pub(crate) fn note_mark_when_idle(&self) -> Result<()> {
        self.mark.take_failure().map_or(Ok(()), Err)?;
        let Some(Rest { durable, .. }) = self.committer.at_rest() else { return Ok(()) };
        if self.mark.is_still_at(durable) { self.note_mark() } else { Ok(()) }
    }

    /// Looks at how much of the disk budget is left, if there is one, and notifies the listeners where that
    /// has changed.
    pub(crate) fn judge_budget(&self) {
        let budget = self.committer.budget();
        if !budget.is_on() {
            return;
        }
        let checkpoints: u64 = self.checkpoints.kept().list.iter().map(|k| k.bytes).sum();
        budget.set_others(checkpoints + self.mark.bytes());
        let segments = self.all_segments().iter().map(|s| s.bytes_on_disk()).sum();
        let level = budget.judge(segments, self.committer.usual_len());
        self.factory.free.set_budget(budget.left());
        let before = std::mem::replace(&mut *self.notified.budget.lock(), level);
        if before == level {
            return;
        }
        let (used_bytes, budget_bytes) = (budget.used(), budget.bytes());
        let pins = if level == Level::Roomy { Vec::new() } else { self.pins(HINTED_MAX) };
        let pins = &pins[..];
        self.listeners.deliver(&match level {
            Level::Roomy => Event::BudgetRegained { used_bytes, budget_bytes },
            Level::Low => Event::BudgetLow { used_bytes, budget_bytes, pins },
            Level::Spent => Event::BudgetSpent { used_bytes, budget_bytes, pins },
        });
    }

    /// Fails in a fork of the process that opened the engine. Asked first in every call: locks may have been
    /// held by threads that the fork did not take along.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.dir.is_here() { Ok(()) } else { Err(Error::forked()) }
    }

    /// Bytes on the heap for the index: those of the table, taken so, and of what waits for a footer.
    pub(crate) fn index_bytes(&self, of_table: impl Fn(&Table) -> usize) -> u64 {
        let notes: usize = self.all_segments().iter().map(|s| s.notes.heap_bytes()).sum();
        (of_table(&self.table) + notes) as u64
    }

    /// Every segment but the prepared ones.
    pub(crate) fn all_segments(&self) -> Vec<Arc<Segment>> {
        // First: one that is full meanwhile is among the others.
        let active = self.committer.active().map(|(active, _)| active);
        let mut segments = self.segments.all();
        segments.extend(active.filter(|active| !segments.iter().any(|s| s.id == active.id)));
        segments
    }
}
