//! Upkeep: sealing, checkpoints, and giving space back. None of it on the path of a write.
//!
//! A segment's file may go once nothing needs it:
//!
//! - no live entry lies in it,
//! - and all kept checkpoints were begun after its last entry died, so that none refers to it,
//! - and all start their replay after it, so that its operations are in each.
//!
//! Therefore any kept checkpoint recovers everything, also where the others have rotted; there are no
//! tombstones, and segments may go in any order.
//!
//! A run that is closed leaves nothing to replay: its last segment is sealed where it ends, and its
//! checkpoint begins beyond it. Restarts therefore leave a segment each, however little it holds; those that
//! hold nothing that lives are given back before there are many.
//!
//! The turn of [`upkeep`](turn::UpkeepTurns) is held while where things are changes, and while a checkpoint
//! is written: never for a sleep, or for the copying of entries, for which there is a turn of its own. A
//! close ends both. The background builds footers before it takes the turn, and in slices: a full segment
//! does not change.
//!
//! What keeps a mostly dead segment alive is moved by the [`clean`]er into a cold segment, sorted by region,
//! and installed by one control record in the log. Until that record is durable nothing refers to the copy;
//! from then on recovery moves the same ranges again, which is harmless.

mod clean;
mod done;
mod name_watch;
mod pace;
mod pauses;
mod pins;
mod put_back;
mod scrub;
mod sealing;
mod store;
mod turn;

#[cfg(any(test, feature = "internals"))]
pub(crate) use clean::clean as clean_once;
pub(crate) use clean::{ColdWriter, write_cold_of};
pub(crate) use name_watch::NameWatch;
pub(crate) use pace::Pace;
pub(crate) use pauses::Pauses;
pub(crate) use put_back::{repair, repair_all};
pub(crate) use scrub::{scrub, verify};
use sealing::seal_meanwhile;
pub(crate) use sealing::{seal_at_leisure, seal_due};
pub(crate) use store::{PipelineHooks, Signals, Store};

use crate::checkpoint::CHECKPOINTS_KEPT;
use crate::error::{Error, Result};
use crate::format::file_header::SegmentKind;
use crate::listener::Event;
use crate::planted::{Bug, planted};
use crate::report::PurgeReport;
use crate::segment::{Segment, Unwritten};
use crate::sync::Arc;
use crate::types::Lsn;
use pace::Hurried;

/// Segments that hold nothing that lives and wait for checkpoints to be written: beyond so many, these are,
/// if the segments take [`WAITING_GROWTH`] times as much space as a checkpoint does. Short runs would leave
/// one each and log too little for a checkpoint.
const WAITING_MAX: usize = 4;

/// See [`WAITING_MAX`].
const WAITING_GROWTH: u64 = 4;

/// Everything the background thread does when it is woken. Cleaning is apart from it: that takes its time.
pub(crate) fn upkeep(store: &Store) -> Result<()> {
    let _one = store.turns.upkeep.lock()?;
    store.news.deliver();
    let mut report = PurgeReport::default();
    // A footer is a cache: where there is no space for one, what gives space back is not left undone.
    let sealed = seal_due(store);
    if let Err(Unwritten::Failed(error)) = sealed {
        return Err(error);
    }
    if planted(Bug::UnlinkBeforeCheckpoint) {
        reclaim(store, &mut report)?;
        store.factory.absorb_retired(store.committer.ready_count())?;
    }
    store.checkpoints.take_if_due(|| seal_meanwhile(store))?;
    if store.options.purge.background {
        reclaim(store, &mut report)?;
        give_back_in_proportion(store, &mut report)?;
    }
    deliver_purged(store, &report);
    keep_files(store)?;
    store.judge_budget();
    debug_assert_eq!(check_counts(store), Ok(()));
    sealed.map_err(Error::from)
}

/// Whether segments count what the regions own in them. The caller has the turn of upkeep.
fn check_counts(store: &Store) -> std::result::Result<(), String> {
    let segments = store.segments.all();
    store.committer.at_standstill(|| store.table.check_counts(&segments))
}

/// What an open cannot leave to the background: a run may end before that does anything.
pub(crate) fn upkeep_at_open(store: &Store) -> Result<()> {
    let _one = store.turns.upkeep.lock()?;
    debug_assert_eq!(check_counts(store), Ok(()));
    if !store.options.purge.background || !is_out_of_proportion(store) {
        return Ok(());
    }
    let mut report = PurgeReport::default();
    give_back_in_proportion(store, &mut report)?;
    deliver_purged(store, &report);
    keep_files(store)
}

