//! How replicas come to a store by messages and splits, and how they leave it for good.

use super::codec::{decode_hard_state, decode_peer, encode_hard_state, encode_peer};
use super::ready::{ReadyBatch, is_configured};
use super::storage::{BOOTSTRAP, CONF_STATE, begin_log};
use crate::{Engine, Error, ErrorKind, Region, RegionId, Result};
use raft::prelude::{ConfState, HardState};

/// The metadata key, in the replica's own region, under which its peer id is kept.
const PEER: &[u8] = b"raft/peer";

/// What [`ReadyBatch::create`] and [`ReadyBatch::split_off`] found, and whether they added anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Creation {
    /// The batch creates the replica, or begins the log of one that was created by a message.
    Created,
    /// It is there already, as it should be. Nothing was added.
    Exists,
    /// The store has given it up, or has a later replica of the region. Nothing was added, and it must not
    /// be started.
    Gone,
}

/// Which replicas this store has given up for good: for each region the highest peer id, in a region of
/// their own, which the application names and uses for nothing else.
///
/// Without them a message that was late, or a split that is applied a second time, would make a replica
/// again that has forgotten its vote and what it acknowledged. They are kept forever; one takes a key of
/// eight bytes and a value of up to eleven.
///
/// ```
/// use raft::prelude::ConfState;
/// use raftwood::raft_rs::{Creation, ReadyBatch, Tombstones};
/// use raftwood::{Engine, RegionId};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let tombstones = Tombstones::new(&engine, RegionId(u64::MAX));
/// let (region, peer) = (RegionId(8), 31);
///
/// // A split is applied: the new region's log begins, durably, before the state machine applies it.
/// let mut batch = ReadyBatch::new(&engine);
/// let voters = ConfState::from((vec![31, 32, 33], vec![]));
/// assert_eq!(batch.split_off(region, peer, &voters, &tombstones)?, Creation::Created);
/// batch.write(&engine)?;
///
/// // It was merged into another, and the state machine holds that durably: its log goes.
/// let mut batch = ReadyBatch::new(&engine);
/// tombstones.destroy(&mut batch, region, peer)?;
/// batch.write(&engine)?;
///
/// // The split is replayed, or a message is late.
/// let mut batch = ReadyBatch::new(&engine);
/// assert_eq!(batch.split_off(region, peer, &voters, &tombstones)?, Creation::Gone);
/// assert!(batch.is_empty() && tombstones.is_gone(region, peer)?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Tombstones {
    region: Region,
}

impl Tombstones {
    /// Those that are kept in `region`, which no group has.
    pub fn new(engine: &Engine, region: RegionId) -> Tombstones {
        Tombstones { region: engine.region(region) }
    }

    /// The region that they are kept in.
    pub fn region(&self) -> RegionId {
        self.region.id()
    }

    /// The highest peer id that was given up for the region.
    ///
    /// # Errors
    /// `Damaged` if something else was written there.
    pub fn peer(&self, region: RegionId) -> Result<Option<u64>> {
        self.region.get(&key(region)).map(|bytes| self.decode(&bytes)).transpose()
    }

    /// Whether this replica was given up: what comes for it is dropped, and what the state machine has of it
    /// is deleted.
    ///
    /// # Errors
    /// As [`peer`](Self::peer).
    pub fn is_gone(&self, region: RegionId, peer: u64) -> Result<bool> {
        Ok(self.peer(region)?.is_some_and(|gone| peer <= gone))
    }

    /// [`ReadyBatch::destroy`], and the tombstone with it: a crash leaves both or the whole replica. After
    /// a merge, only when the target's state machine holds it durably, for until then a restart replays the
    /// source's log.
    ///
    /// # Errors
    /// As [`peer`](Self::peer). `TooLarge` when the batch is full. The batch is then as it was before.
    pub fn destroy(&self, batch: &mut ReadyBatch, region: RegionId, peer: u64) -> Result<()> {
        let newest = self.after(batch, region)?.map_or(peer, |gone| gone.max(peer));
        batch.region(self.region.id()).put(&key(region), &encode_peer(newest))?;
        batch.destroy(region, peer);
        Ok(())
    }

    /// The highest peer id that is gone when the batch is written.
    fn after(&self, batch: &ReadyBatch, region: RegionId) -> Result<Option<u64>> {
        let value = batch.batch.preview(self.region.id(), &key(region)).value;
        value.map(|bytes| self.decode(&bytes)).transpose()
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64> {
        decode_peer(bytes).map_err(|e| e.in_region(self.region.id()))
    }
}

impl ReadyBatch {
    /// Drops the entries that the state machine has applied durably, up to `durable`, but for the last `keep`
    /// of them: followers that are a little behind get those from the log. Never more than that, for after a
    /// crash all that comes after `durable` is applied once more.
    ///
    /// As [`compact_to`](crate::RegionBatch::compact_to): it is decided when the batch is accepted, does
    /// nothing where nothing is there, and never makes that the batch is refused. An application that
    /// compacts through this call alone cannot lose an entry that it still needs.
    pub fn compact_applied(&mut self, region: RegionId, durable: u64, keep: u64) {
        self.batch.region(region).compact_to(durable.saturating_sub(keep));
    }

    /// Creates the replica that a message is for, empty: before its `RawNode` is made and the message is
    /// stepped. Its log and its configuration come with a snapshot, or by a [split](Self::split_off); until
    /// then it may vote. Only its peer id is written, in this batch, which is synced.
    ///
    /// # Errors
    /// `InvalidArgument` if the region holds a replica with a lower peer id: destroy it first. `Damaged` if
    /// its peer id, or the tombstone, cannot be read. `TooLarge` when the batch is full.
    pub fn create(&mut self, region: RegionId, peer: u64, tombstones: &Tombstones) -> Result<Creation> {
        let found = self.find(region, peer, tombstones)?;
        if found == Creation::Created {
            self.batch.region(region).put(PEER, &encode_peer(peer))?;
            self.must_sync = true;
        }
        Ok(found)
    }

