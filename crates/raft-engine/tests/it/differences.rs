//! Each row of the table of differences in the README, in its order.

use crate::support::{Entries, WithTerms, all, append, command, config, entries, entry, open, put, span};
use raftwood::vfs::sim::{EIO, Fault, OpKind, SimVfs};
use raftwood::{Event, EventListener, RegionId};
use raftwood_raft_engine::{Command, Config, Engine, Error, LogBatch, ReadableSize};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

fn is_refused<T>(outcome: Result<T, Error>, text: &str) {
    match outcome {
        Err(Error::InvalidArgument(why)) => assert!(why.contains(text), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("not refused: {text}"),
    }
}

#[test]
fn an_append_that_leaves_a_gap_or_lies_before_the_first_entry_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &entries(1, 5..=9)).unwrap();
    is_refused(append(&engine, 7, &entries(1, [11])), "gap");
    is_refused(append(&engine, 7, &entries(1, 4..=6)), "begins at 5");
    command(&engine, 7, Command::Compact { index: 7 });
    is_refused(append(&engine, 7, &entries(1, [6])), "begins at 7");
    // Nothing of the batch is written, and it is as it was.
    let mut batch = LogBatch::default();
    batch.put(8, b"k".to_vec(), b"v".to_vec()).unwrap();
    batch.add_entries::<Entries>(7, &entries(1, [20])).unwrap();
    let same = batch.clone();
    is_refused(engine.write(&mut batch, true), "gap");
    assert_eq!((engine.get(8, b"k"), &batch), (None, &same));
    append(&engine, 7, &entries(1, 10..=19)).unwrap();
    engine.write(&mut batch, true).unwrap();
    assert_eq!(span(&engine, 7), Some((7, 20)));
}

#[test]
fn entries_of_one_call_have_consecutive_indexes_or_are_refused() {
    let mut batch = LogBatch::default();
    batch.add_entries::<Entries>(7, &entries(1, [1, 2])).unwrap();
    let same = batch.clone();
    is_refused(batch.add_entries::<Entries>(7, &entries(1, [3, 4, 6])), "consecutive");
    is_refused(batch.add_entries::<Entries>(7, &entries(1, [3, 3])), "consecutive");
    assert_eq!(batch, same);
}

#[test]
fn a_sync_of_nothing_syncs_what_was_written_before() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let is_durable = || engine.raftwood().region(RegionId(7)).state().durable == 3;
    for round in 0..2 {
        let mut batch = LogBatch::default();
        batch.add_command(7, Command::Clean);
        batch.add_entries::<Entries>(7, &entries(1, 1..=3)).unwrap();
        engine.write(&mut batch, false).unwrap();
        assert!(!is_durable());
        match round {
            0 => engine.sync().unwrap(),
            _ => assert_eq!(engine.write(&mut LogBatch::default(), true).unwrap(), 0),
        }
        assert!(is_durable());
    }
    append(&engine, 7, &entries(1, 1..=3)).unwrap();
    assert!(is_durable(), "written with sync");
}

#[test]
fn a_sync_that_fails_is_an_error_and_ends_writing_not_the_process() {
    let disk = SimVfs::new(1);
    let dir = "db".to_owned();
    let size = ReadableSize::kb(256);
    let config = Config { dir, target_file_size: size, purge_threshold: size, ..Config::default() };
    let engine = Engine::open_with_file_system(config, Arc::new(disk.clone())).unwrap();
    append(&engine, 7, &entries(1, 1..=3)).unwrap();
    disk.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log"));
    assert!(matches!(append(&engine, 7, &entries(1, 4..=4)), Err(Error::Io(_))));
    disk.clear_faults();
    assert!(matches!(append(&engine, 7, &entries(1, 5..=5)), Err(Error::Io(_))));
    assert_eq!(all(&engine, 7)[..3], entries(1, 1..=3));
}

