//! What is on its way through the pipeline, and what the disk takes long for.

use super::pipeline::Pipeline;
use super::progress::Progress;
use crate::segment::factory::SegmentFactory;
use crate::types::Lsn;

/// The pipeline at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Load {
    pub(crate) accepted: Lsn,
    pub(crate) durable: Lsn,
    /// Of batches that were accepted and are not complete.
    pub(crate) in_flight_bytes: u64,
    /// Of records that are accepted and not on the device, whether anybody waits for that or not.
    pub(crate) undurable_bytes: u64,
    /// Threads that wait for batches before theirs to complete, or for the next segment.
    pub(crate) waiting_writers: u64,
    /// Of the prepared segments.
    pub(crate) ready_bytes: u64,
    /// Operations of the disk, here and in upkeep, that have taken long; and those of them that have ended.
    pub(crate) stalls: u64,
    pub(crate) stalls_ended: u64,
}

impl Load {
    /// Of the pipeline as it is now.
    pub(super) fn of(p: &Pipeline, progress: &Progress, factory: &SegmentFactory) -> Load {
        let (stalls, stalls_ended) = factory.watch.stalls(p.sync.unended().chain(p.write.since()));
        Load {
            accepted: progress.accepted(),
            durable: progress.durable(),
            in_flight_bytes: p.room.bytes() as u64,
            undurable_bytes: (p.queue.bytes() + p.write.bytes()) as u64 + p.sync.undurable_bytes(),
            waiting_writers: u64::from(p.awaiting_change),
            ready_bytes: p.segments.ready_bytes(),
            stalls,
            stalls_ended,
        }
    }
}
