//! What became of a batch, where that is more than its position.

use crate::types::{EntryId, Lsn, RegionId};

/// A batch that was accepted: its place in the log, and what was decided then of the operations that leave
/// something to acceptance. Of a batch without any of those the lists are empty, and take no memory.
///
/// ```
/// use raftwood::{Compacted, Durability, Engine, EntryId, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).append((1..=5).map(|index| (EntryId::new(3, index), &b"set x"[..])))?;
/// batch.region(RegionId(7)).compact_to(2);
/// batch.region(RegionId(9)).compact_to(2);
/// let outcome = engine.write_outcome(batch, Durability::Synced)?;
///
/// println!("{} bytes, up to {}", outcome.bytes, outcome.lsn);
/// assert_eq!(outcome.compactions[0].done, Compacted::Dropped { first: 1, base: EntryId::new(3, 2) });
/// assert_eq!(outcome.compactions[1].done, Compacted::Gone); // there is no region 9
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// The position one past the batch.
    pub lsn: Lsn,
    /// Bytes that the batch takes in the log, its header and padding included; 0 without operations.
    pub bytes: u64,
    /// What each [`compact_to`](crate::RegionBatch::compact_to) did, in the order in which they were added.
    pub compactions: Vec<Compaction>,
    /// Where the entries of each [`append_next`](crate::RegionBatch::append_next) stand, in the order in
    /// which they were added; a call without payloads is not among them.
    pub appends: Vec<Appended>,
}

/// The indexes that one [`append_next`](crate::RegionBatch::append_next) was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// The region.
    pub region: RegionId,
    /// The index of its first entry.
    pub first: u64,
    /// The index of its last entry.
    pub last: u64,
}

/// What was decided of one [`compact_to`](crate::RegionBatch::compact_to).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Compaction {
    /// The region.
    pub region: RegionId,
    /// The index that was asked for.
    pub index: u64,
    /// What was done.
    pub done: Compacted,
}

/// What a deferred compaction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Compacted {
    /// The entries from `first` through `base.index` were dropped, and `base` is the compaction point now. It
    /// lies below the index that was asked for where the log ended before that.
    Dropped {
        /// The first that was dropped.
        first: u64,
        /// The last that was dropped.
        base: EntryId,
    },
    /// Nothing: no entry stood at or below the index.
    Nothing,
    /// Nothing: the region is not there, or not the one any more that there was when the compaction was
    /// added: it was destroyed since, and perhaps recreated.
    Gone,
    /// Nothing: the term of the last entry to drop stands in an index that cannot be read, and it would have
    /// to be made up. [`Region::term`](crate::Region::term) of that entry says what is wrong.
    Unreadable,
}
