//! The contract of `raft::Storage`, as its documentation, `MemStorage`'s tests and what raft itself relies on
//! state it. Every case runs over both stores.

use super::stores::{Mem, Ours, Store, entry, filled, hard_state, here, logger, snapshot};
use protobuf::Message as _;
use raft::prelude::{ConfState, Entry, HardState, Message, MessageType, Snapshot};
use raft::{Config, Error, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError};
use std::time::Duration;

macro_rules! over_both_stores {
    ($($case:ident),* $(,)?) => {
        mod mem_storage { use super::*; $(#[test] fn $case() { super::$case::<Mem>() })* }
        mod region_storage { use super::*; $(#[test] fn $case() { super::$case::<Ours>() })* }
    };
}

over_both_stores!(
    a_fresh_store_is_not_initialized_and_starts_at_one,
    what_was_appended_is_there_with_its_terms,
    a_range_gives_what_the_limit_allows_as_raft_counts_it_and_at_least_one,
    an_append_replaces_everything_from_its_first_index_on,
    compaction_moves_the_first_index_and_what_is_below_is_compacted,
    a_snapshot_empties_the_log_and_its_term_stays_known,
    hard_state_and_conf_state_come_back,
    entries_keep_type_context_and_data,
    a_read_that_has_to_wait_says_so_and_only_to_those_that_can,
    a_snapshot_is_there_or_temporarily_not,
    raft_comes_up_on_the_contract_and_panics_beside_it,
    a_single_node_elects_itself_and_commits,
    a_node_goes_on_from_what_the_store_holds,
    a_leader_with_a_compacted_log_still_matches_a_follower_at_the_edge,
    a_leader_sends_a_snapshot_to_whom_its_log_no_longer_reaches,
);

fn is<T: std::fmt::Debug>(got: raft::Result<T>, want: StorageError) {
    match got {
        Err(Error::Store(e)) => assert_eq!(e, want),
        other => panic!("{other:?} where {want:?} was due"),
    }
}

fn three_to_six<S: Store>() -> S {
    let store = S::fresh();
    store.apply_snapshot(&snapshot(3, 3, &[1]));
    store.append(&[entry(4, 4), entry(5, 5), entry(6, 6)]);
    store
}

fn a_fresh_store_is_not_initialized_and_starts_at_one<S: Store>() {
    let store = S::fresh();
    let storage = store.storage();
    let state = storage.initial_state().unwrap();
    assert!(!state.initialized());
    assert_eq!(state.hard_state, HardState::default());
    assert_eq!(storage.first_index().unwrap(), 1);
    assert_eq!(storage.last_index().unwrap(), 0);
    assert_eq!(storage.term(0).unwrap(), 0);
    is(storage.term(1), StorageError::Unavailable);
    if S::IS_COMPLETE {
        assert_eq!(storage.entries(1, 1, None, here()).unwrap(), []);
        is(storage.entries(1, 2, None, here()), StorageError::Unavailable);
        is(storage.entries(0, 1, None, here()), StorageError::Compacted);
    }
}

fn what_was_appended_is_there_with_its_terms<S: Store>() {
    let store = three_to_six::<S>();
    let storage = store.storage();
    assert_eq!(storage.first_index().unwrap(), 4);
    assert_eq!(storage.last_index().unwrap(), 6);
    for (index, term) in [(3, 3), (4, 4), (5, 5), (6, 6)] {
        assert_eq!(storage.term(index).unwrap(), term, "term of {index}");
    }
    is(storage.term(2), StorageError::Compacted);
    is(storage.term(7), StorageError::Unavailable);
    // Without a limit, with raft's word for none, by halves and empty.
    let all = [entry(4, 4), entry(5, 5), entry(6, 6)];
    assert_eq!(storage.entries(4, 7, None, here()).unwrap(), all);
    assert_eq!(storage.entries(4, 7, u64::MAX, here()).unwrap(), all);
    assert_eq!(storage.entries(5, 6, None, here()).unwrap(), all[1..2]);
    assert_eq!(storage.entries(6, 6, None, here()).unwrap(), []);
    assert_eq!(storage.entries(7, 7, None, here()).unwrap(), []);
    is(storage.entries(3, 7, None, here()), StorageError::Compacted);
    if S::IS_COMPLETE {
        is(storage.entries(4, 8, None, here()), StorageError::Unavailable);
        is(storage.entries(8, 9, None, here()), StorageError::Unavailable);
    }
}

fn a_range_gives_what_the_limit_allows_as_raft_counts_it_and_at_least_one<S: Store>() {
    let store = S::fresh();
    let all: Vec<Entry> = (1..=12).map(|i| filled(i, i / 4 + 1, i as usize * 23)).collect();
    store.append(&all);
    let storage = store.storage();
    for low in 1..=12u64 {
        let size =
            |n: u64| all[low as usize - 1..n as usize].iter().map(|e| u64::from(e.compute_size())).sum();
        assert_eq!(storage.entries(low, 13, 0, here()).unwrap().len(), 1, "at least one");
        for high in low..=12 {
            let exact: u64 = size(high);
            for (limit, last) in
                [(exact, high), (exact + 1, high), (exact.saturating_sub(1), (high - 1).max(low))]
            {
                let got = storage.entries(low, 13, limit, here()).unwrap();
                assert_eq!(got, all[low as usize - 1..last as usize], "{low}.., at most {limit} bytes");
            }
        }
    }
}

fn an_append_replaces_everything_from_its_first_index_on<S: Store>() {
    type Ids = &'static [(u64, u64)];
    let cases: &[(Ids, Ids)] = &[
        (&[(4, 4), (5, 5), (6, 6)], &[(4, 4), (5, 5), (6, 6)]),
        (&[(4, 6), (5, 6)], &[(4, 6), (5, 6)]),
        (&[(6, 7), (7, 7)], &[(4, 4), (5, 5), (6, 7), (7, 7)]),
        (&[(4, 8)], &[(4, 8)]),
        (&[(7, 6)], &[(4, 4), (5, 5), (6, 6), (7, 6)]),
        (&[], &[(4, 4), (5, 5), (6, 6)]),
    ];
    for (appended, want) in cases {
        let store = three_to_six::<S>();
        let make = |ids: &[(u64, u64)]| ids.iter().map(|&(i, t)| entry(i, t)).collect::<Vec<_>>();
        store.append(&make(appended));
        let storage = store.storage();
        let last = storage.last_index().unwrap();
        assert_eq!(storage.entries(4, last + 1, None, here()).unwrap(), make(want), "{appended:?}");
    }
}

fn compaction_moves_the_first_index_and_what_is_below_is_compacted<S: Store>() {
    for through in 4..=6u64 {
        let store = three_to_six::<S>();
        store.append(&[entry(7, 6)]);
        store.compact_through(through);
        let storage = store.storage();
        assert_eq!(storage.first_index().unwrap(), through + 1);
        assert_eq!(storage.last_index().unwrap(), 7);
        is(storage.entries(through, 8, None, here()), StorageError::Compacted);
        is(
            storage.term(through - 1),
            if through == 4 && !S::IS_COMPLETE { continue } else { StorageError::Compacted },
        );
        assert_eq!(storage.term(through + 1).unwrap(), (through + 1).min(6));
        if S::IS_COMPLETE {
            assert_eq!(storage.term(through).unwrap(), through, "the term just below the first");
        }
        assert_eq!(storage.entries(7, 8, None, here()).unwrap(), [entry(7, 6)]);
        // Compacting less than was compacted already changes nothing.
        store.compact_through(3);
        assert_eq!(storage.first_index().unwrap(), through + 1);
    }
    if S::IS_COMPLETE {
        // A log that is compacted whole knows where it stands, and goes on from there.
        let store = three_to_six::<S>();
        store.compact_through(6);
        let storage = store.storage();
        assert_eq!((storage.first_index().unwrap(), storage.last_index().unwrap()), (7, 6));
        assert_eq!(storage.term(6).unwrap(), 6);
        store.append(&[entry(7, 9)]);
        assert_eq!(storage.term(7).unwrap(), 9);
    }
}

fn a_snapshot_empties_the_log_and_its_term_stays_known<S: Store>() {
    let store = three_to_six::<S>();
    // Far ahead: nothing may be sized by the gap.
    store.apply_snapshot(&snapshot(1 << 40, 9, &[1, 2, 3]));
    let storage = store.storage();
    assert_eq!(storage.first_index().unwrap(), (1 << 40) + 1);
    assert_eq!(storage.last_index().unwrap(), 1 << 40);
    assert_eq!(storage.term(1 << 40).unwrap(), 9);
    is(storage.term(6), StorageError::Compacted);
    is(storage.term((1 << 40) + 1), StorageError::Unavailable);
    let conf_state = storage.initial_state().unwrap().conf_state;
    assert_eq!(conf_state, ConfState::from((vec![1, 2, 3], vec![])));
    store.append(&[entry((1 << 40) + 1, 9)]);
    assert_eq!(storage.last_index().unwrap(), (1 << 40) + 1);
}

fn hard_state_and_conf_state_come_back<S: Store>() {
    let store = S::fresh();
    store.append(&[entry(1, 1), entry(2, 1)]);
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.vote, hard_state.commit) = (7, 3, 2);
    let mut conf_state = ConfState::from((vec![1, 2, 3], vec![4]));
    conf_state.set_voters_outgoing(vec![1, 2]);
    conf_state.set_learners_next(vec![2]);
    conf_state.set_auto_leave(true);
    store.set_hard_state(&hard_state);
    store.set_conf_state(&conf_state);
    let state = store.storage().initial_state().unwrap();
    assert!(state.initialized());
    assert_eq!(state.hard_state, hard_state);
    assert_eq!(state.conf_state, conf_state);
}

fn entries_keep_type_context_and_data<S: Store>() {
    use raft::prelude::EntryType::{EntryConfChange, EntryConfChangeV2, EntryNormal};
    let mut all = Vec::new();
    for kind in [EntryNormal, EntryConfChange, EntryConfChangeV2] {
        for (context, data) in [("", ""), ("c", ""), ("", "d"), ("context", "data")] {
            let mut e = entry(all.len() as u64 + 1, 1);
            e.set_entry_type(kind);
            e.set_context(context.into());
            e.set_data(data.into());
            all.push(e);
        }
    }
    let store = S::fresh();
    store.append(&all);
    assert_eq!(store.storage().entries(1, 13, None, here()).unwrap(), all);
}

fn a_read_that_has_to_wait_says_so_and_only_to_those_that_can<S: Store>() {
    let store = S::fresh();
    let (storage, told) = store.far();
    // A reader that cannot wait is served, and terms are known at once.
    assert_eq!(storage.entries(1, 9, None, here()).unwrap().len(), 8);
    assert_eq!(storage.term(1).unwrap(), 1);
    let wait = GetEntriesContext::empty(true);
    is(storage.entries(1, 9, None, wait), StorageError::LogTemporarilyUnavailable);
    let context = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(context.can_async());
    let all: Vec<Entry> = (1..9).map(|i| filled(i, 1, 1024)).collect();
    assert_eq!(storage.entries(1, 9, None, context).unwrap(), all);
    assert!(told.try_recv().is_err(), "the context comes back once");
}

fn a_snapshot_is_there_or_temporarily_not<S: Store>() {
    let store = three_to_six::<S>();
    let unready = store.with_snapshot(5, 5, false);
    is(unready.snapshot(0, 2), StorageError::SnapshotTemporarilyUnavailable);
    let ready = store.with_snapshot(5, 5, true);
    for request in [0, 4, 5] {
        let meta = ready.snapshot(request, 2).unwrap().take_metadata();
        assert_eq!((meta.index, meta.term), (5, 5));
        assert_eq!(meta.get_conf_state(), &ConfState::from((vec![1], vec![])));
    }
    if S::IS_COMPLETE {
        // `MemStorage` relabels the one that it has.
        is(ready.snapshot(6, 2), StorageError::SnapshotTemporarilyUnavailable);
    }
}

fn a_leader_sends_a_snapshot_to_whom_its_log_no_longer_reaches<S: Store>() {
    let store = three_to_six::<S>();
    store.set_conf_state(&ConfState::from((vec![1, 2], vec![])));
    let mut leader = start(store.with_snapshot(6, 6, true), 1, 6).unwrap();
    leader.raft.become_candidate();
    leader.raft.become_leader();
    leader.raft.msgs.clear();
    let mut reject = Message::default();
    reject.set_msg_type(MessageType::MsgAppendResponse);
    (reject.from, reject.to, reject.term) = (2, 1, leader.raft.term);
    (reject.reject, reject.index, reject.reject_hint) = (true, 6, 1);
    leader.step(reject).unwrap();
    let [sent] = &leader.raft.msgs[..] else { panic!("{:?}", leader.raft.msgs) };
    assert_eq!(sent.get_msg_type(), MessageType::MsgSnapshot);
    assert_eq!(sent.get_snapshot().get_metadata().index, 6);
}

/// A store that lies.
#[derive(Clone)]
struct Bent<T>(T, Lie);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Lie {
    None,
    /// Below the first entry nothing is known.
    TermBelowFirst,
    /// The conf state is not one.
    ConfState,
    /// More is committed than there is.
    CommittedBeyondLast,
    /// Less is committed than was compacted.
    CommittedBelowFirst,
    /// Committed entries cannot be read: `Unavailable`, that is, or `LogTemporarilyUnavailable` to one
    /// who cannot wait, or anything.
    Unavailable,
    Temporarily,
    Other,
}

impl<T: Storage> Storage for Bent<T> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut state = self.0.initial_state()?;
        match self.1 {
            Lie::CommittedBeyondLast => state.hard_state.commit = self.last_index()? + 1,
            Lie::CommittedBelowFirst => state.hard_state.commit = self.first_index()? - 2,
            Lie::ConfState => state.conf_state.set_learners(state.conf_state.voters.clone()),
            _ => {}
        }
        Ok(state)
    }
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        match self.1 {
            Lie::Unavailable => Err(StorageError::Unavailable.into()),
            Lie::Temporarily => Err(StorageError::LogTemporarilyUnavailable.into()),
            Lie::Other => Err(StorageError::Other("no".into()).into()),
            _ => self.0.entries(low, high, max_size, context),
        }
    }
    fn term(&self, idx: u64) -> raft::Result<u64> {
        match self.1 {
            Lie::TermBelowFirst if idx < self.first_index()? => Err(StorageError::Compacted.into()),
            _ => self.0.term(idx),
        }
    }
    fn first_index(&self) -> raft::Result<u64> {
        self.0.first_index()
    }
    fn last_index(&self) -> raft::Result<u64> {
        self.0.last_index()
    }
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        self.0.snapshot(request_index, to)
    }
}

