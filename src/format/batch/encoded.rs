//! A record before it has its place.

use super::{Batch, Block};
use crate::format::record::{RecordKind, record_len};
use bytes::Bytes;

/// A batch, or another record, as it goes to the log, but for its header, which needs the position.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) kind: RecordKind,
    /// Empty unless the record is a batch.
    pub(crate) batch: Batch,
    pub(crate) blocks: Vec<Block>,
    pub(crate) desc: Bytes,
    pub(crate) desc_crc: u32,
    pub(crate) payload: Bytes,
}

impl Encoded {
    /// Bytes of the record.
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.desc.len() as u32, self.payload.len() as u32)
    }
}
