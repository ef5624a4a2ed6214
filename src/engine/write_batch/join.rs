//! Two batches become one.

use super::WriteBatch;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX};
use crate::planted::{Bug, planted};

impl WriteBatch {
    /// Moves the operations of `other` to the end of this batch, in their order, and empties it: what several
    /// parts of a program want to write becomes one record, with one sync. What they hold is moved, not
    /// encoded again.
    ///
    /// What was checked or noted while `other` was built stays as it was then:
    /// [`compact_through`](crate::RegionBatch::compact_through) knew nothing of this batch's operations, and
    /// may be refused when they are written together; [`compact_to`](crate::RegionBatch::compact_to) drops
    /// nothing of a region that this batch destroys before.
    ///
    /// # Errors
    /// Both batches stay as they were. `TooLarge` where they are larger together than
    /// [`BATCH_BYTES_MAX`] or [`DESC_BYTES_MAX`]: write this one, then try again. `InvalidArgument` where
    /// they are of different engines, or a closure spoilt one of them.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let (mut all, mut one) = (engine.batch(), engine.batch());
    /// for region in 1..=3 {
    ///     one.region(RegionId(region)).append([(EntryId::new(1, 1), &b"set x"[..])])?;
    ///     all.append_batch(&mut one)?;
    ///     assert!(one.is_empty());
    /// }
    /// engine.write(all, Durability::Synced)?;
    /// assert_eq!(engine.regions().len(), 3);
    /// # Ok(()) }
    /// ```
    pub fn append_batch(&mut self, other: &mut WriteBatch) -> Result<()> {
        let fits = self.fits(other);
        if planted(Bug::RefusedBatchEmptied) && fits.is_err() {
            other.clear();
        }
        fits?;
        if self.is_empty() {
            // The memory goes along with what it holds. Which batch it is stays, and what was said in it.
            std::mem::swap(self, other);
            std::mem::swap(&mut self.identity, &mut other.identity);
            other.batch.committed.append(&mut self.batch.committed);
            std::mem::swap(&mut self.batch.committed, &mut other.batch.committed);
            other.clear();
            return Ok(());
        }
        let (mine, theirs) = (&mut self.batch, &mut other.batch);
        let before = mine.ops.len();
        theirs.committed.iter_mut().for_each(|c| c.ops_before += before);
        mine.committed.append(&mut theirs.committed);
        mine.sections.append(&mut theirs.sections);
        mine.ops.append(&mut theirs.ops);
        mine.runs.append(&mut theirs.runs);
        mine.entries.append(&mut theirs.entries);
        self.payload.append(&mut other.payload);
        self.inline_bytes += other.inline_bytes;
        other.clear();
        Ok(())
    }

    /// Whether `other` may be added.
    fn fits(&self, other: &WriteBatch) -> Result<()> {
        if !other.is_for(&self.table) {
            return Err(Error::invalid(
                "the batches were made by different engines: each is written by its own",
            ));
        }
        if self.is_spoilt || other.is_spoilt {
            return Err(Error::invalid(
                "a closure of append_with changed the bytes of other entries of a batch: clear it and rebuild it",
            ));
        }
        let desc = self.desc_len_max() + other.desc_len_max();
        let all = self.encoded_len() + other.encoded_len();
        for (what, len, name, max) in [
            ("description of the batches", desc, "DESC_BYTES_MAX", DESC_BYTES_MAX),
            ("batches", all, "BATCH_BYTES_MAX", BATCH_BYTES_MAX),
        ] {
            if len > max {
                let text =
                    format!("{what} of {len} bytes together refused: {name} is {max}; write one before");
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
        }
        Ok(())
    }
}
