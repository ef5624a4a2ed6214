//! Looking at a store without opening it for writing.

use crate::clock;
use crate::engine::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Loc;
use crate::format::file_header::SegmentKind;
use crate::index::RegionState;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::read::{Failed, Source, doubtful, read, term, view};
use crate::recovery::{Purpose, Recovered, Unrecovered, recover};
use crate::report::{Health, OpenReport};
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{Segment, footer_name};
use crate::types::{Entry, EntryId, LogState, Lsn, ReadLimit, RegionId};
use crate::vfs::Dir;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A store as its files show it at the moment of opening. It holds no lock and has changed nothing.
///
/// It may stand beside a running engine, which knows nothing of it and gives files back while it looks: what
/// they held is then gone for this reader, and a read says so ([`Locked`](ErrorKind::Locked)); opening
/// another one shows what is there now. Payloads are copied out of the files and verified after the copy:
/// neither bytes that were overwritten meanwhile nor a file that was shortened get through to the caller.
///
/// It shows what the files say is on the device, and stops there. Of a running engine that is what was
/// durable when its last group was written, or all of it once it has been idle for a quarter of a second; of
/// one that was killed, an open may keep more.
///
/// With [`Options::show_unproven`] it goes on past [`LogState::durable`]: a power cut may take that, and it
/// may have been acknowledged to nobody. The log ends before the first record of these of which only a part
/// is in the file: a crash tore it, or it was on its way while this looked. One that is wrong for no such
/// reason is kept, and its entries are [`Suspect`](Health::Suspect), as an open would do.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use raftwood::{Durability, EntryId, Options, ReadLimit, RegionId};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Options::new().open(dir.path())?;
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x"[..])])?;
/// engine.write(batch, Durability::Synced)?;
///
/// // Here or in another process, while the engine runs.
/// let reader = Options::new().open_read_only(dir.path())?;
/// let entries = reader.entries(RegionId(7), 1.., ReadLimit::NONE)?;
/// assert_eq!(entries[0].payload, "set x");
/// # Ok(())
/// # }
/// ```
pub struct Reader {
    pub(super) dir: Dir,
    pub(super) options: Options,
    pub(super) state: Recovered,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir.path()).finish_non_exhaustive()
    }
}

/// Recovers beside an engine that may be running. It gives files back meanwhile: what looks missing or wrong
/// is looked at again as long as names changed. What is truly wrong says the same at every look; what a purge
/// made of it says something else each time.
pub(super) fn recover_beside(
    dir: &Dir,
    options: &Options,
    purpose: Purpose,
) -> Result<Option<Recovered>, Unrecovered> {
    let began = clock::now();
    let mut before = names(dir)?;
    let mut last = String::new();
    let mut alike = 0;
    loop {
        let found = recover(dir, options, purpose);
        let Some(complaint) = complaint(&found) else { return found };
        alike = if complaint == last { alike + 1 } else { 1 };
        if alike == ALIKE_MAX || planted(Bug::ReaderLooksOnce) {
            return found;
        }
        let now = names(dir)?;
        if now == before {
            return found;
        }
        if clock::since(began) > LOOK_AT_MOST {
            let says = "the engine that has this store open gives files back faster than they can be read: look again when it does less";
            return Err(Error::new(ErrorKind::Locked, says).at(dir.path(), None).into());
        }
        (before, last) = (now, complaint);
    }
}

/// What is wrong with what a look found, if something is.
fn complaint(found: &Result<Option<Recovered>, Unrecovered>) -> Option<String> {
    match found {
        Ok(Some(state)) if state.report.damage.is_empty() && state.report.bad_checkpoints == 0 => None,
        Ok(Some(state)) => Some(format!("{:?} {}", state.report.damage, state.report.bad_checkpoints)),
        Ok(None) => Some(String::from("no store")),
        Err(e) => Some(format!("{:?}", e.error())),
    }
}

/// A complaint that as many looks in a row make is not made by files that come and go.
const ALIKE_MAX: u32 = 3;

/// A look of a slow reader may well meet a purge each time: a bound by time lets it try as often as it takes.
const LOOK_AT_MOST: Duration = Duration::from_secs(30);

/// The names in the directory. A number is given once: a name that is still there stands for the same file.
pub(super) fn names(dir: &Dir) -> Result<BTreeSet<String>> {
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    Ok(entries.into_iter().map(|e| e.name).collect())
}

