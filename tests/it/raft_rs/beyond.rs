//! What the contract does not ask for, or leaves to the store: damage, snapshots, and the write side.

use super::stores::{
    Ours, REGION, Store, campaigning, entry, filled, group, hard_state, here, logger, snapshot, store_error,
};
use crate::support::files::{find, rot};
use raft::prelude::ConfState;
use raft::{Config, GetEntriesContext, RawNode, Storage, StorageError};
use raftwood::raft_rs::{BOOTSTRAP, Persisted, ReadyBatch, RegionStorage};
use raftwood::{Background, Durability, EntryId, ErrorKind, Health, RegionId};
use std::sync::{Arc, Mutex};

/// Five entries, the third of which has rotted.
fn rotten() -> Ours {
    let store = Ours::fresh();
    store.append(&(1..=5).map(|i| filled(i, 1, 600)).collect::<Vec<_>>());
    let (path, at) = find(&store.disk, &[3; 600]);
    rot(&store.disk, path, at + 9);
    store
}

#[test]
fn a_damaged_entry_is_an_error_and_never_a_shorter_log() {
    let store = rotten();
    let storage = store.storage();
    match store_error(storage.entries(1, 6, None, here())) {
        StorageError::Other(e) => assert!(e.to_string().contains("entry 3"), "{e}"),
        e => panic!("{e:?}"),
    }
    assert_eq!(storage.last_index().unwrap(), 5);
    assert_eq!(storage.term(3).unwrap(), 1);
    assert_eq!(storage.entries(4, 6, None, here()).unwrap().len(), 2);
    assert!(matches!(store.engine.region(REGION).health(), Health::Damaged { .. }));
    // For a follower, a snapshot is the way out.
    assert_eq!(
        store_error(storage.entries(1, 6, None, GetEntriesContext::empty(true))),
        StorageError::Compacted
    );
}

#[test]
fn a_leader_whose_log_is_damaged_sends_a_snapshot_instead() {
    let store = rotten();
    store.set_conf_state(&ConfState::from((vec![1, 2], vec![])));
    store.set_hard_state(&hard_state(1, 1, 5));
    let storage = store.storage().snapshots(|_, _| Some(snapshot(5, 1, &[1, 2])));
    let config = Config { id: 1, applied: 5, max_size_per_msg: u64::MAX, ..Config::default() };
    let mut leader = RawNode::new(&config, storage, &logger()).unwrap();
    leader.raft.become_candidate();
    leader.raft.become_leader();
    let mut reject = raft::prelude::Message::default();
    reject.set_msg_type(raft::prelude::MessageType::MsgAppendResponse);
    (reject.from, reject.to, reject.term) = (2, 1, leader.raft.term);
    (reject.reject, reject.index, reject.reject_hint) = (true, 5, 0);
    leader.raft.msgs.clear();
    leader.step(reject).unwrap();
    assert!(
        leader.raft.msgs.iter().any(|m| m.get_msg_type() == raft::prelude::MessageType::MsgSnapshot),
        "{:?}",
        leader.raft.msgs
    );
}

#[test]
fn a_snapshot_that_would_not_help_is_temporarily_unavailable() {
    let store = Ours::fresh();
    store.append(&(1..=9).map(|i| entry(i, 1)).collect::<Vec<_>>());
    store.compact_through(5);
    let at = |index| {
        store.storage().snapshots(move |_: u64, _: u64| (index > 0).then(|| snapshot(index, 1, &[1])))
    };
    for (index, request) in [(0, 0), (4, 0), (5, 6)] {
        let got = store_error(at(index).snapshot(request, 2));
        assert_eq!(got, StorageError::SnapshotTemporarilyUnavailable, "at {index} for {request}");
    }
    assert_eq!(at(5).snapshot(0, 2).unwrap().get_metadata().index, 5);
    assert_eq!(at(8).snapshot(6, 2).unwrap().get_metadata().index, 8);
    assert_eq!(store_error(store.storage().snapshot(0, 2)), StorageError::SnapshotTemporarilyUnavailable);
}

#[test]
fn the_provider_is_told_the_least_index_that_would_help() {
    let store = rotten();
    store.set_hard_state(&hard_state(1, 1, 2));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (ask, offer) = (asked.clone(), Arc::new(Mutex::new(2)));
    let offered = offer.clone();
    let storage = store.storage().snapshots(move |request, to| {
        ask.lock().unwrap().push((request, to));
        Some(snapshot(*offered.lock().unwrap(), 1, &[1, 2]))
    });
    storage.snapshot(0, 7).unwrap();
    storage.snapshot(2, 7).unwrap();
    store.compact_through(2);
    storage.snapshot(0, 8).unwrap();
    // The third entry is damaged. A peer that got a snapshot up to the second would come back for the next
    // one forever; but no snapshot can be beyond what is committed.
    assert!(storage.entries(3, 4, None, here()).is_err());
    storage.snapshot(0, 9).unwrap();
    store.set_hard_state(&hard_state(1, 1, 5));
    assert_eq!(store_error(storage.snapshot(0, 9)), StorageError::SnapshotTemporarilyUnavailable);
    *offer.lock().unwrap() = 3;
    storage.snapshot(0, 9).unwrap();
    assert_eq!(*asked.lock().unwrap(), [(1, 7), (2, 7), (2, 8), (2, 9), (3, 9), (3, 9)]);
}

// ---- the write side ---------------------------------------------------------------------------------------

