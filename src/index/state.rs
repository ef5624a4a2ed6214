//! The state of one region, and the operations on it.
//!
//! Live writes apply operations one by one; recovery applies the net effect of a segment ([`RegionDelta`]).
//! Both end in the same few primitives here, so they cannot drift apart.

use super::damage::Damage;
use super::extent::Extent;
use super::extents::{Extents, Moved};
use super::stretch::Stretch;
use super::value::Value;
use crate::codec::Malformed;
use crate::format::batch::{Loc, TermRun};
use crate::format::checkpoint::{ExtentRecord, RegionRecord};
use crate::format::footer::RegionDelta;
use crate::limits::SEGMENT_BYTES_MAX;
use crate::planted::{Bug, planted};
use crate::report::Health;
use crate::segment::{Segment, Unreadable};
use crate::types::{EntryId, KeyOrder, LogState, Lsn, RegionId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Everything known of one region.
#[derive(Debug, Default)]
pub(crate) struct RegionState {
    /// False before the first operation and after a destroy.
    pub(crate) exists: bool,
    /// See [`RegionState::incarnation`]; zero for none.
    incarnation: Lsn,
    /// The last compacted entry, or the base of a reset.
    pub(crate) base: Option<EntryId>,
    /// Ascending, contiguous, none empty.
    pub(crate) extents: Extents,
    pub(crate) hard_state: Option<Value>,
    /// Few regions have any.
    #[allow(clippy::box_collection, reason = "an empty map is 24 bytes, and there are a million regions")]
    kv: Option<Box<BTreeMap<Bytes, Bytes>>>,
    /// Position one past the latest batch in the region.
    pub(crate) touched: Lsn,
    /// The latest change of `base`, as long as it may not be on the device.
    pub(crate) rebased: Option<Box<Rebased>>,
    /// How often entries were discarded since the engine opened; a compaction discards none. Wraps around.
    pub(crate) cuts: u32,
    /// What is known to be damaged; almost always nothing.
    pub(crate) damage: Option<Box<Damage>>,
}

/// No batch ends here.
const MADE_BEFORE_FORMAT_3: Lsn = Lsn::new(0, 1);

/// A change of the base by a batch that was accepted.
#[derive(Debug)]
pub(crate) struct Rebased {
    /// The end of the batch.
    at: Lsn,
    /// The durable index as it was known then.
    durable: u64,
}

/// What can be said of the term at an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TermAt {
    Term(u64),
    Compacted,
    Unavailable,
}

impl RegionState {
    /// The end of the batch that made the region, which tells one that was destroyed from one that came back.
    /// `None` while it does not exist, and when it came to be before format 3.
    pub(crate) fn incarnation(&self) -> Option<Lsn> {
        Some(self.incarnation).filter(|made| *made > Lsn::ZERO)
    }

    /// The incarnation, which is [`Lsn::ZERO`] only of a region that does not exist: one that came to be
    /// before format 3 has the same as all others of those, and each that takes its place has one of its own.
    pub(crate) fn identity(&self) -> Lsn {
        if self.exists { self.incarnation.max(MADE_BEFORE_FORMAT_3) } else { Lsn::ZERO }
    }

    pub(crate) fn set_incarnation(&mut self, made: Option<Lsn>) {
        self.incarnation = made.unwrap_or(Lsn::ZERO);
    }

    /// Its metadata.
    pub(crate) fn kv(&self) -> &BTreeMap<Bytes, Bytes> {
        static EMPTY: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        self.kv.as_deref().unwrap_or(&EMPTY)
    }

