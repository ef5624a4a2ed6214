//! How a group begins, and how a replica comes to it later: with a snapshot, never with the log
//! from its first entry on.
//!
//! The log of a bootstrapped region used to begin at index 1. An empty replica, given no configuration
//! as the documentation asks, took it from there, applied its own addition and, knowing of nobody else,
//! was the only voter of its own configuration: cut off from the others it led alone, and two values
//! were committed at one index.

use super::stores::{Ours, REGION, Store, entry, filled, hard_state, logger, snapshot};
use raft::prelude::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message, Snapshot};
use raft::{Config, RawNode, StateRole, Storage};
use raftwood::raft_rs::{BOOTSTRAP, ReadyBatch, RegionStorage, encode_conf_state};
use raftwood::vfs::sim::LossPolicy;
use raftwood::{Background, Durability, EntryId, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

fn three() -> ConfState {
    ConfState::from((vec![1, 2, 3], vec![]))
}

// ---- three nodes and one that joins -----------------------------------------------------------------------

/// What was applied, by index.
type Applied = BTreeMap<u64, (u64, Vec<u8>)>;

struct Node {
    store: Ours,
    raft: RawNode<RegionStorage>,
    applied: Applied,
    conf_state: ConfState,
    snapshots: u64,
    /// What raft may send as a snapshot: the state as of this entry.
    offered: Arc<Mutex<(EntryId, ConfState)>>,
    /// What the store refused, if it did: the node stands still from then on.
    refused: Option<raftwood::Error>,
}

impl Node {
    fn new(id: u64, store: Ours, applied: EntryId) -> Node {
        let conf_state = store.storage().initial_state().unwrap().conf_state;
        let offered = Arc::new(Mutex::new((applied, conf_state.clone())));
        let offer = offered.clone();
        let storage = store.storage().snapshots(move |_: u64, _: u64| {
            let (at, conf_state) = offer.lock().unwrap().clone();
            let mut snapshot = Snapshot::default();
            snapshot.mut_metadata().set_index(at.index);
            snapshot.mut_metadata().set_term(at.term);
            snapshot.mut_metadata().set_conf_state(conf_state);
            Some(snapshot)
        });
        let config =
            Config { id, applied: applied.index, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
        let raft = RawNode::new(&config, storage, &logger()).unwrap();
        Node { store, raft, applied: Applied::new(), conf_state, snapshots: 0, offered, refused: None }
    }

    fn work(&mut self, out: &mut Vec<Message>) {
        while self.refused.is_none() && self.raft.has_ready() {
            let mut ready = self.raft.ready();
            let mut batch = ReadyBatch::new(&self.store.engine);
            if let Err(refused) = batch.add_as(REGION, self.raft.raft.id, &ready) {
                self.refused = Some(refused);
                return;
            }
            batch.write(&self.store.engine).unwrap();
            if !ready.snapshot().is_empty() {
                let meta = ready.snapshot().get_metadata();
                self.snapshots += 1;
                self.conf_state = meta.get_conf_state().clone();
                *self.offered.lock().unwrap() =
                    (EntryId::new(meta.term, meta.index), self.conf_state.clone());
            }
            out.extend(ready.take_messages());
            out.extend(ready.take_persisted_messages());
            let mut committed = ready.take_committed_entries();
            let mut light = self.raft.advance(ready);
            out.extend(light.take_messages());
            committed.extend(light.take_committed_entries());
            committed.into_iter().for_each(|e| self.apply(e));
            self.raft.advance_apply();
        }
    }

    fn apply(&mut self, entry: Entry) {
        if entry.get_entry_type() == EntryType::EntryConfChange {
            let change: ConfChange = protobuf::Message::parse_from_bytes(&entry.data).unwrap();
            self.conf_state = self.raft.apply_conf_change(&change).unwrap();
        }
        *self.offered.lock().unwrap() = (EntryId::new(entry.term, entry.index), self.conf_state.clone());
        self.applied.insert(entry.index, (entry.term, entry.data.to_vec()));
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }
}

struct Group(BTreeMap<u64, Node>);

impl Group {
    /// Three replicas, made by `make`; node 1 leads, and five entries are applied by all.
    fn new(make: impl Fn(u64) -> Node) -> Group {
        let mut group = Group((1..=3).map(|id| (id, make(id))).collect());
        group.node(1).raft.campaign().unwrap();
        group.settle(None);
        assert!(group.node(1).leads());
        for n in 0..5u8 {
            group.propose(1, vec![n]);
        }
        group.settle(None);
        group
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.0.get_mut(&id).unwrap()
    }

    fn propose(&mut self, id: u64, data: Vec<u8>) {
        let _ = self.node(id).raft.propose(vec![], data);
    }

    /// Until nothing is said any more. Nothing reaches the node that is cut off, nor comes from it.
    fn settle(&mut self, cut_off: Option<u64>) {
        loop {
            let mut sent = Vec::new();
            self.0.values_mut().for_each(|n| n.work(&mut sent));
            if sent.is_empty() {
                return;
            }
            for m in sent {
                if ![m.from, m.to].iter().any(|&id| Some(id) == cut_off)
                    && let Some(node) = self.0.get_mut(&m.to)
                {
                    let _ = node.raft.step(m);
                }
            }
        }
    }

    /// The leader speaks to all for a while.
    fn beat(&mut self) {
        for _ in 0..20 {
            self.node(1).raft.tick();
            self.settle(None);
        }
    }

    /// Node 4 joins, with a store that holds nothing and no configuration.
    fn join(&mut self) {
        self.0.insert(4, Node::new(4, Ours::fresh(), EntryId::default()));
        let mut change = ConfChange::default();
        change.set_change_type(ConfChangeType::AddNode);
        change.node_id = 4;
        self.node(1).raft.propose_conf_change(vec![], change).unwrap();
        self.settle(None);
        self.beat();
    }

    /// Node 4 is cut off for longer than an election takes, and both sides are written to.
    fn part(&mut self) {
        for _ in 0..100 {
            self.node(4).raft.tick();
            self.settle(Some(4));
        }
        self.propose(4, b"to node 4".to_vec());
        self.propose(1, b"to the others".to_vec());
        self.settle(Some(4));
    }

    /// No two replicas applied two values at one index.
    fn agree(&self) {
        for (a, one) in &self.0 {
            for (b, other) in &self.0 {
                for (index, value) in &one.applied {
                    let same = other.applied.get(index).is_none_or(|v| v == value);
                    assert!(same, "nodes {a} and {b} applied two values at index {index}");
                }
            }
        }
    }
}

fn bootstrapped(id: u64) -> Node {
    let store = Ours::fresh();
    let applied = store.storage().bootstrap(&three()).unwrap();
    Node::new(id, store, applied)
}

#[test]
fn a_replica_that_joins_gets_a_snapshot_and_commits_nothing_alone() {
    let mut group = Group::new(bootstrapped);
    group.join();
    let joined = group.node(4);
    assert_eq!((joined.snapshots, joined.refused.take().map(|e| e.to_string())), (1, None));
    assert_eq!(joined.conf_state.voters.len(), 4);
    group.part();
    assert!(!group.node(4).leads(), "alone, one of four voters");
    group.agree();
    assert_eq!(group.node(1).applied.values().next_back().unwrap().1, b"to the others");
}

#[test]
fn a_replica_that_comes_before_anything_was_applied_gets_the_first_state() {
    // Of the first three, one may have been given nothing. The snapshot is of the entry that nobody holds.
    let mut leader = bootstrapped(1);
    let of_first = leader.raft.store().snapshot(0, 3).unwrap();
    assert_eq!(
        (of_first.get_metadata().term, of_first.get_metadata().index),
        (BOOTSTRAP.term, BOOTSTRAP.index)
    );
    assert_eq!(leader.raft.store().first_index().unwrap(), BOOTSTRAP.index + 1);
    leader.raft.campaign().unwrap();
    assert_eq!(leader.raft.raft.term, BOOTSTRAP.term + 1);
    let mut joiner = Node::new(3, Ours::fresh(), EntryId::default());
    let mut message = Message::default();
    message.set_msg_type(raft::prelude::MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (1, 3, 6);
    message.set_snapshot(of_first);
    joiner.raft.step(message).unwrap();
    joiner.work(&mut Vec::new());
    assert_eq!((joiner.snapshots, joiner.conf_state.clone()), (1, three()));
    assert_eq!(joiner.store.storage().recover(BOOTSTRAP, Some(&three())).unwrap(), BOOTSTRAP);
}

// ---- logs that begin at index 1 ---------------------------------------------------------------------------

/// As release 0.1.0 bootstrapped a region: a configuration as of index 0, and nothing else.
fn of_old(id: u64) -> Node {
    let store = Ours::fresh();
    store.set_conf_state(&three());
    // No state machine has applied anything, and none is moved to where new regions begin: their
    // peers' logs begin at 1.
    assert_eq!(store.storage().recover(EntryId::default(), Some(&three())).unwrap(), EntryId::default());
    Node::new(id, store, EntryId::default())
}

#[test]
fn a_region_that_an_older_release_bootstrapped_works_on_and_its_joiner_is_refused_until_the_log_is_compacted()
{
    let mut group = Group::new(of_old);
    assert_eq!(group.node(1).applied.keys().next(), Some(&1));
    assert_eq!(group.0[&2].applied, group.0[&3].applied);
    group.join();
    // The log from index 1 on would make it the only voter of its own configuration.
    let refused = group.node(4).refused.take().expect("a log without a configuration is refused");
    assert_eq!((refused.kind(), refused.region()), (ErrorKind::InvalidArgument, Some(REGION)));
    for part in ["entries from 1 on", "no configuration", "compact the leader's log", "configured_elsewhere"]
    {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    // As it says: compacted, and started again.
    group.node(1).store.compact_through(3);
    let store = group.0.remove(&4).unwrap().store;
    assert_eq!(store.engine.region(REGION).last_index(), 0, "nothing of it was written");
    group.0.insert(4, Node::new(4, store, EntryId::default()));
    group.beat();
    let joined = group.node(4);
    assert_eq!((joined.snapshots, joined.conf_state.voters.len()), (1, 4));
    group.part();
    assert!(!group.node(4).leads());
    group.agree();
}

/// What an empty replica of group `REGION` is sent, that has to begin at index 1.
fn first_entries() -> raft::Ready {
    let store = Ours::fresh();
    let config = Config { id: 4, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    let mut node = RawNode::new(&config, store.storage(), &logger()).unwrap();
    let mut message = Message::default();
    message.set_msg_type(raft::prelude::MessageType::MsgAppend);
    (message.from, message.to, message.term) = (1, 4, 1);
    message.set_entries(vec![entry(1, 1), filled(2, 1, 9)].into());
    node.step(message).unwrap();
    node.ready()
}

#[test]
fn a_log_from_index_one_is_refused_where_nothing_says_its_configuration() {
    let put = |b: &mut ReadyBatch, state: &ConfState| {
        b.region(REGION).put(b"raft/conf_state", &encode_conf_state(0, state)).map(drop)
    };
    let none = |_: &mut ReadyBatch| Ok(());
    let empty = |b: &mut ReadyBatch| put(b, &ConfState::default());
    let of_old = |b: &mut ReadyBatch| put(b, &three());
    let destroyed = |b: &mut ReadyBatch| {
        put(b, &three())?;
        b.destroy(REGION, 3);
        Ok(())
    };
    type Add<'a> = &'a dyn Fn(&mut ReadyBatch) -> Result<()>;
    let cases: [(&str, Add<'_>, bool); 4] = [
        ("nothing", &none, false),
        ("a configuration without voters", &empty, false),
        ("one as of index 0", &of_old, true),
        ("one that was destroyed", &destroyed, false),
    ];
    for (what, fill, is_fine) in cases {
        // What stands in the store, and what the same batch brings.
        for is_stored in [true, false] {
            let store = Ours::fresh();
            let mut batch = ReadyBatch::new(&store.engine);
            fill(&mut batch).unwrap();
            if is_stored {
                batch.write(&store.engine).unwrap();
                batch = ReadyBatch::new(&store.engine);
            }
            let len = batch.encoded_len();
            let added = batch.add_as(REGION, 4, &first_entries());
            assert_eq!(added.is_ok(), is_fine, "{what}: {added:?}");
            if let Err(e) = added {
                assert_eq!((e.kind(), e.region()), (ErrorKind::InvalidArgument, Some(REGION)), "{what}");
                assert_eq!(batch.encoded_len(), len, "{what}: the batch is as it was");
            }
        }
    }
    // A region that is destroyed in the batch has no configuration any more, whatever the store says.
    let store = Ours::fresh();
    store.set_conf_state(&three());
    let mut batch = ReadyBatch::new(&store.engine);
    batch.destroy(REGION, 3);
    assert_eq!(batch.add_as(REGION, 4, &first_entries()).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn an_application_that_keeps_configurations_itself_says_so_and_may_begin_at_one() {
    let store = Ours::fresh();
    let mut batch = ReadyBatch::new(&store.engine).configured_elsewhere();
    batch.add_as(REGION, 4, &first_entries()).unwrap();
    // Also where a batch is refused and comes back.
    batch.region(REGION).append_with(EntryId::new(1, 9), |_| ()).unwrap();
    let mut again = batch.write(&store.engine).unwrap_err().into_batch().unwrap();
    again.region(REGION).destroy();
    again.add_as(REGION, 4, &first_entries()).unwrap();
    again.set_conf_state(REGION, 2, &three()).unwrap();
    drop(again);
    let mut batch = ReadyBatch::new(&store.engine).configured_elsewhere();
    batch.add_as(REGION, 4, &first_entries()).unwrap();
    batch.write(&store.engine).unwrap();
    assert_eq!(store.engine.region(REGION).state().last, 2);
}

// ---- where a group begins ---------------------------------------------------------------------------------

/// What a bootstrapped region holds.
fn begins_after_the_base(store: &Ours) {
    let log = store.engine.region(REGION).state();
    assert_eq!((log.base, log.first, log.last), (Some(BOOTSTRAP), BOOTSTRAP.index + 1, BOOTSTRAP.index));
    assert_eq!(store.storage().hard_state().unwrap(), hard_state(BOOTSTRAP.term, 0, BOOTSTRAP.index));
    assert_eq!(store.storage().conf_state().unwrap(), Some((BOOTSTRAP.index, three())));
}

#[test]
fn whichever_way_a_region_gets_its_first_configuration_its_log_begins_after_the_base() {
    fn batch(store: &Ours, fill: impl FnOnce(&mut ReadyBatch)) {
        let mut batch = ReadyBatch::new(&store.engine);
        fill(&mut batch);
        assert_eq!(batch.durability(), Durability::Synced);
        batch.write(&store.engine).unwrap();
    }
    let ways: [fn(&Ours); 6] = [
        |store| assert_eq!(store.storage().bootstrap(&three()).unwrap(), BOOTSTRAP),
        |store| assert_eq!(store.storage().recover(EntryId::default(), Some(&three())).unwrap(), BOOTSTRAP),
        |store| assert_eq!(store.storage().recover(BOOTSTRAP, Some(&three())).unwrap(), BOOTSTRAP),
        |store| batch(store, |b| assert_eq!(b.bootstrap(REGION, &three()).unwrap(), BOOTSTRAP)),
        |store| batch(store, |b| b.set_conf_state(REGION, 0, &three()).unwrap()),
        |store| batch(store, |b| b.set_conf_state(REGION, BOOTSTRAP.index, &three()).unwrap()),
    ];
    for begin in ways {
        let store = Ours::fresh();
        begin(&store);
        begins_after_the_base(&store);
        // Once more, from a state machine that knows nothing of it, or all: nothing is written.
        let accepted = store.engine.stats().accepted;
        for applied in [EntryId::default(), BOOTSTRAP] {
            assert_eq!(store.storage().recover(applied, Some(&three())).unwrap(), BOOTSTRAP);
            assert_eq!(store.storage().recover(applied, None).unwrap(), BOOTSTRAP);
        }
        assert_eq!(store.engine.stats().accepted, accepted);
        // And it is durable.
        begins_after_the_base(&Ours::open(store.disk.crash(LossPolicy::LoseAll), Background::Manual));
    }
}

#[test]
fn a_power_cut_leaves_a_bootstrap_whole_or_not_at_all() {
    for calls in 0.. {
        let store = Ours::fresh();
        store.disk.halt_after(store.disk.ops() + calls);
        let done = store.storage().bootstrap(&three()).is_ok();
        for policy in [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(calls)] {
            let again = Ours::open(store.disk.crash(policy), Background::Manual);
            match again.engine.region(REGION).exists() {
                true => begins_after_the_base(&again),
                false => assert!(!done, "it was acknowledged"),
            }
        }
        if done {
            return;
        }
    }
}

#[test]
fn a_replica_without_a_configuration_is_left_alone_until_its_snapshot_comes() {
    let store = Ours::fresh();
    for conf_state in [None, Some(ConfState::default())] {
        let stands = store.storage().recover(EntryId::default(), conf_state.as_ref()).unwrap();
        assert_eq!(stands, EntryId::default());
    }
    assert!(!store.engine.region(REGION).exists());
    // Nor is it bootstrapped with nobody in it,
    let empty = store.storage().bootstrap(&ConfState::default()).unwrap_err();
    assert_eq!((empty.kind(), empty.region()), (ErrorKind::InvalidArgument, Some(REGION)));
    // nor given a configuration as of an entry that it does not have, nor one at all once it knows its group.
    let mut batch = ReadyBatch::new(&store.engine);
    assert_eq!(batch.set_conf_state(REGION, 7, &three()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    store.set_hard_state(&hard_state(3, 0, 0));
    for index in [0, 5, 7] {
        let refused = batch.set_conf_state(REGION, index, &three()).unwrap_err();
        assert_eq!((refused.kind(), refused.region()), (ErrorKind::InvalidArgument, Some(REGION)));
    }
    assert!(batch.is_empty());
    assert_eq!(batch.bootstrap(REGION, &three()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    // With its snapshot it has one, and may get others.
    store.apply_snapshot(&snapshot(9, 3, &[1, 2, 3, 4]));
    batch.set_conf_state(REGION, 11, &three()).unwrap();
}

#[test]
fn a_state_machine_that_lost_what_it_had_is_not_recovered_to_the_beginning() {
    let store = Ours::fresh();
    store.storage().bootstrap(&three()).unwrap();
    store.append(&(6..=9).map(|i| entry(i, 6)).collect::<Vec<_>>());
    store.set_hard_state(&hard_state(6, 1, 9));
    // All of the log is there still: it is applied once more.
    assert_eq!(store.storage().recover(EntryId::default(), Some(&three())).unwrap(), BOOTSTRAP);
    store.compact_through(6);
    let refused = store.storage().recover(EntryId::default(), Some(&three())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Compacted);
}

#[test]
fn many_regions_are_bootstrapped_in_one_record() {
    let store = Ours::fresh();
    let before = store.engine.stats();
    let mut batch = ReadyBatch::new(&store.engine);
    for id in 1..=50 {
        batch.bootstrap(raftwood::RegionId(id), &three()).unwrap();
    }
    assert_eq!(batch.bootstrap(REGION, &three()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    batch.write(&store.engine).unwrap();
    let after = store.engine.stats();
    assert_eq!((after.batches - before.batches, after.syncs - before.syncs), (1, 1));
    begins_after_the_base(&store);
}
