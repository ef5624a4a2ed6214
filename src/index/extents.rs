//! The extents of one region, in the order of their indexes.

use super::extent::Extent;
use super::piece::Piece;
use super::stretch::Stretch;
use super::strip::{ROWS_MIN, Strip};
use crate::format::batch::{Loc, TermRun};
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use std::ops::Range;
use std::sync::Arc;

/// A list that takes no memory of its own for one extent, which is all that most regions have, keeps little
/// in reserve, and packs the thin ones of neighbouring segments into [strips](Strip): with a thousand regions
/// in each of a hundred segments, these are most of the index.
#[derive(Debug, Default)]
pub(crate) enum Extents {
    #[default]
    None,
    One(Piece),
    Many(Vec<Piece>),
}

/// A list keeps room for no more pieces than this beyond twice what it holds.
const SLACK_MAX: usize = 8;

/// Entries of a region that were copied to a cold segment.
#[derive(Debug)]
pub(crate) struct Moved<'a> {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// What they take there.
    pub(crate) bytes: u64,
    /// The numbers of the segments that they were copied from.
    pub(crate) sources: &'a [u32],
    pub(crate) cold: &'a Arc<Segment>,
}

// ---- what is there ------------------------------------------------------------------------------------

impl Extents {
    fn all(&self) -> &[Piece] {
        match self {
            Extents::None => &[],
            Extents::One(piece) => std::slice::from_ref(piece),
            Extents::Many(list) => list,
        }
    }

    fn all_mut(&mut self) -> &mut [Piece] {
        match self {
            Extents::None => &mut [],
            Extents::One(piece) => std::slice::from_mut(piece),
            Extents::Many(list) => list,
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.all().iter().map(Piece::len).sum()
    }

    /// All, in the order of their indexes.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Stretch<'_>> {
        self.all().iter().flat_map(Piece::stretches)
    }

    /// Those that end at `index` or later.
    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = Stretch<'_>> {
        let start = self.all().partition_point(|piece| piece.last() < index);
        self.all()[start..].iter().flat_map(Piece::stretches).skip_while(move |e| e.last() < index)
    }

    /// The first.
    pub(crate) fn first(&self) -> Option<Stretch<'_>> {
        self.all().first().map(|piece| piece.find(piece.first()))
    }

    /// The last.
    pub(crate) fn last(&self) -> Option<Stretch<'_>> {
        self.all().last().map(|piece| piece.find(piece.last()))
    }

    /// The one that holds `index`.
    pub(crate) fn find(&self, index: u64) -> Option<Stretch<'_>> {
        // Mostly it is about the end of the log.
        let newest = self.all().last()?;
        let piece = if newest.first() <= index {
            newest
        } else {
            &self.all()[self.all().partition_point(|piece| piece.last() < index)]
        };
        (piece.first() <= index && index <= piece.last()).then(|| piece.find(index))
    }

    /// Bytes on the heap, those of the extents included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let list = if let Extents::Many(list) = self { list.capacity() * size_of::<Piece>() } else { 0 };
        list + self.all().iter().map(Piece::heap_bytes).sum::<usize>()
    }
}

// ---- what is done with them ---------------------------------------------------------------------------

impl Extents {
    /// Adds one after the last.
    pub(crate) fn push(&mut self, extent: Extent) {
        if let Some(Piece::Strip(strip)) = self.all_mut().last_mut()
            && strip.push(&extent.stretch())
        {
            return;
        }
        match self {
            Extents::None => *self = Extents::One(Piece::Extent(extent)),
            Extents::One(_) => self.replace(1..1, vec![Piece::Extent(extent)]),
            Extents::Many(list) => {
                if list.len() == list.capacity() {
                    list.reserve_exact((list.len() / 8).max(2));
                }
                list.push(Piece::Extent(extent));
            }
        }
        self.pack(self.all().len() - 1);
    }

    /// Adds entries of an unsealed segment after the last.
    pub(crate) fn append(&mut self, first: u64, runs: &[TermRun], locs: &[Loc], segment: &Arc<Segment>) {
        let joins = |last: u64, home: &Segment| last + 1 == first && home.id == segment.id;
        match self.all_mut().last_mut() {
            Some(Piece::Extent(e)) if e.is_unsealed() && joins(e.last(), e.home()) => e.push(runs, locs),
            Some(Piece::Strip(strip)) if strip.newest().is_some_and(|home| joins(strip.last(), home)) => {
                if let Some(mut e) = strip.pop() {
                    e.push(runs, locs);
                    self.unpack_short(self.all().len() - 1);
                    self.push(e);
                }
            }
            _ => self.push(Extent::unsealed(first, runs, locs, segment)),
        }
    }

