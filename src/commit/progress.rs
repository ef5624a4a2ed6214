//! How far the log has come.

use crate::format::record::Shape;
use crate::planted::{Bug, planted};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::types::{Durability, Lsn};

/// How far the log has come, for threads that look without the pipeline's lock. All of it is moved under that
/// lock, and `written` and `durable` by no stage that ends after the gate was shut: what waits for them is
/// answered by looking at them.
pub(super) struct Progress {
    accepted: AtomicU64,
    /// Everything before is in the operating system's hands.
    written: AtomicU64,
    durable: AtomicU64,
    /// The number of the segment that was synced last.
    entered: AtomicU32,
    /// Where this run began, and the end of the last record that was durable then.
    start: Lsn,
    before: Lsn,
    /// The tail of the run before is being re-persisted.
    recovering: AtomicBool,
}

impl Progress {
    /// Of a run that begins at `start`, after a log whose last record has the shape `chain`.
    pub(super) fn new(start: Lsn, chain: Shape) -> Progress {
        Progress {
            accepted: AtomicU64::new(start.to_u64()),
            written: AtomicU64::new(start.to_u64()),
            durable: AtomicU64::new(start.to_u64()),
            entered: AtomicU32::new(0),
            start,
            before: chain.end().unwrap_or(Lsn::ZERO),
            recovering: AtomicBool::new(true),
        }
    }

    /// Where the next batch will go, or later.
    pub(super) fn accepted(&self) -> Lsn {
        Lsn::from_u64(self.accepted.load(Ordering::Acquire))
    }

    /// Everything before is on the device. Before the first sync of this run: where its first
    /// segment may start.
    pub(super) fn durable(&self) -> Lsn {
        Lsn::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// How far the log has this durability.
    pub(super) fn reached(&self, durability: Durability) -> Lsn {
        match durability {
            Durability::Synced if !planted(Bug::AckBeforeSync) => self.durable(),
            _ => Lsn::from_u64(self.written.load(Ordering::Acquire)),
        }
    }

    /// Whether anything was accepted in this run.
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted() > self.start
    }

    /// Whether anything of this run is durable.
    pub(super) fn has_synced(&self) -> bool {
        self.durable() > self.start
    }

    /// The end of the last record that is known to be on the device: never the start of a segment.
    pub(super) fn durable_record(&self) -> Lsn {
        let durable = self.durable();
        if durable == self.start { self.before } else { durable }
    }

    /// What the records written now say of the log before them: the end of a record, never of a gap
    /// between segments.
    ///
    /// While recovery copies the tail of the run before, nothing here counts yet: a watermark inside this run
    /// is what tells the next one that the copy is complete.
    pub(super) fn watermark(&self) -> Lsn {
        let durable = self.durable();
        if self.is_recovering() || durable == self.start { self.before } else { durable }
    }

    /// Whether the tail of the run before is being copied.
    pub(super) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Acquire)
    }

    /// Whether what was synced up to `durable` is the first of its segment. Asked by one sync at a time. What
    /// recovery copies does not count: nothing of it may be believed before all is there.
    pub(super) fn enters(&self, durable: Lsn) -> bool {
        !self.is_recovering() && self.entered.swap(durable.segment(), Ordering::Relaxed) != durable.segment()
    }

    pub(super) fn set_recovered(&self) {
        self.recovering.store(false, Ordering::Release);
    }

    pub(super) fn set_accepted(&self, lsn: Lsn) {
        self.accepted.store(lsn.to_u64(), Ordering::Release);
    }

    pub(super) fn set_written(&self, lsn: Lsn) {
        self.written.store(lsn.to_u64(), Ordering::Release);
    }

    pub(super) fn set_durable(&self, lsn: Lsn) {
        self.durable.store(lsn.to_u64(), Ordering::Release);
    }
}
