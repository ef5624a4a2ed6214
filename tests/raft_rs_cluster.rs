//! Raft itself over this store: random runs of three nodes with several groups each, over simulated disks and
//! a network that loses, repeats and reorders. Nodes lose power, or are killed, in the middle of writes, also
//! between what the state machine has and what the log has, and come back from what the disk kept. Raft's
//! safety properties must hold throughout. One seed is one run, on one thread; in every fourth the engine has
//! threads of its own, and is not the same twice.

#![cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "raft_rs_cluster/checker.rs"]
mod checker;
#[path = "raft_rs_cluster/machine.rs"]
mod machine;
#[path = "raft_rs_cluster/node.rs"]
mod node;
#[path = "raft_rs_cluster/run.rs"]
mod run;

use run::{Counts, run};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs of the ordinary test; `RAFTWOOD_CLUSTER_SEEDS` asks for more (or `first..last`).
const SEEDS: u64 = 1000;

#[test]
fn random_runs_with_power_cuts_keep_rafts_promises() {
    quiet();
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
                            Err(_) => failed.push((seed, LAST_PANIC.take())),
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
    failed.sort();
    for (seed, why) in &failed {
        eprintln!("seed {seed}: {why}");
    }
    assert!(failed.is_empty(), "{} of {seeds:?} failed", failed.len());
    // All of it happened.
    for (what, n) in total.each() {
        assert!(n > 0, "no {what} in {seeds:?}: the test tests less than it says");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    quiet();
    for seed in (0..8).filter(|&seed| !node::has_threads(seed)) {
        assert_eq!(run(seed), run(seed));
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic over a dead disk is nothing to report; one that counts is reported with its seed.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        // Those of the tests themselves; runs are on threads without a name.
        if std::thread::current().name().is_some() {
            eprintln!("{info}");
        }
        LAST_PANIC.set(info.to_string().replace('\n', " "));
    }));
}
