//! The words of the field as types: region, position in the log, entry, durability.

use bytes::Bytes;
use std::fmt;
use std::hash::Hasher;

/// One Raft group. Any `u64` is a legal id.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegionId(pub u64);

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Spreads ids that are often consecutive. Not keyed: ids come from the application, not from its clients.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = u128::from(self.0 ^ n ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (mixed >> 64) as u64 ^ mixed as u64;
    }
}

/// A position in the log, totally ordered over all regions.
///
/// It names a segment and an offset in it, so a position leads to its bytes without a table. What a write
/// returns is the position one past its batch: the batch is durable once
/// [`durable_lsn`](crate::Engine::durable_lsn) has reached it. Positions are meaningful within one run of the
/// engine; a restart may rewrite accepted but unacknowledged batches, at later positions.
///
/// ```
/// use raftwood::Lsn;
///
/// let position = Lsn::new(3, 4096); // offset 4,096 of segment 3
/// assert_eq!((position.segment(), position.offset(), position.to_string()), (3, 4096, "3:4096".into()));
/// assert!(position > Lsn::new(2, 1 << 20) && position > Lsn::ZERO);
/// assert_eq!(Lsn::from_u64(position.to_u64()), position);
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Lsn = Lsn(0);

    /// The position at `offset` of the log segment `segment`.
    pub const fn new(segment: u32, offset: u32) -> Lsn {
        Lsn((segment as u64) << 32 | offset as u64)
    }

    /// The segment that this position lies in.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in that segment's file.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// As one number, as it stands on disk.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// From the number that [`to_u64`](Lsn::to_u64) gave.
    pub const fn from_u64(raw: u64) -> Lsn {
        Lsn(raw)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

/// Names one entry of a region: its term and its index.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EntryId {
    /// The term of the leader that made the entry.
    pub term: u64,
    /// The entry's place in its region's log.
    pub index: u64,
}

impl EntryId {
    /// The entry at `index`, made in `term`.
    pub const fn new(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {})", self.index, self.term)
    }
}

/// An entry as it is given to [`append`](crate::RegionBatch::append).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryRef<'a> {
    /// Term and index.
    pub id: EntryId,
    /// Opaque to the engine.
    pub payload: &'a [u8],
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(e: &'a Entry) -> Self {
        EntryRef { id: e.id, payload: &e.payload }
    }
}

impl<'a> From<(EntryId, &'a [u8])> for EntryRef<'a> {
    fn from((id, payload): (EntryId, &'a [u8])) -> Self {
        EntryRef { id, payload }
    }
}

impl<'a> From<&EntryRef<'a>> for EntryRef<'a> {
    fn from(e: &EntryRef<'a>) -> Self {
        *e
    }
}

/// An entry as it is read: its payload borrows the mapped segment when it is stored uncompressed, and keeps
/// that segment's file from being reused for as long as it lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Term and index.
    pub id: EntryId,
    /// The bytes as they were appended, verified against their checksum at this read.
    pub payload: Bytes,
}

impl Entry {
    /// The same entry with a payload of its own: a copy, that holds its bytes and nothing else. For what is
    /// kept for long: an entry as it is read keeps a whole segment's file from being reused, or, where it was
    /// not mapped, the buffer that its neighbours were read into.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1", "set x 2"], Durability::Synced)?;
    ///
    /// // Kept after the log has let go of it, at the price of its own seven bytes.
    /// let cached = engine.region(RegionId(7)).entry(2)?.detached();
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).compact_through(2)?;
    /// engine.write(batch, Durability::Synced)?;
    /// assert_eq!(&cached.payload[..], b"set x 2");
    /// # Ok(()) }
    /// ```
    #[must_use = "the entry itself goes on borrowing"]
    pub fn detached(&self) -> Entry {
        Entry { id: self.id, payload: Bytes::copy_from_slice(&self.payload) }
    }
}

/// What a batch must have reached before its write is acknowledged. There is none lower than `Written`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Durability {
    /// Handed to the operating system: survives a kill of the process, not a power cut.
    Written,
    /// On the device (`fdatasync` returned): survives a power cut.
    Synced,
}

