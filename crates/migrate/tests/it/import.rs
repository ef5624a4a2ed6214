//! From raft-engine to Raftwood.

use crate::child;
use crate::program::Program;
use crate::sides::{Op, Ours, Side, State, Step, Theirs};
use crate::stores::{bytes_of, copy, last, migrate};
use protobuf::Message;
use raft_proto::eraftpb::{Entry, HardState};
use raftwood::raft_rs::RegionStorage;
use raftwood::{Engine, RegionId};
use raftwood_migrate::{Dropped, Failure, Layout, RaftEngineDir, Report, import};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A directory with a source in it, and room for a destination.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn src(&self) -> PathBuf {
        self.dir.path().join("theirs")
    }

    fn dst(&self) -> PathBuf {
        self.dir.path().join("ours")
    }

    /// A source with these batches, one after the other.
    fn with(steps: impl IntoIterator<Item = Vec<Op>>) -> Fixture {
        let fixture = Fixture::new();
        let theirs = Theirs::open(&fixture.src());
        for ops in steps {
            theirs.apply(&Step::Write { ops, sync: true });
        }
        fixture
    }

    fn import(&self) -> Result<Report, Failure> {
        self.import_as(Layout::RaftEngine)
    }

    fn import_as(&self, layout: Layout) -> Result<Report, Failure> {
        import(RaftEngineDir::new(&self.src()), &self.dst(), layout, &mut |_| {})
    }

    fn import_torn(&self) -> Result<Report, Failure> {
        let src = self.src();
        let from = RaftEngineDir { accepts_torn_tail: true, ..RaftEngineDir::new(&src) };
        import(from, &self.dst(), Layout::RaftEngine, &mut |_| {})
    }

    /// Imports, and compares what a program of raft-engine reads before, on a copy of the source, and after.
    fn is_taken_over(&self) -> State {
        let (state, dropped) = self.is_taken_over_by(Fixture::import);
        assert_eq!(dropped, []);
        state
    }

    /// It is refused, and taken over without the ends that are named both times.
    fn is_taken_over_torn(&self) -> (State, Vec<Dropped>) {
        self.is_refused("--accept-torn-tail");
        let Err(refused) = self.import() else { panic!("not refused") };
        let (state, dropped) = self.is_taken_over_by(Fixture::import_torn);
        assert!(!dropped.is_empty());
        for end in &dropped {
            assert!(refused.to_string().contains(&end.to_string()), "{refused}: {end}");
        }
        (state, dropped)
    }

    fn is_taken_over_by(&self, import: fn(&Fixture) -> Result<Report, Failure>) -> (State, Vec<Dropped>) {
        let before = bytes_of(&self.src());
        let copied = self.dir.path().join("copied");
        copy(&self.src(), &copied);
        let expected = Theirs::open(&copied).state();
        fs::remove_dir_all(copied).unwrap();
        let report = import(self).unwrap();
        assert!(bytes_of(&self.src()) == before, "the source is as it was");
        assert_eq!(Ours::open(&self.dst()).state(), expected);
        (expected, report.dropped)
    }

    fn is_refused(&self, text: &str) {
        let before = bytes_of(&self.src());
        match self.import() {
            Err(Failure::Wrong(why)) => assert!(why.contains(text), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(bytes_of(&self.src()) == before && !self.dst().exists() && !partial(&self.dst()).exists());
    }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term, index, data: vec![index as u8; 50].into(), ..Entry::default() }
}

fn append(region: u64, term: u64, indexes: impl IntoIterator<Item = u64>) -> Op {
    Op::Append { region, entries: indexes.into_iter().map(|index| entry(term, index)).collect() }
}

fn put(region: u64, key: &[u8], value: &[u8]) -> Op {
    Op::Put { region, key: key.to_vec(), value: value.to_vec() }
}

