//! `raft::Storage` for one region.

use super::codec::{
    RAFT_OVERHEAD, decode_conf_state, decode_entry, decode_hard_state, encode_conf_state, encode_hard_state,
};
use super::far_reads::{FarReads, Fetched};
use super::store_error;
use crate::planted::{Bug, planted};
use crate::{
    Durability, Engine, Entry, EntryId, Error, ErrorKind, Health, LogState, ReadLimit, Region, RegionId,
    Result, WriteBatch,
};
use raft::prelude::{ConfState, Entry as RaftEntry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::fmt;
use std::sync::Arc;

/// The metadata key under which the conf state is kept.
pub(super) const CONF_STATE: &[u8] = b"raft/conf_state";

/// The entry after which the log of every [bootstrapped](RegionStorage::bootstrap) region begins, and where
/// the applied index of its state machine starts: index 5 of term 5, as in TiKV. Nobody ever holds that
/// entry. It stands for the first configuration and the first state of the state machine, which a replica
/// that joins later can get from a snapshot only.
///
/// Were the log to begin at index 1, an empty replica could take it from there. It would apply the changes of
/// the configuration and never learn the configuration that they change: the first to add a voter would make
/// it the only one, and it would lead and commit alone.
pub const BOOTSTRAP: EntryId = EntryId::new(5, 5);

/// Where snapshots come from: the log does not know the state machine.
///
/// A closure `Fn(request_index, to) -> Option<Snapshot>` is one.
pub trait SnapshotProvider: Send + Sync {
    /// A snapshot for the peer `to`, at `request_index` or later, or `None` while it is being made: raft asks
    /// again. It must not block: it is called from within raft.
    ///
    /// `request_index` is the least that would help the peer: what raft asks for, or more where the
    /// log begins later or cannot be read up to there. An earlier snapshot is not sent, so let it be
    /// the reason to make a new one.
    fn snapshot(&self, request_index: u64, to: u64) -> Option<Snapshot>;
}

impl<F: Fn(u64, u64) -> Option<Snapshot> + Send + Sync> SnapshotProvider for F {
    fn snapshot(&self, request_index: u64, to: u64) -> Option<Snapshot> {
        self(request_index, to)
    }
}

/// The log of one region as a `RawNode` needs it. Cheap to clone; each call answers as of now.
///
/// It only reads; what is to be written goes through [`ReadyBatch`](super::ReadyBatch).
///
/// Make a new one, or a clone, for each `RawNode`: `RawNode::new` asks for
/// [`initial_state`](Storage::initial_state), and far reads that were asked for before are not
/// handed out after it.
#[derive(Clone)]
pub struct RegionStorage {
    engine: Engine,
    region: Region,
    snapshots: Option<Arc<dyn SnapshotProvider>>,
    far: Option<Arc<FarReads>>,
}

impl fmt::Debug for RegionStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionStorage").field("region", &self.region.id()).finish_non_exhaustive()
    }
}

impl RegionStorage {
    /// The log of `region`. Without a [provider](Self::snapshots), snapshots are temporarily unavailable
    /// forever; without [`fetch_far`](Self::fetch_far), all reads are done on the spot.
    pub fn new(engine: &Engine, region: RegionId) -> RegionStorage {
        RegionStorage { engine: engine.clone(), region: engine.region(region), snapshots: None, far: None }
    }

    /// Where snapshots come from.
    pub fn snapshots(mut self, provider: impl SnapshotProvider + 'static) -> RegionStorage {
        self.snapshots = Some(Arc::new(provider));
        self
    }

