//! What the contract does not ask for, or leaves to the store: far reads, damage, recovery, snapshots, and the write side.

use super::stores::{Ours, REGION, Store, entry, filled, here, snapshot};
use raft::prelude::{ConfState, EntryType, HardState};
use raft::{Config, Error, GetEntriesContext, RawNode, Ready, Storage, StorageError};
use raftwood::raft_rs::{Persisted, ReadyBatch, ReadyWriter, RegionStorage, encode_entry, encode_hard_state};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Background, Durability, EntryId, ErrorKind, Health, RegionId};
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (term, vote, commit);
    state
}

fn store_error<T: std::fmt::Debug>(got: raft::Result<T>) -> StorageError {
    match got {
        Err(Error::Store(e)) => e,
        other => panic!("{other:?} where an error of the store was due"),
    }
}

/// Entries 1..=n of 1 KiB, over several segments of 64 KiB.
fn long_log(n: u64) -> Ours {
    let store = Ours::fresh();
    write_long(&store, 1..=n, 1);
    store
}

fn write_long(store: &Ours, indexes: RangeInclusive<u64>, term: u64) {
    for i in indexes {
        store.append(&[filled(i, term, 1024)]);
        store.engine.tick().unwrap();
    }
}

type Notices = Receiver<(RegionId, GetEntriesContext)>;

fn fetching(store: &Ours) -> (RegionStorage, Notices) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let storage = store.storage().fetch_far(1, move |region, context| {
        tell.lock().unwrap().send((region, context)).unwrap();
    });
    (storage, told)
}

fn soon(told: &Notices) -> GetEntriesContext {
    let (region, context) = told.recv_timeout(Duration::from_secs(30)).expect("a notice");
    assert_eq!(region, REGION);
    context
}

fn may_wait() -> GetEntriesContext {
    GetEntriesContext::empty(true)
}

#[test]
fn a_far_read_is_fetched_and_a_near_one_is_not() {
    let store = long_log(300);
    let (storage, told) = fetching(&store);
    assert_eq!(
        store_error(storage.entries(10, 40, None, may_wait())),
        StorageError::LogTemporarilyUnavailable
    );
    let context = soon(&told);
    // Asked again, for a little less and with a limit, it is there.
    let got = storage.entries(10, 30, Some(5000), context).unwrap();
    assert_eq!(got, (10..14).map(|i| filled(i, 1, 1024)).collect::<Vec<_>>());
    // Whoever cannot wait is served at once, and so is what was written last.
    assert_eq!(storage.entries(10, 40, None, here()).unwrap().len(), 30);
    assert_eq!(storage.entries(299, 301, None, may_wait()).unwrap().len(), 2);
    assert!(told.try_recv().is_err(), "nothing else was fetched");
    // The result was handed out: asking again fetches again.
    assert_eq!(
        store_error(storage.entries(10, 40, None, may_wait())),
        StorageError::LogTemporarilyUnavailable
    );
    soon(&told);
}

/// Keeps both threads that read busy, until it is dropped.
fn busy(store: &Ours) -> Vec<Sender<()>> {
    let gated = |_| {
        let (open, gate) = channel::<()>();
        store.engine.fetch(REGION, 1..2, raftwood::ReadLimit::NONE, move |_| {
            let _ = gate.recv();
        });
        open
    };
    (0..2).map(gated).collect()
}

#[test]
fn two_followers_that_wait_for_the_same_entries_are_both_told() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    // The second asks while the first still waits.
    let gates = busy(&store);
    for _ in 0..2 {
        let got = storage.entries(5, 9, None, may_wait());
        assert_eq!(store_error(got), StorageError::LogTemporarilyUnavailable);
    }
    drop(gates);
    let contexts = [soon(&told), soon(&told)];
    for context in contexts {
        assert_eq!(storage.entries(5, 9, None, context).unwrap().len(), 4);
    }
}

