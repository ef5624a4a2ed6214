//! openraft 0.10, as its users configure it: by default a node that finds itself a leader leads on.

use super::net::Net;
use super::on_010::{Lines, Raft, Vote};
use crate::support::openraft::{R, Stalled, open, soon};
use openraft_memstore::{BlockConfig, ClientRequest, IntoMemClientRequest, MemStateMachine, TypeConfig};
use openraft010::metrics::RaftMetrics;
use openraft010::storage::RaftLogStorage;
use openraft010::{Config, RaftLogReader, ServerState};
use raftwood::Engine;
use raftwood::openraft_010::{LogReader, LogStore};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

// ---- the nodes --------------------------------------------------------------------------------------------

/// A process: its state machine is in memory and comes back from the log.
struct Node {
    disk: SimVfs,
    engine: Engine,
    machine: Arc<MemStateMachine>,
    reader: LogReader<TypeConfig>,
    raft: Raft,
}

struct Cluster {
    net: Net<Raft>,
    nodes: BTreeMap<u64, Node>,
    incarnations: u32,
}

impl Cluster {
    /// Node 1 leads. It alone stands for election by itself, so that what happens next is up to the test.
    async fn start(ids: &[u64]) -> Cluster {
        let mut cluster = Cluster { net: Net::default(), nodes: BTreeMap::new(), incarnations: 0 };
        for &id in ids {
            cluster.run(id, SimVfs::new(id)).await;
        }
        cluster.raft(1).initialize(ids.iter().copied().collect::<BTreeSet<_>>()).await.unwrap();
        cluster.until_it_leads(1, 0).await;
        cluster
    }

    async fn run(&mut self, id: u64, disk: SimVfs) {
        self.incarnations += 1;
        let config = Config {
            heartbeat_interval: 100,
            election_timeout_min: 500,
            election_timeout_max: 800,
            enable_elect: id == 1,
            ..Config::default()
        };
        let engine = open(&disk);
        let machine = Arc::new(MemStateMachine::new(BlockConfig::default()));
        let lines = Lines { net: self.net.clone(), from: (id, self.incarnations) };
        let mut store = LogStore::<TypeConfig>::new(&engine, R);
        let reader = store.get_log_reader().await;
        let config = Arc::new(config.validate().unwrap());
        let raft = Raft::new(id, config, lines, store, machine.clone()).await.unwrap();
        self.net.join(id, self.incarnations, raft.clone());
        self.nodes.insert(id, Node { disk, engine, machine, reader, raft });
    }

    fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    async fn until(&self, id: u64, what: &str, is_so: impl Fn(&RaftMetrics<TypeConfig>) -> bool + Send) {
        self.raft(id).wait(Some(Duration::from_secs(60))).metrics(is_so, what).await.unwrap();
    }

    /// Until an entry of a leader is applied that was elected after that term. The state would say so too
    /// early: to write the first membership, a node calls itself the leader of term 0 for a moment.
    async fn until_it_leads(&self, id: u64, after: u64) {
        let leads = |m: &RaftMetrics<TypeConfig>| {
            m.state == ServerState::Leader && m.last_applied.is_some_and(|id| id.leader_id.term > after)
        };
        self.until(id, "it leads", leads).await;
    }

    /// Ok if the node says that the write is committed.
    async fn write(&self, id: u64, command: u64) -> Result<(), String> {
        let request = ClientRequest::make_request(command, command);
        let written = soon("a write", self.raft(id).client_write(request)).await;
        written.map(drop).map_err(|e| format!("write of {command} to node {id}: {e}"))
    }

    /// Cuts the node off and says what its disk would hold if its power went now.
    fn cut(&self, id: u64, lost: LossPolicy) -> SimVfs {
        self.net.leave(id);
        self.nodes[&id].disk.crash(lost)
    }

    /// Ends the process that was cut off, and starts another on the disk that it left.
    async fn restart(&mut self, id: u64, disk: SimVfs) {
        let node = self.nodes.remove(&id).unwrap();
        node.raft.shutdown().await.unwrap();
        drop(node);
        self.run(id, disk).await;
    }

