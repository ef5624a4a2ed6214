//! What is left to the moment of acceptance: chosen there, by the log as it is by then.
//!
//! The choice is what goes to the log, so that replay chooses nothing.

use super::plan::Shadow;
use crate::format::batch::Op;
use crate::planted::{Bug, planted};
use crate::report::{Compacted, Compaction};
use crate::types::{EntryId, Lsn};

/// What was chosen for the operations of a batch that leave something open, in their order.
#[derive(Default)]
pub(crate) struct Decided {
    /// The operations that take their places.
    pub(crate) ops: Vec<Op>,
    pub(crate) compactions: Vec<Compaction>,
}

impl Decided {
    pub(super) fn clear(&mut self) {
        self.ops.clear();
        self.compactions.clear();
    }
}

/// Where an operation stands: its number in the batch, and where the batch will end in the log.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) nth: usize,
    pub(super) end: Lsn,
}

impl Shadow {
    /// Compacts to `index`, which is never refused.
    ///
    /// `seen` is the region's identity in the table when the operation was added, and `since` the number of the
    /// batch's operation that was added first then: batches are joined, and one that was built for the region
    /// that another one destroys must not touch the next.
    pub(super) fn compact_to(
        &mut self,
        index: u64,
        seen: Lsn,
        since: usize,
        at: Standing,
    ) -> (Op, Compacted) {
        let is_own = |nth: Option<usize>| nth.is_some_and(|nth| nth >= since);
        let is_meant = match self.wiped {
            Some(_) => is_own(self.wiped),
            None if seen == Lsn::ZERO => self.identity == seen && is_own(self.made),
            None => self.identity == seen,
        };
        let chosen = match self.exists && (is_meant || planted(Bug::OtherIncarnationCompacted)) {
            false => Err(Compacted::Gone),
            true => self.last_to_drop(index),
        };
        let (id, done) = match chosen {
            Ok((first, base)) => {
                self.drop_through(base);
                (base, Compacted::Dropped { first, base })
            }
            Err(nothing) => return (void(), nothing),
        };
        let is_stored = self.wiped.is_none() && self.identity > Lsn::ZERO;
        let incarnation = if is_stored { self.identity } else { at.end };
        (Op::CompactTo { incarnation, id }, done)
    }

    /// The first entry that a compaction to `index` drops, and the last.
    fn last_to_drop(&self, index: u64) -> Result<(u64, EntryId), Compacted> {
        let (first, last) = self.live.filter(|live| live.0 <= index).ok_or(Compacted::Nothing)?;
        let index = index.min(last);
        match self.term(index) {
            Ok(Some(term)) => Ok((first, EntryId::new(term, index))),
            _ => Err(Compacted::Unreadable),
        }
    }
}

/// Found nothing to drop.
fn void() -> Op {
    Op::CompactTo { incarnation: Lsn::ZERO, id: EntryId::default() }
}
