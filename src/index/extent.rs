//! Consecutive entries of one region in one segment.

use crate::error::{Error, Result};
use crate::format::batch::{Loc, TermRun};
use crate::format::checkpoint::ExtentRecord;
use crate::format::footer::{Locs, RangeRef};
use crate::segment::Segment;
use crate::types::RegionId;
use std::sync::Arc;

/// Trimmed locations are given back once they are this many and more than half.
const SLACK_MAX: usize = 64;

/// Stands for a term that only the footer knows: that of an end of a trimmed extent with several terms.
/// Trimming must not fail, so it does not look; the code that asks does.
pub(crate) const TERM_UNKNOWN: u64 = u64::MAX;

/// Locations of an extent's entries while its segment has no footer.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemIndex {
    /// Index of the first location.
    first: u64,
    locs: Vec<Loc>,
    /// First index and term of each run; empty while one term rules the extent.
    runs: Vec<(u64, u64)>,
}

/// Consecutive entries of one region in one segment.
///
/// There is one for each region and segment, so most are small. Those of a sealed segment whose entries have
/// one term, with numbers as they usually are, are packed: 24 bytes, and a clone of one is a few words. Of a
/// region that has one entry in an unsealed segment no more is on the heap than that entry takes.
#[derive(Clone, Debug)]
pub(crate) struct Extent(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Packed { segment: Arc<Segment>, first: u64, rest: Packed },
    Single(Box<Single>),
    Wide(Box<Wide>),
}

/// One entry of an unsealed segment.
#[derive(Clone, Debug)]
struct Single {
    index: u64,
    term: u64,
    loc: Loc,
    segment: Arc<Segment>,
}

/// Locations that are on the heap.
#[derive(Clone, Copy)]
struct OnHeap<'a> {
    /// Index of the first location.
    first: u64,
    locs: &'a [Loc],
}

/// Count, term and bytes in 56 bits; the other eight tell the forms of an extent apart.
#[derive(Clone, Copy, Debug)]
struct Packed {
    low: u32,
    high: [u8; 3],
    _form: Form,
}

/// A byte with one value: the compiler uses the others for the other forms.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Form {
    Packed = 0,
}

const COUNT_BITS: u32 = 14;
const TERM_BITS: u32 = 20;
const BYTES_BITS: u32 = 22;

impl Packed {
    /// `None` if one of them does not fit.
    fn new(count: u64, term: u64, bytes: u64) -> Option<Packed> {
        if count >> COUNT_BITS != 0 || term >> TERM_BITS != 0 || bytes >> BYTES_BITS != 0 {
            return None;
        }
        let [a, b, c, d, e, f, g, _] = ((bytes << TERM_BITS | term) << COUNT_BITS | count).to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        Some(Packed { low, high: [e, f, g], _form: Form::Packed })
    }

    fn bits(self) -> u64 {
        let [e, f, g] = self.high;
        u64::from(u32::from_le_bytes([e, f, g, 0])) << 32 | u64::from(self.low)
    }

    fn count(self) -> u64 {
        self.bits() & ((1 << COUNT_BITS) - 1)
    }

    fn term(self) -> u64 {
        self.bits() >> COUNT_BITS & ((1 << TERM_BITS) - 1)
    }

    fn bytes(self) -> u64 {
        self.bits() >> (COUNT_BITS + TERM_BITS)
    }
}

#[derive(Clone, Debug)]
struct Wide {
    first: u64,
    last: u64,
    first_term: u64,
    last_term: u64,
    /// Payload bytes; exact until the extent is trimmed.
    bytes: u64,
    segment: Arc<Segment>,
    /// Present exactly while the segment has no footer.
    mem: Option<MemIndex>,
}

impl From<Wide> for Extent {
    fn from(wide: Wide) -> Extent {
        let same_term = wide.mem.is_none() && wide.first_term == wide.last_term;
        let packed = Packed::new(wide.last - wide.first + 1, wide.first_term, wide.bytes);
        Extent(match packed.filter(|_| same_term) {
            Some(rest) => Repr::Packed { segment: wide.segment, first: wide.first, rest },
            None => Repr::Wide(Box::new(wide)),
        })
    }
}

