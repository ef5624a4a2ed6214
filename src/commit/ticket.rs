//! The handle to wait for a batch with.

use super::accept::{Accept, OnFull, watermark_record};
use super::committer::Committer;
use super::pending::Pending;
use super::unsent::Unsent;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Encoded;
use crate::report::Outcome;
use crate::sync::{Arc, Signal};
use crate::types::{Durability, Lsn};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

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
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
/// let ticket = engine.submit(batch, Durability::Synced)?;
/// // Readable already, and not to be acknowledged yet.
/// assert_eq!(engine.region(RegionId(7)).last_index(), 1);
///
/// let (send, outcome) = std::sync::mpsc::channel();
/// ticket.on_complete(move |outcome| drop(send.send(outcome)));
/// let durable = outcome.recv()??;
/// assert!(engine.durable_lsn() >= durable);
/// # Ok(()) }
/// ```
#[must_use = "the batch is not durable before its ticket completes"]
pub struct Ticket {
    pending: Arc<Pending>,
    committer: Arc<Committer>,
    outcome: Outcome,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {:?})", self.lsn(), self.pending.waiting.durability)
    }
}

impl Ticket {
    /// Accepts a batch; the ticket delivers the rest.
    pub(crate) fn submit(
        committer: &Arc<Committer>,
        encoded: &mut Encoded,
        how: &Accept<'_>,
    ) -> Result<Ticket, Unsent> {
        let (pending, outcome) = committer.submit(encoded, how)?;
        Ok(Ticket { pending, committer: committer.clone(), outcome })
    }

    /// One that completes when everything accepted so far has the durability.
    pub(crate) fn barrier(
        committer: &Arc<Committer>,
        durability: Durability,
        on_full: OnFull,
    ) -> Result<Ticket, Unsent> {
        let how = Accept { on_full, ..Accept::internal(durability) };
        let mut ticket = Ticket::submit(committer, &mut watermark_record(), &how)?;
        ticket.outcome.bytes = 0;
        Ok(ticket)
    }

    /// The position one past the batch, known before it completes.
    pub fn lsn(&self) -> Lsn {
        self.pending.waiting.end
    }

    /// Where the batch stands, and what was decided when it was accepted: known before it completes, and, as
    /// the batch, not durable before that.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Blocks until the batch has the durability it was submitted with.
    ///
    /// # Errors
    /// `Poisoned` with the first cause if an I/O error stopped all writing; whether the batch survives a
    /// crash is then unknown, as with any write that was never acknowledged.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append_next(["set x 1"], 1)?;
    /// let ticket = engine.submit(batch, Durability::Synced)?;
    /// // Known at once: where the batch ends, and which indexes its entries got.
    /// let (end, appended) = (ticket.lsn(), ticket.outcome().appends[0]);
    /// assert_eq!((appended.first, appended.last), (1, 1));
    /// assert_eq!(ticket.wait()?, end);
    /// # Ok(()) }
    /// ```
    pub fn wait(self) -> Result<Lsn> {
        self.committer.check_process()?;
        self.committer.wait_for(self.pending.waiting)
    }

    /// As [`wait`](Ticket::wait), for so long at most.
    ///
    /// # Errors
    /// As there; and `Stalled` when the time is over. The batch is on its way still: wait again, or take the
    /// ticket elsewhere.
    ///
    /// ```
    /// # use raftwood::{Durability, Engine, EntryId, ErrorKind, RegionId};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = Engine::open(dir.path())?;
    /// # let mut batch = engine.batch();
    /// # batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
    /// let mut ticket = engine.submit(batch, Durability::Synced)?;
    /// match ticket.wait_within(Duration::from_secs(30)) {
    ///     Ok(durable) => assert!(engine.durable_lsn() >= durable),
    ///     Err(e) if e.kind() == ErrorKind::Stalled => println!("{e}; let others lead, and wait on"),
    ///     Err(e) => return Err(e.into()),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn wait_within(&mut self, at_most: Duration) -> Result<Lsn> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let (mut cx, began) = (Context::from_waker(&waker), clock::now());
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut *self).poll(&mut cx) {
                return outcome;
            }
            let left = at_most.saturating_sub(clock::since(began));
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Stalled,
                    format!(
                        "the batch before {} is not durable after {at_most:.1?}; it is on its way",
                        self.lsn()
                    ),
                ));
            }
            woken.0.wait(left);
        }
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
    ///
    /// [`Ticket`] shows it. `f` gets the errors of [`wait`](Ticket::wait).
    pub fn on_complete(self, f: impl FnOnce(Result<Lsn>) + Send + 'static) {
        if let Err(e) = self.committer.check_process() {
            return f(Err(e));
        }
        let waiting = self.pending.waiting;
        self.pending.set_callback(Box::new(f), || self.committer.outcome(waiting));
        self.committer.drive_if_manual(waiting);
    }
}

/// Wakes the thread of a [`wait_within`](Ticket::wait_within).
#[derive(Default)]
struct Woken(Signal);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.raise();
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
