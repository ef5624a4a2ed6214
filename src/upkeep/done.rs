//! What an open engine counts of what upkeep writes.

use crate::histogram::Times;
use crate::sync::atomic::AtomicU64;

/// What upkeep has done. What it wrote to checkpoints is counted where they are written.
#[derive(Default)]
pub(crate) struct Done {
    /// From when a full segment's turn came to its footer's being on disk.
    pub(crate) seal_times: Times,
    /// Bytes of footers.
    pub(crate) footer_bytes: AtomicU64,
    /// Bytes of entries that the cleaner moved.
    pub(crate) cleaned_bytes: AtomicU64,
}
