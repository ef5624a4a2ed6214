//! Sleeps of background work, and what ends them.

use crate::clock;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Where work that keeps to a rate sleeps, and what ends the sleep: the end of the engine, or
/// somebody who waits for the work.
#[derive(Debug)]
pub(crate) struct Pauses {
    started: Instant,
    stopped: AtomicBool,
    /// How many threads wait for the work.
    waiting: Mutex<usize>,
    changed: Condvar,
}

impl Default for Pauses {
    fn default() -> Pauses {
        let waiting = Mutex::default();
        Pauses { started: clock::now(), stopped: AtomicBool::new(false), waiting, changed: Condvar::new() }
    }
}

/// Somebody waits for work that keeps to a rate.
pub(crate) struct Hurry<'a>(&'a Pauses);

impl Pauses {
    /// All sleeps end, for good.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // Under the lock: no sleeper is between its look and its sleep.
        let _waiting = self.waiting.lock();
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Sleeps that may be hurried end until the guard is dropped.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        *self.waiting.lock() += 1;
        self.changed.notify_all();
        Hurry(self)
    }

    pub(crate) fn now(&self) -> Duration {
        clock::since(self.started)
    }

    pub(crate) fn sleep(&self, time: Duration, may_be_hurried: bool) {
        let until = self.now().saturating_add(time);
        let mut waiting = self.waiting.lock();
        loop {
            let left = until.saturating_sub(self.now()).min(Duration::from_secs(3600));
            if left.is_zero() || self.is_stopped() || may_be_hurried && *waiting > 0 {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).0;
        }
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        *self.0.waiting.lock() -= 1;
    }
}
