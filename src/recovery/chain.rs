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

use super::Purpose;
use super::files::Opened;
use super::judge::refuse;
use super::serving::{FIRST_SEGMENT, is_rebuilt};
use super::tail::{self, TailRecord};
use crate::error::{Error, Result};
use crate::format::batch::Announcement;
use crate::format::checkpoint::CheckpointHeader;
use crate::format::file_header::SegmentKind;
use crate::format::record::{RecordHeader, RecordKind, Shape, record_len};
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::report::{OpenReport, Proof, SegmentFinding};
use crate::segment::scan::{FIRST_RECORD, Found, Record, Scanner};
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

/// What announcements say of the log before them.
#[derive(Default)]
struct Said {
    /// Records that were whole once, by position.
    announced: BTreeMap<Lsn, Shape>,
    /// Records were dropped that may have been acknowledged.
    loss: bool,
}

impl Said {
    fn listen(&mut self, record: &Record) {
        if record.header.kind == RecordKind::Announcement
            && let Ok(announcement) = Announcement::decode(&record.desc)
        {
            self.loss |= announcement.loss;
            self.announced.extend(announcement.records.into_iter().map(|shape| (shape.position, shape)));
        }
    }
}

/// One log segment on the way.
struct Link {
    segment: Arc<Segment>,
    /// End offset and shape of each record, for a segment that was scanned.
    records: Vec<(u32, Shape, Lsn)>,
    /// What its records follow; `None` while it has none.
    follows: Option<Shape>,
    /// End of its content.
    end: u32,
    last: Shape,
    sealed: bool,
    /// It is sealed, and the header of its first record cannot be read: what it follows is not known.
    is_headless: bool,
    /// Valid records past a hole: the highest watermark among them, and their bytes.
    past_hole: Option<(Lsn, u64)>,
}

impl Link {
    /// The same for those who ask what was found.
    fn found(&self, in_log: bool) -> SegmentFinding {
        SegmentFinding {
            id: self.segment.id,
            sealed: self.sealed,
            records: self.records.len() as u64,
            end: self.end,
            follows: self.follows.map(|shape| shape.end().unwrap_or(Lsn::ZERO)),
            in_log,
            past_hole: self.past_hole.map_or(0, |(_, bytes)| bytes),
        }
    }
}

