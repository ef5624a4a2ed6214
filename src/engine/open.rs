//! Opening: recover, make the tail durable anew, start.

use super::{Engine, Inner, lock_path};
use crate::commit::{Accept, Committer, Hooks};
use crate::engine::fetch::Fetcher;
use crate::engine::listener::Event;
use crate::engine::options::{Background, Options};
use crate::engine::report::OpenReport;
use crate::engine::threads::Threads;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Install;
use crate::format::file_header::StoreId;
use crate::format::names::FileName;
use crate::format::record::RecordKind;
use crate::index::Table;
use crate::planted::{Bug, planted};
use crate::purge;
use crate::recovery::{Purpose, Recovered, recover};
use crate::segment::Retire;
use crate::segment::pool::SegmentFactory;
use crate::segment::scan::FIRST_RECORD;
use crate::store::{Checkpoints, Shared, Store};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{Durability, Lsn, RegionId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

impl Engine {
    pub(crate) fn open_with(dir: &Path, options: Options) -> Result<Engine> {
        let began = Instant::now();
        options
            .vfs
            .create_dir_all(dir)
            .map_err(|e| Error::io("creating the directory of the store", dir, e))?;
        let path = lock_path(dir);
        let lock = options.vfs.lock(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => Error::new(
                ErrorKind::Locked,
                "another engine has the store open; close it first, or open read-only to inspect it",
            )
            .at(&path, None),
            _ => Error::io("locking the store", &path, e),
        })?;
        let recovered = match recover(dir, &options, Purpose::Write)? {
            Some(recovered) => recovered,
            None => fresh(&options),
        };
        let engine = build(dir, options, recovered, lock)?;
        Ok(engine.timed(began))
    }

    fn timed(mut self, began: Instant) -> Engine {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.report.times.total = began.elapsed();
        }
        self
    }
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
        next_file: 1,
        checkpoints: Checkpoints { next_sequence: 1, ..Checkpoints::default() },
        bad_checkpoints: Vec::new(),
        tail: Vec::new(),
        cut: false,
        free: Vec::new(),
        unused: Vec::new(),
        leftovers: Vec::new(),
        report: OpenReport { created: true, ..Default::default() },
    }
}

fn build(dir: &Path, options: Options, r: Recovered, lock: Box<dyn Send + Sync>) -> Result<Engine> {
    let phase = Instant::now();
    let factory = Arc::new(SegmentFactory::new(dir, &options, r.id, r.next_file));
    let mut leftovers = r.leftovers;
    for (number, len) in r.free {
        if !factory.adopt_free(number, len) {
            leftovers.push(dir.join(FileName::Free(number).to_string()));
        }
    }
    let mut report = r.report;
    if report.created {
        // Nothing may stand in the directory without a checkpoint that names the store.
        purge::first_checkpoint(dir, &options, r.id)?;
    } else {
        // The life before may have died without making the names durable that were just read. Files of the pool are
        // written under these names next, and leftovers are judged by them.
        if !planted(Bug::DirectoryNotSyncedAtOpen) {
            factory.sync_dir()?;
        }
    }
    let active = factory.prepare_first()?;
    let shared = Arc::new(Shared::new(r.segments, options.listeners.clone()));
    let hooks: Arc<dyn Hooks> = shared.clone();
    let committer = Arc::new(Committer::new(
        r.table.clone(),
        factory.clone(),
        hooks,
        active,
        r.chain,
        options.in_flight_bytes_max,
        options.background == Background::Manual,
    ));
    let mut checkpoints = r.checkpoints;
    if report.created {
        checkpoints = purge::first_checkpoint_info();
    }
    let store = Arc::new(Store {
        dir: dir.to_path_buf(),
        id: r.id,
        table: r.table,
        factory,
        committer,
        shared,
        checkpoints: Mutex::new(checkpoints),
        upkeep: Default::default(),
        cleaned_bytes: AtomicU64::new(0),
        upkeep_bytes: AtomicU64::new(0),
        options,
    });
    let threads = Threads::start(&store)?;
    // From here on an error drops `engine`, which ends the threads.
    let inner = Inner {
        store: store.clone(),
        report: Default::default(),
        fetcher: Fetcher::reading(),
        #[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
        waiter: Fetcher::waiting(),
        threads,
        is_whole: AtomicBool::new(false),
        lock: Mutex::new(Some(lock)),
    };
    let mut engine = Engine(Arc::new(inner));

    for record in &r.tail {
        let encoded = &record.encoded;
        store.committer.write(encoded, &Accept::internal(Durability::Written))?;
        if encoded.kind == RecordKind::Install {
            let install = Install::decode(&encoded.desc)
                .map_err(|e| Error::damaged(format!("a control record makes no sense: {e}")))?;
            if let Some(cold) = store.shared.segment(install.cold) {
                purge::relocate(&store.table, &cold, &install.sources);
            }
        }
    }
    let suspects: Vec<_> = r.tail.iter().flat_map(|t| t.suspects.iter().copied()).collect();
    let votes_lost = report.assumed_torn || report.accepted_loss && !planted(Bug::LossNotSaid);
    if votes_lost || !suspects.is_empty() {
        report.hard_states_lost = note_doubts(&store, &suspects, votes_lost)?;
    }
    store.committer.end_recovery(r.cut)?;
    // Nothing of these is needed any more, now that the tail is durable elsewhere.
    r.unused.into_iter().for_each(|file| store.factory.retire(file));
    remove(&store, &leftovers, &mut report);
    for segment in r.unsealed {
        let end = segment.sealed_end();
        crate::store::lock(&store.shared.sealing).push_back((segment, end));
    }
    for name in &report.foreign {
        store.shared.tell(&Event::ForeignFile {
            path: &dir.join(FileName::parse(name).map_or(name.clone(), |n| n.to_string())),
        });
    }
    store.report(store.factory.keep_reserve());
    if report.bad_checkpoints > 0 || votes_lost {
        // Two good ones again, before anything relies on the older alone.
        let _one = store.upkeep.lock()?;
        purge::checkpoint(&store)?;
        remove(&store, &r.bad_checkpoints, &mut report);
    }
    engine.0.is_whole.store(true, Ordering::Release);
    engine.0.threads.start_upkeep(&store)?;
    report.regions = store.table.cells().filter(|c| c.read().exists).count() as u64;
    report.times.tail = phase.elapsed();
    if let Some(inner) = Arc::get_mut(&mut engine.0) {
        inner.report = report;
    }
    Ok(engine)
}

/// Removes files that nothing needs. One that stays is removed by the next open.
fn remove(store: &Store, paths: &[PathBuf], report: &mut OpenReport) {
    for path in paths {
        match store.options.vfs.remove(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                store.report(Err(Error::io("removing a leftover", path, e)));
            }
            _ => report.removed.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned()),
        }
    }
}

/// Notes which entries may have been acknowledged and are wrong and, if records were dropped that may have been acknowledged,
/// that every region's newest hard state may have been in them. Returns of how many regions.
///
/// It is in a checkpoint before the log is cut off where the records were: the next life will find nothing that is wrong. And
/// what the checkpoint says is behind all records of the lives before, so that none of them is replayed as if it were good.
fn note_doubts(store: &Store, suspects: &[(RegionId, u64)], votes_lost: bool) -> Result<u64> {
    let (active, offset) = store.committer.active();
    if offset > FIRST_RECORD {
        store.committer.roll(active.id)?;
    }
    let (active, _) = store.committer.active();
    let as_of = Lsn::new(active.id, FIRST_RECORD);
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
