//! What was done to the cluster, and whether it stood it.

use crate::chaos::{Chaos, Harms};
use crate::cluster::{Cluster, NODES};
use crate::history::{self, Op, What};
use crate::peers::nodes_of;
use crate::region::{home, place};
use crate::rollback::{Fate, read_saved};
use crate::wire::{Dump, Reply, Request, Result, Via};
use raftwood::raft_rs::decode_conf_state;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Exit code of a run that found nothing wrong, and in which not all happened that it is to show.
pub const NOT_SHOWN: u8 = 3;

/// The names are the JSON.
#[derive(Default, Serialize)]
pub struct Verdict {
    seconds: f64,
    groups: usize,
    kills: u64,
    partitions: u64,
    freezes: u64,
    leaders_moved: u64,
    configurations_changed: u64,
    groups_split: u64,
    groups_merged: u64,
    writes_acknowledged: u64,
    writes_unknown: u64,
    reads_through_log: u64,
    reads_by_index: u64,
    reads_by_lease: u64,
    reads_covered_by_lease: u64,
    probes_after_the_lease: u64,
    replayed: u64,
    compactions: u64,
    snapshots_installed: u64,
    rolled_back: u64,
    displaced_by_snapshots: u64,
    rollbacks_refused: u64,
    replicas_harmed: u64,
    replicas_unfenced: u64,
    entries_put_back: u64,
    votes_while_fenced: u64,
    hard_states_lost: u64,
    replicas_under_a_new_id: u64,
    clock_faults: u64,
    /// From here on, each is a fault.
    answers_after_the_lease: u64,
    answers_without_a_majority: u64,
    discarded_unsaved: u64,
    replicas_that_differ: u64,
    configurations_that_differ: u64,
    changes_forgotten: u64,
    twice: u64,
    lost: u64,
    stale: u64,
    /// What was to happen and did not: the run does not show that it is survived.
    not_shown: Vec<&'static str>,
}

/// What there is to go by.
pub struct Evidence<'a> {
    pub cluster: &'a Cluster,
    pub chaos: &'a Chaos,
    /// What the clients were answered.
    pub ops: &'a [Op],
    /// What the replicas hold in the end: by group, then by node.
    pub dumps: &'a BTreeMap<u64, Vec<Dump>>,
    pub seconds: f64,
    pub reads_covered_by_lease: u64,
    /// What was to be done to the nodes.
    pub wanted: Harms,
}