impl Extent {
    /// The first entries of a region in an unsealed segment.
    pub(crate) fn unsealed(first: u64, runs: &[TermRun], locs: &[Loc], segment: &Arc<Segment>) -> Extent {
        let bytes = payload_bytes(locs);
        let (first_term, last_term) = (runs.first().map_or(0, |r| r.term), runs.last().map_or(0, |r| r.term));
        if let [loc] = *locs {
            segment.add_live(1, bytes);
            let single = Single { index: first, term: first_term, loc, segment: segment.clone() };
            return Extent(Repr::Single(Box::new(single)));
        }
        let mut wide = Box::new(Wide {
            first,
            last: first + locs.len() as u64 - 1,
            first_term,
            last_term,
            bytes,
            segment: segment.clone(),
            mem: Some(MemIndex { first, locs: locs.to_vec(), runs: Vec::new() }),
        });
        wide.note_runs(first, runs);
        segment.add_live(locs.len() as u64, bytes);
        Extent(Repr::Wide(wide))
    }

    /// From a checkpoint or a footer; counted as live.
    pub(crate) fn sealed(r: &ExtentRecord, segment: &Arc<Segment>) -> Extent {
        segment.add_live(r.count, r.bytes);
        let wide = Wide {
            first: r.first,
            last: r.first + (r.count - 1),
            first_term: r.first_term,
            last_term: r.last_term,
            bytes: r.bytes,
            segment: segment.clone(),
            mem: None,
        };
        wide.into()
    }

