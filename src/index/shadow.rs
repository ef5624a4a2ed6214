//! One region's log as it would be after the operations of a batch so far.
//!
//! What is left to the moment of acceptance is chosen here, by the log as it is by then. The choice is what
//! goes to the log, so that replay chooses nothing.

use super::state::TermAt;
use super::table::{RegionCell, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Op, Step};
use crate::limits::INDEX_MAX;
use crate::planted::{Bug, planted};
use crate::report::{Appended, Compacted, Compaction};
use crate::types::{EntryId, Lsn, RegionId, RollbackCause, RollbackScope};
use std::sync::Arc;

/// Entries that a batch is about to discard.
#[derive(Clone, Debug)]
pub(crate) struct Discard {
    pub(crate) region: RegionId,
    /// The region's identity, as it stands in the table.
    pub(crate) incarnation: Lsn,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) cause: RollbackCause,
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

/// What was chosen for the operations of a batch that leave something open, in their order.
#[derive(Default)]
pub(crate) struct Decided {
    /// The operations that take their places.
    pub(crate) ops: Vec<Op>,
    pub(crate) compactions: Vec<Compaction>,
    pub(crate) appends: Vec<Appended>,
}

impl Decided {
    pub(super) fn clear(&mut self) {
        self.ops.clear();
        self.compactions.clear();
        self.appends.clear();
    }
}

/// Where an operation stands: its number in the batch, and where the batch will end in the log. And for what
/// listeners are asked.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) nth: usize,
    pub(super) end: Lsn,
    pub(super) scope: RollbackScope,
}

/// A region's log as it would be after the operations so far.
pub(super) struct Shadow {
    pub(super) region: RegionId,
    pub(super) cell: Option<Arc<RegionCell>>,
    cuts: u32,
    /// The region's, as it stands in the table.
    identity: Lsn,
    exists: bool,
    /// The number of the batch's operation that destroyed it last, and of the one that made it since.
    wiped: Option<usize>,
    made: Option<usize>,
    /// The last entry that the batch names as committed.
    pub(super) committed: Option<u64>,
    pub(super) base: Option<EntryId>,
    /// The log was forgotten, and nothing began it again.
    pub(super) forgotten: bool,
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

impl Shadow {
    pub(super) fn of(table: &Table, region: RegionId) -> Shadow {
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
        let (committed, forgotten, own) = (None, false, Runs::default());
        Shadow {
            region,
            cell,
            cuts,
            identity,
            exists,
            wiped,
            made,
            committed,
            base,
            forgotten,
            live,
            real_end,
            own,
        }
    }

    /// Whether the table has the region.
    pub(super) fn existed(&self) -> bool {
        self.identity > Lsn::ZERO
    }

