//! Those who watch the log from inside the process: how far it is durable, and what it takes back.
//!
//! - Where nobody watches, a write pays one look at a number.
//! - A watcher that is slow has a full queue, and is missing changes from there on; it is shown how many. No
//!   thread that writes waits for it: a queue's lock is held for as long as it takes to add one change, or to
//!   take them all.
//! - Changes are queued under the pipeline's lock, once they can be seen in the region table: in the order of
//!   positions, and before the log is durable up to theirs. How far that is stands in no queue: it is one
//!   number, looked at before the queue.

use super::committer::Committer;
use crate::clock;
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Op};
use crate::index::Planned;
use crate::limits::WATCHED_CHANGES_MAX;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex};
use crate::types::{EntryId, Lsn, RegionId};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// What a [`Watch`] shows.
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

/// Shows how the log of an open engine goes on: see [`Engine::watch`](crate::Engine::watch).
///
/// As an iterator it waits for the next change, and ends when the engine is closed, or an I/O error has
/// stopped all writing. It does not keep the engine open.
pub struct Watch {
    committer: Arc<Committer>,
    shared: Arc<Shared>,
    /// Taken from the queue and not yet shown.
    taken: VecDeque<Change>,
    shown: Lsn,
}

/// What a watcher shares with the threads that write.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    /// Set from the first change that found the queue full until the watcher has taken it: [`Change::Missed`].
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

impl Shared {
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
    all: Mutex<Vec<Arc<Shared>>>,
    count: AtomicUsize,
    /// Nobody writes any more.
    ended: AtomicBool,
}

impl Watchers {
    /// Whether somebody watches. A watcher that comes under the pipeline's lock is seen by whoever has had
    /// that since.
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

    fn add(&self) -> Arc<Shared> {
        let shared = Arc::<Shared>::default();
        self.all.lock().push(shared.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        shared
    }

    fn remove(&self, shared: &Arc<Shared>) {
        self.all.lock().retain(|other| !Arc::ptr_eq(other, shared));
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

impl Watch {
    /// Watches what is accepted from now on.
    pub(crate) fn new(committer: &Arc<Committer>) -> Result<Watch> {
        let (shared, shown) = {
            let p = committer.lock();
            p.check_open()?;
            (committer.watchers.add(), committer.durable())
        };
        Ok(Watch { committer: committer.clone(), shared, taken: VecDeque::new(), shown })
    }

    /// Up to where the log was durable at the last [`Change::Durable`], or when the watch began.
    pub fn durable(&self) -> Lsn {
        self.shown
    }

    /// The next change; `None` if there was none for so long.
    ///
    /// # Errors
    /// Once everything was shown: `Closed` when the engine is closed, `Poisoned` with the first cause when an
    /// I/O error has stopped all writing.
    pub fn next_within(&mut self, at_most: Duration) -> Result<Option<Change>> {
        self.wait(clock::now().checked_add(at_most))
    }

    /// The next change; `None` if there was none until then.
    fn wait(&mut self, until: Option<Instant>) -> Result<Option<Change>> {
        self.committer.check_process()?;
        loop {
            // Looked at first: what comes before the end is shown before it.
            let ended = self.end();
            if let Some(change) = self.take() {
                return Ok(Some(change));
            }
            if let Some(end) = ended {
                return Err(end);
            }
            let left = until.map(|until| until.saturating_duration_since(clock::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.sleep(left);
        }
    }

    /// The next change, if there is one.
    fn take(&mut self) -> Option<Change> {
        // Before the queue, in which all changes stand that are durable by now.
        let durable = self.committer.durable();
        if self.taken.is_empty() {
            let mut queue = self.shared.queue.lock();
            std::mem::swap(&mut self.taken, &mut queue.changes);
            let missed = queue.missed.take();
            drop(queue);
            let missed = missed.map(|(changes, first, last)| Change::Missed { changes, first, last });
            self.taken.extend(missed);
        }
        let is_next = self.taken.front().is_some_and(|change| change.lsn() <= durable);
        if durable > self.shown && (!is_next || planted(Bug::DurableBeforeItsChanges)) {
            self.shown = durable;
            return Some(Change::Durable { lsn: durable });
        }
        self.taken.pop_front()
    }

    /// Sleeps for so long at most, unless there is something to show. Also returns for nothing.
    fn sleep(&self, at_most: Option<Duration>) {
        let mut queue = self.shared.queue.lock();
        let is_idle = queue.changes.is_empty() && self.committer.durable() == self.shown;
        if !is_idle || self.end().is_some() {
            return;
        }
        queue.sleeps = true;
        let mut queue = match at_most {
            Some(at_most) => self.shared.news.wait_timeout(queue, at_most).0,
            None => self.shared.news.wait(queue),
        };
        queue.sleeps = false;
    }

    /// Why nothing comes any more.
    fn end(&self) -> Option<Error> {
        let poisoned = self.committer.gate.check().err();
        let ended = self.committer.watchers.ended.load(Ordering::Acquire);
        poisoned.or_else(|| ended.then(Error::closed))
    }
}

impl Iterator for Watch {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        self.wait(None).ok().flatten()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // In a fork the lock may be held by nobody.
        if self.committer.check_process().is_ok() {
            self.committer.watchers.remove(&self.shared);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.shown)
    }
}
