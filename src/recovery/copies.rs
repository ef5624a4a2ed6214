//! What cannot be read where it was written, from its copies.
//!
//! Asked for only where something is missing: a log that ends without a question is read once. The copies of
//! a record stand in the group after its own or in the mark (see [`crate::format::copies`]), and are found
//! whatever lies between.

use super::link::Link;
use crate::error::Result;
use crate::format::copies::{Copies, decode_copies};
use crate::format::mark::Mark;
use crate::format::record::RecordKind;
use crate::segment::scan::{FIRST_RECORD, Found, Scanner, Sought};
use crate::types::Lsn;
use bytes::Bytes;
use std::collections::BTreeMap;

/// How far the log was durable, if a record before that cannot be read: what follows the first place where
/// `links` do not simply go on is missing then. What was not durable may never have been written, or be on
/// its way, and is not made good.
pub(super) fn wanted(links: &[Link], start_segment: u32, watermark: Lsn) -> Option<Lsn> {
    let said = links.iter().filter_map(|link| link.past_hole).map(|past| past.watermark);
    let durable = said.fold(watermark, Lsn::max);
    let mut end = Lsn::new(start_segment, FIRST_RECORD);
    let mut before: Option<&Link> = None;
    for link in links {
        let goes_on = before.is_none_or(|before| link.follows == Some(before.last));
        if link.end > FIRST_RECORD {
            if !goes_on && !link.sealed {
                break;
            }
            (before, end) = (Some(link), Lsn::new(link.segment.id, link.end));
        }
        if link.past_hole.is_some() {
            break;
        }
    }
    (durable > end).then_some(durable)
}

/// Gives the segments that have no footer the copies that there are of their records before `durable`. False
/// if there are none.
pub(super) fn give(links: &[Link], marks: &[Mark], durable: Lsn) -> Result<bool> {
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
                if copy.shape.end().is_some_and(|end| end <= durable) {
                    found.entry(position.segment()).or_default().insert(position.offset(), copy);
                }
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
    while let Some(Sought { offset, header }) = scanner.seek(at)? {
        if header.kind == RecordKind::Copies
            && let Found::Record(record) = scanner.look(offset)?
        {
            take(&record.desc);
        }
        at = offset.saturating_add(8);
    }
    Ok(())
}
