//! `raftwood check` and `raftwood repair`: what is wrong with a store, and what can be done about it.

use crate::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood::{CheckReport, Error, ErrorKind, Options, ScrubOptions, TailPolicy};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// The directory of the store.
    dir: PathBuf,
    /// Read at most so many MiB a second; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    rate_mib: u64,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `repair`.
#[derive(clap::Args)]
pub(crate) struct RepairArgs {
    /// The directory of the store. No engine may have it open.
    dir: PathBuf,
    /// Drop a last batch of which nothing proves that it was torn; it may have been acknowledged.
    #[arg(long)]
    assume_torn: bool,
    /// Drop acknowledged batches, of all regions, from the first record on that cannot be read: only for a store that does
    /// not open otherwise, and whose replicas have everything.
    #[arg(long, conflicts_with = "assume_torn")]
    accept_loss: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Something that was found.
#[derive(Serialize)]
struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    message: String,
}

fn findings(errors: &[Error]) -> Vec<Finding> {
    let finding = |e: &Error| Finding {
        region: e.region().map(|r| r.0),
        file: e.path().map(Path::to_path_buf),
        offset: e.offset(),
        message: e.to_string(),
    };
    errors.iter().map(finding).collect()
}

#[derive(Serialize)]
struct Checked {
    clean: bool,
    in_use: bool,
    regions: u64,
    segments: u64,
    records: u64,
    entries: u64,
    bytes: u64,
    torn_bytes: u64,
    refusals: Vec<Finding>,
    damage: Vec<Finding>,
    suspects: Vec<Finding>,
    rot: Vec<Finding>,
    foreign: Vec<String>,
}

/// Runs `check`.
pub(crate) fn check(args: &CheckArgs) -> Result<Outcome, Failure> {
    let report = examine(&args.dir, args.rate_mib << 20, args.json)?;
    let shown = Checked {
        clean: report.is_clean(),
        in_use: report.in_use,
        regions: report.regions,
        segments: report.segments,
        records: report.records,
        entries: report.entries,
        bytes: report.bytes,
        torn_bytes: report.torn_bytes,
        refusals: findings(&report.refusals),
        damage: findings(&report.damage),
        suspects: findings(&report.suspects),
        rot: findings(&report.rot),
        foreign: report.foreign.clone(),
    };
    match args.json {
        true => println!("{}", serde_json::to_string(&shown)?),
        false => print(&args.dir, &shown),
    }
    Ok(if report.is_clean() { Outcome::Fine } else { Outcome::FoundWrong })
}