#[test]
fn terms_are_those_that_the_program_gives_or_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let term = |region, index| engine.raftwood().region(RegionId(region)).term(index).unwrap();
    append(&engine, 7, &entries(5, 1..=3)).unwrap();
    assert_eq!([term(7, 1), term(7, 3)], [0, 0], "nobody said");
    let mut batch = LogBatch::default();
    batch.add_entries::<WithTerms>(8, &[entries(5, 1..=2), entries(6, 3..=4)].concat()).unwrap();
    engine.write(&mut batch, true).unwrap();
    assert_eq!([1, 2, 3, 4].map(|index| term(8, index)), [5, 5, 6, 6]);
    append(&engine, 8, &entries(7, 3..=5)).unwrap();
    assert_eq!([2, 3, 5].map(|index| term(8, index)), [5, 6, 6], "that of the last entry");
    // A lower one may replace a suffix, as a leader's that was elected meanwhile, but not fall.
    batch.add_entries::<WithTerms>(8, &entries(5, 3..=3)).unwrap();
    engine.write(&mut batch, true).unwrap();
    assert_eq!((term(8, 3), engine.last_index(8)), (5, Some(3)));
    batch.add_entries::<WithTerms>(8, &entries(4, 4..=4)).unwrap();
    is_refused(engine.write(&mut batch, true), "terms never fall");
    // What was compacted counts, until the log begins elsewhere.
    command(&engine, 8, Command::Compact { index: 4 });
    is_refused(engine.write(&mut batch, true), "terms never fall");
    let mut elsewhere = LogBatch::default();
    elsewhere.add_entries::<WithTerms>(8, &entries(4, 9..=9)).unwrap();
    engine.write(&mut elsewhere, true).unwrap();
    assert_eq!((term(8, 9), span(&engine, 8)), (4, Some((9, 9))));
}

#[test]
fn a_log_that_was_compacted_does_not_begin_at_0_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &entries(1, 0..=3)).unwrap();
    assert_eq!(span(&engine, 7), Some((0, 3)));
    command(&engine, 7, Command::Compact { index: 4 });
    is_refused(append(&engine, 7, &entries(1, 0..=1)), "begins at 1 or later");
    is_refused(append(&engine, 8, &entries(1, [u64::MAX])), "at most");
}

#[test]
fn keys_values_and_entries_have_a_largest_size() {
    let mut batch = LogBatch::default();
    batch.put(7, vec![1; 4 << 10], vec![2; 1 << 20]).unwrap();
    is_refused(batch.put(7, vec![1; (4 << 10) + 1], Vec::new()), "4097 bytes");
    is_refused(batch.put(7, Vec::new(), vec![2; (1 << 20) + 1]), "1048577 bytes");
    let entry = entry(1, 1, &vec![0; 256 << 20]);
    is_refused(batch.add_entries::<Entries>(7, &[entry]), "268435456 at most");
    // A key that could not be put is not there to be deleted.
    let mut other = LogBatch::default();
    other.delete(7, vec![1; (4 << 10) + 1]);
    assert!(other.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.write(&mut batch, true).unwrap();
    assert_eq!(engine.get(7, &[1; 4 << 10]), Some(vec![2; 1 << 20]));
}

#[test]
fn a_batch_is_full_before_the_engine_would_refuse_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut batch = LogBatch::default();
    let mut puts = 0;
    let full = loop {
        match batch.put(7, vec![puts as u8], vec![3; 1 << 20]) {
            Ok(()) => puts += 1,
            Err(full) => break full,
        }
    };
    assert!(matches!(full, Error::Full) && puts == 15);
    assert!(matches!(batch.merge(&mut batch.clone()), Err(Error::Full)));
    engine.write(&mut batch, true).unwrap();
    // Single entries are the most that names them.
    let mut index = 0;
    while batch.add_entries::<Entries>(index % 3, &[entry(1, 1 + index / 3, b"")]).is_ok() {
        index += 1;
    }
    assert!(index > 100_000, "{index}");
    engine.write(&mut batch, true).unwrap();
    let big = entry(1, 1, &vec![0; 200 << 20]);
    let added = (4..20)
        .take_while(|region| batch.add_entries::<Entries>(*region, std::slice::from_ref(&big)).is_ok());
    assert_eq!(added.count(), 5);
}

