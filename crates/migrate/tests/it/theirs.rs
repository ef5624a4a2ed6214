//! What the table of differences in `crates/raft-engine/README.md` says of raft-engine.

use crate::sides::{Op, Side, Step, Theirs};
use raft_engine::{Command, Config, Engine, Error, LogBatch, MessageExt, get_perf_context};
use raft_proto::eraftpb::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

fn open(dir: &Path) -> Engine {
    Engine::open(Config { dir: dir.to_str().unwrap().to_owned(), ..Config::default() }).unwrap()
}

fn append(engine: &Engine, indexes: impl IntoIterator<Item = u64>) {
    let entries: Vec<Entry> = indexes.into_iter().map(|index| Entry { index, ..Entry::default() }).collect();
    let mut batch = LogBatch::default();
    batch.add_entries::<Entries>(7, &entries).unwrap();
    engine.write(&mut batch, false).unwrap();
}

fn panics<T>(call: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

#[test]
fn an_append_that_leaves_a_gap_panics_now_and_at_every_open() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 5..=9);
    assert!(panics(|| append(&engine, [11])));
    drop(engine);
    assert!(panics(|| open(dir.path())));
}

#[test]
fn an_append_below_the_first_entry_panics() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 5..=9);
    assert!(panics(|| append(&engine, [4])));
}

#[test]
fn indexes_that_are_not_consecutive_are_found_when_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, [1, 3]);
    assert_eq!(engine.last_index(7), Some(2));
    assert!(panics(|| engine.get_entry::<Entries>(7, 2)));
}

#[test]
fn a_sync_of_nothing_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 1..=3);
    let synced = || get_perf_context().log_sync_duration;
    assert_eq!(synced(), Duration::ZERO);
    engine.sync().unwrap();
    engine.write(&mut LogBatch::default(), true).unwrap();
    assert_eq!(synced(), Duration::ZERO);
    let mut batch = LogBatch::default();
    batch.put(7, b"k".to_vec(), b"v".to_vec()).unwrap();
    engine.write(&mut batch, true).unwrap();
    assert!(synced() > Duration::ZERO);
}

#[test]
fn index_0_the_reserved_key_and_a_compaction_beyond_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 1..=3);
    assert_eq!(engine.compact_to(7, 100), 99);
    append(&engine, 0..=2);
    assert_eq!(engine.first_index(7), Some(0));
    let put = LogBatch::default().put(7, b"__\x01".to_vec(), Vec::new());
    assert!(matches!(put, Err(Error::InvalidArgument(_))));
    let mut batch = LogBatch::default();
    batch.add_command(8, Command::Compact { index: 9 });
    engine.write(&mut batch, false).unwrap();
    assert!(engine.raft_groups().contains(&8));
}

#[test]
fn ranges_that_end_before_they_begin_panic() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 5..=9);
    let mut batch = LogBatch::default();
    batch.put(7, b"k".to_vec(), b"v".to_vec()).unwrap();
    engine.write(&mut batch, false).unwrap();
    assert!(panics(|| engine.fetch_entries_to::<Entries>(7, 9, 6, None, &mut Vec::new())));
    assert!(panics(|| engine.scan_raw_messages(7, Some(b"z"), Some(b"a"), false, |_, _| true)));
}

#[test]
fn a_key_that_was_deleted_is_there_again_after_a_purge_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = Theirs::open(dir.path());
    let write = |op| theirs.apply(&Step::Write { ops: vec![op], sync: false });
    let mut index = 0;
    let mut fill_and_purge = || {
        for _ in 0..50 {
            index += 1;
            let mut data = vec![0; 30_000];
            fastrand::Rng::with_seed(index).fill(&mut data);
            let entry = Entry { term: 1, index, data: data.into(), ..Entry::default() };
            write(Op::Append { region: 8, entries: vec![entry] });
            write(Op::Compact { region: 8, index });
        }
        theirs.apply(&Step::Purge);
    };
    let key = b"k".to_vec();
    write(Op::Put { region: 7, key: key.clone(), value: b"v".to_vec() });
    fill_and_purge();
    write(Op::Delete { region: 7, key });
    (0..4).for_each(|_| fill_and_purge());
    assert_eq!(theirs.0.get(7, b"k"), None);
    drop(theirs);
    assert_eq!(Theirs::open(dir.path()).0.get(7, b"k").as_deref(), Some(&b"v"[..]));
}
