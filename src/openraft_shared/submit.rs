//! How a batch of a store is accepted: without blocking the caller, in the order of the calls, and asked for
//! again where it is refused for a reason that passes.

use crate::{
    Durability, Engine, Error, ErrorKind, RegionId, RegionWriter, Result, Retry, RetryStep, Ticket,
    WriteBatch, WritePermit,
};
use futures_channel::oneshot::{Receiver, channel};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// A batch that was refused, and, if nothing of it was accepted, the batch and who waits for its ticket.
struct Refused<A> {
    error: Error,
    again: Option<(WriteBatch, A)>,
}

impl<A> From<Error> for Refused<A> {
    fn from(error: Error) -> Refused<A> {
        Refused { error, again: None }
    }
}

/// Hands over the batches of one region's store. A clone is another handle onto the same.
#[derive(Clone)]
pub(crate) struct Submitter {
    engine: Engine,
    region: RegionId,
    writer: Arc<RegionWriter>,
    retry_for: Duration,
    /// A batch that waits for its acceptance on a thread of the engine. It stays here, not with
    /// the task that waits for it: should that task be dropped, whatever is submitted next goes
    /// after the batch all the same.
    waiting: Arc<Mutex<Option<Receiver<Result<()>>>>>,
}

impl Submitter {
    pub(super) fn new(engine: &Engine, region: RegionId, writer: Arc<RegionWriter>) -> Submitter {
        let (engine, retry_for) = (engine.clone(), Duration::ZERO);
        Submitter { engine, region, writer, retry_for, waiting: Arc::default() }
    }

    pub(super) fn set_retry_for(&mut self, bound: Duration) {
        self.retry_for = bound;
    }

    /// Accepts the batch: what it says can be read when this is done. `accepted` gets the ticket, also when
    /// nobody awaits this any more.
    ///
    /// Refused for a reason that passes, it is asked for again while the store is to
    /// (`LogStore::retry_for`). Nothing of it is on its way during a pause: what others submit goes ahead of
    /// it, and a task that is dropped takes it along. `sleep` is the runtime's.
    pub(crate) async fn submit<W: Future<Output = ()>>(
        &self,
        mut batch: WriteBatch,
        durability: Durability,
        mut accepted: impl FnOnce(Ticket) + Send + 'static,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()> {
        let mut retry = Retry::new(&self.engine, self.region, self.retry_for);
        loop {
            let refused = match self.submit_once(batch, durability, accepted).await {
                Ok(()) => break,
                Err(refused) => refused,
            };
            let error = refused.error;
            let Some(again) = refused.again else { return Err(error) };
            loop {
                match retry.step(&error)? {
                    RetryStep::Sleep(time) => sleep(time).await,
                    RetryStep::AskAgain => break,
                    RetryStep::GiveUp => return Err(error),
                }
                self.permit().map(drop)?;
            }
            (batch, accepted) = again;
        }
        retry.accepted();
        Ok(())
    }

    /// Accepts the parts of an append, one after the other. The last one is synced, and with it all that
    /// stands before it in the log: `accepted` gets its ticket. Of an append that is refused in the middle,
    /// or cut short by a crash, the log has the first entries, and nobody was called back.
    pub(crate) async fn submit_append<W: Future<Output = ()>>(
        &self,
        mut parts: Vec<WriteBatch>,
        accepted: impl FnOnce(Ticket) + Send + 'static,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()> {
        let last = parts.pop().unwrap_or_else(|| self.engine.batch());
        for part in parts {
            self.note(part, &sleep).await?;
        }
        self.submit(last, Durability::Synced, accepted, sleep).await
    }

    /// As [`submit`](Submitter::submit), without asking again. Where acceptance takes waiting (for room among
    /// the bytes in flight, for the next segment), a thread of the engine waits.
    async fn submit_once<A>(
        &self,
        batch: WriteBatch,
        durability: Durability,
        accepted: A,
    ) -> Result<(), Refused<A>>
    where
        A: FnOnce(Ticket) + Send + 'static,
    {
        let permit = self.permit()?;
        // What a task that was dropped had submitted is accepted first. If it was refused, the
        // task would have been notified.
        self.in_turn().await;
        let refused = Arc::new(Mutex::new(None));
        let comes_back = refused.clone();
        let (done, outcome) = channel();
        self.engine.submit_then(batch, durability, move |submitted| {
            let outcome = match submitted {
                Ok(ticket) => {
                    accepted(ticket);
                    Ok(())
                }
                Err(refused) => {
                    let (error, batch) = refused.into_parts();
                    let again = batch.map(|batch| (batch, accepted));
                    *comes_back.lock().unwrap_or_else(PoisonError::into_inner) = again;
                    Err(error)
                }
            };
            drop(permit);
            // A task that was dropped asks for nothing.
            let _ = done.send(outcome);
        });
        *self.waiting() = Some(outcome);
        let outcome = self.in_turn().await.unwrap_or(Ok(()));
        outcome.map_err(|error| {
            let again = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            Refused { error, again }
        })
    }

    /// Begins a write of this store.
    fn permit(&self) -> Result<WritePermit> {
        self.writer.begin().map_err(|refused| {
            let why = "write refused: another LogStore has taken the region over; drop this one and its Raft";
            Error::new(ErrorKind::Locked, why).in_region(self.region).caused_by(refused)
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Receiver<Result<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing waits for acceptance, and returns the outcome of what did.
    pub(super) async fn in_turn(&self) -> Option<Result<()>> {
        poll_fn(|cx| {
            let mut waiting = self.waiting();
            let Some(outcome) = waiting.as_mut() else { return Poll::Ready(None) };
            let outcome = Pin::new(outcome).poll(cx);
            outcome.map(|outcome| {
                *waiting = None;
                Some(outcome.unwrap_or_else(|_| Err(panicked())))
            })
        })
        .await
    }

    /// Accepts a batch that nobody waits for: it is written after all that came before, and before all that
    /// comes after. To wait until that is done would mean to wait for a sync that is running, now and then.
    pub(super) async fn note<W: Future<Output = ()>>(
        &self,
        batch: WriteBatch,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()> {
        self.submit(batch, Durability::Written, |ticket| ticket.on_complete(drop), sleep).await
    }

    /// Accepts a batch, and waits until it is durable.
    pub(super) async fn settle<W: Future<Output = ()>>(
        &self,
        batch: WriteBatch,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()> {
        let (durable, outcome) = channel();
        let accepted = |ticket: Ticket| ticket.on_complete(|outcome| drop(durable.send(outcome.map(drop))));
        self.submit(batch, Durability::Synced, accepted, sleep).await?;
        outcome.await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// Of work on a thread of the engine that ended without an outcome.
fn panicked() -> Error {
    Error::new(ErrorKind::Io, "work on a thread of the engine panicked")
}
