//! Building a batch.

use crate::codec::checksum::{crc32, entry_checksum};
use crate::codec::compress::compress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::{Batch, Block, Encoded, EntryMeta, Op, Section, TermRun};
use crate::format::record::RecordKind;
use crate::index::{Table, compaction_term};
use crate::limits::{
    BATCH_BYTES_MAX, BLOCK_BYTES_MAX, DESC_BYTES_MAX, ENTRY_BYTES_MAX, INDEX_MAX, KEY_BYTES_MAX, TERM_MAX,
    VALUE_BYTES_MAX,
};
use crate::options::Compression;
use crate::planted::{Bug, planted};
use crate::types::{EntryId, EntryRef, RegionId};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

mod join;

/// The atomic unit of writing, over any regions: after a crash all of it is there or none of it.
///
/// Operations apply in the order in which they were added, also within one region. Building checks what can
/// be checked without the region's state; [`Engine::write`](crate::Engine::write) checks the rest before
/// anything is written. The bytes of an entry are copied and checksummed when they are handed over.
///
/// A batch without operations is accepted and writes nothing. A batch that was written leaves its memory to
/// the next one that its thread makes, so there is no need to keep one;
/// [`Engine::write_outcome`](crate::Engine::write_outcome) says how many bytes it took.
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut batch = engine.batch();
/// // What one Ready of a group says, and another group's compaction, with one sync.
/// batch
///     .region(RegionId(7))
///     .append([(EntryId::new(3, 1), &b"set x 1"[..]), (EntryId::new(3, 2), b"set x 2")])?
///     .set_hard_state(b"term 3, voted for 2, commit 1")?
///     .put(b"applied", &1u64.to_le_bytes())?;
/// batch.region(RegionId(9)).reset(EntryId::new(2, 100))?;
/// assert_eq!(batch.entry_count(), 2);
/// engine.write(batch, Durability::Synced)?;
///
/// assert_eq!(engine.region(RegionId(7)).last_index(), 2);
/// assert_eq!(engine.region(RegionId(9)).first_index(), 101);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WriteBatch {
    pub(super) table: Arc<Table>,
    pub(super) batch: Batch,
    payload: Vec<u8>,
    /// What hard states are cut from: they have one buffer, not one each.
    values: BytesMut,
    /// Bytes of keys and values: bounds the description.
    inline_bytes: usize,
    /// A closure of `append_with` took bytes of other entries along: what is left must not get into the log.
    is_spoilt: bool,
}

impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBatch")
            .field("operations", &self.batch.ops.len())
            .field("entries", &self.batch.entries.len())
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl WriteBatch {
    pub(crate) fn new(table: Arc<Table>) -> WriteBatch {
        let Memory { batch, payload, values } = Memory::take();
        WriteBatch { table, batch, payload, values, inline_bytes: 0, is_spoilt: false }
    }

    /// Whether it was made by the engine with this table: what was checked while it was built
    /// was checked against that one.
    pub(crate) fn is_for(&self, table: &Arc<Table>) -> bool {
        Arc::ptr_eq(&self.table, table)
    }

    /// Adds operations on one region.
    pub fn region(&mut self, id: RegionId) -> RegionBatch<'_> {
        RegionBatch { batch: self, region: id }
    }

    /// Whether no operation was added.
    pub fn is_empty(&self) -> bool {
        self.batch.ops.is_empty()
    }

    /// How many entries the batch appends.
    pub fn entry_count(&self) -> usize {
        self.batch.entries.len()
    }

    /// Bytes that the batch would take in the log, uncompressed; a close upper bound.
    pub fn encoded_len(&self) -> usize {
        64 + 8 + self.payload.len() + self.desc_len_max()
    }

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        empty(&mut self.batch);
        self.payload.clear();
        self.inline_bytes = 0;
        self.is_spoilt = false;
    }

    fn desc_len_max(&self) -> usize {
        let b = &self.batch;
        20 + b.sections.len() * 15
            + b.ops.len() * 31
            + b.runs.len() * 15
            + b.entries.len() * 9
            + self.inline_bytes
    }

    /// Where the batch stands, to go back to when a call is refused.
    pub(crate) fn mark(&self) -> Mark {
        let b = &self.batch;
        Mark {
            sections: b.sections.len(),
            section_ops: b.sections.last().map_or(0, |s| s.ops),
            ops: b.ops.len(),
            last_op: b.ops.last().cloned(),
            runs: b.runs.len(),
            last_run: b.runs.last().copied(),
            entries: b.entries.len(),
            payload: self.payload.len(),
            inline_bytes: self.inline_bytes,
        }
    }

    /// Back to where it stood.
    pub(crate) fn rewind(&mut self, m: Mark) {
        let b = &mut self.batch;
        b.sections.truncate(m.sections);
        if let Some(s) = b.sections.last_mut() {
            s.ops = m.section_ops;
        }
        b.ops.truncate(m.ops);
        if let (Some(op), Some(last)) = (b.ops.last_mut(), m.last_op) {
            *op = last;
        }
        b.runs.truncate(m.runs);
        if let (Some(run), Some(last)) = (b.runs.last_mut(), m.last_run) {
            *run = last;
        }
        b.entries.truncate(m.entries);
        self.payload.truncate(m.payload);
        self.inline_bytes = m.inline_bytes;
    }

    /// What the table says of a region now; the operations of this batch are not counted in.
    #[cfg(feature = "raft-rs")]
    pub(crate) fn standing(&self, region: RegionId, key: &[u8]) -> Outlook {
        self.table.get(region).map_or_else(Outlook::default, |cell| {
            let s = cell.read();
            Outlook {
                exists: s.exists,
                base: s.base,
                has_entries: s.extents.last().is_some(),
                hard_state: s.hard_state_bytes(),
                hard_state_lost: s.damage.as_ref().is_some_and(|d| d.hard_state_lost),
                value: s.kv().get(key).cloned(),
            }
        })
    }

    /// What a region will be after the operations so far. Walks through the whole batch.
    #[cfg(feature = "raft-rs")]
    pub(crate) fn outlook(&self, region: RegionId, key: &[u8]) -> Outlook {
        let mut outlook = self.standing(region, key);
        for step in self.batch.steps().filter(|s| s.region == region) {
            outlook.exists = true;
            match step.op {
                Op::Destroy => outlook = Outlook::default(),
                Op::Reset(base) => (outlook.base, outlook.has_entries) = (Some(*base), false),
                Op::CompactThrough(base) => outlook.base = Some(*base),
                Op::ForgetLog => (outlook.base, outlook.has_entries) = (None, false),
                Op::Append { .. } => outlook.has_entries = true,
                Op::SetHardState(state) => {
                    (outlook.hard_state, outlook.hard_state_lost) = (Some(state.clone()), false);
                }
                Op::Put { key: k, value } if k == key => outlook.value = Some(value.clone()),
                Op::Delete { key: k } if k == key => outlook.value = None,
                _ => {}
            }
        }
        outlook
    }

    /// To the form in which it goes to the log, without copying what goes there uncompressed.
    pub(crate) fn encode(mut self, compression: Compression) -> (Encoded, Remains) {
        let mut blocks = Vec::new();
        let mut compressed = None;
        if let Compression::Lz4 { min_batch_bytes } = compression
            && self.payload.len() >= min_batch_bytes.max(1)
            && !self.is_spoilt
        {
            // What is fine uncompressed is not refused for the blocks that its description would
            // have to list.
            let fits = |blocks: &Vec<Block>| self.desc_len_max() + blocks.len() * 10 <= DESC_BYTES_MAX;
            compressed = compress_blocks(&self.batch, &self.payload, &mut blocks).filter(|_| fits(&blocks));
            if compressed.is_none() {
                blocks.clear();
            }
        }
        let (mut body, raw) = match compressed {
            Some(payload) => (payload, Some(std::mem::take(&mut self.payload))),
            // Without its payloads it is refused.
            None if self.is_spoilt => (Vec::new(), Some(std::mem::take(&mut self.payload))),
            None => (std::mem::take(&mut self.payload), None),
        };
        // The description follows the payloads in memory, in the same buffer.
        let payload_len = body.len();
        self.batch.encode_desc(&blocks, &mut body);
        let desc_crc = crc32(0, &body[payload_len..]);
        let mut payload = Bytes::from(body);
        let desc = payload.split_off(payload_len);
        let batch = std::mem::take(&mut self.batch);
        let encoded = Encoded { kind: RecordKind::Batch, batch, blocks, desc, desc_crc, payload };
        let Self { table, values, inline_bytes, is_spoilt, .. } = self;
        (encoded, Remains { table, raw, values, inline_bytes, is_spoilt })
    }
}

