//! A replicated key-value store on openraft 0.9: three nodes in one process, many Raft groups, one
//! engine a node.
//!
//! Writers set keys in all groups while one node is stopped and started again from its directory; then all
//! three are. Every write that was acknowledged must be on every node afterwards, and what its writer reads
//! meanwhile must not be older.
//!
//! `cargo run --release --example openraft_kv -- --seconds 6 --groups 8`

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, OptionalSend, Raft, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, SnapshotPolicy, StorageError, StorageIOError, StoredMembership,
};
use raftwood::openraft_09::LogStore;
use raftwood::{Engine, RegionId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type NodeId = u64;
type GroupId = u64;

const NODES: [NodeId; 3] = [1, 2, 3];
const WRITERS_PER_GROUP: u64 = 4;

// ---- the types of the application -------------------------------------------------------------------------

/// The one command that there is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Set {
    key: String,
    value: String,
}

openraft::declare_raft_types!(
    /// What openraft is to carry.
    Types:
        D = Set,
        R = (),
);

// ---- the state machine: a map in memory, and its last snapshot in a file ----------------------------------

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    applied: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, BasicNode>,
    map: BTreeMap<String, String>,
}

/// The state machine of one group. After a restart it stands where its snapshot stands, and openraft applies
/// the log from there: as far as the log knows to be committed at once, the rest when a leader says so.
#[derive(Clone)]
struct Machine {
    file: PathBuf,
    state: Arc<Mutex<State>>,
    snapshot: Arc<Mutex<Option<Kept>>>,
}

/// A snapshot, as it is in the file.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    meta: SnapshotMeta<NodeId, BasicNode>,
    state: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    fn open(file: PathBuf) -> Result<Machine, AnyError> {
        let kept: Option<Kept> = match fs::read(&file) {
            Ok(bytes) => Some(postcard::from_bytes(&bytes)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        let state = match &kept {
            Some(kept) => postcard::from_bytes(&kept.state)?,
            None => State::default(),
        };
        Ok(Machine { file, state: Arc::new(Mutex::new(state)), snapshot: Arc::new(Mutex::new(kept)) })
    }

    /// Makes a snapshot durable before anybody relies on it: the log up to it is purged next.
    async fn keep(&self, kept: Kept) -> Result<(), AnyError> {
        let file = self.file.clone();
        let bytes = postcard::to_stdvec(&kept)?;
        tokio::task::spawn_blocking(move || replace(&file, &bytes)).await??;
        *lock(&self.snapshot) = Some(kept);
        Ok(())
    }
}

/// Replaces a file so that a crash leaves the old one or the new one.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut f = File::create(&new)?;
    f.write_all(bytes)?;
    f.sync_all()?;
    fs::rename(&new, file)?;
    match file.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn snapshot_error(error: AnyError) -> StorageError<NodeId> {
    let cause = openraft::AnyError::error(error);
    StorageIOError::write_snapshot(None, cause).into()
}

fn hand_out(kept: Kept) -> Snapshot<Types> {
    Snapshot { meta: kept.meta, snapshot: Box::new(Cursor::new(kept.state)) }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<NodeId>> {
        let state = lock(&self.state).clone();
        let bytes = postcard::to_stdvec(&state).map_err(|e| snapshot_error(e.into()))?;
        let meta = SnapshotMeta {
            last_log_id: state.applied,
            last_membership: state.membership,
            snapshot_id: state.applied.map_or("empty".to_string(), |id| id.to_string()),
        };
        let kept = Kept { meta, state: bytes };
        self.keep(kept.clone()).await.map_err(snapshot_error)?;
        Ok(hand_out(kept))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, BasicNode>), StorageError<NodeId>> {
        let state = lock(&self.state);
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = lock(&self.state);
        let mut replies = Vec::new();
        for entry in entries {
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Set { key, value }) => {
                    state.map.insert(key, value);
                }
                EntryPayload::Membership(m) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), m);
                }
            }
            state.applied = Some(entry.log_id);
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<NodeId>> {
        let kept = Kept { meta: meta.clone(), state: snapshot.into_inner() };
        let state: State = postcard::from_bytes(&kept.state).map_err(|e| snapshot_error(e.into()))?;
        self.keep(kept).await.map_err(snapshot_error)?;
        *lock(&self.state) = state;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<NodeId>> {
        Ok(lock(&self.snapshot).clone().map(hand_out))
    }
}

// ---- the network: each group of each node that runs, by name ----------------------------------------------

/// A `Raft` is the sending end of its node's channel, so the wire is a table of them.
#[derive(Clone, Default)]
struct Switch(Arc<Mutex<Running>>);

type Running = BTreeMap<(NodeId, GroupId), (Raft<Types>, Machine)>;

impl Switch {
    fn get(&self, node: NodeId, group: GroupId) -> Option<Raft<Types>> {
        lock(&self.0).get(&(node, group)).map(|(raft, _)| raft.clone())
    }