#[test]
fn fetched_entries_that_were_overwritten_meanwhile_are_not_handed_out() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    assert_eq!(store_error(storage.entries(5, 9, None, may_wait())), StorageError::LogTemporarilyUnavailable);
    let context = soon(&told);
    // The new ones are far too, by the time raft comes for them.
    write_long(&store, 5..=200, 2);
    let got = storage.entries(5, 9, None, context).unwrap();
    assert_eq!(got, (5..9).map(|i| filled(i, 2, 1024)).collect::<Vec<_>>());
}

#[test]
fn a_fetch_that_failed_says_nothing_of_what_is_there_later() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    // Fetched, compacted away before anybody came for it, and there again, because the log began anew.
    let gates = busy(&store);
    assert_eq!(store_error(storage.entries(5, 9, None, may_wait())), StorageError::LogTemporarilyUnavailable);
    store.compact_through(100);
    drop(gates);
    let context = soon(&told);
    store.write(|region| _ = region.destroy());
    write_long(&store, 1..=200, 2);
    let got = storage.entries(5, 9, None, context).unwrap();
    assert_eq!(got, (5..9).map(|i| filled(i, 2, 1024)).collect::<Vec<_>>());
}

#[test]
fn what_was_compacted_while_it_was_fetched_is_compacted() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    assert_eq!(store_error(storage.entries(5, 9, None, may_wait())), StorageError::LogTemporarilyUnavailable);
    let context = soon(&told);
    store.compact_through(20);
    assert_eq!(store_error(storage.entries(5, 9, None, context)), StorageError::Compacted);
}

