//! `raftwood restore`: a store of its own out of a copy of one.

use crate::out::{complain, count, say, say_json, size, with_causes};
use crate::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood::{ErrorKind, Options, RestoreOptions};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `restore`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The copy: what `backup` made, or a directory that was copied while no engine had it open. It is not
    /// changed.
    from: PathBuf,
    /// Where the store goes: a directory that is empty or does not exist, or that of a restore that did not
    /// come to its end.
    to: PathBuf,
    /// Every member of every group is restored at this time: take votes and terms as they are. Otherwise they
    /// are lost, and each region has to join its group under a new peer id.
    #[arg(long)]
    whole_cluster: bool,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Restored {
    regions: u64,
    entries: u64,
    bytes: u64,
    segments: u64,
    hard_states_lost: u64,
    started_over: bool,
}

/// Runs `restore`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    // Without a terminal it draws nothing.
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    bar.set_style(ProgressStyle::with_template(
        "restoring {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )?);
    let how = RestoreOptions::default().whole_cluster(args.whole_cluster);
    let report = Options::new().restore(&args.from, &args.to, &how, |p| {
        bar.set_length(p.total_bytes);
        bar.set_position(p.done_bytes);
    });
    bar.finish_and_clear();
    let report = match report {
        Err(e) if e.kind() == ErrorKind::Damaged => {
            complain(args.json, &with_causes(&e));
            return Ok(Outcome::FoundWrong);
        }
        report => report?,
    };
    let restored = Restored {
        regions: report.regions,
        entries: report.entries,
        bytes: report.bytes,
        segments: report.segments,
        hard_states_lost: report.hard_states_lost,
        started_over: report.started_over,
    };
    if args.json {
        say_json(&restored)?;
        return Ok(Outcome::Fine);
    }
    if restored.started_over {
        say!("what an earlier restore had left there was removed first")?;
    }
    say!(
        "{}: {} and {} ({}) in {}, each entry verified",
        args.to.display(),
        count(restored.regions, "region"),
        count(restored.entries, "entry"),
        size(restored.bytes),
        count(restored.segments, "segment")
    )?;
    if restored.hard_states_lost > 0 {
        say!(
            "the hard state of {} is lost, and none may vote as it is: a copy has forgotten\n\
             what the replica promised since; let each join its group under a new peer id",
            count(restored.hard_states_lost, "region")
        )?;
    }
    Ok(Outcome::Fine)
}
