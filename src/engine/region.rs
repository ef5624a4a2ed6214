//! Reading one region.

use crate::engine::Engine;
use crate::engine::digest::Digest;
use crate::engine::report::{HardStateHealth, Health, Lookup, RegionStats};
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Loc;
use crate::index::{Extent, RegionState, TermAt};
use crate::planted::{Bug, planted};
use crate::purge;
use crate::recovery;
use crate::segment::{Segment, rebuild_footer};
use crate::types::{Entry, EntryId, LogState, ReadLimit, RegionId};
use bytes::Bytes;
use std::ops::{Bound, Range, RangeBounds, RangeInclusive};
use std::sync::Arc;

/// The name of one region of an engine, to read from. Cheap to make and to clone; it keeps no snapshot:
/// each call answers as of now.
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

    fn with<T>(&self, read: impl FnOnce(&RegionState) -> T) -> T {
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
        self.with(|s| s.extent(index).map(|e| e.segment().id))
    }

    /// Whether reading `from..to` is done in no time: about `bytes` at most, and nothing of it in a segment
    /// older than `oldest`. Looks nothing up.
    #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
    pub(crate) fn is_quick(&self, from: u64, to: u64, bytes: u64, oldest: u32) -> bool {
        self.with(|s| {
            let start = s.extents.partition_point(|e| e.last() < from);
            let mut sum = 0u128;
            s.extents[start..].iter().take_while(|e| e.first() < to).all(|e| {
                let share = e.last().min(to - 1) - e.first().max(from) + 1;
                sum += u128::from(e.bytes()) * u128::from(share) / u128::from(e.count());
                e.segment().id >= oldest && sum <= u128::from(bytes)
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
        self.with(|s| match s.term(self.id, index)? {
            TermAt::Term(term) => Ok(term),
            TermAt::Compacted => Err(self.compacted(s, index)),
            TermAt::Unavailable => Err(self.unavailable(s, index..=index)),
        })
    }

    /// One entry. Its payload borrows the segment when it is stored uncompressed.
    ///
    /// # Errors
    /// `Compacted`, `Unavailable`; `Damaged` if the bytes do not match the checksum that was taken
    /// when the entry was handed over.
    pub fn entry(&self, index: u64) -> Result<Entry> {
        self.rescued(
            || {
                let extent = self.with(|s| match s.extent(index) {
                    Some(e) => Ok(e.part(index, index)),
                    None if index < first_or_next(s) => Err(self.compacted(s, index)),
                    None => Err(self.unavailable(s, index..=index)),
                });
                let extent = extent.map_err(Failed::Plainly)?;
                self.read_one(&extent, index).map_err(|e| Failed::At(index, extent.segment().clone(), e))
            },
            |e| e.id.index..e.id.index + 1,
        )
    }

    fn read_one(&self, extent: &Extent, index: u64) -> Result<Entry> {
        let loc = extent.loc(self.id, index)?;
        let id = EntryId::new(extent.term(self.id, index)?, index);
        extent.segment().will_need(&[loc], 0);
        let payload = extent.segment().entry(self.id, id, loc)?;
        Ok(Entry { id, payload })
    }

    /// Tries `read`; where it meets damage that is new, rebuilds the segment's footer, which may have been
    /// what was wrong, and tries once more. What is still damaged then is noted, delivered to the listeners,
    /// and returned; what turns out to be right after all is forgotten.
    fn rescued<T>(
        &self,
        read: impl Fn() -> Result<T, Failed>,
        indexes: impl Fn(&T) -> Range<u64>,
    ) -> Result<T> {
        self.engine.store().check_process()?;
        let read = || read().map_err(|e| e.of(self.id));
        let (index, segment, mut error) = match read() {
            Ok(value) => {
                if self.with(|s| s.damage.is_some()) {
                    self.engine.store().forget_damage(self.id, indexes(&value));
                }
                return Ok(value);
            }
            Err(Failed::At(index, segment, e)) if e.kind() == ErrorKind::Damaged => (index, segment, e),
            Err(e) => return Err(e.into_error()),
        };
        match self.with(|s| s.damage.as_deref().map(|d| (d.covers(index), d.suspect.covers(index)))) {
            Some((_, true)) => {
                let doubtful = recovery::doubtful(self.id, index);
                return Err(match error.path() {
                    Some(path) => doubtful.at(path, error.offset()),
                    None => doubtful,
                });
            }
            Some((true, _)) => return Err(error),
            _ => {}
        }
        if segment.footer().is_some() && rebuild_footer(&segment).is_ok() {
            match read() {
                Ok(value) => return Ok(value),
                Err(e) => error = e.into_error(),
            }
        }
        // What was read may be no part of the log any more; then it says nothing of what stands at
        // the index now.
        if self.with(|s| s.extent(index).is_some_and(|e| e.segment().id == segment.id)) {
            self.engine.store().note_damage(self.id, index, &error);
        }
        Err(error)
    }

    /// The entries of `range` in order, at least one if there is any, no more than `limit` allows. A range
    /// without an end goes to the last entry.
    ///
    /// # Errors
    /// `Compacted` if the range starts at or below the compaction point, `Unavailable` if it reaches beyond
    /// the last entry; an empty range is fine up to one past the last. `Damaged` if any entry that would be
    /// returned is: the error names it, and those before and after it can be read.
    pub fn entries(&self, range: impl RangeBounds<u64>, limit: ReadLimit) -> Result<Vec<Entry>> {
        self.rescued(
            || {
                let parts = self.with(|s| self.view(s, &range, limit));
                self.read(&parts.map_err(Failed::Plainly)?, limit)
            },
            span,
        )
    }

    /// As [`entries`](Region::entries), but the range is cut to what is there instead of refused.
    pub fn entries_clamped(&self, range: impl RangeBounds<u64>, limit: ReadLimit) -> Result<Vec<Entry>> {
        self.rescued(
            || {
                let parts = self.with(|s| match (s.first(), s.last()) {
                    (Some(first), Some(last)) => {
                        let (from, to) = bounds(&range, first, last + 1);
                        self.parts(s, from.max(first), to.min(last + 1), limit)
                    }
                    _ => Vec::new(),
                });
                self.read(&parts, limit)
            },
            span,
        )
    }

    /// What a read of `range` needs, all of which has to be there.
    fn view(&self, s: &RegionState, range: &impl RangeBounds<u64>, limit: ReadLimit) -> Result<Vec<Extent>> {
        let first = first_or_next(s);
        let next = s.last().map_or_else(|| s.base.map_or(first, |b| b.index + 1), |l| l + 1);
        let (from, to) = bounds(range, first, next);
        if from < first {
            return Err(self.compacted(s, from));
        }
        if from > next || to > next {
            // Those that are missing, of an empty range that it starts too far out.
            let missing = from.max(next);
            return Err(self.unavailable(s, missing..=missing.max(to.saturating_sub(1))));
        }
        Ok(self.parts(s, from, to, limit))
    }

    /// What a read of `from..to` needs once the region's lock is released: copies of the extents that it
    /// touches, as far as `limit` may reach.
    fn parts(&self, s: &RegionState, from: u64, to: u64, limit: ReadLimit) -> Vec<Extent> {
        let mut out = Vec::new();
        if from >= to {
            return out;
        }
        let mut entries = entries_max(limit);
        let mut bytes = limit.bytes;
        let start = s.extents.partition_point(|e| e.last() < from);
        for e in &s.extents[start..] {
            if e.first() >= to || entries == 0 {
                break;
            }
            let a = e.first().max(from);
            let b = e.last().min(to - 1).min(a.saturating_add(entries - 1));
            // Locations on the heap are copied, so no more of them than the limit can use.
            let b = e.reach(a, b, bytes, limit.overhead);
            out.push(e.part(a, b));
            entries -= b - a + 1;
            bytes = bytes.saturating_sub(e.cost(a, b, limit.overhead));
            if bytes == 0 {
                break;
            }
        }
        out
    }

    fn read(&self, parts: &[Extent], limit: ReadLimit) -> Result<Vec<Entry>, Failed> {
        let mut out = Vec::new();
        for mut chunk in self.locate(parts, limit)? {
            let (extent, segment) = (chunk.extent, chunk.extent.segment());
            let failed = |index| move |e| Failed::At(index, segment.clone(), e);
            let mut spans = Spans { segment, at: 0, bytes: Bytes::new(), block: None };
            out.reserve(chunk.locs.len());
            for (i, loc) in chunk.locs.iter().enumerate() {
                if i == chunk.asked {
                    chunk.asked += segment.will_need(&chunk.locs[i..], ASKED_BYTES_MAX);
                }
                let index = extent.first() + i as u64;
                let id = EntryId::new(extent.term(self.id, index).map_err(failed(index))?, index);
                let bytes = spans.bytes(&chunk.locs[i..], *loc).map_err(failed(index))?;
                let payload = segment.verify(self.id, id, *loc, bytes).map_err(failed(index))?;
                out.push(Entry { id, payload });
            }
        }
        Ok(out)
    }

    /// Where the entries are that a read gives, as far as its limit goes; the first of them are
    /// asked for already.
    fn locate<'a>(&self, parts: &'a [Extent], limit: ReadLimit) -> Result<Vec<Chunk<'a>>, Failed> {
        let mut chunks = Vec::with_capacity(parts.len());
        let (mut entries, mut bytes) = (entries_max(limit), limit.bytes);
        let (mut is_first, mut to_ask) = (!planted(Bug::LimitOfZeroReadsNothing), ASKED_BYTES_MAX);
        for extent in parts {
            let want = entries.min(extent.count());
            if want == 0 {
                break;
            }
            let mut locs: Vec<Loc> = Vec::with_capacity(want.min(4096) as usize);
            extent
                .locs(self.id, extent.first(), extent.first() + (want - 1), |loc| locs.push(loc))
                .map_err(|e| Failed::At(extent.first(), extent.segment().clone(), e))?;
            let mut take = 0;
            for loc in &locs {
                let cost = u64::from(loc.len).saturating_add(limit.overhead);
                if cost > bytes && !is_first && !planted(Bug::LimitExceeded) {
                    break;
                }
                bytes = bytes.saturating_sub(cost);
                is_first = false;
                take += 1;
            }
            let full = take < locs.len();
            locs.truncate(take);
            entries -= take as u64;
            let asked = if to_ask > 0 { extent.segment().will_need(&locs, to_ask) } else { 0 };
            to_ask = to_ask.saturating_sub(locs[..asked].iter().map(|loc| u64::from(loc.len)).sum());
            chunks.push(Chunk { extent, locs, asked });
            if full {
                break;
            }
        }
        Ok(chunks)
    }

    /// The hard state as it was last set, as far as that is known. Before it is voted on,
    /// [`health`](Region::health) has to be looked at, or [`hard_state_or_lost`](Region::hard_state_or_lost)
    /// be asked instead: after damage it may be older than the one that was acknowledged.
    pub fn hard_state(&self) -> Option<Bytes> {
        self.with(|s| s.hard_state.as_ref().map(|value| Bytes::copy_from_slice(value.as_slice())))
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
            _ => Ok(s.hard_state.as_ref().map(|value| Bytes::copy_from_slice(value.as_slice()))),
        })
    }

    /// The value of a metadata key.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.with(|s| s.kv().get(key).cloned())
    }

    /// The metadata whose keys start with `prefix`, sorted by key.
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.with(|s| {
            s.kv()
                .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(|(k, _)| k.starts_with(prefix))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        })
    }

    /// The region in figures.
    pub fn stats(&self) -> RegionStats {
        self.with(|s| RegionStats {
            entries: s.extents.iter().map(Extent::count).sum(),
            bytes: s.extents.iter().map(Extent::bytes).sum(),
            segments: s.extents.len() as u64,
            heap_bytes: s.heap_bytes() as u64,
        })
    }

    /// Whether the region's log is known to be all there. It looks nothing up: reads and the
    /// scrubber find damage.
    pub fn health(&self) -> Health {
        self.with(|s| match &s.damage {
            None => Health::Healthy,
            Some(d) if d.proven.is_empty() && d.unread.is_empty() && !d.hard_state_lost => {
                Health::Suspect { ranges: d.suspect.clone().into_vec() }
            }
            Some(d) => Health::Damaged {
                ranges: d.unreadable().into_vec(),
                hard_state: match d.hard_state_lost {
                    true => HardStateHealth::Lost,
                    false => HardStateHealth::Known,
                },
            },
        })
    }

    /// What may be said to a peer that asks whether the entry is here. `DontHave` only when that is certain.
    pub fn lookup(&self, id: EntryId) -> Lookup {
        let suspect = self.with(|s| s.damage.as_deref().is_some_and(|d| d.suspect.covers(id.index)));
        match self.term(id.index) {
            Ok(term) if term != id.term => Lookup::DontHave,
            Ok(_) => match self.entry(id.index) {
                Ok(_) => Lookup::Have,
                Err(_) if planted(Bug::DamagedDenied) => Lookup::DontHave,
                Err(_) if suspect => Lookup::Unknown,
                Err(e) if e.kind() == ErrorKind::Damaged => Lookup::HaveDamaged,
                Err(_) => Lookup::Unknown,
            },
            Err(e) if e.kind() == ErrorKind::Unavailable && self.health() == Health::Healthy => {
                Lookup::DontHave
            }
            Err(_) => Lookup::Unknown,
        }
    }

    /// Puts back a damaged entry from a replica. It is accepted only if it matches the length and checksum
    /// that were recorded when the entry was appended here, so a wrong peer cannot slip in another one.
    /// Durable on return. An entry that is not damaged is left as it is.
    ///
    /// # Errors
    /// `InvalidArgument` when it does not match; `Compacted`, `Unavailable` as for reads.
    pub fn repair(&self, id: EntryId, payload: &[u8]) -> Result<()> {
        self.engine.store().check_process()?;
        purge::repair(self.engine.store(), self.id, id, payload)
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
        let view = self.with(|s| self.view(s, &range, ReadLimit::NONE))?;
        let mut digest = Digest::default();
        for extent in &view {
            let mut from = extent.first();
            while from <= extent.last() {
                let to = extent.last().min(from.saturating_add(DIGEST_ENTRIES - 1));
                let read = || match planted(Bug::DigestOfManyMoments) {
                    true => self.entries(from..=to, DIGEST_LIMIT).map_err(Failed::Plainly),
                    false => self.read(&[extent.part(from, to)], DIGEST_LIMIT),
                };
                let entries = self.rescued(read, span)?;
                let Some(last) = entries.last() else { break };
                from = last.id.index + 1;
                entries.iter().for_each(|e| digest.add(self.id, e));
            }
        }
        Ok(digest)
    }

    fn compacted(&self, s: &RegionState, index: u64) -> Error {
        let first = first_or_next(s);
        Error::new(
            ErrorKind::Compacted,
            format!("entry {index} is compacted: the first is {first}; ask for a snapshot"),
        )
        .in_region(self.id)
        .naming(index..=index)
    }

    fn unavailable(&self, s: &RegionState, indexes: RangeInclusive<u64>) -> Error {
        let last = s.last().or(s.base.map(|b| b.index));
        let last = last.map_or("the log is empty".to_string(), |l| format!("the last is {l}"));
        let (first, until) = (*indexes.start(), *indexes.end());
        let named = match first == until {
            true => format!("entry {first} is"),
            false => format!("entries {first}..={until} are"),
        };
        Error::new(ErrorKind::Unavailable, format!("{named} not there: {last}"))
            .in_region(self.id)
            .naming(indexes)
    }
}

