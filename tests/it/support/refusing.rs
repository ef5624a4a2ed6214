//! A listener that refuses rollbacks, so many times, and remembers which writes were asked for again.

use raftwood::{BoxError, Event, EventListener, RegionId, Rollback};
use std::sync::{Arc, Mutex};

/// What it was notified of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Tale {
    Retrying(RegionId),
    /// Whether the write was accepted.
    Ended(RegionId, bool),
}

pub(crate) struct Refusing {
    left: Mutex<u32>,
    asked: Mutex<u32>,
    tales: Mutex<Vec<Tale>>,
}

impl Refusing {
    /// Refuses so often, and agrees from then on.
    pub(crate) fn new(refusals: u32) -> Arc<Refusing> {
        Arc::new(Refusing { left: Mutex::new(refusals), asked: Mutex::default(), tales: Mutex::default() })
    }

    pub(crate) fn refuse(&self, refusals: u32) {
        *self.left.lock().unwrap() = refusals;
    }

    /// How often it was asked since the last time.
    pub(crate) fn asked(&self) -> u32 {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// How much came since [`take`](Refusing::take).
    pub(crate) fn count(&self) -> usize {
        self.tales.lock().unwrap().len()
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Vec<Tale> {
        std::mem::take(&mut *self.tales.lock().unwrap())
    }
}

impl EventListener for Refusing {
    fn on_event(&self, event: &Event<'_>) {
        let tale = match event {
            Event::Retrying { region, .. } => Tale::Retrying(*region),
            Event::RetryingEnded { region, accepted, .. } => Tale::Ended(*region, *accepted),
            _ => return,
        };
        self.tales.lock().unwrap().push(tale);
    }

    fn before_rollback(&self, _: &Rollback<'_>) -> Result<(), BoxError> {
        *self.asked.lock().unwrap() += 1;
        let mut left = self.left.lock().unwrap();
        *left = match *left {
            0 => return Ok(()),
            u32::MAX => u32::MAX,
            left => left - 1,
        };
        Err("not saved yet".into())
    }
}
