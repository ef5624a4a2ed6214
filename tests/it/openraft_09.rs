//! The adapter for openraft 0.9: openraft's own suite, unchanged, and what it does not ask.

mod retry;
mod stored;
mod writers;

use crate::support::files::{find, rot, ruin};
use crate::support::machine_09::{Machine, TypeConfig};
use crate::support::openraft::{R, Stalled, crashed, open, options, soon, sync_is_stuck, written};
use openraft09::entry::RaftEntry;
use openraft09::storage::{LogFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft09::testing::{StoreBuilder, Suite, log_id};
use openraft09::{Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote};
use raftwood::healing::{Healer, Standing, Taken};
use raftwood::openraft_09::{Format, LogStore, Postcard};
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, Op, OpKind, SimVfs};
use raftwood::{Durability, Engine, EntryId, RegionId};
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

type Store = LogStore<TypeConfig>;
type Fails = StorageError<u64>;

fn entry(term: u64, index: u64) -> Entry<TypeConfig> {
    text(term, index, &format!("<command {index} of term {term}>"))
}

fn text(term: u64, index: u64, text: &str) -> Entry<TypeConfig> {
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(text.to_string()) }
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry<TypeConfig>> {
    indexes.map(|index| entry(term, index)).collect()
}

async fn read(store: &mut Store) -> Vec<Entry<TypeConfig>> {
    store.try_get_log_entries(..).await.unwrap()
}

async fn ends(store: &mut Store) -> (Option<LogId<u64>>, Option<LogId<u64>>) {
    let LogState { last_purged_log_id, last_log_id } = store.get_log_state().await.unwrap();
    (last_purged_log_id, last_log_id)
}

// ---- openraft's suite -------------------------------------------------------------------------------------

#[derive(Default)]
struct Builder {
    built: AtomicUsize,
}

impl StoreBuilder<TypeConfig, Store, Machine, (tempfile::TempDir, Engine)> for &Builder {
    async fn build(&self) -> Result<((tempfile::TempDir, Engine), Store, Machine), Fails> {
        self.built.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let engine = raftwood::Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
        let store = LogStore::new(&engine, R);
        Ok(((dir, engine), store, Machine::default()))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    let builder = Builder::default();
    Suite::test_all(&builder).unwrap();
    let built = builder.built.into_inner();
    println!("openraft 0.9: the suite built {built} stores and passed with each");
    // One for each of its tests, and two more where a snapshot goes from one to another.
    assert!(built >= 36, "the suite built only {built} stores");
}

// ---- what survives ----------------------------------------------------------------------------------------

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(3, 2);
    let engine = Engine::open(dir.path()).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(ends(&mut store).await, (None, None));
    assert_eq!(store.read_vote().await.unwrap(), None);
    assert_eq!(store.read_committed().await.unwrap(), None);
    store.blocking_append(entries(2, 0..=9)).await.unwrap();
    store.save_vote(&vote).await.unwrap();
    store.save_committed(Some(log_id(2, 1, 7))).await.unwrap();
    store.purge(log_id(2, 1, 4)).await.unwrap();
    store.truncate(log_id(2, 1, 8)).await.unwrap();
    store.blocking_append(entries(3, 8..=8)).await.unwrap();
    engine.close().unwrap();
    drop((store, engine));

    let engine = Engine::open(dir.path()).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 1, 7)));
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 4)), Some(log_id(3, 1, 8))));
    let mut expected = entries(2, 5..=7);
    expected.extend(entries(3, 8..=8));
    assert_eq!(read(&mut store).await, expected);
    store.save_committed(None).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), None);
}

/// Signals when `append` has returned, which the callback alone does not.
struct Watched {
    store: Store,
    returned: mpsc::UnboundedSender<()>,
}

