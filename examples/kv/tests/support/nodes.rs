//! Asking the nodes of a cluster, and waiting for what they come to.

use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::lease::Timing;
use raftwood_kv::wire::{Dump, Reply, Request, Stats};
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TIMING: Timing =
    Timing { tick_ms: 30, election_ticks: 20, heartbeat_ticks: 4, lease_ms: 480 };

pub(crate) fn stats(cluster: &Cluster, node: u64) -> Stats {
    match cluster.ask(node, &Request::Stats, Duration::from_secs(10)).unwrap() {
        Reply::Stats(stats) => stats,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn dump(cluster: &Cluster, node: u64, group: u64) -> Dump {
    match cluster.ask(node, &Request::Dump { group }, Duration::from_secs(10)).unwrap() {
        Reply::Dump(dump) => dump,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: still not");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Until this node leads the group.
#[allow(dead_code, reason = "not of every test")]
pub(crate) fn lead(cluster: &Cluster, node: u64, group: u64) {
    until("its leader", || {
        cluster.ask_leader(group, &Request::Transfer { group, to: node }, Duration::from_secs(1));
        stats(cluster, node).leads.contains(&group)
    });
}

/// Whether all nodes have the same of the group, and something.
#[allow(dead_code, reason = "not of every test")]
pub(crate) fn is_equal(cluster: &Cluster, group: u64) -> bool {
    let first = dump(cluster, 1, group);
    first.applied > 0 && (2..=NODES).all(|node| dump(cluster, node, group) == first)
}
