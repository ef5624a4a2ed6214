//! The end of a recovery: what was read is made safe to go on from.
//!
//! Whole records past the watermark are re-persisted in the new run's first segment. What is doubtful is
//! noted where the next run finds it. Only then does anything go that showed the crash.

use super::files::FreeListed;
use super::tail::TailRecord;
use crate::checkpoint::{Checkpoints, Parts};
use crate::commit::Accept;
use crate::error::{Error, Result};
use crate::format::batch::Install;
use crate::format::record::RecordKind;
use crate::planted::{Bug, planted};
use crate::report::OpenReport;
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{Retire, RetiredFile, Segment, Unwritten, load_footer, write_footer};
use crate::sync::Arc;
use crate::types::{Durability, Lsn, RegionId};
use std::cell::RefCell;

/// What a recovery leaves to be done once the store can be written to.
#[derive(Default)]
pub(crate) struct Unfinished {
    /// The table was rebuilt from the log alone: no checkpoint was there that could be believed.
    pub(super) rebuilt: bool,
    /// Nothing but `unused` shows that the run before did not end cleanly.
    pub(super) last_witness: bool,
    /// Newer checkpoints that cannot be believed: to be removed once there is one that can.
    pub(super) bad_checkpoints: Vec<String>,
    /// Segments of the runs before without a footer on disk, oldest first.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    /// Whole batches past the watermark, in order: to be re-persisted.
    pub(crate) tail: Vec<TailRecord>,
    /// Whether records that show in the files are no part of the log any more.
    pub(super) cut: bool,
    /// Log segments that hold no record of the log: they can be given back once the tail is durable.
    pub(crate) unused: Vec<RetiredFile>,
    /// Files of the pool, to be taken or removed.
    pub(crate) free: Vec<FreeListed>,
    /// Files that nothing needs, to be removed once the store is open.
    pub(crate) leftovers: Vec<String>,
}

/// What came of it.
pub(crate) struct Finished {
    /// Segments whose footer could not be written: they are sealed later.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    /// Those that have one now.
    pub(crate) sealed: Vec<Arc<Segment>>,
    /// Bytes of these footers.
    pub(crate) footer_bytes: u64,
}

impl Unfinished {
    /// Does it. Nobody else writes, checkpoints or seals meanwhile. Afterwards a crash finds a store that
    /// needs none of what was recovered from.
    pub(crate) fn finish(
        mut self,
        checkpoints: &Checkpoints,
        report: &mut OpenReport,
    ) -> Result<Finished, Unwritten> {
        let Parts { committer, factory, mark, table, .. } = &checkpoints.parts;
        let votes_lost = report.assumed_torn || report.accepted_loss && !planted(Bug::LossNotSaid);
        let cut = self.cut || votes_lost;
        if cut && !planted(Bug::CopyNotAnnounced) {
            let whole = self.tail.iter().filter(|record| record.suspects.is_empty());
            committer.announce(votes_lost, whole.map(|record| record.original).collect())?;
        }
        self.rewrite_tail(&checkpoints.parts)?;
        let suspects: Vec<_> = self.tail.iter().flat_map(|t| t.suspects.iter().copied()).collect();
        if votes_lost || !suspects.is_empty() {
            report.hard_states_lost = note_doubts(checkpoints, &suspects, votes_lost)?;
        }
        // What the runs before wrote last has its copies in a mark, if it has any: it gets its footers before
        // that is rewritten, and not before a mark says where the log goes on.
        let unsealed = std::mem::take(&mut self.unsealed);
        let finished = RefCell::new(Finished { unsealed, sealed: Vec::new(), footer_bytes: 0 });
        let seal = || finished.borrow_mut().seal(&checkpoints.parts);
        if !cut {
            seal();
        }
        committer.end_recovery(cut, |rest| mark.note_twice(rest, seal))?;
        if self.last_witness && !planted(Bug::UncleanEndForgotten) {
            // The files that go now are all that shows the unclean end.
            checkpoints.take()?;
        }
        // Nothing of these is needed any more, now that the tail is durable elsewhere.
        self.unused.into_iter().for_each(|file| factory.retire(file));
        remove(&checkpoints.parts, &self.leftovers, report);
        if report.bad_checkpoints > 0 || votes_lost || self.rebuilt {
            // Two good ones again, before anything relies on the older alone.
            checkpoints.take()?;
            remove(&checkpoints.parts, &self.bad_checkpoints, report);
        }
        if !self.tail.is_empty() {
            report.regions = table.figures().existing;
        }
        Ok(finished.into_inner())
    }