/// Finds the end of the log, gives every segment its end, and collects what has to be re-persisted. Segments
/// that turn out to be no part of the log are taken out of `opened`, or kept empty.
pub(super) fn follow(
    dir: &Dir,
    opened: &mut Opened,
    checkpoint: &CheckpointHeader,
    evidence: Evidence,
    options: &Options,
    purpose: Purpose,
    report: &mut OpenReport,
) -> Result<Chain> {
    let known = evidence.durable;
    let mut watermark = known;
    let mut said = Said::default();
    let mut links: Vec<Link> = Vec::new();
    let mut before = Shape::default();
    let logs: Vec<Arc<Segment>> =
        opened.segments.values().filter(|s| s.kind == SegmentKind::Log).cloned().collect();
    for segment in &logs {
        let footer = load_footer(dir, segment);
        if segment.is_lost {
            continue;
        }
        if segment.id < checkpoint.start_segment {
            if let Some(last) = settle_old(segment, footer)? {
                before = last;
            }
            continue;
        }
        links.push(read_link(segment, footer, &mut watermark, &mut said, options, report)?);
        report.trail.proven(watermark, Proof::Segment(segment.id));
    }
    for segment in opened.segments.values().filter(|s| s.kind == SegmentKind::Cold && !s.is_lost) {
        if let Some(footer) = load_footer(dir, segment) {
            segment.set_sealed_end(footer.tail().end);
            segment.set_footer(footer);
        } else if segment.sealed_end() == 0 {
            segment.set_sealed_end(scan_to_end(segment)?.0);
        }
    }

    let mut start_segment = checkpoint.start_segment;
    let mut log = thread(&mut links, start_segment, watermark);
    let mut gap = None;
    if is_rebuilt(checkpoint) {
        if let Err(e) = whole_history(opened, &links, &log, watermark, &evidence) {
            // The device may give the checkpoint another time.
            refuse(evidence.unread.unwrap_or(e), options, report)?;
            start_segment = pass_last_gap(&mut links, start_segment, watermark);
            gap = Some(start_segment);
            log = thread(&mut links, start_segment, watermark);
        } else if said.loss {
            refuse(loss_accepted_before(&logs), options, report)?;
        }
    } else if said.loss && !planted(Bug::HalfAcceptedLossForgotten) {
        // An open that accepted it ended before a checkpoint said what it cost: this one has to.
        report.accepted_loss = true;
    }
    let hole = log.last().map(|&at| Lsn::new(links[at].segment.id, links[at].end));
    let hole = hole.unwrap_or(Lsn::new(start_segment, FIRST_RECORD));
    let mut proof = judge_hole(&links, hole, report);
    // No record may claim that more was durable than there is.
    if watermark > hole && watermark.segment() >= start_segment {
        proof = proof.max(Some(watermark));
    }
    // Nor may a record that was whole once be gone with its segment.
    let first_announced = said
        .announced
        .range(Lsn::new(start_segment, 0)..)
        .find(|(at, _)| **at >= watermark && !links.iter().any(|link| link.segment.id == at.segment()));
    proof = proof.max(first_announced.and_then(|(_, shape)| shape.end()));
    let proof = proof.filter(|_| !planted(Bug::HoleTakenForTear));
    (report.trail.hole, report.trail.acknowledged) = (Some(hole), proof);
    report.trail.segments = links.iter().enumerate().map(|(at, l)| l.found(log.contains(&at))).collect();
    if let Some(watermark) = proof {
        refuse(acknowledged_hole(&links, hole, watermark), options, report)?;
    }
    for at in (0..links.len()).filter(|at| !log.contains(at)) {
        report.torn_bytes += u64::from(links[at].end.saturating_sub(FIRST_RECORD));
        forget(&mut links[at]);
    }

    let (tail, mut cut) = match purpose {
        Purpose::Write => {
            let judged = proof.is_none();
            cut_at_watermark(&mut links, &log, judged, watermark, &said.announced, options, report)?
        }
        Purpose::Inspect => (Vec::new(), false),
    };
    cut |= proof.is_some();
    let mut last = log.first().and_then(|&at| links[at].follows).unwrap_or(before);
    for link in &links {
        if link.end > FIRST_RECORD {
            last = link.last;
        }
        link.segment.set_sealed_end(link.end);
    }
    Ok(Chain { last, tail, cut, gap, durable: watermark })
}

/// What else than the records is known of the log.
pub(super) struct Evidence {
    /// It was durable up to here.
    pub(super) durable: Lsn,
    /// The store's mark is there: what was durable when it last came to rest is not missing without a word.
    pub(super) marked: bool,
    /// There may be a checkpoint, and the device does not give it.
    pub(super) unread: Option<Error>,
}

/// Without a checkpoint the log has to be whole: from the first record that the store ever had, each follows
/// the one before, and no segment is left over. And the mark, or what is left of a checkpoint, has to be
/// there: half of a copy of a store looks like a whole log. Dead segments are given back in any order, and a
/// replay with gaps would bring back what was rolled back, destroyed or voted before.
fn whole_history(
    opened: &Opened,
    links: &[Link],
    log: &[usize],
    watermark: Lsn,
    evidence: &Evidence,
) -> Result<()> {
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
        return Ok(());
    }
    let path = gap.map_or(PathBuf::new(), |link| link.segment.path.clone());
    Err(Error::damaged(
        "no checkpoint of the store can be believed, and the log does not reach from its beginning to a known end without a gap: the \
         regions cannot be rebuilt; restore the store from a backup, or let the node join anew; `raftwood repair --accept-loss \
         --apply` (TailPolicy::AcceptLoss) opens it with all hard states lost, and answers nothing from before the last gap",
    )
    .at(&path, None))
}

/// Takes the segments before the last gap of the log out of `links`, and returns the first that is left: from
/// there on each record follows the one before. Segments without a record are no gap, nor is what stands past
/// a tear that nothing proves to have been durable.
fn pass_last_gap(links: &mut Vec<Link>, start_segment: u32, watermark: Lsn) -> u32 {
    let mut run: Vec<usize> = Vec::new();
    for (at, link) in links.iter().enumerate().filter(|(_, link)| link.end > FIRST_RECORD) {
        let follows =
            |before: &Link| before.sealed && before.segment.id.checked_add(1) == Some(link.segment.id);
        let goes_on = match link.follows {
            Some(shape) => !run.is_empty() && place(links, &run, shape, 0).is_some(),
            None => run.last().is_some_and(|&before| follows(&links[before])),
        };
        let durable = link.sealed || watermark > Lsn::new(link.segment.id, FIRST_RECORD);
        if goes_on {
            run.push(at);
        } else if durable || at.checked_sub(1).is_none_or(|before| links[before].sealed) {
            run = vec![at];
        }
    }
    for link in links.drain(..run.first().copied().unwrap_or(0)) {
        link.segment.set_sealed_end(link.end);
    }
    links.first().map_or(start_segment, |link| link.segment.id)
}

