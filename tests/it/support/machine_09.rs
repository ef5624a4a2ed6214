//! A state machine in memory, for openraft 0.9: it remembers the commands.

use openraft09::storage::RaftStateMachine;
use openraft09::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StoredMembership,
};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard};

openraft09::declare_raft_types!(
    /// Commands are text.
    pub(crate) TypeConfig:
        D = String,
        R = (),
);

type Fails = StorageError<u64>;

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    commands: Vec<String>,
}

type Taken = (SnapshotMeta<u64, BasicNode>, Vec<u8>);

/// A handle; clones share the state.
#[derive(Clone, Default)]
pub(crate) struct Machine {
    state: Arc<Mutex<State>>,
    snapshot: Arc<Mutex<Option<Taken>>>,
}

impl Machine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What was applied, in this order.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn commands(&self) -> Vec<String> {
        self.state().commands.clone()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Fails> {
        let state = self.state().clone();
        let bytes = postcard::to_stdvec(&state).unwrap();
        let snapshot_id = state.applied.map_or("nothing".to_string(), |id| id.to_string());
        let meta =
            SnapshotMeta { last_log_id: state.applied, last_membership: state.membership, snapshot_id };
        *self.snapshot.lock().unwrap() = Some((meta.clone(), bytes.clone()));
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), Fails> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Fails>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.state();
        let mut replies = Vec::new();
        for entry in entries {
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => state.commands.push(command),
                EntryPayload::Membership(m) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), m)
                }
            }
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Fails> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Fails> {
        let bytes = snapshot.into_inner();
        let state: State = postcard::from_bytes(&bytes).unwrap();
        *self.state() = State {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            commands: state.commands,
        };
        *self.snapshot.lock().unwrap() = Some((meta.clone(), bytes));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Fails> {
        let snapshot = self.snapshot.lock().unwrap().clone();
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}
