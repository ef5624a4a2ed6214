//! `Ready`s on their way without blocking, and what may leave before them.

use super::stores::{Ours, REGION, Store, campaigning, entry, hard_state, logger};
use raft::prelude::{ConfState, MessageType};
use raft::{Config, RawNode};
use raftwood::raft_rs::{
    Persisted, ReadyBatch, ReadyWriter, RegionStorage, encode_entry, encode_hard_state, may_send_first,
};
use raftwood::vfs::sim::{Effect, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Background, BoxError, EntryId, ErrorKind, EventListener, Options, RegionId, Result, Rollback,
};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The first record of a run, for which a segment has to be made: what comes after it needs
/// nothing of the disk but its own.
fn begin(engine: &raftwood::Engine) {
    let mut batch = engine.batch();
    batch.region(raftwood::RegionId(u64::MAX)).put(b"k", b"begun").unwrap();
    engine.write(batch, raftwood::Durability::Synced).unwrap();
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
    begin(&store.engine);
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
    let first = vec![Persisted { region: RegionId(1), tag: 0, ready: number }];
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

/// A batch of one hard state, which needs no sync by itself.
fn small(store: &Ours, term: u64, is_synced: bool) -> ReadyBatch {
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_hard_state(REGION, &hard_state(term, 1, 0)).unwrap();
    if is_synced {
        batch.require_sync();
    }
    batch
}

type Told = Receiver<Result<Vec<Persisted>>>;

/// A writer whose sink passes on what is delivered to it.
fn telling(store: &Ours) -> (ReadyWriter, Told) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    (ReadyWriter::new(&store.engine, move |persisted| tell.lock().unwrap().send(persisted).unwrap()), told)
}

