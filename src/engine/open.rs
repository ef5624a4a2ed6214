//! Opening: recover, re-persist the tail, start.

use super::lock::StoreLock;
use super::{Engine, Inner};
use crate::commit::{Accept, Committer, Hooks};
use crate::engine::fetch::Fetcher;
use crate::engine::listener::Event;
use crate::engine::options::{Background, Options};
use crate::engine::report::OpenReport;
use crate::engine::threads::Threads;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Install;
use crate::format::file_header::{FileKind, StoreId};
use crate::format::names::FileName;
use crate::format::record::RecordKind;
use crate::index::Table;
use crate::planted::{Bug, planted};
use crate::purge::{self, NameWatch};
use crate::recovery::{Purpose, Recovered, recover};
use crate::segment::Retire;
use crate::segment::mark::MarkFile;
use crate::segment::pool::SegmentFactory;
use crate::segment::scan::FIRST_RECORD;
use crate::store::{Checkpoints, Shared, Store};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{Durability, Lsn, RegionId};
use crate::vfs::Dir;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

impl Engine {
    pub(crate) fn open_with(dir: &Path, options: Options) -> Result<Engine> {
        let began = Instant::now();
        let opened = options.vfs.create_dir_all(dir);
        let opened = opened.map_err(|e| Error::io("creating the directory of the store", dir, e))?;
        // The path is not looked up again from here on.
        let dir = Dir::new(opened, dir);
        let lock = StoreLock::exclusive(&dir)?;
        // Each attempt starts over from the files. On a full disk it has one free file less, of
        // those that there were.
        let mut spare = None;
        loop {
            let recovered = match recover(&dir, &options, Purpose::Write)? {
                Some(recovered) => recovered,
                None => fresh(&options),
            };
            match build(dir.clone(), options.clone(), recovered) {
                Ok(engine) => {
                    *crate::store::lock(&engine.0.lock) = Some(lock);
                    return Ok(engine.timed(began));
                }
                Err(error) => match no_space(&error) {
                    Some(full) => {
                        let free = free_files(&dir)?;
                        let left = spare.unwrap_or(free.len()).min(free.len());
                        let (Some(name), Some(left)) = (free.last(), left.checked_sub(1)) else {
                            return Err(full);
                        };
                        let removed = dir.remove(name);
                        removed.map_err(|e| Error::io("removing a free file", &dir.join(name), e))?;
                        spare = Some(left);
                    }
                    None => return Err(cause(error)),
                },
            }
        }
    }

    fn timed(mut self, began: Instant) -> Engine {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.report.times.total = began.elapsed();
        }
        self
    }
}

/// The full disk that an open failed for. Where a file system takes new blocks to write over old
/// ones, a full disk stops writing.
fn no_space(error: &Error) -> Option<Error> {
    let mut cause = Some(error.clone());
    while let Some(error) = cause {
        if error.kind() == ErrorKind::NoSpace {
            return Some(error).filter(|_| !planted(Bug::FullDiskPoisonsOpen));
        }
        cause = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<Error>()).cloned();
    }
    None
}

/// What an open failed with: where it stopped the writing of the tail, that, for there is no
/// engine that could be poisoned.
fn cause(mut error: Error) -> Error {
    while error.kind() == ErrorKind::Poisoned
        && let Some(first) =
            std::error::Error::source(&error).and_then(|e| e.downcast_ref::<Error>()).cloned()
    {
        error = first;
    }
    error
}

/// The files of the pool and of the reserve: recovery finds room where one was.
fn free_files(dir: &Dir) -> Result<Vec<String>> {
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    let free = entries.into_iter().filter(|e| matches!(FileName::parse(&e.name), Some(FileName::Free(_))));
    Ok(free.map(|entry| entry.name).collect())
}