#[test]
fn overwritten_suffixes_compacted_logs_and_lone_keys_are_taken_over() {
    let fixture = Fixture::with([
        vec![append(1, 1, 1..=20), append(2, 3, 100..=120)],
        vec![append(1, 2, 11..=15), put(1, b"R", b"a state"), put(3, b"", b"only a key")],
        vec![Op::Compact { region: 1, index: 9 }, Op::Compact { region: 2, index: 999 }],
        vec![append(4, 1, 7..=9), Op::Clean { region: 4 }, put(0, b"\x01", b"a store's")],
        vec![Op::Compact { region: 5, index: 3 }],
    ]);
    let state = fixture.is_taken_over();
    assert_eq!(state.keys().copied().collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(state[&1].span, Some((9, 15)));
    let engine = Engine::open(fixture.dst()).unwrap();
    // Terms are those of the entries; regions without anything are there too.
    let terms = [10, 11].map(|index| engine.region(RegionId(1)).term(index).unwrap());
    assert_eq!(terms, [1, 2]);
    assert!([2, 5].iter().all(|id| engine.region(RegionId(*id)).exists()));
    assert!(engine.regions().iter().all(|id| engine.region(*id).hard_state().is_none()));
}

#[test]
fn a_program_goes_on_with_what_was_taken_over() {
    for seed in 0..3 {
        let fixture = Fixture::new();
        let mut program = Program::new(seed);
        let theirs = Theirs::open(&fixture.src());
        program.run(&theirs, 800);
        drop(theirs);
        fixture.is_taken_over();
        let ours = Ours::open(&fixture.dst());
        // What raft-engine brings back comes along.
        program.realign(&ours);
        program.run(&ours, 400);
        drop(ours);
        program.check_opened(&Ours::open(&fixture.dst()), "after the import");
    }
}

#[test]
fn the_store_of_a_writer_that_was_killed_is_taken_over() {
    let mut torn = 0;
    for seed in 10..14 {
        let fixture = Fixture::new();
        child::kill_after::<Theirs>(&fixture.src(), seed, 300 + 40 * seed);
        let (state, ends) = fixture.is_taken_over_torn();
        let of_log = |end: &&Dropped| end.file.extension().is_some_and(|e| e == "raftlog");
        let of_logs = ends.iter().filter(of_log).count();
        assert!(!state.is_empty() && of_logs <= 1, "{ends:?}");
        torn += of_logs;
    }
    // Room that was allocated ahead is an end too; a file that was begun at that moment has none yet.
    assert!(torn > 0);
}

#[test]
fn a_torn_tail_is_dropped_only_if_that_is_accepted_and_stays_in_the_source() {
    for cut in [1, 3, 17, 60, 200, 1000] {
        let fixture = Fixture::with((1..=30).map(|i| vec![append(7, 1, [i]), put(7, b"k", &[i as u8; 9])]));
        let path = last(&fixture.src(), ".raftlog");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len() - cut;
        file.set_len(len).unwrap();
        let (state, ends) = fixture.is_taken_over_torn();
        assert!(state[&7].span.unwrap().1 < 30, "{cut}");
        let [dropped] = &ends[..] else { panic!("{ends:?}") };
        assert_eq!((dropped.offset + dropped.bytes + dropped.zeros, &dropped.file), (len, &path));
    }
    // Of a write that had not ended, and room that was allocated ahead.
    for (end, bytes, zeros) in [(vec![3; 100], 100, 0), (vec![0; 4096], 0, 4096)] {
        let fixture = Fixture::with([vec![append(7, 1, 1..=9)]]);
        let path = last(&fixture.src(), ".raftlog");
        let offset = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&end).unwrap();
        let (state, dropped) = fixture.is_taken_over_torn();
        assert_eq!(state[&7].span, Some((1, 9)));
        assert_eq!(dropped, [Dropped { file: path, offset, bytes, zeros }]);
    }
}

