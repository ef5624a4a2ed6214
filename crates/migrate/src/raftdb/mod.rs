//! TiKV's `raftdb`, a store of RocksDB's, and what its kv store keeps beside it.
//!
//! RocksDB opens a store read-only without writing to its directory: the write-ahead log is replayed into
//! memory. It takes no lock for that, so the lock is taken here. What it would pass over is refused, the torn
//! end of a write-ahead log excepted, which a kill or a power cut leaves.

mod keys;
mod regions;

use crate::RocksDir;
use crate::failure::{Failure, Result};
use crate::lock::Lock;
use crate::ours::Layout;
use crate::store::{CHUNK_BYTES, Pair, Reads};
use crate::theirs::files;
use keys::Key;
use protobuf::Message;
use raft_proto::eraftpb::Entry;
use raftwood::EntryId;
use regions::{Found, Region};
use rocksdb::{DB, DBRawIterator, DBRecoveryMode, Options, ReadOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The column families that have keys of the local area.
const FAMILIES: [&str; 2] = ["default", "raft"];

/// At most so many files of a store are open.
const OPEN_FILES_MAX: i32 = 256;

/// A raftdb and its kv store, open.
pub(crate) struct RaftDb {
    stores: Vec<Store>,
    regions: BTreeMap<u64, Region>,
    layout: Layout,
}

impl RaftDb {
    /// Opens the stores, holds their locks, and finds out which regions there are. `layout` is that of the
    /// copy: one for raft-engine's programs has no place for a term that was compacted.
    pub(crate) fn open_source(
        raftdb: RocksDir<'_>,
        kv: Option<RocksDir<'_>>,
        layout: Layout,
    ) -> Result<RaftDb> {
        let stores = [Some(raftdb), kv].into_iter().flatten().map(Store::open).collect::<Result<Vec<_>>>()?;
        let mut found = Found::default();
        for (number, store) in stores.iter().enumerate() {
            for family in &store.families {
                store.scan(family, |key, value| found.take((number, family), key, value))?;
            }
        }
        Ok(RaftDb { stores, regions: found.checked()?, layout })
    }
}

impl Reads for RaftDb {
    fn regions(&self) -> Vec<u64> {
        self.regions.keys().copied().collect()
    }

    fn span(&self, region: u64) -> Option<(u64, u64)> {
        let log = self.regions.get(&region)?.log.as_ref()?;
        Some((log.first, log.last))
    }

    fn entries(&self, region: u64, from: u64, to: u64) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let Some(log) = self.regions.get(&region).and_then(|region| region.log.as_ref()) else {
            return Ok(entries);
        };
        let store = &self.stores[log.store];
        let mut cursor = store.cursor(&log.family)?;
        cursor.seek(keys::entry(region, from));
        let (mut next, mut bytes) = (from, 0);
        while next < to && bytes < CHUNK_BYTES {
            let Some((key, value)) = cursor.item() else {
                store.ended(&cursor)?;
                break;
            };
            match keys::parse(key) {
                Some(found) if found == (Key::Entry { region, index: next }) => {}
                Some(_) => break,
                None => return Err(store.unknown(&log.family, key)),
            }
            let entry = Entry::parse_from_bytes(value)
                .map_err(|e| Failure::in_region(region, format!("entry {next} is no eraftpb::Entry: {e}")))?;
            entries.push(entry);
            (next, bytes) = (next + 1, bytes + value.len());
            cursor.next();
        }
        Ok(entries)
    }

    fn pairs(&self, region: u64) -> Result<Vec<Pair>> {
        Ok(self.regions.get(&region).map(|region| region.pairs.clone()).unwrap_or_default())
    }

    fn base(&self, region: u64) -> Option<EntryId> {
        match self.layout {
            Layout::RaftEngine => None,
            Layout::RaftRs => self.regions.get(&region)?.base,
        }
    }
}

