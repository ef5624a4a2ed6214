//! Raft itself over this store: random runs of three nodes with several groups each, on one thread, over simulated disks and a
//! network that loses, repeats and reorders. Nodes lose power in the middle of writes, also between what the state machine has and what
//! the log has, and come back from what the disk kept. Raft's safety properties must hold throughout. One seed is one run.

#![cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "raft_rs_cluster/checker.rs"]
mod checker;
#[path = "raft_rs_cluster/node.rs"]
mod node;
#[path = "raft_rs_cluster/run.rs"]
mod run;

use run::{Counts, run};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs of the ordinary test; `RAFTWOOD_CLUSTER_SEEDS` asks for more (or `first..last`).
const SEEDS: u64 = 400;

#[test]
fn random_runs_with_power_cuts_keep_rafts_promises() {
    let asked = std::env::var("RAFTWOOD_CLUSTER_SEEDS").unwrap_or_default();
    let seeds = match asked.split_once("..") {
        Some((first, last)) => first.parse().unwrap()..last.parse().unwrap(),
        None => 0..asked.parse().unwrap_or(SEEDS),
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut total = Counts::default();
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mut total = Counts::default();
                    let mut failed = Vec::new();
                    for seed in seeds.filter(|s| s % threads == n) {
                        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                            Ok(counts) => total.add(&counts),
                            Err(e) => failed.push((seed, words(&*e))),
                        }
                    }
                    (total, failed)
                })
            })
            .collect();
        for worker in workers {
            let (counts, seeds) = worker.join().unwrap();
            total.add(&counts);
            failed.extend(seeds);
        }
    });
    println!("{total:?}");
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed, the first: {:?}",
        failed.len(),
        seeds.end,
        failed.iter().min()
    );
    // All of it happened.
    for (what, n) in total.each() {
        assert!(n > 0, "no {what} in {seeds:?}: the test tests less than it says");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        assert_eq!(run(seed), run(seed));
    }
}

fn words(e: &(dyn std::any::Any + Send)) -> String {
    let text = e.downcast_ref::<String>().cloned();
    text.or_else(|| e.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
