//! From Raftwood, as programs of `raftwood-raft-engine` write it, to raft-engine.

use crate::child;
use crate::program::Program;
use crate::sides::{Op, Ours, Side, Step, Theirs};
use crate::stores::{bytes_of, migrate};
use raft_proto::eraftpb::Entry;
use raftwood::{Durability, Engine, EntryId, RegionId};
use raftwood_migrate::{Failure, Layout, RaftEngineDir, Report, export, import};
use std::fs;

#[test]
fn a_store_goes_to_raftwood_and_back() {
    for seed in 20..23 {
        let dir = tempfile::tempdir().unwrap();
        let [first, ours, back] = ["first", "ours", "back"].map(|name| dir.path().join(name));
        let mut program = Program::new(seed);
        let theirs = Theirs::open(&first);
        program.run(&theirs, 500);
        drop(theirs);
        import(RaftEngineDir::new(&first), &ours, Layout::RaftEngine, &mut |_| {}).unwrap();
        let side = Ours::open(&ours);
        program.realign(&side);
        program.run(&side, 500);
        drop(side);
        let before = bytes_of(&ours);
        export(&ours, &back, &mut |_| {}).unwrap();
        assert!(bytes_of(&ours) == before, "the source is as it was");
        let side = Theirs::open(&back);
        program.check(&side, "gone back");
        program.run(&side, 300);
        drop(side);
        program.check_opened(&Theirs::open(&back), "gone on there");
    }
}

#[test]
fn the_store_of_a_writer_that_was_killed_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, back] = ["ours", "back"].map(|name| dir.path().join(name));
    child::run::<Ours>(&ours, 30, 0, 700);
    export(&ours, &back, &mut |_| {}).unwrap();
    Program::after(30, 700).check_opened(&Theirs::open(&back), "gone back");
}

#[test]
fn regions_with_nothing_in_them_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, back] = ["ours", "back"].map(|name| dir.path().join(name));
    let side = Ours::open(&ours);
    let entries = vec![Entry { term: 1, index: 5, ..Entry::default() }];
    let ops = vec![
        Op::Append { region: 7, entries },
        Op::Compact { region: 7, index: 6 },
        Op::Delete { region: 8, key: b"k".to_vec() },
    ];
    side.apply(&Step::Write { ops, sync: true });
    drop(side);
    let report = export(&ours, &back, &mut |_| {}).unwrap();
    assert_eq!(report, Report { regions: 2, ..Report::default() });
    let mut regions = Theirs::open(&back).0.raft_groups();
    regions.sort_unstable();
    assert_eq!(regions, [7, 8]);
}

#[test]
fn what_raft_engine_has_no_place_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, write: &dyn Fn(&Engine), text: &str| {
        let [from, to] = [name, "to"].map(|name| dir.path().join(name));
        let engine = Engine::open(&from).unwrap();
        write(&engine);
        engine.close().unwrap();
        match export(&from, &to, &mut |_| {}) {
            Err(Failure::Wrong(why)) => assert!(why.contains(text) && !to.exists(), "{why}"),
            other => panic!("{other:?}"),
        }
    };
    let voted = |engine: &Engine| {
        let mut batch = engine.batch();
        batch.region(RegionId(7)).set_hard_state(b"voted").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    };
    refused("voted", &voted, "hard state");
    let foreign = |engine: &Engine| {
        let mut batch = engine.batch();
        batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"no message"[..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    };
    refused("foreign", &foreign, "eraftpb::Entry");
    let reserved = |engine: &Engine| {
        let mut batch = engine.batch();
        batch.region(RegionId(7)).put(b"__\x01", b"").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    };
    refused("reserved", &reserved, "reserved");
}

#[test]
fn a_damaged_store_is_refused_and_one_that_is_open_too() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, back] = ["ours", "back"].map(|name| dir.path().join(name));
    let side = Ours::open(&ours);
    let mut program = Program::new(40);
    program.run(&side, 200);
    assert!(
        matches!(export(&ours, &back, &mut |_| {}), Err(Failure::CannotRun(why)) if why.contains("locked"))
    );
    let data = b"what rots".to_vec().into();
    let entries = vec![Entry { term: 99, index: 1, data, ..Entry::default() }];
    side.apply(&Step::Write { ops: vec![Op::Append { region: 99, entries }], sync: true });
    drop(side);
    let output = migrate(["export", "--to", "raft-engine"], &ours, &back).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    fs::remove_dir_all(&back).unwrap();
    let mut rotten = 0;
    for (name, mut bytes) in bytes_of(&ours) {
        if let Some(at) = bytes.windows(9).position(|w| w == b"what rots") {
            bytes[at] ^= 1;
            fs::write(ours.join(name), bytes).unwrap();
            rotten += 1;
        }
    }
    assert_eq!(rotten, 1);
    let output = migrate(["export", "--to", "raft-engine"], &ours, &back).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("region 99") && !back.exists(), "{said}");
}
