//! A store out of a copy of one, under a name of its own.
//!
//! A copy is not the replica: since it was made, the replica has voted and has acknowledged entries.
//! Therefore what is restored gets a store id that no file of the old store verifies under, and knows of
//! every region that its newest hard state is lost, until the application sets one.
//!
//! ```text
//!  MARK of run 0 ──▶ cold segments, footers ──▶ checkpoint
//!  "there is more"    entries, re-read            from here on it is a store
//! ```
//!
//! - The mark comes first and says that there was a log. Without a checkpoint such a directory is refused, so
//!   no part of a store is mistaken for an empty one.
//! - No run has number 0: by such a mark a second attempt knows what the first left, and removes that alone.
//! - The checkpoint comes last, when all else is durable and was read back.

use super::open::new_store_id;
use super::store_lock::StoreLock;
use crate::checkpoint::write_checkpoint_of;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{CheckpointHeader, SegmentRecord};
use crate::format::file_header::{Identity, SegmentKind, StoreId};
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::index::{Part, Table};
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::recovery::{Purpose, Recovered, recover};
use crate::report::{CheckReport, Progress, RestoreOptions, RestoreReport, ScrubOptions};
use crate::segment::factory::SegmentFactory;
use crate::segment::mark_file::{MarkFile, Rest, read_marks};
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{Segment, Unreadable, Unwritten};
use crate::types::{EntryId, Lsn, RegionId};
use crate::upkeep::{ColdWriter, write_cold_of};
use crate::vfs::Dir;
use std::path::Path;
use std::sync::Arc;

/// The number of the first checkpoint.
const FIRST_CHECKPOINT: u32 = 1;

/// The run that a mark names before any run of an engine.
const NO_RUN: u32 = 0;

impl Options {
    /// Makes a store in `to` of the copy of one in `from`, which is verified first and not changed. `to` is
    /// made, or is empty, or holds what an earlier call left that did not come to its end.
    ///
    /// **A copy is not the replica.** Since it was made the replica has voted and has acknowledged entries,
    /// and its peers count on that. The new store therefore has an id of its own, and every hard state in it
    /// is [lost](crate::HardStateHealth::Lost): [`hard_state_or_lost`](crate::Region::hard_state_or_lost) and
    /// the adapters refuse it, and [`lookup`](crate::Region::lookup) denies no entry. Let each region join
    /// its group under a new peer id and [set the hard state](crate::RegionBatch::set_hard_state) of that
    /// peer, which ends this. Where all members of all groups are restored together, say so with
    /// [`RestoreOptions::whole_cluster`].
    ///
    /// The entries are copied, sorted by region; nothing is shared with the copy. The new store is durable on
    /// return. `progress` is called again and again, on this thread. A call
    /// that failed or was cut short by a crash leaves no store: opening the directory is refused, unless
    /// nothing was in it yet, and calling again starts over. It needs about as much space as the entries have
    /// bytes.
    ///
    /// # Errors
    /// `Damaged` where anything in the copy is wrong: nothing is made then, repair the copy first.
    /// `InvalidArgument` where there is no store, where the copy was opened and not closed since, or if there
    /// is something else in `to`; `Locked` if an engine has either open; `Unsupported`, `NoSpace`, `Io`.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, Options, RegionId, RestoreOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let (store, copy, new) = (dir.path().join("store"), dir.path().join("copy"), dir.path().join("new"));
    /// let engine = Engine::open(store)?;
    /// let mut batch = engine.batch();
    /// let mut region = batch.region(RegionId(7));
    /// region.append([(EntryId::new(1, 1), &b"set x 1"[..])])?.set_hard_state(b"term 1, voted for 3")?;
    /// engine.write(batch, Durability::Synced)?;
    /// engine.backup(&copy)?;
    ///
    /// Options::new().restore(&copy, &new, &RestoreOptions::default(), |_| {})?;
    /// let engine = Engine::open(new)?;
    /// let region = engine.region(RegionId(7));
    /// assert_eq!(&region.entry(1)?.payload[..], b"set x 1");
    /// assert!(region.hard_state_or_lost().is_err(), "it may have voted since");
    /// // The group has taken it in as peer 9.
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).set_hard_state(b"term 1, no vote, peer 9")?;
    /// engine.write(batch, Durability::Synced)?;
    /// assert!(region.hard_state_or_lost().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn restore(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        how: &RestoreOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<RestoreReport> {
        self.validate()?;
        let (from, to) = (from.as_ref(), to.as_ref());
        let opened = self.vfs.open_dir(from);
        let source = &Dir::new(opened.map_err(|e| Error::io("opening the directory", from, e))?, from);
        let in_use = || {
            let says = "an engine has the copy open: close it, or copy the store with Engine::backup first";
            Error::new(ErrorKind::Locked, says).at(from, None)
        };
        let _untouched = StoreLock::shared(source)?.ok_or_else(in_use)?;
        let mut state = self.look_at_copy(source)?;
        let live: u64 = parts(&state.table).iter().map(|(_, part)| part.bytes()).sum();
        let mut checked = 0;
        let found = self.check(from, &ScrubOptions::default().rate_bytes(0), |p| {
            checked = p.total_bytes;
            progress(Progress { total_bytes: checked + live, ..p });
        })?;
        judge(&found, from)?;

        let opened = self.vfs.create_dir_all(to);
        let dir = Dir::new(opened.map_err(|e| Error::io("creating the directory of the store", to, e))?, to);
        let _ours = StoreLock::exclusive(&dir)?;
        let place = Place::prepare(self, dir, &mut state)?;
        let mut copied = |bytes: u64| {
            progress(Progress { done_bytes: checked + bytes.min(live), total_bytes: checked + live })
        };
        let report = place.fill(self, state, how, &mut copied)?;
        copied(live);
        Ok(report)
    }

    fn look_at_copy(&self, source: &Dir) -> Result<Recovered> {
        let state = recover(source, self, Purpose::Inspect)?;
        state.ok_or_else(|| Error::invalid("there is no store in this directory").at(source.path(), None))
    }
}

