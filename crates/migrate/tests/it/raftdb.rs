//! From TiKV's raftdb to Raftwood. The sources are written by RocksDB itself, with the keys spelt out.

use crate::stores::{bytes_of, copy, migrate};
use protobuf::Message;
use raft_proto::eraftpb::{Entry, EntryType, HardState};
use raftwood::raft_rs::{RegionStorage, decode_hard_state};
use raftwood::{Engine, EntryId, RegionId};
use raftwood_migrate::{Failure, Layout, Progress, Report, RocksDir, import_raftdb};
use rocksdb::{DB, Options, WriteBatch};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

fn key(area: u8, region: u64, rest: &[u8]) -> Vec<u8> {
    [&[1, area][..], &region.to_be_bytes(), rest].concat()
}

fn entry_key(region: u64, index: u64) -> Vec<u8> {
    key(2, region, &[&[1][..], &index.to_be_bytes()].concat())
}

/// Fields 1 and 2 of a message, both numbers; 0 is left out.
fn numbers(first: u64, second: u64) -> Vec<u8> {
    HardState { term: first, vote: second, ..HardState::default() }.write_to_bytes().unwrap()
}

fn hard_state(commit: u64) -> HardState {
    HardState { term: 9, vote: 2, commit, ..HardState::default() }
}

/// A `RaftLocalState`.
fn raft_state(last: u64) -> Vec<u8> {
    let inner = hard_state(last).write_to_bytes().unwrap();
    [&[0x0a, inner.len() as u8][..], &inner, &numbers(0, last)].concat()
}

/// A `RaftApplyState`.
fn apply_state(applied: u64, truncated: (u64, u64)) -> Vec<u8> {
    let inner = numbers(truncated.0, truncated.1);
    [&numbers(applied, 0)[..], &[0x12, inner.len() as u8], &inner].concat()
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term, index, data: vec![index as u8; 50].into(), ..Entry::default() }
}

/// Writes entries as TiKV does: with the raft state, in one batch.
fn append(db: &DB, family: &str, region: u64, entries: &[Entry]) {
    let family = db.cf_handle(family).unwrap();
    let mut batch = WriteBatch::default();
    for entry in entries {
        batch.put_cf(family, entry_key(region, entry.index), entry.write_to_bytes().unwrap());
    }
    let last = entries.last().unwrap().index;
    batch.put_cf(family, key(2, region, &[2]), raft_state(last));
    db.write(batch).unwrap();
}

fn compact(db: &DB, region: u64, from: u64, to: u64) {
    (from..to).for_each(|index| db.delete(entry_key(region, index)).unwrap());
}

fn open(dir: &Path, families: &[&str]) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf(&options, dir, families).unwrap()
}

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    /// One whose raftdb has what `write` does.
    fn with(write: impl FnOnce(&DB)) -> Fixture {
        let fixture = Fixture::new();
        write(&open(&fixture.raftdb(), &["default"]));
        fixture
    }

    fn raftdb(&self) -> PathBuf {
        self.dir.path().join("raft")
    }

    fn kv(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    /// The kv store, with the column families that TiKV has.
    fn open_kv(&self) -> DB {
        open(&self.kv(), &["default", "lock", "write", "raft"])
    }

    fn dst(&self) -> PathBuf {
        self.dir.path().join("ours")
    }

    fn import(&self, layout: Layout) -> Result<Report, Failure> {
        self.import_watched(layout, &mut |_| {})
    }

    /// Imports, and looks whether the sources are as they were.
    fn import_watched(&self, layout: Layout, watch: &mut dyn FnMut(Progress)) -> Result<Report, Failure> {
        let kv = self.kv();
        let dirs = [Some(self.raftdb()), kv.exists().then(|| kv.clone())];
        let before: Vec<_> = dirs.iter().flatten().map(|dir| bytes_of(dir)).collect();
        let kv = kv.exists().then_some(RocksDir { dir: &kv, wal_dir: None });
        let dir = self.raftdb();
        let outcome = import_raftdb(RocksDir { dir: &dir, wal_dir: None }, kv, &self.dst(), layout, watch);
        let after: Vec<_> = dirs.iter().flatten().map(|dir| bytes_of(dir)).collect();
        assert!(before == after, "the sources are as they were");
        assert!(!self.dst().with_extension("partial").exists());
        outcome
    }

    fn is_refused(&self, text: &str) {
        match self.import(Layout::RaftRs) {
            Err(Failure::Wrong(why)) => assert!(why.contains(text), "{text}: {why}"),
            other => panic!("{text}: {other:?}"),
        }
        assert!(!self.dst().exists());
    }

    fn cannot_run(&self, text: &str) {
        match self.import(Layout::RaftRs) {
            Err(Failure::CannotRun(why)) => assert!(why.contains(text), "{text}: {why}"),
            other => panic!("{text}: {other:?}"),
        }
        assert!(!self.dst().exists());
    }

    /// The one file of the raftdb with this ending.
    fn file(&self, ending: &str) -> PathBuf {
        let mut names = bytes_of(&self.raftdb()).into_keys().filter(|name| name.ends_with(ending));
        let name = names.next().unwrap();
        assert_eq!(names.next(), None);
        self.raftdb().join(name)
    }
}

