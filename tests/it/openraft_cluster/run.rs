//! One run: what happens is drawn from the seed.

use super::cluster::{Cluster, LONG, write};
use super::release::Release;
use raftwood::random::Rng;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const ROUNDS: u64 = 16;

#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Counts {
    pub(crate) runs: u64,
    pub(crate) power_cuts: u64,
    /// Of these, of all nodes at once.
    pub(crate) of_all: u64,
    pub(crate) kills: u64,
    pub(crate) stalls: u64,
    /// Of power cuts and kills, while a sync hung.
    pub(crate) amidst: u64,
    pub(crate) isolated: u64,
    pub(crate) replaced: u64,
    pub(crate) acknowledged: u64,
    pub(crate) terms: u64,
}

impl Counts {
    pub(crate) fn each(&mut self) -> [(&'static str, &mut u64); 10] {
        [
            ("runs", &mut self.runs),
            ("power cuts", &mut self.power_cuts),
            ("power cuts of all", &mut self.of_all),
            ("kills", &mut self.kills),
            ("stalled syncs", &mut self.stalls),
            ("crashes while a sync hung", &mut self.amidst),
            ("isolated nodes", &mut self.isolated),
            ("replaced nodes", &mut self.replaced),
            ("writes acknowledged", &mut self.acknowledged),
            ("terms", &mut self.terms),
        ]
    }

    pub(crate) fn add(&mut self, mut other: Counts) {
        for ((_, mine), (_, more)) in self.each().into_iter().zip(other.each()) {
            *mine += *more;
        }
    }
}

struct Run<N: Release> {
    rng: Rng,
    cluster: Cluster<N>,
    acknowledged: Rc<RefCell<BTreeSet<u64>>>,
    commands: u64,
    /// The next id of a node: each is used once.
    next_id: u64,
    counts: Counts,
}

pub(crate) async fn run<N: Release>(seed: u64) -> Counts {
    let mut run = Run::<N> {
        rng: Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        cluster: Cluster::start(seed).await,
        acknowledged: Rc::default(),
        commands: 0,
        next_id: 4,
        counts: Counts { runs: 1, ..Counts::default() },
    };
    for _ in 0..ROUNDS {
        run.something().await;
        run.cluster.leads();
    }
    run.release();
    let acknowledged = run.acknowledged.borrow().clone();
    run.cluster.settles_with(&acknowledged).await;
    run.counts.acknowledged = acknowledged.len() as u64;
    let last = *run.cluster.nodes.keys().next().unwrap();
    run.counts.terms = run.cluster.seen(last).term;
    let ids: Vec<u64> = run.cluster.nodes.keys().copied().collect();
    for id in ids {
        run.cluster.end(id, LossPolicy::KeepAll).await;
    }
    run.counts
}

impl<N: Release> Run<N> {
    fn pick(&mut self) -> u64 {
        let ids: Vec<u64> = self.cluster.nodes.keys().copied().collect();
        // The leader, more often than others: it is what has most to lose.
        match self.cluster.leads().filter(|_| self.rng.one_in(3)) {
            Some(leader) => leader,
            None => self.rng.pick(&ids),
        }
    }

    async fn something(&mut self) {
        match self.rng.below(10) {
            0..4 => self.crash().await,
            4..6 => {
                let id = self.pick();
                self.counts.stalls += u64::from(!self.cluster.hangs(id));
                self.cluster.hang(id);
            }
            6 => {
                let id = self.pick();
                self.counts.isolated += 1;
                self.cluster.net.isolate(id);
            }
            7 => self.release(),
            8 if self.rng.one_in(2) => self.replace().await,
            _ => {}
        }
        let time = Duration::from_millis(5 + self.rng.below(400));
        self.write_for(time).await;
        if self.rng.one_in(3) {
            self.release();
        }
    }

    /// Disks go on and cables are back.
    fn release(&mut self) {
        self.cluster.net.reconnect_all();
        let ids: Vec<u64> = self.cluster.nodes.keys().copied().collect();
        for id in ids.into_iter().filter(|id| self.cluster.hangs(*id)).collect::<Vec<_>>() {
            self.cluster.unhang(id);
        }
    }

