//! The sync stage: what is written becomes durable.

use super::committer::Committer;
use super::pipeline::{Pipeline, Settled, SyncUnderWay};
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::planted::{Bug, planted};
use crate::segment::SYNC_SLOTS;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::trace;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Committer {
    /// Syncs what is written. Returns the lock and what that settles, or nothing when it failed and
    /// all was answered.
    pub(super) fn sync_stage<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
    ) -> Option<(MutexGuard<'a, Pipeline>, Settled)> {
        let target = p.written;
        let slot = (0..SYNC_SLOTS).find(|s| p.syncs.iter().all(|y| y.slot != *s)).unwrap_or(0);
        let empty = std::mem::take(&mut p.spare);
        let mut segments = std::mem::replace(&mut p.dirty, empty);
        if std::mem::take(&mut p.half_written) || p.turn - 1 == p.sync_turn {
            p.turn += 1;
        }
        let turn = p.turn - 1;
        p.sync_turn = turn;
        p.watched = false;
        let began = clock::now();
        let bytes = std::mem::take(&mut p.unsynced_bytes);
        p.syncs.push_back(SyncUnderWay { target, slot, ok: false, started: began, bytes, turn });
        p.sync_target = target;
        let batches = std::mem::take(&mut p.unsynced_batches);
        p.synced_at_once = if p.synced_at_once == 0 { bytes } else { (p.synced_at_once * 7 + bytes) / 8 };
        // What is queued and may not wait is written beside the sync.
        self.hand_off(p);

        let span = trace::sync(bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            segments.iter().try_for_each(|s| {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                let began = clock::now();
                let synced = s.sync_handle(slot).sync_data();
                self.counters.sync_times.since(began);
                synced.map_err(|e| Error::io("syncing the log", &s.path, e))
            })
        }))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the writer panicked")));

        drop(span);
        segments.clear();
        let mut p = self.lock();
        self.factory.watch.ended(began);
        p.spare = segments;
        if let Err(cause) = outcome {
            p.syncs.retain(|s| s.slot != slot);
            self.poison(p, cause);
            return None;
        }
        if self.gate.is_shut() && !planted(Bug::AckAfterError) {
            p.syncs.retain(|s| s.slot != slot);
            // It may be durable, but nothing is acknowledged after the first error.
            self.fail_all(p);
            return None;
        }
        for sync in &mut p.syncs {
            sync.ok |= sync.slot == slot;
        }
        let mut reached = None;
        while p.syncs.front().is_some_and(|s| s.ok) {
            reached = p.syncs.pop_front().map(|s| (s.target, s.turn));
        }
        let mut settled = Settled::default();
        if let Some((durable, turn)) = reached {
            self.durable.store(durable.to_u64(), Ordering::Release);
            while p.awaiting.front().is_some_and(|b| b.end <= durable) {
                if let Some(batch) = p.awaiting.pop_front() {
                    settled.tickets |= batch.ticket.is_some();
                    self.settle(&mut p, batch.bytes, batch.ticket);
                }
            }
            p.gathering.synced(batches, clock::since(began));
            settled.synced = Some(std::mem::replace(&mut p.settled_synced, turn) + 1..=turn);
        }
        Some((p, settled))
    }
}
