//! What accepts batches and sees them through.

use super::accept::{Accept, OnFull, Origin, watermark_record};
use super::active::Placement;
use super::admission::check;
use super::approval::Approval;
use super::budget::{Budget, Level};
use super::counters::Counters;
use super::gate::{Gate, Stopped};
use super::hooks::Hooks;
use super::load::Load;
use super::pending::{Pending, Waiting};
use super::pipeline::Pipeline;
use super::progress::Progress;
use super::rotation::Rotation;
use super::shared::Shared;
use super::unsent::Unsent;
use super::watchers::{Watcher, Watchers};
use super::workers::Worker;
use crate::error::{Error, Result};
use crate::format::batch::{Announcement, Encoded};
use crate::format::mark::MARK_COPIES_MAX;
use crate::format::record::{RecordKind, Shape};
use crate::index::Table;
use crate::planted::{Bug, planted};
use crate::report::Outcome;
use crate::segment::factory::{SegmentFactory, segment_len_for};
use crate::segment::mark_file::Rest;
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{Segment, Unwritten};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard};
use crate::types::{Durability, Lsn, RegionId};
use bytes::Bytes;
use std::time::Instant;

/// A batch that was accepted, with the lock still held.
struct Accepted<'a> {
    p: MutexGuard<'a, Pipeline>,
    waiting: Waiting,
    /// If one was asked for.
    ticket: Option<Arc<Pending>>,
    outcome: Outcome,
}

