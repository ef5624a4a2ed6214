//! The footer: the sorted index of one sealed segment, in a file of its own beside it.
//!
//! It is a cache, a pure function of the segment's records: missing or bad, it is rebuilt. What it
//! buys is that a sealed segment keeps nothing per entry on the heap, and that open neither scans it
//! nor reads the footer through.
//!
//! ```text
//!   file header | footer header | deltas | installs | ranges | runs | locations
//!       128           128          var       var      64 each  16     12 or 16 an entry
//! ```
//!
//! - Opening checks the two headers and nothing else: its cost does not depend on what the segment holds.
//! - Ranges and runs are checked when the first entry is looked up, and packed on the heap; deltas are
//!   checked when they are replayed.
//! - Locations are not checked at all as long as entries verify: the entry's own checksum, which stands there
//!   and binds identity and bytes, proves the location right. When one does not verify,
//!   [`verify_locs`](RangeRef::verify_locs) tells a rotten footer from a rotten entry.
//!
//! Deliberately absent: payloads, anything that is in no record, and any pointer to another file.

mod builder;
mod delta;
mod header;
mod tables;
mod view;

pub(crate) use builder::FooterBuilder;
pub(crate) use delta::RegionDelta;
pub(crate) use view::{Footer, FooterFile, Locs, RangeRef};

use crate::format::record::Shape;
use crate::types::Lsn;

/// Where the records of a sealed segment end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tail {
    /// The offset one past the last record.
    pub(crate) end: u32,
    /// The last record; the default when there is none.
    pub(crate) last: Shape,
    /// The highest watermark that any record carries.
    pub(crate) watermark: Lsn,
    /// The record that the first one follows; the default where there is none, and in footers before
    /// version 4.
    pub(crate) follows: Shape,
}

#[cfg(test)]
mod tests;
