//! The extents of one region, in the order of their indexes.

use super::extent::Extent;
use std::ops::{Deref, DerefMut};

/// A list that takes no memory of its own for one extent, which is all that most regions have, and
/// keeps little in reserve: with a thousand regions in each of a hundred segments the slack of
/// doubling would be most of the index.
#[derive(Clone, Debug, Default)]
pub(crate) enum Extents {
    #[default]
    None,
    One(Extent),
    Many(Vec<Extent>),
}

/// A list keeps room for no more extents than this beyond twice what it holds.
const SLACK_MAX: usize = 8;

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
                let mut list = Vec::with_capacity(3);
                list.extend(self.pop());
                list.push(extent);
                *self = Extents::Many(list);
            }
            Extents::Many(list) => {
                if list.len() == list.capacity() {
                    list.reserve_exact((list.len() / 8).max(2));
                }
                list.push(extent);
            }
        }
    }

    /// The same, as one with the last where they are neighbours in the same sealed segment.
    pub(crate) fn push_joined(&mut self, extent: Extent) {
        if !self.last_mut().is_some_and(|last| last.join(&extent)) {
            self.push(extent);
        }
    }

    /// Takes the last.
    pub(crate) fn pop(&mut self) -> Option<Extent> {
        if let Extents::Many(list) = self {
            return list.pop();
        }
        match std::mem::take(self) {
            Extents::One(extent) => Some(extent),
            _ => None,
        }
    }

    /// Takes the first `count`.
    pub(crate) fn drop_first(&mut self, count: usize) {
        match self {
            _ if count == 0 => {}
            Extents::Many(list) => {
                list.drain(..count);
                if list.capacity() > 2 * list.len() + SLACK_MAX {
                    list.shrink_to_fit();
                }
            }
            _ => *self = Extents::None,
        }
    }

    /// Bytes on the heap, those of the extents included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let list = if let Extents::Many(list) = self { list.capacity() * size_of::<Extent>() } else { 0 };
        list + self.iter().map(Extent::heap_bytes).sum::<usize>()
    }
}

impl Deref for Extents {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        match self {
            Extents::None => &[],
            Extents::One(extent) => std::slice::from_ref(extent),
            Extents::Many(list) => list,
        }
    }
}

impl DerefMut for Extents {
    fn deref_mut(&mut self) -> &mut [Extent] {
        match self {
            Extents::None => &mut [],
            Extents::One(extent) => std::slice::from_mut(extent),
            Extents::Many(list) => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::checkpoint::ExtentRecord;
    use crate::format::file_header::{FileKind, Identity, StoreId};
    use crate::random::Rng;
    use crate::segment::Segment;
    use std::sync::Arc;

    fn segment() -> Arc<Segment> {
        let identity = Identity { store: StoreId([7; 16]), file: 3, salt: 9 };
        Arc::new(Segment::lost(identity, FileKind::Log, "3.log".into()).unwrap())
    }

    fn record(first: u64, count: u64, terms: (u64, u64), bytes: u64) -> ExtentRecord {
        ExtentRecord { segment: 3, first, count, first_term: terms.0, last_term: terms.1, bytes }
    }

    #[test]
    fn an_extent_is_24_bytes_and_what_does_not_fit_stands_apart() {
        assert_eq!((size_of::<Extent>(), size_of::<Extents>()), (24, 32));
        let segment = segment();
        let mut boxed = 0;
        for count in [1, 2, (1 << 14) - 1, 1 << 14, u64::from(u32::MAX)] {
            for terms in
                [(0, 0), ((1 << 20) - 1, (1 << 20) - 1), (1 << 20, 1 << 20), (7, 8), (u64::MAX, u64::MAX)]
            {
                for bytes in [0, (1 << 22) - 1, 1 << 22, u64::MAX >> 8] {
                    let record = record(u64::MAX - 1 - count, count, terms, bytes);
                    let mut extent = Extent::sealed(&record, &segment);
                    assert_eq!(extent.record(), record);
                    boxed += u64::from(extent.heap_bytes() > 0);
                    let last = extent.last();
                    if count > 1 {
                        extent.cut_through(record.first);
                        assert_eq!((extent.first(), extent.last()), (record.first + 1, last));
                    }
                    extent.release();
                    assert_eq!((segment.live_entries(), segment.live_bytes()), (0, 0), "{record:?}");
                }
            }
        }
        assert_eq!(boxed, 5 * 5 * 4 - 3 * 2 * 2, "those of few entries and bytes in one low term are not");
    }

    #[test]
    fn a_list_of_extents_is_a_queue_open_at_both_ends() {
        let segment = segment();
        let mut random = Rng::new(11);
        for _ in 0..200 {
            let (mut list, mut model) = (Extents::default(), Vec::new());
            let mut next = 0;
            for _ in 0..60 {
                match random.below(5) {
                    0 => assert_eq!(list.pop().map(|e| e.first()), model.pop()),
                    1 => {
                        let count = random.below(model.len() as u64 + 1) as usize;
                        list.drop_first(count);
                        model.drain(..count);
                    }
                    _ => {
                        next += 1;
                        list.push(Extent::sealed(&record(next, 1, (1, 1), 1), &segment));
                        model.push(next);
                    }
                }
                assert_eq!(list.iter().map(Extent::first).collect::<Vec<_>>(), model);
                let slack = list.heap_bytes() / 24;
                assert!(slack <= 2 * model.len() + SLACK_MAX.max(48), "{slack} for {}", model.len());
            }
        }
    }

    #[test]
    fn neighbours_in_a_sealed_segment_become_one() {
        let segment = segment();
        let mut list = Extents::default();
        for (first, terms) in [(1, (4, 4)), (2, (4, 4)), (3, (4, 5)), (4, (5, 5))] {
            list.push_joined(Extent::sealed(&record(first, 1, terms, 10), &segment));
        }
        assert_eq!(list.iter().map(Extent::record).collect::<Vec<_>>(), [record(1, 4, (4, 5), 40)]);
    }
}