/// A store that does not exist yet.
fn fresh(options: &Options) -> Recovered {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&options.salts.next().to_le_bytes());
    id[8..].copy_from_slice(&options.salts.next().to_le_bytes());
    Recovered {
        id: StoreId(id),
        table: Arc::new(Table::default()),
        segments: BTreeMap::new(),
        unsealed: Vec::new(),
        chain: Default::default(),
        durable: Lsn::ZERO,
        next_file: 1,
        unclean_before: 0,
        checkpoints: Checkpoints { next_sequence: 1, ..Checkpoints::default() },
        bad_checkpoints: Vec::new(),
        marks: Vec::new(),
        last_witness: false,
        rebuilt: false,
        tail: Vec::new(),
        cut: false,
        free: Vec::new(),
        unused: Vec::new(),
        leftovers: Vec::new(),
        report: OpenReport { created: true, ..Default::default() },
    }
}

/// An engine over what was recovered. No segment is made for it: the first record does that, and
/// recovery's copy of the tail is one.
fn build(dir: Dir, options: Options, r: Recovered) -> Result<Engine> {
    let phase = Instant::now();
    let factory = Arc::new(SegmentFactory::new(&dir, &options, r.id, r.next_file));
    let mut leftovers = r.leftovers;
    for (number, len) in r.free {
        if !factory.adopt_free(number, len) {
            leftovers.push(FileName::Free(number).to_string());
        }
    }
    let mut report = r.report;
    let mark = MarkFile::new(dir.clone(), r.id, r.next_file, &r.marks);
    if report.created {
        // Wherever a checkpoint is, the mark is too.
        mark.ensure()?;
        // Nothing else may stand in the directory without a checkpoint that names the store.
        purge::first_checkpoint(&dir, &options, r.id)?;
    } else {
        // The run before may have died without making the names durable that were just read. Files of the
        // pool are written under these names next, and leftovers are judged by them.
        match if planted(Bug::DirectoryNotSyncedAtOpen) { Ok(()) } else { factory.sync_dir() } {
            // What is there can be read nonetheless, and made room of.
            Err(e) if e.kind() == ErrorKind::NoSpace && !planted(Bug::FullDiskKeepsClosed) => {
                factory.owe_sync();
            }
            synced => synced?,
        }
    }
    let logs = r.segments.values().filter(|s| s.kind == FileKind::Log);
    let start = r.checkpoints.kept.back().map_or(0, |newest| newest.start_segment);
    let replayed =
        logs.filter(|s| s.id >= start).map(|s| u64::from(s.sealed_end().saturating_sub(FIRST_RECORD)));
    let replayed_bytes = replayed.sum();
    let shared = Arc::new(Shared::new(r.segments, options.listeners.clone()));
    let hooks: Arc<dyn Hooks> = shared.clone();
    let committer = Arc::new(Committer::new(
        r.table.clone(),
        factory.clone(),
        hooks,
        r.next_file,
        r.chain,
        options.in_flight_bytes_max,
        options.background == Background::Manual,
    ));
    let mut checkpoints = r.checkpoints;
    if report.created {
        checkpoints = purge::first_checkpoint_info();
    }
    let store = Arc::new(Store {
        mark,
        dir,
        id: r.id,
        run: r.next_file,
        unclean_before: r.unclean_before,
        table: r.table,
        factory,
        committer,
        shared,
        rested_at: AtomicU64::new(0),
        checkpoints: Mutex::new(checkpoints),
        replayed_bytes,
        upkeep: Default::default(),
        copying: Default::default(),
        cleaned_bytes: AtomicU64::new(0),
        upkeep_bytes: AtomicU64::new(0),
        options,
    });
    // Of a store from before format 3, or one that lost it.
    store.report(store.mark.ensure());
    let threads = Threads::start(&store)?;
    // From here on an error drops `engine`, which ends the threads.
    let inner = Inner {
        store: store.clone(),
        report: Default::default(),
        fetcher: Fetcher::reading(),
        #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
        waiter: Fetcher::waiting(),
        threads,
        names: Arc::new(NameWatch::new(&store)),
        is_whole: AtomicBool::new(false),
        closing: Mutex::default(),
        lock: Mutex::default(),
    };
    let mut engine = Engine(Arc::new(inner));

    let votes_lost = report.assumed_torn || report.accepted_loss && !planted(Bug::LossNotSaid);
    let cut = r.cut || votes_lost;
    if cut && !planted(Bug::CopyNotAnnounced) {
        let whole = r.tail.iter().filter(|record| record.suspects.is_empty());
        store.committer.announce(votes_lost, whole.map(|record| record.original).collect())?;
    }
    for record in &r.tail {
        let encoded = &record.encoded;
        store.committer.write(encoded, &Accept::internal(Durability::Written))?;
        if encoded.kind == RecordKind::Install {
            let install = Install::decode(&encoded.desc)
                .map_err(|e| Error::damaged(format!("a control record is malformed: {e}")))?;
            if let Some(cold) = store.shared.segment(install.cold) {
                store.table.relocate(&cold, &install.sources);
            }
        }
    }
    let suspects: Vec<_> = r.tail.iter().flat_map(|t| t.suspects.iter().copied()).collect();
    if votes_lost || !suspects.is_empty() {
        report.hard_states_lost = note_doubts(&store, &suspects, votes_lost)?;
    }
    store.committer.end_recovery(cut, |durable, last| store.mark.note(durable, last))?;
    if r.last_witness && !planted(Bug::UncleanEndForgotten) {
        // The files that go now are all that shows the unclean end.
        let _one = store.upkeep.lock()?;
        purge::checkpoint(&store)?;
    }
    // Nothing of these is needed any more, now that the tail is durable elsewhere.
    r.unused.into_iter().for_each(|file| store.factory.retire(file));
    remove(&store, &leftovers, &mut report);
    for segment in r.unsealed {
        let end = segment.sealed_end();
        crate::store::lock(&store.shared.sealing).push_back((segment, end));
    }
    for name in &report.foreign {
        store.shared.tell(&Event::ForeignFile {
            path: &store.dir.join(FileName::parse(name).map_or(name.clone(), |n| n.to_string())),
        });
    }
    if report.bad_checkpoints > 0 || votes_lost || r.rebuilt {
        // Two good ones again, before anything relies on the older alone.
        let _one = store.upkeep.lock()?;
        purge::checkpoint(&store)?;
        remove(&store, &r.bad_checkpoints, &mut report);
    }
    engine.0.is_whole.store(true, Ordering::Release);
    store.report(purge::upkeep_at_open(&store));
    engine.0.threads.start_upkeep(&store, &engine.0.names)?;
    if !r.tail.is_empty() {
        report.regions = store.table.count();
    }
    report.times.tail = phase.elapsed();
    if let Some(inner) = Arc::get_mut(&mut engine.0) {
        inner.report = report;
    }
    Ok(engine)
}