/// The log was cut where the caller accepted a loss, and what a checkpoint said of that is gone.
fn loss_accepted_before(logs: &[Arc<Segment>]) -> Error {
    let path = logs.last().map_or(PathBuf::new(), |segment| segment.path.clone());
    Error::damaged(
        "no checkpoint of the store can be believed, and a loss was accepted before: which hard states were lost then is not known; \
         open with TailPolicy::AcceptLoss (`raftwood repair --accept-loss`) to open with all of them lost",
    )
    .at(&path, None)
}

/// A segment from before the replay: only its index is needed, and its last record if that is known.
fn settle_old(
    segment: &Arc<Segment>,
    footer: Option<Arc<crate::format::footer::Footer>>,
) -> Result<Option<Shape>> {
    match footer {
        Some(footer) => {
            let tail = footer.tail();
            segment.set_sealed_end(tail.end);
            segment.set_footer(footer);
            Ok((tail.end > FIRST_RECORD).then_some(tail.last))
        }
        None => {
            let (end, last) = scan_to_end(segment)?;
            let known = segment.sealed_end();
            if known == 0 {
                segment.set_sealed_end(end);
            }
            // What the next record follows, if this is the last segment.
            Ok(last.filter(|_| known == 0 || known == end))
        }
    }
}

fn scan_to_end(segment: &Segment) -> Result<(u32, Option<Shape>)> {
    let mut scanner = Scanner::new(&*segment.file, &segment.path, &segment.identity, segment.records_end);
    let (mut at, mut last) = (FIRST_RECORD, None);
    while let Found::Record(record) = scanner.look(at)? {
        (at, last) = (record.end(), Some(record.shape));
    }
    Ok((at, last))
}

fn read_link(
    segment: &Arc<Segment>,
    footer: Option<Arc<crate::format::footer::Footer>>,
    watermark: &mut Lsn,
    said: &mut Said,
    options: &Options,
    report: &mut OpenReport,
) -> Result<Link> {
    let mut scanner = Scanner::new(&*segment.file, &segment.path, &segment.identity, segment.records_end);
    let mut link = Link {
        segment: segment.clone(),
        records: Vec::new(),
        follows: None,
        end: FIRST_RECORD,
        last: Shape::default(),
        sealed: false,
        is_headless: false,
        past_hole: None,
    };
    if let Some(footer) = footer.filter(|f| f.has_deltas().is_ok() && f.installs().is_ok()) {
        let tail = footer.tail();
        if tail.end > FIRST_RECORD {
            // Nothing else of its records is needed.
            link.follows = match scanner.look(FIRST_RECORD)? {
                Found::Record(first) => {
                    said.listen(&first);
                    Some(first.header.previous)
                }
                Found::BadDescription(header) => Some(header.previous),
                Found::Nothing => None,
            };
            link.is_headless = link.follows.is_none();
        }
        // A footer is only written once its records are durable. That of an empty segment says nothing.
        if tail.end > FIRST_RECORD {
            *watermark = (*watermark).max(tail.watermark).max(Lsn::new(segment.id, tail.end));
        }
        (link.end, link.last, link.sealed) = (tail.end, tail.last, true);
        segment.set_footer(footer);
        return Ok(link);
    }
    let mut previous: Option<Shape> = None;
    loop {
        let record = match scanner.look(link.end)? {
            Found::Record(record) => record,
            found => {
                let Some((at, next, _)) = scanner.seek(link.end.saturating_add(8))? else { break };
                let here = next.previous.position == Lsn::new(segment.id, link.end);
                match scanner.rebuild(next.previous, previous.unwrap_or_default())? {
                    Some(record) if here && matches!(found, Found::Nothing) && previous.is_some() => record,
                    _ => {
                        link.past_hole = Some(past_hole(&mut scanner, at, &next)?);
                        break;
                    }
                }
            }
        };
        // The position is part of the checksum and so is the predecessor: a record that follows something
        // else belongs to no log of this generation.
        if previous.is_some_and(|p| p != record.header.previous) {
            break;
        }
        if previous.is_none() {
            link.follows = Some(record.header.previous);
        }
        *watermark = (*watermark).max(record.header.watermark);
        said.listen(&record);
        report.mended_records += u64::from(record.mended);
        link.end = record.end();
        link.last = record.shape;
        link.records.push((record.end(), record.shape, record.header.watermark));
        previous = Some(record.shape);
        report.tail_batches += 1;
    }
    // Nobody can say that the log ends where the device cannot be read.
    if let Some(sector) = scanner.bad_sector(u64::from(link.end)..u64::MAX) {
        let error = Error::damaged(
            "the device cannot read a sector past the last complete record: acknowledged records may stand there; \
             copy the store to another device, or restore it",
        );
        refuse(error.at(&segment.path, Some(sector * 512)), options, report)?;
    }
    Ok(link)
}