    pub(super) fn follow(
        &mut self,
        step: &Step<'_>,
        at: Standing,
        discards: &mut Vec<Discard>,
        decided: &mut Decided,
    ) -> Result<()> {
        match step.op {
            Op::Append { first, entries, .. } => {
                let runs = step.runs.iter().map(|r| (r.term, r.entries));
                self.append(*first, u64::from(*entries), runs, discards)?;
            }
            Op::AppendNext { entries, runs, .. } => {
                let first = self.next().unwrap_or(1);
                let terms = step.runs.iter().map(|r| (r.term, r.entries));
                self.append(first, u64::from(*entries), terms, discards)?;
                decided.ops.push(Op::AppendNext { first, entries: *entries, runs: *runs });
                decided.appends.push(Appended {
                    region: self.region,
                    first,
                    last: first + u64::from(*entries) - 1,
                });
            }
            Op::TruncateFrom(index) => self.truncate(*index, RollbackCause::Replaced, discards),
            Op::CompactThrough(id) => self.compact(*id)?,
            Op::CompactTo { incarnation, id } => {
                let since = at.nth.saturating_sub(id.term as usize);
                let (op, done) = self.compact_to(id.index, *incarnation, since, at.end);
                decided.ops.push(op);
                decided.compactions.push(Compaction { region: self.region, index: id.index, done });
                return Ok(());
            }
            Op::ForgetLog => {
                if !planted(Bug::ForgottenUnasked) {
                    self.truncate(0, RollbackCause::Replaced, discards);
                }
                self.reset(None);
                self.forgotten = true;
            }
            Op::Reset(base) => {
                if !planted(Bug::ResetUnasked) {
                    let from = self.rolled_back_from(Some(*base), at.scope);
                    self.truncate(from, RollbackCause::Reset, discards);
                }
                self.reset(Some(*base));
            }
            Op::Destroy => {
                let from = self.rolled_back_from(None, at.scope);
                self.truncate(from, RollbackCause::Destroyed, discards);
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

    /// The index after the last entry, or after the base.
    fn next(&self) -> Option<u64> {
        self.live.map(|l| l.1 + 1).or(self.base.map(|b| b.index + 1))
    }

    /// Whether entries can stand there, the first of them with this term.
    fn check_append(&self, first: u64, entries: u64, term: Option<u64>) -> Result<()> {
        let named = first..=first.saturating_add(entries - 1);
        let refuse =
            |kind, text: String| Err(Error::new(kind, text).in_region(self.region).naming(named.clone()));
        if *named.end() > INDEX_MAX {
            let text = format!("append at {first} refused: the highest index is INDEX_MAX, {INDEX_MAX}");
            return refuse(ErrorKind::TooLarge, text);
        }
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
        if let Some(next) = self.next()
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
        if let (Some(before), Some(term)) = (before, term)
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
        Ok(())
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
        self.check_append(first, entries, runs.clone().next().map(|(term, _)| term))?;
        self.truncate(first, RollbackCause::Replaced, discards);
        let mut index = first;
        for (term, n) in &mut runs {
            self.own.push(index, term);
            index += u64::from(n);
        }
        let last = first + (entries - 1);
        self.live = Some((self.live.map_or(first, |l| l.0), last));
        self.forgotten = false;
        Ok(())
    }

    fn truncate(&mut self, index: u64, cause: RollbackCause, discards: &mut Vec<Discard>) {
        let Some((first, last)) = self.live.filter(|l| index <= l.1) else { return };
        let from = index.max(first);
        if from < self.real_end
            && let Some(cell) = &self.cell
        {
            discards.push(Discard {
                region: self.region,
                incarnation: self.identity,
                first: from,
                last: self.real_end - 1,
                cause,
                cell: cell.clone(),
                cuts: self.cuts,
            });
            self.real_end = from;
        }
        self.own.cut_from(from);
        self.live = (from > first).then(|| (first, from - 1));
        debug_assert!(from <= last);
    }

    /// The first index whose entry is rolled back, and not superseded, where the log is emptied: for `base`,
    /// which a snapshot covers, or because the region is destroyed.
    fn rolled_back_from(&self, base: Option<EntryId>, scope: RollbackScope) -> u64 {
        match (scope, self.committed, base) {
            (RollbackScope::All, ..) => 0,
            (_, Some(committed), _) => committed.saturating_add(1),
            // What has another term than the base is another entry. Where no term can be read, none is known
            // to be.
            (_, None, Some(base)) => match self.term(base.index) {
                Ok(Some(term)) if term != base.term => base.index,
                _ => base.index.saturating_add(1),
            },
            (_, None, None) => u64::MAX,
        }
    }

    pub(super) fn compact(&mut self, id: EntryId) -> Result<()> {
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

    fn drop_through(&mut self, id: EntryId) {
        self.live = self.live.filter(|l| id.index < l.1).map(|l| (id.index + 1, l.1));
        self.base = Some(id);
    }

    fn reset(&mut self, base: Option<EntryId>) {
        (self.base, self.live, self.real_end) = (base, None, 0);
        self.forgotten = false;
        self.own = Runs::default();
    }

    // ---- what is left to acceptance ----------------------------------------------------------------------

    /// Compacts to `index`, which is never refused.
    ///
    /// `seen` is the region's identity in the table when the operation was added, and `since` the number of
    /// the first operation of the batch that it was added to. Batches are joined: what was meant for the
    /// region that another one of them destroys must not touch the next.
    fn compact_to(&mut self, index: u64, seen: Lsn, since: usize, end: Lsn) -> (Op, Compacted) {
        let is_own = |nth: Option<usize>| nth.is_some_and(|nth| nth >= since);
        let is_meant = match self.wiped {
            Some(_) => is_own(self.wiped),
            None if seen == Lsn::ZERO => self.identity == seen && is_own(self.made),
            None => self.identity == seen,
        };
        let chosen = match self.exists && is_meant {
            false => Err(Compacted::Gone),
            true => self.last_to_drop(index),
        };
        let (id, done) = match chosen {
            Ok((first, base)) => {
                self.drop_through(base);
                (base, Compacted::Dropped { first, base })
            }
            Err(nothing) => return (void(), nothing),
        };
        let is_stored = self.wiped.is_none() && self.identity > Lsn::ZERO;
        let incarnation = if is_stored { self.identity } else { end };
        (Op::CompactTo { incarnation, id }, done)
    }

    /// The first entry that a compaction to `index` drops, and the last.
    fn last_to_drop(&self, index: u64) -> Result<(u64, EntryId), Compacted> {
        let (first, last) = self.live.filter(|live| live.0 <= index).ok_or(Compacted::Nothing)?;
        let index = index.min(last);
        match self.term(index) {
            Ok(Some(term)) => Ok((first, EntryId::new(term, index))),
            _ => Err(Compacted::Unreadable),
        }
    }
}

/// Found nothing to drop.
fn void() -> Op {
    Op::CompactTo { incarnation: Lsn::ZERO, id: EntryId::default() }
}