impl RaftLogReader<TypeConfig> for Watched {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, Fails> {
        self.store.try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for Watched {
    type LogReader = <Store as RaftLogStorage<TypeConfig>>::LogReader;

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), Fails>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.store.append(entries, callback).await?;
        self.returned.send(()).unwrap();
        Ok(())
    }

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Fails> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Fails> {
        self.store.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Fails> {
        self.store.read_vote().await
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Fails> {
        self.store.truncate(log_id).await
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Fails> {
        self.store.purge(log_id).await
    }
}

#[tokio::test]
async fn append_returns_while_the_sync_is_stuck_and_calls_back_when_the_entries_are_durable() {
    let vfs = SimVfs::new(1);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();
    let mut reader = store.get_log_reader().await.clone();

    let stalled = Stalled::new(&vfs);
    let (returned, mut returns) = mpsc::unbounded_channel();
    let mut watched = Watched { store, returned };
    let mut flushed = tokio::spawn(async move {
        watched.blocking_append(entries(1, 4..=6)).await.unwrap();
        watched.store
    });
    soon("append", returns.recv()).await.unwrap();
    assert_eq!(reader.try_get_log_entries(2..9).await.unwrap(), entries(1, 2..=6));
    sync_is_stuck(&vfs).await;
    assert!(!flushed.is_finished());
    // So it must not call back yet.
    let mut early = LogStore::<TypeConfig>::new(&crashed(&vfs), R);
    assert_eq!(read(&mut early).await, entries(1, 1..=3));

    drop(stalled);
    let mut store = soon("the callback", &mut flushed).await.unwrap();
    let mut after = LogStore::<TypeConfig>::new(&crashed(&vfs), R);
    assert_eq!(read(&mut after).await, entries(1, 1..=6));
    assert_eq!(read(&mut store).await, entries(1, 1..=6));
}

#[tokio::test]
async fn a_failed_sync_is_told_to_the_callback_and_to_all_that_comes_later() {
    let vfs = SimVfs::new(2);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    let failed = soon("the callback", store.blocking_append(entries(1, 2..=2))).await;
    assert!(failed.unwrap_err().to_string().contains(".log"), "the file is named");
    store.save_vote(&Vote::new(2, 1)).await.unwrap_err();
    store.save_committed(Some(log_id(1, 1, 1))).await.unwrap_err();
}

#[tokio::test]
async fn a_vote_is_durable_on_return_and_the_committed_id_takes_no_sync() {
    let vfs = SimVfs::new(3);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();

    let stalled = Stalled::new(&vfs);
    let before = engine.stats().syncs;
    soon("save_committed", store.save_committed(Some(log_id(1, 1, 2)))).await.unwrap();
    soon("purge", store.purge(log_id(1, 1, 1))).await.unwrap();
    // Nor is one on its way, that nobody waits for.
    written(&engine);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(engine.stats().syncs, before);
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 1, 2)));
    // A killed process leaves what it has written.
    let mut killed = LogStore::<TypeConfig>::new(&open(&vfs.crash(LossPolicy::KeepAll)), R);
    assert_eq!(killed.read_committed().await.unwrap(), Some(log_id(1, 1, 2)));
    assert_eq!(ends(&mut killed).await, (Some(log_id(1, 1, 1)), Some(log_id(1, 1, 3))));

    let saving = tokio::spawn(async move {
        store.save_vote(&Vote::new(4, 2)).await.unwrap();
        store
    });
    sync_is_stuck(&vfs).await;
    assert!(!saving.is_finished());
    drop(stalled);
    soon("save_vote", saving).await.unwrap();
    let mut after = LogStore::<TypeConfig>::new(&crashed(&vfs), R);
    assert_eq!(after.read_vote().await.unwrap(), Some(Vote::new(4, 2)));
    // It stands after the rest in the log, so that is there too.
    assert_eq!(after.read_committed().await.unwrap(), Some(log_id(1, 1, 2)));
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
    soon("save_committed", store.save_committed(Some(log_id(1, 1, 2)))).await.unwrap();
    soon("purge", store.purge(log_id(1, 1, 3))).await.unwrap();
    let mut reader = store.get_log_reader().await;
    let truncating = tokio::spawn(async move {
        store.truncate(log_id(1, 1, 8)).await.unwrap();
        store
    });
    while reader.try_get_log_entries(..).await.unwrap() != entries(1, 4..=7) {
        tokio::task::yield_now().await;
    }
    assert!(!appending.is_finished() && !truncating.is_finished());
    drop(stalled);
    soon("the append", appending).await.unwrap();
    let mut store = soon("the truncation", truncating).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 1, 2)));
    assert_eq!(ends(&mut store).await, (Some(log_id(1, 1, 3)), Some(log_id(1, 1, 7))));
    // And it is in the log, before what comes after.
    store.blocking_append(entries(2, 8..=8)).await.unwrap();
    let mut after = LogStore::<TypeConfig>::new(&crashed(&vfs), R);
    assert_eq!(after.read_committed().await.unwrap(), Some(log_id(1, 1, 2)));
    assert_eq!(ends(&mut after).await, (Some(log_id(1, 1, 3)), Some(log_id(2, 1, 8))));
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
    let moment = std::time::Duration::from_millis(50);
    tokio::time::timeout(moment, store.blocking_append([text(1, 2, &long)])).await.unwrap_err();
    let mut truncating = tokio::spawn(async move {
        store.truncate(log_id(1, 1, 2)).await.unwrap();
        store
    });
    tokio::time::timeout(moment, &mut truncating).await.unwrap_err();
    drop(stalled);
    soon("what filled the log", filling).await.unwrap();
    let mut store = soon("truncate", truncating).await.unwrap();
    assert_eq!(read(&mut store).await, entries(1, 1..=1));
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 1, 1))));
}

