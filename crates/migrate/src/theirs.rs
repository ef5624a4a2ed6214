//! raft-engine's side.

use crate::failure::{Failure, Result};
use crate::lock::Lock;
use crate::store::{CHUNK_BYTES, Pair, Reads, Writes};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt};
use raft_proto::eraftpb::Entry;
use raftwood::EntryId;
use std::collections::BTreeMap;
use std::fs;
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
    _lock: Option<Lock>,
}

/// raft-engine panics where it meets what it did not write.
fn caught<T>(what: &str, call: impl FnOnce() -> raft_engine::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(Failure::Wrong(format!("{what}: raft-engine says: {e}"))),
        Err(_) => Err(Failure::Wrong(format!(
            "{what}: raft-engine panicked; are the entries of this store eraftpb::Entry?"
        ))),
    }
}

fn open(dir: &Path) -> Result<Engine> {
    let text = dir.to_str().ok_or_else(|| Failure::CannotRun(format!("{} is not UTF-8", dir.display())))?;
    // Without recycling a free file is not kept, and nothing is prepared.
    let config = Config { dir: text.to_owned(), enable_log_recycle: false, ..Config::default() };
    caught(&format!("opening {}", dir.display()), || Engine::open(config))
}

impl Theirs {
    /// Opens the store in `dir` (and `spill`, where new files went when `dir` was full) without changing it:
    /// raft-engine opens `scratch`, which has links to all files but the last of each kind, and copies of
    /// those two, which it may cut or write to. The store's locks are held meanwhile.
    pub(crate) fn open_source(dir: &Path, spill: Option<&Path>, scratch: &Path) -> Result<Theirs> {
        let lock = Lock::of_theirs(dir, spill)?;
        fs::create_dir(scratch).map_err(|e| Failure::io("making", scratch, &e))?;
        let mut queues: BTreeMap<&str, BTreeMap<String, PathBuf>> = BTreeMap::new();
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
            return Err(Failure::CannotRun(format!(
                "there is no store of raft-engine's in {}",
                dir.display()
            )));
        }
        for mut files in queues.into_values() {
            let last = files.pop_last();
            for (name, path) in files {
                let link = scratch.join(name);
                symlink(path, &link).map_err(|e| Failure::io("linking", &link, &e))?;
            }
            if let Some((name, path)) = last {
                fs::copy(&path, scratch.join(name)).map_err(|e| Failure::io("copying", &path, &e))?;
            }
        }
        Ok(Theirs { engine: open(scratch)?, _lock: Some(lock) })
    }

    /// A new store, or one that was made here.
    pub(crate) fn open_own(dir: &Path) -> Result<Theirs> {
        Ok(Theirs { engine: open(dir)?, _lock: None })
    }

    fn write(&self, region: u64, mut batch: LogBatch) -> Result<()> {
        caught(&format!("writing region {region}"), || self.engine.write(&mut batch, false)).map(drop)
    }
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
