//! A node whose writes are refused, in a group that goes on.

use super::cluster::{Cluster, LONG, paused};
use super::on_09::Openraft09;
use super::on_010::Openraft010;
use super::release::Release;
use crate::support::openraft::R;
use crate::support::refusing::{Refusing, Tale};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Durability, ErrorKind, RegionId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

async fn cluster<N: Release>(seed: u64, retry_for: Duration, listener: &Arc<Refusing>) -> Cluster<N> {
    let mut cluster = Cluster::new();
    cluster.retry_for = retry_for;
    for id in 1..=3 {
        cluster.run(id, SimVfs::new(seed << 8 | id), Some(listener.clone())).await;
    }
    N::initialize(&cluster.nodes[&1].raft, (1..=3).collect()).await;
    cluster.leader().await;
    cluster
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A leader that is cut off takes entries that are never committed; when it is back, it has to discard them,
/// and its listener does not agree. Returns that node, and what the others acknowledged.
async fn old_leader_that_may_not_discard<N: Release>(
    cluster: &mut Cluster<N>,
    listener: &Refusing,
) -> (u64, BTreeSet<u64>) {
    let (old, first) = cluster.write_somewhere(1).await;
    cluster.net.isolate(old);
    for command in 1000..1005 {
        cluster.write(old, command).await.unwrap_err();
    }
    let (_, command) = cluster.write_elsewhere(old, 2000).await;
    listener.refuse(u32::MAX);
    cluster.net.reconnect_all();
    (old, BTreeSet::from([first, command]))
}

async fn waits_and_the_others_go_on<N: Release>() {
    let listener = Refusing::new(0);
    let mut cluster = cluster::<N>(80, Duration::from_secs(3600), &listener).await;
    let (old, mut acknowledged) = old_leader_that_may_not_discard(&mut cluster, &listener).await;
    until("it does not wait", || listener.asked() > 0).await;
    for command in 4..24 {
        let (_, command) = cluster.write_elsewhere(old, command * 1000).await;
        acknowledged.insert(command);
    }
    assert_eq!(listener.take(), [Tale::Retrying(R)]);
    assert!(!cluster.seen(old).ended);
    listener.refuse(0);
    cluster.settles_with(&acknowledged).await;
    assert_eq!(listener.take()[0], Tale::Ended(R, true));
}

async fn ends_and_is_had_back<N: Release>() {
    let listener = Refusing::new(0);
    let mut cluster = cluster::<N>(81, Duration::ZERO, &listener).await;
    let (old, mut acknowledged) = old_leader_that_may_not_discard(&mut cluster, &listener).await;
    let raft = cluster.nodes[&old].raft.clone();
    until("it has not ended", || N::seen(&raft).ended).await;
    let (_, command) = cluster.write_elsewhere(old, 3000).await;
    acknowledged.insert(command);
    assert_eq!(listener.take(), []);

    // The engine runs on, with all its other groups. Shut down, a new store, a new Raft.
    listener.refuse(0);
    cluster.net.leave(old);
    let node = cluster.nodes.remove(&old).unwrap();
    N::shutdown(&node.raft).await;
    drop(node.raft);
    cluster.run_on(old, node.disk, node.engine).await;
    cluster.settles_with(&acknowledged).await;
}

/// The leader's disk is full to the last byte that a batch could need.
async fn a_leader_without_space<N: Release>(retry_for: Duration) -> (Cluster<N>, (u64, u64), Arc<Refusing>) {
    let listener = Refusing::new(0);
    let mut cluster = cluster::<N>(82, retry_for, &listener).await;
    let (leader, written) = cluster.write_somewhere(1).await;
    let node = &cluster.nodes[&leader];
    node.disk.set_capacity(Some(node.disk.allocated()));
    for size in [20_000, 1000, 1] {
        let error = loop {
            let written = node.engine.append_next(RegionId(99), [vec![7; size]], Durability::Synced);
            if let Err(error) = written {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    }
    (cluster, (leader, written), listener)
}

async fn another_is_elected_until_there_is_room<N: Release>() {
    let (mut cluster, (full, first), listener) = a_leader_without_space::<N>(Duration::from_secs(3600)).await;
    cluster.write(full, 1000).await.unwrap_err();
    let (_, command) = cluster.write_elsewhere(full, 2000).await;
    until("it does not wait", || listener.count() > 0).await;
    assert_eq!(listener.take(), [Tale::Retrying(R)]);
    assert!(!cluster.seen(full).ended);
    cluster.nodes[&full].disk.set_capacity(None);
    cluster.settles_with(&BTreeSet::from([first, command])).await;
    assert_eq!(listener.take()[0], Tale::Ended(R, true));
}

#[test]
fn a_node_whose_listener_refuses_waits_and_its_group_goes_on_under_openraft_09() {
    paused(waits_and_the_others_go_on::<Openraft09>());
}

#[test]
fn a_node_whose_listener_refuses_waits_and_its_group_goes_on_under_openraft_010() {
    paused(waits_and_the_others_go_on::<Openraft010>());
}

#[test]
fn a_group_that_ended_is_had_back_in_the_process_under_openraft_09() {
    paused(ends_and_is_had_back::<Openraft09>());
}

#[test]
fn a_group_that_ended_is_had_back_in_the_process_under_openraft_010() {
    paused(ends_and_is_had_back::<Openraft010>());
}

#[test]
fn a_leader_without_space_waits_and_another_is_elected_under_openraft_09() {
    paused(another_is_elected_until_there_is_room::<Openraft09>());
}

#[test]
fn a_leader_without_space_waits_and_another_is_elected_under_openraft_010() {
    paused(another_is_elected_until_there_is_room::<Openraft010>());
}
