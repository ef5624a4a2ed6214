//! All regions, sharded so that readers of one never wait for writers of another.

use super::region::RegionState;
use crate::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::types::RegionId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const SHARDS: usize = 64;

/// One region's state behind its own lock.
#[derive(Debug)]
pub(crate) struct RegionCell {
    pub(crate) id: RegionId,
    state: RwLock<RegionState>,
}

impl RegionCell {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, RegionState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, RegionState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spreads ids that are often consecutive. Not keyed: ids come from the application, not from its clients.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = u128::from(self.0 ^ n ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (mixed >> 64) as u64 ^ mixed as u64;
    }
}

type Shard = RwLock<HashMap<RegionId, Arc<RegionCell>, BuildHasherDefault<IdHasher>>>;

/// The region table.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Vec<Shard>,
}

impl Default for Table {
    fn default() -> Self {
        Table { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Table {
    fn shard(&self, id: RegionId) -> &Shard {
        let mut h = IdHasher::default();
        h.write_u64(id.0);
        // The map takes its bucket from the low bits and its tag from the top ones; the shard comes from between.
        &self.shards[(h.finish() >> 40) as usize % SHARDS]
    }

    /// The region's cell, if it was ever written (or destroyed, until that is forgotten).
    pub(crate) fn get(&self, id: RegionId) -> Option<Arc<RegionCell>> {
        self.shard(id).read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The region's cell, made if there is none.
    pub(crate) fn get_or_create(&self, id: RegionId) -> Arc<RegionCell> {
        if let Some(cell) = self.get(id) {
            return cell;
        }
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(RegionCell { id, state: RwLock::default() });
        shard.entry(id).or_insert_with(fresh).clone()
    }

    /// Forgets a region for which `gone` still holds under its lock. Must not race with a writer of the region.
    pub(crate) fn forget(&self, id: RegionId, gone: impl Fn(&RegionState) -> bool) {
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        if shard.get(&id).is_some_and(|cell| gone(&cell.read())) {
            shard.remove(&id);
        }
    }

    /// All cells, shard by shard; no lock is held while the caller looks at them.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Arc<RegionCell>> + '_ {
        self.shards.iter().flat_map(|s| {
            let shard = s.read().unwrap_or_else(PoisonError::into_inner);
            shard.values().cloned().collect::<Vec<_>>()
        })
    }

    /// Bytes on the heap, the per-region ones included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let slots: usize =
            self.shards.iter().map(|s| s.read().unwrap_or_else(PoisonError::into_inner).capacity()).sum();
        let each = size_of::<RegionCell>() + 2 * size_of::<usize>();
        slots * (size_of::<(RegionId, Arc<RegionCell>)>() + 1)
            + self.cells().map(|c| each + c.read().heap_bytes()).sum::<usize>()
    }
}
