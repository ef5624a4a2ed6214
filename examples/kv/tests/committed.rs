//! A node that is killed when an entry is committed and its state machine has not applied it: what the client
//! sees that waited, and what there is after the start.
//!
//! The state machine's thread is told to do nothing (`Request::HoldApplies`), so the node stands between the
//! two steps for as long as it takes to see it there: the entry and the commit index are in its log, on disk,
//! and its state machine ends before the entry.
//!
//! A write of `kv` has no id. A client that was not answered reads before it asks again: what it asks again
//! is another write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/example.rs"]
mod example;
#[path = "support/nodes.rs"]
mod nodes;

use disk::{hard_state, log, stands};
use example::example;
use nodes::{PATIENCE, TIMING, dump, is_equal, lead, stats, until};
use raftwood::raft_rs::decode_entry;
use raftwood::{ReadLimit, RegionId};
use raftwood_kv::clocks::Trust;
use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::wire::{Client, Command, Dump, Reply, Request, Via};
use std::path::Path;
use std::time::Duration;

const GROUP: u64 = 1;
const KEY: u64 = 2;
const LEADER: u64 = 1;
/// Leads later, where a test wants that.
const FOLLOWER: u64 = 2;
const BYSTANDER: u64 = 3;
/// What was there before, and what the client wants written that is not answered.
const BEFORE: u64 = 0x0b01_0000_0000_0001;
const WANTED: u64 = 0x0b01_0000_0000_0002;

fn start(dir: &Path) -> Cluster {
    let cluster = Cluster::start(example("kv"), dir, GROUP, TIMING, Trust::Both).unwrap();
    lead(&cluster, LEADER, GROUP);
    let request = Request::Write { group: GROUP, key: KEY, value: BEFORE };
    let reply = cluster.ask(LEADER, &request, PATIENCE).unwrap();
    assert!(matches!(reply, Reply::Written { version: 1 }), "{reply:?}");
    until("equal replicas", || is_equal(&cluster, GROUP));
    cluster
}

fn hold(cluster: &Cluster, node: u64) {
    cluster.ask(node, &Request::HoldApplies { hold: true }, Duration::from_secs(5)).unwrap();
}

/// Where the entry stands in the node's log, if the log says too that it is committed: from the disk, without
/// the node.
fn committed(cluster: &Cluster, node: u64) -> Option<u64> {
    let log = log(cluster, node);
    let entries = log.entries(RegionId(GROUP), .., ReadLimit::NONE).unwrap();
    let writes = |entry: &raftwood::Entry| {
        matches!(Command::of(&decode_entry(entry).unwrap()), Some(Command::Write { value: WANTED, .. }))
    };
    let mut found = entries.iter().filter(|entry| writes(entry)).map(|entry| entry.id.index);
    let index = found.next()?;
    assert_eq!(found.next(), None, "proposed once, and in the log of node {node} twice");
    (hard_state(&log, GROUP)?.commit >= index).then_some(index)
}

/// Until these nodes have it in their logs, committed, and their state machines do not have it: they stand
/// exactly between the two.
fn stand_between(cluster: &Cluster, nodes: &[u64]) -> u64 {
    let mut index = None;
    for &node in nodes {
        until("an entry that is committed", || {
            index = committed(cluster, node);
            index.is_some()
        });
        let held = dump(cluster, node, GROUP);
        assert!(Some(held.applied) < index && count(&held) == 0, "node {node} has applied it");
    }
    index.unwrap()
}

/// Kills it there, and looks at what a start will find.
fn kill_between(cluster: &mut Cluster, node: u64, index: u64) {
    cluster.kill(node).unwrap();
    assert_eq!(committed(cluster, node), Some(index));
    assert!(
        stands(cluster, node)[&GROUP].applied.index < index,
        "the state machine has it: nothing is between"
    );
}

fn count(dump: &Dump) -> usize {
    dump.writes.iter().filter(|write| write.2 == WANTED).count()
}

