//! The segments of a store, by number, and those of them that are full and wait for their footer.

use super::Segment;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};

/// While so many full segments wait for their footer, the log does not move on to another one: what the
/// heap knows of each is let go with its footer, and only then. From the second on they are sealed without a
/// pause, so this is for a disk on which that fails to keep up.
const UNSEALED_MAX: usize = 4;

/// Every segment but the active and the prepared ones.
#[derive(Debug, Default)]
pub(crate) struct SegmentSet {
    by_number: RwLock<BTreeMap<u32, Arc<Segment>>>,
    unsealed: Mutex<VecDeque<Unsealed>>,
    /// The last attempt to give one its footer failed.
    failing: AtomicBool,
}

/// A full segment without a footer.
#[derive(Clone, Debug)]
pub(crate) struct Unsealed {
    pub(crate) segment: Arc<Segment>,
    /// Where its records end.
    pub(crate) end: u32,
}

impl SegmentSet {
    pub(crate) fn new(segments: BTreeMap<u32, Arc<Segment>>) -> SegmentSet {
        SegmentSet { by_number: RwLock::new(segments), ..SegmentSet::default() }
    }

    /// The sealed and sealing segments, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.by_number.read().values().cloned().collect()
    }

    pub(crate) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        self.by_number.read().get(&id).cloned()
    }

    pub(crate) fn add(&self, segment: Arc<Segment>) {
        self.by_number.write().insert(segment.id, segment);
    }

    /// Takes it out. One that an earlier run left without a footer needs none any more.
    pub(crate) fn remove(&self, id: u32) -> Option<Arc<Segment>> {
        let removed = self.by_number.write().remove(&id);
        self.unsealed.lock().retain(|waiting| waiting.segment.id != id);
        removed
    }

    /// The segment, which is among these, waits for its footer.
    pub(crate) fn await_seal(&self, segment: Arc<Segment>, end: u32) {
        self.unsealed.lock().push_back(Unsealed { segment, end });
    }

    /// What is sealed next.
    pub(crate) fn next_unsealed(&self) -> Option<Unsealed> {
        self.unsealed.lock().front().cloned()
    }

    /// All that wait for their footer.
    pub(crate) fn unsealed(&self) -> Vec<Unsealed> {
        self.unsealed.lock().iter().cloned().collect()
    }

    pub(crate) fn unsealed_count(&self) -> usize {
        self.unsealed.lock().len()
    }

    /// Whether so many wait that no other should become full before one of them has its footer. Not where
    /// footers cannot be written: those are a cache, and the log goes on without.
    pub(crate) fn is_crowded(&self) -> bool {
        self.unsealed_count() >= UNSEALED_MAX && !self.failing.load(Ordering::Relaxed)
    }

    /// What is next could not be given its footer, and may be later.
    pub(crate) fn seal_failed(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// What was next is sealed, or never will be.
    pub(crate) fn sealed_next(&self) {
        self.failing.store(false, Ordering::Relaxed);
        self.unsealed.lock().pop_front();
    }
}
