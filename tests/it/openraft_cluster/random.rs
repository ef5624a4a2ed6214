//! Random runs of three nodes with power cuts, kills, hung disks, isolated leaders and replaced nodes, over
//! both releases: what was acknowledged is there in the end, and replicas agree.

use super::cluster::paused;
use super::on_09::Openraft09;
use super::on_010::Openraft010;
use super::release::Release;
use super::run::{Counts, run};

/// Runs of the ordinary test; `RAFTWOOD_OPENRAFT_SEEDS` asks for more (or `first..last`).
const SEEDS: u64 = 12;

fn random_runs<N: Release>() {
    let asked = std::env::var("RAFTWOOD_OPENRAFT_SEEDS").unwrap_or_default();
    let seeds = match asked.split_once("..") {
        Some((first, last)) => first.parse().unwrap()..last.parse().unwrap(),
        None => 0..asked.parse().unwrap_or(SEEDS),
    };
    let mut total = Counts::default();
    for seed in seeds.clone() {
        println!("seed {seed}");
        total.add(paused(run::<N>(seed)));
    }
    println!("{total:?}");
    if seeds.end - seeds.start >= SEEDS {
        for (what, n) in total.each() {
            assert!(*n > 0, "no {what} in {seeds:?}: the test tests less than it says");
        }
    }
}

#[test]
fn random_runs_of_openraft_09_lose_nothing_and_agree() {
    random_runs::<Openraft09>();
}

#[test]
fn random_runs_of_openraft_010_lose_nothing_and_agree() {
    random_runs::<Openraft010>();
}
