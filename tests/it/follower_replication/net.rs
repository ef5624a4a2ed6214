//! Stores in two zones, and the wires between them, on which every byte is counted. Time is counted too, not
//! spent, in microseconds. Runs differ a little: raft sends to its peers in the order of a hash map.

use super::frame::Frame;
use super::node::{Done, Node, Seen, digest, first_peer};
use raft::SnapshotStatus;
use raft::prelude::ConfState;
use raftwood::raft_rs::{ZoneUpdates, Zones};
use raftwood::random::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Every group's replicas.
pub(crate) struct Plan {
    pub(crate) west: &'static [u64],
    pub(crate) east: &'static [u64],
    /// Those of both that do not vote.
    pub(crate) learners: &'static [u64],
    /// Stores that hold nothing yet.
    pub(crate) spare: &'static [u64],
    /// The store on which each group's leader is, at first.
    pub(crate) leaders: &'static [u64],
    pub(crate) max_size_per_msg: u64,
}

/// Two of five voters beside the leader's zone: a majority is in it.
pub(crate) const MAJORITY_AT_HOME: Plan = Plan {
    west: &[1, 2, 3],
    east: &[4, 5, 6],
    learners: &[6],
    spare: &[],
    leaders: &[1],
    max_size_per_msg: 64 << 10,
};

/// Three of five voters there: every entry waits for the other zone.
pub(crate) const MAJORITY_AWAY: Plan =
    Plan { west: &[1, 2], east: &[3, 4, 5], learners: &[], ..MAJORITY_AT_HOME };

/// One way, within a zone and between two.
const NEAR: u64 = 500;
const FAR: u64 = 15_000;

/// Bytes that leave a zone in a microsecond: 200 Mbit/s.
const BOUNDARY: u64 = 25;

pub(crate) const TICK: u64 = 50_000;

struct Packet {
    from: u64,
    to: u64,
    group: u64,
    bytes: Vec<u8>,
}

pub(crate) struct Net {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) updates: ZoneUpdates,
    west: BTreeSet<u64>,
    pub(crate) groups: u64,
    pub(crate) now: u64,
    next_tick: u64,
    /// By arrival and number.
    wires: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// When the last packet on a wire arrives: none overtakes it.
    last: BTreeMap<(u64, u64), u64>,
    /// When the boundary is free again, by direction.
    free: BTreeMap<bool, u64>,
    /// Bytes over the boundary, by whether they leave the west.
    pub(crate) crossed: BTreeMap<bool, u64>,
    /// What a store's packets take longer.
    pub(crate) slow: BTreeMap<u64, u64>,
    /// Stores to which nothing comes through, and nobody is notified.
    pub(crate) dark: BTreeSet<u64>,
    /// One packet in so many is lost.
    pub(crate) loses: Option<(Rng, u64)>,
    /// To be proposed then.
    due: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    /// By digest: when it was proposed first.
    proposed: BTreeMap<u64, u64>,
    pub(crate) payload: u64,
    /// What the groups have applied, by group and index.
    facts: BTreeMap<(u64, u64), (u64, u64)>,
    /// By store: how long after it was proposed each entry was applied.
    pub(crate) took: BTreeMap<u64, Vec<u64>>,
}

impl Net {
    /// The leaders lead, and have a first entry committed. Nothing is counted yet.
    pub(crate) fn new(plan: &Plan, relayed: bool) -> Net {
        let (updates, zones) = Zones::shared();
        let stores = [plan.west, plan.east, plan.spare].concat();
        let size = plan.max_size_per_msg;
        let mut net = Net {
            nodes: stores.iter().map(|store| (*store, Node::new(*store, &zones, size))).collect(),
            updates,
            west: plan.west.iter().copied().collect(),
            groups: plan.leaders.len() as u64,
            now: 0,
            next_tick: TICK,
            wires: BTreeMap::new(),
            sent: 0,
            last: BTreeMap::new(),
            free: BTreeMap::new(),
            crossed: BTreeMap::new(),
            slow: BTreeMap::new(),
            dark: BTreeSet::new(),
            loses: None,
            due: BTreeMap::new(),
            proposed: BTreeMap::new(),
            payload: 0,
            facts: BTreeMap::new(),
            took: BTreeMap::new(),
        };
        if relayed {
            net.updates.replace(stores.iter().map(|store| (*store, net.zone(*store))));
        }
        let members = [plan.west, plan.east].concat();
        let (learners, voters): (Vec<u64>, Vec<u64>) =
            members.iter().partition(|s| plan.learners.contains(s));
        let peers = |stores: Vec<u64>| stores.into_iter().map(first_peer).collect::<Vec<_>>();
        let conf = ConfState::from((peers(voters), peers(learners)));
        for (group, leader) in (1..).zip(plan.leaders) {
            members.iter().for_each(|store| net.node(*store).bootstrap(group, &conf));
            net.campaign(*leader, group);
        }
        net.settle();
        net.crossed.clear();
        net
    }