/// Compares what the clients were answered with what the replicas hold.
pub fn reach(evidence: &Evidence<'_>) -> Result<Verdict> {
    let Evidence { cluster, chaos, ops, dumps, .. } = *evidence;
    let mut v = Verdict {
        seconds: evidence.seconds,
        reads_covered_by_lease: evidence.reads_covered_by_lease,
        groups: dumps.len(),
        kills: cluster.kills,
        replayed: cluster.replayed,
        partitions: chaos.done.partitions,
        freezes: chaos.done.freezes,
        leaders_moved: chaos.done.transfers,
        configurations_changed: chaos.done.changes,
        groups_split: chaos.done.splits,
        groups_merged: chaos.done.merges,
        probes_after_the_lease: chaos.done.lease_probes,
        answers_after_the_lease: chaos.done.late_answers,
        answers_without_a_majority: chaos.done.lone_answers,
        rollbacks_refused: chaos.done.refused,
        changes_forgotten: chaos.done.forgotten,
        compactions: chaos.done.compactions,
        snapshots_installed: chaos.done.snapshots_installed,
        replicas_harmed: chaos.done.harmed,
        replicas_unfenced: chaos.done.unfenced,
        entries_put_back: chaos.done.healed,
        votes_while_fenced: chaos.done.fenced_votes,
        hard_states_lost: chaos.done.votes_lost,
        replicas_under_a_new_id: chaos.done.replaced,
        clock_faults: chaos.skew.done,
        ..Verdict::default()
    };
    // Every write of every replica, and where the value of a write came to stand.
    let mut held: Vec<BTreeSet<_>> = vec![BTreeSet::new(); NODES as usize];
    let mut versions = BTreeMap::new();
    for replicas in dumps.values() {
        let first = &replicas[0];
        v.replicas_that_differ +=
            u64::from(replicas.iter().any(|d| d.hash != first.hash || d.writes != first.writes));
        for &(key, version, value) in &first.writes {
            let (group, of_group) = home(key);
            v.twice += u64::from(versions.insert(value, (group, of_group, version)).is_some());
        }
        for (held, replica) in held.iter_mut().zip(replicas) {
            held.extend(replica.writes.iter().copied());
        }
    }
    let saved = Saved::read(cluster)?;
    v.rolled_back = saved.rolled_back.len() as u64;
    v.displaced_by_snapshots = saved.displaced.len() as u64;
    // What a node took for its own is committed or saved, also where the listener failed at first, unless it
    // rotted: of an entry that no other node has there is nothing left to save.
    let own: BTreeSet<u64> = chaos.appended.iter().chain(&saved.refused).copied().collect();
    let is_kept = |value: &u64| versions.contains_key(value) || saved.has(value);
    let unsaved = own.iter().filter(|value| !is_kept(value) && !chaos.rotten.contains(value));
    let unsaved: Vec<u64> = unsaved.copied().collect();
    if !unsaved.is_empty() {
        eprintln!("discarded and not saved: {unsaved:x?}");
    }
    v.discarded_unsaved = unsaved.len() as u64;
    for op in ops {
        match op.what {
            What::Write { value, version: Some(version) } => {
                v.writes_acknowledged += 1;
                let written = (place(op.group, op.key), version, value);
                let everywhere = held.iter().all(|writes| writes.contains(&written));
                v.lost += u64::from(!everywhere || saved.rolled_back.contains(&value));
            }
            What::Write { version: None, .. } => v.writes_unknown += 1,
            What::Read { via: Via::Log, .. } => v.reads_through_log += 1,
            What::Read { via: Via::Index, .. } => v.reads_by_index += 1,
            What::Read { via: Via::Lease, .. } => v.reads_by_lease += 1,
        }
    }
    let violations = history::violations(&history::settled(ops, &versions));
    for (group, key) in &violations {
        eprintln!("group {group}, key {key}: no order of its operations explains what was seen");
    }
    v.stale = violations.len() as u64;
    v.configurations_that_differ = odd_configurations(cluster, dumps)?;
    v.not_shown = v.not_shown(evidence.wanted);
    Ok(v)
}

/// In the end one peer of each node votes in every group, by the word of the state machine and by raft's own.
fn odd_configurations(cluster: &Cluster, dumps: &BTreeMap<u64, Vec<Dump>>) -> Result<u64> {
    let everybody: Vec<u64> = (1..=NODES).collect();
    let is_odd = |voters: &[u64], others: &[u64]| nodes_of(voters) != everybody || !others.is_empty();
    let mut odd = 0;
    for dump in dumps.values().flatten() {
        let state = decode_conf_state(&dump.conf_state)?.1;
        let others = [state.learners, state.voters_outgoing].concat();
        odd += u64::from(is_odd(&state.voters, &others));
    }
    for id in 1..=NODES {
        let Reply::Stats(stats) = cluster.ask(id, &Request::Stats, Duration::from_secs(5))? else {
            return Err(format!("node {id} has no figures").into());
        };
        // A node that has lost its tombstones with its votes may be sent what comes late of a group that was
        // merged away: the replica that this makes is nobody's.
        let is_nobodys = |group: &u64, peers: &[u64]| peers.is_empty() && !dumps.contains_key(group);
        let its = stats.configurations.into_iter();
        let its =
            its.filter(|(group, voters, learners)| !is_nobodys(group, &[&voters[..], learners].concat()));
        odd += its.filter(|(_, voters, learners)| is_odd(voters, learners)).count() as u64;
    }
    Ok(odd)
}

/// What the nodes saved before it left their logs: values.
#[derive(Default)]
struct Saved {
    rolled_back: BTreeSet<u64>,
    displaced: BTreeSet<u64>,
    refused: BTreeSet<u64>,
}

impl Saved {
    fn read(cluster: &Cluster) -> Result<Saved> {
        let mut saved = Saved::default();
        for id in 1..=NODES {
            for (fate, value) in read_saved(&cluster.dir_of(id).join("discarded"))? {
                match fate {
                    Fate::RolledBack => saved.rolled_back.insert(value),
                    Fate::Displaced => saved.displaced.insert(value),
                    Fate::Refused => saved.refused.insert(value),
                };
            }
        }
        Ok(saved)
    }

    fn has(&self, value: &u64) -> bool {
        self.rolled_back.contains(value) || self.displaced.contains(value)
    }
}

