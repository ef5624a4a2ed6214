//! The extents of one region, in the order of their indexes.

use super::extent::Extent;
use super::stretch::Stretch;
use crate::format::batch::{Loc, TermRun};
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use std::ops::Range;
use std::sync::Arc;

/// A list that takes no memory of its own for one extent, which is all that most regions have, and
/// keeps little in reserve: with a thousand regions in each of a hundred segments the slack of
/// doubling would be most of the index.
#[derive(Debug, Default)]
pub(crate) enum Extents {
    #[default]
    None,
    One(Extent),
    Many(Vec<Extent>),
}

/// A list keeps room for no more extents than this beyond twice what it holds.
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
    fn all(&self) -> &[Extent] {
        match self {
            Extents::None => &[],
            Extents::One(extent) => std::slice::from_ref(extent),
            Extents::Many(list) => list,
        }
    }

    fn all_mut(&mut self) -> &mut [Extent] {
        match self {
            Extents::None => &mut [],
            Extents::One(extent) => std::slice::from_mut(extent),
            Extents::Many(list) => list,
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }

    /// All, in the order of their indexes.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Stretch<'_>> {
        self.all().iter().map(Extent::stretch)
    }

    /// Those that end at `index` or later.
    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = Stretch<'_>> {
        let start = self.all().partition_point(|e| e.last() < index);
        self.all()[start..].iter().map(Extent::stretch)
    }

    /// The first.
    pub(crate) fn first(&self) -> Option<Stretch<'_>> {
        self.all().first().map(Extent::stretch)
    }

    /// The last.
    pub(crate) fn last(&self) -> Option<Stretch<'_>> {
        self.all().last().map(Extent::stretch)
    }

    /// The one that holds `index`.
    pub(crate) fn find(&self, index: u64) -> Option<Stretch<'_>> {
        // Mostly it is about the end of the log.
        let newest = self.all().last()?;
        if newest.first() <= index {
            return Some(newest).filter(|e| index <= e.last()).map(Extent::stretch);
        }
        self.from(index).next().filter(|e| e.first() <= index)
    }

    /// Bytes on the heap, those of the extents included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let list = if let Extents::Many(list) = self { list.capacity() * size_of::<Extent>() } else { 0 };
        list + self.all().iter().map(Extent::heap_bytes).sum::<usize>()
    }
}

// ---- what is done with them ---------------------------------------------------------------------------

impl Extents {
    /// Makes room for `count` in an empty list, and for no more.
    pub(crate) fn reserve(&mut self, count: usize) {
        if count > 1 {
            *self = Extents::Many(Vec::with_capacity(count));
        }
    }

    /// Adds one after the last.
    pub(crate) fn push(&mut self, extent: Extent) {
        match self {
            Extents::None => *self = Extents::One(extent),
            Extents::One(_) => {
                if let Extents::One(one) = std::mem::take(self) {
                    let mut list = Vec::with_capacity(3);
                    list.extend([one, extent]);
                    *self = Extents::Many(list);
                }
            }
            Extents::Many(list) => {
                if list.len() == list.capacity() {
                    list.reserve_exact((list.len() / 8).max(2));
                }
                list.push(extent);
            }
        }
    }

    /// Adds entries of an unsealed segment after the last.
    pub(crate) fn append(&mut self, first: u64, runs: &[TermRun], locs: &[Loc], segment: &Arc<Segment>) {
        match self.all_mut().last_mut() {
            Some(e) if e.is_unsealed() && e.home().id == segment.id && e.last() + 1 == first => {
                e.push(runs, locs)
            }
            _ => self.push(Extent::unsealed(first, runs, locs, segment)),
        }
    }

    /// Drops the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        let kept = self.all().partition_point(|e| e.first() < index);
        match self {
            Extents::Many(list) => list.truncate(kept),
            _ if kept == 0 => *self = Extents::None,
            _ => {}
        }
        if let Some(e) = self.all_mut().last_mut().filter(|e| index <= e.last()) {
            e.keep(e.first(), index - 1);
        }
    }

    /// Drops the entries through `index`.
    pub(crate) fn drop_through(&mut self, index: u64) {
        let gone = self.all().partition_point(|e| e.last() <= index);
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
        if let Some(e) = self.all_mut().first_mut().filter(|e| e.first() <= index) {
            e.keep(index + 1, e.last());
        }
    }

    /// `segment` has its footer now.
    pub(crate) fn use_footer(&mut self, segment: u32) {
        self.all_mut().iter_mut().rev().filter(|e| e.home().id == segment).for_each(Extent::use_footer);
    }

    /// Those of the entries that still lie in one of the sources lie in the copy now. What was rolled back,
    /// compacted or rewritten in the meantime is not touched. Returns which were moved.
    pub(crate) fn relocate(&mut self, moved: &Moved<'_>) -> Vec<Range<u64>> {
        let is_copied = |e: &Extent| {
            e.first() <= moved.last
                && moved.first <= e.last()
                && (moved.sources.contains(&e.home().id) || planted(Bug::CopyOverNewerEntries))
        };
        let mut healed = Vec::new();
        if !self.all().iter().any(is_copied) {
            return healed;
        }
        let mut before = std::mem::take(self);
        for mut e in before.drain() {
            if !is_copied(&e) {
                self.push_joined(e);
                continue;
            }
            if e.first() < moved.first {
                let rest = e.split_off(moved.first);
                self.push_joined(std::mem::replace(&mut e, rest));
            }
            let rest = (moved.last < e.last()).then(|| e.split_off(moved.last + 1));
            healed.push(e.first()..e.last() + 1);
            self.push_joined(moved.place(e));
            if let Some(rest) = rest.filter(|_| !planted(Bug::CleanerDropsTheRest)) {
                self.push_joined(rest);
            }
        }
        healed
    }

    fn drain(&mut self) -> std::vec::IntoIter<Extent> {
        match std::mem::take(self) {
            Extents::None => Vec::new(),
            Extents::One(extent) => vec![extent],
            Extents::Many(list) => list,
        }
        .into_iter()
    }

    /// Adds one after the last, or to the last where they are neighbours in the same sealed segment.
    fn push_joined(&mut self, extent: Extent) {
        let apart = match self.all_mut().last_mut() {
            Some(last) => last.join(extent),
            None => Some(extent),
        };
        if let Some(extent) = apart {
            self.push(extent);
        }
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
