//! The process that is killed: it writes and reports on its standard output what was acknowledged.

use super::read::fill_store;
use super::{Args as BenchArgs, Plan, Workload};
use crate::{Failure, Outcome};
use raftwood::{Durability, Engine, EntryId, RegionId};
use std::io::Write;
use std::path::PathBuf;

/// Arguments of the hidden command.
#[derive(clap::Args)]
#[group(id = "child")]
pub(crate) struct Args {
    /// What to do.
    #[arg(long, value_enum)]
    job: Job,
    /// The store.
    #[arg(long)]
    store: PathBuf,
    #[command(flatten)]
    bench: BenchArgs,
}

/// What the child does until it is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Job {
    /// Fill the store, say so, and go on writing.
    Fill,
    /// Write batches and stream their acknowledgements.
    Stream,
}

/// Runs until killed.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let workload = if args.job == Job::Fill { Workload::Reopen } else { Workload::Kill };
    let plan = Plan::new(&args.bench, workload);
    say(&format!("{PID}{}", std::process::id()));
    let engine = plan.options.open(&args.store)?;
    match args.job {
        Job::Fill => {
            fill_store(&engine, &plan, |bytes| say(&format!("filled {bytes}")))?;
            let stats = engine.stats();
            say(&format!("done {} {}", engine.index_bytes(), stats.live_entries));
            // One region that nobody verifies keeps the log moving until the kill.
            loop {
                let mut batch = engine.batch();
                let spare = RegionId(plan.regions + 1);
                let next = EntryId::new(1, engine.region(spare).last_index() + 1);
                batch.region(spare).append_with(next, |out| out.extend_from_slice(&[1; 700]))?;
                engine.write(batch, Durability::Synced)?;
            }
        }
        Job::Stream => stream(&engine, &plan),
    }
}

/// Region `k` of batch `n`: batches alternate between two halves of the regions.
pub(crate) fn region_of(n: u64, k: u64) -> u64 {
    1 + (n % 2) * 32 + k
}

/// Before the number of the process, in its first line.
pub(crate) const PID: &str = "pid ";

/// Entries of a region that are kept.
pub(crate) const KEPT: u64 = 200;

fn stream(engine: &Engine, plan: &Plan) -> Result<Outcome, Failure> {
    let done = |half: u64| engine.region(RegionId(region_of(half, 0))).last_index() / 2;
    let mut n = done(0) + done(1);
    say("open");
    loop {
        let mut batch = engine.batch();
        for k in 0..32 {
            let r = region_of(n, k);
            let mut region = batch.region(RegionId(r));
            let last = (n / 2) * 2;
            for index in [last + 1, last + 2] {
                let (seed, len) = (plan.seed, plan.entry_bytes);
                region.append_with(EntryId::new(1, index), |out| {
                    super::payload::fill(seed, r, index, len, out)
                })?;
            }
            region.set_hard_state(&n.to_le_bytes())?;
            if last + 2 > KEPT {
                region.compact_through(last + 2 - KEPT)?;
            }
        }
        engine.write(batch, Durability::Synced)?;
        n += 1;
        say(&n.to_string());
    }
}

/// One line to the parent. If it is gone there is nobody to write for.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
