//! Puts damaged entries back, from a replica's copies.
//!
//! The old bytes are never overwritten. The entries go into a cold segment of their own and are installed
//! over their places as the cleaner installs what it moves.

use super::Store;
use super::clean::{install, write_cold};
use crate::codec::checksum::entry_checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Loc;
use crate::planted::{Bug, planted};
use crate::segment::{Segment, rebuild_footer};
use crate::types::{Entry, EntryId, RegionId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Accepts `payload` for a damaged entry if it is what was recorded.
pub(crate) fn repair(store: &Store, region: RegionId, id: EntryId, payload: &[u8]) -> Result<()> {
    let _hurry = store.pauses.hurry();
    let _copying = store.turns.copying.lock()?;
    put_back(store, vec![judge(store, region, id, payload)?])
}

/// The same for many, which go into one segment. Returns why each of the others was refused.
pub(crate) fn repair_all(store: &Store, copies: &[(RegionId, Entry)]) -> Result<Vec<Error>> {
    let _hurry = store.pauses.hurry();
    let _copying = store.turns.copying.lock()?;
    let (mut right, mut refused) = (BTreeMap::new(), Vec::new());
    for (region, entry) in copies {
        match judge(store, *region, entry.id, &entry.payload) {
            Ok(copy) => drop(right.insert((*region, entry.id.index), copy)),
            Err(e) => {
                // That is no fault of the copy, nor would the next one fare better.
                store.committer.check_open()?;
                store.committer.gate().check()?;
                refused.push(e);
            }
        }
    }
    put_back(store, right.into_values().collect())?;
    Ok(refused)
}

/// A copy of what was recorded of an entry.
struct Right<'a> {
    region: RegionId,
    id: EntryId,
    crc: u32,
    payload: &'a [u8],
    /// The segment that it is damaged in; none if it is not, after all.
    wrong_in: Option<Arc<Segment>>,
}

/// Compares a copy with what was recorded.
fn judge<'a>(store: &Store, region: RegionId, id: EntryId, payload: &'a [u8]) -> Result<Right<'a>> {
    let one = store.turns.upkeep.lock()?;
    // Only sealed segments can be installed over: what the active one says of the entry could still change.
    let find = || {
        store.table.get(region).and_then(|c| c.read().extent(id.index).map(|e| e.part(id.index, id.index)))
    };
    let missing = || {
        Error::new(ErrorKind::Unavailable, format!("entry {} is not in the log: nothing to repair", id.index))
            .in_region(region)
            .naming(id.index..=id.index)
    };
    let mut extent = find().ok_or_else(missing)?;
    if extent.segment().footer().is_none() {
        store.committer.roll()?;
        super::seal_due(store)?;
        extent = find().ok_or_else(missing)?;
    }
    drop(one);
    let term = extent.term(region, id.index)?;
    let is_recorded = |loc: Loc| {
        term == id.term && payload.len() == loc.len as usize && entry_checksum(region, id, payload) == loc.crc
    };
    let recorded = extent.loc_from_file(region, id.index);
    // A footer that is wrong records nothing. What it was built from may be wrong as well: then there is
    // nothing left to compare a copy with, and that is no fault of the copy.
    let is_right = || extent.segment().footer().is_some_and(|footer| footer.is_right());
    let loc = match recorded {
        Ok(loc) if is_recorded(loc) || is_right() => loc,
        _ => {
            rebuild_footer(extent.segment())?;
            extent.loc_from_file(region, id.index)?
        }
    };
    let fits = is_recorded(loc);
    if !fits && !planted(Bug::RepairTakesAnything) {
        return Err(Error::invalid(format!(
            "the copy of entry {id} does not match what was recorded here: term {term}, {} bytes and their checksum; \
             nothing was changed",
            loc.len
        ))
        .in_region(region)
        .naming(id.index..=id.index));
    }
    let is_wrong = extent.segment().entry_from_file(region, id, loc).is_err();
    let wrong_in = is_wrong.then(|| extent.segment().clone());
    Ok(Right { region, id, crc: loc.crc, payload, wrong_in })
}

/// Installs copies, which are in the order of their regions and indexes, over what is wrong. The
/// caller holds the turn of copying.
fn put_back(store: &Store, copies: Vec<Right<'_>>) -> Result<()> {
    let wrong = || copies.iter().filter(|copy| copy.wrong_in.is_some());
    let mut sources: Vec<Arc<Segment>> = wrong().filter_map(|copy| copy.wrong_in.clone()).collect();
    sources.sort_by_key(|segment| segment.id);
    sources.dedup_by_key(|segment| segment.id);
    if !sources.is_empty() {
        let bytes = wrong().map(|copy| copy.payload.len() as u64 + 128).sum();
        let push_all = |w: &mut super::ColdWriter<'_>| {
            wrong().try_for_each(|copy| w.push(copy.region, copy.id, copy.crc, copy.payload))
        };
        if let Some(cold) = write_cold(store, bytes, push_all)? {
            let _one = store.turns.upkeep.lock()?;
            install(store, &cold, &sources)?;
        }
    }
    for copy in &copies {
        store.reads.forget_damage(copy.region, copy.id.index..copy.id.index + 1);
    }
    Ok(())
}
