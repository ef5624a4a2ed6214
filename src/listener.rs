//! What an engine reports to the program around it.

mod display;
mod rollback;

pub(crate) use rollback::{AskedAbout, Collect};
pub use rollback::{Evidence, Rollback};

use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::report::{BackupReport, Health, OpenReport, Pin};
use crate::sync::{Arc, Mutex};
use crate::trace::{self, Gravity};
use crate::types::{Lsn, RegionId};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Something that happened.
///
/// ```
/// use raftwood::{Durability, Engine, Event, EventListener, Options, RegionId};
/// use std::sync::{Arc, Mutex};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// #[derive(Default)]
/// struct Log(Mutex<Vec<String>>);
///
/// impl EventListener for Log {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::Poisoned { error } = event {
///             eprintln!("this node has to be restarted: {error}");
///         }
///         self.0.lock().unwrap().push(event.to_string()); // one line, with all causes
///     }
/// }
///
/// let log = Arc::new(Log::default());
/// let engine = Options::new().listener(log.clone()).open(dir.path())?;
/// engine.append_next(RegionId(7), ["a"], Durability::Synced)?;
/// engine.close()?;
/// assert!(log.0.lock().unwrap().iter().any(|line| line.starts_with("recovered")));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The log has moved on from a segment, which is sealed next. Delivered by the time that the write
    /// returns which went to the next one, or a moment later by upkeep.
    Rotated {
        /// The segment.
        segment: u32,
        /// Bytes of it that are used.
        bytes: u64,
    },
    /// A full segment got its footer.
    SegmentSealed {
        /// The segment.
        segment: u32,
        /// Entries that its footer lists.
        entries: u64,
    },
    /// A checkpoint was written.
    CheckpointTaken {
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
    /// [`Background::Manual`](crate::Background::Manual), by [`tick`](crate::Engine::tick).
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
    /// Writers have waited for others' batches to complete
    /// ([`in_flight_bytes_max`](crate::Options::in_flight_bytes_max)), at two looks in a row: there is one
    /// every 100 ms, or by [`tick`](crate::Engine::tick) with
    /// [`Background::Manual`](crate::Background::Manual). Shorter waits are counted
    /// ([`Stats::throttled`](crate::Stats::throttled)) and are no event.
    Throttled {
        /// Writers that wait at the moment.
        waiting: u64,
        /// Bytes of batches that are not complete.
        in_flight_bytes: u64,
    },
    /// After a [`Throttled`](Event::Throttled): at two looks in a row no writer has waited.
    ThrottlingEnded,
    /// There is no space for the next segment. Writes that need one are refused with `NoSpace`, others go on;
    /// it is tried again for each of them. Delivered once, until [`SpaceRegained`](Event::SpaceRegained).
    SpaceExhausted {
        /// What failed, and where.
        error: &'a Error,
    },
    /// After a [`SpaceExhausted`](Event::SpaceExhausted): a segment was prepared.
    SpaceRegained,
    /// A write of an openraft adapter's store was refused by a listener or for want of space, and is asked
    /// for again: its group stands still meanwhile (`LogStore::retry_for`).
    Retrying {
        /// The group's region.
        region: RegionId,
        /// Why it was refused.
        error: &'a Error,
    },
    /// After a [`Retrying`](Event::Retrying) of the same region.
    RetryingEnded {
        /// The group's region.
        region: RegionId,
        /// How long it waited, without the time that the asking took.
        waited: Duration,
        /// Whether the write was accepted at last. If not, openraft was answered with the error, or the task
        /// that waited was dropped.
        accepted: bool,
    },
    /// More than three quarters of what appends may take of the
    /// [disk budget](crate::Options::disk_budget) are used, or less than all of it again. Delivered when that
    /// begins.
    BudgetLow {
        /// What the store takes, without the pool.
        used_bytes: u64,
        /// The budget.
        budget_bytes: u64,
        /// The regions to compact first, as [`Engine::pins`](crate::Engine::pins) would name them: sixteen at
        /// most.
        pins: &'a [Pin],
    },
    /// The next segment would not fit into what appends may take of the
    /// [disk budget](crate::Options::disk_budget): appends are refused until it does, and nothing else is.
    /// Delivered when that begins.
    BudgetSpent {
        /// What the store takes, without the pool.
        used_bytes: u64,
        /// The budget.
        budget_bytes: u64,
        /// As of [`BudgetLow`](Event::BudgetLow).
        pins: &'a [Pin],
    },
    /// After a [`BudgetLow`](Event::BudgetLow) or [`BudgetSpent`](Event::BudgetSpent): there is room.
    BudgetRegained {
        /// What the store takes, without the pool.
        used_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// A [backup](crate::Engine::backup) was made, and is durable.
    BackupMade {
        /// Its directory.
        dir: &'a Path,
        /// What is in it.
        report: &'a BackupReport,
    },
    /// The store was opened, and the open is about to return this report. What upkeep does from then on may
    /// be delivered before it.
    Recovered {
        /// As [`open_report`](crate::Engine::open_report) gives it.
        report: &'a OpenReport,
    },
    /// The [health](crate::Region::health) of a region is another than before: by what a read or scrub met,
    /// or by what ended it, a repair or a write. That more of its entries are found to be damaged is no
    /// change. Delivered by the call that changed it, or a moment later by upkeep, with the health as it is
    /// then. What an open finds is in its report.
    HealthChanged {
        /// The region.
        region: RegionId,
        /// What it is now.
        health: &'a Health,
    },
    /// Bytes are wrong, or cannot be read: those of an entry, or rot in what holds entries (a header, a
    /// description, a checkpoint), which affects no entry and names no region. Each scrub delivers again what
    /// it still finds, known damage included.
    DamageFound {
        /// Names the region, range, file and offset as far as they are known.
        error: &'a Error,
    },
    /// Work in the background failed; it will be tried again.
    BackgroundFailed {
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
    ForeignFileFound {
        /// Where.
        path: &'a Path,
    },
}

impl Event<'_> {
    /// How it is logged.
    fn gravity(&self) -> Gravity {
        match self {
            Event::Poisoned { .. } | Event::DamageFound { .. } => Gravity::Error,
            Event::HealthChanged { health: Health::Damaged { .. } | Health::Suspect { .. }, .. } => {
                Gravity::Error
            }
            Event::SyncStalled { .. }
            | Event::SpaceExhausted { .. }
            | Event::BudgetLow { .. }
            | Event::BudgetSpent { .. }
            | Event::Retrying { .. }
            | Event::RetryingEnded { accepted: false, .. }
            | Event::Throttled { .. }
            | Event::BackgroundFailed { .. }
            | Event::CallbackPanicked { .. }
            | Event::ForeignFileFound { .. } => Gravity::Warn,
            Event::StallEnded { .. }
            | Event::SpaceRegained
            | Event::BudgetRegained { .. }
            | Event::RetryingEnded { .. }
            | Event::ThrottlingEnded
            | Event::HealthChanged { .. }
            | Event::Recovered { .. }
            | Event::BackupMade { .. }
            | Event::Scrubbed { .. } => Gravity::Info,
            Event::Rotated { .. }
            | Event::SegmentSealed { .. }
            | Event::CheckpointTaken { .. }
            | Event::Purged { .. } => Gravity::Debug,
        }
    }
}

/// One line for a log, with all causes of an error.
/// Is notified of events, and may refuse a rollback.
///
/// All methods are called on whichever thread the event happened, and without any lock held that a read or a
/// write needs: both may be called from here. What upkeep does is delivered while upkeep is running, so
/// [`purge`](crate::Engine::purge), [`scrub`](crate::Engine::scrub), [`repair`](crate::Region::repair),
/// [`backup`](crate::Engine::backup), [`tick`](crate::Engine::tick) and [`close`](crate::Engine::close) would
/// wait for themselves: they are refused with `InvalidArgument`, and another thread has to call them.
/// (`close` closes all the same, and writes no checkpoint.) A panic in a method ends what was being done and
/// no thread of the engine.
///
/// ```
/// use raftwood::{BoxError, Durability, Engine, EntryId, ErrorKind, EventListener, Options, RegionId, Rollback};
/// use std::sync::Arc;
///
/// /// Keeps what is about to be discarded, or does not let it go.
/// struct NothingGoes;
///
/// impl EventListener for NothingGoes {
///     fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
///         Err(format!("{} entries would go", rollback.entries().count()).into())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Options::new().listener(Arc::new(NothingGoes)).open(dir.path())?;
/// let append = |term, index| {
///     let mut batch = engine.batch();
///     batch.region(RegionId(7)).append([(EntryId::new(term, index), &b"set x"[..])])?;
///     engine.write(batch, Durability::Synced).map_err(raftwood::Error::from)
/// };
/// append(1, 1)?;
/// append(1, 2)?;
/// assert_eq!(append(2, 1).unwrap_err().kind(), ErrorKind::Refused);
/// assert_eq!(engine.region(RegionId(7)).term(1)?, 1);
/// # Ok(()) }
/// ```
pub trait EventListener: Send + Sync {
    /// Something happened. Must be quick: it may be called on the path of a write.
    fn on_event(&self, event: &Event<'_>) {
        let _ = event;
    }

    /// A batch is about to roll back entries of a region: to discard some that nothing is known to supersede.
    ///
    /// | by | for which entries |
    /// |---|---|
    /// | an append at an index that exists, a truncation, [`forget_log`](crate::RegionBatch::forget_log) | all that go |
    /// | [`reset`](crate::RegionBatch::reset): a snapshot, or a state machine that is ahead of its log | those above the base, and the one at its index where that has another term; or those above what [`committed`](crate::RegionBatch::committed) names |
    /// | [`destroy`](crate::RegionBatch::destroy) | those above what `committed` names; without it, none |
    /// | a compaction | none: a snapshot covers them |
    ///
    /// [`RollbackScope::All`](crate::RollbackScope::All) asks for all that a reset or a destroy discards.
    ///
    /// It is called before anything of the batch is accepted. An error refuses the whole batch: nothing is
    /// written and nothing lost. A retry of the batch calls again, and so does a change of the region's log
    /// between this call and the acceptance that lets the batch discard other entries: it must be idempotent.
    /// The idea is Tarantool's `on_replication_split_brain_rollback`.
    ///
    /// It may write, to other regions: a batch for one that it is asked about is refused with
    /// `InvalidArgument`, as would one be that another thread of its own waits to write for it, after a
    /// hundred rounds. What it writes by itself may be there after a crash without the rollback, which
    /// [`before_rollback_with`](Self::before_rollback_with) spares it.
    ///
    /// # Errors
    /// What the listener has against it: the caller of the write gets `Refused`, with this as its source.
    fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
        let _ = rollback;
        Ok(())
    }

    /// As [`before_rollback`](Self::before_rollback), which is called in its place unless it is implemented:
    /// what is added to `evidence` is written with the very batch that discards the entries, so that a crash
    /// leaves both or neither.
    ///
    /// ```
    /// use raftwood::{
    ///     BoxError, Durability, EntryId, EventListener, Evidence, Options, ReadLimit, RegionId, Rollback,
    /// };
    /// use std::sync::Arc;
    ///
    /// /// Keeps what is rolled back in a log of its own.
    /// struct Kept;
    /// const KEPT: RegionId = RegionId(u64::MAX);
    ///
    /// impl EventListener for Kept {
    ///     fn before_rollback_with(
    ///         &self,
    ///         rollback: &Rollback<'_>,
    ///         evidence: &mut Evidence<'_>,
    ///     ) -> Result<(), BoxError> {
    ///         for entry in rollback.entries() {
    ///             let entry = entry?;
    ///             let name = format!("{}/{}/{}", rollback.region(), rollback.incarnation(), entry.id);
    ///             evidence.append_next(KEPT, &[name.as_bytes(), b" ", &entry.payload].concat(), 0)?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().listener(Arc::new(Kept)).open(dir.path())?;
    /// for term in [1, 2] {
    ///     let mut batch = engine.batch();
    ///     batch.region(RegionId(7)).append([(EntryId::new(term, 1), &b"set x"[..])])?;
    ///     engine.write(batch, Durability::Synced)?;
    /// }
    /// let kept = engine.region(KEPT).entries(.., ReadLimit::NONE)?;
    /// assert!(kept.len() == 1 && kept[0].payload.ends_with(b"set x"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`before_rollback`](Self::before_rollback).
    fn before_rollback_with(
        &self,
        rollback: &Rollback<'_>,
        evidence: &mut Evidence<'_>,
    ) -> Result<(), BoxError> {
        let _ = evidence;
        self.before_rollback(rollback)
    }
}

