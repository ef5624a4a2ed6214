//! The gate of the log: checks a batch, gives it its place, and makes it readable.

use super::committer::{Accept, Accepted, Committer, OnFull, Origin};
use super::pending::{Pending, Record, Waiting};
use super::pipeline::Pipeline;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Encoded, Loc, Op, Step, locate};
use crate::format::record::{RECORD_HEADER_LEN, RecordKind};
use crate::index::{Discard, Planned};
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX};
use crate::planted::{Bug, planted};
use crate::report::Outcome;
use crate::segment::{InFlight, Segment};
use crate::sync::atomic::Ordering;
use crate::sync::thread;
use crate::sync::{Arc, MutexGuard};
use crate::types::{Durability, Lsn};

/// Of a batch with more entries than this the memory for their places is given back.
const KEPT_LOCS_MAX: usize = 4096;

/// How often the listeners are asked about one batch whose region does not stand still meanwhile.
const ASKED_MAX: u32 = 100;

impl Committer {
    /// Accepts a batch: from here on it is readable, ordered, and on its way. A refusal leaves no trace.
    ///
    /// `has_ticket`: a callback or waker may come to need the outcome, which is then delivered in its turn.
    pub(super) fn accept(
        &self,
        encoded: &mut Encoded,
        how: &Accept<'_>,
        has_ticket: bool,
    ) -> Result<Accepted<'_>> {
        let len = encoded.record_len();
        check(encoded)?;
        let mut approved: Vec<Discard> = Vec::new();
        let (mut in_line, mut asked) = (false, 0);
        let mut p = self.lock();
        loop {
            self.gate.check()?;
            p.check_open()?;
            if p.lacks_room(len as usize, self.in_flight_max) {
                p = self.wait_for_room(p, how.on_full, &mut in_line)?;
                continue;
            }
            if std::mem::take(&mut in_line) {
                p.line.pop_front();
                self.room.notify_all();
            }
            let Some(active) = p.active.clone().filter(|active| active.fits(p.offset, len)) else {
                p = self.rotate(p, len, how.on_full).inspect_err(|e| {
                    if planted(Bug::NoSpacePoisons) {
                        self.gate.trip(e.clone());
                    }
                })?;
                continue;
            };
            match &how.origin {
                Origin::Engine => p.planned.clear(),
                Origin::Caller { before_rollback } => {
                    let end = Lsn::new(active.id, p.offset + len as u32);
                    p.planned.plan(&self.table, &encoded.batch, end)?;
                    if let Some(ask) = before_rollback
                        && !is_approved(&p.planned.discards, &approved)
                    {
                        approved.clone_from(&p.planned.discards);
                        drop(p);
                        asked += 1;
                        if asked > ASKED_MAX {
                            return Err(asked_too_often(&approved));
                        }
                        ask(&approved)?;
                        p = self.lock();
                        continue;
                    }
                }
            }
            if Lsn::new(active.id, p.offset) < self.accepted() {
                return Err(self.refuse_to_go_back(p));
            }
            return self.place(p, active, encoded, how, has_ticket);
        }
    }

    fn wait_for_room<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        on_full: OnFull,
        in_line: &mut bool,
    ) -> Result<MutexGuard<'a, Pipeline>> {
        if on_full == OnFull::Fail {
            return Err(Error::new(
                ErrorKind::WouldBlock,
                format!(
                    "{} bytes are in flight and the bound is {} (in_flight_bytes_max); try again when tickets complete",
                    p.in_flight_bytes, self.in_flight_max
                ),
            ));
        }
        if !std::mem::replace(in_line, true) {
            p.line.push_back(thread::current().id());
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        // In a callback, this may be the very thread that works for tickets nobody waits for.
        // Others only wait: work would lead them to callbacks, and a caller that merely submits
        // does not expect to run those.
        if !self.manual && !self.completions.is_delivering() {
            return Ok(self.wait_in_room(p));
        }
        Ok(match self.step(p, || true) {
            Ok(_) => self.lock(),
            Err(p) => self.wait_in_room(p),
        })
    }

    fn place<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        segment: Arc<Segment>,
        encoded: &mut Encoded,
        how: &Accept<'_>,
        has_ticket: bool,
    ) -> Result<Accepted<'a>> {
        let len = encoded.record_len();
        let offset = p.offset;
        let end = Lsn::new(segment.id, offset + len as u32);
        let desc_len = encoded.desc.len() as u32;
        let Pipeline { planned, locs, .. } = &mut *p;
        locs.clear();
        locs.shrink_to(KEPT_LOCS_MAX);
        let payload_at = offset + RECORD_HEADER_LEN + desc_len;
        locate(&encoded.batch.entries, &encoded.blocks, payload_at, |loc| locs.push(loc))
            .map_err(|e| Error::invalid(format!("the batch is malformed: {e}")))?;
        let decided = &mut planned.decided;
        let outcome = Outcome {
            lsn: end,
            bytes: len,
            compactions: std::mem::take(&mut decided.compactions),
            appends: std::mem::take(&mut decided.appends),
        };
        if !decided.ops.is_empty() {
            encoded.decide(decided.ops.drain(..));
            locs.iter_mut().zip(&encoded.batch.entries).for_each(|(loc, entry)| loc.crc = entry.crc);
        }
        if encoded.kind == RecordKind::Batch {
            segment.push_in_flight(InFlight { start: offset, desc_len, payload: encoded.payload.clone() });
            // Of what is not planned it is not known whether it returns.
            if (planned.returns || matches!(how.origin, Origin::Engine)) && !planted(Bug::BatchAppliedInParts)
            {
                // Between regions there is no order to keep; within one, sorting keeps it.
                let mut steps: Vec<Step<'_>> = encoded.batch.steps().collect();
                steps.sort_by_key(|step| step.region);
                self.apply(steps.into_iter(), planned, locs, &segment, end);
            } else {
                self.apply(encoded.batch.steps(), planned, locs, &segment, end);
            }
            planned.clear();
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
            self.counters.entries.fetch_add(locs.len() as u64, Ordering::Relaxed);
            self.counters.record_bytes.fetch_add(len, Ordering::Relaxed);
            self.counters.payload_bytes.fetch_add(encoded.batch.payload_bytes(), Ordering::Relaxed);
        }
        let soon = u64::from(end.offset()) > segment.len / 8;
        let durability = how.durability;
        let waiting = Waiting { end, durability, turn: p.turn, began: how.began };
        let ticket = has_ticket.then(|| Arc::new(Pending::new(waiting)));
        p.queue.push_back(Record {
            end,
            durability,
            ticket: ticket.clone(),
            began: how.began,
            kind: encoded.kind,
            segment,
            offset,
            header: [0; RECORD_HEADER_LEN as usize],
            desc: encoded.desc.clone(),
            desc_crc: encoded.desc_crc,
            payload: encoded.payload.clone(),
        });
        p.queued_bytes += len as usize;
        p.urgent |= durability == Durability::Written && !planted(Bug::WrittenDeferred);
        p.in_flight_bytes += len as usize;
        p.offset = end.offset();
        self.set_accepted(end);
        // Ask for the next segment well before this one is full, and that it is filled until then.
        if soon && (p.ready.is_empty() || p.due_for_filling().is_some()) {
            self.hooks.segment_wanted();
        }
        Ok(Accepted { p, waiting, ticket, outcome })
    }

    /// Makes the batch readable. A reader of a region sees all that the batch does to it, or nothing: its
    /// steps come one after the other, and are applied under one hold of its lock.
    fn apply<'a>(
        &self,
        steps: impl Iterator<Item = Step<'a>>,
        planned: &Planned,
        locs: &[Loc],
        segment: &Arc<Segment>,
        end: Lsn,
    ) {
        let durable = self.durable();
        let mut steps = steps.peekable();
        let mut nth = 0;
        while let Some(region) = steps.peek().map(|step| step.region) {
            let found;
            let cell = match planned.cell(nth, region) {
                Some(cell) => cell,
                None => {
                    found = self.table.get_or_create(region);
                    &*found
                }
            };
            nth += 1;
            let mut state = self.table.change(cell);
            while let Some(step) = steps.next_if(|step| step.region == region) {
                let existed = state.exists;
                match step.op {
                    Op::Append { first, entries, .. } | Op::AppendNext { first, entries, .. } => {
                        let own = &locs[step.entries_at..step.entries_at + *entries as usize];
                        state.append(*first, step.runs, own, segment);
                    }
                    Op::TruncateFrom(index) => state.truncate_from(*index),
                    Op::CompactThrough(id) => state.rebase(end, durable, |s| s.compact_through(*id)),
                    Op::CompactTo { .. } if step.op.is_void() => {}
                    Op::CompactTo { id, .. } => state.rebase(end, durable, |s| s.compact_through(*id)),
                    Op::ForgetLog => state.rebase(end, durable, |s| s.forget_log()),
                    Op::Reset(base) => state.rebase(end, durable, |s| s.reset(*base)),
                    Op::SetHardState(value) => state.set_hard_state(value),
                    Op::Put { key, value } => state.put(key, value),
                    Op::Delete { key } => state.delete(key),
                    Op::Destroy => state.destroy(),
                }
                if state.exists && !existed {
                    state.set_incarnation(Some(end));
                }
            }
            state.touched = end;
        }
    }
}