/// The entries of a region, as raft-rs reads them.
fn entries_of(engine: &Engine, region: u64) -> Vec<Entry> {
    let state = engine.region(RegionId(region)).state();
    let storage = RegionStorage::new(engine, RegionId(region));
    let context = raft::GetEntriesContext::empty(false);
    raft::Storage::entries(&storage, state.first, state.last + 1, None, context).unwrap()
}

/// A source of everything that TiKV writes: logs in tables and in the write-ahead log, a suffix that was
/// overwritten, a prefix that was compacted, all of it for two regions; entries of every kind, one of 3 MiB;
/// regions without entries; and what the kv store has.
fn source_of_everything() -> (Fixture, BTreeMap<u64, Vec<Entry>>) {
    let fixture = Fixture::new();
    let mut logs = BTreeMap::new();
    {
        let db = open(&fixture.raftdb(), &["default"]);
        let log =
            |term, range: std::ops::RangeInclusive<u64>| range.map(|i| entry(term, i)).collect::<Vec<_>>();
        append(&db, "default", 7, &log(3, 6..=400));
        append(&db, "default", u64::MAX - 1, &log(3, 6..=30));
        db.flush().unwrap();
        append(&db, "default", 7, &log(4, 300..=320));
        (321..=400).for_each(|index| db.delete(entry_key(7, index)).unwrap());
        // Compacted through 99; TiKV has removed no more than what is before 90.
        compact(&db, 7, 6, 90);
        db.flush().unwrap();
        db.compact_range(None::<&[u8]>, None::<&[u8]>);
        logs.insert(7, [log(3, 100..=299), log(4, 300..=320)].concat());
        logs.insert(u64::MAX - 1, log(3, 6..=30));
        let mut odd = log(5, 6..=9);
        odd[0].set_entry_type(EntryType::EntryConfChange);
        odd[1].set_entry_type(EntryType::EntryConfChangeV2);
        odd[1].context = vec![1, 2, 3].into();
        odd[2].data =
            (0..3 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
        odd[3].data = Vec::new().into();
        append(&db, "default", 8, &odd);
        logs.insert(8, odd);
        // A snapshot was applied, and nothing came since.
        db.put(key(2, 9, &[2]), raft_state(50)).unwrap();
        // More than is read at once.
        let many = log(6, 1..=9000);
        append(&db, "default", 1000, &many);
        logs.insert(1000, many);
    }
    let kv = fixture.open_kv();
    let raft = kv.cf_handle("raft").unwrap();
    let put = |key: Vec<u8>, value: &[u8]| kv.put_cf(raft, key, value).unwrap();
    put(key(2, 7, &[3]), &apply_state(310, (99, 3)));
    put(key(3, 7, &[1]), b"region 7");
    put(key(2, 8, &[3]), &apply_state(8, (5, 5)));
    put(key(2, 9, &[3]), &apply_state(50, (50, 8)));
    put(key(3, 9, &[1]), b"region 9");
    // It was removed from this store.
    put(key(3, 10, &[1]), b"a tombstone");
    kv.put([1, 1], b"the store's ident").unwrap();
    kv.put(b"zapple", b"the application's").unwrap();
    kv.put_cf(kv.cf_handle("write").unwrap(), b"zapple", b"the application's").unwrap();
    drop(kv);
    (fixture, logs)
}

/// The key of a state as of an applied index.
fn as_of(kind: u8, applied: u64) -> Vec<u8> {
    [&[kind][..], &applied.to_be_bytes()].concat()
}

#[test]
fn everything_is_taken_over_for_raft_rs() {
    let (fixture, logs) = source_of_everything();
    let mut stages = Vec::new();
    let mut watch = |at: Progress| stages.push((at.is_verifying, at.done, at.total));
    let report = fixture.import_watched(Layout::RaftRs, &mut watch).unwrap();
    let total = logs.values().map(|log| log.len() as u64).sum();
    // Ident, four raft states and that of region 9, three apply states, three region states.
    assert_eq!(report, Report { regions: 7, entries: total, pairs: 12, ..Report::default() });
    assert!(
        stages.is_sorted() && stages.len() > 10 && stages.last() == Some(&(true, total, total)),
        "{stages:?}"
    );
    let engine = Engine::open(fixture.dst()).unwrap();
    for (region, log) in &logs {
        assert!(entries_of(&engine, *region) == *log, "region {region}");
        let stored = engine.region(RegionId(*region)).hard_state().unwrap();
        assert_eq!(decode_hard_state(&stored).unwrap(), hard_state(log.last().unwrap().index));
    }
    let base = |region| engine.region(RegionId(region)).state().base;
    assert_eq!(
        [7, 8, 9].map(base),
        [(3, 99), (5, 5), (8, 50)].map(|(term, index)| Some(EntryId::new(term, index)))
    );
    assert_eq!([10, 1000].map(base), [None; 2]);
    let empty = engine.region(RegionId(9));
    assert_eq!((empty.state().is_empty(), empty.first_index(), empty.term(50).unwrap()), (true, 51, 8));
    assert_eq!(decode_hard_state(&empty.hard_state().unwrap()).unwrap(), hard_state(50));
    let get = |region, key: &[u8]| engine.region(RegionId(region)).get(key).map(|value| value.to_vec());
    assert_eq!(get(0, &[1]).as_deref(), Some(&b"the store's ident"[..]));
    assert_eq!(get(7, b"R"), Some(raft_state(320)));
    assert_eq!(get(7, &as_of(4, 310)), Some(apply_state(310, (99, 3))));
    assert_eq!(get(7, &as_of(3, 310)).as_deref(), Some(&b"region 7"[..]));
    assert_eq!(get(10, &as_of(3, 0)).as_deref(), Some(&b"a tombstone"[..]));
}

#[test]
fn a_program_of_raft_engine_finds_everything_under_the_keys_it_has_there() {
    let (fixture, logs) = source_of_everything();
    fixture.import(Layout::RaftEngine).unwrap();
    use crate::sides::{Ours, Side};
    let state = Ours::open(&fixture.dst()).state();
    for (region, log) in &logs {
        assert!(state[region].entries == *log, "region {region}");
        assert_eq!(state[region].pairs[&b"R"[..]], raft_state(log.last().unwrap().index));
    }
    assert_eq!(state.keys().copied().collect::<Vec<_>>(), [0, 7, 8, 9, 10, 1000, u64::MAX - 1]);
    assert_eq!(state[&9].pairs.len(), 3);
    let engine = Engine::open(fixture.dst()).unwrap();
    let regions = engine.regions();
    assert!(regions.iter().all(|id| engine.region(*id).hard_state().is_none()));
    // And may go on to raft-engine.
    drop(engine);
    let on = fixture.dir.path().join("on");
    raftwood_migrate::export(&fixture.dst(), &on, &mut |_| {}).unwrap();
    assert_eq!(crate::sides::Theirs::open(&on).state(), state);
}

#[test]
fn a_raftdb_alone_has_logs_and_raft_states() {
    let fixture = Fixture::with(|db| {
        append(db, "default", 7, &[entry(1, 6), entry(2, 7)]);
        db.put(key(2, 8, &[2]), raft_state(5)).unwrap();
    });
    let report = fixture.import(Layout::RaftRs).unwrap();
    assert_eq!(report, Report { regions: 2, entries: 2, pairs: 2, ..Report::default() });
    let engine = Engine::open(fixture.dst()).unwrap();
    assert_eq!(entries_of(&engine, 7), [entry(1, 6), entry(2, 7)]);
    assert!(engine.region(RegionId(8)).state().is_empty());
}

#[test]
fn a_store_that_has_everything_in_its_column_families_is_one_source() {
    let fixture = Fixture::new();
    let db = open(&fixture.raftdb(), &["default", "raft", "write"]);
    append(&db, "raft", 7, &[entry(1, 6), entry(1, 7)]);
    let raft = db.cf_handle("raft").unwrap();
    db.put_cf(raft, key(2, 7, &[3]), apply_state(6, (5, 1))).unwrap();
    append(&db, "default", 8, &[entry(1, 6)]);
    for family in ["default", "write"] {
        db.put_cf(db.cf_handle(family).unwrap(), b"zkey", b"value").unwrap();
    }
    drop(db);
    let report = fixture.import(Layout::RaftRs).unwrap();
    assert_eq!(report, Report { regions: 2, entries: 3, pairs: 3, ..Report::default() });
    let engine = Engine::open(fixture.dst()).unwrap();
    assert_eq!(engine.region(RegionId(7)).state().base, Some(EntryId::new(1, 5)));
    drop(engine);
    // But a region is in one place.
    let db = open(&fixture.raftdb(), &["default", "raft", "write"]);
    append(&db, "default", 7, &[entry(1, 8)]);
    drop(db);
    fs::remove_dir_all(fixture.dst()).unwrap();
    fixture.is_refused("two places");
}

#[test]
fn the_store_of_a_process_that_was_killed_is_taken_over_and_a_torn_end_dropped() {
    for cut in [0, 1, 7, 40, 200] {
        let fixture = Fixture::new();
        let live = fixture.dir.path().join("live");
        let db = open(&live, &["default"]);
        (1..=20).for_each(|index| append(&db, "default", 7, &[entry(1, index)]));
        // Its files as they are while it runs are what a kill leaves.
        copy(&live, &fixture.raftdb());
        let wal = fs::OpenOptions::new().write(true).open(fixture.file(".log")).unwrap();
        wal.set_len(wal.metadata().unwrap().len() - cut).unwrap();
        fixture.import(Layout::RaftRs).unwrap();
        let last = Engine::open(fixture.dst()).unwrap().region(RegionId(7)).last_index();
        assert!(if cut == 0 { last == 20 } else { (10..20).contains(&last) }, "{cut}: {last}");
    }
}

/// Flips a bit of the byte `at` of a file.
fn rot(path: &Path, at: impl FnOnce(&[u8]) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(&bytes);
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Where the data of an entry is.
fn data_of(index: u8) -> impl Fn(&[u8]) -> usize {
    move |bytes| bytes.windows(50).position(|w| w == [index; 50]).unwrap()
}

#[test]
fn what_rotted_or_is_gone_is_refused() {
    let logs = |db: &DB| (1..=20).for_each(|index| append(db, "default", 7, &[entry(1, index)]));
    // In the write-ahead log, where RocksDB by its default would mistake it for the end.
    let in_wal = Fixture::with(logs);
    rot(&in_wal.file(".log"), data_of(9));
    in_wal.is_refused("RocksDB says");
    let flushed = |db: &DB| {
        logs(db);
        db.flush().unwrap();
    };
    let in_table = Fixture::with(flushed);
    rot(&in_table.file(".sst"), |bytes| bytes.len() / 3);
    in_table.is_refused("RocksDB says");
    let gone = Fixture::with(flushed);
    fs::remove_file(gone.file(".sst")).unwrap();
    let why = gone.import(Layout::RaftRs).unwrap_err().to_string();
    assert!(why.contains("RocksDB says"), "{why}");
    let manifest = Fixture::with(flushed);
    let name = bytes_of(&manifest.raftdb()).into_keys().find(|name| name.starts_with("MANIFEST")).unwrap();
    rot(&manifest.raftdb().join(name), |bytes| bytes.len() / 2);
    manifest.is_refused("RocksDB says");
}

#[test]
fn logs_and_states_that_cannot_be_are_refused() {
    type Change = fn(&DB, &DB);
    let changes: [(Change, &str); 16] = [
        (|db, _| db.delete(entry_key(7, 9)).unwrap(), "entry 9 is not where it is due"),
        (
            |db, _| db.delete(entry_key(7, 20)).unwrap(),
            "its last entry is 19, and by its raft state it is 20",
        ),
        (|db, _| db.delete(entry_key(7, 6)).unwrap(), "entries 6 to 6 are missing"),
        (|db, _| compact(db, 7, 6, 21), "entries 6 to 20 are missing"),
        (|db, _| db.delete(key(2, 7, &[2])).unwrap(), "without a raft state"),
        (|db, _| db.put(key(2, 7, &[2]), b"term 3, vote 2").unwrap(), "no RaftLocalState"),
        (|db, _| db.put(entry_key(7, 9), b"no entry").unwrap(), "no eraftpb::Entry"),
        (
            |db, _| db.put(entry_key(7, 9), entry(1, 10).write_to_bytes().unwrap()).unwrap(),
            "not where it is due",
        ),
        (|db, _| db.put(entry_key(7, 9), entry(9, 9).write_to_bytes().unwrap()).unwrap(), "terms never fall"),
        (
            |db, _| db.put(entry_key(7, 9).into_iter().chain([1]).collect::<Vec<_>>(), b"").unwrap(),
            "of no kind",
        ),
        (|db, _| db.put(key(2, 7, &[5, 0, 0, 0, 0, 0, 0, 0, 1]), b"").unwrap(), "of no kind"),
        (|db, _| db.put(b"apple", b"somebody's").unwrap(), "of no kind"),
        (|db, _| db.put(key(2, 0, &[2]), raft_state(5)).unwrap(), "no such region"),
        (|_, kv| put_raft(kv, &key(2, 7, &[3]), &apply_state(30, (25, 1))), "was truncated at 25"),
        (|_, kv| put_raft(kv, &key(2, 7, &[3]), b"\xff"), "no RaftApplyState"),
        (|_, kv| put_raft(kv, &key(2, 7, &[4]), &raft_state(30)), "a snapshot was being applied"),
    ];
    for (change, text) in changes {
        let fixture = Fixture::new();
        let (db, kv) = (open(&fixture.raftdb(), &["default"]), fixture.open_kv());
        append(&db, "default", 7, &(6..=20).map(|index| entry(1, index)).collect::<Vec<_>>());
        put_raft(&kv, &key(2, 7, &[3]), &apply_state(10, (5, 1)));
        change(&db, &kv);
        drop((db, kv));
        fixture.is_refused(text);
    }
    let two = Fixture::with(|db| db.put([1, 1], b"one").unwrap());
    two.open_kv().put([1, 1], b"another").unwrap();
    two.is_refused("not of one TiKV");
    Fixture::with(|_| {}).is_refused("is it a raftdb?");
}

fn put_raft(kv: &DB, key: &[u8], value: &[u8]) {
    kv.put_cf(kv.cf_handle("raft").unwrap(), key, value).unwrap();
}

#[test]
fn what_is_no_store_of_rocksdbs_is_refused_and_not_made_one() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.raftdb()).unwrap();
    fixture.cannot_run("no store of RocksDB's");
    fs::write(fixture.raftdb().join("CURRENT"), b"MANIFEST-000001\n").unwrap();
    fixture.cannot_run("no write-ahead log");
    for name in ["000002.log", "LOCK"] {
        fs::write(fixture.raftdb().join(name), b"").unwrap();
    }
    let before = bytes_of(&fixture.raftdb());
    assert!(fixture.import(Layout::RaftRs).unwrap_err().to_string().contains("RocksDB says"));
    assert!(bytes_of(&fixture.raftdb()) == before);
    let none = fixture.dir.path().join("none");
    let source = RocksDir { dir: &none, wal_dir: None };
    let outcome = import_raftdb(source, None, &fixture.dst(), Layout::RaftRs, &mut |_| {});
    assert!(matches!(outcome, Err(Failure::CannotRun(_))) && !none.exists());
}

