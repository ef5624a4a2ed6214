//! What a configuration fixes, and sets of files.

use crate::mistakes::Mistake;
use crate::table::Batch;

/// What cannot change while a configuration is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The mistake that is made.
    pub mistake: Mistake,
    /// What each batch does, in the order in which they are accepted.
    pub script: Vec<Batch>,
    /// Records that a segment has room for.
    pub slots: u8,
    /// Payloads end in zeros.
    pub own_zeros: bool,
    /// What the engine would do otherwise than it does.
    pub changes: Changes,
}

/// Changes of the protocol, each of which does away with a counterexample.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Changes {
    /// An open syncs the mark file before it relies on what it read of it, which may stand in the cache only.
    pub mark_synced_at_open: bool,
    /// The mark that says that recovery's copy is whole is written to both slots.
    pub copy_marked_twice: bool,
    /// The first group in a segment is acknowledged when a mark that leads there is durable.
    pub entry_marked: bool,
}

/// Files, or checkpoints, one bit each.
pub type Mask = u16;

pub(crate) fn bits(mask: Mask) -> impl Iterator<Item = usize> {
    (0..16).filter(move |n| mask >> n & 1 == 1)
}