#[test]
fn the_reserved_key_is_refused_as_there() {
    let mut batch = LogBatch::default();
    is_refused(batch.put(7, b"__\x01".to_vec(), Vec::new()), "reserved");
    batch.put(7, b"__\x02".to_vec(), Vec::new()).unwrap();
    batch.put(7, b"__".to_vec(), Vec::new()).unwrap();
}

#[test]
fn compact_to_counts_the_entries_that_it_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &entries(1, 5..=9)).unwrap();
    assert_eq!([3, 5, 7, 7, 100, 200].map(|index| engine.compact_to(7, index)), [0, 0, 2, 0, 3, 0]);
}

#[test]
fn ranges_that_end_before_they_begin_are_empty() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &entries(1, 5..=9)).unwrap();
    put(&engine, 7, b"k", b"v");
    assert_eq!(engine.fetch_entries_to::<Entries>(7, 9, 6, None, &mut Vec::new()).unwrap(), 0);
    let all = |_: &[u8], _: &[u8]| panic!("there is none");
    engine.scan_raw_messages(7, Some(b"z"), Some(b"a"), false, all).unwrap();
}

#[test]
fn a_compaction_makes_no_region() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    command(&engine, 7, Command::Compact { index: 9 });
    assert!(engine.is_empty() && engine.raft_groups().is_empty());
    // What makes one, there and here.
    let mut batch = LogBatch::default();
    batch.delete(7, b"k".to_vec());
    engine.write(&mut batch, false).unwrap();
    assert_eq!(engine.raft_groups(), [7]);
}

#[test]
fn below_the_threshold_a_purge_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut last = 0;
    let mut grow_to = |bytes| {
        while engine.get_used_size() < bytes {
            last += 1;
            let mut batch = LogBatch::default();
            batch.add_entries::<Entries>(7, &[entry(1, last, &[1; 20_000])]).unwrap();
            engine.write(&mut batch, false).unwrap();
        }
    };
    // A purge begins with a sync.
    let is_synced = || {
        let state = engine.raftwood().region(RegionId(7)).state();
        state.durable == state.last
    };
    grow_to(300 << 10);
    assert_eq!((engine.purge_expired_files().unwrap(), is_synced()), (vec![], false));
    grow_to(1100 << 10);
    assert_eq!((engine.purge_expired_files().unwrap(), is_synced()), (vec![7], true));
}

#[test]
fn a_spill_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spill_dir = Some("elsewhere".to_owned());
    is_refused(Engine::open(Config { spill_dir, ..config(dir.path()) }), "elsewhere");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_other_settings_are_for_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let odd = Config {
        recovery_threads: 0,
        recovery_read_block_size: ReadableSize(1),
        memory_limit: Some(ReadableSize(0)),
        compression_level: Some(9),
        bytes_per_sync: Some(ReadableSize(1)),
        prefill_for_recycle: true,
        // Not a multiple of the page size, and too small.
        target_file_size: ReadableSize(5),
        ..config(dir.path())
    };
    append(&Engine::open(odd).unwrap(), 7, &entries(1, 1..=9)).unwrap();
    let other = Config { enable_log_recycle: false, ..config(dir.path()) };
    assert_eq!(all(&Engine::open(other).unwrap(), 7), entries(1, 1..=9));
}

/// The one segment of a small store.
fn segment(dir: &Path) -> std::path::PathBuf {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "log"));
    names.sort();
    names.remove(0)
}