    fn rewrite_tail(&mut self, parts: &Parts) -> Result<(), Unwritten> {
        for TailRecord { encoded, .. } in &mut self.tail {
            parts.committer.write(encoded, &Accept::internal(Durability::Written))?;
            if encoded.kind == RecordKind::Install {
                let install = Install::decode(&encoded.desc).map_err(|e| {
                    Unwritten::Failed(Error::damaged(format!("a control record is malformed: {e}")))
                })?;
                if let Some(cold) = parts.segments.get(install.cold) {
                    parts.table.relocate(&cold, &install.sources);
                }
            }
        }
        Ok(())
    }
}

impl Finished {
    /// Gives the segments the footers on disk that they have on the heap: what they hold is known in two
    /// places then. Where that fails, one is sealed later, and until then a crash needs its records, or the
    /// copies of them, once more.
    fn seal(&mut self, parts: &Parts) {
        if planted(Bug::RestoredNotSealed) {
            return;
        }
        for segment in std::mem::take(&mut self.unsealed) {
            match seal_old(parts, &segment) {
                Ok(Some(bytes)) => {
                    self.footer_bytes += bytes;
                    self.sealed.push(segment);
                    continue;
                }
                Ok(None) => {}
                Err(e) => parts.listeners.report(Err(e)),
            }
            self.unsealed.push(segment);
        }
    }
}

/// Writes the footer of a segment, if it has one, and goes on with what is on disk. Returns its length.
fn seal_old(parts: &Parts, segment: &Segment) -> Result<Option<u64>, Error> {
    let Some(footer) = segment.footer() else { return Ok(None) };
    parts.factory.files.check_open()?;
    let bytes = footer.bytes().map_err(|e| Error::io("reading a footer", &segment.path, e))?;
    write_footer(&parts.dir, segment.id, &bytes)?;
    // One that cannot be read now stays as it is, on the heap.
    if let Some(on_disk) = load_footer(&parts.dir, segment) {
        segment.set_footer(on_disk);
    }
    Ok(Some(bytes.len() as u64))
}

/// Removes files that nothing needs. One that stays is removed by the next open.
fn remove(parts: &Parts, names: &[String], report: &mut OpenReport) {
    if !names.is_empty()
        && let Err(e) = parts.factory.files.check_open()
    {
        return parts.listeners.report(Err(e.into()));
    }
    for name in names {
        match parts.dir.remove_if_there(name) {
            Err(e) => parts.listeners.report(Err(Error::io("removing a leftover", &parts.dir.join(name), e))),
            Ok(_) => report.removed.push(name.clone()),
        }
    }
}

/// Notes which entries may have been acknowledged and are wrong and, if records were dropped that
/// may have been acknowledged, that every region's newest hard state may have been in them.
/// Returns of how many regions.
///
/// It is in a checkpoint before the log is cut off where the records were: the next run will find nothing
/// that is wrong. And what the checkpoint says is past all records of the runs before, so that none of them
/// is replayed as if it were good.
fn note_doubts(
    checkpoints: &Checkpoints,
    suspects: &[(RegionId, u64)],
    votes_lost: bool,
) -> Result<u64, Unwritten> {
    let Parts { committer, table, .. } = &checkpoints.parts;
    committer.roll()?;
    let as_of = Lsn::new(committer.active_id(), FIRST_RECORD);
    for &(region, index) in suspects {
        table.change(&table.get_or_create(region)).suspect(index, as_of);
    }
    let mut lost = 0;
    for cell in table.cells().filter(|_| votes_lost) {
        let mut state = table.change(&cell);
        if state.exists {
            state.lose_hard_state(as_of);
            lost += 1;
        }
    }
    checkpoints.take()?;
    Ok(lost)
}
