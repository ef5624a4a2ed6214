//! `raftwood bench`: workloads on a real disk, measured from the outside and verified after a reopen.

pub(crate) mod child;
mod kill;
mod limit;
mod live;
mod payload;
mod read;
mod reopen;
pub(crate) mod report;
mod run;
mod scratch;
mod strace;
mod writers;

use crate::out::{remark, warn_of};
use crate::{Failure, Outcome};
use clap::ValueEnum;
pub(crate) use kill::Kills;
use raftwood::{Compression, Durability, Options};
use report::{Report, Row};
use scratch::{Scratch, remove_dir};
use std::path::{Path, PathBuf};
use strace::Strace;

impl Default for Args {
    fn default() -> Self {
        Args {
            workloads: Vec::new(),
            threads: None,
            regions: None,
            entry_bytes: None,
            batch_entries: None,
            durability: DurabilityArg::Synced,
            seconds: 15.0,
            warm_up: 0.0,
            bytes: 256 << 20,
            dir: None,
            seed: 1,
            repeat: None,
            segment_bytes: None,
            compress_from: None,
            no_verify: false,
            keep: false,
            json: false,
        }
    }
}

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Workload {
    /// One region a batch, --batch-entries entries of --entry-bytes. With one thread it is
    /// measured in turns with `limit`.
    Append,
    /// Each write is 32 regions x 2 entries x 512 bytes and a hard state.
    Raftstore,
    /// 1,000 regions, the last 100 entries kept, a tenth of the regions cold, purge running.
    Steady,
    /// Random single entries, ranges of 64, and terms.
    Read,
    /// Fill, kill -9, reopen.
    Reopen,
    /// The machine's floor: one pwrite and fdatasync of the same size into a pre-written file.
    Limit,
    /// kill -9 at random moments, reopen, verify, --repeat times on the same store (default 50).
    Kill,
}

/// How a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum DurabilityArg {
    Synced,
    Written,
}

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Which workloads, in order. Default: append by a lone writer against the floor, then raftstore.
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// Writing threads [default: 1 for append, else 2]
    #[arg(long, value_parser = at_least_one::<usize>)]
    threads: Option<usize>,
    /// Regions [default: one a thread for append, 100 for read, else 1000]
    #[arg(long, value_parser = at_least_one::<u64>)]
    regions: Option<u64>,
    /// Payload bytes of an entry [default: 1024 for append, read, reopen and limit; else 512]
    #[arg(long)]
    entry_bytes: Option<usize>,
    /// Entries a region and batch [default: 1 for append and limit, 4 for read and reopen, else 2]
    #[arg(long, value_parser = at_least_one::<u64>)]
    batch_entries: Option<u64>,
    #[arg(long, value_enum, default_value = "synced")]
    durability: DurabilityArg,
    /// How long each workload writes or reads.
    #[arg(long, default_value_t = 15.0, value_parser = seconds)]
    seconds: f64,
    /// How long append, raftstore and steady write before they are measured, so that a young store's new
    /// files are not what is measured.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = seconds)]
    warm_up: f64,
    /// Payload bytes that read and reopen fill in first, with K, M or G.
    #[arg(long, default_value = "256M", value_parser = some_bytes)]
    bytes: u64,
    /// Where; a directory of its own is made there and removed afterwards [default: the current directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Repetitions; the medians are reported. For kill: the number of kills [default: 1; kill: 50]
    #[arg(long, value_parser = at_least_one::<u32>)]
    repeat: Option<u32>,
    /// Segment size, with K, M or G [default: the engine's]
    #[arg(long, value_parser = parse_bytes)]
    segment_bytes: Option<u64>,
    /// Compress batches of at least this many payload bytes with LZ4.
    #[arg(long, value_parser = parse_bytes)]
    compress_from: Option<u64>,
    /// Skip reading everything back after the reopen.
    #[arg(long)]
    no_verify: bool,
    /// Leave the stores where they are, for a look into them: the directories are named at the end. That of a
    /// run that fails, or finds something wrong, is left in any case.
    #[arg(long)]
    keep: bool,
    /// One JSON object for each run, on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number, and not 0: to do nothing is not what anybody asks for.
fn at_least_one<N: std::str::FromStr + Default + PartialEq>(text: &str) -> Result<N, String> {
    let number: N = text.parse().map_err(|_| format!("'{text}' is no number of that size"))?;
    if number == N::default() { Err("it must be at least 1".to_string()) } else { Ok(number) }
}

/// A time: neither endless nor no number.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=86_400.0).contains(s));
    seconds.ok_or_else(|| "seconds, from 0 to 86400".to_string())
}

/// As [`parse_bytes`], and not 0.
fn some_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 { Err("it must be at least 1".to_string()) } else { Ok(bytes) }
}

/// `64K`, `256M`, `4G` or plain bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let scale: u64 = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(format!("'{unit}' is no unit of bytes; use K, M or G")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is no number of bytes"))?;
    number.checked_mul(scale).ok_or_else(|| format!("'{text}' is too much"))
}

/// The settings of one workload, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) threads: usize,
    pub(crate) regions: u64,
    pub(crate) entry_bytes: usize,
    pub(crate) batch_entries: u64,
    pub(crate) durability: Durability,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) bytes: u64,
    pub(crate) seed: u64,
    pub(crate) repeat: Option<u32>,
    pub(crate) verify: bool,
    pub(crate) options: Options,
    pub(crate) segment_bytes: u64,
    pub(crate) json: bool,
}

