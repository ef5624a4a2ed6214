//! What an engine reports to the program around it.

use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::report::{BackupReport, Health, OpenReport, Pin};
use crate::sync::{Arc, Mutex};
use crate::trace::{self, Gravity};
use crate::types::{Entry, Lsn, RegionId};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Something that happened.
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

impl Event<'_> {
    /// How it is logged.
    fn gravity(&self) -> Gravity {
        match self {
            Event::Poisoned { .. } | Event::Damage { .. } => Gravity::Error,
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
            | Event::BackgroundError { .. }
            | Event::CallbackPanicked { .. }
            | Event::ForeignFile { .. } => Gravity::Warn,
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
            | Event::Checkpoint { .. }
            | Event::Purged { .. } => Gravity::Debug,
        }
    }
}

/// One line for a log, with all causes of an error.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Rotated { segment, bytes } => {
                write!(f, "rotated, the log has moved on from segment {segment}, bytes in it: {bytes}")
            }
            Event::SegmentSealed { segment, entries } => {
                write!(f, "segment {segment} sealed, entries in it: {entries}")
            }
            Event::Checkpoint { start_segment, bytes, regions } => write!(
                f,
                "checkpoint written, regions in it: {regions}, bytes: {bytes}; a replay starts at segment {start_segment}"
            ),
            Event::Purged { segments, moved_bytes } => {
                write!(f, "purged, segments given back: {segments}, bytes moved: {moved_bytes}")
            }
            Event::Scrubbed { entries, damaged, mended } => {
                write!(f, "scrubbed, entries verified: {entries}, damaged: {damaged}, mended: {mended}")
            }
            Event::SyncStalled { operation, elapsed } => {
                write!(f, "the disk has been at one operation for {elapsed:.1?}: {operation}")
            }
            Event::StallEnded { operation, elapsed } => {
                write!(f, "a stall ended, the disk took {elapsed:.1?}: {operation}")
            }
            Event::Throttled { waiting, in_flight_bytes } => write!(
                f,
                "throttled, writers that wait for others' batches: {waiting}, bytes in flight: {in_flight_bytes}"
            ),
            Event::ThrottlingEnded => write!(f, "throttling ended, no writer waits for others' batches"),
            Event::SpaceExhausted { error } => {
                write!(f, "space exhausted, there is none for the next segment: {}", error.with_causes())
            }
            Event::SpaceRegained => write!(f, "space regained, the next segment was prepared"),
            Event::BudgetLow { used_bytes, budget_bytes, pins } => write!(
                f,
                "disk budget low, bytes taken: {used_bytes} of {budget_bytes}; regions to compact: {}",
                Named(pins)
            ),
            Event::BudgetSpent { used_bytes, budget_bytes, pins } => write!(
                f,
                "disk budget spent, appends are refused, bytes taken: {used_bytes} of {budget_bytes}; regions to compact: {}",
                Named(pins)
            ),
            Event::BudgetRegained { used_bytes, budget_bytes } => {
                write!(f, "disk budget regained, bytes taken: {used_bytes} of {budget_bytes}")
            }
            Event::Retrying { region, error } => {
                write!(
                    f,
                    "a write of region {region} is refused and asked for again: {}",
                    error.with_causes()
                )
            }
            Event::RetryingEnded { region, waited, accepted: true } => {
                write!(f, "a write of region {region} that was refused is accepted, it waited {waited:.1?}")
            }
            Event::RetryingEnded { region, waited, accepted: false } => {
                write!(f, "a write of region {region} is given up, it waited {waited:.1?}")
            }
            Event::BackupMade { dir, report } => write!(
                f,
                "backup made in {}, durable up to {}, segments linked: {}, copied: {}, bytes copied: {}",
                dir.display(),
                report.durable,
                report.linked_segments,
                report.copied_segments,
                report.copied_bytes
            ),
            Event::Recovered { report } => write!(
                f,
                "recovered in {:.1?}, regions: {}, segments: {}, damage: {}, suspects: {}, hard states lost: {}, torn bytes \
                 dropped: {}",
                report.times.total,
                report.regions,
                report.segments,
                report.damage.len(),
                report.suspects.len(),
                report.hard_states_lost,
                report.torn_bytes
            ),
            Event::HealthChanged { region, health } => {
                write!(f, "health of region {region} changed, it is now {health}")
            }
            Event::Damage { error } => write!(f, "damage: {}", error.with_causes()),
            Event::BackgroundError { error } => {
                write!(f, "work in the background failed and will be tried again: {}", error.with_causes())
            }
            Event::CallbackPanicked { lsn, message } => {
                write!(f, "the callback of the batch at {lsn} panicked: {message}")
            }
            Event::Poisoned { error } => write!(f, "all writing has stopped: {}", error.with_causes()),
            Event::ForeignFile { path } => {
                write!(f, "not of this store, and left alone: {}", path.display())
            }
        }
    }
}

/// The regions of pins.
struct Named<'a>(&'a [Pin]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, pin) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, pin.region)?;
        }
        Ok(())
    }
}

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

/// All listeners of an engine, in the order in which they were added.
pub(crate) struct Listeners {
    all: Vec<Arc<dyn EventListener>>,
    /// Segments that the log has moved on from, and the bytes used of them: this happens where no listener
    /// may be called.
    rotated: Mutex<Vec<(u32, u32)>>,
    any_rotated: AtomicBool,
}

impl Listeners {
    pub(crate) fn new(all: Vec<Arc<dyn EventListener>>) -> Listeners {
        Listeners { all, rotated: Mutex::default(), any_rotated: AtomicBool::new(false) }
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
                ErrorKind::Damaged => self.deliver(&Event::Damage { error: &error }),
                ErrorKind::Poisoned | ErrorKind::Closed => {}
                _ => self.deliver(&Event::BackgroundError { error: &error }),
            }
        }
    }
}

/// Entries that are about to be discarded.
pub struct Rollback<'a> {
    pub(crate) region: RegionId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Reads one of them.
    pub(crate) entry: &'a (dyn Fn(u64) -> Result<Entry> + Send + Sync),
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
        (self.first..=self.last).map(self.entry)
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
            (Event::Checkpoint { start_segment: 4, bytes: 256, regions: 9 }, vec!["segment 4", "256", "9"]),
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
            (Event::Damage { error: &error }, vec!["region 7", "/db/3.foot", "no storage space"]),
            (Event::BackgroundError { error: &error }, vec!["tried again", "writing a footer"]),
            (Event::CallbackPanicked { lsn: Lsn::new(1, 4096), message: "oh" }, vec!["1:4096", "oh"]),
            (Event::Poisoned { error: &error }, vec!["stopped", "no storage space"]),
            (Event::ForeignFile { path: Path::new("/db/notes") }, vec!["/db/notes"]),
        ];
        for (event, names) in &all {
            let line = event.to_string();
            assert!(!line.contains('\n'), "{line}");
            names.iter().for_each(|name| assert!(line.contains(name), "{name}: {line}"));
        }
    }
}
