//! raft-engine's side.

use crate::RaftEngineDir;
use crate::failure::{Failure, Result};
use crate::lock::Lock;
use crate::store::{CHUNK_BYTES, Dropped, Pair, Reads, Writes};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, RecoveryMode};
use raft_proto::eraftpb::Entry;
use raftwood::EntryId;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// A store of raft-engine's, open.
pub(crate) struct Theirs {
    engine: Engine,
    dropped: Vec<Dropped>,
    _lock: Option<Lock>,
}

/// raft-engine panics where it meets what it did not write.
fn caught<T>(what: &str, call: impl FnOnce() -> raft_engine::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(raft_engine::Error::Io(e))) => Err(Failure::CannotRun(format!("{what}: {e}"))),
        Ok(Err(e)) => Err(Failure::Wrong(format!("{what}: raft-engine says: {e}"))),
        Err(_) => Err(Failure::Wrong(format!(
            "{what}: raft-engine panicked; are the entries of this store eraftpb::Entry?"
        ))),
    }
}

/// Opens what is in `dir`; errors name `called`.
fn open(dir: &Path, called: &Path, recovery_mode: RecoveryMode) -> Result<Engine> {
    let text = dir.to_str().ok_or_else(|| Failure::CannotRun(format!("{} is not UTF-8", dir.display())))?;
    // Without recycling a free file is not kept, and nothing is prepared.
    let config =
        Config { dir: text.to_owned(), recovery_mode, enable_log_recycle: false, ..Config::default() };
    caught(&format!("opening {}", called.display()), || Engine::open(config))
}

/// The last file of a kind, and its copy, which raft-engine may cut or write to.
struct LastFile {
    original: PathBuf,
    copy: PathBuf,
}

impl LastFile {
    /// What raft-engine has cut from the copy, if anything.
    fn dropped(&self) -> Result<Option<Dropped>> {
        let read = |path: &Path| fs::read(path).map_err(|e| Failure::io("reading", path, &e));
        let (original, copy) = (read(&self.original)?, read(&self.copy)?);
        // A file whose header was torn has a new one now, so the length of the copy alone does not say it.
        let equal = original.iter().zip(&copy).take_while(|(original, copy)| original == copy).count();
        let kept = if copy.len() > original.len() { 0 } else { equal };
        let end = &original[kept..];
        let bytes = end.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let (offset, zeros) = (kept as u64, (end.len() - bytes) as u64);
        let dropped = Dropped { file: self.original.clone(), offset, bytes: bytes as u64, zeros };
        Ok((!end.is_empty()).then_some(dropped))
    }
}

impl Theirs {
    /// Opens a store without changing it: raft-engine opens `scratch`, which has links to all files but the
    /// last of each kind, and copies of those two. The store's locks are held meanwhile.
    pub(crate) fn open_source(source: RaftEngineDir<'_>, scratch: &Path) -> Result<Theirs> {
        let RaftEngineDir { dir, spill_dir, accepts_torn_tail } = source;
        // A directory of something else gets no lock.
        log_files(dir, spill_dir)?;
        let lock = Lock::of_theirs(dir, spill_dir)?;
        let last = link(dir, spill_dir, scratch)?;
        let (engine, dropped) = match open(scratch, dir, RecoveryMode::AbsoluteConsistency) {
            Err(Failure::Wrong(why)) => open_torn(dir, scratch, &last, accepts_torn_tail, why)?,
            opened => (opened?, Vec::new()),
        };
        Ok(Theirs { engine, dropped, _lock: Some(lock) })
    }

    /// What was left out of the source when it was opened.
    pub(crate) fn into_dropped(self) -> Vec<Dropped> {
        self.dropped
    }

    /// A new store, or one that was made here.
    pub(crate) fn open_own(dir: &Path) -> Result<Theirs> {
        let engine = open(dir, dir, RecoveryMode::AbsoluteConsistency)?;
        Ok(Theirs { engine, dropped: Vec::new(), _lock: None })
    }

    fn write(&self, region: u64, mut batch: LogBatch) -> Result<()> {
        caught(&format!("writing region {region}"), || self.engine.write(&mut batch, false)).map(drop)
    }
}

/// The files of a log, by their kind and name.
type LogFiles = BTreeMap<&'static str, BTreeMap<String, PathBuf>>;