    /// What a key is set to. `None` if the node cannot say so: it does not run, or it does not lead.
    async fn read(&self, node: NodeId, group: GroupId, key: &str) -> Option<Option<String>> {
        let (raft, machine) = lock(&self.0).get(&(node, group)).cloned()?;
        let leads = tokio::time::timeout(Duration::from_secs(2), raft.ensure_linearizable()).await;
        leads.ok()?.ok()?;
        Some(lock(&machine.state).map.get(key).cloned())
    }
}

/// What one group of one node sends through.
struct Wire {
    switch: Switch,
    group: GroupId,
}

/// The way to one other node.
struct Line {
    switch: Switch,
    group: GroupId,
    target: NodeId,
}

impl RaftNetworkFactory<Types> for Wire {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _node: &BasicNode) -> Line {
        Line { switch: self.switch.clone(), group: self.group, target }
    }
}

type Failed<E> = RPCError<NodeId, BasicNode, E>;

impl Line {
    #[allow(clippy::result_large_err, reason = "openraft's own type")]
    fn peer<E: std::error::Error>(&self) -> Result<Raft<Types>, Failed<E>> {
        self.switch.get(self.target, self.group).ok_or_else(|| {
            let down = std::io::Error::other(format!("node {} is down", self.target));
            RPCError::Unreachable(Unreachable::new(&down))
        })
    }

    fn remote<E: std::error::Error>(&self, error: E) -> Failed<E> {
        RPCError::RemoteError(RemoteError::new(self.target, error))
    }
}

impl RaftNetwork<Types> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failed<RaftError<NodeId>>> {
        self.peer()?.append_entries(rpc).await.map_err(|e| self.remote(e))
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failed<RaftError<NodeId, InstallSnapshotError>>> {
        self.peer()?.install_snapshot(rpc).await.map_err(|e| self.remote(e))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failed<RaftError<NodeId>>> {
        self.peer()?.vote(rpc).await.map_err(|e| self.remote(e))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(50)))
    }
}

// ---- a node: one engine, and in it a region for each group ------------------------------------------------

struct Node {
    id: NodeId,
    engine: Engine,
    groups: BTreeMap<GroupId, (Raft<Types>, Machine)>,
}

impl Node {
    async fn start(id: NodeId, dir: &Path, groups: u64, switch: &Switch) -> Result<Node, AnyError> {
        let engine = Engine::open(dir.join("log"))?;
        let config = Config {
            election_timeout_min: 400,
            election_timeout_max: 800,
            heartbeat_interval: 100,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(2000),
            max_in_snapshot_log_to_keep: 200,
            ..Config::default()
        };
        let config = Arc::new(config.validate()?);
        let mut node = Node { id, engine, groups: BTreeMap::new() };
        for group in 1..=groups {
            // This line is the log.
            let store = LogStore::new(&node.engine, RegionId(group));
            let machine = Machine::open(dir.join(format!("group-{group}.snapshot")))?;
            let wire = Wire { switch: switch.clone(), group };
            let raft = Raft::new(id, config.clone(), wire, store, machine.clone()).await?;
            lock(&switch.0).insert((id, group), (raft.clone(), machine.clone()));
            node.groups.insert(group, (raft, machine));
        }
        Ok(node)
    }

    /// Shuts its groups down, then closes the engine: tasks of openraft's that are about to end may hold it
    /// for a moment longer, and until it is closed or the last of them is gone, it cannot be opened again.
    async fn stop(self, switch: &Switch) -> Result<(), AnyError> {
        lock(&switch.0).retain(|(node, _), _| *node != self.id);
        for (raft, _) in self.groups.values() {
            raft.shutdown().await?;
        }
        // It waits for the disk.
        tokio::task::spawn_blocking(move || self.engine.close()).await??;
        Ok(())
    }
}

// ---- the load ---------------------------------------------------------------------------------------------

/// What a writer was answered.
#[derive(Default)]
struct Told {
    acknowledged: Vec<Set>,
    reads: u64,
    stale: u64,
}

/// One write in so many is read back.
const READ_BACK: u64 = 8;