#[tokio::test]
async fn what_waits_for_room_fails_with_the_sync_that_it_waited_for() {
    let vfs = SimVfs::new(17);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    store.blocking_append(entries(1, 1..=1)).await.unwrap();
    let stalled = Stalled::new(&vfs);
    let first = tokio::spawn(async move { store.blocking_append([text(1, 2, &"x".repeat(8000))]).await });
    sync_is_stuck(&vfs).await;
    let second = tokio::spawn(async move { other.blocking_append([text(1, 1, &"y".repeat(8000))]).await });
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    drop(stalled);
    soon("the first", first).await.unwrap().unwrap_err();
    soon("the second", second).await.unwrap().unwrap_err();
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
    soon("a purge", store.purge(log_id(1, 1, 1))).await.unwrap_err();
    let mut after = LogStore::<TypeConfig>::new(&crashed(&vfs), R);
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
        let id = if beyond { log_id(5, 3, 20) } else { log_id(1, 1, 4) };
        store.purge(id).await.unwrap();
        written(&engine);
        let last = if beyond { id } else { log_id(1, 1, 9) };
        assert_eq!(ends(&mut store).await, (Some(id), Some(last)));
        let mut seen = [0; 2];
        for kept in 0..=vfs.pending_count() {
            let engine = open(&vfs.crash(LossPolicy::KeepFirst(kept)));
            let mut store: Store = LogStore::new(&engine, R);
            match ends(&mut store).await {
                (None, last) => {
                    assert_eq!(last, Some(log_id(1, 1, 9)));
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
    store.purge(log_id(2, 1, 5)).await.unwrap();
    soon("an append of nothing new", store.blocking_append(entries(2, 3..=5))).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 5)), Some(log_id(2, 1, 5))));
    store.blocking_append(entries(2, 4..=7)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(2, 6..=7));
    // An older purge changes nothing.
    store.purge(log_id(1, 1, 2)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 5)), Some(log_id(2, 1, 7))));
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
        let error = store.blocking_append(refused).await.unwrap_err();
        assert!(error.to_string().contains("region 7"), "{what}: {error}");
    }
    assert_eq!(read(&mut store).await, entries(3, 1..=5));
    assert_eq!(ends(&mut store).await, (None, Some(log_id(3, 1, 5))));
}

#[tokio::test]
async fn a_purge_that_contradicts_the_log_is_refused() {
    let vfs = SimVfs::new(13);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 4..=6)).await.unwrap();
    for (purged, named) in [(log_id(2, 1, 5), 5), (log_id(4, 1, 5), 5), (log_id(4, 1, 6), 6)] {
        let error = store.purge(purged).await.unwrap_err().to_string();
        assert!(error.contains(&format!("the log has entry {named} (term 3)")), "{error}");
        assert_eq!(read(&mut store).await, entries(3, 4..=6));
        assert_eq!(ends(&mut store).await, (None, Some(log_id(3, 1, 6))));
    }
    // A snapshot of a newer leader: what contradicts it was truncated before.
    store.purge(log_id(4, 1, 9)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(4, 1, 9)), Some(log_id(4, 1, 9))));
    store.blocking_append(entries(4, 10..=10)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(4, 10..=10));
}