    /// The key-values whose keys start with `prefix`, sorted by key.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.kv()
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(k, _)| k.starts_with(prefix))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// The first key-values in `bounds`, in this order, at most so many.
    pub(crate) fn key_values(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        order: KeyOrder,
        count: usize,
    ) -> Vec<(Bytes, Bytes)> {
        let is_empty = match bounds {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
                from >= to
            }
            _ => false,
        };
        if is_empty {
            // The map would panic.
            return Vec::new();
        }
        let range = self.kv().range::<[u8], _>(bounds);
        let clone = |(k, v): (&Bytes, &Bytes)| (k.clone(), v.clone());
        match order {
            KeyOrder::Ascending => range.take(count).map(clone).collect(),
            KeyOrder::Descending => range.rev().take(count).map(clone).collect(),
        }
    }

    /// A copy of the hard state.
    pub(crate) fn hard_state_bytes(&self) -> Option<Bytes> {
        self.hard_state.as_ref().map(|value| Bytes::copy_from_slice(value.as_slice()))
    }

    /// What is known to be wrong, as callers get it. Looks nothing up.
    pub(crate) fn health(&self) -> Health {
        self.damage.as_ref().map_or(Health::Healthy, |damage| damage.health())
    }

    /// The first live index, if there is an entry.
    pub(crate) fn first(&self) -> Option<u64> {
        self.extents.first().map(|e| e.first())
    }

    /// The last live index, if there is an entry.
    pub(crate) fn last(&self) -> Option<u64> {
        self.extents.last().map(|e| e.last())
    }

    /// The index that the next entry gets where none is said.
    pub(crate) fn next(&self) -> u64 {
        self.last().or(self.base.map(|b| b.index)).map_or(1, |last| last + 1)
    }

    /// The log as it stands. `durable` is the position known to be on the device.
    pub(crate) fn log_state(&self, region: RegionId, durable: Lsn) -> LogState {
        let base_index = self.base.map_or(0, |b| b.index);
        let (first, last, last_term) = match (self.extents.first(), self.extents.last()) {
            (Some(a), Some(z)) => (a.first(), z.last(), z.term(region, z.last()).ok()),
            _ => (base_index + 1, base_index, Some(self.base.map_or(0, |b| b.term))),
        };
        LogState { base: self.base, first, last, last_term, durable: self.durable_index(durable) }
    }

    /// The last entry of those whose batches lie below `durable`; where there is none, the base, if
    /// it is on the device.
    fn durable_index(&self, durable: Lsn) -> u64 {
        let base = self.base.map_or(0, |b| b.index);
        let pending = self.rebased.as_ref().filter(|r| r.at > durable && !planted(Bug::BaseDurableAtOnce));
        let or_base = pending.map_or(base, |r| r.durable.min(base));
        self.last_durable(durable).unwrap_or(or_base)
    }

    fn last_durable(&self, durable: Lsn) -> Option<u64> {
        for extent in self.extents.iter().rev() {
            let id = extent.segment_id();
            if !extent.is_unsealed() || id < durable.segment() {
                return Some(extent.last());
            }
            if id == durable.segment()
                && let Some(last) = extent.last_below(durable.offset())
            {
                return Some(last);
            }
        }
        None
    }

    /// The extent that holds `index`.
    pub(crate) fn extent(&self, index: u64) -> Option<Stretch<'_>> {
        self.extents.find(index)
    }

    /// The term at `index`, without touching any payload. The compaction point answers forever.
    pub(crate) fn term(&self, region: RegionId, index: u64) -> Result<TermAt, Unreadable> {
        if let Some(extent) = self.extent(index) {
            return extent.term(region, index).map(TermAt::Term);
        }
        Ok(match (self.base, self.first()) {
            (Some(base), _) if base.index == index => TermAt::Term(base.term),
            (Some(base), _) if index < base.index => TermAt::Compacted,
            // Before the first entry of a log that starts at 1 or has not started: the index Raft calls 0.
            (None, None | Some(1)) if index == 0 => TermAt::Term(0),
            (None, Some(first)) if index < first => TermAt::Compacted,
            _ => TermAt::Unavailable,
        })
    }

    // ---- primitives ---------------------------------------------------------------------------------------

    /// Appends entries of an unsealed segment; what stands at their indexes and after goes.
    pub(crate) fn append(&mut self, first: u64, runs: &[TermRun], locs: &[Loc], segment: &Arc<Segment>) {
        self.exists = true;
        if locs.is_empty() {
            return;
        }
        self.truncate_from(first);
        self.extents.append(first, runs, locs, segment);
    }

    /// Discards the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        self.exists = true;
        if self.last().is_some_and(|last| index <= last) {
            self.cuts = self.cuts.wrapping_add(1);
            self.extents.truncate_from(index);
        }
        self.trim_damage(|from, to| (from < index).then(|| (from, to.min(index.saturating_sub(1)))));
    }

    /// Changes the base, by a batch that ends at `at`. Until that is on the device, so is no more
    /// than was known to be before.
    pub(crate) fn rebase(&mut self, at: Lsn, durable: Lsn, change: impl FnOnce(&mut RegionState)) {
        let durable = self.durable_index(durable);
        change(self);
        let rebased = Rebased { at, durable };
        match &mut self.rebased {
            Some(before) => **before = rebased,
            None => self.rebased = Some(Box::new(rebased)),
        }
    }

    /// Drops the entries through `id`, which becomes the base. Never moves the base backwards.
    pub(crate) fn compact_through(&mut self, id: EntryId) {
        self.exists = true;
        if self.base.is_some_and(|b| b.index >= id.index) {
            return;
        }
        self.base = Some(id);
        self.drop_through(id.index);
    }

    fn drop_through(&mut self, index: u64) {
        self.extents.drop_through(index);
        self.trim_damage(|from, to| (to > index).then(|| (from.max(index + 1), to)));
    }

    /// Clears the log, which goes on after `base`.
    pub(crate) fn reset(&mut self, base: EntryId) {
        self.clear_log();
        self.exists = true;
        self.base = Some(base);
    }

    /// Clears the log, with its base: as before the first entry. What else the region has stays.
    pub(crate) fn forget_log(&mut self) {
        self.clear_log();
        self.exists = true;
        self.base = None;
    }

    fn clear_log(&mut self) {
        self.cuts = self.cuts.wrapping_add(1);
        self.extents = Extents::default();
        self.trim_damage(|_, _| None);
    }

    pub(crate) fn set_hard_state(&mut self, value: &[u8]) {
        self.exists = true;
        match &mut self.hard_state {
            Some(old) => old.set(value),
            none => *none = Some(value.into()),
        }
        self.edit_damage(|damage| damage.hard_state_lost = false);
    }

    /// The hard state that is known may not be the newest that was acknowledged. Replay of anything before
    /// `as_of` would set the old one again, as if it were good: that is in this state already.
    pub(crate) fn lose_hard_state(&mut self, as_of: Lsn) {
        self.damage.get_or_insert_default().hard_state_lost = true;
        self.touched = self.touched.max(as_of);
    }

    pub(crate) fn put(&mut self, key: &Bytes, value: &Bytes) {
        self.exists = true;
        self.kv.get_or_insert_default().insert(key.clone(), value.clone());
    }

    pub(crate) fn delete(&mut self, key: &Bytes) {
        self.exists = true;
        if let Some(kv) = &mut self.kv {
            kv.remove(key);
            if kv.is_empty() {
                self.kv = None;
            }
        }
    }

    /// Forgets everything. The value stays as a tombstone until a checkpoint no longer needs it.
    pub(crate) fn destroy(&mut self) {
        self.clear_log();
        *self = RegionState { touched: self.touched, cuts: self.cuts, ..RegionState::default() };
    }

    /// The entry at `index` could not be read; it is not fenced. Whether that is news.
    pub(crate) fn note_unread(&mut self, index: u64) -> bool {
        let known = self.damage.as_ref().is_some_and(|d| d.unread.covers(index) || d.covers(index));
        if known || self.extent(index).is_none() {
            return false;
        }
        self.damage.get_or_insert_default().unread.insert(index, index);
        true
    }

    /// The entry at `index` is known to be damaged.
    pub(crate) fn note_damage(&mut self, index: u64) {
        if self.extent(index).is_none() || self.damage.as_ref().is_some_and(|d| d.covers(index)) {
            return;
        }
        self.damage.get_or_insert_default().proven.insert(index, index);
    }

    /// The entry at `index` cannot be read, and nothing says whether it was acknowledged. Replay of anything
    /// before `as_of` would mistake it for one that was: that is in this state already.
    pub(crate) fn suspect(&mut self, index: u64, as_of: Lsn) {
        if self.extent(index).is_some() {
            self.damage.get_or_insert_default().suspect.insert(index, index);
            self.touched = self.touched.max(as_of);
        }
    }

    /// The entries at these indexes are right, or were healed.
    pub(crate) fn forget_damage(&mut self, indexes: Range<u64>) {
        self.edit_damage(|damage| damage.remove(&indexes));
    }

    fn trim_damage(&mut self, keep: impl Fn(u64, u64) -> Option<(u64, u64)>) {
        self.edit_damage(|damage| damage.trim(keep));
    }

    fn edit_damage(&mut self, edit: impl FnOnce(&mut Damage)) {
        if let Some(damage) = &mut self.damage {
            edit(damage);
            if damage.is_none() {
                self.damage = None;
            }
        }
    }

    // ---- recovery -----------------------------------------------------------------------------------------

    /// Applies the net effect of one sealed segment. Applying it to a state taken inside the segment is fine.
    pub(crate) fn apply_delta(&mut self, delta: &RegionDelta, segment: &Arc<Segment>) {
        if delta.wiped && !planted(Bug::DestroyLost) {
            self.destroy();
        }
        if let Some(offset) = delta.born.filter(|_| !self.exists) {
            self.incarnation = Lsn::new(segment.id, offset);
        }
        if delta.forgotten {
            self.forget_log();
        }
        if let Some(base) = delta.reset {
            self.reset(base);
        }
        if let Some(index) = delta.truncate_from.filter(|_| !planted(Bug::TruncationLost)) {
            self.truncate_from(index);
        }
        if let Some(range) = &delta.range {
            self.truncate_from(range.first);
            let record = ExtentRecord {
                segment: segment.id,
                first: range.first,
                count: u64::from(range.count),
                first_term: Some(range.first_term),
                last_term: Some(range.last_term),
                bytes: range.bytes,
            };
            self.extents.push(Extent::sealed(&record, segment));
        }
        if let Some(id) = delta.compact.filter(|_| !planted(Bug::CompactionLost)) {
            self.compact_through(id);
        }
        // The state may have been taken after the compaction, and the segment still lists what it dropped.
        if let Some(base) = self.base {
            self.drop_through(base.index);
        }
        if let Some(value) = &delta.hard_state {
            self.set_hard_state(value);
        }
        for (key, value) in &delta.kv {
            match value {
                Some(value) => self.put(key, value),
                None if planted(Bug::DeletionLost) => {}
                None => self.delete(key),
            }
        }
        self.exists = delta.exists;
        if !delta.exists {
            self.incarnation = Lsn::ZERO;
        }
    }

    /// After a segment of a log that has gaps: where entries between are gone, so is what stood before them.
    /// The base is all that is known then, and of that no term.
    pub(crate) fn close_gap(&mut self) {
        let mut newest = self.extents.iter().rev();
        let Some(first) = newest.next().map(|e| e.first()) else { return };
        let before = newest.next().map(|e| e.last());
        drop(newest);
        if before.or(self.base.map(|base| base.index)).unwrap_or(0).saturating_add(1) < first {
            self.base = Some(EntryId::new(0, first - 1));
            self.drop_through(first - 1);
        }
    }

    /// No entry is answered any more: each may have been taken back since. Where the log ended is
    /// kept, as a base without a term.
    pub(crate) fn give_up(&mut self) {
        if let Some(last) = self.last().filter(|_| !planted(Bug::GapNotFenced)) {
            self.reset(EntryId::new(0, last));
        }
    }

    /// Before a segment of a log that has gaps: a base without a term yields to entries that replaced it.
    pub(crate) fn yield_base(&mut self, delta: &RegionDelta) {
        let first = delta.range.as_ref().map_or(u64::MAX, |range| range.first);
        if self.base.is_some_and(|base| base.term == 0 && first <= base.index) {
            self.base =
                first.checked_sub(1).filter(|before| *before > 0).map(|before| EntryId::new(0, before));
        }
    }

    /// Whether the log is one: what checkpoints and footers say of it is true to their checksums, but they
    /// may belong to different histories, or to somebody who forges files. Everything else here relies on it.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let mut next = None;
        for e in self.extents.iter() {
            if next.is_some_and(|next| next != e.first()) {
                return Err(Malformed("its entries do not follow one another"));
            }
            if self.base.is_some_and(|base| e.first() <= base.index) {
                return Err(Malformed("it has entries that were compacted"));
            }
            let segment = e.segment();
            let room = if segment.is_hole() { SEGMENT_BYTES_MAX } else { segment.len };
            // An entry takes some bytes of its batch's description, and LZ4 gains at most 255 to 1.
            if e.count() > room || e.bytes() > room.saturating_mul(256) {
                return Err(Malformed("it has more in a segment than that can hold"));
            }
            next = Some(e.last() + 1);
        }
        Ok(())
    }

    /// Damage that the next open would not find by itself. That of a segment that cannot be read it would,
    /// and by then the file may be back.
    fn lasting_damage(&self) -> Damage {
        let mut damage = self.damage.as_deref().cloned().unwrap_or_default();
        let lost = |a: u64, b: u64| {
            self.extents.iter().any(|e| e.segment().is_hole() && e.first() <= a && b <= e.last())
        };
        damage.trim(|a, b| if lost(a, b) { None } else { Some((a, b)) });
        damage
    }

    /// As a checkpoint keeps it.
    pub(crate) fn record(&self, region: RegionId) -> RegionRecord {
        let damage = self.lasting_damage();
        RegionRecord {
            region,
            as_of: self.touched.segment(),
            exists: self.exists,
            incarnation: self.incarnation(),
            base: self.base,
            hard_state: self.hard_state.as_ref().map(|value| Bytes::copy_from_slice(value.as_slice())),
            kv: self.kv().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            extents: self.extents.iter().map(|e| e.record()).collect(),
            damage: damage.proven.into_vec(),
            suspect: damage.suspect.into_vec(),
            hard_state_lost: self.damage.as_ref().is_some_and(|d| d.hard_state_lost),
        }
    }

    // ---- where things are ---------------------------------------------------------------------------------

    /// Entries were copied to a cold segment: those that still lie in one of the sources are read from there
    /// now.
    pub(super) fn relocate(&mut self, moved: &Moved<'_>) {
        // Only what was read and right is ever copied, or came from a replica.
        for indexes in self.extents.relocate(moved) {
            self.forget_damage(indexes);
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let kv = self.kv().iter().map(|(k, v)| k.len() + v.len() + 2 * size_of::<Bytes>()).sum::<usize>();
        self.extents.heap_bytes() + self.hard_state.as_ref().map_or(0, Value::heap_bytes) + kv
    }
}
