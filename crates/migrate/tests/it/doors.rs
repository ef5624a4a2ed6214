//! The program on each kind of directory that it may be given: exit code, what it says, and that nothing is
//! changed.

use crate::child;
use crate::sides::{Op, Ours, Side, Step, Theirs};
use crate::stores::{bytes_of, last};
use raft_proto::eraftpb::Entry;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const IMPORT: [&str; 3] = ["import", "--from", "raft-engine"];
const EXPORT: [&str; 3] = ["export", "--to", "raft-engine"];

/// A directory that somebody else may look into, with a place to write to.
struct Ground {
    temp: tempfile::TempDir,
    /// Who runs the program where root may do everything.
    nobody: Option<u32>,
}

impl Ground {
    fn new() -> Ground {
        let temp = tempfile::tempdir().unwrap();
        let ground = Ground { nobody: None, temp };
        // By another process: a file that this one has open for writing would be busy in what it starts.
        let program = env!("CARGO_BIN_EXE_raftwood-migrate");
        assert!(Command::new("cp").arg(program).arg(ground.program()).status().unwrap().success());
        fs::create_dir(ground.dir("out")).unwrap();
        let nobody = chown(ground.dir("out"), Some(65534), None).is_ok().then_some(65534);
        ground.mode("", 0o755);
        Ground { nobody, ..ground }
    }

