//! Operations on the disk that are under way, and since when: how a disk that hangs is noticed by
//! a thread that does not.
//!
//! What upkeep and the preparation of segments do registers itself here. The writers' own writes and syncs do
//! not: the pipeline knows of those anyway, and is asked.

use crate::clock;
use crate::planted::{Bug, planted};
use crate::sync::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The register, and the count of what took long.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    state: Mutex<State>,
    /// In microseconds.
    stall_after: AtomicU64,
    stalls_ended: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they began.
    under_way: Vec<UnderWay>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    number: u64,
    what: &'static str,
    since: Instant,
}

impl DiskWatch {
    /// What takes so long is a stall.
    pub(crate) fn new(stall_after: Duration) -> DiskWatch {
        let watch = DiskWatch {
            state: Mutex::default(),
            stall_after: AtomicU64::new(0),
            stalls_ended: AtomicU64::new(0),
        };
        watch.set_stall_after(stall_after);
        watch
    }

    pub(crate) fn stall_after(&self) -> Duration {
        Duration::from_micros(self.stall_after.load(Ordering::Relaxed))
    }

    /// From now on, what takes so long is a stall.
    pub(crate) fn set_stall_after(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.stall_after.store(micros, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Does `io`, which mostly waits for the disk, and whose name is `what`.
    pub(crate) fn during<T>(&self, what: &'static str, io: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let since = clock::now();
        state.under_way.push(UnderWay { number, what, since });
        drop(state);
        // Also when it panics.
        let _ends = Ends { watch: self, number, since };
        io()
    }

    /// An operation that began then has ended: one of the register, or of the pipeline.
    pub(crate) fn ended(&self, since: Instant) {
        if clock::since(since) >= self.stall_after() && !planted(Bug::StallEndNotCounted) {
            self.stalls_ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many operations have taken long, and how many of them have ended. `others` are under way beside
    /// those of the register, since then; what counts their ends does so under a lock that the caller holds.
    pub(crate) fn stalls(&self, others: impl Iterator<Item = Instant>) -> (u64, u64) {
        let state = self.state();
        let began = state.under_way.iter().map(|u| u.since).chain(others);
        let after = self.stall_after();
        let stalled = began.filter(|since| clock::since(*since) >= after).count() as u64;
        let ended = self.stalls_ended.load(Ordering::Relaxed);
        (ended + stalled, ended)
    }

    /// What has been under way for longest, and since when.
    pub(crate) fn oldest(&self) -> Option<(&'static str, Instant)> {
        self.state().under_way.first().map(|u| (u.what, u.since))
    }
}

struct Ends<'a> {
    watch: &'a DiskWatch,
    number: u64,
    since: Instant,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.under_way.retain(|u| u.number != self.number);
        self.watch.ended(self.since);
    }
}

/// What a stall is known by: what hangs, since when, and whether that was reported.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    reported: Option<(&'static str, Instant)>,
}

/// What is to be reported of a stall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StallNews {
    /// This has been under way for so long. Said again each time that it is looked at and still is.
    Stalled(&'static str, Duration),
    /// This is over, and took so long.
    Over(&'static str, Duration),
}

impl Stall {
    /// Looks at what has been under way for longest.
    pub(crate) fn look(
        &mut self,
        oldest: Option<(&'static str, Instant)>,
        stall_after: Duration,
        now: Instant,
    ) -> [Option<StallNews>; 2] {
        let over = self.reported.filter(|reported| oldest != Some(*reported));
        let over = over.map(|(what, since)| StallNews::Over(what, now.duration_since(since)));
        self.reported = oldest.filter(|(_, since)| now.duration_since(*since) >= stall_after);
        [over, self.reported.map(|(what, since)| StallNews::Stalled(what, now.duration_since(since)))]
    }
}

/// Whether writers wait for one another for longer than a moment: what is seen at one look may be over at
/// once.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    last: bool,
    reported: bool,
}

impl Pressure {
    /// Somebody waits, or nobody does. Whether that is news: it was so at two looks in a row, and was
    /// reported to be otherwise.
    pub(crate) fn look(&mut self, waits: bool) -> Option<bool> {
        let lasts = std::mem::replace(&mut self.last, waits) == waits;
        let turned = lasts && waits != self.reported;
        self.reported ^= turned;
        turned.then_some(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_operation_is_known_until_it_ends_also_by_a_panic() {
        let watch = DiskWatch::new(Duration::MAX);
        let oldest = || watch.oldest().map(|(what, _)| what);
        watch.during("one", || {
            watch.during("two", || assert_eq!(oldest(), Some("one")));
            assert_eq!(oldest(), Some("one"));
        });
        let panics = std::panic::AssertUnwindSafe(|| watch.during("three", || panic!("on purpose")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(oldest(), None);
    }

    #[test]
    fn pressure_is_news_when_it_lasts_and_when_it_is_over() {
        let mut pressure = Pressure::default();
        let looks = [0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0].map(|waits| pressure.look(waits == 1));
        let news: Vec<_> = looks.iter().enumerate().filter_map(|(n, turned)| Some((n, (*turned)?))).collect();
        assert_eq!(news, [(4, true), (9, false)]);
    }

    #[test]
    fn a_stall_is_told_while_it_lasts_and_its_end_once() {
        let (mut stall, start, ms) = (Stall::default(), clock::now(), Duration::from_millis);
        let (one, two) = (Some(("one", start)), Some(("two", start + ms(400))));
        let mut look = |oldest, at| stall.look(oldest, ms(500), start + ms(at));
        assert_eq!(look(one, 499), [None, None]);
        assert_eq!(look(one, 500), [None, Some(StallNews::Stalled("one", ms(500)))]);
        assert_eq!(look(one, 600), [None, Some(StallNews::Stalled("one", ms(600)))]);
        assert_eq!(look(two, 700), [Some(StallNews::Over("one", ms(700))), None]);
        assert_eq!(look(two, 900), [None, Some(StallNews::Stalled("two", ms(500)))]);
        assert_eq!(look(None, 1000), [Some(StallNews::Over("two", ms(600))), None]);
        assert_eq!(look(None, 1100), [None, None]);
    }
}
