//! One segment or region of a checkpoint to bytes and back.

use super::{ExtentRecord, RegionRecord, SegmentRecord};
use crate::codec::varint::put_varint;
use crate::codec::{Malformed, Reader};
use crate::format::file_header::FileKind;
use crate::limits::{INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::types::{EntryId, RegionId};
use bytes::Bytes;

impl SegmentRecord {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.id));
        put_varint(out, self.kind as u64);
        put_varint(out, self.salt);
        put_varint(out, u64::from(self.sealed_end));
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<SegmentRecord, Malformed> {
        let (id, kind) = (r.varint_u32()?, FileKind::from_u32(r.varint_u32()?)?);
        if !matches!(kind, FileKind::Log | FileKind::Cold) {
            return Err(Malformed("a segment is neither one of the log nor a cold one"));
        }
        Ok(SegmentRecord { id, kind, salt: r.varint()?, sealed_end: r.varint_u32()? })
    }
}

impl RegionRecord {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        put_varint(out, self.region.0);
        put_varint(out, u64::from(self.as_of));
        out.push(
            flag(EXISTS, self.exists)
                | flag(HAS_BASE, self.base.is_some())
                | flag(HAS_HARD_STATE, self.hard_state.is_some())
                | flag(HARD_STATE_LOST, self.hard_state_lost)
                | flag(HAS_SUSPECT, !self.suspect.is_empty()),
        );
        if let Some(base) = self.base {
            put_varint(out, base.index);
            put_varint(out, base.term);
        }
        if let Some(state) = &self.hard_state {
            put_bytes(out, state);
        }
        put_varint(out, self.kv.len() as u64);
        for (key, value) in &self.kv {
            put_bytes(out, key);
            put_bytes(out, value);
        }
        put_varint(out, self.extents.len() as u64);
        for extent in &self.extents {
            put_varint(out, u64::from(extent.segment));
            put_varint(out, extent.first);
            put_varint(out, extent.count);
            put_varint(out, extent.first_term);
            put_varint(out, extent.last_term);
            put_varint(out, extent.bytes);
        }
        put_ranges(out, &self.damage);
        if !self.suspect.is_empty() {
            put_ranges(out, &self.suspect);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<RegionRecord, Malformed> {
        let region = RegionId(r.varint()?);
        let as_of = r.varint_u32()?;
        let flags = r.u8()?;
        if flags & !(EXISTS | HAS_BASE | HAS_HARD_STATE | HARD_STATE_LOST | HAS_SUSPECT) != 0 {
            return Err(Malformed("a region has flags that this release does not know"));
        }
        let has = |bit: u8| flags & bit != 0;
        let base = match has(HAS_BASE) {
            true => {
                let (index, term) = (r.varint()?, r.varint()?);
                Some(EntryId { term, index })
            }
            false => None,
        };
        let hard_state = has(HAS_HARD_STATE).then(|| read_bytes(r, VALUE_BYTES_MAX)).transpose()?;
        let kv = read_list(r, 2, |r| Ok((read_bytes(r, KEY_BYTES_MAX)?, read_bytes(r, VALUE_BYTES_MAX)?)))?;
        let extents = read_list(r, 6, |r| {
            Ok(ExtentRecord {
                segment: r.varint_u32()?,
                first: r.varint()?,
                count: r.varint()?,
                first_term: r.varint()?,
                last_term: r.varint()?,
                bytes: r.varint()?,
            })
        })?;
        let damage = read_ranges(r)?;
        let suspect = if has(HAS_SUSPECT) { read_ranges(r)? } else { Vec::new() };
        if has(HAS_SUSPECT) && suspect.is_empty() {
            return Err(Malformed("a region is suspect, and nothing of it is"));
        }
        let hard_state_lost = has(HARD_STATE_LOST);
        let exists = has(EXISTS);
        let record = RegionRecord {
            region,
            as_of,
            exists,
            base,
            hard_state,
            kv,
            extents,
            damage,
            suspect,
            hard_state_lost,
        };
        record.check()?;
        Ok(record)
    }

    /// The rules that hold between fields: indexes are numbers that can be, extents rise and do not overlap, and
    /// neither they nor damaged ranges are empty.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        if self.base.is_some_and(|base| base.index > INDEX_MAX) {
            return Err(Malformed("an index is beyond the highest"));
        }
        let mut free_from = 0;
        for extent in &self.extents {
            let end = extent.first.checked_add(extent.count).filter(|_| extent.count > 0);
            let end = end.ok_or(Malformed("an extent is empty or goes beyond the highest index"))?;
            if extent.first < free_from {
                return Err(Malformed("the extents of a region overlap, or are not sorted"));
            }
            free_from = end;
        }
        if self.damage.iter().chain(&self.suspect).any(|(first, last)| first > last || *last > INDEX_MAX) {
            return Err(Malformed("a damaged range is empty or goes beyond the highest index"));
        }
        Ok(())
    }
}

const EXISTS: u8 = 1;
const HAS_BASE: u8 = 2;
const HAS_HARD_STATE: u8 = 4;
const HARD_STATE_LOST: u8 = 8;
const HAS_SUSPECT: u8 = 16;

/// Items are larger in memory than on disk: beyond this many, the list grows as they come.
const RESERVE_MAX: usize = 64;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_ranges(out: &mut Vec<u8>, ranges: &[(u64, u64)]) {
    put_varint(out, ranges.len() as u64);
    for (first, last) in ranges {
        put_varint(out, *first);
        put_varint(out, *last);
    }
}

fn read_ranges(r: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Malformed> {
    read_list(r, 2, |r| Ok((r.varint()?, r.varint()?)))
}

fn read_bytes(r: &mut Reader<'_>, len_max: usize) -> Result<Bytes, Malformed> {
    let len = r.varint_u32()? as usize;
    if len > len_max {
        return Err(Malformed("a key or value is longer than the limit"));
    }
    Ok(Bytes::copy_from_slice(r.bytes(len)?))
}

fn read_list<'a, T>(
    r: &mut Reader<'a>,
    item_len_min: usize,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = r.count(item_len_min)?;
    let mut list = Vec::with_capacity(count.min(RESERVE_MAX));
    for _ in 0..count {
        list.push(item(r)?);
    }
    Ok(list)
}
