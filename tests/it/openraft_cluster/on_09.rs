//! openraft 0.9 between simulated nodes.

use super::net::Net;
use super::release::{Release, Seen, Start};
use crate::support::machine_09::{Machine, TypeConfig};
use crate::support::openraft::R;
use openraft09::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft09::network::RPCOption;
use openraft09::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft09::{BasicNode, Config, RaftNetwork, RaftNetworkFactory, ServerState, SnapshotPolicy};
use raftwood::openraft_09::LogStore;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) type Raft = openraft09::Raft<TypeConfig>;

/// Of one node to the others.
pub(crate) struct Lines {
    pub(crate) net: Net<Raft>,
    pub(crate) from: (u64, u32),
}

pub(crate) struct Line {
    net: Net<Raft>,
    from: (u64, u32),
    target: u64,
}

impl RaftNetworkFactory<TypeConfig> for Lines {
    type Network = Line;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Line {
        Line { net: self.net.clone(), from: self.from, target }
    }
}

type Failed<E> = RPCError<u64, BasicNode, E>;

impl Line {
    #[allow(clippy::result_large_err, reason = "openraft's own type")]
    async fn call<T, E, W>(&self, ask: impl FnOnce(Raft) -> W) -> Result<T, Failed<E>>
    where
        W: Future<Output = Result<T, E>>,
        E: std::error::Error,
    {
        match self.net.call(self.from, self.target, ask).await {
            Some(answer) => answer.map_err(|e| RPCError::RemoteError(RemoteError::new(self.target, e))),
            None => Err(RPCError::Unreachable(Unreachable::new(&std::io::Error::other("it is cut off")))),
        }
    }
}

impl RaftNetwork<TypeConfig> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        self.call(|peer| async move { peer.append_entries(rpc).await }).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<RaftError<u64, InstallSnapshotError>>> {
        self.call(|peer| async move { peer.install_snapshot(rpc).await }).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        self.call(|peer| async move { peer.vote(rpc).await }).await
    }
}

pub(crate) struct Openraft09;

impl Release for Openraft09 {
    type Raft = Raft;
    type Machine = Machine;

    async fn start(start: Start<'_, Self>) -> Raft {
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 150,
            election_timeout_max: 300,
            snapshot_policy: SnapshotPolicy::Never,
            ..Config::default()
        };
        let Start { id, incarnation, engine, net, machine, retry_for } = start;
        let lines = Lines { net: net.clone(), from: (id, incarnation) };
        let store = LogStore::new(engine, R).retry_for(retry_for);
        let config = Arc::new(config.validate().unwrap());
        Raft::new(id, config, lines, store, machine.clone()).await.unwrap()
    }

    async fn initialize(raft: &Raft, members: BTreeSet<u64>) {
        let members: BTreeMap<u64, BasicNode> =
            members.into_iter().map(|id| (id, BasicNode::default())).collect();
        raft.initialize(members).await.unwrap();
    }

    async fn write(raft: &Raft, command: u64) -> Result<(), String> {
        raft.client_write(command.to_string()).await.map(drop).map_err(|e| e.to_string())
    }

    async fn add_learner(raft: &Raft, id: u64) -> Result<(), String> {
        raft.add_learner(id, BasicNode::default(), true).await.map(drop).map_err(|e| e.to_string())
    }

    async fn change_members(raft: &Raft, members: BTreeSet<u64>) -> Result<(), String> {
        raft.change_membership(members, false).await.map(drop).map_err(|e| e.to_string())
    }

    async fn shutdown(raft: &Raft) {
        let _ = raft.shutdown().await;
    }

    fn seen(raft: &Raft) -> Seen {
        let metrics = raft.metrics();
        let m = metrics.borrow();
        Seen {
            term: m.current_term,
            leads: m.state == ServerState::Leader,
            applied: m.last_applied.map_or(0, |id| id.index),
            ended: m.running_state.is_err(),
        }
    }

    /// Nothing: this release's task awaits the sync of its append, and so the others hear nothing of it and
    /// elect one of them.
    async fn give_leadership_away(_: &Raft, _: u64) {}

    async fn applied(machine: &Machine) -> BTreeSet<u64> {
        let commands = machine.commands();
        let set: BTreeSet<u64> = commands.iter().map(|command| command.parse().unwrap()).collect();
        assert_eq!(set.len(), commands.len(), "a command was applied twice: {commands:?}");
        set
    }
}
