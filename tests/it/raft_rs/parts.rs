//! A `Ready` that is larger than a batch, written in parts.

use super::stores::{Ours, REGION, Store, entry, filled, hard_state, logger, options};
use raft::prelude::{ConfState, Message, MessageType};
use raft::{Config, RawNode, Ready, Storage};
use raftwood::raft_rs::{ReadyBatch, RegionStorage};
use raftwood::vfs::sim::LossPolicy;
use raftwood::{Durability, ErrorKind, RegionId};

const MIB: usize = 1 << 20;

/// A follower's `Ready` after an append by a leader of term 5: entries of `sizes`, after two of term 1.
fn of_a_follower(store: &Ours, sizes: &[usize]) -> (RawNode<RegionStorage>, Ready) {
    store.set_conf_state(&ConfState::from((vec![1, 2], vec![])));
    store.append(&[entry(1, 1), entry(2, 1), entry(3, 1)]);
    store.set_hard_state(&hard_state(1, 2, 2));
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    let mut node = RawNode::new(&config, store.storage(), &logger()).unwrap();
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgAppend);
    (message.from, message.to, message.term) = (2, 1, 5);
    (message.log_term, message.index) = (1, 2);
    let last = 2 + sizes.len() as u64;
    message.commit = last;
    message.entries =
        sizes.iter().enumerate().map(|(i, size)| filled(3 + i as u64, 5, *size)).collect::<Vec<_>>().into();
    node.step(message).unwrap();
    let ready = node.ready();
    assert_eq!((ready.entries().len(), ready.hs().unwrap()), (sizes.len(), &hard_state(5, 0, last)));
    (node, ready)
}

#[test]
fn term_and_vote_are_in_the_first_part_and_the_commit_in_the_last() {
    let sizes = [1, 9 * MIB, 9 * MIB, 20 * MIB, 3 * MIB, 1];
    let store = Ours::fresh();
    let (_, ready) = of_a_follower(&store, &sizes);
    let mut batch = ReadyBatch::new(&store.engine).configured_elsewhere();
    batch.region(REGION).put(b"before", b"yes").unwrap();
    let mut parts = batch.add_in_parts(&store.engine, REGION, 7, &ready).unwrap();
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|part| part.durability() == Durability::Written));
    assert_eq!(batch.durability(), Durability::Synced);
    parts.push(batch);
    // The last entry and the hard state, as they are after so many parts.
    let after = [(5, hard_state(5, 0, 2)), (6, hard_state(5, 0, 2)), (8, hard_state(5, 0, 8))];
    for (part, (last, state)) in parts.into_iter().zip(after) {
        let persisted = part.write(&store.engine).unwrap();
        assert_eq!(
            persisted.iter().map(|p| (p.tag, p.ready)).next(),
            (last == 8).then(|| (7, ready.number()))
        );
        store.engine.sync().unwrap();
        let engine = options(&store.disk.crash(LossPolicy::LoseAll)).open("/db").unwrap();
        assert_eq!(engine.region(REGION).get(b"before").as_deref(), Some(&b"yes"[..]));
        let storage = RegionStorage::new(&engine, REGION);
        assert_eq!(storage.last_index().unwrap(), last);
        assert_eq!(storage.initial_state().unwrap().hard_state, state);
        let read = storage.entries(3, last + 1, None, super::stores::here()).unwrap();
        assert_eq!(read, ready.entries()[..read.len()]);
    }
}

#[test]
fn the_last_part_alone_is_synced_and_speaks_for_all() {
    let store = Ours::fresh();
    let (mut node, ready) = of_a_follower(&store, &[17 * MIB, 17 * MIB, 1]);
    let mut batch = ReadyBatch::new(&store.engine);
    for part in batch.add_in_parts(&store.engine, REGION, 7, &ready).unwrap() {
        part.write(&store.engine).unwrap();
    }
    assert_eq!(batch.write(&store.engine).unwrap().len(), 1);
    let engine = options(&store.disk.crash(LossPolicy::LoseAll)).open("/db").unwrap();
    assert_eq!(engine.region(REGION).last_index(), 5);
    node.advance(ready);
    assert_eq!(node.raft.raft_log.persisted, 5);
}

#[test]
fn one_that_fits_is_not_divided_and_one_that_is_refused_leaves_the_batch_as_it_was() {
    let store = Ours::fresh();
    let (_, small) = of_a_follower(&store, &[10, 10]);
    let mut batch = ReadyBatch::new(&store.engine);
    assert!(batch.add_in_parts(&store.engine, REGION, 7, &small).unwrap().is_empty());
    assert_eq!(batch.write(&store.engine).unwrap().len(), 1);

    let store = Ours::fresh();
    let (_, large) = of_a_follower(&store, &[17 * MIB, 257 * MIB]);
    let mut batch = ReadyBatch::new(&store.engine);
    batch.region(REGION).put(b"before", b"yes").unwrap();
    let before = batch.encoded_len();
    let refused = batch.add_in_parts(&store.engine, REGION, 7, &large).unwrap_err();
    assert_eq!((refused.kind(), refused.entries()), (ErrorKind::TooLarge, Some(4..=4)), "{refused}");
    assert_eq!((batch.encoded_len(), batch.durability()), (before, Durability::Written));
}

/// Its first part alone would begin a log of which nobody can say what its configuration was.
#[test]
fn parts_are_refused_where_nothing_says_the_configuration_as_a_batch_is() {
    let store = Ours::fresh();
    let (_, large) = of_a_follower(&store, &[17 * MIB, 17 * MIB]);
    let elsewhere = RegionId(REGION.0 + 1);
    let mut batch = ReadyBatch::new(&store.engine);
    batch.region(REGION).put(b"before", b"yes").unwrap();
    let before = batch.encoded_len();
    let refused = batch.add_in_parts(&store.engine, elsewhere, 7, &large).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.region()),
        (ErrorKind::InvalidArgument, Some(elsewhere)),
        "{refused}"
    );
    assert_eq!((batch.encoded_len(), batch.durability()), (before, Durability::Written));
    let mut batch = ReadyBatch::new(&store.engine).configured_elsewhere();
    assert_eq!(batch.add_in_parts(&store.engine, elsewhere, 7, &large).unwrap().len(), 1);
}
