//! Replicas whose terms and votes are lost: they do not run again, and others take their places.
//!
//! A majority cannot say in which terms such a replica has voted, so it is not asked. When a store is opened
//! and a vote is missing, the store begins its next incarnation (`peers.rs`): the state machine is emptied
//! and the number noted in it, and then all logs go. From then on the node's replicas have another peer id,
//! and there are none yet.
//!
//! What is sent to an earlier id is answered by the one that is here now. The leader, which sends heartbeats
//! to all that its configuration names, learns of it by that; it proposes one joint change that takes the
//! old peer out and the new one in, and the new one is made by the first message to it, empty, and gets a
//! snapshot. It is a voter at once: the old one was of no use, so the group is no worse off than before, and
//! a voter without a log acknowledges nothing. One that was a learner stays one.

use crate::group::Group;
use crate::healing::readable;
use crate::machine::{Machine, Stand};
use crate::node::Node;
use crate::nursery::STORE;
use crate::peers::{is_before, is_joint};
use crate::rollback::SaveRollbacks;
use crate::wire::{Result, Said};
use raft::prelude::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use raft::{Error as RaftError, Storage, StorageError};
use raftwood::raft_rs::RegionStorage;
use raftwood::{Durability, Engine, Error, ErrorKind, RegionId};
use std::collections::BTreeMap;

/// Which incarnation of a node's store this is. Begins the next one if a vote is lost, before anything runs.
pub fn incarnation(engine: &Engine, machine: &Machine, rollbacks: &SaveRollbacks) -> Result<u64> {
    let in_machine = machine.incarnation()?;
    let in_log = match engine.region(STORE).hard_state_or_lost() {
        Ok(bytes) => bytes.map(|b| b[..].try_into().map(u64::from_le_bytes)).transpose()?,
        Err(e) if e.kind() == ErrorKind::HardStateLost => None,
        Err(e) => return Err(e.into()),
    };
    match in_machine {
        None if engine.regions().into_iter().all(|region| region == STORE) => {
            note(engine, 0)?;
            machine.begin_incarnation(0)?;
            Ok(0)
        }
        Some(known) if in_log == Some(known) && !is_a_vote_lost(engine)? => Ok(known),
        None if in_log.is_none() => {
            Err("the log has groups, and neither it nor the state machine says of which incarnation".into())
        }
        _ => {
            let next = in_machine.max(in_log).map_or(1, |known| known + 1);
            save_what_is_left(engine, &machine.stands(None, &[])?, rollbacks)?;
            // In this order: after a crash in between, the log still says what it has lost.
            machine.begin_incarnation(next)?;
            note(engine, next)?;
            Ok(next)
        }
    }
}

/// All logs go, and the number is durable in their place.
fn note(engine: &Engine, incarnation: u64) -> Result<()> {
    let mut batch = engine.batch();
    for region in engine.regions() {
        batch.region(region).destroy();
    }
    batch.region(STORE).set_hard_state(&incarnation.to_le_bytes())?;
    engine.write(batch, Durability::Synced)?;
    Ok(())
}

