//! The region table: a checkpoint, and what the log did since.

use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::format::checkpoint::{RegionView, read_checkpoint, read_proof};
use crate::format::file_header::SegmentKind;
use crate::format::footer::RegionDelta;
use crate::index::{Damage, Extent, RegionState, Stretch, Table, Value};
use crate::planted::{Bug, planted};
use crate::report::OpenReport;
use crate::segment::Segment;
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Fills the table with the regions of a checkpoint that was read through before, and returns how many of
/// them exist. Without one there are none.
pub(super) fn load(
    table: &Table,
    checkpoint: Bytes,
    segments: &BTreeMap<u32, Arc<Segment>>,
    dir: &Path,
) -> Result<u64> {
    if checkpoint.is_empty() {
        return Ok(0);
    }
    let regions = read_proof(&checkpoint).map_or(0, |proof| proof.regions);
    // A record of a region takes at least seven bytes.
    table.reserve(regions.min(checkpoint.len() as u64 / 7) as usize);
    let (mut refused, mut existing) = (None, 0);
    let read = read_checkpoint(&checkpoint, |view| {
        existing += u64::from(view.exists);
        load_region(table, &view, segments, dir).map_err(|e| {
            refused = Some(e);
            Malformed("a region is inconsistent")
        })
    });
    match (refused, read) {
        (Some(e), _) => Err(e),
        (None, Err(e)) => Err(Error::damaged(format!("the checkpoint is damaged: {e}")).at(dir, None)),
        (None, Ok(_)) => Ok(existing),
    }
}

fn load_region(
    table: &Table,
    view: &RegionView<'_>,
    segments: &BTreeMap<u32, Arc<Segment>>,
    dir: &Path,
) -> Result<()> {
    let mut state = RegionState::default();
    for (key, value) in view.kv.clone() {
        state.put(&Bytes::copy_from_slice(key), &Bytes::copy_from_slice(value));
    }
    state.exists = view.exists;
    state.set_incarnation(view.incarnation);
    state.base = view.base;
    state.hard_state = view.hard_state.map(Value::from);
    state.touched = Lsn::new(view.as_of, 0);
    let mut damage = Damage { hard_state_lost: view.hard_state_lost, ..Damage::default() };
    if view.damage.len() + view.suspect.len() > 0 {
        damage.proven = view.damage.clone().collect();
        damage.suspect = view.suspect.clone().collect();
    }
    for extent in view.extents.clone() {
        let last = extent.first + (extent.count - 1);
        let Some(segment) = segments.get(&extent.segment) else {
            return Err(Error::damaged(format!(
                "the checkpoint names segment {} for entries {}..={last}, and does not list it",
                extent.segment, extent.first
            ))
            .in_region(view.region)
            .naming(extent.first..=last)
            .at(dir, None));
        };
        if segment.is_hole() {
            damage.proven.insert(extent.first, last);
        }
        state.extents.push(Extent::sealed(&extent, segment));
    }
    state.damage = Some(damage).filter(|d| !d.is_none()).map(Box::new);
    check_consistent(&state, view.region, dir)?;
    match table.insert(view.region, state) {
        true => Ok(()),
        false => {
            Err(Error::damaged("the checkpoint has the region twice").in_region(view.region).at(dir, None))
        }
    }
}

/// Refuses a region whose parts do not go together. Found by fuzzing, with checksums that were right.
fn check_consistent(state: &RegionState, region: RegionId, path: &Path) -> Result<()> {
    state.check().map_err(|e| {
        Error::damaged(format!("the log of the region is inconsistent: {e}; run `raftwood check`"))
            .in_region(region)
            .at(path, None)
    })
}

/// A checkpoint may know of entries in records past the place where the log was ended.
pub(super) fn truncate_what_was_lost(table: &Table, report: &mut OpenReport) {
    for cell in table.cells() {
        let mut state = table.change(&cell);
        let gone = |e: &Stretch<'_>| {
            !e.segment().is_hole() && (e.first()..=e.last()).any(|i| !e.is_listed(cell.id, i))
        };
        let Some(extent) = state.extents.iter().find(gone) else { continue };
        let mut indexes = extent.first()..=extent.last();
        let (Some(first), Some(last)) = (indexes.find(|i| !extent.is_listed(cell.id, *i)), state.last())
        else {
            continue;
        };
        let error = Error::damaged(format!("entries {first}..={last} are gone with the end of the log"));
        report.damage.push(error.in_region(cell.id).naming(first..=last).at(&extent.segment().path, None));
        state.truncate_from(first);
    }
}

