//! `raftwood check` and `raftwood repair`, from the outside: a store on a real disk is harmed, looked
//! at, and mended.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop
#![cfg(feature = "cli")]

mod copies;

use raftwood::{Durability, Engine, EntryId, EntryRef, Options, RegionId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Store {
    root: tempfile::TempDir,
}

impl Store {
    fn new() -> Store {
        Store { root: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("store")
    }

    fn open(&self) -> Engine {
        Options::new().segment_bytes(1 << 20).open(self.dir()).unwrap()
    }

    /// Entries 1 to 20 of three regions, and towards the end the hard states of two.
    fn filled(&self) -> Engine {
        let engine = self.open();
        for index in 1..=20 {
            let mut batch = engine.batch();
            for region in 1..=3 {
                let payload = format!("region {region} entry {index} {}", "=".repeat(30)).into_bytes();
                let entry = EntryRef { id: EntryId::new(1, index), payload: &payload };
                batch.region(RegionId(region)).append([entry]).unwrap();
                if region + 18 <= index {
                    batch.region(RegionId(region)).set_hard_state(b"term and vote").unwrap();
                }
            }
            engine.write(batch, Durability::Synced).unwrap();
        }
        engine
    }

    fn run(&self, args: &[&str]) -> (i32, Value) {
        let mut all = args.to_vec();
        all.extend(["store", "--json"]);
        let out = Command::new(env!("CARGO_BIN_EXE_raftwood"))
            .args(&all)
            .current_dir(self.root.path())
            .output()
            .unwrap();
        let json = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
        (out.status.code().unwrap(), json)
    }

    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let names = std::fs::read_dir(self.dir()).unwrap().map(|e| e.unwrap().path());
        names.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
    }

    fn newest(&self, ext: &str) -> PathBuf {
        self.bytes().into_keys().filter(|p| p.extension().is_some_and(|e| e == ext)).max().unwrap()
    }

    /// The file that holds these bytes, and where.
    fn find(&self, wanted: &[u8]) -> (PathBuf, u64) {
        let at = |bytes: &Vec<u8>| bytes.windows(wanted.len()).position(|w| w == wanted);
        self.bytes().into_iter().find_map(|(path, bytes)| Some((path, at(&bytes)? as u64))).unwrap()
    }
}

fn overwrite(path: &Path, at: u64, with: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(with, at).unwrap();
}

fn count(json: &Value, field: &str) -> usize {
    json[field].as_array().unwrap_or_else(|| unreachable!("{field} of {json}")).len()
}

#[test]
fn a_clean_store_is_clean_and_a_check_changes_no_byte() {
    let store = Store::new();
    let engine = store.filled();
    let (code, json) = store.run(&["check"]);
    assert_eq!(
        (code, json["in_use"].as_bool(), json["clean"].as_bool()),
        (0, Some(true), Some(true)),
        "{json}"
    );
    engine.close().unwrap();
    drop(engine);
    let before = store.bytes();
    let (code, json) = store.run(&["check"]);
    assert_eq!(
        (code, json["in_use"].as_bool(), json["clean"].as_bool()),
        (0, Some(false), Some(true)),
        "{json}"
    );
    assert_eq!((json["regions"].as_u64(), json["entries"].as_u64()), (Some(3), Some(60)));
    assert!(json["records"].as_u64().unwrap() >= 20);
    assert_eq!(store.bytes(), before);
    let (code, json) = store.run(&["repair", "--apply"]);
    assert_eq!((code, count(&json, "lost_or_damaged")), (0, 0), "{json}");
}

/// `raftwood repair` once opened the store for writing whatever it had been asked: a look at
/// what it would do was a repair.
#[test]
fn a_repair_changes_no_byte_unless_told_to() {
    let store = Store::new();
    store.filled().close().unwrap();
    store.open().close().unwrap();
    overwrite(&store.newest("ckpt"), 200, &[0xa7; 9]);
    let before = store.bytes();
    for more in [&[][..], &["--assume-torn"], &["--accept-loss"]] {
        let (code, json) = store.run(&[&["repair"], more].concat());
        assert_eq!((code, json["applied"].as_bool()), (1, Some(false)), "{json}");
        assert_eq!(count(&json, "rot"), 1, "{json}");
        assert_eq!(store.bytes(), before, "{more:?}");
    }
    let (code, json) = store.run(&["repair", "--apply"]);
    assert_eq!((code, json["applied"].as_bool()), (0, Some(true)), "{json}");
    assert_ne!(store.bytes(), before);
    // An engine that has it open does its own repairs.
    let engine = store.open();
    assert_eq!((store.run(&["repair"]).0, store.run(&["repair", "--apply"]).0), (2, 2));
    drop(engine);
}

#[test]
fn a_damaged_entry_is_named_by_region_file_and_offset_and_repair_does_not_hide_it() {
    let store = Store::new();
    store.filled().close().unwrap();
    let (path, at) = store.find(b"region 2 entry 7 ");
    overwrite(&path, at + 3, b"ROT");
    let before = store.bytes();
    for (command, field) in [("check", "damage"), ("repair", "damage"), ("apply", "lost_or_damaged")] {
        let args: &[&str] = if command == "apply" { &["repair", "--apply"] } else { &[command] };
        let (code, json) = store.run(args);
        assert_eq!((code, count(&json, field)), (1, 1), "{json}");
        let found = &json[field][0];
        assert_eq!((found["region"].as_u64(), found["offset"].as_u64()), (Some(2), Some(at)), "{found}");
        assert_eq!(
            (found["entries"]["first"].as_u64(), found["entries"]["last"].as_u64()),
            (Some(7), Some(7))
        );
        assert!(Path::new(found["file"].as_str().unwrap()).ends_with(path.file_name().unwrap()));
        if command != "apply" {
            assert_eq!(store.bytes(), before);
        }
    }
    let engine = store.open();
    assert!(engine.region(RegionId(2)).entry(7).is_err() && engine.region(RegionId(2)).entry(8).is_ok());
}

#[test]
fn a_damaged_entry_comes_back_from_a_replica_and_only_with_apply() {
    let (store, other) = (Store::new(), Store::new());
    other.filled().close().unwrap();
    store.filled().close().unwrap();
    for wanted in [&b"region 2 entry 7 "[..], b"region 3 entry 9 "] {
        let (path, at) = store.find(wanted);
        overwrite(&path, at + 3, b"ROT");
    }
    let replica = other.dir();
    let from = ["--from-replica", replica.to_str().unwrap()];
    let (before, others) = (store.bytes(), other.bytes());
    let (code, json) = store.run(&[&["repair"][..], &from].concat());
    assert_eq!((code, json["replica_has"].as_u64(), count(&json, "damage")), (1, Some(2), 2), "{json}");
    assert_eq!(store.bytes(), before);
    // Beside an engine that has the replica open.
    let engine = other.open();
    let (code, json) = store.run(&[&["repair", "--apply"][..], &from].concat());
    assert_eq!(
        (code, json["from_replica"].as_u64(), count(&json, "lost_or_damaged")),
        (0, Some(2), 0),
        "{json}"
    );
    engine.close().unwrap();
    drop(engine);
    assert_eq!(store.run(&["check"]).0, 0);
    assert_eq!(other.bytes(), others, "the replica was changed");
    assert_eq!(store.run(&["repair", "--apply", "--from-replica", "nowhere"]).0, 2);
    // One that has another entry there gives nothing.
    let (path, at) = store.find(b"region 1 entry 4 ");
    overwrite(&path, at + 3, b"ROT");
    let engine = other.open();
    let mut batch = engine.batch();
    batch.region(RegionId(1)).truncate_from(4).append([(EntryId::new(2, 4), &b"else"[..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
    let (code, json) = store.run(&[&["repair", "--apply"][..], &from].concat());
    assert_eq!(
        (code, json["from_replica"].as_u64(), count(&json, "not_from_replica")),
        (1, Some(0), 1),
        "{json}"
    );
}

#[test]
fn rot_that_affects_no_entry_is_told_apart_and_repaired() {
    let store = Store::new();
    store.filled().close().unwrap();
    // The next open seals what the first one wrote.
    store.open().close().unwrap();
    overwrite(&store.newest("ckpt"), 200, &[0xa7; 9]);
    let (path, at) = store.find(b"region 1 entry 1 ");
    // In front of the payload stands the description.
    overwrite(&path, at - 12, &[0xa7; 5]);
    let (code, json) = store.run(&["check"]);
    assert_eq!((code, count(&json, "rot"), count(&json, "damage")), (1, 2, 0), "{json}");
    let (code, json) = store.run(&["repair", "--apply"]);
    assert_eq!((code, count(&json, "lost_or_damaged")), (0, 0), "{json}");
    let (code, json) = store.run(&["check"]);
    assert_eq!((code, json["entries"].as_u64()), (0, Some(60)), "{json}");
}

#[test]
fn a_store_that_does_not_open_says_why_and_opens_without_what_is_lost_only_when_told_so() {
    let store = Store::new();
    // Killed: the log is unsealed, and nothing but it knows its batches.
    let engine = store.filled();
    let copy = store.root.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for (path, bytes) in store.bytes() {
        std::fs::write(copy.join(path.file_name().unwrap()), bytes).unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    std::fs::remove_dir_all(store.dir()).unwrap();
    std::fs::rename(&copy, store.dir()).unwrap();

    let (path, at) = store.find(b"region 1 entry 11 ");
    copies::wipe(&store.dir());
    overwrite(&path, at - 12, &[0xa7; 5]);
    let before = store.bytes();
    let (code, json) = store.run(&["check"]);
    assert_eq!((code, count(&json, "refusals")), (1, 1), "{json}");
    assert!(json["refusals"][0]["message"].as_str().unwrap().contains("--accept-loss"), "{json}");
    // It once said of the acknowledged bytes past the hole that they never were, and that the next
    // open drops them.
    let at_stake = |json: &Value, field: &str| json["would_be_lost"][field].as_u64();
    assert_eq!(json["torn_bytes"].as_u64(), Some(0), "{json}");
    assert_eq!(
        (at_stake(&json, "batches"), at_stake(&json, "unreadable_batches")),
        (Some(10), Some(1)),
        "{json}"
    );
    assert_eq!((at_stake(&json, "entries"), at_stake(&json, "regions")), (Some(27), Some(3)), "{json}");
    assert_eq!(at_stake(&json, "hard_states"), Some(2), "{json}");
    let (code, _) = store.run(&["repair", "--apply"]);
    assert_eq!(code, 1);
    let (code, _) = store.run(&["repair", "--assume-torn", "--apply"]);
    assert_eq!(code, 1, "that it was torn is disproved");
    assert_eq!(store.bytes(), before, "a refused open changes nothing");
    let (code, json) = store.run(&["repair", "--accept-loss"]);
    assert_eq!((code, at_stake(&json, "batches")), (1, Some(10)), "{json}");
    assert_eq!(store.bytes(), before);
    let (code, json) = store.run(&["repair", "--accept-loss", "--apply"]);
    assert_eq!((code, json["accepted_loss"].as_bool()), (1, Some(true)), "{json}");
    assert_eq!(
        (json["lost"]["batches"].as_u64(), json["torn_bytes"].as_u64()),
        (Some(10), Some(0)),
        "{json}"
    );
    assert_eq!((json["hard_states_lost"].as_u64(), json["entries"].as_u64()), (Some(3), Some(30)));
    let (code, json) = store.run(&["check"]);
    assert_eq!((code, json["entries"].as_u64()), (0, Some(30)), "{json}");
    assert_eq!(store.open().region(RegionId(3)).last_index(), 10);
}

#[test]
fn where_there_is_no_store_both_exit_with_2_and_make_none() {
    let store = Store::new();
    std::fs::create_dir(store.dir()).unwrap();
    let commands = [&["check"][..], &["repair"], &["repair", "--apply"]];
    for command in commands {
        assert_eq!(store.run(command).0, 2);
    }
    assert!(store.bytes().is_empty());
    std::fs::remove_dir(store.dir()).unwrap();
    for command in commands {
        assert_eq!(store.run(command).0, 2);
    }
    assert!(!store.dir().exists());
}

#[test]
fn a_backup_is_a_store_of_its_own() {
    let store = Store::new();
    let engine = store.filled();
    let copy = store.root.path().join("copy");
    let backup = || {
        let out = Command::new(env!("CARGO_BIN_EXE_raftwood"))
            .args(["backup", "store", "copy", "--json"])
            .current_dir(store.root.path())
            .output()
            .unwrap();
        (out.status.code().unwrap(), serde_json::from_slice(&out.stdout).unwrap_or(Value::Null))
    };
    assert_eq!(backup().0, 2, "an engine has it open");
    engine.close().unwrap();
    drop(engine);
    let (code, json) = backup();
    assert_eq!(code, 0);
    assert!(
        json["linked_segments"].as_u64().unwrap() + json["copied_segments"].as_u64().unwrap() > 0,
        "{json}"
    );
    assert_eq!(backup().0, 2, "there is something in the way");
    let opened = Engine::open(&copy).unwrap();
    assert_eq!(opened.region(RegionId(2)).entries(.., raftwood::ReadLimit::NONE).unwrap().len(), 20);
}

#[test]
fn a_restored_store_may_not_vote_unless_the_whole_cluster_is_restored() {
    let store = Store::new();
    let engine = store.filled();
    let mut batch = engine.batch();
    batch.region(RegionId(3)).set_hard_state(b"vote").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
    drop(engine);
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_raftwood"))
            .args(args)
            .current_dir(store.root.path())
            .output()
            .unwrap();
        let json = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
        (out.status.code().unwrap(), json, String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(run(&["backup", "store", "copy"]).0, 0);
    let (code, json, _) = run(&["restore", "copy", "new", "--json"]);
    let of = |json: &Value| (json["entries"].as_u64(), json["hard_states_lost"].as_u64());
    assert_eq!((code, of(&json)), (0, (Some(60), Some(3))), "{json}");
    let (code, json, _) = run(&["restore", "copy", "all", "--whole-cluster", "--json"]);
    assert_eq!((code, of(&json)), (0, (Some(60), Some(0))), "{json}");
    let hard_state = |name: &str| {
        let engine = Options::new().open(store.root.path().join(name)).unwrap();
        engine.region(RegionId(3)).hard_state_or_lost().map_err(|e| e.kind())
    };
    assert_eq!(hard_state("new"), Err(raftwood::ErrorKind::HardStateLost));
    assert_eq!(hard_state("all").unwrap().as_deref(), Some(&b"vote"[..]));
    assert_eq!(run(&["restore", "copy", "new"]).0, 2, "there is something in the way");
    assert_eq!(run(&["restore", "nothing", "newer"]).0, 2);
    // A copy with a rotten entry gives nothing.
    let names = std::fs::read_dir(store.root.path().join("copy")).unwrap().map(|e| e.unwrap().path());
    let mut files = names.map(|path| (path.clone(), std::fs::read(path).unwrap()));
    let wanted = b"region 2 entry 5 ";
    let found = files.find_map(|(path, bytes)| {
        let at = bytes.windows(wanted.len()).position(|w| w == wanted)?;
        Some((path, at, bytes))
    });
    let (path, at, mut bytes) = found.unwrap();
    bytes[at + 3] ^= 1;
    // It may be a hard link of the store's.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let (code, _, error) = run(&["restore", "copy", "newer"]);
    assert!(code == 1 && error.contains("region 2") && error.contains('5'), "{code}: {error}");
    assert!(!store.root.path().join("newer").exists());
}