/// What is left of a batch that was encoded: enough to restore it when it is refused.
pub(crate) struct Remains {
    table: Arc<Table>,
    raw: Option<Vec<u8>>,
    values: BytesMut,
    inline_bytes: usize,
    is_spoilt: bool,
}

impl Remains {
    /// The batch as it was.
    pub(crate) fn restore(self, encoded: Encoded) -> WriteBatch {
        let Remains { table, raw, values, inline_bytes, is_spoilt } = self;
        // Of the buffer that both lie in.
        drop(encoded.desc);
        let payload = raw.unwrap_or_else(|| Vec::from(encoded.payload));
        WriteBatch { table, batch: encoded.batch, payload, values, inline_bytes, is_spoilt }
    }

    /// The batch was accepted: its memory is for the next one.
    pub(crate) fn recycle(self, encoded: Encoded) {
        let Encoded { batch, desc, payload, .. } = encoded;
        let body = if payload.is_empty() {
            desc
        } else {
            drop(desc);
            payload
        };
        // While others hold it, the log or a reader, it is theirs.
        let payload = if body.is_unique() { Vec::from(body) } else { Vec::new() };
        Memory { batch, payload, values: self.values }.give_back();
    }
}

/// The memory of a batch that was written, kept by the thread that wrote it for the next one that it makes. A
/// batch would take ten vectors that grow from nothing otherwise.
#[derive(Default)]
struct Memory {
    batch: Batch,
    payload: Vec<u8>,
    values: BytesMut,
}

/// Hard states share buffers of this size.
const VALUES_BYTES: usize = 1 << 10;

/// The most that a thread keeps in each of them.
const KEPT_BYTES_MAX: usize = 128 << 10;

thread_local! {
    static SPARE: Cell<Option<Memory>> = const { Cell::new(None) };
}

impl Memory {
    fn take() -> Memory {
        SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default()
    }

