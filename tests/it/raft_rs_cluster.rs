//! Raft itself over this store: random runs of three nodes with several groups each, over simulated disks and
//! a network that loses, repeats and reorders. Nodes lose power, or are killed, in the middle of writes, also
//! between what the state machine has and what the log has, and come back from what the disk kept. Raft's
//! safety properties must hold throughout. One seed is one run, on one thread; in every fourth the engine has
//! threads of its own, and is not the same twice.

mod checker;
mod node;
mod run;
mod setup;

use run::{Counts, run};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Runs of the ordinary test; `RAFTWOOD_CLUSTER_SEEDS` asks for more (or `first..last`).
const SEEDS: u64 = 1000;

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
                    quiet();
                    let mut total = Counts::default();
                    let mut failed = Vec::new();
                    for seed in seeds.filter(|s| s % threads == n) {
                        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                            Ok(counts) => total.add(&counts),
                            Err(_) => failed.push((seed, LAST_PANIC.replace(Some(String::new())).unwrap())),
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
    for seed in (0..8).filter(|&seed| !node::has_threads(seed)) {
        assert_eq!(run(seed), run(seed));
    }
}

thread_local! {
    /// Of a thread of runs, the last one.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From here on panics of this thread are kept and not printed: one over a dead disk is
/// nothing to report, and one that counts is reported with its seed. Those of all other threads are printed
/// as ever.
fn quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let said = info.to_string().replace('\n', " ");
            match LAST_PANIC.with_borrow_mut(|last| last.as_mut().map(|last| *last = said)) {
                Some(()) => {}
                None => loud(info),
            }
        }));
    });
    LAST_PANIC.set(Some(String::new()));
}
