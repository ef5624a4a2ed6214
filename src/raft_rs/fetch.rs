//! Reads that may wait for the device, done elsewhere while raft goes on.

use super::storage::RegionStorage;
use crate::error::Result;
use crate::types::{Entry, ReadLimit, RegionId};
use raft::GetEntriesContext;
use raft::prelude::Entry as RaftEntry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Told when entries are there that raft was waiting for.
pub(super) type Notify = Box<dyn Fn(RegionId, GetEntriesContext) + Send + Sync>;

/// Reads of one region that are on their way, or done and not yet asked for again. By first index: raft asks again from the same
/// one, though perhaps for more or for fewer.
pub(super) struct FarReads {
    region: RegionId,
    /// How many segments behind the active one are near.
    pub(super) segments: u32,
    notify: Notify,
    reads: Mutex<BTreeMap<u64, Read>>,
}

enum Read {
    /// On its way, for these.
    Pending(Vec<GetEntriesContext>),
    /// There, for so many that will ask again.
    Done { outcome: Result<Vec<Entry>>, askers: usize },
}

/// The outcome of asking.
pub(super) enum Fetched {
    /// Read, or failed.
    Now(Result<Vec<RaftEntry>>),
    /// Notice will be given.
    Later,
}

/// Results that nobody came back for (the peer was removed, the leader stepped down) are dropped beyond so many.
const READS_MAX: usize = 16;

impl FarReads {
    pub(super) fn new(region: RegionId, segments: u32, notify: Notify) -> FarReads {
        FarReads { region, segments, notify, reads: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Read>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries from `low` on if they have been fetched; else sees to it that they are.
    pub(super) fn take(
        self: &Arc<Self>,
        storage: &RegionStorage,
        low: u64,
        high: u64,
        max_size: Option<u64>,
        context: GetEntriesContext,
    ) -> Fetched {
        let mut reads = self.lock();
        match reads.get_mut(&low) {
            Some(Read::Pending(contexts)) => {
                contexts.push(context);
                return Fetched::Later;
            }
            Some(Read::Done { outcome, askers }) => {
                *askers -= 1;
                let outcome = match askers {
                    0 => match reads.remove(&low) {
                        Some(Read::Done { outcome, .. }) => outcome,
                        _ => Ok(Vec::new()),
                    },
                    _ => outcome.clone(),
                };
                match outcome {
                    Ok(stored) if is_current(storage, low, &stored) => {
                        let end = stored.partition_point(|e| e.id.index < high);
                        return Fetched::Now(storage.decode(&stored[..end], max_size));
                    }
                    // The log has changed since, or reading failed for a reason that may be gone: find out here and now.
                    _ => {
                        reads.remove(&low);
                        drop(reads);
                        return Fetched::Now(storage.read(low, high, max_size));
                    }
                }
            }
            None => {}
        }
        while reads.len() >= READS_MAX {
            let idle = reads.iter().find(|(_, r)| matches!(r, Read::Done { .. })).map(|(&low, _)| low);
            match idle {
                Some(low) => drop(reads.remove(&low)),
                None => break,
            }
        }
        reads.insert(low, Read::Pending(vec![context]));
        drop(reads);
        let limit = max_size.map_or(ReadLimit::NONE, ReadLimit::bytes);
        let this = self.clone();
        storage.engine().fetch(self.region, low..high, limit, move |outcome| this.arrived(low, outcome));
        Fetched::Later
    }

    fn arrived(&self, low: u64, outcome: Result<Vec<Entry>>) {
        let mut reads = self.lock();
        let Some(Read::Pending(contexts)) = reads.remove(&low) else { return };
        reads.insert(low, Read::Done { outcome, askers: contexts.len() });
        drop(reads);
        for context in contexts {
            (self.notify)(self.region, context);
        }
    }
}

/// Whether these entries are still the log's. Index and term name an entry, and equal last entries have equal predecessors.
fn is_current(storage: &RegionStorage, low: u64, stored: &[Entry]) -> bool {
    let region = storage.region();
    region.first_index() <= low
        && stored.last().is_some_and(|last| region.term(last.id.index).is_ok_and(|t| t == last.id.term))
}
