//! What the parts of an open engine share.

use crate::commit::{Committer, Hooks};
use crate::engine::listener::{Event, EventListener};
use crate::engine::options::Options;
use crate::error::{Error, Result};
use crate::format::file_header::StoreId;
use crate::index::Table;
use crate::segment::Segment;
use crate::segment::pool::SegmentFactory;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use crate::types::{Lsn, RegionId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// An open engine without its threads.
pub(crate) struct Store {
    pub(crate) options: Options,
    pub(crate) dir: PathBuf,
    pub(crate) id: StoreId,
    pub(crate) table: Arc<Table>,
    pub(crate) factory: Arc<SegmentFactory>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) checkpoints: Mutex<Checkpoints>,
    pub(crate) upkeep: Upkeep,
    pub(crate) cleaned_bytes: AtomicU64,
    pub(crate) upkeep_bytes: AtomicU64,
}

/// What the pipeline reaches too.
pub(crate) struct Shared {
    /// Every segment but the active and the prepared ones.
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    /// Full segments that have no footer yet, with the end of their records.
    pub(crate) sealing: Mutex<VecDeque<(Arc<Segment>, u32)>>,
    pub(crate) upkeep: Signal,
    pub(crate) pool: Signal,
    pub(crate) scrub: Signal,
    listeners: Vec<Arc<dyn EventListener>>,
}

/// The checkpoints that are kept.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub(crate) next_sequence: u32,
    /// Oldest first, at most two.
    pub(crate) kept: VecDeque<CheckpointInfo>,
}

/// One checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointInfo {
    pub(crate) sequence: u32,
    /// Replay starts with this segment.
    pub(crate) start_segment: u32,
    /// Everything accepted before is in it.
    pub(crate) accepted: Lsn,
    pub(crate) bytes: u64,
    /// Bytes of records accepted in this life when it was taken.
    pub(crate) log_bytes: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        segments: BTreeMap<u32, Arc<Segment>>,
        listeners: Vec<Arc<dyn EventListener>>,
    ) -> Shared {
        Shared {
            segments: RwLock::new(segments),
            sealing: Mutex::default(),
            upkeep: Signal::default(),
            pool: Signal::default(),
            scrub: Signal::default(),
            listeners,
        }
    }

    /// Tells the listeners.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.listeners.iter().for_each(|l| l.on_event(event));
    }

    pub(crate) fn listeners(&self) -> &[Arc<dyn EventListener>] {
        &self.listeners
    }

    /// The sealed and sealing segments, by number.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(segment.id, segment);
    }

    pub(crate) fn remove_segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

impl Hooks for Shared {
    fn segment_full(&self, segment: Arc<Segment>, end: u32) {
        segment.set_sealed_end(end);
        self.add_segment(segment.clone());
        lock(&self.sealing).push_back((segment, end));
        self.upkeep.raise();
    }

    fn segment_wanted(&self) {
        self.pool.raise();
    }

    fn poisoned(&self, cause: &Error) {
        self.tell(&Event::Poisoned { error: cause });
    }
}

impl Store {
    /// An entry was found damaged: it is told to the listeners, and fenced if its bytes were seen to be wrong. A read that
    /// failed may succeed the next time, so that one is tried again.
    pub(crate) fn note_damage(&self, region: RegionId, index: u64, error: &Error) {
        if error.kind() != crate::ErrorKind::Damaged {
            return;
        }
        if std::error::Error::source(error).is_none()
            && let Some(cell) = self.table.get(region)
        {
            cell.write().note_damage(index);
        }
        self.shared.tell(&Event::Damage { error });
    }

    /// These entries were read and are right.
    pub(crate) fn forget_damage(&self, region: RegionId, indexes: std::ops::Range<u64>) {
        if let Some(cell) = self.table.get(region) {
            cell.write().forget_damage(indexes);
        }
    }

    /// What a background task failed with goes to the listeners; the task comes round again.
    pub(crate) fn report(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            match error.kind() {
                crate::ErrorKind::Damaged => self.shared.tell(&Event::Damage { error: &error }),
                crate::ErrorKind::Poisoned | crate::ErrorKind::Closed => {}
                _ => self.shared.tell(&Event::BackgroundError { error: &error }),
            }
        }
    }

    /// Bytes of records accepted in this life.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.committer.counters.record_bytes.load(Ordering::Relaxed)
    }
}

/// Held by whoever seals, checkpoints, purges, cleans or copies: one at a time. Listeners hear of it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    busy: Mutex<()>,
    holder: Mutex<Option<ThreadId>>,
}

/// The right to change where things are.
pub(crate) struct UpkeepGuard<'a> {
    upkeep: &'a Upkeep,
    _busy: MutexGuard<'a, ()>,
}

impl Upkeep {
    /// Waits for its turn.
    ///
    /// # Errors
    /// `InvalidArgument` for a listener that calls back in: it would wait for itself.
    pub(crate) fn lock(&self) -> Result<UpkeepGuard<'_>> {
        let me = thread::current().id();
        if *lock(&self.holder) == Some(me) {
            return Err(Error::invalid(
                "refused inside a listener that is being told of upkeep: call it from another thread, or later",
            ));
        }
        let busy = lock(&self.busy);
        *lock(&self.holder) = Some(me);
        Ok(UpkeepGuard { upkeep: self, _busy: busy })
    }
}

impl Drop for UpkeepGuard<'_> {
    fn drop(&mut self) {
        *lock(&self.upkeep.holder) = None;
    }
}

/// Wakes one thread that works when there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Signal {
    /// There is something to do.
    pub(crate) fn raise(&self) {
        let mut raised = lock(&self.raised);
        if !*raised {
            *raised = true;
            self.changed.notify_one();
        }
    }

    /// The thread should end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.raise();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps until raised, or for `at_most`. False when the thread should end.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        // Whoever waited here before may have taken the signal that came with the stop.
        if self.stopped() {
            return false;
        }
        let mut raised = lock(&self.raised);
        if !*raised {
            raised = self.changed.wait_timeout(raised, at_most).unwrap_or_else(PoisonError::into_inner).0;
        }
        *raised = false;
        !self.stopped()
    }
}

/// Our own critical sections leave no half-made state behind, so a panic elsewhere does not lock everybody out.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
