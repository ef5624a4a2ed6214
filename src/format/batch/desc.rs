//! A batch's description to bytes and back.

use super::{BLOCK_HEADER_LEN, Batch, Block, EntryMeta, Op, Section, TermRun, locate};
use crate::codec::compress::is_plausible;
use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::limits::{DESC_BYTES_MAX, ENTRY_BYTES_MAX, INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;

impl Batch {
    /// Appends the description of this batch, whose payload area consists of `blocks`; none when it
    /// is stored as it is.
    pub(crate) fn encode_desc(&self, blocks: &[Block], out: &mut Vec<u8>) {
        // Generous for small batches, so that they never grow the buffer twice; keys and values
        // reserve as they come.
        out.reserve(
            16 + 11 * blocks.len()
                + 12 * self.sections.len()
                + 16 * self.ops.len()
                + 12 * self.runs.len()
                + 9 * self.entries.len(),
        );
        put_varint(out, blocks.len() as u64);
        for block in blocks {
            put_varint(out, u64::from(block.raw_len) << 1 | u64::from(block.lz4));
            if block.lz4 {
                put_varint(out, u64::from(block.stored_len));
            }
        }
        put_varint(out, self.sections.len() as u64);
        let (mut ops, mut runs, mut entries) = (self.ops.iter(), self.runs.iter(), self.entries.iter());
        for section in &self.sections {
            put_varint(out, section.region.0);
            put_varint(out, u64::from(section.ops));
            for op in ops.by_ref().take(section.ops as usize) {
                put_op(out, op);
                if let Some((_, entry_count, run_count)) = op.as_append() {
                    for run in runs.by_ref().take(run_count as usize) {
                        put_varint(out, run.term);
                        put_varint(out, u64::from(run.entries));
                    }
                    for entry in entries.by_ref().take(entry_count as usize) {
                        put_varint(out, u64::from(entry.len));
                        out.extend_from_slice(&entry.crc.to_le_bytes());
                    }
                }
            }
        }
        debug_assert!(ops.next().is_none() && runs.next().is_none() && entries.next().is_none());
    }

    /// Reads a description. Keys, values and hard states borrow it. The counts of what is returned
    /// are consistent, its limits are kept, and the blocks fill a payload area of `payload_len`
    /// bytes with exactly the entries.
    pub(crate) fn decode_desc(desc: &Bytes, payload_len: u32) -> Result<(Batch, Vec<Block>), Malformed> {
        if desc.len() > DESC_BYTES_MAX {
            return Err(Malformed("a description is longer than the limit"));
        }
        let mut d = Decoder { desc, r: Cursor::new(desc), batch: Batch::default() };
        let blocks = d.blocks()?;
        let sections = d.r.count(2)?;
        d.batch.sections.reserve(sections);
        for _ in 0..sections {
            let region = RegionId(d.r.varint()?);
            // An operation takes at least a byte, and many times that in memory: so nothing is
            // reserved for it.
            let ops = d.r.count(1)?;
            d.batch.sections.push(Section { region, ops: to_u32(ops)? });
            for _ in 0..ops {
                let op = d.op()?;
                d.batch.ops.push(op);
            }
        }
        d.r.finish()?;
        let batch = d.batch;
        check_payload(&batch.entries, &blocks, payload_len)?;
        Ok((batch, blocks))
    }
}

const APPEND: u8 = 1;
const TRUNCATE_FROM: u8 = 2;
const COMPACT_THROUGH: u8 = 3;
const RESET: u8 = 4;
const SET_HARD_STATE: u8 = 5;
const PUT: u8 = 6;
const DELETE: u8 = 7;
const DESTROY: u8 = 8;
const FORGET_LOG: u8 = 9;
const COMPACT_TO: u8 = 10;
const APPEND_NEXT: u8 = 11;

/// All of an operation except an append's runs and entries.
#[inline]
fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Append { first, entries, runs } => {
            out.push(APPEND);
            put_varint(out, *first);
            put_varint(out, u64::from(*entries));
            put_varint(out, u64::from(*runs));
        }
        Op::TruncateFrom(index) => {
            out.push(TRUNCATE_FROM);
            put_varint(out, *index);
        }
        Op::CompactThrough(id) => put_id(out, COMPACT_THROUGH, *id),
        Op::Reset(id) => put_id(out, RESET, *id),
        Op::SetHardState(state) => {
            out.push(SET_HARD_STATE);
            put_bytes(out, state);
        }
        Op::Put { key, value } => {
            out.push(PUT);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Op::Delete { key } => {
            out.push(DELETE);
            put_bytes(out, key);
        }
        Op::Destroy => out.push(DESTROY),
        Op::ForgetLog => out.push(FORGET_LOG),
        Op::CompactTo { incarnation, id } => {
            out.push(COMPACT_TO);
            out.extend_from_slice(&incarnation.to_u64().to_le_bytes());
            out.extend_from_slice(&id.index.to_le_bytes());
            out.extend_from_slice(&id.term.to_le_bytes());
        }
        Op::AppendNext { first, entries, runs } => {
            out.push(APPEND_NEXT);
            out.extend_from_slice(&first.to_le_bytes());
            put_varint(out, u64::from(*entries));
            put_varint(out, u64::from(*runs));
        }
    }
}

