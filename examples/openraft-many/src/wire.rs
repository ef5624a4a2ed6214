//! The network: one connection from each node to each other one, which all groups share.
//!
//! ```text
//!  group 1 ─┐ GroupNetworkAdapter                     ┌─▶ group 1
//!  group 2 ─┼─▶ Router of node 1 ══ connection ══▶ serve ─▶ group 2      node 2
//!  group n ─┘   (openraft-multi)                      └─▶ group n
//! ```
//!
//! A connection is a channel here, and would be a socket between machines: what crosses it names its group,
//! and answers may overtake each other. Each request is served by a task of its own, so that a group that
//! waits for its disk holds up no other.

use crate::machine::{GroupId, NodeId, Raft, Types};
use openraft::OptionalSend;
use openraft::RaftNetworkFactory;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft_multi::{GroupNetworkAdapter, GroupNetworkFactory, GroupRouter};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{mpsc, oneshot};

/// The groups of a node that runs.
pub(crate) type Groups = HashMap<GroupId, Raft>;

/// Requests of a connection that are on their way; then senders wait.
const IN_FLIGHT: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which nodes can be connected to.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Shared>);

#[derive(Default)]
struct Shared {
    listening: Mutex<BTreeMap<NodeId, Arc<Groups>>>,
    connected: AtomicU64,
    requests: AtomicU64,
}

impl Network {
    /// From now on the node can be connected to.
    pub(crate) fn listen(&self, node: NodeId, groups: &Arc<Groups>) {
        lock(&self.0.listening).insert(node, groups.clone());
    }

    /// The connections to it end when its groups are dropped.
    pub(crate) fn leave(&self, node: NodeId) {
        lock(&self.0.listening).remove(&node);
    }

    /// A group of a node that runs, as clients reach it.
    pub(crate) fn group(&self, node: NodeId, group: GroupId) -> Option<Raft> {
        lock(&self.0.listening).get(&node)?.get(&group).cloned()
    }

    /// How often a node has connected to another one.
    pub(crate) fn connected(&self) -> u64 {
        self.0.connected.load(Ordering::Relaxed)
    }

    /// What the groups have sent over all connections.
    pub(crate) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    fn connect(&self, to: NodeId) -> Option<mpsc::Sender<Frame>> {
        let groups = lock(&self.0.listening).get(&to).map(Arc::downgrade)?;
        self.0.connected.fetch_add(1, Ordering::Relaxed);
        let (connection, requests) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(serve(requests, groups));
        Some(connection)
    }
}

struct Frame {
    group: GroupId,
    request: Request,
}

enum Request {
    Append(AppendEntriesRequest<Types>, Reply<AppendEntriesResponse<Types>>),
    Vote(VoteRequest<Types>, Reply<VoteResponse<Types>>),
    PreVote(VoteRequest<Types>, Reply<VoteResponse<Types>>),
    Transfer(TransferLeaderRequest<Types>, Reply<TransferLeaderResponse<Types>>),
}

/// Errors cross a connection as text.
type Reply<T> = oneshot::Sender<Result<T, String>>;

/// The far end of a connection: gives each request to its group. A connection that a node has left is closed,
/// and what is in it is answered by the end of its replies.
async fn serve(mut requests: mpsc::Receiver<Frame>, groups: Weak<Groups>) {
    while let Some(Frame { group, request }) = requests.recv().await {
        let Some(groups) = groups.upgrade() else { return };
        if let Some(raft) = groups.get(&group).cloned() {
            tokio::spawn(answer(raft, request));
        }
    }
}

async fn answer(raft: Raft, request: Request) {
    // A sender that has given up waits for no reply.
    match request {
        Request::Append(rpc, reply) => drop(reply.send(text(raft.append_entries(rpc).await))),
        Request::Vote(rpc, reply) => drop(reply.send(text(raft.vote(rpc).await))),
        Request::PreVote(rpc, reply) => drop(reply.send(text(raft.pre_vote(rpc).await))),
        Request::Transfer(rpc, reply) => drop(reply.send(text(raft.handle_transfer_leader(rpc).await))),
    }
}

fn text<T>(result: Result<T, impl Display>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

/// The connections of one node, of which each of its groups has a clone.
#[derive(Clone)]
pub(crate) struct Router {
    network: Network,
    connections: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Frame>>>>,
}

impl Router {
    pub(crate) fn new(network: &Network) -> Router {
        Router { network: network.clone(), connections: Arc::default() }
    }

    /// The connection to a node: the one that there is, or a new one.
    fn connection(&self, to: NodeId) -> Option<mpsc::Sender<Frame>> {
        let mut connections = lock(&self.connections);
        if let Some(connection) = connections.get(&to).filter(|c| !c.is_closed()) {
            return Some(connection.clone());
        }
        let connection = self.network.connect(to)?;
        connections.insert(to, connection.clone());
        Some(connection)
    }

    async fn ask<T>(
        &self,
        target: NodeId,
        group: GroupId,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, Unreachable<Types>> {
        let down = || Unreachable::new(&io::Error::other(format!("node {target} is down")));
        let connection = self.connection(target).ok_or_else(down)?;
        let (reply, answer) = oneshot::channel();
        self.network.0.requests.fetch_add(1, Ordering::Relaxed);
        connection.send(Frame { group, request: request(reply) }).await.map_err(|_| down())?;
        answer.await.map_err(|_| down())?.map_err(|e| Unreachable::new(&io::Error::other(e)))
    }
}

impl GroupRouter<Types, GroupId> for Router {
    type SnapshotData = ();

    async fn append_entries(
        &self,
        target: NodeId,
        group: GroupId,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.ask(target, group, |reply| Request::Append(rpc, reply)).await?)
    }

    async fn vote(
        &self,
        target: NodeId,
        group: GroupId,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.ask(target, group, |reply| Request::Vote(rpc, reply)).await?)
    }

    async fn pre_vote(
        &self,
        target: NodeId,
        group: GroupId,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.ask(target, group, |reply| Request::PreVote(rpc, reply)).await?)
    }

    /// Nobody has a snapshot to send: the log is never purged.
    async fn full_snapshot(
        &self,
        target: NodeId,
        _: GroupId,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, ()>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let why = io::Error::other(format!("no snapshot is sent to node {target}: there are none"));
        Err(Unreachable::new(&why).into())
    }

    async fn transfer_leader(
        &self,
        target: NodeId,
        group: GroupId,
        req: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        Ok(self.ask(target, group, |reply| Request::Transfer(req, reply)).await?)
    }
}

/// What one group of a node is given as its network: the router, and which group it is.
pub(crate) struct Wire(GroupNetworkFactory<Router, GroupId>);

impl Wire {
    pub(crate) fn new(router: &Router, group: GroupId) -> Wire {
        Wire(GroupNetworkFactory::new(router.clone(), group))
    }
}

impl RaftNetworkFactory<Types> for Wire {
    type Network = GroupNetworkAdapter<Types, GroupId, Router>;

    async fn new_client(&mut self, target: NodeId, _: &()) -> Self::Network {
        GroupNetworkAdapter::new(self.0.factory.clone(), target, self.0.group_id)
    }
}