fn examine(dir: &Path, rate_bytes: u64, quiet: bool) -> Result<CheckReport, Failure> {
    // Without a terminal it draws nothing.
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    bar.set_style(ProgressStyle::with_template(
        "checking {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )?);
    let report = Options::new().check(dir, &ScrubOptions::default().rate_bytes(rate_bytes), |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn print(dir: &Path, c: &Checked) {
    println!(
        "{}: {} regions, {} segments; {} records and {} entries ({:.1} MiB) verified",
        dir.display(),
        c.regions,
        c.segments,
        c.records,
        c.entries,
        c.bytes as f64 / f64::from(1 << 20)
    );
    if c.in_use {
        println!("an engine has it open: the end of its log was not judged");
    }
    if c.torn_bytes > 0 {
        println!(
            "{} bytes behind the last whole batch were never acknowledged; the next open drops them",
            c.torn_bytes
        );
    }
    let parts = [
        ("it does not open", &c.refusals),
        ("damaged", &c.damage),
        ("suspect", &c.suspects),
        ("rot that costs nothing (`raftwood repair` makes it good)", &c.rot),
    ];
    for (title, found) in parts.into_iter().filter(|p| !p.1.is_empty()) {
        println!("\n{title}: {}", found.len());
        list(found);
    }
    for name in &c.foreign {
        println!("not of this store, and left alone: {name}");
    }
    if c.clean {
        println!("clean");
    }
}

fn list(found: &[Finding]) {
    for f in found.iter().take(SHOWN_MAX) {
        println!("  {}", f.message);
    }
    if found.len() > SHOWN_MAX {
        println!("  and {} more; --json lists all", found.len() - SHOWN_MAX);
    }
}

const SHOWN_MAX: usize = 50;

#[derive(Serialize)]
struct Repaired {
    regions: u64,
    entries: u64,
    mended_records: u64,
    rebuilt_footers: u64,
    moved_segments: u64,
    torn_bytes: u64,
    assumed_torn: bool,
    accepted_loss: bool,
    hard_states_lost: u64,
    made_good: Vec<Finding>,
    lost_or_damaged: Vec<Finding>,
    suspects: Vec<Finding>,
}

/// Runs `repair`: opens the store, which recovers what can be recovered, scrubs it, and closes it.
pub(crate) fn repair(args: &RepairArgs) -> Result<Outcome, Failure> {
    let policy = match (args.assume_torn, args.accept_loss) {
        (true, _) => TailPolicy::AssumeTorn,
        (_, true) => TailPolicy::AcceptLoss,
        _ => TailPolicy::Prove,
    };
    // A directory without a store must not become one.
    let options = Options::new().tail_policy(policy);
    if let Err(e) = options.open_read_only(&args.dir)
        && e.kind() != ErrorKind::Damaged
    {
        return Err(e.into());
    }
    let engine = match options.open(&args.dir) {
        Ok(engine) => engine,
        Err(e) if e.kind() == ErrorKind::Damaged => {
            eprintln!("raftwood: {e}");
            return Ok(Outcome::FoundWrong);
        }
        Err(e) => return Err(e.into()),
    };
    let scrubbed = engine.scrub(&ScrubOptions::default().rate_bytes(0).from_device(true))?;
    let opened = engine.open_report();
    let mut lost: Vec<Error> = opened.damage.clone();
    lost.extend(scrubbed.damage);
    let shown = Repaired {
        regions: opened.regions,
        entries: scrubbed.entries,
        mended_records: opened.mended_records,
        rebuilt_footers: scrubbed.footers_rebuilt + opened.scanned_segments,
        moved_segments: scrubbed.segments_moved,
        torn_bytes: opened.torn_bytes,
        assumed_torn: opened.assumed_torn,
        accepted_loss: opened.accepted_loss,
        hard_states_lost: opened.hard_states_lost,
        made_good: findings(&scrubbed.rot),
        lost_or_damaged: findings(&lost),
        suspects: findings(&opened.suspects),
    };
    engine.close()?;
    let whole = lost.is_empty() && shown.suspects.is_empty();
    match args.json {
        true => println!("{}", serde_json::to_string(&shown)?),
        false => print_repaired(&args.dir, &shown, whole),
    }
    Ok(if whole { Outcome::Fine } else { Outcome::FoundWrong })
}

fn print_repaired(dir: &Path, r: &Repaired, whole: bool) {
    println!("{}: {} regions, {} entries verified", dir.display(), r.regions, r.entries);
    println!(
        "mended {} records, built {} footers, emptied {} segments, dropped {} bytes of torn batches",
        r.mended_records, r.rebuilt_footers, r.moved_segments, r.torn_bytes
    );
    let parts = [
        ("made good", &r.made_good),
        ("lost or damaged; replicas may have it: Region::repair, or an append over it", &r.lost_or_damaged),
        ("suspect", &r.suspects),
    ];
    for (title, found) in parts.into_iter().filter(|p| !p.1.is_empty()) {
        println!("\n{title}: {}", found.len());
        list(found);
    }
    if r.hard_states_lost > 0 {
        println!(
            "\n{} regions do not know their hard state any more and must not vote: let them join anew",
            r.hard_states_lost
        );
    }
    println!("{}", if whole { "whole" } else { "not whole" });
}
