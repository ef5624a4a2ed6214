//! What a node starts from: hard state, conf state, and a log that fits its state machine.

use super::stores::{Ours, REGION, Store, entry, filled, hard_state, logger, options, store_error};
use crate::support::files::ruin;
use raft::prelude::{ConfState, Entry};
use raft::{Config, RawNode, Storage, StorageError};
use raftwood::raft_rs::{BOOTSTRAP, ReadyBatch};
use raftwood::vfs::sim::LossPolicy;
use raftwood::{Background, Durability, EntryId, ErrorKind, TailPolicy};

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
fn a_hard_state_older_than_the_last_entry_is_lost_and_not_made_up() {
    let store = Ours::fresh();
    store.append(&[entry(1, 1), entry(2, 7)]);
    for older in [None, Some(hard_state(1, 1, 1)), Some(hard_state(6, 2, 1))] {
        if let Some(older) = older {
            store.set_hard_state(&older);
        }
        let storage = store.storage();
        match store_error(storage.initial_state()) {
            StorageError::Other(e) => {
                let e = e.downcast_ref::<raftwood::Error>().unwrap();
                assert_eq!((e.kind(), e.region()), (ErrorKind::HardStateLost, Some(REGION)), "{e}");
            }
            e => panic!("{e:?}"),
        }
        // Nor does another log cover it up.
        let recovered = storage.recover(EntryId::new(9, 9), None);
        assert_eq!(recovered.unwrap_err().kind(), ErrorKind::HardStateLost);
        assert_eq!(storage.last_index().unwrap(), 2);
        let stats = store.engine.stats();
        assert_eq!((stats.damaged_regions, stats.read_errors), (0, 0), "no bytes are wrong");
    }
    store.set_hard_state(&hard_state(7, 2, 1));
    assert_eq!(store.storage().initial_state().unwrap().hard_state, hard_state(7, 2, 1));
}

#[test]
fn a_term_that_a_reset_is_ahead_of_is_raised_without_a_vote() {
    let store = Ours::fresh();
    store.set_hard_state(&hard_state(2, 3, 0));
    store.write(|region| _ = region.reset(EntryId::new(5, 9)).unwrap());
    assert_eq!(store.storage().initial_state().unwrap().hard_state, hard_state(5, 0, 9));
}

/// A log of entries 6 to 10, of term 3, after a snapshot of term 2 at 5, of which entries up to 8 are
/// committed.
fn six_to_ten() -> Ours {
    let store = Ours::fresh();
    store.write(|region| _ = region.reset(EntryId::new(2, 5)).unwrap());
    store.set_conf_state(&ConfState::from((vec![1], vec![])));
    store.append(&(6..=10).map(|i| entry(i, 3)).collect::<Vec<Entry>>());
    store.set_hard_state(&hard_state(3, 1, 8));
    store
}

#[test]
fn a_state_machine_is_recovered_only_to_a_log_that_it_belongs_to() {
    type TermAndIndex = (u64, u64);
    type FirstLastCommit = (u64, u64, u64);
    let cases: [(TermAndIndex, Result<FirstLastCommit, ErrorKind>); 12] = [
        // It lacks what the log has dropped: raft would panic, and at 0 skip over it.
        ((0, 0), Err(ErrorKind::Compacted)),
        ((1, 4), Err(ErrorKind::Compacted)),
        // At the edge, inside, at the end.
        ((2, 5), Ok((6, 10, 8))),
        ((3, 6), Ok((6, 10, 8))),
        ((3, 8), Ok((6, 10, 8))),
        ((3, 9), Ok((6, 10, 9))),
        ((3, 10), Ok((6, 10, 10))),
        // Another entry than the committed one.
        ((1, 5), Err(ErrorKind::Damaged)),
        ((4, 8), Err(ErrorKind::Damaged)),
        // Another than one that was never committed.
        ((4, 9), Ok((10, 9, 9))),
        // Beyond.
        ((3, 11), Ok((12, 11, 11))),
        // No index lies after it.
        ((3, u64::MAX), Err(ErrorKind::TooLarge)),
    ];
    for ((term, index), want) in cases {
        let store = six_to_ten();
        let accepted = store.engine.stats().accepted;
        let recovered = store.storage().recover(EntryId::new(term, index), None);
        let storage = store.storage();
        let log = || (storage.first_index().unwrap(), storage.last_index().unwrap());
        match want {
            Ok((first, last, commit)) => {
                recovered.unwrap();
                assert_eq!(log(), (first, last), "applied {index} of term {term}");
                let state = storage.initial_state().unwrap().hard_state;
                assert_eq!(state, hard_state(term.max(3), u64::from(term <= 3), commit));
                let config = Config { id: 1, applied: index, ..Config::default() };
                let mut node = RawNode::new(&config, storage.clone(), &logger()).unwrap();
                assert_eq!(node.raft.raft_log.applied(), index);
                node.campaign().unwrap();
                assert_eq!(node.raft.raft_log.last_index(), last + 1, "it comes up and leads");
            }
            Err(kind) => {
                assert_eq!(recovered.unwrap_err().kind(), kind, "applied {index} of term {term}");
                assert_eq!(log(), (6, 10));
                assert_eq!(store.engine.stats().accepted, accepted, "nothing was written");
            }
        }
    }
}

