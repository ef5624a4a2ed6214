//! The gate of the log: checks a batch, and makes it readable.

use super::accept::{BeforeRollback, Origin};
use super::active::Placement;
use super::approval::Approval;
use super::counters::Counters;
use super::watchers::{Watchers, changes};
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Encoded, Loc, Op, Step, locate};
use crate::format::record::{RECORD_HEADER_LEN, RecordKind};
use crate::index::{Planned, Table};
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX};
use crate::planted::{Bug, planted};
use crate::report::Outcome;
use crate::segment::InFlight;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::types::{Lsn, RegionId};

/// Of a batch with more entries than this the memory for their places is given back.
const KEPT_LOCS_MAX: usize = 4096;

/// The regions, and what admitting one batch after another needs memory for.
pub(super) struct Admission {
    table: Arc<Table>,
    planned: Planned,
    locs: Vec<Loc>,
}

impl Admission {
    pub(super) fn new(table: Arc<Table>) -> Admission {
        Admission { table, planned: Planned::default(), locs: Vec::new() }
    }

    /// Checks a caller's batch, which will end at `end`, against the regions as they stand; what the engine
    /// itself writes was checked before. Returns who has to be [asked](Approval::ask) first, once no lock is
    /// held: the batch would roll back what `approval` does not name.
    pub(super) fn plan<'a>(
        &mut self,
        encoded: &Encoded,
        end: Lsn,
        origin: &Origin<'a>,
        approval: &mut Approval,
    ) -> Result<Option<BeforeRollback<'a>>> {
        let Origin::Caller { before_rollback, scope } = origin else {
            self.planned.clear();
            return Ok(None);
        };
        self.planned.plan(&self.table, &encoded.batch, end, *scope)?;
        let discards = &self.planned.discards;
        let ask = before_rollback.filter(|_| approval.lacks(discards));
        if ask.is_some() {
            approval.note(discards);
        }
        Ok(ask)
    }

    /// Makes the batch readable that was planned: from here on it has its place.
    pub(super) fn admit(
        &mut self,
        encoded: &mut Encoded,
        is_planned: bool,
        place: &Placement,
        durable: Lsn,
        counters: &Counters,
        watchers: &Watchers,
    ) -> Result<Outcome> {
        let desc_len = encoded.desc.len() as u32;
        let Admission { planned, locs, .. } = self;
        locs.clear();
        locs.shrink_to(KEPT_LOCS_MAX);
        let payload_at = place.offset + RECORD_HEADER_LEN + desc_len;
        locate(&encoded.batch.entries, &encoded.blocks, payload_at, |loc| locs.push(loc))
            .map_err(|e| Error::invalid(format!("the batch is malformed: {e}")))?;
        let bytes = encoded.record_len();
        let decided = &mut planned.decided;
        let outcome = Outcome {
            lsn: place.end,
            bytes,
            compactions: std::mem::take(&mut decided.compactions),
            appends: std::mem::take(&mut decided.appends),
        };
        if !decided.ops.is_empty() {
            encoded.decide(decided.ops.drain(..));
            locs.iter_mut().zip(&encoded.batch.entries).for_each(|(loc, entry)| loc.crc = entry.crc);
        }
        if encoded.kind == RecordKind::Batch {
            let payload = encoded.payload.clone();
            place.segment.content.push_in_flight(InFlight { start: place.offset, desc_len, payload });
            // Of what is not planned it is not known whether it returns.
            if (planned.returns || !is_planned) && !planted(Bug::BatchAppliedInParts) {
                // Between regions there is no order to keep; within one, sorting keeps it.
                let mut steps: Vec<Step<'_>> = encoded.batch.steps().collect();
                steps.sort_by_key(|step| step.region);
                self.apply(steps.into_iter(), place, durable);
            } else {
                self.apply(encoded.batch.steps(), place, durable);
            }
            if watchers.any() {
                watchers.publish(&changes(&self.planned, &encoded.batch, place.end));
            }
            self.planned.clear();
            counters.batches.fetch_add(1, Ordering::Relaxed);
            counters.entries.fetch_add(self.locs.len() as u64, Ordering::Relaxed);
            counters.record_bytes.fetch_add(bytes, Ordering::Relaxed);
            counters.payload_bytes.fetch_add(encoded.batch.payload_bytes(), Ordering::Relaxed);
        }
        Ok(outcome)
    }

    /// Forgets a destroyed region whose last operation lies before `segment`.
    pub(super) fn forget(&self, id: RegionId, segment: u32) {
        self.table.forget(id, |s| !s.exists && s.touched.segment() < segment);
    }

    /// Makes the batch readable. A reader of a region sees all that the batch does to it, or nothing: its
    /// steps come one after the other, and are applied under one hold of its lock.
    fn apply<'a>(&self, steps: impl Iterator<Item = Step<'a>>, place: &Placement, durable: Lsn) {
        let (segment, end) = (&place.segment, place.end);
        let mut steps = steps.peekable();
        let mut nth = 0;
        while let Some(region) = steps.peek().map(|step| step.region) {
            let found;
            let cell = match self.planned.cell(nth, region) {
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
                        let own = &self.locs[step.entries_at..step.entries_at + *entries as usize];
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

/// What the reader would refuse is refused here. Most of it was when the batch was built, where the
/// error could say what was wrong.
pub(super) fn check(record: &Encoded) -> Result<()> {
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