    /// Begins the log of a region that a split makes, as [`bootstrap`](Self::bootstrap) does, in this batch,
    /// which is synced: base, hard state, the configuration, which is that of the region that is split, and
    /// the replica's peer id. Write it before the state machine applies the entry with the split; then it can
    /// be done any number of times, and after a crash the replay of that entry does it once more.
    ///
    /// A replica that a message has made before ([`create`](Self::create)) keeps term and vote. One whose log
    /// has begun is left alone, and so is one that is gone. Make the replica's `RawNode`, also that of
    /// one that was there before, after this is written, and answer no request for a vote for an election
    /// timeout where leaders read by lease: the new `RawNode` does not know whom the old one received from.
    ///
    /// # Errors
    /// `InvalidArgument` if the configuration has no voters, if the region holds a replica with a lower peer
    /// id, or one with entries and without a beginning. `Damaged` if its hard state was lost, or its peer id
    /// or the tombstone cannot be read. `TooLarge` when the batch is full. The batch is then as it was
    /// before.
    pub fn split_off(
        &mut self,
        region: RegionId,
        peer: u64,
        state: &ConfState,
        tombstones: &Tombstones,
    ) -> Result<Creation> {
        if self.find(region, peer, tombstones)? == Creation::Gone {
            return Ok(Creation::Gone);
        }
        let there = self.batch.preview(region, CONF_STATE);
        if there.base.is_some() || is_configured(region, &there)? {
            return Ok(Creation::Exists);
        }
        if there.has_entries {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "split refused: the new region has entries and no configuration; another program wrote them",
            )
            .in_region(region));
        }
        if there.hard_state_lost {
            return Err(Error::new(ErrorKind::Damaged,
                "split refused: the replica's hard state was lost, and with it what it voted; destroy it, and let \
                 it come back under a peer id that was never used",
            )
            .in_region(region));
        }
        let before = there.hard_state.map_or(Ok(HardState::default()), |bytes| decode_hard_state(&bytes));
        let before = before.map_err(|e| e.in_region(region))?;
        self.batch.atomically(|batch| {
            begin_log(batch, region, state, before)?;
            batch.region(region).put(PEER, &encode_peer(peer)).map(drop)
        })?;
        self.must_sync = true;
        Ok(Creation::Created)
    }

    /// Takes back the beginning of a log that a crash separated from its split: at a start, where the region
    /// has a log and the state machine knows nothing of it. The replica is again one that a message made,
    /// with its term and vote, and no other metadata. The replay of the split begins its log once more; a
    /// snapshot, where that comes first (of the new region, for the one that was split may have moved on by a
    /// snapshot too), does as well.
    ///
    /// False if its log has not begun, or there is no such region; then nothing is added.
    ///
    /// # Errors
    /// `InvalidArgument` if the log has gone on: it was started before the state machine had applied the
    /// split durably, and has entries that nobody can apply. `Damaged` if its hard state was lost, or cannot
    /// be read. `TooLarge` when the batch is full. The batch is then as it was before.
    pub fn undo_split_off(&mut self, region: RegionId) -> Result<bool> {
        let there = self.batch.preview(region, CONF_STATE);
        if there.base.is_none() && !is_configured(region, &there)? {
            return Ok(false);
        }
        if there.hard_state_lost {
            return Err(Error::new(
                ErrorKind::Damaged,
                "the split is not taken back: the hard state was lost",
            )
            .in_region(region));
        }
        let state = there.hard_state.map_or(Ok(HardState::default()), |bytes| decode_hard_state(&bytes));
        let mut state = state.map_err(|e| e.in_region(region))?;
        if there.has_entries || there.base != Some(BOOTSTRAP) || state.get_commit() > BOOTSTRAP.index {
            return Err(Error::new(ErrorKind::InvalidArgument,
                "the split is not taken back: the new region's log has gone on, and the state machine has nothing of it;                  start a region only when the state machine has applied its split durably",
            )
            .in_region(region));
        }
        state.set_commit(0);
        let peer = self.batch.preview(region, PEER).value;
        self.batch.atomically(|batch| {
            let mut batch = batch.region(region);
            batch.destroy();
            batch.set_hard_state(&encode_hard_state(&state))?;
            peer.map_or(Ok(()), |peer| batch.put(PEER, &peer).map(drop))
        })?;
        Ok(true)
    }

    /// Whether this replica is in the region, or may be made there.
    fn find(&self, region: RegionId, peer: u64, tombstones: &Tombstones) -> Result<Creation> {
        if tombstones.after(self, region)?.is_some_and(|gone| peer <= gone) {
            return Ok(Creation::Gone);
        }
        let there = self.batch.preview(region, PEER);
        let holder = there.value.as_deref().map(decode_peer).transpose().map_err(|e| e.in_region(region))?;
        match holder {
            Some(holder) if holder > peer => Ok(Creation::Gone),
            Some(holder) if holder < peer => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("peer {peer} refused: the region holds peer {holder}; destroy it first"),
            )
            .in_region(region)),
            // A replica that was made without these calls has no note of its own; the application says which
            // one it is.
            None if !there.exists => Ok(Creation::Created),
            _ => Ok(Creation::Exists),
        }
    }
}

fn key(region: RegionId) -> [u8; 8] {
    region.0.to_be_bytes()
}
