//! Full segments get their footer, and what the heap knew of them is let go.

use super::Store;
use super::name_watch::check_name;
use crate::clock;
use crate::error::{Error, Result};
use crate::format::footer::Footer;
use crate::listener::Event;
use crate::planted::{Bug, planted};
use crate::segment::{
    Segment, Unreadable, Unsealed, Unwritten, build_footer, build_footer_of_full, load_footer, open_built,
    write_footer,
};
use crate::sync::atomic::Ordering;
use crate::trace;
use crate::types::Lsn;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A footer that nobody waits for is built for so long, and then pauses for so long: in one piece it would
/// take a processor from the writers for tens of milliseconds.
const SLICE: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_micros(200);

/// So many full segments that wait for a footer leave no time for pauses: what the heap knows of
/// them has to be let go.
const WAITING_MAX: usize = 2;

/// Seals every full segment whose records are durable. One whose records are damaged goes without a footer:
/// its entries are read by what the heap knows, and the segments after it are sealed all the same.
///
/// The caller has the turn of upkeep, and others wait for it: nothing here pauses.
pub(crate) fn seal_due(store: &Store) -> Result<(), Unwritten> {
    while let Some((segment, end)) = next_due(store).map_err(Unwritten::Failed)? {
        let _span = trace::seal(segment.id);
        let began = clock::now();
        let stopped = || Unreadable::Failed(Error::closed());
        let build = || build_footer_of_full(&segment, end, &mut || true)?.ok_or_else(stopped);
        seal(store, &segment, began, build)?;
    }
    Ok(())
}

/// The same between the parts of something else that the caller has the turn for, once there are so many that
/// the log would soon wait for it. What fails is tried again, and reported, by the next upkeep.
pub(crate) fn seal_meanwhile(store: &Store) {
    if store.segments.unsealed_count() >= WAITING_MAX {
        drop(seal_due(store));
    }
}

/// The same for the background, where nobody waits for it, before it has the turn: footers are built
/// in slices and without the turn, which a full segment does not need to be read. A segment that
/// others seal meanwhile is theirs.
pub(crate) fn seal_at_leisure(store: &Store) -> Result<()> {
    while let Some((segment, end)) = next_due(store)? {
        let _span = trace::seal(segment.id);
        let began = clock::now();
        let mut slice = began;
        let mut go_on = || {
            if clock::since(slice) >= SLICE {
                if store.segments.unsealed_count() < WAITING_MAX {
                    clock::sleep(PAUSE);
                }
                slice = clock::now();
            }
            !store.pauses.is_stopped() && is_next(store, &segment)
        };
        let built = match build_footer_of_full(&segment, end, &mut go_on) {
            Ok(Some(built)) => built,
            Ok(None) if !store.pauses.is_stopped() => continue,
            // What is wrong is found once more by the caller, with the turn, and reported there.
            Ok(None) | Err(_) => return Ok(()),
        };
        let _one = store.turns.upkeep.lock()?;
        if is_next(store, &segment) {
            seal(store, &segment, began, || Ok(built))?;
        }
    }
    Ok(())
}

/// The full segment that is sealed next, and the end of its records, which are durable. `None` if
/// there is none, or never will be.
fn next_due(store: &Store) -> Result<Option<(Arc<Segment>, u32)>> {
    let Some(Unsealed { segment, end }) = store.segments.next_unsealed() else { return Ok(None) };
    let durable = store.committer.durable();
    if durable < Lsn::new(segment.id, end) && !planted(Bug::SealedBeforeSync) {
        if store.committer.gate().is_shut() {
            return Ok(None);
        }
        store.committer.flush()?;
    }
    Ok(Some((segment, end)))
}

/// Whether `segment` is still the one that is sealed next.
fn is_next(store: &Store, segment: &Segment) -> bool {
    store.segments.next_unsealed().is_some_and(|next| next.segment.id == segment.id)
}

/// Seals the first of the full segments with the footer that `build` makes of its records, which began then.
fn seal(
    store: &Store,
    segment: &Arc<Segment>,
    began: Instant,
    build: impl FnOnce() -> Result<Vec<u8>, Unreadable>,
) -> Result<(), Unwritten> {
    let ended = match give_footer(store, segment, build) {
        Ok(Footing::Given) => {
            store.done.seal_times.since(began);
            Ok(())
        }
        Ok(Footing::Damaged(error)) => {
            segment.unsealable.store(true, Ordering::Release);
            store.listeners.deliver(&Event::DamageFound { error: &error });
            Ok(())
        }
        Err(unwritten) => Err(unwritten),
    };
    match &ended {
        Ok(()) => {
            segment.close_sync_handles();
            store.segments.sealed_next();
        }
        Err(_) => store.segments.seal_failed(),
    }
    store.committer.seal_ended();
    ended
}

/// What came of giving a segment its footer.
enum Footing {
    Given,
    /// Its records are damaged: there will never be one.
    Damaged(Error),
}

fn give_footer(
    store: &Store,
    segment: &Arc<Segment>,
    build: impl FnOnce() -> Result<Vec<u8>, Unreadable>,
) -> Result<Footing, Unwritten> {
    check_name(store, segment).map_err(Unwritten::Failed)?;
    let built = match build() {
        Ok(built) => built,
        Err(unreadable) => return unreadable.damage().map(Footing::Damaged).map_err(Unwritten::Failed),
    };
    store.factory.files.check_open()?;
    let write = || write_footer(&store.dir, segment.id, &built);
    store.factory.watch.during("writing a footer", write)?;
    store.done.footer_bytes.fetch_add(built.len() as u64, Ordering::Relaxed);
    let footer = match load_footer(&store.dir, segment) {
        Some(footer) => footer,
        // Written and not readable: keep the copy that is at hand; the next open builds it again.
        None => match open_built(segment, built) {
            Ok(footer) => footer,
            Err(unreadable) => return unreadable.damage().map(Footing::Damaged).map_err(Unwritten::Failed),
        },
    };
    let entries = footer.entry_count();
    install(store, segment, footer);
    store.listeners.deliver(&Event::SegmentSealed { segment: segment.id, entries });
    Ok(Footing::Given)
}

/// What became of a footer that was looked at.
pub(super) enum Mending {
    /// Nothing was wrong with it.
    Right,
    Rebuilt,
    /// It is wrong, and so is what it would be rebuilt from.
    Damaged(Error),
}

/// Rebuilds the footer if any part of it is wrong, on disk too.
pub(super) fn mend_footer(store: &Store, segment: &Segment) -> Result<Mending> {
    if segment.footer().is_none_or(|footer| footer.is_right()) {
        return Ok(Mending::Right);
    }
    let build = || {
        let built = build_footer(segment, segment.sealed_end())?;
        Ok((open_built(segment, built.clone())?, built))
    };
    let (view, built) = match build() {
        Ok(built) => built,
        Err(unreadable) => return Unreadable::damage(unreadable).map(Mending::Damaged),
    };
    segment.set_footer(view);
    // It is a cache: one that cannot be written is rebuilt when it is needed.
    store.factory.files.check_open()?;
    let write = || write_footer(&store.dir, segment.id, &built);
    store.factory.watch.during("writing a footer", write)?;
    Ok(Mending::Rebuilt)
}

fn install(store: &Store, segment: &Arc<Segment>, footer: Arc<Footer>) {
    segment.set_footer(footer.clone());
    let mut last = None;
    for region in footer.ranges().map(|range| range.region()) {
        if last.replace(region) == Some(region) {
            continue;
        }
        store.table.use_footer(region, segment);
    }
}
