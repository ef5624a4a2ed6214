//! The adapter for openraft 0.10: openraft's own suite, unchanged, and what it does not ask.

mod retry;
mod stored;
mod writers;

use crate::support::files::{find, rot, ruin};
use crate::support::openraft::{
    R, Stalled, closed_and_opened, crashed, open, options, soon, sync_is_stuck, written,
};
use openraft_memstore::{BlockConfig, MemStateMachine, TypeConfig as MemTypes};
use openraft_rt_tokio::TokioRuntime;
use openraft010::entry::RaftEntry;
use openraft010::impls::{leader_id_adv, leader_id_std};
use openraft010::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft010::testing::log::{StoreBuilder, Suite};
use openraft010::type_config::TypeConfigExt;
use openraft010::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use openraft010::{EntryPayload, LogId, LogState, Membership, RaftLogReader, StorageError};
use raftwood::openraft_010::{LeaderTerm, LogStore};
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{Engine, RegionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

openraft010::declare_raft_types!(
    /// Commands are text, and a term has one leader: the other kind of leader id than in the suite.
    Types:
        D = String,
        R = (),
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = TokioRuntime,
);

type Store = LogStore<Types>;
type Entry = EntryOf<Types>;
type Id = LogIdOf<Types>;
type Vote = VoteOf<Types>;

fn log_id(term: u64, index: u64) -> Id {
    LogId::new_term_index(term, index)
}

fn entry(term: u64, index: u64) -> Entry {
    text(term, index, &format!("<command {index} of term {term}>"))
}

fn text(term: u64, index: u64, text: &str) -> Entry {
    Entry::new(log_id(term, index), EntryPayload::Normal(text.to_string()))
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

async fn read(store: &mut Store) -> Vec<Entry> {
    store.get_log_reader().await.try_get_log_entries(..).await.unwrap()
}

async fn read_vote(store: &mut Store) -> Option<Vote> {
    store.get_log_reader().await.read_vote().await.unwrap()
}

async fn ends(store: &mut Store) -> (Option<Id>, Option<Id>) {
    let LogState { last_purged_log_id, last_log_id } = store.get_log_state().await.unwrap();
    (last_purged_log_id, last_log_id)
}

// ---- openraft's suite -------------------------------------------------------------------------------------

#[derive(Default)]
struct Builder {
    built: AtomicUsize,
}

type Built = ((tempfile::TempDir, Engine), LogStore<MemTypes>, Arc<MemStateMachine>);

impl StoreBuilder<MemTypes, LogStore<MemTypes>, Arc<MemStateMachine>, (tempfile::TempDir, Engine)>
    for &Builder
{
    async fn build(&self) -> Result<Built, StorageError<MemTypes>> {
        self.built.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let engine = raftwood::Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
        let store = LogStore::new(&engine, R);
        Ok(((dir, engine), store, Arc::new(MemStateMachine::new(BlockConfig::default()))))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    let builder = Builder::default();
    MemTypes::run(async { Suite::test_all(&builder).await.unwrap() });
    let built = builder.built.into_inner();
    println!("openraft 0.10: the suite built {built} stores and passed with each");
    // One for each of its tests, and two more where a snapshot goes from one to another.
    assert!(built >= 40, "the suite built only {built} stores");
}

// ---- what survives ----------------------------------------------------------------------------------------

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(3, 2);
    let engine = Engine::open(dir.path()).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(ends(&mut store).await, (None, None));
    assert_eq!(read_vote(&mut store).await, None);
    assert_eq!(store.read_committed().await.unwrap(), None);
    store.blocking_append(entries(2, 0..=9)).await.unwrap();
    store.save_vote(&vote).await.unwrap();
    store.save_committed(Some(log_id(2, 7))).await.unwrap();
    store.purge(log_id(2, 4)).await.unwrap();
    store.truncate_after(Some(log_id(2, 7))).await.unwrap();
    store.blocking_append(entries(3, 8..=8)).await.unwrap();
    engine.close().unwrap();
    drop((store, engine));

    let engine = Engine::open(dir.path()).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let read_back = read_vote(&mut store).await.unwrap();
    assert_eq!(read_back, vote);
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 7)));
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 4)), Some(log_id(3, 8))));
    let mut expected = entries(2, 5..=7);
    expected.extend(entries(3, 8..=8));
    assert_eq!(read(&mut store).await, expected);
    store.save_committed(None).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), None);
    store.truncate_after(None).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 4)), Some(log_id(2, 4))));
}

