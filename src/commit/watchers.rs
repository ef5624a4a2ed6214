//! Those who watch the log from inside the process: how far it is durable, and what it takes back.
//!
//! - Where nobody watches, a write pays one look at a number.
//! - A watcher that is slow has a full queue, and is missing changes from there on; it is shown how many. No
//!   thread that writes waits for it: a queue's lock is held for as long as it takes to add one change, or to
//!   take them all.
//! - Changes are queued under the pipeline's lock, once they can be seen in the region table: in the order of
//!   positions, and before the log is durable up to theirs. How far that is stands in no queue: it is one
//!   number, looked at before the queue.

use crate::format::batch::{Batch, Op};
use crate::index::Planned;
use crate::limits::WATCHED_CHANGES_MAX;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex};
use crate::types::{EntryId, Lsn, RegionId};
use std::collections::VecDeque;
use std::time::Duration;

/// What a [`Watch`](crate::Watch) shows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Everything before this position is on the device. All changes that lie before it have been shown, or
    /// [were missed](Change::Missed). Positions that were passed meanwhile are left out.
    Durable {
        /// What [`Engine::durable_lsn`](crate::Engine::durable_lsn) was.
        lsn: Lsn,
    },
    /// Entries of a region were discarded, by an append over them or a truncation.
    Truncated {
        /// The region.
        region: RegionId,
        /// The first index that was discarded. There may be another entry at it by now.
        first: u64,
        /// The last index that was discarded.
        last: u64,
        /// One past the batch that did it: not durable before the log is, up to here.
        lsn: Lsn,
    },
    /// A region's log was emptied, to begin after a snapshot, or was forgotten to begin anew.
    Reset {
        /// The region.
        region: RegionId,
        /// What the log begins after; `None` where it was [forgotten](crate::RegionBatch::forget_log).
        base: Option<EntryId>,
        /// One past the batch that did it.
        lsn: Lsn,
    },
    /// A region that existed was destroyed. It may exist again by now.
    Destroyed {
        /// The region.
        region: RegionId,
        /// One past the batch that did it.
        lsn: Lsn,
    },
    /// The watcher was too slow, and lost its place: changes are missing here. What it derived from the
    /// regions has to be derived again, from what they are now.
    Missed {
        /// How many.
        changes: u64,
        /// The position of the first.
        first: Lsn,
        /// And of the last: what comes next lies there or beyond.
        last: Lsn,
    },
}

impl Change {
    /// Where it belongs: that of the batch, of the first that was missed, or up to where the log is durable.
    pub fn lsn(&self) -> Lsn {
        match self {
            Change::Durable { lsn }
            | Change::Truncated { lsn, .. }
            | Change::Reset { lsn, .. }
            | Change::Destroyed { lsn, .. }
            | Change::Missed { first: lsn, .. } => *lsn,
        }
    }
}

/// One that watches, as the threads that write know it.
#[derive(Default)]
pub(super) struct Watcher {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    /// Set from the first change that found the queue full until the watcher has taken it:
    /// [`Change::Missed`].
    missed: Option<(u64, Lsn, Lsn)>,
    sleeps: bool,
}

impl Queue {
    fn push(&mut self, change: Change) {
        let lsn = change.lsn();
        match &mut self.missed {
            Some((changes, _, last)) => (*changes, *last) = (*changes + 1, lsn),
            None if self.changes.len() < WATCHED_CHANGES_MAX => self.changes.push_back(change),
            None if planted(Bug::MissedUnsaid) => {}
            None => self.missed = Some((1, lsn, lsn)),
        }
    }
}

impl Watcher {
    /// Exchanges the queue for an empty one.
    pub(super) fn take(&self, empty: &mut VecDeque<Change>) {
        let mut queue = self.queue.lock();
        std::mem::swap(empty, &mut queue.changes);
        let missed = queue.missed.take();
        drop(queue);
        let missed = missed.map(|(changes, first, last)| Change::Missed { changes, first, last });
        empty.extend(missed);
    }

    /// Sleeps for so long at most, unless there is a change, or `has_news` says that there is something else.
    /// Also returns for nothing.
    pub(super) fn sleep(&self, at_most: Option<Duration>, has_news: impl FnOnce() -> bool) {
        let mut queue = self.queue.lock();
        if !queue.changes.is_empty() || has_news() {
            return;
        }
        queue.sleeps = true;
        let mut queue = match at_most {
            Some(at_most) => self.news.wait_timeout(queue, at_most).0,
            None => self.news.wait(queue),
        };
        queue.sleeps = false;
    }

    /// Wakes the watcher if it sleeps. What it is woken for was done before.
    fn wake(&self) {
        if std::mem::take(&mut self.queue.lock().sleeps) {
            self.news.notify_one();
        }
    }
}

/// All watchers of an engine.
#[derive(Default)]
pub(super) struct Watchers {
    all: Mutex<Vec<Arc<Watcher>>>,
    count: AtomicUsize,
    /// Nobody writes any more.
    ended: AtomicBool,
}

impl Watchers {
    /// Whether somebody watches. A watcher that comes under the pipeline's lock is seen by every thread that
    /// has had that since.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// A batch has changed the table. The caller holds the pipeline's lock.
    pub(super) fn publish(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        for watcher in &*self.all.lock() {
            let mut queue = watcher.queue.lock();
            changes.iter().for_each(|change| queue.push(change.clone()));
            drop(queue);
            watcher.wake();
        }
    }

    /// The log has become durable further, or never will.
    pub(super) fn wake(&self) {
        if self.any() {
            self.all.lock().iter().for_each(|watcher| watcher.wake());
        }
    }

    /// Nobody writes any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether nobody writes any more.
    pub(super) fn have_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn add(&self) -> Arc<Watcher> {
        let watcher = Arc::<Watcher>::default();
        self.all.lock().push(watcher.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        watcher
    }

    pub(super) fn remove(&self, watcher: &Arc<Watcher>) {
        self.all.lock().retain(|other| !Arc::ptr_eq(other, watcher));
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the batch that ends at `lsn` takes back, as it was planned. What it both makes and takes back nobody
/// has seen.
pub(super) fn changes(planned: &Planned, batch: &Batch, lsn: Lsn) -> Vec<Change> {
    let discards = planned.discards.iter();
    let truncated =
        discards.map(|d| Change::Truncated { region: d.region, first: d.first, last: d.last, lsn });
    // After a region's log is reset, or the region destroyed, the batch discards no more of what was there.
    let ended = batch.steps().filter_map(|step| match step.op {
        Op::Reset(base) => Some(Change::Reset { region: step.region, base: Some(*base), lsn }),
        Op::ForgetLog => Some(Change::Reset { region: step.region, base: None, lsn }),
        Op::Destroy if planned.existed(step.region) => Some(Change::Destroyed { region: step.region, lsn }),
        _ => None,
    });
    truncated.chain(ended).collect()
}
