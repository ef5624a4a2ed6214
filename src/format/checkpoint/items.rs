//! One segment or region of a checkpoint to bytes and back.

use super::{ExtentRecord, RegionRecord, RegionView, SegmentRecord};
use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::format::file_header::SegmentKind;
use crate::limits::{INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::types::{EntryId, Lsn, RegionId};
#[cfg(any(test, feature = "internals"))]
use bytes::Bytes;

impl SegmentRecord {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.id));
        put_varint(out, u64::from(self.kind.to_u32()));
        put_varint(out, self.salt);
        put_varint(out, u64::from(self.sealed_end));
    }

    pub(super) fn read(r: &mut Cursor<'_>) -> Result<SegmentRecord, Malformed> {
        let (id, kind) = (r.varint_u32()?, SegmentKind::from_u32(r.varint_u32()?)?);
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
                | flag(HAS_SUSPECT, !self.suspect.is_empty())
                | flag(HAS_INCARNATION, self.incarnation.is_some()),
        );
        if let Some(incarnation) = self.incarnation {
            put_varint(out, incarnation.to_u64());
        }
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
            put_term(out, extent.first_term);
            put_term(out, extent.last_term);
            put_varint(out, extent.bytes);
        }
        put_ranges(out, &self.damage);
        if !self.suspect.is_empty() {
            put_ranges(out, &self.suspect);
        }
    }

    /// The rules that hold between fields: indexes are numbers that can be, extents rise and do not overlap,
    /// and neither they nor damaged ranges are empty.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        if self.base.is_some_and(|base| base.index > INDEX_MAX) {
            return Err(Malformed("an index is beyond the highest"));
        }
        let mut free_from = 0;
        self.extents.iter().try_for_each(|extent| check_extent(extent, &mut free_from))?;
        self.damage.iter().chain(&self.suspect).try_for_each(|range| check_range(*range))
    }
}

impl<'a> RegionView<'a> {
    pub(super) fn read(r: &mut Cursor<'a>) -> Result<RegionView<'a>, Malformed> {
        let region = RegionId(r.varint()?);
        let as_of = r.varint_u32()?;
        let flags = r.u8()?;
        if flags >= 2 * HAS_INCARNATION {
            return Err(Malformed("a region has flags that this release does not know"));
        }
        let has = |bit: u8| flags & bit != 0;
        let incarnation = has(HAS_INCARNATION).then(|| r.varint()).transpose()?.map(Lsn::from_u64);
        let base = match has(HAS_BASE) {
            true => {
                let (index, term) = (r.varint()?, r.varint()?);
                Some(EntryId { term, index })
            }
            false => None,
        };
        if base.is_some_and(|base| base.index > INDEX_MAX) {
            return Err(Malformed("an index is beyond the highest"));
        }
        let hard_state = has(HAS_HARD_STATE).then(|| read_bytes(r, VALUE_BYTES_MAX)).transpose()?;
        let kv = Items::read(r, 2, read_pair, |_| Ok(()))?;
        let mut free_from = 0;
        let extents = Items::read(r, 6, read_extent, |extent| check_extent(&extent, &mut free_from))?;
        let damage = Items::read(r, 2, read_range, check_range)?;
        let suspect = match has(HAS_SUSPECT) {
            true => Items::read(r, 2, read_range, check_range)?,
            false => Items::none(read_range),
        };
        if has(HAS_SUSPECT) && suspect.len() == 0 {
            return Err(Malformed("a region is suspect, and nothing of it is"));
        }
        let (exists, hard_state_lost) = (has(EXISTS), has(HARD_STATE_LOST));
        Ok(RegionView {
            region,
            as_of,
            exists,
            incarnation,
            base,
            hard_state,
            kv,
            extents,
            damage,
            suspect,
            hard_state_lost,
        })
    }

    /// A copy that owns its bytes.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn to_record(&self) -> RegionRecord {
        let owned = |(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        RegionRecord {
            region: self.region,
            as_of: self.as_of,
            exists: self.exists,
            incarnation: self.incarnation,
            base: self.base,
            hard_state: self.hard_state.map(Bytes::copy_from_slice),
            kv: self.kv.clone().map(owned).collect(),
            extents: self.extents.clone().collect(),
            damage: self.damage.clone().collect(),
            suspect: self.suspect.clone().collect(),
            hard_state_lost: self.hard_state_lost,
        }
    }
}

/// Indexes are numbers that can be, and extents rise, do not overlap, and are not empty.
fn check_extent(extent: &ExtentRecord, free_from: &mut u64) -> Result<(), Malformed> {
    let end = extent.first.checked_add(extent.count).filter(|_| extent.count > 0);
    let end = end.ok_or(Malformed("an extent is empty or goes beyond the highest index"))?;
    if extent.first < *free_from {
        return Err(Malformed("the extents of a region overlap, or are not sorted"));
    }
    *free_from = end;
    Ok(())
}

fn check_range((first, last): (u64, u64)) -> Result<(), Malformed> {
    if first > last || last > INDEX_MAX {
        return Err(Malformed("a damaged range is empty or goes beyond the highest index"));
    }
    Ok(())
}

type ReadItem<'a, T> = fn(&mut Cursor<'a>) -> Result<T, Malformed>;