    /// Clients write, to the leader or to anybody, and wait for each answer as long as they care to.
    async fn write_for(&mut self, time: Duration) {
        let clients: Vec<_> = (0..2 + self.rng.below(3)).map(|_| self.client()).collect();
        let all = async {
            let mut running: Vec<_> = clients.into_iter().map(Box::pin).collect();
            std::future::poll_fn(|cx| {
                for client in &mut running {
                    let _ = client.as_mut().poll(cx);
                }
                std::task::Poll::<()>::Pending
            })
            .await
        };
        let _ = tokio::time::timeout(time, all).await;
    }

    /// A client that writes to the node it has found, one command after the other.
    fn client(&mut self) -> impl Future<Output = ()> + use<N> {
        let id = self.cluster.leads().filter(|_| !self.rng.one_in(8)).unwrap_or_else(|| self.pick());
        let node = &self.cluster.nodes[&id];
        let (raft, of, net) = (node.raft.clone(), (id, node.incarnation), self.cluster.net.clone());
        let acknowledged = self.acknowledged.clone();
        let first = self.commands;
        self.commands += 1000;
        async move {
            for command in first.. {
                if write::<N>(&net, of, &raft, command).await.is_ok() {
                    acknowledged.borrow_mut().insert(command);
                }
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        }
    }

    /// One, two or all lose their power, or one is killed; they come back a moment later, or much later.
    async fn crash(&mut self) {
        let how_many = match self.rng.below(8) {
            0..4 => 1,
            4..6 => 2,
            _ => self.cluster.nodes.len(),
        };
        let killed = how_many == 1 && self.rng.one_in(3);
        let mut down = BTreeSet::new();
        while down.len() < how_many {
            down.insert(self.pick());
        }
        match killed {
            true => self.counts.kills += 1,
            false => self.counts.power_cuts += how_many as u64,
        }
        self.counts.of_all += u64::from(how_many == self.cluster.nodes.len());
        let mut left = Vec::new();
        // At one moment for all: nothing runs between.
        for &id in &down {
            self.cluster.net.leave(id);
        }
        for id in down {
            self.counts.amidst += u64::from(self.cluster.hangs(id));
            let lost = match self.rng.below(4) {
                _ if killed => LossPolicy::KeepAll,
                0 => LossPolicy::Random(self.rng.next()),
                _ => LossPolicy::LoseAll,
            };
            left.push((id, self.cluster.end(id, lost).await));
        }
        if !self.cluster.nodes.is_empty() && self.rng.one_in(2) {
            let time = Duration::from_millis(self.rng.below(600));
            self.write_for(time).await;
        }
        for (id, disk) in left {
            self.cluster.run(id, disk, None).await;
        }
    }

    /// A node is lost with its disk. An empty one takes its place, under an id of its own: first as a
    /// learner, then as a voter.
    async fn replace(&mut self) {
        self.release();
        let gone = self.pick();
        self.cluster.end(gone, LossPolicy::LoseAll).await;
        let id = self.next_id;
        self.next_id += 1;
        self.cluster.run(id, SimVfs::new(id), None).await;
        let members: BTreeSet<u64> = self.cluster.nodes.keys().copied().collect();
        let deadline = tokio::time::Instant::now() + LONG;
        let mut said = String::new();
        loop {
            assert!(tokio::time::Instant::now() < deadline, "node {id} is not taken in: {said}");
            let leader = self.cluster.leader().await;
            let raft = self.cluster.nodes[&leader].raft.clone();
            let change = async {
                N::add_learner(&raft, id).await?;
                N::change_members(&raft, members.clone()).await
            };
            match tokio::time::timeout(Duration::from_secs(5), change).await {
                Ok(Ok(())) => break,
                Ok(Err(e)) => said = e,
                Err(_) => said = "no answer".to_string(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.counts.replaced += 1;
    }
}