    /// Drops the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        let kept = self.all().partition_point(|piece| piece.first() < index);
        match self {
            Extents::Many(list) => list.truncate(kept),
            _ if kept == 0 => *self = Extents::None,
            _ => {}
        }
        if let Some(piece) = self.all_mut().last_mut().filter(|piece| index <= piece.last()) {
            piece.keep(piece.first(), index - 1);
            self.unpack_short(kept - 1);
        }
    }

    /// Drops the entries through `index`.
    pub(crate) fn drop_through(&mut self, index: u64) {
        let gone = self.all().partition_point(|piece| piece.last() <= index);
        match self {
            _ if gone == 0 => {}
            Extents::Many(list) => {
                list.drain(..gone);
                if list.capacity() > 2 * list.len() + SLACK_MAX {
                    list.shrink_to_fit();
                }
            }
            _ => *self = Extents::None,
        }
        if let Some(piece) = self.all_mut().first_mut().filter(|piece| piece.first() <= index) {
            piece.keep(index + 1, piece.last());
            self.unpack_short(0);
        }
    }

    /// `segment` has its footer now.
    pub(crate) fn use_footer(&mut self, segment: u32) {
        for at in (0..self.all().len()).rev() {
            match self.all_mut().get_mut(at) {
                Some(Piece::Extent(e)) if e.home().id == segment => {
                    e.use_footer();
                    self.pack(at);
                }
                Some(Piece::Strip(strip)) if strip.awaits(segment) => {
                    let in_turn = strip.use_footer(segment);
                    if !in_turn {
                        let mut extents: Vec<Extent> = strip.extents().collect();
                        extents.iter_mut().filter(|e| e.home().id == segment).for_each(Extent::use_footer);
                        self.replace(at..at + 1, extents.into_iter().map(Piece::Extent).collect());
                    }
                }
                _ => {}
            }
        }
    }

    /// Those of the entries that still lie in one of the sources lie in the copy now. What was rolled back,
    /// compacted or rewritten in the meantime is not touched. Returns which were moved.
    pub(crate) fn relocate(&mut self, moved: &Moved<'_>) -> Vec<Range<u64>> {
        let is_copied = |e: &Stretch<'_>| {
            e.first() <= moved.last && moved.first <= e.last() && moved.sources.contains(&e.segment_id())
        };
        let mut healed = Vec::new();
        if !self.iter().any(|e| is_copied(&e)) {
            return healed;
        }
        let mut joined = Joined::default();
        for mut e in self.take_list().into_iter().flat_map(Piece::into_extents) {
            if !is_copied(&e.stretch()) {
                joined.push(e);
                continue;
            }
            if e.first() < moved.first {
                let rest = e.split_off(moved.first);
                joined.push(std::mem::replace(&mut e, rest));
            }
            let rest = (moved.last < e.last()).then(|| e.split_off(moved.last + 1));
            healed.push(e.first()..e.last() + 1);
            joined.push(moved.place(e));
            if let Some(rest) = rest.filter(|_| !planted(Bug::CleanerDropsTheRest)) {
                joined.push(rest);
            }
        }
        joined.0.into_iter().for_each(|e| self.push(e));
        healed
    }

    /// Packs the extents that end with the piece `at` into a strip, if they are thin enough.
    fn pack(&mut self, at: usize) {
        let Extents::Many(list) = self else { return };
        if let [.., Piece::Strip(strip), Piece::Extent(e)] = &mut list[..=at] {
            if strip.push(&e.stretch()) {
                list.remove(at);
            }
        } else if let Some(from) = (at + 1).checked_sub(ROWS_MIN)
            && list[from..=at].iter().all(|piece| matches!(piece, Piece::Extent(_)))
            && let Some(strip) = Strip::of(list[from..=at].iter().flat_map(Piece::stretches))
        {
            self.replace(from..at + 1, vec![Piece::Strip(Box::new(strip))]);
        }
    }

    /// Undoes that, if the piece `at` is a strip of few rows.
    fn unpack_short(&mut self, at: usize) {
        if let Some(Piece::Strip(strip)) = self.all().get(at)
            && strip.len() < ROWS_MIN
        {
            self.replace(at..at + 1, strip.extents().map(Piece::Extent).collect());
        }
    }

    fn replace(&mut self, at: Range<usize>, by: Vec<Piece>) {
        let mut list = self.take_list();
        list.reserve_exact(by.len());
        list.splice(at, by);
        list.shrink_to_fit();
        *self = match list.len() {
            1 => list.pop().map_or(Extents::None, Extents::One),
            _ => Extents::Many(list),
        };
    }

    fn take_list(&mut self) -> Vec<Piece> {
        match std::mem::take(self) {
            Extents::None => Vec::new(),
            Extents::One(piece) => vec![piece],
            Extents::Many(list) => list,
        }
    }
}

/// Extents in order, of which neighbours in the same sealed segment have become one.
#[derive(Default)]
struct Joined(Vec<Extent>);

impl Joined {
    fn push(&mut self, extent: Extent) {
        let apart = match self.0.last_mut() {
            Some(last) => last.join(extent),
            None => Some(extent),
        };
        self.0.extend(apart);
    }
}

impl Moved<'_> {
    /// Entries of the region, where they are now.
    fn place(&self, e: Extent) -> Extent {
        let copied = u128::from(self.last - self.first) + 1;
        let bytes = (u128::from(self.bytes) * u128::from(e.live().entries) / copied) as u64;
        e.moved_to(self.cold, bytes)
    }
}
