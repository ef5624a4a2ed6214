//! Follower replication by zone: what goes over the boundary between two zones, counted at the sockets.
//!
//! Node 1 is alone in its zone and leads; nodes 2 and 3 are in another. Without relaying, every entry goes to
//! that zone twice. With it, one of the two hands on to the other what it was sent. The same run is made
//! both ways: writes that do not compress, first with nothing else going on, then with a node that stands
//! still, a learner, a leader that is cut off with entries of its own and comes back, and then with nothing
//! again.

use crate::clocks::Trust;
use crate::cluster::{Cluster, NODES};
use crate::lease::Timing;
use crate::region::{KEYS, place};
use crate::rollback::{Fate, read_saved};
use crate::verdict::NOT_SHOWN;
use crate::wire::{Client, Dump, Reply, Request, Result, Stats};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The node that leads, and its zone.
const HOME: u64 = 1;
const ZONES: &str = "west,east,east";
const GROUPS: u64 = 4;
/// Nobody writes to it: a node that was away catches up by entries, and not by a snapshot.
const QUIET: u64 = GROUPS;
const WRITERS: u64 = 8;
/// Bytes of a write.
const PAYLOAD: u64 = 6 << 10;
/// How much more than once an entry may go over the boundary in the steady state: frames, heartbeats, commit
/// indexes, and what an agent is asked to hand on.
const COPIES_MAX: f64 = 1.05;
const PATIENCE: Duration = Duration::from_secs(30);
/// Ticks after which nobody is sent to directly any more because of what was.
const CALM: u32 = 40;

/// The names are the JSON.
#[derive(Serialize)]
pub struct Zones {
    runs: Vec<Run>,
    lost: u64,
    /// What was to happen and did not.
    not_shown: Vec<&'static str>,
}

/// Copies are the bytes over the boundary by those of the writes.
#[derive(Default, Serialize)]
pub struct Run {
    relayed: bool,
    writes: u64,
    copies: f64,
    copies_while_eventful: f64,
    copies_afterwards: f64,
    /// Back to the leader's zone, in the steady state.
    copies_back: f64,
    appends_handed_on: u64,
    appends_not_handed_on: u64,
    rolled_back: u64,
    lost: u64,
}

/// # Errors
/// A node that does not start, or what does not come about in time.
pub fn run(program: &Path, dir: &Path, timing: Timing, time: Duration) -> Result<Zones> {
    let mut runs = Vec::new();
    for relayed in [false, true] {
        runs.push(Boundary::open(program, dir, timing, relayed)?.measure(time)?);
    }
    let relayed = &runs[1];
    let all = [
        (runs[0].copies > 1.9, "two copies without relaying"),
        (relayed.copies <= COPIES_MAX, "one copy by relaying"),
        (relayed.copies_afterwards <= COPIES_MAX, "one copy by relaying afterwards"),
        (relayed.appends_handed_on > 0, "an append that was handed on"),
        (runs.iter().all(|run| run.rolled_back > 0), "a conflict"),
    ];
    let not_shown = all.into_iter().filter(|(shown, _)| !shown).map(|(_, what)| what).collect();
    Ok(Zones { lost: runs.iter().map(|run| run.lost).sum(), runs, not_shown })
}

impl Zones {
    pub fn code(&self) -> u8 {
        match (self.lost, self.not_shown.is_empty()) {
            (0, true) => 0,
            (0, false) => NOT_SHOWN,
            _ => 1,
        }
    }

    pub fn print(&self) {
        println!("{:<42} {:>10} {:>10}", "", "directly", "relayed");
        let row = |what, of: fn(&Run) -> f64| {
            println!("{what:<42} {:>10.2} {:>10.2}", of(&self.runs[0]), of(&self.runs[1]));
        };
        row("copies to the other zone", |run| run.copies);
        row("  and back", |run| run.copies_back);
        row("copies both ways, while much happened", |run| run.copies_while_eventful);
        row("copies to the other zone, afterwards", |run| run.copies_afterwards);
        let row = |what, of: fn(&Run) -> u64| {
            println!("{what:<42} {:>10} {:>10}", of(&self.runs[0]), of(&self.runs[1]));
        };
        row("writes acknowledged", |run| run.writes);
        row("appends that the agent handed on", |run| run.appends_handed_on);
        row("appends that it refused to", |run| run.appends_not_handed_on);
        row("writes rolled back, and saved", |run| run.rolled_back);
        println!("{} lost", self.lost);
        if !self.not_shown.is_empty() {
            println!("but this run has not shown {}", self.not_shown.join(", or "));
        }
    }
}

