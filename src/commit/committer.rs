//! What accepts batches and sees them through, and who works on that.

use super::completion::Completions;
use super::gate::Gate;
use super::pending::{Pending, Record, Waiting};
use super::pipeline::Pipeline;
use super::sleepers::{Sleepers, Woken};
use crate::clock;
use crate::error::{Error, Result};
use crate::format::batch::{Announcement, Batch, Encoded};
use crate::format::record::{RecordKind, Shape};
use crate::index::{Discard, Table};
use crate::latency::Times;
use crate::planted::{Bug, planted};
use crate::report::Outcome;
use crate::segment::Segment;
use crate::segment::pool::SegmentFactory;
use crate::segment::scan::FIRST_RECORD;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use crate::types::{Durability, Lsn, RegionId};
use bytes::Bytes;
use std::time::Instant;

/// What to do while the bound on bytes in flight is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnFull {
    Wait,
    Fail,
}

/// Asked with what would be discarded; an error refuses the batch.
pub(crate) type BeforeRollback<'a> = &'a dyn Fn(&[Discard]) -> Result<()>;

/// How a batch is to be accepted.
pub(crate) struct Accept<'a> {
    pub(crate) durability: Durability,
    pub(crate) on_full: OnFull,
    /// When the caller handed the batch over.
    pub(crate) began: Instant,
    pub(crate) origin: Origin<'a>,
}

/// Where a record comes from.
pub(crate) enum Origin<'a> {
    /// A caller: its operations are checked against the regions.
    Caller {
        /// Asked before entries are discarded, with no lock held; `None` when nobody listens.
        before_rollback: Option<BeforeRollback<'a>>,
    },
    /// The engine itself: recovery re-persists what was checked once, and nothing else of its own has
    /// operations.
    Engine,
}

/// What the pipeline reports to the engine around it.
pub(crate) trait Hooks: Send + Sync {
    /// The log has moved on from `segment`, whose records end at `end`.
    fn segment_full(&self, segment: Arc<Segment>, end: u32);
    /// A segment should be prepared soon.
    fn segment_wanted(&self);
    /// Writing has stopped for good.
    fn poisoned(&self, cause: &Error);
    /// There is no space for the next segment, or there is again.
    fn space(&self, exhausted: Option<&Error>);
    /// The callback or waker of the batch that ends at `lsn` panicked.
    fn callback_panicked(&self, lsn: Lsn, message: &str);
}

/// A batch that was accepted, with the lock still held.
pub(super) struct Accepted<'a> {
    pub(super) p: MutexGuard<'a, Pipeline>,
    pub(super) waiting: Waiting,
    /// If one was asked for.
    pub(super) ticket: Option<Arc<Pending>>,
    pub(super) outcome: Outcome,
}

/// Counters of the pipeline.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) record_bytes: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) wakes: AtomicU64,
    /// Batches that had to wait for room.
    pub(crate) throttled: AtomicU64,
    /// Attempts to prepare a segment for which there was no space.
    pub(crate) no_space: AtomicU64,
    pub(crate) commit_times: Times,
    pub(crate) queue_times: Times,
    pub(crate) write_times: Times,
    pub(crate) sync_times: Times,
}

/// Accepts batches and sees them through.
pub(crate) struct Committer {
    pub(super) table: Arc<Table>,
    pub(super) factory: Arc<SegmentFactory>,
    pub(super) hooks: Arc<dyn Hooks>,
    pub(super) pipeline: Mutex<Pipeline>,
    /// Held while a segment is prepared; true once none may be any more. Never asked for with the
    /// pipeline's lock held.
    pub(super) preparing: Mutex<bool>,
    pub(super) completions: Completions,
    pub(super) sleepers: Sleepers,
    /// What the write stage works on: its thread holds this, and nobody else asks for it meanwhile.
    pub(super) group: Mutex<Vec<Record>>,
    /// A stage has ended, a segment became ready, or writing stopped.
    pub(super) room: Condvar,
    /// There may be work that no waiting thread will do.
    pub(super) work: Condvar,
    pub(super) gate: Gate,
    pub(super) durable: AtomicU64,
    /// Everything before is in the operating system's hands. Like `durable` it is moved under
    /// the pipeline's lock, and by no stage that ends after the gate was shut: what waits for it
    /// is answered by looking at it.
    pub(super) written: AtomicU64,
    accepted: AtomicU64,
    /// Where this run began, and the end of the last record that was durable then.
    pub(super) start: Lsn,
    before: Lsn,
    /// The tail of the run before is being re-persisted.
    recovering: AtomicBool,
    pub(super) in_flight_max: usize,
    /// No threads of the engine: a thread that waits does everything.
    pub(super) manual: bool,
    /// The last attempt to prepare a segment found no space.
    pub(super) exhausted: AtomicBool,
    pub(crate) counters: Counters,
}

