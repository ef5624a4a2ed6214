//! How an engine is opened.

#[cfg(feature = "serde")]
mod config;
mod tuned;

pub(crate) use tuned::Tuned;

use crate::error::{Error, Result};
use crate::limits::{PAGE, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::listener::EventListener;
use crate::report::ScrubOptions;
use crate::salt::SaltSource;
use crate::types::RollbackScope;
use crate::vfs::{OsVfs, Vfs};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The first segment of an open that finds no free file. Small, so that opening never waits for a large fill;
/// the following ones grow fourfold up to the configured size, so that small stores stay small.
pub(crate) const STARTER_BYTES: u64 = 4 << 20;

/// More threads than any device answers reads at once: a larger number is a mistake.
const FETCH_THREADS_MAX: usize = 1024;

/// Whether payloads are compressed on their way to the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Store payloads as they come. Reads copy nothing. The default: on a disk that takes more than about
    /// half a gigabyte a second, compressing costs more time than it saves.
    #[default]
    None,
    /// LZ4, in blocks of at most 16 KiB, for batches with at least this many payload bytes, and each
    /// block only if it shrinks by an eighth. Costs about 2 microseconds a KiB in the writing thread; a
    /// read decompresses one block.
    ///
    /// It also raises what damage costs: one flipped bit in a compressed block costs all its entries, up to
    /// 16 KiB of them, where it costs one entry uncompressed. They are entries that one batch appended to one
    /// region: a block ends where the next region's entries begin.
    Lz4 {
        /// Batches with fewer payload bytes are stored as they come.
        min_batch_bytes: usize,
    },
}

/// The pool of files that are written with zeros before they are used.
///
/// An append that overwrites blocks the file already has needs no metadata to be journaled with its sync; on
/// a journaling file system that makes small synced appends about three times as fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    pub(crate) files_max: usize,
    pub(crate) prewrite: bool,
}

impl Default for Pool {
    fn default() -> Self {
        Pool { files_max: 12, prewrite: true }
    }
}

impl Pool {
    /// How many files may lie ready or free, the next segment included: the cap on recycled files. As many
    /// are kept as were used between two times that segments became free, three at least, and three once a
    /// store that was written to is closed or idle for a minute. Default 12; at least 1.
    pub fn files_max(mut self, files: usize) -> Pool {
        self.files_max = files.max(1);
        self
    }

    /// Whether new files are filled with zeros (in the background, while the file before is used). Switch it
    /// off on copy-on-write file systems, where an overwrite allocates anyway, and in tests. Default true.
    pub fn prewrite(mut self, yes: bool) -> Pool {
        self.prewrite = yes;
        self
    }
}

/// When space is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purge {
    pub(crate) background: bool,
    pub(crate) garbage_percent_max: u8,
    pub(crate) rate_bytes: u64,
}

impl Default for Purge {
    fn default() -> Self {
        Purge { background: true, garbage_percent_max: 50, rate_bytes: 256 << 20 }
    }
}

impl Purge {
    /// Whether a thread of the engine purges as segments fill. Without it, call
    /// [`Engine::purge`](crate::Engine::purge). Default true.
    pub fn background(mut self, yes: bool) -> Purge {
        self.background = yes;
        self
    }

    /// The share of the sealed segments' bytes that may be garbage before the cleaner moves what lives in the
    /// worst of them. Lower saves disk and writes more. Default 50, between 10 and 95.
    pub fn garbage_percent_max(mut self, percent: u8) -> Purge {
        self.garbage_percent_max = percent.clamp(10, 95);
        self
    }

    /// How many bytes a second the cleaner may move in the background. Nothing waits for it meanwhile: a
    /// [`purge`](crate::Engine::purge) or [`repair`](crate::Region::repair) lets it finish its segment
    /// without a limit, and a close ends it. Default 256 MiB, at least 1 MiB.
    pub fn rate_bytes(mut self, bytes_per_second: u64) -> Purge {
        self.rate_bytes = bytes_per_second.max(1 << 20);
        self
    }
}

/// How sealed and active segments are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a shared read-only mapping: nothing is copied. A device error while a page is faulted in, or a
    /// file that somebody shortens behind the engine's back, is a signal (SIGBUS) to the process.
    #[default]
    Map,
    /// With positional reads into buffers: about a microsecond more an entry; a device error is an
    /// error of that read.
    Pread,
}

