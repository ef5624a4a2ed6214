//! Opening: recover, re-persist the tail, start.

use super::reader::Reader;
use super::store_lock::StoreLock;
use super::{Engine, Inner};
use crate::checkpoint::{Checkpoints, Kept, Parts, Run, write_first_checkpoint};
use crate::clock;
use crate::commit::{Budget, Committer, Hooks};
use crate::engine::fetcher::Fetcher;
use crate::engine::threads::Threads;
use crate::error::{Error, Result};
use crate::format::file_header::{SegmentKind, StoreId};
use crate::format::names::FileName;
use crate::index::Table;
use crate::listener::{Event, Listeners};
use crate::news::News;
use crate::options::{Background, Options, Tuned};
use crate::planted::{Bug, planted};
use crate::read::Reads;
use crate::recovery::{FreeListed, Purpose, Recovered, Unfinished, recover};
use crate::report::{OpenReport, Trail};
use crate::segment::factory::SegmentFactory;
use crate::segment::mark_file::MarkFile;
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{SegmentSet, Unwritten};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::trace;
use crate::types::Lsn;
use crate::upkeep::{self, NameWatch, PipelineHooks, Signals, Store};
use crate::vfs::Dir;
use crate::vfs::meaning::if_there;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

impl Options {
    /// Opens the engine in `dir`, which is made if it does not exist, and recovers what is there.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no store and [one must exist](Options::must_exist);
    /// `Locked` if another engine has it open; `Damaged` if acknowledged bytes are wrong that cannot be tied
    /// to regions; `Unsupported` for a newer format; `InvalidArgument` if a directory, link or pipe bears the
    /// name of a file of the store; `NoSpace`, `Io` from the operating system. Nothing that was acknowledged
    /// is changed or removed by a failed open.
    ///
    /// ```
    /// use raftwood::Options;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().segment_bytes(8 << 20).open(dir.path())?;
    /// let found = engine.open_report();
    /// assert!(found.created && found.damage.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # After a crash
    /// As [`Engine::open`] says. What a crash tore at the end of the log is dropped; what looks like rot
    /// there is decided by the [`TailPolicy`](crate::TailPolicy).
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<Engine> {
        self.validate()?;
        Engine::open_with(dir.as_ref(), self.clone())
    }

    /// Opens `dir` for inspection: takes no lock, writes nothing, and may stand beside a running engine, in
    /// which case it shows what was known to be on the device at about this moment
    /// ([`show_unproven`](Self::show_unproven) shows more). Files that the engine gives back meanwhile
    /// make it look again, for half a minute at most.
    ///
    /// # Errors
    /// As [`open`](Self::open) for what is on disk; `InvalidArgument` if there is no store; `Locked` if the
    /// engine that has it open gave files back faster than they could be read.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, Options, ReadLimit, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Synced)?;
    /// // Here or in another process, while the engine runs.
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// assert_eq!(reader.entries(RegionId(7), .., ReadLimit::NONE)?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn open_read_only(&self, dir: impl AsRef<Path>) -> Result<Reader> {
        self.validate()?;
        Reader::open_with(dir.as_ref(), self.clone())
    }
}

impl Engine {
    fn open_with(dir: &Path, options: Options) -> Result<Engine> {
        let began = clock::now();
        let _span = trace::recover();
        let opened = match options.must_exist {
            false => options.vfs.create_dir_all(dir).map(Some),
            true => if_there(options.vfs.open_dir(dir)),
        };
        let opened = opened.map_err(|e| Error::io("creating the directory of the store", dir, e))?;
        let Some(opened) = opened else { return Err(is_missing(dir)) };
        // The path is not looked up again from here on.
        let dir = Dir::new(opened, dir);
        // Before the lock, which makes a file. A store that is being given up meanwhile is found out below.
        if options.must_exist && !has_store(&dir)? {
            return Err(is_missing(dir.path()));
        }
        let lock = StoreLock::exclusive(&dir)?;
        // Each attempt starts over from the files. On a full disk it has one free file less, of
        // those that there were.
        let mut spare = None;
        loop {
            let recovered = match recover(&dir, &options, Purpose::Write)? {
                Some(recovered) => recovered,
                None if options.must_exist => return Err(is_missing(dir.path())),
                None => fresh(&options),
            };
            match build(dir.clone(), options.clone(), recovered) {
                Ok(engine) => {
                    *engine.0.lock.lock() = Some(lock);
                    let engine = engine.timed(began);
                    engine.store().listeners.deliver(&Event::Recovered { report: engine.open_report() });
                    return Ok(engine);
                }
                // Where a file system takes new blocks to write over old ones, a full disk stops writing.
                Err(Unwritten::NoSpace(full)) if !planted(Bug::FullDiskPoisonsOpen) => {
                    let free = free_files(&dir)?;
                    let left = spare.unwrap_or(free.len()).min(free.len());
                    let (Some(name), Some(left)) = (free.last(), left.checked_sub(1)) else {
                        return Err(full);
                    };
                    let removed = dir.remove(name);
                    removed.map_err(|e| Error::io("removing a free file", &dir.join(name), e))?;
                    spare = Some(left);
                }
                Err(failed) => return Err(failed.into()),
            }
        }
    }