impl Pipeline {
    /// Whether a batch of `len` bytes has to wait: for room, or because others came first.
    fn lacks_room(&self, len: usize, in_flight_max: usize) -> bool {
        let full = self.in_flight_bytes > 0 && self.in_flight_bytes + len > in_flight_max;
        let behind = self.line.front().is_some_and(|first| *first != thread::current().id());
        (full || behind) && !planted(Bug::InFlightUnbounded)
    }
}

/// Whether the listeners have agreed to all that would be discarded.
fn is_approved(discards: &[Discard], approved: &[Discard]) -> bool {
    discards.iter().all(|d| approved.iter().any(|a| a.covers(d)))
}

fn asked_too_often(approved: &[Discard]) -> Error {
    let error = Error::new(
        ErrorKind::Refused,
        format!(
            "the region changed each of the {ASKED_MAX} times that the listeners were asked what it may discard; does one of \
             them write to it?"
        ),
    );
    match approved.first() {
        Some(first) => error.in_region(first.region),
        None => error,
    }
}

/// What the reader would refuse is refused here. Most of it was when the batch was built, where the
/// error could say what was wrong.
fn check(record: &Encoded) -> Result<()> {
    let (desc, len) = (record.desc.len(), record.record_len());
    if desc > DESC_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("batch description of {desc} bytes refused: DESC_BYTES_MAX is {DESC_BYTES_MAX}"),
        ));
    }
    if len > BATCH_BYTES_MAX as u64 {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("batch of {len} bytes refused: BATCH_BYTES_MAX is {BATCH_BYTES_MAX}"),
        ));
    }
    let stored = match &record.blocks[..] {
        [] => record.batch.payload_bytes(),
        blocks => blocks.iter().map(|b| u64::from(b.stored_len)).sum(),
    };
    if stored != record.payload.len() as u64 {
        return Err(Error::invalid(
            "the payloads of the batch are not as long as its entries: a closure of append_with changed the bytes of others",
        ));
    }
    Ok(())
}