/// Gives up what stood before a gap of the log that the caller accepted: what is gone with it may have rolled
/// entries back, or destroyed their region. Of entries that the cleaner moved, the regions alone are kept.
/// That all hard states are lost is noted once the store is open.
pub(super) fn give_up_before_gap(
    table: &Table,
    segments: &BTreeMap<u32, Arc<Segment>>,
    gap: u32,
    report: &mut OpenReport,
) {
    for cell in table.cells() {
        let mut state = table.change(&cell);
        if let (Some(first), Some(last), Some(extent)) = (state.first(), state.last(), state.extents.first())
        {
            let error = Error::damaged(format!(
                "entries {first}..={last} stand before a gap of the log, which ends at segment {gap}: they may have been taken back \
                 since, and are given up; reset the region, or let the replica join anew"
            ));
            report
                .damage
                .push(error.in_region(cell.id).naming(first..=last).at(&extent.segment().path, None));
            state.give_up();
        }
    }
    for segment in segments.values().filter(|s| s.kind == SegmentKind::Cold) {
        let Some(footer) = segment.footer() else { continue };
        for range in footer.ranges() {
            let cell = table.get_or_create(range.region());
            let mut state = table.change(&cell);
            let known = state.last().or(state.base.map(|base| base.index));
            if state.touched == Lsn::ZERO && known.is_none_or(|known| known < range.last()) {
                state.reset(EntryId::new(0, range.last()));
            }
        }
    }
}

/// Applies the log segments of `part`. With `gaps`, some before them may be gone. Returns the cold
/// segments that install records named.
pub(super) fn replay<'a>(
    table: &Table,
    part: impl Iterator<Item = (&'a u32, &'a Arc<Segment>)>,
    segments: &BTreeMap<u32, Arc<Segment>>,
    gaps: bool,
    report: &mut OpenReport,
) -> Result<Vec<u32>> {
    let mut installed = Vec::new();
    for segment in part.map(|(_, s)| s).filter(|s| s.kind == SegmentKind::Log) {
        let Some(footer) = segment.footer() else { continue };
        let bad = |e: Malformed| {
            Error::damaged(format!("the footer of the segment is damaged: {e}")).at(&segment.path, None)
        };
        report.replayed_segments += 1;
        let only_one = planted(Bug::OnlyFirstRegionReplayed);
        let mut first = true;
        let replayed = footer.each_delta(|delta| {
            if only_one && !std::mem::take(&mut first) {
                return Ok(());
            }
            replay_delta(table, &delta, segment, gaps).map_err(Ended::Refused)
        });
        replayed.map_err(|e| match e {
            Ended::Refused(e) => e,
            Ended::Malformed(e) => bad(e),
        })?;
        for install in footer.installs().map_err(bad)? {
            installed.push(install.cold);
            // Gone again already: then nothing refers to its sources any more either.
            if let Some(cold) = segments.get(&install.cold) {
                table.relocate(cold, &install.sources);
            }
        }
    }
    Ok(installed)
}

/// Why replay ended.
enum Ended {
    Malformed(Malformed),
    Refused(Error),
}

impl From<Malformed> for Ended {
    fn from(e: Malformed) -> Ended {
        Ended::Malformed(e)
    }
}

fn replay_delta(table: &Table, delta: &RegionDelta, segment: &Arc<Segment>, gaps: bool) -> Result<()> {
    let cell = table.get_or_create(delta.region);
    let mut state = table.change(&cell);
    // Captured in a later segment: this one is in it.
    if state.touched.segment() > segment.id {
        return Ok(());
    }
    if gaps {
        state.yield_base(delta);
    }
    state.apply_delta(delta, segment);
    if gaps {
        state.close_gap();
    }
    check_consistent(&state, delta.region, &segment.path)?;
    state.touched = Lsn::new(segment.id, segment.sealed_end());
    Ok(())
}
