//! Replicas that messages and splits make, and those that are given up for good.

use super::stores::{Ours, REGION, Store, entry, logger};
use raft::prelude::{ConfState, HardState, Message, MessageType};
use raft::{Config, RawNode};
use raftwood::raft_rs::{BOOTSTRAP, Creation, ReadyBatch, RegionStorage, Tombstones};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, ErrorKind, RegionId};

const TOMBSTONES: RegionId = RegionId(u64::MAX);

fn open(disk: SimVfs) -> (Ours, Tombstones) {
    let store = Ours::open(disk, Background::Manual);
    let tombstones = Tombstones::new(&store.engine, TOMBSTONES);
    (store, tombstones)
}

/// The power goes off, and comes back.
fn crash(store: Ours, policy: LossPolicy) -> (Ours, Tombstones) {
    let after = store.disk.crash(policy);
    drop(store);
    open(after)
}

fn voters() -> ConfState {
    ConfState::from((vec![31, 32, 33], vec![]))
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (term, vote, commit);
    state
}

/// A request for a vote makes the replica, which grants it.
fn is_asked(store: &Ours, tombstones: &Tombstones, peer: u64, candidate: u64, term: u64) {
    let mut batch = ReadyBatch::new(&store.engine);
    assert_eq!(batch.create(REGION, peer, tombstones).unwrap(), Creation::Created);
    let config = Config { id: peer, ..Config::default() };
    let storage = RegionStorage::new(&store.engine, REGION);
    let mut node = RawNode::new(&config, storage, &logger()).unwrap();
    let mut ask = Message::default();
    ask.set_msg_type(MessageType::MsgRequestVote);
    (ask.from, ask.to, ask.term, ask.index, ask.log_term) = (candidate, peer, term, 9, 8);
    node.step(ask).unwrap();
    let ready = node.ready();
    assert!(ready.persisted_messages().iter().any(|m| !m.reject));
    batch.add_as(REGION, peer, &ready).unwrap();
    batch.write(&store.engine).unwrap();
}

fn split_off(store: &Ours, tombstones: &Tombstones, peer: u64) -> Creation {
    let mut batch = ReadyBatch::new(&store.engine);
    let found = batch.split_off(REGION, peer, &voters(), tombstones).unwrap();
    assert_eq!(batch.is_empty(), found != Creation::Created, "{found:?}");
    batch.write(&store.engine).unwrap();
    found
}

#[test]
fn a_split_begins_a_log_and_a_second_time_changes_nothing() {
    let (store, tombstones) = open(SimVfs::new(1));
    assert_eq!(split_off(&store, &tombstones, 31), Creation::Created);
    // Durable on return: the state machine applies the split next.
    let (store, tombstones) = crash(store, LossPolicy::LoseAll);
    let region = store.storage();
    assert_eq!(region.region().state().base, Some(BOOTSTRAP));
    assert_eq!(region.hard_state().unwrap(), state(5, 0, 5));
    assert_eq!(region.conf_state().unwrap(), Some((5, voters())));
    // It votes and goes on; the split is replayed.
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_hard_state(REGION, &state(9, 32, 7)).unwrap();
    batch.set_conf_state(REGION, 7, &ConfState::from((vec![31], vec![]))).unwrap();
    batch.write(&store.engine).unwrap();
    assert_eq!(split_off(&store, &tombstones, 31), Creation::Exists);
    assert_eq!(region.hard_state().unwrap(), state(9, 32, 7));
    assert_eq!(region.conf_state().unwrap().unwrap().0, 7);
    // Nor twice in one batch.
    let mut batch = ReadyBatch::new(&store.engine);
    let other = RegionId(REGION.0 + 1);
    assert_eq!(batch.split_off(other, 41, &voters(), &tombstones).unwrap(), Creation::Created);
    let len = batch.encoded_len();
    assert_eq!(batch.split_off(other, 41, &voters(), &tombstones).unwrap(), Creation::Exists);
    assert_eq!(batch.encoded_len(), len);
}

#[test]
fn a_split_keeps_the_vote_of_a_replica_that_a_message_made() {
    // The store had not applied the split yet when the others' new region already voted: a request made the
    // replica here. With a fresh hard state it would vote for two candidates in one term.
    for policy in [LossPolicy::LoseAll, LossPolicy::KeepAll] {
        let (store, tombstones) = open(SimVfs::new(2));
        is_asked(&store, &tombstones, 31, 32, 8);
        assert_eq!(store.storage().hard_state().unwrap(), state(8, 32, 0));
        assert_eq!(split_off(&store, &tombstones, 31), Creation::Created);
        let (store, _) = crash(store, policy);
        assert_eq!(store.storage().hard_state().unwrap(), state(8, 32, 5));
        assert_eq!(store.storage().region().state().base, Some(BOOTSTRAP));
    }
}

#[test]
fn a_vote_in_the_batch_of_the_split_is_kept_too() {
    let (store, tombstones) = open(SimVfs::new(3));
    let mut batch = ReadyBatch::new(&store.engine);
    batch.create(REGION, 31, &tombstones).unwrap();
    batch.set_hard_state(REGION, &state(8, 33, 0)).unwrap();
    assert_eq!(batch.split_off(REGION, 31, &voters(), &tombstones).unwrap(), Creation::Created);
    batch.write(&store.engine).unwrap();
    assert_eq!(store.storage().hard_state().unwrap(), state(8, 33, 5));
}