/// Those of a store.
fn log_files(dir: &Path, spill: Option<&Path>) -> Result<LogFiles> {
    let mut queues = LogFiles::new();
    for dir in [Some(dir), spill].into_iter().flatten() {
        let dir = fs::canonicalize(dir).map_err(|e| Failure::io("looking up", dir, &e))?;
        for (name, path) in files(&dir)? {
            let kind = [".raftlog", ".rewrite"].into_iter().find(|end| name.ends_with(end));
            if let Some(kind) = kind {
                queues.entry(kind).or_default().insert(name, path);
            }
        }
    }
    if queues.is_empty() {
        return Err(Failure::CannotRun(format!("there is no store of raft-engine's in {}", dir.display())));
    }
    Ok(queues)
}

/// Fills `scratch`; returns the copies.
fn link(dir: &Path, spill: Option<&Path>, scratch: &Path) -> Result<Vec<LastFile>> {
    fs::create_dir(scratch).map_err(|e| Failure::io("making", scratch, &e))?;
    let mut copies = Vec::new();
    for mut files in log_files(dir, spill)?.into_values() {
        let last = files.pop_last();
        for (name, path) in files {
            let link = scratch.join(name);
            symlink(path, &link).map_err(|e| Failure::io("linking", &link, &e))?;
        }
        if let Some((name, original)) = last {
            let copy = scratch.join(name);
            copy_writable(&original, &copy).map_err(|e| Failure::io("copying", &original, &e))?;
            copies.push(LastFile { original, copy });
        }
    }
    Ok(copies)
}

/// As `fs::copy`, but for the permissions: those of the source may forbid to write.
fn copy_writable(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut File::create_new(to)?).map(drop)
}

/// After raft-engine's strictest mode has refused a store: its default mode cuts the copies of the last files
/// where they are damaged, and so says where that is. `why` is what the strictest mode said.
fn open_torn(
    dir: &Path,
    scratch: &Path,
    last: &[LastFile],
    is_accepted: bool,
    why: String,
) -> Result<(Engine, Vec<Dropped>)> {
    // What it refuses too is no torn end. Beyond the last files it finds links to the source, read-only.
    let Ok(engine) = open(scratch, dir, RecoveryMode::TolerateTailCorruption) else {
        return Err(Failure::Wrong(why));
    };
    let dropped = last.iter().filter_map(|file| file.dropped().transpose()).collect::<Result<Vec<_>>>()?;
    if is_accepted {
        return Ok((engine, dropped));
    }
    let ends = dropped.iter().map(Dropped::to_string).collect::<Vec<_>>().join("; ");
    Err(Failure::Wrong(format!(
        "{why}. The end of its log is torn or damaged: {ends}. A process that was killed leaves such an end. \
         With --accept-torn-tail the store is taken over without it: records from there on may be missing then. \
         If they may have been acknowledged, because a disk lost or changed them, import the store of \
         another replica instead"
    )))
}

/// Regular files, by name.
pub(crate) fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |e: std::io::Error| Failure::io("listing", dir, &e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name().and_then(|name| name.to_str())) {
            found.push((name.to_owned(), path));
        }
    }
    Ok(found)
}

impl Reads for Theirs {
    fn regions(&self) -> Vec<u64> {
        let mut regions = self.engine.raft_groups();
        regions.sort_unstable();
        regions
    }

    fn span(&self, region: u64) -> Option<(u64, u64)> {
        self.engine.first_index(region).zip(self.engine.last_index(region))
    }

    fn entries(&self, region: u64, from: u64, to: u64) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let read =
            || self.engine.fetch_entries_to::<Entries>(region, from, to, Some(CHUNK_BYTES), &mut entries);
        caught(&format!("reading region {region} from entry {from} on"), read)?;
        Ok(entries)
    }

    fn pairs(&self, region: u64) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        let each = |key: &[u8], value: &[u8]| {
            pairs.push((key.to_vec(), value.to_vec()));
            true
        };
        let scan = || self.engine.scan_raw_messages(region, None, None, false, each);
        caught(&format!("reading the keys of region {region}"), scan)?;
        Ok(pairs)
    }

    fn base(&self, _region: u64) -> Option<EntryId> {
        None
    }
}

impl Writes for Theirs {
    fn begin(&mut self, region: u64, pairs: Vec<Pair>, _base: Option<EntryId>) -> Result<()> {
        let mut batch = LogBatch::default();
        // Drops nothing, and makes the region also where it is empty.
        batch.add_command(region, Command::Compact { index: 0 });
        for (key, value) in pairs {
            batch.put(region, key, value).map_err(|e| Failure::in_region(region, e))?;
        }
        self.write(region, batch)
    }

    fn append(&mut self, region: u64, entries: &[Entry]) -> Result<()> {
        let mut batch = LogBatch::default();
        batch.add_entries::<Entries>(region, entries).map_err(|e| Failure::in_region(region, e))?;
        self.write(region, batch)
    }
}
