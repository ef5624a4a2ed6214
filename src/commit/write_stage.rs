//! The write stage: what is queued goes to the log with one call.

use super::committer::Committer;
use super::pending::Record;
use super::pipeline::{Pipeline, Settled};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, Shape};
use crate::format::zeros::Zeros;
use crate::limits::PAGE;
use crate::planted::{Bug, planted};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, thread};
use crate::trace;
use crate::types::{Durability, Lsn};
use crate::vfs::io::write_log_at;
use bytes::Bytes;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most bytes that one write stage takes on: beyond it the sync that follows would keep others waiting.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A write ends on a whole page, so that the kernel never has to read the rest of it first.
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// How often a thread that is about to write for a sync lets others run before.
const YIELDS: u32 = 4;

impl Committer {
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
        let began = clock::now();
        // Nobody else begins to write meanwhile.
        p.writing = Some(began);
        for _ in 0..YIELDS {
            drop(p);
            thread::yield_now();
            p = self.lock();
            if p.queue.len() >= all || p.urgent || self.gate.is_shut() || clock::since(began) > at_most {
                break;
            }
        }
        p.gathering.ended(clock::since(began));
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
        let began = clock::now();
        p.writing = Some(began);
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
        p.writing_bytes = bytes;
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

        group.iter().for_each(|r| self.counters.queue_times.add(began.duration_since(r.began)));
        let watermark = self.watermark();
        let span = trace::group(group.len(), bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write_group(&mut group, &mut chain, watermark)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the writer panicked")));

        drop(span);
        let mut p = self.lock();
        (p.writing, p.writing_bytes) = (None, 0);
        self.factory.watch.ended(began);
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
            let began = clock::now();
            let written = write_log_at(&*segment.file, &mut slices, start);
            self.counters.write_times.since(began);
            written.map_err(|e| Error::io("writing to the log", &segment.path, e))?;
            for r in part {
                segment.notes.note(r.offset, r.end.offset(), &r.header, &r.desc);
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
}