/// The highest watermark of the records from `at` on, and their bytes.
fn past_hole(scanner: &mut Scanner<'_>, at: u32, first: &RecordHeader) -> Result<(Lsn, u64)> {
    let (mut watermark, mut bytes) = (first.watermark, 0);
    let mut next = Some((at, *first));
    while let Some((at, header)) = next {
        watermark = watermark.max(header.watermark);
        bytes += record_len(header.desc_len, header.payload_len);
        next = scanner.seek(at.saturating_add(8))?.map(|(at, header, _)| (at, header));
    }
    Ok((watermark, bytes))
}

/// Follows the segments in the order of their numbers, and returns those that are the log, by their
/// places in `links`.
///
/// A segment whose first record follows one that cannot be found lies past a hole, and is no part of the log,
/// whatever comes later: a run before this one may have cut it off already. A segment may also follow a
/// record that is not the last one: then the run that wrote it had found the records after that one doubtful,
/// or was re-persisting them. The second kind may not have come to its end, and then the older records still
/// count. So a cut is believed only if a watermark says that something in the segment, and so all that
/// recovery wrote there, was durable.
fn thread(links: &mut [Link], start_segment: u32, watermark: Lsn) -> Vec<usize> {
    let mut log: Vec<usize> = Vec::new();
    for at in 0..links.len() {
        if links[at].is_headless {
            // What is sealed was durable. It follows the sealed segment of the number before, whose footer
            // says where that one ends. With numbers between, there may have been a segment that is gone.
            let expected = log.last().map_or(Some(start_segment), |&before| {
                links[before].sealed.then(|| links[before].segment.id.saturating_add(1))
            });
            if expected == Some(links[at].segment.id) {
                log.push(at);
            }
            continue;
        }
        let Some(follows) = links[at].follows else { continue };
        let finished = watermark > Lsn::new(links[at].segment.id, FIRST_RECORD);
        match place(links, &log, follows, start_segment) {
            Some(place) if place.is_end(links, &log) => log.push(at),
            None if planted(Bug::PredecessorNotChecked) => log.push(at),
            Some(place) if finished || planted(Bug::TornCopyBelieved) => {
                if !planted(Bug::TailNotCutOff) {
                    place.cut(links, &mut log);
                }
                log.push(at);
            }
            _ => {}
        }
    }
    log
}

/// A place in the log: after so many records of the link that stands at `nth`.
struct Place {
    nth: usize,
    records: Records,
}

#[derive(PartialEq)]
enum Records {
    All,
    First(usize),
    None,
}

/// Finds the record that the next segment follows.
fn place(links: &[Link], log: &[usize], follows: Shape, start_segment: u32) -> Option<Place> {
    if log.is_empty() {
        // What was written before the replay begins is durable, and not looked at.
        let before = follows.is_none() || follows.position.segment() < start_segment;
        return before.then_some(Place { nth: 0, records: Records::None });
    }
    (0..log.len()).rev().find_map(|nth| {
        let link = &links[log[nth]];
        let found = || link.records.binary_search_by_key(&follows.position, |r| r.1.position).ok();
        let records = if link.last == follows {
            Records::All
        } else if link.follows == Some(follows) {
            Records::None
        } else if link.segment.id == follows.position.segment() {
            Records::First(found().filter(|&i| link.records[i].1 == follows)? + 1)
        } else {
            return None;
        };
        Some(Place { nth, records })
    })
}

impl Place {
    fn is_end(&self, links: &[Link], log: &[usize]) -> bool {
        match &self.records {
            Records::All => self.nth + 1 == log.len(),
            Records::First(n) => self.nth + 1 == log.len() && *n == links[log[self.nth]].records.len(),
            Records::None => log.is_empty(),
        }
    }

