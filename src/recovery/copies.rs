//! What cannot be read where it was written, from its copies.
//!
//! Asked for only where something is missing: a log that ends without a question is read once. The copies of a
//! record stand in the group after its own or in the mark (see [`crate::format::copies`]), and are found
//! whatever lies between.

use super::link::Link;
use crate::error::Result;
use crate::format::copies::{Copies, decode_copies};
use crate::format::mark::Mark;
use crate::format::record::RecordKind;
use crate::segment::scan::{FIRST_RECORD, Found, Scanner};
use crate::types::Lsn;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Whether `links` do not simply follow one another up to where the log is known to have been durable.
pub(super) fn are_wanted(links: &[Link], start_segment: u32, watermark: Lsn) -> bool {
    let mut before: Option<&Link> = None;
    for link in links {
        if !link.sealed && (link.past_hole.is_some() || link.unreadable.is_some()) {
            return true;
        }
        if link.end > FIRST_RECORD {
            let is_next = |before: &Link| link.follows == Some(before.last);
            if !link.sealed && before.is_some_and(|before| !is_next(before)) {
                return true;
            }
            before = Some(link);
        }
    }
    let end = before.map_or(Lsn::new(start_segment, FIRST_RECORD), |l| Lsn::new(l.segment.id, l.end));
    watermark > end
}

/// Gives the segments that have no footer the copies that there are of their records. False if there are none.
pub(super) fn give(links: &[Link], marks: &[Mark]) -> Result<bool> {
    let unsealed = || links.iter().filter(|link| !link.sealed).map(|link| &link.segment);
    let mut found: BTreeMap<u32, Copies> = BTreeMap::new();
    let seeds: BTreeMap<u32, u32> = unsealed().map(|segment| (segment.id, segment.seed)).collect();
    let mut take = |list: &Bytes| {
        // A list that is malformed has checksums that are right: what it holds up to there is believed.
        let _ = decode_copies(
            list,
            |segment| seeds.get(&segment).copied(),
            |copy| {
                let position = copy.header.position;
                found.entry(position.segment()).or_default().insert(position.offset(), copy);
            },
        );
    };
    for segment in unsealed() {
        let mut scanner = segment.scanner(segment.records_end)?;
        each_list(&mut scanner, &mut take)?;
    }
    let stores: Vec<_> = unsealed().map(|segment| segment.identity.store).collect();
    marks.iter().filter(|mark| stores.contains(&mark.store)).for_each(|mark| take(&mark.copies));
    let any = !found.is_empty();
    for segment in unsealed() {
        if let Some(copies) = found.remove(&segment.id) {
            segment.set_copies(copies);
        }
    }
    Ok(any)
}

/// Every list of copies in a segment, whatever stands between.
fn each_list(scanner: &mut Scanner<'_>, take: &mut dyn FnMut(&Bytes)) -> Result<()> {
    let mut at = FIRST_RECORD;
    while let Some((offset, header, _)) = scanner.seek(at)? {
        if header.kind == RecordKind::Copies
            && let Found::Record(record) = scanner.look(offset)?
        {
            take(&record.desc);
        }
        at = offset.saturating_add(8);
    }
    Ok(())
}
