//! What was written and stands in one place only: see [`crate::format::copies`].

use crate::format::batch::COPIES_TAG;
use crate::format::copies::{Run, encode_copy};
use crate::format::record::{RecordHeader, Shape};
use crate::limits::PAGE;
use crate::planted::{Bug, planted};
use crate::types::Lsn;
use bytes::Bytes;
use std::collections::VecDeque;

/// The most bytes of copies that are kept back for later. Beyond it the oldest are given up: their
/// descriptions stand in one place until their segment has its footer.
const BYTES_MAX: usize = 4 << 20;

/// A list is not written for less, unless the log comes to rest: with each write of a lone writer it would be
/// as long as what it copies, and take a part of its time.
const LIST_BYTES_MIN: usize = 1 << 10;

/// Copies of records that are written, and of which no later record has a copy in another block.
#[derive(Default)]
pub(super) struct Uncopied {
    records: VecDeque<Written>,
    /// The encoded copies, back to back.
    bytes: Vec<u8>,
    /// An empty one with memory.
    spare: Vec<u8>,
}

/// One record.
struct Written {
    position: Lsn,
    end: Lsn,
    previous: Shape,
    watermark: Lsn,
    /// Of its copy.
    len: usize,
}

impl Uncopied {
    /// The record that ends at `end` is being written.
    pub(super) fn add(&mut self, header: &RecordHeader, desc: &[u8], end: Lsn) {
        let before = self.bytes.len();
        encode_copy(header, desc, &mut self.bytes);
        self.records.push_back(Written {
            position: header.position,
            end,
            previous: header.previous,
            watermark: header.watermark,
            len: self.bytes.len() - before,
        });
    }

    /// What `later` holds follows what is here.
    pub(super) fn append(&mut self, later: &mut Uncopied) {
        self.records.append(&mut later.records);
        self.bytes.append(&mut later.bytes);
        let (mut count, mut bytes) = (0, 0);
        while self.bytes.len() - bytes > BYTES_MAX && count < self.records.len() {
            bytes += self.records[count].len;
            count += 1;
        }
        self.forget(count);
    }

    /// Of how many records, from the first on, a list at `at` is to be written: those that would have a copy
    /// in another block with it, once these are enough for a list.
    pub(super) fn due_at(&self, at: Lsn) -> usize {
        if planted(Bug::CopiesNotWritten) {
            return 0;
        }
        let block = Lsn::new(at.segment(), at.offset() / PAGE as u32 * PAGE as u32);
        let block = if planted(Bug::CopyInSameBlock) { at } else { block };
        let count = self.records.partition_point(|record| record.end <= block);
        let bytes: usize = self.records.range(..count).map(|record| record.len).sum();
        if bytes < LIST_BYTES_MIN { 0 } else { count }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The list of the first `count` records.
    pub(super) fn list(&mut self, count: usize) -> Bytes {
        let mut list = std::mem::take(&mut self.spare);
        list.clear();
        self.list_of(0, count, &mut list);
        // One allocation, of the length that it needs.
        let exact = Bytes::copy_from_slice(&list);
        self.spare = list;
        exact
    }

    /// The list of as many of the last records as fit into `bytes_max`, and whether these are all.
    pub(super) fn newest(&self, bytes_max: usize) -> (Vec<u8>, bool) {
        let mut first = 0;
        loop {
            let mut list = Vec::new();
            self.list_of(first, self.records.len(), &mut list);
            if list.len() <= bytes_max {
                return (list, first == 0);
            }
            // At least as many go as are too much.
            let mut excess = list.len() - bytes_max;
            while excess > 0 && first < self.records.len() {
                excess = excess.saturating_sub(self.records[first].len);
                first += 1;
            }
        }
    }

    fn list_of(&self, first: usize, end: usize, list: &mut Vec<u8>) {
        if first == end {
            return;
        }
        let skipped = self.records.range(..first).map(|record| record.len).sum();
        list.push(COPIES_TAG);
        let (mut at, mut from) = (first, skipped);
        while at < end {
            let head = &self.records[at];
            let (mut count, mut to, mut next) = (0, from, head.position);
            for record in self.records.range(at..end) {
                if record.position != next || record.watermark != head.watermark {
                    break;
                }
                (count, to, next) = (count + 1, to + record.len, record.end);
            }
            let run = Run {
                position: head.position,
                previous: head.previous,
                watermark: head.watermark,
                count: count as u64,
            };
            run.encode(list);
            list.extend_from_slice(&self.bytes[from..to]);
            (at, from) = (at + count, to);
        }
    }

    /// The first `count` have their copies.
    pub(super) fn forget(&mut self, count: usize) {
        let bytes: usize = self.records.drain(..count).map(|record| record.len).sum();
        self.bytes.drain(..bytes);
    }
}