impl Plan {
    fn new(args: &Args, workload: Workload) -> Plan {
        use Workload::*;
        let threads = args.threads.unwrap_or(if matches!(workload, Append | Limit | Kill) { 1 } else { 2 });
        let regions = match workload {
            Append | Limit => threads as u64,
            Read => 100,
            Kill => 64,
            _ => 1000,
        };
        let entry_bytes = if matches!(workload, Append | Read | Reopen | Limit) { 1024 } else { 512 };
        let batch_entries = match workload {
            Append | Limit => 1,
            Read | Reopen => 4,
            _ => 2,
        };
        let segment_bytes = args.segment_bytes.unwrap_or(64 << 20);
        let mut options = Options::new().segment_bytes(segment_bytes);
        if let Some(from) = args.compress_from {
            options = options.compression(Compression::Lz4 { min_batch_bytes: from as usize });
        }
        Plan {
            workload,
            threads,
            regions: args.regions.unwrap_or(regions).max(threads as u64),
            entry_bytes: args.entry_bytes.unwrap_or(entry_bytes),
            batch_entries: args.batch_entries.unwrap_or(batch_entries),
            durability: match args.durability {
                DurabilityArg::Synced => Durability::Synced,
                DurabilityArg::Written => Durability::Written,
            },
            seconds: args.seconds.max(0.05),
            warm_up: args.warm_up.max(0.0),
            bytes: args.bytes,
            seed: args.seed,
            repeat: args.repeat,
            verify: !args.no_verify,
            options,
            segment_bytes,
            json: args.json,
        }
    }
}

/// Runs `bench`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mut scratch = Scratch::new(args.dir.as_deref())?;
    let mut report = Report::new(args.json);
    report.environment(scratch.dir(), args.segment_bytes.unwrap_or(64 << 20))?;
    let chosen = match args.workloads.is_empty() {
        true => vec![Workload::Append, Workload::Raftstore],
        false => args.workloads.clone(),
    };
    for workload in chosen {
        let plan = Plan::new(args, workload);
        let rounds = if workload == Workload::Kill { 1 } else { plan.repeat.unwrap_or(1) };
        let mut runs: Vec<Vec<Row>> = Vec::new();
        for round in 0..rounds {
            let plan = Plan { seed: plan.seed + u64::from(round), ..plan.clone() };
            // With --keep that of the last round is left.
            let keeps = args.keep && round + 1 == rounds;
            runs.push(in_place(&plan, keeps, &mut scratch, &mut report)?);
        }
        for n in 0..runs.first().map_or(0, Vec::len) {
            let same: Vec<&Row> = runs.iter().filter_map(|r| r.get(n)).collect();
            report.row(&Row::median(&same))?;
        }
    }
    report.summary()?;
    Ok(report.outcome())
}

/// One run, on a store of its own. Of one that fails, or finds something wrong, the store is left.
fn in_place(
    plan: &Plan,
    keeps: bool,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<Vec<Row>, Failure> {
    let name = plan.workload.to_possible_value().map_or("store".to_string(), |v| v.get_name().to_string());
    let (store, violations) = (scratch.place(&name), report.violations());
    let rows = match measure(plan, &store, report) {
        Ok(rows) => rows,
        Err(failure) => return Err(scratch.keep_failed(&store, failure, report)),
    };
    if keeps || report.violations() > violations || is_wrong(&rows) {
        scratch.keep(&store, report);
    } else {
        remove_dir(&store)?;
    }
    Ok(rows)
}

fn is_wrong(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.wrong.is_some_and(|wrong| wrong > 0))
}

/// Kills a writing process so many times on one store, and says how, and whether it lost anything. The
/// segments are small, so that each run sees many of them come and go.
pub(crate) fn kills(
    kills: u32,
    seed: u64,
    dir: Option<&Path>,
    json: bool,
) -> Result<(Kills, Outcome), Failure> {
    let mut scratch = Scratch::new(dir)?;
    let mut report = Report::new(json);
    let args = Args { segment_bytes: Some(1 << 20), json, ..Args::default() };
    let plan = Plan { repeat: Some(kills), seed, ..Plan::new(&args, Workload::Kill) };
    let strace = Strace::find();
    if strace.is_none() {
        let message =
            "no strace that may trace here: all kills are at random moments, none at a chosen system call";
        remark(json, "warning", message);
    }
    let store = scratch.place("store");
    let (rows, done) = kill::measure(&plan, &store, strace.as_ref(), &mut report)
        .map_err(|failure| scratch.keep_failed(&store, failure, &mut report))?;
    if report.outcome() == Outcome::Fine && !is_wrong(&rows) {
        return Ok((done, Outcome::Fine));
    }
    scratch.keep(&store, &mut report);
    if !json {
        warn_of!("{}", report.all_kept());
    }
    Ok((done, Outcome::FoundWrong))
}

fn measure(plan: &Plan, dir: &Path, report: &mut Report) -> Result<Vec<Row>, Failure> {
    match plan.workload {
        Workload::Append if plan.threads == 1 && plan.durability == Durability::Synced => {
            run::against_the_floor(plan, dir, report)
        }
        Workload::Append | Workload::Raftstore | Workload::Steady => run::writes(plan, dir, report),
        Workload::Limit => limit::measure(plan, dir).map(|row| vec![row]),
        Workload::Read => read::measure(plan, dir),
        Workload::Reopen => reopen::measure(plan, dir, report),
        Workload::Kill => kill::measure(plan, dir, None, report).map(|(rows, _)| rows),
    }
}
