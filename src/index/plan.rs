//! Decides whether a batch may be accepted, before anything of it is.
//!
//! The operations of a batch apply in order, also within one region, so each region that the batch
//! touches is followed through the batch in a small [`Shadow`] of its log. What would break a log is refused
//! there, with both indexes named.

use super::shadow::{Decided, Discard, Shadow, Standing};
use super::table::{RegionCell, Table};
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Op};
use crate::planted::{Bug, planted};
use crate::types::{EntryId, IdHasher, Lsn, RegionId, RollbackScope};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// What acceptance needs to know of a batch. Used again and again, for its memory.
#[derive(Default)]
pub(crate) struct Planned {
    /// Entries that stand now and will not afterwards, and that nothing is known to supersede.
    pub(crate) discards: Vec<Discard>,
    /// What was chosen for what the batch leaves open.
    pub(crate) decided: Decided,
    /// The batch comes back to a region after operations on another one.
    pub(crate) returns: bool,
    /// The regions, in the order in which the batch comes to them.
    shadows: Vec<Shadow>,
    places: Places,
}

/// Of more regions than this the memory is given back.
const KEPT_MAX: usize = 1024;

impl Planned {
    /// Follows `batch`, which will end at `end`, through the table as it stands. The caller holds the commit
    /// lock.
    pub(crate) fn plan(
        &mut self,
        table: &Table,
        batch: &Batch,
        end: Lsn,
        scope: RollbackScope,
    ) -> Result<()> {
        self.clear();
        let mut forgets = false;
        let mut committed = batch.committed.iter().peekable();
        for (nth, step) in batch.steps().enumerate() {
            forgets |= *step.op == Op::ForgetLog;
            while let Some(named) = committed.next_if(|named| named.ops_before <= nth) {
                let at = self.come_to(table, named.region);
                let shadow = &mut self.shadows[at];
                shadow.committed = shadow.committed.max(Some(named.index));
            }
            let at = self.come_to(table, step.region);
            let standing = Standing { nth, end, scope };
            let shadow = &mut self.shadows[at];
            if let Err(refused) = shadow.follow(&step, standing, &mut self.discards, &mut self.decided) {
                self.clear();
                return Err(refused);
            }
        }
        let without = self.shadows.iter().find(|s| forgets && s.forgotten).map(|s| s.region);
        match without {
            Some(region) if !planted(Bug::LogForgottenForGood) => {
                self.clear();
                Err(Error::invalid(
                    "forget_log() refused: nothing after it in the batch begins the log again; append to the region, or reset it",
                )
                .in_region(region))
            }
            _ => Ok(()),
        }
    }

    /// The number of the region's shadow, which is made if there is none.
    fn come_to(&mut self, table: &Table, region: RegionId) -> usize {
        match self.places.of(region, &self.shadows) {
            Some(at) => {
                self.returns |= at + 1 < self.shadows.len();
                at
            }
            None => {
                self.shadows.push(Shadow::of(table, region));
                self.shadows.len() - 1
            }
        }
    }

    /// Forgets the batch.
    pub(crate) fn clear(&mut self) {
        self.discards.clear();
        self.decided.clear();
        self.returns = false;
        self.shadows.clear();
        self.shadows.shrink_to(KEPT_MAX);
        self.places = Places::default();
    }

    /// Whether the region was there before the batch, if that comes to it.
    pub(crate) fn existed(&self, region: RegionId) -> bool {
        self.shadows.iter().any(|shadow| shadow.region == region && shadow.existed())
    }

    /// The state of the region that the batch comes to as the `nth`, if that is this one and it was there.
    pub(crate) fn cell(&self, nth: usize, region: RegionId) -> Option<&RegionCell> {
        self.shadows.get(nth).filter(|s| s.region == region)?.cell.as_deref()
    }
}

/// Finds the shadow of a region. Few are searched one by one, which takes no memory; many are not, because
/// that would take quadratic time under the commit lock.
#[derive(Default)]
struct Places {
    by_region: HashMap<RegionId, usize, BuildHasherDefault<IdHasher>>,
}

const SEARCHED_MAX: usize = 64;

impl Places {
    fn of(&mut self, region: RegionId, shadows: &[Shadow]) -> Option<usize> {
        // A section mostly has several operations; a batch seldom returns to a region.
        let last = shadows.len().checked_sub(1)?;
        if shadows[last].region == region {
            return Some(last);
        }
        if shadows.len() <= SEARCHED_MAX {
            return shadows.iter().rposition(|s| s.region == region);
        }
        let known = self.by_region.len();
        self.by_region.extend(shadows.iter().enumerate().skip(known).map(|(at, s)| (s.region, at)));
        self.by_region.get(&region).copied()
    }
}

/// The term of `index` in `region` as it would be after the operations of `batch`, for a
/// compaction that joins it.
///
/// `Ok(None)` when the index is compacted already, or lies before the first entry: nothing to do.
pub(crate) fn compaction_term(
    table: &Table,
    batch: &Batch,
    region: RegionId,
    index: u64,
) -> Result<Option<EntryId>> {
    let mut shadow = Shadow::of(table, region);
    let (mut discards, mut decided) = (Vec::new(), Decided::default());
    for (nth, step) in batch.steps().enumerate().filter(|(_, s)| s.region == region) {
        let at = Standing { nth, end: Lsn::ZERO, scope: RollbackScope::default() };
        shadow.follow(&step, at, &mut discards, &mut decided)?;
    }
    let below = shadow.base.is_some_and(|b| index <= b.index) || shadow.live.is_some_and(|l| index < l.0);
    if below {
        return Ok(None);
    }
    let id = EntryId::new(shadow.term(index)?.unwrap_or(0), index);
    shadow.compact(id)?;
    Ok(Some(id))
}
