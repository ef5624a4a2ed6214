//! Nodes on simulated disks in one process, for any release: they are cut off, killed, robbed of what was not
//! synced, hung and replaced.
//!
//! The engines have their threads, and openraft's timers go by a clock that the test advances: five
//! milliseconds at a time, each once the engines have done what they were given, but for those whose disk
//! hangs. So an election takes a fraction of a millisecond, and no machine is too slow for a timeout.

use super::net::Net;
use super::release::{Release, Seen, Start};
use crate::support::engines::DIR;
use crate::support::openraft::{R, options};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Engine, EventListener, ReadLimit};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

static MARKS: AtomicU64 = AtomicU64::new(0);

/// How many looks of 50 µs an engine is given to come to rest: two seconds, for a loaded machine.
const PATIENCE: u32 = 40_000;

const STEP: Duration = Duration::from_millis(5);

/// Longer than any election takes, on the clock that the test advances.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Node<N: Release> {
    pub(crate) disk: SimVfs,
    pub(crate) engine: Engine,
    pub(crate) raft: N::Raft,
    pub(crate) incarnation: u32,
    machine: N::Machine,
    hangs: bool,
}

pub(crate) struct Cluster<N: Release> {
    pub(crate) net: Net<N::Raft>,
    pub(crate) nodes: BTreeMap<u64, Node<N>>,
    pub(crate) retry_for: Duration,
    incarnations: u32,
    engines: Arc<Mutex<BTreeMap<u64, Engine>>>,
}

impl<N: Release> Cluster<N> {
    pub(crate) fn new() -> Cluster<N> {
        let engines = Arc::<Mutex<BTreeMap<u64, Engine>>>::default();
        tokio::spawn(advance(engines.clone()));
        Cluster {
            net: Net::default(),
            nodes: BTreeMap::new(),
            retry_for: Duration::ZERO,
            incarnations: 0,
            engines,
        }
    }

    /// Three nodes, one of which leads.
    pub(crate) async fn start(seed: u64) -> Cluster<N> {
        let mut cluster = Cluster::new();
        for id in 1..=3 {
            cluster.run(id, SimVfs::new(seed << 8 | id), None).await;
        }
        N::initialize(&cluster.nodes[&1].raft, (1..=3).collect()).await;
        cluster.leader().await;
        cluster
    }

    pub(crate) async fn run(&mut self, id: u64, disk: SimVfs, listener: Option<Arc<dyn EventListener>>) {
        let options = options(&disk);
        let options = match listener {
            Some(listener) => options.listener(listener),
            None => options,
        };
        let engine = options.open(DIR).unwrap();
        self.run_on(id, disk, engine).await;
    }

    /// On an engine that runs already.
    pub(crate) async fn run_on(&mut self, id: u64, disk: SimVfs, engine: Engine) {
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let machine = N::Machine::default();
        self.engines.lock().unwrap().insert(id, engine.clone());
        let start = Start {
            id,
            incarnation,
            engine: &engine,
            net: &self.net,
            machine: &machine,
            retry_for: self.retry_for,
        };
        let raft = N::start(start).await;
        self.net.join(id, incarnation, raft.clone());
        self.nodes.insert(id, Node { disk, engine, raft, incarnation, machine, hangs: false });
    }

    pub(crate) fn seen(&self, id: u64) -> Seen {
        N::seen(&self.nodes[&id].raft)
    }

    /// The newest leader, if there is one. By openraft's default a term may have several, one after the
    /// other: a vote for a higher id supersedes one for a lower.
    pub(crate) fn leads(&self) -> Option<u64> {
        let mut newest = None;
        for (&id, node) in &self.nodes {
            let Seen { term, leads, ended, .. } = N::seen(&node.raft);
            // To write the first membership, a node calls itself the leader of term 0 for a moment.
            if !leads || ended || term == 0 {
                continue;
            }
            newest = newest.max(Some((term, id)));
        }
        newest.map(|(_, id)| id)
    }

    /// Waits for a leader that can write, in any term.
    pub(crate) async fn leader(&mut self) -> u64 {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            if let Some(id) = self.leads() {
                return id;
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(STEP).await;
        }
    }

    /// Ok if the node says in time that the write is committed, and still runs then.
    pub(crate) async fn write(&self, id: u64, command: u64) -> Result<(), String> {
        let node = &self.nodes[&id];
        write::<N>(&self.net, (id, node.incarnation), &node.raft, command).await
    }

