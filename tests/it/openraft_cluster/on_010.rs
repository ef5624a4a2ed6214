//! openraft 0.10 between simulated nodes.

use super::net::Net;
use super::release::{Release, Seen, Start};
use crate::support::openraft::R;
use openraft_memstore::{BlockConfig, ClientRequest, IntoMemClientRequest, MemStateMachine, TypeConfig};
use openraft010::alias::{SnapshotOf, VoteOf};
use openraft010::async_runtime::WatchReceiver;
use openraft010::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft010::network::RPCOption;
use openraft010::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft010::{Config, OptionalSend, RaftNetworkFactory, RaftNetworkV2, ServerState, SnapshotPolicy};
use raftwood::openraft_010::LogStore;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Cursor;
use std::sync::Arc;

pub(crate) type Raft = openraft010::Raft<TypeConfig, Arc<MemStateMachine>>;
pub(crate) type Vote = VoteOf<TypeConfig>;

/// Of one node to the others.
#[derive(Clone)]
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

    async fn new_client(&mut self, target: u64, _: &()) -> Line {
        Line { net: self.net.clone(), from: self.from, target }
    }
}

impl Line {
    async fn call<T, E, W>(&self, ask: impl FnOnce(Raft) -> W) -> Result<T, Unreachable<TypeConfig>>
    where
        W: Future<Output = Result<T, E>>,
        E: Display,
    {
        match self.net.call(self.from, self.target, ask).await {
            Some(answer) => answer.map_err(Unreachable::from_string),
            None => Err(Unreachable::from_string("it is cut off")),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Line {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(|peer| async move { peer.append_entries(rpc).await }).await?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(|peer| async move { peer.vote(rpc).await }).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Cursor<Vec<u8>>>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Ok(self.call(|peer| async move { peer.install_full_snapshot(vote, snapshot).await }).await?)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(|peer| async move { peer.handle_transfer_leader(req).await }).await?)
    }
}

pub(crate) struct Openraft010;

impl Release for Openraft010 {
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
        let store = LogStore::<TypeConfig>::new(engine, R).retry_for(retry_for);
        let config = Arc::new(config.validate().unwrap());
        Raft::new(id, config, lines, store, machine.0.clone()).await.unwrap()
    }

    async fn initialize(raft: &Raft, members: BTreeSet<u64>) {
        raft.initialize(members).await.unwrap();
    }

    async fn write(raft: &Raft, command: u64) -> Result<(), String> {
        let request = ClientRequest::make_request(command, command);
        raft.client_write(request).await.map(drop).map_err(|e| e.to_string())
    }

    async fn add_learner(raft: &Raft, id: u64) -> Result<(), String> {
        raft.add_learner(id, (), true).await.map(drop).map_err(|e| e.to_string())
    }

    async fn change_members(raft: &Raft, members: BTreeSet<u64>) -> Result<(), String> {
        raft.change_membership(members, false).await.map(drop).map_err(|e| e.to_string())
    }

    async fn shutdown(raft: &Raft) {
        let _ = raft.shutdown().await;
    }

    fn seen(raft: &Raft) -> Seen {
        let metrics = raft.metrics();
        let m = metrics.borrow_watched();
        Seen {
            term: m.current_term,
            leads: m.state == ServerState::Leader,
            applied: m.last_applied.as_ref().map_or(0, |id| id.index),
            ended: m.running_state.is_err(),
        }
    }

    async fn give_leadership_away(raft: &Raft, to: u64) {
        let _ = raft.trigger().transfer_leader(to).await;
    }

    /// One client a command: the machine answers a second as it did the first.
    async fn applied(machine: &Machine) -> BTreeSet<u64> {
        let state = machine.0.get_state_machine().await;
        state.client_status.into_keys().map(|client| client.parse().unwrap()).collect()
    }
}

/// openraft's own, in memory.
pub(crate) struct Machine(pub(crate) Arc<MemStateMachine>);

impl Default for Machine {
    fn default() -> Machine {
        Machine(Arc::new(MemStateMachine::new(BlockConfig::default())))
    }
}