/// Sets one key after the other until told to stop.
async fn write_keys(switch: Switch, group: GroupId, writer: u64, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut node = NODES[0];
    for n in 0u64.. {
        let set = Set { key: format!("writer {writer}, key {n}"), value: format!("value {n}") };
        // A write that was not acknowledged may have been done all the same; to set the key once more
        // does no harm.
        loop {
            if stop.load(Ordering::Relaxed) {
                return told;
            }
            let next = node % NODES.len() as u64 + 1;
            let Some(raft) = switch.get(node, group) else {
                node = next;
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let outcome = tokio::time::timeout(Duration::from_secs(2), raft.client_write(set.clone())).await;
            match outcome {
                Ok(Ok(_)) => break,
                Ok(Err(e)) => {
                    node = e.forward_to_leader().and_then(|f| f.leader_id).unwrap_or(next);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(_) => node = next,
            }
        }
        if n % READ_BACK == 0
            && let Some(read) = switch.read(node, group, &set.key).await
        {
            told.reads += 1;
            told.stale += u64::from(read.as_ref() != Some(&set.value));
        }
        told.acknowledged.push(set);
    }
    told
}

// ---- the run ----------------------------------------------------------------------------------------------

struct Args {
    seconds: u64,
    groups: u64,
}

fn args() -> Result<Args, AnyError> {
    let mut args = Args { seconds: 6, groups: 8 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let number = given.next().ok_or_else(|| format!("{name} wants a number"))?.parse()?;
        match name.as_str() {
            "--seconds" => args.seconds = number,
            "--groups" => args.groups = number,
            _ => return Err(format!("{name}: there are --seconds and --groups").into()),
        }
    }
    Ok(args)
}

/// Waits until every node has applied what any had applied when this was called.
async fn converge(nodes: &[Node], group: GroupId) -> Result<(), AnyError> {
    let applied = nodes.iter().map(|n| n.groups[&group].0.metrics().borrow().last_applied);
    let target = applied.max().flatten().map(|id| id.index);
    for node in nodes {
        let raft = &node.groups[&group].0;
        raft.wait(Some(Duration::from_secs(30))).applied_index_at_least(target, "convergence").await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let Args { seconds, groups } = args()?;
    let root = tempfile::tempdir()?;
    let dir = |node: NodeId| root.path().join(format!("node-{node}"));
    let switch = Switch::default();
    let mut nodes = Vec::new();
    for id in NODES {
        fs::create_dir(dir(id))?;
        nodes.push(Node::start(id, &dir(id), groups, &switch).await?);
    }
    let members: BTreeMap<NodeId, BasicNode> = NODES.iter().map(|&id| (id, BasicNode::default())).collect();
    for group in 1..=groups {
        // The node that begins is the first leader, so the groups are spread over the nodes.
        nodes[(group % 3) as usize].groups[&group].0.initialize(members.clone()).await?;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for group in 1..=groups {
        for writer in 1..=WRITERS_PER_GROUP {
            let keys = write_keys(switch.clone(), group, writer, stop.clone());
            writers.push((group, tokio::spawn(keys)));
        }
    }
    let third = Duration::from_secs(seconds) / 3;
    tokio::time::sleep(third).await;
    nodes.remove(0).stop(&switch).await?;
    println!("node 1 is stopped; the others go on");
    tokio::time::sleep(third).await;
    let node = Node::start(1, &dir(1), groups, &switch).await?;
    println!("node 1 is back: its log opened in {:.1?}", node.engine.open_report().times.total);
    nodes.insert(0, node);
    tokio::time::sleep(third).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged: BTreeMap<GroupId, Vec<Set>> = BTreeMap::new();
    let (mut reads, mut stale) = (0, 0);
    for (group, writer) in writers {
        let told = writer.await?;
        acknowledged.entry(group).or_default().extend(told.acknowledged);
        reads += told.reads;
        stale += told.stale;
    }

    // What the nodes have in memory proves little: all of them start again from their directories.
    let syncs: u64 = nodes.iter().map(|n| n.engine.stats().syncs).sum();
    for node in nodes {
        node.stop(&switch).await?;
    }
    println!("all nodes are stopped");
    let mut nodes = Vec::new();
    for id in NODES {
        nodes.push(Node::start(id, &dir(id), groups, &switch).await?);
    }
    println!("all nodes are back\n");
    println!("group  acknowledged  node 1  node 2  node 3  in the log of node 1   lost");
    let (mut total, mut lost, mut purged) = (0, 0, 0);
    for (&group, sets) in &acknowledged {
        // Before a leader has committed an entry of its own, nobody knows what else is committed.
        let leader = nodes[0].groups[&group].0.wait(Some(Duration::from_secs(30)));
        let leader = leader.metrics(|m| m.current_leader.is_some(), "a leader").await?.current_leader;
        let leader = leader.and_then(|id| switch.get(id, group)).ok_or("the leader went away")?;
        leader.ensure_linearizable().await?;
        converge(&nodes, group).await?;
        let present = |node: &Node| {
            let state = lock(&node.groups[&group].1.state);
            sets.iter().filter(|set| state.map.get(&set.key) == Some(&set.value)).count()
        };
        let here: Vec<usize> = nodes.iter().map(present).collect();
        let missing: usize = here.iter().map(|here| sets.len() - here).sum();
        let log = nodes[0].engine.region(RegionId(group)).state();
        println!(
            "{group:5}  {:12}  {:6}  {:6}  {:6}  {:>20}  {missing:5}",
            sets.len(),
            here[0],
            here[1],
            here[2],
            format!("{}..={}", log.first, log.last),
        );
        purged += log.first.saturating_sub(1);
        total += sets.len();
        lost += missing;
    }
    for node in nodes {
        node.stop(&switch).await?;
    }
    println!(
        "\n{total} writes acknowledged in {seconds} s with {syncs} syncs on {} nodes, {reads} read back, \
         {purged} entries purged from the logs of node 1\n{lost} lost, {stale} stale",
        NODES.len()
    );
    match () {
        () if lost + stale as usize > 0 => Err("acknowledged writes are lost, or reads were stale".into()),
        () if total == 0 || reads == 0 => {
            Err("nothing was written, or nothing read: that shows nothing".into())
        }
        () => Ok(()),
    }
}
