//! From files to a table: `src/recovery`, step by step.
//!
//! Nothing is idealised here: each function names the one of the engine that it follows, and decides by the
//! same comparisons. What it reads, it reads through the page cache, but for the end of the log past the
//! watermark, which is synced, dropped from the cache and read again (`tail::collect`).

use crate::disk::{Bytes, Ckpt, Disk, FILES, File, Kind, Name, Pos, Rec, SLOTS, Shape, Side, View};
use crate::judge::{Facts, Policy, RecordIs, Verdict, judge};
use crate::mistakes::Mistake;
use crate::table::{Batch, Indexes, Table, has_payload};

/// What recovery has to know besides the disk.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// The mistake that is made.
    pub mistake: Mistake,
    /// What the caller decided.
    pub policy: Policy,
    /// Records that a segment has room for.
    pub slots: u8,
    /// What each batch does.
    pub script: &'a [Batch],
    /// The indexes in each batch.
    pub at: &'a Indexes,
    /// Payloads end in zeros.
    pub own_zeros: bool,
}

/// A record past the watermark that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct TailRec {
    /// The batch.
    pub batch: u8,
    /// Where it stands.
    pub original: Pos,
    /// Its entries are wrong, and may have been acknowledged.
    pub suspect: bool,
    /// What stands in place of its payload, if that is wrong: it is copied as it is.
    pub wrong: Option<View>,
}

/// Records past the watermark, at most.
pub const TAIL: usize = 5;

/// What an open has to do once the files are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Todo {
    /// Records to be written again.
    pub tail: [TailRec; TAIL],
    /// How many.
    pub tail_len: u8,
    /// Records that show in the files are no part of the log.
    pub cut: bool,
    /// Records were dropped that may have been acknowledged.
    pub votes_lost: bool,
    /// Files of the log without a record that counts, one bit each.
    pub unused: u8,
    /// Files of the log that nothing needs.
    pub leftovers: u8,
    /// Checkpoints that nothing needs.
    pub old_ckpts: u8,
    /// Checkpoints that cannot be believed.
    pub bad_ckpts: u8,
    /// There was no checkpoint.
    pub rebuilt: bool,
    /// Nothing but what is unused shows that the run before did not end cleanly.
    pub last_witness: bool,
    /// The mark has to be made.
    pub unmarked: bool,
}

/// A store as its files show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The regions, as of what was durable.
    pub table: Table,
    /// The files that are segments of the store, one bit each.
    pub segments: u8,
    /// Those of them with a footer on disk.
    pub sealed: u8,
    /// Where each ends.
    pub ends: [u8; FILES],
    /// What the next record follows.
    pub chain: Shape,
    /// The lowest number that no segment had.
    pub next_file: u8,
    /// Runs with a lower number were followed by an unclean end.
    pub unclean_before: u8,
    /// Up to three checkpoints to keep, oldest first: number, start of replay, end of what was accepted.
    pub kept: [(u8, u8, Pos); 3],
    /// How many.
    pub kept_len: u8,
    /// The number of the next checkpoint.
    pub next_seq: u8,
    /// The number of the next mark, and what the newest says.
    pub mark: (u8, Pos),
    /// The rest.
    pub todo: Todo,
    /// Rows of the decision table that were needed, one bit each.
    pub rows: u16,
}

/// Why an open was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// `all_but_the_mark_is_missing`
    OnlyTheMark,
    /// `mark_is_missing`
    NoMark,
    /// A segment that is needed is missing, or another one under its name, or has no header.
    Segment,
    /// `missing_behind_its_footer`
    Footer,
    /// `acknowledged_hole`
    Hole,
    /// `tail::refused`
    LastRecord,
    /// A sector that cannot be read past the last record.
    BadSector,
    /// `whole_history`
    Gap,
    /// `makes_sense`
    Inconsistent,
    /// The records of an unsealed segment cannot be read again.
    Unsealable,
}

/// What came of reading the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant, reason = "short-lived")]
pub enum Outcome {
    /// There is no store.
    Fresh,
    /// The store is left as it is.
    Refused(Why, u16),
    /// It can be opened.
    Ready(Recovered),
}

/// One log segment on the way (`chain::Link`).
struct Link {
    file: usize,
    seg: u8,
    records: Vec<(u8, Shape, Pos)>,
    follows: Option<Shape>,
    end: u8,
    last: Shape,
    sealed: bool,
    headless: bool,
    past_hole: Option<Pos>,
}

