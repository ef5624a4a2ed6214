//! What a batch does to one region.

use super::WriteBatch;
use super::memory::VALUES_BYTES;
use crate::codec::checksum::entry_checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Committed, EntryMeta, Op, Section, TermRun};
use crate::index::compaction_term;
use crate::limits::{
    BATCH_BYTES_MAX, DESC_BYTES_MAX, ENTRY_BYTES_MAX, INDEX_MAX, KEY_BYTES_MAX, TERM_MAX, VALUE_BYTES_MAX,
};
use crate::types::{EntryId, EntryRef, RegionId};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The operations on one region, added to a [`WriteBatch`]. Nothing is written before
/// [`Engine::write`](crate::Engine::write), and a refusal there leaves no trace.
///
/// What a crash leaves of them is a matter of the batch: all operations of all regions in it, or none. None
/// has a durability of its own.
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut batch = engine.batch();
/// let mut region = batch.region(RegionId(7));
/// region.append((1..=5).map(|index| (EntryId::new(1, index), &b"old"[..])))?;
/// // An entry at an index that exists discards what stood there and after it.
/// region.append_with(EntryId::new(2, 4), |out| out.extend_from_slice(b"of a new leader"))?;
/// region.compact_through(2)?;
/// engine.write(batch, Durability::Synced)?;
///
/// let region = engine.region(RegionId(7));
/// assert_eq!((region.first_index(), region.last_index(), region.term(4)?), (3, 4, 2));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RegionBatch<'a> {
    pub(in crate::engine) batch: &'a mut WriteBatch,
    pub(in crate::engine) region: RegionId,
}

