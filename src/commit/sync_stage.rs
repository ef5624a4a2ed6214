//! The sync stage: what is written becomes durable.

use super::completion::Completions;
use super::counters::Counters;
use super::pending::{Pending, Record};
use super::room::Taken;
use super::settled::Settled;
use super::turns::Turns;
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::format::record::RecordKind;
use crate::planted::{Bug, planted};
use crate::segment::{SYNC_SLOTS, Segment, Unwritten};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::trace;
use crate::types::Lsn;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Written bytes that no sync was asked for are synced anyway beyond this many: they would have to be
/// re-persisted by the next open.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// What of the sync stage stands under the pipeline's lock. A thread begins with a [`SyncJob`], which it does
/// without the lock, and ends with it.
pub(super) struct SyncStage {
    /// Everything before is in the operating system's hands.
    written: Lsn,
    /// Written, waiting for a sync.
    awaiting: VecDeque<Awaiting>,
    /// Segments written to since the last sync began, oldest first.
    dirty: Vec<Arc<Segment>>,
    /// An empty vector with memory.
    spare: Vec<Arc<Segment>>,
    unsynced_bytes: u64,
    /// Batches written since the last sync began.
    unsynced_batches: usize,
    /// What one sync covers, on a moving average.
    at_once: u64,
    /// Syncs under way, in the order in which they began.
    under_way: VecDeque<UnderWay>,
    /// Target of the sync that began last.
    target: Lsn,
    /// Somebody waits for everything before to be durable, and has no record of its own.
    flush_to: Lsn,
}

/// Batches without tickets that follow one another, or one with a ticket, on the way to being durable.
struct Awaiting {
    end: Lsn,
    taken: Taken,
    ticket: Option<Arc<Pending>>,
}

/// One fdatasync under way.
struct UnderWay {
    target: Lsn,
    slot: usize,
    ok: bool,
    began: Instant,
    /// Of the records that it covers and that none before it does.
    bytes: u64,
    /// The last group of which it covers anything.
    turn: u64,
}

/// What one sync stage does without the lock.
pub(super) struct SyncJob {
    pub(super) began: Instant,
    /// What is durable by it.
    pub(super) target: Lsn,
    /// Batches written since the sync before began.
    pub(super) batches: usize,
    slot: usize,
    bytes: u64,
    segments: Vec<Arc<Segment>>,
}

/// How far the log is durable after a sync, and the last group of which that settles something.
pub(super) struct Reached {
    pub(super) durable: Lsn,
    pub(super) turn: u64,
}

impl SyncStage {
    /// Of a run that begins at `start`.
    pub(super) fn new(start: Lsn) -> SyncStage {
        SyncStage {
            written: start,
            awaiting: VecDeque::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            unsynced_bytes: 0,
            unsynced_batches: 0,
            at_once: 0,
            under_way: VecDeque::new(),
            target: start,
            flush_to: start,
        }
    }

    // ---- what comes in ------------------------------------------------------------------------------------

    /// The record is in the operating system's hands.
    pub(super) fn note_written(&mut self, record: &Record) {
        self.unsynced_batches += usize::from(record.kind == RecordKind::Batch);
        self.unsynced_bytes += record.len() as u64;
        if self.dirty.last().is_none_or(|s| s.id != record.segment.id) {
            self.dirty.push(record.segment.clone());
        }
        self.written = record.end;
    }

    /// Its batch waits for a sync.
    pub(super) fn push(&mut self, record: Record) {
        let (end, taken) = (record.end, record.taken);
        match self.awaiting.back_mut() {
            Some(last) if last.ticket.is_none() && record.ticket.is_none() => {
                last.end = end;
                last.taken.join(taken);
            }
            _ => self.awaiting.push_back(Awaiting { end, taken, ticket: record.ticket }),
        }
    }

    /// Everything before `lsn` is to become durable.
    pub(super) fn flush_to(&mut self, lsn: Lsn) {
        self.flush_to = self.flush_to.max(lsn);
    }

    // ---- a sync -------------------------------------------------------------------------------------------

    /// Whether a sync is due, and may begin.
    pub(super) fn can_begin(&self) -> bool {
        let asked = self.awaiting.back().is_some_and(|b| b.end > self.target);
        let asked = asked || self.flush_to > self.target && self.written > self.target;
        (asked || self.unsynced_bytes > UNSYNCED_BYTES_MAX) && self.under_way.len() < SYNC_SLOTS
    }