#[test]
fn many_readies_are_one_record_and_one_sync() {
    let store = Ours::fresh();
    let mut groups: Vec<_> = (1..=50).map(|id| campaigning(&store, id)).collect();
    let before = store.engine.stats();
    let mut batch = ReadyBatch::new(&store.engine);
    for (id, (_, ready)) in (1..).zip(&groups) {
        batch.add_as(RegionId(id), 100 + id, ready).unwrap();
    }
    let persisted = batch.write(&store.engine).unwrap();
    let after = store.engine.stats();
    assert_eq!((after.batches - before.batches, after.syncs - before.syncs), (1, 1));
    let want: Vec<_> = (1..)
        .zip(&groups)
        .map(|(id, (_, r))| Persisted { region: RegionId(id), tag: 100 + id, ready: r.number() })
        .collect();
    assert_eq!(persisted, want);
    // What was written survives a power cut, for all of them.
    let disk = store.disk.crash(raftwood::vfs::sim::LossPolicy::LoseAll);
    let again = Ours::open(disk, Background::Manual);
    for (id, (node, ready)) in (1..).zip(&mut groups) {
        let storage = RegionStorage::new(&again.engine, RegionId(id));
        let state = storage.initial_state().unwrap();
        assert_eq!(Some(&state.hard_state), ready.hs());
        assert_eq!(state.hard_state.vote, 1);
        assert_eq!(node.raft.term, state.hard_state.term);
    }
}

#[test]
fn a_batch_is_synced_exactly_when_a_ready_asks_for_it() {
    let store = Ours::fresh();
    let (mut node, ready) = campaigning(&store, 1);
    let mut batch = ReadyBatch::new(&store.engine);
    assert_eq!(batch.durability(), Durability::Written);
    batch.add(RegionId(1), &ready).unwrap();
    assert_eq!(batch.durability(), Durability::Synced, "a vote");
    batch.write(&store.engine).unwrap();
    node.advance(ready);
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_hard_state(RegionId(1), &hard_state(1, 1, 0)).unwrap();
    assert_eq!(batch.durability(), Durability::Written, "a commit index");
    let syncs = store.engine.stats().syncs;
    batch.clone().write(&store.engine).unwrap();
    assert_eq!(store.engine.stats().syncs, syncs);
    batch.require_sync();
    batch.write(&store.engine).unwrap();
    assert_eq!(store.engine.stats().syncs, syncs + 1);
}

#[test]
fn a_snapshot_its_entries_and_its_states_are_one() {
    let store = Ours::fresh();
    store.append(&[entry(1, 1), entry(2, 1)]);
    store.set_hard_state(&hard_state(1, 0, 0));
    store.set_conf_state(&ConfState::from((vec![2], vec![1])));
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    let mut node = RawNode::new(&config, store.storage(), &logger()).unwrap();
    let mut message = raft::prelude::Message::default();
    message.set_msg_type(raft::prelude::MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (2, 1, 6);
    message.set_snapshot(snapshot(100, 5, &[1, 2, 3]));
    node.step(message).unwrap();
    let mut message = raft::prelude::Message::default();
    message.set_msg_type(raft::prelude::MessageType::MsgAppend);
    (message.from, message.to, message.term) = (2, 1, 6);
    (message.index, message.log_term) = (100, 5);
    message.set_entries(vec![entry(101, 6), entry(102, 6)].into());
    node.step(message).unwrap();
    let ready = node.ready();
    let mut batch = ReadyBatch::new(&store.engine);
    batch.add(REGION, &ready).unwrap();
    batch.write(&store.engine).unwrap();
    let storage = store.storage();
    assert_eq!((storage.first_index().unwrap(), storage.last_index().unwrap()), (101, 102));
    assert_eq!((storage.term(100).unwrap(), storage.term(102).unwrap()), (5, 6));
    let state = storage.initial_state().unwrap();
    assert_eq!((state.hard_state.term, state.hard_state.commit), (6, 100));
    assert_eq!(state.conf_state, ConfState::from((vec![1, 2, 3], vec![])));
    assert_eq!(storage.conf_state().unwrap().unwrap().0, 100);
}

#[test]
fn a_ready_that_does_not_fit_leaves_the_batch_as_it_was() {
    let store = Ours::fresh();
    let (_one, first) = campaigning(&store, 1);
    let mut node = group(&store, 2);
    node.raft.become_candidate();
    node.raft.become_leader();
    node.propose(vec![], vec![7; raftwood::limits::ENTRY_BYTES_MAX]).unwrap();
    let big = node.ready();
    let mut batch = ReadyBatch::new(&store.engine);
    batch.add(RegionId(1), &first).unwrap();
    let len = batch.encoded_len();
    let refused = batch.add(RegionId(2), &big).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert_eq!(batch.encoded_len(), len);
    assert_eq!(batch.write(&store.engine).unwrap().len(), 1);
    assert_eq!(store.engine.region(RegionId(2)).last_index(), BOOTSTRAP.index);
    assert_eq!(store.storage().hard_state().unwrap().vote, 1);
}

#[test]
fn a_foreign_entry_is_named_and_no_panic() {
    let store = Ours::fresh();
    store.write(|region| {
        region.append([(EntryId::new(1, 1), &b"\xff not ours"[..])]).unwrap();
    });
    match store_error(store.storage().entries(1, 2, None, here())) {
        StorageError::Other(e) => assert!(e.to_string().contains("entry 1 was not written"), "{e}"),
        e => panic!("{e:?}"),
    }
}