#[tokio::test]
async fn append_returns_while_the_sync_is_stuck_and_calls_back_when_the_entries_are_durable() {
    let vfs = SimVfs::new(1);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();
    let mut reader = store.get_log_reader().await.clone();

    let stalled = Stalled::new(&vfs);
    let (told, mut flushed) = Types::oneshot();
    soon("append", store.append(entries(1, 4..=6), IOFlushed::signal(told))).await.unwrap();
    assert_eq!(reader.try_get_log_entries(2..9).await.unwrap(), entries(1, 2..=6));
    sync_is_stuck(&vfs).await;
    flushed.try_recv().unwrap_err();
    // So it must not call back yet.
    let mut early = LogStore::<Types>::new(&crashed(&vfs), R);
    assert_eq!(read(&mut early).await, entries(1, 1..=3));

    drop(stalled);
    soon("the callback", flushed).await.unwrap().unwrap();
    let mut after = LogStore::<Types>::new(&crashed(&vfs), R);
    assert_eq!(read(&mut after).await, entries(1, 1..=6));
}

#[tokio::test]
async fn a_failed_sync_is_told_to_the_callback_and_to_all_that_comes_later() {
    let vfs = SimVfs::new(2);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    let (told, flushed) = Types::oneshot();
    store.append(entries(1, 2..=2), IOFlushed::signal(told)).await.unwrap();
    let error = soon("the callback", flushed).await.unwrap().unwrap_err();
    assert!(error.to_string().contains(".log"), "the file is named: {error}");
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<raftwood::Error>());
    assert!(cause.is_some(), "the error of the engine is the source");
    store.save_vote(&Vote::new(2, 1)).await.unwrap_err();
    store.save_committed(Some(log_id(1, 1))).await.unwrap_err();
}

#[tokio::test]
async fn a_vote_is_durable_on_return_and_the_committed_id_takes_no_sync() {
    let vfs = SimVfs::new(3);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();

    let stalled = Stalled::new(&vfs);
    let before = engine.stats().syncs;
    soon("save_committed", store.save_committed(Some(log_id(1, 2)))).await.unwrap();
    soon("purge", store.purge(log_id(1, 1))).await.unwrap();
    // Nor is one on its way, that nobody waits for.
    written(&engine);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(engine.stats().syncs, before);
    // A killed process leaves what it has written.
    let mut killed = LogStore::<Types>::new(&open(&vfs.crash(LossPolicy::KeepAll)), R);
    assert_eq!(killed.read_committed().await.unwrap(), Some(log_id(1, 2)));
    assert_eq!(ends(&mut killed).await, (Some(log_id(1, 1)), Some(log_id(1, 3))));

    let saving = tokio::spawn(async move { store.save_vote(&Vote::new(4, 2)).await.unwrap() });
    sync_is_stuck(&vfs).await;
    assert!(!saving.is_finished());
    drop(stalled);
    soon("save_vote", saving).await.unwrap();
    let mut after = LogStore::<Types>::new(&crashed(&vfs), R);
    assert_eq!(read_vote(&mut after).await, Some(Vote::new(4, 2)));
    // It stands after the rest in the log, so that is there too.
    assert_eq!(after.read_committed().await.unwrap(), Some(log_id(1, 2)));
}