    /// Reads far back, which may have to wait for the device, are done on threads of the engine: raft is
    /// answered `LogTemporarilyUnavailable`, and `notify` is called when the entries are there, with the
    /// context that raft gave. Pass it to `RawNode::on_entries_fetched` on the thread that drives the group.
    /// A peer that asks for the same entries again while they are on their way is notified once.
    ///
    /// Far is what lies more than `segments` segments behind the one that is being written; 1 is a good
    /// value. What is nearer was written moments ago, so it is in memory, and reading it there is
    /// quicker than asking another thread.
    pub fn fetch_far(
        mut self,
        segments: u32,
        notify: impl Fn(RegionId, GetEntriesContext) + Send + Sync + 'static,
    ) -> RegionStorage {
        self.far = Some(Arc::new(FarReads::new(self.region.id(), segments, Box::new(notify))));
        self
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Gives a region that does not exist yet its first configuration, durably, and lets its log
    /// begin after [`BOOTSTRAP`], which it returns: there the state machine's applied index starts,
    /// with its first state. All replicas of a new group are given the same configuration, by the
    /// same release of this crate; replicas that join later are given none, and wait for a snapshot,
    /// which the log can be had from only then.
    ///
    /// [`ReadyBatch::bootstrap`](super::ReadyBatch::bootstrap) does the same for many regions at once, or
    /// together with other writes. A crash leaves all of it or nothing.
    ///
    /// Regions that an earlier release bootstrapped have logs that begin at index 1. They work as before;
    /// before a replica joins one, compact its leader's log by an entry or more.
    ///
    /// # Errors
    /// `InvalidArgument` if the region exists, or the configuration has no voters.
    pub fn bootstrap(&self, conf_state: &ConfState) -> Result<EntryId> {
        let id = self.region.id();
        if self.region.exists() {
            return Err(exists_already(id));
        }
        let mut batch = self.engine.batch();
        begin_log(&mut batch, id, conf_state, HardState::default())?;
        self.engine.write(batch, Durability::Synced)?;
        Ok(BOOTSTRAP)
    }

    /// Makes the log fit a state machine that stands at `applied`, durably: call it at every start,
    /// before making the `RawNode`.
    ///
    /// Returns where `applied` stands: pass its index to `Config::applied`. It is what was given, with
    /// one exception. A state machine that has applied nothing, not even a snapshot, may say so with
    /// index and term 0. In a region that was bootstrapped it stands at [`BOOTSTRAP`]; a region that has
    /// neither log nor configuration is bootstrapped with `conf_state`, if that has voters, and left
    /// alone otherwise, to wait for a snapshot.
    ///
    /// Usually the log has that entry and more, and nothing is written. Where it does not (the state machine
    /// took a snapshot, or applied entries, that the log never made durable), the log is cleared and starts
    /// again after `applied`. In either case the commit index is raised to `applied` where it lags, for what
    /// was applied was committed. Term and vote stay, unless the term is below that of `applied`: nobody was
    /// voted for in one that this log had no trace of. Entries that are cleared above `applied`, and one of
    /// another term in its place, are rolled back: listeners are asked
    /// ([`before_rollback`](crate::EventListener::before_rollback)).
    ///
    /// `conf_state` is the state machine's, as of `applied`, if it keeps one. It replaces the log's, older or
    /// newer, for raft applies the changes after `applied` once more. Without it, the log's must be up to
    /// date: see [`ReadyBatch::set_conf_state`](super::ReadyBatch::set_conf_state).
    ///
    /// # Errors
    /// `HardStateLost` where term or vote were lost, or are of an older term than the last entry: they are
    /// not made up. `Damaged` where the region's state cannot be trusted: nor are entries made up, where more
    /// is committed than log and state machine have, or where they differ on a committed entry. `Compacted`
    /// if the state machine lacks entries that the log has dropped: raft would panic, or skip them; give it a
    /// snapshot first.
    pub fn recover(&self, applied: EntryId, conf_state: Option<&ConfState>) -> Result<EntryId> {
        let id = self.region.id();
        let hard_state = self.hard_state()?;
        let log = self.region.state();
        if let Ok(last) = self.region.term(log.last) {
            check_hard_state(&hard_state, &log, last).map_err(|e| e.in_region(id))?;
        }
        let conf_state = conf_state.filter(|c| has_voters(c));
        let applied = match applied {
            EntryId { term: 0, index: 0 } => self.start(&log, conf_state)?,
            applied => applied,
        };
        let committed = hard_state.get_commit().max(log.base.map_or(0, |b| b.index));
        if committed > log.last && committed > applied.index {
            return Err(cut_short(committed, log.last).in_region(id));
        }
        let term = match self.region.term(applied.index) {
            Ok(term) => Some(term),
            Err(e) if e.kind() == ErrorKind::Unavailable => None,
            Err(e) => return Err(e),
        };
        let fits = term == Some(applied.term);
        if let Some(term) = term
            && !fits
            && applied.index <= committed
        {
            return Err(Error::new(ErrorKind::Damaged, format!(
                "the state machine has applied entry {applied}, and the log has committed another one there, of term {term}: \
                 they do not belong together"
            ))
            .in_region(id));
        }
        let mut batch = self.engine.batch();
        let mut wanted = hard_state.clone();
        if !fits {
            batch.region(id).reset(applied)?;
            raise_term(&mut wanted, applied.term);
        }
        wanted.set_commit(wanted.get_commit().max(applied.index));
        if wanted != hard_state {
            batch.region(id).set_hard_state(&encode_hard_state(&wanted))?;
        }
        if let Some(conf_state) = conf_state
            && self.conf_state()?.is_none_or(|(index, _)| index != applied.index)
        {
            batch.region(id).put(CONF_STATE, &encode_conf_state(applied.index, conf_state))?;
        }
        if !batch.is_empty() {
            self.engine.write(batch, Durability::Synced)?;
        }
        Ok(applied)
    }

    /// Where a state machine stands that has applied nothing.
    fn start(&self, log: &LogState, conf_state: Option<&ConfState>) -> Result<EntryId> {
        let was_bootstrapped = log.base == Some(BOOTSTRAP);
        let is_new = log.base.is_none()
            && log.is_empty()
            && conf_state.is_some()
            && !self.conf_state()?.is_some_and(|(_, c)| has_voters(&c));
        Ok(if was_bootstrapped || is_new { BOOTSTRAP } else { EntryId::default() })
    }

    /// Term, vote and commit as last written.
    ///
    /// # Errors
    /// `HardStateLost` if it was lost: the node must not vote then, and must not be started with another one.
    pub fn hard_state(&self) -> Result<HardState> {
        let id = self.region.id();
        let stored = match planted(Bug::VotesWhileUnsure) {
            true => self.region.hard_state(),
            false => self.region.hard_state_or_lost()?,
        };
        match stored {
            Some(bytes) => decode_hard_state(&bytes).map_err(|e| e.in_region(id)),
            None => Ok(HardState::default()),
        }
    }

    /// The conf state as last written, and the index as of which it holds.
    ///
    /// # Errors
    /// `Damaged` if another program wrote something else under its key.
    pub fn conf_state(&self) -> Result<Option<(u64, ConfState)>> {
        let id = self.region.id();
        let bytes = self.region.get(CONF_STATE);
        bytes.map(|bytes| decode_conf_state(&bytes).map_err(|e| e.in_region(id))).transpose()
    }

    pub(super) fn read(&self, low: u64, high: u64, max_size: Option<u64>) -> Result<Vec<RaftEntry>> {
        self.decode(&self.region.entries(low..high, Self::limit(max_size))?, max_size)
    }

    /// How much to read for a limit that counts as raft does: never less than it allows.
    /// `decode` does the exact counting.
    pub(super) fn limit(max_size: Option<u64>) -> ReadLimit {
        max_size.map_or(ReadLimit::NONE, |bytes| ReadLimit::bytes(bytes).overhead(RAFT_OVERHEAD))
    }

    pub(super) fn decode(&self, stored: &[Entry], max_size: Option<u64>) -> Result<Vec<RaftEntry>> {
        let mut entries: Vec<RaftEntry> = stored
            .iter()
            .map(decode_entry)
            .collect::<Result<_>>()
            .map_err(|e| e.in_region(self.region.id()))?;
        raft::util::limit_size(&mut entries, max_size);
        Ok(entries)
    }

    /// The least index of a snapshot that would help a peer. Below the compaction point, or before a
    /// committed entry that is damaged, the peer would only be back for the next one.
    fn least_snapshot(&self, request_index: u64) -> u64 {
        let least = request_index.max(self.region.first_index().saturating_sub(1)).max(1);
        let Health::Damaged { ranges, .. } = self.region.health() else { return least };
        let committed = self.hard_state().map_or(0, |state| state.get_commit());
        ranges.iter().map(|range| *range.end()).filter(|last| *last <= committed).fold(least, u64::max)
    }

    /// Whether these entries are still the log's. Index and term name an entry, and equal last entries have
    /// equal predecessors. Some of them may be compacted: what raft asks for then is not far, and gets
    /// another answer before it comes here.
    fn is_current(&self, stored: &[Entry]) -> bool {
        let term = |index| self.region.term(index).ok();
        stored.last().is_some_and(|last| term(last.id.index) == Some(last.id.term))
    }

    /// What a `RawNode` [starts from](Storage::initial_state).
    pub(super) fn start_state(&self) -> Result<RaftState> {
        if let Some(far) = &self.far {
            far.begin();
        }
        let mut hard_state = self.hard_state()?;
        let conf_state = self.conf_state()?.map(|(_, c)| c).unwrap_or_default();
        let log = self.region.state();
        // Of an index that cannot be read the term is not known, and must not be mistaken for a low one: a
        // node in too low a term would vote twice.
        let last = self.region.term(log.last)?;
        check_hard_state(&hard_state, &log, last).map_err(|e| e.in_region(self.region.id()))?;
        raise_term(&mut hard_state, last);
        hard_state.set_commit(hard_state.get_commit().max(log.base.map_or(0, |b| b.index)));
        if hard_state.get_commit() > log.last {
            let e = cut_short(hard_state.get_commit(), log.last);
            return Err(e.in_region(self.region.id()));
        }
        Ok(RaftState { hard_state, conf_state })
    }

    /// Whether the entry lies so far back that reading it may wait for the device.
    fn is_far(&self, far: &FarReads, index: u64) -> bool {
        self.region.segments_back(index).is_some_and(|back| back > far.segments)
    }
}

impl Storage for RegionStorage {
    /// Hard state and conf state as last written: what a `RawNode` starts from. A commit index below the
    /// compaction point is raised to it: what was compacted was committed, though the note of that may not
    /// have been written. Where the log holds nothing after its base, as a reset leaves it, a term below the
    /// base's is raised to that, without a vote.
    ///
    /// # Errors
    /// `Store(Other)`, with the [error](crate::Error) in it: `HardStateLost` when the hard state was lost, or
    /// is of an older term than the last entry, which was never written in a term that this replica did not
    /// know; `Damaged` when it says that more is committed than the log has, or when the term of the last
    /// entry cannot be read.
    fn initial_state(&self) -> raft::Result<RaftState> {
        self.start_state().map_err(store_error)
    }