#[test]
fn a_replica_with_a_tombstone_is_not_brought_back() {
    let (store, tombstones) = open(SimVfs::new(4));
    split_off(&store, &tombstones, 31);
    assert!(!tombstones.is_gone(REGION, 31).unwrap());
    let mut batch = ReadyBatch::new(&store.engine);
    tombstones.destroy(&mut batch, REGION, 31).unwrap();
    // Already in this batch.
    assert_eq!(batch.create(REGION, 31, &tombstones).unwrap(), Creation::Gone);
    let persisted = batch.write(&store.engine).unwrap();
    assert!(persisted.iter().all(|p| p.is_destruction() && p.tag == 31));
    let (store, tombstones) = crash(store, LossPolicy::LoseAll);
    assert!(!store.storage().region().exists());
    for peer in [30, 31] {
        assert_eq!(split_off(&store, &tombstones, peer), Creation::Gone);
        let mut batch = ReadyBatch::new(&store.engine);
        assert_eq!(batch.create(REGION, peer, &tombstones).unwrap(), Creation::Gone);
        assert!(batch.is_empty() && tombstones.is_gone(REGION, peer).unwrap());
    }
    // Another replica may come, and its end does not let the first one back in.
    is_asked(&store, &tombstones, 38, 32, 8);
    let mut batch = ReadyBatch::new(&store.engine);
    tombstones.destroy(&mut batch, REGION, 38).unwrap();
    tombstones.destroy(&mut batch, REGION, 35).unwrap();
    batch.write(&store.engine).unwrap();
    assert_eq!(tombstones.peer(REGION).unwrap(), Some(38));
    assert!(!tombstones.is_gone(RegionId(REGION.0 + 1), 1).unwrap());
}

#[test]
fn a_split_leaves_a_later_replica_alone() {
    // The parent's replica here is far back: its split names peer 31, which the group has removed meanwhile,
    // and peer 38 has come to this store. There is no tombstone, for peer 31 was never here.
    let (store, tombstones) = open(SimVfs::new(5));
    is_asked(&store, &tombstones, 38, 32, 8);
    assert_eq!(split_off(&store, &tombstones, 31), Creation::Gone);
    assert_eq!(store.storage().region().state().base, None);
    // The other way round somebody forgot to destroy it.
    let mut batch = ReadyBatch::new(&store.engine);
    for refused in [
        batch.split_off(REGION, 39, &voters(), &tombstones),
        batch.create(REGION, 39, &tombstones),
        batch.split_off(REGION, 38, &ConfState::default(), &tombstones),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert!(batch.is_empty());
}

#[test]
fn a_crash_leaves_a_replica_or_its_tombstone() {
    for policy in [LossPolicy::LoseAll, LossPolicy::KeepAll] {
        let (store, tombstones) = open(SimVfs::new(6));
        split_off(&store, &tombstones, 31);
        let mut batch = ReadyBatch::new(&store.engine);
        tombstones.destroy(&mut batch, REGION, 31).unwrap();
        // Written and not synced: the crash decides.
        let (_ticket, _) = batch.submit(&store.engine).unwrap();
        let (store, tombstones) = crash(store, policy);
        assert_ne!(store.storage().region().exists(), tombstones.is_gone(REGION, 31).unwrap());
    }
}

#[test]
fn a_beginning_that_no_state_machine_knows_is_taken_back_and_the_vote_stays() {
    let (store, tombstones) = open(SimVfs::new(7));
    let undo = |store: &Ours| {
        let mut batch = ReadyBatch::new(&store.engine);
        let undone = batch.undo_split_off(REGION);
        assert_eq!(batch.is_empty(), !undone.as_ref().is_ok_and(|u| *u));
        batch.write(&store.engine).unwrap();
        undone
    };
    assert!(!undo(&store).unwrap());
    is_asked(&store, &tombstones, 31, 32, 8);
    assert!(!undo(&store).unwrap());
    split_off(&store, &tombstones, 31);
    assert!(undo(&store).unwrap());
    assert_eq!(store.storage().hard_state().unwrap(), state(8, 32, 0));
    assert_eq!((store.storage().region().state().base, store.storage().conf_state().unwrap()), (None, None));
    assert_eq!(split_off(&store, &tombstones, 31), Creation::Created);
    assert_eq!(store.storage().hard_state().unwrap(), state(8, 32, 5));
    // Entries that it has are nobody's to drop.
    let mut batch = ReadyBatch::new(&store.engine);
    batch.region(REGION).append([(raftwood::EntryId::new(9, 6), &b""[..])]).unwrap();
    batch.write(&store.engine).unwrap();
    assert_eq!(undo(&store).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.storage().region().last_index(), 6);
}

#[test]
fn a_compaction_leaves_what_was_not_applied_durably() {
    let store = Ours::fresh();
    store.append(&(1..=9).map(|index| entry(index, 1)).collect::<Vec<_>>());
    for (durable, keep, first) in [(2, 5, 1), (4, 4, 1), (6, 2, 5), (5, 3, 5), (7, 0, 8), (20, 1, 10)] {
        let mut batch = ReadyBatch::new(&store.engine);
        batch.compact_applied(REGION, durable, keep);
        batch.compact_applied(RegionId(404), durable, keep);
        batch.write(&store.engine).unwrap();
        assert_eq!(store.engine.region(REGION).first_index(), first, "{durable} durable, {keep} kept");
    }
}