/// All listeners of an engine, in the order in which they were added.
pub(crate) struct Listeners {
    all: Vec<Arc<dyn EventListener>>,
    /// Segments that the log has moved on from, and the bytes used of them: this happens where no listener
    /// may be called.
    rotated: Mutex<Vec<(u32, u32)>>,
    any_rotated: AtomicBool,
    pub(crate) asked_about: AskedAbout,
}

impl Listeners {
    pub(crate) fn new(all: Vec<Arc<dyn EventListener>>) -> Listeners {
        Listeners {
            all,
            rotated: Mutex::default(),
            any_rotated: AtomicBool::new(false),
            asked_about: AskedAbout::default(),
        }
    }

    /// Notifies each.
    pub(crate) fn deliver(&self, event: &Event<'_>) {
        trace::event(event.gravity(), event);
        self.all.iter().for_each(|l| l.on_event(event));
    }

    /// To be delivered soon, by a thread that has no lock.
    pub(crate) fn rotated(&self, segment: u32, end: u32) {
        if self.is_heard() {
            self.rotated.lock().push((segment, end));
            self.any_rotated.store(true, Ordering::Release);
        }
    }

    /// Notifies each of what had to wait. No lock is held meanwhile: a listener may write.
    pub(crate) fn deliver_rotated(&self) {
        if !self.any_rotated.swap(false, Ordering::AcqRel) {
            return;
        }
        let rotated = std::mem::take(&mut *self.rotated.lock());
        for (segment, end) in rotated {
            self.deliver(&Event::Rotated { segment, bytes: u64::from(end) });
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn EventListener>> {
        self.all.iter()
    }

    /// Whether nobody can refuse a rollback.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether anybody may come to know of an event: a listener, or a subscriber of `tracing`.
    pub(crate) fn is_heard(&self) -> bool {
        !self.all.is_empty() || trace::IS_ON
    }

    /// Work in the background ended like this; it is done again another time.
    pub(crate) fn report(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            match error.kind() {
                ErrorKind::Damaged => self.deliver(&Event::DamageFound { error: &error }),
                ErrorKind::Poisoned | ErrorKind::Closed => {}
                _ => self.deliver(&Event::BackgroundFailed { error: &error }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_names_what_it_knows() {
        let cause = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::io("writing a footer", Path::new("/db/3.foot"), cause).in_region(RegionId(7));
        let lost = Health::Damaged { ranges: vec![3..=3, 5..=9], hard_state: crate::HardStateHealth::Lost };
        let all = [
            (Event::Rotated { segment: 3, bytes: 4097 }, vec!["rotated", "segment 3", "4097"]),
            (Event::SegmentSealed { segment: 3, entries: 12 }, vec!["segment 3", "12"]),
            (
                Event::CheckpointTaken { start_segment: 4, bytes: 256, regions: 9 },
                vec!["segment 4", "256", "9"],
            ),
            (Event::Purged { segments: 2, moved_bytes: 77 }, vec!["2", "77"]),
            (Event::Scrubbed { entries: 50, damaged: 1, mended: 0 }, vec!["50", "damaged: 1"]),
            (
                Event::SyncStalled { operation: "syncing the log", elapsed: Duration::from_millis(1234) },
                vec!["1.2s", "syncing the log"],
            ),
            (
                Event::StallEnded { operation: "syncing the log", elapsed: Duration::from_millis(90) },
                vec!["90.0ms"],
            ),
            (Event::Throttled { waiting: 3, in_flight_bytes: 64 }, vec!["throttled", "3", "64"]),
            (Event::ThrottlingEnded, vec!["ended"]),
            (Event::SpaceExhausted { error: &error }, vec!["exhausted", "no storage space"]),
            (Event::SpaceRegained, vec!["regained"]),
            (Event::Retrying { region: RegionId(7), error: &error }, vec!["region 7", "no storage space"]),
            (
                Event::RetryingEnded {
                    region: RegionId(7),
                    waited: Duration::from_millis(90),
                    accepted: true,
                },
                vec!["region 7", "accepted", "90.0ms"],
            ),
            (
                Event::RetryingEnded {
                    region: RegionId(7),
                    waited: Duration::from_secs(30),
                    accepted: false,
                },
                vec!["region 7", "given up", "30.0s"],
            ),
            (Event::BudgetLow { used_bytes: 75, budget_bytes: 100, pins: &[] }, vec!["low", "75 of 100"]),
            (Event::BudgetSpent { used_bytes: 99, budget_bytes: 100, pins: &[] }, vec!["spent", "99 of 100"]),
            (Event::BudgetRegained { used_bytes: 9, budget_bytes: 100 }, vec!["regained", "9 of 100"]),
            (
                Event::BackupMade { dir: Path::new("/copy"), report: &BackupReport::default() },
                vec!["made", "/copy", "0:0"],
            ),
            (Event::Recovered { report: &OpenReport::default() }, vec!["recovered", "damage: 0"]),
            (
                Event::HealthChanged { region: RegionId(7), health: &Health::Healthy },
                vec!["changed", "region 7", "healthy"],
            ),
            (
                Event::HealthChanged { region: RegionId(7), health: &lost },
                vec!["damaged in 3, 5..=9", "hard state is lost"],
            ),
            (Event::DamageFound { error: &error }, vec!["region 7", "/db/3.foot", "no storage space"]),
            (Event::BackgroundFailed { error: &error }, vec!["tried again", "writing a footer"]),
            (Event::CallbackPanicked { lsn: Lsn::new(1, 4096), message: "oh" }, vec!["1:4096", "oh"]),
            (Event::Poisoned { error: &error }, vec!["stopped", "no storage space"]),
            (Event::ForeignFileFound { path: Path::new("/db/notes") }, vec!["/db/notes"]),
        ];
        for (event, names) in &all {
            let line = event.to_string();
            assert!(!line.contains('\n'), "{line}");
            names.iter().for_each(|name| assert!(line.contains(name), "{name}: {line}"));
        }
    }
}
