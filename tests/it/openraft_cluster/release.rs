//! What a cluster test needs of a release of openraft.

use super::net::Net;
use raftwood::Engine;
use std::collections::BTreeSet;
use std::time::Duration;

/// A node that is about to run.
pub(crate) struct Start<'a, R: Release> {
    pub(crate) id: u64,
    pub(crate) incarnation: u32,
    pub(crate) engine: &'a Engine,
    pub(crate) net: &'a Net<R::Raft>,
    pub(crate) machine: &'a R::Machine,
    /// How long refused writes are asked for again.
    pub(crate) retry_for: Duration,
}

/// What a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) term: u64,
    pub(crate) leads: bool,
    pub(crate) applied: u64,
    /// openraft has ended the group here.
    pub(crate) ended: bool,
}

pub(crate) trait Release: 'static {
    type Raft: Clone + Send + Sync + 'static;
    type Machine: Default;

    async fn start(start: Start<'_, Self>) -> Self::Raft
    where
        Self: Sized;

    async fn initialize(raft: &Self::Raft, members: BTreeSet<u64>);

    /// Ok once the node says that the write is committed.
    async fn write(raft: &Self::Raft, command: u64) -> Result<(), String>;

    async fn add_learner(raft: &Self::Raft, id: u64) -> Result<(), String>;

    async fn change_members(raft: &Self::Raft, members: BTreeSet<u64>) -> Result<(), String>;

    async fn shutdown(raft: &Self::Raft);

    fn seen(raft: &Self::Raft) -> Seen;

    /// What a leader does whose disk hangs. `to` is whom it prefers as the next.
    fn give_leadership_away(raft: &Self::Raft, to: u64) -> impl Future<Output = ()> + Send;

    /// The commands that the state machine has applied; each was given once.
    async fn applied(machine: &Self::Machine) -> BTreeSet<u64>;
}
