//! The public face: an open engine.

mod backup;
mod check;
mod deferred;
pub(crate) mod digest;
mod explain;
mod fetch;
mod fetcher;
#[cfg(feature = "serde")]
pub(crate) mod figures;
mod keys;
mod later;
mod open;
pub(crate) mod reader;
pub(crate) mod records;
pub(crate) mod region;
mod repair;
mod restore;
pub(crate) mod retry;
mod rollback;
pub(crate) mod stall;
mod stats;
mod store_lock;
pub(crate) mod tasks;
mod threads;
mod tune;
pub(crate) mod write_batch;
mod write_error;
pub(crate) mod writers;
mod writing;

pub use self::write_error::WriteError;

use crate::commit::Watch;
use crate::engine::fetcher::Fetcher;
use crate::engine::region::Region;
use crate::engine::store_lock::StoreLock;
use crate::engine::threads::Threads;
use crate::engine::write_batch::WriteBatch;
use crate::error::{Error, Result};
use crate::index::RegionCell;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::report::{OpenReport, Pin, PurgeReport, ScrubOptions, ScrubReport};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{LogState, Lsn, RegionId};
use crate::upkeep::Store;
use crate::upkeep::{self, NameWatch};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

/// An open engine. A clone is another handle onto the same one; it is closed by [`close`](Engine::close), or
/// when the last handle (and region) goes. [Tickets](crate::Ticket) and batches do not keep it open.
///
/// It belongs to the process that opened it. In a fork of that process every call answers `Closed`, what has
/// no error to answer with says that there is nothing, and a drop changes nothing.
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
    /// Where batches wait for room whose callers do not.
    admitter: Fetcher,
    admitting: tasks::Admitting,
    writers: Arc<writers::Writers>,
    threads: Threads,
    names: Arc<NameWatch>,
    /// Whether open got to its end. Before that the table lacks what is still to be recovered, so nothing of
    /// it may be written to a checkpoint.
    is_whole: AtomicBool,
    /// How closing it ended, once it has. Held by the thread that closes it.
    closing: Mutex<Option<Result<()>>>,
    /// Released when the engine is closed.
    lock: Mutex<Option<StoreLock>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("dir", &self.store().dir).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine in `dir` with the default [`Options`], and recovers what is there.
    ///
    /// ```
    /// use raftwood::{Engine, ErrorKind};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?; // makes a store where there is none
    /// assert!(engine.open_report().created);
    /// // One engine a store, also within a process.
    /// assert_eq!(Engine::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    ///
    /// engine.close()?;
    /// assert!(!Engine::open(dir.path())?.open_report().created);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`].
    ///
    /// # After a crash
    /// Every batch that was acknowledged is there, whole. Of those that were accepted and not acknowledged a
    /// prefix is there, in the order of their positions, and durable before this returns. A crash meanwhile
    /// leaves a store that opens to the same.
    pub fn open(dir: impl AsRef<Path>) -> Result<Engine> {
        Options::new().open(dir)
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// The directory of the store, by the path that it was opened with.
    pub fn dir(&self) -> &Path {
        self.store().dir.path()
    }

    /// What opening found and did.
    pub fn open_report(&self) -> &OpenReport {
        &self.0.report
    }

    /// The number of this run of the engine on its store. A run that writes has a higher number than
    /// all runs before it.
    pub fn run(&self) -> u64 {
        u64::from(self.store().run.number)
    }

    /// Runs with a number below this one were followed by an unclean end (a kill, a crash, a power cut):
    /// what they accepted and did not acknowledge may be gone, although others may have seen it. 0 if
    /// every run so far was closed.
    pub fn unclean_before(&self) -> u64 {
        u64::from(self.store().run.unclean_before)
    }

    /// An empty batch.
    ///
    /// [`WriteBatch`] and [`RegionBatch`](crate::RegionBatch) say what can be added. It is for this engine
    /// and no other.
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new(self.store().table.clone())
    }

    /// Makes everything accepted so far durable, and returns up to where that is.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Written)?;
    /// engine.append_next(RegionId(9), ["set y 1"], Durability::Written)?;
    /// let durable = engine.sync()?; // once for both
    /// assert_eq!(engine.durable_lsn(), durable);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Poisoned` with the first cause when an I/O error has stopped all writing, this sync's own included:
    /// whether what was not durable before survives a crash is then unknown. `Closed` when the engine is
    /// closed. `NoSpace`, `Io` when a segment that the log needs could not be prepared.
    pub fn sync(&self) -> Result<Lsn> {
        self.store().check_process()?;
        self.store().committer.check_open()?;
        Ok(self.store().committer.sync()?)
    }

    /// Everything before this position is on the device.
    pub fn durable_lsn(&self) -> Lsn {
        self.store().committer.durable()
    }

    /// Shows how the log goes on from now on: how far it is durable, and which entries and regions it takes
    /// back. For a cache of what was read, for what is streamed to others, to wait for a position that others
    /// write. The kin of [`Reader::follow`](crate::Reader::follow), which shows the records
    /// themselves, from another process too.
    ///
    /// A change is shown once the batch is accepted, as reads see it, and its position says when it is
    /// durable: [`Change::Durable`](crate::Change::Durable) follows it. Nothing that a watcher does holds up
    /// those who write: [4,096 changes](crate::limits::WATCHED_CHANGES_MAX) are kept for one that is slow,
    /// and of the rest it is shown [how many it missed](crate::Change::Missed). Where nobody watches, a
    /// write pays one look at a number.
    ///
    /// # Errors
    /// `Closed` when the engine is closed.
    ///
    /// ```
    /// use raftwood::{Change, Durability, Engine, EntryId, RegionId};
    /// use std::collections::BTreeMap;
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let region = RegionId(7);
    /// engine.append_next(region, ["x", "y", "z"], Durability::Synced)?;
    ///
    /// // Taken after the watch began: nothing that changes meanwhile goes past it.
    /// let mut watch = engine.watch()?;
    /// let mut cache: BTreeMap<u64, _> =
    ///     engine.region(region).entries(.., raftwood::ReadLimit::NONE)?.into_iter().map(|e| (e.id.index, e)).collect();
    ///
    /// let mut batch = engine.batch();
    /// batch.region(region).append([(EntryId::new(2, 2), &b"Y"[..])])?; // another leader's
    /// let written = engine.write(batch, Durability::Synced)?;
    ///
    /// while watch.durable() < written {
    ///     match watch.next_within(Duration::from_secs(10))? {
    ///         Some(Change::Truncated { first, last, .. }) => cache.retain(|i, _| !(first..=last).contains(i)),
    ///         Some(Change::Reset { .. } | Change::Destroyed { .. } | Change::Missed { .. }) => cache.clear(),
    ///         Some(_) => {}
    ///         None => break,
    ///     }
    /// }
    /// assert_eq!(cache.keys().copied().collect::<Vec<_>>(), [1]);
    /// # Ok(()) }
    /// ```
    pub fn watch(&self) -> Result<Watch> {
        self.store().check_process()?;
        Watch::new(&self.store().committer)
    }

    /// Whether the first I/O error has stopped all writing. Listeners were notified of it
    /// ([`Event::Poisoned`](crate::Event::Poisoned)), every write says the cause, and reads go on.
    pub fn is_poisoned(&self) -> bool {
        self.store().committer.gate().is_shut()
    }

    /// The region of this id, whether it exists or not.
    ///
    /// Making it reads nothing and changes nothing. [`Region`] has an example of each read.
    pub fn region(&self, id: RegionId) -> Region {
        Region::new(self.clone(), id)
    }

    /// The regions that exist, sorted.
    pub fn regions(&self) -> Vec<RegionId> {
        if self.store().check_process().is_err() {
            return Vec::new();
        }
        let cells = self.store().table.cells();
        let mut ids: Vec<RegionId> = cells.filter(|c| c.read().exists).map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Hands each region that exists to `visit`, with its log as it stands by then, until it breaks, and
    /// returns what it broke with. In no order; no list of all is made, and no lock is held while `visit`
    /// runs: it may call the engine.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    /// use std::ops::ControlFlow;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// for region in 1..=5 {
    ///     engine.append_next(RegionId(region), vec!["x"; region as usize], Durability::Written)?;
    /// }
    /// // Cut what is long.
    /// let mut batch = engine.batch();
    /// engine.for_each_region(|region, log| {
    ///     if log.last - log.first >= 3 {
    ///         batch.region(region).compact_to(log.last - 2);
    ///     }
    ///     ControlFlow::<()>::Continue(())
    /// });
    /// assert_eq!(engine.write_outcome(batch, Durability::Written)?.compactions.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn for_each_region<T>(
        &self,
        mut visit: impl FnMut(RegionId, LogState) -> ControlFlow<T>,
    ) -> Option<T> {
        if self.store().check_process().is_err() {
            return None;
        }
        let durable = self.durable_lsn();
        let look = |cell: &RegionCell| {
            let state = cell.read();
            state.exists.then(|| state.log_state(cell.id, durable))
        };
        for cell in self.store().table.cells() {
            if let Some(log) = look(&cell)
                && let ControlFlow::Break(found) = visit(cell.id, log)
            {
                return Some(found);
            }
        }
        None
    }

    /// Gives back all the space that can be given back now: seals, cleans, checkpoints, and
    /// removes or recycles what is dead. Regions that were destroyed leave the memory too. Works
    /// on a full disk and beside writers.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append((1..=9).map(|index| (EntryId::new(1, index), &[0; 1000][..])))?;
    /// batch.region(RegionId(7)).compact_through(9)?;
    /// engine.write(batch, Durability::Synced)?;
    /// println!("{:?}", engine.purge()?);
    /// assert!(engine.pins(10).is_empty(), "nobody holds anything");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NoSpace`, `Io` from the operating system: what was given back by then stays given back, and another
    /// call goes on. `Poisoned` where something has to be written and an I/O error has stopped all writing;
    /// `Closed` when the engine is closed. Damaged entries are none: they stay where they are.
    ///
    /// # After a crash
    /// No entry, hard state or key is lost by it, at whichever call it is interrupted: a file goes only once
    /// a durable checkpoint or cold segment stands for what lived in it. What was given back and is found
    /// again by the next open is removed then.
    pub fn purge(&self) -> Result<PurgeReport> {
        self.store().check_process()?;
        upkeep::purge(self.store())
    }

    /// Who holds disk space: regions whose entries keep the oldest segments alive, oldest first. Compacting
    /// them gives space back without copying.
    ///
    /// Costs a step for each region that the oldest segments were written by, as many segments as it takes to
    /// find `limit` regions that hold them; all regions are looked at only where that leads to segments that
    /// are not sealed yet.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = raftwood::Engine::open(dir.path())?;
    /// // Regions to be compacted, by force if need be: they hold a segment that is old and mostly garbage.
    /// let pins = engine.pins(usize::MAX);
    /// let urgent = pins.iter().filter(|pin| pin.age > 8 && pin.garbage_percent > 50);
    /// urgent.for_each(|pin| println!("region {} holds segment {}", pin.region, pin.oldest_segment));
    /// # Ok(()) }
    /// ```
    pub fn pins(&self, limit: usize) -> Vec<Pin> {
        if self.store().check_process().is_err() {
            return Vec::new();
        }
        self.store().pins(limit)
    }

    /// Reads every live entry from its file and verifies it, and the footers too. What is damaged is noted in
    /// its region, delivered to the listeners, and listed; footers are rebuilt. So are checkpoints, and what
    /// lives in a segment whose headers or descriptions have rotted is moved, before anything needs them.
    /// Runs beside everything else, at a limited rate; [`Options::scrub_every`] does it in the background.
    ///
    /// # Errors
    /// `Closed` when the engine is closed meanwhile, `Io` from the operating system. What is
    /// found is no error.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = raftwood::Engine::open(dir.path())?;
    /// // At night, at a rate that nobody feels.
    /// let found = engine.scrub(&raftwood::ScrubOptions::default().rate_bytes(32 << 20))?;
    /// found.damage.iter().for_each(|error| eprintln!("fetch this from a replica: {error}"));
    /// # Ok(()) }
    /// ```
    pub fn scrub(&self, options: &ScrubOptions) -> Result<ScrubReport> {
        self.store().check_process()?;
        upkeep::scrub(self.store(), options)
    }

    /// Does what threads of the engine would do in the background: for
    /// [`Background::Manual`](crate::Background::Manual).
    ///
    /// ```
    /// use raftwood::{Background, Durability, Options, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().background(Background::Manual).open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Written)?;
    /// engine.tick()?; // every 100 ms or so
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the threads would have reported as an [event](crate::Event::BackgroundFailed): `NoSpace`, `Io`,
    /// `Damaged`. The next call tries again. `Closed` when the engine is closed, `Poisoned` when an I/O error
    /// has stopped all writing.
    pub fn tick(&self) -> Result<()> {
        let store = self.store();
        store.check_process()?;
        // Of what other threads wait for; where this one waits, nobody reports it.
        threads::look_around(store);
        let in_place = self.0.names.look(store);
        store.committer.drain();
        store.committer.prepare()?;
        upkeep::upkeep(store)?;
        upkeep::clean_if_due(store)?;
        store.note_mark()?;
        in_place
    }

    /// Refuses further batches, makes everything accepted durable, seals the log where it ends, and
    /// writes a checkpoint, so that the next open has nothing to replay; then gives back what nothing
    /// needs. A run that wrote nothing writes nothing here, unless the run before it was not closed. On
    /// a full disk the reserve is spent for it. Later calls of any handle fail with `Closed`, but for
    /// reads of what was there. The store can be opened again at once, also while handles and entries of
    /// this engine are alive. Closing twice is fine: while one call is closing, others wait for it, and
    /// each returns what it came to.
    ///
    /// # Errors
    /// What could not be made durable or checkpointed; the engine is closed all the same. `InvalidArgument`
    /// in a callback or listener on a thread that another call of `close` is waiting for.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ErrorKind, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Written)?;
    /// engine.close()?; // durable now
    /// let refused = engine.append_next(RegionId(7), ["set x 2"], Durability::Written);
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    /// assert_eq!(Engine::open(dir.path())?.region(RegionId(7)).last_index(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # After a crash
    /// One while this runs leaves what one without it would have left: all that was acknowledged. The next
    /// open then has more to replay.
    pub fn close(&self) -> Result<()> {
        self.0.shut_down()
    }
}