#[tokio::test]
async fn nothing_but_a_vote_and_a_truncation_waits_for_a_sync_that_is_running() {
    let vfs = SimVfs::new(15);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    store.blocking_append(entries(1, 1..=9)).await.unwrap();
    let stalled = Stalled::new(&vfs);
    let appending = tokio::spawn(async move { other.blocking_append(entries(1, 1..=1)).await.unwrap() });
    sync_is_stuck(&vfs).await;
    soon("save_committed", store.save_committed(Some(log_id(1, 2)))).await.unwrap();
    soon("purge", store.purge(log_id(1, 3))).await.unwrap();
    let mut reader = store.get_log_reader().await;
    let truncating = tokio::spawn(async move {
        store.truncate_after(Some(log_id(1, 7))).await.unwrap();
        store
    });
    while reader.try_get_log_entries(..).await.unwrap() != entries(1, 4..=7) {
        tokio::task::yield_now().await;
    }
    assert!(!appending.is_finished() && !truncating.is_finished());
    drop(stalled);
    soon("the append", appending).await.unwrap();
    let mut store = soon("the truncation", truncating).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 2)));
    assert_eq!(ends(&mut store).await, (Some(log_id(1, 3)), Some(log_id(1, 7))));
    // And it is in the log, before what comes after.
    store.blocking_append(entries(2, 8..=8)).await.unwrap();
    let mut after = LogStore::<Types>::new(&crashed(&vfs), R);
    assert_eq!(after.read_committed().await.unwrap(), Some(log_id(1, 2)));
    assert_eq!(ends(&mut after).await, (Some(log_id(1, 3)), Some(log_id(2, 8))));
}

/// The second would fit at once, where the first has to wait for room.
#[tokio::test]
async fn what_nobody_awaits_any_more_keeps_its_place() {
    let vfs = SimVfs::new(16);
    let engine = options(&vfs).in_flight_bytes_max(16 << 10).open("/db").unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    let stalled = Stalled::new(&vfs);
    let long: String = (0..10_000u32).map(|n| char::from(b'a' + (n * n % 26) as u8)).collect();
    let full = text(1, 1, &long);
    let filling = tokio::spawn(async move { other.blocking_append([full]).await.unwrap() });
    sync_is_stuck(&vfs).await;
    let (told, flushed) = Types::oneshot();
    let moment = std::time::Duration::from_millis(50);
    tokio::time::timeout(moment, store.append([text(1, 2, &long)], IOFlushed::signal(told)))
        .await
        .unwrap_err();
    let mut truncating = tokio::spawn(async move {
        store.truncate_after(Some(log_id(1, 1))).await.unwrap();
        store
    });
    tokio::time::timeout(moment, &mut truncating).await.unwrap_err();
    drop(stalled);
    soon("what filled the log", filling).await.unwrap();
    let mut store = soon("truncate_after", truncating).await.unwrap();
    soon("the callback", flushed).await.unwrap().unwrap();
    assert_eq!(read(&mut store).await, entries(1, 1..=1));
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 1))));
}

#[tokio::test]
async fn what_waits_for_room_fails_with_the_sync_that_it_waited_for() {
    let vfs = SimVfs::new(17);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    let stalled = Stalled::new(&vfs);
    let (told, first) = Types::oneshot();
    store.append([text(1, 2, &"x".repeat(8000))], IOFlushed::signal(told)).await.unwrap();
    sync_is_stuck(&vfs).await;
    let (told, never) = Types::oneshot();
    let second =
        tokio::spawn(
            async move { other.append([text(1, 1, &"y".repeat(8000))], IOFlushed::signal(told)).await },
        );
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    drop(stalled);
    soon("the callback of the first", first).await.unwrap().unwrap_err();
    soon("the second", second).await.unwrap().unwrap_err();
    // An error that is returned is not called back too.
    soon("the callback of the second", never).await.unwrap_err();
    assert!(engine.region(RegionId(8)).state().is_empty());
}