enum Found {
    Record(Rec),
    BadDescription(Rec),
    Nothing,
}

struct Reader<'a> {
    how: How<'a>,
    rows: u16,
    accepted_loss: bool,
    assumed_torn: bool,
    announced: Vec<Pos>,
}

type Result<T> = std::result::Result<T, Why>;

/// `recovery::recover`
pub fn recover(disk: &mut Disk, how: How<'_>) -> Outcome {
    let mut reader =
        Reader { how, rows: 0, accepted_loss: false, assumed_torn: false, announced: Vec::new() };
    match reader.recover(disk) {
        Ok(Some(recovered)) => Outcome::Ready(recovered),
        Ok(None) => Outcome::Fresh,
        Err(why) => Outcome::Refused(why, reader.rows),
    }
}

impl Reader<'_> {
    fn makes(&self, mistake: Mistake) -> bool {
        self.how.mistake == mistake
    }

    /// `judge::refuse`
    fn refuse(&mut self, why: Why) -> Result<()> {
        if self.how.policy != Policy::AcceptLoss && !self.makes(Mistake::LossAlwaysAccepted) {
            return Err(why);
        }
        self.accepted_loss = true;
        Ok(())
    }

    fn recover(&mut self, disk: &mut Disk) -> Result<Option<Recovered>> {
        let marks = if disk.marks.entry.is_there() { disk.marks.cached } else { Default::default() };
        let marked = marks.iter().any(|mark| mark.seq > 0);
        // newest_checkpoint
        let mut there: Vec<usize> =
            (0..disk.ckpts.len()).filter(|c| disk.ckpts[*c].entry.is_there()).collect();
        there.sort_by_key(|c| std::cmp::Reverse(disk.ckpts[*c].seq));
        let good = there.iter().copied().find(|c| disk.ckpts[*c].bytes != Bytes::Bad);
        let logs: Vec<(u8, usize)> = {
            let names = disk.files.iter().enumerate();
            let mut logs: Vec<(u8, usize)> = names
                .filter_map(|(f, file)| if let Name::Log(seg) = file.name() { Some((seg, f)) } else { None })
                .collect();
            logs.sort_unstable();
            logs
        };
        // Listing::highest: footers count too.
        let feet = disk.files.iter().filter(|file| file.foot.entry.is_there()).map(|file| file.header.seg);
        let highest = logs.iter().map(|(seg, _)| *seg).chain(feet).max().unwrap_or(0);
        let rebuilt = good.is_none();
        let ckpt = match good {
            Some(c) => disk.ckpts[c],
            None if there.is_empty() && logs.is_empty() => {
                return match marks.iter().any(|mark| mark.durable > Pos::ZERO) {
                    true => Err(Why::OnlyTheMark),
                    false => Ok(None),
                };
            }
            None => Ckpt { start: 1, next_file: highest + 1, ..Ckpt::default() },
        };

        let (opened, leftovers, lost) = self.open_segments(disk, &logs, &ckpt)?;
        // missing_behind_its_footer
        let gone = disk.files.iter().any(|file| {
            let seg = file.header.seg;
            file.foot.entry.is_there() && seg >= ckpt.start && !opened.iter().any(|(other, _)| *other == seg)
        });
        if gone {
            self.refuse(Why::Footer)?;
        }
        // has_mark
        let newest = there.first().map(|c| disk.ckpts[*c].seq);
        let closed = !logs.iter().any(|(seg, _)| *seg >= ckpt.start) && newest == Some(ckpt.seq);
        if !marked && !rebuilt && !closed && !self.makes(Mistake::MissingMarkUnheeded) {
            self.refuse(Why::NoMark)?;
        }
        // known_durable
        let says = marks.iter().map(|mark| mark.durable).max().unwrap_or_default();
        let known = ckpt.synced.max(if self.makes(Mistake::MarkNotBelieved) { Pos::ZERO } else { says });
        let evidence = (known, marked, rebuilt);
        let chain = self.follow(disk, &opened, lost, &ckpt, evidence)?;

        // load, replay
        let mut table = ckpt.table;
        for region in &mut table.0 {
            for entry in &mut region.entries[..region.count as usize] {
                entry.damaged |= !opened.iter().any(|(seg, _)| *seg == entry.seg);
                if self.makes(Mistake::SuspectCalledDamaged) && entry.suspect {
                    (entry.suspect, entry.damaged) = (false, true);
                }
            }
        }
        for &(seg, f) in opened.iter().filter(|(seg, _)| *seg >= ckpt.start) {
            self.replay(&disk.files[f], seg, chain.ends[f], &mut table)?;
        }
        if self.accepted_loss {
            // truncate_what_was_lost: entries past the place where the log was ended.
            for region in &mut table.0 {
                let listed = |e: &crate::table::Entry| {
                    let Some((_, f)) = opened.iter().find(|(seg, _)| *seg == e.seg) else { return true };
                    let slots = &disk.files[*f].slots[..chain.ends[*f] as usize];
                    slots.iter().any(|slot| slot.rec.kind == Kind::Batch(e.batch))
                };
                let keep = region.live().iter().position(|e| !listed(e)).unwrap_or(region.count as usize);
                for entry in &mut region.entries[keep..] {
                    *entry = Default::default();
                }
                region.count = keep as u8;
            }
        }

        // take_unused, unclean_before, kept
        let mut segments = 0;
        let (mut unused, mut replayed, mut log_left) = (0, false, false);
        for &(seg, f) in &opened {
            replayed |= seg >= ckpt.start;
            if chain.ends[f] == 0 && ckpt.find(seg).is_none() {
                unused |= 1 << f;
            } else {
                segments |= 1 << f;
                log_left |= seg >= ckpt.start;
            }
        }
        let newer = there.iter().any(|c| disk.ckpts[*c].seq > ckpt.seq);
        let unclean_before = match !rebuilt && !replayed && !newer {
            true => ckpt.unclean_before,
            false => ckpt.next_file.max(highest + 1),
        };
        let last_witness = (rebuilt || ckpt.unclean_before != unclean_before) && unused != 0 && !log_left;
        let mut older: Vec<u8> =
            there.iter().map(|c| disk.ckpts[*c].seq).filter(|seq| *seq < ckpt.seq).take(2).collect();
        older.reverse();
        let mut kept = [(0, 0, Pos::ZERO); 3];
        let mut kept_len = 0;
        for seq in older {
            kept[kept_len] = (seq, 0, Pos::ZERO);
            kept_len += 1;
        }
        if !rebuilt {
            kept[kept_len] = (ckpt.seq, ckpt.start, Pos::new(ckpt.start, 0));
            kept_len += 1;
        }
        let oldest = kept[0].0;
        let pick = |test: &dyn Fn(u8) -> bool| {
            there.iter().filter(|c| test(disk.ckpts[**c].seq)).fold(0, |mask, c| mask | 1 << c)
        };
        let mut todo = Todo {
            cut: chain.cut,
            votes_lost: self.assumed_torn || self.accepted_loss && self.how.mistake != Mistake::LossNotSaid,
            unused,
            leftovers,
            old_ckpts: if kept_len == 0 { 0 } else { pick(&|seq| seq < oldest) },
            bad_ckpts: pick(&|seq| seq > ckpt.seq),
            rebuilt,
            last_witness,
            unmarked: !marked,
            ..Todo::default()
        };
        if rebuilt {
            todo.bad_ckpts = pick(&|_| true);
        }
        todo.tail_len = chain.tail.len() as u8;
        todo.tail[..chain.tail.len()].copy_from_slice(&chain.tail);
        Ok(Some(Recovered {
            table,
            segments,
            sealed: chain.sealed & segments,
            ends: chain.ends,
            chain: chain.last,
            next_file: ckpt.next_file.max(highest + 1),
            unclean_before,
            kept,
            kept_len: kept_len as u8,
            next_seq: newest.unwrap_or(0).max(ckpt.seq) + 1,
            mark: (marks.iter().map(|mark| mark.seq).max().unwrap_or(0) + 1, says),
            todo,
            rows: self.rows,
        }))
    }

    /// `files::open_segments`: the segments that take part, those that are left over, and whether one is lost
    /// that the checkpoint names.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn open_segments(
        &mut self,
        disk: &Disk,
        logs: &[(u8, usize)],
        ckpt: &Ckpt,
    ) -> Result<(Vec<(u8, usize)>, u8, bool)> {
        let (mut opened, mut leftovers, mut lost) = (Vec::new(), 0, false);
        for &(seg, f) in logs {
            let named = ckpt.find(seg);
            if named.is_none() && seg < ckpt.start {
                leftovers |= 1 << f;
                continue;
            }
            let contained = named.is_some() && seg < ckpt.start;
            let file = &disk.files[f];
            let fits = file.header.seg == seg && named.is_none_or(|l| l.salt == file.header.salt);
            // recognise: by the checkpoint, or its footer.
            let known = file.header.seg == 0
                && (named.is_some() || file.foot.entry.is_there())
                && !matches!(self.look(file, 0, true), Found::Nothing);
            if fits || known {
                opened.push((seg, f));
                continue;
            }
            if !contained {
                self.refuse(Why::Segment)?;
            }
            lost = true;
        }
        for listed in ckpt.listed.iter().filter(|l| l.seg > 0) {
            if !logs.iter().any(|(seg, _)| *seg == listed.seg) {
                if listed.seg >= ckpt.start {
                    self.refuse(Why::Segment)?;
                }
                lost = true;
            }
        }
        Ok((opened, leftovers, lost))
    }

    fn view(&self, file: &File, at: u8, side: Side, cached: bool) -> View {
        match file.slots[at as usize].view(side, cached) {
            View::Unreadable if self.makes(Mistake::BadSectorEndsTheLog) => View::Zero,
            view => view,
        }
    }

    /// `Scanner::look`
    fn look(&self, file: &File, at: u8, cached: bool) -> Found {
        if at >= self.how.slots {
            return Found::Nothing;
        }
        let rec = file.slots[at as usize].rec;
        match self.view(file, at, Side::Desc, cached) {
            // One flipped bit in a header or description is undone.
            View::Right | View::Flipped => Found::Record(rec),
            View::DescWrong if self.makes(Mistake::DescriptionNotVerified) => Found::Record(rec),
            View::DescWrong => Found::BadDescription(rec),
            _ => Found::Nothing,
        }
    }

    fn listen(&mut self, file: &File, rec: &Rec) {
        if rec.kind == Kind::Announcement {
            self.announced.extend(file.announced.iter().filter(|pos| **pos > Pos::ZERO));
        }
    }

    /// `chain::read_link`
    fn read_link(&mut self, disk: &Disk, seg: u8, f: usize, watermark: &mut Pos) -> Result<Link> {
        let file = &disk.files[f];
        let mut link = Link {
            file: f,
            seg,
            records: Vec::new(),
            follows: None,
            end: 0,
            last: Shape::default(),
            sealed: false,
            headless: false,
            past_hole: None,
        };
        if file.foot.entry.is_there() {
            let foot = file.foot;
            if foot.end > 0 {
                link.follows = match self.look(file, 0, true) {
                    Found::Record(first) => {
                        self.listen(file, &first);
                        Some(first.prev)
                    }
                    Found::BadDescription(first) => Some(first.prev),
                    Found::Nothing => None,
                };
                link.headless = link.follows.is_none();
                *watermark = (*watermark).max(foot.wm).max(Pos::new(seg, foot.end));
                link.last = shape(file, seg, foot.end - 1);
            }
            (link.end, link.sealed) = (foot.end, true);
            return Ok(link);
        }
        let mut previous: Option<Shape> = None;
        loop {
            let Found::Record(rec) = self.look(file, link.end, true) else {
                // Scanner::seek, chain::behind. A header that is gone takes its description along here, so
                // that nothing can be rebuilt from its successor.
                let later = (link.end + 1..self.how.slots).filter_map(|at| match self.look(file, at, true) {
                    Found::Record(rec) | Found::BadDescription(rec) => Some(rec.wm),
                    Found::Nothing => None,
                });
                link.past_hole = later.max();
                break;
            };
            if previous.is_some_and(|p| p != rec.prev) {
                break;
            }
            if previous.is_none() {
                link.follows = Some(rec.prev);
            }
            *watermark = (*watermark).max(rec.wm);
            self.listen(file, &rec);
            let shape = shape(file, seg, link.end);
            link.end += 1;
            link.last = shape;
            link.records.push((link.end, shape, rec.wm));
            previous = Some(shape);
        }
        let bad = |at| {
            [Side::Desc, Side::Payload]
                .iter()
                .any(|side| self.view(file, at, *side, true) == View::Unreadable)
        };
        if (link.end..self.how.slots).any(bad) {
            self.refuse(Why::BadSector)?;
        }
        Ok(link)
    }

    /// `chain::follow`
    fn follow(
        &mut self,
        disk: &mut Disk,
        opened: &[(u8, usize)],
        lost: bool,
        ckpt: &Ckpt,
        (known, marked, rebuilt): (Pos, bool, bool),
    ) -> Result<Chain> {
        let mut watermark = known;
        let mut chain = Chain::default();
        let mut links: Vec<Link> = Vec::new();
        let mut before = Shape::default();
        for &(seg, f) in opened {
            if seg >= ckpt.start {
                links.push(self.read_link(disk, seg, f, &mut watermark)?);
                continue;
            }
            // settle_old
            let file = &disk.files[f];
            if file.foot.entry.is_there() {
                chain.ends[f] = file.foot.end;
                chain.sealed |= 1 << f;
                if file.foot.end > 0 {
                    before = shape(file, seg, file.foot.end - 1);
                }
            } else {
                let end =
                    (0..self.how.slots).find(|at| !matches!(self.look(file, *at, true), Found::Record(_)));
                let end = end.unwrap_or(self.how.slots);
                let named = ckpt.find(seg).map_or(0, |l| l.end);
                chain.ends[f] = if named == 0 { end } else { named };
                if end > 0 && (named == 0 || named == end) {
                    before = shape(file, seg, end - 1);
                }
            }
        }

        let log = self.thread(&mut links, ckpt.start, watermark);
        if rebuilt && !self.is_whole_history(&links, &log, lost, marked || known > Pos::ZERO) {
            self.refuse(Why::Gap)?;
            // What an accepted gap gives up is not modelled.
            return Err(Why::Gap);
        }
        let hole = log.last().map_or(Pos::new(ckpt.start, 0), |at| Pos::new(links[*at].seg, links[*at].end));
        // judge_hole
        let mut proof: Option<Pos> = None;
        for link in links.iter().filter(|l| l.seg >= hole.seg()) {
            proof = proof.max(link.past_hole);
            let later = link.records.iter().filter(|_| link.seg > hole.seg());
            proof = proof.max(later.map(|r| r.2).max());
        }
        proof = proof.filter(|watermark| *watermark > hole);
        if watermark > hole && watermark.seg() >= ckpt.start {
            proof = proof.max(Some(watermark));
        }
        self.announced.sort_unstable();
        let is_there = |pos: Pos| links.iter().any(|link| link.seg == pos.seg());
        let missing = self
            .announced
            .iter()
            .find(|pos| pos.seg() >= ckpt.start && **pos >= watermark && !is_there(**pos));
        proof = proof.max(missing.map(|pos| Pos(pos.0 + 1)));
        let proof = proof.filter(|_| !self.makes(Mistake::HoleTakenForTear));
        if proof.is_some() {
            self.refuse(Why::Hole)?;
        }
        for at in (0..links.len()).filter(|at| !log.contains(at)) {
            forget(&mut links[at]);
        }
        chain.cut =
            self.cut_at_watermark(disk, &mut links, &log, proof.is_none(), watermark, &mut chain.tail)?;
        chain.cut |= proof.is_some();
        chain.last = log.first().and_then(|&at| links[at].follows).unwrap_or(before);
        for link in &links {
            if link.end > 0 {
                chain.last = link.last;
            }
            chain.ends[link.file] = link.end;
            chain.sealed |= u8::from(link.sealed) << link.file;
        }
        Ok(chain)
    }

    /// `chain::thread`
    fn thread(&self, links: &mut [Link], start: u8, watermark: Pos) -> Vec<usize> {
        let mut log: Vec<usize> = Vec::new();
        for at in 0..links.len() {
            if links[at].headless {
                let expected = log
                    .last()
                    .map_or(Some(start), |&before| links[before].sealed.then(|| links[before].seg + 1));
                if expected == Some(links[at].seg) {
                    log.push(at);
                }
                continue;
            }
            let Some(follows) = links[at].follows else { continue };
            let finished = watermark > Pos::new(links[at].seg, 0);
            match place(links, &log, follows, start) {
                Some(place) if place.is_end(links, &log) => log.push(at),
                None if self.makes(Mistake::PredecessorNotChecked) => log.push(at),
                Some(place) if finished || self.makes(Mistake::TornCopyBelieved) => {
                    if !self.makes(Mistake::TailNotCutOff) {
                        place.cut(links, &mut log);
                    }
                    log.push(at);
                }
                _ => {}
            }
        }
        log
    }

    /// `chain::whole_history`
    fn is_whole_history(&self, links: &[Link], log: &[usize], lost: bool, known: bool) -> bool {
        let begins = log.first().is_some_and(|&at| {
            links[at].seg == 1 && links[at].follows.is_some_and(|follows| follows.is_none())
        });
        let left_over = links.iter().enumerate().any(|(at, l)| l.end > 0 && !log.contains(&at));
        !left_over && begins && !lost && known
    }

    /// `chain::cut_at_watermark`
    fn cut_at_watermark(
        &mut self,
        disk: &mut Disk,
        links: &mut [Link],
        log: &[usize],
        judged: bool,
        watermark: Pos,
        tail: &mut Vec<TailRec>,
    ) -> Result<bool> {
        let (mut ended, mut cuts) = (false, Vec::new());
        let starts: Vec<Pos> = log.iter().map(|&at| Pos::new(links[at].seg, 0)).collect();
        for (at, link) in links.iter().enumerate().filter(|(_, link)| !link.sealed) {
            let proven = starts.iter().any(|start| {
                start.seg() > link.seg && (watermark > *start || self.makes(Mistake::UnfinishedCopyBelieved))
            });
            let keep = match self.makes(Mistake::TailNotWrittenAnew) {
                true => link.records.len(),
                false => link.records.partition_point(|r| Pos::new(link.seg, r.0) <= watermark),
            };
            let (from, until) = (keep as u8, link.end);
            if keep < link.records.len() {
                cuts.push((at, keep));
                if !ended {
                    ended = !self.collect(&mut disk.files[link.file], link.seg, from, until, tail)?;
                }
            }
            if judged && !ended && !proven {
                ended = !self.ends_clearly(&disk.files[link.file], link.seg, until)?;
            }
        }
        if tail.is_empty() && !ended {
            cuts.clear();
        }
        for &(at, keep) in &cuts {
            let link = &mut links[at];
            link.end = keep as u8;
            link.last = keep.checked_sub(1).map_or(Shape::default(), |i| link.records[i].1);
            link.records.truncate(keep);
        }
        Ok(!cuts.is_empty())
    }

    /// `tail::collect`
    fn collect(
        &mut self,
        file: &mut File,
        seg: u8,
        from: u8,
        until: u8,
        tail: &mut Vec<TailRec>,
    ) -> Result<bool> {
        file.sync();
        file.drop_cache(from, until);
        for at in from..until {
            let verdict = match self.look(file, at, true) {
                Found::Record(rec) => {
                    let verdict = self.weigh(file, seg, at, &rec);
                    if let (Verdict::Keep | Verdict::Fence, Kind::Batch(batch)) = (verdict, rec.kind) {
                        let suspect = verdict == Verdict::Fence;
                        let has = has_payload(self.how.script[usize::from(batch) - 1]);
                        let wrong = match file.slots[at as usize].view(Side::Payload, true) {
                            View::Right => None,
                            View::Old | View::Unreadable => Some(View::Garbage),
                            view => Some(view),
                        };
                        let original = Pos::new(seg, at);
                        tail.push(TailRec { batch, original, suspect, wrong: wrong.filter(|_| has) });
                    }
                    verdict
                }
                _ => self.unreadable(file, seg, at),
            };
            match verdict {
                Verdict::Keep | Verdict::Fence => {}
                Verdict::Torn => return Ok(false),
                Verdict::Lose => {
                    self.assumed_torn = true;
                    return Ok(false);
                }
                Verdict::Refuse => return Err(Why::LastRecord),
            }
        }
        Ok(true)
    }

    /// `tail::ends_clearly`
    fn ends_clearly(&mut self, file: &File, seg: u8, at: u8) -> Result<bool> {
        if at >= self.how.slots || matches!(self.look(file, at, true), Found::Record(_)) {
            return Ok(true);
        }
        match self.unreadable(file, seg, at) {
            Verdict::Refuse => Err(Why::LastRecord),
            Verdict::Lose => {
                self.assumed_torn = true;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn was_whole(&self, seg: u8, at: u8) -> bool {
        self.announced.contains(&Pos::new(seg, at)) && !self.makes(Mistake::AnnouncementUnheeded)
    }

    fn judge(&mut self, record: RecordIs, tear: bool, stale: bool, rot: bool) -> Verdict {
        let (verdict, row) = judge(Facts { record, tear, stale, rot, policy: self.how.policy });
        self.rows |= 1 << row;
        verdict
    }

    /// `tail::weigh`
    fn weigh(&mut self, file: &File, seg: u8, at: u8, rec: &Rec) -> Verdict {
        let Kind::Batch(batch) = rec.kind else { return Verdict::Keep };
        let once_whole = self.was_whole(seg, at);
        let view = match has_payload(self.how.script[usize::from(batch) - 1]) {
            true => self.view(file, at, Side::Payload, true),
            false => View::Right,
        };
        if view == View::Right || self.makes(Mistake::TailNotVerified) {
            return self.judge(RecordIs::Right, false, false, false);
        }
        let rot = view == View::Flipped;
        let own = self.makes(Mistake::OwnZerosTakenForTear) && self.how.own_zeros;
        let tear = !once_whole && !rot && (view == View::Zero || own && view == View::Garbage);
        let stale = file.header.stale && view != View::Unreadable && !once_whole;
        self.judge(RecordIs::WrongInPayload, tear, stale, rot)
    }

    /// `tail::unreadable`
    fn unreadable(&mut self, file: &File, seg: u8, at: u8) -> Verdict {
        let once_whole = self.was_whole(seg, at);
        let view = self.view(file, at, Side::Desc, true);
        let tear = view == View::Zero && !once_whole;
        let stale = file.header.stale && view != View::Unreadable && !once_whole;
        self.judge(RecordIs::Unreadable, tear, stale, false)
    }

    /// `recovery::replay`, with the footer that the segment has or is given now.
    fn replay(&mut self, file: &File, seg: u8, end: u8, table: &mut Table) -> Result<()> {
        let mut first = None;
        let before = table.0.map(|region| region.touched);
        for at in 0..end {
            let slot = &file.slots[at as usize];
            if !file.foot.entry.is_there() && !matches!(self.look(file, at, true), Found::Record(_)) {
                return Err(Why::Unsealable);
            }
            let Kind::Batch(batch) = slot.rec.kind else { continue };
            let ops = self.how.script[usize::from(batch) - 1];
            for (n, region) in table.0.iter_mut().enumerate() {
                if ops[n] == crate::table::Op::Leave || before[n] > seg {
                    continue;
                }
                if *first.get_or_insert(n) != n && self.how.mistake == Mistake::OnlyFirstRegionReplayed {
                    continue;
                }
                let index = self.how.at[usize::from(batch) - 1][n];
                // What rot made of a description that nobody verifies: another batch.
                let said = if slot.view(Side::Desc, true) == View::DescWrong { batch % 7 + 1 } else { batch };
                if !region.replay(ops[n], index, said, seg, self.how.mistake) {
                    return Err(Why::Inconsistent);
                }
            }
        }
        Ok(())
    }
}

/// The log, followed to its end (`chain::Chain`).
#[derive(Default)]
struct Chain {
    last: Shape,
    tail: Vec<TailRec>,
    cut: bool,
    ends: [u8; FILES],
    sealed: u8,
}

fn shape(file: &File, seg: u8, at: u8) -> Shape {
    debug_assert!((at as usize) < SLOTS);
    Shape { pos: Pos::new(seg, at), salt: file.header.salt }
}

/// `chain::forget`
fn forget(link: &mut Link) {
    link.records.clear();
    (link.end, link.last, link.follows, link.sealed) = (0, Shape::default(), None, false);
    link.headless = false;
}

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

/// `chain::place`
fn place(links: &[Link], log: &[usize], follows: Shape, start: u8) -> Option<Place> {
    if log.is_empty() {
        let before = follows.is_none() || follows.pos.seg() < start;
        return before.then_some(Place { nth: 0, records: Records::None });
    }
    (0..log.len()).rev().find_map(|nth| {
        let link = &links[log[nth]];
        let found = || link.records.iter().position(|r| r.1.pos == follows.pos);
        let records = if link.last == follows {
            Records::All
        } else if link.follows == Some(follows) {
            Records::None
        } else if link.seg == follows.pos.seg() {
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
