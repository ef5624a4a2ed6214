//! Where threads sleep while others work for their batches.
//!
//! All of one commit group sleep in one place, so that one system call wakes them, and none is made where
//! nobody sleeps. What a thread waits for is no message to it: it looks at how far the log has come. One that
//! is woken too often therefore loses time and nothing else.
//!
//! - A thread is counted before it lets go of the pipeline's lock. From then on a thread that settles its
//!   batch, or looks for one to promote, finds it.
//! - A group may be woken before a thread of it sleeps whose batch was left to the next one. It finds that
//!   its place was woken, and looks with which group it belongs now.
//! - A promotion is left in the place and taken by the next thread that leaves, also by one that has no work
//!   of its own any more: that one passes it on.

use crate::planted::{Bug, planted};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::types::Durability;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Groups that sleep apart. Few are under way at once; where there are more, some share a place,
/// and are woken together.
const TURNS: u64 = 4;

const PLACES: usize = 2 * TURNS as usize;

/// The places.
#[derive(Default)]
pub(super) struct Sleepers([Place; PLACES]);

#[derive(Default)]
struct Place {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that sleep here, or are about to.
    asleep: u32,
    /// How many of them are asked to take over the work.
    promoted: u32,
    /// The last group that was woken here. What was enlisted with it, and did not sleep by then, must not.
    woken: u64,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Why a thread does not sleep any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Woken {
    /// Its batch is settled.
    Settled,
    /// It has slept for as long as it may.
    TimedOut,
    /// It is promoted, or was woken for others: it has to look.
    ToLook,
}

impl Sleepers {
    fn place(&self, turn: u64, durability: Durability) -> &Place {
        &self.0[(turn % TURNS) as usize * 2 + usize::from(durability == Durability::Synced)]
    }

    /// The calling thread, which holds the pipeline's lock, is going to sleep.
    pub(super) fn enlist(&self, turn: u64, durability: Durability) {
        self.place(turn, durability).lock().asleep += 1;
    }

    /// Sleeps, after [`enlist`](Sleepers::enlist), without the pipeline's lock.
    pub(super) fn sleep(
        &self,
        turn: u64,
        durability: Durability,
        at_most: Option<Duration>,
        is_settled: impl Fn() -> bool,
    ) -> Woken {
        let place = self.place(turn, durability);
        let mut state = place.lock();
        let mut timed_out = false;
        if state.promoted == 0 && state.woken < turn && !is_settled() {
            state = match at_most {
                None => place.changed.wait(state),
                Some(at_most) => {
                    let woken = place.changed.wait_timeout(state, at_most);
                    timed_out = woken.1;
                    woken.0
                }
            };
        }
        state.asleep -= 1;
        if state.promoted > 0 {
            state.promoted -= 1;
            return Woken::ToLook;
        }
        drop(state);
        match is_settled() {
            true => Woken::Settled,
            false if timed_out => Woken::TimedOut,
            false => Woken::ToLook,
        }
    }

    /// Promotes one thread of these groups. Returns what has to be notified of it, once the
    /// pipeline's lock is released.
    pub(super) fn promote(&self, turns: RangeInclusive<u64>, durability: Durability) -> Option<&Condvar> {
        turns.take(TURNS as usize).map(|turn| self.place(turn, durability)).find_map(|place| {
            let mut state = place.lock();
            let can = state.asleep > state.promoted;
            state.promoted += u32::from(can);
            can.then_some(&place.changed)
        })
    }

    /// Wakes all of these groups, and says how many calls that took. The caller does not hold the
    /// pipeline's lock.
    pub(super) fn wake(&self, turns: RangeInclusive<u64>, durability: Durability) -> u64 {
        let (mut calls, last) = (0, *turns.end());
        for turn in turns.take(TURNS as usize) {
            let place = self.place(turn, durability);
            let mut state = place.lock();
            state.woken = state.woken.max(last);
            let asleep = state.asleep;
            drop(state);
            if asleep > 0 && !planted(Bug::GroupNotWoken) {
                place.changed.notify_all();
                calls += 1;
            }
        }
        calls
    }
}