/// Three nodes in two zones, and who writes to them.
struct Boundary {
    cluster: Cluster,
    timing: Timing,
    relayed: bool,
    /// Values, each of which is written once.
    next: AtomicU64,
}

/// A write that was acknowledged: key, version, value, as the replicas hold them.
type Written = (u64, u64, u64);

impl Boundary {
    fn open(program: &Path, dir: &Path, timing: Timing, relayed: bool) -> Result<Boundary> {
        let mut others = vec!["--payload".to_string(), PAYLOAD.to_string()];
        if relayed {
            others.extend(["--zones".to_string(), ZONES.to_string()]);
        }
        let dir = dir.join(if relayed { "relayed" } else { "directly" });
        let cluster = Cluster::start_with(program.to_path_buf(), &dir, GROUPS, timing, Trust::Both, others)?;
        Ok(Boundary { cluster, timing, relayed, next: AtomicU64::new(1) })
    }

    fn measure(mut self, time: Duration) -> Result<Run> {
        let mut run = Run { relayed: self.relayed, ..Run::default() };
        let mut written = self.written_while(|at| at.lead_from_home())?;
        written.extend(self.calm()?);

        let before = self.crossed()?;
        let steady = self.written_while(|_| sleep(time))?;
        let after = self.crossed()?;
        (run.copies, run.copies_back) =
            (copies(after.0 - before.0, steady.len()), copies(after.1 - before.1, steady.len()));
        written.extend(steady);

        let before = after;
        let eventful = self.written_while(|at| at.much_happens())?;
        let after = self.crossed()?;
        run.copies_while_eventful = copies(after.0 + after.1 - before.0 - before.1, eventful.len());
        written.extend(eventful);
        written.extend(self.written_while(|at| at.lead_from_home())?);
        written.extend(self.calm()?);

        let before = self.crossed()?;
        let afterwards = self.written_while(|_| sleep(time))?;
        run.copies_afterwards = copies(self.crossed()?.0 - before.0, afterwards.len());
        written.extend(afterwards);

        run.writes = written.len() as u64;
        for node in 1..=NODES {
            let stats = self.stats(node)?;
            run.appends_handed_on += stats.handed_on;
            run.appends_not_handed_on += stats.not_handed_on;
            let saved = read_saved(&self.cluster.dir_of(node).join("discarded"))?;
            run.rolled_back += saved.iter().filter(|s| s.0 == Fate::RolledBack).count() as u64;
            let held: BTreeSet<Written> =
                self.dumps(node)?.into_iter().flat_map(|dump| dump.writes).collect();
            run.lost += written.iter().filter(|write| !held.contains(write)).count() as u64;
        }
        self.cluster.check()?;
        Ok(run)
    }

