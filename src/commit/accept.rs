//! The gate of the log: checks a batch, gives it its place, and makes it readable.

use super::pipeline::{Accept, Committer, Encoded, OnFull, Pipeline};
use super::ticket::Pending;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Op, locate};
use crate::format::record::{RECORD_HEADER_LEN, RecordKind};
use crate::index::{Doomed, plan};
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX};
use crate::planted::{Bug, planted};
use crate::segment::InFlight;
use crate::segment::scan::FIRST_RECORD;
use crate::sync::atomic::Ordering;
use crate::sync::thread;
use crate::sync::{Arc, MutexGuard, PoisonError};
use crate::types::Lsn;

/// How often the listeners are asked about one batch whose region does not stand still meanwhile.
const ASKED_MAX: u32 = 100;

impl Committer {
    /// Accepts a batch: from here on it is readable, ordered, and on its way. A refusal leaves no trace.
    pub(super) fn accept(&self, encoded: &Encoded, how: &Accept<'_>) -> Result<Arc<Pending>> {
        let len = encoded.record_len();
        encoded.check()?;
        let mut approved: Vec<Doomed> = Vec::new();
        let (mut in_line, mut asked) = (false, 0);
        let mut p = self.lock();
        loop {
            self.gate.check()?;
            if p.closed {
                return Err(Error::new(ErrorKind::Closed, "the engine is closed"));
            }
            if p.lacks_room(len as usize, self.in_flight_max) {
                p = self.wait_for_room(p, how.on_full, &mut in_line)?;
                continue;
            }
            if std::mem::take(&mut in_line) {
                p.line.pop_front();
                self.room.notify_all();
            }
            if !p.active.fits(p.offset, len) {
                p = self.rotate(p, len, how.on_full).inspect_err(|e| {
                    if planted(Bug::NoSpacePoisons) {
                        self.gate.trip(e.clone());
                    }
                })?;
                continue;
            }
            if how.checked {
                let planned = plan(&self.table, &encoded.batch)?;
                let stale = planted(Bug::StaleApprovalTaken) && !approved.is_empty();
                if let Some(ask) = how.before_rollback.filter(|_| !planted(Bug::RollbackNotAsked))
                    && !planned.doomed.is_empty()
                    && planned.doomed != approved
                    && !stale
                {
                    drop(p);
                    asked += 1;
                    if asked > ASKED_MAX {
                        return Err(Error::new(
                            ErrorKind::Refused,
                            format!(
                                "the region changed each of the {ASKED_MAX} times that the listeners were asked what it may discard; \
                                 does one of them write to it?"
                            ),
                        )
                        .in_region(planned.doomed[0].region));
                    }
                    ask(&planned.doomed)
                        .or_else(|e| if planted(Bug::RefusalIgnored) { Ok(()) } else { Err(e) })?;
                    approved = planned.doomed;
                    p = self.lock();
                    continue;
                }
            }
            return self.place(p, encoded, how, len);
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
        }
        // In a callback, this may be the very thread that works for tickets nobody waits for. Others only wait: work would lead them
        // to callbacks, and who merely submits does not expect to run those.
        if !self.manual && !self.completions.is_telling() {
            return Ok(self.room.wait(p).unwrap_or_else(PoisonError::into_inner));
        }
        match self.step(p) {
            Ok(p) => {
                self.hand_off(&p);
                Ok(p)
            }
            Err(p) => Ok(self.room.wait(p).unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Moves on to a segment that has room for a record of `len` bytes, waiting for one to be prepared if need be and the caller
    /// agrees.
    fn rotate<'a>(
        &'a self,
        mut p: MutexGuard<'a, Pipeline>,
        len: u64,
        on_full: OnFull,
    ) -> Result<MutexGuard<'a, Pipeline>> {
        if p.ready.front().is_some_and(|s| s.fits(FIRST_RECORD, len))
            && let Some(next) = p.ready.pop_front()
        {
            let full = std::mem::replace(&mut p.active, next);
            let end = std::mem::replace(&mut p.offset, FIRST_RECORD);
            self.hooks.segment_full(full, end);
            self.hooks.segment_wanted();
            return Ok(p);
        }
        let need = (u64::from(FIRST_RECORD) + len).next_multiple_of(4096);
        let want = self.factory.next_len(p.active.len).max(need);
        if self.manual {
            let next_len = want;
            p.wanted_len = want;
            drop(p);
            let made = self.factory.prepare(next_len)?;
            self.put_ready(Ok(made));
            return Ok(self.lock());
        }
        // Only an attempt that began after this request counts: the disk may have been full a while ago.
        let asked = p.prepare_attempts;
        p.wanted_len = p.wanted_len.max(want);
        self.hooks.segment_wanted();
        if on_full == OnFull::Fail {
            let busy = "the next segment is not prepared yet; try again soon";
            return Err(match &p.prepare_error {
                // Perhaps of a while ago, so it is no answer by itself.
                Some((_, error)) => {
                    Error::new(ErrorKind::WouldBlock, format!("{busy} (the last attempt failed: {error})"))
                        .caused_by(error.clone())
                }
                None => Error::new(ErrorKind::WouldBlock, busy),
            });
        }
        let p = self.room.wait(p).unwrap_or_else(PoisonError::into_inner);
        match &p.prepare_error {
            Some((attempt, error)) if *attempt > asked => Err(error.clone()),
            _ => Ok(p),
        }
    }

    /// Moves the log on from `segment` if it is still the active one, and makes it durable.
    pub(crate) fn roll(&self, segment: u32) -> Result<()> {
        let mut p = self.lock();
        while p.active.id == segment {
            self.gate.check()?;
            if p.closed {
                return Err(Error::new(ErrorKind::Closed, "the engine is closed"));
            }
            p = self.rotate(p, 0, OnFull::Wait)?;
        }
        drop(p);
        self.sync().map(drop)
    }

    fn place(
        &self,
        mut p: MutexGuard<'_, Pipeline>,
        encoded: &Encoded,
        how: &Accept<'_>,
        len: u64,
    ) -> Result<Arc<Pending>> {
        let segment = p.active.clone();
        let offset = p.offset;
        let end = Lsn::new(segment.id, offset + len as u32);
        let desc_len = encoded.desc.len() as u32;
        let mut locs = Vec::with_capacity(encoded.batch.entries.len());
        let payload_at = offset + RECORD_HEADER_LEN + desc_len;
        locate(&encoded.batch.entries, &encoded.blocks, payload_at, |loc| locs.push(loc))
            .map_err(|e| Error::invalid(format!("the batch makes no sense: {e}")))?;
        if encoded.kind == RecordKind::Batch {
            segment.push_in_flight(InFlight { start: offset, desc_len, payload: encoded.payload.clone() });
            let mut steps = encoded.batch.steps().peekable();
            while let Some(region) = steps.peek().map(|step| step.region) {
                let cell = self.table.get_or_create(region);
                // Whoever reads the region sees all that the batch does to it, or nothing.
                let mut state = cell.write();
                while let Some(step) = steps.next_if(|step| step.region == region) {
                    match step.op {
                        Op::Append { first, entries, .. } => {
                            let own = &locs[step.entries_at..step.entries_at + *entries as usize];
                            state.append(*first, step.runs, own, &segment);
                        }
                        Op::TruncateFrom(index) => state.truncate_from(*index),
                        Op::CompactThrough(id) => state.compact_through(*id),
                        Op::Reset(base) => state.reset(*base),
                        Op::SetHardState(value) => state.set_hard_state(value),
                        Op::Put { key, value } => state.put(key, value),
                        Op::Delete { key } => state.delete(key),
                        Op::Destroy => state.destroy(),
                    }
                }
                state.touched = end;
            }
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
            self.counters.entries.fetch_add(locs.len() as u64, Ordering::Relaxed);
            self.counters.record_bytes.fetch_add(len, Ordering::Relaxed);
            self.counters.payload_bytes.fetch_add(encoded.batch.payload_bytes(), Ordering::Relaxed);
        }
        let pending = Arc::new(Pending::new(
            encoded.kind,
            segment,
            offset,
            end,
            encoded.desc.clone(),
            encoded.desc_crc,
            encoded.payload.clone(),
            how.durability,
            !how.checked,
            len as usize,
        ));
        p.queue.push_back(pending.clone());
        p.in_flight_bytes += len as usize;
        p.offset = end.offset();
        self.set_accepted(end);
        // Ask for the next segment well before this one is full.
        if p.ready.is_empty() && u64::from(p.offset) > p.active.len / 8 {
            self.hooks.segment_wanted();
        }
        Ok(pending)
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

impl Encoded {
    /// What the reader would refuse is refused here. Most of it was when the batch was built, where the error could say what was wrong.
    fn check(&self) -> Result<()> {
        let (desc, len) = (self.desc.len(), self.record_len());
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
        let stored = match &self.blocks[..] {
            [] => self.batch.payload_bytes(),
            blocks => blocks.iter().map(|b| u64::from(b.stored_len)).sum(),
        };
        if stored != self.payload.len() as u64 {
            return Err(Error::invalid(
                "the payloads of the batch are not as long as its entries: a closure of append_with changed the bytes of others",
            ));
        }
        Ok(())
    }
}
