//! Raftwood beside other engines in the same run.
//!
//! ```text
//!  main ─▶ driver ─▶ child ─▶ engines      a process for each run
//!             │        └─▶ load            what is written, and what must be there
//!             ▼
//!          results ─▶ tables, plots        docs/benchmarks
//!
//!  main ─▶ tail ─▶ trace                   raftwood's latency over time, with names
//!
//!  main ─▶ consensus                       openraft over raftwood, raft-log and memory
//! ```
//!
//! Exit codes: 0 all is well, 1 an engine lost what it had acknowledged, 2 it could not run.

mod child;
#[cfg(feature = "openraft")]
mod consensus;
mod driver;
mod engines;
mod environment;
mod load;
mod log;
mod measure;
mod plan;
mod plots;
mod results;
mod scratch;
mod tables;
mod tail;
mod trace;

use clap::{Parser, Subcommand};
use driver::Bounds;
use environment::{Environment, version};
use load::Load;
use log::Result;
use plan::{Group, Sizes};
use results::{EngineInfo, Measured, Results};
use scratch::Scratch;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Raftwood beside other engines: throughput, latency, processor time, bytes, and what is left after a kill.
#[derive(Parser)]
#[command(name = "raftwood-peers", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure all engines at all work, in interleaved rounds, and write tables, plots and results.json.
    Report(ReportArgs),
    /// Write tables and plots again, from results.json.
    Draw {
        /// Where results.json is, and the report goes.
        #[arg(long, default_value = OUT)]
        out: PathBuf,
    },
    /// Raftwood's latency over time: each wait above a bound, with the events and operations of the
    /// disk that overlap it.
    Tail(TailArgs),
    /// openraft 0.10, one group on one node, over raftwood, raft-log and a log in memory.
    #[cfg(feature = "openraft")]
    Openraft(OpenraftArgs),
    /// A process that measures one run.
    #[command(hide = true)]
    Child { job: String },
}

/// The report of the repository.
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks");

#[derive(clap::Args)]
struct ReportArgs {
    /// A few seconds a row: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// How long each run is measured [default: 60; quick: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// How long a steady run writes before it is measured [default: 120; quick: 3]
    #[arg(long)]
    warm_up: Option<f64>,
    /// Medians are of so many [default: 3; quick: 1]
    #[arg(long)]
    rounds: Option<u32>,
    /// Batches a second of the growing and steady rows; latencies count from when each should have begun
    /// [default: as many as there can be]
    #[arg(long)]
    rate: Option<f64>,
    /// Only these engines [default: all that were built in]
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Only these tables [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    groups: Vec<Group>,
    /// No store is killed and looked at after it was measured.
    #[arg(long)]
    no_kill: bool,
    /// A run ends when it has written so many MiB of payload [default: 8192; quick: 1024]
    #[arg(long)]
    mib_max: Option<u64>,
    /// A run is ended when its directory has so many MiB.
    #[arg(long, default_value_t = 12 << 10)]
    disk_mib_max: u64,
    /// Where stores are made and removed: on the disk that is to be measured [default: the current directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where the report goes.
    #[arg(long, default_value = OUT)]
    out: PathBuf,
}

#[derive(clap::Args)]
struct TailArgs {
    #[arg(long, default_value_t = 16)]
    writers: usize,
    /// The raftstore loop instead, with two writers.
    #[arg(long, conflicts_with = "writers")]
    raftstore: bool,
    /// Batches a second of all writers together; latencies count from when each should have begun
    /// [default: as many as there can be]
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Waits that are longer get their names, in ms.
    #[arg(long, default_value_t = 5.0)]
    bound_ms: f64,
    /// Where the store is made and removed [default: the current directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Draw it into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// All of it as JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "openraft")]
#[derive(clap::Args)]
struct OpenraftArgs {
    /// How long each run writes.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Medians are of so many.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where stores are made and removed: on the disk that is to be measured [default: the current directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// All of it as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Report(args) => report(&args),
        Command::Draw { out } => Results::load(&out.join(RESULTS)).and_then(|results| draw(&results, &out)),
        Command::Tail(args) => tail_alone(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "openraft")]
        Command::Openraft(args) => openraft(&args),
        Command::Child { job } => child::run(&job).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|e| {
        eprintln!("raftwood-peers: {e}");
        ExitCode::from(2)
    })
}