/// Who does what is not on the path of a write: preparing segments, sealing, checkpoints, purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Background {
    /// Threads of the engine.
    #[default]
    Threads,
    /// Nobody, until [`Engine::tick`](crate::Engine::tick) is called. For tests that must be deterministic,
    /// and for programs that bring their own threads.
    Manual,
}

/// What open does with an end of the log that is wrong.
///
/// | the end of the log                                            | `Prove`  | `AssumeTorn` | `AcceptLoss` |
/// |---------------------------------------------------------------|----------|--------------|--------------|
/// | torn, visibly                                                 | dropped  | dropped      | dropped      |
/// | doubtful, and it says what it was: payloads are wrong         | [suspect](crate::Health::Suspect) | dropped | suspect |
/// | doubtful, and unreadable                                      | refused  | dropped      | dropped      |
/// | acknowledged for certain, and unreadable or missing           | refused  | refused      | dropped      |
/// | not known: the mark of a store that was not closed is missing | refused  | refused      | taken as it is |
/// | no checkpoint is left, and the log has gaps                   | refused  | refused      | what stands before the last gap is given up |
///
/// A refused open has changed nothing. What is dropped other than as torn is a loss, and every
/// region says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum TailPolicy {
    /// Believe a tear only on evidence (a sector that is still zero or of the file's older generation, or the
    /// file ends inside). Otherwise entries are fenced, or open refuses and names the bytes. The default.
    #[default]
    Prove,
    /// Judge it torn: drop it. Only after you decided so for this store. Where nothing proves that it was
    /// torn, the newest vote of any region may have been in it: then every region's [`Health`](crate::Health)
    /// says that its hard state is lost, in later runs too, until the region sets one. A region that was
    /// created in what was dropped is not there at all.
    AssumeTorn,
    /// End the log before the first record that cannot be read, also where a later one proves that it was
    /// acknowledged: the batches from there on are gone, in all their regions. The last resort for a store
    /// that refuses to open, with replicas that still have everything. As with `AssumeTorn` every region's
    /// hard state counts as lost from then on: none may vote before it was given a hard state known from
    /// elsewhere, and none has all the entries that it had promised to have, so the safe way on is to let
    /// this node's replicas join anew. What is known to be gone is in
    /// [`OpenReport::damage`](crate::OpenReport::damage).
    AcceptLoss,
}

