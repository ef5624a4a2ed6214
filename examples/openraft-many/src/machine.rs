//! The state machine of a group: a map in memory.
//!
//! It keeps no snapshot, and needs none: the log is never purged (`SnapshotPolicy::Never`). After a restart
//! the machine is empty and says so; openraft applies the whole log to it again, up to the committed id that
//! the log store knows before it answers anything, and the rest when a leader says that it is committed.

use futures_util::{Stream, TryStreamExt};
use openraft::impls::leader_id_std;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) type NodeId = u64;
pub(crate) type GroupId = u64;
pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// The one command that there is. An id is used once, so that each write can be looked for by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) id: u64,
    pub(crate) value: String,
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "put {}", self.id)
    }
}

openraft::declare_raft_types!(
    /// What openraft is to carry.
    pub(crate) Types:
        D = Put,
        R = (),
        Node = (),
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

#[derive(Default)]
struct State {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    map: BTreeMap<u64, String>,
}

/// One group's, on one node.
#[derive(Clone, Default)]
pub(crate) struct Machine(Arc<Mutex<State>>);

impl Machine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of these writes are not there, or not as they were written.
    pub(crate) fn missing<'p>(&self, puts: impl IntoIterator<Item = &'p Put>) -> u64 {
        let state = self.lock();
        puts.into_iter().filter(|put| state.map.get(&put.id) != Some(&put.value)).count() as u64
    }

    /// All that was applied, for a comparison of replicas.
    pub(crate) fn map(&self) -> BTreeMap<u64, String> {
        self.lock().map.clone()
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        let state = self.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            {
                let mut state = self.lock();
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(Put { id, value }) => {
                        state.map.insert(id, value);
                    }
                    EntryPayload::Membership(m) => {
                        state.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), m);
                    }
                }
                state.applied = Some(entry.log_id);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, _: &SnapshotMetaOf<Types>, (): ()) -> Result<(), io::Error> {
        Err(no_snapshots())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(None)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Err(no_snapshots())
    }
}

/// The end of the group, and rightly so: something has purged a log that nothing may purge.
fn no_snapshots() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the log is never purged, and there are no snapshots")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(id: u64) -> Put {
        Put { id, value: format!("value {id}") }
    }

    #[test]
    fn a_write_that_is_not_there_or_not_as_it_was_written_is_missing() {
        let machine = Machine::default();
        let puts: Vec<Put> = (1..=5).map(put).collect();
        assert_eq!(machine.missing(&puts), 5);
        machine.lock().map.extend((1..=4).map(put).map(|put| (put.id, put.value)));
        assert_eq!(machine.missing(&puts), 1);
        machine.lock().map.insert(2, "another".to_owned());
        assert_eq!(machine.missing(&puts), 2);
    }
}
