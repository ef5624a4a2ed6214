//! A write that is refused for a reason that passes is asked for again, if the store is to. The engine has no
//! threads here and the clock is the test's, so that a pause ends when there is nothing else to do.

use super::{Store, Types, Vote, ends, entries, log_id, read, read_vote, text};
use crate::support::asked::Asked;
use crate::support::engines::{DIR, by_hand};
use crate::support::openraft::R;
use crate::support::refusing::{Refusing, Tale};
use openraft010::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft010::type_config::TypeConfigExt;
use raftwood::openraft_010::LogStore;
use raftwood::vfs::sim::{EIO, Fault, SimVfs};
use raftwood::{Durability, Engine, RegionId, RollbackCause};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

/// A log of three entries of which nothing may be discarded until the listener has refused so often.
async fn refusing(refusals: u32) -> (SimVfs, Engine, std::sync::Arc<Refusing>, Store) {
    let (vfs, listener) = (SimVfs::new(70), Refusing::new(refusals));
    let engine = by_hand(&vfs).listener(listener.clone()).open(DIR).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();
    (vfs, engine, listener, store)
}

#[tokio::test(start_paused = true)]
async fn a_refused_truncation_and_append_are_asked_for_until_the_listener_agrees() {
    let (_vfs, engine, listener, store) = refusing(5).await;
    let mut store = store.retry_for(LONG);
    store.truncate_after(Some(log_id(1, 2))).await.unwrap();
    assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, true)]);
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 2))));
    listener.refuse(3);
    store.blocking_append(entries(2, 2..=4)).await.unwrap();
    assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, true)]);
    assert_eq!(read(&mut store).await, [entries(1, 1..=1), entries(2, 2..=4)].concat());
    // What is not refused says nothing.
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert_eq!(listener.take(), []);
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_not_told_to_asks_once_and_one_that_was_not_longer_than_it_was_told() {
    let (_vfs, _engine, listener, mut store) = refusing(u32::MAX).await;
    let error = store.truncate_after(Some(log_id(1, 2))).await.unwrap_err();
    assert!(error.to_string().contains("a listener refused to discard entries 3..=3"), "{error}");
    assert_eq!((listener.take(), listener.asked()), (vec![], 1));
    let before = tokio::time::Instant::now();
    let mut store = store.retry_for(Duration::from_secs(30));
    let error = store.truncate_after(Some(log_id(1, 2))).await.unwrap_err();
    assert!(error.to_string().contains("a listener refused to discard entries 3..=3"), "{error}");
    assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, false)]);
    // The clock stands still but for the pauses: those that double up to a second, and the rest.
    let asked = listener.asked();
    assert!((35..45).contains(&asked), "asked {asked} times");
    assert!((before + Duration::from_secs(30)..before + LONG).contains(&tokio::time::Instant::now()));
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 3))));
}

/// Appends until there is no room, and returns the index that found none.
async fn fill(store: &mut Store) -> u64 {
    for index in 4..1000 {
        if store.blocking_append([text(1, index, &"long".repeat(5000))]).await.is_err() {
            return index;
        }
    }
    panic!("the disk never fills");
}

