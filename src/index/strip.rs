//! Thin extents of neighbouring segments, packed.
//!
//! A region that appends little lies in a hundred segments with an entry or two in each. An extent of its own
//! takes 24 bytes for each, and 72 until the segment has its footer; in a strip that is 4 and 12. What makes
//! it so little: the rows follow one another, so that the index of the first is enough; they have one term;
//! and the list of their segments is shared with the other regions that lie in the same ones. For that,
//! strips begin and end at certain numbers of segments, the same for all regions.

use super::extent::Extent;
use super::homes::Homes;
use super::runs::Terms;
use super::stretch::{OnHeap, Stretch, share};
use crate::format::batch::Loc;
use crate::segment::{Live, Segment};
use std::iter::once;
use std::ops::Range;

/// Thin extents that follow one another. As an [`Extent`] it owns their shares of what lives in their
/// segments, and gives them back.
#[derive(Debug)]
pub(crate) struct Strip {
    /// The index of the first entry.
    first: u64,
    /// The index of the last entry.
    last: u64,
    /// Of all entries.
    term: u64,
    /// The segment of each row.
    homes: Homes,
    rows: Vec<Row>,
    /// Where the entries of the last rows stand, one each: those of the segments that have no footer yet.
    places: Vec<Place>,
}

/// How many rows a strip has at most, and how many neighbouring numbers of segments it is for.
const ROWS_MAX: usize = 32;

/// Fewer take less as extents.
pub(super) const ROWS_MIN: usize = 4;

/// Entries and payload bytes in one segment.
#[derive(Clone, Copy, Debug)]
struct Row(u32);

const COUNT_BITS: u32 = 10;

/// Where a payload that is stored as it is stands, and its checksum.
#[derive(Clone, Copy, Debug)]
struct Place {
    pos: u32,
    crc: u32,
}

/// Rows are added, and places given back, so many at once.
const STEP: usize = 4;

impl Row {
    /// `None` of what is not thin: it has more than one term, many entries or bytes, or several locations on
    /// the heap, or one in a compressed block.
    fn of(extent: &Stretch<'_>) -> Option<Row> {
        let is_plain = match extent.on_heap {
            None => true,
            Some(OnHeap::One { loc, .. }) => loc.is_raw(),
            Some(OnHeap::Many { .. }) => false,
        };
        let one_term = matches!(extent.terms, Terms::Runs { later: [], .. });
        let live = Live { entries: extent.count(), bytes: extent.bytes };
        Row::new(live).filter(|_| is_plain && one_term)
    }

    fn new(live: Live) -> Option<Row> {
        let (count, bytes) = (u32::try_from(live.entries).ok()?, u32::try_from(live.bytes).ok()?);
        let fits = count >> COUNT_BITS == 0 && bytes.leading_zeros() >= COUNT_BITS;
        fits.then_some(Row(bytes << COUNT_BITS | count))
    }

    fn count(self) -> u64 {
        u64::from(self.0 & ((1 << COUNT_BITS) - 1))
    }

    fn bytes(self) -> u32 {
        self.0 >> COUNT_BITS
    }

    fn live(self) -> Live {
        Live { entries: self.count(), bytes: u64::from(self.bytes()) }
    }
}

// ---- what is there ------------------------------------------------------------------------------------

impl Strip {
    /// The index of the first entry.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many rows lie in segments with a footer; they are the first ones.
    fn sealed(&self) -> usize {
        self.rows.len() - self.places.len()
    }

    /// The nth row.
    pub(super) fn nth(&self, n: usize) -> Stretch<'_> {
        self.row(n, self.first + self.rows[..n].iter().map(|row| row.count()).sum::<u64>())
    }

    /// The row that holds `index`, which one does.
    pub(super) fn find(&self, index: u64) -> Stretch<'_> {
        let (n, first) = self.position(index);
        self.row(n, first)
    }

    /// Which row holds `index`, and the index of its first entry.
    fn position(&self, index: u64) -> (usize, u64) {
        debug_assert!(self.first <= index && index <= self.last);
        let (mut n, mut first) = (0, self.first);
        while n + 1 < self.rows.len() && first + self.rows[n].count() <= index {
            first += self.rows[n].count();
            n += 1;
        }
        (n, first)
    }

    /// The nth row, whose first entry has the index `first`.
    fn row(&self, n: usize, first: u64) -> Stretch<'_> {
        let row = self.rows[n];
        let place = n.checked_sub(self.sealed()).map(|at| self.places[at]);
        Stretch {
            segment: &self.homes[n],
            first,
            last: first + (row.count() - 1),
            bytes: u64::from(row.bytes()),
            terms: Terms::one(self.term),
            on_heap: place.map(|place| OnHeap::One { index: first, loc: place.loc(row.bytes()) }),
        }
    }

    /// Bytes on the heap, the strip included.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Strip>()
            + self.homes.heap_bytes()
            + self.rows.capacity() * size_of::<Row>()
            + self.places.capacity() * size_of::<Place>()
    }
}

