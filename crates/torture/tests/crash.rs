//! The CI tier of torture: crashes, every subset of what was pending, crashes inside recovery, errors, and
//! swarms, on a simulated disk.
//!
//! The ordinary run is a quarter: each workload on one kind of disk. `RAFTWOOD_TORTURE_SCALE=1` runs each on
//! all; higher ones multiply the counts (20 makes about a million crash recoveries), and
//! `RAFTWOOD_TORTURE_SEED` moves all seeds. The counts reached are printed: run with `--nocapture`. One
//! random history, by the seed that a violation names: `RAFTWOOD_HISTORY=1000010997 cargo test --all-features
//! --test crash -- random_histories`.

use raftwood::vfs::sim::Profile;
use raftwood_torture::{Counts, Explorer, Setup, Workload};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// What the counts are multiplied by; `None` in the ordinary run, which does a quarter of scale 1.
fn asked() -> Option<u64> {
    Some(number("RAFTWOOD_TORTURE_SCALE", 0)).filter(|scale| *scale > 0)
}

fn scale() -> u64 {
    asked().unwrap_or(1)
}

/// So many at scale 1.
fn share(count: u64) -> u64 {
    asked().map_or(count / 4, |scale| count * scale)
}

/// Explores each workload with each setup, or, in the ordinary run, with one: neighbours with different ones.
fn explore(setups: &[Setup], run: impl Fn(&[Workload], &[Setup]) -> Counts) -> Counts {
    let workloads = Workload::named();
    if asked().is_some() {
        return run(&workloads, setups);
    }
    let mut counts = Counts::default();
    for (n, setup) in setups.iter().enumerate() {
        let own: Vec<Workload> = workloads.iter().skip(n).step_by(setups.len()).cloned().collect();
        counts.add(run(&own, std::slice::from_ref(setup)));
    }
    counts
}

fn seed() -> u64 {
    number("RAFTWOOD_TORTURE_SEED", 1)
}

fn explorer() -> Explorer {
    Explorer { seed: seed(), ..Explorer::default() }
}

/// Without and with prewritten files, the latter where calls fall short, compressed, and on a disk like ext4.
fn setups() -> Vec<Setup> {
    let mut out = Vec::new();
    for n in 0..scale() {
        let seed = seed() * 1_000_003 + n * 10;
        out.push(Setup::plain(seed));
        out.push(Setup { prewrite: true, pool_files: 1, short_io: Some(4), ..Setup::plain(seed + 1) });
        out.push(Setup { compression: true, purge: false, pool_files: 3, ..Setup::plain(seed + 2) });
        out.push(Setup { profile: Profile::Ext4Ordered, in_flight: 1, ..Setup::plain(seed + 3) });
    }
    out
}

fn check(name: &str, counts: &Counts) {
    println!("{name}: {counts}");
    assert!(counts.violations.is_empty(), "{name}: {counts}");
    // A lost sector may look like rot by chance, and hardly ever does.
    assert!(
        counts.doubtful * 10_000 <= counts.crash_recoveries,
        "{name}: too many tears taken for rot: {counts}"
    );
}

#[test]
fn every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged() {
    let counts = explore(&setups(), |workloads, setups| explorer().crashes(workloads, setups));
    check("crashes", &counts);
    assert!(counts.crash_recoveries >= share(40_000), "{counts}");
}

#[test]
fn each_pair_of_operations_survives_a_crash_at_every_call() {
    let pairs = Workload::pairs();
    assert_eq!(pairs.len(), 13 * 13);
    let explorer = Explorer { policies_max: 4, full_every: 32, ..explorer() };
    // The ordinary run takes every third pair.
    let apart = if asked().is_some() { 1 } else { 3 };
    // Each on one kind of disk, neighbours on different ones.
    let mut counts = Counts::default();
    for (n, setup) in setups().iter().enumerate() {
        let own: Vec<Workload> = pairs.iter().skip(n % 4).step_by(4 * apart).cloned().collect();
        counts.add(explorer.crashes(&own, std::slice::from_ref(setup)));
        counts.add(
            explorer
                .crashes(&Workload::triples(seed() + 40 * n as u64, 10 / apart), std::slice::from_ref(setup)),
        );
    }
    check("pairs, and some triples", &counts);
    assert!(
        counts.runs as usize >= pairs.len() / apart && counts.crash_recoveries >= share(20_000),
        "{counts}"
    );
}

#[test]
fn every_subset_of_up_to_ten_pending_changes_leaves_a_prefix_that_holds_all_that_was_acknowledged() {
    // The tests run side by side, and share the processor: each of these recoveries is a quick one mostly.
    let explorer = Explorer { full_every: 32, ..explorer() };
    let counts = explore(&setups(), |workloads, setups| explorer.subsets(workloads, setups, 1200));
    check("every subset", &counts);
    let taken = |pending: std::ops::RangeInclusive<usize>| counts.exhaustive[pending].iter().sum::<u64>();
    println!("moments taken whole, by pending changes: {:?}", counts.exhaustive);
    assert!(taken(4..=10) >= share(300) && taken(9..=10) >= share(10), "{counts}");
    assert!(counts.singled >= share(40), "{counts}");
}

#[test]
fn garbage_in_the_sectors_that_were_being_written_is_dropped_or_in_doubt_and_affects_nothing_acknowledged() {
    let counts = explore(&setups(), |workloads, setups| explorer().garbled(workloads, setups));
    println!("garbled sectors: {counts}");
    assert!(counts.violations.is_empty(), "{counts}");
    assert!(counts.crash_recoveries >= share(20_000) && counts.doubtful > 0, "{counts}");
}

#[test]
fn a_write_that_the_device_lost_or_put_elsewhere_is_never_answered_with_other_bytes() {
    let counts = explore(&setups(), |workloads, setups| explorer().lies(workloads, setups, 100));
    check("lies", &counts);
    // A mark that is lost affects nothing, and nobody notices.
    assert!(counts.lies >= share(4_000) && counts.lies_noticed * 6 > counts.lies, "{counts}");
}

#[test]
fn a_crash_inside_recovery_starts_over_and_loses_nothing() {
    let roots = if asked().is_some() { 4 } else { 1 };
    let counts = explore(&setups(), |workloads, setups| explorer().nested(workloads, setups, roots));
    check("crashes inside recovery", &counts);
}

#[test]
fn after_an_error_nothing_is_acknowledged_and_nothing_durable_is_lost() {
    let mut setups = setups();
    setups.truncate(3 * scale() as usize);
    let seed = seed() * 7_000_003;
    setups.push(Setup { profile: Profile::FailedSyncCleansPages, ..Setup::plain(seed) });
    setups.push(Setup { profile: Profile::FailedSyncCleansPages, prewrite: true, ..Setup::plain(seed + 1) });
    let counts = explore(&setups, |workloads, setups| explorer().errors(workloads, setups, 400 * scale()));
    check("errors", &counts);
    assert!(counts.errors_injected >= share(16_000), "{counts}");
}

#[test]
fn random_histories_with_crashes_and_errors_match_the_model() {
    let (from, count) = match number("RAFTWOOD_HISTORY", 0) {
        0 => (seed() * 1_000_000_007, share(20_000)),
        one => (one, 1),
    };
    let counts = explorer().swarm(from..from + count);
    check("swarm", &counts);
}