    /// The entries of `low..high`, at least one if the range has any, and no more than
    /// `max_size` bytes as raft counts them.
    ///
    /// # Errors
    /// `Compacted`, `Unavailable` (where `MemStorage` panics), `LogTemporarilyUnavailable` while a [far
    /// read](RegionStorage::fetch_far) is on its way. `Other` for damage, and `Compacted` for it where the
    /// context can wait: raft is reading for a follower then, which a snapshot helps as well.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        let max_size = max_size.into();
        if let Some(far) = &self.far {
            far.grow_old();
        }
        if low > high {
            return Err(store_error(Error::new(
                ErrorKind::InvalidArgument,
                format!("the range {low}..{high} ends before it begins"),
            )));
        }
        let for_follower = context.can_async();
        let read = match &self.far {
            Some(far) if for_follower && low < high && self.is_far(far, low) => {
                match far.take(&self.engine, low, high, RegionStorage::limit(max_size), context) {
                    Fetched::There(stored) if self.is_current(&stored) => {
                        let end = stored.partition_point(|e| e.id.index < high);
                        self.decode(&stored[..end], max_size)
                    }
                    Fetched::There(_) | Fetched::ReadNow => self.read(low, high, max_size),
                    Fetched::Later => return Err(StorageError::LogTemporarilyUnavailable.into()),
                }
            }
            _ => self.read(low, high, max_size),
        };
        read.map_err(|e| match e.kind() {
            ErrorKind::Damaged if for_follower => StorageError::Compacted.into(),
            _ => store_error(e),
        })
    }

