//! The replicated key-value store of `examples/kv`, in small: three processes, killed, cut off and reconfigured under load.

#![cfg(feature = "raft-rs-protobuf")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::path::PathBuf;
use std::process::Command;

/// Cargo builds examples for a test run of everything, and for `--examples`.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/kv");
    assert!(path.exists(), "{} is not built: run `cargo build --examples` first", path.display());
    path
}

fn run(args: &[&str]) -> serde_json::Value {
    let output = Command::new(example()).args(args).arg("--json").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

fn count(summary: &serde_json::Value, what: &str) -> u64 {
    summary[what].as_u64().unwrap_or_else(|| panic!("{what} in {summary}"))
}

#[test]
fn three_killed_nodes_lose_nothing_and_show_nothing_stale() {
    let summary = run(&["--seconds", "12", "--groups", "10", "--kills", "5", "--clients", "12"]);
    for what in ["lost", "stale", "twice", "replicas_that_differ", "answers_after_the_lease"] {
        assert_eq!(count(&summary, what), 0, "{what} in {summary}");
    }
    // It happened at all.
    assert_eq!(count(&summary, "kills"), 5);
    for what in [
        "partitions",
        "writes_acknowledged",
        "reads_through_log",
        "reads_by_index",
        "reads_by_lease",
        "reads_covered_by_lease",
        "configurations_changed",
    ] {
        assert!(count(&summary, what) > 0, "{what} in {summary}");
    }
}

/// The check of what the clients saw; its tests run here, for `cargo test` runs none of an example.
#[path = "../examples/kv/history.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod history;

/// As much of the example's own module as the checker needs.
#[allow(dead_code)]
mod wire {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Via {
        Log,
        Index,
        Lease,
    }
}
