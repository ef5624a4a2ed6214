//! What is accepted and not yet written.

use super::pending::Record;
use crate::planted::{Bug, planted};
use crate::types::Durability;
use std::collections::VecDeque;

/// The most bytes that one write stage takes on: beyond it the sync that follows would keep others waiting.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// While a sync runs, batches that have to wait for the next one are written together. So many
/// bytes of them are written at once: the device is busy anyway, and what is written now need not
/// be when the next sync could begin.
const DEFERRED_BYTES_MAX: usize = 256 << 10;

/// Records in the order of their positions.
#[derive(Default)]
pub(super) struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
    /// Something of it may not wait for the sync under way to end.
    urgent: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// While a sync runs, the queue grows: what is in it has to wait for the next one, and is written with
    /// one call. But for what may not wait, and what is worth a call of its own.
    pub(super) fn may_wait(&self) -> bool {
        !self.urgent && self.bytes < DEFERRED_BYTES_MAX
    }

    /// It was kept back for as long as it may be.
    pub(super) fn hurry(&mut self) {
        self.urgent |= !self.records.is_empty();
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.len();
        self.urgent |= record.durability == Durability::Written && !planted(Bug::WrittenDeferred);
        self.records.push_back(record);
    }

    /// Moves to `group` what one write stage takes on, and says how many bytes that is.
    pub(super) fn take(&mut self, group: &mut Vec<Record>) -> usize {
        let (mut count, mut bytes) = (0, 0);
        for record in &self.records {
            if count > 0 && bytes + record.len() > GROUP_BYTES_MAX {
                break;
            }
            bytes += record.len();
            count += 1;
        }
        group.extend(self.records.drain(..count));
        self.bytes -= bytes;
        self.urgent = self.records.iter().any(|record| record.durability == Durability::Written);
        bytes
    }

    /// What was [taken](Queue::take) is not written.
    pub(super) fn put_back(&mut self, group: &mut Vec<Record>) {
        for record in group.drain(..).rev() {
            self.bytes += record.len();
            self.records.push_front(record);
        }
    }

    /// The next one, which will not be written.
    pub(super) fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes -= record.len();
        Some(record)
    }
}