impl RegionBatch<'_> {
    /// Appends entries with consecutive indexes and terms that never fall.
    ///
    /// The first may stand at an index that exists already: the entries from there on are discarded then
    /// (after the listeners' [`before_rollback`](crate::EventListener::before_rollback)). It may not leave
    /// a gap after the last entry, nor lie at or below the compaction point; a region without either takes
    /// any first index, 0 included.
    ///
    /// # Errors
    /// `InvalidArgument` when indexes are not consecutive, `TermRegression` when a term falls, `TooLarge`
    /// beyond [`ENTRY_BYTES_MAX`] or [`BATCH_BYTES_MAX`]. The batch is then as it was before the call.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, EntryRef, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"a"[..]), (EntryId::new(1, 2), b"b")])?;
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // Another leader has something else at 2.
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([EntryRef { id: EntryId::new(2, 2), payload: b"B" }])?;
    /// engine.write(batch, Durability::Synced)?;
    /// assert_eq!(engine.region(RegionId(7)).entry(2)?.payload, "B");
    /// # Ok(()) }
    /// ```
    pub fn append<'e, I>(&mut self, entries: I) -> Result<&mut Self>
    where
        I: IntoIterator,
        I::Item: Into<EntryRef<'e>>,
    {
        let undo = self.batch.mark();
        let mut previous: Option<u64> = None;
        for entry in entries {
            let entry: EntryRef<'e> = entry.into();
            let pushed = match previous.replace(entry.id.index) {
                Some(p) if p.checked_add(1) != Some(entry.id.index) => Err(Error::invalid(format!(
                    "append refused: entry {} follows entry {p}; indexes of one call must be consecutive",
                    entry.id.index
                ))
                .in_region(self.region)
                .naming(entry.id.index..=entry.id.index)),
                _ => self.push(entry.id, entry.payload.len(), |out| out.extend_from_slice(entry.payload)),
            };
            if let Err(e) = pushed {
                self.batch.rewind(undo);
                return Err(e);
            }
        }
        Ok(self)
    }

    /// Appends one entry whose bytes `fill` adds to the batch's own buffer: encodes in place,
    /// without a second copy.
    ///
    /// `fill` must only append: before its bytes stand those of the entries before. When it
    /// panics, the batch is as it was.
    ///
    /// # Errors
    /// As [`append`](Self::append). `InvalidArgument` also when `fill` is seen to have changed what stood
    /// there: then the bytes of other entries are lost, and writing the batch fails until it is
    /// [cleared](WriteBatch::clear).
    ///
    /// [`RegionBatch`] shows it.
    pub fn append_with(&mut self, id: EntryId, fill: impl FnOnce(&mut Vec<u8>)) -> Result<&mut Self> {
        let undo = self.batch.mark();
        let before = Ending::of(&self.batch.payload);
        let pushed = catch_unwind(AssertUnwindSafe(|| self.push(id, 0, fill)));
        let spoilt = !before.stands_in(&self.batch.payload);
        self.batch.is_spoilt |= spoilt;
        match pushed {
            Ok(Ok(())) if !spoilt => Ok(self),
            pushed => {
                self.batch.rewind(undo);
                match pushed {
                    Err(panic) => resume_unwind(panic),
                    Ok(Err(e)) if !spoilt => Err(e),
                    _ => Err(spoilt_by_closure(self.region)),
                }
            }
        }
    }

    /// Discards the entries from `first_discarded` on; 0 discards all. The compaction point and the
    /// metadata stay.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b", "c"], Durability::Written)?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).truncate_from(2);
    /// engine.write(batch, Durability::Synced)?;
    /// assert_eq!(engine.region(RegionId(7)).last_index(), 1);
    /// # Ok(()) }
    /// ```
    pub fn truncate_from(&mut self, first_discarded: u64) -> &mut Self {
        self.op(Op::TruncateFrom(first_discarded));
        self
    }

    /// Drops the entries up to and including `last_removed`, which a snapshot covers. The term of the last
    /// removed entry stays answerable forever. At or below the present compaction point it does nothing.
    /// [`compact_to`](Self::compact_to) is decided later, and refuses nothing.
    ///
    /// # Errors
    /// `Unavailable` beyond the last entry: a snapshot that lies ahead of the log is a
    /// [`reset`](Self::reset). `Damaged` when the term of `last_removed` stands in an index that cannot be
    /// read. `Gap`, `Compacted`, `TermRegression` and `InvalidArgument` when an operation that this batch
    /// already has for the region is going to be refused for that.
    ///
    /// After a crash what was compacted is compacted still, or readable again where the batch was not
    /// durable.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ErrorKind, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b", "c"], Durability::Written)?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).compact_through(2)?;
    /// let refused = batch.region(RegionId(7)).compact_through(4).map(drop).unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Unavailable);
    /// engine.write(batch, Durability::Written)?;
    /// assert_eq!(engine.region(RegionId(7)).first_index(), 3);
    /// # Ok(()) }
    /// ```
    pub fn compact_through(&mut self, last_removed: u64) -> Result<&mut Self> {
        let b = &*self.batch;
        if let Some(id) = compaction_term(&b.table, &b.batch, self.region, last_removed)? {
            self.op(Op::CompactThrough(id));
        }
        Ok(self)
    }

    /// Empties the log and lets it start after `base`, which may lie beyond the last entry: a snapshot was
    /// installed, or entries were applied before they were persisted. The metadata stays.
    ///
    /// What `base` covers is superseded. Entries above it are rolled back, and so is one at its index that
    /// has another term: listeners are asked for those
    /// ([`before_rollback`](crate::EventListener::before_rollback)). [`committed`](Self::committed) names
    /// another bound.
    ///
    /// # Errors
    /// `TooLarge` when the base's index or term is beyond [`INDEX_MAX`] or [`TERM_MAX`].
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// // The state machine has durably taken a snapshot that ends with entry 100 of term 3.
    /// batch.region(RegionId(7)).reset(EntryId::new(3, 100))?.set_hard_state(b"term 3")?;
    /// engine.write(batch, Durability::Synced)?;
    /// let log = engine.region(RegionId(7)).state();
    /// assert_eq!((log.is_empty(), log.first, log.last_term), (true, 101, Some(3)));
    /// # Ok(()) }
    /// ```
    pub fn reset(&mut self, base: EntryId) -> Result<&mut Self> {
        check_id(self.region, base)?;
        self.op(Op::Reset(base));
        Ok(self)
    }

    /// Forgets the log: all entries and the compaction point, as before the first entry. The hard state and
    /// the metadata stay. It stands only before what begins the log again, in the same batch: an append,
    /// whose first index may be any then, or a [`reset`](Self::reset). A region never is without the log that
    /// its hard state speaks of.
    ///
    /// It discards entries that no snapshot covers, so listeners are asked for all of them
    /// ([`before_rollback`](crate::EventListener::before_rollback)).
    ///
    /// # Errors
    /// [`Engine::write`](crate::Engine::write) refuses it with `InvalidArgument` where nothing of the batch
    /// begins the log again.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(5, 60), &b"set x"[..])])?.put(b"peers", b"1 2 3")?;
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // The log of another source, from its start.
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).forget_log().append([(EntryId::new(1, 1), &b"set y"[..])])?;
    /// engine.write(batch, Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!((region.first_index(), region.last_index(), region.state().base), (1, 1, None));
    /// assert_eq!(region.get(b"peers").as_deref(), Some(&b"1 2 3"[..]));
    /// # Ok(()) }
    /// ```
    pub fn forget_log(&mut self) -> &mut Self {
        self.op(Op::ForgetLog);
        self
    }

    /// Replaces the hard state: term, vote and what else the consensus library needs back after a restart.
    ///
    /// # Errors
    /// `TooLarge` beyond [`VALUE_BYTES_MAX`].
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).set_hard_state(b"term 2, voted for 3")?;
    /// engine.write(batch, Durability::Synced)?; // before the vote is sent
    /// assert_eq!(engine.region(RegionId(7)).hard_state().as_deref(), Some(&b"term 2, voted for 3"[..]));
    /// # Ok(()) }
    /// ```
    pub fn set_hard_state(&mut self, state: &[u8]) -> Result<&mut Self> {
        self.check_inline(0, state.len())?;
        if self.batch.values.capacity() < state.len() {
            self.batch.values.reserve(state.len().max(VALUES_BYTES));
        }
        self.batch.values.extend_from_slice(state);
        let value = self.batch.values.split().freeze();
        self.op(Op::SetHardState(value));
        Ok(self)
    }

    /// Sets a key of the region's metadata.
    ///
    /// # Errors
    /// `TooLarge` beyond [`KEY_BYTES_MAX`] or [`VALUE_BYTES_MAX`].
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).put(b"applied", b"5")?.put(b"draft", b"1")?.delete(b"draft")?;
    /// engine.write(batch, Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!(region.get(b"applied").as_deref(), Some(&b"5"[..]));
    /// assert_eq!(region.get(b"draft"), None);
    /// # Ok(()) }
    /// ```
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<&mut Self> {
        self.check_inline(key.len(), value.len())?;
        self.op(Op::Put { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) });
        Ok(self)
    }

    /// Removes a key of the region's metadata; fine if it is not there.
    ///
    /// # Errors
    /// `TooLarge` beyond [`KEY_BYTES_MAX`].
    ///
    /// [`put`](Self::put) shows it.
    pub fn delete(&mut self, key: &[u8]) -> Result<&mut Self> {
        self.check_inline(key.len(), 0)?;
        self.op(Op::Delete { key: Bytes::copy_from_slice(key) });
        Ok(self)
    }

    /// Names the last entry that is known to be committed, for the [`reset`](Self::reset) or
    /// [`destroy`](Self::destroy) that follows in the batch: what that discards at or below `index` others
    /// have, and what it discards above is rolled back, so that listeners are asked for it
    /// ([`before_rollback`](crate::EventListener::before_rollback)). Nothing of this is written. Of several
    /// the highest counts.
    ///
    /// It takes the place of the bound that a reset has by itself. A destroy has none: without this call,
    /// listeners are asked for nothing that it discards, or for all with
    /// [`RollbackScope::All`](crate::RollbackScope::All).
    ///
    /// ```
    /// use raftwood::{BoxError, Durability, EntryId, ErrorKind, EventListener, Options, RegionId, Rollback};
    /// use std::sync::Arc;
    ///
    /// struct NothingGoes;
    /// impl EventListener for NothingGoes {
    ///     fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
    ///         assert_eq!((rollback.first(), rollback.last()), (3, 4));
    ///         Err("not saved".into())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().listener(Arc::new(NothingGoes)).open(dir.path())?;
    /// let region = RegionId(7);
    /// let mut batch = engine.batch();
    /// batch.region(region).append((1..=4).map(|index| (EntryId::new(1, index), &b"set x"[..])))?;
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // The group has committed up to 2; 3 and 4 are perhaps nowhere else.
    /// let mut batch = engine.batch();
    /// batch.region(region).committed(2).destroy();
    /// assert_eq!(engine.write(batch, Durability::Synced).unwrap_err().kind(), ErrorKind::Refused);
    /// # Ok(()) }
    /// ```
    pub fn committed(&mut self, index: u64) -> &mut Self {
        let b = &mut self.batch.batch;
        b.committed.push(Committed { ops_before: b.ops.len(), region: self.region, index });
        self
    }

    /// Forgets the region: entries, compaction point, hard state and metadata. Later operations, in this
    /// batch too, start it from nothing.
    ///
    /// Listeners are asked ([`before_rollback`](crate::EventListener::before_rollback)) for the entries above
    /// what [`committed`](Self::committed) names, and for none where that was not called.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a"], Durability::Written)?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).destroy();
    /// engine.write(batch, Durability::Synced)?;
    /// assert!(!engine.region(RegionId(7)).exists());
    /// # Ok(()) }
    /// ```
    pub fn destroy(&mut self) -> &mut Self {
        self.op(Op::Destroy);
        self
    }

    // ---- inside -------------------------------------------------------------------------------------------

    pub(in crate::engine) fn op(&mut self, op: Op) {
        let b = &mut self.batch.batch;
        match b.sections.last_mut() {
            Some(s) if s.region == self.region => s.ops += 1,
            _ => b.sections.push(Section { region: self.region, ops: 1 }),
        }
        b.ops.push(op);
    }

    /// The append that `id` may join: the batch's last operation, if it is one of this region.
    fn open_append(&mut self) -> Option<(u64, u32)> {
        let b = &self.batch.batch;
        match (b.sections.last(), b.ops.last()) {
            (Some(s), Some(Op::Append { first, entries, .. })) if s.region == self.region => {
                Some((*first, *entries))
            }
            _ => None,
        }
    }

    fn push(&mut self, id: EntryId, len_hint: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let region = self.region;
        let open = self.open_append();
        let meta = self.fill(id, len_hint, fill)?;
        let b = &mut self.batch.batch;
        let joins = open.is_some_and(|(first, n)| first + u64::from(n) == id.index);
        if joins {
            let last_term = b.runs.last().map_or(0, |r| r.term);
            if id.term < last_term {
                return Err(Error::new(
                    ErrorKind::TermRegression,
                    format!(
                        "append of entry {} with term {} refused: entry {} before it has term {last_term}, and terms never fall",
                        id.index,
                        id.term,
                        id.index - 1
                    ),
                )
                .in_region(region)
                .naming(id.index..=id.index));
            }
            let new_run = id.term != last_term;
            match b.runs.last_mut() {
                Some(run) if !new_run => run.entries += 1,
                _ => b.runs.push(TermRun { term: id.term, entries: 1 }),
            }
            if let Some(Op::Append { entries, runs, .. }) = b.ops.last_mut() {
                *entries += 1;
                *runs += u32::from(new_run);
            }
        } else {
            self.op(Op::Append { first: id.index, entries: 1, runs: 1 });
            self.batch.batch.runs.push(TermRun { term: id.term, entries: 1 });
        }
        self.batch.batch.entries.push(meta);
        self.check_size()
    }

    /// Adds a payload, and no entry yet.
    pub(in crate::engine) fn fill(
        &mut self,
        id: EntryId,
        len_hint: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<EntryMeta> {
        check_id(self.region, id)?;
        let region = self.region;
        if self.batch.is_spoilt {
            return Err(spoilt_by_closure(region));
        }
        let start = self.batch.payload.len();
        let too_large = |len| {
            too_large(region, "entry", len, "ENTRY_BYTES_MAX", ENTRY_BYTES_MAX).naming(id.index..=id.index)
        };
        if len_hint > ENTRY_BYTES_MAX {
            return Err(too_large(len_hint));
        }
        fill(&mut self.batch.payload);
        let payload = self.batch.payload.get(start..).ok_or_else(|| spoilt_by_closure(region))?;
        let len = payload.len();
        if len > ENTRY_BYTES_MAX {
            return Err(too_large(len));
        }
        Ok(EntryMeta { len: len as u32, crc: entry_checksum(region, id, payload) })
    }

    fn check_inline(&mut self, key: usize, value: usize) -> Result<()> {
        if key > KEY_BYTES_MAX {
            return Err(too_large(self.region, "key", key, "KEY_BYTES_MAX", KEY_BYTES_MAX));
        }
        if value > VALUE_BYTES_MAX {
            return Err(too_large(self.region, "value", value, "VALUE_BYTES_MAX", VALUE_BYTES_MAX));
        }
        self.batch.inline_bytes += key + value + 12;
        let checked = self.check_size();
        if checked.is_err() {
            self.batch.inline_bytes -= key + value + 12;
        }
        checked
    }

    pub(in crate::engine) fn check_size(&self) -> Result<()> {
        let desc = self.batch.desc_len_max();
        if desc > DESC_BYTES_MAX {
            return Err(too_large(self.region, "batch description", desc, "DESC_BYTES_MAX", DESC_BYTES_MAX));
        }
        let len = self.batch.encoded_len();
        if len > BATCH_BYTES_MAX {
            return Err(too_large(self.region, "batch", len, "BATCH_BYTES_MAX", BATCH_BYTES_MAX));
        }
        Ok(())
    }
}