    /// The commands that the node's state machine has applied.
    async fn applied(&self, id: u64) -> BTreeSet<u64> {
        let state = self.nodes[&id].machine.get_state_machine().await;
        state.client_status.into_keys().map(|client| client.parse().unwrap()).collect()
    }

    /// What a reader, beside the running group, says about the vote.
    async fn vote(&self, id: u64) -> Vote {
        self.nodes[&id].reader.clone().read_vote().await.unwrap().unwrap()
    }
}

// ---- what a leader may do that was killed -----------------------------------------------------------------

/// openraft 0.10 sends a leader's entries to the others as soon as they can be read here, and a majority
/// commits without the leader. With its default `enable_leader_restore` a leader that was killed and came
/// back before an election led on in the same term: without what it had sent and not synced. It gave the same
/// log ids to other entries, the followers took those for the ones that they had, and 20 of 20 acknowledged
/// writes were on some replicas and not on others.
async fn a_leader_loses_its_tail_and_no_replica_differs(lost: LossPolicy) {
    let mut cluster = Cluster::start(&[1, 2, 3]).await;
    let mut acknowledged = BTreeSet::new();
    for command in 1..=5 {
        cluster.write(1, command).await.unwrap();
        acknowledged.insert(command);
    }
    // The leader's disk hangs. The followers' do not, and make a majority.
    let stalled = Stalled::new(&cluster.nodes[&1].disk);
    for command in 6..=25 {
        cluster.write(1, command).await.unwrap();
        acknowledged.insert(command);
    }
    let before = cluster.nodes[&1].engine.region(R).last_index();
    let disk = cluster.cut(1, lost);
    drop(stalled);
    let term = cluster.vote(1).await.leader_id.term;
    cluster.restart(1, disk).await;
    let after = cluster.nodes[&1].engine.region(R).last_index();
    assert!(after < before, "nothing was lost: {after} of {before}");

    // It may not lead on. It may stand for election, and those who have what it lost do not vote for it.
    let stands = |m: &RaftMetrics<TypeConfig>| m.current_term > term;
    let moment = Some(Duration::from_secs(5));
    if cluster.raft(1).wait(moment).metrics(stands, "it stands for election").await.is_ok() {
        assert!(cluster.write(1, 100).await.is_err(), "elected without what was acknowledged");
    } else {
        cluster.write(1, 100).await.unwrap();
        acknowledged.insert(100);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while cluster.write(2, 102).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "node 2 is not elected");
        cluster.raft(2).trigger().elect(false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    acknowledged.insert(102);

    let end = cluster.nodes[&2].engine.region(R).last_index();
    for id in 1..=3 {
        cluster.until(id, "it has all", |m| m.last_applied.is_some_and(|id| id.index >= end)).await;
        assert_eq!(cluster.applied(id).await, acknowledged, "node {id}");
    }
    // An election clears the doubt: the new leader's vote was saved in this run.
    let vote = cluster.vote(1).await;
    assert!(vote.committed && vote.leader_id.node_id == 2, "{vote}");
}

#[tokio::test]
async fn a_leader_that_a_power_cut_robbed_of_its_tail_does_not_lead_on() {
    a_leader_loses_its_tail_and_no_replica_differs(LossPolicy::LoseAll).await;
}

/// What waits in the process while a sync runs goes with the process.
#[tokio::test]
async fn a_leader_that_was_killed_while_a_sync_ran_does_not_lead_on() {
    a_leader_loses_its_tail_and_no_replica_differs(LossPolicy::KeepAll).await;
}

#[tokio::test]
async fn a_leader_that_was_killed_and_lost_nothing_is_elected_again_and_its_vote_counts() {
    let mut cluster = Cluster::start(&[1]).await;
    for round in 0..3 {
        cluster.write(1, round).await.unwrap();
        let led = cluster.vote(1).await;
        assert!(led.committed);
        let disk = cluster.cut(1, LossPolicy::LoseAll);
        cluster.restart(1, disk).await;
        cluster.until_it_leads(1, led.leader_id.term).await;
        let leads = cluster.vote(1).await;
        assert!(leads.committed && leads.leader_id.term == led.leader_id.term + 1, "{led}, then {leads}");
        assert_eq!(cluster.applied(1).await, (0..=round).collect());
    }
}
