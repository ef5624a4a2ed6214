//! The tool, from the outside: what it prints, and its exit codes.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

const FIELDS: [&str; 26] = [
    "schema",
    "workload",
    "engine",
    "threads",
    "regions",
    "entry_bytes",
    "batch_entries",
    "durability",
    "seconds",
    "ops",
    "entries",
    "bytes",
    "p50_us",
    "p99_us",
    "p999_us",
    "max_us",
    "device_bytes",
    "filled_bytes",
    "disk_bytes",
    "live_bytes",
    "index_bytes",
    "rss_bytes",
    "segments",
    "open_ms",
    "verified",
    "wrong",
];

fn tool(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftwood")).args(args).current_dir(dir).output().unwrap()
}

/// Runs `bench` with `--json` and returns its rows, after checking that each has exactly the
/// documented fields.
fn rows(args: &[&str]) -> Vec<serde_json::Value> {
    let dir = tempfile::tempdir().unwrap();
    let all = [&["bench", "--json", "--seconds", "0.2", "--segment-bytes", "1M"], args].concat();
    let out = tool(dir.path(), &all);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the bench leaves nothing behind");
    let rows: Vec<serde_json::Value> =
        String::from_utf8(out.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for row in &rows {
        let mut names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = FIELDS.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
    rows
}

#[test]
fn without_arguments_floor_lone_writer_and_raftstore_are_measured_and_verified() {
    let rows = rows(&[]);
    let names: Vec<&str> = rows.iter().map(|r| r["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["limit", "append", "raftstore"]);
    for row in &rows[1..] {
        assert!(row["ops"].as_u64().unwrap() > 0);
        assert!(row["verified"].as_u64().unwrap() > 0);
        assert_eq!(row["wrong"], 0);
    }
}

/// A short run of the bench saw little but new files being filled, and said nothing of it: its figures
/// were taken for the engine's.
#[test]
fn a_bench_of_a_young_store_says_so_and_the_tail_stands_beside_the_floors() {
    let dir = tempfile::tempdir().unwrap();
    // Segments so small that some are begun on any disk.
    let args = ["bench", "append", "--seconds", "0.3", "--segment-bytes", "64K", "--no-verify"];
    let out = tool(dir.path(), &args);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.contains("warning: append measured a young store") && said.contains("--warm-up"), "{said}");
    let beside = said.lines().find(|line| line.contains("x the floor's")).unwrap();
    assert!(beside.contains("its p99.9") && beside.contains("its longest"), "{beside}");
}

#[test]
fn many_writers_on_steady_regions_are_verified_with_compression_too() {
    for more in [&[][..], &["--compress-from", "1K"]] {
        let args =
            [&["append", "--threads", "3", "--durability", "written", "--regions", "9"], more].concat();
        let rows = rows(&args);
        assert_eq!((rows[0]["wrong"].as_u64(), rows[0]["threads"].as_u64()), (Some(0), Some(3)));
    }
}

#[test]
fn reads_are_measured_after_a_reopen() {
    let rows = rows(&["read", "--bytes", "2M", "--regions", "10"]);
    let names: Vec<&str> = rows.iter().map(|r| r["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["read.entry", "read.range64", "read.term"]);
    assert_eq!(rows[0]["verified"], 2080);
}

#[test]
fn a_killed_store_reopens_with_everything() {
    let rows = rows(&["reopen", "--bytes", "3M", "--regions", "20"]);
    assert_eq!((rows[0]["workload"].as_str(), rows[0]["wrong"].as_u64()), (Some("reopen"), Some(0)));
    assert!(rows[0]["verified"].as_u64().unwrap() >= 3 << 10);
}

#[test]
fn kills_lose_nothing_that_was_acknowledged() {
    let rows = rows(&["kill", "--repeat", "4"]);
    assert_eq!((rows[0]["workload"].as_str(), rows[0]["wrong"].as_u64()), (Some("kill"), Some(0)));
    assert!(rows[0]["verified"].as_u64().unwrap() > 0);
}

#[test]
fn torture_counts_what_it_survived() {
    let dir = tempfile::tempdir().unwrap();
    let out = tool(dir.path(), &["torture", "--sim", "1", "--kills", "2", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let survived: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(survived["crash_recoveries"].as_u64().unwrap() > 1);
    assert_eq!((survived["violations"].as_u64(), survived["kills"].as_u64()), (Some(0), Some(2)));
}

#[test]
fn two_hundred_kills_of_a_writing_process_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = tool(dir.path(), &["torture", "--sim", "0", "--kills", "200", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let survived: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((survived["violations"].as_u64(), survived["kills"].as_u64()), (Some(0), Some(200)));
    // Every other kill is at a chosen system call, where there is a strace that may trace; a few do
    // not come to theirs.
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let calls = survived["kills_at_calls"].as_object().unwrap();
    match traced.is_ok_and(|out| out.status.success()) {
        true => {
            let struck = |call: &str| calls.get(call).and_then(|n| n.as_u64()).unwrap_or(0);
            for call in ["pwritev", "fdatasync", "fsync", "rename", "unlink", "open"] {
                assert!(struck(call) > 0, "{call}: {calls:?}");
            }
            assert!(calls.values().filter_map(|n| n.as_u64()).sum::<u64>() >= 50, "{calls:?}");
        }
        false => assert!(calls.is_empty(), "{calls:?}"),
    }
}

#[test]
fn inspect_shows_a_store_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = raftwood::Engine::open(&store).unwrap();
    let mut batch = engine.batch();
    let id = raftwood::EntryId::new(1, 1);
    batch.region(raftwood::RegionId(5)).append([raftwood::EntryRef { id, payload: b"x" }]).unwrap();
    engine.write(batch, raftwood::Durability::Synced).unwrap();

    // Beside a running engine.
    let out = tool(dir.path(), &["inspect", "store", "--json", "--regions"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((shown["regions"].as_u64(), shown["entries"].as_u64()), (Some(1), Some(1)));
    assert_eq!(shown["region_list"][0]["id"], 5);
    assert_eq!(tool(dir.path(), &["inspect", "store"]).status.code(), Some(0));
}

/// Three entries, a hard state and a key of region 5, and one entry of region 6 with bytes that are no text.
fn store_to_dump(dir: &Path) -> raftwood::Engine {
    use raftwood::{EntryId, RegionId};
    let engine = raftwood::Engine::open(dir).unwrap();
    let mut batch = engine.batch();
    let entries = [
        (EntryId::new(1, 1), &b"set a"[..]),
        (EntryId::new(1, 2), &b"set b"[..]),
        (EntryId::new(2, 3), &b"set c"[..]),
    ];
    batch.region(RegionId(5)).append(entries).unwrap().set_hard_state(&[2, 0xFF]).unwrap();
    batch.region(RegionId(5)).put(b"applied", b"2").unwrap();
    batch.region(RegionId(6)).append([(EntryId::new(7, 1), &[0u8, 10, b'x', 0xC3][..])]).unwrap();
    engine.write(batch, raftwood::Durability::Synced).unwrap();
    // That the last batch is on the device is written down once the engine is idle.
    let began = std::time::Instant::now();
    while raftwood::Options::new().open_read_only(dir).unwrap().state(RegionId(5)).durable < 3 {
        assert!(began.elapsed().as_secs() < 60, "an idle engine does not say what is durable");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    engine
}

fn printed(out: &Output, code: i32) -> String {
    assert_eq!(out.status.code(), Some(code), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout.clone()).unwrap()
}

#[test]
fn dump_prints_entries_for_people_and_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let engine = store_to_dump(&dir.path().join("store"));
    // Once beside the running engine, once after it.
    for _ in 0..2 {
        let text = printed(&tool(dir.path(), &["dump", "store"]), 0);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "region 5: entries 1..=3");
        assert_eq!(lines[1], "hard state  \\x02\\xff");
        assert_eq!(lines[2], "key  applied = 2");
        assert!(lines[4].ends_with("set a") && lines[6].ends_with("set c"), "{text}");
        assert_eq!(lines[7], "region 6: entries 1..=1");
        assert!(lines[9].ends_with("\\x00\\nx\\xc3"), "{text}");
        assert_eq!(lines.len(), 10, "{text}");

        let some =
            printed(&tool(dir.path(), &["dump", "store", "--region", "5", "--from", "2", "--to", "2"]), 0);
        assert!(some.contains("set b") && !some.contains("set a") && !some.contains("set c"), "{some}");
        let hex = ["dump", "store", "--region", "6", "--format", "hex", "--payload-bytes", "3"];
        assert!(printed(&tool(dir.path(), &hex), 0).contains("000a78..."));

        let json = printed(&tool(dir.path(), &["dump", "store", "--json"]), 0);
        let rows: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let kinds: Vec<&str> = rows.iter().map(|r| r["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["region", "key", "entry", "entry", "entry", "region", "entry"]);
        assert_eq!(
            rows[4],
            serde_json::json!({
                "schema": 1, "kind": "entry", "region": 5, "index": 3, "term": 2, "bytes": 5, "durable": true, "payload": "7365742063"
            })
        );
        assert_eq!((&rows[0]["hard_state"], &rows[0]["last"]), (&"02ff".into(), &3.into()));
        engine.close().unwrap();
    }
}

#[test]
fn dump_marks_what_may_vanish_and_stops_before_it_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let engine = store_to_dump(&dir.path().join("store"));
    for index in 4..=6 {
        let mut batch = engine.batch();
        batch
            .region(raftwood::RegionId(5))
            .append([(raftwood::EntryId::new(2, index), &b"later"[..])])
            .unwrap();
        engine.write(batch, raftwood::Durability::Written).unwrap();
    }
    let region = ["dump", "store", "--region", "5"];
    let proven = printed(&tool(dir.path(), &region), 0);
    let all = printed(&tool(dir.path(), &[&region[..], &["--unproven"]].concat()), 0);
    assert!(proven.contains("entries 1..=3") && proven.contains("not known to be on the device"), "{proven}");
    assert!(all.contains("entries 1..=6"), "{all}");
    assert!(!proven.contains("unproven  ") && all.matches("unproven  later").count() >= 1, "{proven}{all}");
    assert_eq!(all.matches("later").count(), 3);
}

#[test]
fn dump_names_what_is_damaged_and_prints_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = store_to_dump(&store);
    engine.close().unwrap();
    drop(engine);
    let log = store.join("0000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(5).position(|w| w == b"set b").unwrap();
    bytes[at..at + 5].copy_from_slice(b"xxxxx");
    std::fs::write(&log, bytes).unwrap();
    let text = printed(&tool(dir.path(), &["dump", "store"]), 1);
    assert!(text.contains("set a") && text.contains("set c") && !text.contains("xxxxx"), "{text}");
    assert!(text.lines().any(|l| l.trim().starts_with("2  DAMAGE")), "{text}");
    let json = printed(&tool(dir.path(), &["dump", "store", "--json", "--region", "5"]), 1);
    let damage = json.lines().find(|l| l.contains("\"kind\":\"damage\"")).unwrap();
    let damage: serde_json::Value = serde_json::from_str(damage).unwrap();
    assert_eq!((&damage["region"], &damage["index"]), (&5.into(), &2.into()));
}

#[test]
fn dump_of_nothing_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    for (args, says) in [
        (&["dump", "missing"][..], "missing"),
        (&["dump", "empty"], "there is no store"),
        (&["dump", "empty", "--format", "yaml"], "yaml"),
    ] {
        let out = tool(dir.path(), args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(says), "{args:?}: {out:?}");
    }
    let engine = store_to_dump(&dir.path().join("store"));
    let out = tool(dir.path(), &["dump", "store", "--region", "77"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("there is no region 77"));
    drop(engine);
}

/// `raftwood inspect | head -1` was a panic of the tool, with exit code 101 and a message about
/// `failed printing to stdout`.
#[test]
fn a_pipe_that_nobody_reads_ends_every_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let engine = raftwood::Engine::open(dir.path().join("store")).unwrap();
    engine.close().unwrap();
    drop(engine);
    drop(store_to_dump(&dir.path().join("full")));
    for args in [
        &["inspect", "store"][..],
        &["inspect", "store", "--json"],
        &["dump", "full", "--json"],
        &["dump", "full"],
        &["top", "store"],
        &["top", "store", "--json"],
        &["check", "store"],
        &["check", "store", "--json"],
        &["repair", "store"],
        &["repair", "store", "--apply", "--json"],
        &["backup", "store", "copy"],
        &["restore", "store", "restored", "--json"],
        &["explain", "store"],
        &["explain", "store", "--json"],
        &["diff", "store", "full"],
        &["diff", "store", "full", "--json"],
        &["dump", "full", "--records"],
        &["dump", "full", "--follow"],
        &["purge", "store"],
        &["report", "store"],
        &["completions", "bash"],
        &["man"],
        &["torture", "--sim", "0", "--kills", "0"],
        &["bench", "append", "--seconds", "0.1", "--segment-bytes", "1M"],
        &["bench", "append", "--seconds", "0.1", "--segment-bytes", "1M", "--json"],
    ] {
        let (unread, pipe) = std::io::pipe().unwrap();
        drop(unread);
        let out = Command::new(env!("CARGO_BIN_EXE_raftwood"))
            .args(args)
            .current_dir(dir.path())
            .stdout(pipe)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), said.as_ref()), (Some(141), ""), "{args:?}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "a bench removes its store also then: {left:?}");
    // As people do it: the first line is there, and nothing else happens.
    let piped = format!("{} inspect store | head -1", env!("CARGO_BIN_EXE_raftwood"));
    let out = Command::new("sh").args(["-c", &piped]).current_dir(dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "store: 0 regions, 0 live entries\n");
    assert!(out.stderr.is_empty());
}

/// `check` once failed with `locking the store` where it may not write: on a backup, as another user.
#[test]
fn check_needs_no_permission_to_write() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = raftwood::Engine::open(&store).unwrap();
    engine.close().unwrap();
    drop(engine);
    let tool = dir.path().join("raftwood");
    std::fs::copy(env!("CARGO_BIN_EXE_raftwood"), &tool).unwrap();
    // Root may write anywhere: then somebody else looks.
    let nobody = chown(&tool, Some(0), None).is_ok().then_some(65534);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::read_dir(&store).unwrap().for_each(|e| mode(&e.unwrap().path(), 0o444));
    [store.as_path(), dir.path()].iter().for_each(|path| mode(path, 0o555));
    let mut command = Command::new(&tool);
    command.args(["check", "store", "--json"]).current_dir(dir.path());
    nobody.map(|id| command.uid(id));
    // Another test may be starting a process just now, which has the file open until it is another program.
    let out = loop {
        match command.output() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            out => break out.unwrap(),
        }
    };
    mode(&store, 0o755);
    mode(dir.path(), 0o755);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let checked: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((checked["clean"].as_bool(), checked["in_use"].as_bool()), (Some(true), Some(false)));
}

#[test]
fn arguments_that_are_refused_are_json_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["bench", "no-such-workload", "--json"][..],
        &["bench", "--json", "--bytes", "many"],
        &["inspect", "--json"],
        &["dump", "store", "--format", "json", "--from", "x"],
        &["top", "--format=json", "--json"],
        &["no-such-command", "--json"],
    ] {
        let out = tool(dir.path(), args);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{args:?}");
        let said: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
        let error = said["error"].as_str().unwrap();
        assert!(said["schema"] == 1 && said["kind"] == "error" && !error.contains('\n'), "{args:?}: {said}");
        assert!(!error.contains("Usage") && !error.is_empty(), "{args:?}: {said}");
    }
    // Help is what was asked for, and is for people.
    let help = tool(dir.path(), &["bench", "--json", "--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"Measure this machine"));
}

#[test]
fn what_cannot_run_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["bench", "no-such-workload"][..],
        &["bench", "--bytes", "many"],
        // Was 1 thread, without a word.
        &["bench", "--threads", "0"],
        &["bench", "--regions", "0"],
        &["bench", "--batch-entries", "0"],
        &["bench", "--repeat", "0"],
        // Panicked, and ran for no time at all.
        &["bench", "--seconds", "inf"],
        &["bench", "--seconds", "nan"],
        &["bench", "--warm-up=-1"],
        // Found no entry to read.
        &["bench", "read", "--bytes", "0"],
        &["bench", "--dir", "/proc/nowhere", "limit"],
        &["inspect", "no-such-store"],
        &["dump", "no-such-store", "--from", "9", "--to", "3"],
        &[],
    ] {
        let out = tool(dir.path(), args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(!out.stderr.is_empty(), "{args:?} says why");
    }
}
