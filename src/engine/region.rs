//! Reading one region.

use crate::clock;
use crate::engine::Engine;
use crate::engine::digest::Digest;
use crate::error::{Error, Result};
use crate::index::{Part, RegionState, TermAt};
use crate::planted::{Bug, planted};
use crate::read::{Failed, Source, bounds, compacted, first_or_next, parts, read, term, unavailable, view};
use crate::recovery;
use crate::report::{Health, Lookup, RegionStats};
use crate::segment::{Unreadable, rebuild_footer};
use crate::sync::atomic::Ordering;
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
    pub(crate) fn new(engine: Engine, id: RegionId) -> Region {
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

    /// The segment that holds the entry, if it is live.
    #[cfg(feature = "raft-rs")]
    pub(crate) fn segment_of(&self, index: u64) -> Option<u32> {
        self.with(|s| s.extent(index).map(|e| e.segment_id()))
    }

    /// Whether reading `from..to` is done in no time: about `bytes` at most, and nothing of it in a segment
    /// older than `oldest`. Looks nothing up.
    #[cfg(any(feature = "openraft-09-bare", feature = "openraft-010-bare"))]
    pub(crate) fn is_quick(&self, from: u64, to: u64, bytes: u64, oldest: u32) -> bool {
        self.with(|s| {
            let mut sum = 0u128;
            s.extents.from(from).take_while(|e| e.first() < to).all(|e| {
                let share = e.last().min(to - 1) - e.first().max(from) + 1;
                sum += u128::from(e.bytes()) * u128::from(share) / u128::from(e.count());
                e.segment_id() >= oldest && sum <= u128::from(bytes)
            })
        })
    }

    /// The term of the entry at `index`. Answers for the compaction point too, forever, and with 0 for index
    /// 0 of a log that starts at 1. Never touches a payload.
    ///
    /// # Errors
    /// `Compacted` below the compaction point, `Unavailable` beyond the last entry.
    pub fn term(&self, index: u64) -> Result<u64> {
        self.engine.store().check_process()?;
        self.with(|s| term(self.id, s, index))
    }

    /// One entry. Its payload borrows the segment when it is stored uncompressed.
    ///
    /// # Errors
    /// `Compacted`, `Unavailable`; `Damaged` if the bytes do not match the checksum that was taken
    /// when the entry was handed over.
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
        part.segment().will_need(&[loc], 0);
        let payload = part.segment().entry(self.id, id, loc)?;
        Ok(Entry { id, payload })
    }

    /// A read with all that belongs to it: it is counted, or that it failed for what is on the disk. That an
    /// entry is not there is an answer, and neither.
    fn rescued<T>(
        &self,
        read: impl Fn() -> Result<T, Failed>,
        indexes: impl Fn(&T) -> Range<u64>,
    ) -> Result<T, Failed> {
        let store = self.engine.store();
        store.check_process().map_err(Failed::Plainly)?;
        let is_timed = store.reads.load(Ordering::Relaxed).is_multiple_of(READS_TO_ONE_TIMED);
        let began = is_timed.then(clock::now);
        let outcome = self.read_or_rescue(read, indexes);
        match &outcome {
            Ok(_) => {
                store.reads.fetch_add(1, Ordering::Relaxed);
                began.into_iter().for_each(|began| store.read_times.since(began));
            }
            Err(Failed::At(..)) => {
                store.read_errors.fetch_add(1, Ordering::Relaxed);
            }
            Err(Failed::Plainly(_)) => {}
        }
        outcome
    }

    /// Tries `read`; where it meets damage that is new, rebuilds the segment's footer, which may have been
    /// what was wrong, and tries once more. What is still damaged then is noted, delivered to the listeners,
    /// and returned; what turns out to be right after all is forgotten.
    fn read_or_rescue<T>(
        &self,
        read: impl Fn() -> Result<T, Failed>,
        indexes: impl Fn(&T) -> Range<u64>,
    ) -> Result<T, Failed> {
        let read = || read().map_err(|e| e.of(self.id));
        let (index, segment, mut error) = match read() {
            Ok(value) => {
                if self.with(|s| s.damage.is_some()) {
                    self.engine.store().forget_damage(self.id, indexes(&value));
                }
                return Ok(value);
            }
            Err(Failed::At(index, segment, e @ (Unreadable::Wrong(_) | Unreadable::Lost(_)))) => {
                (index, segment, e)
            }
            Err(e) => return Err(e),
        };
        match self.with(|s| s.damage.as_deref().map(|d| (d.covers(index), d.suspect.covers(index)))) {
            Some((_, true)) => {
                let (doubtful, error) = (recovery::doubtful(self.id, index), error.error());
                let doubtful = match error.path() {
                    Some(path) => doubtful.at(path, error.offset()),
                    None => doubtful,
                };
                return Err(Failed::At(index, segment, Unreadable::Wrong(doubtful)));
            }
            Some((true, _)) => return Err(Failed::At(index, segment, error)),
            _ => {}
        }
        if segment.footer().is_some() && rebuild_footer(&segment).is_ok() {
            self.engine.store().read_retries.fetch_add(1, Ordering::Relaxed);
            match read() {
                Ok(value) => return Ok(value),
                Err(Failed::At(_, _, e)) => error = e,
                Err(plainly) => return Err(plainly),
            }
        }
        // What was read may be no part of the log any more; then it says nothing of what stands at
        // the index now.
        if self.with(|s| s.extent(index).is_some_and(|e| e.segment().id == segment.id)) {
            self.engine.store().note_damage(self.id, index, &error);
        }
        Err(Failed::At(index, segment, error))
    }

    /// The entries of `range` in order, at least one if there is any, no more than `limit` allows. A range
    /// without an end goes to the last entry.
    ///
    /// # Errors
    /// `Compacted` if the range starts at or below the compaction point, `Unavailable` if it reaches beyond
    /// the last entry; an empty range is fine up to one past the last. `Damaged` if any entry that would be
    /// returned is: the error names it, and those before and after it can be read.
    pub fn entries(&self, range: impl RangeBounds<u64>, limit: ReadLimit) -> Result<Vec<Entry>> {
        let read = || {
            let parts = self.with(|s| view(self.id, s, &range, limit));
            read(self.id, &parts.map_err(Failed::Plainly)?, limit, Source::AtHand)
        };
        self.rescued(read, span).map_err(Failed::into_error)
    }

    /// As [`entries`](Region::entries), but the range is cut to what is there instead of refused.
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

    /// The hard state as it was last set, as far as that is known. Before it is voted on,
    /// [`health`](Region::health) has to be looked at, or [`hard_state_or_lost`](Region::hard_state_or_lost)
    /// be asked instead: after damage it may be older than the one that was acknowledged.
    pub fn hard_state(&self) -> Option<Bytes> {
        self.with(|s| s.hard_state_bytes())
    }

    /// The hard state as it was last set, and never an older one.
    ///
    /// # Errors
    /// `Damaged` when a newer one may have been lost: the region must not vote until it has set one again.
    pub fn hard_state_or_lost(&self) -> Result<Option<Bytes>> {
        self.engine.store().check_process()?;
        self.with(|s| match &s.damage {
            Some(d) if d.hard_state_lost => Err(Error::damaged(
                "the newest hard state may have been lost with the end of the log: the region must not vote; \
                 set the one that is known from elsewhere, or let the region join anew",
            )
            .in_region(self.id)),
            _ => Ok(s.hard_state_bytes()),
        })
    }

    /// The value of a metadata key.
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
    pub fn health(&self) -> Health {
        self.with(RegionState::health)
    }

    /// What may be said to a peer that asks whether the entry is here. `DontHave` only when that is certain.
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
    /// Durable on return. An entry that is not damaged is left as it is.
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

/// Two looks at the clock are a tenth of a short read, so one in so many is timed.
const READS_TO_ONE_TIMED: u64 = 16;

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
