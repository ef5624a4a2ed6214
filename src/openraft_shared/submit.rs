//! How a batch of a store is accepted: without blocking the caller, in the order of the calls, and asked for
//! again where it is refused for a reason that passes.

use super::later::elsewhere_waiting;
use super::retry::{self, Retrying};
use crate::commit::Ticket;
use crate::engine::Engine;
use crate::engine::later::Later;
use crate::engine::write_batch::WriteBatch;
use crate::engine::writers::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};
use crate::types::{Durability, RegionId};
use std::future::poll_fn;
use std::pin::Pin;
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
    writer: Arc<Writer>,
    retry_for: Duration,
    /// A batch that waits for its acceptance on a thread of the engine. It stays here, not with
    /// the task that waits for it: should that task be dropped, whatever is submitted next goes
    /// after the batch all the same.
    waiting: Arc<Mutex<Option<Later<()>>>>,
}

impl Submitter {
    pub(super) fn new(engine: &Engine, region: RegionId, writer: Arc<Writer>) -> Submitter {
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
        let mut retrying: Option<Retrying<'_>> = None;
        loop {
            let refused = match self.submit_once(batch, durability, accepted).await {
                Ok(()) => break,
                Err(refused) => refused,
            };
            let error = refused.error;
            let Some(again) = refused.again else { return Err(error) };
            if self.retry_for.is_zero() || !retry::passes(&error) {
                return Err(error);
            }
            let pausing = retrying.get_or_insert_with(|| Retrying::begin(&self.engine, self.region, &error));
            if !pausing.pause(self.retry_for, &sleep, || self.writer.begin().map(drop)).await? {
                return Err(error);
            }
            (batch, accepted) = again;
        }
        if let Some(retrying) = retrying {
            retrying.accepted();
        }
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
        let underway = self.writer.begin()?;
        // What a task that was dropped had submitted is accepted first. If it was refused, the
        // task would have been notified.
        self.in_turn().await;
        let batch = if batch.is_empty() {
            batch
        } else {
            match self.engine.try_submit(batch, durability) {
                Ok(ticket) => {
                    accepted(ticket);
                    return Ok(());
                }
                Err(refused) => match refused.into_parts() {
                    (error, Some(batch)) if error.kind() == ErrorKind::WouldBlock => batch,
                    (error, batch) => return Err(Refused { error, again: batch.map(|b| (b, accepted)) }),
                },
            }
        };
        let engine = self.engine.clone();
        let refused = Arc::new(Mutex::new(None));
        let comes_back = refused.clone();
        let later = elsewhere_waiting(&self.engine, move || {
            let _underway = underway;
            match engine.submit(batch, durability) {
                Ok(ticket) => accepted(ticket),
                Err(e) => {
                    let (error, batch) = e.into_parts();
                    *comes_back.lock() = batch.map(|batch| (batch, accepted));
                    return Err(error);
                }
            }
            Ok(())
        });
        *self.waiting.lock() = Some(later);
        let outcome = self.in_turn().await.unwrap_or(Ok(()));
        outcome.map_err(|error| Refused { error, again: refused.lock().take() })
    }

    /// Waits until nothing waits for acceptance, and returns the outcome of what did.
    pub(super) async fn in_turn(&self) -> Option<Result<()>> {
        poll_fn(|cx| {
            let mut waiting = self.waiting.lock();
            let Some(later) = waiting.as_mut() else { return Poll::Ready(None) };
            let outcome = Pin::new(later).poll(cx);
            outcome.map(|outcome| {
                *waiting = None;
                Some(outcome)
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
}
