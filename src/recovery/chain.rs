//! Where the log ends.
//!
//! Each record names its predecessor. Following the segments from the checkpoint on, in the order of
//! their numbers, a segment's first record says where the records before it end: usually at the end of
//! the segment before, but earlier where a run of the engine ended in a torn or doubtful tail and the
//! next one started after its last good record. A segment whose first record follows a record that
//! cannot be found lies past a hole.
//!
//! | past the last complete record                                   | then it is |
//! |-----------------------------------------------------------------|------------|
//! | no valid record                                                 | the end    |
//! | valid records, none with a watermark beyond the hole            | torn: dropped, they were never acknowledged |
//! | a valid record with a watermark beyond the hole                 | damage: the hole was acknowledged |

use super::copies;
use super::judge::refuse;
use super::link::{Link, PastHole, Said, scan_to_end, settle_old};
use super::recognise::{SegmentFiles, cut_short};
use super::serving::{FIRST_SEGMENT, is_rebuilt};
use super::tail::{self, TailRecord};
use super::thread::{pass_last_gap, place, thread};
use super::{Purpose, Unrecovered};
use crate::error::{Error, Result};
use crate::format::checkpoint::CheckpointHeader;
use crate::format::file_header::SegmentKind;
use crate::format::mark::Mark;
use crate::format::record::Shape;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::report::{OpenReport, Proof};
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{Segment, load_footer};
use crate::types::Lsn;
use crate::vfs::Dir;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The log, followed to its end.
pub(super) struct Chain {
    /// The last durable record: what the next one follows.
    pub(super) last: Shape,
    /// Whole records past the watermark.
    pub(super) tail: Vec<TailRecord>,
    /// Where nothing is re-persisted: entries past the watermark that are wrong and may have been
    /// acknowledged.
    pub(super) suspects: Vec<Error>,
    /// Whether records that show in the files were taken out of the log, into `tail` or for good. The
    /// next run must make a record of its own durable before it answers, or the one after would
    /// mistake them for part of the log.
    pub(super) cut: bool,
    /// There is no checkpoint, and the log has a gap before this segment that the caller accepted: what stood
    /// before may have been taken back since.
    pub(super) gap: Option<u32>,
    /// What stands before was durable; nothing but a record's own checksums speaks for what follows.
    pub(super) durable: Lsn,
}

/// Finds the end of the log, gives every segment its end, and collects what has to be re-persisted. Segments
/// that turn out to be no part of the log are taken out of `opened`, or kept empty.
pub(super) fn follow(
    dir: &Dir,
    opened: &mut SegmentFiles,
    checkpoint: &CheckpointHeader,
    evidence: Evidence<'_>,
    options: &Options,
    purpose: Purpose,
    report: &mut OpenReport,
) -> Result<Chain, Unrecovered> {
    let mut found = read(dir, opened, checkpoint, &evidence, report)?;
    let Log { places: log, start_segment, gap } =
        find_log(&mut found, opened, checkpoint, evidence, options, report)?;
    let Read { mut links, before, said, .. } = found;
    let watermark = said.watermark;
    let settled = settled_below(&links, &log, watermark);
    for link in links.iter().filter(|link| link.segment.id >= settled) {
        link.judge_end(options, report)?;
    }
    let hole = log.last().map(|&at| Lsn::new(links[at].segment.id, links[at].end));
    let hole = hole.unwrap_or(Lsn::new(start_segment, FIRST_RECORD));
    let proof = judge_hole(&links, &said, hole, start_segment, report);
    (report.trail.hole, report.trail.acknowledged) = (Some(hole), proof);
    report.trail.segments = links.iter().enumerate().map(|(at, l)| l.found(log.contains(&at))).collect();
    if let Some(watermark) = proof {
        refuse(Unrecovered::Damaged(acknowledged_hole(&links, hole, watermark)), options, report)?;
    }
    for at in (0..links.len()).filter(|at| !log.contains(at)) {
        report.torn_bytes += u64::from(links[at].end.saturating_sub(FIRST_RECORD));
        links[at].forget();
    }

    let mut suspects = Vec::new();
    let (tail, mut cut) = match purpose {
        Purpose::Write => {
            let judged = proof.is_none();
            let settled = judged.then_some(settled);
            cut_at_watermark(&mut links, settled, watermark, &said.announced, options, report)?
        }
        Purpose::Inspect => {
            suspects = end_at_what_is_wrong(&mut links, watermark, &said.announced, options, report)?;
            (Vec::new(), false)
        }
        Purpose::InspectDurable => {
            end_at_watermark(&mut links, watermark);
            (Vec::new(), false)
        }
    };
    cut |= proof.is_some();
    let mut last = log.first().and_then(|&at| links[at].follows).unwrap_or(before);
    for link in &links {
        if link.end > FIRST_RECORD {
            last = link.last;
        }
        link.segment.set_sealed_end(link.end);
    }
    Ok(Chain { last, tail, suspects, cut, gap, durable: watermark })
}

