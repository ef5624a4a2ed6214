//! Consecutive entries of one region in one segment, and their share of what lives there.

use super::runs::{Run, Terms, TermsRef, term_at};
use super::stretch::{OnHeap, Stretch, share};
use crate::format::batch::{Loc, TermRun};
use crate::format::checkpoint::ExtentRecord;
use crate::planted::{Bug, planted};
use crate::segment::{Live, Segment};
use std::sync::Arc;

/// Trimmed locations are given back once they are this many and more than half.
const SLACK_MAX: usize = 64;

/// Consecutive live entries of one region in one segment.
///
/// It owns their share of the segment's live entries and bytes: that is taken when it is made, follows it
/// through all that it grows, is cut, split or moved by, and is given back when it is dropped. Hence it
/// cannot be cloned: what a reader or a checkpoint takes along is a [`Part`](super::Part) or a record.
///
/// There is one for each region and segment, so most are small. Those of a sealed segment whose entries have
/// one term, with numbers as they usually are, are packed: 24 bytes. Of a region that has one entry in an
/// unsealed segment no more is on the heap than that entry takes.
#[derive(Debug)]
pub(crate) struct Extent(Form);

#[derive(Debug)]
enum Form {
    /// In a sealed segment, with one term.
    Packed { segment: Arc<Segment>, first: u64, rest: Packed },
    /// In a sealed segment.
    Wide(Box<Wide>),
    /// One entry of an unsealed segment.
    Single(Box<Single>),
    /// In an unsealed segment.
    Grown(Box<Grown>),
}

/// One entry of an unsealed segment.
#[derive(Debug)]
struct Single {
    index: u64,
    term: u64,
    loc: Loc,
    segment: Arc<Segment>,
}

/// Entries of an unsealed segment.
#[derive(Debug)]
struct Grown {
    segment: Arc<Segment>,
    first: u64,
    last: u64,
    /// Payload bytes; exact until the extent is trimmed.
    bytes: u64,
    /// The term of the first entry.
    first_term: u64,
    /// The terms after that.
    later: Vec<Run>,
    /// The index of the first location.
    locs_first: u64,
    locs: Vec<Loc>,
}

/// Entries of a sealed segment.
#[derive(Debug)]
struct Wide {
    segment: Arc<Segment>,
    first: u64,
    last: u64,
    /// Payload bytes; exact until the extent is trimmed.
    bytes: u64,
    first_term: Option<u64>,
    last_term: Option<u64>,
}

/// Count, term and bytes in 56 bits; the other eight tell the forms of an extent apart.
#[derive(Clone, Copy, Debug)]
struct Packed {
    low: u32,
    high: [u8; 3],
    _tag: Tag,
}

/// A byte with one value: the compiler uses the others for the other forms.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Tag {
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
        Some(Packed { low, high: [e, f, g], _tag: Tag::Packed })
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

// ---- what it is ---------------------------------------------------------------------------------------

impl Extent {
    /// The first entries of a region in an unsealed segment.
    pub(super) fn unsealed(first: u64, runs: &[TermRun], locs: &[Loc], segment: &Arc<Segment>) -> Extent {
        let segment = segment.clone();
        let term = runs.first().map_or(0, |run| run.term);
        if let [loc] = *locs {
            return Extent::counted(Form::Single(Box::new(Single { index: first, term, loc, segment })));
        }
        Extent::counted(Form::Grown(Box::new(Grown::new(first, runs, locs, segment))))
    }

    /// From a checkpoint or a footer.
    pub(crate) fn sealed(r: &ExtentRecord, segment: &Arc<Segment>) -> Extent {
        Extent::in_sealed(Wide {
            segment: segment.clone(),
            first: r.first,
            last: r.first + (r.count - 1),
            bytes: r.bytes,
            first_term: r.first_term,
            last_term: r.last_term,
        })
    }

    fn in_sealed(wide: Wide) -> Extent {
        let term = wide.first_term.filter(|_| wide.first_term == wide.last_term);
        let packed = term.and_then(|term| Packed::new(wide.last - wide.first + 1, term, wide.bytes));
        Extent::counted(match packed {
            Some(rest) => Form::Packed { segment: wide.segment, first: wide.first, rest },
            None => Form::Wide(Box::new(wide)),
        })
    }

    /// The same as a row of a strip.
    pub(super) fn of_row(row: &Stretch<'_>) -> Extent {
        let (segment, first, term) = (row.segment.clone(), row.first, row.known_term(row.first));
        match row.on_heap {
            Some(OnHeap::One { loc, .. }) => {
                let term = term.unwrap_or(0);
                Extent::counted(Form::Single(Box::new(Single { index: first, term, loc, segment })))
            }
            _ => Extent::sealed(&row.record(), row.segment),
        }
    }

    /// Takes the share of what it is. This and [`grow`](Extent::push) are all that takes.
    fn counted(form: Form) -> Extent {
        let extent = Extent(form);
        extent.home().live.add(extent.live());
        extent
    }

