//! A `Ready` that is larger than a batch.

use super::codec::encode_hard_state;
use super::ready::{Persisted, ReadyBatch, add_entries, add_snapshot};
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX, ENTRY_BYTES_MAX};
use crate::{Engine, RegionId, Result, WriteBatch};
use raft::Ready;
use raft::prelude::Entry;

/// What the entries of one part take at least, but of the last: enough that one part more does not matter,
/// and little enough that whatever else is in the batch fits beside it.
const PART_BYTES: usize = 16 << 20;
const _: () = assert!(PART_BYTES <= DESC_BYTES_MAX && 2 * (PART_BYTES + ENTRY_BYTES_MAX) <= BATCH_BYTES_MAX);

/// What raft and the engine keep of an entry beside its data and context, at most.
const ENTRY_OVERHEAD: usize = 32;

impl ReadyBatch {
    /// [`add_as`](Self::add_as) for a `Ready` of any size: one with more than 16 MiB of entries is divided.
    /// Returns the batches that are to be written before this one, in this order: none for any other `Ready`.
    ///
    /// What was added before, the snapshot, term and vote are in the first part; the commit index of the
    /// `Ready` and its [`Persisted`] in the last, which this batch is then. Write or submit them one after
    /// the other, and nothing else of the region in between; only the last one is synced, and that covers all
    /// before it. After a crash in between, the log has the first of the entries, and nobody was answered:
    /// for raft, the others never came.
    ///
    /// # Errors
    /// As `add_as`, and the batch is then as it was: `TooLarge` only where what was added before leaves no
    /// room, or one entry alone is too large.
    ///
    /// ```
    /// # use raft::{Config, RawNode, prelude::ConfState};
    /// use raftwood::raft_rs::{ReadyBatch, RegionStorage};
    /// # use raftwood::{Engine, RegionId};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = Engine::open(dir.path())?;
    /// # let storage = RegionStorage::new(&engine, RegionId(7));
    /// # let applied = storage.bootstrap(&ConfState::from((vec![1], vec![])))?.index;
    /// # let config = Config { id: 1, applied, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    /// # let mut node = RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!()))?;
    /// # node.campaign()?;
    /// let ready = node.ready();
    /// let mut batch = ReadyBatch::new(&engine);
    /// for part in batch.add_in_parts(&engine, RegionId(7), 1, &ready)? {
    ///     part.write(&engine)?;
    /// }
    /// let persisted = batch.write(&engine)?;
    /// assert_eq!(persisted.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn add_in_parts(
        &mut self,
        engine: &Engine,
        region: RegionId,
        tag: u64,
        ready: &Ready,
    ) -> Result<Vec<ReadyBatch>> {
        let parts = divided(ready.entries());
        let [first, rest @ ..] = &parts[..] else {
            return self.add_as(region, tag, ready).map(|()| Vec::new());
        };
        if rest.is_empty() {
            return self.add_as(region, tag, ready).map(|()| Vec::new());
        }
        self.check_beginning(region, ready)?;
        let mut added = self.others(engine, region, ready, rest)?;
        self.batch.atomically(|batch| add_first(batch, region, ready, first))?;
        if let Some(last) = added.last_mut() {
            last.note(ready.must_sync(), Persisted { region, tag, ready: ready.number() });
            std::mem::swap(self, last);
            added.rotate_right(1);
        }
        Ok(added)
    }

    /// The parts after the first.
    fn others(
        &self,
        engine: &Engine,
        id: RegionId,
        ready: &Ready,
        parts: &[&[Entry]],
    ) -> Result<Vec<ReadyBatch>> {
        let mut batches = Vec::with_capacity(parts.len());
        for entries in parts {
            let mut batch = self.another(engine);
            add_entries(&mut batch.batch, id, entries)?;
            batches.push(batch);
        }
        if let (Some(last), Some(state)) = (batches.last_mut(), ready.hs()) {
            last.batch.region(id).set_hard_state(&encode_hard_state(state))?;
        }
        Ok(batches)
    }
}

/// Adds all of a `Ready` but the entries after `entries`, and of the commit index only what they cannot
/// contradict.
fn add_first(batch: &mut WriteBatch, id: RegionId, ready: &Ready, entries: &[Entry]) -> Result<()> {
    add_snapshot(batch, id, ready)?;
    add_entries(batch, id, entries)?;
    if let (Some(state), Some(first)) = (ready.hs(), entries.first()) {
        let mut state = state.clone();
        // What raft appends after is committed as far as it says: only what it appends may be lost.
        state.set_commit(state.get_commit().min(first.get_index() - 1));
        batch.region(id).set_hard_state(&encode_hard_state(&state))?;
    }
    Ok(())
}

/// The entries in parts of no less than [`PART_BYTES`], but for the last.
fn divided(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut bytes = 0;
    let mut ends_part = |entry: &Entry| {
        bytes += entry.get_data().len() + entry.get_context().len() + ENTRY_OVERHEAD;
        let is_full = bytes > PART_BYTES;
        if is_full {
            bytes = 0;
        }
        is_full
    };
    entries.split_inclusive(|entry| ends_part(entry)).collect()
}