#[tokio::test]
async fn what_is_on_its_way_when_the_engine_closes_is_called_back_and_later_appends_are_refused() {
    let vfs = SimVfs::new(18);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    let stalled = Stalled::new(&vfs);
    let appending = tokio::spawn(async move {
        store.blocking_append(entries(1, 2..=2)).await.unwrap();
        store
    });
    sync_is_stuck(&vfs).await;
    let closing = tokio::task::spawn_blocking({
        let engine = engine.clone();
        move || engine.close().unwrap()
    });
    drop(stalled);
    let mut store = soon("the callback", appending).await.unwrap();
    soon("close", closing).await.unwrap();
    soon("an append", store.blocking_append(entries(1, 3..=3))).await.unwrap_err();
    soon("an append of nothing", store.blocking_append([])).await.unwrap_err();
    soon("a vote", store.save_vote(&Vote::new(2, 1))).await.unwrap_err();
    soon("a purge", store.purge(log_id(1, 1))).await.unwrap_err();
    let mut after = LogStore::<Types>::new(&crashed(&vfs), R);
    assert_eq!(read(&mut after).await, entries(1, 1..=2));
}

// ---- purge, truncate, append ------------------------------------------------------------------------------

#[tokio::test]
async fn a_purge_and_its_log_id_survive_together_or_not_at_all() {
    for beyond in [false, true] {
        let vfs = SimVfs::new(4);
        let engine = open(&vfs);
        let mut store: Store = LogStore::new(&engine, R);
        store.blocking_append(entries(1, 0..=9)).await.unwrap();
        let id = if beyond { log_id(5, 20) } else { log_id(1, 4) };
        store.purge(id).await.unwrap();
        written(&engine);
        let last = if beyond { id } else { log_id(1, 9) };
        assert_eq!(ends(&mut store).await, (Some(id), Some(last)));
        let mut seen = [0; 2];
        for kept in 0..=vfs.pending_count() {
            let engine = open(&vfs.crash(LossPolicy::KeepFirst(kept)));
            let mut store: Store = LogStore::new(&engine, R);
            match ends(&mut store).await {
                (None, last) => {
                    assert_eq!(last, Some(log_id(1, 9)));
                    assert_eq!(read(&mut store).await, entries(1, 0..=9));
                    seen[0] += 1;
                }
                after => {
                    assert_eq!(after, (Some(id), Some(last)));
                    let left = if beyond { vec![] } else { entries(1, 5..=9) };
                    assert_eq!(read(&mut store).await, left);
                    seen[1] += 1;
                }
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}

#[tokio::test]
async fn appends_at_or_below_the_purge_point_are_dropped() {
    let vfs = SimVfs::new(5);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.purge(log_id(2, 5)).await.unwrap();
    soon("an append of nothing new", store.blocking_append(entries(2, 3..=5))).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 5)), Some(log_id(2, 5))));
    store.blocking_append(entries(2, 4..=7)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(2, 6..=7));
    store.blocking_append([]).await.unwrap();
}

#[tokio::test]
async fn what_would_tear_the_log_is_refused() {
    let vfs = SimVfs::new(6);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 1..=5)).await.unwrap();
    for (what, refused) in [
        ("a gap", entries(3, 7..=8)),
        ("a hole", vec![entry(3, 6), entry(3, 8)]),
        ("a falling term", entries(2, 6..=6)),
    ] {
        let error = store.append(refused, IOFlushed::noop()).await.unwrap_err();
        assert!(error.to_string().contains("region 7"), "{what}: {error}");
    }
    assert_eq!(read(&mut store).await, entries(3, 1..=5));
}

#[tokio::test]
async fn a_purge_that_contradicts_the_log_is_refused() {
    let vfs = SimVfs::new(13);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 4..=6)).await.unwrap();
    for (purged, named) in [(log_id(2, 5), 5), (log_id(4, 5), 5), (log_id(4, 6), 6)] {
        let error = store.purge(purged).await.unwrap_err().to_string();
        assert!(error.contains(&format!("the log has entry {named} (term 3)")), "{error}");
        assert_eq!(read(&mut store).await, entries(3, 4..=6));
        assert_eq!(ends(&mut store).await, (None, Some(log_id(3, 6))));
    }
    // A snapshot of a newer leader: what contradicts it was truncated before.
    store.purge(log_id(4, 9)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(4, 9)), Some(log_id(4, 9))));
    store.blocking_append(entries(4, 10..=10)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(4, 10..=10));
}

