//! What is done to the nodes while the clients write and read.

use crate::cluster::{Cluster, NODES};
use crate::history::{Op, What};
use crate::lease::Timing;
use crate::load::{Load, QUIET, Rng};
use crate::peers::nodes_of;
use crate::region::{Span, Standing, home};
use crate::reshape::Merging;
use crate::skew::Skew;
use crate::wire::{Client, Dump, Reply, Request, Result, Stats, Via};
use indicatif::ProgressBar;
use raftwood::raft_rs::decode_conf_state;
use std::time::{Duration, Instant};

pub struct Chaos {
    pub rng: Rng,
    time: Duration,
    /// What is still to be done to logs, and the kills in all.
    pub harms: Harms,
    /// The node whose log was harmed last: no other is, before its replicas are whole again.
    pub harmed: Option<u64>,
    groups: u64,
    timing: Timing,
    /// What becomes of the nodes' clocks.
    pub skew: Skew,
    /// Nodes that are down, and when they come back.
    down: Vec<(u64, Instant)>,
    cut_off: Option<CutOff>,
    /// A replica that is a learner for the moment.
    demoted: Option<Demoted>,
    /// Leaders and configurations take turns.
    changes: u64,
    /// A group that is being merged into the one on its left.
    pub merging: Option<Merging>,
    /// Splits and merges take turns.
    pub reshapes: u64,
    /// The last id that was given to a group.
    pub last_group: u64,
    /// What this thread asked for itself; the clients' history is incomplete without it.
    pub ops: Vec<Op>,
    /// Values that a leader appended while it was cut off: each must be committed in the end, or saved.
    pub appended: Vec<u64>,
    /// Values that rotted in a log, which therefore cannot save them.
    pub rotten: Vec<u64>,
    pub done: Done,
}

/// How often which harm is done.
#[derive(Clone, Copy)]
pub struct Harms {
    pub kills: u64,
    /// Bits of a log flip.
    pub rots: u64,
    /// The end of a log is lost, and with it all votes of a node.
    pub lost_votes: u64,
}

/// What was done, and what came of it at once.
#[derive(Default)]
pub struct Done {
    pub partitions: u64,
    pub freezes: u64,
    pub transfers: u64,
    pub changes: u64,
    pub splits: u64,
    pub merges: u64,
    /// Changes that a node had applied and did not know of.
    pub forgotten: u64,
    /// Lease reads asked of a leader that was cut off, when its lease was over and it did not know yet
    /// that it had lost its office.
    pub lease_probes: u64,
    /// Those that it answered.
    pub late_answers: u64,
    /// Reads by index that it answered: there was nobody to confirm them.
    pub lone_answers: u64,
    pub refused: u64,
    pub compactions: u64,
    pub snapshots_installed: u64,
    /// Replicas of which an entry was harmed while their node was down, entries that were put back, and
    /// replicas that ran again after they had been fenced.
    pub harmed: u64,
    pub healed: u64,
    pub unfenced: u64,
    /// Votes that fenced replicas have given.
    pub fenced_votes: u64,
    /// Replicas whose hard state was lost, and those that came back under a new id.
    pub votes_lost: u64,
    pub replaced: u64,
}

/// A node that receives nothing from the others, until when, and whether all the others stay up.
struct CutOff {
    node: u64,
    until: Instant,
    is_calm: bool,
}

/// A group that a node leads, and what it owns.
pub type Led = (u64, Span);

struct Demoted {
    group: u64,
    node: u64,
    /// The entry that did it. `None` if nobody said so: it may have happened all the same.
    index: Option<u64>,
}

/// Election timeouts for which a node is cut off: long enough for the others to elect leaders and go on.
const CUT_OFF: u32 = 5;
/// How long the listener then refuses to save what is to be rolled back.
const REFUSE: Duration = Duration::from_millis(400);
/// Election timeouts for which a node is frozen: long enough for the others to elect leaders.
const FREEZE: u32 = 3;
/// Election timeouts from one of those to the next, and a second.
const DISTURB_EVERY: u32 = 10;
/// Times as long as it was asked to, a run goes on for what has not happened yet.
const LONGER: u32 = 4;
/// Values written by this thread are like nobody else's.
const OWN: u64 = 1 << 62;
/// Writes to a leader that is cut off.
const LONE_WRITES: usize = 8;
/// Reads that wait for a leader that stands still.
const LONE_READS: usize = 16;

