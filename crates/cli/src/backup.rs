//! `raftwood backup`: a copy of a store that no engine has open.

use crate::like::options_like;
use crate::out::{count, say, say_json, size};
use crate::{Failure, Outcome};
use raftwood::Options;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `backup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store. A program that has it open calls `Engine::backup` instead. It is opened
    /// and closed as by such a program: what a crash left is recovered first, in the format of this
    /// release.
    dir: PathBuf,
    /// Where the copy goes: a directory that is empty, or does not exist.
    to: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Made {
    linked_segments: u64,
    linked_bytes: u64,
    copied_segments: u64,
    copied_bytes: u64,
}

/// Runs `backup`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    // A directory without a store must not become one.
    let like = options_like(&Options::new().open_read_only(&args.dir)?);
    let engine = like.open(&args.dir)?;
    let report = engine.backup(&args.to)?;
    engine.close()?;
    let made = Made {
        linked_segments: report.linked_segments,
        linked_bytes: report.linked_bytes,
        copied_segments: report.copied_segments,
        copied_bytes: report.copied_bytes,
    };
    match args.json {
        true => say_json(&made)?,
        false => say!(
            "{}: {} linked ({}), {} copied; {} copied in all",
            args.to.display(),
            count(made.linked_segments, "segment"),
            size(made.linked_bytes),
            made.copied_segments,
            size(made.copied_bytes)
        )?,
    }
    Ok(Outcome::Fine)
}
