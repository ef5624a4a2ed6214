//! Batches that were accepted and are not in their file yet, out of which they are read until then.

use crate::format::record::RECORD_HEADER_LEN;
use crate::sync::Mutex;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of one batch that were accepted and may not have reached the file.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    /// Offset of the record.
    pub(crate) start: u32,
    pub(crate) desc_len: u32,
    pub(crate) payload: Bytes,
}

impl InFlight {
    fn payload_start(&self) -> u64 {
        u64::from(self.start) + u64::from(RECORD_HEADER_LEN) + u64::from(self.desc_len)
    }
}

/// Those of one segment, by position.
#[derive(Debug, Default)]
pub(super) struct InFlightQueue(Mutex<VecDeque<InFlight>>);

impl InFlightQueue {
    /// Calls come in the order of positions.
    pub(super) fn push(&self, batch: InFlight) {
        self.0.lock().push_back(batch);
    }

    /// Everything below `end` is in the file now.
    pub(super) fn drop_below(&self, end: u32) {
        let mut queue = self.0.lock();
        while queue.front().is_some_and(|b| b.start < end) {
            queue.pop_front();
        }
    }

    /// The bytes of a range of the file, if one batch here has them.
    pub(super) fn bytes(&self, from: u64, to: u64) -> Option<Bytes> {
        let queue = self.0.lock();
        let at = queue.partition_point(|b| b.payload_start() <= from).checked_sub(1)?;
        let batch = queue.get(at)?;
        let (a, b) = (from - batch.payload_start(), to - batch.payload_start());
        (b <= batch.payload.len() as u64).then(|| batch.payload.slice(a as usize..b as usize))
    }
}
