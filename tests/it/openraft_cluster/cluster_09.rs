//! openraft 0.9: a leader that was killed leads on, and may.

use super::net::Net;
use super::on_09::{Lines, Raft};
use crate::support::machine_09::Machine;
use crate::support::openraft::{R, Stalled, open, soon};
use openraft09::{BasicNode, Config, RaftMetrics, ServerState};
use raftwood::Engine;
use raftwood::openraft_09::LogStore;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct Node {
    disk: SimVfs,
    engine: Engine,
    machine: Machine,
    raft: Raft,
}

impl Node {
    /// Nobody stands for election by itself: a leader leads on if it finds that it does.
    async fn run(id: u64, incarnation: u32, disk: SimVfs, net: &Net<Raft>) -> Node {
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 200,
            election_timeout_max: 300,
            enable_elect: false,
            ..Config::default()
        };
        let engine = open(&disk);
        let machine = Machine::default();
        let lines = Lines { net: net.clone(), from: (id, incarnation) };
        let config = Arc::new(config.validate().unwrap());
        let store = LogStore::new(&engine, R);
        let raft = Raft::new(id, config, lines, store, machine.clone()).await.unwrap();
        net.join(id, incarnation, raft.clone());
        Node { disk, engine, machine, raft }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&RaftMetrics<u64, BasicNode>) -> bool + Send) {
        self.raft.wait(Some(Duration::from_secs(60))).metrics(is_so, what).await.unwrap();
    }
}

/// Under openraft 0.10 a leader that is killed must be elected again (the test for it says why). This
/// release waits until an entry is durable on the leader before it sends it to anybody, so what a leader
/// loses nobody has, and nobody was notified.
#[tokio::test]
async fn a_leader_sends_nothing_that_a_power_cut_could_take_from_it_and_may_lead_on() {
    let net = Net::default();
    let mut nodes = BTreeMap::new();
    for id in 1..=3 {
        nodes.insert(id, Node::run(id, 1, SimVfs::new(id), &net).await);
    }
    let members: BTreeMap<u64, BasicNode> = (1..=3).map(|id| (id, BasicNode::default())).collect();
    nodes[&1].raft.initialize(members).await.unwrap();
    let elected = |m: &RaftMetrics<u64, BasicNode>| m.last_applied.is_some_and(|id| id.leader_id.term > 0);
    nodes[&1].until("node 1 leads", elected).await;
    for command in 1..=5 {
        soon("a write", nodes[&1].raft.client_write(format!("{command}"))).await.unwrap();
    }
    let durable = nodes[&1].engine.region(R).last_index();
    for node in nodes.values() {
        node.until("it has all", |m| m.last_log_index == Some(durable)).await;
    }

    // The leader's disk hangs. The followers' do not, and would make a majority.
    let stalled = Stalled::new(&nodes[&1].disk);
    let raft = nodes[&1].raft.clone();
    let writing = tokio::spawn(async move { raft.client_write("lost".to_string()).await.is_ok() });
    crate::support::openraft::sync_is_stuck(&nodes[&1].disk).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished(), "acknowledged before it is durable here");
    assert_eq!(nodes[&1].engine.region(R).last_index(), durable + 1);
    for id in 2..=3 {
        assert_eq!(
            nodes[&id].engine.region(R).last_index(),
            durable,
            "node {id} has it before the leader does"
        );
    }
    net.leave(1);
    let disk = nodes[&1].disk.crash(LossPolicy::LoseAll);
    writing.abort();
    drop(stalled);
    let killed = nodes.remove(&1).unwrap();
    let term = killed.raft.metrics().borrow().current_term;
    killed.raft.shutdown().await.unwrap();
    drop(killed);

    nodes.insert(1, Node::run(1, 2, disk, &net).await);
    assert_eq!(nodes[&1].engine.region(R).last_index(), durable);
    let leads =
        move |m: &RaftMetrics<u64, BasicNode>| m.state == ServerState::Leader && m.current_term == term;
    nodes[&1].until("it leads on", leads).await;
    soon("a write", nodes[&1].raft.client_write("6".to_string())).await.unwrap();
    let end = nodes[&1].engine.region(R).last_index();
    for (id, node) in &nodes {
        node.until("it has all", |m| m.last_applied.is_some_and(|id| id.index >= end)).await;
        assert_eq!(node.machine.commands(), ["1", "2", "3", "4", "5", "6"], "node {id}");
    }
}
