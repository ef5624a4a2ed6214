//! A node: one engine, and in it a region for each group.

use crate::machine::{GroupId, Machine, NodeId, Raft, Types};
use crate::wire::{Groups, Network, Router, Wire};
use openraft::{Config, SnapshotPolicy};
use raftwood::openraft_010::LogStore;
use raftwood::{Engine, RegionId, Stats};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What goes wrong ends the run.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Groups that are started or shut down at the same time.
const AT_ONCE: usize = 64;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    engine: Engine,
    pub(crate) groups: Arc<Groups>,
    pub(crate) machines: HashMap<GroupId, Machine>,
    pub(crate) times: StartTimes,
}

/// How long a start took.
#[derive(Clone, Copy)]
pub(crate) struct StartTimes {
    /// `Engine::open`, for all groups.
    pub(crate) opened: Duration,
    /// From then until openraft ran all of them, with the committed part of their logs applied again.
    pub(crate) started: Duration,
}

/// A thousand groups beat two thousand times an interval, at some 0.1 ms of processor time each: it is longer
/// than openraft's default of 50 ms.
fn config() -> Result<Arc<Config>, AnyError> {
    let config = Config {
        heartbeat_interval: 1000,
        election_timeout_min: 3000,
        election_timeout_max: 6000,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}

impl Node {
    /// Starts all groups from what is in `dir`, which may be empty, and then listens.
    pub(crate) async fn start(
        id: NodeId,
        dir: &Path,
        groups: u64,
        network: &Network,
    ) -> Result<Node, AnyError> {
        let begun = Instant::now();
        let engine = Engine::open_async(dir).await?;
        let opened = begun.elapsed();
        let config = config()?;
        let router = Router::new(network);
        let (mut rafts, mut machines) = (Groups::new(), HashMap::new());
        let mut starting = JoinSet::new();
        let mut next = 1..=groups;
        loop {
            while let Some(group) = if starting.len() < AT_ONCE { next.next() } else { None } {
                let machine = Machine::default();
                machines.insert(group, machine.clone());
                // This line is the log.
                let store = LogStore::new(&engine, RegionId(group));
                let (config, wire) = (config.clone(), Wire::new(&router, group));
                starting.spawn(async move {
                    let raft = openraft::Raft::<Types, _>::new(id, config, wire, store, machine).await;
                    (group, raft)
                });
            }
            let Some(started) = starting.join_next().await else { break };
            let (group, raft): (GroupId, Result<Raft, _>) = started?;
            rafts.insert(group, raft.map_err(|e| format!("group {group} of node {id} does not start: {e}"))?);
        }
        let groups = Arc::new(rafts);
        network.listen(id, &groups);
        let times = StartTimes { opened, started: begun.elapsed() - opened };
        Ok(Node { id, engine, groups, machines, times })
    }

    /// Shuts its groups down, then closes the engine. Tasks of openraft's that are about to end may hold it a
    /// moment longer; it is closed all the same, and can be opened again. What it counted until then.
    pub(crate) async fn stop(self, network: &Network) -> Result<Stats, AnyError> {
        network.leave(self.id);
        let mut ending = JoinSet::new();
        for raft in self.groups.values() {
            if ending.len() >= AT_ONCE
                && let Some(ended) = ending.join_next().await
            {
                ended??;
            }
            let raft = raft.clone();
            ending.spawn(async move { raft.shutdown().await });
        }
        while let Some(ended) = ending.join_next().await {
            ended??;
        }
        let stats = self.engine.stats();
        self.engine.close_async().await?;
        Ok(stats)
    }
}
