//! An event as one line.

use super::Event;
use crate::report::Pin;
use std::fmt;

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Rotated { segment, bytes } => {
                write!(f, "rotated, the log has moved on from segment {segment}, bytes in it: {bytes}")
            }
            Event::SegmentSealed { segment, entries } => {
                write!(f, "segment {segment} sealed, entries in it: {entries}")
            }
            Event::CheckpointTaken { start_segment, bytes, regions } => write!(
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
            Event::DamageFound { error } => write!(f, "damage: {}", error.with_causes()),
            Event::BackgroundFailed { error } => {
                write!(f, "work in the background failed and will be tried again: {}", error.with_causes())
            }
            Event::CallbackPanicked { lsn, message } => {
                write!(f, "the callback of the batch at {lsn} panicked: {message}")
            }
            Event::Poisoned { error } => write!(f, "all writing has stopped: {}", error.with_causes()),
            Event::ForeignFileFound { path } => {
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
