//! What a program of raft-engine does.

use crate::support::{Entries, all, append, command, config, entries, entry, open, put, span};
use protobuf::Message;
use raft_proto::eraftpb::HardState;
use raftwood::{BoxError, Rollback};
use raftwood_raft_engine::{
    Command, Config, Engine, Error, EventListener, LogBatch, ReadableSize, RecoveryMode, Version,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

#[test]
fn entries_come_back_as_they_were_written_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let written = entries(3, 5..=20);
    let engine = open(dir.path());
    append(&engine, 7, &written).unwrap();
    for engine in [Some(engine), None] {
        let engine = engine.unwrap_or_else(|| open(dir.path()));
        assert_eq!((span(&engine, 7), span(&engine, 8)), (Some((5, 20)), None));
        assert_eq!(all(&engine, 7), written);
        assert_eq!(engine.get_entry::<Entries>(7, 9).unwrap(), Some(written[4].clone()));
        for absent in [(7, 4), (7, 21), (8, 1)] {
            assert_eq!(engine.get_entry::<Entries>(absent.0, absent.1).unwrap(), None);
        }
        assert_eq!((engine.raft_groups(), engine.is_empty()), (vec![7], false));
    }
}

#[test]
fn a_fetch_is_bounded_by_bytes_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let written = entries(1, 1..=10);
    append(&engine, 7, &written).unwrap();
    command(&engine, 7, Command::Compact { index: 3 });
    let fetch = |region, begin, end, max| {
        let mut found = vec![entry(9, 9, b"was there")];
        let count = engine.fetch_entries_to::<Entries>(region, begin, end, max, &mut found);
        assert_eq!(count.as_ref().copied().unwrap_or(0), found.len() - 1, "appended to what was there");
        count
    };
    let one = written[4].write_to_bytes().unwrap().len();
    assert_eq!(fetch(7, 3, 11, None).unwrap(), 8);
    for (max, count) in [(0, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (usize::MAX, 8)] {
        assert_eq!(fetch(7, 3, 11, Some(max)).unwrap(), count, "{max}");
    }
    assert_eq!(fetch(7, 5, 5, None).unwrap(), 0);
    assert_eq!(fetch(8, 1, 5, None).unwrap(), 0, "of a region that is not there");
    assert!(matches!(fetch(7, 2, 5, None), Err(Error::EntryCompacted)));
    assert!(matches!(fetch(7, 2, 99, None), Err(Error::EntryCompacted)));
    assert!(matches!(fetch(7, 3, 12, None), Err(Error::EntryNotFound)));
    command(&engine, 7, Command::Compact { index: 11 });
    assert!(matches!(fetch(7, 3, 5, None), Err(Error::EntryNotFound)), "of an empty log");
}

#[test]
fn an_append_replaces_what_stands_from_its_first_index_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &entries(5, 1..=10)).unwrap();
    append(&engine, 7, &entries(3, 4..=5)).unwrap();
    append(&engine, 7, &entries(6, 6..=7)).unwrap();
    let left = [entries(5, 1..=3), entries(3, 4..=5), entries(6, 6..=7)].concat();
    assert_eq!(all(&engine, 7), left);
    // All of it, from the first on.
    append(&engine, 7, &entries(2, 1..=2)).unwrap();
    assert_eq!(all(&engine, 7), entries(2, 1..=2));
}

#[test]
fn a_log_that_was_emptied_begins_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    for (first, last) in [(1, 10), (11, 12), (50, 60), (20, 30), (31, 31), (1, 3)] {
        append(&engine, 7, &entries(1, first..=last)).unwrap();
        assert_eq!(span(&engine, 7), Some((first, last)));
        command(&engine, 7, Command::Compact { index: last + 5 });
        assert_eq!(span(&engine, 7), None);
        assert_eq!(engine.raft_groups(), [7]);
    }
    // In one batch too.
    let mut batch = LogBatch::default();
    for first in [5, 90, 40] {
        batch.add_entries::<Entries>(7, &entries(1, first..first + 3)).unwrap();
        batch.add_command(7, Command::Compact { index: u64::MAX });
    }
    batch.add_entries::<Entries>(7, &entries(1, 70..=75)).unwrap();
    batch.add_command(7, Command::Compact { index: 72 });
    engine.write(&mut batch, true).unwrap();
    drop(engine);
    assert_eq!(all(&open(dir.path()), 7), entries(1, 72..=75));
}

#[test]
fn a_clean_forgets_the_region_and_what_follows_starts_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &entries(9, 5..=9)).unwrap();
    put(&engine, 7, b"k", b"v");
    let mut batch = LogBatch::default();
    batch.add_command(7, Command::Clean);
    batch.put(7, b"k2".to_vec(), b"v2".to_vec()).unwrap();
    batch.add_entries::<Entries>(7, &entries(1, 1..=2)).unwrap();
    batch.add_command(8, Command::Clean);
    engine.write(&mut batch, true).unwrap();
    assert_eq!((all(&engine, 7), engine.get(7, b"k")), (entries(1, 1..=2), None));
    assert_eq!((engine.get(7, b"k2").as_deref(), engine.raft_groups()), (Some(&b"v2"[..]), vec![7]));
    command(&engine, 7, Command::Clean);
    assert!(engine.is_empty() && span(&engine, 7).is_none());
}

