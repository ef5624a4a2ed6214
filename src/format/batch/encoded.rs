//! A record before it has its place.

use super::{Batch, Block, Op};
use crate::codec::checksum::{crc32, moved_checksum};
use crate::format::record::{RecordKind, record_len};
use crate::planted::{Bug, planted};
use crate::types::EntryId;
use bytes::Bytes;

/// A batch, or another record, as it goes to the log, but for its header, which needs the position.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) kind: RecordKind,
    /// Empty unless the record is a batch.
    pub(crate) batch: Batch,
    pub(crate) blocks: Vec<Block>,
    pub(crate) desc: Bytes,
    pub(crate) desc_crc: u32,
    pub(crate) payload: Bytes,
}

impl Encoded {
    /// Bytes of the record.
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.desc.len() as u32, self.payload.len() as u32)
    }

    /// Puts what was chosen in the places of the operations that left it open, in their order. The record is
    /// as long as before: what can be chosen has a fixed width.
    pub(crate) fn decide(&mut self, chosen: impl IntoIterator<Item = Op>) {
        self.batch.decide(chosen.into_iter());
        let mut desc = Vec::with_capacity(self.desc.len());
        self.batch.encode_desc(&self.blocks, &mut desc);
        debug_assert_eq!(desc.len(), self.desc.len());
        self.desc_crc = crc32(0, &desc);
        self.desc = Bytes::from(desc);
    }
}

impl Encoded {
    /// This batch and `other` after it as one record: `other` stands in it as it is, and nothing of either is
    /// compressed again. What is left to acceptance still is.
    pub(crate) fn joined(&self, other: &Encoded) -> Encoded {
        let mut batch = self.batch.clone();
        batch.sections.extend_from_slice(&other.batch.sections);
        batch.ops.extend_from_slice(&other.batch.ops);
        batch.runs.extend_from_slice(&other.batch.runs);
        batch.entries.extend_from_slice(&other.batch.entries);
        let mut blocks = self.blocks.clone();
        debug_assert!(other.blocks.is_empty());
        if !blocks.is_empty() && !other.payload.is_empty() {
            let len = other.payload.len() as u32;
            blocks.push(Block { raw_len: len, stored_len: len, lz4: false });
        }
        let mut desc = Vec::new();
        batch.encode_desc(&blocks, &mut desc);
        Encoded {
            kind: self.kind,
            batch,
            blocks,
            desc_crc: crc32(0, &desc),
            desc: Bytes::from(desc),
            payload: Bytes::from([&self.payload[..], &other.payload[..]].concat()),
        }
    }
}

impl Batch {
    fn decide(&mut self, mut chosen: impl Iterator<Item = Op>) {
        let Batch { sections, ops, runs, entries, .. } = self;
        let (mut ops, mut runs, mut entries) = (ops.iter_mut(), runs.iter(), entries.iter_mut());
        for section in sections {
            for op in ops.by_ref().take(section.ops as usize) {
                let was = op.as_append();
                if op.is_deferred()
                    && let Some(chosen) = chosen.next()
                {
                    *op = chosen;
                }
                let (Some((was, ..)), Some((is, _, own_runs))) = (was, op.as_append()) else { continue };
                let mut nth = 0;
                for run in runs.by_ref().take(own_runs as usize) {
                    for entry in entries.by_ref().take(run.entries as usize) {
                        // Where it was foreseen rightly, nothing is left to do.
                        if was != is && !planted(Bug::ChecksumOfBuilding) {
                            let id = |first: u64| EntryId::new(run.term, first.saturating_add(nth));
                            entry.crc = moved_checksum(entry.crc, section.region, id(was), id(is), entry.len);
                        }
                        nth += 1;
                    }
                }
            }
        }
    }
}