fn put_id(out: &mut Vec<u8>, tag: u8, id: EntryId) {
    out.push(tag);
    put_varint(out, id.index);
    put_varint(out, id.term);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Decoder<'a> {
    desc: &'a Bytes,
    r: Cursor<'a>,
    batch: Batch,
}

impl Decoder<'_> {
    fn blocks(&mut self) -> Result<Vec<Block>, Malformed> {
        let count = self.r.count(1)?;
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let word = self.r.varint()?;
            let raw_len =
                u32::try_from(word >> 1).map_err(|_| Malformed("a block is longer than 32 bits can say"))?;
            let lz4 = word & 1 == 1;
            let stored_len = if lz4 { self.r.varint_u32()? } else { raw_len };
            let lz4_len = stored_len.saturating_sub(BLOCK_HEADER_LEN) as usize;
            if raw_len == 0 || lz4 && (lz4_len == 0 || !is_plausible(lz4_len, raw_len as usize)) {
                return Err(Malformed("a block's lengths are impossible"));
            }
            blocks.push(Block { raw_len, stored_len, lz4 });
        }
        Ok(blocks)
    }

    fn op(&mut self) -> Result<Op, Malformed> {
        Ok(match self.r.u8()? {
            APPEND => {
                let first = self.r.varint()?;
                let (entries, runs) = self.append(first)?;
                Op::Append { first, entries, runs }
            }
            TRUNCATE_FROM => Op::TruncateFrom(self.r.varint()?),
            COMPACT_THROUGH => Op::CompactThrough(self.id()?),
            RESET => Op::Reset(self.id()?),
            SET_HARD_STATE => Op::SetHardState(self.bytes(VALUE_BYTES_MAX)?),
            PUT => Op::Put { key: self.bytes(KEY_BYTES_MAX)?, value: self.bytes(VALUE_BYTES_MAX)? },
            DELETE => Op::Delete { key: self.bytes(KEY_BYTES_MAX)? },
            DESTROY => Op::Destroy,
            FORGET_LOG => Op::ForgetLog,
            COMPACT_TO => {
                let incarnation = Lsn::from_u64(self.r.u64()?);
                let (index, term) = (self.r.u64()?, self.r.u64()?);
                Op::CompactTo { incarnation, id: known(EntryId { term, index })? }
            }
            APPEND_NEXT => {
                let first = self.r.u64()?;
                let (entries, runs) = self.append(first)?;
                Op::AppendNext { first, entries, runs }
            }
            _ => return Err(Malformed("the kind of operation is unknown")),
        })
    }

    /// What follows the first index of an append: how many entries, and in how many runs.
    fn append(&mut self, first: u64) -> Result<(u32, u32), Malformed> {
        // An entry takes at least a byte of length and four of checksum.
        let entries = self.r.count(5)?;
        let runs = self.r.count(2)?;
        let behind = u64::try_from(entries).ok().filter(|n| *n > 0).and_then(|n| first.checked_add(n - 1));
        if behind.is_none_or(|last| last > INDEX_MAX) {
            return Err(Malformed("an append has no entry, or one beyond the highest index"));
        }
        let mut left = entries;
        let mut term_before = 0;
        self.batch.runs.reserve(runs);
        for _ in 0..runs {
            let run = TermRun { term: self.r.varint()?, entries: self.r.varint_u32()? };
            if run.entries == 0 || run.entries as usize > left || run.term < term_before {
                return Err(Malformed("the terms of an append do not fit its entries, or fall"));
            }
            left -= run.entries as usize;
            term_before = run.term;
            self.batch.runs.push(run);
        }
        if left > 0 {
            return Err(Malformed("entries of an append have no term"));
        }
        self.batch.entries.reserve(entries);
        for _ in 0..entries {
            let entry = EntryMeta { len: self.r.varint_u32()?, crc: self.r.u32()? };
            if entry.len as usize > ENTRY_BYTES_MAX {
                return Err(Malformed("an entry is longer than the limit"));
            }
            self.batch.entries.push(entry);
        }
        Ok((to_u32(entries)?, to_u32(runs)?))
    }

    fn id(&mut self) -> Result<EntryId, Malformed> {
        let (index, term) = (self.r.varint()?, self.r.varint()?);
        known(EntryId { term, index })
    }

    fn bytes(&mut self, len_max: usize) -> Result<Bytes, Malformed> {
        let len = self.r.varint_u32()? as usize;
        if len > len_max {
            return Err(Malformed("a key or value is longer than the limit"));
        }
        Ok(self.desc.slice_ref(self.r.bytes(len)?))
    }
}

