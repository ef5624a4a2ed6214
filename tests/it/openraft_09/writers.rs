//! Two stores of one region in one engine: one writes.

use super::{Fails, Store, ends, entries, read};
use crate::support::openraft::{R, open, soon};
use openraft09::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft09::testing::log_id;
use openraft09::{RaftLogReader, Vote};
use raftwood::RegionId;
use raftwood::openraft_09::LogStore;
use raftwood::vfs::sim::SimVfs;
use std::time::Duration;

const A_MOMENT: Duration = Duration::from_millis(50);

fn refused(error: Fails) -> String {
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
    let mut second: Store = LogStore::new(&engine, R);
    let mut starting = tokio::spawn(async move {
        let seen = (second.read_vote().await.unwrap(), ends(&mut second).await);
        second.save_vote(&Vote::new(3, 1)).await.unwrap();
        (second, seen)
    });
    tokio::time::timeout(A_MOMENT, &mut starting).await.unwrap_err();
    first.save_vote(&Vote::new(2, 1)).await.unwrap();
    first.blocking_append(entries(2, 1..=3)).await.unwrap();
    drop(first);
    let (mut second, seen) = soon("the second store", starting).await.unwrap();
    assert_eq!(seen, (Some(Vote::new(2, 1)), (None, Some(log_id(2, 1, 3)))));
    assert_eq!(second.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
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
    refused(second.truncate(log_id(1, 1, 1)).await.unwrap_err());
    refused(second.purge(log_id(1, 1, 3)).await.unwrap_err());
    refused(second.save_committed(Some(log_id(1, 1, 3))).await.unwrap_err());
    refused(second.read_committed().await.unwrap_err());
    refused(second.read_vote().await.unwrap_err());
    refused(second.get_log_state().await.map(drop).unwrap_err());
    let mut unhurried: Store = LogStore::new(&engine, R);
    assert_eq!(soon("a read", read(&mut unhurried)).await, entries(1, 1..=3));
    let mut reader = soon("a reader", unhurried.get_log_reader()).await;
    assert_eq!(soon("a read", reader.try_get_log_entries(..)).await.unwrap(), entries(1, 1..=3));
    // Other regions are not concerned, and nothing was written.
    let mut other: Store = LogStore::new(&engine, RegionId(8));
    other.save_vote(&Vote::new(1, 1)).await.unwrap();
    assert_eq!(first.read_vote().await.unwrap(), None);
    assert_eq!(ends(&mut first).await, (None, Some(log_id(1, 1, 3))));
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
    refused(first.save_vote(&Vote::new(9, 9)).await.unwrap_err());
    refused(first.blocking_append(entries(1, 4..=4)).await.unwrap_err());
    refused(first.truncate(log_id(1, 1, 1)).await.unwrap_err());
    refused(first.purge(log_id(1, 1, 3)).await.unwrap_err());
    refused(first.save_committed(None).await.unwrap_err());
    assert_eq!(second.read_vote().await.unwrap(), None);
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