/// Refuses a copy that is not as it was made.
fn judge(found: &CheckReport, from: &Path) -> Result<()> {
    if found.torn_bytes > 0 {
        let says = "the copy was opened since it was made, and not closed: open it and close it, and restore it then";
        return Err(Error::invalid(says).at(from, None));
    }
    let wrong = [&found.refusals, &found.damage, &found.suspects];
    let count: usize = wrong.iter().map(|errors| errors.len()).sum();
    let Some(first) = wrong.into_iter().flatten().next() else { return Ok(()) };
    let says = format!(
        "the copy is not whole, and nothing was restored: `raftwood check` lists what is wrong, of which there is {count}, and \
         `raftwood repair --from-replica` may mend it; the first"
    );
    Err(Error::damaged(says).at(from, None).caused_by(first.clone()))
}

/// What lives in a store, sorted by region and index.
fn parts(table: &Table) -> Vec<(RegionId, Part)> {
    let mut parts = Vec::new();
    for cell in table.cells() {
        let state = cell.read();
        parts.extend(state.extents.iter().map(|e| (cell.id, e.whole())));
    }
    parts.sort_by_key(|(region, part)| (*region, part.first()));
    parts
}

/// Where a store is being made.
struct Place {
    dir: Dir,
    store: StoreId,
    /// The first number for its files.
    first_file: u32,
    started_over: bool,
}

impl Place {
    /// Makes the directory one that is no store and does not become one by itself.
    fn prepare(options: &Options, dir: Dir, state: &mut Recovered) -> Result<Place> {
        let entries = dir.list();
        let entries = entries.map_err(|e| Error::io("listing the directory of the store", dir.path(), e))?;
        let mark = read_marks(&dir)?.into_iter().find(|mark| mark.run == NO_RUN);
        let mut leftovers = Vec::new();
        for entry in entries {
            match FileName::parse(&entry.name) {
                Some(FileName::Lock | FileName::Mark) => {}
                Some(FileName::Cold(_) | FileName::Footer(_) | FileName::Temp(_)) if mark.is_some() => {
                    leftovers.push(entry.name);
                }
                None if entry.name == CHECKPOINT_TEMP && mark.is_some() => leftovers.push(entry.name),
                _ => {
                    let says = format!(
                        "the directory of the store is not empty: it has {}; name another one",
                        entry.name
                    );
                    return Err(Error::invalid(says).at(dir.path(), None));
                }
            }
        }
        // The name that the first attempt chose belongs to no other store, and salts are drawn anew.
        let store = mark.as_ref().map_or_else(|| new_store_id(options), |mark| mark.store);
        let marked = mark.as_ref().map_or(0, |mark| mark.durable.segment());
        let first_file = state.run.number.max(marked.saturating_add(1)).max(2);
        let place = Place { store, first_file, started_over: mark.is_some(), dir };
        for name in &leftovers {
            let removed = place.dir.remove(name);
            removed.map_err(|e| Error::io("removing a leftover", &place.dir.join(name), e))?;
        }
        if mark.is_none() && !planted(Bug::RestoreNotMarked) {
            // It lies before all of the log that there will be.
            let durable = Lsn::new(first_file - 1, FIRST_RECORD);
            MarkFile::new(place.dir.clone(), store, NO_RUN, &[])
                .note_twice(Rest { durable, ..Rest::default() }, || {})?;
        }
        place.sync_dir()?;
        Ok(place)
    }