#[tokio::test]
async fn a_truncation_survives_a_power_cut_once_it_has_returned() {
    let vfs = SimVfs::new(14);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 1..=5)).await.unwrap();
    store.truncate(log_id(3, 1, 3)).await.unwrap();
    let engine = open(&vfs.crash(LossPolicy::LoseAll));
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(read(&mut store).await, entries(3, 1..=2));
    // The snapshot that it made room for.
    store.purge(log_id(4, 1, 3)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(4, 1, 3)), Some(log_id(4, 1, 3))));
}

#[tokio::test]
async fn what_lies_before_the_first_entry_can_be_purged_too() {
    let vfs = SimVfs::new(14);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 6..=8)).await.unwrap();
    store.purge(log_id(2, 1, 5)).await.unwrap();
    store.blocking_append(entries(3, 5..=8)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 5)), Some(log_id(3, 1, 8))));
        assert_eq!(read(&mut store).await, entries(3, 6..=8));
        engine.sync().unwrap();
        let engine = open(&vfs.crash(LossPolicy::LoseAll));
        store = LogStore::new(&engine, R);
    }
    store.truncate(log_id(3, 1, 6)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 5)), Some(log_id(2, 1, 5))));
    store.blocking_append(entries(4, 6..=7)).await.unwrap();
    store.purge(log_id(4, 1, 6)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(4, 1, 6)), Some(log_id(4, 1, 7))));
    assert_eq!(read(&mut store).await, entries(4, 7..=7));
}

#[tokio::test]
async fn a_limited_read_has_at_least_one_entry_and_never_one_in_anothers_place() {
    let vfs = SimVfs::new(7);
    let engine = open(&vfs);
    let mut store = LogStore::<TypeConfig>::new(&engine, R).read_bytes(100);
    let long = |index| text(1, index, &"x".repeat(90));
    store.blocking_append((1..=9).map(long).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.limited_get_log_entries(3, 9).await.unwrap(), [long(3)]);
    store.purge(log_id(1, 1, 4)).await.unwrap();
    assert_eq!(store.limited_get_log_entries(3, 9).await.unwrap(), []);
    assert_eq!(store.limited_get_log_entries(9, 12).await.unwrap(), [long(9)]);
    assert_eq!(store.limited_get_log_entries(12, 14).await.unwrap(), []);
    assert_eq!(store.try_get_log_entries(8..).await.unwrap(), [long(8), long(9)]);
    assert_eq!(store.try_get_log_entries(..6).await.unwrap(), [long(5)]);
    #[allow(clippy::reversed_empty_ranges, reason = "it is the caller's mistake that is tested")]
    let reversed = store.try_get_log_entries(8..6).await.unwrap();
    assert_eq!(reversed, []);
}

#[tokio::test]
async fn an_emptied_log_knows_where_it_goes_on_even_if_it_began_behind_what_was_purged() {
    let vfs = SimVfs::new(19);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 9..=11)).await.unwrap();
    store.purge(log_id(2, 1, 5)).await.unwrap();
    // An older purge changes nothing here either.
    store.purge(log_id(2, 1, 4)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 5)), Some(log_id(3, 1, 11))));
    store.truncate(log_id(3, 1, 9)).await.unwrap();
    let emptied = (Some(log_id(2, 1, 5)), Some(log_id(2, 1, 5)));
    assert_eq!(ends(&mut store).await, emptied);
    store.blocking_append(entries(2, 3..=5)).await.unwrap();
    assert_eq!(ends(&mut store).await, emptied);
    store.blocking_append(entries(3, 9..=9)).await.unwrap_err();
    store.blocking_append(entries(3, 5..=7)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(3, 6..=7));
    let mut after = LogStore::<TypeConfig>::new(&crashed(&vfs), R);
    assert_eq!(ends(&mut after).await, (Some(log_id(2, 1, 5)), Some(log_id(3, 1, 7))));
    assert_eq!(read(&mut after).await, entries(3, 6..=7));
}

