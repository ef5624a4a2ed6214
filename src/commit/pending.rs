//! A batch on its way.

use super::room::Taken;
use crate::error::Result;
use crate::format::record::{RECORD_HEADER_LEN, RecordKind};
use crate::segment::Segment;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::{Durability, Lsn};
use bytes::Bytes;
use std::task::Waker;
use std::time::Instant;

/// A callback of [`Ticket::on_complete`](super::Ticket::on_complete).
pub(super) type Callback = Box<dyn FnOnce(Result<Lsn>) + Send + 'static>;

/// An accepted batch, as a thread that waits for it knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// One past the record.
    pub(super) end: Lsn,
    pub(super) durability: Durability,
    /// The group that it was accepted into.
    pub(super) turn: u64,
    /// When the caller handed it over.
    pub(super) began: Instant,
}

/// An accepted batch that has a ticket: a callback or a waker may come to need the outcome, and not
/// only the thread that wrote it.
pub(super) struct Pending {
    pub(super) waiting: Waiting,
    state: Mutex<State>,
}

/// What goes to the log of an accepted batch: let go of once it is written, however long the ticket is kept.
pub(super) struct Record {
    /// One past it.
    pub(super) end: Lsn,
    pub(super) durability: Durability,
    pub(super) ticket: Option<Arc<Pending>>,
    pub(super) began: Instant,
    pub(super) kind: RecordKind,
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    /// Its bytes in the log, which count in the bound on bytes in flight.
    pub(super) taken: Taken,
    /// Known when it is written: it names the record before.
    pub(super) header: [u8; RECORD_HEADER_LEN as usize],
    pub(super) desc: Bytes,
    pub(super) desc_crc: u32,
    pub(super) payload: Bytes,
}

impl Record {
    /// Its bytes in the log.
    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }
}

#[derive(Default)]
struct State {
    /// The batch's turn to call back is over: a callback that comes later is called at once.
    delivered: bool,
    /// What the ticket's holder left to be called.
    waiter: Waiter,
}

#[derive(Default)]
enum Waiter {
    #[default]
    None,
    Waker(Waker),
    Callback(Callback),
}

impl Pending {
    pub(super) fn new(waiting: Waiting) -> Pending {
        Pending { waiting, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Calls what the ticket's holder left, in its turn: after the batches before it, with no lock held.
    pub(super) fn deliver(&self, outcome: Option<Result<Lsn>>) {
        let mut s = self.state();
        s.delivered = true;
        let waiter = std::mem::take(&mut s.waiter);
        drop(s);
        match (waiter, outcome) {
            (Waiter::Waker(waker), _) => waker.wake(),
            (Waiter::Callback(f), Some(outcome)) => f(outcome),
            _ => {}
        }
    }

    /// `outcome` is asked with the lock held, which delivery takes after the outcome is known: either it is
    /// seen here, or the waker there.
    pub(super) fn set_waker(
        &self,
        waker: &Waker,
        outcome: impl FnOnce() -> Option<Result<Lsn>>,
    ) -> Option<Result<Lsn>> {
        // Cloning and dropping wakers is code of others: not under the lock.
        let mut new = Waiter::Waker(waker.clone());
        let mut s = self.state();
        let outcome = outcome();
        if outcome.is_none() {
            std::mem::swap(&mut s.waiter, &mut new);
        }
        drop(s);
        drop(new);
        outcome
    }

    pub(super) fn set_callback(&self, f: Callback, outcome: impl FnOnce() -> Option<Result<Lsn>>) {
        let mut s = self.state();
        match outcome().filter(|_| s.delivered) {
            None => {
                let former = std::mem::replace(&mut s.waiter, Waiter::Callback(f));
                drop(s);
                drop(former);
            }
            Some(outcome) => {
                drop(s);
                f(outcome);
            }
        }
    }
}
