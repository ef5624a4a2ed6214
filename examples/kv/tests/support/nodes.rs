//! Asking the nodes of a cluster, and waiting for what they come to.

use raftwood_kv::cluster::Cluster;
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
