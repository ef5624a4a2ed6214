//! Operations that leave something to the moment of acceptance.

use crate::engine::write_batch::RegionBatch;
use crate::format::batch::Op;
use crate::types::Lsn;

impl RegionBatch<'_> {
    /// Drops the entries at and below `index` that there are when the batch is accepted, and never refuses the
    /// batch: a collector of garbage that goes over many regions need not know which of them have moved on.
    ///
    /// It is resolved after the batch's own earlier operations. The compaction point becomes `index`, or the
    /// last entry where the log ends before that, with the term of the entry that stands there. Where nothing
    /// stands at or below `index`, or the region is not there, it does nothing.
    /// [`Outcome::compactions`](crate::Outcome::compactions) says per region what was done. What is decided is
    /// what goes to the log: a recovery decides nothing.
    ///
    /// It is meant for the region as it is now. Of one that was destroyed and recreated before the batch is
    /// accepted, in another batch, it drops nothing: what the new replica has acknowledged it may not have
    /// applied. Which one is meant, the position of the batch that made it says, as this engine knows it; a batch
    /// does not outlive the engine that made it, so the log needs nothing for this.
    ///
    /// Entries that are known to be damaged go like others. Those above stay fenced, and a hard state that was
    /// lost stays lost.
    ///
    /// Building takes no time that grows with the batch, unlike
    /// [`compact_through`](Self::compact_through), which checks now what it would do.
    ///
    /// ```
    /// use raftwood::{Compacted, Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// for region in 1..=3 {
    ///     batch.region(RegionId(region)).append((1..=9).map(|index| (EntryId::new(1, index), &b"set x"[..])))?;
    /// }
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // What may go of each, collected a while ago.
    /// let applied = [(1, 6), (2, 4), (3, 20), (4, 7)];
    /// let mut batch = engine.batch();
    /// applied.iter().for_each(|(region, index)| drop(batch.region(RegionId(*region)).compact_to(*index)));
    /// let outcome = engine.write_outcome(batch, Durability::Written)?;
    ///
    /// let firsts = [1, 2, 3].map(|region| engine.region(RegionId(region)).first_index());
    /// assert_eq!(firsts, [7, 5, 10]); // of the third nothing is left
    /// assert_eq!(outcome.compactions[3].done, Compacted::Gone);
    /// # Ok(()) }
    /// ```
    pub fn compact_to(&mut self, index: u64) -> &mut Self {
        let seen = self.batch.table.get(self.region).map_or(Lsn::ZERO, |cell| cell.read().identity());
        self.op(Op::compact_request(index, seen, self.batch.batch.ops.len()));
        self
    }
}