    fn give_back(mut self) {
        let Batch { sections, ops, runs, entries } = &self.batch;
        let kept = self.payload.capacity().max(self.values.capacity());
        let kept = kept.max(size_of_val(&sections[..]) + size_of_val(&ops[..]));
        let kept = kept.max(size_of_val(&runs[..]) + size_of_val(&entries[..]));
        if kept <= KEPT_BYTES_MAX {
            empty(&mut self.batch);
            self.payload.clear();
            // A thread that is ending keeps nothing.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }
}

fn empty(batch: &mut Batch) {
    batch.sections.clear();
    batch.ops.clear();
    batch.runs.clear();
    batch.entries.clear();
}

/// Cuts the payloads into blocks at entry boundaries and compresses each that shrinks; `None` if none
/// does. A block holds entries of one region only: one flipped bit costs a whole block, and must not
/// cost another region anything.
fn compress_blocks(batch: &Batch, payload: &[u8], blocks: &mut Vec<Block>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len());
    let mut worth_it = false;
    let mut start = 0;
    let mut end = 0;
    let mut flush = |start: usize, end: usize, out: &mut Vec<u8>| {
        let raw = &payload[start..end];
        let raw_len = raw.len() as u32;
        let head = out.len();
        out.extend_from_slice(&[0; 8]);
        match compress(raw, out) {
            Some(stored) => {
                out[head..head + 4].copy_from_slice(&raw_len.to_le_bytes());
                out[head + 4..head + 8].copy_from_slice(&(stored as u32).to_le_bytes());
                blocks.push(Block { raw_len, stored_len: stored as u32 + 8, lz4: true });
                worth_it = true;
            }
            None => {
                out.truncate(head);
                out.extend_from_slice(raw);
                blocks.push(Block { raw_len, stored_len: raw_len, lz4: false });
            }
        }
    };
    let mut region = None;
    for step in batch.steps() {
        let another = region.replace(step.region) != Some(step.region) && !planted(Bug::BlockAcrossRegions);
        if another && end > start {
            flush(start, end, &mut out);
            start = end;
        }
        for entry in step.entries {
            let len = entry.len as usize;
            if end > start && end - start + len > BLOCK_BYTES_MAX {
                flush(start, end, &mut out);
                start = end;
            }
            end += len;
        }
    }
    if end > start {
        flush(start, end, &mut out);
    }
    worth_it.then_some(out)
}

/// The operations on one region, added to a [`WriteBatch`]. Nothing is written before
/// [`Engine::write`](crate::Engine::write), and a refusal there leaves no trace.
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
    pub(super) batch: &'a mut WriteBatch,
    pub(super) region: RegionId,
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
    /// # Errors
    /// `TooLarge` when the base's index or term is beyond [`INDEX_MAX`] or [`TERM_MAX`].
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
    /// It discards entries, so listeners are asked
    /// ([`before_rollback`](crate::EventListener::before_rollback)), unlike by a reset, which a snapshot
    /// covers.
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
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<&mut Self> {
        self.check_inline(key.len(), value.len())?;
        self.op(Op::Put { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) });
        Ok(self)
    }

    /// Removes a key of the region's metadata; fine if it is not there.
    ///
    /// # Errors
    /// `TooLarge` beyond [`KEY_BYTES_MAX`].
    pub fn delete(&mut self, key: &[u8]) -> Result<&mut Self> {
        self.check_inline(key.len(), 0)?;
        self.op(Op::Delete { key: Bytes::copy_from_slice(key) });
        Ok(self)
    }

    /// Forgets the region: entries, compaction point, hard state and metadata. Later operations, in this
    /// batch too, start it from nothing.
    pub fn destroy(&mut self) -> &mut Self {
        self.op(Op::Destroy);
        self
    }

    // ---- inside -------------------------------------------------------------------------------------------

    pub(super) fn op(&mut self, op: Op) {
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
    pub(super) fn fill(
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
        if len_hint > ENTRY_BYTES_MAX {
            return Err(too_large(region, "entry", len_hint, "ENTRY_BYTES_MAX", ENTRY_BYTES_MAX));
        }
        fill(&mut self.batch.payload);
        let payload = self.batch.payload.get(start..).ok_or_else(|| spoilt_by_closure(region))?;
        let len = payload.len();
        if len > ENTRY_BYTES_MAX {
            return Err(too_large(region, "entry", len, "ENTRY_BYTES_MAX", ENTRY_BYTES_MAX));
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

    pub(super) fn check_size(&self) -> Result<()> {
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

/// A region as an adapter has to know it while it builds a batch.
#[cfg(feature = "raft-rs")]
#[derive(Default)]
pub(crate) struct Outlook {
    pub(crate) exists: bool,
    pub(crate) base: Option<EntryId>,
    pub(crate) has_entries: bool,
    pub(crate) hard_state: Option<Bytes>,
    pub(crate) hard_state_lost: bool,
    /// The value of the key that was asked for.
    pub(crate) value: Option<Bytes>,
}

/// Where a batch stood before a call, to go back to when the call is refused.
pub(crate) struct Mark {
    sections: usize,
    section_ops: u32,
    ops: usize,
    last_op: Option<Op>,
    runs: usize,
    last_run: Option<TermRun>,
    entries: usize,
    payload: usize,
    inline_bytes: usize,
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
