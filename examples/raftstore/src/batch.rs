//! What is written together: over any regions, whole or not at all.

use crate::STORE;
use crate::keys::{self, Kind};
use raftwood::{Engine, EntryId, EntryRef, RegionId, Result, WriteBatch};

/// Operations on any regions, in the order in which they were added. Made by
/// [`RaftLog::batch`](crate::RaftLog::batch), written by [`RaftLog::consume`](crate::RaftLog::consume), which
/// leaves it empty, for the next round.
#[derive(Debug)]
pub struct LogBatch(WriteBatch);

impl LogBatch {
    pub(crate) fn new(engine: &Engine) -> LogBatch {
        LogBatch(engine.batch())
    }

    /// Appends entries. Where the first stands at an index that exists, what there was from there on is cut:
    /// a follower whose suffix conflicts with its leader's overwrites it. A gap, and an index at or below the
    /// compaction point, are refused by `consume`.
    ///
    /// # Errors
    /// `InvalidArgument` where indexes are not consecutive, `TermRegression` where a term falls, `TooLarge`.
    pub fn append<'e, I>(&mut self, region: RegionId, entries: I) -> Result<&mut Self>
    where
        I: IntoIterator,
        I::Item: Into<EntryRef<'e>>,
    {
        self.0.region(region).append(entries)?;
        Ok(self)
    }

    /// Cuts the log from `first_cut` on, without anything in its place.
    pub fn cut_from(&mut self, region: RegionId, first_cut: u64) -> &mut Self {
        self.0.region(region).truncate_from(first_cut);
        self
    }

    /// Lets the log begin after `base`: a snapshot was applied, or a new replica begins after the entry that
    /// nobody holds. Entries go, states stay.
    ///
    /// # Errors
    /// `TooLarge` beyond the highest index or term.
    pub fn begin_after(&mut self, region: RegionId, base: EntryId) -> Result<&mut Self> {
        self.0.region(region).reset(base)?;
        Ok(self)
    }

    /// Term, vote and commit, as the store encodes them. The last index is not part of it: the log knows it.
    ///
    /// # Errors
    /// `TooLarge` beyond a MiB, as of every value here.
    pub fn put_hard_state(&mut self, region: RegionId, state: &[u8]) -> Result<&mut Self> {
        self.0.region(region).set_hard_state(state)?;
        Ok(self)
    }

    /// The region's description as of `apply_index`. Those of other indexes stay.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn put_region_state(
        &mut self,
        region: RegionId,
        apply_index: u64,
        state: &[u8],
    ) -> Result<&mut Self> {
        self.put_state(region, Kind::Region, apply_index, state)
    }

    /// How far the region had applied, as of `apply_index`. Those of other indexes stay.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn put_apply_state(&mut self, region: RegionId, apply_index: u64, state: &[u8]) -> Result<&mut Self> {
        self.put_state(region, Kind::Apply, apply_index, state)
    }

    /// A value of the region that has a name and one version: how far a column family is flushed, that a
    /// clean-up is due, what a recovery is at.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn put_mark(&mut self, region: RegionId, name: &str, value: &[u8]) -> Result<&mut Self> {
        self.0.region(region).put(&keys::mark(name), value)?;
        Ok(self)
    }

    /// Removes a mark; fine where there is none.
    ///
    /// # Errors
    /// `TooLarge` where no key can be so long.
    pub fn delete_mark(&mut self, region: RegionId, name: &str) -> Result<&mut Self> {
        self.0.region(region).delete(&keys::mark(name))?;
        Ok(self)
    }

    /// A value of the store itself: which cluster and store it is, the region that a bootstrap prepared.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn put_ident(&mut self, name: &str, value: &[u8]) -> Result<&mut Self> {
        self.0.region(STORE).put(&keys::ident(name), value)?;
        Ok(self)
    }

    /// Removes an ident; fine where there is none.
    ///
    /// # Errors
    /// `TooLarge` where no key can be so long.
    pub fn delete_ident(&mut self, name: &str) -> Result<&mut Self> {
        self.0.region(STORE).delete(&keys::ident(name))?;
        Ok(self)
    }

    /// Gives up the entries below `first_kept`, of the log as it is when the batch is consumed. It refuses no
    /// batch: of a region that is gone, or has moved on, it drops nothing, and
    /// [`Consumed::collected`](crate::Consumed::collected) says so.
    pub fn gc(&mut self, region: RegionId, first_kept: u64) -> &mut Self {
        if let Some(last) = first_kept.checked_sub(1) {
            self.0.region(region).compact_to(last);
        }
        self
    }

    /// Destroys the region with all that it had: entries, hard state, states of every version, marks. What
    /// follows in the batch starts from nothing, such as the state that says it is gone.
    pub fn clean(&mut self, region: RegionId) -> &mut Self {
        self.0.region(region).destroy();
        self
    }

    /// Moves what `other` holds to the end of this batch, and empties it: one record, one sync.
    ///
    /// # Errors
    /// `TooLarge` where they are too large together: consume this one, then merge again. Both stay as they
    /// were.
    pub fn merge(&mut self, other: &mut LogBatch) -> Result<()> {
        self.0.append_batch(&mut other.0)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that it would take in the log, uncompressed; a close upper bound.
    pub fn bytes(&self) -> usize {
        self.0.encoded_len()
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What was added, for the engine; it leaves the batch empty.
    pub(crate) fn take(&mut self, engine: &Engine) -> WriteBatch {
        std::mem::replace(&mut self.0, engine.batch())
    }

    /// Takes back what the engine refused.
    pub(crate) fn put_back(&mut self, refused: WriteBatch) {
        self.0 = refused;
    }

    pub(crate) fn delete_state(&mut self, region: RegionId, kind: Kind, apply_index: u64) -> Result<()> {
        self.0.region(region).delete(&kind.key(apply_index)).map(|_| ())
    }

    fn put_state(
        &mut self,
        region: RegionId,
        kind: Kind,
        apply_index: u64,
        state: &[u8],
    ) -> Result<&mut Self> {
        self.0.region(region).put(&kind.key(apply_index), state)?;
        Ok(self)
    }
}
