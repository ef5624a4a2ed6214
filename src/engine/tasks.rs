//! For programs of tasks: what waits does so on a thread of the engine, and never on the one that polls.
//!
//! A batch that can be accepted at once is, by the first poll. One that would have to wait, for bytes in
//! flight or for the next segment, goes to a thread of the engine, which waits as a writer does: in line
//! with the others, whether the task is polled or not. Batches that come meanwhile go after it, so that
//! those of one task, or of tasks that share a thread, are accepted in the order of their first polls. What
//! comes after acceptance a [`Ticket`] does: nothing waits there.

use super::later::{Later, on_its_own, promise};
use super::write_batch::WriteBatch;
use super::{Engine, WriteError};
use crate::commit::Ticket;
use crate::error::Result;
use crate::options::Options;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{Durability, Lsn};
use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How many batches are with the thread that waits for room.
#[derive(Default)]
pub(super) struct Admitting(AtomicUsize);

/// An engine on its way to being open: see [`Options::open_async`]. A future, for any runtime or none.
#[must_use = "an engine that nobody waits for is closed as soon as it is open"]
pub struct Opening(Later<Engine>);

impl Future for Opening {
    type Output = Result<Engine>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Engine>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl Options {
    /// As [`open`](Options::open), on a thread of its own, which is started at once: opening reads, writes
    /// and syncs. Dropping the future does not end that; the engine is closed as soon as it is open then.
    ///
    /// # Errors
    /// As [`open`](Options::open); `Io` also where no thread can be started.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = raftwood::Options::new().open_async(dir.path()).await?;
    /// engine.close_async().await?;
    /// # Ok(()) }
    /// ```
    pub fn open_async(&self, dir: impl AsRef<Path>) -> Opening {
        let (options, dir) = (self.clone(), dir.as_ref().to_path_buf());
        Opening(on_its_own("raftwood-open", move || options.open(dir)))
    }
}

impl Engine {
    /// Opens the engine in `dir` with the default [`Options`], on a thread of its own: see
    /// [`Options::open_async`].
    pub fn open_async(dir: impl AsRef<Path>) -> Opening {
        Options::new().open_async(dir)
    }

