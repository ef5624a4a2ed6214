//! Decides whether a batch may be accepted, before anything of it is.
//!
//! The operations of a batch apply in order, also within one region, so each region that the batch
//! touches is followed through the batch in a small shadow of its log. What would break a log is refused
//! here, with both indexes named.

use super::decide::{Decided, Standing};
use super::state::TermAt;
use super::table::{RegionCell, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Batch, Op, Step};
use crate::planted::{Bug, planted};
use crate::report::Compaction;
use crate::types::{EntryId, IdHasher, Lsn, RegionId};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// Entries that a batch is about to discard.
#[derive(Clone, Debug)]
pub(crate) struct Discard {
    pub(crate) region: RegionId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The region's state, and how often entries were [discarded](super::RegionState::cuts) from it so far:
    /// the same index is the same entry only as long as both are the same.
    cell: Arc<RegionCell>,
    cuts: u32,
}

impl Discard {
    /// Whether a listener that was shown these entries was shown the `other` ones. What does not discard
    /// entries (keys, the hard state, a compaction) changes nothing about that.
    pub(crate) fn covers(&self, other: &Discard) -> bool {
        let same_log = Arc::ptr_eq(&self.cell, &other.cell) && self.cuts == other.cuts;
        same_log && self.first <= other.first && other.last <= self.last
    }
}

/// What acceptance needs to know of a batch. Used again and again, for its memory.
#[derive(Default)]
pub(crate) struct Planned {
    /// Entries that stand now and will not afterwards because an append or truncation discards them.
    pub(crate) discards: Vec<Discard>,
    /// What was chosen for what the batch leaves open.
    pub(crate) decided: Decided,
    /// The batch comes back to a region after operations on another one.
    pub(crate) returns: bool,
    /// The regions, in the order in which the batch comes to them.
    shadows: Vec<Shadow>,
    places: Places,
}

/// A region's log as it would be after the operations so far.
pub(super) struct Shadow {
    region: RegionId,
    cell: Option<Arc<RegionCell>>,
    cuts: u32,
    /// As it stands in the table.
    pub(super) identity: Lsn,
    pub(super) exists: bool,
    /// The number of the batch's operation that destroyed it last, and of the one that made it since, or at all.
    pub(super) wiped: Option<usize>,
    pub(super) made: Option<usize>,
    base: Option<EntryId>,
    /// First and last live index.
    pub(super) live: Option<(u64, u64)>,
    /// Entries of the real log below this index still count; those from here on were discarded in this batch.
    real_end: u64,
    /// Runs that this batch appended and not discarded.
    own: Runs,
}

/// First index and term of each run. Mostly there is one, which takes no memory of its own.
#[derive(Default)]
struct Runs {
    first: Option<(u64, u64)>,
    more: Vec<(u64, u64)>,
}

impl Runs {
    fn push(&mut self, index: u64, term: u64) {
        match self.more.last().copied().or(self.first) {
            None => self.first = Some((index, term)),
            Some(last) if last.1 == term => {}
            Some(_) => self.more.push((index, term)),
        }
    }

    /// The term at `index`, unless it lies below the first run.
    fn term(&self, index: u64) -> Option<u64> {
        let at = self.more.partition_point(|run| run.0 <= index);
        let run = at.checked_sub(1).map(|at| self.more[at]).or(self.first)?;
        (run.0 <= index).then_some(run.1)
    }

    /// Discards the runs that begin at `index` or beyond.
    fn cut_from(&mut self, index: u64) {
        self.first = self.first.filter(|run| run.0 < index);
        self.more.retain(|run| run.0 < index);
    }
}

/// Of more regions than this the memory is given back.
const KEPT_MAX: usize = 1024;

