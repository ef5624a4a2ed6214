//! Upkeep: sealing, checkpoints, and giving space back. None of it on the path of a write.
//!
//! A segment's file may go once nothing needs it:
//!
//! - no live entry lies in it,
//! - and both kept checkpoints were begun after its last entry died, so that neither refers to it,
//! - and both start their replay behind it, so that its operations are in both.
//!
//! So the newest checkpoint may rot and the one before it still recovers everything; there are no tombstones, and
//! segments may go in any order.
//!
//! What keeps a mostly dead segment alive is moved by the [`clean`]er into a cold segment, sorted by region, and
//! installed by one control record in the log. Until that record is durable nothing refers to the copy; from then on
//! recovery moves the same ranges again, which is harmless.

mod checkpoint;
mod clean;
mod repair;
mod scrub;
mod seal;

pub(crate) use checkpoint::{checkpoint, checkpoint_if_due, first_checkpoint, first_checkpoint_info};
#[cfg(any(test, feature = "sim"))]
pub(crate) use clean::clean as clean_once;
pub(crate) use clean::relocate;
pub(crate) use repair::repair;
pub(crate) use scrub::{Pace, scrub, verify};
pub(crate) use seal::seal_due;

use crate::engine::listener::Event;
use crate::engine::report::PurgeReport;
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::FileKind;
use crate::planted::{Bug, planted};
use crate::segment::{Segment, footer_path};
use crate::store::{Store, lock};
use crate::types::Lsn;
use std::sync::Arc;

/// Everything the background thread does when it is woken.
pub(crate) fn upkeep(store: &Store) -> Result<()> {
    let _one = store.upkeep.lock()?;
    seal_due(store)?;
    if planted(Bug::UnlinkBeforeCheckpoint) {
        reclaim(store, &mut PurgeReport::default())?;
        store.factory.absorb_retired(store.committer.ready().0)?;
    }
    checkpoint_if_due(store)?;
    if store.options.purge.background {
        let mut report = PurgeReport::default();
        reclaim(store, &mut report)?;
        if clean::needed(store) {
            clean::clean(store, &mut report)?;
        }
        tell(store, &report);
    }
    store.factory.absorb_retired(store.committer.ready().0)?;
    store.factory.keep_reserve()
}

/// Gives back all the space that can be given back now. On a full disk it spends the reserve for that.
pub(crate) fn purge(store: &Store) -> Result<PurgeReport> {
    let _one = store.upkeep.lock()?;
    let mut report = PurgeReport::default();
    let mut outcome = reclaim_all(store, &mut report);
    if outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::NoSpace) && store.factory.spend_reserve()? {
        outcome = reclaim_all(store, &mut report);
    }
    store.report(store.factory.keep_reserve());
    tell(store, &report);
    outcome.map(|()| report)
}

fn reclaim_all(store: &Store, report: &mut PurgeReport) -> Result<()> {
    if !store.committer.gate().is_shut() {
        store.committer.sync()?;
    }
    seal_due(store)?;
    // Bounded: each round must have moved something.
    for _ in 0..64 {
        if !clean::needed(store) || !clean::clean(store, report)? {
            break;
        }
    }
    mark_dead(store);
    // A dead segment outlives both kept checkpoints' beginnings.
    for _ in 0..2 {
        if store.shared.segments().iter().any(|s| s.dead_since.get().is_some()) {
            checkpoint(store)?;
            reclaim(store, report)?;
        }
    }
    store.factory.absorb_retired(store.committer.ready().0)?;
    Ok(())
}

fn tell(store: &Store, report: &PurgeReport) {
    if report.segments_freed > 0 || report.moved_bytes > 0 {
        store
            .shared
            .tell(&Event::Purged { segments: report.segments_freed, moved_bytes: report.moved_bytes });
    }
}

/// Notes since when segments have had no live entry.
fn mark_dead(store: &Store) {
    let now = store.committer.accepted();
    for segment in store.shared.segments() {
        // Unsealed ones wait: their footer may be needed by the next open.
        if segment.is_settled() && segment.live_entries() == 0 {
            let _ = segment.dead_since.set(now);
        }
    }
}

/// Removes the segments that neither kept checkpoint needs.
fn reclaim(store: &Store, report: &mut PurgeReport) -> Result<()> {
    mark_dead(store);
    let (start, accepted) = {
        let checkpoints = lock(&store.checkpoints);
        match checkpoints.kept.front() {
            Some(_) if planted(Bug::UnlinkBeforeCheckpoint) => (u32::MAX, Lsn::from_u64(u64::MAX)),
            Some(oldest) if checkpoints.kept.len() == 2 => {
                let newest = checkpoints.kept.back().filter(|_| planted(Bug::OlderCheckpointUnheeded));
                let trusted = newest.unwrap_or(oldest);
                (trusted.start_segment, trusted.accepted)
            }
            _ => return Ok(()),
        }
    };
    for segment in store.shared.segments() {
        let dead = segment.dead_since.get().is_some_and(|since| *since <= accepted);
        // A cold segment has no operations that a replay could need.
        if dead && (segment.kind == FileKind::Cold || segment.id < start) {
            remove(store, segment)?;
            report.segments_freed += 1;
        }
    }
    Ok(())
}

fn remove(store: &Store, segment: Arc<Segment>) -> Result<()> {
    let footer = footer_path(&store.dir, segment.id);
    match store.options.vfs.remove(&footer) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("removing a footer", &footer, e));
        }
        _ => {}
    }
    store.shared.remove_segment(segment.id);
    store.committer.retire(&segment);
    Ok(())
}