#[tokio::test]
async fn entries_between_the_purge_and_a_log_that_begins_behind_it_are_taken() {
    let vfs = SimVfs::new(20);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(3, 9..=11)).await.unwrap();
    store.purge(log_id(2, 1, 5)).await.unwrap();
    store.blocking_append(entries(3, 4..=10)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(3, 6..=10));
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 5)), Some(log_id(3, 1, 10))));
}

#[tokio::test]
async fn a_read_is_of_the_entries_that_are_there_whatever_the_bounds() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let vfs = SimVfs::new(21);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
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
        assert_eq!(store.try_get_log_entries(range).await.unwrap(), [], "{range:?} of an empty log");
    }
    store.blocking_append(entries(1, 0..=6)).await.unwrap();
    for (range, first, last) in all {
        let expected = if first > last { vec![] } else { entries(1, first..=last) };
        assert_eq!(store.try_get_log_entries(range).await.unwrap(), expected, "{range:?}");
    }
    // All of them gone, index 0 included: the log begins where it is told to.
    store.truncate(log_id(1, 1, 0)).await.unwrap();
    assert_eq!(ends(&mut store).await, (None, None));
    for (range, _, _) in all {
        assert_eq!(store.try_get_log_entries(range).await.unwrap(), [], "{range:?} of an emptied log");
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
        store.try_get_log_entries(..).await,
        reader.try_get_log_entries(5..6).await,
        reader.limited_get_log_entries(3, 8).await,
    ] {
        let error = failed.unwrap_err().to_string();
        for part in ["LogIndex(5)", "region 7", "entry 5", file, "offset"] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
    assert_eq!(reader.try_get_log_entries(1..5).await.unwrap(), entries(1, 1..=4));
    assert_eq!(reader.try_get_log_entries(6..).await.unwrap(), entries(1, 6..=9));
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 1, 9))));
}

#[tokio::test]
async fn a_replica_gives_back_what_another_one_lost_before_its_group_runs() {
    let disks = [SimVfs::new(18), SimVfs::new(19)];
    for vfs in &disks {
        let engine = open(vfs);
        let mut store: Store = LogStore::new(&engine, R);
        store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        store.blocking_append(entries(1, 1..=9)).await.unwrap();
        engine.close().unwrap();
    }
    let (path, at) = find(&disks[0], b"<command 5 of");
    ruin(&disks[0], &path, at + 1, 6);
    let [engine, peer] = disks.each_ref().map(open);
    let (mut healer, peer) = (Healer::new(&engine, R), Healer::new(&peer, R));
    assert_eq!(healer.look().unwrap(), Standing::Fenced);
    let question = healer.question(None).unwrap();
    for answer in peer.answer(&question, 1).unwrap() {
        assert_eq!(healer.take(2, answer).unwrap(), Taken::PutBack);
    }
    assert_eq!(healer.standing(), Standing::Whole);
    assert_eq!(read(&mut LogStore::new(&engine, R)).await, entries(1, 1..=9));
}