    /// A sync of everything that is written.
    pub(super) fn begin(&mut self, turns: &mut Turns) -> SyncJob {
        let slot = (0..SYNC_SLOTS).find(|s| self.under_way.iter().all(|y| y.slot != *s)).unwrap_or(0);
        let empty = std::mem::take(&mut self.spare);
        let segments = std::mem::replace(&mut self.dirty, empty);
        let (target, turn, began) = (self.written, turns.begin_sync(), clock::now());
        let bytes = std::mem::take(&mut self.unsynced_bytes);
        let batches = std::mem::take(&mut self.unsynced_batches);
        self.under_way.push_back(UnderWay { target, slot, ok: false, began, bytes, turn });
        self.target = target;
        self.at_once = if self.at_once == 0 { bytes } else { (self.at_once * 7 + bytes) / 8 };
        SyncJob { began, target, batches, slot, bytes, segments }
    }

    /// The sync failed, or is not believed any more.
    pub(super) fn fail(&mut self, job: SyncJob) {
        self.under_way.retain(|s| s.slot != job.slot);
        self.spare = job.segments;
    }

    /// The sync succeeded. Says what is durable by that, unless one that began before is under way still.
    pub(super) fn end(&mut self, job: SyncJob) -> Option<Reached> {
        for sync in &mut self.under_way {
            sync.ok |= sync.slot == job.slot;
        }
        self.spare = job.segments;
        let mut reached = None;
        while self.under_way.front().is_some_and(|s| s.ok) {
            reached = self.under_way.pop_front();
        }
        reached.map(|s| Reached { durable: s.target, turn: s.turn })
    }

    /// The outcome of all batches that end there or before is known.
    pub(super) fn settle(&mut self, up_to: Lsn, settled: &mut Settled, completions: &Completions) {
        while self.awaiting.front().is_some_and(|b| b.end <= up_to) {
            if let Some(batch) = self.awaiting.pop_front() {
                settled.add(batch.taken, batch.ticket, completions);
            }
        }
    }

    // ---- how it stands ------------------------------------------------------------------------------------

    /// Everything before is in the operating system's hands.
    pub(super) fn written(&self) -> Lsn {
        self.written
    }

    /// Whether no batch waits for a sync.
    pub(super) fn is_empty(&self) -> bool {
        self.awaiting.is_empty()
    }

    /// Whether a sync is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// What one sync covers, on a moving average.
    pub(super) fn at_once(&self) -> u64 {
        self.at_once
    }

    /// When the oldest sync began that is under way.
    pub(super) fn since(&self) -> Option<Instant> {
        self.under_way.front().map(|s| s.began)
    }

    /// When those began that have not ended.
    pub(super) fn unended(&self) -> impl Iterator<Item = Instant> {
        self.under_way.iter().filter(|s| !s.ok).map(|s| s.began)
    }

    /// Written and not on the device.
    pub(super) fn undurable_bytes(&self) -> u64 {
        let syncing = self.under_way.iter().filter(|_| !planted(Bug::SyncingNotUndurable));
        self.unsynced_bytes + syncing.map(|s| s.bytes).sum::<u64>()
    }
}

impl SyncJob {
    /// Syncs, without the pipeline's lock.
    pub(super) fn sync(&mut self, counters: &Counters) -> Result<(), Unwritten> {
        let _span = trace::sync(self.bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.sync_segments(counters)));
        self.segments.clear();
        if matches!(outcome, Ok(Ok(()))) && self.batches > 0 {
            counters.group_sizes.add(self.batches as u64);
        }
        outcome.unwrap_or_else(|_| Err(Unwritten::Failed(Error::new(ErrorKind::Io, "the writer panicked"))))
    }

    fn sync_segments(&self, counters: &Counters) -> Result<(), Unwritten> {
        self.segments.iter().try_for_each(|s| {
            counters.syncs.fetch_add(1, Ordering::Relaxed);
            let handle = s.sync_handle(self.slot).map_err(Unwritten::Failed)?;
            let began = clock::now();
            let synced = handle.sync_data();
            counters.sync_times.since(began);
            synced.map_err(|e| Unwritten::io("syncing the log", &s.path, e))
        })
    }
}