    /// The term of an entry; forever also of the one just below the first.
    ///
    /// # Errors
    /// `Compacted`, `Unavailable`.
    fn term(&self, idx: u64) -> raft::Result<u64> {
        self.region.term(idx).map_err(store_error)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.region.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.region.last_index())
    }

    /// What the [provider](RegionStorage::snapshots) has.
    ///
    /// # Errors
    /// `SnapshotTemporarilyUnavailable` while it has none that is new enough: one below `request_index`,
    /// below the compaction point, or before a committed entry that is damaged would not help the peer.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let least = self.least_snapshot(request_index);
        let snapshot = self.snapshots.as_ref().and_then(|p| p.snapshot(least, to));
        match snapshot {
            Some(s) if s.get_metadata().get_index() >= least => Ok(s),
            _ => Err(StorageError::SnapshotTemporarilyUnavailable.into()),
        }
    }
}

/// Lets the log of a new region begin after [`BOOTSTRAP`], with a configuration as of it. What its replica
/// has voted `before` stays.
pub(super) fn begin_log(
    batch: &mut WriteBatch,
    id: RegionId,
    conf_state: &ConfState,
    before: HardState,
) -> Result<()> {
    if !has_voters(conf_state) {
        return Err(Error::new(ErrorKind::InvalidArgument,
            "bootstrap refused: the configuration has no voters; a replica that joins later is not bootstrapped, and waits for a snapshot",
        )
        .in_region(id));
    }
    let mut region = batch.region(id);
    if planted(Bug::LogFromIndexOne) {
        region.put(CONF_STATE, &encode_conf_state(0, conf_state))?;
        return Ok(());
    }
    let mut hard_state = before;
    raise_term(&mut hard_state, BOOTSTRAP.term);
    hard_state.set_commit(hard_state.get_commit().max(BOOTSTRAP.index));
    region.reset(BOOTSTRAP)?;
    region.set_hard_state(&encode_hard_state(&hard_state))?;
    region.put(CONF_STATE, &encode_conf_state(BOOTSTRAP.index, conf_state))?;
    Ok(())
}

