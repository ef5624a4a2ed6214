//! Tells outcomes to whoever waits, in order, one thread at a time.
//!
//! - Outcomes are added under the pipeline's lock, so in the order of positions, and are told without it: callbacks and wakers are
//!   other people's code.
//! - Whoever adds one sees to it that it is told: by itself, or by the thread that is at it already, which looks again before
//!   it leaves. So a callback never begins before the one before it has ended.
//! - The one exception: a callback that waits for a batch itself would wait for what only its own thread could tell. Before
//!   it goes to sleep, its thread [gives way](Completions::give_way), and whoever comes next goes on.

use super::ticket::Pending;
use crate::error::Result;
use crate::planted::{Bug, planted};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::Lsn;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Outcomes that are to be told.
#[derive(Default)]
pub(super) struct Completions(Mutex<State>);

#[derive(Default)]
struct State {
    due: VecDeque<(Arc<Pending>, Result<Lsn>)>,
    /// The thread that is at it.
    teller: Option<ThreadId>,
}

/// A callback or waker panicked.
pub(super) struct Panicked;

impl Completions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more outcome. The caller holds the pipeline's lock, and calls [`tell`](Completions::tell) once it does not.
    pub(super) fn add(&self, pending: Arc<Pending>, outcome: Result<Lsn>) {
        self.lock().due.push_back((pending, outcome));
    }

    /// Whether there is anything that nobody is telling.
    pub(super) fn are_due(&self) -> bool {
        let state = self.lock();
        state.teller.is_none() && !state.due.is_empty()
    }

    /// Tells all outcomes, unless somebody is at it. Returns early when a callback panics: those that come after it are still due.
    pub(super) fn tell(&self) -> Result<(), Panicked> {
        let me = thread::current().id();
        let mut state = self.lock();
        if state.teller.is_some() {
            return Ok(());
        }
        state.teller = Some(me);
        // Somebody else may have taken over while a callback of ours waited.
        while state.teller == Some(me) {
            let last_first = planted(Bug::TicketsOutOfOrder);
            let next = if last_first { state.due.pop_back() } else { state.due.pop_front() };
            let Some((pending, outcome)) = next else {
                state.teller = None;
                break;
            };
            drop(state);
            let told = catch_unwind(AssertUnwindSafe(|| pending.complete(outcome)));
            state = self.lock();
            if told.is_err() {
                if state.teller == Some(me) {
                    state.teller = None;
                }
                return Err(Panicked);
            }
        }
        Ok(())
    }

    /// Whether the calling thread is in a callback.
    pub(super) fn is_telling(&self) -> bool {
        self.lock().teller.is_some_and(|teller| teller == thread::current().id())
    }

    /// The calling thread is about to wait. True if it was telling outcomes, that is, if a callback waits: then others may go on.
    pub(super) fn give_way(&self) -> bool {
        let mut state = self.lock();
        let mine = state.teller.is_some_and(|teller| teller == thread::current().id());
        if mine {
            state.teller = None;
        }
        mine
    }
}
