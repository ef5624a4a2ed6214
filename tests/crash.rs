//! The CI tier of torture: crashes, every subset of what was pending, crashes inside recovery, errors, and swarms, on a simulated disk.
//!
//! `RAFTWOOD_TORTURE_SCALE` multiplies the counts (default 1; 20 makes about a million crash recoveries), and
//! `RAFTWOOD_TORTURE_SEED` moves all seeds. The counts reached are printed: run with `--nocapture`.

#![cfg(feature = "sim")]

use raftwood::torture::{Counts, Explorer, Setup, Workload};
use raftwood::vfs::sim::Profile;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn scale() -> u64 {
    number("RAFTWOOD_TORTURE_SCALE", 1).max(1)
}

fn seed() -> u64 {
    number("RAFTWOOD_TORTURE_SEED", 1)
}

fn explorer() -> Explorer {
    Explorer { seed: seed(), ..Explorer::default() }
}

/// Without and with prewritten files, compressed, and on a disk like ext4.
fn setups() -> Vec<Setup> {
    let mut out = Vec::new();
    for n in 0..scale() {
        let seed = seed() * 1_000_003 + n * 10;
        out.push(Setup::plain(seed));
        out.push(Setup { prewrite: true, pool_files: 1, ..Setup::plain(seed + 1) });
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
    let counts = explorer().crashes(&Workload::named(), &setups());
    check("crashes", &counts);
    assert!(counts.crash_recoveries >= 50_000 * scale(), "{counts}");
}

#[test]
fn each_pair_of_operations_survives_a_crash_at_every_call() {
    let pairs = Workload::pairs();
    assert_eq!(pairs.len(), 13 * 13);
    let explorer = Explorer { policies_max: 4, full_every: 32, ..explorer() };
    // Each on one kind of disk, neighbours on different ones.
    let mut counts = Counts::default();
    for (n, setup) in setups().iter().enumerate() {
        let own: Vec<Workload> = pairs.iter().skip(n % 4).step_by(4).cloned().collect();
        counts.add(explorer.crashes(&own, std::slice::from_ref(setup)));
        counts.add(
            explorer.crashes(&Workload::triples(seed() + 40 * n as u64, 10), std::slice::from_ref(setup)),
        );
    }
    check("pairs, and some triples", &counts);
    assert!(counts.runs as usize >= pairs.len() && counts.crash_recoveries >= 20_000 * scale(), "{counts}");
}

#[test]
fn every_subset_of_up_to_ten_pending_changes_leaves_a_prefix_that_holds_all_that_was_acknowledged() {
    // The tests run side by side, and share the processor: each of these recoveries is a quick one mostly.
    let explorer = Explorer { full_every: 32, ..explorer() };
    let counts = explorer.subsets(&Workload::named(), &setups(), 1200);
    check("every subset", &counts);
    let taken = |pending: std::ops::RangeInclusive<usize>| counts.exhaustive[pending].iter().sum::<u64>();
    println!("moments taken whole, by pending changes: {:?}", counts.exhaustive);
    assert!(taken(4..=10) >= 300 * scale() && taken(9..=10) >= 10 * scale(), "{counts}");
    assert!(counts.singled >= 50 * scale(), "{counts}");
}

#[test]
fn garbage_in_the_sectors_that_were_being_written_is_dropped_or_in_doubt_and_costs_nothing_acknowledged() {
    let counts = explorer().garbled(&Workload::named(), &setups());
    println!("garbled sectors: {counts}");
    assert!(counts.violations.is_empty(), "{counts}");
    assert!(counts.crash_recoveries >= 20_000 * scale() && counts.doubtful > 0, "{counts}");
}

#[test]
fn a_write_that_the_device_lost_or_put_elsewhere_is_never_answered_with_other_bytes() {
    let counts = explorer().lies(&Workload::named(), &setups(), 100);
    check("lies", &counts);
    assert!(counts.lies >= 4_000 * scale() && counts.lies_noticed * 4 > counts.lies, "{counts}");
}

#[test]
fn a_crash_inside_recovery_starts_over_and_loses_nothing() {
    check("crashes inside recovery", &explorer().nested(&Workload::named(), &setups(), 4));
}

#[test]
fn after_an_error_nothing_is_acknowledged_and_nothing_durable_is_lost() {
    let mut setups = setups();
    setups.truncate(3 * scale() as usize);
    let seed = seed() * 7_000_003;
    setups.push(Setup { profile: Profile::FailedSyncCleansPages, ..Setup::plain(seed) });
    setups.push(Setup { profile: Profile::FailedSyncCleansPages, prewrite: true, ..Setup::plain(seed + 1) });
    let counts = explorer().errors(&Workload::named(), &setups, 400 * scale());
    check("errors", &counts);
    assert!(counts.errors_injected >= 20_000 * scale(), "{counts}");
}

#[test]
fn random_histories_with_crashes_and_errors_match_the_model() {
    let from = seed() * 1_000_000_007;
    let counts = explorer().swarm(from..from + 20_000 * scale());
    check("swarm", &counts);
}
