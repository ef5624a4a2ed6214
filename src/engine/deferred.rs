//! Operations that leave something to the moment of acceptance.

use crate::engine::Engine;
use crate::engine::write_batch::RegionBatch;
use crate::error::{Error, Result};
use crate::format::batch::{Op, TermRun};
use crate::limits::INDEX_MAX;
use crate::types::{Durability, EntryId, Lsn, RegionId};

impl RegionBatch<'_> {
    /// Drops the entries at and below `index` that there are when the batch is accepted, and never refuses
    /// the batch: a collector of garbage that goes over many regions need not know which of them have moved
    /// on.
    ///
    /// It is resolved after the batch's own earlier operations. The compaction point becomes `index`, or the
    /// last entry where the log ends before that, with the term of the entry that stands there. Where nothing
    /// stands at or below `index`, or the region is not there, it does nothing.
    /// [`Outcome::compactions`](crate::Outcome::compactions) says per region what was done. What is decided
    /// is what goes to the log: a recovery decides nothing.
    ///
    /// It is meant for the region as it is now. Of one that was destroyed and recreated before the batch is
    /// accepted, in another batch, it drops nothing: what the new replica has acknowledged it may not have
    /// applied. Which one is meant, the position of the batch that made it says, as this engine knows it.
    /// That is not written with what is put off: a batch does not outlive the engine that made it.
    ///
    /// Entries that are known to be damaged go like others. Those above stay fenced, and a hard state that
    /// was lost stays lost.
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
    ///     let entries = (1..=9).map(|index| (EntryId::new(1, index), &b"set x"[..]));
    ///     batch.region(RegionId(region)).append(entries)?;
    /// }
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // What may go of each, collected a while ago.
    /// let mut batch = engine.batch();
    /// for (region, applied) in [(1, 6), (2, 4), (3, 20), (4, 7)] {
    ///     batch.region(RegionId(region)).compact_to(applied);
    /// }
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

    /// Appends entries of one term after the last entry that there is when the batch is accepted, after the
    /// batch's own earlier operations; in an empty log after the compaction point, or from index 1 on.
    /// Nothing is discarded. [`Outcome::appends`](crate::Outcome::appends) says which indexes they got, and
    /// those go to the log. Where entries have no terms, `term` is 0.
    ///
    /// No payloads are fine, and are no operation. [`Engine::append_next`] does this alone.
    ///
    /// # Errors
    /// `TooLarge` beyond [`ENTRY_BYTES_MAX`](crate::limits::ENTRY_BYTES_MAX),
    /// [`BATCH_BYTES_MAX`](crate::limits::BATCH_BYTES_MAX) or [`TERM_MAX`](crate::limits::TERM_MAX). The
    /// batch is then as it was before the call. [`Engine::write`] refuses a `term` below that of the last
    /// entry (`TermRegression`), and indexes beyond [`INDEX_MAX`] (`TooLarge`).
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// let mut region = batch.region(RegionId(7));
    /// region.append([(EntryId::new(2, 10), &b"ten"[..])])?.append_next(["eleven", "twelve"], 3)?;
    /// let outcome = engine.write_outcome(batch, Durability::Synced)?;
    /// assert_eq!((outcome.appends[0].first, outcome.appends[0].last), (11, 12));
    /// # Ok(()) }
    /// ```
    pub fn append_next<P: AsRef<[u8]>>(
        &mut self,
        payloads: impl IntoIterator<Item = P>,
        term: u64,
    ) -> Result<&mut Self> {
        let undo = self.batch.mark();
        let first = self.foreseen();
        for (n, payload) in payloads.into_iter().enumerate() {
            if let Err(e) = self.push_next(EntryId::new(term, first), n as u64, payload.as_ref()) {
                self.batch.rewind(undo);
                return Err(e);
            }
        }
        Ok(self)
    }

    /// The index that the next entry would have if the batch were accepted now, or a guess at it. Where it
    /// comes out otherwise, acceptance has to move the checksums.
    fn foreseen(&self) -> u64 {
        let b = &self.batch.batch;
        let next = match (b.sections.last(), b.ops.last().and_then(Op::as_append)) {
            (Some(s), Some((first, entries, _))) if s.region == self.region => first + u64::from(entries),
            _ => self.batch.table.get(self.region).map_or(1, |cell| cell.read().next()),
        };
        // A guess refuses nothing.
        if next < INDEX_MAX - u64::from(u32::MAX) { next } else { 1 }
    }

    fn push_next(&mut self, first: EntryId, nth: u64, payload: &[u8]) -> Result<()> {
        let id = EntryId::new(first.term, first.index + nth);
        let meta = self.fill(id, payload.len(), |out| out.extend_from_slice(payload))?;
        if nth == 0 {
            self.op(Op::AppendNext { first: first.index, entries: 0, runs: 1 });
            self.batch.batch.runs.push(TermRun { term: id.term, entries: 0 });
        }
        let b = &mut self.batch.batch;
        if let (Some(Op::AppendNext { entries, .. }), Some(run)) = (b.ops.last_mut(), b.runs.last_mut()) {
            *entries += 1;
            run.entries += 1;
        }
        b.entries.push(meta);
        self.check_size()
    }
}

impl Engine {
    /// Appends entries without terms to a region, after its last one, and returns the index of the first: a
    /// plain write-ahead log. Returns when they are as durable as asked. For several regions at once, or with
    /// terms, there is [`RegionBatch::append_next`].
    ///
    /// Of callers that append to one region at the same time each gets indexes of its own, without gaps. What
    /// a crash leaves is what it leaves of a [`write`](Engine::write): all of one call's entries, or none.
    ///
    /// # Errors
    /// As [`write`](Engine::write); `InvalidArgument` without any payload. A region whose last entry has a
    /// term refuses entries without one (`TermRegression`).
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ReadLimit, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let log = RegionId(0);
    /// assert_eq!(engine.append_next(log, ["debit 5", "credit 5"], Durability::Synced)?, 1);
    /// assert_eq!(engine.append_next(log, ["close"], Durability::Synced)?, 3);
    /// assert_eq!(engine.region(log).entries(.., ReadLimit::NONE)?.len(), 3);
    /// # Ok(()) }
    /// ```
    pub fn append_next<P: AsRef<[u8]>>(
        &self,
        region: RegionId,
        payloads: impl IntoIterator<Item = P>,
        durability: Durability,
    ) -> Result<u64> {
        let mut batch = self.batch();
        batch.region(region).append_next(payloads, 0)?;
        let nothing = || Error::invalid("append_next without a payload refused: there is no index to return");
        if batch.is_empty() {
            return Err(nothing().in_region(region));
        }
        let outcome = self.write_outcome(batch, durability)?;
        outcome.appends.first().map(|a| a.first).ok_or_else(nothing)
    }
}