    fn program(&self) -> PathBuf {
        self.dir("raftwood-migrate")
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn made(&self) -> PathBuf {
        self.dir("out").join("made")
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.dir(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, args: &[&str], name: &str) -> Command {
        let mut command = Command::new(self.program());
        command.args(args).args([self.dir(name), self.made()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A store of either side's, with keys and entries.
    fn store<S: Side>(&self, name: &str) {
        let entries = (1..=9).map(|index| Entry { term: 1, index, ..Entry::default() }).collect();
        let put = Op::Put { region: 8, key: b"k".to_vec(), value: b"v".to_vec() };
        let ops = vec![Op::Append { region: 7, entries }, put];
        S::open(&self.dir(name)).apply(&Step::Write { ops, sync: true });
    }

    /// It ends with `code`, once in words and once in JSON, and says `text`; the source is as it was, and
    /// something was made only if it is done.
    fn ends(&self, args: &[&str], name: &str, code: i32, text: &str) {
        self.ends_by(args, name, code, text, None);
    }

    fn ends_by(&self, args: &[&str], name: &str, code: i32, text: &str, by: Option<u32>) {
        let before = by.is_none().then(|| files(&self.dir(name)));
        for json in [false, true] {
            let mut command = self.command(args, name);
            by.map(|id| command.uid(id));
            let out = command.args(json.then_some("--json")).output().unwrap();
            let said = told(&out);
            assert_eq!(out.status.code(), Some(code), "{args:?} of {name}: {said}");
            assert!(said.contains(text) && (code == 1 || said.contains(name)), "{args:?} of {name}: {said}");
            for line in said.lines().filter(|_| json) {
                let object: Value = serde_json::from_str(line).unwrap();
                let kind = if code == 0 { args[0] } else { "error" };
                assert!(object["schema"] == 1 && object["kind"] == kind, "{line}");
            }
            assert_eq!(fs::remove_dir_all(self.made()).is_ok(), code == 0, "{args:?} of {name}");
            assert_eq!(fs::read_dir(self.dir("out")).unwrap().count(), 0);
        }
        assert!(before.is_none_or(|before| before == files(&self.dir(name))), "{args:?} changed {name}");
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    if dir.is_dir() { bytes_of(dir) } else { BTreeMap::new() }
}

fn told(out: &Output) -> String {
    String::from_utf8([&out.stdout[..], &out.stderr].concat()).unwrap()
}

#[test]
fn what_is_whole_is_done_and_what_is_torn_too_where_that_is_no_loss() {
    let ground = Ground::new();
    ground.store::<Theirs>("theirs");
    ground.ends(&IMPORT, "theirs", 0, "regions");
    ground.store::<Ours>("ours");
    ground.ends(&EXPORT, "ours", 0, "regions");
    // As a writer leaves it that was killed, and with a torn record at its end.
    child::run::<Ours>(&ground.dir("torn"), 3, 0, 200);
    ground.ends(&EXPORT, "torn", 0, "regions");
    let mut log = fs::OpenOptions::new().append(true).open(last(&ground.dir("theirs"), ".raftlog")).unwrap();
    std::io::Write::write_all(&mut log, &[3; 50]).unwrap();
    ground.ends(&IMPORT, "theirs", 1, "--accept-torn-tail");
    ground.ends(&["import", "--from", "raft-engine", "--accept-torn-tail"], "theirs", 0, ".raftlog");
}

#[test]
fn where_no_store_is_it_cannot_run_and_leaves_no_lock() {
    let ground = Ground::new();
    fs::create_dir(ground.dir("empty")).unwrap();
    fs::create_dir(ground.dir("foreign")).unwrap();
    fs::write(ground.dir("foreign").join("notes.txt"), b"hello").unwrap();
    fs::write(ground.dir("plain"), b"a file").unwrap();
    for name in ["empty", "foreign", "plain", "missing"] {
        ground.ends(&IMPORT, name, 2, "");
        ground.ends(&EXPORT, name, 2, "");
    }
    // That of the other engine.
    ground.store::<Theirs>("theirs");
    ground.ends(&EXPORT, "theirs", 2, "no store");
    ground.store::<Ours>("ours");
    ground.ends(&IMPORT, "ours", 2, "no store");
}

#[test]
fn a_store_of_a_newer_release_cannot_be_exported_and_one_of_an_older_is_read() {
    let ground = Ground::new();
    ground.store::<Ours>("newer");
    for (name, mut bytes) in bytes_of(&ground.dir("newer")) {
        // The header of a file, and its copy at the end.
        for at in [0, bytes.len().saturating_sub(4096)] {
            let Some(header) = bytes.get_mut(at..at + 128).filter(|h| h.starts_with(b"RAFTWOOD")) else {
                continue;
            };
            header[8..12].copy_from_slice(&99u32.to_le_bytes());
            let sum = crc32(&header[..124]);
            header[124..].copy_from_slice(&sum.to_le_bytes());
        }
        fs::write(ground.dir("newer").join(name), bytes).unwrap();
    }
    ground.ends(&EXPORT, "newer", 2, "format version 99");
    for version in ["v1", "v2", "v3"] {
        ground.golden(version);
        // It was read, and has what `raftwood-raft-engine` does not write.
        ground.ends(&EXPORT, version, 1, "hard state");
    }
}

impl Ground {
    /// A store of an earlier format, as it is kept for the tests of the library; its files are cut where
    /// zeros follow.
    fn golden(&self, version: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let kept = root.join(version).join("clean-close");
        fs::create_dir(self.dir(version)).unwrap();
        for line in fs::read_to_string(kept.join("MANIFEST")).unwrap().lines() {
            let (file, len) = line.split_once(' ').unwrap();
            let mut bytes = fs::read(kept.join(file)).unwrap();
            bytes.resize(len.parse().unwrap(), 0);
            fs::write(self.dir(version).join(file), bytes).unwrap();
        }
    }
}

/// As zlib has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        (0..8).for_each(|_| sum = sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 });
    }
    !sum
}

#[test]
fn what_may_not_be_read_is_named_and_what_may_only_be_read_is_taken_over() {
    let ground = Ground::new();
    ground.store::<Theirs>("theirs");
    ground.store::<Ours>("ours");
    let by = ground.nobody;
    for (args, name) in [(&IMPORT, "theirs"), (&EXPORT, "ours")] {
        let names: Vec<String> = bytes_of(&ground.dir(name)).into_keys().collect();
        let all = |mode| names.iter().for_each(|file| ground.mode(&format!("{name}/{file}"), mode));
        let log = names.iter().rfind(|file| file.ends_with("log")).unwrap();
        ground.mode(name, 0o000);
        ground.ends_by(args, name, 2, "denied", by);
        ground.mode(name, 0o555);
        all(0o444);
        ground.ends_by(args, name, 0, "regions", by);
        ground.mode(&format!("{name}/{log}"), 0o000);
        ground.ends_by(args, name, 2, log, by);
        all(0o644);
        ground.mode(name, 0o755);
    }
    // Without a lock that is there, none can be taken.
    fs::remove_file(ground.dir("theirs").join("LOCK")).unwrap();
    ground.mode("theirs", 0o555);
    ground.ends_by(&IMPORT, "theirs", 2, "LOCK is not there and cannot be made", by);
    ground.mode("theirs", 0o755);
    // A lock that may only be read keeps the source's engine out, and is kept out by it.
    ground.store::<Theirs>("busy");
    ground.mode("busy/LOCK", 0o444);
    let engine = Theirs::open(&ground.dir("busy"));
    ground.ends_by(&IMPORT, "busy", 2, "locked", by);
    drop(engine);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let ground = Ground::new();
    ground.store::<Theirs>("theirs");
    for args in [&IMPORT[..], &["--json", "import", "--from", "raft-engine"]] {
        let mut child = ground.command(args, "theirs").spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), told(&out).as_str()), (Some(141), ""));
        // It is done all the same.
        fs::remove_dir_all(ground.made()).unwrap();
        let mut child = ground.command(args, "missing").spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(2));
    }
}

#[test]
fn json_has_the_figures_and_what_was_left_out_and_errors_of_use() {
    let ground = Ground::new();
    ground.store::<Theirs>("theirs");
    let log = last(&ground.dir("theirs"), ".raftlog");
    let offset = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(offset + 4096).unwrap();
    let args = ["import", "--from", "raft-engine", "--accept-torn-tail", "--json"];
    let out = ground.command(&args, "theirs").output().unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    let figures = ["regions", "entries", "pairs"].map(|name| said[name].as_u64().unwrap());
    assert_eq!(figures, [2, 9, 1]);
    let end = &said["left_out"][0];
    let place = ["offset", "bytes", "zeros"].map(|name| end[name].as_u64().unwrap());
    assert_eq!((place, end["file"].as_str()), ([offset, 0, 4096], log.to_str()));
    for args in [&["import", "--json"][..], &["--json", "--from"], &["import", "--from", "etcd", "--json"]] {
        let out = Command::new(ground.program()).args(args).output().unwrap();
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0));
        let said: Value = serde_json::from_slice(&out.stderr).unwrap();
        assert!(said["kind"] == "error" && !said["error"].as_str().unwrap().contains('\n'), "{said}");
    }
}