    /// Its share of what lives in the segment.
    pub(super) fn live(&self) -> Live {
        let (entries, bytes) = match &self.0 {
            Form::Packed { rest, .. } => (rest.count(), rest.bytes()),
            Form::Wide(wide) => (wide.last - wide.first + 1, wide.bytes),
            Form::Single(single) => (1, u64::from(single.loc.len)),
            Form::Grown(grown) => (grown.last - grown.first + 1, grown.bytes),
        };
        Live { entries, bytes }
    }

    /// The index of the first entry.
    pub(super) fn first(&self) -> u64 {
        match &self.0 {
            Form::Packed { first, .. } => *first,
            Form::Wide(wide) => wide.first,
            Form::Single(single) => single.index,
            Form::Grown(grown) => grown.first,
        }
    }

    /// The index of the last entry.
    pub(super) fn last(&self) -> u64 {
        match &self.0 {
            Form::Packed { first, rest, .. } => first + (rest.count() - 1),
            Form::Wide(wide) => wide.last,
            Form::Single(single) => single.index,
            Form::Grown(grown) => grown.last,
        }
    }

    /// The segment that they lie in.
    pub(super) fn home(&self) -> &Arc<Segment> {
        match &self.0 {
            Form::Packed { segment, .. } => segment,
            Form::Wide(wide) => &wide.segment,
            Form::Single(single) => &single.segment,
            Form::Grown(grown) => &grown.segment,
        }
    }

    /// Whether the segment has no footer yet.
    pub(super) fn is_unsealed(&self) -> bool {
        matches!(self.0, Form::Single(_) | Form::Grown(_))
    }

    /// A look at it.
    pub(super) fn stretch(&self) -> Stretch<'_> {
        let terms: TermsRef<'_> = match &self.0 {
            Form::Packed { rest, .. } => Terms::one(rest.term()),
            Form::Wide(wide) => Terms::between(wide.first_term, wide.last_term),
            Form::Single(single) => Terms::one(single.term),
            Form::Grown(grown) => Terms::Runs { first: grown.first_term, later: &grown.later },
        };
        let on_heap = match &self.0 {
            Form::Packed { .. } | Form::Wide(_) => None,
            Form::Single(single) => Some(OnHeap::One { index: single.index, loc: single.loc }),
            Form::Grown(grown) => Some(OnHeap::Many { first: grown.locs_first, locs: &grown.locs }),
        };
        let (first, last, bytes) = (self.first(), self.last(), self.live().bytes);
        Stretch { segment: self.home(), first, last, bytes, terms, on_heap }
    }

    /// Bytes on the heap beyond the extent itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Packed { .. } => 0,
            Form::Wide(_) => size_of::<Wide>(),
            Form::Single(_) => size_of::<Single>(),
            Form::Grown(grown) => {
                let lists =
                    grown.locs.capacity() * size_of::<Loc>() + grown.later.capacity() * size_of::<Run>();
                size_of::<Grown>() + lists
            }
        }
    }
}

impl Drop for Extent {
    /// Gives its share back.
    fn drop(&mut self) {
        self.home().live.sub(self.live());
    }
}

// ---- what is done with it -----------------------------------------------------------------------------

impl Extent {
    /// Adds entries after the last. The extent must be unsealed.
    pub(super) fn push(&mut self, runs: &[TermRun], locs: &[Loc]) {
        match &mut self.0 {
            Form::Grown(grown) => {
                let before = grown.bytes;
                grown.push(runs, locs);
                let more = Live { entries: locs.len() as u64, bytes: grown.bytes - before };
                grown.segment.live.add(more);
            }
            Form::Single(single) => {
                let run = [TermRun { term: single.term, entries: 1 }];
                let mut grown = Grown::new(single.index, &run, &[single.loc], single.segment.clone());
                grown.push(runs, locs);
                *self = Extent::counted(Form::Grown(Box::new(grown)));
            }
            Form::Packed { .. } | Form::Wide(_) => debug_assert!(false, "a sealed segment takes no entries"),
        }
    }

    /// Keeps the entries `first..=last`, of which there are some, and gives back the share of the others.
    pub(super) fn keep(&mut self, first: u64, last: u64) {
        debug_assert!(self.first() <= first && first <= last && last <= self.last());
        match &mut self.0 {
            Form::Grown(grown) => {
                let (entries, bytes) = (grown.last - grown.first + 1, grown.bytes);
                grown.keep(first, last);
                let gone = Live { entries: entries - (last - first + 1), bytes: bytes - grown.bytes };
                if !planted(Bug::CutKeepsItsShare) {
                    grown.segment.live.sub(gone);
                }
            }
            Form::Single(_) => {}
            Form::Packed { .. } | Form::Wide(_) => {
                let stretch = self.stretch();
                let gone = share(stretch.bytes, stretch.count() - (last - first + 1), stretch.count());
                let kept = self.sealed_part(first, last, stretch.bytes - gone);
                *self = kept;
            }
        }
    }