    fn timed(mut self, began: Instant) -> Engine {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.report.times.total = clock::since(began);
        }
        self
    }
}

/// Whether a file in it has a name of a store's. That is no store yet if its making was cut short.
fn has_store(dir: &Dir) -> Result<bool> {
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    let is_a_stores = |name: FileName| !matches!(name, FileName::Lock | FileName::Free(_));
    Ok(entries.iter().any(|entry| FileName::parse(&entry.name).is_some_and(is_a_stores)))
}

fn is_missing(dir: &Path) -> Error {
    let why = "there is no store here, and must_exist is set: see whether the right disk is mounted; a node whose store \
               is gone must join its groups anew, and one that is new is opened without must_exist";
    Error::invalid(why).at(dir, None)
}

/// The files of the pool and of the reserve: recovery finds room where one was.
fn free_files(dir: &Dir) -> Result<Vec<String>> {
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    let free = entries.into_iter().filter(|e| matches!(FileName::parse(&e.name), Some(FileName::Free(_))));
    Ok(free.map(|entry| entry.name).collect())
}

/// Names a store that did not exist before.
pub(super) fn new_store_id(options: &Options) -> StoreId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&options.salts.next().to_le_bytes());
    id[8..].copy_from_slice(&options.salts.next().to_le_bytes());
    StoreId(id)
}

/// A store that does not exist yet.
fn fresh(options: &Options) -> Recovered {
    Recovered {
        run: Run { store: new_store_id(options), number: 1, unclean_before: 0 },
        table: Arc::new(Table::default()),
        segments: BTreeMap::new(),
        chain: Default::default(),
        durable: Lsn::ZERO,
        checkpoints: Kept::of_a_new_store(),
        marks: Vec::new(),
        unfinished: Unfinished::default(),
        report: OpenReport { created: true, ..Default::default() },
    }
}

/// The free files that are there.
fn pool(dir: &Dir, options: &Options, r: &mut Recovered) -> Arc<SegmentFactory> {
    let factory = Arc::new(SegmentFactory::new(dir, options, r.run.store, r.run.number));
    for FreeListed { number, len } in std::mem::take(&mut r.unfinished.free) {
        if !factory.free.adopt(number, len) {
            r.unfinished.leftovers.push(FileName::Free(number).to_string());
        }
    }
    factory
}

/// What makes the directory a store.
fn begin_store(dir: &Dir, options: &Options, id: StoreId, mark: &MarkFile) -> Result<(), Unwritten> {
    // Wherever a checkpoint is, the mark is too.
    mark.ensure()?;
    // Nothing else may stand in the directory without a checkpoint that names the store.
    write_first_checkpoint(dir, &options.salts, id)
}

/// The run before may have died without making the names durable that were just read. Files of the pool are
/// written under these names next, and leftovers are judged by them.
fn settle_names(factory: &SegmentFactory) -> Result<(), Unwritten> {
    match factory.files.sync_dir() {
        // What is there can be read nonetheless, and made room of.
        Err(Unwritten::NoSpace(_)) if !planted(Bug::FullDiskKeepsClosed) => {
            factory.files.owe_sync();
            Ok(())
        }
        synced => synced,
    }
}

/// Bytes of the log past the newest checkpoint.
fn replayed_bytes(r: &Recovered) -> u64 {
    let start = r.checkpoints.newest().map_or(0, |newest| newest.start_segment);
    let logs = r.segments.values().filter(|s| s.kind == SegmentKind::Log && s.id >= start);
    logs.map(|s| u64::from(s.sealed_end().saturating_sub(FIRST_RECORD))).sum()
}

/// What takes batches into the log, from where it ends.
fn pipeline(
    options: &Options,
    r: &Recovered,
    factory: Arc<SegmentFactory>,
    hooks: Arc<dyn Hooks>,
) -> Arc<Committer> {
    let committer = Committer::new(
        r.table.clone(),
        factory,
        hooks,
        r.run.number,
        r.chain,
        options.in_flight_bytes_max,
        options.background == Background::Manual,
    );
    Arc::new(committer.with_budget(Budget::new(options.disk_budget, options.kept_of_budget())))
}

