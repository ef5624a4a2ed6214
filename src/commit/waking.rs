//! Where the threads of the pipeline sleep, and which of them is woken.

use super::pending::Waiting;
use super::pipeline::Pipeline;
use super::settled::Settled;
use super::sleepers::{Sleepers, Woken};
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, MutexGuard};
use crate::types::Durability;
use std::time::Duration;

/// A place for each group, one for those that wait for the end of a stage, and one for the thread that works
/// for tickets.
#[derive(Default)]
pub(super) struct Waking {
    sleepers: Sleepers,
    /// A stage has ended, a segment became ready, or writing stopped.
    change: Condvar,
    /// There may be work that no waiting thread will do.
    work: Condvar,
    wakes: AtomicU64,
}

/// What is left to do of the end of a stage, without the lock.
pub(super) struct Wakes<'a> {
    /// Goes on with the work.
    next: Option<&'a Condvar>,
    /// Somebody waits for the end of a stage.
    change: bool,
    /// The thread that works for tickets may end.
    driver: bool,
}

impl Waking {
    /// How often threads were woken.
    pub(super) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    // ---- to sleep -----------------------------------------------------------------------------------------

    /// Sleeps while others work for the batch. Also says whether they rely on this thread to look at the
    /// queue when it has slept for as long as it may.
    pub(super) fn sleep(
        &self,
        mut p: MutexGuard<'_, Pipeline>,
        mine: Waiting,
        is_settled: impl Fn() -> bool,
    ) -> (Woken, bool) {
        // Of its own group others may be settled without it.
        let turn = mine.turn.max(1 + p.turns.settled(mine.durability));
        let at_most = p.watch();
        self.sleepers.enlist(turn, mine.durability);
        drop(p);
        (self.sleepers.sleep(turn, mine.durability, at_most, is_settled), at_most.is_some())
    }

    /// The thread that works for tickets sleeps until there may be work for it.
    pub(super) fn wait_for_work<'a>(&self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        p.driver_sleeps = true;
        let at_most = p.watch();
        let (mut p, timed_out) = match at_most {
            None => (self.work.wait(p), false),
            Some(at_most) => self.work.wait_timeout(p, at_most),
        };
        p.driver_sleeps = false;
        p.end_watch(at_most.is_some(), timed_out);
        p
    }

    /// Waits until a stage has ended, a segment became ready, or writing stopped.
    pub(super) fn wait_for_change<'a>(&self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        p.awaiting_change += 1;
        let mut p = self.change.wait(p);
        p.awaiting_change -= 1;
        p
    }

    /// The same, for so long at most.
    pub(super) fn wait_for_change_at_most<'a>(
        &self,
        mut p: MutexGuard<'a, Pipeline>,
        at_most: Duration,
    ) -> MutexGuard<'a, Pipeline> {
        p.awaiting_change += 1;
        let (mut p, _) = self.change.wait_timeout(p, at_most);
        p.awaiting_change -= 1;
        p
    }

    // ---- to wake ------------------------------------------------------------------------------------------

    /// Those that wait for a change look again.
    pub(super) fn announce_change(&self) {
        self.change.notify_all();
    }

    /// The engine closes: all look again that are not at work for a batch.
    pub(super) fn announce_close(&self) {
        self.change.notify_all();
        self.work.notify_all();
    }

    /// If there is work that no thread is doing, wakes one for it.
    pub(super) fn hand_off(&self, mut p: MutexGuard<'_, Pipeline>) {
        let next = self.next_worker(&mut p);
        drop(p);
        self.notify(next);
    }

    /// The caller does not wait for the batch that it has queued. Where that has to wait for others, they go
    /// on with it, and somebody looks whether that takes too long.
    pub(super) fn leave_to_others(&self, mut p: MutexGuard<'_, Pipeline>) {
        let concerns_driver = p.has_work() || !p.watched;
        let driver = Some(&self.work).filter(|_| concerns_driver && std::mem::take(&mut p.driver_sleeps));
        drop(p);
        self.notify(driver);
    }

    /// A stage has ended: chooses, under the lock, who is to be woken.
    pub(super) fn choose(&self, p: &mut Pipeline, passes_on: bool) -> Wakes<'_> {
        Wakes {
            next: if passes_on { self.next_worker(p) } else { None },
            change: p.awaiting_change > 0,
            // It ends once everything has completed, no matter which thread did it.
            driver: p.closed && std::mem::take(&mut p.driver_sleeps),
        }
    }

    /// Wakes those that were chosen, first the thread that goes on with the work, so that the disk does not
    /// idle, and those whose batches are settled.
    pub(super) fn wake(&self, chosen: Wakes<'_>, settled: Settled) {
        self.notify(chosen.next);
        let mut wakes = u64::from(chosen.change);
        for (turns, durability) in
            [(settled.synced, Durability::Synced), (settled.written, Durability::Written)]
        {
            wakes += turns.map_or(0, |turns| self.sleepers.wake(turns, durability));
        }
        if chosen.change {
            self.change.notify_all();
        }
        self.wakes.fetch_add(wakes, Ordering::Relaxed);
        if chosen.driver {
            self.work.notify_all();
        }
    }

    /// Wakes the thread that was chosen, if one was, without the lock.
    fn notify(&self, chosen: Option<&Condvar>) {
        if let Some(chosen) = chosen {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            chosen.notify_one();
        }
    }

    /// Chooses the thread that goes on with the work, if there is any that none is doing. Returns what has to
    /// be notified, without the lock.
    fn next_worker(&self, p: &mut Pipeline) -> Option<&Condvar> {
        if planted(Bug::WorkNotHandedOn) || !p.has_work() {
            return None;
        }
        let sleeper = |d| self.sleepers.promote(p.turns.unsettled(d), d);
        sleeper(Durability::Synced)
            .or_else(|| sleeper(Durability::Written))
            .or_else(|| Some(&self.work).filter(|_| std::mem::take(&mut p.driver_sleeps)))
    }
}
