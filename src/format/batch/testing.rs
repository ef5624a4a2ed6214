//! Batches for tests: consistent by construction, otherwise anything.

use super::{Batch, Block, EntryMeta, Op, Section, TermRun};
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;
use proptest::prelude::*;

/// An operation with what belongs to it.
type OpWithRuns = (Op, Vec<TermRun>, Vec<EntryMeta>);

/// Any batch that the reader must accept.
pub(crate) fn any_batch() -> impl Strategy<Value = Batch> {
    let section = (any::<u64>(), prop::collection::vec(any_op(), 0..4));
    prop::collection::vec(section, 0..5).prop_map(|sections| {
        let mut batch = Batch::default();
        for (region, ops) in sections {
            batch.sections.push(Section { region: RegionId(region), ops: ops.len() as u32 });
            for (op, runs, entries) in ops {
                batch.ops.push(op);
                batch.runs.extend(runs);
                batch.entries.extend(entries);
            }
        }
        batch
    })
}

fn any_op() -> impl Strategy<Value = OpWithRuns> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let id = || (0..u64::MAX, any::<u64>()).prop_map(|(index, term)| EntryId { term, index });
    let alone = |op| (op, Vec::new(), Vec::new());
    prop_oneof![
        4 => any_append(),
        1 => any::<u64>().prop_map(move |index| alone(Op::TruncateFrom(index))),
        1 => id().prop_map(move |id| alone(Op::CompactThrough(id))),
        1 => id().prop_map(move |id| alone(Op::Reset(id))),
        1 => bytes().prop_map(move |state| alone(Op::SetHardState(state))),
        1 => (bytes(), bytes()).prop_map(move |(key, value)| alone(Op::Put { key, value })),
        1 => bytes().prop_map(move |key| alone(Op::Delete { key })),
        1 => Just(alone(Op::Destroy)),
        1 => Just(alone(Op::ForgetLog)),
        1 => (any::<u64>(), id()).prop_map(move |(raw, id)| {
            alone(Op::CompactTo { incarnation: Lsn::from_u64(raw), id })
        }),
        1 => any_append().prop_map(|(op, runs, entries)| {
            let (first, count, run_count) = op.as_append().unwrap();
            (Op::AppendNext { first, entries: count, runs: run_count }, runs, entries)
        }),
    ]
}

fn any_append() -> impl Strategy<Value = OpWithRuns> {
    let run = (0u64..1 << 40, prop::collection::vec((0u32..3000, any::<u32>()), 1..5));
    (0u64..1 << 60, prop::collection::vec(run, 1..4)).prop_map(|(first, mut runs)| {
        runs.sort_by_key(|run| run.0);
        let terms = runs.iter().map(|(term, e)| TermRun { term: *term, entries: e.len() as u32 }).collect();
        let entries: Vec<_> =
            runs.iter().flat_map(|run| &run.1).map(|&(len, crc)| EntryMeta { len, crc }).collect();
        (Op::Append { first, entries: entries.len() as u32, runs: runs.len() as u32 }, terms, entries)
    })
}

/// Blocks for the payloads of a batch, two entries each, and the length of the payload area they fill.
pub(crate) fn blocks_of(batch: &Batch, compressed: bool) -> (Vec<Block>, u32) {
    let len = |entries: &[EntryMeta]| entries.iter().map(|e| e.len).sum();
    if !compressed {
        return (Vec::new(), len(&batch.entries));
    }
    let raw = batch.entries.chunks(2).map(len).filter(|raw_len| *raw_len > 0);
    let blocks: Vec<_> = raw
        .enumerate()
        .map(|(i, raw_len)| match i % 3 {
            0 => Block { raw_len, stored_len: raw_len, lz4: false },
            _ => Block { raw_len, stored_len: 9 + raw_len / 2, lz4: true },
        })
        .collect();
    let stored = blocks.iter().map(|b| b.stored_len).sum();
    (blocks, stored)
}

/// The encoded description.
pub(crate) fn desc_of(batch: &Batch, blocks: &[Block]) -> Bytes {
    let mut out = Vec::new();
    batch.encode_desc(blocks, &mut out);
    out.into()
}
