//! Where every entry is: the region table and what hangs off it.
//!
//! ```text
//!  Table -> shard -> RegionCell -> RegionState { base, key-values, extents }
//!                                      extent: first..=last  -> segment, and where in it:
//!                                         unsealed: 16 bytes an entry on the heap
//!                                         sealed:   the segment's footer, mapped, nothing per entry on the heap
//!                                                   24 bytes an extent, and the first one is part of the state
//!                         strip: thin extents of neighbouring segments, 4 bytes each, 12 while unsealed
//! ```
//!
//! Invariants
//!
//! - A region's extents are ascending and contiguous, and none is empty.
//! - Logical changes happen under the commit lock (one writer at a time) and the region's own lock; sealing
//!   and cleaning change only *where* an entry is, under the region's lock alone.
//! - A reader holds a region's lock just long enough to copy locations out. The segment it goes on to
//!   read is kept by reference count.
//! - Whether an entry exists is decided by the extents alone. A footer may list entries that are long dead.

mod counts;
mod damage;
mod extent;
mod extents;
mod homes;
mod piece;
mod plan;
mod relocate;
mod runs;
mod shadow;
mod state;
mod stretch;
mod strip;
mod table;
mod tally;
mod value;

pub(crate) use damage::Damage;
pub(crate) use extent::Extent;
pub(crate) use plan::{Planned, compaction_term};
pub(crate) use shadow::Discard;
pub(crate) use state::{RegionState, TermAt};
pub(crate) use stretch::{Part, Stretch};
pub(crate) use table::{RegionCell, Table};
pub(crate) use value::Value;

#[cfg(test)]
mod tests;
