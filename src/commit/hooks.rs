//! What the pipeline reports to the engine around it.

use crate::error::Error;
use crate::segment::Segment;
use crate::sync::Arc;
use crate::types::Lsn;

/// What the pipeline reports to the engine around it.
pub(crate) trait Hooks: Send + Sync {
    /// The log has moved on from `segment`, whose records end at `end`.
    fn segment_full(&self, segment: Arc<Segment>, end: u32);
    /// The log is durable up to here, in a segment of which nothing was before. Nothing there is acknowledged
    /// until this returns.
    fn segment_entered(&self, durable: Lsn);
    /// A segment should be prepared soon.
    fn segment_wanted(&self);
    /// Whether the log should not move on before a full segment has its footer.
    fn awaits_footer(&self) -> bool;
    /// Upkeep should look around.
    fn upkeep_wanted(&self);
    /// Writing has stopped for good.
    fn poisoned(&self, cause: &Error);
    /// There is no space for the next segment, or there is again.
    fn space(&self, exhausted: Option<&Error>);
    /// Bytes of all segments that the log has moved on from, their footers included.
    fn full_bytes(&self) -> u64;
    /// The callback or waker of the batch that ends at `lsn` panicked.
    fn callback_panicked(&self, lsn: Lsn, message: &str);
}
