//! What is written to regions here, and read back. Where nothing else is said, an entry is of term 1 and
//! holds its index over and over.

use raftwood::{Durability, Engine, EntryId, EntryRef, Lsn, ReadLimit, RegionId, WriteBatch, WriteError};
use std::ops::RangeInclusive;

/// What entry `index` holds.
pub(crate) fn payload(index: u64, len: usize) -> Vec<u8> {
    vec![index as u8; len]
}

/// A batch with one entry.
pub(crate) fn batch(engine: &Engine, region: RegionId, index: u64, len: usize) -> WriteBatch {
    let mut batch = engine.batch();
    batch.region(region).append([(EntryId::new(1, index), &payload(index, len)[..])]).unwrap();
    batch
}

/// Appends one entry, and syncs it.
pub(crate) fn append(engine: &Engine, region: RegionId, index: u64, len: usize) -> Result<Lsn, WriteError> {
    engine.write(batch(engine, region, index, len), Durability::Synced)
}

/// Compacts a region, and syncs that.
pub(crate) fn compact(engine: &Engine, region: RegionId, through: u64) -> Result<Lsn, WriteError> {
    let mut batch = engine.batch();
    batch.region(region).compact_through(through).unwrap();
    engine.write(batch, Durability::Synced)
}

/// Sets the hard state of a region, and syncs it.
#[cfg(feature = "sim")]
pub(crate) fn vote(engine: &Engine, region: RegionId, vote: impl AsRef<[u8]>) -> Result<Lsn, WriteError> {
    let mut batch = engine.batch();
    batch.region(region).set_hard_state(vote.as_ref()).unwrap();
    engine.write(batch, Durability::Synced)
}

/// The region has these entries, as [`append`] wrote them, and no others.
#[track_caller]
pub(crate) fn holds(engine: &Engine, region: RegionId, indexes: RangeInclusive<u64>, len: usize) {
    let read = engine.region(region).entries(.., ReadLimit::NONE).unwrap();
    assert!(read.iter().map(|e| e.id.index).eq(indexes));
    assert!(read.iter().all(|e| e.payload == payload(e.id.index, len)));
}

/// How many entries can be read.
#[cfg(feature = "sim")]
pub(crate) fn count(engine: &Engine, region: RegionId) -> usize {
    engine.region(region).entries(.., ReadLimit::NONE).unwrap().len()
}

/// Entries as an append takes them.
pub(crate) fn refs(entries: &[(EntryId, Vec<u8>)]) -> impl Iterator<Item = EntryRef<'_>> {
    entries.iter().map(|(id, payload)| EntryRef { id: *id, payload })
}
