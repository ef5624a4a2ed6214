//! What the adapter discards of a replica, and nobody is known to have.

use super::stores::{Ours, REGION, Store, entry, hard_state, logger, options, snapshot};
use crate::support::asked::Asked;
use raft::prelude::{ConfState, Message, MessageType};
use raft::{Config, RawNode};
use raftwood::RollbackCause::{Destroyed, Reset};
use raftwood::raft_rs::{ReadyBatch, Tombstones, encode_hard_state};
use raftwood::vfs::sim::SimVfs;
use raftwood::{EntryId, ErrorKind, RegionId};
use std::sync::Arc;

/// Entries 1 to 6 of term 2, of which 4 are committed.
fn store() -> (Ours, Arc<Asked>) {
    let (disk, listener) = (SimVfs::new(3), Asked::new());
    let store = Ours { engine: options(&disk).listener(listener.clone()).open("/db").unwrap(), disk };
    store.set_conf_state(&ConfState::from((vec![1, 2, 3], vec![])));
    store.append(&(1..=6).map(|index| entry(index, 2)).collect::<Vec<_>>());
    store.set_hard_state(&hard_state(2, 1, 4));
    (store, listener)
}

#[test]
fn a_destruction_asks_for_what_stands_above_the_commit_index() {
    let (store, listener) = store();
    let tombstones = Tombstones::new(&store.engine, RegionId(99));
    listener.refuse(true);
    let mut batch = ReadyBatch::new(&store.engine);
    tombstones.destroy(&mut batch, REGION, 1).unwrap();
    let refused = batch.write(&store.engine).unwrap_err();
    assert_eq!(
        (refused.error().kind(), listener.take()),
        (ErrorKind::Refused, vec![(REGION, 5, 6, Destroyed)])
    );
    assert!(store.engine.region(REGION).exists() && !tombstones.is_gone(REGION, 1).unwrap());
    // A commit index that comes with the same batch counts.
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_hard_state(REGION, &hard_state(2, 1, 6)).unwrap();
    tombstones.destroy(&mut batch, REGION, 1).unwrap();
    batch.write(&store.engine).unwrap();
    assert_eq!(listener.take(), []);
}

#[test]
fn a_destruction_of_a_replica_whose_hard_state_cannot_be_read_asks_for_all_above_its_base() {
    let (store, listener) = store();
    store.compact_through(2);
    store.write(|region| _ = region.set_hard_state(b"\xff\xff of another program").unwrap());
    let mut batch = ReadyBatch::new(&store.engine);
    batch.destroy(REGION, 1);
    batch.write(&store.engine).unwrap();
    assert_eq!(listener.take(), [(REGION, 3, 6, Destroyed)]);
}

#[test]
fn a_recovery_asks_for_what_contradicts_the_state_machine_and_stands_after_it() {
    for (applied, asked) in [
        (EntryId::new(2, 5), vec![]),
        (EntryId::new(3, 9), vec![]),
        (EntryId::new(3, 5), vec![(REGION, 5, 6, Reset)]),
    ] {
        let (store, listener) = store();
        store.storage().recover(applied, None).unwrap();
        assert_eq!(listener.take(), asked, "{applied}");
    }
}

#[test]
fn a_snapshot_asks_for_what_contradicts_it_and_stands_after_it() {
    for (at, asked) in [(EntryId::new(3, 5), vec![(REGION, 5, 6, Reset)]), (EntryId::new(3, 9), vec![])] {
        let (store, listener) = store();
        let config = Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
        let mut node = RawNode::new(&config, store.storage(), &logger()).unwrap();
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgSnapshot);
        (m.from, m.to, m.term) = (2, 1, 3);
        m.set_snapshot(snapshot(at.index, at.term, &[1, 2, 3]));
        node.step(m).unwrap();
        let ready = node.ready();
        assert!(!ready.snapshot().is_empty());
        listener.refuse(true);
        let mut batch = ReadyBatch::new(&store.engine);
        batch.add_as(REGION, 1, &ready).unwrap();
        match batch.write(&store.engine) {
            Ok(_) => assert!(asked.is_empty()),
            Err(refused) => {
                assert_eq!(refused.error().kind(), ErrorKind::Refused);
                assert_eq!(store.engine.region(REGION).last_index(), 6);
                assert_eq!(
                    store.engine.region(REGION).hard_state().unwrap(),
                    encode_hard_state(&hard_state(2, 1, 4))
                );
            }
        }
        assert_eq!(listener.take(), asked, "{at}");
    }
}
