//! How the tool opens a store that it changes.

use raftwood::{Options, Reader};

/// Options with segments as long as those that are there. What an engine keeps ready depends on that
/// length: the tool would leave a store of small segments larger than it found it.
pub(crate) fn options_like(reader: &Reader) -> Options {
    let longest = reader.segments().iter().map(|segment| segment.bytes).max();
    let fits = |bytes: u64| (bytes / BLOCK * BLOCK).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    longest.map_or_else(Options::new, |bytes| Options::new().segment_bytes(fits(bytes)))
}

/// What [`Options::segment_bytes`] takes: multiples of this, between these.
const BLOCK: u64 = 4096;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 2 << 30;
