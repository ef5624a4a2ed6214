//! How many free files are worth keeping.

use crate::clock;
use std::time::{Duration, Instant};

/// So many are kept although nobody used as many lately.
const KEPT: usize = 3;

/// After so long without a new segment the store is idle.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// Segments become free many at a time, when a checkpoint lets go of them, and are used one after the other
/// until the next time. A pool that holds fewer than that gives files back to the file system, and makes
/// and fills new ones soon after.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Files used since segments became free last, and between the two times before.
    now: usize,
    before: usize,
    last: Option<Instant>,
}

impl Demand {
    /// A file is used.
    pub(super) fn used(&mut self) {
        self.now += 1;
        self.last = Some(clock::now());
    }

    /// Segments became free.
    pub(super) fn freed(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// How many files to keep.
    pub(super) fn files(&self, files_max: usize) -> usize {
        (self.now.max(self.before) + 1).max(KEPT).min(files_max)
    }

    /// No more are needed than an idle store keeps.
    pub(super) fn end(&mut self) {
        *self = Demand::default();
    }

    /// Whether it is idle, by `now`.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) > IDLE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_as_were_used_between_two_times_that_segments_became_free() {
        let mut demand = Demand::default();
        assert_eq!((demand.files(12), demand.files(2)), (3, 2));
        (0..7).for_each(|_| demand.used());
        assert_eq!(demand.files(12), 8);
        demand.freed();
        assert_eq!((demand.files(12), demand.files(5)), (8, 5));
        demand.used();
        demand.freed();
        assert_eq!(demand.files(12), 3);
    }

    #[test]
    fn a_store_that_was_used_is_idle_after_a_minute() {
        let mut demand = Demand::default();
        let later = |by| clock::now() + IDLE_AFTER + Duration::from_secs(by);
        assert!(!demand.is_idle(later(1)));
        (0..9).for_each(|_| demand.used());
        assert!(!demand.is_idle(clock::now()) && demand.is_idle(later(1)));
        demand.end();
        assert_eq!((demand.files(12), demand.is_idle(later(1))), (3, false));
    }
}
