//! What the engine reports of itself.

mod outcome;
mod trail;

pub use outcome::{Appended, Compacted, Compaction, Outcome};
pub use trail::{Explanation, Proof, RecordFinding, RecordState, SegmentFinding, Trail, Verdict};

use crate::error::Error;
use crate::histogram::Latency;
use crate::types::{Lsn, RegionId};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How far a check or a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that were read.
    pub done_bytes: u64,
    /// Bytes that there are to read; never less than were read.
    pub total_bytes: u64,
}

/// What open found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the directory was empty.
    pub created: bool,
    /// Regions in the store.
    pub regions: u64,
    /// Segments of the store, cold ones included.
    pub segments: u64,
    /// Sequence number of the checkpoint that served.
    pub checkpoint: u32,
    /// Newer checkpoints that could not be believed.
    pub bad_checkpoints: u64,
    /// Segments whose footers were replayed on top of the checkpoint.
    pub replayed_segments: u64,
    /// Segments that had no usable footer and were read record by record.
    pub scanned_segments: u64,
    /// Bytes read for that.
    pub scanned_bytes: u64,
    /// Batches in the unsealed tail.
    pub tail_batches: u64,
    /// Accepted batches past the watermark that were re-persisted.
    pub rewritten_batches: u64,
    /// Records whose header or description was wrong and was recovered: a flipped bit was undone, or it was
    /// rebuilt from the next record or from a copy.
    pub mended_records: u64,
    /// Bytes past the last complete batch that were dropped. They were never acknowledged, unless
    /// [`assumed_torn`](OpenReport::assumed_torn) or [`accepted_loss`](OpenReport::accepted_loss) says so.
    pub torn_bytes: u64,
    /// Whether a record was dropped for the only reason that
    /// [`TailPolicy::AssumeTorn`](crate::TailPolicy::AssumeTorn) says so. It may have been acknowledged.
    pub assumed_torn: bool,
    /// Whether acknowledged batches were dropped because
    /// [`TailPolicy::AcceptLoss`](crate::TailPolicy::AcceptLoss) says so, now or for an open before this one
    /// that did not come to its end.
    pub accepted_loss: bool,
    /// Regions whose hard state may have been in it, that is all of them: their health says so
    /// until it is set again.
    pub hard_states_lost: u64,
    /// Damage that was found; see [`ErrorKind::Damaged`](crate::ErrorKind::Damaged).
    pub damage: Vec<Error>,
    /// Entries of the last batches that are wrong, and of which nothing says whether they were
    /// acknowledged; see [`Health::Suspect`].
    pub suspects: Vec<Error>,
    /// Names in the directory that are not of this store; left alone.
    pub foreign: Vec<String>,
    /// Leftovers of interrupted work that were removed.
    pub removed: Vec<String>,
    /// Time per phase.
    pub times: OpenTimes,
    /// What was found near the end of the log, for those who ask why: an engine does not keep it.
    pub(crate) trail: Trail,
}

/// How long the phases of open took.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OpenTimes {
    /// Reading the checkpoint.
    pub checkpoint: Duration,
    /// Opening and mapping segments and footers, and building footers that were missing.
    pub segments: Duration,
    /// Applying what came after the checkpoint.
    pub replay: Duration,
    /// Re-persisting the tail and preparing the active segment.
    pub tail: Duration,
    /// All of it.
    pub total: Duration,
}

/// What a purge did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Segments whose files were given back, to the pool or the file system.
    pub segments_freed: u64,
    /// Segments whose live entries were moved elsewhere.
    pub segments_cleaned: u64,
    /// Payload bytes that were moved.
    pub moved_bytes: u64,
}

/// How to scrub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubOptions {
    pub(crate) rate_bytes: u64,
    pub(crate) from_device: bool,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        ScrubOptions { rate_bytes: 64 << 20, from_device: false }
    }
}

impl ScrubOptions {
    /// At most this many payload bytes a second; 0 is no limit. Default 64 MiB.
    pub fn rate_bytes(mut self, bytes_per_second: u64) -> ScrubOptions {
        self.rate_bytes = bytes_per_second;
        self
    }

    /// Drop sealed segments from the page cache first, so that the device is what is checked.
    /// Costs the cache. Default false.
    pub fn from_device(mut self, yes: bool) -> ScrubOptions {
        self.from_device = yes;
        self
    }
}

