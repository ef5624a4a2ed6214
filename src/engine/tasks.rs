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
use crate::error::{ErrorKind, Result};
use crate::options::Options;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{Durability, Lsn};
use std::fmt;
use std::future::Future;
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
            ticket.await.map_err(|error| WriteError { error, batch: None })
        }
    }

    /// As [`submit`](Engine::submit), for a task: it waits for acceptance as
    /// [`write_async`](Engine::write_async) does, and gives the ticket. By then the batch can be read.
    ///
    /// # Errors
    /// As [`submit`](Engine::submit).
    pub fn submit_async(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> impl Future<Output = Result<Ticket, WriteError>> + Send + use<> {
        let engine = self.clone();
        async move {
            if engine.0.admitting.0.load(Ordering::Acquire) > 0 {
                return engine.admit(batch, durability).await;
            }
            match engine.try_submit(batch, durability) {
                Err(WriteError { error, batch: Some(batch) }) if error.kind() == ErrorKind::WouldBlock => {
                    engine.admit(*batch, durability).await
                }
                submitted => submitted,
            }
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

    /// Has a thread of the engine wait until the batch is accepted.
    fn admit(
        self,
        batch: WriteBatch,
        durability: Durability,
    ) -> impl Future<Output = Result<Ticket, WriteError>> + Send {
        let waiting = Waiting(Arc::new(Mutex::new(Some(batch))));
        let (promise, later) = promise();
        let (engine, place) = (self.clone(), waiting.0.clone());
        let job = move || {
            let one = One(engine.clone());
            let batch = place.lock().take();
            if let Some(batch) = batch {
                let submitted = engine.submit(batch, durability);
                // Before the task knows: its next batch has nothing to go after.
                drop(one);
                promise.keep(Ok(submitted));
            }
        };
        self.0.admitting.0.fetch_add(1, Ordering::AcqRel);
        self.on_thread(&self.0.admitter, Box::new(job));
        drop(self);
        async move {
            let submitted = later.await;
            drop(waiting);
            submitted.unwrap_or_else(|error| Err(WriteError { error, batch: None }))
        }
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
