//! The write stage: what is queued goes to the log with one call.

use super::completion::Completions;
use super::counters::Counters;
use super::pending::Record;
use super::progress::Progress;
use super::queue::Queue;
use super::room::Room;
use super::settled::Settled;
use super::sync_stage::SyncStage;
use super::turns::Turns;
use super::uncopied::Uncopied;
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, Shape};
use crate::format::zeros::Zeros;
use crate::limits::PAGE;
use crate::planted::{Bug, planted};
use crate::segment::Unwritten;
use crate::sync::atomic::Ordering;
use crate::trace;
use crate::types::{Durability, Lsn};
use crate::vfs::io::write_log_at;
use bytes::Bytes;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A write ends on a whole page, so that the kernel never has to read the rest of it first.
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// What of the write stage stands under the pipeline's lock. One thread at a time is in it: it begins with a
/// [`Group`], which it writes without the lock, and ends with it.
pub(super) struct WriteStage {
    /// A thread is in it, since then.
    since: Option<Instant>,
    /// Of the group that it writes.
    bytes: usize,
    /// Shape of the last written record.
    chain: Shape,
    /// What is written and has no copy yet.
    pub(super) uncopied: Uncopied,
    /// Empty ones with memory.
    spare: (Vec<Record>, Uncopied),
}

/// What one write stage writes.
pub(super) struct Group {
    pub(super) began: Instant,
    records: Vec<Record>,
    bytes: usize,
    /// Shape of the record before, and of the last one once it is written.
    chain: Shape,
    copies: Uncopied,
    /// The last group that takes no more, and whether that is this one.
    turn: u64,
    ends_group: bool,
}

impl WriteStage {
    /// After a log whose last record has the shape `chain`.
    pub(super) fn new(chain: Shape) -> WriteStage {
        WriteStage { since: None, bytes: 0, chain, uncopied: Uncopied::default(), spare: Default::default() }
    }

    /// A thread is in the stage, since then.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// How many bytes it writes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shape of the last written record.
    pub(super) fn chain(&self) -> Shape {
        self.chain
    }

    /// The calling thread is in the stage: nobody else begins to write.
    pub(super) fn enter(&mut self, now: Instant) {
        self.since = Some(now);
    }

    pub(super) fn leave(&mut self) {
        (self.since, self.bytes) = (None, 0);
    }

    /// Takes what is queued.
    pub(super) fn begin(&mut self, queue: &mut Queue, turns: &mut Turns, beside_sync: bool) -> Group {
        let began = clock::now();
        self.enter(began);
        let (mut records, copies) = std::mem::take(&mut self.spare);
        let ends_group = !beside_sync || queue.is_urgent();
        self.bytes = queue.take(&mut records);
        let turn = turns.begin_write(ends_group);
        Group { began, records, bytes: self.bytes, chain: self.chain, copies, turn, ends_group }
    }

    /// The group is not written, or is not acknowledged any more.
    pub(super) fn fail(&mut self, mut group: Group, queue: &mut Queue) {
        self.leave();
        queue.put_back(&mut group.records);
    }

    /// The group is written.
    pub(super) fn end(
        &mut self,
        mut group: Group,
        turns: &mut Turns,
        sync: &mut SyncStage,
        room: &mut Room,
        progress: &Progress,
        completions: &Completions,
    ) -> Settled {
        self.leave();
        self.chain = group.chain;
        self.uncopied.append(&mut group.copies);
        turns.end_write(group.ends_group);
        group.records.iter().for_each(|record| sync.note_written(record));
        // Before anything is settled: a thread that is calling back looks at this, and at once.
        progress.set_written(sync.written());
        let mut settled = Settled::default();
        for record in group.records.drain(..) {
            if record.kind == RecordKind::Copies {
                // Nobody waits for them: a sync that nobody else asks for is none of theirs.
                room.give_back(record.taken);
            } else if record.durability == Durability::Written || planted(Bug::AckBeforeSync) {
                settled.add(record.taken, record.ticket, completions);
            } else {
                sync.push(record);
            }
        }
        if settled.taken.len() > 0 {
            settled.written = Some(turns.settle(Durability::Written, group.turn));
        }
        self.spare = (group.records, group.copies);
        settled
    }
}

impl Group {
    /// Writes it, without the pipeline's lock.
    pub(super) fn write(&mut self, watermark: Lsn, counters: &Counters) -> Result<(), Unwritten> {
        let batches = self.records.iter().filter(|r| r.kind != RecordKind::Copies);
        batches.for_each(|r| counters.queue_times.add(self.began.duration_since(r.began)));
        let _span = trace::group(self.records.len(), self.bytes);
        catch_unwind(AssertUnwindSafe(|| {
            self.chain_headers(watermark);
            self.write_records(counters)
        }))
        .unwrap_or_else(|_| Err(Unwritten::Failed(Error::new(ErrorKind::Io, "the writer panicked"))))
    }

    fn chain_headers(&mut self, watermark: Lsn) {
        for r in &mut self.records {
            let header = RecordHeader {
                kind: r.kind,
                position: Lsn::new(r.segment.id, r.offset),
                desc_len: r.desc.len() as u32,
                payload_len: r.payload.len() as u32,
                desc_crc: r.desc_crc,
                watermark,
                zeros: Zeros::of(u64::from(r.offset) + u64::from(RECORD_HEADER_LEN), [&r.desc, &r.payload]),
                previous: self.chain,
            };
            self.copies.add(&header, &r.desc, r.end);
            (r.header, self.chain) = header.encode(r.segment.seed);
        }
    }

    /// One call for each segment that it touches.
    fn write_records(&mut self, counters: &Counters) -> Result<(), Unwritten> {
        let mut slices = Vec::with_capacity(self.records.len() * 4 + 1);
        for part in self.records.chunk_by(|a, b| a.segment.id == b.segment.id) {
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
            let written = write_log_at(&**segment.file().map_err(Unwritten::Failed)?, &mut slices, start);
            counters.write_times.since(began);
            written.map_err(|e| Unwritten::io("writing to the log", &segment.path, e))?;
            for r in part {
                let desc = if r.kind == RecordKind::Copies { &[][..] } else { &r.desc };
                segment.notes.note(r.offset, r.end.offset(), &r.header, desc);
            }
            segment.content.advance_written(if planted(Bug::WrittenTooFar) { u32::MAX } else { end as u32 });
            segment.record_bytes.fetch_add(end - start, Ordering::Relaxed);
            counters.writes.fetch_add(1, Ordering::Relaxed);
            counters.written_bytes.fetch_add(padded - start, Ordering::Relaxed);
        }
        drop(slices);
        // Let go of what is written before the lock is asked for, and the writers for their memory.
        for record in &mut self.records {
            (record.desc, record.payload) = (Bytes::new(), Bytes::new());
        }
        Ok(())
    }
}