/// What a scrub found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Live entries that were verified.
    pub entries: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Footers that were damaged and rebuilt.
    pub footers_rebuilt: u64,
    /// Records whose header and description were verified, and whose segment's header was.
    pub records: u64,
    /// Each damaged entry, named.
    pub damage: Vec<Error>,
    /// What is wrong with that which holds the entries: headers and descriptions of records, headers of
    /// segments, checkpoints. No entry is lost by it, and it was repaired: what lives in such a segment was
    /// moved, checkpoints were rewritten.
    pub rot: Vec<Error>,
    /// Segments that entries were moved out of for that.
    pub segments_moved: u64,
    /// Checkpoints written for that.
    pub checkpoints_written: u64,
}

/// What [`Engine::backup`](crate::Engine::backup) made.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Everything before this position is in the copy.
    pub durable: Lsn,
    /// Segments that are hard links.
    pub linked_segments: u64,
    /// Bytes of their files.
    pub linked_bytes: u64,
    /// Segments that were copied: those still being written, and all where there are no links.
    pub copied_segments: u64,
    /// Bytes that were copied, footers and the checkpoint included.
    pub copied_bytes: u64,
}

/// What [`Engine::repair_from`](crate::Engine::repair_from) put back.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Entries that are right again.
    pub repaired: u64,
    /// Why the others are not, each entry or range named: the replica does not have it, or has another in its
    /// place, or nothing is recorded of it here.
    pub left: Vec<Error>,
}

/// How to restore a copy of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RestoreOptions {
    pub(crate) whole_cluster: bool,
}

impl RestoreOptions {
    /// Whether every member of every group is restored from copies at the same time, and no member goes on
    /// that is not: then nobody is left who counts on votes and entries that the copies do not have, and the
    /// hard states are taken as they are. Default false: each is
    /// [lost](HardStateHealth::Lost).
    pub fn whole_cluster(mut self, yes: bool) -> RestoreOptions {
        self.whole_cluster = yes;
        self
    }
}

/// What [`Options::restore`](crate::Options::restore) made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Regions in the store.
    pub regions: u64,
    /// Entries, each verified in the copy and again in the store.
    pub entries: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that hold them.
    pub segments: u64,
    /// Regions whose hard state is lost: all of them, or of a cluster that is restored as a whole
    /// those that had lost it before.
    pub hard_states_lost: u64,
    /// Whether files of a restore into this directory that did not come to its end were removed first.
    pub started_over: bool,
}

/// What [`Options::check`](crate::Options::check) found. Nothing of it was changed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// An engine has the store open: the end of its log was not judged.
    pub in_use: bool,
    /// Why the store cannot be opened as it is. What else is reported is then what
    /// [`TailPolicy::AcceptLoss`](crate::TailPolicy::AcceptLoss) would leave, if that could be found out.
    pub refusals: Vec<Error>,
    /// Acknowledged bytes that are wrong or missing, each entry or segment named.
    pub damage: Vec<Error>,
    /// Entries of the last batches that are wrong, and of which nothing says whether they were acknowledged.
    pub suspects: Vec<Error>,
    /// What is wrong and affects no entry: headers, descriptions, footers, checkpoints. Opening the store and
    /// [`scrub`](crate::Engine::scrub)bing it repairs it.
    pub rot: Vec<Error>,
    /// Regions in the store.
    pub regions: u64,
    /// Segments, cold ones included.
    pub segments: u64,
    /// Records whose header and description were read.
    pub records: u64,
    /// Live entries that were verified.
    pub entries: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Bytes past the last complete batch that were never acknowledged, and are dropped by the next open. 0
    /// where more than that would be dropped: then [`loss`](CheckReport::loss) says what.
    pub torn_bytes: u64,
    /// What may have been acknowledged and would be dropped: by opening a store that is refused with
    /// [`TailPolicy::AcceptLoss`](crate::TailPolicy::AcceptLoss), or by opening it with the policy
    /// of these options.
    pub loss: Option<Loss>,
    /// Names in the directory that are not of this store.
    pub foreign: Vec<String>,
}

/// What is dropped when the log is ended before the first record that cannot be read, as far as the records
/// after it can be read themselves. What stood in the unreadable bytes comes on top.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Loss {
    /// Batches.
    pub batches: u64,
    /// Of these, batches whose description cannot be read: their regions and entries are not counted.
    pub unreadable_batches: u64,
    /// Entries that they appended.
    pub entries: u64,
    /// Regions that they changed.
    pub regions: u64,
    /// Of these, regions whose hard state they set.
    pub hard_states: u64,
    /// Bytes of these batches in the log.
    pub bytes: u64,
}

impl CheckReport {
    /// Whether everything is as it was written.
    pub fn is_clean(&self) -> bool {
        [&self.refusals, &self.damage, &self.suspects, &self.rot].iter().all(|found| found.is_empty())
    }
}

