//! What one segment did to one region.

use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::limits::{INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::types::{EntryId, RegionId};
use bytes::Bytes;

/// The net effect of one segment's operations on a region.
///
/// Applied in the order of the fields to the state before the segment, or to any state taken inside
/// it, it gives the state after it; so applying it twice is applying it once. A checkpoint may
/// therefore be taken at any moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RegionDelta {
    /// The region.
    pub(crate) region: RegionId,
    /// The region was destroyed: start from nothing.
    pub(crate) wiped: bool,
    /// Whether the region exists after the segment.
    pub(crate) exists: bool,
    /// The end offset of the first batch, after the wipe if there was one, that the region exists by if it
    /// did not before. `None` in footers before version 3.
    pub(crate) born: Option<u32>,
    /// The log was forgotten, with its base, after the wipe and before the reset if there was one.
    pub(crate) forgotten: bool,
    /// The log was cleared, to go on after this base, after the wipe if there was one.
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
pub(super) fn put_deltas(out: &mut Vec<u8>, deltas: impl ExactSizeIterator<Item = RegionDelta>) {
    put_varint(out, deltas.len() as u64);
    deltas.for_each(|delta| delta.put(out));
}

/// Hands out what [`put_deltas`] wrote, one by one: in memory a delta is far larger than on disk. Its
/// bytes are copied, so that the footer's map is not held by them. Where something is malformed, those
/// before it were handed out already.
pub(super) fn read_deltas<E: From<Malformed>>(
    bytes: &[u8],
    mut each: impl FnMut(RegionDelta) -> Result<(), E>,
) -> Result<(), E> {
    let mut r = Cursor::new(bytes);
    let mut before = None;
    for _ in 0..r.count(DELTA_LEN_MIN)? {
        let delta = RegionDelta::read(&mut r)?;
        if before.is_some_and(|before| before >= delta.region) {
            return Err(Malformed("the footer's deltas are not sorted by region").into());
        }
        before = Some(delta.region);
        each(delta)?;
    }
    Ok(r.finish()?)
}

impl RegionDelta {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.region.0);
        let flag = |bit: u32, set: bool| if set { bit } else { 0 };
        let flags = flag(WIPED, self.wiped)
            | flag(EXISTS, self.exists)
            | flag(HAS_RESET, self.reset.is_some())
            | flag(HAS_TRUNCATE, self.truncate_from.is_some())
            | flag(HAS_COMPACT, self.compact.is_some())
            | flag(HAS_HARD_STATE, self.hard_state.is_some())
            | flag(HAS_RANGE, self.range.is_some())
            | flag(HAS_BIRTH, self.born.is_some())
            | flag(FORGOTTEN, self.forgotten);
        put_varint(out, u64::from(flags));
        if let Some(offset) = self.born {
            put_varint(out, u64::from(offset));
        }
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

    fn read(r: &mut Cursor<'_>) -> Result<RegionDelta, Malformed> {
        let region = RegionId(r.varint()?);
        let flags = r.varint_u32()?;
        if flags >= 2 * FORGOTTEN {
            return Err(Malformed("a delta has flags that this release does not know"));
        }
        let has = |bit: u32| flags & bit != 0;
        Ok(RegionDelta {
            region,
            wiped: has(WIPED),
            exists: has(EXISTS),
            born: has(HAS_BIRTH).then(|| r.varint_u32()).transpose()?,
            forgotten: has(FORGOTTEN),
            reset: has(HAS_RESET).then(|| read_id(r)).transpose()?,
            truncate_from: has(HAS_TRUNCATE).then(|| r.varint()).transpose()?,
            compact: has(HAS_COMPACT).then(|| read_id(r)).transpose()?,
            hard_state: has(HAS_HARD_STATE).then(|| read_bytes(r, VALUE_BYTES_MAX)).transpose()?,
            kv: read_kv(r)?,
            range: has(HAS_RANGE).then(|| read_range(r)).transpose()?,
        })
    }
}

const WIPED: u32 = 1;
const EXISTS: u32 = 2;
const HAS_RESET: u32 = 4;
const HAS_TRUNCATE: u32 = 8;
const HAS_COMPACT: u32 = 16;
const HAS_HARD_STATE: u32 = 32;
const HAS_RANGE: u32 = 64;
const HAS_BIRTH: u32 = 128;
const FORGOTTEN: u32 = 256;

/// Region, flags, and the number of keys.
const DELTA_LEN_MIN: usize = 3;

const RESERVE_MAX: usize = 1024;

fn put_id(out: &mut Vec<u8>, id: EntryId) {
    put_varint(out, id.index);
    put_varint(out, id.term);
}

fn read_id(r: &mut Cursor<'_>) -> Result<EntryId, Malformed> {
    let (index, term) = (r.varint()?, r.varint()?);
    if index > INDEX_MAX {
        return Err(Malformed("an index is beyond the highest"));
    }
    Ok(EntryId { term, index })
}

fn read_bytes(r: &mut Cursor<'_>, len_max: usize) -> Result<Bytes, Malformed> {
    let len = r.varint_u32()? as usize;
    if len > len_max {
        return Err(Malformed("a key or value is longer than the limit"));
    }
    Ok(Bytes::copy_from_slice(r.bytes(len)?))
}

fn read_kv(r: &mut Cursor<'_>) -> Result<Vec<(Bytes, Option<Bytes>)>, Malformed> {
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

fn read_range(r: &mut Cursor<'_>) -> Result<RangeSummary, Malformed> {
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