/// Removes files that nothing needs. One that stays is removed by the next open.
fn remove(store: &Store, names: &[String], report: &mut OpenReport) {
    if !names.is_empty()
        && let Err(e) = store.factory.check_open()
    {
        return store.report(Err(e));
    }
    for name in names {
        match store.dir.remove(name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                store.report(Err(Error::io("removing a leftover", &store.dir.join(name), e)));
            }
            _ => report.removed.push(name.clone()),
        }
    }
}

/// Notes which entries may have been acknowledged and are wrong and, if records were dropped that
/// may have been acknowledged, that every region's newest hard state may have been in them.
/// Returns of how many regions.
///
/// It is in a checkpoint before the log is cut off where the records were: the next run will find nothing
/// that is wrong. And what the checkpoint says is past all records of the runs before, so that none of them
/// is replayed as if it were good.
fn note_doubts(store: &Store, suspects: &[(RegionId, u64)], votes_lost: bool) -> Result<u64> {
    store.committer.roll()?;
    let as_of = Lsn::new(store.committer.active_id(), FIRST_RECORD);
    for &(region, index) in suspects {
        store.table.get_or_create(region).write().suspect(index, as_of);
    }
    let mut lost = 0;
    for cell in store.table.cells().filter(|_| votes_lost) {
        let mut state = cell.write();
        if state.exists {
            state.lose_hard_state(as_of);
            lost += 1;
        }
    }
    let _one = store.upkeep.lock()?;
    purge::checkpoint(store)?;
    Ok(lost)
}
