//! Whether a thread that is about to write lets others run first, so that their batches share its write and
//! its sync.
//!
//! The threads whose batches the last sync settled are about to come back, each with another one. The writer
//! gives up the processor for them. Where only threads of this engine are ready to run, it has the processor
//! back soon, and where one is idle at once. But where others compete for the processors, each may keep one
//! for milliseconds. Therefore it is measured: after a time that was longer than threads of this engine need,
//! and than the last sync took, it is left undone for a while, and for longer with each such time.

use std::time::Duration;

/// What threads of this engine need to come back, and less than others keep a processor for: a time slice of
/// Linux is two to four times as long.
const OWN: Duration = Duration::from_millis(1);

/// After a time that was too long: for so many groups at least, and at most.
const PAUSE_MIN: u32 = 64;
const PAUSE_MAX: u32 = 1 << 14;

/// What is known of the last sync, and of the attempts to share the next one.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// Batches that the last sync settled, until a group has waited for their threads.
    returning: usize,
    /// How long that sync took.
    sync_took: Duration,
    /// For how many groups nothing is tried after a time that was too long, and for how many more now.
    pause: u32,
    skipped: u32,
}

impl Gathering {
    /// A sync that settled so many batches has ended.
    pub(super) fn synced(&mut self, batches: usize, took: Duration) {
        (self.returning, self.sync_took) = (batches, took);
    }

    /// For how many more batches the next group should wait, if for any, and how long at most.
    pub(super) fn begin(&mut self) -> Option<(usize, Duration)> {
        let returning = std::mem::take(&mut self.returning);
        if returning < 2 {
            return None;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return None;
        }
        Some((returning, self.at_most()))
    }

    fn at_most(&self) -> Duration {
        self.sync_took.max(OWN)
    }

    /// It took so long.
    pub(super) fn ended(&mut self, took: Duration) {
        if took > self.at_most() {
            self.pause = self.pause.saturating_mul(4).clamp(PAUSE_MIN, PAUSE_MAX);
            self.skipped = self.pause;
        } else {
            self.pause /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(1200);

    /// How many of so many groups wait, when each wait takes so long.
    fn waits(gathering: &mut Gathering, groups: u32, took: Duration) -> u32 {
        let mut waits = 0;
        for _ in 0..groups {
            gathering.synced(8, SYNC);
            if gathering.begin().is_some() {
                waits += 1;
                gathering.ended(took);
            }
        }
        waits
    }

    #[test]
    fn each_sync_of_many_is_waited_for_once_and_that_of_a_lone_writer_never() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.begin(), None);
        gathering.synced(1, SYNC);
        assert_eq!(gathering.begin(), None);
        gathering.synced(8, SYNC);
        assert_eq!(gathering.begin(), Some((8, SYNC)));
        gathering.ended(SYNC);
        assert_eq!(gathering.begin(), None);
        assert_eq!(waits(&mut gathering, 100, SYNC), 100);
        gathering.synced(8, SYNC / 100);
        assert_eq!(gathering.begin(), Some((8, OWN)));
    }

    #[test]
    fn where_others_have_the_processors_it_is_hardly_tried() {
        let mut gathering = Gathering::default();
        assert_eq!(waits(&mut gathering, 1, 2 * SYNC), 1);
        assert_eq!(waits(&mut gathering, PAUSE_MIN, 2 * SYNC), 0, "not for a while");
        // Each time it is left undone for four times as long, and in the end for as long as it ever is.
        assert!(waits(&mut gathering, 20_000, 2 * SYNC) <= 5);
        assert_eq!(waits(&mut gathering, 10 * PAUSE_MAX, 2 * SYNC), 10);
    }

    #[test]
    fn once_the_processors_are_free_again_one_bad_moment_costs_little() {
        let mut gathering = Gathering::default();
        waits(&mut gathering, 100_000, 2 * SYNC);
        waits(&mut gathering, PAUSE_MAX + 20, SYNC);
        assert_eq!(waits(&mut gathering, 100, SYNC), 100);
        assert_eq!(waits(&mut gathering, 1, 2 * SYNC), 1);
        assert_eq!(waits(&mut gathering, 2 * PAUSE_MIN, SYNC), PAUSE_MIN);
    }
}
