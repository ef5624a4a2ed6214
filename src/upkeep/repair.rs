//! Puts a damaged entry back, from a replica's copy.
//!
//! The old bytes are never overwritten. The entry goes into a cold segment of its own and is installed over
//! its place as the cleaner installs what it moves.

use super::Store;
use super::clean::{install, write_cold};
use crate::codec::checksum::entry_checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Loc;
use crate::planted::{Bug, planted};
use crate::segment::rebuild_footer;
use crate::types::{EntryId, RegionId};

/// Accepts `payload` for a damaged entry if it is what was recorded.
pub(crate) fn repair(store: &Store, region: RegionId, id: EntryId, payload: &[u8]) -> Result<()> {
    let _hurry = store.pauses.hurry();
    let _copying = store.copying.lock()?;
    let one = store.upkeep.lock()?;
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
    if extent.segment().entry_from_file(region, id, loc).is_err() {
        let sources = [extent.segment().clone()];
        let cold = write_cold(store, payload.len() as u64, |w| w.push(region, id, loc.crc, payload))?;
        if let Some(cold) = cold {
            let _one = store.upkeep.lock()?;
            install(store, &cold, &sources)?;
        }
    }
    store.forget_damage(region, id.index..id.index + 1);
    Ok(())
}
