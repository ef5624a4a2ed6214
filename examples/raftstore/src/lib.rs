//! What a raftstore asks of its raft log engine, over Raftwood's public API.
//!
//! A raftstore runs many Raft groups in one process. Of each it keeps a log, a hard state, what the region is
//! and how far it has applied, the last two by version: a replica that comes up with a state machine of apply
//! index 40 asks what its region was then, though the log engine has that of 60 as well. Its messages are
//! opaque here; the store encodes them.
//!
//! [`RaftLog`] is the engine as such a store sees it, [`LogBatch`] what it writes together. What each call is
//! underneath, how durable it is and what a crash leaves: the README.
//!
//! ```
//! use raftwood::{Durability, EntryId, RegionId};
//! use raftwood_raftstore::RaftLog;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let log = RaftLog::open(dir.path())?;
//! let mut batch = log.batch();
//! batch.append(RegionId(7), [(EntryId::new(1, 1), &b"put a"[..])])?;
//! batch.put_hard_state(RegionId(7), b"term 1, vote 3, commit 0")?;
//! log.consume(&mut batch, Durability::Synced)?;
//!
//! batch.put_apply_state(RegionId(7), 1, b"applied 1")?; // the same batch, empty again
//! log.consume(&mut batch, Durability::Written)?;
//! assert_eq!(log.apply_state(RegionId(7), 90).as_deref(), Some(&b"applied 1"[..]));
//! # Ok(()) }
//! ```
//!
//! Deliberately absent: threads (each caller writes, and callers share a sync; a store with writer threads
//! has [`Engine::submit`] and tickets), encodings, and shrinking of batches, whose memory the engine hands
//! on.

mod batch;
mod keys;

pub use batch::LogBatch;

use bytes::Bytes;
use keys::Kind;
use raftwood::{
    Compaction, Durability, Engine, Entry, ErrorKind, KeyOrder, LogState, OpenReport, Options, Pin,
    PurgeReport, ReadLimit, RegionId, Result,
};
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Where the idents of the store are kept. No region of the store may have this id.
pub const STORE: RegionId = RegionId(u64::MAX);

/// The raft log engine of one store. Clones are handles onto the same.
#[derive(Clone, Debug)]
pub struct RaftLog(Engine);

/// What Raft needs back after a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaftState {
    /// Term, vote and commit, as the store encoded them.
    pub hard_state: Bytes,
    /// Where the log begins and ends: the last index is never stored beside it, and cannot disagree.
    pub log: LogState,
}

/// What became of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consumed {
    /// Bytes that it takes in the log.
    pub bytes: u64,
    /// What each [`gc`](LogBatch::gc) of it did, in their order.
    pub collected: Vec<Compaction>,
}

/// Which regions a purge names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hints {
    /// Those whose oldest segment is so many segments old, at least.
    pub age_min: u32,
    /// And so much of it, in percent, is garbage, at least.
    pub garbage_percent_min: u8,
    /// At most so many, the oldest first.
    pub regions_max: usize,
}

/// What a purge gave back, and who holds what it could not.
#[derive(Clone, Debug)]
pub struct Purged {
    /// What it did.
    pub report: PurgeReport,
    /// Regions whose collection gives space back without copying, by force if need be: oldest first.
    pub holding: Vec<Pin>,
}

