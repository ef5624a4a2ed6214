//! Reading one region.

use crate::engine::Engine;
use crate::engine::digest::Digest;
use crate::engine::later::promise;
use crate::error::{Error, Result};
use crate::index::{Part, RegionState, TermAt};
use crate::planted::{Bug, planted};
use crate::read::{Failed, Source, bounds, compacted, first_or_next, parts, read, term, unavailable, view};
use crate::report::{Health, Lookup, RegionStats};
use crate::segment::Unreadable;
use crate::types::{Entry, EntryId, LogState, ReadLimit, RegionId};
use crate::upkeep;
use bytes::Bytes;
use std::ops::{Range, RangeBounds};

/// The name of one region of an engine, to read from. Cheap to make and to clone; it keeps no snapshot:
/// each call answers as of now.
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, ErrorKind, ReadLimit, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let region = engine.region(RegionId(7));
/// assert!(!region.exists());
///
/// let mut batch = engine.batch();
/// batch.region(region.id()).append((1..=4).map(|index| (EntryId::new(1, index), &b"set x"[..])))?;
/// batch.region(region.id()).compact_through(1)?.set_hard_state(b"term 1")?;
/// engine.write(batch, Durability::Synced)?;
///
/// assert_eq!(region.entries(2..=3, ReadLimit::bytes(1 << 20))?.len(), 2);
/// assert_eq!(region.term(1)?, 1); // of the last compacted entry, for good
/// assert_eq!(region.entry(1).unwrap_err().kind(), ErrorKind::Compacted);
/// assert_eq!(region.hard_state().as_deref(), Some(&b"term 1"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Region {
    engine: Engine,
    id: RegionId,
}

impl Region {
    pub(super) fn new(engine: Engine, id: RegionId) -> Region {
        Region { engine, id }
    }