#[tokio::test]
async fn a_truncation_survives_a_power_cut_once_it_has_returned() {
    let vfs = SimVfs::new(14);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 1..=5)).await.unwrap();
    store.truncate_after(Some(log_id(3, 2))).await.unwrap();
    let engine = open(&vfs.crash(LossPolicy::LoseAll));
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(read(&mut store).await, entries(3, 1..=2));
    // The snapshot that it made room for.
    store.purge(log_id(4, 3)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(4, 3)), Some(log_id(4, 3))));
}

#[tokio::test]
async fn a_limited_read_has_at_least_one_entry_and_never_one_in_anothers_place() {
    let vfs = SimVfs::new(7);
    let engine = open(&vfs);
    let mut store = LogStore::<Types>::new(&engine, R).read_bytes(100);
    let long = |index| text(1, index, &"x".repeat(90));
    store.blocking_append((1..=9).map(long).collect::<Vec<_>>()).await.unwrap();
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(3, 9).await.unwrap(), [long(3)]);
    store.purge(log_id(1, 4)).await.unwrap();
    assert_eq!(reader.limited_get_log_entries(3, 9).await.unwrap(), []);
    assert_eq!(reader.limited_get_log_entries(9, 12).await.unwrap(), [long(9)]);
    assert_eq!(reader.limited_get_log_entries(12, 14).await.unwrap(), []);
    assert_eq!(reader.try_get_log_entries(8..).await.unwrap(), [long(8), long(9)]);
}

#[test]
fn a_term_that_is_no_number_of_the_engines_is_none() {
    type Std<T> = leader_id_std::LeaderId<T, u64>;
    type Adv<T> = leader_id_adv::LeaderId<T, u64>;
    use openraft010::vote::RaftLeaderId;
    assert_eq!(Std::<u32>::new(7, 1).to_committed().leader_term(), Some(7));
    assert_eq!(Adv::<u64>::new(7, 1).to_committed().leader_term(), Some(7));
    assert_eq!(Std::<i64>::new(-7, 1).to_committed().leader_term(), None);
    assert_eq!(Adv::<i64>::new(-7, 1).to_committed().leader_term(), None);
}

#[tokio::test]
async fn an_emptied_log_knows_where_it_goes_on_even_if_it_began_behind_what_was_purged() {
    let vfs = SimVfs::new(19);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 9..=11)).await.unwrap();
    store.purge(log_id(2, 5)).await.unwrap();
    // An older purge changes nothing here either.
    store.purge(log_id(2, 4)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 5)), Some(log_id(3, 11))));
    store.truncate_after(Some(log_id(3, 8))).await.unwrap();
    let emptied = (Some(log_id(2, 5)), Some(log_id(2, 5)));
    assert_eq!(ends(&mut store).await, emptied);
    store.blocking_append(entries(2, 3..=5)).await.unwrap();
    assert_eq!(ends(&mut store).await, emptied);
    store.blocking_append(entries(3, 9..=9)).await.unwrap_err();
    store.blocking_append(entries(3, 5..=7)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(3, 6..=7));
    let mut after = LogStore::<Types>::new(&crashed(&vfs), R);
    assert_eq!(ends(&mut after).await, (Some(log_id(2, 5)), Some(log_id(3, 7))));
    assert_eq!(read(&mut after).await, entries(3, 6..=7));
}

#[tokio::test]
async fn entries_between_the_purge_and_a_log_that_begins_behind_it_are_taken() {
    let vfs = SimVfs::new(20);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 9..=11)).await.unwrap();
    store.purge(log_id(2, 5)).await.unwrap();
    store.blocking_append(entries(3, 4..=10)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(3, 6..=10));
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 5)), Some(log_id(3, 10))));
}