/// raft-engine's default mode drops the whole records after it without a word.
#[test]
fn a_record_that_rotted_in_the_last_file_ends_the_log_there_only_if_that_is_accepted() {
    let fixture = Fixture::with((1..=9).map(|i| vec![append(7, 1, [i]), put(7, b"k", &[i as u8; 9])]));
    let path = last(&fixture.src(), ".raftlog");
    let mut bytes = fs::read(&path).unwrap();
    // The value of the key, which is in the part of the fifth batch that every open looks at.
    let at = bytes.windows(9).rposition(|w| w == [5; 9]).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (state, dropped) = fixture.is_taken_over_torn();
    assert_eq!(state[&7].span, Some((1, 4)));
    let [dropped] = &dropped[..] else { panic!("{dropped:?}") };
    assert!(dropped.offset < at as u64 && dropped.offset + dropped.bytes == bytes.len() as u64, "{dropped}");
}

#[test]
fn a_header_that_was_torn_is_an_end_too() {
    let fixture = Fixture::with([vec![append(7, 1, 1..=9)]]);
    let path = last(&fixture.src(), ".raftlog");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
    let (state, dropped) = fixture.is_taken_over_torn();
    assert_eq!(dropped, [Dropped { file: path, offset: 0, bytes: 5, zeros: 0 }]);
    assert!(state.is_empty());
}

#[test]
fn damage_that_more_of_the_log_follows_is_refused_in_any_case() {
    let fixture = Fixture::with((1..=400).map(|i| vec![append(7, 1, (i * 9)..(i * 9 + 9))]));
    let first = bytes_of(&fixture.src()).into_keys().find(|name| name.ends_with(".raftlog")).unwrap();
    let path = fixture.src().join(first);
    assert_ne!(path, last(&fixture.src(), ".raftlog"));
    // In the data of its last batch, where raft-engine's default mode cuts a file, whichever it is.
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = bytes_of(&fixture.src());
    for refused in [fixture.import(), fixture.import_torn()] {
        assert!(matches!(&refused, Err(Failure::Wrong(why)) if !why.contains("--accept")), "{refused:?}");
    }
    assert!(bytes_of(&fixture.src()) == before && !fixture.dst().exists());
}

#[test]
fn what_rotted_is_refused() {
    let fixture = Fixture::with((1..=9).map(|i| vec![append(7, 1, [i])]));
    let path = last(&fixture.src(), ".raftlog");
    let mut bytes = fs::read(&path).unwrap();
    // In the data of the fourth entry, which no open looks at.
    let at = bytes.windows(50).position(|w| w == [4; 50]).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    fixture.is_refused("region 7");
}

#[test]
fn terms_that_fall_and_what_is_too_large_are_refused() {
    Fixture::with([vec![append(7, 5, 1..=3)], vec![append(7, 4, 4..=5)]]).is_refused("terms never fall");
    Fixture::with([vec![put(7, &[1; 5000], b"v")]]).is_refused("KEY_BYTES_MAX");
    Fixture::with([vec![put(7, b"k", &vec![1; 2 << 20])]]).is_refused("VALUE_BYTES_MAX");
}

#[test]
fn entries_of_another_kind_are_refused() {
    use raft_engine::{Config, Engine, LogBatch, MessageExt};
    struct Indexes;
    impl MessageExt for Indexes {
        type Entry = HardState;
        fn index(entry: &HardState) -> u64 {
            entry.commit + 1
        }
    }
    let fixture = Fixture::new();
    let dir = fixture.src().to_str().unwrap().to_owned();
    let engine = Engine::open(Config { dir, ..Config::default() }).unwrap();
    let mut batch = LogBatch::default();
    let entries: Vec<HardState> = (0..3).map(|commit| HardState { commit, ..HardState::default() }).collect();
    batch.add_entries::<Indexes>(7, &entries).unwrap();
    engine.write(&mut batch, true).unwrap();
    drop(engine);
    fixture.is_refused("eraftpb::Entry");
}