/// Accepts batches and sees them through.
pub(crate) struct Committer {
    shared: Shared,
    rotation: Rotation,
    budget: Budget,
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
        let pipeline = Pipeline::new(table, start, chain, in_flight_max);
        let progress = Progress::new(start, chain);
        Committer {
            shared: Shared::new(pipeline, progress, hooks, factory.clone(), manual),
            rotation: Rotation::new(factory),
            budget: Budget::default(),
        }
    }

    /// The same, with a bound on what the store takes.
    pub(crate) fn with_budget(self, budget: Budget) -> Committer {
        Committer { budget, ..self }
    }

    /// The calling thread works.
    fn worker(&self) -> Worker<'_> {
        Worker::of(&self.shared)
    }

    // ---- batches ------------------------------------------------------------------------------------------

    /// Accepts a batch and waits until it is as durable as asked.
    pub(crate) fn write(&self, encoded: &mut Encoded, how: &Accept<'_>) -> Result<Outcome, Unsent> {
        let Accepted { p, waiting, outcome, .. } = self.accept(encoded, how, false)?;
        self.worker().drive(p, waiting)?;
        self.shared.counters.commit_times.since(how.began);
        Ok(outcome)
    }

    /// Accepts a batch that others see through; a ticket waits for it.
    pub(super) fn submit(
        &self,
        encoded: &mut Encoded,
        how: &Accept<'_>,
    ) -> Result<(Arc<Pending>, Outcome), Unsent> {
        let Accepted { p, waiting, ticket, outcome } = self.accept(encoded, how, true)?;
        self.shared.waking.leave_to_others(p);
        Ok((ticket.unwrap_or_else(|| Arc::new(Pending::new(waiting))), outcome))
    }

    /// Accepts a batch: from here on it is readable, ordered, and on its way. A refusal leaves no trace.
    ///
    /// `has_ticket`: a callback or waker may come to need the outcome, which is then delivered in its turn.
    fn accept(
        &self,
        encoded: &mut Encoded,
        how: &Accept<'_>,
        has_ticket: bool,
    ) -> Result<Accepted<'_>, Unsent> {
        let mut approval = Approval::default();
        let accepted = self.accept_approved(encoded, how, has_ticket, &mut approval);
        if accepted.is_err() {
            approval.take_back(encoded);
        }
        accepted
    }

    fn accept_approved(
        &self,
        encoded: &mut Encoded,
        how: &Accept<'_>,
        has_ticket: bool,
        approval: &mut Approval,
    ) -> Result<Accepted<'_>, Unsent> {
        check(encoded).map_err(Unsent::refused)?;
        let (mut len, mut appends) = (encoded.record_len(), how.appends_to(&encoded.batch));
        let mut p = self.shared.lock();
        loop {
            p = self.wait_for_room(p, len as usize, how.on_full)?;
            if let Some(region) = appends.filter(|_| self.budget.is_spent()) {
                return Err(Unwritten::NoSpace(self.budget.refusal(region)).into());
            }
            let Some(place) = p.segments.place_for(len) else {
                p = self.move_on(p, len, appends, how)?;
                continue;
            };
            let planned = p.admission.plan(encoded, place.end, &how.origin, approval);
            if let Some(ask) = planned.map_err(Unsent::refused)? {
                drop(p);
                approval.ask(ask, encoded).map_err(Unsent::refused)?;
                // With what listeners have added.
                check(encoded).map_err(Unsent::refused)?;
                (len, appends) = (encoded.record_len(), how.appends_to(&encoded.batch));
                p = self.shared.lock();
                continue;
            }
            if place.start() < self.shared.progress.accepted() {
                return Err(self.shared.refuse_to_go_back(p).into());
            }
            return self.admit(p, place, encoded, how, has_ticket);
        }
    }

    /// Waits until there is room for a batch of `len` bytes, after those that came before.
    ///
    /// # Errors
    /// Writing has stopped or the engine is closed, now or while it waits; or the caller does not wait.
    fn wait_for_room<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        len: usize,
        on_full: OnFull,
    ) -> Result<MutexGuard<'a, Pipeline>, Unsent> {
        if !self.has_to_wait(&p, len)? {
            return Ok(p);
        }
        if on_full == OnFull::Fail {
            return Err(Unsent::Busy(p.room.refusal()));
        }
        p.room.queue_up();
        self.shared.counters.throttled.fetch_add(1, Ordering::Relaxed);
        // However the wait ends, the thread stands in the line no more.
        let outcome = loop {
            // In a callback, this may be the very thread that works for tickets nobody waits for.
            // Others only wait: work would lead them to callbacks, and a caller that merely submits
            // does not expect to run those.
            p = match self.shared.manual || self.shared.is_in_callback() {
                true => self.worker().step_or_wait(p, true),
                false => self.shared.waking.wait_for_change(p),
            };
            match self.has_to_wait(&p, len) {
                Ok(true) => {}
                outcome => break outcome,
            }
        };
        p.room.leave_line();
        self.shared.waking.announce_change();
        outcome.map(|_| p)
    }

    /// Whether a batch of `len` bytes has to wait for room, if any is accepted.
    fn has_to_wait(&self, p: &Pipeline, len: usize) -> Result<bool, Unsent> {
        self.shared.gate.check()?;
        p.check_open().map_err(Unsent::refused)?;
        Ok(p.room.is_lacking(len))
    }

    /// Moves on to a segment with room for a record of `len` bytes, if the store may grow by one.
    fn move_on<'a>(
        &'a self,
        p: MutexGuard<'a, Pipeline>,
        len: u64,
        appends: Option<RegionId>,
        how: &Accept<'_>,
    ) -> Result<MutexGuard<'a, Pipeline>, Unsent> {
        self.afford(&p, len, appends)?;
        self.rotation.rotate(&self.shared, p, len, how).inspect_err(|e| {
            if let Unsent::Refused(unwritten) = e
                && planted(Bug::NoSpacePoisons)
            {
                self.shared.gate.trip(unwritten.clone());
            }
        })
    }

    /// Makes the batch readable that was planned, and queues it.
    fn admit<'a>(
        &'a self,
        mut guard: MutexGuard<'a, Pipeline>,
        place: Placement,
        encoded: &mut Encoded,
        how: &Accept<'_>,
        has_ticket: bool,
    ) -> Result<Accepted<'a>, Unsent> {
        let Shared { progress, counters, hooks, watchers, .. } = &self.shared;
        let p = &mut *guard;
        let is_planned = matches!(how.origin, Origin::Caller { .. });
        let durable = progress.durable();
        let admitted = p.admission.admit(encoded, is_planned, &place, durable, counters, watchers);
        let outcome = admitted.map_err(Unsent::refused)?;
        let (waiting, ticket) = p.push(place, encoded, how, has_ticket);
        progress.set_accepted(waiting.end);
        // Ask for the next segment well before this one is full, and that it is filled until then.
        if p.segments.is_next_due(p.sync.at_once()) {
            hooks.segment_wanted();
        }
        Ok(Accepted { p: guard, waiting, ticket, outcome })
    }

    /// The log is about to move on, for a record of `len` bytes, which appends to a region if one is named.
    fn afford(&self, p: &Pipeline, len: u64, appends: Option<RegionId>) -> Result<(), Unwritten> {
        if !self.budget.is_on() {
            return Ok(());
        }
        let hooks = &self.shared.hooks;
        let next = p.segments.usual_len(&self.rotation.factory);
        let active = p.segments.active().map_or(0, |(active, _)| active.len);
        let level = self.budget.judge(hooks.full_bytes() + active, next);
        if level == Level::Spent {
            // Listeners are notified.
            hooks.upkeep_wanted();
        }
        let is_too_long = self.budget.left() < segment_len_for(len).max(next);
        match appends.filter(|_| level == Level::Spent || is_too_long && !planted(Bug::BudgetIgnored)) {
            Some(region) => Err(Unwritten::NoSpace(self.budget.refusal(region))),
            None => Ok(()),
        }
    }

    /// Waits for a batch that was submitted.
    pub(super) fn wait_for(&self, batch: Waiting) -> Result<Lsn> {
        Ok(self.worker().drive(self.shared.lock(), batch)?)
    }

    /// What became of a batch, if that is known.
    pub(super) fn outcome(&self, batch: Waiting) -> Option<Result<Lsn>> {
        self.shared.outcome(batch).map(|outcome| outcome.map_err(Error::from))
    }

    /// Without threads of the engine a ticket is driven by the thread that looks at it.
    pub(super) fn drive_if_manual(&self, batch: Waiting) {
        self.worker().drive_if_manual(batch);
    }

    /// Fails in a fork of the process that opened the engine; asked before any lock is taken.
    pub(super) fn check_process(&self) -> Result<()> {
        if self.rotation.factory.files.dir.is_here() { Ok(()) } else { Err(Error::forked()) }
    }

    // ---- recovery -----------------------------------------------------------------------------------------

    /// Begins the copy of the tail with what it will hold, so that a recovery after a crash knows
    /// what of the original was whole.
    pub(crate) fn announce(&self, loss: bool, records: Vec<Shape>) -> Result<(), Unsent> {
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
    pub(crate) fn end_recovery(
        &self,
        cut: bool,
        mark: impl FnOnce(Rest) -> Result<()>,
    ) -> Result<(), Unsent> {
        let cut = cut && !planted(Bug::CopyNotSealed);
        if cut && !planted(Bug::MarkBeforeSync) {
            self.sync()?;
            self.copy_for_rest()?;
        }
        let rest = || self.rest_of(&self.shared.lock(), self.accepted());
        let marked = if cut { mark(rest()) } else { Ok(()) };
        if cut {
            self.sync()?;
        }
        self.shared.progress.set_recovered();
        if marked.is_err() {
            self.write(&mut watermark_record(), &Accept::internal(Durability::Synced))?;
        }
        Ok(())
    }

    // ---- what the rest of the engine does -----------------------------------------------------------------

    /// Makes everything accepted so far durable.
    pub(crate) fn sync(&self) -> Result<Lsn, Unsent> {
        let accepted = self.accepted();
        if self.durable() >= accepted {
            self.shared.gate.check()?;
            return Ok(self.durable());
        }
        Ok(self.write(&mut watermark_record(), &Accept::internal(Durability::Synced))?.lsn)
    }

    /// Makes everything accepted so far durable without a record of its own, also while the engine closes.
    pub(crate) fn flush(&self) -> Result<(), Stopped> {
        self.worker().flush()
    }

    /// Does all the work there is.
    pub(crate) fn drain(&self) {
        self.worker().drain();
    }

    /// The thread that works for tickets nobody waits for. Returns when the engine closes.
    pub(crate) fn run(&self) {
        self.worker().run();
    }

    /// Ends the active segment where it stands, if there is one, and makes it durable. No other takes its
    /// place before there is a record for it.
    pub(crate) fn roll(&self) -> Result<(), Stopped> {
        self.shared.gate.check()?;
        self.rotation.end_active(&self.shared);
        self.flush()
    }

    /// Makes the next segment ready, if one should be.
    ///
    /// # Errors
    /// What it failed with, unless somebody waited for the segment and was answered.
    pub(crate) fn prepare(&self) -> Result<()> {
        Ok(self.rotation.prepare(&self.shared)?)
    }

    /// A full segment has its footer, or cannot be given one: who waits for that looks again.
    pub(crate) fn seal_ended(&self) {
        // With the lock: a writer that has just seen that it has to wait is waiting by now, and is woken.
        let _p = self.shared.lock();
        self.shared.waking.announce_change();
    }

    /// The file of `segment` may be used again once nobody holds it.
    pub(crate) fn retire(&self, segment: &Segment) {
        self.rotation.retire(segment);
    }

    /// Ends the active segment in its place, and gives back those that are prepared. None is prepared any
    /// more. After that the next file has the number that the next run begins with.
    pub(crate) fn end_segments(&self) {
        self.rotation.end(&self.shared);
    }

    /// Forgets a destroyed region whose last operation lies before `segment`. Under the pipeline's lock, so
    /// that no writer is about to bring it back.
    pub(crate) fn forget_region(&self, id: RegionId, segment: u32) {
        self.shared.lock().admission.forget(id, segment);
    }

    /// Looks at what no batch changes meanwhile, under the pipeline's lock.
    pub(crate) fn at_standstill<T>(&self, look: impl FnOnce() -> T) -> T {
        let _p = self.shared.lock();
        look()
    }

    /// Stops all writing for a reason that lies outside of the pipeline.
    pub(crate) fn stop(&self, cause: Error) {
        self.shared.poison(self.shared.lock(), Unwritten::Failed(cause));
    }

    /// Refuses further batches, wakes everybody who waits for room, and sees to its end what was accepted
    /// before: when this returns, nobody writes to the store any more.
    pub(crate) fn close(&self) {
        self.refuse();
        // What was written without being synced is synced now. An error is the gate's, and the
        // caller asks that.
        let _ = self.flush();
        self.worker().finish();
    }

    /// Refuses further batches, and wakes everybody who waits for room.
    pub(crate) fn refuse(&self) {
        self.shared.lock().closed = true;
        self.shared.waking.announce_close();
    }

    // ---- what the rest of the engine asks -----------------------------------------------------------------

    /// Fails once the engine is closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.shared.lock().check_open()
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// How often threads were woken.
    pub(crate) fn wakes(&self) -> u64 {
        self.shared.waking.wakes()
    }

    /// Where the next batch will go, or later.
    pub(crate) fn accepted(&self) -> Lsn {
        self.shared.progress.accepted()
    }

    /// Everything before is on the device. Before the first sync of this run: where its first
    /// segment may start.
    pub(crate) fn durable(&self) -> Lsn {
        self.shared.progress.durable()
    }

    /// The end of the last record that is known to be on the device: never the start of a segment.
    pub(crate) fn durable_record(&self) -> Lsn {
        self.shared.progress.durable_record()
    }

    /// Whether anything was accepted in this run.
    pub(crate) fn has_written(&self) -> bool {
        self.shared.progress.has_accepted()
    }

    /// Where the log is at rest, while nothing is on its way. `None` before the first record of this run.
    pub(crate) fn at_rest(&self) -> Option<Rest> {
        let p = self.shared.lock();
        let durable = self.durable();
        let is_at_rest = p.is_idle() && p.sync.written() == durable && self.shared.progress.has_synced();
        is_at_rest.then(|| self.rest_of(&p, durable))
    }

    fn rest_of(&self, p: &Pipeline, durable: Lsn) -> Rest {
        let (copies, _) = p.write.uncopied.newest(MARK_COPIES_MAX);
        let copies = if planted(Bug::MarkWithoutCopies) { Bytes::new() } else { Bytes::from(copies) };
        Rest { durable, last: p.write.chain(), copies }
    }

    /// Sees to it that copies of all that is written stand in the log, or fit into the mark. In the log the
    /// last of them may stand in one block with what they are copies of, and only there.
    ///
    /// # Errors
    /// Of the log.
    pub(crate) fn copy_for_rest(&self) -> Result<(), Stopped> {
        self.shared.gate.check()?;
        let mut p = self.shared.lock();
        let (_, is_all) = p.write.uncopied.newest(MARK_COPIES_MAX);
        if is_all || p.closed {
            return Ok(());
        }
        let Some(end) = p.push_copies(true) else { return Ok(()) };
        self.shared.progress.set_accepted(end);
        drop(p);
        self.flush()
    }

    /// The active segment and where its next record goes, if there is one.
    pub(crate) fn active(&self) -> Option<(Arc<Segment>, u32)> {
        self.shared.lock().segments.active()
    }

    /// The number of the active segment; without one, the lowest that the next may have. Whatever is accepted
    /// from here on goes there or beyond.
    pub(crate) fn active_id(&self) -> u32 {
        self.shared.lock().segments.active_id()
    }

    /// How long the next segment is unless a batch needs more.
    pub(crate) fn usual_len(&self) -> u64 {
        self.shared.lock().segments.usual_len(&self.rotation.factory)
    }

    /// What the store may take on the disk.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// One more that watches what is accepted from now on, and how far the log is durable before.
    pub(super) fn add_watcher(&self) -> Result<(Arc<Watcher>, Lsn)> {
        let p = self.shared.lock();
        p.check_open()?;
        Ok((self.shared.watchers.add(), self.durable()))
    }

    pub(super) fn watchers(&self) -> &Watchers {
        &self.shared.watchers
    }

    /// How many segments are prepared.
    pub(crate) fn ready_count(&self) -> usize {
        self.shared.lock().segments.ready_count()
    }

    /// How many threads wait for batches before theirs to complete, and how many bytes these have.
    pub(crate) fn waiting_for_room(&self) -> (u64, u64) {
        let p = self.shared.lock();
        (p.room.waiting() as u64, p.room.bytes() as u64)
    }

    /// The pipeline as it is now.
    pub(crate) fn load(&self) -> Load {
        Load::of(&self.shared.lock(), &self.shared.progress, &self.rotation.factory)
    }

    /// What has been under way with the disk for longest, here or in upkeep, and since when.
    pub(crate) fn oldest_io(&self) -> Option<(&'static str, Instant)> {
        let other = self.rotation.factory.watch.oldest().filter(|_| !planted(Bug::UpkeepNotWatched));
        [self.oldest_log_io(), other].into_iter().flatten().min_by_key(|(_, since)| *since)
    }

    /// The same of the log alone.
    pub(crate) fn oldest_log_io(&self) -> Option<(&'static str, Instant)> {
        let p = self.shared.lock();
        let syncing = p.sync.since().map(|since| ("syncing the log", since));
        let writing = p.write.since().map(|since| ("writing to the log", since));
        [syncing, writing].into_iter().flatten().min_by_key(|(_, since)| *since)
    }
}
