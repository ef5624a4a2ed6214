//! `raftwood purge`: gives back what nothing needs of a store that no engine has open, to the file system.

use crate::like::options_like;
use crate::out::{count, say, say_json, size};
use crate::{Failure, Outcome};
use raftwood::{Background, Options, Pool};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `purge`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store. No engine may have it open.
    dir: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Purged {
    segments_freed: u64,
    segments_cleaned: u64,
    moved_bytes: u64,
    disk_bytes_before: u64,
    disk_bytes_after: u64,
}

/// Runs `purge`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    // A directory without a store must not become one.
    let like = options_like(&Options::new().open_read_only(&args.dir)?);
    let before = crate::bench::report::disk_bytes(&args.dir);
    // Nothing is given back but by the call, which counts it. And no pool is kept: the files themselves are
    // to go, but for the reserve that a full disk is met with.
    let options = like.pool(Pool::default().files_max(0)).background(Background::Manual);
    let engine = options.purge(raftwood::Purge::default().background(false)).open(&args.dir)?;
    let purged = engine.purge();
    let closed = engine.close();
    let purged = purged?;
    closed?;
    drop(engine);
    let shown = Purged {
        segments_freed: purged.segments_freed,
        segments_cleaned: purged.segments_cleaned,
        moved_bytes: purged.moved_bytes,
        disk_bytes_before: before,
        disk_bytes_after: crate::bench::report::disk_bytes(&args.dir),
    };
    match args.json {
        true => say_json(&shown)?,
        false => say!(
            "{}: {} given back, {} evacuated ({} moved); {} on disk, {} before",
            args.dir.display(),
            count(shown.segments_freed, "segment"),
            shown.segments_cleaned,
            size(shown.moved_bytes),
            size(shown.disk_bytes_after),
            size(before)
        )?,
    }
    Ok(Outcome::Fine)
}
