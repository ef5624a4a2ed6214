//! `raftwood torture`: crashes, errors and kills, by number, and what was survived.

use crate::bench;
use crate::out::{count, remark, say, say_json};
use crate::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood::vfs::sim::Profile;
use raftwood_torture::{Counts, Explorer, Setup, Workload};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Histories of the swarm in one round.
const SEEDS_A_ROUND: u64 = 500;

/// Orders of three operations in one round.
const TRIPLES_A_ROUND: usize = Workload::TRIPLES.div_ceil(17);

/// Arguments of `torture`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Crash recoveries on the simulated disk, at least.
    #[arg(long, default_value_t = 100_000)]
    sim: u64,
    /// kill -9 of a real writing process.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// All chance comes from it: the same seed does the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the killed process keeps its store [default: the current directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What was survived. The names of the fields are the JSON.
#[derive(Serialize)]
struct Survived {
    seed: u64,
    rounds: u64,
    crash_recoveries: u64,
    recoveries_inside_recovery: u64,
    errors_injected: u64,
    /// Writes that the device lost or put elsewhere while it said that all was well.
    lies: u64,
    random_histories: u64,
    doubtful: u64,
    kills: u32,
    /// Of these, at a chosen system call, by its name; the others were at random moments.
    kills_at_calls: BTreeMap<&'static str, u32>,
    violations: usize,
    seconds: f64,
}

/// Runs `torture`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let mut total = Counts::default();
    let (mut rounds, mut nested) = (0, 0);
    let progress = if args.json { ProgressBar::hidden() } else { ProgressBar::new(args.sim) };
    if let Ok(style) =
        ProgressStyle::with_template("simulated {wide_bar} {pos} of {len} recoveries, {elapsed}")
    {
        progress.set_style(style);
    }
    while total.crash_recoveries < args.sim && total.violations.is_empty() {
        nested += round(args.seed.wrapping_add(rounds), &mut total, &progress);
        rounds += 1;
    }
    progress.finish_and_clear();
    for violation in &total.violations {
        remark(args.json, "violation", &violation.to_string());
    }
    let (kills, killed) = match args.kills {
        0 => (bench::Kills::default(), Outcome::Fine),
        kills => bench::kills(kills, args.seed, args.dir.as_deref(), args.json)?,
    };

    let survived = Survived {
        seed: args.seed,
        rounds,
        crash_recoveries: total.crash_recoveries,
        recoveries_inside_recovery: nested,
        errors_injected: total.errors_injected,
        lies: total.lies,
        random_histories: total.seeds,
        doubtful: total.doubtful,
        kills: kills.at_random + kills.all_at_calls(),
        kills_at_calls: kills.at_calls,
        violations: total.violations.len() + usize::from(killed == Outcome::FoundWrong),
        seconds: began.elapsed().as_secs_f64(),
    };
    match args.json {
        true => say_json(&survived)?,
        false => print(&survived)?,
    }
    Ok(if survived.violations == 0 { Outcome::Fine } else { Outcome::FoundWrong })
}

/// One round of every explorer, on one kind of disk; returns how many of the recoveries were
/// inside a recovery.
fn round(seed: u64, total: &mut Counts, progress: &ProgressBar) -> u64 {
    let explorer = Explorer { seed, ..Explorer::default() };
    let workloads = Workload::named();
    let base = seed.wrapping_mul(1_000_003);
    let plain = [
        Setup::plain(base),
        Setup { prewrite: true, pool_files: 1, ..Setup::plain(base.wrapping_add(1)) },
        Setup { compression: true, purge: false, pool_files: 3, ..Setup::plain(base.wrapping_add(2)) },
        Setup { profile: Profile::Ext4Ordered, in_flight: 1, ..Setup::plain(base.wrapping_add(3)) },
    ];
    let failing = Setup { profile: Profile::FailedSyncCleansPages, ..Setup::plain(base.wrapping_add(4)) };
    let setup = std::slice::from_ref(&plain[seed as usize % plain.len()]);
    let mut add = |counts: Counts| {
        let recoveries = counts.crash_recoveries;
        total.add(counts);
        progress.set_position(total.crash_recoveries);
        recoveries
    };
    add(explorer.crashes(&workloads, setup));
    // Seventeen rounds in a row have had each triple.
    let triples = Workload::triples(seed.wrapping_mul(TRIPLES_A_ROUND as u64), TRIPLES_A_ROUND);
    add(Explorer { policies_max: 4, ..explorer.clone() }.crashes(&triples, setup));
    let nested = add(explorer.nested(&workloads, setup, 2));
    add(explorer.errors(&workloads, &[setup[0].clone(), failing], 50));
    add(explorer.lies(&workloads, setup, 100));
    let from = seed.wrapping_mul(1_000_000_007);
    add(explorer.swarm(from..from.saturating_add(SEEDS_A_ROUND)));
    nested
}

fn print(s: &Survived) -> Result<(), Failure> {
    say!("seed {}, {}, {:.0} s", s.seed, count(s.rounds, "round"), s.seconds)?;
    let row = |what: &str, n: u64| say!("{what:<32} {n:>12}");
    row("crash recoveries", s.crash_recoveries)?;
    row("  of these inside a recovery", s.recoveries_inside_recovery)?;
    row("errors injected", s.errors_injected)?;
    row("writes lost or misdirected", s.lies)?;
    row("random histories", s.random_histories)?;
    row("kills of a real process", u64::from(s.kills))?;
    for (call, n) in &s.kills_at_calls {
        row(&format!("  of these as {call} began"), u64::from(*n))?;
    }
    row("false alarms of damage", s.doubtful)?;
    row("violations", s.violations as u64)
}