const RESULTS: &str = "results.json";

fn report(args: &ReportArgs) -> Result<ExitCode> {
    let or =
        |given: Option<f64>, usual: f64, quick: f64| given.unwrap_or(if args.quick { quick } else { usual });
    let sizes = Sizes {
        seconds: or(args.seconds, 60.0, 2.0),
        warm_up: or(args.warm_up, 120.0, 3.0),
        bytes_max: args.mib_max.unwrap_or(if args.quick { 1 << 10 } else { 8 << 10 }) << 20,
        rate: args.rate,
        catch_up_bytes: if args.quick { 128 << 20 } else { 1 << 30 },
        regions: if args.quick { vec![1_000, 10_000] } else { vec![1_000, 10_000, 100_000, 1_000_000] },
    };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    let engines = match &args.engines[..] {
        [] => engines::ALL.iter().collect(),
        names => names.iter().map(|name| engines::named(name)).collect::<Result<Vec<_>>>()?,
    };
    let groups = if args.groups.is_empty() { &Group::ALL[..] } else { &args.groups[..] };
    let scratch = Scratch::new(args.dir.as_deref().unwrap_or(Path::new(".")))?;
    let bounds =
        Bounds { grace: Duration::from_secs(60), disk_max: args.disk_mib_max << 20, verify: !args.no_kill };
    let environment = Environment::here(scratch.path())?;
    let rows = driver::rounds(&engines, &plan::works(groups, &sizes), rounds, bounds, &scratch)?;
    let ask = tail::Ask {
        load: Load::batches(16, true),
        seconds: (sizes.seconds / 2.0).clamp(5.0, 30.0),
        bound: Duration::from_millis(5),
    };
    let tail = Some(tail::measure(&ask, &scratch)?);
    let info = |engine: &&engines::Engine| EngineInfo {
        name: engine.name.to_owned(),
        version: version(engine.package),
        settings: engine.settings.to_owned(),
    };
    let measured = Measured {
        arguments: std::env::args().skip(1).collect(),
        seconds: sizes.seconds,
        warm_up: sizes.warm_up,
        rounds,
        engines: engines.iter().map(info).collect(),
        left_out: engines::left_out().into_iter().map(str::to_owned).collect(),
    };
    let results = Results { environment, measured, rows, tail };
    std::fs::create_dir_all(&args.out)?;
    results.save(&args.out.join(RESULTS))?;
    draw(&results, &args.out)
}

/// Writes the report, and says whether anything was lost.
fn draw(results: &Results, out: &Path) -> Result<ExitCode> {
    let plots = plots::draw(results, out)?;
    let page = tables::page(results, &plots);
    std::fs::write(out.join("README.md"), &page)?;
    println!("{page}");
    let lost = results.lost();
    for row in &lost {
        eprintln!("{} lost what it had acknowledged: {}, {}", row.engine, row.group, row.work);
    }
    Ok(if lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn tail_alone(args: &TailArgs) -> Result<()> {
    let load = if args.raftstore { Load::raftstore() } else { Load::batches(args.writers.max(1), true) };
    let ask = tail::Ask {
        load: Load { rate: args.rate, ..load },
        seconds: args.seconds,
        bound: Duration::try_from_secs_f64(args.bound_ms / 1000.0)?,
    };
    let scratch = Scratch::new(args.dir.as_deref().unwrap_or(Path::new(".")))?;
    let tail = tail::measure(&ask, &scratch)?;
    if let Some(svg) = &args.svg {
        plots::over_time(svg, &tail)?;
    }
    match args.json {
        true => println!("{}", serde_json::to_string(&tail)?),
        false => print!("{}", tail::text(&tail)),
    }
    Ok(())
}

#[cfg(feature = "openraft")]
fn openraft(args: &OpenraftArgs) -> Result<ExitCode> {
    let scratch = Scratch::new(args.dir.as_deref().unwrap_or(Path::new(".")))?;
    let measured = consensus::measure(args.seconds, args.rounds, &scratch)?;
    match args.json {
        true => println!("{}", serde_json::to_string(&measured)?),
        false => print!("{}", consensus::text(&measured)),
    }
    Ok(ExitCode::from(u8::from(measured.lost() > 0)))
}