/// Five entries, the third of which has rotted.
fn rotten() -> Ours {
    let store = Ours::fresh();
    store.append(&(1..=5).map(|i| filled(i, 1, 600)).collect::<Vec<_>>());
    let wanted = [3u8; 600];
    let mut flipped = 0;
    for (path, _) in store.disk.list() {
        let bytes = store.disk.read_file(&path).unwrap();
        if let Some(at) = bytes.windows(600).position(|w| w == wanted) {
            store.disk.flip_bit(&path, at as u64 * 8 + 77).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
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
    assert_eq!(store_error(storage.entries(1, 6, None, may_wait())), StorageError::Compacted);
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
fn a_commit_index_that_the_log_does_not_reach_is_an_error_where_raft_would_panic() {
    let store = Ours::fresh();
    store.append(&[entry(1, 1)]);
    store.set_hard_state(&hard_state(1, 0, 2));
    match store_error(store.storage().initial_state()) {
        StorageError::Other(e) => assert!(e.to_string().contains("entry 2 is committed"), "{e}"),
        e => panic!("{e:?}"),
    }
}

#[test]
fn a_commit_index_that_was_not_noted_before_compaction_does_not_stop_the_start() {
    let store = Ours::fresh();
    store.set_conf_state(&ConfState::from((vec![1], vec![])));
    store.append(&[entry(1, 1), entry(2, 1), entry(3, 1)]);
    store.set_hard_state(&hard_state(1, 1, 1));
    store.compact_through(2);
    let state = store.storage().initial_state().unwrap();
    assert_eq!(state.hard_state, hard_state(1, 1, 2));
    let config = Config { id: 1, applied: 2, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    RawNode::new(&config, store.storage(), &logger()).unwrap();
    // Where that is of a newer term, nobody was voted for in it.
    store.append(&[entry(4, 2)]);
    store.compact_through(4);
    assert_eq!(store.storage().initial_state().unwrap().hard_state, hard_state(2, 0, 4));
}

#[test]
fn a_region_is_bootstrapped_once() {
    let store = Ours::fresh();
    let conf_state = ConfState::from((vec![1, 2, 3], vec![]));
    store.storage().bootstrap(&conf_state).unwrap();
    assert_eq!(store.storage().initial_state().unwrap().conf_state, conf_state);
    let again = store.storage().bootstrap(&ConfState::from((vec![1], vec![]))).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    assert_eq!(again.region(), Some(REGION));
    assert_eq!(store.storage().initial_state().unwrap().conf_state, conf_state);
}

#[test]
fn a_log_that_ends_before_what_was_applied_starts_anew_behind_it() {
    // Too short; and long enough, but with another leader's entry there.
    for terms in [[2, 2, 2].as_slice(), &[2, 2, 2, 2, 2, 2, 2, 2, 2, 2]] {
        let store = Ours::fresh();
        let entries: Vec<_> = terms.iter().zip(1..).map(|(&t, i)| entry(i, t)).collect();
        store.append(&entries);
        store.set_hard_state(&hard_state(4, 3, 2));
        let conf_state = ConfState::from((vec![1, 2, 3], vec![]));
        store.storage().recover(EntryId::new(3, 9), Some(&conf_state)).unwrap();
        let storage = store.storage();
        assert_eq!((storage.first_index().unwrap(), storage.last_index().unwrap()), (10, 9));
        assert_eq!(storage.term(9).unwrap(), 3);
        let state = storage.initial_state().unwrap();
        assert_eq!(state.hard_state, hard_state(4, 3, 9), "term and vote stay");
        assert_eq!(state.conf_state, conf_state);
        let config = Config { id: 1, applied: 9, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
        let node = RawNode::new(&config, storage, &logger()).unwrap();
        assert_eq!(node.raft.raft_log.applied(), 9);
    }
}

#[test]
fn a_log_behind_which_nothing_was_applied_is_left_as_it_is() {
    let store = Ours::fresh();
    store.set_conf_state(&ConfState::from((vec![1], vec![])));
    store.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
    store.set_hard_state(&hard_state(2, 1, 3));
    let accepted = store.engine.stats().accepted;
    store.storage().recover(EntryId::new(1, 2), None).unwrap();
    store.storage().recover(EntryId::new(0, 0), None).unwrap();
    assert_eq!(store.engine.stats().accepted, accepted, "nothing was written");
    // A commit index that lags behind what was applied is raised.
    store.set_hard_state(&hard_state(2, 1, 1));
    store.storage().recover(EntryId::new(2, 3), None).unwrap();
    assert_eq!(store.storage().initial_state().unwrap().hard_state, hard_state(2, 1, 3));
    assert_eq!(store.storage().last_index().unwrap(), 3);
}

#[test]
fn a_vote_of_an_older_term_is_not_carried_into_the_term_of_a_snapshot() {
    let store = Ours::fresh();
    store.set_hard_state(&hard_state(2, 3, 0));
    store.storage().recover(EntryId::new(5, 9), None).unwrap();
    assert_eq!(store.storage().hard_state().unwrap(), hard_state(5, 0, 9));
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

// ---- the write side ------------------------------------------------------------------------------------------------

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn group(store: &Ours, id: u64) -> RawNode<RegionStorage> {
    let storage = RegionStorage::new(&store.engine, RegionId(id));
    storage.bootstrap(&ConfState::from((vec![1], vec![]))).unwrap();
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    RawNode::new(&config, storage, &logger()).unwrap()
}

fn campaigning(store: &Ours, id: u64) -> (RawNode<RegionStorage>, Ready) {
    let mut node = group(store, id);
    node.campaign().unwrap();
    let ready = node.ready();
    (node, ready)
}

#[test]
fn many_readies_are_one_record_and_one_sync() {
    let store = Ours::fresh();
    let mut groups: Vec<_> = (1..=50).map(|id| campaigning(&store, id)).collect();
    let before = store.engine.stats();
    let mut batch = ReadyBatch::new(&store.engine);
    for (id, (_, ready)) in (1..).zip(&groups) {
        batch.add(RegionId(id), ready).unwrap();
    }
    let persisted = batch.write(&store.engine).unwrap();
    let after = store.engine.stats();
    assert_eq!((after.batches - before.batches, after.syncs - before.syncs), (1, 1));
    let want: Vec<_> = (1..)
        .zip(&groups)
        .map(|(id, (_, r))| Persisted { region: RegionId(id), ready: r.number() })
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
    assert_eq!(store.engine.region(RegionId(2)).last_index(), 0);
    assert_eq!(store.storage().hard_state().unwrap().vote, 1);
}

#[test]
fn completions_come_in_order_though_an_unsynced_write_is_done_sooner() {
    let disk = SimVfs::new(2);
    let store = Ours::open(disk.clone(), Background::Threads);
    let (mut node, ready) = campaigning(&store, 1);
    let told = Arc::new(Mutex::new(Vec::new()));
    let (tell, ring) = channel();
    let (sink, tell) = (told.clone(), Mutex::new(tell));
    let writer = ReadyWriter::new(&store.engine, move |persisted| {
        sink.lock().unwrap().push(persisted.unwrap());
        tell.lock().unwrap().send(()).unwrap();
    });
    disk.block_syncs();
    let mut batch = ReadyBatch::new(&store.engine);
    batch.add(RegionId(1), &ready).unwrap();
    let number = ready.number();
    writer.submit(batch).unwrap();
    node.advance_append_async(ready);
    disk.wait_for_syncs(1);
    // This one only needs to be written; its own ticket would complete while the sync hangs.
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_hard_state(RegionId(1), &hard_state(1, 1, 0)).unwrap();
    let ticket = batch.clone().submit(&store.engine).unwrap().0;
    ticket.wait().unwrap();
    writer.submit(batch).unwrap();
    assert!(told.lock().unwrap().is_empty(), "told before the first is durable");
    disk.release_syncs();
    for _ in 0..2 {
        ring.recv_timeout(Duration::from_secs(30)).unwrap();
    }
    let first = vec![Persisted { region: RegionId(1), ready: number }];
    assert_eq!(*told.lock().unwrap(), [first, vec![]]);
    node.on_persist_ready(number);
    assert!(node.has_ready());
}

#[test]
fn a_refused_batch_comes_back_and_does_not_hold_up_the_line() {
    let store = Ours::fresh();
    let told = Arc::new(Mutex::new(0));
    let sink = told.clone();
    let writer = ReadyWriter::new(&store.engine, move |persisted| {
        persisted.unwrap();
        *sink.lock().unwrap() += 1;
    });
    let mut gap = ReadyBatch::new(&store.engine);
    gap.region(REGION).reset(EntryId::new(1, 5)).unwrap();
    gap.region(REGION).append_with(EntryId::new(1, 9), |out| encode_entry(&entry(9, 1), out)).unwrap();
    let refused = writer.submit(gap).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Gap);
    assert!(!refused.into_batch().unwrap().is_empty());
    let mut fine = ReadyBatch::new(&store.engine);
    fine.region(REGION).set_hard_state(&encode_hard_state(&hard_state(1, 1, 0))).unwrap();
    writer.submit(fine).unwrap();
    assert_eq!(*told.lock().unwrap(), 1);
}

#[test]
fn after_an_io_error_the_sink_is_told_and_nothing_more_is_acknowledged() {
    use raftwood::vfs::sim::{Effect, Fault, OpKind};
    let store = Ours::fresh();
    let (_node, ready) = campaigning(&store, 1);
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let writer = ReadyWriter::new(&store.engine, move |persisted| {
        sink.lock().unwrap().push(persisted.map_err(|e| e.kind()));
    });
    store.disk.set_fault(Fault::new(Effect::Error(5)).on(OpKind::SyncData));
    let mut batch = ReadyBatch::new(&store.engine);
    batch.add(RegionId(1), &ready).unwrap();
    writer.submit(batch.clone()).unwrap();
    assert_eq!(*told.lock().unwrap(), [Err(ErrorKind::Poisoned)]);
    assert_eq!(writer.submit(batch).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(told.lock().unwrap().len(), 1);
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
    assert_eq!(EntryType::EntryNormal, entry(1, 1).get_entry_type());
}