impl Place {
    fn loc(self, len: u32) -> Loc {
        Loc { pos: self.pos, inner: Loc::RAW, len, crc: self.crc }
    }
}

impl Drop for Strip {
    /// Gives their shares back.
    fn drop(&mut self) {
        self.give_back(0..self.rows.len());
    }
}

// ---- what is done with it -----------------------------------------------------------------------------

impl Strip {
    /// A strip of these, if all are as small as that, and follow and fit.
    pub(super) fn of<'a>(mut all: impl Iterator<Item = Stretch<'a>>) -> Option<Strip> {
        let first = all.next()?;
        let mut strip = Strip {
            first: first.first,
            last: first.last,
            term: first.known_term(first.first)?,
            homes: Homes::of(once(first.segment)),
            rows: Vec::new(),
            places: Vec::new(),
        };
        strip.add(&first, Row::of(&first)?);
        all.all(|next| strip.push(&next)).then_some(strip)
    }

    /// Adds a row, and takes its share, if it is one that follows and fits. Returns whether it is.
    pub(super) fn push(&mut self, next: &Stretch<'_>) -> bool {
        let span = |segment: &Segment| segment.id as usize / ROWS_MAX;
        let follows = self.last.checked_add(1) == Some(next.first)
            && self.rows.len() < ROWS_MAX
            && self.homes.last().is_some_and(|home| span(home) == span(next.segment))
            && next.known_term(next.first) == Some(self.term)
            && (next.is_unsealed() || self.places.is_empty());
        let Some(row) = Row::of(next).filter(|_| follows) else { return false };
        self.homes = Homes::of(self.homes.iter().chain(once(next.segment)));
        self.add(next, row);
        true
    }

    fn add(&mut self, next: &Stretch<'_>, row: Row) {
        next.segment.live.add(row.live());
        self.last = next.last;
        push_tightly(&mut self.rows, row);
        if let Some(OnHeap::One { loc, .. }) = next.on_heap {
            push_tightly(&mut self.places, Place { pos: loc.pos, crc: loc.crc });
        }
    }

    /// Keeps the entries `first..=last`, of which there are some, and gives back the share of the others.
    pub(super) fn keep(&mut self, first: u64, last: u64) {
        let ((from, from_first), (to, to_first)) = (self.position(first), self.position(last));
        self.trim(to, last - to_first + 1);
        self.trim(from, self.rows[from].count() - (first - from_first));
        (self.first, self.last) = (first, last);
        self.keep_rows(from..to + 1);
    }

    /// Keeps so many entries of a row.
    fn trim(&mut self, n: usize, count: u64) {
        let before = self.rows[n].live();
        let gone = before.entries - count;
        if gone > 0 {
            let gone = Live { entries: gone, bytes: share(before.bytes, gone, before.entries) };
            let kept = Live { entries: count, bytes: before.bytes - gone.bytes };
            if let Some(row) = Row::new(kept) {
                self.rows[n] = row;
                self.homes[n].live.sub(gone);
            }
        }
    }

    /// Keeps these rows.
    fn keep_rows(&mut self, kept: Range<usize>) {
        let (sealed, rows) = (self.sealed(), self.rows.len());
        if kept.len() == rows {
            return;
        }
        self.give_back(0..kept.start);
        self.give_back(kept.end..rows);
        self.homes = Homes::of(self.homes[kept.clone()].iter());
        self.rows.truncate(kept.end);
        self.rows.drain(..kept.start);
        shrink(&mut self.rows);
        self.places.truncate(kept.end.saturating_sub(sealed));
        self.places.drain(..kept.start.saturating_sub(sealed));
        shrink(&mut self.places);
    }

    fn give_back(&self, rows: Range<usize>) {
        for n in rows {
            self.homes[n].live.sub(self.rows[n].live());
        }
    }

    /// Takes the last row out, which lies in a segment without a footer, unless it is the only one.
    pub(super) fn pop(&mut self) -> Option<Extent> {
        let n = self.rows.len().checked_sub(1).filter(|n| *n > 0 && !self.places.is_empty())?;
        let extent = Extent::of_row(&self.nth(n));
        self.last = extent.first() - 1;
        self.keep_rows(0..n);
        Some(extent)
    }

    /// Each row as an extent of its own.
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        (0..self.len()).map(|n| Extent::of_row(&self.nth(n)))
    }

    /// The segment of the last row, if that has no footer.
    pub(super) fn newest(&self) -> Option<&Segment> {
        self.homes.last().filter(|_| !self.places.is_empty()).map(|home| &**home)
    }

    /// Whether a row lies in the segment, and has no footer.
    pub(super) fn awaits(&self, segment: u32) -> bool {
        self.homes[self.sealed()..].iter().any(|home| home.id == segment)
    }

    /// The segment has its footer now. False if others are still before it.
    pub(super) fn use_footer(&mut self, segment: u32) -> bool {
        let is_next = self.homes.get(self.sealed()).is_some_and(|home| home.id == segment);
        if is_next {
            self.places.drain(..1);
            shrink(&mut self.places);
        }
        is_next
    }
}