#[tokio::test]
async fn what_somebody_else_wrote_is_an_error() {
    let vfs = SimVfs::new(9);
    let engine = open(&vfs);
    let mut batch = engine.batch();
    batch.region(R).append([(EntryId::new(1, 1), &b"no entry of openraft's"[..])]).unwrap();
    batch.region(R).set_hard_state(b"no vote").unwrap();
    batch.region(RegionId(8)).reset(EntryId::new(2, 5)).unwrap();
    let mut misplaced = Vec::new();
    <Postcard as Format<Entry<TypeConfig>>>::encode(&entry(1, 9), &mut misplaced).unwrap();
    batch.region(RegionId(9)).append([(EntryId::new(1, 1), &misplaced[..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    store.try_get_log_entries(..).await.unwrap_err();
    store.read_vote().await.unwrap_err();
    store.get_log_state().await.unwrap_err();
    let compacted = LogStore::<TypeConfig>::new(&engine, RegionId(8)).get_log_state().await.unwrap_err();
    assert!(compacted.to_string().contains("somebody else"), "{compacted}");
    let other = LogStore::<TypeConfig>::new(&engine, RegionId(9)).get_log_state().await.unwrap_err();
    assert!(other.to_string().contains("calls itself"), "{other}");
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
    let mut store: LogStore<TypeConfig> = LogStore::new(&engine, R);
    let error = store.read_vote().await.unwrap_err();
    assert!(error.to_string().contains("region 7"), "{error}");
    // The next one heals it.
    store.save_vote(&Vote::new(3, 1)).await.unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
}

// ---- nothing blocks ---------------------------------------------------------------------------------------

#[tokio::test]
async fn long_and_old_reads_are_done_on_threads_of_the_engine() {
    let vfs = SimVfs::new(10);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    let long = |index| text(1, index, &format!("{index}{}", "x".repeat(8000)));
    for index in 1..=100 {
        store.blocking_append([long(index)]).await.unwrap();
    }
    assert!(engine.stats().segments > 4);
    // Only bytes are fetched elsewhere: what they become is decoded here, and need not be `Send`.
    let read_on = Arc::new(Mutex::new(Vec::new()));
    let threads = read_on.clone();
    vfs.set_hook(Some(Arc::new(move |op: &Op| {
        if op.kind == OpKind::Read && op.path.extension().is_some_and(|e| e == "log") {
            threads.lock().unwrap().push(std::thread::current().name().map(str::to_string));
        }
    })));
    let reader = store.get_log_reader().await;
    let elsewhere = |range: std::ops::RangeInclusive<u64>| {
        let (mut reader, read_on) = (reader.clone(), read_on.clone());
        async move {
            read_on.lock().unwrap().clear();
            let read = soon("a read", reader.try_get_log_entries(range.clone())).await.unwrap();
            assert_eq!(read, range.map(long).collect::<Vec<_>>());
            let on = std::mem::take(&mut *read_on.lock().unwrap());
            let theirs = on.iter().filter(|n| n.as_deref().is_some_and(|n| n.starts_with("raftwood-read")));
            (theirs.count() > 0, theirs_only(&on))
        }
    };
    fn theirs_only(on: &[Option<String>]) -> bool {
        on.iter().all(|n| n.as_deref().is_some_and(|n| n.starts_with("raftwood-")))
    }
    assert!(!elsewhere(99..=100).await.0, "near and short: on the spot");
    assert_eq!(elsewhere(1..=2).await, (true, true), "far");
    assert_eq!(elsewhere(1..=100).await, (true, true), "long");
}

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
    let first = tokio::spawn(async move { store.blocking_append([big]).await.unwrap() });
    sync_is_stuck(&vfs).await;
    let second = tokio::spawn(async move {
        other.blocking_append([text(1, 1, &"y".repeat(8000))]).await.unwrap();
        other
    });
    // Both have been polled when this comes back, on the one thread that there is.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && !second.is_finished());
    assert!(engine.region(RegionId(8)).state().is_empty(), "there is no room yet");
    done.send(()).unwrap();
    soon("the first", first).await.unwrap();
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
    let membership = openraft09::Membership::new(vec![nodes.clone(), nodes], None);
    let written =
        [Entry::new_membership(log_id(0, 0, 0), membership), Entry::new_blank(log_id(1, 2, 1)), entry(1, 2)];
    store.blocking_append(written.clone()).await.unwrap();
    assert_eq!(read(&mut store).await, written);
}

/// Two groups wait for room, on the two threads that far reads are done on.
#[tokio::test]
async fn far_reads_go_on_while_appends_wait_for_room() {
    let vfs = SimVfs::new(23);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let long = |index| text(1, index, &format!("{index}{}", "x".repeat(8000)));
    for index in 1..=100 {
        store.blocking_append([long(index)]).await.unwrap();
    }
    let mut reader = store.get_log_reader().await;
    let _stalled = Stalled::new(&vfs);
    for region in 8..=10 {
        let mut other: Store = LogStore::new(&engine, RegionId(region));
        tokio::spawn(async move { other.blocking_append([text(1, 1, &"y".repeat(8000))]).await });
    }
    sync_is_stuck(&vfs).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), reader.try_get_log_entries(1..=2));
    assert_eq!(read.await.expect("the read waits for the sync").unwrap(), [long(1), long(2)]);
}