/// Which segments are the log.
struct Log {
    /// Their places among the links, in order.
    places: Vec<usize>,
    /// The first segment that is replayed.
    start_segment: u32,
    /// That one, if the log has a gap before it that the caller accepted.
    gap: Option<u32>,
}

/// Follows the records from one segment to the next. Where there is no checkpoint, the log has to be whole.
fn find_log(
    found: &mut Read,
    opened: &SegmentFiles,
    checkpoint: &CheckpointHeader,
    evidence: Evidence<'_>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<Log, Unrecovered> {
    let Read { links, said, logs, .. } = found;
    let (start_segment, watermark) = (checkpoint.start_segment, said.watermark);
    let places = thread(links, start_segment, watermark);
    if !is_rebuilt(checkpoint) {
        if said.loss && !planted(Bug::HalfAcceptedLossForgotten) {
            // An open that accepted it ended before a checkpoint said what it cost: this one has to.
            report.accepted_loss = true;
        }
        return Ok(Log { places, start_segment, gap: None });
    }
    if let Some(gap) = gap_in_history(opened, links, &places, watermark, &evidence) {
        // The device may give the checkpoint another time.
        let why = evidence.unread.map_or(Unrecovered::Damaged(gap), Unrecovered::Failed);
        refuse(why, options, report)?;
        let gap = pass_last_gap(links, start_segment, watermark);
        return Ok(Log { places: thread(links, gap, watermark), start_segment: gap, gap: Some(gap) });
    }
    if said.loss {
        refuse(Unrecovered::Damaged(loss_accepted_before(logs)), options, report)?;
    }
    Ok(Log { places, start_segment, gap: None })
}

/// What the segments say.
struct Read {
    /// Those that are replayed.
    links: Vec<Link>,
    /// The last record before them, if it is known.
    before: Shape,
    said: Said,
    logs: Vec<Arc<Segment>>,
}

/// Reads the segments as far as their records lead, those before the replay by their footers alone.
fn read(
    dir: &Dir,
    opened: &SegmentFiles,
    checkpoint: &CheckpointHeader,
    evidence: &Evidence<'_>,
    report: &mut OpenReport,
) -> Result<Read> {
    let of_kind = |kind| opened.segments.values().filter(move |s| s.kind == kind);
    let logs: Vec<Arc<Segment>> = of_kind(SegmentKind::Log).cloned().collect();
    let mut read =
        Read { links: Vec::new(), before: Shape::default(), said: Said::new(evidence.durable), logs };
    for segment in read.logs.iter().filter(|s| !s.is_hole()) {
        let footer = load_footer(dir, segment);
        if segment.id < checkpoint.start_segment {
            if let Some(last) = settle_old(segment, footer)? {
                read.before = last;
            }
            continue;
        }
        read.links.push(Link::read(segment, footer, &mut read.said)?);
        report.trail.proven(read.said.watermark, Proof::Segment(segment.id));
    }
    if let Some(durable) = copies::wanted(&read.links, checkpoint.start_segment, read.said.watermark)
        && copies::give(&read.links, evidence.marks, durable)?
    {
        for link in read.links.iter_mut().filter(|link| !link.sealed) {
            *link = Link::read(&link.segment.clone(), None, &mut read.said)?;
        }
    }
    for link in &read.links {
        if link.sealed && u64::from(link.end) > link.segment.records_end {
            // Its footer knows which entries these are.
            report.damage.push(cut_short(&link.segment));
        }
        report.mended_records += link.mended;
        report.tail_batches += link.batches;
    }
    for segment in of_kind(SegmentKind::Cold).filter(|s| !s.is_hole()) {
        if let Some(footer) = load_footer(dir, segment) {
            segment.set_sealed_end(footer.tail().end);
            segment.set_footer(footer);
        } else if segment.known_end().is_none() {
            segment.set_sealed_end(scan_to_end(segment)?.end);
        }
    }
    Ok(read)
}