/// Doubling would leave half of a short list empty.
fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(STEP);
    }
    list.push(item);
}

fn shrink<T>(list: &mut Vec<T>) {
    list.shrink_to(list.len().next_multiple_of(STEP));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::TermRun;
    use crate::format::checkpoint::ExtentRecord;
    use crate::format::file_header::{Identity, SegmentKind, StoreId};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn segment(id: u32) -> Arc<Segment> {
        let identity = Identity { store: StoreId([7; 16]), file: id, salt: 9 };
        Arc::new(Segment::hole(identity, SegmentKind::Log, format!("{id}.log").into()))
    }

    fn sealed(first: u64, count: u64, bytes: u64, home: &Arc<Segment>) -> Extent {
        let term = Some(5);
        let record =
            ExtentRecord { segment: home.id, first, count, first_term: term, last_term: term, bytes };
        Extent::sealed(&record, home)
    }

    fn unsealed(first: u64, bytes: u64, home: &Arc<Segment>) -> Extent {
        let loc = Loc { pos: home.id * 1000, inner: Loc::RAW, len: bytes as u32, crc: !home.id };
        Extent::unsealed(first, &[TermRun { term: 5, entries: 1 }], &[loc], home)
    }

    /// What can be seen of extents, and what their segments count.
    type Seen = (Vec<(ExtentRecord, Option<(u64, Loc)>)>, Vec<Live>);

    fn seen<'a>(extents: impl Iterator<Item = Stretch<'a>>, homes: &[Arc<Segment>]) -> Seen {
        let loc = |e: &Stretch<'_>| match e.on_heap {
            None => None,
            Some(OnHeap::One { index, loc }) => Some((index, loc)),
            Some(OnHeap::Many { .. }) => panic!("a row has one location"),
        };
        (extents.map(|e| (e.record(), loc(&e))).collect(), homes.iter().map(|home| home.live.get()).collect())
    }

    /// The same strip, and a list of extents with segments of its own.
    struct Both {
        strip: Strip,
        homes: Vec<Arc<Segment>>,
        list: Vec<Extent>,
        twins: Vec<Arc<Segment>>,
    }

    impl Both {
        /// Rows of so many entries and bytes, the last ones unsealed, with one entry.
        fn new(rows: &[(u64, u64)], unsealed_rows: usize) -> Both {
            let ids = 64..64 + rows.len() as u32;
            let homes: Vec<_> = ids.clone().map(segment).collect();
            let twins: Vec<_> = ids.map(segment).collect();
            let extents = |homes: &[Arc<Segment>]| {
                let mut next = 10;
                let extent = |(n, ((count, bytes), home)): (usize, (&(u64, u64), &Arc<Segment>))| {
                    let first = next;
                    let e = match n + unsealed_rows < rows.len() {
                        true => sealed(first, *count, *bytes, home),
                        false => unsealed(first, *bytes, home),
                    };
                    next = e.last() + 1;
                    e
                };
                rows.iter().zip(homes).enumerate().map(extent).collect::<Vec<_>>()
            };
            let (parts, list) = (extents(&homes), extents(&twins));
            let strip = Strip::of(parts.iter().map(Extent::stretch)).unwrap();
            Both { strip, homes, list, twins }
        }

        fn keep(&mut self, first: u64, last: u64) {
            self.strip.keep(first, last);
            self.list.retain(|e| e.first() <= last && first <= e.last());
            for e in &mut self.list {
                e.keep(e.first(), last.min(e.last()));
                e.keep(first.max(e.first()), e.last());
            }
        }

        fn check(&self) {
            let rows = (0..self.strip.len()).map(|n| self.strip.nth(n));
            assert_eq!(seen(rows, &self.homes), seen(self.list.iter().map(Extent::stretch), &self.twins));
            assert_eq!(
                (self.strip.first(), self.strip.last()),
                (self.list[0].first(), self.list[self.list.len() - 1].last())
            );
            for e in &self.list {
                for index in e.first()..=e.last() {
                    assert_eq!(self.strip.find(index).record(), e.stretch().record());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_strip_is_what_its_extents_would_be(
            rows in proptest::collection::vec((1u64..9, 0u64..5000), 2..=ROWS_MAX),
            unsealed_rows in 0usize..6,
            acts in proptest::collection::vec((0u8..4, 0u64..100), 1..20),
        ) {
            let mut both = Both::new(&rows, unsealed_rows.min(rows.len()));
            both.check();
            for (act, by) in acts {
                let (first, last) = (both.strip.first(), both.strip.last());
                let by = by % (last - first + 1);
                match act {
                    0 => both.keep(first + by, last),
                    1 => both.keep(first, last - by),
                    2 => {
                        // Segments get their footers in order, but where one cannot.
                        let of = |e: &&mut Extent| e.is_unsealed();
                        let nth = usize::from(by % 8 == 0);
                        if let Some(e) = both.list.iter_mut().filter(of).nth(nth) {
                            let id = e.home().id;
                            prop_assert!(both.strip.awaits(id));
                            prop_assert_eq!(both.strip.use_footer(id), nth == 0);
                            if nth == 0 {
                                e.use_footer();
                            }
                        }
                    }
                    _ => {
                        let popped = both.strip.pop();
                        let may = both.list.len() > 1 && both.list.last().is_some_and(Extent::is_unsealed);
                        prop_assert_eq!(popped.is_some(), may);
                        if let Some(popped) = popped {
                            let twin = both.list.pop().unwrap();
                            let (a, b) = (popped.stretch(), twin.stretch());
                            prop_assert_eq!(seen([a].into_iter(), &both.homes), seen([b].into_iter(), &both.twins));
                        }
                    }
                }
                both.check();
            }
            let Both { strip, homes, .. } = both;
            let extents: Vec<Extent> = strip.extents().collect();
            drop(strip);
            let owned = extents.iter().map(|e| e.live().bytes).sum::<u64>();
            prop_assert_eq!(homes.iter().map(|home| home.live.bytes()).sum::<u64>(), owned);
            drop(extents);
            prop_assert!(homes.iter().all(|home| home.live.get() == Live::default()));
        }
    }

    #[test]
    fn only_what_follows_in_the_same_term_and_span_of_segments_joins_a_strip() {
        let homes: Vec<_> = (60..70).map(segment).collect();
        let strip = |first: u64| {
            let parts = [sealed(first, 1, 9, &homes[4]), sealed(first + 1, 2, 9, &homes[5])];
            Strip::of(parts.iter().map(Extent::stretch)).unwrap()
        };
        let joins = |extent: Extent| {
            let mut strip = strip(1);
            let joined = strip.push(&extent.stretch());
            assert_eq!(strip.len(), 2 + usize::from(joined));
            joined
        };
        assert!(joins(sealed(4, 1, 9, &homes[6])));
        assert!(joins(sealed(4, (1 << COUNT_BITS) - 1, (1 << 22) - 1, &homes[6])));
        assert!(joins(unsealed(4, (1 << 22) - 1, &homes[6])));
        assert!(!joins(sealed(5, 1, 9, &homes[6])), "a gap");
        assert!(!joins(sealed(3, 1, 9, &homes[6])), "an overlap");
        assert!(!joins(sealed(4, 1, 9, &homes[3])), "the segments of another span");
        assert!(!joins(sealed(4, 1 << COUNT_BITS, 9, &homes[6])), "many entries");
        assert!(!joins(sealed(4, 1, 1 << 22, &homes[6])), "many bytes");
        let other = ExtentRecord {
            first_term: Some(6),
            last_term: Some(6),
            ..sealed(4, 1, 9, &homes[6]).stretch().record()
        };
        assert!(!joins(Extent::sealed(&other, &homes[6])), "another term");
        let block = Loc { pos: 0, inner: 8, len: 9, crc: 1 };
        assert!(
            !joins(Extent::unsealed(4, &[TermRun { term: 5, entries: 1 }], &[block], &homes[6])),
            "a block"
        );
        // What has its footer stands before what has none.
        let mut strip = strip(1);
        assert!(strip.push(&unsealed(4, 9, &homes[6]).stretch()));
        assert!(!strip.push(&sealed(5, 1, 9, &homes[7]).stretch()));
        drop(strip);
        assert!(homes.iter().all(|home| home.live.get() == Live::default()));
    }

    #[test]
    fn strips_of_the_same_segments_have_one_list_of_them_and_hold_no_others() {
        let homes: Vec<_> = (64..74).map(segment).collect();
        let strip = || {
            let parts: Vec<_> = (1..).zip(&homes).map(|(index, home)| sealed(index, 1, 9, home)).collect();
            Strip::of(parts.iter().map(Extent::stretch)).unwrap()
        };
        let mut strips: Vec<_> = (0..5).map(|_| strip()).collect();
        assert!(homes.iter().all(|home| Arc::strong_count(home) == 2));
        strips.iter_mut().for_each(|strip| strip.keep(3, 8));
        let holders: Vec<_> = homes.iter().map(Arc::strong_count).collect();
        assert_eq!(holders, [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]);
    }
}