impl Chaos {
    pub fn new(seed: u64, time: Duration, harms: Harms, groups: u64, timing: Timing, skew: Skew) -> Chaos {
        Chaos {
            rng: Rng(seed ^ 0x00c0_ffee),
            time,
            harms,
            harmed: None,
            groups,
            timing,
            skew,
            down: Vec::new(),
            cut_off: None,
            demoted: None,
            changes: 0,
            merging: None,
            reshapes: 0,
            last_group: groups,
            ops: Vec::new(),
            appended: Vec::new(),
            rotten: Vec::new(),
            done: Done::default(),
        }
    }

    pub fn run(&mut self, cluster: &mut Cluster, load: &Load, bar: &ProgressBar) -> Result<()> {
        let began = Instant::now();
        // Half a second at either end is quiet.
        let between = self.time.saturating_sub(Duration::from_secs(1)) / self.harms.kills.max(1) as u32;
        let mut next_kill = began + Duration::from_millis(500);
        let mut next_disturbance = began + Duration::from_millis(1500);
        let mut next_change = began + Duration::from_secs(1);
        let mut next_reshape = next_change;
        let mut disturbances = 0u64;
        // On a slow machine, or where there is hardly time for so many kills, it takes longer.
        while began.elapsed() < self.time
            || !self.was_all_done(cluster) && began.elapsed() < self.time * LONGER
        {
            cluster.check()?;
            self.come_back(cluster, Instant::now())?;
            let now = Instant::now();
            let is_due = now >= next_disturbance;
            let is_calm = self.cut_off.as_ref().is_some_and(|c| c.is_calm);
            if now >= next_kill && cluster.kills < self.harms.kills && !is_due && !is_calm {
                next_kill += self.kill(cluster, load)?.map_or(Duration::ZERO, |()| between);
            }
            // It needs everybody else: beside a node that is down nothing would be committed.
            if is_due && self.down.is_empty() && self.cut_off.is_none() {
                let worked = match disturbances % 4 {
                    0 => self.cut_off(cluster, load, true)?,
                    2 => self.cut_off(cluster, load, false)?,
                    _ => self.freeze(cluster, load)?,
                };
                disturbances += u64::from(worked);
                let pause = self.timing.election() * DISTURB_EVERY + Duration::from_secs(1);
                next_disturbance = now + if worked { pause } else { Duration::from_millis(200) };
            }
            self.skew.any(cluster, &mut self.rng);
            if Instant::now() >= next_change {
                next_change = Instant::now() + Duration::from_millis(250);
                self.change(cluster);
            }
            if Instant::now() >= next_reshape && self.cut_off.is_none() {
                next_reshape = Instant::now() + Duration::from_millis(200);
                self.reshape(cluster, Duration::from_millis(300));
            }
            bar.set_position(began.elapsed().as_secs());
            bar.set_message(format!("{} of {} kills", cluster.kills, self.harms.kills));
            std::thread::sleep(Duration::from_millis(20));
        }
        bar.set_message("all nodes up and equal?");
        self.make_whole(cluster)
    }

    /// Everything that a run is to show and that happens by this thread alone, has happened.
    fn was_all_done(&self, cluster: &Cluster) -> bool {
        let done = &self.done;
        let each = [
            done.partitions,
            done.freezes,
            done.transfers,
            done.changes,
            done.splits,
            done.merges,
            done.lease_probes + done.late_answers,
        ];
        // Votes are lost where a node comes back, and nowhere else.
        let may_lose_votes = self.harms.lost_votes > 0 && !self.down.is_empty();
        cluster.kills >= self.harms.kills && !may_lose_votes && each.iter().all(|&n| n > 0)
    }