/// A list in the checkpoint, which was read through once: reading it again gives the same items.
#[derive(Clone, Debug)]
pub(crate) struct Items<'a, T> {
    left: usize,
    rest: Cursor<'a>,
    item: ReadItem<'a, T>,
}

impl<'a, T> Items<'a, T> {
    fn none(item: ReadItem<'a, T>) -> Items<'a, T> {
        Items { left: 0, rest: Cursor::new(&[]), item }
    }

    fn read(
        r: &mut Cursor<'a>,
        item_len_min: usize,
        item: ReadItem<'a, T>,
        mut check: impl FnMut(T) -> Result<(), Malformed>,
    ) -> Result<Items<'a, T>, Malformed> {
        let left = r.count(item_len_min)?;
        if left == 0 {
            return Ok(Items::none(item));
        }
        let rest = r.clone();
        for _ in 0..left {
            check(item(r)?)?;
        }
        Ok(Items { left, rest, item })
    }
}

impl<T> Iterator for Items<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        (self.item)(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Items<'_, T> {}

const EXISTS: u8 = 1;
const HAS_BASE: u8 = 2;
const HAS_HARD_STATE: u8 = 4;
const HARD_STATE_LOST: u8 = 8;
const HAS_SUSPECT: u8 = 16;
const HAS_INCARNATION: u8 = 32;

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

fn read_pair<'a>(r: &mut Cursor<'a>) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    Ok((read_bytes(r, KEY_BYTES_MAX)?, read_bytes(r, VALUE_BYTES_MAX)?))
}

/// Stands for a term that only the footer knows; beyond the highest.
const TERM_UNKNOWN: u64 = u64::MAX;

fn put_term(out: &mut Vec<u8>, term: Option<u64>) {
    put_varint(out, term.unwrap_or(TERM_UNKNOWN));
}

fn read_term(r: &mut Cursor<'_>) -> Result<Option<u64>, Malformed> {
    Ok(Some(r.varint()?).filter(|term| *term != TERM_UNKNOWN))
}

fn read_extent(r: &mut Cursor<'_>) -> Result<ExtentRecord, Malformed> {
    Ok(ExtentRecord {
        segment: r.varint_u32()?,
        first: r.varint()?,
        count: r.varint()?,
        first_term: read_term(r)?,
        last_term: read_term(r)?,
        bytes: r.varint()?,
    })
}

fn read_range(r: &mut Cursor<'_>) -> Result<(u64, u64), Malformed> {
    Ok((r.varint()?, r.varint()?))
}

fn read_bytes<'a>(r: &mut Cursor<'a>, len_max: usize) -> Result<&'a [u8], Malformed> {
    let len = r.varint_u32()? as usize;
    if len > len_max {
        return Err(Malformed("a key or value is longer than the limit"));
    }
    r.bytes(len)
}
