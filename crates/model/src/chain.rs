//! Where the log ends: `src/recovery/chain.rs`.

use crate::bounds::Mask;
use crate::disk::{Ckpt, Disk, FILES, File, Pos, SLOTS, Shape, Side, View};
use crate::mistakes::Mistake;
use crate::recovery::{Found, Reader, Result, TailRec, Why};

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
    /// A record may stand past the end that cannot be read.
    unclear: bool,
}

impl Reader<'_> {
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
            unclear: false,
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
                // As Scanner::seek, for the highest watermark. A header that is gone takes its description
                // along here, that nothing can be rebuilt from its successor.
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
        link.unclear = link.end < self.how.slots && self.is_unclear(file, link.end);
        Ok(link)
    }

    /// `Link::unclear_end`: whether the bytes are gone in which the header of a record would be, or some of
    /// those that it says it has.
    fn is_unclear(&self, file: &File, at: u8) -> bool {
        let is_gone = |side| self.view(file, at, side, true) == View::Unreadable;
        let is_known = matches!(self.look(file, at, true), Found::BadDescription(_));
        is_gone(Side::Desc) || is_known && is_gone(Side::Payload)
    }

    /// `chain::settled_below`
    fn settled_below(&self, links: &[Link], log: &[usize], watermark: Pos) -> u8 {
        let segs = log.iter().map(|&at| links[at].seg);
        let is_durable =
            |seg: &u8| watermark > Pos::new(*seg, 0) || self.makes(Mistake::UnfinishedCopyBelieved);
        segs.filter(is_durable).max().unwrap_or(0)
    }

    /// `chain::follow`
    pub(crate) fn follow(
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
        let settled = self.settled_below(&links, &log, watermark);
        if links.iter().any(|link| link.unclear && link.seg >= settled) {
            self.refuse(Why::BadSector)?;
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
        let settled = if proof.is_none() { settled } else { u8::MAX };
        chain.cut = self.cut_at_watermark(disk, &mut links, settled, watermark, &mut chain.tail)?;
        chain.cut |= proof.is_some();
        chain.last = log.first().and_then(|&at| links[at].follows).unwrap_or(before);
        for link in &links {
            if link.end > 0 {
                chain.last = link.last;
            }
            chain.ends[link.file] = link.end;
            chain.sealed |= Mask::from(link.sealed) << link.file;
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
        settled: u8,
        watermark: Pos,
        tail: &mut Vec<TailRec>,
    ) -> Result<bool> {
        let (mut ended, mut cuts) = (false, Vec::new());
        for (at, link) in links.iter().enumerate().filter(|(_, link)| !link.sealed) {
            let keep = match self.makes(Mistake::TailNotRewritten) {
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
            if !ended && link.seg >= settled {
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
}

/// The log, followed to its end (`chain::Chain`).
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) last: Shape,
    pub(crate) tail: Vec<TailRec>,
    pub(crate) cut: bool,
    pub(crate) ends: [u8; FILES],
    pub(crate) sealed: Mask,
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