    /// Writes to the leader, if it is `not` this one, until one is acknowledged. Returns who did, and which.
    pub(crate) async fn write_elsewhere(&mut self, not: u64, first: u64) -> (u64, u64) {
        let deadline = tokio::time::Instant::now() + LONG;
        for command in first.. {
            let leader = self.leader().await;
            if leader != not && self.write(leader, command).await.is_ok() {
                return (leader, command);
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody takes writes: {:?}", self.all_seen());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!()
    }

    /// As [`write_elsewhere`](Cluster::write_elsewhere), to any node.
    pub(crate) async fn write_somewhere(&mut self, first: u64) -> (u64, u64) {
        self.write_elsewhere(0, first).await
    }

    pub(crate) fn hang(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk.block_syncs();
        node.hangs = true;
        self.engines.lock().unwrap().remove(&id);
    }

    pub(crate) fn unhang(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk.release_syncs();
        node.hangs = false;
        self.engines.lock().unwrap().insert(id, node.engine.clone());
    }

    pub(crate) fn hangs(&self, id: u64) -> bool {
        self.nodes[&id].hangs
    }

    /// Ends the process, and says what its disk holds then.
    pub(crate) async fn end(&mut self, id: u64, lost: LossPolicy) -> SimVfs {
        self.net.leave(id);
        let node = self.nodes.remove(&id).unwrap();
        self.engines.lock().unwrap().remove(&id);
        let left = node.disk.crash(lost);
        node.disk.release_syncs();
        N::shutdown(&node.raft).await;
        left
    }

    /// Shuts the group down and closes its store.
    pub(crate) async fn close(&mut self, id: u64) -> SimVfs {
        self.net.leave(id);
        let node = self.nodes.remove(&id).unwrap();
        N::shutdown(&node.raft).await;
        self.engines.lock().unwrap().remove(&id);
        node.engine.close().unwrap();
        node.disk
    }

    /// Waits until all nodes that run have applied what is committed, and compares them.
    pub(crate) async fn settles_with(&mut self, acknowledged: &BTreeSet<u64>) {
        let deadline = tokio::time::Instant::now() + LONG;
        let last = loop {
            let leader = self.leader().await;
            // No two of these are the same, in whatever test: a command is given once.
            let mark = u64::MAX - MARKS.fetch_add(1, Ordering::Relaxed);
            if self.write(leader, mark).await.is_ok() {
                break self.seen(leader).applied;
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing is committed: {:?}", self.all_seen());
        };
        while self.nodes.values().any(|node| N::seen(&node.raft).applied < last) {
            assert!(tokio::time::Instant::now() < deadline, "not applied: {:?}", self.all_seen());
            tokio::time::sleep(STEP).await;
        }
        let mut first: Option<Vec<_>> = None;
        for (id, node) in &self.nodes {
            let applied = N::applied(&node.machine).await;
            let lost: Vec<_> = acknowledged.difference(&applied).collect();
            assert!(lost.is_empty(), "node {id} lost what was acknowledged: {lost:?}");
            let region = node.engine.region(R);
            let log = region.entries(region.first_index()..last + 1, ReadLimit::NONE).unwrap();
            let log = log.into_iter().map(|e| (e.id, e.payload.to_vec())).collect();
            match &first {
                None => first = Some(log),
                Some(other) => assert!(*other == log, "the log of node {id} is another"),
            }
        }
    }

    fn all_seen(&self) -> BTreeMap<u64, Seen> {
        self.nodes.iter().map(|(&id, node)| (id, N::seen(&node.raft))).collect()
    }
}

impl<N: Release> Drop for Cluster<N> {
    /// No engine ends before its syncs do, also where the test fails.
    fn drop(&mut self) {
        self.nodes.values().for_each(|node| node.disk.release_syncs());
    }
}

/// As [`Cluster::write`], beside the cluster.
pub(crate) async fn write<N: Release>(
    net: &Net<N::Raft>,
    of: (u64, u32),
    raft: &N::Raft,
    command: u64,
) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_millis(500), N::write(raft, command)).await {
        Ok(Ok(())) if net.runs(of) => Ok(()),
        Ok(Ok(())) => Err("its process ended".to_string()),
        Ok(Err(e)) => Err(e),
        Err(_) => Err("no answer in time".to_string()),
    }
}

/// Advances the clock while there are tasks: never before the engines and the tasks have come to rest.
async fn advance(engines: Arc<Mutex<BTreeMap<u64, Engine>>>) {
    loop {
        for _ in 0..PATIENCE {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            let busy = engines.lock().unwrap().values().any(|engine| engine.stats().in_flight_bytes > 0);
            if !busy {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(STEP).await;
    }
}

/// Runs the test on a clock of its own.
pub(crate) fn paused<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}