/// What else than the records is known of the log.
pub(super) struct Evidence<'a> {
    /// It was durable up to here.
    pub(super) durable: Lsn,
    /// The store's mark is there: what was durable when it last came to rest is not missing without a word.
    pub(super) marked: bool,
    /// What the mark file holds.
    pub(super) marks: &'a [Mark],
    /// There may be a checkpoint, and the device does not give it.
    pub(super) unread: Option<Error>,
}

/// Without a checkpoint the log has to be whole: from the first record that the store ever had, each follows
/// the one before, and no segment is left over. And the mark, or what is left of a checkpoint, has to be
/// there: half of a copy of a store looks like a whole log. Dead segments are given back in any order, and a
/// replay with gaps would bring back what was rolled back, destroyed or voted before.
fn gap_in_history(
    opened: &SegmentFiles,
    links: &[Link],
    log: &[usize],
    watermark: Lsn,
    evidence: &Evidence<'_>,
) -> Option<Error> {
    let first = log.first().map(|&at| &links[at]);
    let begins =
        first.is_some_and(|l| l.segment.id == FIRST_SEGMENT && l.follows.is_some_and(|f| f.is_none()));
    // A copy that a crash inside recovery left unfinished follows a record of the log, and all that it holds
    // stands in the log too.
    let is_unfinished_copy = |link: &Link| {
        let follows = link.follows.filter(|_| !planted(Bug::UnfinishedCopyIsGap));
        let begins_in_log = follows.is_some_and(|f| place(links, log, f, FIRST_SEGMENT).is_some());
        begins_in_log && watermark <= Lsn::new(link.segment.id, FIRST_RECORD)
    };
    let mut others = links.iter().enumerate().filter(|(at, l)| l.end > FIRST_RECORD && !log.contains(at));
    let left_over = others.find(|(_, link)| !is_unfinished_copy(link));
    let gap = left_over.map(|(_, link)| link).or(if begins { None } else { links.first() });
    let lost =
        opened.lost.iter().find(|(id, _)| opened.segments.get(id).is_none_or(|s| s.kind == SegmentKind::Log));
    let known = evidence.marked || evidence.durable > Lsn::ZERO;
    if planted(Bug::GapAcceptedAtRebuild) || gap.is_none() && begins && lost.is_none() && known {
        return None;
    }
    let path = gap.map_or(PathBuf::new(), |link| link.segment.path.to_path_buf());
    let error = Error::damaged(
        "no checkpoint of the store can be believed, and the log does not reach from its beginning to a known end without a gap: the \
         regions cannot be rebuilt; restore the store from a backup, or let the node join anew; `raftwood repair --accept-loss \
         --apply` (TailPolicy::AcceptLoss) opens it with all hard states lost, and answers nothing from before the last gap",
    );
    Some(error.at(&path, None))
}

/// The log was cut where the caller accepted a loss, and what a checkpoint said of that is gone.
fn loss_accepted_before(logs: &[Arc<Segment>]) -> Error {
    let path = logs.last().map_or(PathBuf::new(), |segment| segment.path.to_path_buf());
    Error::damaged(
        "no checkpoint of the store can be believed, and a loss was accepted before: which hard states were lost then is not known; \
         open with TailPolicy::AcceptLoss (`raftwood repair --accept-loss`) to open with all of them lost",
    )
    .at(&path, None)
}

/// What proves that something past the hole was acknowledged: up to where the log was durable.
fn judge_hole(
    links: &[Link],
    said: &Said,
    hole: Lsn,
    start_segment: u32,
    report: &mut OpenReport,
) -> Option<Lsn> {
    let mut proof = None;
    for link in links.iter().filter(|l| l.segment.id >= hole.segment()) {
        if let Some(PastHole { watermark, bytes }) = link.past_hole {
            proof = proof.max(Some(watermark));
            report.torn_bytes += bytes;
        }
        let later = link.records.iter().filter(|_| link.segment.id > hole.segment());
        proof = proof.max(later.map(|r| r.watermark).max());
    }
    proof = proof.filter(|watermark| *watermark > hole);
    // No record may claim that more was durable than there is.
    if said.watermark > hole && said.watermark.segment() >= start_segment {
        proof = proof.max(Some(said.watermark));
    }
    // Nor may a record that was whole once be gone with its segment.
    let first_announced = said
        .announced
        .range(Lsn::new(start_segment, 0)..)
        .find(|(at, _)| **at >= said.watermark && !links.iter().any(|link| link.segment.id == at.segment()));
    proof = proof.max(first_announced.and_then(|(_, shape)| shape.end()));
    proof.filter(|_| !planted(Bug::HoleTakenForTear))
}

