//! `raftwood check` and `raftwood repair`: what is wrong with a store, and what can be done about it.

use crate::like::options_like;
use crate::out::{complain, count, say, say_json, size, with_causes};
use crate::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood::{
    CheckReport, Engine, Error, ErrorKind, Health, Loss, Options, ReadLimit, Reader, RegionId, ScrubOptions,
    TailPolicy,
};
use serde::Serialize;
use std::collections::BTreeSet;
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
    pub(crate) json: bool,
}

/// Arguments of `repair`.
#[derive(clap::Args)]
pub(crate) struct RepairArgs {
    /// The directory of the store. No engine may have it open.
    dir: PathBuf,
    /// Do it. Without this nothing is changed, and it is said what would be found and dropped.
    #[arg(long)]
    apply: bool,
    /// Drop a last batch of which nothing proves that it was torn; it may have been acknowledged.
    #[arg(long)]
    assume_torn: bool,
    /// Drop acknowledged batches, of all regions, from the first record on that cannot be read: only for a
    /// store that does not open otherwise, and whose replicas have everything.
    #[arg(long, conflicts_with = "assume_torn")]
    accept_loss: bool,
    /// Put back entries that are damaged here from the store of a replica, or from a copy: only those whose
    /// term, length and checksum are the ones recorded here, and nothing else. That store is not changed, and
    /// an engine may have it open.
    #[arg(long, value_name = "DIR")]
    from_replica: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Something that was found.
#[derive(Serialize)]
struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Entries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    message: String,
}

/// Indexes, both ends included.
#[derive(Serialize)]
struct Entries {
    first: u64,
    last: u64,
}

fn findings(errors: &[Error]) -> Vec<Finding> {
    let finding = |e: &Error| Finding {
        region: e.region().map(|r| r.0),
        entries: e.entries().map(|r| Entries { first: *r.start(), last: *r.end() }),
        file: e.path().map(Path::to_path_buf),
        offset: e.offset(),
        message: with_causes(e),
    };
    errors.iter().map(finding).collect()
}

/// What is dropped with the end of the log; it may have been acknowledged.
#[derive(Serialize)]
struct Lost {
    batches: u64,
    unreadable_batches: u64,
    entries: u64,
    regions: u64,
    hard_states: u64,
    bytes: u64,
}