/// One segment of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number.
    pub id: u32,
    /// Whether the cleaner made it.
    pub cold: bool,
    /// Length of its file.
    pub bytes: u64,
    /// Bytes up to the end of its records.
    pub used_bytes: u64,
    /// Entries that are live.
    pub live_entries: u64,
    /// Their payload bytes; an estimate for trimmed ranges.
    pub live_bytes: u64,
    /// Entries that its footer lists, dead ones included.
    pub listed_entries: u64,
}

/// One region of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RegionInfo {
    /// Its id.
    pub id: RegionId,
    /// Its log.
    pub log: LogState,
    /// Live entries.
    pub entries: u64,
    /// Their payload bytes; an estimate for trimmed ranges.
    pub bytes: u64,
    /// Segments that hold some of them.
    pub segments: u64,
    /// The oldest of these: how far back its log reaches.
    pub oldest_segment: Option<u32>,
    /// Bytes of the files of segments in which nothing lives but entries of this region: what it keeps by
    /// itself, and a compaction of it would give back.
    pub pinned_bytes: u64,
}

/// What segments take that hold nothing else.
fn pinned_bytes(s: &RegionState) -> u64 {
    let mut own: BTreeMap<u32, (u64, Arc<Segment>)> = BTreeMap::new();
    for extent in s.extents.iter() {
        own.entry(extent.segment_id()).or_insert_with(|| (0, extent.segment().into_owned())).0 +=
            extent.count();
    }
    let alone = own.values().filter(|(entries, segment)| *entries == segment.live.entries());
    alone.map(|(_, segment)| segment.len).sum()
}

impl Reader {
    pub(crate) fn open_with(dir: &Path, options: Options) -> Result<Reader> {
        let opened = options.vfs.open_dir(dir).map_err(|e| Error::io("opening the directory", dir, e))?;
        let opened = Dir::new(opened, dir);
        let purpose = if options.show_unproven { Purpose::Inspect } else { Purpose::InspectDurable };
        match recover_beside(&opened, &options, purpose)? {
            Some(state) => Ok(Reader { dir: opened, options, state }),
            None => Err(Error::invalid("there is no store in this directory").at(dir, None)),
        }
    }

    /// What was found.
    pub fn report(&self) -> &OpenReport {
        &self.state.report
    }

    /// Where what it shows of the log ends.
    pub fn end(&self) -> Lsn {
        self.state.end()
    }

    /// Up to where the log is known to be on the device.
    pub fn durable(&self) -> Lsn {
        self.state.durable
    }

    /// Where the whole records end that stand in the files. What is past [`durable`](Self::durable) is shown
    /// with [`Options::show_unproven`] only.
    pub fn written(&self) -> Lsn {
        let found = self.state.report.trail.segments.iter().filter(|s| s.in_log && s.end > FIRST_RECORD);
        found.map(|s| Lsn::new(s.id, s.end)).max().unwrap_or(Lsn::ZERO).max(self.end())
    }

