//! Entries that were copied are read from their copy.

use super::extents::Moved;
use super::table::Table;
use crate::segment::Segment;
use std::sync::Arc;

impl Table {
    /// Points the regions at `cold` for what it has of theirs and still lies in one of the `sources`.
    pub(crate) fn relocate(&self, cold: &Arc<Segment>, sources: &[u32]) {
        let Some(footer) = cold.footer() else { return };
        for range in footer.ranges() {
            if let Some(cell) = self.get(range.region()) {
                let (first, last, bytes) = (range.first(), range.last(), range.bytes());
                self.change(&cell).relocate(&Moved { first, last, bytes, sources, cold });
            }
        }
    }
}