#[test]
fn keys_are_scanned_in_order_either_way_and_until_the_callback_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    for key in ["a", "b", "bb", "c", ""] {
        put(&engine, 7, key.as_bytes(), key.as_bytes());
    }
    let scan = |start: Option<&str>, end: Option<&str>, reverse, count| {
        let mut found = Vec::new();
        let (start, end) = (start.map(str::as_bytes), end.map(str::as_bytes));
        engine
            .scan_raw_messages(7, start, end, reverse, |key, value| {
                assert_eq!(key, value);
                found.push(String::from_utf8(key.to_vec()).unwrap());
                found.len() < count
            })
            .unwrap();
        found
    };
    assert_eq!(scan(None, None, false, 9), ["", "a", "b", "bb", "c"]);
    assert_eq!(scan(None, None, true, 2), ["c", "bb"]);
    assert_eq!(scan(Some("b"), Some("c"), false, 9), ["b", "bb"]);
    assert_eq!(scan(Some("b"), Some("c"), true, 1), ["bb"]);
    assert_eq!(scan(Some("d"), None, false, 9), [""; 0]);
    let mut batch = LogBatch::default();
    batch.delete(7, b"b".to_vec());
    batch.delete(7, b"no such key".to_vec());
    engine.write(&mut batch, false).unwrap();
    assert_eq!(scan(None, None, false, 9), ["", "a", "bb", "c"]);
}

#[test]
fn messages_under_keys_come_back_and_what_is_none_is_left_out_of_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let state = HardState { term: 3, vote: 2, commit: 9, ..HardState::default() };
    let mut batch = LogBatch::default();
    batch.put_message(7, b"s".to_vec(), &state).unwrap();
    batch.put(7, b"t".to_vec(), vec![0xff; 3]).unwrap();
    engine.write(&mut batch, true).unwrap();
    assert_eq!(engine.get_message(7, b"s").unwrap(), Some(state.clone()));
    assert_eq!(engine.get_message::<HardState>(7, b"x").unwrap(), None);
    assert!(matches!(engine.get_message::<HardState>(7, b"t"), Err(Error::Protobuf(_))));
    let mut found = Vec::new();
    let each = |key: &[u8], value: HardState| {
        found.push((key.to_vec(), value));
        true
    };
    engine.scan_messages(7, None, None, false, each).unwrap();
    assert_eq!(found, [(b"s".to_vec(), state)]);
}

#[test]
fn a_merged_batch_applies_after_the_one_that_it_joins() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let (mut one, mut two) = (LogBatch::default(), LogBatch::with_capacity(4));
    one.add_entries::<Entries>(7, &entries(1, 1..=4)).unwrap();
    one.put(8, b"k".to_vec(), b"1".to_vec()).unwrap();
    two.add_entries::<Entries>(7, &entries(2, 3..=3)).unwrap();
    two.put(8, b"k".to_vec(), b"2".to_vec()).unwrap();
    let sizes = one.approximate_size() + two.approximate_size();
    one.merge(&mut two).unwrap();
    assert_eq!((one.approximate_size(), two.approximate_size(), two.is_empty()), (sizes, 0, true));
    assert!(engine.write(&mut one, true).unwrap() > 0 && one.is_empty());
    assert_eq!(all(&engine, 7), [entries(1, 1..=2), entries(2, 3..=3)].concat());
    assert_eq!(engine.get(8, b"k").as_deref(), Some(&b"2"[..]));
    // The same batch goes on.
    one.add_entries::<Entries>(7, &entries(2, 4..=4)).unwrap();
    engine.write(&mut one, false).unwrap();
    assert_eq!(span(&engine, 7), Some((1, 4)));
}

#[test]
fn a_log_is_compacted_by_one_thread_while_another_appends() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    const LAST: u64 = 3000;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let (engine, is_done) = (&engine, &is_done);
        threads.spawn(move || {
            for index in 1..=LAST {
                let mut batch = LogBatch::default();
                batch.add_entries::<Entries>(7, &entries(1, [index])).unwrap();
                engine.write(&mut batch, false).unwrap();
            }
            is_done.store(true, Ordering::Release);
        });
        threads.spawn(move || {
            while !is_done.load(Ordering::Acquire) {
                let mut batch = LogBatch::default();
                // All of it: the appender's log is empty most of the time.
                batch.add_command(7, Command::Compact { index: engine.last_index(7).unwrap_or(0) + 1 });
                engine.write(&mut batch, false).unwrap();
            }
        });
    });
    append(&engine, 7, &entries(1, [LAST + 1])).unwrap();
    assert_eq!(engine.last_index(7), Some(LAST + 1));
}