/// From a range to a half-open one; an open end is the end of the log.
fn bounds(range: &impl RangeBounds<u64>, first: u64, next: u64) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&i) => i,
        Bound::Excluded(&i) => i.saturating_add(1),
        Bound::Unbounded => first,
    };
    let to = match range.end_bound() {
        Bound::Included(&i) => i.saturating_add(1),
        Bound::Excluded(&i) => i,
        Bound::Unbounded => next.max(from),
    };
    (from, to)
}

/// How many entries a read may give: at least one, also where the limit says none.
fn entries_max(limit: ReadLimit) -> u64 {
    limit.entries.max(u64::from(!planted(Bug::LimitOfZeroReadsNothing)))
}

/// The indexes of what was read.
#[allow(clippy::ptr_arg)] // it is handed to `rescued`, whose value is the vector
fn span(entries: &Vec<Entry>) -> Range<u64> {
    match (entries.first(), entries.last()) {
        (Some(a), Some(z)) => a.id.index..z.id.index + 1,
        _ => 0..0,
    }
}

/// Why a read failed, and where.
enum Failed {
    /// Nothing to be done about it.
    Plainly(Error),
    /// At this entry, in this segment.
    At(u64, Arc<Segment>, Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Failed::Plainly(e) | Failed::At(_, _, e) => e,
        }
    }

    /// The same, naming the entry.
    fn of(self, region: RegionId) -> Failed {
        match self {
            Failed::At(index, segment, e) => Failed::At(index, segment, e.of_entry(region, index)),
            plainly => plainly,
        }
    }
}