#[tokio::test]
async fn a_read_is_of_the_entries_that_are_there_whatever_the_bounds() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let vfs = SimVfs::new(21);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    let mut reader = store.get_log_reader().await;
    let all = [
        ((Unbounded, Unbounded), 0, 6),
        ((Included(0), Excluded(7)), 0, 6),
        ((Included(0), Included(0)), 0, 0),
        ((Unbounded, Included(3)), 0, 3),
        ((Excluded(2), Unbounded), 3, 6),
        ((Excluded(2), Excluded(4)), 3, 3),
        ((Included(6), Included(u64::MAX)), 6, 6),
        ((Included(2), Excluded(u64::MAX)), 2, 6),
        // Nothing.
        ((Included(3), Excluded(3)), 1, 0),
        ((Included(4), Excluded(3)), 1, 0),
        ((Excluded(3), Included(3)), 1, 0),
        ((Unbounded, Excluded(0)), 1, 0),
        ((Included(7), Unbounded), 1, 0),
        ((Excluded(6), Included(9)), 1, 0),
        ((Excluded(u64::MAX), Unbounded), 1, 0),
    ];
    for (range, _, _) in all {
        assert_eq!(reader.try_get_log_entries(range).await.unwrap(), [], "{range:?} of an empty log");
    }
    store.blocking_append(entries(1, 0..=6)).await.unwrap();
    for (range, first, last) in all {
        let expected = if first > last { vec![] } else { entries(1, first..=last) };
        assert_eq!(reader.try_get_log_entries(range).await.unwrap(), expected, "{range:?}");
    }
    // All of them gone, index 0 included: the log begins where it is told to.
    store.truncate_after(None).await.unwrap();
    assert_eq!(ends(&mut store).await, (None, None));
    for (range, _, _) in all {
        assert_eq!(reader.try_get_log_entries(range).await.unwrap(), [], "{range:?} of an emptied log");
    }
    store.blocking_append(entries(2, 0..=1)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(2, 0..=1));
}

// ---- damage -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_damaged_entry_is_an_error_that_says_where_and_never_a_shorter_log() {
    let vfs = SimVfs::new(8);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    for index in 1..=9 {
        store.blocking_append([entry(1, index)]).await.unwrap();
    }
    engine.close().unwrap();
    drop((store, engine));
    let (path, at) = find(&vfs, b"<command 5 of");
    rot(&vfs, &path, at + 1);

    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    let mut reader = store.get_log_reader().await;
    let file = path.file_name().unwrap().to_str().unwrap();
    for failed in [
        reader.try_get_log_entries(..).await,
        reader.try_get_log_entries(5..6).await,
        reader.limited_get_log_entries(3, 8).await,
    ] {
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let error = error.to_string();
        for part in ["region 7", "entry 5", file, "offset"] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
    assert_eq!(reader.try_get_log_entries(1..5).await.unwrap(), entries(1, 1..=4));
    assert_eq!(reader.try_get_log_entries(6..).await.unwrap(), entries(1, 6..=9));
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 9))));
}

#[tokio::test]
async fn a_vote_that_was_lost_is_an_error_and_not_the_one_before() {
    let vfs = SimVfs::new(22);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.save_vote(&Vote::new(1, 1)).await.unwrap();
    let at = u64::from(engine.stats().accepted.offset());
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    let disk = vfs.crash(LossPolicy::KeepAll);
    ruin(&disk, "/db/0000000001.log", at + 70, 6);
    // Opened all the same: somebody says that the last record was torn.
    let engine = options(&disk).tail_policy(raftwood::TailPolicy::AssumeTorn).open("/db").unwrap();
    assert!(engine.open_report().assumed_torn);
    let mut store: LogStore<Types> = LogStore::new(&engine, R);
    let error = store.get_log_reader().await.read_vote().await.unwrap_err();
    assert!(error.to_string().contains("region 7"), "{error}");
    // The next one heals it.
    store.save_vote(&Vote::new(3, 1)).await.unwrap();
    assert_eq!(store.get_log_reader().await.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
}

// ---- a vote and the end of the run that it was saved in ---------------------------------------------------

/// A leader that was killed found its own committed vote and led on in that term, without the entries that it
/// had sent to others and not synced: see `openraft_cluster`. Whether it may is the store's to say, and it
/// must say the same until there is another vote.
#[tokio::test]
async fn a_vote_is_not_committed_after_an_unclean_end_until_another_is_saved() {
    let vfs = SimVfs::new(30);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 1..=3)).await.unwrap();
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    assert_eq!(read_vote(&mut store).await, Some(Vote::new_committed(3, 2)));

    let vfs = vfs.crash(LossPolicy::KeepAll);
    let mut engine = open(&vfs);
    // A second group object in one process, and runs in which the group does not start: one that writes
    // nothing, and one that writes for others.
    for others_write in [false, true, false] {
        for _ in 0..2 {
            assert_eq!(read_vote(&mut LogStore::new(&engine, R)).await, Some(Vote::new(3, 2)));
        }
        if others_write {
            let mut other: Store = LogStore::new(&engine, RegionId(8));
            other.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        }
        engine = closed_and_opened(&vfs, engine);
    }
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(read_vote(&mut store).await, Some(Vote::new(3, 2)));
    // The log is what it was, and so is what may be appended to it.
    store.blocking_append(entries(3, 4..=4)).await.unwrap();
    assert_eq!(read_vote(&mut store).await, Some(Vote::new(3, 2)));
    // Elected, in a later term or (as a follower's) by the same leader's message.
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    assert_eq!(read_vote(&mut store).await, Some(Vote::new_committed(3, 2)));
    store.save_vote(&Vote::new_committed(4, 2)).await.unwrap();
    drop(store);
    for _ in 0..2 {
        assert_eq!(read_vote(&mut LogStore::new(&engine, R)).await, Some(Vote::new_committed(4, 2)));
    }
    let mut killed: Store = LogStore::new(&crashed(&vfs), R);
    assert_eq!(read_vote(&mut killed).await, Some(Vote::new(4, 2)));
}

