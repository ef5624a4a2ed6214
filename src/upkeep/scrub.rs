//! Looks for rot before a reader meets it, and makes good what can be made good without a replica.
//!
//! | what is wrong                                     | what is done                                                   |
//! |---------------------------------------------------|----------------------------------------------------------------|
//! | an entry                                          | it is fenced, and named                                        |
//! | a footer                                          | it is rebuilt from the records                                 |
//! | the header or description of a record, a copy of a segment's header | what lives in the segment is moved, and checkpoints are written, so that nothing needs it |
//! | a checkpoint                                      | new ones are written                                         |

use super::clean::{install, live_pieces, write_cold};
use super::pace::Pace;
use super::sealing::{Mending, mend_footer};
use super::{Store, mark_dead, reclaim, seal_due};
use crate::checkpoint::CHECKPOINTS_KEPT;
use crate::error::{Error, Result};
use crate::format::checkpoint::read_checkpoint;
use crate::format::file_header::SegmentKind;
use crate::format::names::FileName;
use crate::index::Part;
use crate::listener::Event;
use crate::planted::{Bug, planted};
use crate::report::{PurgeReport, ScrubOptions, ScrubReport};
use crate::segment::{Segment, Unreadable, audit};
use crate::types::{EntryId, RegionId};
use crate::vfs::io::read_file;
use std::sync::Arc;

/// Reads and verifies every live entry, every footer, every record's header and description, and the
/// checkpoints.
pub(crate) fn scrub(store: &Store, options: &ScrubOptions) -> Result<ScrubReport> {
    store.committer.check_open()?;
    let mut report = ScrubReport::default();
    let mut pace = Pace::new(options.rate_bytes, &store.pauses);
    footers(store, options, &mut report)?;
    let rotten = records(store, &mut pace, &mut report)?;
    let checkpoints_rotten = checkpoints(store, &mut report)?;
    for cell in store.table.cells() {
        // The parts keep their segments; entries that go meanwhile are verified for nothing.
        let parts: Vec<Part> = cell.read().extents.iter().map(|e| e.whole()).collect();
        for part in parts.iter().filter(|e| !e.is_unsealed() || !planted(Bug::ScrubSkipsActive)) {
            verify(cell.id, part, |index, outcome| match outcome {
                Ok(bytes) => {
                    report.entries += 1;
                    report.bytes += bytes;
                    pace.spend(bytes)
                }
                Err(error) => {
                    store.reads.note_damage(cell.id, index, &error);
                    report.damage.push(error.into());
                    pace.spend(0)
                }
            })?;
        }
    }
    pace.spend(0)?;
    // Last, so that what is known to be damaged stays where it is.
    if !store.committer.gate().is_shut() {
        let done = make_good(store, &rotten, checkpoints_rotten, &mut pace, &mut report);
        // What could not be done now is found again by the next scrub.
        store.listeners.report(done);
    }
    Ok(report)
}

fn footers(store: &Store, options: &ScrubOptions, report: &mut ScrubReport) -> Result<()> {
    for segment in store.segments.all() {
        if segment.footer().is_none() {
            continue;
        }
        if options.from_device {
            let dropped = segment.file()?.drop_cache(0..segment.len);
            dropped.map_err(|e| Error::io("dropping a segment from the cache", &segment.path, e))?;
        }
        // A segment may be removed while this looks at it: then nobody needs its footer.
        let _one = store.turns.upkeep.lock()?;
        if store.segments.get(segment.id).is_none() {
            continue;
        }
        match mend_footer(store, &segment)? {
            Mending::Right => {}
            Mending::Rebuilt => report.footers_rebuilt += 1,
            // Its entries are looked at one by one.
            Mending::Damaged(error) => {
                store.listeners.deliver(&Event::DamageFound { error: &error });
                report.damage.push(error);
            }
        }
    }
    Ok(())
}

