//! How much of the disk the store may take, where the program says so.
//!
//! The log grows by whole segments, so whether it may is decided where it moves on to the next one, and by
//! upkeep. What has no entries is never refused: votes, truncations, compactions and destructions are what
//! the kept part is for, and what makes room. A segment that one of these had to begin takes no appends
//! either until there is room again: they would fill it, and the next.

use crate::error::{Error, ErrorKind};
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::RegionId;

/// How much of the budget is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Level {
    #[default]
    Roomy,
    /// More than three quarters of what appends may take are used.
    Low,
    /// The next segment would not fit.
    Spent,
}

/// The budget, and whether it is spent. Without a budget nothing is counted.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    bytes: u64,
    /// Of these, what appends may take.
    for_appends: u64,
    spent: AtomicBool,
    /// At the last look.
    used: AtomicU64,
    /// What the store takes beside its segments.
    others: AtomicU64,
}

impl Budget {
    /// Of so many bytes, of which some are kept from appends; 0 is none.
    pub(crate) fn new(bytes: u64, kept: u64) -> Budget {
        Budget { bytes, for_appends: bytes.saturating_sub(kept), ..Budget::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.bytes > 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the store took at the last look.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of checkpoints and the like.
    pub(crate) fn set_others(&self, bytes: u64) {
        self.others.store(bytes, Ordering::Relaxed);
    }

    /// What appends may still take.
    pub(crate) fn left(&self) -> u64 {
        self.for_appends.saturating_sub(self.used())
    }

    /// Looks at what the segments take, with `next` bytes for the one that comes next.
    pub(crate) fn judge(&self, segments: u64, next: u64) -> Level {
        let used = segments + self.others.load(Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
        let level = match used + next {
            then if then > self.for_appends && !planted(Bug::BudgetIgnored) => Level::Spent,
            then if then > self.for_appends / 4 * 3 => Level::Low,
            _ => Level::Roomy,
        };
        self.spent.store(level == Level::Spent, Ordering::Relaxed);
        level
    }

    /// Whether no append is accepted.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// An append was refused.
    pub(super) fn refusal(&self, region: RegionId) -> Error {
        let (used, bytes, kept) = (self.used(), self.bytes, self.bytes - self.for_appends);
        Error::new(
            ErrorKind::NoSpace,
            format!(
                "append refused, nothing was written: the store takes {used} bytes of its disk budget of {bytes}, of which {kept} \
                 are kept for votes, truncations, compactions and purges; compact the regions that pins() names and call \
                 purge(), then try again, or open with a larger disk_budget"
            ),
        )
        .in_region(region)
    }
}
