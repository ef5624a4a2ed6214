//! What is known to be wrong with a region: almost always nothing.

use crate::report::{HardStateHealth, Health};
use std::ops::{Range, RangeInclusive};

/// Known damage of one region.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Damage {
    /// Entries that were acknowledged and cannot be read.
    pub(crate) proven: Ranges,
    /// Entries that cannot be read, of which nothing says whether they were acknowledged before the crash.
    pub(crate) suspect: Ranges,
    /// Entries of which the last read failed. Nothing is known to be wrong with their bytes: the next read
    /// may succeed, and only this run of the engine knows.
    pub(crate) unread: Ranges,
    /// Term and vote may be older than what was acknowledged.
    pub(crate) hard_state_lost: bool,
}

impl Damage {
    pub(crate) fn is_none(&self) -> bool {
        [&self.proven, &self.suspect, &self.unread].iter().all(|r| r.is_empty()) && !self.hard_state_lost
    }

    /// Whether nothing is known to be wrong that was acknowledged for certain.
    pub(crate) fn is_only_suspect(&self) -> bool {
        self.proven.is_empty() && self.unread.is_empty() && !self.hard_state_lost
    }

    /// What it makes of the health of its region.
    pub(crate) fn health(&self) -> Health {
        if self.is_only_suspect() {
            return Health::Suspect { ranges: self.suspect.inclusive() };
        }
        let hard_state = match self.hard_state_lost {
            true => HardStateHealth::Lost,
            false => HardStateHealth::Known,
        };
        Health::Damaged { ranges: self.unreadable().inclusive(), hard_state }
    }

    /// Whether the bytes of the entry at `index` are known to be wrong.
    pub(crate) fn covers(&self, index: u64) -> bool {
        self.proven.covers(index) || self.suspect.covers(index)
    }

    /// All entries that could not be read.
    pub(crate) fn unreadable(&self) -> Ranges {
        let mut all = self.proven.clone();
        self.suspect.0.iter().chain(&self.unread.0).for_each(|&(a, b)| all.insert(a, b));
        all
    }

    /// What `keep` leaves of each range.
    pub(crate) fn trim(&mut self, keep: impl Fn(u64, u64) -> Option<(u64, u64)>) {
        for ranges in [&mut self.proven, &mut self.suspect, &mut self.unread] {
            ranges.0 = ranges.0.iter().filter_map(|&(a, b)| keep(a, b)).collect();
        }
    }

    /// These entries are right, or are no more.
    pub(crate) fn remove(&mut self, indexes: &Range<u64>) {
        self.proven.remove(indexes);
        self.suspect.remove(indexes);
        self.unread.remove(indexes);
    }
}

/// Inclusive ranges of indexes: ascending, disjoint, and no two of them neighbours.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn covers(&self, index: u64) -> bool {
        let at = self.0.partition_point(|r| r.1 < index);
        self.0.get(at).is_some_and(|r| r.0 <= index)
    }

    /// Adds `first..=last`.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        let from = self.0.partition_point(|r| r.1.saturating_add(1) < first);
        let to = self.0.partition_point(|r| r.0 <= last.saturating_add(1));
        let touched = &self.0[from..to];
        let first = touched.first().map_or(first, |r| r.0.min(first));
        let last = touched.last().map_or(last, |r| r.1.max(last));
        self.0.splice(from..to, [(first, last)]);
    }

    fn remove(&mut self, indexes: &Range<u64>) {
        if indexes.is_empty() {
            return;
        }
        for (a, b) in std::mem::take(&mut self.0) {
            self.0.extend((a < indexes.start).then(|| (a, b.min(indexes.start - 1))));
            self.0.extend((b >= indexes.end).then(|| (a.max(indexes.end), b)));
        }
    }

    fn inclusive(&self) -> Vec<RangeInclusive<u64>> {
        self.0.iter().map(|&(first, last)| first..=last).collect()
    }

    pub(crate) fn into_vec(self) -> Vec<(u64, u64)> {
        self.0
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    /// In any order: it may come from a file.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Ranges {
        let mut sorted: Vec<(u64, u64)> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut out = Ranges::default();
        sorted.into_iter().for_each(|(a, b)| out.insert(a, b));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_are_a_set_of_indexes_with_neighbours_joined() {
        let mut random = crate::random::Rng::new(3);
        for _ in 0..300 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..12 {
                let a = random.below(30);
                let b = a + random.below(6);
                if random.one_in(3) {
                    ranges.remove(&(a..b));
                    set.retain(|i| !(a..b).contains(i));
                } else {
                    ranges.insert(a, b);
                    set.extend(a..=b);
                }
                assert!((0..40).all(|i| ranges.covers(i) == set.contains(&i)), "{ranges:?} {set:?}");
                assert!(ranges.0.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{ranges:?}");
            }
        }
    }

    #[test]
    fn ranges_reach_both_ends_of_the_indexes() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX - 1, u64::MAX);
        ranges.insert(0, 0);
        assert!(ranges.covers(0) && ranges.covers(u64::MAX) && !ranges.covers(1));
        ranges.insert(1, u64::MAX - 2);
        assert_eq!(ranges.into_vec(), [(0, u64::MAX)]);
    }
}