/// One that the engine knows to be lost, or that the adapter does not believe: it is of an older term than
/// the log.
fn is_a_vote_lost(engine: &Engine) -> Result<bool> {
    for region in engine.regions() {
        if let Err(RaftError::Store(StorageError::Other(why))) =
            RegionStorage::new(engine, region).initial_state()
            && why.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::HardStateLost)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The logs may end with what a leader took while it was cut off, and could not commit.
fn save_what_is_left(
    engine: &Engine,
    stands: &BTreeMap<u64, Stand>,
    rollbacks: &SaveRollbacks,
) -> Result<()> {
    for (&id, stand) in stands {
        let left = readable(&engine.region(RegionId(id)), stand.applied.index + 1)?;
        rollbacks.save_displaced(RegionId(id), &left)?;
    }
    Ok(())
}

impl Group {
    pub fn conf_state(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    /// A change of the configuration is not applied yet, or is half done.
    pub fn is_changing(&self) -> bool {
        self.node.raft.has_pending_conf() || is_joint(&self.conf_state())
    }

    /// Proposes to exchange a peer that is no more for the one that is there now. What cannot be done yet, or
    /// was done already, is not done: the next message to the old one brings the question again.
    fn exchange(&mut self, old: u64, new: u64) {
        let state = self.conf_state();
        let kind = match () {
            () if state.voters.contains(&old) => ConfChangeType::AddNode,
            () if state.learners.contains(&old) => ConfChangeType::AddLearnerNode,
            () => return,
        };
        if !is_before(old, new) || !self.is_leader() || self.is_parked() || self.is_changing() {
            return;
        }
        let mut change = ConfChangeV2::default();
        for (kind, peer) in [(ConfChangeType::RemoveNode, old), (kind, new)] {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = peer;
            change.mut_changes().push(single);
        }
        // Dropped while leadership is being handed over, among others: it is asked for again.
        let _ = self.node.propose_conf_change(vec![], change);
    }
}

impl Node {
    /// Whether a message is for a replica that this node has, or may have. One for an earlier incarnation is
    /// answered, whatever it is, by the id that is here now.
    pub fn is_here(&mut self, group: u64, from: u64, to: u64) -> bool {
        let me = self.nursery.me;
        if is_before(to, me) {
            self.stats.late += 1;
            self.say(group, from, Said::Replaced { old: to, new: me });
        }
        to == me
    }

    /// Another node says which id its replicas have.
    pub fn replaced(&mut self, id: u64, old: u64, new: u64) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.exchange(old, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// What a start says, and whether a group that was in the log before is still there.
    fn start(dir: &Path) -> Result<(u64, bool)> {
        let engine = Engine::open(dir.join("log"))?;
        let machine = Machine::open(&dir.join("state.redb"))?;
        let rollbacks = SaveRollbacks::open(&dir.join("discarded"))?;
        let incarnation = incarnation(&engine, &machine, &rollbacks)?;
        let is_there = engine.region(RegionId(1)).exists();
        let mut batch = engine.batch();
        batch.region(RegionId(1)).put(b"a group", b"is here")?;
        engine.write(batch, Durability::Synced)?;
        engine.close()?;
        Ok((incarnation, is_there))
    }

    #[test]
    fn whatever_is_lost_no_number_is_used_twice_and_no_log_of_the_one_before_is_left() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path();
        let begin = |incarnation| {
            let machine = Machine::open(&dir.join("state.redb")).unwrap();
            machine.begin_incarnation(incarnation).unwrap();
        };
        assert_eq!(start(dir).unwrap(), (0, false));
        assert_eq!(start(dir).unwrap(), (0, true));
        // A crash between the two numbers.
        begin(1);
        assert_eq!(start(dir).unwrap(), (2, false));
        assert_eq!(start(dir).unwrap(), (2, true));
        // The whole log.
        fs::remove_dir_all(dir.join("log")).unwrap();
        assert_eq!(start(dir).unwrap(), (3, false));
        // The whole state machine.
        fs::remove_file(dir.join("state.redb")).unwrap();
        assert_eq!(start(dir).unwrap(), (4, false));
        assert_eq!(start(dir).unwrap(), (4, true));
        // A hard state that is lost in the log alone, here the store's own.
        let engine = Engine::open(dir.join("log")).unwrap();
        let mut batch = engine.batch();
        batch.region(STORE).destroy();
        engine.write(batch, Durability::Synced).unwrap();
        engine.close().unwrap();
        assert_eq!(start(dir).unwrap(), (5, false));
        // Of a store that says nothing at all, nothing is thrown away.
        let engine = Engine::open(dir.join("log")).unwrap();
        let mut batch = engine.batch();
        batch.region(STORE).destroy();
        engine.write(batch, Durability::Synced).unwrap();
        engine.close().unwrap();
        fs::remove_file(dir.join("state.redb")).unwrap();
        assert!(start(dir).unwrap_err().to_string().contains("of which incarnation"));
        assert!(Engine::open(dir.join("log")).unwrap().region(RegionId(1)).exists());
    }
}
