//! From raft-engine to Raftwood.

use crate::child;
use crate::program::Program;
use crate::sides::{Op, Ours, Side, State, Step, Theirs};
use crate::stores::{bytes_of, copy, last, migrate};
use protobuf::Message;
use raft_proto::eraftpb::{Entry, HardState};
use raftwood::raft_rs::RegionStorage;
use raftwood::{Engine, RegionId};
use raftwood_migrate::{Failure, Layout, Report, import};
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
        import(&self.src(), None, &self.dst(), Layout::RaftEngine, &mut |_| {})
    }

    /// Imports, and compares what a program of raft-engine reads before, on a copy of the source, and after.
    fn is_taken_over(&self) -> State {
        let before = bytes_of(&self.src());
        let copied = self.dir.path().join("copied");
        copy(&self.src(), &copied);
        let expected = Theirs::open(&copied).state();
        fs::remove_dir_all(copied).unwrap();
        self.import().unwrap();
        assert!(bytes_of(&self.src()) == before, "the source is as it was");
        assert_eq!(Ours::open(&self.dst()).state(), expected);
        expected
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
    for seed in 10..14 {
        let fixture = Fixture::new();
        child::kill_after::<Theirs>(&fixture.src(), seed, 300 + 40 * seed);
        assert!(!fixture.is_taken_over().is_empty());
    }
}

#[test]
fn a_torn_tail_is_dropped_as_by_raft_engine_and_stays_in_the_source() {
    for cut in [1, 3, 17, 60, 200, 1000] {
        let fixture = Fixture::with((1..=30).map(|i| vec![append(7, 1, [i]), put(7, b"k", &[i as u8; 9])]));
        let path = last(&fixture.src(), ".raftlog");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        let (_, end) = fixture.is_taken_over()[&7].span.unwrap();
        assert!(end < 30, "{cut}");
    }
    // Of a write that had not ended.
    let fixture = Fixture::with([vec![append(7, 1, 1..=9)]]);
    let mut file = fs::OpenOptions::new().append(true).open(last(&fixture.src(), ".raftlog")).unwrap();
    file.write_all(&[3; 100]).unwrap();
    assert_eq!(fixture.is_taken_over()[&7].span, Some((1, 9)));
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
    let report = import(&fixture.src(), None, &fixture.dst(), Layout::RaftRs, &mut |_| {}).unwrap();
    assert_eq!(report, Report { regions: 2, entries: 5, pairs: 1 });
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
    let refused = import(&wrong.src(), None, &wrong.dst(), Layout::RaftRs, &mut |_| {});
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
    import(&fixture.src(), Some(&spill), &fixture.dst(), Layout::RaftEngine, &mut |_| {}).unwrap();
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
    cannot_run(import(fixture.dir.path(), None, &fixture.dst(), Layout::RaftEngine, &mut |_| {}), "no store");
    assert!(fixture.import().is_ok());
    cannot_run(fixture.import(), "there already");
}

#[test]
fn while_it_runs_raft_engine_is_locked_out() {
    let fixture = Fixture::with([vec![append(7, 1, 1..=3)]]);
    let mut stages = Vec::new();
    let mut watch = |progress: raftwood_migrate::Progress| {
        stages.push((progress.is_verifying, progress.done, progress.total));
        assert!(!fixture.dst().exists(), "it has its name last");
        let dir = fixture.src().to_str().unwrap().to_owned();
        let config = raft_engine::Config { dir, ..raft_engine::Config::default() };
        assert!(raft_engine::Engine::open(config).is_err());
        let second =
            import(&fixture.src(), None, &fixture.dir.path().join("other"), Layout::RaftEngine, &mut |_| {});
        cannot_run(second, "locked");
    };
    import(&fixture.src(), None, &fixture.dst(), Layout::RaftEngine, &mut watch).unwrap();
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
