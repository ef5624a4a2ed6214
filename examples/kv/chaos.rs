//! What is done to the nodes while the clients write and read.

use crate::cluster::{Cluster, NODES};
use crate::lease::LEASE;
use crate::load::{KEYS, Load, Rng};
use crate::wire::{Client, Reply, Request, Result, Stats, Via};
use indicatif::ProgressBar;
use std::time::{Duration, Instant};

pub struct Chaos {
    rng: Rng,
    time: Duration,
    kills: u64,
    groups: u64,
    /// Nodes that are down, and when they come back.
    down: Vec<(u64, Instant)>,
    /// The node that is cut off, since and until when, and whether its rollbacks are refused at first.
    cut_off: Option<(u64, Instant, Instant)>,
    /// Replicas that are learners for the moment.
    demoted: Vec<(u64, u64)>,
    pub partitions: u64,
    pub transfers: u64,
    pub changes: u64,
    /// Lease reads that a cut-off leader answered when its lease must have been over.
    pub late_answers: u64,
    pub refused: u64,
    pub compactions: u64,
    pub snapshots_installed: u64,
    pub lease_reads: u64,
}

/// How long a node is cut off: long enough for the others to elect leaders and go on.
const CUT_OFF: Duration = Duration::from_millis(3000);
/// How long the listener then refuses to save what is to be rolled back.
const REFUSE: Duration = Duration::from_millis(400);
/// What the machine may add to the lease before an answer counts as late: the answer was given before, and travelled.
const GRACE: Duration = Duration::from_millis(300);

impl Chaos {
    pub fn new(seed: u64, time: Duration, kills: u64, groups: u64) -> Chaos {
        Chaos {
            rng: Rng(seed ^ 0x00c0_ffee),
            time,
            kills,
            groups,
            down: Vec::new(),
            cut_off: None,
            demoted: Vec::new(),
            partitions: 0,
            transfers: 0,
            changes: 0,
            late_answers: 0,
            refused: 0,
            compactions: 0,
            snapshots_installed: 0,
            lease_reads: 0,
        }
    }

    pub fn run(&mut self, cluster: &mut Cluster, load: &Load, bar: &ProgressBar) -> Result<()> {
        let began = Instant::now();
        // Half a second at either end is quiet.
        let between = self.time.saturating_sub(Duration::from_secs(1)) / self.kills.max(1) as u32;
        let mut next_kill = began + Duration::from_millis(500);
        let mut next_partition = began + Duration::from_secs(2);
        let mut next_change = began + Duration::from_secs(1);
        while began.elapsed() < self.time {
            cluster.check()?;
            self.come_back(cluster, Instant::now())?;
            if Instant::now() >= next_kill && cluster.kills < self.kills {
                next_kill += between;
                self.kill(cluster, load)?;
            }
            // A node that is cut off would be one too many beside one that is down: nothing would be committed.
            if Instant::now() >= next_partition && self.down.is_empty() && self.cut_off.is_none() {
                next_partition = Instant::now() + CUT_OFF * 3;
                self.cut_off(cluster)?;
            }
            if Instant::now() >= next_change {
                next_change = Instant::now() + Duration::from_millis(250);
                self.change(cluster);
            }
            bar.set_position(began.elapsed().as_secs());
            bar.set_message(format!("{} kills", cluster.kills));
            std::thread::sleep(Duration::from_millis(20));
        }
        self.make_whole(cluster)
    }

    fn up(&mut self, cluster: &Cluster) -> Vec<u64> {
        (1..=NODES).filter(|&id| cluster.is_up(id)).collect()
    }

