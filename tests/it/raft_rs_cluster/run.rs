//! One run: what happens is drawn from the seed.

use super::checker::Checker;
use super::node::{NODES, Node, PowerCut, has_threads};
use raft::prelude::{ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, Message, MessageType};
use raftwood::random::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Counts {
    pub(crate) runs: u64,
    pub(crate) power_cuts: u64,
    /// Processes killed, with the power on.
    pub(crate) kills: u64,
    /// Of both, in the middle of something that the node was doing.
    pub(crate) amidst: u64,
    pub(crate) elections: u64,
    pub(crate) committed: u64,
    pub(crate) snapshots: u64,
    /// Appends that discarded entries.
    pub(crate) rollbacks: u64,
    pub(crate) changes: u64,
    /// Of these, by way of a joint configuration.
    pub(crate) joint: u64,
    /// Restarts with a state machine that was ahead of the log.
    pub(crate) beyond: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        let Counts {
            runs,
            power_cuts,
            kills,
            amidst,
            elections,
            committed,
            snapshots,
            rollbacks,
            changes,
            joint,
            beyond,
        } = other;
        self.runs += runs;
        self.power_cuts += power_cuts;
        self.kills += kills;
        self.amidst += amidst;
        self.elections += elections;
        self.committed += committed;
        self.snapshots += snapshots;
        self.rollbacks += rollbacks;
        self.changes += changes;
        self.joint += joint;
        self.beyond += beyond;
    }

    pub(crate) fn each(&self) -> [(&'static str, u64); 11] {
        [
            ("runs", self.runs),
            ("power cuts", self.power_cuts),
            ("kills", self.kills),
            ("crashes amidst something", self.amidst),
            ("elections", self.elections),
            ("entries committed", self.committed),
            ("snapshots installed", self.snapshots),
            ("rollbacks", self.rollbacks),
            ("configurations changed", self.changes),
            ("joint configurations", self.joint),
            ("logs behind their state machine", self.beyond),
        ]
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Deaf,
    Mute,
    Both,
}

struct Cluster {
    rng: Rng,
    groups: u64,
    nodes: Vec<Node>,
    /// Messages on the network.
    flying: Vec<(u64, Message)>,
    /// A node that receives nothing, or that nobody receives from, or both.
    cut_off: Option<(u64, Cut)>,
    checker: Checker,
    counts: Counts,
    proposed: u64,
    has_threads: bool,
}

const STEPS: u64 = 900;

pub(crate) fn run(seed: u64) -> Counts {
    let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let groups = 1 + rng.below(3);
    let nodes = (1..=NODES).map(|id| Node::new(id, groups, seed, &mut rng)).collect();
    let mut cluster = Cluster {
        rng,
        groups,
        nodes,
        flying: Vec::new(),
        cut_off: None,
        checker: Checker::default(),
        counts: Counts { runs: 1, ..Counts::default() },
        proposed: 0,
        has_threads: has_threads(seed),
    };
    for node in &mut cluster.nodes {
        node.start(&cluster.checker, &mut cluster.counts);
    }
    for _ in 0..STEPS {
        cluster.something();
    }
    cluster.make_whole();
    cluster.counts.elections = cluster.checker.elections();
    cluster.counts.committed = cluster.checker.commits();
    cluster.counts
}

impl Cluster {
    fn pick_node(&mut self) -> usize {
        self.rng.below(NODES) as usize
    }

    fn pick_group(&mut self) -> u64 {
        1 + self.rng.below(self.groups)
    }

    fn something(&mut self) {
        let (n, group) = (self.pick_node(), self.pick_group());
        if !self.nodes[n].is_up() {
            if self.rng.one_in(6) {
                self.nodes[n].start(&self.checker, &mut self.counts);
            }
            return;
        }
        let outcome = self.doing(n, |this| this.do_something(n, group));
        if outcome.and_then(|()| self.work(n)).is_err() {
            self.counts.amidst += 1;
            self.crash(n);
        }
    }

    /// Whatever a node does when its power has gone off counts for nothing, and raft may well
    /// panic over a disk that is dead.
    fn doing(
        &mut self,
        n: usize,
        act: impl FnOnce(&mut Self) -> Result<(), PowerCut>,
    ) -> Result<(), PowerCut> {
        let outcome = catch_unwind(AssertUnwindSafe(|| act(self)));
        match outcome {
            _ if self.nodes[n].is_off() => Err(PowerCut),
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn do_something(&mut self, n: usize, group: u64) -> Result<(), PowerCut> {
        match self.rng.below(100) {
            0..40 => {
                self.deliver();
                Ok(())
            }
            40..50 => {
                self.nodes[n].tick();
                Ok(())
            }
            50..53 => {
                self.nodes[n].campaign(group);
                Ok(())
            }
            53..70 => {
                self.propose(n, group);
                Ok(())
            }
            70..74 => {
                let compact = self.rng.one_in(2);
                self.nodes[n].persist_state(group, compact)
            }
            74..76 => self.nodes[n].upkeep(),
            76 => {
                let to = 1 + self.rng.below(NODES);
                self.nodes[n].transfer(group, to);
                Ok(())
            }
            77 => {
                self.change(n, group);
                Ok(())
            }
            78 => {
                let peer = 1 + self.rng.below(NODES);
                self.nodes[n].unreachable(group, peer);
                Ok(())
            }
            79 => {
                self.cut_off = match self.cut_off {
                    Some(_) => None,
                    None => Some((n as u64 + 1, self.rng.pick(&[Cut::Deaf, Cut::Mute, Cut::Both]))),
                };
                Ok(())
            }
            80 => {
                self.crash(n);
                Ok(())
            }
            // Sooner or later: the power goes off amidst whatever the node is doing then.
            81 => {
                let calls = self.rng.below(12);
                self.nodes[n].doom(calls);
                Ok(())
            }
            82..90 => {
                let mut out = Vec::new();
                let outcome = self.nodes[n].complete(&mut out);
                self.send(out);
                outcome
            }
            _ => Ok(()),
        }
    }

    fn work(&mut self, n: usize) -> Result<(), PowerCut> {
        let mut out = Vec::new();
        let outcome = self.doing(n, |this| this.nodes[n].work(&mut this.checker, &mut out, &mut this.counts));
        // What was sent before the power went off has been sent.
        self.send(out);
        outcome
    }

    fn crash(&mut self, n: usize) {
        self.nodes[n].crash(&mut self.rng, &mut self.counts);
    }

    fn propose(&mut self, n: usize, group: u64) {
        self.proposed += 1;
        let mut data = self.proposed.to_le_bytes().to_vec();
        data.resize(8 + self.rng.below(200) as usize, n as u8);
        self.nodes[n].propose(group, data);
    }

    /// A voter becomes a learner, or a learner a voter, or both at once by way of a joint configuration.
    ///
    /// A learner rather than none of it: raft leaves it to the application to stop a replica that is removed.
    fn change(&mut self, n: usize, group: u64) {
        if !self.nodes[n].leads(group) {
            return;
        }
        let state = self.nodes[n].conf_state(group);
        if !state.voters_outgoing.is_empty() {
            return self.complete_voters(n, group);
        }
        self.counts.changes += 1;
        let (out, other) = (1 + self.rng.below(NODES), 1 + self.rng.below(NODES));
        if out != other && state.voters.len() > 1 && self.rng.one_in(3) {
            let mut change = ConfChangeV2::default();
            let kinds = [(out, ConfChangeType::AddLearnerNode), (other, ConfChangeType::AddNode)];
            let single = |(node_id, kind)| {
                let mut single = ConfChangeSingle::default();
                single.set_change_type(kind);
                single.node_id = node_id;
                single
            };
            change.set_changes(kinds.map(single).to_vec().into());
            self.counts.joint += 1;
            return self.nodes[n].change_jointly(group, change);
        }
        let mut change = ConfChange::default();
        change.set_change_type(match state.voters.contains(&out) && state.voters.len() > 1 {
            true => ConfChangeType::AddLearnerNode,
            false => ConfChangeType::AddNode,
        });
        change.node_id = out;
        self.nodes[n].change(group, change);
    }

    /// A step towards a configuration in which all are voters.
    fn complete_voters(&mut self, n: usize, group: u64) {
        let state = self.nodes[n].conf_state(group);
        if !state.voters_outgoing.is_empty() {
            // Its leader may have stepped down before it could leave it.
            return self.nodes[n].change_jointly(group, ConfChangeV2::default());
        }
        let mut change = ConfChange::default();
        change.set_change_type(ConfChangeType::AddNode);
        change.node_id = (1..=NODES).find(|id| !state.voters.contains(id)).unwrap_or(1);
        self.nodes[n].change(group, change);
    }

    fn send(&mut self, messages: Vec<(u64, Message)>) {
        for (group, message) in messages {
            self.checker.sends(group, &message);
            if message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject {
                // What it has appended since may have cut its log short again.
                let last = self.nodes[message.from as usize - 1].last_index(group);
                self.checker.acknowledges(group, message.from, message.index.min(last));
            }
            self.flying.push((group, message));
        }
    }

    /// Any message arrives, or is lost; now and then it arrives again.
    fn deliver(&mut self) {
        for _ in 0..1 + self.rng.below(6) {
            if self.flying.is_empty() {
                return;
            }
            let at = self.rng.below(self.flying.len() as u64) as usize;
            let (group, message) = match self.rng.one_in(20) {
                true => self.flying[at].clone(),
                false => self.flying.swap_remove(at),
            };
            let is_cut = self.cut_off.is_some_and(|(node, cut)| {
                cut != Cut::Deaf && message.from == node || cut != Cut::Mute && message.to == node
            });
            if self.rng.one_in(12) || is_cut {
                continue;
            }
            let to = message.to as usize - 1;
            let outcome = self.doing(to, |this| {
                this.nodes[to].step(group, message);
                Ok(())
            });
            if outcome.and_then(|()| self.work(to)).is_err() {
                self.counts.amidst += 1;
                self.crash(to);
            }
        }
        self.flying.truncate(400);
    }

    /// Everybody up, nothing lost any more: all must come to the same.
    fn make_whole(&mut self) {
        self.cut_off = None;
        for n in 0..NODES as usize {
            // Also those whose power is about to go off.
            self.crash(n);
            self.nodes[n].start(&self.checker, &mut self.counts);
        }
        for round in 0..4000 {
            let group = 1 + round % self.groups;
            if self.is_settled(group) && (1..=self.groups).all(|g| self.is_settled(g)) {
                break;
            }
            self.settle_a_little(round, group);
            if self.has_threads && round > 300 {
                // Other threads must get their turn, also where the machine has much else to do.
                let wait = if round < 2000 { 100 } else { 5000 };
                std::thread::sleep(std::time::Duration::from_micros(wait));
            }
        }
        for group in 1..=self.groups {
            if !self.is_settled(group) {
                let nodes: Vec<_> = self.nodes.iter().map(|n| n.describe(group)).collect();
                panic!("group {group} has not settled: {}", nodes.join("; "));
            }
            let committed = self.checker.committed(group).cloned().unwrap_or_default();
            for node in &self.nodes {
                let state = node.state(group).unwrap();
                assert_eq!(
                    state.log, committed,
                    "group {group}: node {} has not applied what was committed",
                    node.id
                );
            }
            let logs: Vec<_> = self.nodes.iter().map(|n| n.log(group)).collect();
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                Checker::logs_match(group, &logs[a], &logs[b]);
            }
        }
    }

    fn settle_a_little(&mut self, round: u64, group: u64) {
        let leader = (0..NODES as usize)
            .filter(|&n| self.nodes[n].leads(group))
            .max_by_key(|&n| self.nodes[n].term(group));
        match leader {
            None if round.is_multiple_of(37) => {
                let n = self.pick_node();
                self.nodes[n].campaign(group);
            }
            // It may be a leader whom not all follow any more: one of them is in a later term, and hears
            // nothing of this one. A node picked at random was the leader itself each time, in one run.
            Some(_) if round % 151 == 150 => {
                let latest = (0..NODES as usize).max_by_key(|&n| self.nodes[n].term(group));
                latest.into_iter().for_each(|n| self.nodes[n].campaign(group));
            }
            Some(n) if !self.nodes[n].all_vote(group) && round.is_multiple_of(23) => {
                self.complete_voters(n, group);
            }
            Some(n) if round.is_multiple_of(11) => {
                let _ = self.nodes[n].persist_state(group, false);
                for peer in 1..=NODES {
                    self.nodes[n].unreachable(group, peer);
                }
            }
            _ => {}
        }
        for n in 0..NODES as usize {
            if round.is_multiple_of(5) {
                self.nodes[n].tick();
            }
            let mut out = Vec::new();
            while self.nodes[n].has_work() {
                self.nodes[n].work(&mut self.checker, &mut out, &mut self.counts).ok().unwrap();
                self.nodes[n].complete(&mut out).ok().unwrap();
                if self.has_threads {
                    std::thread::yield_now();
                }
            }
            self.send(out);
        }
        for (group, message) in std::mem::take(&mut self.flying) {
            self.nodes[message.to as usize - 1].step(group, message);
        }
    }

    fn is_settled(&self, group: u64) -> bool {
        let led = self.nodes.iter().any(|n| n.leads(group) && n.all_vote(group));
        let last = self.checker.committed(group).and_then(|c| c.keys().next_back().copied()).unwrap_or(0);
        led && self.nodes.iter().all(|n| n.state(group).is_some_and(|s| s.applied.index >= last))
    }
}
