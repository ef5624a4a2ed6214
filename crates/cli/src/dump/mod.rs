//! `raftwood dump`: what is in a store, by region or as it was written.

mod args;
mod entries;
mod records;

pub(crate) use args::Args;

use crate::{Failure, Outcome};

/// Runs `dump`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    if args.records || args.follow { records::run(args) } else { entries::run(args) }
}
