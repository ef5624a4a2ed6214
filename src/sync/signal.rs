//! How one thread is told that there is something to do.

use super::atomic::{AtomicBool, Ordering};
use super::{Condvar, Mutex};
use std::time::Duration;

/// Wakes one thread that works when there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Signal {
    /// There is something to do.
    pub(crate) fn raise(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.changed.notify_one();
        }
    }

    /// The thread should end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.raise();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps until raised, or for `at_most`. False when the thread should end.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        // A thread that waited here before may have taken the signal that came with the stop.
        if self.stopped() {
            return false;
        }
        let mut raised = self.raised.lock();
        if !*raised {
            raised = self.changed.wait_timeout(raised, at_most).0;
        }
        *raised = false;
        !self.stopped()
    }
}
