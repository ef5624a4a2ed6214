//! The public face: an open engine.

mod backup;
pub(crate) mod batch;
mod check;
pub(crate) mod digest;
mod fetch;
pub(crate) mod listener;
mod open;
pub(crate) mod options;
pub(crate) mod reader;
pub(crate) mod region;
pub(crate) mod report;
mod threads;

use crate::commit::{Accept, Encoded, OnFull, Ticket};
use crate::engine::batch::{Remains, WriteBatch};
use crate::engine::fetch::Fetcher;
use crate::engine::listener::Rollback;
use crate::engine::region::Region;
use crate::engine::report::{OpenReport, Pin, PurgeReport, ScrubOptions, ScrubReport, Stats};
use crate::engine::threads::Threads;
use crate::error::{Error, ErrorKind, Result};
use crate::format::names::FileName;
use crate::index::Doomed;
use crate::store::{Store, lock};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{Durability, Entry, Lsn, ReadLimit, RegionId};
use crate::{Options, purge};
use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;

/// An open engine. A clone is another handle onto the same one; it is closed by [`close`](Engine::close), or when the
/// last handle (and ticket, and region) goes.
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, EntryRef, ReadLimit, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut batch = engine.batch();
/// let entries = [
///     EntryRef { id: EntryId::new(1, 1), payload: b"set x 1" },
///     EntryRef { id: EntryId::new(1, 2), payload: b"set x 2" },
/// ];
/// batch.region(RegionId(7)).append(entries)?.set_hard_state(b"term 1, voted for 3")?;
/// engine.write(batch, Durability::Synced)?;
///
/// let tail = engine.region(RegionId(7)).entries(2.., ReadLimit::bytes(1 << 20))?;
/// assert_eq!(&tail[0].payload[..], b"set x 2");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    report: OpenReport,
    fetcher: Fetcher,
    #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
    waiter: Fetcher,
    threads: Threads,
    /// Whether open got to its end. Before that the table lacks what is still to be recovered, so nothing of it may be
    /// written to a checkpoint.
    is_whole: AtomicBool,
    /// Released when the engine is closed.
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("dir", &self.store().dir).finish_non_exhaustive()
    }
}

/// A refused or failed write, with the batch to try again where it was refused.
pub struct WriteError {
    error: Error,
    batch: Option<Box<WriteBatch>>,
}

impl WriteError {
    /// Why.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What code can act on.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The batch, as it was, if it was refused before anything of it was accepted.
    pub fn into_batch(self) -> Option<WriteBatch> {
        self.batch.map(|b| *b)
    }

    /// Why, without the batch.
    pub fn into_error(self) -> Error {
        self.error
    }
}

impl fmt::Debug for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<WriteError> for Error {
    fn from(e: WriteError) -> Error {
        e.error
    }
}

impl Engine {
    /// Opens the engine in `dir` with the default [`Options`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Engine> {
        Options::new().open(dir)
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// What opening found and did.
    pub fn open_report(&self) -> &OpenReport {
        &self.0.report
    }

