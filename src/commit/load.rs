//! What is on its way through the pipeline, and what the disk takes long for.

use super::committer::Committer;
use crate::planted::{Bug, planted};
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

impl Committer {
    /// How many threads wait for batches before theirs to complete, and how many bytes these have.
    pub(crate) fn waiting_for_room(&self) -> (u64, u64) {
        let p = self.lock();
        (p.line.len() as u64, p.in_flight_bytes as u64)
    }

    /// The pipeline as it is now.
    pub(crate) fn load(&self) -> Load {
        let p = self.lock();
        let syncing = p.syncs.iter().filter(|s| !s.ok).map(|s| s.started);
        let (stalls, stalls_ended) = self.factory.watch.stalls(syncing.chain(p.writing));
        let on_their_way = p.queued_bytes + p.writing_bytes;
        let syncing: u64 =
            p.syncs.iter().filter(|_| !planted(Bug::SyncingNotUndurable)).map(|s| s.bytes).sum();
        Load {
            accepted: self.accepted(),
            durable: self.durable(),
            in_flight_bytes: p.in_flight_bytes as u64,
            undurable_bytes: on_their_way as u64 + p.unsynced_bytes + syncing,
            waiting_writers: u64::from(p.in_room),
            ready_bytes: p.ready.iter().map(|s| s.len).sum(),
            stalls,
            stalls_ended,
        }
    }
}