/// The parts of an engine over what was recovered. No segment is made: the first record does that, and
/// recovery's copy of the tail is one.
fn assemble(dir: Dir, options: Options, r: &mut Recovered) -> Result<Arc<Store>, Unwritten> {
    let factory = pool(&dir, &options, r);
    let run = r.run;
    let mark = MarkFile::new(dir.clone(), run.store, run.number, &r.marks);
    match r.report.created {
        true => begin_store(&dir, &options, run.store, &mark)?,
        false => settle_names(&factory)?,
    }
    let replayed_bytes = replayed_bytes(r);
    let segments = Arc::new(SegmentSet::new(std::mem::take(&mut r.segments)));
    let listeners = Arc::new(Listeners::new(options.listeners.clone()));
    let news = Arc::new(News { table: r.table.clone(), listeners: listeners.clone() });
    let signals = Arc::new(Signals::default());
    let mark = Arc::new(mark);
    let hooks: Arc<dyn Hooks> = Arc::new(PipelineHooks {
        segments: segments.clone(),
        mark: mark.clone(),
        listeners: listeners.clone(),
        signals: signals.clone(),
    });
    let committer = pipeline(&options, r, factory.clone(), hooks);
    let parts = Parts {
        dir: dir.clone(),
        run,
        segment_bytes: options.segment_bytes,
        salts: options.salts.clone(),
        table: r.table.clone(),
        segments: segments.clone(),
        factory: factory.clone(),
        committer: committer.clone(),
        mark: mark.clone(),
        listeners: listeners.clone(),
    };
    Ok(Arc::new(Store {
        mark,
        dir,
        run,
        table: r.table.clone(),
        factory,
        segments,
        committer,
        checkpoints: Checkpoints::new(parts, r.checkpoints.clone(), replayed_bytes),
        reads: Reads::new(news.clone()),
        news,
        listeners,
        signals,
        notified: Default::default(),
        turns: Default::default(),
        pauses: Default::default(),
        done: Default::default(),
        tuned: Tuned::new(&options),
        options,
    }))
}

/// An engine over what was recovered.
fn build(dir: Dir, options: Options, mut r: Recovered) -> Result<Engine, Unwritten> {
    let phase = clock::now();
    let store = assemble(dir, options, &mut r)?;
    let mut report = OpenReport { trail: Trail::default(), ..r.report };
    // Of a store from before format 3, or one that lost it.
    store.listeners.report(store.mark.ensure().map_err(Error::from));
    let threads = Threads::start(&store).map_err(Unwritten::Failed)?;
    // From here on an error drops `engine`, which ends the threads.
    let inner = Inner {
        store: store.clone(),
        report: Default::default(),
        fetcher: Fetcher::reading(store.options.fetch_threads, store.options.fetch_queue_max),
        admitter: Fetcher::admitting(),
        admitting: Default::default(),
        writers: Arc::default(),
        threads,
        names: Arc::new(NameWatch::new(&store)),
        is_whole: AtomicBool::new(false),
        closing: Mutex::default(),
        lock: Mutex::default(),
    };
    let mut engine = Engine(Arc::new(inner));

    let turn = store.turns.upkeep.lock().map_err(Unwritten::Failed)?;
    let finished = r.unfinished.finish(&store.checkpoints, &mut report);
    drop(turn);
    // What it failed with, where that stopped all writing: there is no engine that could be poisoned.
    let finished = finished.map_err(|e| store.committer.gate().cause().cloned().unwrap_or(e))?;
    store.done.footer_bytes.fetch_add(finished.footer_bytes, Ordering::Relaxed);
    for segment in finished.sealed {
        let entries = segment.footer().map_or(0, |footer| footer.entry_count());
        store.listeners.deliver(&Event::SegmentSealed { segment: segment.id, entries });
    }
    for segment in finished.unsealed {
        let end = segment.sealed_end();
        store.segments.await_seal(segment, end);
    }
    for name in &report.foreign {
        store.listeners.deliver(&Event::ForeignFileFound {
            path: &store.dir.join(FileName::parse(name).map_or(name.clone(), |n| n.to_string())),
        });
    }
    engine.0.is_whole.store(true, Ordering::Release);
    if store.listeners.is_heard() {
        store.table.watch();
    }
    store.listeners.report(upkeep::upkeep_at_open(&store));
    store.judge_budget();
    engine.0.threads.start_upkeep(&store, &engine.0.names).map_err(Unwritten::Failed)?;
    report.times.tail = clock::since(phase);
    if let Some(inner) = Arc::get_mut(&mut engine.0) {
        inner.report = report;
    }
    Ok(engine)
}
