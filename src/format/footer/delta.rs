//! What one segment did to one region.

use crate::codec::varint::put_varint;
use crate::codec::{Malformed, Reader};
use crate::limits::{INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::types::{EntryId, RegionId};
use bytes::Bytes;

/// The net effect of one segment's operations on a region.
///
/// Applied in the order of the fields to the state before the segment, or to any state taken inside it, it gives the
/// state behind it; so applying it twice is applying it once. A checkpoint may therefore be taken at any moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RegionDelta {
    /// The region.
    pub(crate) region: RegionId,
    /// The region was destroyed: start from nothing.
    pub(crate) wiped: bool,
    /// Whether the region exists behind the segment.
    pub(crate) exists: bool,
    /// The log was emptied behind this base, after the wipe if there was one.
    pub(crate) reset: Option<EntryId>,
    /// Entries at this index and above that lie in earlier segments, if any do, are gone.
    pub(crate) truncate_from: Option<u64>,
    /// Entries at this index and below are gone, also those of `range`.
    pub(crate) compact: Option<EntryId>,
    /// The hard state, when it was set.
    pub(crate) hard_state: Option<Bytes>,
    /// The last value of each key that was set, `None` when it was deleted; sorted by key.
    pub(crate) kv: Vec<(Bytes, Option<Bytes>)>,
    /// The entries that the segment holds for the region.
    pub(crate) range: Option<RangeSummary>,
}

/// The entries of one segment that a region still had at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RangeSummary {
    /// The index of the first.
    pub(crate) first: u64,
    /// How many, at least one.
    pub(crate) count: u32,
    /// The term of the first.
    pub(crate) first_term: u64,
    /// The term of the last.
    pub(crate) last_term: u64,
    /// Their payloads' length.
    pub(crate) bytes: u64,
}

/// Appends the deltas, which must be sorted by region.
pub(super) fn put_deltas(out: &mut Vec<u8>, deltas: &[RegionDelta]) {
    put_varint(out, deltas.len() as u64);
    for delta in deltas {
        delta.put(out);
    }
}

/// Reads what [`put_deltas`] wrote. The bytes are copied, so that the footer's map is not held by them.
pub(super) fn read_deltas(bytes: &[u8]) -> Result<Vec<RegionDelta>, Malformed> {
    let mut r = Reader::new(bytes);
    let count = r.count(DELTA_LEN_MIN)?;
    // A delta is far larger in memory than on disk, so the bytes left do not justify reserving for all.
    let mut deltas: Vec<RegionDelta> = Vec::with_capacity(count.min(RESERVE_MAX));
    for _ in 0..count {
        let delta = RegionDelta::read(&mut r)?;
        if deltas.last().is_some_and(|before| before.region >= delta.region) {
            return Err(Malformed("the footer's deltas are not sorted by region"));
        }
        deltas.push(delta);
    }
    r.finish()?;
    Ok(deltas)
}