/// A region that keeps old segments alive; compacting it would give space back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pin {
    /// The region.
    pub region: RegionId,
    /// The oldest segment that holds an entry of it.
    pub oldest_segment: u32,
    /// How many segments were begun since then.
    pub age: u32,
    /// How much of that segment's file is no live payload, of any region. A young segment that is not full
    /// yet has much of that.
    pub garbage_percent: u8,
    /// Its first live index.
    pub first: u64,
    /// Its last live index.
    pub last: u64,
    /// Its live payload bytes; an estimate for trimmed ranges.
    pub bytes: u64,
}

/// One region in figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RegionStats {
    /// Live entries.
    pub entries: u64,
    /// Their payload bytes; an estimate for trimmed ranges.
    pub bytes: u64,
    /// Segments that hold some of them.
    pub segments: u64,
    /// Bytes on the heap for this region.
    pub heap_bytes: u64,
}

/// The engine in figures. Counters count since open. An idle engine has nothing in flight and nobody waiting,
/// and has accepted nothing that is not durable, unless the last batches were written with
/// [`Durability::Written`](crate::Durability::Written) and nobody has asked for a sync since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
// What an older version did not write is 0.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Stats {
    /// Regions that exist.
    pub regions: u64,
    /// Regions that were destroyed and are still on the heap: until a checkpoint whose replay starts past
    /// their last operation, or a [purge](crate::Engine::purge).
    pub destroyed_regions: u64,
    /// Regions whose [health](crate::Region::health) is [`Suspect`](Health::Suspect).
    pub suspect_regions: u64,
    /// Regions whose [health](crate::Region::health) is [`Damaged`](Health::Damaged), those whose hard state
    /// is lost included.
    pub damaged_regions: u64,
    /// Regions whose hard state is [lost](HardStateHealth::Lost).
    pub lost_hard_states: u64,
    /// Segments, the active one included; cold ones too; prepared and free files not.
    pub segments: u64,
    /// Bytes of all files in the directory as the engine knows them, the pool included.
    pub disk_bytes: u64,
    /// Of these, bytes of prepared and free files.
    pub pool_bytes: u64,
    /// Bytes of files that were removed and that the file system keeps all the same, because the program
    /// holds an [`Entry`](crate::Entry) that shows bytes of theirs: the whole file counts, once, until the
    /// last such entry is dropped or [detached](crate::Entry::detached). They are on top of
    /// [`disk_bytes`](Stats::disk_bytes). Entries that are copies hold no file: what was compressed, and with
    /// [`ReadMode::Pread`](crate::ReadMode::Pread). Those of segments that are still in the store cost
    /// nothing.
    pub held_bytes: u64,
    /// Live entries.
    pub live_entries: u64,
    /// Payload bytes of live entries; an estimate for trimmed ranges.
    pub live_bytes: u64,
    /// Everything before is accepted.
    pub accepted: Lsn,
    /// Everything before is on the device.
    pub durable: Lsn,
    /// Bytes of the log between the two.
    pub undurable_bytes: u64,
    /// Bytes of batches that were accepted and are not as durable as was asked for: at most
    /// [`in_flight_bytes_max`](crate::Options::in_flight_bytes_max), or one batch.
    pub in_flight_bytes: u64,
    /// Threads that wait before their batch is accepted: for others to complete, for the next segment to
    /// be prepared, or for a full one to get its footer.
    pub waiting_writers: u64,
    /// Batches that had to wait because others were in flight, and moves to the next segment that had to
    /// wait for a footer.
    pub throttled: u64,
    /// Batches accepted.
    pub batches: u64,
    /// Entries accepted.
    pub entries: u64,
    /// Bytes of these batches in the log, with headers.
    pub batch_bytes: u64,
    /// Payload bytes of these batches, uncompressed.
    pub payload_bytes: u64,
    /// Write calls to the log.
    pub writes: u64,
    /// Bytes written to the log, padding included.
    pub written_bytes: u64,
    /// Sync calls on the log.
    pub syncs: u64,
    /// Calls that woke threads which waited for batches, or for room: one serves a whole group.
    pub wakes: u64,
    /// Reads of entries that were answered with them, however many each asked for.
    pub reads: u64,
    /// Reads that failed for what is on the disk: `Damaged` and `Io`.
    pub read_errors: u64,
    /// Reads that were tried once more, after a footer that may have been wrong was rebuilt.
    pub read_retries: u64,
    /// [Fetches](crate::Engine::fetch) that wait for a thread, reads of the openraft adapters included.
    pub queued_fetches: u64,
    /// Fetches that were refused because [as many waited as may](crate::Options::fetch_queue_max).
    pub refused_fetches: u64,
    /// Operations of the disk that took longer than [`stall_after`](crate::Options::stall_after).
    pub stalls: u64,
    /// Of these, operations that have ended: fewer than [`stalls`](Stats::stalls) while the disk hangs.
    pub stalls_ended: u64,
    /// Attempts to prepare a segment for which there was no space.
    pub no_space: u64,
    /// Whether an I/O error has stopped all writing.
    pub poisoned: bool,
    /// Bytes written to fill new files with zeros.
    pub filled_bytes: u64,
    /// Payload bytes that the cleaner moved.
    pub cleaned_bytes: u64,
    /// Bytes of footers and checkpoints written.
    pub upkeep_bytes: u64,
    /// Bytes on the heap for the index. Of more than 4,096 regions as of the last walk, which a thread of the
    /// engine takes every second, or more seldom where it takes long.
    /// [`Engine::index_bytes`](crate::Engine::index_bytes) walks now.
    pub index_bytes: u64,
}