/// Options of an engine, in the manner of `std::fs::OpenOptions`.
///
/// ```
/// use raftwood::{Compression, Options, Pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let options = Options::new()
///     .segment_bytes(16 << 20)
///     .pool(Pool::default().files_max(4))
///     .compression(Compression::Lz4 { min_batch_bytes: 4096 });
/// let engine = options.open(dir.path())?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) segment_bytes: u64,
    pub(crate) compression: Compression,
    pub(crate) pool: Pool,
    pub(crate) purge: Purge,
    pub(crate) read_mode: ReadMode,
    pub(crate) tail_policy: TailPolicy,
    pub(crate) background: Background,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) stall_after: Duration,
    pub(crate) fetch_threads: usize,
    pub(crate) fetch_queue_max: usize,
    pub(crate) scrub: Option<(Duration, ScrubOptions)>,
    pub(crate) must_exist: bool,
    pub(crate) show_unproven: bool,
    /// 0 is none.
    pub(crate) disk_budget: u64,
    pub(crate) salts: SaltSource,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) listeners: Vec<Arc<dyn EventListener>>,
    pub(crate) rollback_scope: RollbackScope,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("compression", &self.compression)
            .field("pool", &self.pool)
            .field("purge", &self.purge)
            .field("read_mode", &self.read_mode)
            .field("tail_policy", &self.tail_policy)
            .field("background", &self.background)
            .field("in_flight_bytes_max", &self.in_flight_bytes_max)
            .field("fetch_threads", &self.fetch_threads)
            .field("fetch_queue_max", &self.fetch_queue_max)
            .field("must_exist", &self.must_exist)
            .field("show_unproven", &self.show_unproven)
            .field("disk_budget", &self.disk_budget)
            .field("vfs", &self.vfs)
            .field("listeners", &self.listeners.len())
            .field("rollback_scope", &self.rollback_scope)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults, as each method documents them.
    pub fn new() -> Options {
        Options {
            segment_bytes: 64 << 20,
            compression: Compression::None,
            pool: Pool::default(),
            purge: Purge::default(),
            read_mode: ReadMode::Map,
            tail_policy: TailPolicy::Prove,
            background: Background::Threads,
            in_flight_bytes_max: 64 << 20,
            stall_after: Duration::from_millis(500),
            fetch_threads: 2,
            fetch_queue_max: 4096,
            scrub: None,
            must_exist: false,
            show_unproven: false,
            disk_budget: 0,
            salts: SaltSource::random(),
            vfs: Arc::new(OsVfs::default()),
            listeners: Vec::new(),
            rollback_scope: RollbackScope::default(),
        }
    }

    /// The size of a segment file in bytes, a multiple of 4096 between 64 KiB and 2 GiB. Larger segments mean
    /// fewer files and rotations, a longer unsealed tail to scan at open, and space given back in larger
    /// steps. A store may be reopened with another size. Default 64 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// See [`Compression`]. Default `None`.
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = compression;
        self
    }

    /// See [`Pool`].
    pub fn pool(mut self, pool: Pool) -> Options {
        self.pool = pool;
        self
    }

    /// See [`Purge`].
    pub fn purge(mut self, purge: Purge) -> Options {
        self.purge = purge;
        self
    }

    /// See [`ReadMode`]. Default `Map`.
    pub fn read_mode(mut self, mode: ReadMode) -> Options {
        self.read_mode = mode;
        self
    }

    /// See [`TailPolicy`]. Default `Prove`.
    pub fn tail_policy(mut self, policy: TailPolicy) -> Options {
        self.tail_policy = policy;
        self
    }

    /// See [`Background`]. Default `Threads`.
    pub fn background(mut self, background: Background) -> Options {
        self.background = background;
        self
    }

    /// How many bytes may be accepted and not yet complete. A writer beyond it waits, or is answered
    /// `WouldBlock` by [`Engine::try_submit`](crate::Engine::try_submit). One batch may always be in flight,
    /// whatever its size. Bounds the memory of queued batches. Default 64 MiB.
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> Options {
        self.in_flight_bytes_max = bytes.max(1);
        self
    }

    /// How long one operation of the disk may take before listeners are notified of a
    /// [stall](crate::Event::SyncStalled). Default 500 ms.
    pub fn stall_after(mut self, after: Duration) -> Options {
        self.stall_after = after;
        self
    }

    /// How many threads read for [`Engine::fetch`](crate::Engine::fetch), and for the openraft adapters. They
    /// are started when they are first needed. More of them keep a device busier that answers many reads at
    /// once, and reads that wait in one do not hold up the others. Default 2, between 1 and 1,024.
    pub fn fetch_threads(mut self, threads: usize) -> Options {
        self.fetch_threads = threads;
        self
    }

    /// How many [fetches](crate::Engine::fetch) may wait for a thread; one more is answered `WouldBlock`.
    /// Each holds what its callback holds, and no entries: those are read when its turn comes, no more than
    /// its limit says in each thread. A bound on how long the last of them waits, too. The far reads of
    /// `raft-rs` are done on the spot at the bound, and those of the openraft adapters wait beyond it, one
    /// for each task that reads: they fail a node where they are refused. Default 4,096; at least 1.
    pub fn fetch_queue_max(mut self, fetches: usize) -> Options {
        self.fetch_queue_max = fetches;
        self
    }

    /// [Scrubs](crate::Engine::scrub) the store in the background, so long after the open and after
    /// the end of each scrub before. What it finds is delivered to the listeners. Rot that nobody
    /// looks at adds up until a replica is needed that has it too: a store whose entries live for
    /// hours or more needs this, one whose entries are gone in seconds does not. Costs the reads, at
    /// the rate of `options`. Default never.
    pub fn scrub_every(mut self, pause: Duration, options: ScrubOptions) -> Options {
        self.scrub = Some((pause, options));
        self
    }

    /// Whether [`open`](Options::open) refuses to create a store where there is none, and leaves the
    /// directory as it is. For a node that has voted before: on an exchanged or unmounted disk it must not
    /// start empty, for it would vote again in terms in which it has voted. Set it once the node has joined
    /// its groups. Default false.
    pub fn must_exist(mut self, yes: bool) -> Options {
        self.must_exist = yes;
        self
    }

    /// Whether a [`Reader`](crate::Reader) also shows what was written and is not known to be on the device,
    /// told apart by [`LogState::durable`](crate::LogState::durable) and
    /// [`LogRecord::durable`](crate::LogRecord::durable): a power cut may take it, a restart of the engine
    /// may take it out of the log ([`LogItem::TakenBack`](crate::LogItem::TakenBack)), and it may have been
    /// acknowledged to nobody. Of no meaning to an engine. Default false.
    pub fn show_unproven(mut self, yes: bool) -> Options {
        self.show_unproven = yes;
        self
    }

    /// The most bytes that the store may take on the disk, pool included; 0 is no bound. For a disk that is
    /// shared, and to stop before it is full. At least 16 segments. Default none.
    ///
    /// An eighth of it, or a little more than two segments, is kept for what makes room, and appends may
    /// take the rest. Where three quarters of that are used, listeners get
    /// [`Event::BudgetLow`](crate::Event::BudgetLow) with the regions to compact; where the next segment
    /// would not fit, [`Event::BudgetSpent`](crate::Event::BudgetSpent), and batches with entries are
    /// refused with `NoSpace`, whole, before anything of them is written. Batches without entries never are:
    /// hard states, keys, truncations, compactions, resets, destructions. What is accepted is as safe as
    /// ever.
    ///
    /// A bound on what appends do, and no quota: a program that writes hard states alone, without end, or
    /// lets readers hold files that were given back, goes beyond it.
    ///
    /// ```
    /// use raftwood::{Durability, ErrorKind, Options, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().segment_bytes(64 << 10).disk_budget(1 << 20).open(dir.path())?;
    /// let (region, entry) = (RegionId(7), [0; 10_000]);
    /// let refused = loop {
    ///     if let Err(refused) = engine.append_next(region, [entry], Durability::Written) {
    ///         break refused;
    ///     }
    /// };
    /// assert_eq!(refused.kind(), ErrorKind::NoSpace);
    /// assert!(engine.stats().disk_bytes <= 1 << 20);
    ///
    /// // As the error says.
    /// let mut batch = engine.batch();
    /// batch.region(region).compact_to(u64::MAX);
    /// engine.write(batch, Durability::Synced)?;
    /// engine.purge()?;
    /// engine.append_next(region, [entry], Durability::Synced)?;
    /// # Ok(()) }
    /// ```
    pub fn disk_budget(mut self, bytes: u64) -> Options {
        self.disk_budget = bytes;
        self
    }

    /// The file system; by default the operating system's.
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Options {
        self.vfs = vfs;
        self
    }

    /// Where the random salts of new files come from: only for simulated runs that must be repeatable. A
    /// source that repeats itself over restarts breaks the engine's defence against stale bytes.
    #[doc(hidden)]
    pub fn salt_source(mut self, next: Arc<dyn Fn() -> u64 + Send + Sync>) -> Options {
        self.salts = SaltSource(next);
        self
    }

    /// Adds a listener. Listeners are called in the order in which they were added.
    pub fn listener(mut self, listener: Arc<dyn EventListener>) -> Options {
        self.listeners.push(listener);
        self
    }

    /// For which entries that a reset or a destroy discards listeners are asked. Default
    /// [`RollbackScope::Uncommitted`].
    pub fn rollback_scope(mut self, scope: RollbackScope) -> Options {
        self.rollback_scope = scope;
        self
    }

    /// What appends may not take of the disk budget: an eighth, and at least what the engine makes ahead and
    /// while it makes room, which is the next segment, a cold one, and the reserve of small files.
    pub(crate) fn kept_of_budget(&self) -> u64 {
        let ahead = 2 * self.segment_bytes + 4 * STARTER_BYTES.min(self.segment_bytes);
        (self.disk_budget / 8).max(ahead)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let s = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&s) || !s.is_multiple_of(PAGE) {
            return Err(Error::invalid(format!(
                "segment_bytes is {s}: it must be a multiple of {PAGE} between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}"
            )));
        }
        if !(1..=FETCH_THREADS_MAX).contains(&self.fetch_threads) {
            return Err(Error::invalid(format!(
                "fetch_threads is {}: it must be between 1 and {FETCH_THREADS_MAX}",
                self.fetch_threads
            )));
        }
        if self.fetch_queue_max == 0 {
            return Err(Error::invalid(
                "fetch_queue_max is 0: every fetch would be refused; it must be at least 1",
            ));
        }
        let least = 16 * s;
        if (1..least).contains(&self.disk_budget) {
            return Err(Error::invalid(format!(
                "disk_budget is {}: it must be at least 16 segments, {least} bytes where segment_bytes is {s}; 0 is none",
                self.disk_budget
            )));
        }
        Ok(())
    }
}
