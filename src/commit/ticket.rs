//! A batch on its way, and the handle to wait for it.

use super::pipeline::Committer;
use crate::error::Result;
use crate::format::record::RecordKind;
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use crate::sync::thread;
use crate::sync::thread::Thread;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{Durability, Lsn};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A callback of [`Ticket::on_complete`].
pub(super) type Callback = Box<dyn FnOnce(Result<Lsn>) + Send + 'static>;

/// An accepted batch.
pub(super) struct Pending {
    pub(super) kind: RecordKind,
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    /// Position behind the record.
    pub(super) end: Lsn,
    pub(super) desc: Bytes,
    pub(super) desc_crc: u32,
    pub(super) payload: Bytes,
    pub(super) durability: Durability,
    /// The engine's own: see [`Accept::checked`](super::Accept::checked).
    pub(super) unheard: bool,
    /// What it counts for in the bound on bytes in flight.
    pub(super) bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    result: Option<Result<Lsn>>,
    /// Whom the ticket's holder wants to be told.
    waiter: Waiter,
    /// A thread that works for this batch, and sleeps while others do.
    sleeper: Option<Thread>,
    promoted: bool,
}

#[derive(Default)]
enum Waiter {
    #[default]
    None,
    Waker(Waker),
    Callback(Callback),
}

impl Pending {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        kind: RecordKind,
        segment: Arc<Segment>,
        offset: u32,
        end: Lsn,
        desc: Bytes,
        desc_crc: u32,
        payload: Bytes,
        durability: Durability,
        unheard: bool,
        bytes: usize,
    ) -> Pending {
        let state = Mutex::default();
        Pending { kind, segment, offset, end, desc, desc_crc, payload, durability, unheard, bytes, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, if there is one.
    pub(super) fn result(&self) -> Option<Result<Lsn>> {
        self.state().result.clone()
    }

    /// The calling thread is going to sleep until this batch completes or it is promoted.
    /// False when the batch has completed meanwhile.
    pub(super) fn enlist(&self) -> bool {
        let mut s = self.state();
        if s.result.is_some() {
            return false;
        }
        s.sleeper = Some(thread::current());
        s.promoted = false;
        true
    }

    /// Whether the waiter was woken to work.
    pub(super) fn was_promoted(&self) -> bool {
        self.state().promoted
    }

    /// Wakes the thread that sleeps for this batch, if one does, to take over the work.
    pub(super) fn promote(&self) -> bool {
        let mut s = self.state();
        match (&s.result, &s.sleeper) {
            (None, Some(thread)) => {
                let thread = thread.clone();
                s.promoted = true;
                drop(s);
                thread.unpark();
                true
            }
            _ => false,
        }
    }

    /// Tells the outcome to whoever waits. The first call counts.
    pub(super) fn complete(&self, result: Result<Lsn>) {
        let mut s = self.state();
        if s.result.is_some() {
            return;
        }
        s.result = Some(result.clone());
        let (waiter, sleeper) = (std::mem::take(&mut s.waiter), s.sleeper.take());
        drop(s);
        if let Some(thread) = sleeper.filter(|_| !(planted(Bug::WaitersNotWoken) && result.is_err())) {
            thread.unpark();
        }
        match waiter {
            Waiter::None => {}
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Callback(f) => f(result),
        }
    }

    fn set_waker(&self, waker: &Waker) -> Option<Result<Lsn>> {
        // Cloning and dropping wakers is code of others: not under the lock.
        let mut new = Waiter::Waker(waker.clone());
        let mut s = self.state();
        if s.result.is_none() {
            std::mem::swap(&mut s.waiter, &mut new);
        }
        let result = s.result.clone();
        drop(s);
        drop(new);
        result
    }

    fn set_callback(&self, f: Callback) {
        let mut s = self.state();
        match s.result.clone() {
            None => s.waiter = Waiter::Callback(f),
            Some(result) => {
                drop(s);
                f(result);
            }
        }
    }
}

/// A submitted batch: readable already, complete later.
///
/// Wait for it, poll it as a `Future` (any runtime or none), or give it a callback. Dropping it changes nothing about
/// the batch. Tickets of one durability complete in the order of their positions.
#[must_use = "the batch is not durable before its ticket completes"]
pub struct Ticket {
    pending: Arc<Pending>,
    committer: Arc<Committer>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {:?})", self.pending.end, self.pending.durability)
    }
}

impl Ticket {
    pub(super) fn new(pending: Arc<Pending>, committer: Arc<Committer>) -> Ticket {
        Ticket { pending, committer }
    }

    /// The position behind the batch, known before it completes.
    pub fn lsn(&self) -> Lsn {
        self.pending.end
    }

    /// Blocks until the batch has the durability it was submitted with.
    ///
    /// # Errors
    /// `Poisoned` with the first cause if an I/O error stopped all writing; whether the batch survives a crash is then
    /// unknown, as with any write that was never acknowledged.
    pub fn wait(self) -> Result<Lsn> {
        self.committer.drive(&self.pending)
    }

    /// Calls `f` with the outcome: at once on this thread if it is known, else on the thread that completes the batch,
    /// with no lock of the engine held. It must be quick: later completions wait for it. It may call the engine, and wait for
    /// what it wrote there with [`wait`](Ticket::wait): later completions then overtake it. A panic in it stops all writing,
    /// as an I/O error does.
    pub fn on_complete(self, f: impl FnOnce(Result<Lsn>) + Send + 'static) {
        self.pending.set_callback(Box::new(f));
        self.committer.drive_if_manual(&self.pending);
    }
}

impl Future for Ticket {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Lsn>> {
        if let Some(result) = self.pending.set_waker(cx.waker()) {
            return Poll::Ready(result);
        }
        self.committer.drive_if_manual(&self.pending);
        match self.pending.result() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}
