//! Which regions keep the oldest segments alive.
//!
//! Most who ask want a few, and there may be a hundred thousand regions. The footer of a sealed segment lists
//! the regions that it has entries of, so segments are looked at from the oldest on, until as many regions
//! are found as are wanted: the others are not touched. Only where that leads to a segment without a footer,
//! which lists nothing, all regions are looked at once. Nothing is kept of a region but of those that are
//! returned.

use super::Store;
use crate::format::footer::Footer;
use crate::index::RegionCell;
use crate::report::Pin;
use crate::segment::Segment;
use crate::sync::Arc;
use crate::types::RegionId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

impl Store {
    /// Regions whose entries keep the oldest segments alive, oldest first.
    pub(crate) fn pins(&self, limit: usize) -> Vec<Pin> {
        let newest = self.committer.active_id();
        let mut segments = self.all_segments();
        segments.sort_unstable_by_key(|s| s.id);
        let mut first = First { limit, found: BinaryHeap::new() };
        for segment in segments.iter().filter(|s| s.live.entries() > 0) {
            if first.found.len() >= limit {
                break;
            }
            let Some(footer) = listing(segment) else {
                self.table.cells().for_each(|cell| first.add(&cell, |oldest| oldest >= segment.id));
                break;
            };
            // Ranges of a region stand next to each other.
            let mut before = None;
            for region in footer.ranges().map(|range| range.region()) {
                if before.replace(region) != Some(region)
                    && let Some(cell) = self.table.get(region)
                {
                    first.add(&cell, |oldest| oldest == segment.id);
                }
            }
        }
        let mut seen = HashSet::new();
        let found = first.found.into_sorted_vec().into_iter();
        // A region that was compacted meanwhile was met twice.
        found.map(|found| found.pin(newest)).filter(|pin| seen.insert(pin.region)).collect()
    }
}

/// The footer of a segment in which something lives, unless it is not there or cannot be read.
fn listing(segment: &Segment) -> Option<Arc<Footer>> {
    segment.footer().filter(|footer| footer.ranges().next().is_some())
}

/// The first few of those that are added, the last of them on top.
struct First {
    limit: usize,
    found: BinaryHeap<Found>,
}

/// A region, in the order in which they are returned: what holds the oldest segment first, then what is
/// large.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    oldest: u32,
    bytes: Reverse<u64>,
    region: RegionId,
    garbage_percent: u8,
    first: u64,
    last: u64,
}

impl First {
    /// Adds the region if its oldest segment is one of these.
    fn add(&mut self, cell: &RegionCell, is_wanted: impl Fn(u32) -> bool) {
        let state = cell.read();
        let Some(extent) = state.extents.iter().min_by_key(|e| e.segment_id()) else { return };
        let (oldest, Some(first), Some(last)) = (extent.segment_id(), state.first(), state.last()) else {
            return;
        };
        if !is_wanted(oldest) {
            return;
        }
        let bytes = Reverse(state.extents.iter().map(|e| e.bytes()).sum());
        let garbage_percent = extent.segment().garbage_percent();
        self.found.push(Found { oldest, bytes, region: cell.id, garbage_percent, first, last });
        if self.found.len() > self.limit {
            self.found.pop();
        }
    }
}

impl Found {
    fn pin(self, newest: u32) -> Pin {
        let Found { oldest, bytes: Reverse(bytes), region, garbage_percent, first, last } = self;
        let age = newest.saturating_sub(oldest);
        Pin { region, oldest_segment: oldest, age, garbage_percent, first, last, bytes }
    }
}
