//! The stages a batch goes through, and who works on them.

use super::completion::Completions;
use super::gate::Gate;
use super::ticket::{Pending, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Batch, Block};
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, Shape, record_len};
use crate::format::zeros::Zeros;
use crate::index::{Doomed, Table};
use crate::planted::{Bug, planted};
use crate::segment::pool::SegmentFactory;
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{SYNC_SLOTS, Segment};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::types::{Durability, Lsn, RegionId};
use crate::vfs::io::write_parts_at;
use bytes::Bytes;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The most bytes that one write stage takes on: beyond it the sync that follows would keep others waiting.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Written bytes that no sync was asked for are synced anyway beyond this many: they would have to be made durable
/// anew by the next open.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// A write ends on a whole page, so that the kernel never has to read the rest of it first.
const PAGE: u64 = 4096;
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// A batch as it goes to the log, but for its header, which needs the position.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) kind: RecordKind,
    /// Empty unless the record is a batch.
    pub(crate) batch: Batch,
    pub(crate) blocks: Vec<Block>,
    pub(crate) desc: Bytes,
    pub(crate) desc_crc: u32,
    pub(crate) payload: Bytes,
}

impl Encoded {
    /// Bytes of the record.
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.desc.len() as u32, self.payload.len() as u32)
    }
}

/// What to do while the bound on bytes in flight is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnFull {
    Wait,
    Fail,
}

/// Asked with what would be discarded; an error refuses the batch.
pub(crate) type BeforeRollback<'a> = &'a dyn Fn(&[Doomed]) -> Result<()>;

/// How a batch is to be accepted.
pub(crate) struct Accept<'a> {
    pub(crate) durability: Durability,
    pub(crate) on_full: OnFull,
    /// Whether the operations are checked against the regions. Those of the engine's own records are not: recovery replays what was
    /// checked once. And their writer alone waits for them: they complete at once, not behind callbacks, so that upkeep, which
    /// holds locks meanwhile, never waits for code that is not ours.
    pub(crate) checked: bool,
    /// Asked before entries are discarded, with no lock held; `None` when nobody listens.
    pub(crate) before_rollback: Option<BeforeRollback<'a>>,
}

/// What the pipeline tells the engine around it.
pub(crate) trait Hooks: Send + Sync {
    /// The log has moved on from `segment`, whose records end at `end`.
    fn segment_full(&self, segment: Arc<Segment>, end: u32);
    /// A segment should be prepared soon.
    fn segment_wanted(&self);
    /// Writing has stopped for good.
    fn poisoned(&self, cause: &Error);
}

/// One fdatasync under way.
struct SyncUnderWay {
    target: Lsn,
    slot: usize,
    ok: bool,
    started: Instant,
}

/// Everything that the pipeline's lock guards.
pub(super) struct Pipeline {
    pub(super) active: Arc<Segment>,
    /// Where the next record goes in `active`.
    pub(super) offset: u32,
    /// Prepared segments, in the order of their numbers.
    pub(super) ready: VecDeque<Arc<Segment>>,
    /// A segment of at least this length is waited for; 0 if none is.
    pub(super) wanted_len: u64,
    /// How many attempts to prepare one have ended, and why the last one failed if it did.
    pub(super) prepare_attempts: u64,
    pub(super) prepare_error: Option<(u64, Error)>,
    /// Accepted, not yet written.
    pub(super) queue: VecDeque<Arc<Pending>>,
    /// Written, waiting for a sync.
    awaiting: VecDeque<Arc<Pending>>,
    /// Somebody is in the write stage.
    writing: bool,
    /// Shape of the last written record.
    chain: Shape,
    /// Everything before is in the operating system's hands.
    written: Lsn,
    /// Segments written to since the last sync began, oldest first.
    dirty: Vec<Arc<Segment>>,
    unsynced_bytes: u64,
    /// Syncs under way, in the order in which they began.
    syncs: VecDeque<SyncUnderWay>,
    /// Target of the sync that began last.
    sync_target: Lsn,
    pub(super) in_flight_bytes: usize,
    /// Who waits for room, in the order in which they came: a large batch would wait for ever if small ones went past it. A thread
    /// may stand here twice: it works while it waits, and may so be led to a callback that waits.
    pub(super) line: VecDeque<ThreadId>,
    pub(super) closed: bool,
    /// The watermark that the last record carries.
    noted: Lsn,
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
}