/// A store of RocksDB's, open read-only.
struct Store {
    db: DB,
    dir: PathBuf,
    /// Those of [`FAMILIES`] that it has.
    families: Vec<String>,
    _lock: Lock,
}

impl Store {
    fn open(RocksDir { dir, wal_dir }: RocksDir<'_>) -> Result<Store> {
        if !dir.join("CURRENT").is_file() {
            return Err(Failure::CannotRun(format!("there is no store of RocksDB's in {}", dir.display())));
        }
        if wal_dir.is_none() && !files(dir)?.iter().any(|(name, _)| is_wal(name)) {
            return Err(Failure::CannotRun(format!(
                "{} has no write-ahead log (*.log), and a store of RocksDB's has one: say where it is with --wal-dir \
                 or --kv-wal-dir; if it is a checkpoint, which has none, name the store's own directory",
                dir.display()
            )));
        }
        let lock = Lock::of_rocksdb(dir)?;
        let mut options = Options::default();
        options.set_max_open_files(OPEN_FILES_MAX);
        // A torn end is dropped. Whatever else of the log cannot be read is an error, and not its end.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        if let Some(wal_dir) = wal_dir {
            // It would be made if it were not there.
            files(wal_dir)?;
            options.set_wal_dir(wal_dir);
        }
        let named = DB::list_cf(&options, dir).map_err(|e| failed(dir, &e))?;
        let families: Vec<String> =
            named.into_iter().filter(|name| FAMILIES.contains(&name.as_str())).collect();
        let db = DB::open_cf_for_read_only(&options, dir, &families, false).map_err(|e| failed(dir, &e))?;
        Ok(Store { db, dir: dir.to_owned(), families, _lock: lock })
    }

    fn cursor(&self, family: &str) -> Result<DBRawIterator<'_>> {
        let family = self.db.cf_handle(family).ok_or_else(|| {
            Failure::Wrong(format!("{}: the column family {family} is gone", self.dir.display()))
        })?;
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        Ok(self.db.raw_iterator_cf_opt(family, options))
    }

    /// What made a cursor end, unless it was the end.
    fn ended(&self, cursor: &DBRawIterator<'_>) -> Result<()> {
        cursor.status().map_err(|e| failed(&self.dir, &e))
    }

    fn unknown(&self, family: &str, key: &[u8]) -> Failure {
        Failure::Wrong(format!(
            "{}: the column family {family} has the key {}, which is of no kind that TiKV's raftdb or kv store is known \
             to have",
            self.dir.display(),
            key.escape_ascii()
        ))
    }

    /// Gives every key of the local area to `take`; of a region's entries only the first and the last.
    fn scan(&self, family: &str, mut take: impl FnMut(Key, &[u8]) -> Result<()>) -> Result<()> {
        let mut cursor = self.cursor(family)?;
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            if key.starts_with(keys::DATA) {
                cursor.seek(keys::PAST_DATA);
                continue;
            }
            let Some(key) = keys::parse(key) else {
                return Err(self.unknown(family, key));
            };
            take(key, value)?;
            let Key::Entry { region, .. } = key else {
                cursor.next();
                continue;
            };
            cursor.seek_for_prev(keys::entry(region, u64::MAX));
            if let Some((Some(last), value)) = cursor.item().map(|(key, value)| (keys::parse(key), value)) {
                take(last, value)?;
            }
            self.ended(&cursor)?;
            cursor.seek(keys::past_entries(region));
        }
        self.ended(&cursor)
    }
}

/// Whether a file is of a write-ahead log.
fn is_wal(name: &str) -> bool {
    name.strip_suffix(".log").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// An error of RocksDB's.
fn failed(dir: &Path, error: &rocksdb::Error) -> Failure {
    let why = format!("{}: RocksDB says: {error}", dir.display());
    if error.as_ref().starts_with("IO error") { Failure::CannotRun(why) } else { Failure::Wrong(why) }
}
