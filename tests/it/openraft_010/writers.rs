//! Two stores of one region in one engine: one writes.

use super::{Store, Types, Vote, ends, entries, log_id, read, read_vote, text};
use crate::support::openraft::{R, Stalled, open, options, soon, sync_is_stuck};
use openraft010::RaftLogReader;
use openraft010::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft010::type_config::TypeConfigExt;
use raftwood::RegionId;
use raftwood::openraft_010::LogStore;
use raftwood::vfs::sim::SimVfs;
use std::fmt::Display;
use std::time::Duration;

const A_MOMENT: Duration = Duration::from_millis(50);

fn refused(error: impl Display) -> String {
    let error = error.to_string();
    assert!(error.contains("region 7") && error.contains("another LogStore"), "{error}");
    error
}

#[tokio::test]
async fn a_second_store_waits_until_the_first_is_dropped_and_sees_all_that_it_did() {
    let vfs = SimVfs::new(60);
    let engine = open(&vfs);
    let mut first: Store = LogStore::new(&engine, R);
    first.save_vote(&Vote::new(1, 1)).await.unwrap();
    let reader = first.get_log_reader().await;
    let mut second: Store = LogStore::new(&engine, R);
    let mut starting = tokio::spawn(async move {
        let seen = (read_vote(&mut second).await, ends(&mut second).await);
        second.save_vote(&Vote::new(3, 1)).await.unwrap();
        (second, seen)
    });
    tokio::time::timeout(A_MOMENT, &mut starting).await.unwrap_err();
    first.save_vote(&Vote::new(2, 1)).await.unwrap();
    first.blocking_append(entries(2, 1..=3)).await.unwrap();
    drop(first);
    let (mut second, seen) = soon("the second store", starting).await.unwrap();
    assert_eq!(seen, (Some(Vote::new(2, 1)), (None, Some(log_id(2, 3)))));
    assert_eq!(read_vote(&mut second).await, Some(Vote::new(3, 1)));
    // A reader outlasts its store, and is in nobody's way.
    assert_eq!(reader.clone().read_vote().await.unwrap(), Some(Vote::new(3, 1)));
}

#[tokio::test]
async fn a_second_store_is_refused_when_the_first_stays_and_readers_wait_for_nobody() {
    let vfs = SimVfs::new(61);
    let engine = open(&vfs);
    let mut first: Store = LogStore::new(&engine, R);
    first.blocking_append(entries(1, 1..=3)).await.unwrap();
    let mut second: Store = LogStore::new(&engine, R).writer_wait(A_MOMENT);
    assert!(refused(second.save_vote(&Vote::new(9, 9)).await.unwrap_err()).contains("take_over"));
    refused(second.blocking_append(entries(9, 4..=4)).await.unwrap_err());
    refused(second.truncate_after(None).await.unwrap_err());
    refused(second.purge(log_id(1, 3)).await.unwrap_err());
    refused(second.save_committed(Some(log_id(1, 3))).await.unwrap_err());
    refused(second.get_log_state().await.map(drop).unwrap_err());
    refused(second.get_log_reader().await.read_vote().await.unwrap_err());
    let mut unhurried: Store = LogStore::new(&engine, R);
    assert_eq!(soon("a reader", read(&mut unhurried)).await, entries(1, 1..=3));
    // Other regions are not concerned, and nothing was written.
    LogStore::<Types>::new(&engine, RegionId(8)).save_vote(&Vote::new(1, 1)).await.unwrap();
    assert_eq!(read_vote(&mut first).await, None);
    first.blocking_append(entries(1, 4..=4)).await.unwrap();
    assert_eq!(ends(&mut first).await, (None, Some(log_id(1, 4))));
    drop(first);
    second.save_vote(&Vote::new(9, 9)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_taken_over_writes_nothing_more() {
    let vfs = SimVfs::new(62);
    let engine = open(&vfs);
    let mut first: Store = LogStore::new(&engine, R);
    first.blocking_append(entries(1, 1..=3)).await.unwrap();
    let mut reader = first.get_log_reader().await;
    let mut second: Store = LogStore::new(&engine, R).take_over();
    assert!(refused(first.save_vote(&Vote::new(9, 9)).await.unwrap_err()).contains("taken the region over"));
    refused(first.blocking_append(entries(1, 4..=4)).await.unwrap_err());
    refused(first.truncate_after(None).await.unwrap_err());
    refused(first.purge(log_id(1, 3)).await.unwrap_err());
    refused(first.save_committed(None).await.unwrap_err());
    assert_eq!(read_vote(&mut second).await, None);
    second.blocking_append(entries(2, 4..=5)).await.unwrap();
    let mut expected = entries(1, 1..=3);
    expected.extend(entries(2, 4..=5));
    assert_eq!(reader.try_get_log_entries(..).await.unwrap(), expected);
    // Its end gives nothing up that is the other's.
    drop(first);
    let mut third: Store = LogStore::new(&engine, R).writer_wait(A_MOMENT);
    refused(third.save_vote(&Vote::new(9, 9)).await.unwrap_err());
    second.save_vote(&Vote::new(2, 1)).await.unwrap();
}

/// The append waits for room on a thread of the engine, where nobody can call it back.
#[tokio::test]
async fn what_was_begun_before_a_take_over_comes_before_all_that_comes_after() {
    let vfs = SimVfs::new(63);
    let engine = options(&vfs).in_flight_bytes_max(16 << 10).open("/db").unwrap();
    let mut first: Store = LogStore::new(&engine, R);
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    first.blocking_append(entries(1, 1..=1)).await.unwrap();
    let stalled = Stalled::new(&vfs);
    let long: String = (0..10_000u32).map(|n| char::from(b'a' + (n * n % 26) as u8)).collect();
    let full = text(1, 1, &long);
    let filling = tokio::spawn(async move { other.blocking_append([full]).await.unwrap() });
    sync_is_stuck(&vfs).await;
    let (told, flushed) = Types::oneshot();
    tokio::time::timeout(A_MOMENT, first.append([text(1, 2, &long)], IOFlushed::signal(told)))
        .await
        .unwrap_err();
    let mut second: Store = LogStore::new(&engine, R).take_over();
    let mut looking = tokio::spawn(async move { ends(&mut second).await });
    tokio::time::timeout(A_MOMENT, &mut looking).await.unwrap_err();
    drop(stalled);
    assert_eq!(soon("the second store", looking).await.unwrap(), (None, Some(log_id(1, 2))));
    soon("what filled the log", filling).await.unwrap();
    soon("the callback", flushed).await.unwrap().unwrap();
}