/// How long operations took since open. Cheap to ask for, whatever the number of regions: all histograms are
/// kept all the time.
///
/// A batch waits in the queue, is written and is synced; what else its commit took is the wait for the thread
/// that was woken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Latencies {
    /// From a call of [`write`](crate::Engine::write) or [`sync`](crate::Engine::sync) to its answer, and
    /// from a [`submit`](crate::Engine::submit) to the callback or waker of its ticket: the wait for room and
    /// for others included. Only those that were answered well.
    pub commit: Latency,
    /// Of the same, from the call to the moment at which its batch begins to be written to the log.
    pub queue: Latency,
    /// Calls that write a group of batches to the log, those that failed included.
    pub write: Latency,
    /// Syncs of the log, those that failed included.
    pub sync: Latency,
    /// Building and writing the footer of a full segment, the pauses that leave the processor to writers
    /// included.
    pub seal: Latency,
    /// Writing a checkpoint.
    pub checkpoint: Latency,
    /// Reads of entries that were answered with them, by [regions](crate::Region) and what is built on them.
    /// One in sixteen is timed: two looks at the clock would be a tenth of a short read.
    pub read: Latency,
}

/// Whether a region's log is all there.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Health {
    /// As far as was looked.
    Healthy,
    /// Entries of the last batches before a crash are wrong, and nothing says whether they were ever
    /// acknowledged: they may be torn, or rotten. They are kept and fenced, as damaged ones are; all else
    /// goes on. An append over them, a compaction, a reset or a [`repair`](crate::Region::repair) ends it.
    Suspect {
        /// The indexes that cannot be read, ascending.
        ranges: Vec<RangeInclusive<u64>>,
    },
    /// Acknowledged bytes are wrong or missing.
    Damaged {
        /// The indexes that cannot be read, ascending; those that are only suspect are among them.
        ranges: Vec<RangeInclusive<u64>>,
        /// Whether term and vote can be trusted.
        hard_state: HardStateHealth,
    },
}

/// A few words for a log.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, ranges, lost) = match self {
            Health::Healthy => return f.write_str("healthy"),
            Health::Suspect { ranges } => ("suspect", ranges, false),
            Health::Damaged { ranges, hard_state } => {
                ("damaged", ranges, *hard_state == HardStateHealth::Lost)
            }
        };
        f.write_str(word)?;
        for (n, range) in ranges.iter().enumerate() {
            f.write_str(if n == 0 { " in " } else { ", " })?;
            match range.start() == range.end() {
                true => write!(f, "{}", range.start())?,
                false => write!(f, "{range:?}")?,
            }
        }
        if lost { f.write_str(", its hard state is lost") } else { Ok(()) }
    }
}

/// Whether the hard state of a region is the one that was last acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HardStateHealth {
    /// It is.
    Known,
    /// It may be an older one: the region must not vote, and not campaign, until it has set one that it has
    /// from elsewhere, or has joined anew. Its log may lack entries that were acknowledged, too, and
    /// [`lookup`](crate::Region::lookup) denies none. Setting it, or destroying the region, ends this.
    Lost,
}

/// What may be said to a peer that asks for an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// It is here and its bytes match.
    Have,
    /// It was acknowledged here and is damaged.
    HaveDamaged,
    /// It was certainly never acknowledged here, or was discarded.
    DontHave,
    /// It may have been here: compacted, suspect, or the region is damaged.
    Unknown,
}
