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
    /// Compacts to this index, as far as there is anything.
    CompactTo(u64),
    /// Entries of this term, after the last one.
    AppendNext(u64, Vec<Bytes>),
    /// Starts again after this entry.
    Reset(EntryId),
    /// Forgets the entries and the base.
    ForgetLog,
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

    /// The same batch, built for an engine: at once, or in two parts that are joined.
    ///
    /// # Errors
    /// What building refuses.
    pub fn build(&self, engine: &Engine) -> Result<WriteBatch> {
        let mut out = engine.batch();
        let joint = self.joint().unwrap_or(self.0.len());
        build(&self.0[..joint], &mut out)?;
        if joint < self.0.len() {
            let mut rest = engine.batch();
            build(&self.0[joint..], &mut rest)?;
            out.append_batch(&mut rest)?;
        }
        Ok(out)
    }

    /// Where the second part begins, if there are two. A compaction in it is of a region that the first one
    /// does not touch: it would not be the same otherwise.
    fn joint(&self) -> Option<usize> {
        let at = self.0.len() / 2;
        let (first, second) = self.0.split_at(at);
        let apart = second.iter().all(|(region, op)| match op {
            Op::CompactTo(_) | Op::CompactThrough(_) => first.iter().all(|(other, _)| other != region),
            _ => true,
        });
        (at > 0 && self.0.len().is_multiple_of(2) && apart).then_some(at)
    }
}

fn build(ops: &[(u64, Op)], out: &mut WriteBatch) -> Result<()> {
    for (region, op) in ops {
        let mut r = out.region(RegionId(*region));
        match op {
            Op::Append(entries) => {
                r.append(entries.iter().map(|(id, payload)| EntryRef { id: *id, payload }))?;
            }
            Op::AppendNext(term, payloads) => {
                r.append_next(payloads, *term)?;
            }
            Op::TruncateFrom(index) => {
                r.truncate_from(*index);
            }
            Op::CompactThrough(index) => {
                r.compact_through(*index)?;
            }
            Op::CompactTo(index) => {
                r.compact_to(*index);
            }
            Op::Reset(base) => {
                r.reset(*base)?;
            }
            Op::ForgetLog => {
                r.forget_log();
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
    Ok(())
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
            Op::CompactTo(index) => write!(f, "compact_to {index}"),
            Op::AppendNext(term, payloads) => {
                let bytes: usize = payloads.iter().map(Bytes::len).sum();
                write!(f, "append_next {} of term {term} {bytes} bytes", payloads.len())
            }
            Op::Reset(base) => write!(f, "reset {base}"),
            Op::ForgetLog => f.write_str("forget_log"),
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
