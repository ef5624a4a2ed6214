//! Each command on each kind of directory that it may be given: its exit code, what it says, and that what
//! only looks changes nothing.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on should stop
#![cfg(feature = "cli")]

use raftwood::{Background, Durability, Engine, EntryId, Options, RegionId};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Commands that only look. `DIR` is the directory; what they are given besides is theirs.
const LOOKS: [&[&str]; 10] = [
    &["inspect", "DIR", "--regions"],
    &["dump", "DIR"],
    &["dump", "DIR", "--records", "--entries"],
    &["top", "DIR", "--count", "1", "--interval", "0.05"],
    &["explain", "DIR"],
    &["diff", "DIR", "DIR"],
    &["check", "DIR"],
    &["repair", "DIR"],
    &["report", "DIR", "-o", "page.html"],
    &["restore", "DIR", "restored"],
];

/// Commands that open the store as an engine does.
const CHANGES: [&[&str]; 3] = [&["backup", "DIR", "copy"], &["purge", "DIR"], &["repair", "DIR", "--apply"]];

struct Ground {
    temp: tempfile::TempDir,
    /// Who else looks, where root may read everything.
    nobody: Option<u32>,
}

impl Ground {
    fn new() -> Ground {
        let temp = tempfile::tempdir().unwrap();
        let tool = temp.path().join("raftwood");
        // By another process: a file that this one has open for writing would be busy in whatever it starts.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_raftwood")).arg(&tool).status().unwrap();
        assert!(copied.success());
        let nobody = chown(&tool, Some(0), None).is_ok().then_some(65534);
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Ground { temp, nobody }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Runs a command on `name`, and removes what it made beside it.
    fn run(&self, args: &[&str], name: &str, more: &[&str], by: Option<u32>) -> Output {
        let args = args.iter().map(|arg| if *arg == "DIR" { name } else { arg }).chain(more.iter().copied());
        let mut command = Command::new(self.dir("raftwood"));
        command.args(args).current_dir(self.temp.path());
        by.map(|id| command.uid(id));
        let out = command.output().unwrap();
        let _ = fs::remove_file(self.dir("page.html"));
        ["restored", "copy"].iter().for_each(|made| drop(fs::remove_dir_all(self.dir(made))));
        out
    }

    /// All bytes of a directory.
    fn bytes(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(self.dir(name)).into_iter().flatten();
        files.map(|file| file.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// A store with two regions and more than a segment, which a program closed, or died with.
    fn store(&self, name: &str, closed: bool) {
        let made = self.dir("made");
        let options = Options::new().segment_bytes(64 << 10).background(Background::Manual);
        let engine = options.open(&made).unwrap();
        for index in 1..=40 {
            let mut batch = engine.batch();
            let payload = [index as u8; 3000];
            batch.region(RegionId(1)).append([(EntryId::new(1, index), &payload[..])]).unwrap();
            batch.region(RegionId(2)).set_hard_state(&b"vote"[..]).unwrap();
            engine.write(batch, Durability::Synced).unwrap();
        }
        if closed {
            engine.close().unwrap();
        }
        fs::create_dir(self.dir(name)).unwrap();
        for (path, bytes) in self.bytes("made") {
            fs::write(self.dir(name).join(path.file_name().unwrap()), bytes).unwrap();
        }
        drop(engine);
        fs::remove_dir_all(made).unwrap();
    }

    /// The place of the first bytes of an entry in the store's log.
    fn place(&self, name: &str, byte: u8) -> (PathBuf, usize) {
        let logs =
            self.bytes(name).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log"));
        let at = |bytes: &[u8]| bytes.windows(600).position(|window| window.iter().all(|b| *b == byte));
        logs.filter_map(|(path, bytes)| Some((path, at(&bytes)?))).next().unwrap()
    }

    fn overwrite(&self, (path, at): (PathBuf, usize), with: &[u8]) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at..at + with.len()].copy_from_slice(with);
        fs::write(path, bytes).unwrap();
    }

    /// A store of an earlier format, as it is kept for the tests of the library.
    fn golden(&self, name: &str, which: &str) {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(which);
        fs::create_dir(self.dir(name)).unwrap();
        for line in fs::read_to_string(kept.join("MANIFEST")).unwrap().lines() {
            let (file, len) = line.split_once(' ').unwrap();
            let mut bytes = fs::read(kept.join(file)).unwrap();
            bytes.resize(len.parse().unwrap(), 0);
            fs::write(self.dir(name).join(file), bytes).unwrap();
        }
    }

    /// What a command that only looks has to do with `name`: the exit code, and no byte changed. With
    /// `--json`, all that it prints is JSON, an error too.
    fn looks(&self, args: &[&str], name: &str, code: i32, by: Option<u32>) {
        let before = if by.is_none() { self.bytes(name) } else { BTreeMap::new() };
        let out = self.run(args, name, &[], by);
        check(&out, args, name, code);
        if args[0] != "report" {
            let out = self.run(args, name, &["--json"], by);
            check(&out, args, name, code);
            for line in text(&out.stdout).lines().chain(text(&out.stderr).lines()) {
                let object = serde_json::from_str::<serde_json::Value>(line);
                assert!(object.is_ok_and(|o| o["schema"] == 1), "{args:?} of {name}: {line}");
            }
        }
        assert!(by.is_some() || before == self.bytes(name), "{args:?} changed {name}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn check(out: &Output, args: &[&str], name: &str, code: i32) {
    let (said, failed) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?} of {name}: {said}{failed}");
    if code == 2 {
        assert!(said.is_empty() && failed.contains(name), "{args:?} of {name}: {said}{failed}");
    }
    let is_table = matches!(args[0], "inspect" | "dump" | "diff") && args.len() < 4;
    for line in said.lines().filter(|line| is_table && !line.starts_with('{') && !line.contains("DAMAGE")) {
        assert!(line.chars().count() <= 80, "{args:?} of {name}: {line}");
    }
}

#[test]
fn what_is_whole_or_merely_torn_is_fine() {
    let ground = Ground::new();
    ground.store("healthy", true);
    ground.store("torn", false);
    let end = ground.place("torn", 40);
    ground.overwrite((end.0, end.1 + 500), &[0; 2500]);
    ground.golden("first", "v1/sealed");
    ground.golden("second", "v2/unsealed-tail");
    ground.golden("third", "v3/cold");
    for name in ["healthy", "torn", "first", "second", "third"] {
        for args in LOOKS {
            // A store that was not closed is no copy.
            let refuses = args[0] == "restore" && name == "torn";
            ground.looks(args, name, if refuses { 2 } else { 0 }, None);
        }
    }
    for args in CHANGES {
        check(&ground.run(args, "healthy", &[], None), args, "healthy", 0);
        check(&ground.run(args, "torn", &["--json"], None), args, "torn", 0);
        check(&ground.run(args, "first", &[], None), args, "first", 0);
        check(&ground.run(args, "second", &["--json"], None), args, "second", 0);
        check(&ground.run(args, "third", &[], None), args, "third", 0);
    }
    // They are of today's format now, and nothing is missing.
    for name in ["first", "second", "third"] {
        check(&ground.run(&["check", "DIR"], name, &[], None), &["check", "DIR"], name, 0);
    }
}

#[test]
fn what_is_damaged_is_named_and_exits_with_1() {
    let ground = Ground::new();
    ground.store("damaged", true);
    let place = ground.place("damaged", 3);
    let offset = place.1;
    ground.overwrite((place.0, offset + 100), b"X");
    for args in LOOKS {
        let finds = matches!(args[0], "dump" | "check" | "repair" | "restore");
        ground.looks(args, "damaged", i32::from(finds), None);
        let out = ground.run(args, "damaged", &[], None);
        let said = text(&out.stdout) + &text(&out.stderr);
        if finds {
            let named = ["region 1: entry 3", "damaged/0000000001.log", "offset"];
            assert!(named.iter().all(|part| said.contains(part)), "{args:?}: {said}");
        }
    }
    // What is damaged is copied and kept as it is: neither hides it, nor spreads it.
    for args in &CHANGES[..2] {
        let out = ground.run(args, "damaged", &["--json"], None);
        check(&out, args, "damaged", 0);
        let out = ground.run(&["check", "DIR"], "damaged", &[], None);
        assert!(text(&out.stdout).contains("region 1: entry 3"), "{args:?}: {}", text(&out.stdout));
    }
    check(&ground.run(CHANGES[2], "damaged", &[], None), CHANGES[2], "damaged", 1);
}

/// A file of which nothing is known is neither damage nor the end of the log.
#[test]
fn a_single_file_that_may_not_be_read_is_named() {
    let ground = Ground::new();
    ground.store("secret", true);
    let (path, _) = ground.place("secret", 3);
    let file = path.file_name().unwrap().to_str().unwrap();
    let files: Vec<PathBuf> = ground.bytes("secret").into_keys().chain([ground.dir("secret")]).collect();
    ground.nobody.inspect(|id| files.iter().for_each(|path| chown(path, Some(*id), None).unwrap()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let by = ground.nobody.or(Some(own_id()));
    for args in LOOKS.iter().chain(&CHANGES) {
        ground.looks(args, "secret", 2, by);
        let said = text(&ground.run(args, "secret", &[], by).stderr);
        assert!(said.contains(&format!("secret/{file}")) && said.contains("denied"), "{args:?}: {said}");
    }
    // Nothing was taken for damage: once it may be read, all is well.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    ground.looks(&["check", "DIR"], "secret", 0, None);
}

#[test]
fn what_is_compared_or_taken_from_is_judged_as_it_is() {
    let ground = Ground::new();
    ground.store("whole", true);
    ground.store("torn", false);
    let end = ground.place("torn", 40);
    ground.overwrite((end.0, end.1 + 500), &[0; 2500]);
    fs::create_dir(ground.dir("foreign")).unwrap();
    fs::write(ground.dir("foreign").join("notes.txt"), b"hello").unwrap();
    ground.golden("older", "v2/unsealed-tail");
    for (name, differs) in [("whole", 0), ("torn", 1), ("older", 1), ("foreign", 2)] {
        ground.looks(&["diff", "whole", "DIR"], name, differs, None);
        ground.looks(&["diff", "DIR", "whole"], name, differs, None);
        let healed = match name {
            "whole" | "torn" => 0,
            // It has another entry there, which is not what was recorded here.
            "older" => 1,
            _ => 2,
        };
        ground.store("damaged", true);
        let place = ground.place("damaged", 3);
        ground.overwrite((place.0, place.1 + 100), b"X");
        let before = ground.bytes("damaged");
        let from = ["repair", "damaged", "--from-replica", "DIR"];
        // Without --apply it is found, and counted what the replica has of it.
        ground.looks(&from, name, healed.max(1), None);
        let said = text(&ground.run(&from, name, &[], None).stdout);
        let has = format!("the replica has {}", if healed == 0 { "1 entry" } else { "0 entries" });
        assert!(healed == 2 || said.contains(&has), "{name}: {said}");
        assert!(before == ground.bytes("damaged"), "{name}");
        // The replica itself is never changed.
        ground.looks(&[&from[..], &["--apply"]].concat(), name, healed, None);
        assert_eq!(before == ground.bytes("damaged"), healed != 0, "{name}");
        let checked = ground.run(&["check", "DIR"], "damaged", &[], None);
        assert_eq!(checked.status.code(), Some(healed.min(1)), "{name}: {}", text(&checked.stdout));
        fs::remove_dir_all(ground.dir("damaged")).unwrap();
    }
}

#[test]
fn what_does_not_open_says_where_and_only_what_looks_into_that_exits_with_1() {
    let ground = Ground::new();
    ground.store("cut", false);
    let (path, _) = ground.place("cut", 40);
    let named = format!("cut/{}, offset 10000", path.file_name().unwrap().display());
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(10_000).unwrap();
    for args in LOOKS {
        let judges = matches!(args[0], "explain" | "check" | "repair" | "restore");
        ground.looks(args, "cut", if judges { 1 } else { 2 }, None);
    }
    for (args, code) in CHANGES.into_iter().zip([2, 2, 1]) {
        let out = ground.run(args, "cut", &[], None);
        check(&out, args, "cut", code);
        assert!(text(&out.stderr).contains(&named), "{args:?}: {}", text(&out.stderr));
    }
}

#[test]
fn where_no_store_is_every_command_exits_with_2_and_makes_none() {
    let ground = Ground::new();
    fs::create_dir(ground.dir("empty")).unwrap();
    fs::create_dir(ground.dir("foreign")).unwrap();
    fs::write(ground.dir("foreign").join("0000000000000001.raftlog"), b"another engine's").unwrap();
    fs::write(ground.dir("foreign").join("notes.txt"), b"hello").unwrap();
    fs::write(ground.dir("plain"), b"a file").unwrap();
    for name in ["empty", "foreign", "plain", "missing"] {
        LOOKS.iter().chain(&CHANGES).for_each(|args| ground.looks(args, name, 2, None));
    }
    assert!(!ground.dir("missing").exists());
}

#[test]
fn what_may_not_be_read_exits_with_2_and_names_it() {
    let ground = Ground::new();
    ground.store("secret", true);
    let mode = |mode| fs::set_permissions(ground.dir("secret"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let by = ground.nobody;
    // Without root these are the tester's own permissions, which are refused all the same.
    LOOKS.iter().chain(&CHANGES).for_each(|args| ground.looks(args, "secret", 2, by.or(Some(own_id()))));
    mode(0o755);
}

fn own_id() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn beside_an_engine_what_looks_goes_on_and_what_changes_does_not() {
    let ground = Ground::new();
    ground.store("busy", true);
    let engine = Engine::open(ground.dir("busy")).unwrap();
    for args in LOOKS {
        // A copy that is being written is none, and a repair is the engine's own.
        let refuses = matches!(args[0], "repair" | "restore");
        let out = ground.run(args, "busy", &[], None);
        assert_eq!(out.status.code(), Some(if refuses { 2 } else { 0 }), "{args:?}: {}", text(&out.stderr));
        if args[0] != "report" {
            ground.looks(args, "busy", if refuses { 2 } else { 0 }, None);
        }
    }
    for args in CHANGES {
        ground.looks(args, "busy", 2, None);
    }
    engine.close().unwrap();
}

/// The tool made a pool and a reserve as for segments of 64 MiB: a purge left a small store larger.
#[test]
fn a_purge_leaves_a_store_of_small_segments_no_larger() {
    let ground = Ground::new();
    ground.store("small", true);
    let size = || ground.bytes("small").values().map(Vec::len).sum::<usize>();
    check(&ground.run(CHANGES[1], "small", &[], None), CHANGES[1], "small", 0);
    assert!(size() < 1 << 20, "{} bytes", size());
}
