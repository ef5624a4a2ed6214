//! Who may change where things are.

use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex};

/// The two rights that there are. Who needs both takes `copying` first.
#[derive(Debug, Default)]
pub(crate) struct UpkeepTurns {
    /// Held by a thread that seals, checkpoints, installs or gives space back, for as long as that takes, and
    /// never while it sleeps or copies entries. Listeners are notified of what it does meanwhile.
    pub(crate) upkeep: Turn,
    /// Held by a thread that copies entries to a cold segment: a copy takes its time, and whatever needs
    /// `upkeep` alone does not wait for it.
    pub(crate) copying: Turn,
}

/// One thread at a time, and none any more once the engine is closed.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    state: Mutex<TurnState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TurnState {
    holder: Option<ThreadId>,
    /// The engine is being closed: nobody waits for a turn but for the last one.
    ending: bool,
    /// Nothing is changed any more: the engine has given up the directory, and another one may have it.
    closed: bool,
}

/// The right to change where things are.
pub(crate) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    /// Waits for its turn.
    ///
    /// # Errors
    /// `InvalidArgument` for a listener that calls back in: it would wait for itself. `Closed` once a
    /// close has begun: it may have been called by a listener of the thread that has the turn, and waits
    /// for those that wait for theirs.
    pub(crate) fn lock(&self) -> Result<TurnGuard<'_>> {
        self.take(planted(Bug::TurnAwaitedInClose))
    }

    /// The same for the thread that closes the engine, whose turn comes after all others have given up.
    pub(crate) fn lock_last(&self) -> Result<TurnGuard<'_>> {
        self.take(true)
    }

    fn take(&self, is_last: bool) -> Result<TurnGuard<'_>> {
        let me = thread::current().id();
        let mut state = self.state.lock();
        loop {
            if state.holder == Some(me) {
                return Err(Error::invalid(
                    "refused inside a listener that is being notified by upkeep: call it from another thread, or later",
                ));
            }
            if (state.closed || state.ending && !is_last) && !planted(Bug::ClosedEngineWorks) {
                return Err(Error::closed());
            }
            if state.holder.is_none() {
                state.holder = Some(me);
                return Ok(TurnGuard(self));
            }
            state = self.changed.wait(state);
        }
    }

    /// Those that wait for their turn give up.
    pub(crate) fn end(&self) {
        self.state.lock().ending = true;
        self.changed.notify_all();
    }

    /// Nobody's turn comes any more; the one whose turn it is has ended when this returns,
    /// unless that is the calling thread.
    pub(crate) fn close(&self) {
        let last = self.lock_last();
        self.state.lock().closed = true;
        drop(last);
    }

    /// Whether the calling thread has the turn: it is in a listener that is notified of upkeep.
    pub(crate) fn is_mine(&self) -> bool {
        self.state.lock().holder == Some(thread::current().id())
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.state.lock().holder = None;
        self.0.changed.notify_all();
    }
}