/// openraft's shortcut for leaders that were stopped in order is kept: nothing of theirs was lost.
#[tokio::test]
async fn a_vote_stays_committed_over_clean_ends_and_the_first_unclean_one_ends_that() {
    let vfs = SimVfs::new(31);
    let mut engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 1..=3)).await.unwrap();
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    for index in 4..8 {
        drop(store);
        engine = closed_and_opened(&vfs, engine);
        store = LogStore::new(&engine, R);
        assert_eq!(read_vote(&mut store).await, Some(Vote::new_committed(3, 2)));
        // It leads on, and saves no vote.
        store.blocking_append(entries(3, index..=index)).await.unwrap();
    }
    let mut killed: Store = LogStore::new(&crashed(&vfs), R);
    assert_eq!(read_vote(&mut killed).await, Some(Vote::new(3, 2)));
}

// ---- nothing blocks ---------------------------------------------------------------------------------------

#[tokio::test]
async fn waiting_for_room_does_not_hold_the_thread() {
    let vfs = SimVfs::new(11);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    // Should the runtime's only thread be held after all, the gate opens, and the test fails
    // instead of hanging.
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn({
        let vfs = vfs.clone();
        move || {
            let held = waits.recv_timeout(std::time::Duration::from_secs(60)).is_err();
            vfs.release_syncs();
            held
        }
    });
    let _stalled = Stalled::new(&vfs);
    let big = text(1, 2, &"x".repeat(8000));
    store.append([big], IOFlushed::noop()).await.unwrap();
    let second = tokio::spawn(async move {
        other.blocking_append([text(1, 1, &"y".repeat(8000))]).await.unwrap();
        other
    });
    // It has been polled when this comes back, on the one thread that there is.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished());
    assert!(engine.region(RegionId(8)).state().is_empty(), "there is no room yet");
    done.send(()).unwrap();
    let mut other = soon("the second", second).await.unwrap();
    assert_eq!(read(&mut other).await.len(), 1);
    assert!(!watch.join().unwrap(), "the runtime's thread was held");
}

#[tokio::test]
async fn blank_entries_and_memberships_come_back_as_they_were() {
    let vfs = SimVfs::new(12);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    let nodes = std::collections::BTreeSet::from([1, 2, 3]);
    let membership = Membership::new_with_defaults(vec![nodes.clone(), nodes], []);
    let written =
        [Entry::new_membership(log_id(0, 0), membership), Entry::new_blank(log_id(1, 1)), entry(1, 2)];
    store.blocking_append(written.clone()).await.unwrap();
    assert_eq!(read(&mut store).await, written);
}