fn acknowledged_hole(links: &[Link], hole: Lsn, watermark: Lsn) -> Error {
    // The first place that is wrong: past the last record that is right, or at the start of the next segment.
    let wrong = |l: &&Link| l.segment.id >= hole.segment() && l.past_hole.is_some();
    let at = links.iter().find(wrong).or(links.iter().find(|l| l.segment.id == hole.segment()));
    let (path, offset) =
        at.map_or((PathBuf::new(), hole.offset()), |l| (l.segment.path.to_path_buf(), l.end));
    let gone = match links.iter().any(|l| l.segment.id == watermark.segment()) {
        true => String::new(),
        false => format!(", and segment {} is missing", watermark.segment()),
    };
    Error::damaged(format!(
        "the log is damaged at {hole}: everything before {watermark} is known to have been durable{gone}; restore the \
         store or let its replicas join anew; `raftwood check` shows all that is wrong, and `raftwood repair --accept-loss \
         --apply` opens what is left"
    ))
    .at(&path, Some(u64::from(offset)))
}

/// The ends of the segments before this one are settled: a recovery before this one is known to have judged
/// them, or the log just went on, as something in this one is durable. Short of that, what follows may be an
/// unfinished copy of what stood at the end once, and proves nothing of it.
fn settled_below(links: &[Link], log: &[usize], watermark: Lsn) -> u32 {
    let ids = log.iter().map(|&at| links[at].segment.id);
    let is_durable =
        |id: &u32| watermark > Lsn::new(*id, FIRST_RECORD) || planted(Bug::UnfinishedCopyBelieved);
    ids.filter(is_durable).max().unwrap_or(0)
}

/// Takes what lies past the watermark out of the log, verified, to be re-persisted. Also returns
/// whether anything was taken out.
///
/// The end of each unsealed segment from `settled` on has to be clear too; without one, of none.
fn cut_at_watermark(
    links: &mut [Link],
    settled: Option<u32>,
    watermark: Lsn,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(Vec<TailRecord>, bool), Unrecovered> {
    let mut tail = Vec::new();
    let (mut ended, mut cuts) = (false, Vec::new());
    for (at, link) in links.iter().enumerate().filter(|(_, link)| !link.sealed) {
        let keep = match planted(Bug::TailNotRewritten) {
            true => link.records.len(),
            false => link.records_until(watermark),
        };
        let (from, until) = (keep.checked_sub(1).map_or(FIRST_RECORD, |i| link.records[i].end), link.end);
        if keep < link.records.len() {
            cuts.push((at, keep));
            if !ended {
                ended = !tail::collect(&link.segment, from, until, announced, options, report, &mut tail)?;
            } else {
                report.torn_bytes += u64::from(until - from);
            }
        }
        // A segment without a record is judged too: its first may have rotted.
        if !ended && settled.is_some_and(|settled| link.segment.id >= settled) {
            ended = !tail::ends_clearly(&link.segment, until, announced, options, report)?;
        }
    }
    // Records that hold nothing, and are on the device, stay where they are.
    if tail.is_empty() && !ended {
        cuts.clear();
    }
    for &(at, keep) in &cuts {
        links[at].end_at(keep);
    }
    Ok((tail, !cuts.is_empty()))
}

/// Leaves out what is not known to be durable.
fn end_at_watermark(links: &mut [Link], watermark: Lsn) {
    if planted(Bug::ReaderShowsUnproven) {
        return;
    }
    for link in links.iter_mut().filter(|link| !link.sealed) {
        link.end_at(link.records_until(watermark));
    }
}

/// Ends the log before the first record past the watermark that an open would not keep, for those who only
/// look. Returns the entries before it that an open would call doubtful.
fn end_at_what_is_wrong(
    links: &mut [Link],
    watermark: Lsn,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<Vec<Error>, Unrecovered> {
    let (mut suspects, mut ended) = (Vec::new(), false);
    for link in links.iter_mut().filter(|link| !link.sealed) {
        let durable = link.records_until(watermark);
        let from = durable.checked_sub(1).map_or(FIRST_RECORD, |i| link.records[i].end);
        let end = match ended {
            true => from,
            false => tail::kept_until(&link.segment, from, link.end, announced, options, &mut suspects)?,
        };
        ended |= end < link.end;
        report.torn_bytes += u64::from(link.end - end);
        link.end_at(link.records.partition_point(|r| r.end <= end));
    }
    Ok(suspects)
}