    /// The region's id.
    pub fn id(&self) -> RegionId {
        self.id
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&RegionState) -> T) -> T {
        let store = self.engine.store();
        match store.dir.is_here().then(|| store.table.get(self.id)).flatten() {
            Some(cell) => read(&cell.read()),
            None => read(&RegionState::default()),
        }
    }

    /// Whether anything was ever written to the region since it was last destroyed.
    pub fn exists(&self) -> bool {
        self.with(|s| s.exists)
    }

    /// Base, first, last and durable index, taken at one moment.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b"], Durability::Synced)?;
    /// let log = engine.region(RegionId(7)).state();
    /// assert_eq!((log.first, log.last, log.durable, log.base), (1, 2, 2, None));
    /// # Ok(()) }
    /// ```
    pub fn state(&self) -> LogState {
        let durable = self.engine.durable_lsn();
        self.with(|s| s.log_state(self.id, durable))
    }

    /// The index of the first live entry; in an empty log, the one after the compaction point, or 1.
    pub fn first_index(&self) -> u64 {
        self.with(first_or_next)
    }

    /// The index of the last live entry; in an empty log, the compaction point, or 0.
    pub fn last_index(&self) -> u64 {
        self.with(|s| s.last().unwrap_or_else(|| s.base.map_or(0, |b| b.index)))
    }

    /// How many segments the entry lies before the one that is being written; `None` if it is not in the log.
    /// What lies 0 or 1 back was written moments ago and is in memory; reading what lies further back may
    /// wait for the device, and is for a thread that may wait ([`Engine::fetch`]). Looks nothing up on the
    /// disk.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Written)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!((region.segments_back(1), region.segments_back(2)), (Some(0), None));
    /// # Ok(()) }
    /// ```
    pub fn segments_back(&self, index: u64) -> Option<u32> {
        let active = self.engine.store().committer.accepted().segment();
        self.with(|s| s.extent(index).map(|e| active.saturating_sub(e.segment_id())))
    }

    /// Whether reading `from..to` is done in no time: it is short, and nothing of it lies far back.
    fn is_quick(&self, from: u64, to: u64) -> bool {
        let oldest = self.engine.store().committer.active_id().saturating_sub(NEAR_SEGMENTS);
        self.with(|s| {
            let mut sum = 0u128;
            s.extents.from(from).take_while(|e| e.first() < to).all(|e| {
                let share = e.last().min(to - 1) - e.first().max(from) + 1;
                sum += u128::from(e.bytes()) * u128::from(share) / u128::from(e.count());
                e.segment_id() >= oldest && sum <= u128::from(ON_THE_SPOT_BYTES)
            })
        })
    }

    /// The term of the entry at `index`. Answers for the compaction point too, forever, and with 0 for index
    /// 0 of a log that starts at 1. Never touches a payload.
    ///
    /// # Errors
    /// `Compacted` below the compaction point, `Unavailable` beyond the last entry.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).reset(EntryId::new(3, 100))?.append([(EntryId::new(4, 101), &b"x"[..])])?;
    /// engine.write(batch, Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!((region.term(100)?, region.term(101)?), (3, 4));
    /// # Ok(()) }
    /// ```
    pub fn term(&self, index: u64) -> Result<u64> {
        self.engine.store().check_process()?;
        self.with(|s| term(self.id, s, index))
    }

    /// One entry. Its payload borrows the segment when it is stored uncompressed.
    ///
    /// # Errors
    /// `Compacted`, `Unavailable`; `Damaged` if the bytes do not match the checksum that was taken
    /// when the entry was handed over.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ErrorKind, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!(region.entry(1)?.payload, "set x 1");
    /// assert_eq!(region.entry(2).unwrap_err().kind(), ErrorKind::Unavailable);
    /// # Ok(()) }
    /// ```
    pub fn entry(&self, index: u64) -> Result<Entry> {
        self.try_entry(index).map_err(Failed::into_error)
    }

    fn try_entry(&self, index: u64) -> Result<Entry, Failed> {
        self.rescued(
            || {
                let part = self.with(|s| match s.extent(index) {
                    Some(e) => Ok(e.part(index, index)),
                    None if index < first_or_next(s) => Err(compacted(self.id, s, index)),
                    None => Err(unavailable(self.id, s, index..=index)),
                });
                let part = part.map_err(Failed::Plainly)?;
                self.read_one(&part, index).map_err(|e| Failed::At(index, part.segment().clone(), e))
            },
            |e| e.id.index..e.id.index + 1,
        )
    }

    fn read_one(&self, part: &Part, index: u64) -> Result<Entry, Unreadable> {
        let loc = part.loc(self.id, index)?;
        let id = EntryId::new(part.term(self.id, index)?, index);
        part.segment().content.will_need(&[loc], 0);
        let payload = part.segment().entry(self.id, id, loc)?;
        Ok(Entry { id, payload })
    }

    /// A read that is counted, and tried again where it meets damage.
    fn rescued<T>(
        &self,
        read: impl Fn() -> Result<T, Failed>,
        indexes: impl Fn(&T) -> Range<u64>,
    ) -> Result<T, Failed> {
        let store = self.engine.store();
        store.check_process().map_err(Failed::Plainly)?;
        store.reads.rescued(self.id, read, indexes)
    }

    /// The entries of `range` in order, at least one if there is any, no more than `limit` allows. A range
    /// without an end goes to the last entry.
    ///
    /// # Errors
    /// `Compacted` if the range starts at or below the compaction point, `Unavailable` if it reaches beyond
    /// the last entry; an empty range is fine up to one past the last. `Damaged` if any entry that would be
    /// returned is: the error names it, and those before and after it can be read.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ErrorKind, ReadLimit, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b", "c"], Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!(region.entries(2.., ReadLimit::NONE)?.len(), 2);
    /// // As much as one message takes: one entry at least.
    /// let page = region.entries(1..=3, ReadLimit::bytes(0))?;
    /// assert_eq!((page.len(), &page[0].payload[..]), (1, &b"a"[..]));
    /// let beyond = region.entries(1..=4, ReadLimit::NONE).unwrap_err();
    /// assert_eq!((beyond.kind(), beyond.entries()), (ErrorKind::Unavailable, Some(4..=4)));
    /// # Ok(()) }
    /// ```
    pub fn entries(&self, range: impl RangeBounds<u64>, limit: ReadLimit) -> Result<Vec<Entry>> {
        let read = || {
            let parts = self.with(|s| view(self.id, s, &range, limit));
            read(self.id, &parts.map_err(Failed::Plainly)?, limit, Source::AtHand)
        };
        self.rescued(read, span).map_err(Failed::into_error)
    }

    /// As [`entries`](Region::entries), but the range is cut to what is there instead of refused.
    ///
    /// # Errors
    /// `Damaged` as for [`entries`](Region::entries), `Io` from the operating system, `Closed` when the
    /// engine is of another process. What is not there is no error: the answer is shorter, or empty.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ReadLimit, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b"], Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!(region.entries_clamped(0..100, ReadLimit::NONE)?.len(), 2);
    /// assert!(region.entries_clamped(50.., ReadLimit::NONE)?.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn entries_clamped(&self, range: impl RangeBounds<u64>, limit: ReadLimit) -> Result<Vec<Entry>> {
        let read = || {
            let parts = self.with(|s| match (s.first(), s.last()) {
                (Some(first), Some(last)) => {
                    let (from, to) = bounds(&range, first, last + 1);
                    parts(s, from.max(first), to.min(last + 1), limit)
                }
                _ => Vec::new(),
            });
            read(self.id, &parts, limit, Source::AtHand)
        };
        self.rescued(read, span).map_err(Failed::into_error)
    }

    /// As [`entries_clamped`](Region::entries_clamped), for a task: no poll waits for the device. What is
    /// short (256 KiB) and recent (in the segment that is being written, or the one before) is in memory, and
    /// read by the first poll; the rest on a thread of the engine, of those of
    /// [`Options::fetch_threads`](crate::Options::fetch_threads). It is not refused by
    /// [`Options::fetch_queue_max`](crate::Options::fetch_queue_max): the tasks are the bound.
    ///
    /// Whatever its length, it is of the log at one moment, that of the read. Dropping the future ends
    /// nothing that has begun.
    ///
    /// # Errors
    /// As [`entries_clamped`](Region::entries_clamped); `Io` also where reading panicked.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, ReadLimit, RegionId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b"], Durability::Synced)?;
    /// let entries = engine.region(RegionId(7)).entries_clamped_async(2..100, ReadLimit::NONE).await?;
    /// assert_eq!((entries.len(), &entries[0].payload[..]), (1, &b"b"[..]));
    /// # Ok(()) }
    /// ```
    pub fn entries_clamped_async<R: RangeBounds<u64>>(
        &self,
        range: R,
        limit: ReadLimit,
    ) -> impl Future<Output = Result<Vec<Entry>>> + Send + use<R> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let region = self.clone();
        async move {
            let LogState { first, last, .. } = region.state();
            let (from, to) = bounds(&range, first, last.saturating_add(1));
            let (from, to) = (from.max(first), to.min(last.saturating_add(1)));
            if from >= to || region.is_quick(from, to) {
                return region.entries_clamped(range, limit);
            }
            let (promise, read) = promise();
            let engine = region.engine.clone();
            engine.on_io_thread(move || promise.keep(region.entries_clamped(range, limit)));
            drop(engine);
            read.await
        }
    }

    /// The hard state as it was last set, as far as that is known. Before it is voted on,
    /// [`health`](Region::health) has to be looked at, or [`hard_state_or_lost`](Region::hard_state_or_lost)
    /// be asked instead: after damage it may be older than the one that was acknowledged.
    pub fn hard_state(&self) -> Option<Bytes> {
        self.with(|s| s.hard_state_bytes())
    }

    /// The hard state as it was last set, and never an older one.
    ///
    /// # Errors
    /// `HardStateLost` when a newer one may have been lost: the region must not vote until it has set one
    /// again.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).set_hard_state(b"term 1, voted for 3")?;
    /// engine.write(batch, Durability::Synced)?;
    /// match engine.region(RegionId(7)).hard_state_or_lost() {
    ///     Ok(state) => assert_eq!(state.as_deref(), Some(&b"term 1, voted for 3"[..])),
    ///     Err(error) => eprintln!("this replica must not vote: {error}"),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn hard_state_or_lost(&self) -> Result<Option<Bytes>> {
        self.engine.store().check_process()?;
        self.with(|s| match &s.damage {
            Some(d) if d.hard_state_lost => Err(Error::hard_state_lost(
                "the newest hard state may have been lost with the end of the log: the region must not vote; \
                 set the one that is known from elsewhere, or let the region join anew",
            )
            .in_region(self.id)),
            _ => Ok(s.hard_state_bytes()),
        })
    }

    /// The value of a metadata key.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).put(b"peer/2", b"there")?.put(b"peer/1", b"here")?;
    /// engine.write(batch, Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!(region.get(b"peer/1").as_deref(), Some(&b"here"[..]));
    /// assert_eq!(region.scan(b"peer/").len(), 2); // sorted by key
    /// # Ok(()) }
    /// ```
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.with(|s| s.kv().get(key).cloned())
    }

    /// The metadata whose keys start with `prefix`, sorted by key, of one moment. For any range, in either
    /// order and piece by piece there is [`scan_range`](Region::scan_range).
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.with(|s| s.scan(prefix))
    }

    /// The region in figures.
    pub fn stats(&self) -> RegionStats {
        self.with(|s| RegionStats {
            entries: s.extents.iter().map(|e| e.count()).sum(),
            bytes: s.extents.iter().map(|e| e.bytes()).sum(),
            segments: s.extents.len() as u64,
            heap_bytes: s.heap_bytes() as u64,
        })
    }

    /// Whether the region's log is known to be all there. It looks nothing up: reads and the
    /// scrubber find damage.
    ///
    /// ```
    /// use raftwood::{Engine, Health, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// match engine.region(RegionId(7)).health() {
    ///     Health::Healthy => println!("the group starts"),
    ///     Health::Suspect { ranges } => println!("ask a replica for {ranges:?}"),
    ///     Health::Damaged { ranges, hard_state } => println!("{ranges:?}, and the vote: {hard_state:?}"),
    ///     other => println!("{other}"),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn health(&self) -> Health {
        self.with(RegionState::health)
    }

    /// What may be said to a peer that asks whether the entry is here. `DontHave` only when that is certain.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, Lookup, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Synced)?;
    /// let region = engine.region(RegionId(7));
    /// let term = region.term(1)?;
    /// assert_eq!(region.lookup(EntryId::new(term, 1)), Lookup::Have);
    /// assert_eq!(region.lookup(EntryId::new(term, 2)), Lookup::DontHave);
    /// # Ok(()) }
    /// ```
    pub fn lookup(&self, id: EntryId) -> Lookup {
        let (suspect, is_old) = self.with(|s| match s.damage.as_deref() {
            Some(d) => (d.suspect.covers(id.index), d.hard_state_lost),
            None => (false, false),
        });
        if !self.engine.store().dir.is_here() {
            return Lookup::Unknown;
        }
        match self.with(|s| s.term(self.id, id.index)) {
            // What is here may have been replaced since, in a log that forgot its end.
            Ok(TermAt::Term(term)) if term != id.term && is_old => Lookup::Unknown,
            Ok(TermAt::Term(term)) if term != id.term => Lookup::DontHave,
            Ok(TermAt::Term(_)) => match self.try_entry(id.index) {
                Ok(_) => Lookup::Have,
                Err(_) if planted(Bug::DamagedDenied) => Lookup::DontHave,
                Err(_) if suspect => Lookup::Unknown,
                Err(Failed::At(_, _, Unreadable::Wrong(_) | Unreadable::Lost(_))) => Lookup::HaveDamaged,
                Err(_) => Lookup::Unknown,
            },
            Ok(TermAt::Unavailable) if self.health() == Health::Healthy => Lookup::DontHave,
            Ok(TermAt::Unavailable | TermAt::Compacted) | Err(_) => Lookup::Unknown,
        }
    }

    /// Puts back a damaged entry from a replica. It is accepted only if it matches the length and checksum
    /// that were recorded when the entry was appended here, so a wrong peer cannot slip in another one.
    /// Durable on return; a crash before leaves the entry damaged as it was, or put back. An entry that is
    /// not damaged is left as it is.
    ///
    /// # Errors
    /// `InvalidArgument` when it does not match; `Compacted`, `Unavailable` as for reads.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, ErrorKind, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = Engine::open(dir.path())?;
    /// # let mut batch = engine.batch();
    /// # batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
    /// # engine.write(batch, Durability::Synced)?;
    /// // A replica that sends something else cannot slip it in.
    /// let region = engine.region(RegionId(7));
    /// assert!(region.repair(EntryId::new(1, 1), b"set x 9").is_err());
    /// assert_eq!(&region.entry(1)?.payload[..], b"set x 1");
    /// # Ok(()) }
    /// ```
    pub fn repair(&self, id: EntryId, payload: &[u8]) -> Result<()> {
        self.engine.store().check_process()?;
        upkeep::repair(self.engine.store(), self.id, id, payload)
    }

    /// A digest over index, term and payload of the entries of `range`, for replicas to compare. Every entry
    /// is read and verified. It is of the log at one moment, that of the call, whatever becomes of the log
    /// meanwhile: the segments that it is read from stay until it is done.
    ///
    /// # Errors
    /// As [`entries`](Region::entries).
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let other = tempfile::tempdir()?;
    /// let replicas = [Engine::open(dir.path())?, Engine::open(other.path())?];
    /// for engine in &replicas {
    ///     engine.append_next(RegionId(7), ["set x 1", "set x 2"], Durability::Synced)?;
    /// }
    /// let [here, there] = replicas.map(|engine| engine.region(RegionId(7)).checksum(1..=2));
    /// assert_eq!(here?, there?);
    /// # Ok(()) }
    /// ```
    pub fn checksum(&self, range: impl RangeBounds<u64>) -> Result<Digest> {
        self.engine.store().check_process()?;
        let (from, to) = bounds(&range, 0, u64::MAX);
        if from >= to {
            return Ok(Digest::default());
        }
        let parts = self.with(|s| view(self.id, s, &range, ReadLimit::NONE))?;
        let mut digest = Digest::default();
        for part in &parts {
            let mut from = part.first();
            while from <= part.last() {
                let to = part.last().min(from.saturating_add(DIGEST_ENTRIES - 1));
                let read = || read(self.id, &[part.stretch().part(from, to)], DIGEST_LIMIT, Source::AtHand);
                let entries = self.rescued(read, span).map_err(Failed::into_error)?;
                let Some(last) = entries.last() else { break };
                from = last.id.index + 1;
                entries.iter().for_each(|e| digest.add(self.id, e));
            }
        }
        Ok(digest)
    }
}

/// What a task reads on the spot is no more than this, and no further back than [`NEAR_SEGMENTS`].
const ON_THE_SPOT_BYTES: u64 = 256 << 10;

/// What lies so many segments before the one that is being written was written moments ago and is in memory.
const NEAR_SEGMENTS: u32 = 1;

/// The indexes of what was read.
#[allow(clippy::ptr_arg)] // it is handed to `rescued`, whose value is the vector
fn span(entries: &Vec<Entry>) -> Range<u64> {
    match (entries.first(), entries.last()) {
        (Some(a), Some(z)) => a.id.index..z.id.index + 1,
        _ => 0..0,
    }
}

/// How much of a log is read at once for a digest.
const DIGEST_LIMIT: ReadLimit = ReadLimit { bytes: 4 << 20, ..ReadLimit::NONE };
const DIGEST_ENTRIES: u64 = 4096;