    fn kill(&mut self, cluster: &mut Cluster, load: &Load) -> Result<()> {
        let up = self.up(cluster);
        if up.len() < NODES as usize - 1 {
            return Ok(());
        }
        let victim = up[self.rng.below(up.len() as u64) as usize];
        self.collect(cluster, victim);
        if self.cut_off.is_some_and(|(node, ..)| node == victim) {
            self.cut_off = None;
        }
        cluster.kill(victim)?;
        // Now and then for so long that the others compact what it has not seen.
        let away = if self.rng.below(4) == 0 { 3000 } else { 100 + self.rng.below(1200) };
        self.down.push((victim, Instant::now() + Duration::from_millis(away)));
        for leader in &load.leaders {
            if leader.load(std::sync::atomic::Ordering::Relaxed) == victim {
                leader.store(victim % NODES + 1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn come_back(&mut self, cluster: &mut Cluster, now: Instant) -> Result<()> {
        for (id, _) in self.down.extract_if(.., |(_, at)| *at <= now) {
            cluster.start_node(id)?;
        }
        if let Some((node, _, until)) = self.cut_off
            && until <= now
        {
            self.cut_off = None;
            self.heal(cluster, node)?;
        }
        Ok(())
    }

    // ---- an old leader that does not know -----------------------------------------------------------------------

    fn cut_off(&mut self, cluster: &Cluster) -> Result<()> {
        let node = 1 + self.rng.below(NODES);
        let led = self.stats(cluster, node).leads;
        let since = Instant::now();
        cluster.partition(node, (1..=NODES).filter(|&id| id != node).collect())?;
        self.partitions += 1;
        self.cut_off = Some((node, since, since + CUT_OFF));
        // It may go on answering for as long as its lease says. After that it must not.
        let Ok(mut client) = Client::connect(cluster.addrs[node as usize - 1], Duration::from_millis(60))
        else {
            return Ok(());
        };
        let cut = Instant::now();
        while cut.elapsed() < LEASE * 4 {
            let Some(&group) = led.get(self.rng.below(led.len() as u64) as usize) else { break };
            let asked = cut.elapsed();
            let read = Request::Read { group, key: self.rng.below(KEYS), via: Via::Lease };
            match client.call(&read) {
                Ok(Reply::Value { .. }) if asked > LEASE + GRACE => self.late_answers += 1,
                Ok(_) => {}
                Err(_) => match Client::connect(cluster.addrs[node as usize - 1], client.patience()) {
                    Ok(again) => client = again,
                    Err(_) => break,
                },
            }
        }
        Ok(())
    }

    /// Lets the node hear from the others again. What it took for its own will be discarded; at first the listener that should save it
    /// fails, so the node must wait, and keep it.
    fn heal(&mut self, cluster: &Cluster, node: u64) -> Result<()> {
        if !cluster.is_up(node) {
            return Ok(());
        }
        let fail = |fail| cluster.ask(node, &Request::FailRollbacks { fail }, Duration::from_secs(5));
        fail(true)?;
        cluster.partition(node, Vec::new())?;
        std::thread::sleep(REFUSE);
        fail(false)?;
        Ok(())
    }

    // ---- leaders and voters -------------------------------------------------------------------------------------

    fn change(&mut self, cluster: &Cluster) {
        if !self.down.is_empty() || self.cut_off.is_some() {
            return;
        }
        let group = 1 + self.rng.below(self.groups);
        let node = 1 + self.rng.below(NODES);
        let patience = Duration::from_millis(300);
        if self.rng.below(2) == 0 {
            let moved = cluster.ask_leader(group, &Request::Transfer { group, to: node }, patience);
            self.transfers += u64::from(moved.is_some());
            return;
        }
        // One learner at a time: what is demoted is promoted before anything else is.
        match self.demoted.pop() {
            Some((group, node)) => self.promote(cluster, group, node, patience),
            None => {
                // It may have happened even if nobody says so.
                self.demoted.push((group, node));
                let done = cluster.ask_leader(group, &Request::Demote { group, node }, patience);
                self.changes += u64::from(done.is_some());
            }
        }
    }

    fn promote(&mut self, cluster: &Cluster, group: u64, node: u64, patience: Duration) {
        match cluster.ask_leader(group, &Request::Promote { group, node }, patience) {
            Some(_) => self.changes += 1,
            None => self.demoted.push((group, node)),
        }
    }

    // ---- figures, and the end -----------------------------------------------------------------------------------

    fn stats(&self, cluster: &Cluster, node: u64) -> Stats {
        match cluster.ask(node, &Request::Stats, Duration::from_secs(2)) {
            Ok(Reply::Stats(stats)) => stats,
            _ => Stats::default(),
        }
    }

    /// A node's figures go with it: ask before it is killed.
    fn collect(&mut self, cluster: &Cluster, node: u64) {
        let stats = self.stats(cluster, node);
        self.refused += stats.refused;
        self.compactions += stats.compactions;
        self.snapshots_installed += stats.snapshots_installed;
        self.lease_reads += stats.lease_reads;
    }

    /// Everybody up, connected and a voter.
    fn make_whole(&mut self, cluster: &mut Cluster) -> Result<()> {
        let later = Instant::now() + Duration::from_secs(3600);
        self.come_back(cluster, later)?;
        while let Some((group, node)) = self.demoted.pop() {
            let before = self.demoted.len();
            self.promote(cluster, group, node, Duration::from_secs(30));
            if self.demoted.len() > before {
                return Err(format!("group {group} did not take node {node} back as a voter").into());
            }
        }
        for node in 1..=NODES {
            self.collect(cluster, node);
        }
        Ok(())
    }
}