pub(super) fn has_voters(conf_state: &ConfState) -> bool {
    !conf_state.get_voters().is_empty()
}

pub(super) fn exists_already(id: RegionId) -> Error {
    Error::new(ErrorKind::InvalidArgument, "bootstrap refused: the region exists already; destroy it first")
        .in_region(id)
}

/// Refuses a hard state of an older term than the last entry's: raft makes it durable no later than that
/// entry, so a newer one was lost, and with it perhaps a vote.
fn check_hard_state(state: &HardState, log: &LogState, last: u64) -> Result<()> {
    if log.is_empty() || state.get_term() >= last {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::HardStateLost,
        format!(
            "the hard state is of term {}, and the last entry, {}, of term {last}: a newer hard state was lost, and with it \
         perhaps a vote; remove the replica from its group, and let it come back under another peer id",
            state.get_term(),
            log.last
        ),
    ))
}

/// A node is never in an earlier term than its log, and in one that it takes over from there it has voted for
/// nobody: a vote is durable before it is sent.
fn raise_term(state: &mut HardState, term: u64) {
    if state.get_term() < term {
        state.set_term(term);
        state.set_vote(0);
    }
}

fn cut_short(committed: u64, last: u64) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!(
            "entry {committed} is committed, but the log ends at {last}; if the state machine has applied more, call RegionStorage::recover"
        ),
    )
}