#[tokio::test(start_paused = true)]
async fn an_append_waits_for_room_on_the_disk_and_is_called_back() {
    let (vfs, _engine, listener, mut store) = refusing(0).await;
    vfs.set_capacity(Some(1 << 20));
    let next = fill(&mut store).await;
    listener.take();
    let mut store = store.retry_for(LONG);
    let writing = tokio::spawn(async move {
        store.blocking_append([text(1, next, &"long".repeat(5000))]).await.unwrap();
        store
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!writing.is_finished());
    assert_eq!(listener.take(), [Tale::Retrying(R)]);
    vfs.set_capacity(None);
    let mut store = writing.await.unwrap();
    assert_eq!(listener.take(), [Tale::Ended(R, true)]);
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, next))));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_waited_for_too_and_votes_do_not_wait() {
    let (vfs, listener) = (SimVfs::new(71), Refusing::new(0));
    let options = by_hand(&vfs).disk_budget(2 << 20).listener(listener.clone());
    let engine = options.open(DIR).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    let next = {
        store.blocking_append(entries(1, 1..=3)).await.unwrap();
        fill(&mut store).await
    };
    let mut store = store.retry_for(LONG);
    let writing = tokio::spawn(async move {
        store.blocking_append([text(1, next, &"long".repeat(5000))]).await.unwrap();
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = tokio::time::Instant::now();
    other.save_vote(&Vote::new(1, 1)).await.unwrap();
    assert_eq!(tokio::time::Instant::now(), before, "the vote of another group waited");
    assert!(!writing.is_finished());
    // The application makes room: what it has applied is purged by this group's store no sooner than the
    // append is over, and so another one's log has to go, or the budget has to grow.
    let mut batch = engine.batch();
    batch.region(R).compact_to(next - 2);
    engine.write(batch, Durability::Synced).unwrap();
    engine.purge().unwrap();
    writing.await.unwrap();
    assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, true)]);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_task_is_dropped_while_it_waits_is_gone_and_no_vote_waits_for_it() {
    let (_vfs, engine, listener, store) = refusing(u32::MAX).await;
    let mut store = store.retry_for(LONG);
    let (told, flushed) = Types::oneshot();
    let appending = store.append(entries(2, 2..=2), IOFlushed::signal(told));
    tokio::time::timeout(Duration::from_secs(5), appending).await.unwrap_err();
    assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, false)]);
    let before = tokio::time::Instant::now();
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert_eq!(tokio::time::Instant::now(), before, "the vote waited");
    assert!(flushed.await.is_err(), "called back for what was not written");
    listener.refuse(0);
    store.blocking_append(entries(1, 4..=4)).await.unwrap();
    assert_eq!(read(&mut store).await, entries(1, 1..=4));
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_vote_through_the_store_that_takes_over_goes_ahead_and_ends_the_wait() {
    let (_vfs, engine, listener, store) = refusing(u32::MAX).await;
    let mut store = store.retry_for(LONG);
    let waiting =
        tokio::spawn(async move { store.truncate_after(Some(log_id(1, 1))).await.unwrap_err().to_string() });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = tokio::time::Instant::now();
    let mut next: Store = LogStore::new(&engine, R).take_over();
    next.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert_eq!(read_vote(&mut next).await, Some(Vote::new(2, 1)));
    assert_eq!(tokio::time::Instant::now(), before, "the vote waited");
    let error = waiting.await.unwrap();
    assert!(error.contains("another LogStore has taken the region over"), "{error}");
    assert!(tokio::time::Instant::now() <= before + Duration::from_millis(50));
    assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_once_when_the_engine_is_closed_or_poisoned() {
    for poisoned in [false, true] {
        let (vfs, engine, listener, store) = refusing(u32::MAX).await;
        let mut store = store.retry_for(LONG);
        let waiting =
            tokio::spawn(
                async move { store.truncate_after(Some(log_id(1, 1))).await.unwrap_err().to_string() },
            );
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = tokio::time::Instant::now();
        listener.asked();
        if poisoned {
            vfs.set_fault(Fault::error(EIO).forever());
            let mut other: Store = LogStore::new(&engine, RegionId(8));
            other.save_vote(&Vote::new(1, 1)).await.unwrap_err();
        } else {
            engine.close().unwrap();
        }
        let error = waiting.await.unwrap();
        let said = if poisoned { "writing stopped at the first I/O error" } else { "the engine is closed" };
        assert!(error.contains(said), "{error}");
        assert!(tokio::time::Instant::now() <= before + Duration::from_millis(50));
        assert_eq!(listener.asked(), 0, "the listener was asked over an engine that takes nothing");
        assert_eq!(listener.take(), [Tale::Retrying(R), Tale::Ended(R, false)]);
    }
}

/// A log that begins after what is purged, with an older term, is emptied, and nobody was asked.
#[tokio::test]
async fn a_purge_asks_for_what_contradicts_it_and_for_nothing_that_it_covers() {
    let (vfs, listener) = (SimVfs::new(71), Asked::new());
    let engine = by_hand(&vfs).listener(listener.clone()).open(DIR).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append(entries(1, 4..=6)).await.unwrap();
    store.purge(log_id(1, 2)).await.unwrap();
    assert_eq!(listener.take(), []);
    listener.refuse(true);
    let error = store.purge(log_id(3, 3)).await.unwrap_err();
    assert!(error.to_string().contains("a listener refused to discard entries 4..=6"), "{error}");
    assert_eq!(listener.take(), [(R, 4, 6, RollbackCause::Reset)]);
    assert_eq!(ends(&mut store).await, (Some(log_id(1, 2)), Some(log_id(1, 6))));
    store.purge(log_id(3, 9)).await.unwrap();
    assert_eq!((listener.take(), ends(&mut store).await), (vec![], (Some(log_id(3, 9)), Some(log_id(3, 9)))));
}