/// What discards the entries of a [`Rollback`](crate::Rollback).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RollbackCause {
    /// An append at their index, a truncation, or [`forget_log`](crate::RegionBatch::forget_log): a leader
    /// has other entries in their place, or none.
    Replaced,
    /// A [`reset`](crate::RegionBatch::reset). Of those that are above what is known to be committed, or of
    /// any with [`RollbackScope::All`], the group may have committed some.
    Reset,
    /// A [`destroy`](crate::RegionBatch::destroy). As with a reset, the group may have committed some.
    Destroyed,
}

/// For which entries that a reset or a destroy discards listeners are asked
/// ([`before_rollback`](crate::EventListener::before_rollback)). For those that an append, a truncation or
/// [`forget_log`](crate::RegionBatch::forget_log) discards they always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum RollbackScope {
    /// For those that are not known to be committed: above what
    /// [`committed`](crate::RegionBatch::committed) names, else above the base of a reset, which a snapshot
    /// covers. A destroy that names nothing asks for nothing. A follower that lags behind and is sent a
    /// snapshot, or a replica that moves to another store, is no event then.
    #[default]
    Uncommitted,
    /// For all. A deposed leader's entries may lie below the index of the snapshot that supersedes them, and
    /// only the application can tell them from committed ones.
    All,
}

/// In which order keys are visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyOrder {
    /// From the lowest to the highest.
    Ascending,
    /// From the highest to the lowest.
    Descending,
}

/// Bounds one read of [`entries`](crate::Region::entries). A read returns at least one entry if there is any,
/// whatever the bounds: a limit of 0 bytes or 0 entries gives one.
///
/// ```
/// use raftwood::ReadLimit;
///
/// // A message of a megabyte, where each entry counts 12 bytes more than its payload, of 64 entries at most.
/// let limit = ReadLimit::bytes(1 << 20).overhead(12).and_entries(64);
/// assert_ne!(limit, ReadLimit::NONE);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimit {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) overhead: u64,
}

impl ReadLimit {
    /// No bound: the whole range at once.
    pub const NONE: ReadLimit = ReadLimit { bytes: u64::MAX, entries: u64::MAX, overhead: 0 };

    /// At most `bytes` of payload, but one entry if there is any.
    pub const fn bytes(bytes: u64) -> ReadLimit {
        ReadLimit { bytes, ..ReadLimit::NONE }
    }

    /// At most `entries` entries, but one if there is any.
    pub const fn entries(entries: u64) -> ReadLimit {
        ReadLimit { entries, ..ReadLimit::NONE }
    }

    /// Count `bytes_per_entry` on top of each payload, as a library does that limits the encoded
    /// size of its messages.
    pub const fn overhead(self, bytes_per_entry: u64) -> ReadLimit {
        ReadLimit { overhead: bytes_per_entry, ..self }
    }

    /// Both bounds at once.
    pub const fn and_entries(self, entries: u64) -> ReadLimit {
        ReadLimit { entries, ..self }
    }
}

/// A region's log, taken at one moment.
///
/// The live entries are `first..=last`; the log is empty when `last < first`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogState {
    /// The last entry that was compacted away or that a reset put there; `None` while nothing was.
    pub base: Option<EntryId>,
    /// The index of the first live entry, or the one that the next append would take.
    pub first: u64,
    /// The index of the last live entry. When there is none: the base's index, or 0.
    pub last: u64,
    /// The term of `last`; 0 when the log holds no entry and nothing was compacted. `None` when the segment's
    /// index, which knows it, cannot be read: [`Region::term`](crate::Region::term) of `last` says why.
    pub last_term: Option<u64>,
    /// The highest index such that it and all before it are known to be on the device.
    pub durable: u64,
}

impl LogState {
    /// Whether there is no live entry.
    pub fn is_empty(&self) -> bool {
        // Not `last < first`: an empty log without a base has first 1 and last 0, an entry at
        // index 0 has both 0.
        self.first > self.last
    }
}
