//! What a group owns: a range of keys, and how splits and merges change it.
//!
//! All keys of all groups stand in one row, and each of the groups that a run begins with owns [`KEYS`] of
//! them. A split gives the upper part of a range to a new group. A merge gives a whole range to the group on
//! its left, in two steps: the source is frozen by an entry of its own, and an entry in the target's log has
//! its state, as of then, with it. So the target's replicas need nothing of the source's, wherever those
//! stand.
//!
//! A group's first key never changes, and every change raises the version of all ranges that it touches. From
//! that a replica that was away can tell which of two claims to a key is the older one.

use crate::wire::Dump;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys of a group at the beginning.
pub const KEYS: u64 = 4;

/// Where the key of one of the first groups stands in the row.
pub fn place(home: u64, key: u64) -> u64 {
    (home - 1) * KEYS + key
}

/// Back from [`place`].
pub fn home(at: u64) -> (u64, u64) {
    (at / KEYS + 1, at % KEYS)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    Serving,
    /// It is about to be merged: what it holds stays as it is.
    Frozen,
    /// It was merged into its neighbour.
    Gone,
}

/// What a group owns, as of its applied index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub version: u64,
    pub standing: Standing,
}

/// An entry that changes what groups own. It counts only where the group is at the version that it was
/// proposed for: a second proposal of the same, and one that was overtaken, do nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Keys from `at` on go to a new group.
    Split { version: u64, at: u64, child: u64 },
    /// No more writes or reads. Done again, it changes nothing and is answered alike.
    Freeze,
    /// The frozen neighbour's keys come to this group, with what they hold.
    Absorb { version: u64, source: u64, state: Dump },
}

/// What becomes of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    Split { left: Span, right: Span },
    Frozen(Span),
    Absorbed(Span),
    Overtaken,
}

impl Span {
    /// What one of the first groups owns.
    pub fn first(home: u64) -> Span {
        Span { start: place(home, 0), end: place(home, KEYS), version: 1, standing: Standing::Serving }
    }

    pub fn contains(&self, at: u64) -> bool {
        self.standing != Standing::Gone && self.start <= at && at < self.end
    }

    /// Whether it answers for the key.
    pub fn serves(&self, at: u64) -> bool {
        self.standing == Standing::Serving && self.contains(at)
    }

    /// What the change does where it is applied: the same on every replica.
    pub fn after(&self, change: &Change) -> Outcome {
        let serves = self.standing == Standing::Serving;
        match *change {
            Change::Split { version, at, .. }
                if serves && version == self.version && self.start < at && at < self.end =>
            {
                let version = version + 1;
                let left = Span { end: at, version, ..*self };
                Outcome::Split { right: Span { start: at, version, ..*self }, left }
            }
            Change::Freeze if self.standing != Standing::Gone => {
                Outcome::Frozen(Span { standing: Standing::Frozen, ..*self })
            }
            Change::Absorb { version, ref state, .. }
                if serves
                    && version == self.version
                    && state.span.as_ref().is_some_and(|s| s.start == self.end) =>
            {
                let theirs = state.span.as_ref().map_or((0, 0), |s| (s.end, s.version));
                Outcome::Absorbed(Span { end: theirs.0, version: version.max(theirs.1) + 1, ..*self })
            }
            _ => Outcome::Overtaken,
        }
    }
}

/// Which groups of this store a snapshot of `group` ends: those that have been merged into it where it was
/// made. `None` if it cannot be taken yet, because another group here owns a part of its keys: that group has
/// not applied the split, or the merge, that the snapshot is from before or after.
pub fn ended_by(group: u64, snapshot: &Span, spans: &BTreeMap<u64, Span>) -> Option<Vec<u64>> {
    let mut ended = Vec::new();
    for (&other, span) in spans {
        let overlaps = span.start < snapshot.end && snapshot.start < span.end;
        if other == group || span.standing == Standing::Gone || !overlaps {
            continue;
        }
        if !snapshot.contains(span.start) || span.version >= snapshot.version {
            return None;
        }
        ended.push(other);
    }
    Some(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, version: u64) -> Span {
        Span { start, end, version, standing: Standing::Serving }
    }

    #[test]
    fn a_change_that_was_overtaken_does_nothing() {
        let split = Change::Split { version: 3, at: 6, child: 9 };
        let Outcome::Split { left, right } = span(4, 8, 3).after(&split) else { panic!("no split") };
        assert_eq!((&left, &right), (&span(4, 6, 4), &span(6, 8, 4)));
        assert_eq!(left.after(&split), Outcome::Overtaken);
        let frozen = Span { standing: Standing::Frozen, ..right };
        assert_eq!(frozen.after(&split), Outcome::Overtaken);
        assert_eq!(frozen.after(&Change::Freeze), Outcome::Frozen(frozen.clone()));
        let state = Dump { span: Some(frozen), ..Dump::default() };
        let absorb = Change::Absorb { version: 4, source: 9, state };
        assert_eq!(left.after(&absorb), Outcome::Absorbed(span(4, 8, 5)));
        assert_eq!(span(4, 8, 5).after(&absorb), Outcome::Overtaken);
        // Not even when the same keys have been split off again.
        assert_eq!(span(4, 6, 6).after(&absorb), Outcome::Overtaken);
    }

    #[test]
    fn a_snapshot_ends_what_was_merged_and_waits_for_what_was_not_split() {
        let spans = BTreeMap::from([(1, span(0, 4, 1)), (2, span(4, 8, 1)), (3, span(8, 12, 1))]);
        // Its own range grew.
        assert_eq!(ended_by(1, &span(0, 8, 2), &spans), Some(vec![2]));
        assert_eq!(ended_by(1, &span(0, 12, 3), &spans), Some(vec![2, 3]));
        assert_eq!(ended_by(1, &span(0, 2, 2), &spans), Some(vec![]));
        // A part of group 2 that this store has not split off yet.
        assert_eq!(ended_by(7, &span(6, 8, 2), &spans), None);
        // From before group 2 was split off.
        assert_eq!(ended_by(1, &span(0, 8, 1), &spans), None);
    }
}