/// The first live index; in an empty log, the one that the next append would take.
fn first_or_next(s: &RegionState) -> u64 {
    s.first().unwrap_or_else(|| s.base.map_or(1, |b| b.index + 1))
}

/// Entries of one extent that a read gives.
struct Chunk<'a> {
    extent: &'a Extent,
    locs: Vec<Loc>,
    /// So many of them were asked for.
    asked: usize,
}

/// How much a read asks for ahead of what it looks at: enough to keep a device busy, and no more memory
/// than that is taken from others.
const ASKED_BYTES_MAX: u64 = 1 << 20;

/// Takes neighbouring entries out of one borrowed span, and entries of one compressed block out of one
/// decompression.
struct Spans<'a> {
    segment: &'a Arc<Segment>,
    at: u64,
    bytes: Bytes,
    block: Option<(u32, Bytes)>,
}

impl Spans<'_> {
    fn bytes(&mut self, ahead: &[Loc], loc: Loc) -> Result<Bytes> {
        let (pos, len) = (u64::from(loc.pos), loc.len as usize);
        if loc.is_raw() {
            if pos < self.at || pos + len as u64 > self.at + self.bytes.len() as u64 {
                let mut end = pos + u64::from(loc.len);
                for next in ahead.iter().skip(1) {
                    if !next.is_raw() || u64::from(next.pos) != end || end - pos > SPAN_BYTES_MAX {
                        break;
                    }
                    end += u64::from(next.len);
                }
                let span = u32::try_from(end - pos).unwrap_or(loc.len);
                self.bytes = match self.segment.bytes(loc.pos, span) {
                    // The error must be that of the entry that cannot be read.
                    Err(_) if span > loc.len => self.segment.bytes(loc.pos, loc.len)?,
                    read => read?,
                };
                self.at = pos;
            }
            let from = (pos - self.at) as usize;
            return Ok(self.bytes.slice(from..from + len));
        }
        if self.block.as_ref().is_none_or(|b| b.0 != loc.pos) {
            self.block = Some((loc.pos, self.segment.block(loc)?));
        }
        let block = self.block.as_ref().map_or_else(Bytes::new, |b| b.1.clone());
        self.segment.inside(&block, loc)
    }
}

/// How much of a log is read at once for a digest.
const DIGEST_LIMIT: ReadLimit = ReadLimit { bytes: 4 << 20, ..ReadLimit::NONE };
const DIGEST_ENTRIES: u64 = 4096;

/// Entries beyond this are not taken together: one that is kept for long would keep its neighbours'
/// memory too where reads are copies.
const SPAN_BYTES_MAX: u64 = 256 << 10;
