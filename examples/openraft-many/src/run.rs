//! The run: start, write, stop one node and have it back, stop all and have them back, look for every write.

use crate::load::{Answers, Load, WRITERS};
use crate::machine::NodeId;
use crate::node::{AnyError, Node};
use crate::wire::Network;
use raftwood::Stats;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const NODES: [NodeId; 3] = [1, 2, 3];

/// How long anything is waited for that has to come: leaders, replicas that catch up. A write that is not on
/// a node after this is lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Raft groups, each with a replica on every node.
    pub groups: u64,
    /// How long is written.
    pub seconds: f64,
}

/// What a run did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Raft groups.
    pub groups: u64,
    /// Groups that each node led when writing began.
    pub leaders: [u64; 3],
    /// Tasks that wrote.
    pub writers: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// The same, each second, over the whole time of writing: that in which a node was away, too.
    pub writes_per_second: u64,
    /// The same with all nodes, with one of them away, and from its return on.
    pub writes_per_second_by_phase: [u64; 3],
    /// Writes that were refused or not answered. They may be there or not.
    pub unanswered: u64,
    /// Groups that have an acknowledged write.
    pub groups_written: u64,
    /// Times that a node connected to another one: 6 at a start of all nodes, 4 when one comes back.
    pub connections: u64,
    /// What the groups sent over them.
    pub requests: u64,
    /// Entries that the engines of all nodes were given, from the start until all of them stopped.
    pub entries: u64,
    /// Syncs that made them durable.
    pub syncs: u64,
    /// The one by the other.
    pub entries_per_sync: f64,
    /// From empty directories until every group had a leader, in ms.
    pub start_ms: u64,
    /// One node, stopped and started under load.
    pub restart: Restart,
    /// All nodes, from their stop on: until every group had a leader again, in ms.
    pub restart_all_ms: u64,
    /// Acknowledged writes that a node does not have in the end, over all nodes.
    pub lost: u64,
    /// Groups whose replicas differ in the end.
    pub differ: u64,
}

/// How a node came back to its groups.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Restart {
    /// Opening the engine, in ms.
    pub open_ms: f64,
    /// From then until openraft ran all groups, with what they knew to be committed applied again, in ms.
    pub groups_ms: u64,
    /// From then until it had applied what the others had when it came back, in ms.
    pub caught_up_ms: u64,
}

/// Runs it in a directory that is removed afterwards. `say` is given what happens, line by line.
///
/// # Errors
///
/// It could not run: no directory, a node that does not start, groups without a leader.
pub fn run(size: Size, say: impl Fn(&str)) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    if size.groups == 0 {
        return Err("a run has at least one group".into());
    }
    let third = Duration::try_from_secs_f64(size.seconds / 3.0)?;
    let root = tempfile::Builder::new().prefix("raftwood-openraft-many-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all(size.groups, third, root.path(), &say))
}