/// As TiKV writes it: field 1 is the hard state, field 2 the last index.
fn local_state(state: &HardState, last: u8) -> Vec<u8> {
    let inner = state.write_to_bytes().unwrap();
    [&[0x0a, inner.len() as u8][..], &inner, &[0x10, last]].concat()
}

#[test]
fn for_raft_rs_the_hard_state_is_taken_over_and_entries_are_the_adapters() {
    let state = HardState { term: 3, vote: 2, commit: 8, ..HardState::default() };
    let mut odd = entry(3, 10);
    odd.context = vec![1, 2].into();
    odd.set_entry_type(raft_proto::eraftpb::EntryType::EntryConfChangeV2);
    let entries = [entry(2, 8), entry(3, 9), odd];
    let fixture = Fixture::with([
        vec![Op::Append { region: 7, entries: entries.to_vec() }, put(7, b"R", &local_state(&state, 10))],
        vec![append(8, 1, 1..=2)],
    ]);
    let report = fixture.import_as(Layout::RaftRs).unwrap();
    assert_eq!(report, Report { regions: 2, entries: 5, pairs: 1, ..Report::default() });
    let engine = Engine::open(fixture.dst()).unwrap();
    let stored = raftwood::raft_rs::decode_hard_state(&engine.region(RegionId(7)).hard_state().unwrap());
    assert_eq!(stored.unwrap(), state);
    let storage = RegionStorage::new(&engine, RegionId(7));
    let context = raft::GetEntriesContext::empty(false);
    assert_eq!(raft::Storage::entries(&storage, 8, 11, None, context).unwrap(), entries);
    assert!(engine.region(RegionId(8)).hard_state().is_none());
    drop((storage, engine));
    // It is not for programs of raft-engine.
    let back = raftwood_migrate::export(&fixture.dst(), &fixture.dir.path().join("back"), &mut |_| {});
    assert!(matches!(back, Err(Failure::Wrong(why)) if why.contains("hard state")));
    // And what TiKV did not write is refused.
    let wrong = Fixture::with([vec![put(7, b"R", b"term 3, vote 2")]]);
    let refused = wrong.import_as(Layout::RaftRs);
    assert!(matches!(refused, Err(Failure::Wrong(why)) if why.contains("RaftLocalState")));
}

#[test]
fn files_of_a_spill_directory_come_along() {
    let fixture = Fixture::with((1..=400).map(|i| vec![append(7, 1, (i * 9)..(i * 9 + 9))]));
    let (whole, spill) = (fixture.dir.path().join("whole"), fixture.dir.path().join("spill"));
    copy(&fixture.src(), &whole);
    let names: Vec<String> = bytes_of(&whole).into_keys().filter(|name| name.ends_with(".raftlog")).collect();
    assert!(names.len() >= 2, "{names:?}");
    fs::create_dir(&spill).unwrap();
    let moved = &names[1];
    fs::rename(fixture.src().join(moved), spill.join(moved)).unwrap();
    let expected = Theirs::open(&whole).state();
    let src = fixture.src();
    let from = RaftEngineDir { spill_dir: Some(&spill), ..RaftEngineDir::new(&src) };
    import(from, &fixture.dst(), Layout::RaftEngine, &mut |_| {}).unwrap();
    assert_eq!(Ours::open(&fixture.dst()).state(), expected);
}