impl RegionDelta {
    fn put(&self, out: &mut Vec<u8>) {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        put_varint(out, self.region.0);
        out.push(
            flag(WIPED, self.wiped)
                | flag(EXISTS, self.exists)
                | flag(HAS_RESET, self.reset.is_some())
                | flag(HAS_TRUNCATE, self.truncate_from.is_some())
                | flag(HAS_COMPACT, self.compact.is_some())
                | flag(HAS_HARD_STATE, self.hard_state.is_some())
                | flag(HAS_RANGE, self.range.is_some()),
        );
        if let Some(id) = self.reset {
            put_id(out, id);
        }
        if let Some(index) = self.truncate_from {
            put_varint(out, index);
        }
        if let Some(id) = self.compact {
            put_id(out, id);
        }
        if let Some(state) = &self.hard_state {
            put_varint(out, state.len() as u64);
            out.extend_from_slice(state);
        }
        put_varint(out, self.kv.len() as u64);
        for (key, value) in &self.kv {
            put_varint(out, key.len() as u64);
            out.extend_from_slice(key);
            // 0 is a deletion, so a length counts from 1.
            put_varint(out, value.as_ref().map_or(0, |v| v.len() as u64 + 1));
            out.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        if let Some(range) = self.range {
            put_varint(out, range.first);
            put_varint(out, u64::from(range.count));
            put_varint(out, range.first_term);
            put_varint(out, range.last_term);
            put_varint(out, range.bytes);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<RegionDelta, Malformed> {
        let region = RegionId(r.varint()?);
        let flags = r.u8()?;
        if flags & !(WIPED | EXISTS | HAS_RESET | HAS_TRUNCATE | HAS_COMPACT | HAS_HARD_STATE | HAS_RANGE)
            != 0
        {
            return Err(Malformed("a delta has flags that this release does not know"));
        }
        let has = |bit: u8| flags & bit != 0;
        Ok(RegionDelta {
            region,
            wiped: has(WIPED),
            exists: has(EXISTS),
            reset: has(HAS_RESET).then(|| read_id(r)).transpose()?,
            truncate_from: has(HAS_TRUNCATE).then(|| r.varint()).transpose()?,
            compact: has(HAS_COMPACT).then(|| read_id(r)).transpose()?,
            hard_state: has(HAS_HARD_STATE).then(|| read_bytes(r, VALUE_BYTES_MAX)).transpose()?,
            kv: read_kv(r)?,
            range: has(HAS_RANGE).then(|| read_range(r)).transpose()?,
        })
    }
}

const WIPED: u8 = 1;
const EXISTS: u8 = 2;
const HAS_RESET: u8 = 4;
const HAS_TRUNCATE: u8 = 8;
const HAS_COMPACT: u8 = 16;
const HAS_HARD_STATE: u8 = 32;
const HAS_RANGE: u8 = 64;

/// Region, flags, and the number of keys.
const DELTA_LEN_MIN: usize = 3;

const RESERVE_MAX: usize = 1024;

fn put_id(out: &mut Vec<u8>, id: EntryId) {
    put_varint(out, id.index);
    put_varint(out, id.term);
}

fn read_id(r: &mut Reader<'_>) -> Result<EntryId, Malformed> {
    let (index, term) = (r.varint()?, r.varint()?);
    if index > INDEX_MAX {
        return Err(Malformed("an index is beyond the highest"));
    }
    Ok(EntryId { term, index })
}

fn read_bytes(r: &mut Reader<'_>, len_max: usize) -> Result<Bytes, Malformed> {
    let len = r.varint_u32()? as usize;
    if len > len_max {
        return Err(Malformed("a key or value is longer than the limit"));
    }
    Ok(Bytes::copy_from_slice(r.bytes(len)?))
}

fn read_kv(r: &mut Reader<'_>) -> Result<Vec<(Bytes, Option<Bytes>)>, Malformed> {
    let count = r.count(2)?;
    let mut kv: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(count.min(RESERVE_MAX));
    for _ in 0..count {
        let key = read_bytes(r, KEY_BYTES_MAX)?;
        if kv.last().is_some_and(|(before, _)| *before >= key) {
            return Err(Malformed("the keys of a delta are not sorted"));
        }
        let value = match r.varint_u32()?.checked_sub(1) {
            None => None,
            Some(len) if len as usize > VALUE_BYTES_MAX => {
                return Err(Malformed("a key or value is longer than the limit"));
            }
            Some(len) => Some(Bytes::copy_from_slice(r.bytes(len as usize)?)),
        };
        kv.push((key, value));
    }
    Ok(kv)
}

fn read_range(r: &mut Reader<'_>) -> Result<RangeSummary, Malformed> {
    let range = RangeSummary {
        first: r.varint()?,
        count: r.varint_u32()?,
        first_term: r.varint()?,
        last_term: r.varint()?,
        bytes: r.varint()?,
    };
    let last = u64::from(range.count).checked_sub(1).and_then(|n| range.first.checked_add(n));
    if last.is_none_or(|last| last > INDEX_MAX) {
        return Err(Malformed("a range is empty or goes beyond the highest index"));
    }
    Ok(range)
}
