//! The end of the log past the watermark: whole batches are kept and re-persisted, a tear ends them.

use super::Unrecovered;
use super::judge::{Facts, judge};
use crate::codec::checksum::entry_checksum;
use crate::codec::mend::{Flip, find_flip};
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Encoded, Install};
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, Shape};
use crate::format::zeros::{TELLING_BYTES, Zeros};
use crate::limits::SECTOR;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::read::doubtful;
use crate::report::{OpenReport, RecordFinding, RecordState, Verdict};
use crate::segment::Segment;
use crate::segment::scan::{Found, Record, Scanner};
use crate::segment::verify::{StoredEntry, wrong_entries};
use crate::types::{Lsn, RegionId};
use std::collections::BTreeMap;
use std::ops::Range;

/// A record past the watermark that is kept.
pub(crate) struct TailRecord {
    pub(crate) encoded: Encoded,
    /// The record that it is a copy of.
    pub(crate) original: Shape,
    /// Entries of it that are wrong and may have been acknowledged.
    pub(crate) suspects: Vec<(RegionId, u64)>,
}

impl TailRecord {
    fn doubts(&self, segment: &Segment, at: u32) -> impl Iterator<Item = Error> {
        let error = move |&(region, index): &(RegionId, u64)| {
            doubtful(region, index).at(&segment.path, Some(u64::from(at)))
        };
        self.suspects.iter().map(error)
    }
}

/// The install record among the tail's, if this is one.
pub(super) fn installs(record: &TailRecord) -> Option<Install> {
    let encoded = &record.encoded;
    (encoded.kind == RecordKind::Install).then(|| Install::decode(&encoded.desc).ok()).flatten()
}

/// Adds the records of `from..until` that are kept to `tail`. False when a tear ended them.
///
/// The range is synced, dropped from the page cache and read again first: what only the cache has
/// was never durable.
pub(super) fn collect(
    segment: &Segment,
    from: u32,
    until: u32,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    report: &mut OpenReport,
    tail: &mut Vec<TailRecord>,
) -> Result<bool, Unrecovered> {
    let range = u64::from(from)..u64::from(until);
    segment.file()?.sync_data().map_err(|e| Error::io("syncing the tail of the log", &segment.path, e))?;
    segment
        .file()?
        .drop_cache(range)
        .map_err(|e| Error::io("dropping the tail of the log from the cache", &segment.path, e))?;
    let mut scanner = segment.scanner(segment.records_end)?;
    let mut at = from;
    while at < until {
        let Weighed { verdict, end, kept } = look_at(segment, &mut scanner, at, announced, options, report)?;
        if let Some(kept) = kept {
            report.suspects.extend(kept.doubts(segment, at));
            report.rewritten_batches += 1;
            tail.push(kept);
        }
        match verdict {
            Verdict::Keep | Verdict::Fence => at = end,
            Verdict::Torn | Verdict::Lose => {
                if verdict == Verdict::Lose {
                    report.assumed_torn = true;
                    report.suspects.push(dropped(segment, at));
                }
                report.torn_bytes += u64::from(until - at);
                return Ok(false);
            }
            Verdict::Refuse => return Err(Unrecovered::Damaged(refused(segment, at))),
        }
    }
    Ok(true)
}

/// How far the records of `from..until` would be kept if the bytes in the files were all that will ever
/// come, for those who only look: nothing is synced, and nothing noted. Entries that would be kept as
/// doubtful go to `suspects`, and so does a record that only the tail policy drops.
///
/// The last of them may just be on their way into the file. Such a record was not answered yet, so it may be
/// shown or not, but never as damage.
pub(super) fn kept_until(
    segment: &Segment,
    from: u32,
    until: u32,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    suspects: &mut Vec<Error>,
) -> Result<u32, Unrecovered> {
    let mut at = from;
    let mut looks = 1;
    let mut scanner = segment.scanner(segment.records_end)?;
    while at < until {
        let weighed = look_at(segment, &mut scanner, at, announced, options, &mut OpenReport::default())?;
        // A record that arrives between two reads of it looks like nothing that a crash leaves.
        if weighed.verdict != Verdict::Keep && looks < LOOKS_MAX {
            looks += 1;
            scanner = segment.scanner(segment.records_end)?;
            continue;
        }
        match weighed.verdict {
            Verdict::Keep | Verdict::Fence => {
                suspects.extend(weighed.kept.iter().flat_map(|kept| kept.doubts(segment, at)));
                (at, looks) = (weighed.end, 1);
            }
            Verdict::Torn => break,
            Verdict::Lose => {
                suspects.push(dropped(segment, at));
                break;
            }
            Verdict::Refuse => return Err(Unrecovered::Damaged(refused(segment, at))),
        }
    }
    Ok(at)
}

/// How often a record is looked at that is not right, by those who may stand beside its writer.
const LOOKS_MAX: u32 = 3;

/// What is to become of one record of the tail.
struct Weighed {
    verdict: Verdict,
    /// Where the next one is.
    end: u32,
    /// The record, if it is kept and holds anything.
    kept: Option<TailRecord>,
}

