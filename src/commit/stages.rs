//! The stages, once a thread is at one: write, sync, complete.

use super::pipeline::{Committer, Pipeline, Settled, SyncUnderWay};
use super::ticket::{Pending, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, Shape};
use crate::format::zeros::Zeros;
use crate::planted::{Bug, planted};
use crate::segment::SYNC_SLOTS;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard, thread};
use crate::types::{Durability, Lsn};
use crate::vfs::io::write_log_at;
use bytes::Bytes;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The most bytes that one write stage takes on: beyond it the sync that follows would keep others waiting.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A write ends on a whole page, so that the kernel never has to read the rest of it first.
const PAGE: u64 = 4096;
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// How often a thread that is about to write for a sync lets others run before.
const YIELDS: u32 = 4;

impl Committer {
    // ---- write stage --------------------------------------------------------------------------------------

    /// Lets the threads run whose batches the last sync settled: one that comes back at once with another
    /// batch shares the next write and sync, and would otherwise have to wait for the one after. No thread is
    /// waited for that is not ready to run: where a processor is idle, this returns at once.
    ///
    /// Says whether the lock was let go of meanwhile: then writing may have stopped, or the work be gone.
    pub(super) fn gather<'a>(&'a self, mut p: MutexGuard<'a, Pipeline>) -> (MutexGuard<'a, Pipeline>, bool) {
        if p.urgent || !p.syncs.is_empty() {
            return (p, false);
        }
        let Some((returning, at_most)) = p.gathering.begin() else { return (p, false) };
        let all = p.queue.len() + returning;
        let began = Instant::now();
        // Nobody else begins to write meanwhile.
        p.writing = Some(began);
        for _ in 0..YIELDS {
            drop(p);
            thread::yield_now();
            p = self.lock();
            if p.queue.len() >= all || p.urgent || self.gate.is_shut() || began.elapsed() > at_most {
                break;
            }
        }
        p.gathering.ended(began.elapsed());
        p.writing = None;
        if self.gate.is_shut() && p.in_room > 0 {
            // What is left to do may be nothing, and a close waits for that.
            self.room.notify_all();
        }
        (p, true)
    }

    /// Writes what is queued. Returns the lock and what that settles, or nothing when it failed and
    /// all was answered.
    pub(super) fn write_stage<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
    ) -> Option<(MutexGuard<'a, Pipeline>, Settled)> {
        let mut group = self.group.lock();
        p.writing = Some(Instant::now());
        let (mut count, mut bytes) = (0, 0);
        for record in &p.queue {
            if count > 0 && bytes + record.len() > GROUP_BYTES_MAX {
                break;
            }
            bytes += record.len();
            count += 1;
        }
        group.extend(p.queue.drain(..count));
        p.queued_bytes -= bytes;
        // Beside a sync the group goes on: what is accepted until the next one is settled by
        // that, and sleeps in one place.
        let ends_group = p.syncs.is_empty() || p.urgent;
        p.urgent = p.queue.iter().any(|record| record.durability == Durability::Written);
        p.turn += u64::from(ends_group);
        p.half_written &= !ends_group;
        p.watched = false;
        let turn = p.turn - 1;
        let mut chain = p.chain;
        drop(p);

        let watermark = self.watermark();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write_group(&mut group, &mut chain, watermark)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the writer panicked")));

        let mut p = self.lock();
        p.writing = None;
        // If a sync failed meanwhile, what was written is not acknowledged any more, not even as written.
        if outcome.is_err() || self.gate.is_shut() {
            p.queued_bytes += bytes;
            group.drain(..).rev().for_each(|record| p.queue.push_front(record));
            drop(group);
            match outcome {
                Err(cause) => self.poison(p, cause),
                Ok(()) => self.fail_all(p),
            }
            return None;
        }
        p.chain = chain;
        p.unsynced_batches += group.len();
        p.half_written |= !ends_group;
        let mut settled = Settled::default();
        for record in group.drain(..) {
            p.unsynced_bytes += record.len() as u64;
            if p.dirty.last().is_none_or(|s| s.id != record.segment.id) {
                p.dirty.push(record.segment.clone());
            }
            p.written = record.end;
            let at_once = record.durability == Durability::Written || planted(Bug::AckBeforeSync);
            if at_once {
                settled.tickets |= record.ticket.is_some();
                settled.written = Some(p.settled_written + 1..=turn);
                self.settle(&mut p, record.len(), record.ticket);
            } else {
                p.await_sync(record);
            }
        }
        self.written.store(p.written.to_u64(), Ordering::Release);
        if settled.written.is_some() {
            p.settled_written = turn;
        }
        Some((p, settled))
    }

    /// Chains the headers and writes the group, one call for each segment it touches.
    fn write_group(&self, group: &mut [Record], chain: &mut Shape, watermark: Lsn) -> Result<()> {
        for r in &mut *group {
            let header = RecordHeader {
                kind: r.kind,
                position: Lsn::new(r.segment.id, r.offset),
                desc_len: r.desc.len() as u32,
                payload_len: r.payload.len() as u32,
                desc_crc: r.desc_crc,
                watermark,
                zeros: Zeros::of(u64::from(r.offset) + u64::from(RECORD_HEADER_LEN), [&r.desc, &r.payload]),
                previous: *chain,
            };
            (r.header, *chain) = header.encode(r.segment.seed);
        }
        let mut slices = Vec::with_capacity(group.len() * 4 + 1);
        for part in group.chunk_by(|a, b| a.segment.id == b.segment.id) {
            let segment = &part[0].segment;
            let start = u64::from(part[0].offset);
            let mut end = start;
            slices.clear();
            for r in part {
                let used = u64::from(RECORD_HEADER_LEN) + r.desc.len() as u64 + r.payload.len() as u64;
                let gap = r.len() as u64 - used;
                let bytes = [&r.header[..], &r.desc, &r.payload, &ZEROS[..gap as usize]];
                slices.extend(bytes.into_iter().filter(|b| !b.is_empty()).map(IoSlice::new));
                end += r.len() as u64;
            }
            let padded = end.next_multiple_of(PAGE).min(segment.records_end);
            slices.push(IoSlice::new(&ZEROS[..(padded - end) as usize]));
            segment.filling.claim();
            let began = Instant::now();
            let written = write_log_at(&*segment.file, &mut slices, start);
            self.counters.write_times.since(began);
            written.map_err(|e| Error::io("writing to the log", &segment.path, e))?;
            for r in part {
                segment.told.note(r.offset, r.end.offset(), &r.header, &r.desc);
            }
            segment.advance_written(if planted(Bug::WrittenTooFar) { u32::MAX } else { end as u32 });
            segment.record_bytes.fetch_add(end - start, Ordering::Relaxed);
            self.counters.writes.fetch_add(1, Ordering::Relaxed);
            self.counters.written_bytes.fetch_add(padded - start, Ordering::Relaxed);
        }
        drop(slices);
        // Let go of what is written before the lock is asked for, and the writers for their memory.
        for record in group {
            (record.desc, record.payload) = (Bytes::new(), Bytes::new());
        }
        Ok(())
    }

    // ---- sync stage ---------------------------------------------------------------------------------------

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
        let began = Instant::now();
        p.syncs.push_back(SyncUnderWay { target, slot, ok: false, started: began, turn });
        p.sync_target = target;
        let bytes = std::mem::take(&mut p.unsynced_bytes);
        let batches = std::mem::take(&mut p.unsynced_batches);
        p.synced_at_once = if p.synced_at_once == 0 { bytes } else { (p.synced_at_once * 7 + bytes) / 8 };
        // What is queued and may not wait is written beside the sync.
        self.hand_off(p);

        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let skipped = match segments.len() {
                n if planted(Bug::SyncForgotten) => n,
                n if planted(Bug::OlderSegmentNotSynced) => n.saturating_sub(1),
                _ => 0,
            };
            segments.iter().skip(skipped).try_for_each(|s| {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                let sync = || s.sync_handle(slot).sync_data();
                let began = Instant::now();
                let synced =
                    sync().or_else(|e| if planted(Bug::FailedSyncRetried) { sync() } else { Err(e) });
                self.counters.sync_times.since(began);
                synced.map_err(|e| Error::io("syncing the log", &s.path, e))
            })
        }))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the writer panicked")));

        segments.clear();
        let mut p = self.lock();
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
            let durable = if planted(Bug::SyncCoversLaterWrites) { p.written } else { durable };
            self.durable.store(durable.to_u64(), Ordering::Release);
            while p.awaiting.front().is_some_and(|b| b.end <= durable) {
                if let Some(batch) = p.awaiting.pop_front() {
                    settled.tickets |= batch.ticket.is_some();
                    self.settle(&mut p, batch.bytes, batch.ticket);
                }
            }
            p.gathering.synced(batches, began.elapsed());
            settled.synced = Some(std::mem::replace(&mut p.settled_synced, turn) + 1..=turn);
        }
        Some((p, settled))
    }

    // ---- completion ---------------------------------------------------------------------------------------

    /// The outcome of so many bytes of batches, or of the one with a ticket, is known.
    fn settle(&self, p: &mut Pipeline, bytes: usize, ticket: Option<Arc<Pending>>) {
        p.in_flight_bytes -= bytes;
        if let Some(pending) = ticket {
            self.completions.add(pending);
        }
    }

    /// A stage has ended: wakes the thread that goes on with the work, so that the disk does not idle, then
    /// those whose batches it settled, and calls back, all without the lock. A thread that does not leave
    /// goes on by itself, unless it calls back first. Returns whether the work was passed on.
    pub(super) fn end_stage(&self, mut p: MutexGuard<'_, Pipeline>, settled: Settled, leaves: bool) -> bool {
        let passed_on = leaves || settled.tickets;
        let next = if passed_on { self.next_worker(&mut p) } else { None };
        let room = p.in_room > 0;
        // The thread that drives what nobody waits for ends once everything has completed, no
        // matter which thread did it.
        let ends = p.closed && std::mem::take(&mut p.driver_sleeps);
        drop(p);
        self.notify(next);
        let mut wakes = u64::from(room);
        for (turns, durability) in
            [(settled.synced, Durability::Synced), (settled.written, Durability::Written)]
        {
            wakes += turns.map_or(0, |turns| self.sleepers.wake(turns, durability));
        }
        if room {
            self.room.notify_all();
        }
        self.counters.wakes.fetch_add(wakes, Ordering::Relaxed);
        if ends {
            self.work.notify_all();
        }
        self.completions
            .deliver(|batch| self.outcome(batch), |lsn, message| self.hooks.callback_panicked(lsn, message));
        passed_on
    }

    /// Stops all writing. Threads that wait are answered before the listeners are notified: a listener may
    /// close the engine, which waits for those threads.
    pub(super) fn poison(&self, p: MutexGuard<'_, Pipeline>, cause: Error) {
        let first = !planted(Bug::GateLeftOpen) && self.gate.trip(cause.clone());
        self.fail_all(p);
        if first {
            // A listener that panics must not take the thread along that works for others.
            let _ = catch_unwind(AssertUnwindSafe(|| self.hooks.poisoned(&cause)));
        }
    }

    /// Everything that was not acknowledged fails with the first cause.
    pub(super) fn fail_all(&self, mut p: MutexGuard<'_, Pipeline>) {
        while let Some(batch) = p.awaiting.pop_front() {
            self.settle(&mut p, batch.bytes, batch.ticket);
        }
        while let Some(record) = p.queue.pop_front() {
            self.settle(&mut p, record.len(), record.ticket);
        }
        p.queued_bytes = 0;
        let turn = p.turn;
        p.turn += 1;
        let mut settled = Settled {
            written: Some(p.settled_written + 1..=turn),
            synced: Some(p.settled_synced + 1..=turn),
            ..Settled::default()
        };
        (p.settled_written, p.settled_synced) = (turn, turn);
        if planted(Bug::WaitersNotWoken) {
            settled = Settled::default();
        }
        self.end_stage(p, settled, true);
    }
}
