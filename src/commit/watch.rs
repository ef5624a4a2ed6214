//! The handle to watch the log with.

use super::committer::Committer;
use super::watchers::{Change, Watcher};
use crate::clock;
use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::sync::Arc;
use crate::types::Lsn;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Shows how the log of an open engine goes on: see [`Engine::watch`](crate::Engine::watch).
///
/// As an iterator it waits for the next change, and ends when the engine is closed, or an I/O error has
/// stopped all writing. It does not keep the engine open.
///
/// ```
/// use raftwood::{Change, Durability, Engine, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let watch = engine.watch()?;
/// let synced = engine.append_next(RegionId(7), ["a"], Durability::Synced);
/// engine.close()?;
/// // A thread of its own would stand here, and end with the engine.
/// let changes: Vec<Change> = watch.collect();
/// assert!(synced.is_ok() && matches!(changes[..], [Change::Durable { .. }, ..]));
/// # Ok(()) }
/// ```
pub struct Watch {
    committer: Arc<Committer>,
    watcher: Arc<Watcher>,
    /// Taken from the queue and not yet shown.
    taken: VecDeque<Change>,
    shown: Lsn,
}

impl Watch {
    /// Watches what is accepted from now on.
    pub(crate) fn new(committer: &Arc<Committer>) -> Result<Watch> {
        let (watcher, shown) = committer.add_watcher()?;
        Ok(Watch { committer: committer.clone(), watcher, taken: VecDeque::new(), shown })
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
    ///
    /// [`Engine::watch`](crate::Engine::watch) shows it.
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
            let has_news = || self.committer.durable() != self.shown || self.end().is_some();
            self.watcher.sleep(left, has_news);
        }
    }

    /// The next change, if there is one.
    fn take(&mut self) -> Option<Change> {
        // Before the queue, in which all changes stand that are durable by now.
        let durable = self.committer.durable();
        if self.taken.is_empty() {
            self.watcher.take(&mut self.taken);
        }
        let is_next = self.taken.front().is_some_and(|change| change.lsn() <= durable);
        if durable > self.shown && (!is_next || planted(Bug::DurableBeforeItsChanges)) {
            self.shown = durable;
            return Some(Change::Durable { lsn: durable });
        }
        self.taken.pop_front()
    }

    /// Why nothing comes any more.
    fn end(&self) -> Option<Error> {
        let poisoned = self.committer.gate().check().err().map(Error::from);
        let ended = self.committer.watchers().have_ended();
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
            self.committer.watchers().remove(&self.watcher);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.shown)
    }
}
