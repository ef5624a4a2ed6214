//! The segments that the rows of a strip lie in.

use crate::segment::Segment;
use std::ops::Deref;
use std::sync::Arc;

/// A list of segments, in the order of a log. Where many regions append little each, most lie in the same
/// segments, and have one list together: the newest list that ends with a segment is known to that.
#[derive(Clone, Debug)]
pub(super) struct Homes(Arc<[Arc<Segment>]>);

impl Homes {
    /// These segments.
    pub(super) fn of<'a>(list: impl DoubleEndedIterator<Item = &'a Arc<Segment>> + Clone) -> Homes {
        let newest = list.clone().next_back().map(|last| &last.list_to_here);
        let is_same =
            |known: &Arc<[Arc<Segment>]>| known.iter().map(Arc::as_ptr).eq(list.clone().map(Arc::as_ptr));
        let known = newest.and_then(|newest| newest.lock().clone()?.upgrade()).filter(is_same);
        Homes(known.unwrap_or_else(|| {
            let fresh: Arc<[Arc<Segment>]> = list.cloned().collect();
            if let Some(newest) = newest {
                *newest.lock() = Some(Arc::downgrade(&fresh));
            }
            fresh
        }))
    }

    /// Bytes on the heap, in equal parts for those who share it.
    pub(super) fn heap_bytes(&self) -> usize {
        (size_of_val(&*self.0) + 2 * size_of::<usize>()).div_ceil(Arc::strong_count(&self.0))
    }
}

impl Deref for Homes {
    type Target = [Arc<Segment>];

    fn deref(&self) -> &[Arc<Segment>] {
        &self.0
    }
}