/// The last bytes of the buffer before a closure of the caller's adds to it. Enough to tell one that
/// cleared it first; not proof.
struct Ending {
    len: usize,
    bytes: [u8; ENDING_BYTES],
}

const ENDING_BYTES: usize = 16;

impl Ending {
    fn of(buffer: &[u8]) -> Ending {
        let mut bytes = [0; ENDING_BYTES];
        let last = &buffer[buffer.len().saturating_sub(ENDING_BYTES)..];
        bytes[..last.len()].copy_from_slice(last);
        Ending { len: buffer.len(), bytes }
    }

    fn stands_in(&self, buffer: &[u8]) -> bool {
        let from = self.len.saturating_sub(ENDING_BYTES);
        buffer.get(from..self.len).is_some_and(|last| last == &self.bytes[..last.len()])
    }
}

fn spoilt_by_closure(region: RegionId) -> Error {
    Error::invalid(
        "a closure of append_with changed what stood in the buffer before, the bytes of other entries: clear the batch and rebuild it",
    )
    .in_region(region)
}

fn check_id(region: RegionId, id: EntryId) -> Result<()> {
    if id.index > INDEX_MAX {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("index {} refused: the highest is INDEX_MAX, {INDEX_MAX}", id.index),
        )
        .in_region(region)
        .naming(id.index..=id.index));
    }
    if id.term > TERM_MAX {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("term {} refused: the highest is TERM_MAX, {TERM_MAX}", id.term),
        )
        .in_region(region)
        .naming(id.index..=id.index));
    }
    Ok(())
}

fn too_large(region: RegionId, what: &str, len: usize, name: &str, max: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{what} of {len} bytes refused: {name} is {max}"))
        .in_region(region)
}