impl Inner {
    /// Closes once; a second caller waits for the first, and both have the same outcome.
    fn shut_down(&self) -> Result<()> {
        self.store.check_process()?;
        let mut closing = match self.closing.try_lock() {
            Some(closing) => closing,
            None if self.is_awaited() => {
                return Err(Error::invalid(
                    "another call of close() waits for this callback or listener to end, which cannot wait for it in turn",
                ));
            }
            None if planted(Bug::SecondCloseDoesNotWait) => return Ok(()),
            None => self.closing.lock(),
        };
        if let Some(outcome) = &*closing {
            return outcome.clone();
        }
        self.threads.closing();
        let outcome = self.end();
        *closing = Some(outcome.clone());
        outcome
    }

    /// Whether a thread that closes the engine may be waiting for the one that calls this.
    fn is_awaited(&self) -> bool {
        let waiting = self.fetcher.is_mine() || self.admitter.is_mine();
        waiting || self.threads.is_mine() || self.store.turns.upkeep.is_mine()
    }

    fn end(&self) -> Result<()> {
        let store = &self.store;
        store.committer.refuse();
        // This may be a listener of the thread that has the turn, and waits for threads that wait for theirs.
        store.turns.copying.end();
        store.turns.upkeep.end();
        self.threads.stop_upkeep();
        store.committer.close();
        // What was lost from the directory poisons, and the close says so.
        let _ = self.names.look(store);
        // A thread that copies notices soon, and leaves no trace.
        store.turns.copying.close();
        let outcome = upkeep::close(store, self.is_whole.load(Ordering::Acquire));
        self.threads.stop_all();
        self.fetcher.stop();
        self.admitter.stop();
        drop(self.lock.lock().take());
        outcome
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.store.check_process().is_err() {
            // A fork's copy: the log, the locks and the threads are its parent's. What is
            // dropped next closes descriptors.
            self.threads.forget();
            self.fetcher.forget();
            self.admitter.forget();
            return;
        }
        // Nobody is left to be notified of an error; recovery copes with whatever was not finished.
        let _ = self.shut_down();
    }
}