fn cannot_run(outcome: Result<Report, Failure>, text: &str) {
    match outcome {
        Err(Failure::CannotRun(why)) => assert!(why.contains(text), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_that_is_open_and_a_destination_that_is_there_are_refused() {
    let fixture = Fixture::with([vec![append(7, 1, 1..=3)]]);
    let theirs = Theirs::open(&fixture.src());
    cannot_run(fixture.import(), "locked");
    drop(theirs);
    fs::create_dir(fixture.dst()).unwrap();
    cannot_run(fixture.import(), "there already");
    fs::remove_dir(fixture.dst()).unwrap();
    let other = partial(&fixture.dst());
    fs::create_dir_all(other.join("store")).unwrap();
    fs::write(other.join("somebody's"), b"").unwrap();
    cannot_run(fixture.import(), "move it out of the way");
    assert!(other.join("store").exists() && other.join("somebody's").exists());
    fs::remove_dir_all(other).unwrap();
    let none = RaftEngineDir::new(fixture.dir.path());
    cannot_run(import(none, &fixture.dst(), Layout::RaftEngine, &mut |_| {}), "no store");
    assert!(fixture.import().is_ok());
    cannot_run(fixture.import(), "there already");
}

#[test]
fn while_it_runs_raft_engine_is_locked_out() {
    let fixture = Fixture::with([vec![append(7, 1, 1..=3)]]);
    let src = fixture.src();
    let mut stages = Vec::new();
    let mut watch = |progress: raftwood_migrate::Progress| {
        stages.push((progress.is_verifying, progress.done, progress.total));
        assert!(!fixture.dst().exists(), "it has its name last");
        let dir = fixture.src().to_str().unwrap().to_owned();
        let config = raft_engine::Config { dir, ..raft_engine::Config::default() };
        assert!(raft_engine::Engine::open(config).is_err());
        let other = fixture.dir.path().join("other");
        let second = import(RaftEngineDir::new(&src), &other, Layout::RaftEngine, &mut |_| {});
        cannot_run(second, "locked");
    };
    import(RaftEngineDir::new(&src), &fixture.dst(), Layout::RaftEngine, &mut watch).unwrap();
    assert_eq!(stages, [(false, 3, 3), (true, 3, 3)]);
}

fn partial(dst: &Path) -> PathBuf {
    dst.with_file_name("ours.partial")
}

#[test]
fn a_run_that_is_killed_leaves_no_store_and_is_run_again() {
    let fixture = Fixture::new();
    let mut program = Program::new(5);
    let theirs = Theirs::open(&fixture.src());
    program.run(&theirs, 2500);
    drop(theirs);
    let before = bytes_of(&fixture.src());
    let (src, dst) = (fixture.src(), fixture.dst());
    let mut killed = 0;
    let mut pause = Duration::from_millis(1);
    while !dst.exists() {
        let mut child = migrate(["import", "--from", "raft-engine"], &src, &dst).spawn().unwrap();
        std::thread::sleep(pause);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            killed += 1;
            assert!(!dst.exists() || !partial(&dst).join("store").exists());
        }
        assert!(bytes_of(&src) == before);
        pause = pause * 5 / 4;
    }
    assert!(killed > 0);
    // If it was killed at its very end, the next run removes what is left of it.
    let output = migrate(["import", "--from", "raft-engine"], &src, &dst).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!partial(&dst).exists());
    program.realign(&Ours::open(&dst));
    program.check_opened(&Ours::open(&dst), "in the end");
}

#[test]
fn the_program_says_what_it_did_and_ends_with_a_code() {
    let fixture = Fixture::with([vec![append(7, 1, 1..=3), put(7, b"k", b"v")]]);
    let run =
        || migrate(["import", "--from", "raft-engine"], &fixture.src(), &fixture.dst()).output().unwrap();
    let done = run();
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(
        said.contains("1 regions, 3 entries, 1 key-values") && said.contains("Only one of the two"),
        "{said}"
    );
    let again = run();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8(again.stderr).unwrap().contains("there already"));
    let wrong = Fixture::with([vec![append(7, 5, 1..=3)], vec![append(7, 4, 4..=5)]]);
    let refused = migrate(["import", "--from", "raft-engine"], &wrong.src(), &wrong.dst()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
}

#[cfg(not(feature = "rocksdb"))]
#[test]
fn a_program_that_was_built_without_rocksdb_says_so() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.src()).unwrap();
    let refused = migrate(["import", "--from", "rocksdb"], &fixture.src(), &fixture.dst()).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("--features rocksdb"), "{said}");
    assert!(!fixture.dst().exists() && !partial(&fixture.dst()).exists());
}