    /// An empty batch.
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new(self.store().table.clone())
    }

    /// Writes a batch and returns when it is as durable as asked: after a crash all of it is there.
    ///
    /// The caller's own thread does the work, together with whoever else is writing. An empty batch with
    /// `Durability::Synced` is a [`sync`](Engine::sync).
    ///
    /// # Errors
    /// `Gap`, `Compacted`, `TermRegression`, `Unavailable`, `Refused`, `NoSpace`: nothing was written, and the batch
    /// comes back with the error. `Poisoned`: an I/O error stopped all writing; whether this batch survives a crash is
    /// unknown.
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<Lsn, WriteError> {
        self.send(
            batch,
            durability,
            OnFull::Wait,
            |encoded, how| self.store().committer.write(encoded, how),
            || match durability {
                Durability::Synced => self.sync(),
                Durability::Written => self.store().committer.barrier(durability)?.wait(),
            },
        )
    }

    /// Accepts a batch and returns: it can be read at once, and its ticket tells when it is as durable as asked. Blocks
    /// while more than `in_flight_bytes_max` are on their way.
    ///
    /// # Errors
    /// As [`write`](Engine::write); errors after acceptance come through the ticket.
    pub fn submit(&self, batch: WriteBatch, durability: Durability) -> Result<Ticket, WriteError> {
        self.submit_how(batch, durability, OnFull::Wait)
    }

    /// As [`submit`](Engine::submit), but `WouldBlock` instead of waiting for bytes in flight, or for the next segment to be
    /// prepared.
    pub fn try_submit(&self, batch: WriteBatch, durability: Durability) -> Result<Ticket, WriteError> {
        self.submit_how(batch, durability, OnFull::Fail)
    }

    fn submit_how(
        &self,
        batch: WriteBatch,
        durability: Durability,
        on_full: OnFull,
    ) -> Result<Ticket, WriteError> {
        let committer = &self.store().committer;
        self.send(
            batch,
            durability,
            on_full,
            |encoded, how| committer.submit(encoded, how),
            || committer.barrier(durability),
        )
    }

    fn send<T>(
        &self,
        batch: WriteBatch,
        durability: Durability,
        on_full: OnFull,
        send: impl FnOnce(&Encoded, &Accept<'_>) -> Result<T>,
        empty: impl FnOnce() -> Result<T>,
    ) -> Result<T, WriteError> {
        if batch.is_empty() {
            return empty().map_err(|error| WriteError { error, batch: Some(Box::new(batch)) });
        }
        let (encoded, remains): (Encoded, Remains) = batch.encode(self.store().options.compression);
        let ask = |doomed: &[Doomed]| self.before_rollback(doomed);
        let listened = !self.store().shared.listeners().is_empty();
        let how = Accept {
            durability,
            on_full,
            checked: true,
            before_rollback: if listened { Some(&ask) } else { None },
        };
        send(&encoded, &how).map_err(|error| {
            // Whatever goes wrong once a batch is accepted poisons the log.
            let refused = error.kind() != ErrorKind::Poisoned;
            let batch = refused.then(|| Box::new(remains.restore(encoded)));
            WriteError { error, batch }
        })
    }

    fn before_rollback(&self, doomed: &[Doomed]) -> Result<()> {
        for d in doomed {
            let rollback = Rollback { engine: self, region: d.region, first: d.first, last: d.last };
            for listener in self.store().shared.listeners() {
                listener.before_rollback(&rollback).map_err(|e| {
                    Error::new(
                        ErrorKind::Refused,
                        format!(
                            "a listener refused to discard entries {}..={}: {e}; nothing was written",
                            d.first, d.last
                        ),
                    )
                    .in_region(d.region)
                    .caused_by(e)
                })?;
            }
        }
        Ok(())
    }

    /// Makes everything accepted so far durable, and returns up to where that is.
    pub fn sync(&self) -> Result<Lsn> {
        self.store().committer.sync()
    }

    /// Everything before this position is on the device.
    pub fn durable_lsn(&self) -> Lsn {
        self.store().committer.durable()
    }

    /// The region of this id, whether it exists or not.
    pub fn region(&self, id: RegionId) -> Region {
        Region::new(self.clone(), id)
    }

    /// The regions that exist, sorted.
    pub fn regions(&self) -> Vec<RegionId> {
        let cells = self.store().table.cells();
        let mut ids: Vec<RegionId> = cells.filter(|c| c.read().exists).map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Reads entries on a thread of the engine and hands them to `done`.
    pub fn fetch(
        &self,
        id: RegionId,
        range: impl RangeBounds<u64>,
        limit: ReadLimit,
        done: impl FnOnce(Result<Vec<Entry>>) + Send + 'static,
    ) {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let region = self.region(id);
        self.0.fetcher.run(Box::new(move || done(region.entries(range, limit))));
    }

    /// Does `job` on one of the threads that [`fetch`](Engine::fetch) reads on.
    #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
    pub(crate) fn on_io_thread(&self, job: impl FnOnce() + Send + 'static) {
        self.0.fetcher.run(Box::new(job));
    }

    /// Does `job`, which may wait for the device, on a thread of the engine that reads do not wait for. One after the other.
    #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
    pub(crate) fn on_waiting_thread(&self, job: impl FnOnce() + Send + 'static) {
        self.0.waiter.run(Box::new(job));
    }

    /// Gives back all the space that can be given back now: seals, cleans, checkpoints, and removes or recycles what
    /// is dead. Works on a full disk and beside writers.
    pub fn purge(&self) -> Result<PurgeReport> {
        purge::purge(self.store())
    }

    /// Who holds disk space: regions whose entries keep the oldest segments alive, oldest first. Compacting them gives
    /// space back without copying.
    pub fn pins(&self, limit: usize) -> Vec<Pin> {
        let mut pins: Vec<Pin> = self
            .store()
            .table
            .cells()
            .filter_map(|cell| {
                let state = cell.read();
                let oldest = state.extents.iter().map(|e| e.segment.id).min()?;
                Some(Pin {
                    region: cell.id,
                    oldest_segment: oldest,
                    first: state.first()?,
                    last: state.last()?,
                    bytes: state.extents.iter().map(|e| e.bytes).sum(),
                })
            })
            .collect();
        pins.sort_by_key(|p| (p.oldest_segment, std::cmp::Reverse(p.bytes), p.region));
        pins.truncate(limit);
        pins
    }

    /// Reads every live entry from its file and verifies it, and the footers too. What is damaged is noted in its region,
    /// told to the listeners, and listed; footers are built anew. So are checkpoints, and what lives in a segment whose headers
    /// or descriptions have rotted is moved, before anything needs them. Runs beside everything else, at a limited rate;
    /// [`Options::scrub_every`] does it in the background.
    ///
    /// # Errors
    /// `Closed` when the engine is closed meanwhile, `Io` from the operating system. What is found is no error.
    pub fn scrub(&self, options: &ScrubOptions) -> Result<ScrubReport> {
        purge::scrub(self.store(), options)
    }

    /// The engine in figures. Walks all regions: not for a hot path.
    pub fn stats(&self) -> Stats {
        let store = self.store();
        let c = &store.committer.counters;
        let (active, _) = store.committer.active();
        let mut stats = Stats {
            accepted: store.committer.accepted(),
            durable: store.committer.durable(),
            batches: c.batches.load(Ordering::Relaxed),
            entries: c.entries.load(Ordering::Relaxed),
            batch_bytes: c.record_bytes.load(Ordering::Relaxed),
            payload_bytes: c.payload_bytes.load(Ordering::Relaxed),
            writes: c.writes.load(Ordering::Relaxed),
            written_bytes: c.written_bytes.load(Ordering::Relaxed),
            syncs: c.syncs.load(Ordering::Relaxed),
            filled_bytes: store.factory.filled_bytes.load(Ordering::Relaxed),
            cleaned_bytes: store.cleaned_bytes.load(Ordering::Relaxed),
            upkeep_bytes: store.upkeep_bytes.load(Ordering::Relaxed),
            index_bytes: store.table.heap_bytes() as u64,
            ..Stats::default()
        };
        stats.pool_bytes = store.factory.free_bytes() + store.committer.ready_bytes();
        let checkpoints: u64 = lock(&store.checkpoints).kept.iter().map(|k| k.bytes).sum();
        stats.disk_bytes = stats.pool_bytes + active.len + checkpoints;
        let sealed = store.shared.segments();
        stats.segments = sealed.len() as u64 + u64::from(!sealed.iter().any(|s| s.id == active.id));
        stats.live_entries = active.live_entries();
        stats.live_bytes = active.live_bytes();
        for s in sealed.iter().filter(|s| s.id != active.id) {
            stats.disk_bytes += s.len + s.footer().map_or(0, |f| f.len());
            stats.live_entries += s.live_entries();
            stats.live_bytes += s.live_bytes();
        }
        stats.regions = store.table.cells().filter(|c| c.read().exists).count() as u64;
        stats
    }

    /// Does what threads of the engine would do in the background: for [`Background::Manual`](crate::Background::Manual).
    pub fn tick(&self) -> Result<()> {
        let store = self.store();
        store.committer.drain();
        threads::prepare_segments(store)?;
        purge::upkeep(store)?;
        store.committer.note_watermark()
    }

    /// Makes everything durable, writes a checkpoint so that the next open has little to do, and stops. Later calls of
    /// any handle fail with `Closed`, but for reads of what was there. The store can be opened again at once, also while
    /// handles and entries of this engine are alive. Closing twice is fine.
    ///
    /// # Errors
    /// What could not be made durable or checkpointed; the engine is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.0.shut_down()
    }
}

impl Inner {
    fn shut_down(&self) -> Result<()> {
        if !self.threads.stop_upkeep() {
            return Ok(());
        }
        let store = &self.store;
        let mut outcome = store.committer.gate().check();
        if outcome.is_ok() && self.is_whole.load(Ordering::Acquire) {
            outcome = store.committer.sync().map(drop).and_then(|()| {
                let _one = store.upkeep.lock()?;
                purge::seal_due(store)?;
                purge::checkpoint(store)?;
                store.committer.note_watermark()
            });
        }
        store.committer.close();
        self.threads.stop_all();
        self.fetcher.stop();
        #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
        self.waiter.stop();
        drop(lock(&self.lock).take());
        outcome
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; recovery copes with whatever was not finished.
        let _ = self.shut_down();
    }
}

/// The path of the lock file.
pub(crate) fn lock_path(dir: &Path) -> std::path::PathBuf {
    dir.join(FileName::Lock.to_string())
}