impl Planned {
    /// Follows `batch`, which will end at `end`, through the table as it stands. The caller holds the commit lock.
    pub(crate) fn plan(&mut self, table: &Table, batch: &Batch, end: Lsn) -> Result<()> {
        self.clear();
        for (nth, step) in batch.steps().enumerate() {
            let at = match self.places.of(step.region, &self.shadows) {
                Some(at) => {
                    self.returns |= at + 1 < self.shadows.len();
                    at
                }
                None => {
                    self.shadows.push(Shadow::of(table, step.region));
                    self.shadows.len() - 1
                }
            };
            let standing = Standing { nth, end };
            let shadow = &mut self.shadows[at];
            if let Err(refused) = shadow.follow(&step, standing, &mut self.discards, &mut self.decided) {
                self.clear();
                return Err(refused);
            }
        }
        Ok(())
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

impl Shadow {
    fn of(table: &Table, region: RegionId) -> Shadow {
        let cell = table.get(region);
        let (cuts, identity, base, live) = match &cell {
            None => (0, Lsn::ZERO, None, None),
            Some(cell) => {
                let s = cell.read();
                (s.cuts, s.identity(), s.base, s.first().zip(s.last()))
            }
        };
        let real_end = live.map_or(0, |l| l.1 + 1);
        let (exists, wiped, made) = (identity > Lsn::ZERO, None, None);
        let own = Runs::default();
        Shadow { region, cell, cuts, identity, exists, wiped, made, base, live, real_end, own }
    }

    fn follow(
        &mut self,
        step: &Step<'_>,
        at: Standing,
        discards: &mut Vec<Discard>,
        decided: &mut Decided,
    ) -> Result<()> {
        match step.op {
            Op::Append { first, entries, .. } | Op::AppendNext { first, entries, .. } => {
                let runs = step.runs.iter().map(|r| (r.term, r.entries));
                self.append(*first, u64::from(*entries), runs, discards)?;
            }
            Op::TruncateFrom(index) => self.truncate(*index, discards),
            Op::CompactThrough(id) => self.compact(*id)?,
            Op::CompactTo { incarnation, id } => {
                let since = at.nth.saturating_sub(id.term as usize);
                let (op, done) = self.compact_to(id.index, *incarnation, since, at);
                decided.ops.push(op);
                decided.compactions.push(Compaction { region: self.region, index: id.index, done });
                return Ok(());
            }
            Op::ForgetLog => self.reset(None),
            Op::Reset(base) => self.reset(Some(*base)),
            Op::Destroy => {
                self.reset(None);
                (self.exists, self.wiped, self.made) = (false, Some(at.nth), None);
                return Ok(());
            }
            Op::SetHardState(_) | Op::Put { .. } | Op::Delete { .. } => {}
        }
        if !self.exists {
            (self.exists, self.made) = (true, Some(at.nth));
        }
        Ok(())
    }

    pub(super) fn term(&self, index: u64) -> Result<Option<u64>> {
        if let Some(term) = self.own.term(index) {
            return Ok(Some(term));
        }
        if let Some(base) = self.base.filter(|b| b.index == index) {
            return Ok(Some(base.term));
        }
        match &self.cell {
            Some(cell) if index < self.real_end => match cell.read().term(self.region, index)? {
                TermAt::Term(term) => Ok(Some(term)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn append(
        &mut self,
        first: u64,
        entries: u64,
        mut runs: impl Iterator<Item = (u64, u32)> + Clone,
        discards: &mut Vec<Discard>,
    ) -> Result<()> {
        if entries == 0 {
            return Ok(());
        }
        let named = first..=first.saturating_add(entries - 1);
        let refuse =
            |kind, text: String| Err(Error::new(kind, text).in_region(self.region).naming(named.clone()));
        if let Some(base) = self.base
            && first <= base.index
            && !planted(Bug::AppendBelowBase)
        {
            return refuse(
                ErrorKind::Compacted,
                format!(
                    "append at {first} refused: the log is compacted through {}; append from {} on",
                    base.index,
                    base.index + 1
                ),
            );
        }
        let next = self.live.map(|l| l.1 + 1).or(self.base.map(|b| b.index + 1));
        if let Some(next) = next
            && first > next
            && !planted(Bug::GapAccepted)
        {
            return refuse(
                ErrorKind::Gap,
                format!(
                    "append at {first} refused: it would leave a gap, the next index is {next}; \
                     to start after a snapshot use reset()"
                ),
            );
        }
        let before = match (first.checked_sub(1), self.live) {
            (Some(i), Some((live_first, _))) if i >= live_first => self.term(i)?,
            (Some(i), _) if self.base.is_some_and(|b| b.index == i) => self.term(i)?,
            _ => None,
        };
        if let (Some(before), Some((term, _))) = (before, runs.clone().next())
            && term < before
            && !planted(Bug::TermFalls)
        {
            return refuse(
                ErrorKind::TermRegression,
                format!(
                    "append of entry {first} with term {term} refused: entry {} has term {before}, and terms never fall",
                    first - 1
                ),
            );
        }
        self.truncate(first, discards);
        let mut index = first;
        for (term, n) in &mut runs {
            self.own.push(index, term);
            index += u64::from(n);
        }
        let last = first + (entries - 1);
        self.live = Some((self.live.map_or(first, |l| l.0), last));
        Ok(())
    }

    fn truncate(&mut self, index: u64, discards: &mut Vec<Discard>) {
        let Some((first, last)) = self.live.filter(|l| index <= l.1) else { return };
        let from = index.max(first);
        if from < self.real_end
            && let Some(cell) = &self.cell
        {
            discards.push(Discard {
                region: self.region,
                first: from,
                last: self.real_end - 1,
                cell: cell.clone(),
                cuts: self.cuts,
            });
            self.real_end = from;
        }
        self.own.cut_from(from);
        self.live = (from > first).then(|| (first, from - 1));
        debug_assert!(from <= last);
    }

    fn compact(&mut self, id: EntryId) -> Result<()> {
        if self.base.is_some_and(|b| id.index <= b.index) {
            return Ok(());
        }
        let refuse = |kind, text: String| {
            Err(Error::new(kind, text).in_region(self.region).naming(id.index..=id.index))
        };
        let last = match self.live {
            Some((first, _)) if id.index < first => {
                return refuse(
                    ErrorKind::InvalidArgument,
                    format!(
                        "compact_through({}) refused: the log starts at {first} now; build the batch again",
                        id.index
                    ),
                );
            }
            Some((_, last)) => Some(last),
            None => self.base.map(|b| b.index),
        };
        if last.is_none_or(|last| id.index > last) {
            let last = last.map_or("there is none".to_string(), |l| format!("the last is {l}"));
            return refuse(
                ErrorKind::Unavailable,
                format!("compact_through({}) refused: {last}; to go beyond the log use reset()", id.index),
            );
        }
        match self.term(id.index)? {
            Some(term) if term == id.term => {}
            term => {
                return refuse(
                    ErrorKind::InvalidArgument,
                    format!(
                        "compact_through({}) refused: the batch was built when the entry had term {}, now it has {term:?}; \
                         build it again",
                        id.index, id.term
                    ),
                );
            }
        }
        self.drop_through(id);
        Ok(())
    }

    pub(super) fn drop_through(&mut self, id: EntryId) {
        self.live = self.live.filter(|l| id.index < l.1).map(|l| (id.index + 1, l.1));
        self.base = Some(id);
    }

    fn reset(&mut self, base: Option<EntryId>) {
        (self.base, self.live, self.real_end) = (base, None, 0);
        self.own = Runs::default();
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
        shadow.follow(&step, Standing { nth, end: Lsn::ZERO }, &mut discards, &mut decided)?;
    }
    let below = shadow.base.is_some_and(|b| index <= b.index) || shadow.live.is_some_and(|l| index < l.0);
    if below {
        return Ok(None);
    }
    let id = EntryId::new(shadow.term(index)?.unwrap_or(0), index);
    shadow.compact(id)?;
    Ok(Some(id))
}
