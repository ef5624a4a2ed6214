//! Regions that come back: one replica is destroyed, and another is made in its place. Nothing of the
//! first may speak for the second.

use super::stores::{Ours, REGION, Store, entry, filled, here, logger, store_error};
use raft::prelude::{ConfState, Message, MessageType};
use raft::{Config, GetEntriesContext, RawNode, Storage, StorageError};
use raftwood::raft_rs::{BOOTSTRAP, Persisted, ReadyBatch, ReadyWriter, RegionStorage, may_send_first};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, RegionId};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A replica as an application drives it: what may not leave before its `Ready` is durable is held.
struct Replica {
    raft: RawNode<RegionStorage>,
    held: VecDeque<(u64, Vec<Message>)>,
}

impl Replica {
    fn new(store: &Ours, id: u64) -> Replica {
        let config = Config { id, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
        Replica { raft: RawNode::new(&config, store.storage(), &logger()).unwrap(), held: VecDeque::new() }
    }

    /// It is asked for its vote by `candidate`, and grants it.
    fn is_asked(&mut self, candidate: u64, term: u64) {
        let mut ask = Message::default();
        ask.set_msg_type(MessageType::MsgRequestVote);
        (ask.from, ask.to, ask.term) = (candidate, self.raft.raft.id, term);
        (ask.index, ask.log_term) = (100, term);
        self.raft.step(ask).unwrap();
    }

    fn submit(&mut self, store: &Ours, writer: &ReadyWriter) {
        let mut ready = self.raft.ready();
        assert!(ready.messages().is_empty() || !may_send_first(&self.raft));
        let mut batch = ReadyBatch::new(&store.engine);
        batch.add_as(REGION, self.raft.raft.id, &ready).unwrap();
        writer.submit(batch).unwrap();
        self.held.push_back((ready.number(), ready.take_persisted_messages()));
        self.raft.advance_append_async(ready);
    }

    /// What may be sent now. A `Persisted` of another replica is none of this one's business.
    fn is_told(&mut self, persisted: Persisted) -> Vec<Message> {
        let mut sent = Vec::new();
        if (persisted.region, persisted.tag) == (REGION, self.raft.raft.id) {
            self.raft.on_persist_ready(persisted.ready);
            while self.held.front().is_some_and(|h| h.0 <= persisted.ready) {
                sent.extend(self.held.pop_front().unwrap().1);
            }
        }
        sent
    }
}

fn votes(messages: &[Message]) -> Vec<(u64, u64)> {
    let granted = |m: &&Message| m.get_msg_type() == MessageType::MsgRequestVoteResponse && !m.reject;
    messages.iter().filter(granted).map(|m| (m.term, m.to)).collect()
}

fn telling(store: &Ours) -> (ReadyWriter, Receiver<Persisted>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let writer = ReadyWriter::new(&store.engine, move |persisted| {
        persisted.unwrap().into_iter().for_each(|p| tell.lock().unwrap().send(p).unwrap());
    });
    (writer, told)
}

fn soon(told: &Receiver<Persisted>) -> Persisted {
    told.recv_timeout(Duration::from_secs(30)).expect("a completion")
}

#[test]
fn what_was_persisted_for_a_destroyed_replica_releases_no_vote_of_the_next_one() {
    // Numbers of `Ready`s begin at 1 for each replica, and a `Persisted` named the region alone. That of peer
    // 3's first `Ready` waited in a queue while peer 3 was destroyed and peer 4 made in its place: it
    // released peer 4's first vote, which was not durable yet. The power went off, and peer 4 voted for
    // another candidate in the same term.
    let disk = SimVfs::new(11);
    let store = Ours::open(disk.clone(), Background::Threads);
    let (writer, told) = telling(&store);
    store.storage().bootstrap(&ConfState::from((vec![1, 2, 3], vec![]))).unwrap();
    let mut old = Replica::new(&store, 3);
    old.is_asked(1, 7);
    old.submit(&store, &writer);
    store.engine.sync().unwrap();
    // Nobody has looked at the queue. The region comes and goes.
    drop(old);
    let mut batch = ReadyBatch::new(&store.engine);
    batch.destroy(REGION, 3);
    writer.submit(batch).unwrap();
    store.engine.sync().unwrap();
    store.storage().bootstrap(&ConfState::from((vec![1, 2, 4], vec![]))).unwrap();
    let mut new = Replica::new(&store, 4);
    disk.block_syncs();
    new.is_asked(1, 9);
    new.submit(&store, &writer);
    disk.wait_for_syncs(1);
    // Now the queue: all of it is the old one's, and harms nobody.
    let waiting: Vec<_> = [soon(&told), soon(&told)].into_iter().chain(told.try_iter()).collect();
    let sent: Vec<_> = waiting.iter().flat_map(|p| new.is_told(*p)).collect();
    let first = votes(&sent);
    // The power goes off, and another candidate asks.
    disk.power_off();
    let after = disk.crash(LossPolicy::LoseAll);
    drop((new, writer));
    let _ = store.engine.close();
    let again = Ours::open(after, Background::Manual);
    let mut new = Replica::new(&again, 4);
    new.is_asked(2, 9);
    let second = votes(&new.raft.ready().take_persisted_messages());
    assert_eq!((first, second), (vec![], vec![(9, 2)]), "votes in term 9, before the crash and after");
    let old = |ready| Persisted { region: REGION, tag: 3, ready };
    assert_eq!(waiting, [old(1), old(0)]);
    assert!(waiting[1].is_destruction());
}

#[test]
fn a_vote_is_released_when_it_is_durable() {
    let store = Ours::open(SimVfs::new(12), Background::Threads);
    let (writer, told) = telling(&store);
    store.storage().bootstrap(&ConfState::from((vec![1, 2, 4], vec![]))).unwrap();
    let mut replica = Replica::new(&store, 4);
    replica.is_asked(1, 9);
    replica.submit(&store, &writer);
    assert_eq!(votes(&replica.is_told(soon(&told))), [(9, 1)]);
}

#[test]
fn a_destruction_is_the_last_that_is_said_of_a_replica_and_is_durable_then() {
    let disk = SimVfs::new(13);
    let store = Ours::open(disk.clone(), Background::Threads);
    let (writer, told) = telling(&store);
    store.storage().bootstrap(&ConfState::from((vec![1, 2, 3], vec![]))).unwrap();
    let mut replica = Replica::new(&store, 3);
    disk.block_syncs();
    replica.is_asked(1, 7);
    replica.submit(&store, &writer);
    disk.wait_for_syncs(1);
    drop(replica);
    // With it, in the same batch, the note that peer 3 is gone.
    let (notes, gone) = (RegionId(u64::MAX), b"gone/1");
    let mut batch = ReadyBatch::new(&store.engine);
    batch.destroy(REGION, 3);
    batch.region(notes).put(gone, &3u64.to_le_bytes()).unwrap();
    writer.submit(batch).unwrap();
    assert!(told.try_recv().is_err(), "nothing is durable");
    disk.release_syncs();
    assert_eq!(soon(&told), Persisted { region: REGION, tag: 3, ready: 1 });
    let last = soon(&told);
    assert_eq!((last.region, last.tag, last.is_destruction()), (REGION, 3, true));
    let again = Ours::open(disk.crash(LossPolicy::LoseAll), Background::Manual);
    assert!(!again.engine.region(REGION).exists());
    assert_eq!(again.engine.region(notes).get(gone).unwrap()[..], 3u64.to_le_bytes());
}

#[test]
fn a_destruction_persists_no_ready_of_the_next_replica_even_where_nobody_looks_at_tags() {
    let store = Ours::fresh();
    store.storage().bootstrap(&ConfState::from((vec![1], vec![]))).unwrap();
    let mut replica = Replica::new(&store, 1);
    replica.raft.campaign().unwrap();
    let mut batch = ReadyBatch::new(&store.engine);
    let ready = replica.raft.ready();
    batch.add(REGION, &ready).unwrap();
    batch.write(&store.engine).unwrap();
    replica.raft.advance_append_async(ready);
    let mut batch = ReadyBatch::new(&store.engine);
    batch.destroy(RegionId(2), 0);
    for Persisted { ready, .. } in batch.write(&store.engine).unwrap() {
        replica.raft.on_persist_ready(ready);
    }
    assert_eq!(replica.raft.raft.raft_log.persisted, BOOTSTRAP.index);
    replica.raft.on_persist_ready(1);
    assert_eq!(replica.raft.raft.raft_log.persisted, BOOTSTRAP.index + 1);
}

#[test]
fn what_was_fetched_for_a_destroyed_replica_is_not_sent_by_the_next_one() {
    // Index and term were all that fetched entries were compared by. Where a region came back as
    // another group, whose entries had the same terms, the next `RawNode` on a clone of the storage was
    // handed those of the group before.
    let write = |store: &Ours, len: usize| {
        store.storage().bootstrap(&ConfState::from((vec![1, 2], vec![]))).unwrap();
        for i in 6..=200 {
            store.append(&[filled(i, 6, len)]);
            store.engine.tick().unwrap();
        }
    };
    for is_read_before in [true, false] {
        let store = Ours::fresh();
        write(&store, 1024);
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let storage =
            store.storage().fetch_far(1, move |_, context| tell.lock().unwrap().send(context).unwrap());
        let fetched = || told.recv_timeout(Duration::from_secs(30)).expect("a notice");
        // Both threads that read are busy, if the region is to come back first.
        let gates: Vec<_> = (0..if is_read_before { 0 } else { 2 })
            .map(|_| {
                let (open, gate) = channel::<()>();
                store.engine.fetch(REGION, 6..7, raftwood::ReadLimit::NONE, move |_| _ = gate.recv());
                open
            })
            .collect();
        let asked = storage.entries(6, 9, None, GetEntriesContext::empty(true));
        assert_eq!(store_error(asked), StorageError::LogTemporarilyUnavailable);
        if is_read_before {
            fetched();
        }
        store.write(|region| _ = region.destroy());
        write(&store, 1030);
        store.set_hard_state(&super::stores::hard_state(6, 0, 0));
        let config = Config { id: 4, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
        let new = RawNode::new(&config, storage.clone(), &logger()).unwrap();
        // It asks for the same, before the first answer has come or after.
        let want: Vec<_> = (6..9).map(|i| filled(i, 6, 1030)).collect();
        assert_eq!(
            store_error(new.raft.store().entries(6, 9, None, GetEntriesContext::empty(true))),
            StorageError::LogTemporarilyUnavailable,
            "read before: {is_read_before}"
        );
        drop(gates);
        fetched();
        if !is_read_before {
            // The former replica is notified of its read too: it may be running, for all that is known.
            fetched();
        }
        let got = new.raft.store().entries(6, 9, None, GetEntriesContext::empty(true)).unwrap();
        assert_eq!(got, want);
        assert_eq!(storage.entries(6, 9, None, here()).unwrap(), want);
    }
}

#[test]
fn a_batch_that_destroys_and_begins_again_is_one() {
    let store = Ours::fresh();
    store.storage().bootstrap(&ConfState::from((vec![1, 2, 3], vec![]))).unwrap();
    store.append(&[entry(6, 6)]);
    let next = ConfState::from((vec![1, 2, 4], vec![]));
    let mut batch = ReadyBatch::new(&store.engine);
    batch.destroy(REGION, 3);
    batch.bootstrap(REGION, &next).unwrap();
    batch.write(&store.engine).unwrap();
    let log = store.engine.region(REGION).state();
    assert_eq!((log.base, log.last), (Some(BOOTSTRAP), BOOTSTRAP.index));
    assert_eq!(store.storage().conf_state().unwrap().unwrap().1, next);
}
