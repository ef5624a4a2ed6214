//! Reads for who must not wait for the device, and other work on the threads that do them.

use super::Engine;
use super::fetcher::Fetcher;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Entry, ReadLimit, RegionId};
use std::ops::RangeBounds;

impl Engine {
    /// Reads entries on a thread of the engine and hands them to `done`: for a caller that must not wait for
    /// the device, as a task of a runtime. [`Options::fetch_threads`](crate::Options::fetch_threads) says how
    /// many threads read.
    ///
    /// The call never blocks. At most [`Options::fetch_queue_max`](crate::Options::fetch_queue_max) fetches
    /// wait for a thread; beyond that `done` is called at once, on the calling thread, with `WouldBlock`: ask
    /// again once others were answered. So it is, with what the read comes to, where there is no thread to be
    /// had. Hold no lock across the call that `done` takes.
    ///
    /// # Errors
    /// `done` is given `WouldBlock` at the bound, `Closed` when the engine is closed or this is a fork of its
    /// process, and else what [`Region::entries`](crate::Region::entries) answers.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ErrorKind, ReadLimit, RegionId};
    /// use std::sync::mpsc::channel;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["x", "y"], Durability::Synced)?;
    /// let (send, receive) = channel();
    /// engine.fetch(RegionId(7), .., ReadLimit::bytes(1 << 20), move |read| _ = send.send(read));
    /// match receive.recv()? {
    ///     Ok(entries) => assert_eq!(entries.len(), 2),
    ///     Err(busy) if busy.kind() == ErrorKind::WouldBlock => {} // later
    ///     Err(other) => return Err(other.into()),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn fetch(
        &self,
        id: RegionId,
        range: impl RangeBounds<u64>,
        limit: ReadLimit,
        done: impl FnOnce(Result<Vec<Entry>>) + Send + 'static,
    ) {
        let Some(place) = self.0.fetcher.reserve() else {
            return done(Err(self.crowded().in_region(id)));
        };
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let region = self.region(id);
        let job = move || {
            drop(place);
            done(region.entries(range, limit));
        };
        self.on_thread(&self.0.fetcher, Box::new(job));
    }

    fn crowded(&self) -> Error {
        let max = self.0.fetcher.queue_max();
        Error::new(
            ErrorKind::WouldBlock,
            format!(
                "{max} fetches wait for a thread already (Options::fetch_queue_max): try again once others were answered"
            ),
        )
    }

    /// Does `job` on one of the threads that [`fetch`](Engine::fetch) reads on. It is never refused: a task
    /// waits for it, and has no other.
    pub(super) fn on_io_thread(&self, job: impl FnOnce() + Send + 'static) {
        let place = self.0.fetcher.place();
        let job = move || {
            drop(place);
            job();
        };
        self.on_thread(&self.0.fetcher, Box::new(job));
    }

    /// In a fork of the process there are no threads: what `job` asks of the engine is answered with
    /// `Closed` at once.
    pub(super) fn on_thread(&self, fetcher: &Fetcher, job: Box<dyn FnOnce() + Send>) {
        match self.store().check_process() {
            Ok(()) => fetcher.run(job),
            Err(_) => job(),
        }
    }
}