#[test]
fn an_entry_that_is_damaged_is_named_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    append(&engine, 7, &[entry(1, 1, b"one"), entry(1, 2, b"what rots"), entry(1, 3, b"three")]).unwrap();
    append(&engine, 8, &entries(1, 1..=3)).unwrap();
    drop(engine);
    assert_eq!(Engine::consistency_check(dir.path()).unwrap(), []);
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"what rots").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(Engine::consistency_check(dir.path()).unwrap(), [(7, 1)]);
    let engine = open(dir.path());
    match engine.get_entry::<Entries>(7, 2) {
        Err(Error::Corruption(text)) => {
            assert!(text.contains("region 7") && text.contains("entry 2") && text.contains(".log"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        engine.fetch_entries_to::<Entries>(7, 1, 4, None, &mut Vec::new()),
        Err(Error::Corruption(_))
    ));
    assert_eq!(engine.get_entry::<Entries>(7, 3).unwrap(), Some(entry(1, 3, b"three")));
    assert_eq!(all(&engine, 8), entries(1, 1..=3));
    assert!(matches!(Engine::consistency_check(Path::new("/no/such/place")), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_tail_that_is_visibly_torn_is_dropped_and_one_that_may_be_rotten_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("db"));
    append(&engine, 7, &entries(1, 1..=3)).unwrap();
    let data: Vec<u8> = (0..4000u32).map(|n| (n % 251) as u8 + 1).collect();
    let mut batch = LogBatch::default();
    batch.add_entries::<Entries>(7, &[entry(1, 4, &data)]).unwrap();
    engine.write(&mut batch, false).unwrap();
    // As a power cut may leave it: sectors that were not written are zero, or a bit is wrong.
    let after_cut = |name: &str, harm: fn(&mut [u8])| {
        let copy = dir.path().join(name);
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(dir.path().join("db")).unwrap() {
            let file = file.unwrap();
            let mut bytes = fs::read(file.path()).unwrap();
            if let Some(at) = bytes.windows(data.len()).position(|w| w == data) {
                harm(&mut bytes[at..at + data.len()]);
            }
            fs::write(copy.join(file.file_name()), bytes).unwrap();
        }
        open(&copy)
    };
    let torn = after_cut("torn", |data| data[1000..].fill(0));
    assert_eq!(all(&torn, 7), entries(1, 1..=3));
    let rotten = after_cut("rotten", |data| data[1000] ^= 1);
    assert_eq!(span(&rotten, 7), Some((1, 4)));
    assert!(matches!(rotten.get_entry::<Entries>(7, 4), Err(Error::Corruption(_))));
    assert_eq!(rotten.get_entry::<Entries>(7, 3).unwrap(), Some(entries(1, [3])[0].clone()));
}

#[test]
fn a_directory_of_raft_engine_is_refused_and_left_alone() {
    for name in ["0000000000000001.raftlog", "0000000000000003.rewrite"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), b"RAFT-LOG-FILE-HEADER").unwrap();
        is_refused(Engine::open(config(dir.path())), "raftwood-migrate import");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn listeners_are_raftwoods() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);
    impl EventListener for Seen {
        fn on_event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(event.to_string());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let engine = Engine::open_with_listeners(config(dir.path()), vec![seen.clone()]).unwrap();
    append(&engine, 7, &entries(1, 1..=9)).unwrap();
    engine.raftwood().purge().unwrap();
    drop(engine);
    assert!(seen.0.lock().unwrap().iter().any(|line| line.contains("checkpoint")));
}

#[test]
fn the_size_that_a_write_returns_is_that_of_the_batch_uncompressed() {
    let dir = tempfile::tempdir().unwrap();
    let batch_compression_threshold = Config::default().batch_compression_threshold;
    let engine = Engine::open(Config { batch_compression_threshold, ..config(dir.path()) }).unwrap();
    let bytes = append(&engine, 7, &[entry(1, 1, &[0; 100_000])]).unwrap();
    assert!((100_000..101_000).contains(&bytes), "{bytes}");
    assert!(engine.raftwood().stats().batch_bytes < 10_000, "compressed");
}
