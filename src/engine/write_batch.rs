//! Building a batch.

use self::memory::{Memory, empty};
use crate::format::batch::{Batch, Op, TermRun};
use crate::index::Table;
use crate::types::{EntryId, RegionId};
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod encode;
mod join;
mod memory;
mod operations;

pub(crate) use self::memory::Remains;
pub use self::operations::RegionBatch;

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
    identity: Identity,
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
        let identity = Identity::default();
        WriteBatch { table, batch, payload, values, inline_bytes: 0, is_spoilt: false, identity }
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
    ///
    /// ```
    /// use raftwood::{Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"a"[..])])?;
    /// batch.clear();
    /// assert!(batch.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn clear(&mut self) {
        empty(&mut self.batch);
        self.payload.clear();
        self.inline_bytes = 0;
        self.is_spoilt = false;
        self.identity = Identity::default();
    }

    pub(super) fn desc_len_max(&self) -> usize {
        let b = &self.batch;
        20 + b.sections.len() * 15
            + b.ops.len() * 31
            + b.runs.len() * 15
            + b.entries.len() * 9
            + self.inline_bytes
    }

    /// Adds all that `add` adds, or nothing: when it returns an error, or panics, the batch is as it was
    /// before the call. For what takes several operations of which a later one may be refused. Calls may be
    /// nested.
    ///
    /// A batch that `add` cleared, or put another one in the place of, cannot be had back: it is refused when
    /// it is written (`InvalidArgument`), unless it is [cleared](Self::clear).
    ///
    /// # Errors
    /// What `add` returned.
    ///
    /// ```
    /// use raftwood::{Engine, Error, RegionId, limits::KEY_BYTES_MAX};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// let added: Result<(), Error> = batch.atomically(|batch| {
    ///     batch.region(RegionId(7)).set_hard_state(b"term 1")?;
    ///     batch.region(RegionId(7)).put(&vec![0; KEY_BYTES_MAX + 1], b"too long a key")?;
    ///     Ok(())
    /// });
    /// assert!(added.is_err() && batch.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn atomically<T, E>(&mut self, add: impl FnOnce(&mut WriteBatch) -> Result<T, E>) -> Result<T, E> {
        let mut undo = Undo { identity: self.identity.fixed(), mark: Some(self.mark()), batch: self };
        let added = add(undo.batch);
        if added.is_ok() {
            undo.mark = None;
        }
        added
    }

    /// Where the batch stands, to go back to when a call is refused.
    pub(super) fn mark(&self) -> Mark {
        let b = &self.batch;
        Mark {
            sections: b.sections.len(),
            section_ops: b.sections.last().map_or(0, |s| s.ops),
            ops: b.ops.len(),
            last_op: b.ops.last().cloned(),
            runs: b.runs.len(),
            last_run: b.runs.last().copied(),
            entries: b.entries.len(),
            committed: b.committed.len(),
            payload: self.payload.len(),
            inline_bytes: self.inline_bytes,
        }
    }

    /// Back to where it stood.
    pub(super) fn rewind(&mut self, m: Mark) {
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
        b.committed.truncate(m.committed);
        self.payload.truncate(m.payload);
        self.inline_bytes = m.inline_bytes;
    }

    /// What a region is by all that was accepted, with the value of the metadata `key`; the operations of
    /// this batch are not counted in. Reads nothing from the disk.
    pub fn current(&self, region: RegionId, key: &[u8]) -> RegionPreview {
        self.table.get(region).map_or_else(RegionPreview::default, |cell| {
            let s = cell.read();
            RegionPreview {
                exists: s.exists,
                base: s.base,
                has_entries: s.extents.last().is_some(),
                hard_state: s.hard_state_bytes(),
                hard_state_lost: s.damage.as_ref().is_some_and(|d| d.hard_state_lost),
                value: s.kv().get(key).cloned(),
            }
        })
    }

    /// What a region will be after the operations so far, with the value of the metadata `key`: to decide
    /// what to add. What others write until this batch is accepted is not known here, and operations that are
    /// decided at acceptance ([`compact_to`](RegionBatch::compact_to),
    /// [`append_next`](RegionBatch::append_next)) are not counted in.
    ///
    /// Walks through the whole batch: where [`current`](Self::current) suffices, that costs less.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).reset(EntryId::new(5, 5))?.put(b"peer", b"3")?;
    /// assert!(!batch.current(RegionId(7), b"peer").exists);
    /// let preview = batch.preview(RegionId(7), b"peer");
    /// assert_eq!((preview.base, preview.has_entries), (Some(EntryId::new(5, 5)), false));
    /// assert_eq!(preview.value.as_deref(), Some(&b"3"[..]));
    /// engine.write(batch, Durability::Synced)?;
    /// assert_eq!(engine.batch().current(RegionId(7), b"peer"), preview);
    /// # Ok(()) }
    /// ```
    pub fn preview(&self, region: RegionId, key: &[u8]) -> RegionPreview {
        let mut outlook = self.current(region, key);
        for step in self.batch.steps().filter(|s| s.region == region) {
            outlook.exists = true;
            match step.op {
                Op::Destroy => outlook = RegionPreview::default(),
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
}

/// A region as it is known while a batch is built: see [`WriteBatch::preview`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RegionPreview {
    /// Whether anything was written to it since it was last destroyed.
    pub exists: bool,
    /// The last entry that was compacted away, or that a reset put there.
    pub base: Option<EntryId>,
    /// Whether its log has an entry.
    pub has_entries: bool,
    /// The hard state as it was last set.
    pub hard_state: Option<Bytes>,
    /// Whether a newer hard state may have been acknowledged and lost: then the replica must not vote.
    pub hard_state_lost: bool,
    /// The value of the key that was asked for.
    pub value: Option<Bytes>,
}

/// Takes back what was added since the mark, unless that was taken out.
struct Undo<'a> {
    batch: &'a mut WriteBatch,
    identity: u64,
    mark: Option<Mark>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        match self.mark.take() {
            Some(mark) if self.batch.identity.0 == self.identity => self.batch.rewind(mark),
            Some(_) => self.batch.is_spoilt = true,
            None => {}
        }
    }
}

/// Which batch it is, where that has to be known: a number that no other has. 0 before that.
#[derive(Debug, Default)]
struct Identity(u64);

impl Identity {
    fn fixed(&mut self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.0 == 0 {
            self.0 = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        self.0
    }
}

/// A clone is another batch.
impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity::default()
    }
}

/// Where a batch stood before a call, to go back to when the call is refused.
pub(super) struct Mark {
    sections: usize,
    section_ops: u32,
    ops: usize,
    last_op: Option<Op>,
    runs: usize,
    last_run: Option<TermRun>,
    entries: usize,
    committed: usize,
    payload: usize,
    inline_bytes: usize,
}