    /// The index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        match &self.0 {
            Repr::Packed { first, .. } => *first,
            Repr::Single(single) => single.index,
            Repr::Wide(wide) => wide.first,
        }
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        match &self.0 {
            Repr::Packed { first, rest, .. } => first + (rest.count() - 1),
            Repr::Single(single) => single.index,
            Repr::Wide(wide) => wide.last,
        }
    }

    /// How many entries, at least one.
    pub(crate) fn count(&self) -> u64 {
        self.last() - self.first() + 1
    }

    /// Payload bytes; exact until the extent is trimmed.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.0 {
            Repr::Packed { rest, .. } => rest.bytes(),
            Repr::Single(single) => u64::from(single.loc.len),
            Repr::Wide(wide) => wide.bytes,
        }
    }

    /// The segment that they lie in.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        match &self.0 {
            Repr::Packed { segment, .. } => segment,
            Repr::Single(single) => &single.segment,
            Repr::Wide(wide) => &wide.segment,
        }
    }

    /// Whether the segment has no footer yet.
    pub(crate) fn is_unsealed(&self) -> bool {
        self.on_heap().is_some()
    }

    /// Terms of the first entry and of the last.
    fn terms(&self) -> (u64, u64) {
        match &self.0 {
            Repr::Packed { rest, .. } => (rest.term(), rest.term()),
            Repr::Single(single) => (single.term, single.term),
            Repr::Wide(wide) => (wide.first_term, wide.last_term),
        }
    }

    fn on_heap(&self) -> Option<OnHeap<'_>> {
        match &self.0 {
            Repr::Packed { .. } => None,
            Repr::Single(single) => {
                Some(OnHeap { first: single.index, locs: std::slice::from_ref(&single.loc) })
            }
            Repr::Wide(wide) => wide.mem.as_ref().map(|m| OnHeap { first: m.first, locs: &m.locs }),
        }
    }

    /// The runs of an unsealed extent in which several terms rule.
    fn runs(&self) -> &[(u64, u64)] {
        match &self.0 {
            Repr::Wide(wide) => wide.mem.as_ref().map_or(&[], |mem| &mem.runs),
            _ => &[],
        }
    }

    /// Without the locations.
    fn to_wide(&self) -> Wide {
        Wide {
            first: self.first(),
            last: self.last(),
            first_term: self.terms().0,
            last_term: self.terms().1,
            bytes: self.bytes(),
            segment: self.segment().clone(),
            mem: None,
        }
    }

    /// Changes it, in whichever form it is afterwards.
    fn edit(&mut self, change: impl FnOnce(&mut Wide)) {
        match &mut self.0 {
            Repr::Wide(wide) if wide.mem.is_some() => change(wide),
            _ => {
                let mut wide = self.to_wide();
                wide.mem = self.on_heap().map(|mem| MemIndex {
                    first: mem.first,
                    locs: mem.locs.to_vec(),
                    runs: Vec::new(),
                });
                change(&mut wide);
                *self = wide.into();
            }
        }
    }

    pub(crate) fn record(&self) -> ExtentRecord {
        ExtentRecord {
            segment: self.segment().id,
            first: self.first(),
            count: self.count(),
            first_term: self.terms().0,
            last_term: self.terms().1,
            bytes: self.bytes(),
        }
    }

    /// Adds entries after the last. The extent must be unsealed.
    pub(crate) fn push(&mut self, runs: &[TermRun], locs: &[Loc]) {
        debug_assert!(self.is_unsealed());
        self.edit(|wide| wide.push(runs, locs));
    }

    /// Drops the entries from `index` on; the caller has made sure that some stay.
    pub(crate) fn cut_from(&mut self, index: u64) {
        self.edit(|wide| wide.cut_from(index));
    }

    /// Drops the entries up to and including `index`; the caller has made sure that some stay.
    pub(crate) fn cut_through(&mut self, index: u64) {
        self.edit(|wide| wide.cut_through(index));
    }

    /// The extent is no longer part of the log.
    pub(crate) fn release(&self) {
        self.segment().sub_live(self.count(), self.bytes());
    }

    /// The same entries, in a copy of them in `segment` that takes `bytes`.
    pub(crate) fn moved_to(&self, segment: &Arc<Segment>, bytes: u64) -> Extent {
        segment.add_live(self.count(), bytes);
        Wide { segment: segment.clone(), bytes, ..self.to_wide() }.into()
    }

    /// Adds the entries of `next`, which follow in the same sealed segment. False if they do not.
    pub(crate) fn join(&mut self, next: &Extent) -> bool {
        let joins = self.segment().id == next.segment().id && !self.is_unsealed() && !next.is_unsealed();
        if joins {
            self.edit(|wide| {
                wide.last = next.last();
                wide.last_term = next.terms().1;
                wide.bytes += next.bytes();
            });
        }
        joins
    }

    /// Its segment has a footer now: the heap need not know where the entries are.
    pub(crate) fn use_footer(&mut self) {
        if self.is_unsealed() {
            *self = self.to_wide().into();
        }
    }

    /// The term of an entry of this extent, or [`TERM_UNKNOWN`] when that takes the footer.
    fn known_term(&self, index: u64) -> u64 {
        match &self.0 {
            Repr::Packed { rest, .. } => rest.term(),
            Repr::Single(single) => single.term,
            Repr::Wide(wide) => wide.known_term(index),
        }
    }

    /// The term of an entry of this extent. Asks the footer only when more than one term rules it.
    pub(crate) fn term(&self, region: RegionId, index: u64) -> Result<u64> {
        match self.known_term(index) {
            TERM_UNKNOWN => {
                let footer = self.segment().footer().ok_or_else(|| self.no_footer(region, index))?;
                let range = footer.find(region, index).map_err(|e| self.bad_footer(region, e.0))?;
                range.and_then(|r| r.term(index)).ok_or_else(|| self.no_footer(region, index))
            }
            term => Ok(term),
        }
    }

    /// The location of one entry, for a reader of it.
    pub(crate) fn loc(&self, region: RegionId, index: u64) -> Result<Loc> {
        let mut found = None;
        self.locs(region, index, index, |loc| found = Some(loc))?;
        found.ok_or_else(|| self.no_footer(region, index))
    }

    /// The location of one entry, for upkeep: a part of the footer that the device cannot read is an error.
    pub(crate) fn loc_from_file(&self, region: RegionId, index: u64) -> Result<Loc> {
        let mut found = None;
        self.locs_from_file(region, index, index, |loc| found = Some(loc))?;
        found.ok_or_else(|| self.no_footer(region, index))
    }

    /// As [`locs`](Extent::locs), and never out of a mapping.
    pub(crate) fn locs_from_file(
        &self,
        region: RegionId,
        from: u64,
        to: u64,
        each: impl FnMut(Loc),
    ) -> Result<()> {
        self.locs_by(region, from, to, |range, a, b| range.locs_from_file(a, b), each)
    }

    /// The locations of `from..=to`, in order, for a reader; the range lies inside the extent.
    pub(crate) fn locs(&self, region: RegionId, from: u64, to: u64, each: impl FnMut(Loc)) -> Result<()> {
        self.locs_by(region, from, to, |range, a, b| range.locs(a, b), each)
    }

    /// Whether the index of the segment lists an entry. Reads no location, so no device can be in the way.
    pub(crate) fn is_listed(&self, region: RegionId, index: u64) -> bool {
        match self.on_heap() {
            Some(mem) => index.checked_sub(mem.first).is_some_and(|ordinal| ordinal < mem.locs.len() as u64),
            None => self
                .segment()
                .footer()
                .is_some_and(|f| f.find(region, index).is_ok_and(|range| range.is_some())),
        }
    }

    fn locs_by(
        &self,
        region: RegionId,
        from: u64,
        to: u64,
        read: for<'a> fn(&RangeRef<'a>, u64, u64) -> std::io::Result<Locs<'a>>,
        mut each: impl FnMut(Loc),
    ) -> Result<()> {
        if let Some(mem) = self.on_heap() {
            let start = from.checked_sub(mem.first).ok_or_else(|| self.no_footer(region, from))? as usize;
            let len = (to - from + 1) as usize;
            let locs = mem.locs.get(start..start + len).ok_or_else(|| self.no_footer(region, from))?;
            locs.iter().copied().for_each(each);
            return Ok(());
        }
        let footer = self.segment().footer().ok_or_else(|| self.no_footer(region, from))?;
        let mut index = from;
        while index <= to {
            let range = footer.find(region, index).map_err(|e| self.bad_footer(region, e.0))?;
            let range = range.ok_or_else(|| self.no_footer(region, index))?;
            let last = range.last().min(to);
            let locs = read(&range, index, last);
            let locs = locs.map_err(|e| self.segment().footer_error(e).of_entry(region, index))?;
            while index <= last {
                each(locs.get(index).ok_or_else(|| self.no_footer(region, index))?);
                index += 1;
            }
        }
        Ok(())
    }

    /// A copy of `a..=b`, with its locations if they are on the heap. It is not counted as live.
    pub(crate) fn part(&self, a: u64, b: u64) -> Extent {
        if let (Repr::Single(_), true) = (&self.0, a == b) {
            return self.clone();
        }
        let mem = self.on_heap().map(|mem| {
            let start = (a - mem.first) as usize;
            let locs = mem.locs.get(start..start + (b - a + 1) as usize).unwrap_or(&[]).to_vec();
            let runs = self.runs().to_vec();
            MemIndex { first: a, locs, runs }
        });
        let (first_term, last_term) = (self.known_term(a), self.known_term(b));
        let segment = self.segment().clone();
        Wide { first: a, last: b, first_term, last_term, bytes: 0, segment, mem }.into()
    }

    /// The last entry of `a..=b` that a read of at most `bytes` may need, as far as that is known
    /// without the footer.
    pub(crate) fn reach(&self, a: u64, b: u64, bytes: u64, overhead: u64) -> u64 {
        let Some(mem) = self.on_heap() else { return b };
        let start = (a - mem.first) as usize;
        let mut left = bytes;
        for (i, loc) in mem.locs.iter().skip(start).take((b - a + 1) as usize).enumerate() {
            let cost = u64::from(loc.len).saturating_add(overhead);
            if cost >= left {
                return a + i as u64;
            }
            left -= cost;
        }
        b
    }

    /// What `a..=b` costs of a read's limit; 0 where only the footer knows.
    pub(crate) fn cost(&self, a: u64, b: u64, overhead: u64) -> u64 {
        let Some(mem) = self.on_heap() else { return 0 };
        let start = (a - mem.first) as usize;
        let locs = mem.locs.iter().skip(start).take((b - a + 1) as usize);
        locs.map(|l| u64::from(l.len).saturating_add(overhead)).fold(0, u64::saturating_add)
    }

    fn no_footer(&self, region: RegionId, index: u64) -> Error {
        Error::damaged(format!("the index of the segment does not list entry {index}; run `raftwood check`"))
            .in_region(region)
            .naming(index..=index)
            .at(&self.segment().path, None)
    }

    fn bad_footer(&self, region: RegionId, what: &str) -> Error {
        Error::damaged(format!(
            "the footer of the segment is damaged: {what}; reopen the store to rebuild it"
        ))
        .in_region(region)
        .at(&self.segment().path, None)
    }

    /// Bytes on the heap beyond the extent itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Packed { .. } => 0,
            Repr::Single(_) => size_of::<Single>(),
            Repr::Wide(wide) => {
                let mem = wide.mem.as_ref();
                let mem = mem.map_or(0, |m| m.locs.capacity() * size_of::<Loc>() + m.runs.capacity() * 16);
                size_of::<Wide>() + mem
            }
        }
    }

    /// The highest index whose record ends at or before `offset`, given that this segment is the one being
    /// made durable, and `offset` the end of a record. An entry without bytes may stand exactly there; those
    /// of the next record stand after its header.
    pub(crate) fn last_below(&self, offset: u32) -> Option<u64> {
        let mem = self.on_heap()?;
        let start = (self.first() - mem.first) as usize;
        let n = mem.locs.get(start..)?.partition_point(|l| l.pos <= offset);
        (n > 0).then(|| self.first() + n as u64 - 1)
    }
}