fn look_at(
    segment: &Segment,
    scanner: &mut Scanner<'_>,
    at: u32,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<Weighed, Unrecovered> {
    let once_whole = was_whole(segment, at, announced);
    let (facts, end, kept) = match scanner.look(at)? {
        Found::Record(record) => {
            let (facts, kept) = weigh(segment, scanner, &record, once_whole, options)?;
            (facts, record.end(), kept)
        }
        Found::BadDescription(header) => {
            (unreadable(segment, scanner, at, Some(&header), once_whole, options)?, at, None)
        }
        Found::Nothing => (unreadable(segment, scanner, at, None, once_whole, options)?, at, None),
    };
    let verdict = judged(segment, at, facts, once_whole, report);
    let kept = kept.filter(|_| matches!(verdict, Verdict::Keep | Verdict::Fence));
    Ok(Weighed { verdict, end, kept })
}

/// Refuses a segment past whose last record stands something that is neither a record nor the remains of a
/// torn one. False when the caller chose to lose it: then nothing that follows counts.
pub(super) fn ends_clearly(
    segment: &Segment,
    at: u32,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<bool, Unrecovered> {
    let mut scanner = segment.scanner(segment.records_end)?;
    let header = match scanner.look(at)? {
        // It belongs to another history.
        Found::Record(_) => return Ok(true),
        Found::BadDescription(header) => Some(header),
        Found::Nothing => None,
    };
    let once_whole = was_whole(segment, at, announced);
    let facts = unreadable(segment, &mut scanner, at, header.as_ref(), once_whole, options)?;
    match judged(segment, at, facts, once_whole, report) {
        Verdict::Refuse => Err(Unrecovered::Damaged(refused(segment, at))),
        Verdict::Lose => {
            report.assumed_torn = true;
            report.suspects.push(dropped(segment, at));
            Ok(false)
        }
        _ => Ok(true),
    }
}

/// Judges, and notes what was found for those who ask why.
fn judged(segment: &Segment, at: u32, facts: Facts, was_whole: bool, report: &mut OpenReport) -> Verdict {
    let verdict = judge(facts);
    report.trail.judged.push(RecordFinding {
        at: Lsn::new(segment.id, at),
        path: segment.path.to_path_buf(),
        state: facts.record,
        torn: facts.tear,
        old_bytes: facts.stale,
        one_flip: facts.rot,
        was_whole,
        verdict,
    });
    verdict
}

/// Whether a recovery that did not come to its end found the record at this place whole: then
/// what is wrong with it is rot.
fn was_whole(segment: &Segment, at: u32, announced: &BTreeMap<Lsn, Shape>) -> bool {
    announced.contains_key(&Lsn::new(segment.id, at)) && !planted(Bug::AnnouncementUnheeded)
}

/// The length of a record without its padding, whose zeros would look like a tear.
pub(super) fn bytes_of(header: &RecordHeader) -> u64 {
    u64::from(RECORD_HEADER_LEN) + u64::from(header.desc_len) + u64::from(header.payload_len)
}

/// What is known of a record whose header and description are right.
fn weigh(
    segment: &Segment,
    scanner: &mut Scanner<'_>,
    record: &Record,
    once_whole: bool,
    options: &Options,
) -> Result<(Facts, Option<TailRecord>), Unrecovered> {
    let policy = options.tail_policy;
    let right = Facts { record: RecordState::Right, tear: false, stale: false, rot: false, policy };
    let payload = scanner.payload(record)?;
    let (batch, blocks) = match record.header.kind {
        RecordKind::Watermark | RecordKind::Announcement | RecordKind::Copies => return Ok((right, None)),
        RecordKind::Install => (Batch::default(), Vec::new()),
        RecordKind::Batch => match Batch::decode_desc(&record.desc, record.header.payload_len) {
            Ok(parts) => parts,
            Err(e) => {
                let error = Error::damaged(e.0).at(&segment.path, Some(u64::from(record.offset)));
                return Err(Unrecovered::Damaged(error));
            }
        },
    };
    let facts = match wrong_entries(&batch, &blocks, &payload) {
        Some(_) if planted(Bug::TailNotVerified) => (right, Vec::new()),
        Some(wrong) if wrong.is_empty() => (right, wrong),
        Some(wrong) => {
            let base = record.payload_at();
            let mut rot = true;
            for w in &wrong {
                // A last byte that rotted to zero is no tear: what one flip explains is believed to be one.
                rot &= is_one_flip(scanner, w, base, record)?;
            }
            let found = Zeros::of(u64::from(record.desc_at()), [&record.desc, &payload]);
            let tear = !once_whole && !rot && lacks_bytes(scanner, &record.header, record.offset, found)?;
            let place = u64::from(base)..u64::from(base) + payload.len() as u64;
            let failed = scanner.bad_sector(place).is_some();
            let stale = segment.previous_salt != 0 && !failed && !once_whole;
            (Facts { record: RecordState::WrongInPayload, tear, stale, rot, policy }, wrong)
        }
        None => (
            Facts { record: RecordState::Unreadable, tear: false, stale: false, rot: false, policy },
            Vec::new(),
        ),
    };
    let suspects = facts.1.iter().map(|w| (w.region, w.id.index)).collect();
    let encoded = Encoded {
        kind: record.header.kind,
        batch,
        blocks,
        desc: record.desc.clone(),
        desc_crc: crate::codec::checksum::crc32(0, &record.desc),
        payload,
    };
    Ok((facts.0, Some(TailRecord { encoded, original: record.shape, suspects })))
}

/// Whether flipping one bit back makes the entry match, and no unwritten sector can be the cause: then
/// the bit would be one of many that differ, unless the record hardly reaches into that sector, and
/// some of it would not be zero.
fn is_one_flip(scanner: &mut Scanner<'_>, wrong: &StoredEntry, base: u32, record: &Record) -> Result<bool> {
    let Some(bytes) = &wrong.bytes else { return Ok(false) };
    let found = entry_checksum(wrong.region, wrong.id, bytes);
    let Some(Flip::Message { byte, .. }) = find_flip(bytes.len(), found, wrong.crc) else { return Ok(false) };
    let at = u64::from(base + wrong.at.start) + byte as u64;
    let sector = at / SECTOR * SECTOR;
    let from = sector.max(u64::from(record.offset));
    let to = (sector + SECTOR).min(u64::from(record.payload_at() + record.header.payload_len));
    let len = to.saturating_sub(from);
    Ok(len >= TELLING_BYTES && scanner.read(from, len as usize)?.iter().any(|b| *b != 0))
}

/// What is known of what stands at `at` in place of a record, or of one whose header alone is right.
fn unreadable(
    segment: &Segment,
    scanner: &mut Scanner<'_>,
    at: u32,
    header: Option<&RecordHeader>,
    once_whole: bool,
    options: &Options,
) -> Result<Facts> {
    let len = header.map_or(u64::from(RECORD_HEADER_LEN), bytes_of);
    let place = u64::from(at)..u64::from(at) + len;
    let tear = place.end > segment.records_end
        || match header {
            Some(header) => {
                let body = scanner
                    .read(u64::from(at + RECORD_HEADER_LEN), (len as u32 - RECORD_HEADER_LEN) as usize)?;
                let found = Zeros::of(u64::from(at + RECORD_HEADER_LEN), [body, &[]]);
                lacks_bytes(scanner, header, at, found)?
            }
            None => header_looks_unwritten(scanner, place.clone())?,
        };
    let failed = scanner.bad_sector(place).is_some();
    let (tear, stale) = (tear && !once_whole, segment.previous_salt != 0 && !failed && !once_whole);
    let policy = options.tail_policy;
    Ok(Facts { record: RecordState::Unreadable, tear, stale, rot: false, policy })
}

/// Whether a record, whose description and payload area have these zeros now, was never written whole. One
/// that is cut short has nothing after it.
fn lacks_bytes(scanner: &mut Scanner<'_>, header: &RecordHeader, at: u32, found: Zeros) -> Result<bool> {
    let own = if planted(Bug::OwnZerosTakenForTear) { Zeros::default() } else { header.zeros };
    let end = u64::from(at) + bytes_of(header);
    let rest = scanner.read(end, (end.next_multiple_of(SECTOR) - end) as usize)?;
    let trailing = if rest.iter().all(|b| *b == 0) { found.trailing } else { 0 };
    Ok(own.lack_some(Zeros { trailing, ..found }, end))
}

/// Whether a part of a header looks as if it had never been written: what lies in it of one of the sectors it
/// touches is all zero, or it ends in zeros and nothing stands after it, as after a write that was cut short.
fn header_looks_unwritten(scanner: &mut Scanner<'_>, place: Range<u64>) -> Result<bool> {
    let mut from = place.start;
    while from < place.end {
        let to = (from / SECTOR + 1) * SECTOR;
        if scanner.read(from, (to.min(place.end) - from) as usize)?.iter().all(|b| *b == 0) {
            return Ok(true);
        }
        from = to;
    }
    let last = place.end.saturating_sub(1).max(place.start);
    let rest = scanner.read(last, ((last + 1).next_multiple_of(SECTOR) - last) as usize)?;
    Ok(rest.iter().all(|b| *b == 0))
}

fn dropped(segment: &Segment, at: u32) -> Error {
    Error::damaged(
        "the last record of the log is wrong, and was dropped with what follows it because the tail policy says so: it may \
         have been acknowledged",
    )
    .suspect()
    .at(&segment.path, Some(u64::from(at)))
}

fn refused(segment: &Segment, at: u32) -> Error {
    Error::damaged(
        "the last record of the log is wrong and nothing proves that it was torn: it may have been acknowledged; \
         restore the store, or open with TailPolicy::AssumeTorn (`raftwood repair --assume-torn --apply`) if losing it is \
         acceptable",
    )
    .suspect()
    .at(&segment.path, Some(u64::from(at)))
}
