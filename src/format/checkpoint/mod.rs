//! A checkpoint: the region table as of one point of the log.
//!
//! ```text
//!   file header | checkpoint header | chunk | chunk | ...       chunk: length | ordinal | checksum | records
//!       128             128
//! ```
//!
//! The body is a row of chunks of about 1 MiB, so that a table of a million regions is streamed to its file
//! and never held twice. The headers are written last, over the zeros that stand in their place until then: a
//! file whose writing did not finish has no header and is no checkpoint.
//!
//! - A record never spans two chunks. Segments come first, then regions, in any order.
//! - The checkpoint header holds the number of chunks, their total length and a checksum over their
//!   checksums: no chunk can be missing, doubled or of another file.
//! - Reading verifies the whole body before it hands out the first region.

mod decode;
mod encode;
mod items;

pub(crate) use decode::{Proof, read_checkpoint, read_proof};
pub(crate) use encode::CheckpointWriter;
use items::Items;

use crate::codec::Malformed;
use crate::codec::checksum::crc32;
use crate::format::file_header::{HeaderError, Identity, SegmentKind};
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;
use std::fmt;

/// What a checkpoint says about the store as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CheckpointHeader {
    /// The store, the number of the checkpoint, and its salt.
    pub(crate) identity: Identity,
    /// Replay starts with this log segment: the effects of earlier ones are in the table.
    pub(crate) start_segment: u32,
    /// The log was durable up to here before the checkpoint became valid.
    pub(crate) synced: Lsn,
    /// The lowest number that no segment had.
    pub(crate) next_file: u32,
    /// Runs with a lower number were followed by an unclean end. `None` before version 3: nothing is known.
    pub(crate) unclean_before: Option<u32>,
    /// How many regions follow. The writer counts them itself.
    pub(crate) regions: u64,
    /// The segments that existed.
    pub(crate) segments: Vec<SegmentRecord>,
}

/// One segment that existed when the checkpoint was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentRecord {
    /// Its number.
    pub(crate) id: u32,
    /// Whether it is one of the log or a cold one.
    pub(crate) kind: SegmentKind,
    /// Its salt: another generation of the file is another segment.
    pub(crate) salt: u64,
    /// The offset one past its last record; 0 when it was not sealed yet.
    pub(crate) sealed_end: u32,
}

/// One region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RegionRecord {
    /// The region.
    pub(crate) region: RegionId,
    /// The log segment of the latest batch that is in this record.
    pub(crate) as_of: u32,
    /// Whether it exists. One that was destroyed is listed for as long as older segments may name it.
    pub(crate) exists: bool,
    /// The end of the batch that made it; `None` when it does not exist, or came to be before version 3.
    pub(crate) incarnation: Option<Lsn>,
    /// The last entry that was compacted away, or that a reset put there.
    pub(crate) base: Option<EntryId>,
    /// The hard state.
    pub(crate) hard_state: Option<Bytes>,
    /// The key-values.
    pub(crate) kv: Vec<(Bytes, Bytes)>,
    /// Where the live entries are, in the order of their indexes.
    pub(crate) extents: Vec<ExtentRecord>,
    /// Index ranges that are known to be damaged, both ends included.
    pub(crate) damage: Vec<(u64, u64)>,
    /// The same for those of which nothing says whether they were acknowledged.
    pub(crate) suspect: Vec<(u64, u64)>,
    /// Term and vote are lost: the region must not vote.
    pub(crate) hard_state_lost: bool,
}

/// One region as it is read: the fields of a [`RegionRecord`], borrowed from the checkpoint. With a million
/// regions, a copy of each that is dropped again would be most of what an open does.
#[derive(Clone, Debug)]
pub(crate) struct RegionView<'a> {
    pub(crate) region: RegionId,
    pub(crate) as_of: u32,
    pub(crate) exists: bool,
    pub(crate) incarnation: Option<Lsn>,
    pub(crate) base: Option<EntryId>,
    pub(crate) hard_state: Option<&'a [u8]>,
    pub(crate) kv: Items<'a, (&'a [u8], &'a [u8])>,
    pub(crate) extents: Items<'a, ExtentRecord>,
    pub(crate) damage: Items<'a, (u64, u64)>,
    pub(crate) suspect: Items<'a, (u64, u64)>,
    pub(crate) hard_state_lost: bool,
}

/// Consecutive live entries of a region in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentRecord {
    /// The segment.
    pub(crate) segment: u32,
    /// The index of the first.
    pub(crate) first: u64,
    /// How many, at least one.
    pub(crate) count: u64,
    /// The term of the first, unless only the segment's footer knows it.
    pub(crate) first_term: Option<u64>,
    /// The term of the last, likewise.
    pub(crate) last_term: Option<u64>,
    /// Their payloads' length.
    pub(crate) bytes: u64,
}

/// Why a checkpoint was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CheckpointError {
    /// The bytes after the file header are no checkpoint.
    Malformed(Malformed),
    /// The file header is not right.
    Header(HeaderError),
}

impl From<Malformed> for CheckpointError {
    fn from(e: Malformed) -> CheckpointError {
        CheckpointError::Malformed(e)
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Malformed(e) => e.fmt(f),
            CheckpointError::Header(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// The length of what is written last: the file header and the checkpoint header.
pub(crate) const CHECKPOINT_HEADERS_LEN: usize = 256;

/// Length (64 bits: one region's key-values have no limit in sum), ordinal, checksum.
const CHUNK_HEADER_LEN: usize = 16;

/// The first bytes of the checkpoint header.
const CHECKPOINT_MAGIC: [u8; 4] = [0xd7, b'c', b'k', b'p'];

/// The checksum of a chunk: its place in the row counts as much as what it holds.
fn chunk_crc(seed: u32, len: u64, ordinal: u32, records: &[u8]) -> u32 {
    crc32(crc32(crc32(seed, &len.to_le_bytes()), &ordinal.to_le_bytes()), records)
}

#[cfg(test)]
mod tests;
