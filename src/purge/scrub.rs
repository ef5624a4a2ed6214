//! Looks for rot before a reader meets it, and makes good what can be made good without a replica.
//!
//! | what is wrong                                     | what is done                                                   |
//! |---------------------------------------------------|----------------------------------------------------------------|
//! | an entry                                          | it is fenced, and named                                        |
//! | a footer                                          | it is built anew from the records                              |
//! | the header or description of a record, a copy of a segment's header | what lives in the segment is moved, and checkpoints are written, so that nothing needs it |
//! | a checkpoint                                      | two new ones are written                                       |

use super::clean::{install, live_pieces, write_cold};
use super::seal::mend_footer;
use super::{checkpoint, mark_dead, reclaim, seal_due};
use crate::engine::listener::Event;
use crate::engine::report::{PurgeReport, ScrubOptions, ScrubReport};
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::read_checkpoint;
use crate::format::file_header::FileKind;
use crate::format::names::FileName;
use crate::index::Extent;
use crate::planted::{Bug, planted};
use crate::segment::{Segment, audit};
use crate::store::{Signal, Store, lock};
use crate::types::{Durability, EntryId, RegionId};
use crate::vfs::io::read_file;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reads and verifies every live entry, every footer, every record's header and description, and the checkpoints.
pub(crate) fn scrub(store: &Store, options: &ScrubOptions) -> Result<ScrubReport> {
    let mut report = ScrubReport::default();
    let mut pace = Pace { stop: Some(&store.shared.scrub), ..Pace::new(options.rate_bytes) };
    footers(store, options, &mut report)?;
    let rotten = records(store, &mut pace, &mut report)?;
    let checkpoints_rotten = checkpoints(store, &mut report)?;
    for cell in store.table.cells().take_while(|_| !store.shared.scrub.stopped()) {
        // Copies of the extents keep their segments; entries that go meanwhile are verified for nothing.
        let extents: Vec<Extent> = cell.read().extents.iter().map(|e| e.part(e.first, e.last)).collect();
        for extent in extents.iter().filter(|e| e.mem.is_none() || !planted(Bug::ScrubSkipsActive)) {
            verify(cell.id, extent, |index, outcome| match outcome {
                Ok(bytes) => {
                    report.entries += 1;
                    report.bytes += bytes;
                    pace.spend(bytes);
                }
                Err(error) => {
                    store.note_damage(cell.id, index, &error);
                    report.damage.push(error);
                }
            });
        }
    }
    if store.shared.scrub.stopped() {
        return Err(Error::new(ErrorKind::Closed, "the engine was closed before the scrub was done"));
    }
    // Last, so that what is known to be damaged stays where it is.
    if !store.committer.gate().is_shut() {
        let done = make_good(store, &rotten, checkpoints_rotten, &mut report);
        // What could not be done now is found again by the next scrub.
        store.report(done);
    }
    Ok(report)
}