/// Accepts batches and sees them through.
pub(crate) struct Committer {
    pub(super) table: Arc<Table>,
    pub(super) factory: Arc<SegmentFactory>,
    pub(super) hooks: Arc<dyn Hooks>,
    pub(super) pipeline: Mutex<Pipeline>,
    pub(super) completions: Completions,
    /// A stage has ended, a segment became ready, or writing stopped.
    pub(super) room: Condvar,
    /// There may be work that no waiting thread will do.
    work: Condvar,
    pub(super) gate: Gate,
    durable: AtomicU64,
    accepted: AtomicU64,
    /// Where this life began, and the end of the last record that was durable then.
    start: Lsn,
    before: Lsn,
    /// The tail of the life before is being made durable anew.
    recovering: AtomicBool,
    pub(super) in_flight_max: usize,
    /// No threads of the engine: whoever waits does everything.
    pub(super) manual: bool,
    pub(crate) counters: Counters,
}

impl Committer {
    pub(crate) fn new(
        table: Arc<Table>,
        factory: Arc<SegmentFactory>,
        hooks: Arc<dyn Hooks>,
        active: Arc<Segment>,
        chain: Shape,
        in_flight_max: usize,
        manual: bool,
    ) -> Committer {
        let start = Lsn::new(active.id, FIRST_RECORD);
        let pipeline = Pipeline {
            active,
            offset: FIRST_RECORD,
            ready: VecDeque::new(),
            wanted_len: 0,
            prepare_attempts: 0,
            prepare_error: None,
            queue: VecDeque::new(),
            awaiting: VecDeque::new(),
            writing: false,
            chain,
            written: start,
            dirty: Vec::new(),
            unsynced_bytes: 0,
            syncs: VecDeque::new(),
            sync_target: start,
            in_flight_bytes: 0,
            line: VecDeque::new(),
            closed: false,
            noted: Lsn::ZERO,
        };
        Committer {
            table,
            factory,
            hooks,
            pipeline: Mutex::new(pipeline),
            completions: Completions::default(),
            room: Condvar::new(),
            work: Condvar::new(),
            gate: Gate::default(),
            durable: AtomicU64::new(start.to_u64()),
            accepted: AtomicU64::new(start.to_u64()),
            start,
            before: chain.end().unwrap_or(Lsn::ZERO),
            recovering: AtomicBool::new(true),
            in_flight_max,
            manual,
            counters: Counters::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything before is on the device. Before the first sync of this life: the start of its first segment.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// Where the next batch will go, or later.
    pub(crate) fn accepted(&self) -> Lsn {
        Lsn::from_u64(self.accepted.load(Ordering::Acquire))
    }

    /// What the records written now say of the log before them: the end of a record, never of a gap between segments.
    ///
    /// While recovery copies the tail of the life before, nothing here counts yet: a watermark inside this life is what
    /// tells the next one that the copy is complete.
    fn watermark(&self) -> Lsn {
        let durable = if planted(Bug::WatermarkTooFar) { self.accepted() } else { self.durable() };
        let recovering = self.recovering.load(Ordering::Acquire) && !planted(Bug::WatermarkInsideTheCopy);
        let stuck = planted(Bug::WatermarkStuck);
        if recovering || durable == self.start || stuck { self.before } else { durable }
    }

    /// The tail of the life before has been written anew. If records that still show in its files are no part of the log
    /// any more, two records are made durable, one after the other, before anything is acknowledged or sealed: the first
    /// with the copy, the second to say that the copy is whole.
    pub(crate) fn end_recovery(&self, cut: bool) -> Result<()> {
        let cut = cut && !planted(Bug::CopyNotSealed);
        if cut {
            self.write(&watermark_record(), &Accept::internal(Durability::Synced))?;
        }
        self.recovering.store(false, Ordering::Release);
        if cut {
            self.write(&watermark_record(), &Accept::internal(Durability::Synced))?;
        }
        Ok(())
    }

    pub(super) fn set_accepted(&self, lsn: Lsn) {
        self.accepted.store(lsn.to_u64(), Ordering::Release);
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The active segment and where its next record goes.
    pub(crate) fn active(&self) -> (Arc<Segment>, u32) {
        let p = self.lock();
        (p.active.clone(), p.offset)
    }

    /// Accepts a batch and waits until it is as durable as asked.
    pub(crate) fn write(&self, encoded: &Encoded, how: &Accept<'_>) -> Result<Lsn> {
        let pending = self.accept(encoded, how)?;
        self.drive(&pending)
    }

    /// Accepts a batch; the ticket tells the rest.
    pub(crate) fn submit(self: &Arc<Self>, encoded: &Encoded, how: &Accept<'_>) -> Result<Ticket> {
        let pending = self.accept(encoded, how)?;
        if !self.manual {
            self.work.notify_one();
        }
        Ok(Ticket::new(pending, self.clone()))
    }

    /// Works until `mine` is complete, or sleeps while others do.
    pub(super) fn drive(&self, mine: &Pending) -> Result<Lsn> {
        let mut p = self.lock();
        loop {
            if let Some(result) = mine.result() {
                // Whoever was woken to work and leaves passes the work on.
                self.hand_off(&p);
                return result;
            }
            p = match self.step(p) {
                Ok(p) => p,
                Err(p) if self.completions.give_way() => self.run_completions(p),
                Err(p) => {
                    let enlisted = mine.enlist();
                    drop(p);
                    if enlisted {
                        self.sleep_for(mine);
                        if let Some(result) = mine.result()
                            && !mine.was_promoted()
                        {
                            return result;
                        }
                    }
                    self.lock()
                }
            };
        }
    }

    /// Does all the work there is.
    pub(crate) fn drain(&self) {
        let mut p = self.lock();
        while let Ok(next) = self.step(p) {
            p = next;
        }
    }

    fn sleep_for(&self, mine: &Pending) {
        while mine.result().is_none() && !mine.was_promoted() {
            thread::park();
        }
    }

    /// Without threads of the engine a ticket is driven by whoever looks at it.
    pub(super) fn drive_if_manual(&self, mine: &Pending) {
        if self.manual {
            let _ = self.drive(mine);
        }
    }

    /// Does one stage's worth of work, if there is any that nobody is at. `Err` gives the lock back with nothing done.
    pub(super) fn step<'a>(
        &'a self,
        p: MutexGuard<'a, Pipeline>,
    ) -> Result<MutexGuard<'a, Pipeline>, MutexGuard<'a, Pipeline>> {
        if self.gate.is_shut() {
            let idle = p.queue.is_empty() && p.awaiting.is_empty();
            return if idle { Err(p) } else { Ok(self.fail_all(p)) };
        }
        if p.can_write() {
            return Ok(self.write_stage(p));
        }
        if p.can_sync() {
            return Ok(self.sync_stage(p));
        }
        Err(p)
    }

    /// The thread that works for tickets nobody waits for. Returns when the engine closes.
    pub(crate) fn run(&self) {
        let mut p = self.lock();
        loop {
            p = match self.step(p) {
                Ok(p) => p,
                Err(p) if p.closed && p.queue.is_empty() && p.awaiting.is_empty() => return,
                Err(p) => self.work.wait(p).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// If there is work that nobody is at, wakes somebody for it.
    pub(super) fn hand_off(&self, p: &Pipeline) {
        if planted(Bug::WorkNotHandedOn) || !(p.can_write() || p.can_sync()) {
            return;
        }
        let woken = p.awaiting.iter().take(4).chain(p.queue.iter().take(4)).any(|pending| pending.promote());
        if !woken {
            self.work.notify_one();
        }
    }

    // ---- write stage -------------------------------------------------------------------------------------------

    fn write_stage<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        p.writing = true;
        let mut bytes = 0;
        let mut group = Vec::with_capacity(p.queue.len());
        while let Some(next) = p.queue.front() {
            bytes += next.bytes;
            if !group.is_empty() && bytes > GROUP_BYTES_MAX {
                break;
            }
            group.extend(p.queue.pop_front());
        }
        let mut chain = p.chain;
        drop(p);

        let watermark = self.watermark();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write_group(&group, &mut chain, watermark)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the writer panicked")));

        let mut p = self.lock();
        p.writing = false;
        if let Err(cause) = outcome {
            group.into_iter().rev().for_each(|pending| p.queue.push_front(pending));
            return self.poison(p, cause);
        }
        if self.gate.is_shut() {
            // A sync failed meanwhile: what was written is not acknowledged any more, not even as written.
            group.into_iter().rev().for_each(|pending| p.queue.push_front(pending));
            return self.fail_all(p);
        }
        p.chain = chain;
        p.noted = watermark;
        for pending in group {
            p.written = pending.end;
            p.unsynced_bytes += pending.bytes as u64;
            if p.dirty.last().is_none_or(|s| s.id != pending.segment.id) {
                p.dirty.push(pending.segment.clone());
            }
            let durability =
                if planted(Bug::AckBeforeSync) { Durability::Written } else { pending.durability };
            match durability {
                Durability::Synced => p.awaiting.push_back(pending),
                Durability::Written => {
                    let end = pending.end;
                    self.settle(&mut p, pending, Ok(end));
                }
            }
        }
        self.run_completions(p)
    }

    /// Chains the headers and writes the group, one call for each segment it touches.
    fn write_group(&self, group: &[Arc<Pending>], chain: &mut Shape, watermark: Lsn) -> Result<()> {
        let headers: Vec<[u8; RECORD_HEADER_LEN as usize]> = group
            .iter()
            .map(|r| {
                let header = RecordHeader {
                    kind: r.kind,
                    position: Lsn::new(r.segment.id, r.offset),
                    desc_len: r.desc.len() as u32,
                    payload_len: r.payload.len() as u32,
                    desc_crc: r.desc_crc,
                    watermark,
                    zeros: Zeros::of(
                        u64::from(r.offset) + u64::from(RECORD_HEADER_LEN),
                        [&r.desc, &r.payload],
                    ),
                    previous: *chain,
                };
                let (bytes, shape) = header.encode(r.segment.seed);
                *chain = shape;
                bytes
            })
            .collect();
        let mut slices: Vec<&[u8]> = Vec::with_capacity(group.len() * 4 + 1);
        let mut at = 0;
        while at < group.len() {
            let segment = &group[at].segment;
            let start = u64::from(group[at].offset);
            let mut end = start;
            slices.clear();
            while at < group.len() && group[at].segment.id == segment.id {
                let r = &group[at];
                let used = u64::from(RECORD_HEADER_LEN) + r.desc.len() as u64 + r.payload.len() as u64;
                let len = record_len(r.desc.len() as u32, r.payload.len() as u32);
                slices.extend([
                    &headers[at][..],
                    &r.desc[..],
                    &r.payload[..],
                    &ZEROS[..(len - used) as usize],
                ]);
                end += len;
                at += 1;
            }
            let padded = end.next_multiple_of(PAGE).min(segment.len);
            slices.push(&ZEROS[..(padded - end) as usize]);
            write_parts_at(&*segment.file, &slices, start)
                .map_err(|e| Error::io("writing to the log", &segment.path, e))?;
            segment.advance_written(if planted(Bug::WrittenTooFar) { u32::MAX } else { end as u32 });
            segment.record_bytes.fetch_add(end - start, Ordering::Relaxed);
            self.counters.writes.fetch_add(1, Ordering::Relaxed);
            self.counters.written_bytes.fetch_add(padded - start, Ordering::Relaxed);
        }
        Ok(())
    }

    // ---- sync stage --------------------------------------------------------------------------------------------

    fn sync_stage<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        let target = p.written;
        let slot = (0..SYNC_SLOTS).find(|s| p.syncs.iter().all(|y| y.slot != *s)).unwrap_or(0);
        let segments = std::mem::take(&mut p.dirty);
        p.syncs.push_back(SyncUnderWay { target, slot, ok: false, started: Instant::now() });
        p.sync_target = target;
        p.unsynced_bytes = 0;
        drop(p);

        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let skipped = match segments.len() {
                n if planted(Bug::SyncForgotten) => n,
                n if planted(Bug::OlderSegmentNotSynced) => n.saturating_sub(1),
                _ => 0,
            };
            segments.iter().skip(skipped).try_for_each(|s| {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                let sync = || s.sync_handle(slot).sync_data();
                let synced =
                    sync().or_else(|e| if planted(Bug::FailedSyncRetried) { sync() } else { Err(e) });
                synced.map_err(|e| Error::io("syncing the log", &s.path, e))
            })
        }))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the writer panicked")));

        let mut p = self.lock();
        if let Err(cause) = outcome {
            p.syncs.retain(|s| s.slot != slot);
            return self.poison(p, cause);
        }
        if self.gate.is_shut() && !planted(Bug::AckAfterError) {
            p.syncs.retain(|s| s.slot != slot);
            // It may be durable, but nothing is acknowledged after the first error.
            return self.fail_all(p);
        }
        for sync in &mut p.syncs {
            sync.ok |= sync.slot == slot;
        }
        let mut durable = None;
        while p.syncs.front().is_some_and(|s| s.ok) {
            durable = p.syncs.pop_front().map(|s| s.target);
        }
        if let Some(durable) = durable {
            self.durable.store(durable.to_u64(), Ordering::Release);
            while p.awaiting.front().is_some_and(|b| b.end <= durable) {
                if let Some(pending) = p.awaiting.pop_front() {
                    let end = pending.end;
                    self.settle(&mut p, pending, Ok(end));
                }
            }
        }
        // The disk should not idle while tickets are completed.
        self.hand_off(&p);
        self.run_completions(p)
    }

