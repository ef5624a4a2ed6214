//! Whether segments count what the regions own in them, and the table what regions there are.

use super::table::Table;
use super::tally::Figures;
use crate::segment::{Live, Segment};
use std::collections::HashMap;
use std::sync::Arc;

impl Table {
    /// Compares what all regions together own of each segment with what it has counted, and the regions with
    /// the table's figures, and says where they differ. Of `segments` it looks also at those of which nobody
    /// owns anything.
    ///
    /// For assertions: it holds the locks of all shards and regions at once, so the caller makes sure that
    /// nobody accepts a batch meanwhile, which may take several.
    pub(crate) fn check_counts(&self, segments: &[Arc<Segment>]) -> Result<(), String> {
        self.with_all(|states| {
            let walked = Figures::of(states.iter().map(|state| &**state));
            if walked != self.figures() {
                return Err(format!("the table counts {:?}, and there are {walked:?}", self.figures()));
            }
            let by_address = |s: &Arc<Segment>| (Arc::as_ptr(s), (s.clone(), Live::default()));
            let mut owned: HashMap<_, _> = segments.iter().map(by_address).collect();
            for extent in states.iter().flat_map(|state| state.extents.iter()) {
                let segment = extent.segment().into_owned();
                let (_, sum) = owned.entry(Arc::as_ptr(&segment)).or_insert((segment, Live::default()));
                sum.entries = sum.entries.wrapping_add(extent.count());
                sum.bytes = sum.bytes.wrapping_add(extent.bytes());
            }
            match owned.values().find(|(segment, owned)| segment.live.get() != *owned) {
                None => Ok(()),
                Some((segment, owned)) => Err(format!(
                    "segment {} counts {:?}, and the regions own {owned:?}",
                    segment.id,
                    segment.live.get()
                )),
            }
        })
    }
}