/// What the contract is for: a store that keeps it starts, hands out what is committed, and leads; each way
/// beside it ends in a panic of raft, or in an error.
fn raft_comes_up_on_the_contract_and_panics_beside_it<S: Store>() {
    let lives = |applied: u64, last: u64, lie: Lie| {
        let store = S::fresh();
        store.apply_snapshot(&snapshot(3, 3, &[1]));
        store.append(&(4..=last).map(|i| entry(i, i)).collect::<Vec<_>>());
        store.set_hard_state(&hard_state(last, 1, last));
        let run = || {
            let mut node = start(Bent(store.storage(), lie), 1, applied).unwrap();
            let committed = node.has_ready().then(|| node.ready());
            if let Some(mut ready) = committed {
                assert_eq!(ready.take_committed_entries().len() as u64, last - applied);
                node.advance(ready);
            }
            node.campaign().unwrap();
            assert_eq!(node.raft.state, StateRole::Leader);
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok()
    };
    assert!(lives(4, 6, Lie::None));
    assert!(lives(3, 3, Lie::None), "also after a snapshot, with an empty log");
    // Applied less than was compacted, and more than is committed.
    assert!(!lives(2, 6, Lie::None));
    assert!(!lives(7, 6, Lie::None));
    assert!(!lives(3, 3, Lie::TermBelowFirst), "the last term is that of the entry below the first");
    for lie in [Lie::ConfState, Lie::CommittedBeyondLast, Lie::CommittedBelowFirst] {
        assert!(!lives(4, 6, lie), "{lie:?}");
    }
    for lie in [Lie::Unavailable, Lie::Temporarily, Lie::Other] {
        assert!(!lives(4, 6, lie), "{lie:?}");
    }
}

fn start<T: Storage>(storage: T, id: u64, applied: u64) -> raft::Result<RawNode<T>> {
    let config = Config { id, applied, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    RawNode::new(&config, storage, &logger())
}

fn node<S: Store>(store: &S, id: u64, applied: u64) -> RawNode<S::Storage> {
    start(store.storage(), id, applied).unwrap()
}

/// Drives a lone node until it is idle; returns what it committed.
fn drive<S: Store>(store: &S, node: &mut RawNode<S::Storage>) -> Vec<Entry> {
    let mut committed = Vec::new();
    while node.has_ready() {
        let mut ready = node.ready();
        committed.extend(ready.take_committed_entries());
        store.append(ready.entries());
        if let Some(state) = ready.hs() {
            store.set_hard_state(state);
        }
        let mut light = node.advance(ready);
        committed.extend(light.take_committed_entries());
        if let Some(commit) = light.commit_index() {
            let mut state = node.raft.hard_state();
            state.commit = commit;
            store.set_hard_state(&state);
        }
        node.advance_apply();
    }
    committed.retain(|e| !e.data.is_empty());
    committed
}

fn a_single_node_elects_itself_and_commits<S: Store>() {
    let store = S::fresh();
    store.set_conf_state(&ConfState::from((vec![1], vec![])));
    let mut node = node(&store, 1, 0);
    node.campaign().unwrap();
    drive(&store, &mut node);
    assert_eq!(node.raft.state, StateRole::Leader);
    node.propose(vec![], b"one".to_vec()).unwrap();
    node.propose(vec![], b"two".to_vec()).unwrap();
    let committed = drive(&store, &mut node);
    assert_eq!(committed.iter().map(|e| e.data.to_vec()).collect::<Vec<_>>(), [b"one", b"two"]);
}

fn a_node_goes_on_from_what_the_store_holds<S: Store>() {
    let store = S::fresh();
    store.set_conf_state(&ConfState::from((vec![1], vec![])));
    let mut first = node(&store, 1, 0);
    first.campaign().unwrap();
    drive(&store, &mut first);
    first.propose(vec![], b"one".to_vec()).unwrap();
    drive(&store, &mut first);
    let (term, last) = (first.raft.term, first.raft.raft_log.last_index());
    drop(first);
    // Started again with nothing applied, it hands out again what was committed.
    let mut again = node(&store, 1, 0);
    assert_eq!(again.raft.term, term);
    let replayed = drive(&store, &mut again);
    assert_eq!(replayed.iter().map(|e| e.data.to_vec()).collect::<Vec<_>>(), [b"one"]);
    drop(again);
    // With all applied, nothing.
    let mut applied = node(&store, 1, last);
    assert_eq!(drive(&store, &mut applied), []);
}

fn a_leader_with_a_compacted_log_still_matches_a_follower_at_the_edge<S: Store>() {
    if !S::IS_COMPLETE {
        // It forgets the term below the first entry, and raft sends a snapshot instead.
        return;
    }
    let store = S::fresh();
    store.set_conf_state(&ConfState::from((vec![1, 2], vec![])));
    store.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
    let mut state = HardState::default();
    (state.term, state.commit) = (2, 3);
    store.set_hard_state(&state);
    store.compact_through(3);
    let mut leader = node(&store, 1, 3);
    leader.raft.become_candidate();
    leader.raft.become_leader();
    // The follower stands exactly at the compaction point: the append to it must name entry 3 and its term.
    let mut response = Message::default();
    response.set_msg_type(MessageType::MsgAppendResponse);
    (response.from, response.to, response.term, response.index) = (2, 1, leader.raft.term, 3);
    leader.raft.msgs.clear();
    leader.step(response).unwrap();
    let appends: Vec<_> =
        leader.raft.msgs.iter().filter(|m| m.get_msg_type() == MessageType::MsgAppend).collect();
    assert!(!appends.is_empty(), "{:?}", leader.raft.msgs);
    assert_eq!((appends[0].index, appends[0].log_term), (3, 2));
    assert_eq!(appends[0].entries.len(), 1, "the leader's own empty entry");
}