/// Ends a run. The caller has refused further batches and seen to its end what was accepted. Seals the
/// segment that was written to, where it stands, gives back what was prepared, and writes a checkpoint whose
/// replay begins beyond all records, unless the last one's does. From here on nothing changes a file, however
/// this ends; a store that is not `whole` is left as it is.
pub(crate) fn close(store: &Store, whole: bool) -> Result<()> {
    let turn = store.turns.upkeep.lock_last();
    store.committer.end_segments();
    store.news.deliver();
    let outcome = store.committer.gate().check().map_err(Error::from).and_then(|()| match &turn {
        Ok(_) if whole => finish(store),
        Ok(_) => Ok(()),
        Err(e) => Err(e.clone()),
    });
    if !planted(Bug::ClosedEngineWorks) {
        store.turns.upkeep.close();
        store.factory.files.shut();
    }
    outcome
}

fn finish(store: &Store) -> Result<()> {
    let mut report = PurgeReport::default();
    on_reserve(store, || {
        if !planted(Bug::CloseLeavesUnsealed) {
            seal_due(store)?;
        }
        if is_replayed(store) { store.checkpoints.take() } else { Ok(()) }
    })?;
    // The checkpoint proves as much: without the mark nothing is lost but a second witness.
    store.listeners.report(store.note_mark());
    if store.options.purge.background {
        reclaim(store, &mut report)?;
        give_back_in_proportion(store, &mut report)?;
    }
    deliver_purged(store, &report);
    keep_files(store)?;
    // A run that wrote nothing leaves the directory as it was.
    if store.committer.has_written() {
        store.factory.free.give_surplus_back()?;
        store.factory.files.sync_removed()?;
    }
    Ok(())
}

/// Whether the next open would find records that are not in the newest checkpoint.
fn is_replayed(store: &Store) -> bool {
    let start = store.checkpoints.newest().map_or(0, |newest| newest.start_segment);
    store.segments.all().iter().any(|s| s.kind == SegmentKind::Log && s.id >= start)
}

/// Whether the segments that only wait for checkpoints are out of proportion to what one costs. On a full
/// disk that has taken from the reserve any of them is: it is what the reserve is filled up with.
fn is_out_of_proportion(store: &Store) -> bool {
    let segments = store.segments.all();
    let waiting = segments.iter().filter(|s| s.is_settled() && s.live.entries() == 0);
    let (count, bytes) = waiting.fold((0, 0), |(count, bytes), s| (count + 1, bytes + s.len));
    let size = store.checkpoints.newest().map_or(0, |newest| newest.bytes);
    let many = count > WAITING_MAX && bytes > size * WAITING_GROWTH;
    let is_short = || store.factory.free.is_scarce() || store.committer.budget().is_spent();
    (many || count > 0 && is_short()) && !planted(Bug::KilledRunsPileUp)
}

/// Writes the checkpoints that segments wait for, and gives those back, if they are out of proportion. It
/// frees more than it takes: so on a full disk the reserve is spent for it.
fn give_back_in_proportion(store: &Store, report: &mut PurgeReport) -> Result<()> {
    if is_out_of_proportion(store) && !store.committer.gate().is_shut() {
        mark_dead(store);
        for _ in 0..CHECKPOINTS_KEPT {
            on_reserve(store, || store.checkpoints.take())?;
            reclaim(store, report)?;
        }
    }
    Ok(())
}

/// Files that nobody needs any more go to the pool or to the file system, and the reserve gets what it lacks,
/// once the store has anything that a purge could be about.
fn keep_files(store: &Store) -> Result<()> {
    let given_back = give_back(store)?;
    // A power cut would bring the names back, and a store that lives from one to the next would never get
    // rid of them.
    store.factory.files.sync_removed()?;
    match store.committer.has_written() {
        true => Ok(keep_reserve(store, given_back)?),
        false => Ok(()),
    }
}

/// Does `work`, and does it again for each file of the reserve that it takes until the disk is not
/// full any more.
fn on_reserve(store: &Store, mut work: impl FnMut() -> Result<(), Unwritten>) -> Result<()> {
    loop {
        match work() {
            Err(Unwritten::NoSpace(_)) if store.factory.free.spend_reserve()? => {}
            outcome => return Ok(outcome?),
        }
    }
}

fn give_back(store: &Store) -> Result<u64, Unwritten> {
    let ready = store.committer.ready_count();
    store.factory.watch.during("giving back segments", || store.factory.absorb_retired(ready))
}

fn keep_reserve(store: &Store, given_back: u64) -> Result<(), Unwritten> {
    store.factory.watch.during("making the reserve", || store.factory.free.keep_reserve(given_back))
}

/// Whether the cleaner should move something in the background.
pub(crate) fn is_cleaning_due(store: &Store) -> bool {
    store.options.purge.background && clean::needed(store)
}

/// Cleans once if that is due.
pub(crate) fn clean_if_due(store: &Store) -> Result<()> {
    clean_with(store, &mut Pace::new(0, &store.pauses))
}

