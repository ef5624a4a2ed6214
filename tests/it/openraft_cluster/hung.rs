//! A leader whose disk hangs: nothing fails, and nothing is committed. It steps down.

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

/// The task of one group on one node: it acts when the disk hangs.
async fn watch_over<N: Release>(raft: N::Raft, mut hangs: watch::Receiver<bool>, others: [u64; 2]) {
    let mut to = others.into_iter().cycle();
    while hangs.changed().await.is_ok() {
        while *hangs.borrow_and_update() && N::seen(&raft).leads {
            if let Some(to) = to.next() {
                N::give_leadership_away(&raft, to).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn steps_down<N: Release>() {
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
    let (old, first) = cluster.write_somewhere(1).await;
    cluster.hang(old);
    // A write that makes it sync: without one, no disk is seen to hang.
    let _ = cluster.write(old, 10_000).await;
    let mut noticed = disks.into_iter().find(|(id, _)| *id == old).unwrap().1;
    noticed.wait_for(|hangs| *hangs).await.unwrap();

    let before = tokio::time::Instant::now();
    let mut acknowledged = BTreeSet::from([first]);
    for command in 20_000.. {
        match cluster.leads().filter(|id| *id != old) {
            Some(leader) if cluster.write(leader, command).await.is_ok() => {
                acknowledged.insert(command);
                break;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(tokio::time::Instant::now() < before + LONG, "nobody else leads");
    }
    // On the clock of the test: a lease and an election of 300 ms each, twice if two stood.
    let took = tokio::time::Instant::now() - before;
    assert!(took < Duration::from_millis(2000), "it took {took:?}");
    for n in 3..23 {
        let (_, command) = cluster.write_elsewhere(old, n * 10_000).await;
        acknowledged.insert(command);
    }
    cluster.unhang(old);
    noticed.wait_for(|hangs| !*hangs).await.unwrap();
    cluster.settles_with(&acknowledged).await;
}

/// Two of three are left, and the disk of one hangs: it cannot keep a vote, and gives none.
async fn gives_no_vote<N: Release>() {
    let mut cluster = Cluster::<N>::start(91).await;
    let (old, command) = cluster.write_somewhere(1).await;
    let hung = old % 3 + 1;
    cluster.hang(hung);
    let term = cluster.seen(old).term;
    cluster.net.isolate(old);
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < until {
        assert_eq!(cluster.leads(), Some(old), "elected with a vote that is not durable");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.unhang(hung);
    let (leader, later) = cluster.write_elsewhere(old, 10_000).await;
    assert!(cluster.seen(leader).term > term);
    cluster.net.reconnect_all();
    cluster.settles_with(&BTreeSet::from([command, later])).await;
}

#[test]
fn a_leader_whose_disk_hangs_steps_down_under_openraft_09() {
    paused(steps_down::<Openraft09>());
}

#[test]
fn a_leader_whose_disk_hangs_steps_down_under_openraft_010() {
    paused(steps_down::<Openraft010>());
}

#[test]
fn a_node_whose_disk_hangs_gives_no_vote_under_openraft_09() {
    paused(gives_no_vote::<Openraft09>());
}

#[test]
fn a_node_whose_disk_hangs_gives_no_vote_under_openraft_010() {
    paused(gives_no_vote::<Openraft010>());
}