    /// `None` if too many are down already.
    fn kill(&mut self, cluster: &mut Cluster, load: &Load) -> Result<Option<()>> {
        let up: Vec<u64> = (1..=NODES).filter(|&id| cluster.is_up(id)).collect();
        if up.len() < NODES as usize - 1 {
            return Ok(None);
        }
        let victim = up[self.rng.below(up.len() as u64) as usize];
        self.collect(cluster, victim);
        self.cut_off.take_if(|c| c.node == victim);
        cluster.kill(victim)?;
        // Now and then for so long that the others compact what it has not seen.
        let away = if self.rng.below(4) == 0 { 3000 } else { 100 + self.rng.below(1200) };
        self.down.push((victim, Instant::now() + Duration::from_millis(away)));
        for leader in &load.leaders {
            if leader.load(std::sync::atomic::Ordering::Relaxed) == victim {
                leader.store(victim % NODES + 1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        Ok(Some(()))
    }

    fn come_back(&mut self, cluster: &mut Cluster, now: Instant) -> Result<()> {
        let back: Vec<_> = self.down.extract_if(.., |(_, at)| *at <= now).collect();
        for (id, _) in back {
            self.harm(cluster, id)?;
            cluster.start_node(id)?;
        }
        if let Some(CutOff { node, .. }) = self.cut_off.take_if(|c| c.until <= now) {
            self.heal(cluster, node)?;
        }
        Ok(())
    }

    // ---- an old leader that does not know -----------------------------------------------------------------

    /// A node that leads groups, and which: quiet ones come first.
    fn some_leader(&mut self, cluster: &Cluster) -> Option<(u64, Vec<Led>)> {
        let first = self.rng.below(NODES);
        let is_quiet = |led: &Led| home(led.1.start).0.is_multiple_of(QUIET);
        let leaders = (0..NODES).map(|n| {
            let node = 1 + (first + n) % NODES;
            let Stats { leads, spans, .. } = self.stats(cluster, node);
            let serves = |(id, span): &Led| leads.contains(id) && span.standing == Standing::Serving;
            let mut leads: Vec<Led> = spans.into_iter().filter(serves).collect();
            leads.sort_by_key(|led| !is_quiet(led));
            (node, leads)
        });
        // Of what is appended now to a quiet group, the next leader's entries will take the place;
        // elsewhere it may be a snapshot.
        let groups = self.groups;
        leaders.into_iter().find(|(_, leads)| match groups < QUIET {
            true => !leads.is_empty(),
            false => leads.first().is_some_and(is_quiet),
        })
    }

    /// One of its keys, as the clients call it.
    fn some_key(&mut self, span: &Span) -> (u64, u64) {
        home(span.start + self.rng.below(span.end - span.start))
    }

    /// False if nobody leads enough for it to tell anything.
    fn cut_off(&mut self, cluster: &Cluster, load: &Load, is_calm: bool) -> Result<bool> {
        let Some((node, led)) = self.some_leader(cluster) else { return Ok(false) };
        // Of one group it has just handed over the leadership. It cannot learn what came of
        // that, and has no lease any more.
        let given_up = led.last().map(|led| led.0).filter(|_| led.len() > 1);
        let transfer = |group| Request::Transfer { group, to: node % NODES + 1 };
        let given_up = given_up.filter(|&group| {
            matches!(cluster.ask(node, &transfer(group), Duration::from_secs(2)), Ok(Reply::Done))
        });
        // Each group has a lease when the cut comes: one that hardly anybody writes to has none by itself.
        for (_, span) in &led {
            let (group, key) = self.some_key(span);
            let read = Request::Read { group, key, via: Via::Index };
            let _ = cluster.ask(node, &read, Duration::from_millis(200));
        }
        self.skew.of_a_leader(cluster, node, &mut self.rng);
        cluster.partition(node, (1..=NODES).filter(|&id| id != node).collect())?;
        let cut = Instant::now();
        self.done.partitions += 1;
        self.cut_off = Some(CutOff { node, until: cut + self.timing.election() * CUT_OFF, is_calm });
        let written = self.write_alone(cluster, load, node, &led);
        self.read_alone(cluster, load, node, &led, given_up, cut);
        // An answer now means that it has long come to write down what it took.
        if let Ok(Reply::Stats(_)) = cluster.ask(node, &Request::Stats, Duration::from_secs(5)) {
            self.appended.extend(written);
        }
        Ok(true)
    }

    /// Writes that the node will append, and cannot commit.
    fn write_alone(&mut self, cluster: &Cluster, load: &Load, node: u64, led: &[Led]) -> Vec<u64> {
        let mut written = Vec::new();
        for (_, span) in led.iter().take(LONE_WRITES) {
            let ((group, key), value) = (self.some_key(span), OWN | self.ops.len() as u64);
            let start = load.nanos();
            let reply = cluster.ask(node, &Request::Propose { group, key, value }, Duration::from_secs(2));
            match reply {
                Ok(Reply::Done) => written.push(value),
                Ok(_) => continue,
                Err(_) => {}
            }
            let what = What::Write { value, version: None };
            self.ops.push(Op { group, key, start, end: u64::MAX, what });
        }
        written
    }

    /// Writes to a key through another node than `node`, if one of them leads its group by now: a value that
    /// `node` has not heard of.
    fn write_elsewhere(&mut self, cluster: &Cluster, load: &Load, node: u64, (group, key): (u64, u64)) {
        for other in (1..=NODES).filter(|&id| id != node) {
            let (value, start) = (OWN | self.ops.len() as u64, load.nanos());
            let reply = cluster.ask(other, &Request::Write { group, key, value }, Duration::from_millis(100));
            let (version, end) = match reply {
                Ok(Reply::Written { version }) => (Some(version), load.nanos()),
                Ok(Reply::NotLeader { .. } | Reply::Failed { .. } | Reply::Moved | Reply::Gone) => continue,
                _ => (None, u64::MAX),
            };
            self.ops.push(Op { group, key, start, end, what: What::Write { value, version } });
            return;
        }
    }

    /// Reads by lease, which the node may answer for as long as its lease says, and by index,
    /// which it cannot answer at all.
    fn read_alone(
        &mut self,
        cluster: &Cluster,
        load: &Load,
        node: u64,
        led: &[Led],
        given_up: Option<u64>,
        cut: Instant,
    ) {
        let mut first = led.iter().find(|led| Some(led.0) == given_up);
        let connect = || Client::connect(cluster.addrs[node as usize - 1], Duration::from_millis(60));
        let Ok(mut client) = connect() else { return };
        let longest = self.skew.longest_lease();
        while cut.elapsed() < longest * 4 {
            let any = &led[self.rng.below(led.len() as u64) as usize];
            let via = if first.is_none() && self.rng.below(4) == 0 { Via::Index } else { Via::Lease };
            let (region, span) = first.take().unwrap_or(any);
            let (group, key) = self.some_key(span);
            // Whatever renewed the lease was sent before the cut.
            let is_over = via == Via::Lease && (cut.elapsed() > longest || given_up == Some(*region));
            if cut.elapsed() > self.timing.election() && via == Via::Lease {
                self.write_elsewhere(cluster, load, node, (group, key));
            }
            let start = load.nanos();
            match client.call(&Request::Read { group, key, via }) {
                Ok(Reply::Value { version, value, .. }) => {
                    self.done.lone_answers += u64::from(via == Via::Index);
                    self.done.late_answers += u64::from(is_over);
                    let what = What::Read { via, version, value };
                    self.ops.push(Op { group, key, start, end: load.nanos(), what });
                }
                // It has lost its office, and knows it.
                Ok(_) => std::thread::sleep(Duration::from_millis(2)),
                // It believes to lead, and waits for the others to confirm that.
                Err(_) => {
                    self.done.lease_probes += u64::from(is_over);
                    match connect() {
                        Ok(again) => client = again,
                        Err(_) => return,
                    }
                }
            }
        }
    }

    /// Stops a leader's process and lets it go on when others lead. It has not seen the time pass, but its
    /// lease has to: the first that it finds when it wakes up are reads by lease.
    fn freeze(&mut self, cluster: &Cluster, load: &Load) -> Result<bool> {
        let Some((node, led)) = self.some_leader(cluster) else { return Ok(false) };
        let connect = || Client::connect(cluster.addrs[node as usize - 1], Duration::from_millis(500));
        let mut asked = Vec::new();
        // The busy ones come last. Somebody else will have written to them.
        for (_, span) in led.iter().rev().take(LONE_READS) {
            if let Ok(mut client) = connect() {
                // The node knows this connection when it wakes up, and need not take it first.
                client.call(&Request::Stats)?;
                let (group, key) = self.some_key(span);
                asked.push((group, key, client));
            }
        }
        cluster.freeze(node, true)?;
        std::thread::sleep(self.timing.election() * FREEZE);
        let start = load.nanos();
        for (group, key, client) in &mut asked {
            client.send(&Request::Read { group: *group, key: *key, via: Via::Lease })?;
        }
        cluster.freeze(node, false)?;
        self.done.freezes += 1;
        for (group, key, mut client) in asked {
            if let Ok(Reply::Value { version, value, .. }) = client.receive() {
                let what = What::Read { via: Via::Lease, version, value };
                self.ops.push(Op { group, key, start, end: load.nanos(), what });
            }
        }
        Ok(true)
    }

    /// Lets the node receive from the others again. What it took as its own will be discarded; at first the
    /// listener that should save it fails, so the node must wait, and keep it.
    fn heal(&mut self, cluster: &Cluster, node: u64) -> Result<()> {
        if !cluster.is_up(node) {
            return Ok(());
        }
        self.skew.end(cluster, node);
        let fail = |fail| cluster.ask(node, &Request::FailRollbacks { fail }, Duration::from_secs(5));
        fail(true)?;
        cluster.partition(node, Vec::new())?;
        std::thread::sleep(REFUSE);
        fail(false)?;
        Ok(())
    }

    // ---- leaders and voters -------------------------------------------------------------------------------

    fn change(&mut self, cluster: &Cluster) {
        if self.cut_off.is_some() {
            return;
        }
        let Some((group, _)) = self.some_group(cluster, |_| true) else { return };
        let node = 1 + self.rng.below(NODES);
        let patience = Duration::from_millis(300);
        self.changes += 1;
        if self.changes.is_multiple_of(2) || !self.down.is_empty() {
            self.transfer(cluster, group);
            return;
        }
        match self.demoted.take() {
            Some(demoted) => self.promote(cluster, demoted, patience),
            None => {
                let done = cluster.ask_leader(group, &Request::Demote { group, node }, patience);
                self.done.changes += u64::from(done.is_some());
                // The one that did it has applied it.
                let dump = done.and_then(|(leader, _)| dump(cluster, leader, group));
                let index = dump.and_then(|d| decode_conf_state(&d.conf_state).ok()).map(|state| state.0);
                let demoted = Demoted { group, node, index };
                self.check(cluster, &demoted);
                self.demoted = Some(demoted);
            }
        }
    }

    /// Moves the leadership to somebody else, and sees whether it went there.
    fn transfer(&mut self, cluster: &Cluster, group: u64) {
        let leads = |node| self.stats(cluster, node).leads.contains(&group);
        let up: Vec<u64> = (1..=NODES).filter(|&node| cluster.is_up(node)).collect();
        let Some(&leader) = up.iter().find(|&&node| leads(node)) else { return };
        let Some(&to) = up.iter().find(|&&node| node != leader) else { return };
        let asked = cluster.ask(leader, &Request::Transfer { group, to }, Duration::from_secs(2));
        let until = Instant::now() + Duration::from_secs(1);
        let mut moved = false;
        while matches!(asked, Ok(Reply::Done)) && !moved && Instant::now() < until {
            moved = leads(to);
        }
        self.done.transfers += u64::from(moved);
    }

    /// A group that serves, and is neither being merged nor short of a voter.
    pub fn some_group(&mut self, cluster: &Cluster, fits: impl Fn(&Led) -> bool) -> Option<Led> {
        let node = (1..=NODES).filter(|&node| cluster.is_up(node)).nth(self.rng.below(2) as usize)?;
        let busy = [self.merging.as_ref().map(|m| m.source), self.demoted.as_ref().map(|d| d.group)];
        let is_free = |led: &Led| led.1.standing == Standing::Serving && !busy.contains(&Some(led.0));
        let mut groups = self.stats(cluster, node).spans;
        groups.retain(|led| is_free(led) && fits(led));
        let any = self.rng.below(groups.len() as u64) as usize;
        (!groups.is_empty()).then(|| groups.swap_remove(any))
    }

    fn promote(&mut self, cluster: &Cluster, demoted: Demoted, patience: Duration) {
        // There may have been a restart in between.
        self.check(cluster, &demoted);
        let Demoted { group, node, .. } = demoted;
        match cluster.ask_leader(group, &Request::Promote { group, node }, patience) {
            Some(_) => self.done.changes += 1,
            None => self.demoted = Some(demoted),
        }
    }

    /// Those that have applied the change must know of it: raft, and the state machine for the next start.
    fn check(&mut self, cluster: &Cluster, demoted: &Demoted) {
        let Demoted { group, node, index: Some(index) } = *demoted else { return };
        for id in 1..=NODES {
            let Some(dump) = dump(cluster, id, group).filter(|d| d.applied >= index) else { continue };
            let state = decode_conf_state(&dump.conf_state).map(|s| s.1).unwrap_or_default();
            let stats = self.stats(cluster, id);
            let raft = stats.configurations.iter().find(|c| c.0 == group);
            let learns = |peers: &[u64]| nodes_of(peers).contains(&node);
            let knows = learns(&state.learners) && raft.is_none_or(|c| learns(&c.2));
            self.done.forgotten += u64::from(!knows);
        }
    }

    // ---- figures, and the end -----------------------------------------------------------------------------

    fn stats(&self, cluster: &Cluster, node: u64) -> Stats {
        match cluster.ask(node, &Request::Stats, Duration::from_secs(2)) {
            Ok(Reply::Stats(stats)) => stats,
            _ => Stats::default(),
        }
    }

    /// A node's figures go with it: ask before it is killed.
    fn collect(&mut self, cluster: &Cluster, node: u64) {
        let stats = self.stats(cluster, node);
        self.done.refused += stats.refused;
        self.done.compactions += stats.compactions;
        self.done.snapshots_installed += stats.snapshots_installed;
        self.done.healed += stats.healed;
        self.done.unfenced += stats.unfenced;
        self.done.fenced_votes += stats.fenced_votes;
        self.done.replaced += stats.replaced;
    }

    /// Everybody up, connected and a voter.
    fn make_whole(&mut self, cluster: &mut Cluster) -> Result<()> {
        let later = Instant::now() + self.timing.election() * 1000;
        (self.harms.rots, self.harms.lost_votes) = (0, 0);
        self.come_back(cluster, later)?;
        self.wait_until_whole(cluster);
        if let Some(demoted) = self.demoted.take() {
            let Demoted { group, node, .. } = demoted;
            self.promote(cluster, demoted, Duration::from_secs(30));
            if self.demoted.is_some() {
                return Err(format!("group {group} did not take node {node} back as a voter").into());
            }
        }
        let until = Instant::now() + Duration::from_secs(30);
        while let Some(Merging { source, .. }) = self.merging {
            if Instant::now() > until {
                return Err(format!("group {source} was not merged").into());
            }
            self.merge(cluster, Duration::from_secs(2));
        }
        for node in 1..=NODES {
            self.collect(cluster, node);
        }
        Ok(())
    }
}

fn dump(cluster: &Cluster, node: u64, group: u64) -> Option<Dump> {
    match cluster.ask(node, &Request::Dump { group }, Duration::from_secs(2)) {
        Ok(Reply::Dump(dump)) => Some(dump),
        _ => None,
    }
}