async fn all(groups: u64, third: Duration, root: &Path, say: &dyn Fn(&str)) -> Result<Report, AnyError> {
    let network = Network::default();
    let begun = Instant::now();
    let mut nodes = start(groups, root, &network).await?;
    initialize(&nodes, groups).await?;
    let leaders = led(&nodes, groups).await?;
    let start_ms = ms(begun.elapsed());
    say(&format!("{groups} groups on 3 nodes have leaders after {start_ms} ms: {leaders:?} on each node"));

    let begun = Instant::now();
    let load = Load::begin(&network, NODES.len() as u64, groups);
    sleep(third).await;
    let mut phases = Phases::new(begun);
    phases.end(&load);
    let at = Instant::now();
    let mut counted = Counted::default();
    let node = nodes.remove(0);
    counted.add(&node.stop(&network).await?);
    say(&format!("node 1 stopped in {} ms; the others go on", ms(at.elapsed())));
    sleep(third).await;
    phases.end(&load);
    let node = Node::start(1, &directory(root, 1), groups, &network).await?;
    let times = node.times;
    nodes.insert(0, node);
    let restart = Restart {
        open_ms: times.opened.as_secs_f64() * 1e3,
        groups_ms: ms(times.started),
        caught_up_ms: ms(catch_up(&nodes).await?),
    };
    say(&format!(
        "node 1 is back: its engine opened in {:.1} ms, its groups started in {} ms, and caught up in {} ms",
        restart.open_ms, restart.groups_ms, restart.caught_up_ms
    ));
    sleep(third).await;
    phases.end(&load);
    // On a machine that has other things to do, a short run has not been to all groups yet.
    let patience = Instant::now() + PATIENCE;
    while !load.has_reached_all() && Instant::now() < patience {
        sleep(Duration::from_millis(20)).await;
    }
    let answers = load.end().await?;
    let seconds = begun.elapsed().as_secs_f64();

    // What the nodes have in memory proves little: all of them start again from their directories.
    let begun = Instant::now();
    for node in nodes {
        counted.add(&node.stop(&network).await?);
    }
    let nodes = start(groups, root, &network).await?;
    led(&nodes, groups).await?;
    let restart_all_ms = ms(begun.elapsed());
    say(&format!("all nodes stopped and are back, with leaders, after {restart_all_ms} ms"));
    let lost = lost(&nodes, &answers).await;
    let differ = differ(&nodes, groups).await;
    for node in nodes {
        node.stop(&network).await?;
    }

    let writes: u64 = answers.acknowledged.values().map(|puts| puts.len() as u64).sum();
    if writes == 0 {
        return Err("nothing was written: that shows nothing".into());
    }
    Ok(Report {
        groups,
        leaders,
        writers: WRITERS,
        writes,
        writes_per_second: (writes as f64 / seconds) as u64,
        writes_per_second_by_phase: phases.rates,
        unanswered: answers.unanswered,
        groups_written: answers.acknowledged.len() as u64,
        connections: network.connected(),
        requests: network.requests(),
        entries: counted.entries,
        syncs: counted.syncs,
        entries_per_sync: counted.entries as f64 / counted.syncs.max(1) as f64,
        start_ms,
        restart,
        restart_all_ms,
        lost,
        differ,
    })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn directory(root: &Path, id: NodeId) -> PathBuf {
    root.join(format!("node-{id}"))
}

async fn start(groups: u64, root: &Path, network: &Network) -> Result<Vec<Node>, AnyError> {
    let mut nodes = Vec::new();
    for id in NODES {
        nodes.push(Node::start(id, &directory(root, id), groups, network).await?);
    }
    Ok(nodes)
}

/// The node that begins is the first leader, so the groups are spread over the nodes.
async fn initialize(nodes: &[Node], groups: u64) -> Result<(), AnyError> {
    let mut beginning = JoinSet::new();
    for group in 1..=groups {
        let raft = nodes[((group - 1) % 3) as usize].groups[&group].clone();
        beginning.spawn(async move { raft.initialize(std::collections::BTreeSet::from(NODES)).await });
    }
    while let Some(begun) = beginning.join_next().await {
        begun??;
    }
    Ok(())
}

/// Waits until every group has a leader that all its replicas know. How many each node leads.
async fn led(nodes: &[Node], groups: u64) -> Result<[u64; 3], AnyError> {
    let mut leaders = [0; 3];
    for group in 1..=groups {
        for (n, node) in nodes.iter().enumerate() {
            let wait = node.groups[&group].wait(Some(PATIENCE));
            let metrics = wait.metrics(|m| m.current_leader.is_some(), "a leader").await;
            let metrics = metrics.map_err(|e| format!("group {group} on node {}: {e}", node.id))?;
            leaders[n] += u64::from(metrics.current_leader == Some(node.id));
        }
    }
    Ok(leaders)
}

/// Waits until the first node has applied what the others have now.
async fn catch_up(nodes: &[Node]) -> Result<Duration, AnyError> {
    let begun = Instant::now();
    let applied = |node: &Node, group| {
        let metrics = node.groups[group].metrics();
        openraft::async_runtime::WatchReceiver::borrow_watched(&metrics).last_applied.map(|id| id.index)
    };
    let targets = nodes[0].groups.keys().map(|group| {
        let target = nodes[1..].iter().map(|node| applied(node, group)).max();
        (*group, target.flatten())
    });
    for (group, target) in targets.collect::<Vec<_>>() {
        let wait = nodes[0].groups[&group].wait(Some(PATIENCE));
        let caught_up = wait.applied_index_at_least(target, "it catches up").await;
        caught_up.map_err(|e| format!("group {group} on node 1: {e}"))?;
    }
    Ok(begun.elapsed())
}

/// Acknowledged writes that a node does not have, over all nodes. Before a leader has committed an entry of
/// its own, nobody knows what else is committed: each is waited for.
async fn lost(nodes: &[Node], answers: &Answers) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut lost = 0;
    for (group, puts) in &answers.acknowledged {
        for node in nodes {
            let machine = &node.machines[group];
            lost += loop {
                match machine.missing(puts) {
                    0 => break 0,
                    missing if Instant::now() > deadline => break missing,
                    _ => sleep(Duration::from_millis(20)).await,
                }
            };
        }
    }
    lost
}

/// Groups whose replicas differ. What was not acknowledged may be on its way still, and is waited for.
async fn differ(nodes: &[Node], groups: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut differ = 0;
    for group in 1..=groups {
        differ += loop {
            let first = nodes[0].machines[&group].map();
            let same = nodes[1..].iter().all(|node| node.machines[&group].map() == first);
            if same || Instant::now() > deadline {
                break u64::from(!same);
            }
            sleep(Duration::from_millis(20)).await;
        };
    }
    differ
}

/// What engines counted, of runs that have ended.
#[derive(Default)]
struct Counted {
    entries: u64,
    syncs: u64,
}

impl Counted {
    fn add(&mut self, stats: &Stats) {
        self.entries += stats.entries;
        self.syncs += stats.syncs;
    }
}

/// How much was written in each phase of the run.
struct Phases {
    begun: Instant,
    before: u64,
    next: usize,
    rates: [u64; 3],
}

impl Phases {
    fn new(begun: Instant) -> Phases {
        Phases { begun, before: 0, next: 0, rates: [0; 3] }
    }

    fn end(&mut self, load: &Load) {
        let (now, acknowledged) = (Instant::now(), load.acknowledged());
        let seconds = (now - self.begun).as_secs_f64();
        if let Some(rate) = self.rates.get_mut(self.next) {
            *rate = ((acknowledged - self.before) as f64 / seconds) as u64;
        }
        (self.begun, self.before, self.next) = (now, acknowledged, self.next + 1);
    }
}