/// What the node answers as the leader, in each of the ways that are linearizable.
fn reads(cluster: &Cluster, node: u64) {
    for via in [Via::Index, Via::Log, Via::Lease] {
        let mut reply = None;
        until("a read", || {
            reply = cluster.ask(node, &Request::Read { group: GROUP, key: KEY, via }, PATIENCE).ok();
            matches!(reply, Some(Reply::Value { .. }))
        });
        let is_there = matches!(reply, Some(Reply::Value { version: 2, value: WANTED, .. }));
        assert!(is_there, "{via:?} at node {node}: {reply:?}");
    }
}

/// The client was not answered, and what it asked for is there once, on each node, applied in one order.
fn there_once(cluster: &mut Cluster, client: &mut Client) {
    let answer = client.receive();
    assert!(answer.is_err(), "nobody knew, and it was told {answer:?}");
    until("equal replicas", || is_equal(cluster, GROUP));
    for node in 1..=NODES {
        let dump = dump(cluster, node, GROUP);
        assert_eq!(count(&dump), 1, "node {node}");
        let versions: Vec<_> = dump.writes.iter().map(|write| (write.1, write.2)).collect();
        assert_eq!(versions, [(1, BEFORE), (2, WANTED)], "node {node}");
    }
    // Asked again it is a second write, and says so by its version.
    let mut again = None;
    until("the second write", || {
        let leader = (1..=NODES).find(|node| stats(cluster, *node).leads.contains(&GROUP));
        let request = Request::Write { group: GROUP, key: KEY, value: WANTED };
        again = leader.and_then(|node| cluster.ask(node, &request, PATIENCE).ok());
        matches!(again, Some(Reply::Written { .. }))
    });
    assert!(matches!(again, Some(Reply::Written { version: 3 })), "{again:?}");
    cluster.check().unwrap();
}

#[test]
fn a_leader_that_is_killed_between_commit_and_apply_applies_the_entry_once_and_has_answered_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    hold(&cluster, LEADER);
    let mut client = Client::connect(cluster.addrs[LEADER as usize - 1], PATIENCE).unwrap();
    client.send(&Request::Write { group: GROUP, key: KEY, value: WANTED }).unwrap();
    let index = stand_between(&cluster, &[LEADER]);
    kill_between(&mut cluster, LEADER, index);
    // Those that are left have it: what was committed is there, whether anybody was told or not.
    lead(&cluster, FOLLOWER, GROUP);
    reads(&cluster, FOLLOWER);

    let before = cluster.replayed;
    cluster.start_node(LEADER).unwrap();
    assert!(cluster.replayed > before, "nothing was to be applied again");
    lead(&cluster, LEADER, GROUP);
    reads(&cluster, LEADER);
    there_once(&mut cluster, &mut client);
}

#[test]
fn a_follower_that_is_killed_between_commit_and_apply_and_leads_later_serves_the_entry_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    hold(&cluster, LEADER);
    hold(&cluster, FOLLOWER);
    let mut client = Client::connect(cluster.addrs[LEADER as usize - 1], PATIENCE).unwrap();
    client.send(&Request::Write { group: GROUP, key: KEY, value: WANTED }).unwrap();
    // The leader is gone when the follower comes back: nobody can tell it what is committed but its own log,
    // and one whose log is no longer.
    let index = stand_between(&cluster, &[LEADER, FOLLOWER]);
    kill_between(&mut cluster, LEADER, index);
    kill_between(&mut cluster, FOLLOWER, index);

    let before = cluster.replayed;
    cluster.start_node(FOLLOWER).unwrap();
    assert!(cluster.replayed > before, "nothing was to be applied again");
    lead(&cluster, FOLLOWER, GROUP);
    reads(&cluster, FOLLOWER);
    for node in [FOLLOWER, BYSTANDER] {
        assert_eq!(count(&dump(&cluster, node, GROUP)), 1, "node {node}");
    }
    cluster.start_node(LEADER).unwrap();
    there_once(&mut cluster, &mut client);
}
