//! The replicated key-value stores of the examples, in small: `kv`, three processes, killed, cut off, stopped
//! and reconfigured under load, and `openraft_kv`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/example.rs"]
mod example;

use example::example;
use std::process::Command;

/// How often a run is repeated that found nothing wrong, and has not shown all that it is to show
/// (`NOT_SHOWN`): whether a replica that was away needs a snapshot, say, is chance.
const ATTEMPTS: usize = 4;
const NOT_SHOWN: Option<i32> = Some(raftwood_kv::verdict::NOT_SHOWN as i32);

fn run(name: &str, args: &[&str]) -> String {
    let attempt = || Command::new(example(name)).args(args).output().unwrap();
    let mut attempts = (0..ATTEMPTS).map(|_| attempt());
    let first = attempts.next().unwrap();
    let output = match first.status.code() {
        NOT_SHOWN => attempts.find(|o| o.status.code() != NOT_SHOWN).unwrap_or(first),
        _ => first,
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    out.to_string()
}

fn count(summary: &serde_json::Value, what: &str) -> u64 {
    summary[what].as_u64().unwrap_or_else(|| panic!("{what} in {summary}"))
}

#[test]
fn three_killed_nodes_lose_nothing_and_show_nothing_stale() {
    let out = run("kv", &["--seconds", "12", "--groups", "10", "--kills", "5", "--clients", "12", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    for what in [
        "answers_after_the_lease",
        "answers_without_a_majority",
        "discarded_unsaved",
        "replicas_that_differ",
        "configurations_that_differ",
        "changes_forgotten",
        "twice",
        "lost",
        "stale",
    ] {
        assert_eq!(count(&summary, what), 0, "{what} in {summary}");
    }
    // It happened at all. The program says so too, and would not have ended well.
    assert_eq!(count(&summary, "kills"), 5);
    for what in [
        "partitions",
        "freezes",
        "leaders_moved",
        "configurations_changed",
        "groups_split",
        "groups_merged",
        "writes_acknowledged",
        "reads_through_log",
        "reads_by_index",
        "reads_covered_by_lease",
        "probes_after_the_lease",
        "replayed",
        "compactions",
        "snapshots_installed",
        "rolled_back",
        "rollbacks_refused",
        "clock_faults",
    ] {
        assert!(count(&summary, what) > 0, "{what} in {summary}");
    }
    assert_eq!(summary["not_shown"], serde_json::json!([]));
}

/// Longer by environment variable: elections take seconds.
#[test]
fn the_ticks_of_a_large_store_do_as_well() {
    if std::env::var_os("RAFTWOOD_KV_LONG").is_none() {
        return;
    }
    let ticks =
        ["--tick-ms", "100", "--election-ticks", "50", "--heartbeat-ticks", "10", "--lease-ms", "4500"];
    let rest = ["--seconds", "240", "--groups", "10", "--kills", "8", "--clients", "12"];
    let out = run("kv", &[&ticks[..], &rest[..]].concat());
    assert!(out.ends_with("\n0 lost, 0 stale\n"), "{out}");
}

/// Two nodes of another zone than the leader's: with an agent every entry crosses once, without one twice.
/// Between the two measurements a node stands still, others are learners, and leaders are cut off.
#[test]
fn an_entry_goes_to_a_zone_once_where_an_agent_hands_it_on() {
    let out = run("kv", &["--relay", "--seconds", "2", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    let copies = |run: usize, what: &str| summary["runs"][run][what].as_f64().unwrap();
    for what in ["copies", "copies_afterwards"] {
        assert!(copies(0, what) > 1.9, "{what} in {summary}");
        assert!((0.99..=1.05).contains(&copies(1, what)), "{what} in {summary}");
    }
    for run in 0..2 {
        assert!(count(&summary["runs"][run], "rolled_back") > 0, "{summary}");
        assert!(count(&summary["runs"][run], "writes") > 0, "{summary}");
        let handed_on = count(&summary["runs"][run], "appends_handed_on");
        assert_eq!(handed_on > 0, run == 1, "{summary}");
    }
    assert_eq!((count(&summary, "lost"), &summary["not_shown"]), (0, &serde_json::json!([])));
}

#[test]
fn a_run_that_has_not_shown_everything_does_not_end_well() {
    let args = ["--seconds", "1", "--groups", "2", "--kills", "0", "--clients", "1"];
    let output = Command::new(example("kv")).args(args).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), NOT_SHOWN, "{out}");
    assert!(out.contains("0 lost, 0 stale\nbut this run has not shown"), "{out}");
}

#[test]
fn stores_of_an_earlier_run_are_not_taken_for_this_ones() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("node-1")).unwrap();
    let output = Command::new(example("kv")).arg("--dir").arg(dir.path()).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("is not empty"), "{err}");
}

/// However the program ends: nobody can clean up who was killed.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_is_killed_leaves_no_process_and_no_directory() {
    let tmp = tempfile::tempdir().unwrap();
    let mut program =
        Command::new(example("kv")).args(["--groups", "5"]).env("TMPDIR", tmp.path()).spawn().unwrap();
    let name = tmp.path().display().to_string();
    let left = || {
        let commands = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
            let command = std::fs::read(process.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&command).contains(&name).then_some(())
        });
        (commands.count(), std::fs::read_dir(tmp.path()).unwrap().count())
    };
    let until = |enough: &dyn Fn((usize, usize)) -> bool| {
        let began = std::time::Instant::now();
        while !enough(left()) {
            assert!(began.elapsed().as_secs() < 60, "{:?}", left());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    // Three nodes and the janitor.
    until(&|(processes, _)| processes == 4);
    program.kill().unwrap();
    program.wait().unwrap();
    until(&|left| left == (0, 0));
}

#[test]
fn openraft_over_three_stopped_nodes_loses_nothing() {
    let out = run("openraft_kv", &["--seconds", "3", "--groups", "3"]);
    assert!(out.ends_with("\n0 lost, 0 stale\n"), "{out}");
}

/// How often a run is tried that must show a stale read.
const RUNS: usize = 3 * ATTEMPTS;

/// A leader that is cut off with clocks on which its lease lasts longer than the election of the next: reads
/// that it answers then are stale, and the check of the history has to say so, not only the count of answers
/// that came late.
#[test]
fn clocks_beyond_what_the_lease_allows_for_are_seen_to_show_stale_reads() {
    for how in [["--clock-faults", "beyond"], ["--trust", "raw"], ["--trust", "boot"]] {
        // Whether a read meets a write that it has to know is chance: more than two runs are rare.
        let stale = (0..RUNS).any(|attempt| {
            let kept = tempfile::tempdir().unwrap();
            let seed = attempt.to_string();
            let rest = ["--seconds", "8", "--groups", "10", "--kills", "0", "--clients", "8", "--json"];
            let output = Command::new(example("kv"))
                .args(how)
                .args(rest)
                .args(["--rots", "0", "--seed", &seed])
                .env("TMPDIR", kept.path())
                .output()
                .unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            let summary: serde_json::Value =
                serde_json::from_str(&out).unwrap_or_else(|e| panic!("{how:?}: {e}: {out}"));
            assert_eq!(count(&summary, "lost"), 0, "{how:?}: {summary}");
            let stale = count(&summary, "stale") > 0;
            assert!(!stale || output.status.code() == Some(1), "{how:?}: {:?}", output.status);
            stale
        });
        assert!(stale, "{how:?}: no read was seen to be stale in {RUNS} runs");
    }
}
