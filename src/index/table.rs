//! All regions, sharded so that readers of one never wait for writers of another.

use super::state::RegionState;
use super::tally::{Changing, Figures, Tally};
use crate::segment::Segment;
use crate::sync::{Arc, RwLock, RwLockReadGuard};
use crate::types::{IdHasher, RegionId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

const SHARDS: usize = 64;

/// One region's state behind its own lock.
#[derive(Debug)]
pub(crate) struct RegionCell {
    pub(crate) id: RegionId,
    state: RwLock<RegionState>,
}

impl RegionCell {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, RegionState> {
        self.state.read()
    }
}

type Shard = RwLock<HashMap<RegionId, Arc<RegionCell>, BuildHasherDefault<IdHasher>>>;

/// The region table.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Vec<Shard>,
    tally: Tally,
    /// What the last look at [`heap_bytes`](Table::heap_bytes) found.
    measured: AtomicUsize,
}

/// So many regions are walked when somebody asks for their figures.
const WALKED_MAX: u64 = 4096;

impl Default for Table {
    fn default() -> Self {
        Table {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            tally: Tally::default(),
            measured: AtomicUsize::new(0),
        }
    }
}

impl Table {
    fn shard(&self, id: RegionId) -> &Shard {
        let mut h = IdHasher::default();
        h.write_u64(id.0);
        // The map takes its bucket from the low bits and its tag from the top ones; the shard
        // comes from between.
        &self.shards[(h.finish() >> 40) as usize % SHARDS]
    }

    /// The region's cell, if it was ever written (or destroyed, until that is forgotten).
    pub(crate) fn get(&self, id: RegionId) -> Option<Arc<RegionCell>> {
        self.shard(id).read().get(&id).cloned()
    }

    /// The region's cell, made if there is none.
    pub(crate) fn get_or_create(&self, id: RegionId) -> Arc<RegionCell> {
        let mut shard = self.shard(id).write();
        let fresh = || {
            self.tally.added(&RegionState::default());
            Arc::new(RegionCell { id, state: RwLock::default() })
        };
        shard.entry(id).or_insert_with(fresh).clone()
    }

    /// The state of a cell of this table, to be changed.
    pub(crate) fn change<'a>(&'a self, cell: &'a RegionCell) -> Changing<'a> {
        Changing::new(cell.id, cell.state.write(), &self.tally)
    }

    /// Adds a region. False if there is one of this id.
    pub(crate) fn insert(&self, id: RegionId, state: RegionState) -> bool {
        let mut shard = self.shard(id).write();
        match shard.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                self.tally.added(&state);
                place.insert(Arc::new(RegionCell { id, state: RwLock::new(state) }));
                true
            }
        }
    }

    /// Makes room for `regions` more, so that they can be added without moving those that are there.
    pub(crate) fn reserve(&self, regions: usize) {
        // Ids fall on shards by chance: a little more than the average.
        let each = regions / SHARDS + regions / SHARDS / 16;
        if each > 0 {
            self.shards.iter().for_each(|s| s.write().reserve(each));
        }
    }

    /// Gives back what is kept for regions that were forgotten.
    pub(crate) fn shrink(&self) {
        for shard in &self.shards {
            let mut shard = shard.write();
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
        }
    }

    /// From now on it is kept which regions' health changes, for [`take_changed`](Table::take_changed).
    pub(crate) fn watch(&self) {
        self.tally.watch();
    }

    /// The regions whose health has changed since the last call, each once. Takes no lock where none has.
    pub(crate) fn take_changed(&self) -> Vec<RegionId> {
        self.tally.take_changed()
    }

    /// How many regions there are, and in what condition. Walks nothing.
    pub(crate) fn figures(&self) -> Figures {
        self.tally.figures()
    }

    /// The newest segment that a region was destroyed in, among those that are still remembered.
    pub(crate) fn last_destroyed(&self) -> Option<u32> {
        let destroyed = |cell: Arc<RegionCell>| {
            let state = cell.read();
            (!state.exists).then(|| state.touched.segment())
        };
        self.cells().filter_map(destroyed).max()
    }

    /// `segment` has its footer now: what it holds of the region needs no heap any more.
    pub(crate) fn use_footer(&self, id: RegionId, segment: &Segment) {
        if let Some(cell) = self.get(id) {
            self.change(&cell).extents.use_footer(segment.id);
        }
    }

    /// Forgets a region for which `gone` still holds under its lock. Must not race with a writer of the
    /// region.
    pub(crate) fn forget(&self, id: RegionId, gone: impl Fn(&RegionState) -> bool) {
        let mut shard = self.shard(id).write();
        if shard.get(&id).is_some_and(|cell| gone(&cell.read())) {
            shard.remove(&id);
            self.tally.forgotten();
        }
    }

    /// All cells, shard by shard; no lock is held while the caller looks at them.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Arc<RegionCell>> + '_ {
        self.shards.iter().flat_map(|s| {
            let shard = s.read();
            shard.values().cloned().collect::<Vec<_>>()
        })
    }

    /// Shows all states at once, under the locks of all shards and regions.
    pub(super) fn with_all<T>(&self, look: impl FnOnce(&[RwLockReadGuard<'_, RegionState>]) -> T) -> T {
        let shards: Vec<_> = self.shards.iter().map(|s| s.read()).collect();
        let states: Vec<_> = shards.iter().flat_map(|s| s.values()).map(|cell| cell.read()).collect();
        look(&states)
    }

    /// Bytes on the heap, the per-region ones included. Walks all regions.
    pub(crate) fn heap_bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|s| s.read().capacity()).sum();
        let each = size_of::<RegionCell>() + 2 * size_of::<usize>();
        let bytes = slots * (size_of::<(RegionId, Arc<RegionCell>)>() + 1)
            + self.cells().map(|c| each + c.read().heap_bytes()).sum::<usize>();
        self.measured.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// The same without a walk of many regions: as of the last one then.
    pub(crate) fn heap_bytes_lately(&self) -> usize {
        match self.is_large() {
            false => self.heap_bytes(),
            true => self.measured.load(Ordering::Relaxed),
        }
    }

    /// Whether a walk of all regions takes long.
    pub(crate) fn is_large(&self) -> bool {
        let Figures { existing, destroyed, .. } = self.tally.figures();
        existing + destroyed > WALKED_MAX
    }
}
