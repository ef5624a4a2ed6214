//! How much of a segment the region table still owns.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Entries of the region table that lie in a segment, and their payload bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Live {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// The sum of what extents own.
#[derive(Debug, Default)]
pub(crate) struct LiveCount {
    /// Exact.
    entries: AtomicU64,
    /// Exact until a range is trimmed, estimated by count from then on.
    bytes: AtomicU64,
}

impl LiveCount {
    /// Somebody owns this much more. Only an extent of the region table takes a share, and only by its
    /// constructors.
    pub(crate) fn add(&self, more: Live) {
        self.entries.fetch_add(more.entries, Ordering::Relaxed);
        self.bytes.fetch_add(more.bytes, Ordering::Relaxed);
    }

    /// Gives back a share, or a part of one.
    pub(crate) fn sub(&self, less: Live) {
        self.entries.fetch_sub(less.entries, Ordering::Relaxed);
        self.bytes.fetch_sub(less.bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Live {
        Live { entries: self.entries(), bytes: self.bytes() }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