#[test]
fn nothing_applied_and_the_base_are_one_place_in_a_bootstrapped_region_and_no_other_is() {
    // A state machine says index and term 0 for "nothing"; the log begins after an entry that
    // nobody holds. What stands at that index with another term, or before it, belongs to another
    // group, or to a log from index 1.
    type TermAndIndex = (u64, u64);
    let cases: [(TermAndIndex, Result<EntryId, ErrorKind>); 8] = [
        ((0, 0), Ok(BOOTSTRAP)),
        ((5, 5), Ok(BOOTSTRAP)),
        ((0, 5), Err(ErrorKind::Damaged)),
        ((4, 5), Err(ErrorKind::Damaged)),
        ((6, 5), Err(ErrorKind::Damaged)),
        ((5, 4), Err(ErrorKind::Compacted)),
        ((5, 0), Err(ErrorKind::Compacted)),
        ((1, 1), Err(ErrorKind::Compacted)),
    ];
    let three = ConfState::from((vec![1, 2, 3], vec![]));
    for has_entries in [false, true] {
        let store = Ours::fresh();
        store.storage().bootstrap(&three).unwrap();
        if has_entries {
            store.append(&[entry(6, 6), entry(7, 6)]);
            store.set_hard_state(&hard_state(6, 1, 7));
        }
        let accepted = store.engine.stats().accepted;
        for ((term, index), want) in cases {
            for conf_state in [Some(&three), None] {
                let stands = store.storage().recover(EntryId::new(term, index), conf_state);
                assert_eq!(stands.map_err(|e| e.kind()), want, "applied {index} of term {term}");
            }
        }
        assert_eq!(store.engine.stats().accepted, accepted, "nothing was written");
    }
}

#[test]
fn a_log_that_lost_what_was_committed_is_not_recovered_by_forgetting_it() {
    let store = six_to_ten();
    store.set_hard_state(&hard_state(3, 1, 15));
    for (term, index) in [(2, 5), (3, 9), (3, 10), (3, 14)] {
        let refused = store.storage().recover(EntryId::new(term, index), None).unwrap_err();
        assert_eq!((refused.kind(), refused.region()), (ErrorKind::Damaged, Some(REGION)));
        assert!(refused.to_string().contains("entry 15 is committed"), "{refused}");
    }
    assert_eq!(store.storage().hard_state().unwrap(), hard_state(3, 1, 15));
    // The state machine has all of it.
    store.storage().recover(EntryId::new(3, 15), None).unwrap();
    assert_eq!(store.storage().initial_state().unwrap().hard_state, hard_state(3, 1, 15));
}

#[test]
fn the_conf_state_is_as_of_what_was_applied() {
    // Older than the log's: raft applies the change after it once more. A joint configuration
    // cannot be entered twice.
    let (three, one) = (ConfState::from((vec![1, 2, 3], vec![])), ConfState::from((vec![1], vec![])));
    for (of_log, applied, want) in [(7, 9, &one), (10, 9, &one), (9, 9, &three)] {
        let store = six_to_ten();
        store.write(|region| {
            _ = region
                .put(b"raft/conf_state", &raftwood::raft_rs::encode_conf_state(of_log, &three))
                .unwrap();
        });
        store.storage().recover(EntryId::new(3, applied), Some(&one)).unwrap();
        let (index, state) = store.storage().conf_state().unwrap().unwrap();
        assert_eq!((index, &state), (9, want), "the log's is of {of_log}");
        // None is given: the log's stays.
        store.storage().recover(EntryId::new(3, 10), None).unwrap();
        assert_eq!(store.storage().conf_state().unwrap().unwrap(), (9, want.clone()));
    }
}

