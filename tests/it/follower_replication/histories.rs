//! Random histories: stores that lose power, leaders that change, packets that are lost, configurations that
//! change jointly, in groups that are led from both zones. What is applied at an index is the same
//! everywhere, as it is applied; in the end every replica has everything.

use super::membership::change;
use super::net::{MAJORITY_AWAY, Net, Plan, TICK};
use super::node::first_peer;
use super::proposals;
use raft::prelude::ConfChangeType;
use raftwood::random::Rng;
use std::collections::BTreeMap;

/// So many by default; `RAFTWOOD_RELAY_SEEDS` says otherwise.
const SEEDS: u64 = 12;

const PLAN: Plan = Plan { spare: &[6], leaders: &[1, 3, 5], max_size_per_msg: 4 << 10, ..MAJORITY_AWAY };

#[derive(Default, Debug)]
struct Counts {
    handed_on: u64,
    refused: u64,
    rejections: u64,
    power_cuts: u64,
    elections: u64,
    changes: u64,
    copies: f64,
}

#[test]
fn every_replica_has_everything_in_the_end_and_never_anything_else() {
    let seeds = std::env::var("RAFTWOOD_RELAY_SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    let mut counts = Counts::default();
    for seed in 0..seeds {
        println!("seed {seed}");
        run(seed, &mut counts);
    }
    counts.copies /= seeds as f64;
    println!("{seeds} runs: {counts:?}");
    assert!(counts.handed_on > seeds * 20 && counts.refused > 0 && counts.power_cuts > seeds, "{counts:?}");
}

fn run(seed: u64, counts: &mut Counts) {
    let mut rng = Rng::new(seed);
    let mut net = Net::new(&PLAN, true);
    let mut proposed = BTreeMap::new();
    for group in 1..=net.groups {
        let entries = proposals(seed << 8 | group, 150, 1 << 10);
        net.load(group, entries.clone(), 1, 20_000);
        proposed.insert(group, entries);
        net.node(6).join(group, first_peer(6));
    }
    net.loses = Some((Rng::new(seed ^ 77), 60));
    for _ in 0..40 {
        step(&mut net, &mut rng, counts);
        let ticks = rng.below(4 * TICK);
        net.run_for(ticks);
    }
    // All comes to rest.
    (net.loses, net.slow) = (None, BTreeMap::new());
    net.dark.clear();
    for store in 1..=6 {
        if !net.nodes[&store].is_up() {
            net.node(store).start();
        }
    }
    // Elections that were cut short have left terms in which nobody leads; those who are in them listen to no
    // leader of an earlier one.
    for round in 0.. {
        for group in 1..=net.groups {
            if round % 3 == 0 && !net.is_group_settled(group) {
                elect(&mut net, &mut rng, group);
            }
            // An entry of the leader's own term, after which all before it are committed.
            net.load(group, proposals(seed << 16 | group << 8 | round, 1, 100), 1, 1);
        }
        net.run_for(20 * TICK);
        if net.is_settled() {
            break;
        }
        assert!(round < 40, "seed {seed}: {:?}", net.describe());
    }
    net.agree();
    let seen = net.seen();
    assert_eq!(seen.misdirected, 0, "an agent refused what a leader made");
    counts.handed_on += seen.handed_on;
    counts.refused += seen.refused;
    counts.rejections += seen.rejections;
    counts.copies += net.crossed.values().sum::<u64>() as f64 / net.payload as f64;
}

fn step(net: &mut Net, rng: &mut Rng, counts: &mut Counts) {
    let (store, group) = (1 + rng.below(6), 1 + rng.below(net.groups));
    match rng.below(10) {
        0 | 1 if net.nodes.values().filter(|n| n.is_up()).count() > 4 && net.nodes[&store].is_up() => {
            counts.power_cuts += 1;
            net.node(store).power_cut();
        }
        2..=4 => {
            for node in net.nodes.values_mut().filter(|n| !n.is_up()) {
                node.start();
            }
        }
        5 => {
            counts.elections += 1;
            elect(net, rng, group);
        }
        6 => _ = net.slow.insert(store, rng.below(8) * TICK / 2),
        7 => match net.dark.is_empty() {
            true => _ = net.dark.insert(store),
            false => net.dark.clear(),
        },
        8 => {
            counts.changes += 1;
            reconfigure(net, rng, group);
        }
        _ => {}
    }
}

/// One that is up and may vote stands for election.
fn elect(net: &mut Net, rng: &mut Rng, group: u64) {
    let can = |store: &u64| {
        let replica = net.nodes[store].replicas.get(&group);
        replica.is_some_and(|r| r.raft.raft.promotable())
    };
    let stores: Vec<_> = (1..=6).filter(can).collect();
    if !stores.is_empty() {
        net.campaign(rng.pick(&stores), group);
        net.run_for(2 * TICK);
    }
}

/// 6 comes in as a voter for one of the others, or as a learner; or goes, for the same one.
fn reconfigure(net: &mut Net, rng: &mut Rng, group: u64) {
    let Some(leader) = net.leader(group) else { return };
    let replica = net.node(leader).replicas.get_mut(&group).unwrap();
    let is_in = replica.raft.raft.prs().get(first_peer(6)).is_some();
    let learner = (ConfChangeType::AddLearnerNode, first_peer(6));
    let changes = match (is_in, rng.below(3)) {
        (_, 0) => vec![learner],
        (false, _) => {
            vec![(ConfChangeType::AddNode, first_peer(6)), (ConfChangeType::AddLearnerNode, first_peer(4))]
        }
        (true, _) => vec![learner, (ConfChangeType::AddNode, first_peer(4))],
    };
    let _ = replica.raft.propose_conf_change(vec![], change(&changes));
    net.work(leader);
}