/// Starts region 7 again when entries of region 8 are about to be discarded.
#[derive(Default)]
struct StartsAgain(OnceLock<Weak<Engine>>);

impl EventListener for StartsAgain {
    fn before_rollback(&self, _: &Rollback<'_>) -> Result<(), BoxError> {
        let Some(engine) = self.0.get().and_then(Weak::upgrade) else { return Ok(()) };
        if engine.last_index(7) == Some(9) {
            let mut batch = LogBatch::default();
            batch.add_command(7, Command::Clean);
            batch.add_entries::<Entries>(7, &entries(1, 1..=3))?;
            engine.write(&mut batch, false)?;
        }
        Ok(())
    }
}

#[test]
fn a_batch_whose_log_has_changed_since_it_was_built_is_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let listener = Arc::new(StartsAgain::default());
    let engine = Engine::open_with_listeners(config(dir.path()), vec![listener.clone()]).unwrap();
    let engine = Arc::new(engine);
    listener.0.set(Arc::downgrade(&engine)).unwrap();
    append(&engine, 7, &entries(1, 1..=9)).unwrap();
    append(&engine, 8, &entries(1, 1..=9)).unwrap();
    let mut batch = LogBatch::default();
    // There is no entry 7 any more when it is accepted.
    batch.add_command(7, Command::Compact { index: 8 });
    batch.add_entries::<Entries>(8, &entries(1, 5..=5)).unwrap();
    engine.write(&mut batch, false).unwrap();
    assert_eq!((span(&engine, 7), span(&engine, 8)), (None, Some((1, 5))));
}

#[test]
fn compaction_and_purge_give_space_back_and_name_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let big = |index| entry(1, index, &[index as u8; 30_000]);
    for index in 1..=60 {
        append(&engine, 7, &[big(index)]).unwrap();
        append(&engine, 8, &[big(index)]).unwrap();
    }
    let before = engine.get_used_size();
    assert!(before > 3 << 20, "{before}");
    assert_eq!(engine.purge_expired_files().unwrap(), [7, 8], "nothing is compacted yet");
    assert_eq!((engine.compact_to(7, 58), engine.compact_to(8, 60), engine.compact_to(9, 1)), (57, 59, 0));
    assert_eq!(engine.purge_expired_files().unwrap(), [0; 0]);
    assert!(engine.get_used_size() < before / 4);
    assert_eq!((span(&engine, 7), span(&engine, 8)), (Some((58, 60)), Some((60, 60))));
    assert_eq!(all(&engine, 7), [big(58), big(59), big(60)]);
}

#[test]
fn a_configuration_of_raft_engine_is_read_and_written() {
    let text = r#"{
        "dir": "raft", "recovery-mode": "tolerate-corrupted-tail-records", "target-file-size": "8MB",
        "purge-threshold": "1GB", "batch-compression-threshold": "0KB", "format-version": 2,
        "memory-limit": "10MB", "enable-log-recycle": true
    }"#;
    let config: Config = serde_json::from_str(text).unwrap();
    let expected = Config {
        dir: "raft".to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        target_file_size: ReadableSize::mb(8),
        purge_threshold: ReadableSize::gb(1),
        batch_compression_threshold: ReadableSize(0),
        format_version: Version::V2,
        memory_limit: Some(ReadableSize::mb(10)),
        ..Config::default()
    };
    assert_eq!(config, expected);
    let bytes: Config = serde_json::from_str(r#"{ "target-file-size": 8388608 }"#).unwrap();
    assert_eq!(bytes.target_file_size, ReadableSize::mb(8));
    let written = serde_json::to_string(&config).unwrap();
    assert!(written.contains(r#""recovery-mode":"tolerate-corrupted-tail-records""#), "{written}");
    assert!(written.contains(r#""target-file-size":"8MiB""#), "{written}");
    assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config);
    for mode in ["absolute-consistency", "tolerate-tail-corruption", "tolerate-any-corruption"] {
        serde_json::from_str::<RecoveryMode>(&format!("{mode:?}")).unwrap();
    }
    for wrong in [r#"{ "format-version": 3 }"#, r#"{ "target-file-size": "8 pages" }"#] {
        assert!(serde_json::from_str::<Config>(wrong).is_err());
    }
    let refused = [
        Config { purge_threshold: ReadableSize::mb(1), ..Config::default() },
        Config { format_version: Version::V1, ..Config::default() },
        Config { enable_log_recycle: false, prefill_for_recycle: true, ..Config::default() },
    ];
    for mut config in refused {
        assert!(matches!(config.sanitize(), Err(Error::InvalidArgument(_))), "{config:?}");
    }
}

#[test]
fn a_store_that_is_open_is_not_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    assert!(matches!(Engine::open(config(dir.path())), Err(Error::Other(_))));
    assert_eq!(engine.path(), dir.path().to_str().unwrap());
    drop(engine);
    open(dir.path());
}
