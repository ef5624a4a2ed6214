//! What the pipeline counts and times.

use crate::histogram::{Numbers, Times};
use crate::sync::atomic::AtomicU64;

/// Counters of the pipeline.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) record_bytes: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    /// Batches that had to wait for room.
    pub(crate) throttled: AtomicU64,
    /// Attempts to prepare a segment for which there was no space.
    pub(crate) no_space: AtomicU64,
    pub(crate) commit_times: Times,
    pub(crate) queue_times: Times,
    pub(crate) write_times: Times,
    pub(crate) sync_times: Times,
    /// Batches that one sync settled.
    pub(crate) group_sizes: Numbers,
}