    /// The segments, by number.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, Options, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b"], Durability::Synced)?;
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// let (segments, regions) = (reader.segments(), reader.regions());
    /// assert_eq!((segments[0].live_entries, regions[0].entries), (2, 2));
    /// assert!(reader.end() >= engine.durable_lsn());
    /// # Ok(()) }
    /// ```
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.state.segments.values();
        segments
            .map(|s| SegmentInfo {
                id: s.id,
                cold: s.kind == SegmentKind::Cold,
                bytes: s.len,
                used_bytes: u64::from(s.sealed_end()),
                live_entries: s.live.entries(),
                live_bytes: s.live.bytes(),
                listed_entries: s.footer().map_or(0, |f| f.entry_count()),
            })
            .collect()
    }

    /// The regions that exist, sorted.
    pub fn regions(&self) -> Vec<RegionInfo> {
        let info = |id: RegionId, s: &RegionState| RegionInfo {
            id,
            log: self.log_state(id, s),
            entries: s.extents.iter().map(|e| e.count()).sum(),
            bytes: s.extents.iter().map(|e| e.bytes()).sum(),
            segments: s.extents.len() as u64,
            oldest_segment: s.extents.iter().map(|e| e.segment_id()).min(),
            pinned_bytes: pinned_bytes(s),
        };
        let cells = self.state.table.cells();
        let mut all: Vec<RegionInfo> = cells
            .filter_map(|c| {
                let s = c.read();
                s.exists.then(|| info(c.id, &s))
            })
            .collect();
        all.sort_by_key(|r| r.id);
        all
    }

    fn with<T>(&self, region: RegionId, look: impl FnOnce(&RegionState) -> T) -> T {
        match self.state.table.get(region) {
            Some(cell) => look(&cell.read()),
            None => look(&RegionState::default()),
        }
    }

    /// Base, first and last index of a region, and how far its log is known to be on the device; its base
    /// counts as that. A region that does not exist has an empty log.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, Options, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append_next(["a"], 0)?.set_hard_state(b"term 1")?.put(b"k", b"v")?;
    /// engine.write(batch, Durability::Synced)?;
    /// engine.append_next(RegionId(7), ["b"], Durability::Written)?;
    ///
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// assert_eq!(reader.state(RegionId(7)).last, 1);
    /// // A power cut may take the second.
    /// let reader = Options::new().show_unproven(true).open_read_only(dir.path())?;
    /// let log = reader.state(RegionId(7));
    /// assert_eq!((log.last, log.durable), (2, 1));
    /// assert_eq!(reader.hard_state(RegionId(7)).as_deref(), Some(&b"term 1"[..]));
    /// assert_eq!(reader.get(RegionId(7), b"k").as_deref(), Some(&b"v"[..]));
    /// # Ok(()) }
    /// ```
    pub fn state(&self, region: RegionId) -> LogState {
        self.with(region, |s| self.log_state(region, s))
    }

    fn log_state(&self, region: RegionId, s: &RegionState) -> LogState {
        let state = s.log_state(region, Lsn::ZERO);
        LogState {
            durable: self.durable_index(region, s).unwrap_or(state.base.map_or(0, |b| b.index)),
            ..state
        }
    }

    /// The last entry that is known to be on the device: a segment that is sealed is, and of the others what
    /// stands before the durable position.
    fn durable_index(&self, region: RegionId, s: &RegionState) -> Option<u64> {
        let durable = self.state.durable;
        for extent in s.extents.iter().rev() {
            let segment = extent.segment();
            let is_open = segment.id >= durable.segment()
                && self.state.unfinished.unsealed.iter().any(|u| u.id == segment.id);
            if !is_open || planted(Bug::UnprovenIsDurable) {
                return Some(extent.last());
            }
            let mut before = 0;
            let count = |loc: Loc| before += u64::from(Lsn::new(segment.id, loc.pos) < durable);
            // Where the index cannot be read, nothing of it is known.
            if extent.locs_from_file(region, extent.first(), extent.last(), count).is_ok() && before > 0 {
                return Some(extent.first() + before - 1);
            }
        }
        None
    }

    /// The term of an entry, or of the compaction point. Touches no payload.
    ///
    /// # Errors
    /// As [`Region::term`](crate::Region::term).
    ///
    /// [`entries`](Reader::entries) shows it.
    pub fn term(&self, region: RegionId, index: u64) -> Result<u64> {
        self.with(region, |s| term(region, s, index))
    }

    /// One entry, copied out of its file and verified.
    ///
    /// # Errors
    /// As for [`entries`](Reader::entries).
    ///
    /// ```
    /// use raftwood::{Durability, Engine, Options, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b"], Durability::Synced)?;
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// assert_eq!(reader.entry(RegionId(7), 2)?.payload, "b");
    /// # Ok(()) }
    /// ```
    pub fn entry(&self, region: RegionId, index: u64) -> Result<Entry> {
        let found = self.entries(region, index..=index, ReadLimit::NONE)?;
        let missing = || Error::new(ErrorKind::Unavailable, format!("entry {index} is not there"));
        found.into_iter().next().ok_or_else(|| missing().in_region(region).naming(index..=index))
    }

    /// The entries of `range` in order, at least one if there is any, no more than `limit` allows. Each is
    /// copied out of its file and verified after the copy. A range without an end goes to the last entry.
    ///
    /// # Errors
    /// `Compacted`, `Unavailable` as for [`Region::entries`](crate::Region::entries); `Damaged` names the
    /// entry that is wrong, and those before and after it can be read; `Locked` when the engine beside gave
    /// the file back since this reader was opened: another one shows what is there now.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, Options, ReadLimit, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["a", "b", "c"], Durability::Synced)?;
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// for region in reader.regions() {
    ///     let log = region.log;
    ///     let entries = reader.entries(region.id, log.first..=log.last, ReadLimit::bytes(1 << 20))?;
    ///     assert_eq!((entries.len(), reader.term(region.id, log.last)?), (3, 0));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn entries(
        &self,
        region: RegionId,
        range: impl RangeBounds<u64>,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>> {
        let parts = self.with(region, |s| view(region, s, &range, limit))?;
        read(region, &parts, limit, Source::File).map_err(|e| self.explained(region, e.of(region)))
    }

    /// The digest that [`Region::checksum`](crate::Region::checksum) gives of the same entries, from the
    /// checksums that stand in the index: what was appended, and not what stands in the files now. No payload
    /// is read, so that two replicas of a log are compared for the price of their indexes.
    ///
    /// # Errors
    /// As for [`entries`](Reader::entries).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use raftwood::{Durability, EntryId, Options, RegionId};
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = Options::new().open(dir.path())?;
    /// # let mut batch = engine.batch();
    /// # batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x"[..])])?;
    /// # engine.write(batch, Durability::Synced)?;
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// assert_eq!(reader.digest(RegionId(7), 1..=1)?, engine.region(RegionId(7)).checksum(1..=1)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn digest(&self, region: RegionId, range: impl RangeBounds<u64>) -> Result<Digest> {
        let parts = self.with(region, |s| view(region, s, &range, ReadLimit::NONE))?;
        let mut digest = Digest::default();
        for part in &parts {
            let (stretch, mut sums) = (part.stretch(), Vec::new());
            let failed = |index, e| Failed::At(index, part.segment().clone(), e).of(region);
            let found = stretch
                .locs_from_file(region, part.first(), part.last(), |loc| sums.push((loc.len, loc.crc)));
            found.map_err(|e| self.explained(region, failed(part.first(), e)))?;
            for (index, (len, crc)) in (part.first()..).zip(sums) {
                let term = stretch.term(region, index);
                let term = term.map_err(|e| self.explained(region, failed(index, e)))?;
                digest.add_sum(EntryId::new(term, index), u64::from(len), crc);
            }
        }
        Ok(digest)
    }

    /// Why a read failed: where an engine gives files back, nothing is wrong with any entry.
    fn explained(&self, region: RegionId, failed: Failed) -> Error {
        let (index, segment, error) = match failed {
            Failed::Plainly(e) => return e,
            Failed::At(index, segment, e) => (index, segment, Error::from(e)),
        };
        // A file has another name before it is overwritten: one that still has this name holds its records.
        // Its footer goes with it; a segment that was found without one has its index on the heap.
        let is_open = || self.state.unfinished.unsealed.iter().any(|u| u.id == segment.id);
        let has_footer = |names: &BTreeSet<String>| is_open() || names.contains(&footer_name(segment.id));
        let gone = names(&self.dir).is_ok_and(|n| !n.contains(&segment.name()) || !has_footer(&n));
        if gone && !planted(Bug::ReaderTrustsItsFiles) {
            let says = "the engine that has this store open gave the file back since this look began: open the store once more";
            let lost = Error::new(ErrorKind::Locked, says).in_region(region).naming(index..=index);
            return lost.at(&segment.path, None);
        }
        match self.with(region, |s| s.damage.as_deref().is_some_and(|d| d.suspect.covers(index))) {
            true => doubtful(region, index).at(&segment.path, error.offset()),
            false => error,
        }
    }

    /// The hard state as it was last set, as far as that is known: [`health`](Reader::health) says whether a
    /// newer one may have been lost.
    pub fn hard_state(&self, region: RegionId) -> Option<Bytes> {
        self.with(region, RegionState::hard_state_bytes)
    }

    /// The value of a metadata key.
    pub fn get(&self, region: RegionId, key: &[u8]) -> Option<Bytes> {
        self.with(region, |s| s.kv().get(key).cloned())
    }

    /// The metadata whose keys start with `prefix`, sorted by key.
    pub fn scan(&self, region: RegionId, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.with(region, |s| s.scan(prefix))
    }

    /// Whether a region's log is known to be all there. It reads no entry: reads, and
    /// [`check`](Options::check), find damage.
    pub fn health(&self, region: RegionId) -> Health {
        self.with(region, RegionState::health)
    }
}