fn soon(told: &Told) -> Result<Vec<Persisted>> {
    told.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn what_was_written_behind_a_failed_sync_is_not_told_as_persisted() {
    // `on_persist_ready` of the later one would have said that the earlier one is durable too.
    let disk = SimVfs::new(3);
    let store = Ours::open(disk.clone(), Background::Threads);
    let (writer, told) = telling(&store);
    begin(&store.engine);
    disk.block_syncs();
    writer.submit(small(&store, 1, true)).unwrap();
    disk.wait_for_syncs(1);
    writer.submit(small(&store, 1, false)).unwrap();
    // It is written, and its ticket complete, when one after it is.
    small(&store, 1, false).submit(&store.engine).unwrap().0.wait().unwrap();
    disk.set_fault(Fault::new(Effect::Error(5)).on(OpKind::SyncData));
    disk.release_syncs();
    for _ in 0..2 {
        assert_eq!(soon(&told).unwrap_err().kind(), ErrorKind::Poisoned);
    }
    assert_eq!(writer.submit(small(&store, 1, false)).unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_sink_that_panics_is_told_of_the_others_all_the_same() {
    let disk = SimVfs::new(4);
    let store = Ours::open(disk.clone(), Background::Threads);
    let (tell, told) = channel();
    let tell = Mutex::new((tell, 0));
    let writer = ReadyWriter::new(&store.engine, move |persisted| {
        let mut tell = tell.lock().unwrap_or_else(|e| e.into_inner());
        tell.1 += 1;
        tell.0.send(persisted).unwrap();
        assert!(tell.1 > 1, "the first time, on purpose");
    });
    begin(&store.engine);
    disk.block_syncs();
    for n in 0..3 {
        writer.submit(small(&store, 1, n == 0)).unwrap();
    }
    disk.wait_for_syncs(1);
    disk.release_syncs();
    for _ in 0..3 {
        let _ = soon(&told);
    }
    // As the documentation of tickets says: a panic ends that call of the sink and nothing else.
    writer.submit(small(&store, 1, false)).unwrap();
    let _ = soon(&told);
}

#[test]
fn a_batch_over_which_a_listener_panics_does_not_hold_up_the_line() {
    #[derive(Debug)]
    struct Panics;
    impl EventListener for Panics {
        fn before_rollback(&self, _: &Rollback<'_>) -> Result<(), BoxError> {
            panic!("on purpose")
        }
    }
    let disk = SimVfs::new(7);
    let options = Options::new().background(Background::Threads).vfs(Arc::new(disk.clone()));
    let engine = options.listener(Arc::new(Panics)).open("/db").unwrap();
    let store = Ours { engine, disk };
    store.append(&[entry(1, 1), entry(2, 1)]);
    let (writer, told) = telling(&store);
    let mut overwriting = ReadyBatch::new(&store.engine);
    overwriting.region(REGION).truncate_from(2);
    let submitted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.submit(overwriting)));
    assert!(submitted.is_err());
    writer.submit(small(&store, 1, true)).unwrap();
    soon(&told).unwrap();
}

#[test]
fn a_sink_may_submit() {
    let store = Ours::open(SimVfs::new(6), Background::Threads);
    let (tell, told) = channel();
    let tell = Mutex::new((tell, 0));
    let (writer, next) = (Arc::new(OnceLock::<ReadyWriter>::new()), small(&store, 1, true));
    let again = writer.clone();
    let sink = move |persisted: Result<Vec<Persisted>>| {
        assert_eq!(persisted.unwrap(), []);
        let mut tell = tell.lock().expect("told one at a time");
        tell.1 += 1;
        tell.0.send(tell.1).unwrap();
        if tell.1 < 5 {
            again.get().unwrap().submit(next.clone()).unwrap();
        }
    };
    let _ = writer.set(ReadyWriter::new(&store.engine, sink));
    writer.get().unwrap().submit(small(&store, 1, true)).unwrap();
    let soon = || told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!([soon(), soon(), soon(), soon(), soon()], [1, 2, 3, 4, 5]);
}

#[test]
fn closing_sees_through_what_was_submitted() {
    let disk = SimVfs::new(5);
    let store = Ours::open(disk.clone(), Background::Threads);
    let (writer, told) = telling(&store);
    begin(&store.engine);
    disk.block_syncs();
    for n in 0..4 {
        writer.submit(small(&store, 1, n % 2 == 0)).unwrap();
    }
    disk.wait_for_syncs(1);
    let engine = store.engine.clone();
    let closing = std::thread::spawn(move || engine.close());
    disk.release_syncs();
    closing.join().unwrap().unwrap();
    for _ in 0..4 {
        soon(&told).unwrap();
    }
    let refused = writer.submit(small(&store, 1, false)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert!(refused.into_batch().is_some());
}

// ---- what may be sent before it is persisted --------------------------------------------------------------

fn started(store: &Ours, conf_state: &ConfState) -> RawNode<RegionStorage> {
    let storage = store.storage();
    if !storage.region().exists() {
        storage.bootstrap(conf_state).unwrap();
    }
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    RawNode::new(&config, storage, &logger()).unwrap()
}

#[test]
fn a_lone_voter_sends_nothing_before_its_vote_is_durable() {
    // Why: it would win the same term twice, and its learners would hold other entries under the same names.
    let lone = ConfState::from((vec![1], vec![2]));
    let store = Ours::fresh();
    let mut node = started(&store, &lone);
    node.campaign().unwrap();
    let ready = node.ready();
    let sent: Vec<_> = ready.messages().iter().map(|m| (m.get_msg_type(), m.to, m.term)).collect();
    assert_eq!(sent, [(MessageType::MsgAppend, 2, 6)], "raft would have it sent at once");
    assert!(!may_send_first(&node));
    // The power goes off before it is written.
    let again = Ours::open(store.disk.crash(LossPolicy::LoseAll), Background::Manual);
    let mut node = started(&again, &lone);
    node.campaign().unwrap();
    assert_eq!(node.raft.term, 6, "the same term once more");
}

#[test]
fn a_leader_that_others_elected_may_send_first() {
    for (voters, learners, outgoing, may) in [
        (vec![1, 2, 3], vec![], vec![], true),
        (vec![1, 2], vec![3], vec![], true),
        (vec![1], vec![2], vec![], false),
        (vec![1], vec![], vec![1, 2, 3], true),
        (vec![1], vec![2], vec![1], false),
    ] {
        let store = Ours::fresh();
        let mut conf_state = ConfState::from((voters, learners));
        conf_state.set_voters_outgoing(outgoing);
        let mut node = started(&store, &conf_state);
        node.raft.become_candidate();
        node.raft.become_leader();
        assert_eq!(may_send_first(&node), may, "{conf_state:?}");
    }
}