/// The segments that have rot in what holds their entries.
fn records(store: &Store, pace: &mut Pace<'_>, report: &mut ScrubReport) -> Result<Vec<Arc<Segment>>> {
    let segments = store.all_segments();
    let durable = store.committer.durable();
    let mut rotten = Vec::new();
    for segment in segments.into_iter().filter(|s| !s.is_hole()) {
        let end = match segment.known_end() {
            None if segment.id == durable.segment() => durable.offset(),
            end => u64::from(end.unwrap_or(0)).min(segment.content.written()) as u32,
        };
        if planted(Bug::ScrubSkipsRecords) {
            continue;
        }
        let found = audit(&segment, end, |_, place| pace.spend(place.len() as u64))?;
        report.records += found.records;
        if !found.rot.is_empty() {
            found.rot.iter().for_each(|error| store.listeners.deliver(&Event::DamageFound { error }));
            report.rot.extend(found.rot);
            rotten.push(segment);
        }
    }
    Ok(rotten)
}

/// Whether one of the checkpoints that are kept is rotten.
fn checkpoints(store: &Store, report: &mut ScrubReport) -> Result<bool> {
    let kept = || store.checkpoints.kept().list.iter().map(|k| k.sequence).collect::<Vec<u32>>();
    let before = report.rot.len();
    for sequence in kept().into_iter().filter(|_| !planted(Bug::ScrubSkipsCheckpoints)) {
        let name = FileName::Checkpoint(sequence).to_string();
        let read = read_file(&*store.dir, &name);
        let error = match read.map(|bytes| read_checkpoint(&bytes, |_| Ok(()))) {
            Ok(Ok(_)) => continue,
            // It was replaced while this looked at it.
            _ if !kept().contains(&sequence) => continue,
            Ok(Err(e)) => format!("a checkpoint is damaged: {e}"),
            Err(e) => format!("a checkpoint cannot be read: {e}"),
        };
        let error =
            Error::damaged(format!("{error}; no entry is lost by it")).at(&store.dir.join(&name), None);
        store.listeners.deliver(&Event::DamageFound { error: &error });
        report.rot.push(error);
    }
    Ok(report.rot.len() > before)
}

/// Moves what lives in rotten segments, and sees to it that neither of the kept checkpoints is
/// rotten or needs them.
fn make_good(
    store: &Store,
    rotten: &[Arc<Segment>],
    checkpoints_rotten: bool,
    pace: &mut Pace<'_>,
    report: &mut ScrubReport,
) -> Result<()> {
    if rotten.iter().any(|s| s.id == store.committer.active_id()) {
        store.committer.roll()?;
    }
    let _copying = store.turns.copying.lock()?;
    let one = store.turns.upkeep.lock()?;
    // The rotten ones may go without a footer: their entries are moved by what the heap knows.
    seal_due(store)?;
    let pieces = live_pieces(store, rotten);
    drop(one);
    let bound = pieces.iter().map(|p| p.bound()).sum();
    let cold = match pieces.is_empty() {
        true => None,
        false => write_cold(store, bound, |w| pieces.iter().try_for_each(|p| w.piece(store, p, pace)))?,
    };
    drop(pieces);
    let _one = store.turns.upkeep.lock()?;
    if let Some(cold) = cold {
        install(store, &cold, rotten)?;
        report.segments_moved += rotten.len() as u64;
    }
    mark_dead(store);
    let oldest = store.checkpoints.kept().list.front().map_or(0, |k| k.start_segment);
    let needed =
        |s: &Arc<Segment>| s.kind == SegmentKind::Log && s.id >= oldest || s.dead_since.get().is_some();
    if checkpoints_rotten || rotten.iter().any(needed) {
        for _ in 0..CHECKPOINTS_KEPT {
            store.checkpoints.take()?;
            report.checkpoints_written += 1;
            reclaim(store, &mut PurgeReport::default())?;
        }
    }
    Ok(())
}

/// Reads the entries of a part from the file, one by one, until `each` has had enough.
pub(crate) fn verify(
    region: RegionId,
    part: &Part,
    mut each: impl FnMut(u64, Result<u64, Unreadable>) -> Result<()>,
) -> Result<()> {
    (part.first()..=part.last()).try_for_each(|index| {
        let read = part.loc_from_file(region, index).and_then(|loc| {
            let id = EntryId::new(part.term(region, index)?, index);
            part.segment().entry_from_file(region, id, loc)
        });
        each(index, read.map(|b| b.len() as u64).map_err(|e| e.of_entry(region, index)))
    })
}