/// The same at the rate that was asked for, as long as nobody waits for it.
pub(crate) fn clean_at_rate(store: &Store) -> Result<()> {
    let clock = Hurried(&store.pauses);
    clean_with(store, &mut Pace::new(store.tuned.purge_rate(), &clock))
}

fn clean_with(store: &Store, pace: &mut Pace<'_>) -> Result<()> {
    if is_cleaning_due(store) {
        let mut report = PurgeReport::default();
        clean::clean(store, &mut report, pace)?;
        deliver_purged(store, &report);
        store.signals.upkeep.raise();
    }
    Ok(())
}

/// Gives back all the space that can be given back now. On a full disk it spends the reserve for that.
pub(crate) fn purge(store: &Store) -> Result<PurgeReport> {
    let mut report = PurgeReport::default();
    let outcome = on_reserve(store, || reclaim_all(store, &mut report));
    if let Ok(_one) = store.turns.upkeep.lock() {
        store.listeners.report(keep_files(store));
        deliver_purged(store, &report);
        store.judge_budget();
    }
    outcome.map(|()| report)
}

fn reclaim_all(store: &Store, report: &mut PurgeReport) -> Result<(), Unwritten> {
    let _hurry = store.pauses.hurry();
    let one = store.turns.upkeep.lock().map_err(Unwritten::Failed)?;
    if !store.committer.gate().is_shut() {
        store.committer.flush()?;
    }
    // What needs nothing to be written comes first: it may make the room that the rest needs.
    reclaim(store, report)?;
    store.judge_budget();
    let mut given_back = give_back(store)?;
    seal_due(store)?;
    drop(one);
    let mut pace = Pace::new(0, &store.pauses);
    // Bounded: each round must have moved something.
    for _ in 0..64 {
        if !clean::needed(store) || !clean::clean(store, report, &mut pace)? {
            break;
        }
    }
    let _one = store.turns.upkeep.lock().map_err(Unwritten::Failed)?;
    let may_forget = !store.committer.gate().is_shut() && !planted(Bug::DestroyedKept);
    let destroyed = store.table.last_destroyed().filter(|_| may_forget);
    if destroyed.is_some_and(|segment| segment >= store.committer.active_id()) {
        // A checkpoint forgets what was destroyed before its replay starts, which is where writing goes on.
        store.committer.roll()?;
        seal_due(store)?;
    }
    mark_dead(store);
    // A dead segment outlives the beginnings of all kept checkpoints; a region that was
    // destroyed only that of the newest.
    for n in 0..CHECKPOINTS_KEPT {
        let dead = store.segments.all().iter().any(|s| s.dead_since.get().is_some());
        if dead || n == 0 && destroyed.is_some() {
            store.checkpoints.take()?;
            reclaim(store, report)?;
        }
    }
    store.judge_budget();
    given_back += give_back(store)?;
    keep_reserve(store, given_back)
}

fn deliver_purged(store: &Store, report: &PurgeReport) {
    if report.segments_freed > 0 || report.moved_bytes > 0 {
        let purged = Event::Purged { segments: report.segments_freed, moved_bytes: report.moved_bytes };
        store.listeners.deliver(&purged);
    }
}

/// Notes since when segments have had no live entry.
fn mark_dead(store: &Store) {
    let now = store.committer.accepted();
    for segment in store.segments.all() {
        // Unsealed ones wait: their footer may be needed by the next open.
        if segment.is_settled() && segment.live.entries() == 0 {
            let _ = segment.dead_since.set(now);
        }
    }
}

/// Removes the segments that no kept checkpoint needs.
fn reclaim(store: &Store, report: &mut PurgeReport) -> Result<(), Unwritten> {
    mark_dead(store);
    let (start, accepted) = {
        let kept = store.checkpoints.kept();
        match kept.oldest_of_all() {
            _ if planted(Bug::UnlinkBeforeCheckpoint) => (u32::MAX, Lsn::from_u64(u64::MAX)),
            Some(oldest) => {
                let newest = kept.newest().filter(|_| planted(Bug::OlderCheckpointUnheeded));
                let trusted = newest.unwrap_or(oldest);
                (trusted.start_segment, trusted.accepted)
            }
            None => return Ok(()),
        }
    };
    for segment in store.segments.all() {
        let dead = segment.dead_since.get().is_some_and(|since| *since <= accepted);
        // A cold segment has no operations that a replay could need.
        if dead && (segment.kind == SegmentKind::Cold || segment.id < start) {
            remove(store, segment)?;
            report.segments_freed += 1;
        }
    }
    Ok(())
}

/// The files go when the last reader has let go of the segment.
fn remove(store: &Store, segment: Arc<Segment>) -> Result<(), Unwritten> {
    store.factory.files.check_open()?;
    store.segments.remove(segment.id);
    store.committer.retire(&segment);
    Ok(())
}