    /// Those from `index` on, of which there are some as there are before it, in an extent of their own.
    pub(super) fn split_off(&mut self, index: u64) -> Extent {
        debug_assert!(self.first() < index && index <= self.last());
        let (first, last) = (self.first(), self.last());
        let rest = match &self.0 {
            Form::Grown(grown) => Extent::counted(Form::Grown(Box::new(grown.part(index, last)))),
            _ => {
                let stretch = self.stretch();
                let bytes = share(stretch.bytes, last - index + 1, stretch.count());
                self.sealed_part(index, last, bytes)
            }
        };
        self.keep(first, index - 1);
        rest
    }

    /// The entries `first..=last` without what the heap knows of where they are.
    fn sealed_part(&self, first: u64, last: u64, bytes: u64) -> Extent {
        let stretch = self.stretch();
        Extent::in_sealed(Wide {
            segment: self.home().clone(),
            first,
            last,
            bytes,
            first_term: stretch.known_term(first),
            last_term: stretch.known_term(last),
        })
    }

    /// The same entries, in a copy of them in `segment` that takes `bytes`.
    pub(super) fn moved_to(self, segment: &Arc<Segment>, bytes: u64) -> Extent {
        let stretch = self.stretch();
        let (first, last) = (stretch.first, stretch.last);
        Extent::in_sealed(Wide {
            segment: segment.clone(),
            first,
            last,
            bytes,
            first_term: stretch.known_term(first),
            last_term: stretch.known_term(last),
        })
    }

    /// Adds the entries of `next` if they follow in the same sealed segment; otherwise that comes back.
    pub(super) fn join(&mut self, next: Extent) -> Option<Extent> {
        let (a, b) = (self.stretch(), next.stretch());
        let joins = Arc::ptr_eq(a.segment, b.segment)
            && !a.is_unsealed()
            && !b.is_unsealed()
            && a.last.checked_add(1) == Some(b.first);
        if !joins {
            return Some(next);
        }
        let joined = Extent::in_sealed(Wide {
            segment: a.segment.clone(),
            first: a.first,
            last: b.last,
            bytes: a.bytes + b.bytes,
            first_term: a.known_term(a.first),
            last_term: b.known_term(b.last),
        });
        *self = joined;
        None
    }

    /// Its segment has a footer now: the heap need not know where the entries are.
    pub(super) fn use_footer(&mut self) {
        if self.is_unsealed() {
            *self = self.sealed_part(self.first(), self.last(), self.live().bytes);
        }
    }
}

impl Grown {
    fn new(first: u64, runs: &[TermRun], locs: &[Loc], segment: Arc<Segment>) -> Grown {
        let mut grown = Grown {
            segment,
            first,
            last: first + (locs.len() as u64 - 1),
            bytes: payload_bytes(locs),
            first_term: runs.first().map_or(0, |run| run.term),
            later: Vec::new(),
            locs_first: first,
            locs: locs.to_vec(),
        };
        grown.note_runs(first, runs);
        grown
    }

    fn push(&mut self, runs: &[TermRun], locs: &[Loc]) {
        self.note_runs(self.last + 1, runs);
        self.locs.extend_from_slice(locs);
        self.last += locs.len() as u64;
        self.bytes += payload_bytes(locs);
    }

    fn note_runs(&mut self, first: u64, runs: &[TermRun]) {
        let mut index = first;
        for run in runs {
            if run.term != self.later.last().map_or(self.first_term, |last| last.term) {
                self.later.push(Run { first: index, term: run.term });
            }
            index += u64::from(run.entries);
        }
    }

    fn term(&self, index: u64) -> u64 {
        term_at(&self.later, index).unwrap_or(self.first_term)
    }

    fn locs(&self, first: u64, last: u64) -> &[Loc] {
        let start = (first - self.locs_first) as usize;
        &self.locs[start..start + (last - first + 1) as usize]
    }

    fn keep(&mut self, first: u64, last: u64) {
        let count = self.last - self.first + 1;
        self.bytes -= share(self.bytes, count - (last - first + 1), count);
        self.first_term = self.term(first);
        self.later.retain(|run| first < run.first && run.first <= last);
        (self.first, self.last) = (first, last);
        self.locs.truncate((last + 1 - self.locs_first) as usize);
        let dead = (first - self.locs_first) as usize;
        if dead >= SLACK_MAX && dead * 2 > self.locs.len() {
            self.locs.drain(..dead);
            self.locs.shrink_to_fit();
            self.locs_first = first;
        }
    }

    fn part(&self, first: u64, last: u64) -> Grown {
        let locs = self.locs(first, last).to_vec();
        Grown {
            segment: self.segment.clone(),
            first,
            last,
            bytes: share(self.bytes, last - first + 1, self.last - self.first + 1),
            first_term: self.term(first),
            later: self.later.iter().filter(|run| first < run.first && run.first <= last).copied().collect(),
            locs_first: first,
            locs,
        }
    }
}

fn payload_bytes(locs: &[Loc]) -> u64 {
    locs.iter().map(|l| u64::from(l.len)).sum()
}
