//! Keeps long work to a rate, and ends it when the engine closes.
//!
//! A token bucket, kept as the moment at which everything so far is paid for: work that was slow may catch up
//! with [`BURST`] or one piece at most, and work that was fast sleeps until that moment, however far off it
//! is. Nobody sleeps with a lock held that others need: a pace is spent where none is.

use super::Pauses;
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use std::time::Duration;

/// How much of the time in which nothing was done may be made up for.
const BURST: Duration = Duration::from_millis(50);

/// Shorter than this, sleeping costs more than it saves.
const SLEEP_MIN: Duration = Duration::from_millis(2);

/// Time as a pace needs it: a seam for tests.
pub(crate) trait Clock {
    /// Since any one moment.
    fn now(&self) -> Duration;
    /// Sleeps, or less if the work is waited for.
    fn sleep(&self, time: Duration);
    /// Whether the work should end.
    fn is_stopped(&self) -> bool;
}

/// Keeps to a rate.
pub(crate) struct Pace<'a> {
    clock: &'a dyn Clock,
    /// Bytes a second; 0 is no limit.
    rate: u64,
    /// When all bytes so far are paid for.
    paid: Duration,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(bytes_per_second: u64, clock: &'a dyn Clock) -> Pace<'a> {
        Pace { clock, rate: bytes_per_second, paid: clock.now() }
    }

    /// So many bytes were read or copied: sleeps as long as that was too fast.
    ///
    /// # Errors
    /// `Closed` when the engine is closed: the work is to be left as it is.
    pub(crate) fn spend(&mut self, bytes: u64) -> Result<()> {
        if self.rate > 0 {
            let now = self.clock.now();
            let costs = Duration::try_from_secs_f64(bytes as f64 / self.rate as f64).unwrap_or(Duration::MAX);
            self.paid = self.paid.max(now.saturating_sub(BURST.max(costs))).saturating_add(costs);
            let ahead = self.paid.saturating_sub(now);
            if ahead >= SLEEP_MIN {
                let most = if planted(Bug::RateNotKept) { Duration::from_secs(1) } else { Duration::MAX };
                self.clock.sleep(ahead.min(most));
                // A sleep that was cut short is no debt.
                self.paid = self.paid.min(self.clock.now());
            }
        }
        match self.clock.is_stopped() {
            true => Err(Error::new(ErrorKind::Closed, "the engine was closed before this was done")),
            false => Ok(()),
        }
    }
}

/// For work in the background, which goes on without a limit while somebody waits for its end.
pub(crate) struct Hurried<'a>(pub(crate) &'a Pauses);

impl Clock for Hurried<'_> {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time, true);
    }

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

impl Clock for Pauses {
    fn now(&self) -> Duration {
        Pauses::now(self)
    }

    fn sleep(&self, time: Duration) {
        Pauses::sleep(self, time, false);
    }

    fn is_stopped(&self) -> bool {
        Pauses::is_stopped(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A clock that only sleeping and working move.
    #[derive(Default)]
    struct Hand {
        now: Cell<Duration>,
        slept: RefCell<Vec<Duration>>,
        stopped: Cell<bool>,
    }

    impl Hand {
        fn work(&self, time: Duration) {
            self.now.set(self.now.get() + time);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Duration {
            self.now.get()
        }

        fn sleep(&self, time: Duration) {
            self.slept.borrow_mut().push(time);
            self.work(time);
        }

        fn is_stopped(&self) -> bool {
            self.stopped.get()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// A call once slept a second at most: large entries were read at any rate.
    #[test]
    fn a_rate_is_kept_whatever_the_size_of_a_piece() {
        for piece in [1, 1000, 10_000, 5_000_000] {
            let clock = Hand::default();
            let mut pace = Pace::new(1000, &clock);
            let mut bytes = 0;
            while bytes < 10_000_000 {
                pace.spend(piece).unwrap();
                bytes += piece;
            }
            let ideal = Duration::from_millis(bytes);
            let off = ideal.abs_diff(clock.now.get());
            assert!(off <= SLEEP_MIN, "pieces of {piece}: {off:?} off");
        }
    }

    #[test]
    fn time_without_work_is_made_up_for_by_a_short_burst_and_no_more() {
        let clock = Hand::default();
        let mut pace = Pace::new(1000, &clock);
        clock.work(3600 * SECOND);
        pace.spend(10_000).unwrap();
        pace.spend(10_000).unwrap();
        assert_eq!(*clock.slept.borrow(), [10 * SECOND]);
        clock.work(3600 * SECOND);
        (0..1000).for_each(|_| pace.spend(1).unwrap());
        assert_eq!(clock.slept.borrow().iter().skip(1).sum::<Duration>(), SECOND - BURST);
        let sleeps = clock.slept.borrow().len();
        // What is slower than the rate never sleeps.
        for _ in 0..100 {
            clock.work(2 * SECOND);
            pace.spend(1000).unwrap();
        }
        assert_eq!(clock.slept.borrow().len(), sleeps);
    }

    #[test]
    fn without_a_rate_nothing_sleeps_and_a_stop_is_seen_all_the_same() {
        let clock = Hand::default();
        let mut pace = Pace::new(0, &clock);
        pace.spend(u64::MAX).unwrap();
        clock.stopped.set(true);
        assert_eq!(pace.spend(1).unwrap_err().kind(), ErrorKind::Closed);
        assert!(clock.slept.borrow().is_empty());
        assert_eq!(Pace::new(1, &clock).spend(u64::MAX).unwrap_err().kind(), ErrorKind::Closed);
    }

    #[test]
    fn a_sleep_ends_when_the_engine_closes_and_a_hurried_one_when_somebody_waits() {
        let hour = 3600 * SECOND;
        let pauses = Pauses::default();
        std::thread::scope(|s| {
            let hurried = s.spawn(|| Pace::new(1, &Hurried(&pauses)).spend(3600).map_err(|e| e.kind()));
            let kept = s.spawn(|| Pace::new(1, &pauses).spend(3600).map_err(|e| e.kind()));
            let also = s.spawn(|| pauses.sleep(hour, false));
            let _hurry = pauses.hurry();
            assert_eq!(hurried.join().unwrap(), Ok(()));
            crate::clock::sleep(Duration::from_millis(20));
            assert!(!kept.is_finished() && !also.is_finished());
            pauses.stop();
            assert_eq!(kept.join().unwrap(), Err(ErrorKind::Closed));
            also.join().unwrap();
        });
        pauses.sleep(hour, false);
    }
}