fn footers(store: &Store, options: &ScrubOptions, report: &mut ScrubReport) -> Result<()> {
    for segment in store.shared.segments() {
        if segment.footer().is_none() {
            continue;
        }
        if options.from_device {
            let dropped = segment.file.drop_cache(0..segment.len);
            dropped.map_err(|e| Error::io("dropping a segment from the cache", &segment.path, e))?;
        }
        // A segment may be removed while this looks at it: then nobody needs its footer.
        let _one = store.upkeep.lock()?;
        if store.shared.segment(segment.id).is_none() {
            continue;
        }
        match mend_footer(store, &segment) {
            Ok(mended) => report.footers_rebuilt += u64::from(mended),
            // Its entries are looked at one by one.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                store.shared.tell(&Event::Damage { error: &error });
                report.damage.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The segments that have rot in what holds their entries.
fn records(store: &Store, pace: &mut Pace, report: &mut ScrubReport) -> Result<Vec<Arc<Segment>>> {
    let mut segments = store.shared.segments();
    let (active, _) = store.committer.active();
    if !segments.iter().any(|s| s.id == active.id) {
        segments.push(active);
    }
    let durable = store.committer.durable();
    let mut rotten = Vec::new();
    for segment in segments.into_iter().filter(|s| !s.is_lost && !store.shared.scrub.stopped()) {
        let end = match segment.sealed_end() {
            0 if segment.id == durable.segment() => durable.offset(),
            end => u64::from(end).min(segment.written()) as u32,
        };
        if planted(Bug::ScrubSkipsRecords) {
            continue;
        }
        let found = audit(&segment, end, |bytes| pace.spend(bytes))?;
        report.records += found.records;
        if !found.rot.is_empty() {
            found.rot.iter().for_each(|error| store.shared.tell(&Event::Damage { error }));
            report.rot.extend(found.rot);
            rotten.push(segment);
        }
    }
    Ok(rotten)
}

/// Whether one of the checkpoints that are kept is rotten.
fn checkpoints(store: &Store, report: &mut ScrubReport) -> Result<bool> {
    let _one = store.upkeep.lock()?;
    let kept: Vec<u32> = lock(&store.checkpoints).kept.iter().map(|k| k.sequence).collect();
    let before = report.rot.len();
    for sequence in kept.into_iter().filter(|_| !planted(Bug::ScrubSkipsCheckpoints)) {
        let path = store.dir.join(FileName::Checkpoint(sequence).to_string());
        let read = read_file(&*store.options.vfs, &path);
        let error = match read.map(|bytes| read_checkpoint(&bytes.into(), |_| Ok(()))) {
            Ok(Ok(_)) => continue,
            Ok(Err(e)) => format!("a checkpoint is damaged: {e}"),
            Err(e) => format!("a checkpoint cannot be read: {e}"),
        };
        let error = Error::damaged(format!("{error}; no entry is lost by it")).at(&path, None);
        store.shared.tell(&Event::Damage { error: &error });
        report.rot.push(error);
    }
    Ok(report.rot.len() > before)
}

/// Moves what lives in rotten segments, and sees to it that neither of the kept checkpoints is rotten or needs them.
fn make_good(
    store: &Store,
    rotten: &[Arc<Segment>],
    checkpoints_rotten: bool,
    report: &mut ScrubReport,
) -> Result<()> {
    let (active, _) = store.committer.active();
    if rotten.iter().any(|s| s.id == active.id) {
        store.committer.roll(active.id)?;
    }
    let _one = store.upkeep.lock()?;
    // The rotten ones may go without a footer: their entries are moved by what the heap knows.
    seal_due(store)?;
    let pieces = live_pieces(store, rotten);
    let bound = pieces.iter().map(|p| p.bound()).sum();
    let cold = match pieces.is_empty() {
        true => None,
        false => write_cold(store, bound, |w| pieces.iter().try_for_each(|p| w.piece(p)))?,
    };
    drop(pieces);
    if let Some(cold) = cold {
        install(store, &cold, rotten)?;
        report.segments_moved += rotten.len() as u64;
    }
    mark_dead(store);
    let oldest = lock(&store.checkpoints).kept.front().map_or(0, |k| k.start_segment);
    let needed = |s: &Arc<Segment>| s.kind == FileKind::Log && s.id >= oldest || s.dead_since.get().is_some();
    if checkpoints_rotten || rotten.iter().any(needed) {
        // Replay starts with the segment of the last record, which must not be one of them.
        store.committer.barrier(Durability::Synced)?.wait()?;
        for _ in 0..2 {
            checkpoint(store)?;
            report.checkpoints_written += 1;
            reclaim(store, &mut PurgeReport::default())?;
        }
    }
    Ok(())
}

/// Reads the entries of an extent from the file, one by one.
pub(crate) fn verify(region: RegionId, extent: &Extent, mut each: impl FnMut(u64, Result<u64>)) {
    for index in extent.first..=extent.last {
        let read = extent.loc(region, index).and_then(|loc| {
            let id = EntryId::new(extent.term(region, index)?, index);
            extent.segment.entry_from_file(region, id, loc)
        });
        each(index, read.map(|b| b.len() as u64).map_err(|e| e.of_entry(region, index)));
    }
}

/// Keeps to a rate.
pub(crate) struct Pace<'a> {
    started: Instant,
    bytes: u64,
    rate: u64,
    /// Whoever ends this is not kept waiting.
    stop: Option<&'a Signal>,
}

impl Pace<'_> {
    pub(crate) fn new(bytes_per_second: u64) -> Pace<'static> {
        Pace { started: Instant::now(), bytes: 0, rate: bytes_per_second, stop: None }
    }

    /// So many bytes were read: sleeps as long as that was too fast.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.rate > 0 {
            let due = Duration::from_secs_f64(self.bytes as f64 / self.rate as f64);
            let Some(ahead) = due.checked_sub(self.started.elapsed()).filter(|a| *a > SLEEP_MIN) else {
                return;
            };
            match self.stop {
                Some(stop) => drop(stop.wait(ahead.min(Duration::from_secs(1)))),
                None => std::thread::sleep(ahead.min(Duration::from_secs(1))),
            }
        }
    }
}

/// Shorter than this, sleeping costs more than it saves.
const SLEEP_MIN: Duration = Duration::from_millis(2);
