//! A leader whose disk hangs: nothing fails, and nothing is committed. It gives way.

use super::cluster::{Cluster, LONG, paused};
use super::on_09::Openraft09;
use super::on_010::Openraft010;
use super::release::Release;
use raftwood::vfs::sim::SimVfs;
use raftwood::{Event, EventListener};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Longer than this, and the node does not lead.
const BOUND: Duration = Duration::from_millis(50);

/// What the disk is at: a listener that lets a task know.
struct Disk(watch::Sender<bool>);

impl EventListener for Disk {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::SyncStalled { elapsed, .. } if *elapsed > BOUND => drop(self.0.send_replace(true)),
            Event::StallEnded { .. } => drop(self.0.send_replace(false)),
            _ => {}
        }
    }
}

/// The task of one group on one node: it acts when the disk hangs, and when it is well again.
async fn watch_over<N: Release>(raft: N::Raft, mut hangs: watch::Receiver<bool>, others: [u64; 2]) {
    let mut to = others.into_iter().cycle();
    while hangs.changed().await.is_ok() {
        while *hangs.borrow_and_update() && N::seen(&raft).leads {
            if let Some(to) = to.next() {
                N::give_leadership_away(&raft, to).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if !*hangs.borrow() {
            N::disk_is_well(&raft);
        }
    }
}

async fn gives_way<N: Release>() {
    let mut cluster = Cluster::<N>::new();
    let mut disks = Vec::new();
    for id in 1..=3 {
        let (sender, hangs) = watch::channel(false);
        cluster.run(id, SimVfs::new(90 << 8 | id), Some(Arc::new(Disk(sender)))).await;
        cluster.nodes[&id].engine.set_stall_after(BOUND / 2);
        disks.push((id, hangs));
    }
    N::initialize(&cluster.nodes[&1].raft, (1..=3).collect()).await;
    for (id, hangs) in &disks {
        let others = match id {
            1 => [2, 3],
            2 => [3, 1],
            _ => [1, 2],
        };
        tokio::spawn(watch_over::<N>(cluster.nodes[id].raft.clone(), hangs.clone(), others));
    }
    let old = cluster.leader().await;
    cluster.write(old, 1).await.unwrap();
    cluster.hang(old);
    // A write that makes it sync: without one, no disk is seen to hang.
    let _ = cluster.write(old, 2).await;
    let mut noticed = disks.into_iter().find(|(id, _)| *id == old).unwrap().1;
    noticed.wait_for(|hangs| *hangs).await.unwrap();

    let before = tokio::time::Instant::now();
    let mut acknowledged = BTreeSet::from([1]);
    for command in 100.. {
        match cluster.leads().filter(|id| *id != old) {
            Some(leader) if cluster.write(leader, command).await.is_ok() => {
                acknowledged.insert(command);
                break;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(tokio::time::Instant::now() < before + LONG, "nobody else leads");
    }
    // On the clock of the test: a lease of 300 ms and an election of 300 ms at most, twice if two stood at once.
    let took = tokio::time::Instant::now() - before;
    assert!(took < Duration::from_millis(2000), "it took {took:?}");
    for command in 1000..1020 {
        let leader = cluster.leader().await;
        assert_ne!(leader, old);
        cluster.write(leader, command).await.unwrap();
        acknowledged.insert(command);
    }
    cluster.unhang(old);
    noticed.wait_for(|hangs| !*hangs).await.unwrap();
    cluster.settles_with(&acknowledged).await;
}

#[test]
fn a_leader_whose_disk_hangs_gives_way_under_openraft_09() {
    paused(gives_way::<Openraft09>());
}

#[test]
fn a_leader_whose_disk_hangs_gives_way_under_openraft_010() {
    paused(gives_way::<Openraft010>());
}
