//! Reads that may wait for the device, done elsewhere while raft goes on.
//!
//! raft asks, is answered `LogTemporarilyUnavailable`, is notified when the entries are there, and asks
//! again. Between the two it may ask any number of times more, and it need not come back at all: the peer was
//! removed, the leader stepped down, or an answer to another peer's question moved this one on. So
//!
//! - each peer is notified once for a read, however often it asked meanwhile;
//! - a result is released when all that were notified have asked again, and after [`RELEASED_AFTER`] reads
//!   of any kind in any case: it holds memory and keeps segments from being recycled;
//! - there are no more than [`READS_MAX`] reads, on their way or done;
//! - what an earlier `RawNode` asked for is not handed to a later one: the region may have been destroyed in
//!   between and belong to another replica now, whose entries have the same names and need not be the same;
//! - what is handed out is the log as it is then, not as it was when it was read.

use crate::planted::{Bug, planted};
use crate::{Engine, Entry, ErrorKind, ReadLimit, RegionId, Result};
use raft::GetEntriesContext;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Called when entries are there that raft was waiting for.
pub(super) type Notify = Box<dyn Fn(RegionId, GetEntriesContext) + Send + Sync>;

/// Reads of one region that are on their way, or done and not yet asked for again.
pub(super) struct FarReads {
    region: RegionId,
    /// How many segments behind the active one are near.
    pub(super) segments: u32,
    notify: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which `RawNode` reads now: they are counted as they are made.
    reader: u64,
    /// By reader and first index: raft asks again from the same one, though perhaps for more or for fewer.
    reads: BTreeMap<(u64, u64), Read>,
    /// How often raft has read anything: the clock by which results grow old.
    now: u64,
}

enum Read {
    /// On its way, for these.
    Pending(Vec<GetEntriesContext>),
    /// There since `at`, for so many that will ask again.
    Done { outcome: Result<Vec<Entry>>, askers: usize, at: u64 },
}

/// The outcome of asking.
pub(super) enum Fetched {
    /// Entries as they were when they were read, from the first on that was asked for: the log may have
    /// changed since.
    There(Vec<Entry>),
    /// Reading failed for a reason that may be gone, or there is no room to wait: the caller reads here and
    /// now.
    ReadNow,
    /// Notice will be given.
    Later,
}

/// Reads of one region at a time. A region has a handful of followers, and each waits for one read.
const READS_MAX: usize = 16;

/// A peer that is notified asks again at once, in the first few reads after; the rest of this is patience
/// with notices that wait in a queue.
const RELEASED_AFTER: u64 = 256;

impl FarReads {
    pub(super) fn new(region: RegionId, segments: u32, notify: Notify) -> FarReads {
        FarReads { region, segments, notify, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// raft reads something, near or far: what it has not come back for grows older.
    pub(super) fn grow_old(&self) {
        let mut s = self.lock();
        s.now += 1;
        let now = s.now;
        s.reads.retain(|_, read| !matches!(read, Read::Done { at, .. } if *at + RELEASED_AFTER < now));
    }

    /// A `RawNode` is made: it gets nothing of what another one asked for. That one is still
    /// notified, should it be running.
    pub(super) fn begin(&self) {
        if planted(Bug::FetchedForAnother) {
            return;
        }
        let mut s = self.lock();
        s.reader += 1;
        s.reads.retain(|_, read| matches!(read, Read::Pending(_)));
    }

    /// The entries from `low` on if they have been fetched; else sees to it that they are.
    pub(super) fn take(
        self: &Arc<Self>,
        engine: &Engine,
        low: u64,
        high: u64,
        limit: ReadLimit,
        context: GetEntriesContext,
    ) -> Fetched {
        let mut s = self.lock();
        let key = (s.reader, low);
        match s.reads.get_mut(&key) {
            Some(Read::Pending(contexts)) => {
                if !contexts.iter().any(|c| is_same(c, &context)) {
                    contexts.push(context);
                }
                return Fetched::Later;
            }
            Some(Read::Done { outcome, askers, .. }) => {
                *askers = askers.saturating_sub(1);
                let (outcome, is_last) = (outcome.clone(), *askers == 0);
                if is_last {
                    s.reads.remove(&key);
                }
                drop(s);
                return outcome.map_or(Fetched::ReadNow, Fetched::There);
            }
            None => {}
        }
        if !s.has_room() {
            drop(s);
            return Fetched::ReadNow;
        }
        s.reads.insert(key, Read::Pending(vec![context]));
        drop(s);
        let (this, refused) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let is_refused = refused.clone();
        engine.fetch(self.region, low..high, limit, move |outcome| match outcome {
            // No thread has room for it: this is still the caller's.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                is_refused.fetch_or(true, Ordering::Relaxed);
                this.refused(key);
            }
            outcome => this.arrived(key, outcome),
        });
        match refused.load(Ordering::Relaxed) {
            true => Fetched::ReadNow,
            false => Fetched::Later,
        }
    }

    /// A read was not begun. The first that asked for it reads by itself; those that came meanwhile ask
    /// again.
    fn refused(&self, key: (u64, u64)) {
        let read = self.lock().reads.remove(&key);
        if let Some(Read::Pending(contexts)) = read {
            contexts.into_iter().skip(1).for_each(|context| (self.notify)(self.region, context));
        }
    }

    fn arrived(&self, key: (u64, u64), outcome: Result<Vec<Entry>>) {
        let mut s = self.lock();
        let at = s.now;
        let Some(Read::Pending(contexts)) = s.reads.remove(&key) else { return };
        if key.0 == s.reader {
            s.reads.insert(key, Read::Done { outcome, askers: contexts.len(), at });
        }
        drop(s);
        for context in contexts {
            (self.notify)(self.region, context);
        }
    }
}

impl State {
    /// Whether one more read may begin; the oldest result makes way for it.
    fn has_room(&mut self) -> bool {
        if self.reads.len() < READS_MAX {
            return true;
        }
        let done = self.reads.iter().filter_map(|(&key, read)| match read {
            Read::Done { at, .. } => Some((*at, key)),
            Read::Pending(_) => None,
        });
        let oldest = done.min().map(|(_, key)| key);
        oldest.is_some_and(|key| self.reads.remove(&key).is_some())
    }
}

/// Whether two contexts stand for the same peer's wish. raft shows what is in them to people only; two that
/// look alike are alike, and should they ever look alike without being so, the one that is not notified asks
/// again with its next heartbeat.
fn is_same(a: &GetEntriesContext, b: &GetEntriesContext) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use std::sync::mpsc::channel;

    /// Peers that come between the begin of a read and its refusal wait for a notice, and nobody else will
    /// give it.
    #[test]
    fn all_but_the_first_that_asked_for_a_read_that_is_refused_are_told_and_nothing_is_left_of_it() {
        let (send, told) = channel();
        let notify = move |region, context| send.send((region, format!("{context:?}"))).unwrap();
        let far = FarReads::new(RegionId(7), 1, Box::new(notify));
        let [first, second, third] = [true, false, true].map(GetEntriesContext::empty);
        let wanted = [&second, &third].map(|context| (RegionId(7), format!("{context:?}")));
        far.lock().reads.insert((0, 5), Read::Pending(vec![first, second, third]));
        far.lock().reads.insert((0, 6), Read::Pending(Vec::new()));
        far.refused((0, 5));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), wanted);
        assert_eq!(far.lock().reads.keys().collect::<Vec<_>>(), [&(0, 6)]);
        // One that is gone already has nobody waiting.
        far.refused((0, 5));
        assert!(told.try_recv().is_err());
    }
}