    /// Copies everything, reads it back, and makes it a store.
    fn fill(
        &self,
        options: &Options,
        state: Recovered,
        how: &RestoreOptions,
        mut progress: impl FnMut(u64),
    ) -> Result<RestoreReport> {
        let table = &state.table;
        let factory = SegmentFactory::new(&self.dir, options, self.store, self.first_file);
        let sources: Vec<u32> = state.segments.keys().copied().collect();
        let mut report = RestoreReport { started_over: self.started_over, ..RestoreReport::default() };
        let mut left = Left { parts: parts(table), at: 0, next: None };
        let mut colds: Vec<Arc<Segment>> = Vec::new();
        while !left.is_empty() {
            let bytes = left.bytes().min(options.segment_bytes);
            let written = write_cold_of(&factory, bytes, |w| {
                left.fill(w, options.segment_bytes, &mut report, &mut progress)
            })?;
            let Some((cold, _)) = written else { break };
            table.relocate(&cold, &sources);
            colds.push(cold);
        }
        read_back(table, &colds)?;
        for cell in table.cells() {
            let mut region = table.change(&cell);
            if !region.exists {
                continue;
            }
            if !how.whole_cluster && !planted(Bug::RestoredVotesBelieved) {
                region.lose_hard_state(Lsn::new(self.first_file - 1, 0));
            }
            report.regions += 1;
            report.hard_states_lost +=
                u64::from(region.damage.as_deref().is_some_and(|damage| damage.hard_state_lost));
        }
        self.sync_dir()?;
        report.segments = colds.len() as u64;
        write_checkpoint_of(&self.dir, self.header(options, &factory, &colds), table)?;
        Ok(report)
    }

    /// Replay starts past all segments, and no run before is known to have ended well.
    fn header(
        &self,
        options: &Options,
        factory: &SegmentFactory,
        colds: &[Arc<Segment>],
    ) -> CheckpointHeader {
        let next_file = factory.next_file();
        let record = |s: &Arc<Segment>| SegmentRecord {
            id: s.id,
            kind: SegmentKind::Cold,
            salt: s.identity.salt,
            sealed_end: s.sealed_end(),
        };
        CheckpointHeader {
            identity: Identity { store: self.store, file: FIRST_CHECKPOINT, salt: options.salts.next() },
            start_segment: next_file,
            synced: Lsn::ZERO,
            next_file,
            unclean_before: Some(next_file),
            regions: 0,
            segments: colds.iter().map(record).collect(),
        }
    }

    fn sync_dir(&self) -> Result<()> {
        let synced = self.dir.sync();
        synced.map_err(|e| Error::io("syncing the directory of the store", self.dir.path(), e))
    }
}

/// What is still to be copied.
struct Left {
    parts: Vec<(RegionId, Part)>,
    /// The part that comes next, and the index in it where that is not its first.
    at: usize,
    next: Option<u64>,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.at == self.parts.len()
    }

    /// About what it takes; files grow where that is too little.
    fn bytes(&self) -> u64 {
        self.parts[self.at..].iter().map(|(_, part)| part.bytes() + part.count() * 9 + 128).sum()
    }

    /// Copies entries until the segment has `len_max` bytes, at least one.
    fn fill(
        &mut self,
        w: &mut ColdWriter<'_>,
        len_max: u64,
        report: &mut RestoreReport,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), Unwritten> {
        let mut empty = true;
        while let Some((region, part)) = self.parts.get(self.at) {
            for index in self.next.unwrap_or(part.first())..=part.last() {
                let copy = || -> Result<_, Unreadable> {
                    let loc = part.loc_from_file(*region, index)?;
                    let id = EntryId::new(part.term(*region, index)?, index);
                    Ok((id, loc.crc, part.segment().entry_from_file(*region, id, loc)?))
                };
                let copied = copy().map_err(|e| Unwritten::Failed(e.of_entry(*region, index).into()));
                let (id, crc, payload) = copied?;
                if !empty && w.len() + payload.len() as u64 > len_max {
                    self.next = Some(index);
                    return Ok(());
                }
                w.push(*region, id, crc, &payload)?;
                empty = false;
                report.entries += 1;
                report.bytes += payload.len() as u64;
                progress(report.bytes);
            }
            (self.at, self.next) = (self.at + 1, None);
        }
        Ok(())
    }
}

/// Reads what was written, from the device: the copy may be all that there is, and is thrown away next.
fn read_back(table: &Table, colds: &[Arc<Segment>]) -> Result<()> {
    for cold in colds {
        let dropped = cold.file()?.drop_cache(0..cold.len);
        dropped.map_err(|e| Error::io("dropping a segment from the cache", &cold.path, e))?;
    }
    for (region, part) in parts(table) {
        if !colds.iter().any(|cold| cold.id == part.segment().id) {
            let says = format!("entries {}..={} were not restored", part.first(), part.last());
            return Err(Error::damaged(says).in_region(region).at(&part.segment().path, None));
        }
        for index in part.first()..=part.last() {
            let read = || -> Result<_, Unreadable> {
                let loc = part.loc_from_file(region, index)?;
                let id = EntryId::new(part.term(region, index)?, index);
                part.segment().entry_from_file(region, id, loc)
            };
            read().map_err(|e| e.of_entry(region, index))?;
        }
    }
    Ok(())
}