#[test]
fn a_write_ahead_log_elsewhere_has_to_be_named() {
    let fixture = Fixture::new();
    let wal = fixture.dir.path().join("wal");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_dir(&wal);
    let db = DB::open_cf(&options, fixture.raftdb(), ["default"]).unwrap();
    append(&db, "default", 7, &[entry(1, 6)]);
    drop(db);
    fixture.cannot_run("--wal-dir");
    let (dir, before) = (fixture.raftdb(), bytes_of(&wal));
    let import = |wal_dir| {
        import_raftdb(
            RocksDir { dir: &dir, wal_dir: Some(wal_dir) },
            None,
            &fixture.dst(),
            Layout::RaftRs,
            &mut |_| {},
        )
    };
    let none = fixture.dir.path().join("none");
    assert!(matches!(import(&none), Err(Failure::CannotRun(_))) && !none.exists());
    assert_eq!(import(&wal).unwrap(), Report { regions: 1, entries: 1, pairs: 1, ..Report::default() });
    assert!(bytes_of(&wal) == before);
}

const VARIABLE: &str = "RAFTWOOD_MIGRATE_OPENER";

/// Not a test: a process of its own, as RocksDB's locks are of processes. It opens a store, says whether it
/// could, and holds it until its input ends.
#[test]
fn opener() {
    let Some(dir) = std::env::var_os(VARIABLE) else { return };
    let opened = DB::open_default(PathBuf::from(dir));
    println!("{}", if opened.is_ok() { "it is open" } else { "it is locked" });
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn start_opener(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["raftdb::opener", "--exact", "--nocapture"]).env(VARIABLE, dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_store_that_is_open_is_refused_and_while_it_is_read_nobody_opens_it() {
    use std::io::{BufRead, BufReader};
    let fixture = Fixture::with(|db| append(db, "default", 7, &[entry(1, 6)]));
    let mut opener = start_opener(&fixture.raftdb());
    let mut lines = BufReader::new(opener.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("it is open")));
    // Its files change while it is open: this is not `cannot_run`.
    let run =
        || migrate(["import", "--from", "rocksdb"], &fixture.raftdb(), &fixture.dst()).output().unwrap();
    let refused = run();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("locked"), "{said}");
    drop(opener.stdin.take());
    assert!(opener.wait().unwrap().success());
    let mut tries = 0;
    let mut watch = |_: Progress| {
        tries += 1;
        assert!(!fixture.dst().exists(), "it has its name last");
        let second =
            migrate(["import", "--from", "rocksdb"], &fixture.raftdb(), &fixture.dir.path().join("other"));
        let said = String::from_utf8({ second }.output().unwrap().stderr).unwrap();
        assert!(said.contains("locked"), "{said}");
        let output = start_opener(&fixture.raftdb()).wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("it is locked"));
    };
    let source = fixture.raftdb();
    import_raftdb(RocksDir { dir: &source, wal_dir: None }, None, &fixture.dst(), Layout::RaftRs, &mut watch)
        .unwrap();
    assert_eq!(tries, 2);
}

