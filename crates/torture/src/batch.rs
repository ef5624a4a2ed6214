//! A batch as the model sees it: plain values, which can be handed to an engine, printed, and tried again.

use bytes::Bytes;
use raftwood::Engine;
use raftwood::Result;
use raftwood::WriteBatch;
use raftwood::{EntryId, EntryRef, RegionId};
use std::fmt;

/// One operation on one region.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Entries with consecutive indexes from the first on.
    Append(Vec<(EntryId, Bytes)>),
    /// Discards from this index on.
    TruncateFrom(u64),
    /// Compacts through this index.
    CompactThrough(u64),
    /// Starts again after this entry.
    Reset(EntryId),
    /// Replaces the hard state.
    HardState(Bytes),
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Forgets the region.
    Destroy,
}

/// Operations in order, over any regions.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Batch(pub Vec<(u64, Op)>);

impl Batch {
    /// Adds an operation.
    pub fn add(&mut self, region: u64, op: Op) -> &mut Batch {
        self.0.push((region, op));
        self
    }

    /// The same batch, built for an engine.
    ///
    /// # Errors
    /// What building refuses.
    pub fn build(&self, engine: &Engine) -> Result<WriteBatch> {
        let mut out = engine.batch();
        for (region, op) in &self.0 {
            let mut r = out.region(RegionId(*region));
            match op {
                Op::Append(entries) => {
                    r.append(entries.iter().map(|(id, payload)| EntryRef { id: *id, payload }))?;
                }
                Op::TruncateFrom(index) => {
                    r.truncate_from(*index);
                }
                Op::CompactThrough(index) => {
                    r.compact_through(*index)?;
                }
                Op::Reset(base) => {
                    r.reset(*base)?;
                }
                Op::HardState(value) => {
                    r.set_hard_state(value)?;
                }
                Op::Put(key, value) => {
                    r.put(key, value)?;
                }
                Op::Delete(key) => {
                    r.delete(key)?;
                }
                Op::Destroy => {
                    r.destroy();
                }
            }
        }
        Ok(out)
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Append(entries) => match (entries.first(), entries.last()) {
                (Some((a, _)), Some((z, _))) => {
                    let bytes: usize = entries.iter().map(|e| e.1.len()).sum();
                    write!(f, "append {}..={} terms {}..={} {bytes} bytes", a.index, z.index, a.term, z.term)
                }
                _ => f.write_str("append nothing"),
            },
            Op::TruncateFrom(index) => write!(f, "truncate_from {index}"),
            Op::CompactThrough(index) => write!(f, "compact_through {index}"),
            Op::Reset(base) => write!(f, "reset {base}"),
            Op::HardState(value) => write!(f, "set_hard_state {} bytes", value.len()),
            Op::Put(key, value) => write!(f, "put {key:?} {} bytes", value.len()),
            Op::Delete(key) => write!(f, "delete {key:?}"),
            Op::Destroy => f.write_str("destroy"),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (region, op)) in self.0.iter().enumerate() {
            write!(f, "{}{region}: {op:?}", if i > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}