    pub(crate) fn zone(&self, store: u64) -> &'static str {
        if self.west.contains(&store) { "west" } else { "east" }
    }

    pub(crate) fn node(&mut self, store: u64) -> &mut Node {
        self.nodes.get_mut(&store).unwrap()
    }

    /// The leader of the latest term, and it.
    pub(crate) fn leader(&self, group: u64) -> Option<u64> {
        let leading = self.nodes.values().filter_map(|n| Some((n.leads(group)?, n.store)));
        leading.max().map(|(_, store)| store)
    }

    /// The store of a zone's agent, as the leader has it.
    pub(crate) fn agent(&self, group: u64, zone: &str) -> Option<u64> {
        let leader = &self.nodes[&self.leader(group)?];
        leader.replicas[&group].route.agent(zone).map(|peer| peer % 100)
    }

    pub(crate) fn campaign(&mut self, store: u64, group: u64) {
        let replica = self.node(store).replicas.get_mut(&group).unwrap();
        replica.raft.campaign().unwrap();
        self.work(store);
    }

    /// What all stores have seen.
    pub(crate) fn seen(&self) -> Seen {
        self.nodes.values().fold(Seen::default(), |sum, node| {
            let Seen { handed_on, refused, fetched, misdirected, rejections } = node.seen;
            Seen {
                handed_on: sum.handed_on + handed_on,
                refused: sum.refused + refused,
                fetched: sum.fetched + fetched,
                misdirected: sum.misdirected + misdirected,
                rejections: sum.rejections + rejections,
            }
        })
    }

    /// From now on, every `every` microseconds, so many at once.
    pub(crate) fn load(&mut self, group: u64, entries: Vec<Vec<u8>>, at_once: usize, every: u64) {
        for (n, together) in (0..).zip(entries.chunks(at_once)) {
            let due = self.due.entry(self.now + n * every).or_default();
            due.extend(together.iter().map(|data| (group, data.clone())));
        }
    }

    pub(crate) fn run_for(&mut self, micros: u64) {
        self.run_until(self.now + micros);
    }

    /// Until all that is to be proposed has been.
    pub(crate) fn run_load(&mut self) {
        while let Some((at, _)) = self.due.last_key_value() {
            self.run_until(*at);
        }
    }

    fn run_until(&mut self, end: u64) {
        loop {
            let arrival = self.wires.keys().next().map(|(at, _)| *at);
            let due = self.due.keys().next().copied();
            let next = [Some(self.next_tick), arrival, due].into_iter().flatten().min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if Some(next) == due {
                self.propose_due();
            } else if Some(next) == arrival {
                self.arrive();
            } else {
                self.next_tick += TICK;
                for store in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.node(store).tick();
                    self.work(store);
                }
            }
        }
    }

    fn propose_due(&mut self) {
        let Some((_, due)) = self.due.pop_first() else { return };
        let mut leaders = BTreeSet::new();
        for (group, data) in due {
            let what = digest(&data);
            self.payload += if self.proposed.contains_key(&what) { 0 } else { data.len() as u64 };
            self.proposed.entry(what).or_insert(self.now);
            let leader = self.leader(group);
            let replica = leader.and_then(|store| self.node(store).replicas.get_mut(&group));
            match replica.map(|r| r.raft.propose(vec![], data.clone())) {
                Some(Ok(())) => leaders.extend(leader),
                _ => self.due.entry(self.now + TICK).or_default().push((group, data)),
            }
        }
        leaders.into_iter().for_each(|store| self.work(store));
    }

    pub(crate) fn work(&mut self, store: u64) {
        let Done { out, applied } = self.node(store).work();
        for (group, index, what) in applied {
            let is = *self.facts.entry((group, index)).or_insert(what);
            assert_eq!(what, is, "group {group}: store {store} applies another entry {index}");
            if let Some(at) = self.proposed.get(&what.1) {
                self.took.entry(store).or_default().push(self.now - at);
            }
        }
        for (group, to, frame) in out {
            self.send(store, to, group, &frame);
        }
    }

    /// Puts a frame on the wire, as if `from` had sent it.
    pub(crate) fn send(&mut self, from: u64, to: u64, group: u64, frame: &Frame) {
        let bytes = frame.encode();
        let leaves_west = self.west.contains(&from);
        let mut at = self.now + NEAR;
        if leaves_west != self.west.contains(&to) {
            let free = self.free.entry(leaves_west).or_default();
            *free = self.now.max(*free) + bytes.len() as u64 / BOUNDARY;
            at = *free + FAR;
            *self.crossed.entry(leaves_west).or_default() += bytes.len() as u64;
        }
        let is_dark = self.dark.contains(&to) || self.dark.contains(&from);
        let is_lost = is_dark || self.loses.as_mut().is_some_and(|(rng, one_in)| rng.one_in(*one_in));
        if is_lost {
            let is_noticed = !is_dark && self.sent.is_multiple_of(2);
            return self.lost(from, to, group, &bytes, is_noticed);
        }
        at += self.slow.get(&to).copied().unwrap_or(0);
        let last = self.last.entry((from, to)).or_default();
        *last = at.max(*last);
        self.sent += 1;
        self.wires.insert((*last, self.sent), Packet { from, to, group, bytes });
    }

    fn arrive(&mut self) {
        let Some((_, Packet { from, to, group, bytes })) = self.wires.pop_first() else { return };
        if !self.nodes[&to].is_up() {
            self.lost(from, to, group, &bytes, true);
            return self.work(from);
        }
        self.node(to).arrive(group, &bytes);
        self.work(to);
        self.node(from).snapshot_sent(group, &bytes, SnapshotStatus::Finish);
        self.work(from);
    }

    /// Of a snapshot the sender is always notified, as raft asks for. What follows from it, it does with
    /// its next work.
    fn lost(&mut self, from: u64, to: u64, group: u64, bytes: &[u8], is_noticed: bool) {
        let node = self.node(from);
        node.snapshot_sent(group, bytes, SnapshotStatus::Failure);
        if is_noticed {
            node.broke(group, to);
        }
    }

    /// Until nothing is under way and all that are up have the same.
    pub(crate) fn settle(&mut self) {
        self.run_load();
        for _ in 0..400 {
            self.run_for(TICK);
            if self.is_settled() {
                return;
            }
        }
        unreachable!("no rest: {:?}", self.describe());
    }

    pub(crate) fn is_settled(&self) -> bool {
        (1..=self.groups).all(|group| self.is_group_settled(group))
    }

    pub(crate) fn is_group_settled(&self, group: u64) -> bool {
        let replicas = || self.nodes.values().filter_map(|n| n.replicas.get(&group));
        let Some(leader) = self.leader(group) else { return false };
        let leader = &self.nodes[&leader].replicas[&group];
        let last = leader.raft.raft.raft_log.last_index();
        let member = |r: &&super::node::Replica| leader.raft.raft.prs().get(r.peer).is_some();
        last == leader.state.applied.index
            && replicas().filter(member).all(|r| r.state.applied == leader.state.applied)
    }

    /// For people.
    pub(crate) fn describe(&self) -> Vec<String> {
        let line = |store: u64, group: u64, r: &super::node::Replica| {
            let raft = &r.raft.raft;
            let (last, progress) = (raft.raft_log.last_index(), raft.prs().iter().collect::<Vec<_>>());
            format!(
                "\n{store}/{group} {:?} {} {last} {} {progress:?}",
                raft.state, raft.term, r.state.applied
            )
        };
        let replicas =
            |node: &Node| node.replicas.iter().map(|(g, r)| line(node.store, *g, r)).collect::<Vec<_>>();
        self.nodes.values().flat_map(replicas).collect()
    }

    /// All that are up have the leader's log, in the engine and applied.
    pub(crate) fn agree(&mut self) {
        self.settle();
        for group in 1..=self.groups {
            let leader = &self.nodes[&self.leader(group).unwrap()];
            let members = leader.replicas[&group].raft.raft.prs();
            let with = |n: &&Node| n.replicas.get(&group).is_some_and(|r| members.get(r.peer).is_some());
            let nodes: Vec<_> = self.nodes.values().filter(with).collect();
            let from = nodes.iter().map(|n| n.region(group).first_index()).max().unwrap();
            let digest = leader.region(group).checksum(from..).unwrap();
            for node in nodes {
                let (has, led) = (&node.replicas[&group].state, &leader.replicas[&group].state);
                assert_eq!(node.region(group).checksum(from..).unwrap(), digest, "store {}", node.store);
                assert!(has == led, "store {} has applied other things", node.store);
            }
        }
    }

    /// Copies of what was proposed that left the west.
    pub(crate) fn copies(&self) -> f64 {
        self.crossed.get(&true).copied().unwrap_or(0) as f64 / self.payload as f64
    }

    /// How many of these entries a store has applied.
    pub(crate) fn has_applied(&self, store: u64, group: u64, entries: &[Vec<u8>]) -> usize {
        let Some(replica) = self.nodes[&store].replicas.get(&group) else { return 0 };
        let applied: BTreeSet<_> = replica.state.log.iter().map(|(_, digest)| *digest).collect();
        entries.iter().filter(|data| applied.contains(&digest(data))).count()
    }
}