    /// As [`write`](Engine::write), for a task: no poll waits for the disk, for bytes in flight or for other
    /// writers. The batch is accepted by the first poll, or, where it would have to wait, in its turn on a
    /// thread of the engine; the task is woken when the batch is as durable as asked. Batches that are first
    /// polled one after the other on one thread are accepted in that order.
    ///
    /// Dropped before the batch was accepted, the future takes it along and nothing was written; dropped
    /// later, it changes nothing, as with a [`Ticket`]: a caller that has to know keeps the ticket that
    /// [`submit_async`](Engine::submit_async) gives.
    ///
    /// What a poll does is the work of [`try_submit`](Engine::try_submit): checksums, compression where that
    /// is on, and the listeners, which have to be quick. With
    /// [`Background::Manual`](crate::Background::Manual) there are no threads that would commit: then a poll
    /// does it, and waits.
    ///
    /// # Errors
    /// As [`write`](Engine::write).
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open_async(dir.path()).await?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
    /// let durable = engine.write_async(batch, Durability::Synced).await?;
    /// assert!(engine.durable_lsn() >= durable);
    /// # engine.close_async().await?;
    /// # Ok(()) }
    /// ```
    pub fn write_async(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> impl Future<Output = Result<Lsn, WriteError>> + Send + use<> {
        let submitted = self.submit_async(batch, durability);
        async move {
            let ticket = submitted.await?;
            // A ticket fails only where writing has stopped.
            ticket.await.map_err(WriteError::lost)
        }
    }

    /// As [`submit`](Engine::submit), for a task: it waits for acceptance as
    /// [`write_async`](Engine::write_async) does, and gives the ticket. By then the batch can be read.
    ///
    /// # Errors
    /// As [`submit`](Engine::submit).
    ///
    /// # After a crash
    /// As after [`submit`](Engine::submit). A future that is dropped before it gave the ticket may have been
    /// accepted.
    pub fn submit_async(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> impl Future<Output = Result<Ticket, WriteError>> + Send + use<> {
        let engine = self.clone();
        async move {
            let batch = match engine.submit_in_turn(batch, durability) {
                ControlFlow::Break(submitted) => return submitted,
                ControlFlow::Continue(batch) => batch,
            };
            let waiting = Waiting(Arc::new(Mutex::new(Some(batch))));
            let (promise, later) = promise();
            let place = waiting.0.clone();
            engine.admit(durability, move || place.lock().take(), |submitted| promise.keep(Ok(submitted)));
            drop(engine);
            let submitted = later.await;
            drop(waiting);
            submitted.unwrap_or_else(|error| Err(WriteError::lost(error)))
        }
    }

    /// As [`submit`](Engine::submit), for a caller that must not wait and need not stay: the batch is
    /// accepted at once, or, where it would have to wait, in its turn on a thread of the engine, and `done`
    /// is called with the ticket, or with what it was refused for and the batch. It is called on the calling
    /// thread or on that one, and must be quick: other batches wait for it.
    ///
    /// Batches that are handed over one after the other on one thread are accepted in that order, also those
    /// of [`submit_async`](Engine::submit_async). Unlike there, nothing takes a batch along that waits. Where
    /// `done` panics on a thread of the engine, that ends `done` and nothing else.
    ///
    /// With [`Background::Manual`](crate::Background::Manual) see [`write_async`](Engine::write_async).
    ///
    /// # Errors
    /// `done` is given those of [`submit`](Engine::submit).
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    /// use std::sync::mpsc::channel;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let (send, durable) = channel();
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
    /// engine.submit_then(batch, Durability::Synced, move |submitted| match submitted {
    ///     // It can be read from here on.
    ///     Ok(ticket) => ticket.on_complete(move |outcome| _ = send.send(outcome)),
    ///     Err(refused) => _ = send.send(Err(refused.into_error())),
    /// });
    /// let end = durable.recv()??;
    /// assert!(engine.durable_lsn() >= end);
    /// # Ok(()) }
    /// ```
    ///
    /// # After a crash
    /// As after [`submit`](Engine::submit).
    pub fn submit_then(
        &self,
        batch: WriteBatch,
        durability: Durability,
        done: impl FnOnce(Result<Ticket, WriteError>) + Send + 'static,
    ) {
        match self.submit_in_turn(batch, durability) {
            ControlFlow::Break(submitted) => done(submitted),
            ControlFlow::Continue(batch) => self.admit(durability, move || Some(batch), done),
        }
    }

    /// As [`close`](Engine::close), on a thread of its own. What is dropped after it ended waits for nothing.
    ///
    /// # Errors
    /// As [`close`](Engine::close); `Io` where no thread can be started, and the engine is open still.
    pub fn close_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let engine = self.clone();
        async move { on_its_own("raftwood-close", move || engine.close()).await }
    }

    /// Accepts the batch if that can be done at once, after all that came before. Else it comes back.
    fn submit_in_turn(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> ControlFlow<Result<Ticket, WriteError>, WriteBatch> {
        if self.0.admitting.0.load(Ordering::Acquire) > 0 {
            return ControlFlow::Continue(batch);
        }
        match self.submit_at_once(batch, durability).map_err(WriteError::into_busy) {
            Ok(ticket) => ControlFlow::Break(Ok(ticket)),
            Err(Ok(batch)) => ControlFlow::Continue(batch),
            Err(Err(refused)) => ControlFlow::Break(Err(refused)),
        }
    }

    /// Has a thread of the engine wait until the batch is accepted, if there still is one by then.
    fn admit(
        &self,
        durability: Durability,
        batch: impl FnOnce() -> Option<WriteBatch> + Send + 'static,
        done: impl FnOnce(Result<Ticket, WriteError>) + Send + 'static,
    ) {
        let engine = self.clone();
        let job = move || {
            let one = One(engine.clone());
            if let Some(batch) = batch() {
                let submitted = engine.submit(batch, durability);
                // Before the task knows: its next batch has nothing to go after.
                drop(one);
                done(submitted);
            }
        };
        self.0.admitting.0.fetch_add(1, Ordering::AcqRel);
        self.on_thread(&self.0.admitter, Box::new(job));
    }
}

/// A batch that waits for its turn, and goes with the task that waits for it.
struct Waiting(Arc<Mutex<Option<WriteBatch>>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let batch = self.0.lock().take();
        drop(batch);
    }
}

/// One of [`Admitting`], until it has been accepted or has failed, if by a panic.
struct One(Engine);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.admitting.0.fetch_sub(1, Ordering::AcqRel);
    }
}