    // ---- completion --------------------------------------------------------------------------------------------

    /// The outcome of a batch is known.
    fn settle(&self, p: &mut Pipeline, pending: Arc<Pending>, outcome: Result<Lsn>) {
        p.in_flight_bytes -= pending.bytes;
        if pending.unheard {
            pending.complete(outcome);
        } else {
            self.completions.add(pending, outcome);
        }
    }

    /// A stage has ended: tells the outcomes that are due, without the lock.
    fn run_completions<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        self.room.notify_all();
        if p.closed {
            // The thread that drives what nobody waits for ends once everything has completed, whoever did it.
            self.work.notify_all();
        }
        while self.completions.are_due() {
            drop(p);
            let told = self.completions.tell();
            p = self.lock();
            if told.is_err() {
                p = self.poison(p, Error::new(ErrorKind::Io, "a completion callback panicked"));
            }
        }
        p
    }

    /// Stops all writing. Those who wait are told before the listeners, who may want to close the engine, which waits for them.
    fn poison<'a>(&'a self, p: MutexGuard<'a, Pipeline>, cause: Error) -> MutexGuard<'a, Pipeline> {
        let first = !planted(Bug::GateLeftOpen) && self.gate.trip(cause.clone());
        let p = self.fail_all(p);
        if !first {
            return p;
        }
        drop(p);
        // A listener that panics must not take the thread along that works for others.
        let _ = catch_unwind(AssertUnwindSafe(|| self.hooks.poisoned(&cause)));
        self.lock()
    }

    /// Everything that was not acknowledged fails with the first cause.
    fn fail_all<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> MutexGuard<'a, Pipeline> {
        while let Some(pending) = p.awaiting.pop_front().or_else(|| p.queue.pop_front()) {
            let refused = self.gate.check().err();
            let error = refused.unwrap_or_else(|| Error::new(ErrorKind::Closed, "the engine is closed"));
            self.settle(&mut p, pending, Err(error));
        }
        self.work.notify_all();
        self.run_completions(p)
    }

    // ---- what the rest of the engine asks ----------------------------------------------------------------------

    /// Makes everything accepted so far durable.
    pub(crate) fn sync(&self) -> Result<Lsn> {
        let accepted = self.accepted();
        if self.durable() >= accepted {
            self.gate.check()?;
            return Ok(self.durable());
        }
        self.write(&watermark_record(), &Accept::internal(Durability::Synced))
    }

    /// A ticket that completes when everything accepted so far has the durability.
    pub(crate) fn barrier(self: &Arc<Self>, durability: Durability) -> Result<Ticket> {
        // Somebody listens to this one.
        self.submit(&watermark_record(), &Accept { checked: true, ..Accept::internal(durability) })
    }

    /// Notes the watermark in the log if the last record does not carry it; costs no sync.
    pub(crate) fn note_watermark(&self) -> Result<()> {
        let p = self.lock();
        let stale = p.noted < self.durable() && p.written == self.durable();
        let due = p.is_idle() && stale;
        drop(p);
        if due {
            self.write(&watermark_record(), &Accept::internal(Durability::Written))?;
        }
        Ok(())
    }

    /// Forgets a destroyed region whose last operation lies before `segment`. Under the pipeline's lock, so that no
    /// writer is about to bring it back.
    pub(crate) fn forget_region(&self, id: RegionId, segment: u32) {
        let _p = self.lock();
        self.table.forget(id, |s| !s.exists && s.touched.segment() < segment);
    }

    /// How long the oldest sync has been running.
    pub(crate) fn sync_running_for(&self) -> Option<Duration> {
        self.lock().syncs.front().map(|s| s.started.elapsed())
    }

    /// Refuses further batches, wakes everybody who waits for room, and sees to its end what was accepted before: when this
    /// returns, nobody writes to the store any more.
    pub(crate) fn close(&self) {
        let mut p = self.lock();
        p.closed = true;
        self.room.notify_all();
        self.work.notify_all();
        loop {
            p = match self.step(p) {
                Ok(p) => p,
                Err(p) if p.is_idle() => return,
                Err(p) => self.room.wait(p).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// How many segments are prepared, and how long a next one has to be if one is waited for.
    pub(crate) fn ready(&self) -> (usize, u64) {
        let p = self.lock();
        (p.ready.len(), p.wanted_len)
    }

    /// Bytes of the prepared segments.
    pub(crate) fn ready_bytes(&self) -> u64 {
        self.lock().ready.iter().map(|s| s.len).sum()
    }

    /// Hands over a prepared segment. One that is larger than usual replaces those that are too small.
    pub(crate) fn put_ready(&self, prepared: Result<Arc<Segment>>) {
        let mut p = self.lock();
        p.prepare_attempts += 1;
        let mut unused = VecDeque::new();
        match prepared {
            Ok(segment) => {
                if p.wanted_len > 0 && segment.len >= p.wanted_len {
                    let wanted = p.wanted_len;
                    let (keep, small) = p.ready.drain(..).partition(|s| s.len >= wanted);
                    p.ready = keep;
                    unused = small;
                    p.wanted_len = 0;
                }
                p.ready.push_back(segment);
                p.prepare_error = None;
            }
            Err(e) => p.prepare_error = Some((p.prepare_attempts, e)),
        }
        drop(p);
        for segment in &unused {
            self.retire(segment);
        }
        self.room.notify_all();
    }

    /// The file of `segment` may be used again once nobody holds it.
    pub(crate) fn retire(&self, segment: &Segment) {
        let factory: Arc<dyn crate::segment::Retire> = self.factory.clone();
        segment.retire_to(Arc::downgrade(&factory));
    }
}

impl Accept<'_> {
    /// For the engine's own records.
    pub(crate) fn internal(durability: Durability) -> Accept<'static> {
        Accept { durability, on_full: OnFull::Wait, checked: false, before_rollback: None }
    }
}

impl Pipeline {
    fn can_write(&self) -> bool {
        !self.writing && !self.queue.is_empty()
    }

    /// Whether nothing is on its way.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.awaiting.is_empty() && self.syncs.is_empty() && !self.writing
    }

    fn can_sync(&self) -> bool {
        let asked = self.awaiting.back().is_some_and(|b| b.end > self.sync_target);
        (asked || self.unsynced_bytes > UNSYNCED_BYTES_MAX) && self.syncs.len() < SYNC_SLOTS
    }
}

/// A record without content: it carries the durable watermark.
fn watermark_record() -> Encoded {
    Encoded {
        kind: RecordKind::Watermark,
        batch: Batch::default(),
        blocks: Vec::new(),
        desc: Bytes::new(),
        desc_crc: crate::codec::checksum::crc32(0, &[]),
        payload: Bytes::new(),
    }
}