#[test]
fn a_configuration_goes_into_the_log_with_the_ready() {
    let store = Ours::fresh();
    let three = ConfState::from((vec![1, 2, 3], vec![4]));
    store.storage().bootstrap(&ConfState::from((vec![1, 2, 3], vec![]))).unwrap();
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_conf_state(REGION, 7, &three).unwrap();
    assert_eq!(batch.durability(), Durability::Written);
    batch.require_sync();
    batch.write(&store.engine).unwrap();
    let again = Ours::open(store.disk.crash(LossPolicy::LoseAll), Background::Manual);
    assert_eq!(again.storage().conf_state().unwrap(), Some((7, three)));
}

#[test]
fn a_node_whose_vote_may_be_lost_is_not_started() {
    let store = Ours::fresh();
    store.append(&[entry(1, 1)]);
    store.set_hard_state(&hard_state(1, 1, 1));
    let at = store.engine.stats().accepted;
    let mut batch = ReadyBatch::new(&store.engine);
    batch.set_hard_state(REGION, &hard_state(2, 3, 1)).unwrap();
    batch.region(REGION).put(b"key", &[7; 100]).unwrap();
    batch.write(&store.engine).unwrap();
    // The process is killed, and what it wrote last cannot be read any more.
    let disk = store.disk.clone();
    disk.power_off();
    drop(store);
    disk.halt_after(u64::MAX);
    disk.settle();
    ruin(&disk, "/db/0000000001.log", u64::from(at.offset()) + 70, 6);
    let engine = options(&disk).tail_policy(TailPolicy::AssumeTorn).open("/db").unwrap();
    let again = Ours { engine, disk };
    let storage = again.storage();
    assert_eq!(storage.hard_state().unwrap_err().kind(), ErrorKind::HardStateLost);
    assert_eq!(storage.recover(EntryId::new(1, 1), None).unwrap_err().kind(), ErrorKind::HardStateLost);
    assert_eq!(storage.recover(EntryId::new(3, 9), None).unwrap_err().kind(), ErrorKind::HardStateLost);
    assert!(matches!(store_error(storage.initial_state()), StorageError::Other(_)));
    // The operator knows it from elsewhere.
    again.set_hard_state(&hard_state(2, 3, 1));
    assert_eq!(storage.initial_state().unwrap().hard_state, hard_state(2, 3, 1));
}

/// A hard state is older than the last entry's term, or it is not; where that term cannot be read, nobody
/// knows. It was taken for 0 once, and a node would have come up in a term in which it had voted already.
#[test]
fn a_node_whose_last_term_cannot_be_read_is_not_started() {
    let store = Ours::fresh();
    let terms = [1, 1, 1, 2, 2, 2, 3, 3, 3];
    store.append(&terms.iter().zip(1..).map(|(&term, index)| filled(index, term, 100)).collect::<Vec<_>>());
    store.set_hard_state(&hard_state(3, 1, 3));
    let reopened = |store: Ours| {
        store.engine.close().unwrap();
        store.disk
    };
    let store = Ours::open(reopened(store), Background::Manual);
    // In the middle of a term, which only the segment's footer records.
    store.write(|region| _ = region.truncate_from(6));
    assert_eq!(store.storage().initial_state().unwrap().hard_state, hard_state(3, 1, 3));
    let disk = reopened(store);
    disk.remove_file("/db/0000000001.log").unwrap();
    let store = Ours::open(disk, Background::Manual);
    assert_eq!(store.storage().hard_state().unwrap(), hard_state(3, 1, 3));
    match store_error(store.storage().initial_state()) {
        StorageError::Other(e) => {
            let e = e.downcast_ref::<raftwood::Error>().unwrap();
            assert_eq!((e.kind(), e.region()), (ErrorKind::Damaged, Some(REGION)), "{e}");
        }
        e => panic!("{e:?}"),
    }
    let config = Config { id: 1, applied: 3, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    assert!(RawNode::new(&config, store.storage(), &logger()).is_err());
}