/// The payload area must be as long as its blocks, and those must hold the entries: to the byte, or offsets
/// that are computed from the lengths would be wrong for all that follow.
fn check_payload(entries: &[EntryMeta], blocks: &[Block], payload_len: u32) -> Result<(), Malformed> {
    let stored: u64 = match blocks {
        [] => entries.iter().map(|e| u64::from(e.len)).sum(),
        blocks => blocks.iter().map(|b| u64::from(b.stored_len)).sum(),
    };
    if stored != u64::from(payload_len) {
        return Err(Malformed("the payload area is not as long as what it should hold"));
    }
    locate(entries, blocks, 0, |_| ())
}

fn known(id: EntryId) -> Result<EntryId, Malformed> {
    match id.index <= INDEX_MAX {
        true => Ok(id),
        false => Err(Malformed("an index is beyond the highest")),
    }
}

fn to_u32(count: usize) -> Result<u32, Malformed> {
    u32::try_from(count).map_err(|_| Malformed("a count exceeds 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_batch, blocks_of, desc_of};
    use super::*;
    use crate::codec::checksum::crc32;
    use proptest::prelude::*;

    /// A batch of one append, encoded by hand so that each number can be wrong.
    fn append(first: u64, entries: u64, runs: &[(u64, u64)], lens: &[u64]) -> Bytes {
        let mut out = vec![0, 1, 7, 1, APPEND];
        for number in [first, entries, runs.len() as u64] {
            put_varint(&mut out, number);
        }
        for (term, entries) in runs {
            put_varint(&mut out, *term);
            put_varint(&mut out, *entries);
        }
        for len in lens {
            put_varint(&mut out, *len);
            out.extend_from_slice(&[0; 4]);
        }
        out.into()
    }

    fn refused(desc: impl Into<Bytes>, payload_len: u32) {
        let desc = desc.into();
        assert!(Batch::decode_desc(&desc, payload_len).is_err(), "{desc:?}");
    }

    #[test]
    fn runs_must_cover_the_entries_exactly_in_rising_terms() {
        assert!(Batch::decode_desc(&append(1, 3, &[(4, 1), (4, 2)], &[5, 0, 5]), 10).is_ok());
        refused(append(1, 3, &[(4, 1), (4, 1)], &[5, 0, 5]), 10);
        refused(append(1, 3, &[(4, 1), (4, 3)], &[5, 0, 5]), 10);
        refused(append(1, 3, &[(4, 3), (4, 0)], &[5, 0, 5]), 10);
        refused(append(1, 3, &[(4, 1), (3, 2)], &[5, 0, 5]), 10);
        refused(append(1, 0, &[], &[]), 0);
    }

    #[test]
    fn entry_beyond_the_highest_index_is_refused() {
        assert!(Batch::decode_desc(&append(INDEX_MAX, 1, &[(1, 1)], &[0]), 0).is_ok());
        assert!(Batch::decode_desc(&append(0, 1, &[(0, 1)], &[0]), 0).is_ok());
        refused(append(INDEX_MAX, 2, &[(1, 2)], &[0, 0]), 0);
        refused(append(u64::MAX, 1, &[(1, 1)], &[0]), 0);
    }

    #[test]
    fn payload_area_must_be_as_long_as_the_entries() {
        refused(append(1, 1, &[(1, 1)], &[5]), 4);
        refused(append(1, 1, &[(1, 1)], &[5]), 6);
    }

    #[test]
    fn counts_that_the_bytes_cannot_hold_are_refused() {
        refused(append(1, u64::MAX, &[(1, 1)], &[5]), 5);
        refused(append(1, 1 << 31, &[(1, 1)], &[5]), 5);
        refused([0, 0xff, 0xff, 0xff, 0x7f].as_slice(), 0);
        refused([0xff, 0xff, 0xff, 0x7f, 0].as_slice(), 0);
        refused([0, 1, 7, 0xff, 0xff, 0x7f, DESTROY].as_slice(), 0);
    }

    #[test]
    fn limits_are_kept() {
        refused(append(1, 1, &[(1, 1)], &[ENTRY_BYTES_MAX as u64 + 1]), ENTRY_BYTES_MAX as u32 + 1);
        for (op, fits) in [
            (Op::Delete { key: vec![0; KEY_BYTES_MAX].into() }, true),
            (Op::Delete { key: vec![0; KEY_BYTES_MAX + 1].into() }, false),
            (Op::SetHardState(vec![0; VALUE_BYTES_MAX].into()), true),
            (Op::SetHardState(vec![0; VALUE_BYTES_MAX + 1].into()), false),
            (Op::Reset(EntryId::new(1, INDEX_MAX)), true),
            (Op::Reset(EntryId::new(1, u64::MAX)), false),
            (Op::CompactTo { incarnation: Lsn::ZERO, id: EntryId::new(1, INDEX_MAX) }, true),
            (Op::CompactTo { incarnation: Lsn::ZERO, id: EntryId::new(1, u64::MAX) }, false),
        ] {
            let sections = vec![Section { region: RegionId(1), ops: 1 }];
            let batch = Batch { sections, ops: vec![op], ..Batch::default() };
            assert_eq!(Batch::decode_desc(&desc_of(&batch, &[]), 0).is_ok(), fits);
        }
    }

    #[test]
    fn impossible_blocks_are_refused() {
        let one = append(1, 1, &[(1, 1)], &[200]);
        let with_block = |raw_len: u64, lz4: bool, stored_len: u64| {
            let mut desc = vec![1];
            put_varint(&mut desc, raw_len << 1 | u64::from(lz4));
            if lz4 {
                put_varint(&mut desc, stored_len);
            }
            desc.extend_from_slice(&one[1..]);
            Bytes::from(desc)
        };
        assert!(Batch::decode_desc(&with_block(200, true, 50), 50).is_ok());
        assert!(Batch::decode_desc(&with_block(200, false, 0), 200).is_ok());
        refused(with_block(200, true, 8), 8);
        refused(with_block(199, true, 50), 50);
        refused(with_block(0, false, 0), 200);
        refused(with_block(u64::MAX >> 1, true, 50), 50);
        refused(with_block(200, true, 50), 51);
    }

    #[test]
    fn unknown_operation_is_refused() {
        refused([0, 1, 7, 1, 0].as_slice(), 0);
        refused([0, 1, 7, 1, 12].as_slice(), 0);
    }

    #[test]
    fn what_is_chosen_at_acceptance_has_a_fixed_width() {
        let desc = |op: Op, entries: Vec<EntryMeta>| {
            let runs = entries.iter().map(|_| TermRun { term: 1, entries: 1 }).collect();
            let sections = vec![Section { region: RegionId(7), ops: 1 }];
            desc_of(&Batch { sections, ops: vec![op], runs, entries, ..Batch::default() }, &[]).len()
        };
        let compact = |index, lsn| {
            desc(
                Op::CompactTo { incarnation: Lsn::from_u64(lsn), id: EntryId::new(index, index) },
                Vec::new(),
            )
        };
        assert_eq!(compact(0, 0), compact(INDEX_MAX, u64::MAX));
        let append =
            |first| desc(Op::AppendNext { first, entries: 1, runs: 1 }, vec![EntryMeta { len: 0, crc: 0 }]);
        assert_eq!(append(0), append(INDEX_MAX));
    }

    #[test]
    fn empty_batch_is_two_zeros() {
        let desc = desc_of(&Batch::default(), &[]);
        assert_eq!(&desc[..], [0, 0]);
        assert_eq!(Batch::decode_desc(&desc, 0), Ok((Batch::default(), Vec::new())));
    }

    proptest! {
        #[test]
        fn every_batch_round_trips(batch in any_batch(), compressed: bool) {
            let (blocks, payload_len) = blocks_of(&batch, compressed);
            let desc = desc_of(&batch, &blocks);
            let (back, blocks_back) = Batch::decode_desc(&desc, payload_len)?;
            prop_assert_eq!(&back, &batch);
            prop_assert_eq!(blocks_back, blocks);
        }

        #[test]
        fn every_flipped_bit_changes_the_checksum(batch in any_batch(), at: prop::sample::Index) {
            let mut desc = desc_of(&batch, &[]).to_vec();
            let crc = crc32(0, &desc);
            let bit = at.index(desc.len() * 8);
            desc[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(crc, crc32(0, &desc));
        }

        #[test]
        fn flipped_description_never_panics_and_has_one_encoding(batch in any_batch(), at: prop::sample::Index, bit in 0u32..8) {
            let (_, payload_len) = blocks_of(&batch, false);
            let mut desc = desc_of(&batch, &[]).to_vec();
            let at = at.index(desc.len());
            desc[at] ^= 1 << bit;
            let desc = Bytes::from(desc);
            if let Ok((other, blocks)) = Batch::decode_desc(&desc, payload_len) {
                prop_assert_eq!(desc_of(&other, &blocks), desc);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, payload_len in 0u32..1000) {
            let _ = Batch::decode_desc(&bytes.into(), payload_len);
        }
    }
}
