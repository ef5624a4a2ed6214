//! The example in small.

#![allow(clippy::unwrap_used, reason = "a test")]

use raftwood_openraft_many::{Size, run};

#[test]
fn fifty_groups_whose_nodes_stop_and_start_again_lose_nothing() {
    let report = run(Size { groups: 50, seconds: 2.0 }, |line| println!("{line}")).unwrap();
    assert_eq!((report.lost, report.differ), (0, 0), "{report:?}");
    // It happened at all.
    assert_eq!(report.groups_written, 50, "{report:?}");
    assert_eq!(report.leaders.iter().sum::<u64>(), 50, "{report:?}");
    assert!(report.leaders.iter().all(|led| *led > 0), "spread over the nodes: {report:?}");
    assert!(report.writes > 50, "{report:?}");
    assert!(report.entries >= report.writes * 3, "every node has them: {report:?}");
}

#[test]
fn a_run_without_groups_is_refused() {
    let error = run(Size { groups: 0, seconds: 1.0 }, |_| ()).unwrap_err();
    assert!(error.to_string().contains("at least one group"), "{error}");
}
