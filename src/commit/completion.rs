//! Delivers outcomes to callbacks and wakers: in order, one thread at a time.
//!
//! - An outcome is known as soon as the log has come so far. A thread that waits for it is woken
//!   then, and never waits for a callback. That is what lets a callback write and wait: nothing that
//!   it needs is queued after it.
//! - Outcomes of batches that have a ticket are added under the pipeline's lock, that is, in the order of
//!   positions, and are delivered without it: callbacks and wakers are other people's code.
//! - A thread that adds one sees to it that it is delivered: by itself, or by the thread that is delivering
//!   already, which looks again before it leaves. A callback never begins before the one before it has ended,
//!   and none is called from inside another.
//! - A callback that panics ends there. The panic is reported and delivery goes on: the outcomes of other
//!   batches, mostly of other groups, are none of its business.

use super::pending::{Pending, Waiting};
use crate::error::Result;
use crate::planted::{Bug, planted};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::Lsn;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Outcomes that are to be delivered.
#[derive(Default)]
pub(super) struct Completions(Mutex<State>);

#[derive(Default)]
struct State {
    due: Vec<Arc<Pending>>,
    /// The thread that is delivering.
    deliverer: Option<ThreadId>,
}

impl Completions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// One more settled batch. The caller holds the pipeline's lock, and calls
    /// [`deliver`](Completions::deliver) once it does not.
    pub(super) fn add(&self, pending: Arc<Pending>) {
        self.lock().due.push(pending);
    }

    /// Delivers all outcomes, unless another thread is doing that. `panicked` is notified of each callback
    /// that panics, and of what it said.
    pub(super) fn deliver(
        &self,
        outcome: impl Fn(Waiting) -> Option<Result<Lsn>>,
        panicked: impl Fn(Lsn, &str),
    ) {
        let mut state = self.lock();
        if state.deliverer.is_some() || state.due.is_empty() {
            return;
        }
        state.deliverer = Some(thread::current().id());
        while !state.due.is_empty() {
            let mut group = std::mem::take(&mut state.due);
            drop(state);
            if planted(Bug::TicketsOutOfOrder) {
                group.reverse();
            }
            for pending in &group {
                // A listener that panics at the report is contained too.
                if let Err(panic) =
                    catch_unwind(AssertUnwindSafe(|| pending.deliver(outcome(pending.waiting))))
                {
                    drop(catch_unwind(AssertUnwindSafe(|| panicked(pending.waiting.end, message(&*panic)))));
                    if planted(Bug::PanicEndsDelivery) {
                        break;
                    }
                }
            }
            drop(group);
            state = self.lock();
        }
        state.deliverer = None;
    }

    /// Whether the calling thread is in a callback.
    pub(super) fn is_delivering(&self) -> bool {
        self.lock().deliverer.is_some_and(|deliverer| deliverer == thread::current().id())
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}
