//! A batch on its way, and the handle to wait for it.

use super::pipeline::Committer;
use crate::error::Result;
use crate::format::record::{RECORD_HEADER_LEN, RecordKind};
use crate::segment::Segment;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::{Durability, Lsn};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A callback of [`Ticket::on_complete`].
pub(super) type Callback = Box<dyn FnOnce(Result<Lsn>) + Send + 'static>;

/// An accepted batch, as a thread that waits for it knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// One past the record.
    pub(super) end: Lsn,
    pub(super) durability: Durability,
    /// The group that it was accepted into.
    pub(super) turn: u64,
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
    pub(super) kind: RecordKind,
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    /// Known when it is written: it names the record before.
    pub(super) header: [u8; RECORD_HEADER_LEN as usize],
    pub(super) desc: Bytes,
    pub(super) desc_crc: u32,
    pub(super) payload: Bytes,
}

impl Record {
    /// Its bytes in the log, which count in the bound on bytes in flight.
    pub(super) fn len(&self) -> usize {
        (self.end.offset() - self.offset) as usize
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
    fn set_waker(&self, waker: &Waker, outcome: impl FnOnce() -> Option<Result<Lsn>>) -> Option<Result<Lsn>> {
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

    fn set_callback(&self, f: Callback, outcome: impl FnOnce() -> Option<Result<Lsn>>) {
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

/// A submitted batch: readable already, complete later.
///
/// Wait for it, poll it as a `Future` (any runtime or none), or give it a callback. Dropping it
/// changes nothing about the batch. Tickets of one durability complete in the order of their
/// positions, and callbacks are called in that order, one after the other. Waiting and polling do not
/// wait for the callbacks of others.
///
/// A ticket does not keep the engine open: when the last handle goes, the engine sees to its end what was
/// accepted, closes, and the ticket has its outcome. A ticket that is kept after that, or after its batch
/// completed, holds a few words, and nothing of the batch.
#[must_use = "the batch is not durable before its ticket completes"]
pub struct Ticket {
    pending: Arc<Pending>,
    committer: Arc<Committer>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {:?})", self.lsn(), self.pending.waiting.durability)
    }
}

impl Ticket {
    pub(super) fn new(pending: Arc<Pending>, committer: Arc<Committer>) -> Ticket {
        Ticket { pending, committer }
    }

    /// The position one past the batch, known before it completes.
    pub fn lsn(&self) -> Lsn {
        self.pending.waiting.end
    }

    /// Blocks until the batch has the durability it was submitted with.
    ///
    /// # Errors
    /// `Poisoned` with the first cause if an I/O error stopped all writing; whether the batch survives a
    /// crash is then unknown, as with any write that was never acknowledged.
    pub fn wait(self) -> Result<Lsn> {
        self.committer.check_process()?;
        self.committer.drive(self.committer.lock(), self.pending.waiting)
    }

    /// Calls `f` with the outcome: at once on this thread if it is known and the callbacks before it
    /// have been called, else on the thread that completes the batch, with no lock of the engine
    /// held. It must be quick: callbacks of later batches wait for it. It may call the engine, and
    /// wait for what it wrote there.
    ///
    /// A panic in `f` ends `f` and nothing else: the batch is what its outcome says, the engine
    /// goes on, other callbacks are called, and listeners are notified
    /// ([`Event::CallbackPanicked`](crate::Event::CallbackPanicked)). Where `f` is called at
    /// once, the panic is the caller's.
    pub fn on_complete(self, f: impl FnOnce(Result<Lsn>) + Send + 'static) {
        if let Err(e) = self.committer.check_process() {
            return f(Err(e));
        }
        let waiting = self.pending.waiting;
        self.pending.set_callback(Box::new(f), || self.committer.outcome(waiting));
        self.committer.drive_if_manual(waiting);
    }
}

impl Future for Ticket {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Lsn>> {
        self.committer.check_process()?;
        let waiting = self.pending.waiting;
        if let Some(outcome) = self.pending.set_waker(cx.waker(), || self.committer.outcome(waiting)) {
            return Poll::Ready(outcome);
        }
        self.committer.drive_if_manual(waiting);
        match self.committer.outcome(waiting) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}