impl RaftLog {
    /// Opens the store in `dir`, or makes one there, and recovers what a kill or a power cut left.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<RaftLog> {
        RaftLog::open_with(&Options::new(), dir)
    }

    /// As [`open`](RaftLog::open), with options of its own.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_with(options: &Options, dir: impl AsRef<Path>) -> Result<RaftLog> {
        options.open(dir).map(RaftLog)
    }

    /// What the open found, and how long it took.
    pub fn recovered(&self) -> &OpenReport {
        self.0.open_report()
    }

    /// The engine: for its figures, health and repair, which are not a raftstore's own.
    pub fn engine(&self) -> &Engine {
        &self.0
    }

    // ---- writing ------------------------------------------------------------------------------------------

    /// An empty batch.
    pub fn batch(&self) -> LogBatch {
        LogBatch::new(&self.0)
    }

    /// Writes the batch, returns when it is as durable as asked, and leaves it empty. An empty batch with
    /// `Synced` is a [`sync`](RaftLog::sync).
    ///
    /// # Errors
    /// As [`Engine::write`]. Refused, nothing was written and the batch holds what it held. After `Poisoned`
    /// it is empty, and whether it survives is unknown: the node stops.
    pub fn consume(&self, batch: &mut LogBatch, durability: Durability) -> Result<Consumed> {
        match self.0.write_outcome(batch.take(&self.0), durability) {
            Ok(outcome) => Ok(Consumed { bytes: outcome.bytes, collected: outcome.compactions }),
            Err(refusal) => {
                let error = refusal.error().clone();
                if let Some(refused) = refusal.into_batch() {
                    batch.put_back(refused);
                }
                Err(error)
            }
        }
    }

    /// Makes all that was consumed before durable.
    ///
    /// # Errors
    /// `Poisoned` where the device failed, `Closed`.
    pub fn sync(&self) -> Result<()> {
        self.0.sync().map(|_| ())
    }

    /// Adds to `batch` the removal of the states that are older than the newest at or below `apply_index`,
    /// which stays: of both kinds, for nothing will ask for them again once the state machine is durable as
    /// of `apply_index`. It looks at what is consumed, not at what `batch` holds.
    ///
    /// # Errors
    /// `TooLarge` where the batch is full: consume it.
    pub fn trim_states(&self, batch: &mut LogBatch, region: RegionId, apply_index: u64) -> Result<()> {
        for kind in Kind::ALL {
            let key = kind.key(apply_index);
            let mut keeps = true;
            let failed =
                self.0.region(region).scan_range(kind.prefix()..=&key[..], KeyOrder::Descending, |key, _| {
                    match keys::apply_index(&key) {
                        Some(old) if !std::mem::take(&mut keeps) => {
                            match batch.delete_state(region, kind, old) {
                                Ok(()) => ControlFlow::Continue(()),
                                Err(error) => ControlFlow::Break(error),
                            }
                        }
                        _ => ControlFlow::Continue(()),
                    }
                });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives back the space that can be given back, and names the regions that hold old segments. Safe at any
    /// time, beside writers.
    ///
    /// # Errors
    /// As [`Engine::purge`].
    pub fn purge(&self, hints: &Hints) -> Result<Purged> {
        let report = self.0.purge()?;
        let mut holding = self.0.pins(usize::MAX);
        holding.retain(|pin| pin.age >= hints.age_min && pin.garbage_percent >= hints.garbage_percent_min);
        holding.truncate(hints.regions_max);
        Ok(Purged { report, holding })
    }

    // ---- reading ------------------------------------------------------------------------------------------

    /// Whether nothing was ever put here, or all of it was cleaned: a store to bootstrap.
    pub fn is_empty(&self) -> bool {
        self.0.for_each_region(|_, _| ControlFlow::Break(())).is_none()
    }

    /// An ident of the store.
    pub fn ident(&self, name: &str) -> Option<Bytes> {
        self.0.region(STORE).get(&keys::ident(name))
    }

    /// The hard state, and where the log begins and ends; `None` where no hard state was put.
    ///
    /// # Errors
    /// `Damaged` where a newer hard state may have been lost: the replica must not vote, and is replaced.
    pub fn raft_state(&self, region: RegionId) -> Result<Option<RaftState>> {
        let region = self.0.region(region);
        Ok(region.hard_state_or_lost()?.map(|hard_state| RaftState { hard_state, log: region.state() }))
    }

    /// The entry at `index`; `None` where the log does not have it, any more or yet.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        match self.0.region(region).entry(index) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if matches!(error.kind(), ErrorKind::Compacted | ErrorKind::Unavailable) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds the entries of `range` to `to`, no more than `bytes_max` of payload but one at least, and returns
    /// how many.
    ///
    /// # Errors
    /// `Compacted` and `Unavailable` where the log does not have all of `range`, `Damaged`, `Io`. Nothing is
    /// added then.
    pub fn fetch(
        &self,
        region: RegionId,
        range: Range<u64>,
        bytes_max: Option<u64>,
        to: &mut Vec<Entry>,
    ) -> Result<usize> {
        let limit = bytes_max.map_or(ReadLimit::NONE, ReadLimit::bytes);
        let mut entries = self.0.region(region).entries(range, limit)?;
        let count = entries.len();
        to.append(&mut entries);
        Ok(count)
    }

    /// The newest region state at or below `apply_index`.
    pub fn region_state(&self, region: RegionId, apply_index: u64) -> Option<Bytes> {
        self.state(region, Kind::Region, apply_index)
    }

    /// The newest apply state at or below `apply_index`.
    pub fn apply_state(&self, region: RegionId, apply_index: u64) -> Option<Bytes> {
        self.state(region, Kind::Apply, apply_index)
    }

    /// A mark of the region.
    pub fn mark(&self, region: RegionId, name: &str) -> Option<Bytes> {
        self.0.region(region).get(&keys::mark(name))
    }

    /// Hands every group to `visit`, in no order, until it breaks. No lock is held meanwhile.
    pub fn for_each_group<T>(
        &self,
        mut visit: impl FnMut(RegionId, LogState) -> ControlFlow<T>,
    ) -> Option<T> {
        self.0.for_each_region(|region, log| match region {
            STORE => ControlFlow::Continue(()),
            _ => visit(region, log),
        })
    }

    /// Every version of the region's state, from the oldest: apply index and state.
    pub fn region_states(&self, region: RegionId) -> Vec<(u64, Bytes)> {
        self.states(region, Kind::Region)
    }

    /// Every version of the region's apply state, from the oldest.
    pub fn apply_states(&self, region: RegionId) -> Vec<(u64, Bytes)> {
        self.states(region, Kind::Apply)
    }

    fn state(&self, region: RegionId, kind: Kind, apply_index: u64) -> Option<Bytes> {
        let found = self.0.region(region).last_at_or_before(kind.prefix(), &kind.key(apply_index));
        found.map(|(_, state)| state)
    }

    fn states(&self, region: RegionId, kind: Kind) -> Vec<(u64, Bytes)> {
        let all = self.0.region(region).scan(kind.prefix());
        all.into_iter().filter_map(|(key, state)| Some((keys::apply_index(&key)?, state))).collect()
    }
}