impl From<Loss> for Lost {
    fn from(l: Loss) -> Lost {
        Lost {
            batches: l.batches,
            unreadable_batches: l.unreadable_batches,
            entries: l.entries,
            regions: l.regions,
            hard_states: l.hard_states,
            bytes: l.bytes,
        }
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    would_be_lost: Option<Lost>,
    refusals: Vec<Finding>,
    damage: Vec<Finding>,
    suspects: Vec<Finding>,
    rot: Vec<Finding>,
    foreign: Vec<String>,
}

impl From<CheckReport> for Checked {
    fn from(report: CheckReport) -> Checked {
        Checked {
            clean: report.is_clean(),
            in_use: report.in_use,
            regions: report.regions,
            segments: report.segments,
            records: report.records,
            entries: report.entries,
            bytes: report.bytes,
            torn_bytes: report.torn_bytes,
            would_be_lost: report.loss.map(Lost::from),
            refusals: findings(&report.refusals),
            damage: findings(&report.damage),
            suspects: findings(&report.suspects),
            rot: findings(&report.rot),
            foreign: report.foreign,
        }
    }
}

/// Runs `check`.
pub(crate) fn check(args: &CheckArgs) -> Result<Outcome, Failure> {
    let checked = Checked::from(examine(&Options::new(), &args.dir, args.rate_mib << 20, args.json)?);
    match args.json {
        true => say_json(&checked)?,
        false => print(&args.dir, &checked)?,
    }
    Ok(if checked.clean { Outcome::Fine } else { Outcome::FoundWrong })
}

fn examine(options: &Options, dir: &Path, rate_bytes: u64, quiet: bool) -> Result<CheckReport, Failure> {
    // Without a terminal it draws nothing.
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    bar.set_style(ProgressStyle::with_template(
        "checking {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )?);
    let report = options.check(dir, &ScrubOptions::default().rate_bytes(rate_bytes), |p| {
        bar.set_length(p.total_bytes);
        bar.set_position(p.done_bytes);
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn print(dir: &Path, c: &Checked) -> Result<(), Failure> {
    say!(
        "{}: {}, {}; {} and {} ({}) verified",
        dir.display(),
        count(c.regions, "region"),
        count(c.segments, "segment"),
        count(c.records, "record"),
        count(c.entries, "entry"),
        size(c.bytes)
    )?;
    if c.in_use {
        say!("an engine has it open: the end of its log was not judged")?;
    }
    if c.torn_bytes > 0 {
        say!(
            "{} past the last complete batch were never acknowledged; the next open drops them",
            count(c.torn_bytes, "byte")
        )?;
    }
    let parts = [
        ("it does not open", &c.refusals),
        ("damaged", &c.damage),
        ("suspect", &c.suspects),
        ("rot that affects no entry (`raftwood repair --apply` repairs it)", &c.rot),
    ];
    for (title, found) in parts.into_iter().filter(|p| !p.1.is_empty()) {
        say!("\n{title}: {}", found.len())?;
        list(found)?;
    }
    if let Some(lost) = &c.would_be_lost {
        match c.refusals.is_empty() {
            true => print_loss("dropped with the end of the log, and may have been acknowledged", lost)?,
            false => print_loss(
                "what `raftwood repair --accept-loss --apply` drops of what may have been acknowledged, beside what cannot be read",
                lost,
            )?,
        }
    }
    for name in &c.foreign {
        say!("not of this store, and left alone: {name}")?;
    }
    if c.clean {
        say!("clean")?;
    }
    Ok(())
}

fn print_loss(title: &str, l: &Lost) -> Result<(), Failure> {
    say!(
        "\n{title}:\n  {} ({}) with {} of {}, and {}",
        count(l.batches, "batch"),
        size(l.bytes),
        count(l.entries, "entry"),
        count(l.regions, "region"),
        count(l.hard_states, "hard state")
    )?;
    if l.unreadable_batches > 0 {
        say!("  {} of these cannot be read: nobody knows what they held", l.unreadable_batches)?;
    }
    Ok(())
}

fn list(found: &[Finding]) -> Result<(), Failure> {
    for f in found.iter().take(SHOWN_MAX) {
        say!("  {}", f.message)?;
    }
    if found.len() > SHOWN_MAX {
        say!("  and {} more; --json lists all", found.len() - SHOWN_MAX)?;
    }
    Ok(())
}

const SHOWN_MAX: usize = 50;

/// What `repair` would meet.
#[derive(Serialize)]
struct DryRun {
    applied: bool,
    /// Damaged entries that the replica has as they were recorded here.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica_has: Option<u64>,
    #[serde(flatten)]
    found: Checked,
}

#[derive(Serialize)]
struct Repaired {
    applied: bool,
    regions: u64,
    entries: u64,
    mended_records: u64,
    rebuilt_footers: u64,
    moved_segments: u64,
    torn_bytes: u64,
    assumed_torn: bool,
    accepted_loss: bool,
    hard_states_lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
    made_good: Vec<Finding>,
    /// Entries that were put back from the replica, and why others were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_replica: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_from_replica: Vec<Finding>,
    lost_or_damaged: Vec<Finding>,
    suspects: Vec<Finding>,
}

/// Runs `repair`. Without `--apply` it is a check with another tail policy.
pub(crate) fn repair(args: &RepairArgs) -> Result<Outcome, Failure> {
    let policy = match (args.assume_torn, args.accept_loss) {
        (true, _) => TailPolicy::AssumeTorn,
        (_, true) => TailPolicy::AcceptLoss,
        _ => TailPolicy::Prove,
    };
    let options = Options::new().tail_policy(policy);
    if !args.apply {
        return dry_run(args, &options);
    }
    // A directory without a store must not become one.
    let options = match options.open_read_only(&args.dir) {
        Ok(reader) => options_like(&reader).tail_policy(policy),
        Err(e) if e.kind() == ErrorKind::Damaged => options,
        Err(e) => return Err(e.into()),
    };
    let replica = args.from_replica.as_deref().map(look).transpose()?;
    // Once it is done, nobody can say any more what was dropped.
    let lost = match policy {
        TailPolicy::Prove => None,
        _ => examine(&options, &args.dir, 0, args.json)?.loss,
    };
    let engine = match options.open(&args.dir) {
        Ok(engine) => engine,
        Err(e) if e.kind() == ErrorKind::Damaged => {
            complain(args.json, &with_causes(&e));
            return Ok(Outcome::FoundWrong);
        }
        Err(e) => return Err(e.into()),
    };
    let repaired = mend(&engine, lost, replica.as_ref());
    let closed = engine.close();
    let repaired = repaired?;
    closed?;
    let whole = repaired.lost_or_damaged.is_empty() && repaired.suspects.is_empty();
    match args.json {
        true => say_json(&repaired)?,
        false => print_repaired(&args.dir, &repaired, whole)?,
    }
    Ok(if whole { Outcome::Fine } else { Outcome::FoundWrong })
}

fn dry_run(args: &RepairArgs, options: &Options) -> Result<Outcome, Failure> {
    let report = examine(options, &args.dir, 0, args.json)?;
    if report.in_use {
        return Err(Failure::new(format!(
            "an engine has the store open, and repairs it itself: close it, or call Engine::scrub ({})",
            args.dir.display()
        )));
    }
    let replica_has = match &args.from_replica {
        Some(dir) if report.refusals.is_empty() => Some(given(options, &args.dir, dir, &report)?),
        _ => None,
    };
    let found = Checked::from(report);
    let outcome = if found.clean { Outcome::Fine } else { Outcome::FoundWrong };
    match args.json {
        true => say_json(&DryRun { applied: false, replica_has, found })?,
        false => {
            print(&args.dir, &found)?;
            if let Some(n) = replica_has {
                say!("the replica has {} of the damaged as recorded here", count(n, "entry"))?;
            }
            say!("nothing was changed; with --apply it is")?;
        }
    }
    Ok(outcome)
}

/// A look at a replica: what it has beyond what it can prove is as good, where it is what is recorded here.
fn look(replica: &Path) -> Result<Reader, Error> {
    Options::new().show_unproven(true).open_read_only(replica)
}

/// How many of the entries that were found damaged a replica could give. What is recorded of them is compared
/// first: no bytes are needed for that.
fn given(options: &Options, dir: &Path, replica: &Path, found: &CheckReport) -> Result<u64, Failure> {
    let (local, replica) = (options.clone().show_unproven(true).open_read_only(dir)?, look(replica)?);
    let harmed = found.damage.iter().chain(&found.suspects).filter_map(|e| Some((e.region()?, e.entries()?)));
    let ids: BTreeSet<(RegionId, u64)> =
        harmed.flat_map(|(region, entries)| entries.map(move |index| (region, index))).collect();
    let has = |&&(region, index): &&(RegionId, u64)| {
        let recorded = |of: &Reader| of.digest(region, index..=index).ok();
        recorded(&local).is_some_and(|digest| recorded(&replica) == Some(digest))
            && replica.entries(region, index..=index, ReadLimit::NONE).is_ok()
    };
    Ok(ids.iter().filter(has).count() as u64)
}

/// Whether what was found is so still, after a replica gave what it has.
fn is_still_wrong(engine: &Engine, e: &Error) -> bool {
    let (Some(region), Some(entries)) = (e.region(), e.entries()) else { return true };
    match engine.region(region).health() {
        Health::Damaged { ranges, .. } | Health::Suspect { ranges } => {
            ranges.iter().any(|range| range.start() <= entries.end() && entries.start() <= range.end())
        }
        _ => false,
    }
}

/// What open recovered already, what a scrub finds and repairs, and what a replica gives.
fn mend(engine: &Engine, lost: Option<Loss>, replica: Option<&Reader>) -> Result<Repaired, Failure> {
    let scrubbed = engine.scrub(&ScrubOptions::default().rate_bytes(0).from_device(true))?;
    let given = replica.map(|replica| engine.repair_from(replica)).transpose()?;
    let opened = engine.open_report();
    let (mut harmed, mut suspects) = (opened.damage.clone(), opened.suspects.clone());
    harmed.extend(scrubbed.damage);
    if given.is_some() {
        harmed.retain(|e| is_still_wrong(engine, e));
        suspects.retain(|e| is_still_wrong(engine, e));
    }
    Ok(Repaired {
        applied: true,
        regions: opened.regions,
        entries: scrubbed.entries,
        mended_records: opened.mended_records,
        rebuilt_footers: scrubbed.footers_rebuilt + opened.scanned_segments,
        moved_segments: scrubbed.segments_moved,
        // Of what may have been acknowledged the loss speaks.
        torn_bytes: if lost.is_none() { opened.torn_bytes } else { 0 },
        assumed_torn: opened.assumed_torn,
        accepted_loss: opened.accepted_loss,
        hard_states_lost: opened.hard_states_lost,
        lost: lost.map(Lost::from),
        made_good: findings(&scrubbed.rot),
        from_replica: given.as_ref().map(|given| given.repaired),
        not_from_replica: given.map_or(Vec::new(), |given| findings(&given.left)),
        lost_or_damaged: findings(&harmed),
        suspects: findings(&suspects),
    })
}

fn print_repaired(dir: &Path, r: &Repaired, whole: bool) -> Result<(), Failure> {
    say!("{}: {}, {} verified", dir.display(), count(r.regions, "region"), count(r.entries, "entry"))?;
    say!(
        "mended {}, built {}, evacuated {}, dropped {} of torn batches",
        count(r.mended_records, "record"),
        count(r.rebuilt_footers, "footer"),
        count(r.moved_segments, "segment"),
        count(r.torn_bytes, "byte")
    )?;
    if let Some(n) = r.from_replica {
        say!("put back {} from the replica", count(n, "entry"))?;
    }
    let parts = [
        ("repaired", &r.made_good),
        ("not put back from the replica", &r.not_from_replica),
        (
            "lost or damaged; replicas may have it: --from-replica, Region::repair, or an append over it",
            &r.lost_or_damaged,
        ),
        ("suspect", &r.suspects),
    ];
    for (title, found) in parts.into_iter().filter(|p| !p.1.is_empty()) {
        say!("\n{title}: {}", found.len())?;
        list(found)?;
    }
    if let Some(lost) = &r.lost {
        print_loss("dropped with the end of the log, and may have been acknowledged", lost)?;
    }
    if r.hard_states_lost > 0 {
        let who = match r.hard_states_lost {
            1 => "1 region does not know its hard state any more and must not vote: let it join anew"
                .to_string(),
            n => format!(
                "{n} regions do not know their hard state any more and must not vote: let them join anew"
            ),
        };
        say!("\n{who}")?;
    }
    say!("{}", if whole { "whole" } else { "not whole" })
}