impl Wide {
    /// Adds entries after the last. The extent must be unsealed.
    fn push(&mut self, runs: &[TermRun], locs: &[Loc]) {
        let first = self.last + 1;
        self.note_runs(first, runs);
        let bytes = payload_bytes(locs);
        if let Some(mem) = &mut self.mem {
            mem.locs.extend_from_slice(locs);
        }
        self.last += locs.len() as u64;
        self.last_term = runs.last().map_or(self.last_term, |r| r.term);
        self.bytes += bytes;
        self.segment.add_live(locs.len() as u64, bytes);
    }

    fn note_runs(&mut self, first: u64, runs: &[TermRun]) {
        let Some(mem) = &mut self.mem else { return };
        let mut index = first;
        for run in runs {
            let current = mem.runs.last().map_or(self.first_term, |r| r.1);
            if run.term != current {
                if mem.runs.is_empty() {
                    mem.runs.push((self.first, self.first_term));
                }
                mem.runs.push((index, run.term));
            }
            index += u64::from(run.entries);
        }
    }

    /// Drops the entries from `index` on; the caller has made sure that some stay.
    fn cut_from(&mut self, index: u64) {
        debug_assert!(self.first < index && index <= self.last);
        self.last_term = self.known_term(index - 1);
        self.uncount(self.last - index + 1);
        self.last = index - 1;
        if let Some(mem) = &mut self.mem {
            mem.locs.truncate((index - mem.first) as usize);
            mem.runs.retain(|r| r.0 < index);
        }
    }

