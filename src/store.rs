//! What the parts of an open engine share.

use crate::commit::{Committer, Hooks};
use crate::engine::listener::{Event, EventListener};
use crate::engine::options::Options;
use crate::error::{Error, Result};
use crate::format::file_header::StoreId;
use crate::index::Table;
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use crate::segment::mark::MarkFile;
use crate::segment::pool::SegmentFactory;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use crate::types::{Lsn, RegionId};
use crate::vfs::Dir;
use crate::watch::Stall;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// An open engine without its threads.
pub(crate) struct Store {
    pub(crate) options: Options,
    pub(crate) dir: Dir,
    pub(crate) id: StoreId,
    /// The number of this run, and the first of the runs that no unclean end came after.
    pub(crate) run: u32,
    pub(crate) unclean_before: u32,
    pub(crate) table: Arc<Table>,
    pub(crate) factory: Arc<SegmentFactory>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mark: MarkFile,
    /// Where the log was durable when it was last seen at rest.
    pub(crate) rested_at: AtomicU64,
    pub(crate) checkpoints: Mutex<Checkpoints>,
    /// Bytes of records that earlier runs left to be replayed.
    pub(crate) replayed_bytes: u64,
    pub(crate) upkeep: Turn,
    /// Held by a thread that copies entries to a cold segment, and taken before `upkeep`: a copy takes its
    /// time, and whatever needs `upkeep` alone does not wait for it.
    pub(crate) copying: Turn,
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
    pub(crate) clean: Signal,
    pub(crate) scrub: Signal,
    pub(crate) watcher: Signal,
    pub(crate) pauses: Pauses,
    pub(crate) stall: Mutex<Stall>,
    pub(crate) names: Signal,
    listeners: Vec<Arc<dyn EventListener>>,
}

/// How many checkpoints are kept: any one of them recovers the store.
pub(crate) const CHECKPOINTS_KEPT: usize = 3;

/// The checkpoints that are kept.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub(crate) next_sequence: u32,
    /// Oldest first, at most [`CHECKPOINTS_KEPT`].
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
    /// Bytes of records in the log when it was taken, as [`Store::log_bytes`] counts them.
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
            clean: Signal::default(),
            scrub: Signal::default(),
            watcher: Signal::default(),
            pauses: Pauses::default(),
            stall: Mutex::default(),
            names: Signal::default(),
            listeners,
        }
    }

    /// Notifies the listeners.
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

    fn callback_panicked(&self, lsn: Lsn, message: &str) {
        self.tell(&Event::CallbackPanicked { lsn, message });
    }
}

impl Store {
    /// An entry was found damaged: listeners are notified, and it is fenced if its bytes were seen to be
    /// wrong. A read that failed may succeed the next time: the region's health shows it until it does,
    /// and the entry is not fenced.
    pub(crate) fn note_damage(&self, region: RegionId, index: u64, error: &Error) {
        if error.kind() != crate::ErrorKind::Damaged {
            return;
        }
        let failed = std::error::Error::source(error).is_some();
        let news = self.table.get(region).is_none_or(|cell| match failed {
            true => cell.write().note_unread(index),
            false => {
                cell.write().note_damage(index);
                true
            }
        });
        if news {
            self.shared.tell(&Event::Damage { error });
        }
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

    /// Notes in the mark file up to where the log is durable, if nothing is on its way: what says that the
    /// last record was acknowledged must not lie beside it.
    pub(crate) fn note_mark(&self) -> Result<()> {
        match self.committer.at_rest() {
            Some((durable, last)) if self.mark.lacks(durable) => self.mark.note(durable, last),
            _ => Ok(()),
        }
    }

    /// As [`note_mark`](Store::note_mark), once the log has been at rest since the last call: a writer that
    /// is merely slow does not pay for a mark after each of its batches.
    pub(crate) fn note_mark_when_idle(&self) -> Result<()> {
        let Some((durable, _)) = self.committer.at_rest() else { return Ok(()) };
        match self.rested_at.swap(durable.to_u64(), Ordering::Relaxed) == durable.to_u64() {
            true => self.note_mark(),
            false => Ok(()),
        }
    }

    /// Fails in a fork of the process that opened the engine. Asked first in every call: locks may have been
    /// held by threads that the fork did not take along.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.dir.is_here() { Ok(()) } else { Err(Error::forked()) }
    }

