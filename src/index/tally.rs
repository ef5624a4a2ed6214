//! How many regions there are and how many are in trouble, counted as they change: nobody walks them.
//!
//! A state is changed through a [`Changing`] alone, which looks at it before and after, under the region's
//! own lock. What is counted is therefore what a walk would find (`counts.rs` compares the two).

use super::state::RegionState;
use crate::planted::{Bug, planted};
use crate::sync::{Mutex, RwLockWriteGuard};
use crate::types::RegionId;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is counted of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    exists: bool,
    condition: Condition,
    hard_state_lost: bool,
}

/// What a region's health comes to, without the indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Condition {
    #[default]
    Healthy,
    Suspect,
    Damaged,
}

impl Counted {
    fn of(state: &RegionState) -> Counted {
        let (condition, hard_state_lost) = match &state.damage {
            None => (Condition::Healthy, false),
            Some(d) if d.is_only_suspect() => (Condition::Suspect, false),
            Some(d) => (Condition::Damaged, d.hard_state_lost),
        };
        Counted { exists: state.exists, condition, hard_state_lost }
    }
}

/// The figures.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Cells of the table, those of destroyed regions included.
    cells: AtomicU64,
    existing: AtomicU64,
    suspect: AtomicU64,
    damaged: AtomicU64,
    hard_states_lost: AtomicU64,
    /// Whether somebody will ask what changed.
    watched: AtomicBool,
    /// Regions whose condition has changed since somebody asked.
    changed: Mutex<Vec<RegionId>>,
    any_changed: AtomicBool,
}

/// How many regions there are of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) existing: u64,
    /// Not existing, and still in the table.
    pub(crate) destroyed: u64,
    pub(crate) suspect: u64,
    /// Those whose hard state is lost are among them.
    pub(crate) damaged: u64,
    pub(crate) hard_states_lost: u64,
}

impl Figures {
    /// Those of all states of a table.
    pub(super) fn of<'a>(states: impl Iterator<Item = &'a RegionState>) -> Figures {
        let tally = Tally::default();
        states.for_each(|state| tally.added(state));
        tally.figures()
    }
}

impl Tally {
    pub(super) fn figures(&self) -> Figures {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let existing = get(&self.existing);
        Figures {
            existing,
            // The two are not read at one moment.
            destroyed: get(&self.cells).saturating_sub(existing),
            suspect: get(&self.suspect),
            damaged: get(&self.damaged),
            hard_states_lost: get(&self.hard_states_lost),
        }
    }

    /// The table has a cell more, in this state.
    pub(super) fn added(&self, state: &RegionState) {
        self.cells.fetch_add(1, Ordering::Relaxed);
        self.moved(Counted::default(), Counted::of(state));
    }

    /// The cell of a region that does not exist has left the table.
    pub(super) fn forgotten(&self) {
        self.cells.fetch_sub(u64::from(!planted(Bug::FigureOfDestroyedKept)), Ordering::Relaxed);
    }

    /// From now on changes of condition are kept for [`take_changed`](Tally::take_changed).
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// The regions whose condition has changed since the last call, each once.
    pub(super) fn take_changed(&self) -> Vec<RegionId> {
        if !self.any_changed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut changed = self.changed.lock();
        self.any_changed.store(false, Ordering::Relaxed);
        let mut taken = std::mem::take(&mut *changed);
        drop(changed);
        taken.sort_unstable();
        taken.dedup();
        taken
    }

    fn note(&self, region: RegionId) {
        if self.watched.load(Ordering::Relaxed) && !planted(Bug::HealthChangeKept) {
            let mut changed = self.changed.lock();
            changed.push(region);
            self.any_changed.store(true, Ordering::Relaxed);
        }
    }

    fn moved(&self, before: Counted, after: Counted) {
        let step = |n: &AtomicU64, was: bool, is: bool| match (was, is) {
            (false, true) => drop(n.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(n.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        };
        let is = |of: Counted, condition| of.condition == condition;
        step(&self.existing, before.exists, after.exists);
        step(&self.suspect, is(before, Condition::Suspect), is(after, Condition::Suspect));
        step(&self.damaged, is(before, Condition::Damaged), is(after, Condition::Damaged));
        step(&self.hard_states_lost, before.hard_state_lost, after.hard_state_lost);
    }
}

/// The right to change a region's state; what the change does to the figures is counted at its end.
pub(crate) struct Changing<'a> {
    region: RegionId,
    state: RwLockWriteGuard<'a, RegionState>,
    before: Counted,
    tally: &'a Tally,
}

impl<'a> Changing<'a> {
    pub(super) fn new(
        region: RegionId,
        state: RwLockWriteGuard<'a, RegionState>,
        tally: &'a Tally,
    ) -> Changing<'a> {
        Changing { region, before: Counted::of(&state), state, tally }
    }
}

impl Deref for Changing<'_> {
    type Target = RegionState;

    fn deref(&self) -> &RegionState {
        &self.state
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut RegionState {
        &mut self.state
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let after = Counted::of(&self.state);
        if after != self.before && !planted(Bug::FigureNotMoved) {
            self.tally.moved(self.before, after);
            if (self.before.condition, self.before.hard_state_lost)
                != (after.condition, after.hard_state_lost)
            {
                self.tally.note(self.region);
            }
        }
    }
}