    /// Drops the entries up to and including `index`; the caller has made sure that some stay.
    fn cut_through(&mut self, index: u64) {
        debug_assert!(self.first <= index && index < self.last);
        self.first_term = self.known_term(index + 1);
        self.uncount(index - self.first + 1);
        self.first = index + 1;
        if let Some(mem) = &mut self.mem {
            let dead = (self.first - mem.first) as usize;
            if dead >= SLACK_MAX && dead * 2 > mem.locs.len() {
                mem.locs.drain(..dead);
                mem.locs.shrink_to_fit();
                mem.first = self.first;
            }
            let first = self.first;
            let keep_from = mem.runs.partition_point(|r| r.0 <= first).saturating_sub(1);
            mem.runs.drain(..keep_from);
            if mem.runs.len() == 1 {
                mem.runs.clear();
            }
        }
    }

    fn uncount(&mut self, entries: u64) {
        // 128 bits: counts and bytes are both hostile at worst.
        let share =
            (u128::from(self.bytes) * u128::from(entries) / u128::from(self.last - self.first + 1)) as u64;
        self.bytes -= share;
        self.segment.sub_live(entries, share);
    }

    /// The term of an entry of this extent, or [`TERM_UNKNOWN`] when that takes the footer.
    fn known_term(&self, index: u64) -> u64 {
        if self.first_term == self.last_term || index == self.first {
            return self.first_term;
        }
        if index == self.last {
            return self.last_term;
        }
        match &self.mem {
            Some(mem) => {
                let at = mem.runs.partition_point(|r| r.0 <= index);
                at.checked_sub(1).map_or(self.first_term, |at| mem.runs[at].1)
            }
            None => TERM_UNKNOWN,
        }
    }
}

fn payload_bytes(locs: &[Loc]) -> u64 {
    locs.iter().map(|l| u64::from(l.len)).sum()
}