impl Committer {
    /// A pipeline whose first segment will have the number `first_id` or a higher one.
    pub(crate) fn new(
        table: Arc<Table>,
        factory: Arc<SegmentFactory>,
        hooks: Arc<dyn Hooks>,
        first_id: u32,
        chain: Shape,
        in_flight_max: usize,
        manual: bool,
    ) -> Committer {
        let start = Lsn::new(first_id, FIRST_RECORD);
        let pipeline = Pipeline::new(start, chain);
        Committer {
            table,
            factory,
            hooks,
            pipeline: Mutex::new(pipeline),
            preparing: Mutex::new(false),
            completions: Completions::default(),
            sleepers: Sleepers::default(),
            group: Mutex::default(),
            room: Condvar::new(),
            work: Condvar::new(),
            gate: Gate::default(),
            durable: AtomicU64::new(start.to_u64()),
            written: AtomicU64::new(start.to_u64()),
            accepted: AtomicU64::new(start.to_u64()),
            start,
            before: chain.end().unwrap_or(Lsn::ZERO),
            recovering: AtomicBool::new(true),
            in_flight_max,
            manual,
            exhausted: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock()
    }

    /// Everything before is on the device. Before the first sync of this run: where its first
    /// segment may start.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// Where the next batch will go, or later.
    pub(crate) fn accepted(&self) -> Lsn {
        Lsn::from_u64(self.accepted.load(Ordering::Acquire))
    }

    /// The end of the last record that is known to be on the device: never the start of a segment.
    pub(crate) fn durable_record(&self) -> Lsn {
        let durable = self.durable();
        if durable == self.start { self.before } else { durable }
    }

    /// What the records written now say of the log before them: the end of a record, never of a gap
    /// between segments.
    ///
    /// While recovery copies the tail of the run before, nothing here counts yet: a watermark inside this run
    /// is what tells the next one that the copy is complete.
    pub(super) fn watermark(&self) -> Lsn {
        let durable = self.durable();
        if self.is_recovering() || durable == self.start { self.before } else { durable }
    }

    /// Begins the copy of the tail with what it will hold, so that a recovery after a crash knows
    /// what of the original was whole.
    pub(crate) fn announce(&self, loss: bool, records: Vec<Shape>) -> Result<()> {
        let mut desc = Vec::new();
        Announcement { loss, records }.encode(&mut desc);
        let mut record = Encoded {
            kind: RecordKind::Announcement,
            desc_crc: crate::codec::checksum::crc32(0, &desc),
            desc: Bytes::from(desc),
            ..watermark_record()
        };
        self.write(&mut record, &Accept::internal(Durability::Written)).map(drop)
    }

    /// The tail of the run before has been copied, after its announcement. Before anything is acknowledged,
    /// sealed or given back, the copy is made durable, and then what says that it is whole: a mark in another
    /// file, by `mark`, or another record of the log where that cannot be written.
    pub(crate) fn end_recovery(&self, cut: bool, mark: impl FnOnce(Lsn, Shape) -> Result<()>) -> Result<()> {
        let cut = cut && !planted(Bug::CopyNotSealed);
        if cut && !planted(Bug::MarkBeforeSync) {
            self.sync()?;
        }
        let marked = if cut { mark(self.accepted(), self.lock().chain) } else { Ok(()) };
        if cut {
            self.sync()?;
        }
        self.recovering.store(false, Ordering::Release);
        if marked.is_err() {
            self.write(&mut watermark_record(), &Accept::internal(Durability::Synced))?;
        }
        Ok(())
    }

    /// Whether the tail of the run before is being copied.
    pub(super) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Acquire)
    }

    pub(super) fn set_accepted(&self, lsn: Lsn) {
        self.accepted.store(lsn.to_u64(), Ordering::Release);
    }

    /// Fails in a fork of the process that opened the engine; asked before any lock is taken.
    pub(super) fn check_process(&self) -> Result<()> {
        if self.factory.dir.is_here() { Ok(()) } else { Err(Error::forked()) }
    }

    /// Stops all writing for a reason that lies outside of the pipeline.
    pub(crate) fn stop(&self, cause: Error) {
        self.poison(self.lock(), cause);
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Accepts a batch and waits until it is as durable as asked.
    pub(crate) fn write(&self, encoded: &mut Encoded, how: &Accept<'_>) -> Result<Outcome> {
        let Accepted { p, waiting, outcome, .. } = self.accept(encoded, how, false)?;
        self.drive(p, waiting)?;
        self.counters.commit_times.since(how.began);
        Ok(outcome)
    }

    /// Accepts a batch that others see through; a ticket waits for it.
    pub(super) fn submit(&self, encoded: &mut Encoded, how: &Accept<'_>) -> Result<(Arc<Pending>, Outcome)> {
        let Accepted { mut p, waiting, ticket, outcome } = self.accept(encoded, how, true)?;
        let pending = ticket.unwrap_or_else(|| Arc::new(Pending::new(waiting)));
        // Where it has to wait for others, they go on with it, and somebody looks whether that
        // takes too long.
        let concerns_driver = p.has_work() || !p.watched;
        let driver = Some(&self.work).filter(|_| concerns_driver && std::mem::take(&mut p.driver_sleeps));
        drop(p);
        self.notify(driver);
        Ok((pending, outcome))
    }

    /// What became of a batch, if that is known.
    ///
    /// Once the gate is shut the log comes no further: what is not reached by then never is.
    pub(super) fn outcome(&self, batch: Waiting) -> Option<Result<Lsn>> {
        let is_reached = || self.reached(batch.durability) >= batch.end;
        if is_reached() {
            return Some(Ok(batch.end));
        }
        let refused = self.gate.check().err()?;
        Some(if is_reached() { Ok(batch.end) } else { Err(refused) })
    }

    /// How far the log has this durability.
    fn reached(&self, durability: Durability) -> Lsn {
        match durability {
            Durability::Synced if !planted(Bug::AckBeforeSync) => self.durable(),
            _ => Lsn::from_u64(self.written.load(Ordering::Acquire)),
        }
    }

    /// Works until the batch is complete, or sleeps while others do.
    pub(super) fn drive<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>, mine: Waiting) -> Result<Lsn> {
        let is_settled = || self.outcome(mine).is_some();
        loop {
            if let Some(outcome) = self.outcome(mine) {
                // A thread that was woken to work and leaves passes the work on.
                self.hand_off(p);
                return outcome;
            }
            match self.step(p, is_settled) {
                Ok(passed_on) => {
                    if passed_on && let Some(outcome) = self.outcome(mine) {
                        return outcome;
                    }
                    p = self.lock();
                }
                Err(mut busy) => {
                    // Of its own group others may be settled without it.
                    let turn = mine.turn.max(1 + busy.settled(mine.durability));
                    let at_most = busy.watch();
                    self.sleepers.enlist(turn, mine.durability);
                    drop(busy);
                    let woken = self.sleepers.sleep(turn, mine.durability, at_most, is_settled);
                    if woken == Woken::Settled
                        && let Some(outcome) = self.outcome(mine)
                    {
                        return outcome;
                    }
                    p = self.lock();
                    p.watched &= at_most.is_none();
                    p.urgent |= woken == Woken::TimedOut && !p.queue.is_empty();
                }
            }
        }
    }

    /// Does all the work there is.
    pub(crate) fn drain(&self) {
        while self.step(self.lock(), || false).is_ok() {}
    }

    /// Without threads of the engine a ticket is driven by the thread that looks at it.
    pub(super) fn drive_if_manual(&self, mine: Waiting) {
        if self.manual {
            let _ = self.drive(self.lock(), mine);
        }
    }

    /// Does a stage's worth of work, or a write and the sync after it, if there is any that no thread is
    /// doing. `Err` gives the lock back with nothing done; it was held all the time, so what the caller knew
    /// before is true still, and it may wait for the end of a stage.
    ///
    /// `is_done` says whether the caller has what it works for, and will not come back. Then what is left of
    /// the work is passed on, and else only if callbacks come before: `Ok` says whether it was.
    pub(super) fn step<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        is_done: impl Fn() -> bool,
    ) -> Result<bool, MutexGuard<'a, Pipeline>> {
        let mut let_go = false;
        if p.can_write() {
            (p, let_go) = self.gather(p);
        }
        if self.gate.is_shut() {
            if p.queue.is_empty() && p.awaiting.is_empty() {
                return if let_go { Ok(false) } else { Err(p) };
            }
            self.fail_all(p);
            return Ok(true);
        }
        if p.can_write() {
            let Some((written, settled)) = self.write_stage(p) else { return Ok(true) };
            p = written;
            // No thread whose batch is settled waits for the sync.
            if settled.written.is_some() || p.in_room > 0 || !p.can_sync() || is_done() {
                return Ok(self.end_stage(p, settled, is_done()));
            }
        }
        if p.can_sync() {
            let Some((synced, settled)) = self.sync_stage(p) else { return Ok(true) };
            return Ok(self.end_stage(synced, settled, is_done()));
        }
        if let_go { Ok(false) } else { Err(p) }
    }

    /// The thread that works for tickets nobody waits for. Returns when the engine closes.
    pub(crate) fn run(&self) {
        let mut p = self.lock();
        loop {
            p = match self.step(p, || false) {
                Ok(_) => self.lock(),
                Err(p) if p.closed && p.queue.is_empty() && p.awaiting.is_empty() => return,
                Err(mut p) => {
                    p.driver_sleeps = true;
                    let (at_most, mut timed_out) = (p.watch(), false);
                    p = match at_most {
                        None => self.work.wait(p),
                        Some(at_most) => {
                            let woken = self.work.wait_timeout(p, at_most);
                            timed_out = woken.1;
                            woken.0
                        }
                    };
                    p.driver_sleeps = false;
                    p.watched &= at_most.is_none();
                    p.urgent |= timed_out && !p.queue.is_empty();
                    p
                }
            };
        }
    }

    /// If there is work that no thread is doing, wakes one for it.
    pub(super) fn hand_off(&self, mut p: MutexGuard<'_, Pipeline>) {
        let next = self.next_worker(&mut p);
        drop(p);
        self.notify(next);
    }

    /// Wakes the thread that was chosen, if one was, without the lock.
    pub(super) fn notify(&self, chosen: Option<&Condvar>) {
        if let Some(chosen) = chosen {
            self.counters.wakes.fetch_add(1, Ordering::Relaxed);
            chosen.notify_one();
        }
    }

    /// Chooses the thread that goes on with the work, if there is any that none is doing. Returns what has to
    /// be notified, without the lock.
    pub(super) fn next_worker(&self, p: &mut Pipeline) -> Option<&Condvar> {
        if planted(Bug::WorkNotHandedOn) || !p.has_work() {
            return None;
        }
        let sleeper = |d| self.sleepers.promote(p.settled(d) + 1..=p.turn, d);
        sleeper(Durability::Synced)
            .or_else(|| sleeper(Durability::Written))
            .or_else(|| Some(&self.work).filter(|_| std::mem::take(&mut p.driver_sleeps)))
    }

    /// Waits until a stage has ended, a segment became ready, or writing stopped.
    pub(super) fn wait_in_room<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        p.in_room += 1;
        let mut p = self.room.wait(p);
        p.in_room -= 1;
        p
    }

    // ---- what the rest of the engine asks -----------------------------------------------------------------

    /// Makes everything accepted so far durable.
    pub(crate) fn sync(&self) -> Result<Lsn> {
        let accepted = self.accepted();
        if self.durable() >= accepted {
            self.gate.check()?;
            return Ok(self.durable());
        }
        Ok(self.write(&mut watermark_record(), &Accept::internal(Durability::Synced))?.lsn)
    }

    /// Makes everything accepted so far durable without a record of its own, also while the engine closes.
    pub(crate) fn flush(&self) -> Result<()> {
        self.gate.check()?;
        let target = self.accepted();
        let mut p = self.lock();
        p.flush_to = p.flush_to.max(target);
        while self.durable() < target {
            self.gate.check()?;
            p = match self.step(p, || false) {
                Ok(_) => self.lock(),
                Err(p) => self.wait_in_room(p),
            };
        }
        self.hand_off(p);
        Ok(())
    }

    /// Fails once the engine is closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.lock().check_open()
    }

    /// Up to where the log is durable and the record that ends there, while nothing is on its way. `None`
    /// before the first record of this run.
    pub(crate) fn at_rest(&self) -> Option<(Lsn, Shape)> {
        let p = self.lock();
        let durable = self.durable();
        (p.is_idle() && p.written == durable && durable > self.start).then_some((durable, p.chain))
    }

    /// Looks at what no batch changes meanwhile, under the pipeline's lock.
    pub(crate) fn at_standstill<T>(&self, look: impl FnOnce() -> T) -> T {
        let _p = self.lock();
        look()
    }

    /// Forgets a destroyed region whose last operation lies before `segment`. Under the pipeline's lock, so
    /// that no writer is about to bring it back.
    pub(crate) fn forget_region(&self, id: RegionId, segment: u32) {
        let _p = self.lock();
        self.table.forget(id, |s| !s.exists && s.touched.segment() < segment);
    }

    /// What has been under way with the disk for longest, here or in upkeep, and since when.
    pub(crate) fn oldest_io(&self) -> Option<(&'static str, Instant)> {
        let p = self.lock();
        let syncing = p.syncs.front().map(|s| ("syncing the log", s.started));
        let writing = p.writing.map(|since| ("writing to the log", since));
        drop(p);
        let other = self.factory.watch.oldest().filter(|_| !planted(Bug::UpkeepNotWatched));
        [syncing, writing, other].into_iter().flatten().min_by_key(|(_, since)| *since)
    }

    /// Refuses further batches, wakes everybody who waits for room, and sees to its end what was accepted
    /// before: when this returns, nobody writes to the store any more.
    pub(crate) fn close(&self) {
        self.refuse();
        // What was written without being synced is synced now. An error is the gate's, and the
        // caller asks that.
        let _ = self.flush();
        let mut p = self.lock();
        loop {
            p = match self.step(p, || false) {
                Ok(_) => self.lock(),
                Err(p) if p.is_idle() => return,
                Err(p) => self.wait_in_room(p),
            };
        }
    }

    /// Refuses further batches, and wakes everybody who waits for room.
    pub(crate) fn refuse(&self) {
        self.lock().closed = true;
        self.room.notify_all();
        self.work.notify_all();
    }
}

impl Accept<'_> {
    /// For the engine's own records.
    pub(crate) fn internal(durability: Durability) -> Accept<'static> {
        Accept { durability, on_full: OnFull::Wait, began: clock::now(), origin: Origin::Engine }
    }
}

/// A record without content: it carries the durable watermark.
pub(super) fn watermark_record() -> Encoded {
    Encoded {
        kind: RecordKind::Watermark,
        batch: Batch::default(),
        blocks: Vec::new(),
        desc: Bytes::new(),
        desc_crc: crate::codec::checksum::crc32(0, &[]),
        payload: Bytes::new(),
    }
}
