//! Reads far back, done on threads of the engine.

use super::stores::{Ours, REGION, Store, filled, hard_state, here, logger, snapshot, store_error};
use raft::prelude::{ConfState, Message, MessageType};
use raft::{Config, Error, GetEntriesContext, RawNode, Storage, StorageError};
use raftwood::RegionId;
use raftwood::raft_rs::RegionStorage;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

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
    // A reader that cannot wait is served at once, and so is what was written last.
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

/// A leader whose followers, 2 and up, all have to be sent its far entries from the first one on.
fn leader(store: &Ours, storage: RegionStorage, followers: &[u64]) -> RawNode<RegionStorage> {
    let last = storage.last_index().unwrap();
    store.set_conf_state(&ConfState::from(([&[1], followers].concat(), vec![])));
    store.set_hard_state(&hard_state(1, 1, last));
    let config = Config { id: 1, applied: last, max_size_per_msg: 4096, ..Config::default() };
    let mut leader = RawNode::new(&config, storage, &logger()).unwrap();
    leader.raft.become_candidate();
    leader.raft.become_leader();
    for &follower in followers {
        let mut reject = Message::default();
        reject.set_msg_type(MessageType::MsgAppendResponse);
        (reject.from, reject.to, reject.term) = (follower, 1, leader.raft.term);
        (reject.reject, reject.index, reject.reject_hint) = (true, last, 0);
        leader.step(reject).unwrap();
    }
    assert_eq!(leader.raft.msgs, [], "the entries have yet to be fetched");
    leader
}

/// To whom entries from the first on are sent.
fn sent_to(leader: &mut RawNode<RegionStorage>) -> Vec<u64> {
    let sent = std::mem::take(&mut leader.raft.msgs);
    assert!(sent.iter().all(|m| m.get_entries().first().is_some_and(|e| e.index == 1)), "{sent:?}");
    sent.iter().map(|m| m.to).collect()
}

#[test]
fn a_far_read_for_which_there_is_no_place_is_done_on_the_spot() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    let gates = busy(&store);
    let (send, refused) = channel();
    for asked in 0.. {
        if refused.try_recv().is_ok() {
            break;
        }
        assert!(asked < 10_000, "no fetch was refused");
        let send = send.clone();
        store.engine.fetch(REGION, 1..2, raftwood::ReadLimit::NONE, move |read| {
            if read.is_err() {
                send.send(()).unwrap();
            }
        });
    }
    // Each time that it is asked for: the refused one is not waited for.
    for _ in 0..2 {
        assert_eq!(storage.entries(10, 40, None, may_wait()).unwrap().len(), 30);
    }
    drop(gates);
    assert!(told.try_recv().is_err(), "nothing was fetched");
    // With a place in line it is fetched like any other.
    while store.engine.stats().queued_fetches > 0 {
        std::thread::yield_now();
    }
    assert_eq!(
        store_error(storage.entries(10, 40, None, may_wait())),
        StorageError::LogTemporarilyUnavailable
    );
    let context = soon(&told);
    assert_eq!(storage.entries(10, 40, None, context).unwrap().len(), 30);
}

#[test]
fn two_followers_that_wait_for_the_same_entries_are_both_told() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    let gates = busy(&store);
    let mut leader = leader(&store, storage, &[2, 3]);
    drop(gates);
    for context in [soon(&told), soon(&told)] {
        leader.on_entries_fetched(context);
    }
    assert_eq!(sent_to(&mut leader), [2, 3]);
}

#[test]
fn a_follower_for_which_raft_asks_again_and_again_is_told_once_and_nothing_is_left_behind() {
    // Each proposal made raft ask for it again; every one of these was notified and counted, and as the first
    // had all it wanted, the entries were kept for the others forever, and their segments with them.
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    let gates = busy(&store);
    let mut leader = leader(&store, storage.clone(), &[2, 3]);
    for _ in 0..100 {
        leader.propose(vec![], vec![1]).unwrap();
    }
    drop(gates);
    for context in [soon(&told), soon(&told)] {
        leader.on_entries_fetched(context);
    }
    assert_eq!(sent_to(&mut leader), [2, 3]);
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "told once each");
    assert_eq!(store_error(storage.entries(1, 9, None, may_wait())), StorageError::LogTemporarilyUnavailable);
    soon(&told);
}

#[test]
fn a_result_that_nobody_comes_back_for_is_let_go() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    assert_eq!(store_error(storage.entries(5, 9, None, may_wait())), StorageError::LogTemporarilyUnavailable);
    soon(&told);
    // The leader has stepped down, say, and reads only what it applies.
    for _ in 0..1000 {
        storage.entries(199, 200, None, here()).unwrap();
    }
    assert_eq!(store_error(storage.entries(5, 9, None, may_wait())), StorageError::LogTemporarilyUnavailable);
    soon(&told);
}

#[test]
fn far_reads_are_bounded_and_one_too_many_is_done_on_the_spot() {
    let store = long_log(200);
    let (storage, told) = fetching(&store);
    let gates = busy(&store);
    let later = |low| match storage.entries(low, low + 2, None, may_wait()) {
        Ok(entries) => {
            assert_eq!(entries[0].index, low);
            false
        }
        Err(e) => store_error::<()>(Err(e)) == StorageError::LogTemporarilyUnavailable,
    };
    let waiting = (1..=100).filter(|&low| later(low)).count();
    assert_eq!(waiting, 16);
    drop(gates);
    for _ in 0..waiting {
        soon(&told);
    }
    // What is done makes way, the oldest first.
    assert!(later(50));
    soon(&told);
    assert!((2..=16).chain([50]).all(|low| !later(low)), "these are still there");
    assert!(later(1), "this one made way");
    soon(&told);
}

#[test]
fn whatever_becomes_of_the_log_meanwhile_notice_is_given_and_the_log_as_it_is_answers() {
    use StorageError::{Compacted, Unavailable};
    type Change = fn(&Ours);
    let changes: [(Change, Option<StorageError>); 6] = [
        (|store| store.write(|r| _ = r.truncate_from(7)), Some(Unavailable)),
        (|store| store.write(|r| _ = r.truncate_from(0)), Some(Unavailable)),
        (|store| store.write(|r| _ = r.destroy()), Some(Unavailable)),
        (|store| store.compact_through(5), Some(Compacted)),
        (|store| store.apply_snapshot(&snapshot(1000, 3, &[1])), Some(Compacted)),
        (|store| store.engine.close().unwrap(), None),
    ];
    for (n, (change, want)) in changes.into_iter().enumerate() {
        for is_read_before in [false, true] {
            let store = long_log(200);
            let (storage, told) = fetching(&store);
            let mut gates = if is_read_before { Vec::new() } else { busy(&store) };
            let got = storage.entries(5, 9, None, may_wait());
            assert_eq!(store_error(got), StorageError::LogTemporarilyUnavailable);
            let early = is_read_before.then(|| soon(&told));
            if want.is_none() {
                // Closing waits for the reads that were asked for.
                gates.clear();
            }
            change(&store);
            drop(gates);
            let context = early.unwrap_or_else(|| soon(&told));
            assert!(told.try_recv().is_err(), "told twice of {n}");
            match (storage.entries(5, 9, None, context), &want) {
                (Ok(entries), None) => assert_eq!(entries.len(), 4),
                (Err(Error::Store(e)), Some(want)) => assert_eq!(e, *want, "change {n}"),
                (got, want) => panic!("change {n}: {got:?} where {want:?} was due"),
            }
        }
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
    // Fetched, compacted away before anybody came for it, and there again, because the log began again.
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
