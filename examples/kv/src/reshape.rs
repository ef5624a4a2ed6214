//! Splits and merges, one after the other.

use crate::chaos::Chaos;
use crate::cluster::Cluster;
use crate::wire::{Dump, Reply, Request};
use std::time::Duration;

/// A merge that has begun, and goes on until it is done: the source is frozen, or may be.
pub struct Merging {
    pub source: u64,
    pub start: u64,
    /// What the source holds, once it is known.
    pub state: Option<Dump>,
}

impl Chaos {
    pub fn reshape(&mut self, cluster: &Cluster, patience: Duration) {
        if self.merging.is_some() {
            self.merge(cluster, patience);
            return;
        }
        self.reshapes += 1;
        if self.reshapes.is_multiple_of(2) {
            let source = self.some_group(cluster, |(_, span)| span.start > 0);
            self.merging = source.map(|(source, span)| Merging { source, start: span.start, state: None });
            return;
        }
        let Some((group, span)) = self.some_group(cluster, |(_, span)| span.end - span.start > 1) else {
            return;
        };
        self.last_group += 1;
        let at = span.start + 1 + self.rng.below(span.end - span.start - 1);
        let split =
            cluster.ask_leader(group, &Request::Split { group, at, child: self.last_group }, patience);
        self.done.splits += u64::from(split.is_some());
    }

    /// A step of the merge that is under way. What has begun is not given up.
    pub fn merge(&mut self, cluster: &Cluster, patience: Duration) {
        let Some(mut merging) = self.merging.take() else { return };
        let Merging { source, start, .. } = merging;
        if merging.state.is_none() {
            match cluster.ask_leader(source, &Request::Freeze { group: source }, patience) {
                Some((_, Reply::Gone)) => {
                    self.done.merges += 1;
                    return;
                }
                Some((_, Reply::Frozen(state))) => merging.state = Some(state),
                _ => {}
            }
        }
        if let Some(state) = merging.state.take() {
            let target = self.some_group(cluster, |(_, span)| span.end == start);
            let absorb = |group, state| Request::Absorb { group, source, state };
            let done =
                target.and_then(|(group, _)| cluster.ask_leader(group, &absorb(group, state), patience));
            if matches!(done, Some((_, Reply::Done))) {
                self.done.merges += 1;
                return;
            }
        }
        // Nobody knows what became of it: it is begun again, and the first step says.
        self.merging = Some(merging);
    }
}