    /// Bytes that went to the other zone, and back, once nothing is under way.
    fn crossed(&self) -> Result<(u64, u64)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let all = (1..=NODES).map(|node| self.dumps(node)).collect::<Result<Vec<_>>>()?;
            if all.iter().all(|dumps| *dumps == all[0]) {
                break;
            }
            if Instant::now() > until {
                return Err("the replicas have not become equal".into());
            }
            sleep(self.timing.tick())?;
        }
        let mut crossed = (0, 0);
        for node in 1..=NODES {
            for (to, bytes) in self.stats(node)?.sent {
                crossed.0 += if node == HOME { bytes } else { 0 };
                crossed.1 += if to == HOME { bytes } else { 0 };
            }
        }
        Ok(crossed)
    }

    /// What is written while this goes on, and acknowledged.
    fn written_while(&self, go_on: impl FnOnce(&Boundary) -> Result<()>) -> Result<Vec<Written>> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let writers: Vec<_> =
                (0..WRITERS).map(|n| scope.spawn(move || self.write_until(stop, n))).collect();
            let outcome = go_on(self);
            stop.store(true, Ordering::Relaxed);
            let written = writers.into_iter().filter_map(|writer| writer.join().ok()).flatten().collect();
            outcome.map(|()| written)
        })
    }

    fn write_until(&self, stop: &AtomicBool, n: u64) -> Vec<Written> {
        let (group, mut node) = (1 + n % (GROUPS - 1), HOME);
        let mut client: Option<Client> = None;
        let mut written = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let value = self.next.fetch_add(1, Ordering::Relaxed);
            let key = value % KEYS;
            if client.is_none() {
                let addr = self.cluster.addrs[node as usize - 1];
                client = Client::connect(addr, Duration::from_secs(2)).ok();
            }
            let reply = client.as_mut().map(|client| client.call(&Request::Write { group, key, value }));
            match reply {
                Some(Ok(Reply::Written { version })) => written.push((place(group, key), version, value)),
                Some(Ok(Reply::NotLeader { leader })) if leader != 0 && leader != node => {
                    (client, node) = (None, leader);
                }
                _ => {
                    (client, node) = (None, node % NODES + 1);
                    let _ = sleep(self.timing.tick());
                }
            }
        }
        written
    }

    fn lead_from_home(&self) -> Result<()> {
        (1..=GROUPS).try_for_each(|group| self.lead(group, HOME))
    }

    fn lead(&self, group: u64, to: u64) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !self.stats(to)?.leads.contains(&group) {
            if Instant::now() > until {
                return Err(format!("node {to} does not lead group {group}").into());
            }
            self.cluster.ask_leader(group, &Request::Transfer { group, to }, Duration::from_secs(1));
            sleep(self.timing.tick() * 4)?;
        }
        Ok(())
    }

    /// Writes until nobody is sent to directly because of what was before.
    fn calm(&self) -> Result<Vec<Written>> {
        self.written_while(|at| sleep(at.timing.tick() * CALM))
    }

    fn much_happens(&self) -> Result<()> {
        // The agent stands still, not for so long that somebody would be elected.
        let (two, three) = (self.stats(2)?.handed_on, self.stats(3)?.handed_on);
        let agent = if two >= three { 2 } else { 3 };
        self.cluster.freeze(agent, true)?;
        sleep(self.timing.election() / 2)?;
        self.cluster.freeze(agent, false)?;
        sleep(self.timing.election())?;
        // Its neighbour is a learner for a while, and then the agent itself.
        for node in [5 - agent, agent] {
            for group in 1..=GROUPS {
                self.ask(group, &Request::Demote { group, node })?;
            }
            sleep(self.timing.election())?;
            for group in 1..=GROUPS {
                self.ask(group, &Request::Promote { group, node })?;
            }
        }
        // Two leaders are cut off, one in each zone, and take what they cannot commit: others' entries take
        // its place later, at the agent by way of a broadcast.
        for node in [HOME, agent] {
            self.lead_from_home()?;
            self.lead(QUIET, node)?;
            self.cluster.partition(node, (1..=NODES).filter(|other| *other != node).collect())?;
            let value = self.next.fetch_add(1, Ordering::Relaxed);
            let propose = Request::Propose { group: QUIET, key: value % KEYS, value };
            self.cluster.ask(node, &propose, PATIENCE)?;
            sleep(self.timing.election() * 4)?;
            self.cluster.partition(node, Vec::new())?;
            sleep(self.timing.election() * 2)?;
        }
        Ok(())
    }

    fn ask(&self, group: u64, request: &Request) -> Result<()> {
        let done = self.cluster.ask_leader(group, request, PATIENCE);
        done.map(drop).ok_or_else(|| format!("{request:?}: nobody did it").into())
    }

    fn stats(&self, node: u64) -> Result<Stats> {
        match self.cluster.ask(node, &Request::Stats, PATIENCE)? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(format!("node {node} has no figures").into()),
        }
    }

    fn dumps(&self, node: u64) -> Result<Vec<Dump>> {
        let dump = |group| match self.cluster.ask(node, &Request::Dump { group }, PATIENCE)? {
            Reply::Dump(dump) => Ok(dump),
            _ => Err(format!("node {node} does not say what group {group} holds").into()),
        };
        (1..=GROUPS).map(dump).collect()
    }
}

fn copies(bytes: u64, writes: usize) -> f64 {
    bytes as f64 / (writes.max(1) as u64 * PAYLOAD) as f64
}

fn sleep(time: Duration) -> Result<()> {
    std::thread::sleep(time);
    Ok(())
}
