//! A record before it has its place.

use super::{Batch, Block, Op};
use crate::codec::checksum::crc32;
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

    /// Puts what was chosen in the places of the operations that left it open, in their order. The record is as
    /// long as before: what can be chosen has a fixed width.
    pub(crate) fn decide(&mut self, chosen: impl IntoIterator<Item = Op>) {
        for (op, chosen) in self.batch.ops.iter_mut().filter(|op| op.is_deferred()).zip(chosen) {
            *op = chosen;
        }
        let mut desc = Vec::with_capacity(self.desc.len());
        self.batch.encode_desc(&self.blocks, &mut desc);
        debug_assert_eq!(desc.len(), self.desc.len());
        self.desc_crc = crc32(0, &desc);
        self.desc = Bytes::from(desc);
    }
}