    /// Takes everything after the place out of the log.
    fn cut(&self, links: &mut [Link], log: &mut Vec<usize>) {
        let keep = self.nth + usize::from(self.records != Records::None);
        for at in log.drain(keep..) {
            forget(&mut links[at]);
        }
        if let (Records::First(n), Some(&at)) = (&self.records, log.last()) {
            let link = &mut links[at];
            link.records.truncate(*n);
            if let Some((end, shape, _)) = link.records.last() {
                (link.end, link.last) = (*end, *shape);
            }
        }
    }
}

/// The segment holds nothing that counts.
fn forget(link: &mut Link) {
    link.records.clear();
    link.segment.clear_footer();
    (link.end, link.last, link.follows, link.sealed) = (FIRST_RECORD, Shape::default(), None, false);
    link.is_headless = false;
}

/// The watermark of a record past the hole that proves that it was acknowledged.
fn judge_hole(links: &[Link], hole: Lsn, report: &mut OpenReport) -> Option<Lsn> {
    let mut proof = None;
    for link in links.iter().filter(|l| l.segment.id >= hole.segment()) {
        if let Some((watermark, bytes)) = link.past_hole {
            proof = proof.max(Some(watermark));
            report.torn_bytes += bytes;
        }
        let later = link.records.iter().filter(|_| link.segment.id > hole.segment());
        proof = proof.max(later.map(|r| r.2).max());
    }
    proof.filter(|watermark| *watermark > hole)
}

fn acknowledged_hole(links: &[Link], hole: Lsn, watermark: Lsn) -> Error {
    // The first place that is wrong: past the last record that is right, or at the start of the next segment.
    let wrong = |l: &&Link| l.segment.id >= hole.segment() && l.past_hole.is_some();
    let at = links.iter().find(wrong).or(links.iter().find(|l| l.segment.id == hole.segment()));
    let (path, offset) = at.map_or((PathBuf::new(), hole.offset()), |l| (l.segment.path.clone(), l.end));
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

/// Takes what lies past the watermark out of the log, verified, to be re-persisted. Also returns
/// whether anything was taken out.
///
/// With `judged`, the end of each unsealed segment has to be clear too, unless a recovery before this one is
/// known to have judged it: then something in the segment that follows is durable. Short of that, what
/// follows may be an unfinished copy of what stood at the end once, and proves nothing of it.
fn cut_at_watermark(
    links: &mut [Link],
    log: &[usize],
    judged: bool,
    watermark: Lsn,
    announced: &BTreeMap<Lsn, Shape>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(Vec<TailRecord>, bool)> {
    let mut tail = Vec::new();
    let (mut ended, mut cuts) = (false, Vec::new());
    let starts: Vec<Lsn> = log.iter().map(|&at| Lsn::new(links[at].segment.id, FIRST_RECORD)).collect();
    for (at, link) in links.iter().enumerate().filter(|(_, link)| !link.sealed) {
        // A segment without a record is judged too: its first may have rotted.
        let later = |start: &&Lsn| start.segment() > link.segment.id;
        let durable = |start: &Lsn| watermark > *start || planted(Bug::UnfinishedCopyBelieved);
        let proven = starts.iter().filter(later).any(durable);
        let keep = match planted(Bug::TailNotRewritten) {
            true => link.records.len(),
            false => link.records.partition_point(|r| Lsn::new(link.segment.id, r.0) <= watermark),
        };
        let (from, until) = (keep.checked_sub(1).map_or(FIRST_RECORD, |i| link.records[i].0), link.end);
        if keep < link.records.len() {
            cuts.push((at, keep, from));
            if !ended {
                ended = !tail::collect(&link.segment, from, until, announced, options, report, &mut tail)?;
            } else {
                report.torn_bytes += u64::from(until - from);
            }
        }
        if judged && !ended && !proven {
            ended = !tail::ends_clearly(&link.segment, until, announced, options, report)?;
        }
    }
    // Records that hold nothing, and are on the device, stay where they are.
    if tail.is_empty() && !ended {
        cuts.clear();
    }
    for &(at, keep, from) in &cuts {
        let link = &mut links[at];
        link.end = from;
        link.last = keep.checked_sub(1).map_or(Shape::default(), |i| link.records[i].1);
        link.records.truncate(keep);
    }
    Ok((tail, !cuts.is_empty()))
}