    /// Every segment but the prepared ones.
    pub(crate) fn all_segments(&self) -> Vec<Arc<Segment>> {
        // First: one that is full meanwhile is among the others.
        let active = self.committer.active().map(|(active, _)| active);
        let mut segments = self.shared.segments();
        segments.extend(active.filter(|active| !segments.iter().any(|s| s.id == active.id)));
        segments
    }

    /// Bytes of records since the checkpoint that this run began with.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.replayed_bytes + self.committer.counters.record_bytes.load(Ordering::Relaxed)
    }
}

/// One thread at a time, and none any more once the engine is closed. As [`Store::upkeep`]: held by a thread
/// that seals, checkpoints, installs or gives space back, for as long as that takes, and never while it
/// sleeps or copies entries. Listeners are notified of what it does meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    state: Mutex<TurnState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TurnState {
    holder: Option<ThreadId>,
    /// The engine is being closed: nobody waits for a turn but for the last one.
    ending: bool,
    /// Nothing is changed any more: the engine has given up the directory, and another one may have it.
    closed: bool,
}

/// The right to change where things are.
pub(crate) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    /// Waits for its turn.
    ///
    /// # Errors
    /// `InvalidArgument` for a listener that calls back in: it would wait for itself. `Closed` once a
    /// close has begun: it may have been called by a listener of the thread that has the turn, and waits
    /// for those that wait for theirs.
    pub(crate) fn lock(&self) -> Result<TurnGuard<'_>> {
        self.take(planted(Bug::TurnAwaitedInClose))
    }

    /// The same for the thread that closes the engine, whose turn comes after all others have given up.
    pub(crate) fn lock_last(&self) -> Result<TurnGuard<'_>> {
        self.take(true)
    }

    fn take(&self, is_last: bool) -> Result<TurnGuard<'_>> {
        let me = thread::current().id();
        let mut state = lock(&self.state);
        loop {
            if state.holder == Some(me) {
                return Err(Error::invalid(
                    "refused inside a listener that is being told of upkeep: call it from another thread, or later",
                ));
            }
            if (state.closed || state.ending && !is_last) && !planted(Bug::ClosedEngineWorks) {
                return Err(Error::closed());
            }
            if state.holder.is_none() {
                state.holder = Some(me);
                return Ok(TurnGuard(self));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Those that wait for their turn give up.
    pub(crate) fn end(&self) {
        lock(&self.state).ending = true;
        self.changed.notify_all();
    }

    /// Nobody's turn comes any more; the one whose turn it is has ended when this returns,
    /// unless that is the calling thread.
    pub(crate) fn close(&self) {
        let last = self.lock_last();
        lock(&self.state).closed = true;
        drop(last);
    }

    /// Whether the calling thread has the turn: it is in a listener that is notified of upkeep.
    pub(crate) fn is_mine(&self) -> bool {
        lock(&self.state).holder == Some(thread::current().id())
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).holder = None;
        self.0.changed.notify_all();
    }
}

/// Where work that keeps to a rate sleeps, and what ends the sleep: the end of the engine, or
/// somebody who waits for the work.
#[derive(Debug)]
pub(crate) struct Pauses {
    started: Instant,
    stopped: AtomicBool,
    /// How many threads wait for the work.
    waiting: Mutex<usize>,
    changed: Condvar,
}

impl Default for Pauses {
    fn default() -> Pauses {
        let waiting = Mutex::default();
        Pauses { started: Instant::now(), stopped: AtomicBool::new(false), waiting, changed: Condvar::new() }
    }
}

/// Somebody waits for work that keeps to a rate.
pub(crate) struct Hurry<'a>(&'a Pauses);

impl Pauses {
    /// All sleeps end, for good.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // Under the lock: no sleeper is between its look and its sleep.
        let _waiting = lock(&self.waiting);
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Sleeps that may be hurried end until the guard is dropped.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        *lock(&self.waiting) += 1;
        self.changed.notify_all();
        Hurry(self)
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn sleep(&self, time: Duration, may_be_hurried: bool) {
        let until = self.now().saturating_add(time);
        let mut waiting = lock(&self.waiting);
        loop {
            let left = until.saturating_sub(self.now()).min(Duration::from_secs(3600));
            if left.is_zero() || self.is_stopped() || may_be_hurried && *waiting > 0 {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        *lock(&self.0.waiting) -= 1;
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
        // A thread that waited here before may have taken the signal that came with the stop.
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

/// Our own critical sections leave no half-made state behind, so a panic elsewhere does not lock
/// everybody out.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