impl Verdict {
    fn not_shown(&self, wanted: Harms) -> Vec<&'static str> {
        // A node loses its votes while it is down.
        let loses_votes = wanted.kills > 0 && wanted.lost_votes > 0;
        let all = [
            (self.kills >= wanted.kills, "as many kills as were asked for"),
            (self.replayed > 0 || wanted.kills == 0, "a replay of committed entries"),
            (self.partitions > 0, "a node that was cut off"),
            (self.freezes > 0, "a node that stood still"),
            (self.leaders_moved > 0, "a leader that was moved"),
            (self.configurations_changed > 0, "a change of a configuration"),
            (self.groups_split > 0, "a split"),
            (self.groups_merged > 0, "a merge"),
            (self.writes_acknowledged > 0, "a write"),
            (self.reads_through_log > 0, "a read through the log"),
            (self.reads_by_index > 0, "a read by index"),
            (self.reads_covered_by_lease > 0, "a read that a lease covered"),
            (self.probes_after_the_lease > 0, "a leader that was asked after its lease was over"),
            (self.compactions > 0, "a compaction"),
            (self.snapshots_installed > 0, "a snapshot"),
            (self.hard_states_lost > 0 || !loses_votes, "a hard state that was lost"),
            (self.replicas_under_a_new_id > 0 || !loses_votes, "a replica that came back under a new id"),
            (self.rolled_back > 0, "a rollback"),
            (self.rollbacks_refused > 0, "a rollback that was refused"),
        ];
        all.into_iter().filter(|(shown, _)| !shown).map(|(_, what)| what).collect()
    }

    fn faults(&self) -> [(&'static str, u64); 9] {
        [
            ("answers after the lease was over", self.answers_after_the_lease),
            ("answers by index without a majority", self.answers_without_a_majority),
            ("writes discarded without being saved", self.discarded_unsaved),
            ("groups whose replicas differ", self.replicas_that_differ),
            ("configurations that differ", self.configurations_that_differ),
            ("changes of configurations forgotten", self.changes_forgotten),
            ("writes applied twice", self.twice),
            ("lost", self.lost),
            ("stale", self.stale),
        ]
    }

    pub fn code(&self) -> u8 {
        match self.faults().iter().all(|fault| fault.1 == 0) {
            false => 1,
            true if self.not_shown.is_empty() => 0,
            true => NOT_SHOWN,
        }
    }

    pub fn print(&self) {
        println!("{NODES} nodes, {} groups, {:.0} s", self.groups, self.seconds);
        let done = [
            ("nodes killed (SIGKILL)", self.kills),
            ("nodes cut off", self.partitions),
            ("nodes that stood still (SIGSTOP)", self.freezes),
            ("leaders moved", self.leaders_moved),
            ("configurations changed", self.configurations_changed),
            ("groups split", self.groups_split),
            ("groups merged", self.groups_merged),
            ("writes acknowledged", self.writes_acknowledged),
            ("writes without an answer", self.writes_unknown),
            ("reads through the log", self.reads_through_log),
            ("reads by read index", self.reads_by_index),
            ("reads by lease", self.reads_by_lease),
            ("  covered by it, no round needed", self.reads_covered_by_lease),
            ("  asked of a leader that had none left", self.probes_after_the_lease),
            ("committed entries replayed", self.replayed),
            ("logs compacted", self.compactions),
            ("snapshots installed", self.snapshots_installed),
            ("writes rolled back, and saved", self.rolled_back),
            ("writes displaced by a snapshot, saved", self.displaced_by_snapshots),
            ("rollbacks refused by the listener", self.rollbacks_refused),
            ("replicas of which an entry rotted", self.replicas_harmed),
            ("replicas that were fenced, and run again", self.replicas_unfenced),
            ("entries put back from other nodes", self.entries_put_back),
            ("votes given while fenced", self.votes_while_fenced),
            ("hard states lost", self.hard_states_lost),
            ("replicas that came back under a new id", self.replicas_under_a_new_id),
            ("faults of clocks", self.clock_faults),
        ];
        let faults = self.faults();
        for (what, n) in done.iter().chain(&faults[..faults.len() - 2]) {
            println!("{what:<40} {n:>10}");
        }
        println!("{} lost, {} stale", self.lost, self.stale);
        if !self.not_shown.is_empty() {
            println!("but this run has not shown {}", self.not_shown.join(", or "));
        }
    }
}
