//! What an engine reports to the program around it.

use crate::engine::Engine;
use crate::error::{BoxError, Error, Result};
use crate::types::{Entry, Lsn, RegionId};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A full segment got its footer.
    SegmentSealed {
        /// The segment.
        segment: u32,
        /// Entries that its footer lists.
        entries: u64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Replay would start at this segment.
        start_segment: u32,
        /// Its length in bytes.
        bytes: u64,
        /// Regions in it.
        regions: u64,
    },
    /// A purge ended.
    Purged {
        /// Segments whose files were given back.
        segments: u64,
        /// Bytes that the cleaner moved.
        moved_bytes: u64,
    },
    /// A [background scrub](crate::Options::scrub_every) ended. What it found was delivered as it was found.
    Scrubbed {
        /// Live entries that were verified.
        entries: u64,
        /// Entries that are damaged.
        damaged: u64,
        /// Headers, descriptions and checkpoints that had rotted, and footers that were rebuilt.
        mended: u64,
    },
    /// The disk has been at one operation for longer than [`stall_after`](crate::Options::stall_after): a
    /// write or sync of the log, or what prepares segments, seals, checkpoints, cleans or gives space back.
    /// Delivered again about every 100 ms while it lasts, by a thread that waits for no disk; with
    /// [`Background::Manual`](crate::Background::Manual), by [`tick`](Engine::tick).
    SyncStalled {
        /// The operation that began first of those under way.
        operation: &'static str,
        /// For how long it has been under way.
        elapsed: Duration,
    },
    /// The operation of a [`SyncStalled`](Event::SyncStalled) has ended, well or not.
    StallEnded {
        /// The operation.
        operation: &'static str,
        /// How long it took, to within 100 ms.
        elapsed: Duration,
    },
    /// Bytes are wrong, or cannot be read: those of an entry, or rot in what holds entries (a header, a
    /// description, a checkpoint), which affects no entry and names no region. Each scrub delivers again what
    /// it still finds, known damage included.
    Damage {
        /// Names the region, range, file and offset as far as they are known.
        error: &'a Error,
    },
    /// Work in the background failed; it will be tried again.
    BackgroundError {
        /// What failed and why.
        error: &'a Error,
    },
    /// A callback of [`Ticket::on_complete`](crate::Ticket::on_complete) or a waker panicked. Its batch is
    /// what its outcome says, and all else goes on; the process's panic hook has reported it before.
    CallbackPanicked {
        /// The [position](crate::Ticket::lsn) of the batch.
        lsn: Lsn,
        /// What it panicked with, if that is text.
        message: &'a str,
    },
    /// All writing has stopped.
    Poisoned {
        /// The first cause.
        error: &'a Error,
    },
    /// The directory holds something that is not of this store; it was left alone.
    ForeignFile {
        /// Where.
        path: &'a Path,
    },
}

/// Is notified of events, and may refuse a rollback.
///
/// All methods are called on whichever thread the event happened, and without any lock held that a read or a
/// write needs: both may be called from here. What upkeep does is delivered while upkeep is running, so
/// [`purge`](Engine::purge), [`scrub`](Engine::scrub), [`repair`](crate::Region::repair),
/// [`backup`](Engine::backup), [`tick`](Engine::tick) and [`close`](Engine::close) would wait for themselves:
/// they are refused with `InvalidArgument`, and another thread has to call them. (`close` closes all the
/// same, and writes no checkpoint.) A panic in a method ends what was being done and no thread of the engine.
pub trait EventListener: Send + Sync {
    /// Something happened. Must be quick: it may be called on the path of a write.
    fn on_event(&self, event: &Event<'_>) {
        let _ = event;
    }

    /// A batch is about to discard entries of a region: an append at an index that exists, or a truncation.
    ///
    /// It is called before anything of the batch is accepted. An error refuses the whole batch: nothing is
    /// written and nothing lost. A retry of the batch calls again, and so does a change of the region's log
    /// between this call and the acceptance that lets the batch discard other entries: it must be idempotent.
    /// It may write, keys of this region too, but must not append to this one, as it would be called again
    /// because of that: after a hundred times the batch is refused. The idea is Tarantool's
    /// `on_replication_split_brain_rollback`.
    fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
        let _ = rollback;
        Ok(())
    }
}

/// Entries that are about to be discarded.
pub struct Rollback<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) region: RegionId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl fmt::Debug for Rollback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rollback(region {}, {}..={})", self.region, self.first, self.last)
    }
}

impl Rollback<'_> {
    /// The region that loses entries.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// The first index to be discarded.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The last index to be discarded.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The entries to be discarded, in order. One that cannot be read is an error in its place.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        let region = self.engine.region(self.region);
        (self.first..=self.last).map(move |index| region.entry(index))
    }
}