#[test]
fn a_run_that_is_killed_leaves_no_store_and_is_run_again() {
    let (fixture, logs) = source_of_everything();
    let (src, dst, kv) = (fixture.raftdb(), fixture.dst(), fixture.kv());
    let before = bytes_of(&src);
    let args = ["import", "--from", "rocksdb", "--layout", "raft-rs", "--kv-dir", kv.to_str().unwrap()];
    let mut killed = 0;
    let mut pause = Duration::from_millis(1);
    while !dst.exists() {
        let mut child = migrate(args, &src, &dst).spawn().unwrap();
        std::thread::sleep(pause);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.code().is_none_or(|code| code == 0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        killed += u32::from(!output.status.success());
        assert!(bytes_of(&src) == before);
        pause = pause * 5 / 4;
    }
    assert!(killed > 0);
    let engine = Engine::open(&dst).unwrap();
    assert!(logs.iter().all(|(region, log)| entries_of(&engine, *region) == *log));
}

#[test]
fn the_program_says_what_it_did_and_ends_with_a_code() {
    let fixture = Fixture::with(|db| append(db, "default", 7, &[entry(1, 6)]));
    let done = migrate(["import", "--from", "rocksdb"], &fixture.raftdb(), &fixture.dst()).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.contains("1 regions, 1 entries, 1 key-values") && said.contains("Only one of the two"),
        "{said}"
    );
    let args = ["import", "--from", "raft-engine", "--kv-dir", "kv"];
    let refused = migrate(args, &fixture.raftdb(), &fixture.dir.path().join("other")).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let gap = Fixture::with(|db| {
        append(db, "default", 7, &[entry(1, 6), entry(1, 7), entry(1, 8)]);
        db.delete(entry_key(7, 7)).unwrap();
    });
    let refused = migrate(["import", "--from", "rocksdb"], &gap.raftdb(), &gap.dst()).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("region 7: entry 7"), "{said}");
}
