//! A listener that remembers.

use raftwood::{Event, EventListener};
use std::sync::{Arc, Condvar, Mutex};

/// Remembers of each event what it picks out of it.
pub(crate) struct Heard<T> {
    pick: fn(&Event<'_>) -> Option<T>,
    heard: Mutex<Vec<T>>,
    more: Condvar,
}

impl<T: Clone> Heard<T> {
    pub(crate) fn new(pick: fn(&Event<'_>) -> Option<T>) -> Arc<Heard<T>> {
        Arc::new(Heard { pick, heard: Mutex::default(), more: Condvar::new() })
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.heard.lock().unwrap().clone()
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    pub(crate) fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Waits for one that comes from now on.
    pub(crate) fn next(&self) -> T {
        let mut heard = self.heard.lock().unwrap();
        let before = heard.len();
        while heard.len() == before {
            heard = self.more.wait(heard).unwrap();
        }
        heard[before].clone()
    }
}

impl<T: Send> EventListener for Heard<T> {
    fn on_event(&self, event: &Event<'_>) {
        if let Some(heard) = (self.pick)(event) {
            self.heard.lock().unwrap().push(heard);
            self.more.notify_all();
        }
    }
}
