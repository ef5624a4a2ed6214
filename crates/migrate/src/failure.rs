//! Why nothing came of it.

use std::fmt;
use std::path::Path;

/// Why a store was not migrated. The destination has not got its name then, and the source is as it was.
#[derive(Debug)]
pub enum Failure {
    /// It could not run: a store is open elsewhere, the destination exists, the disk is full.
    CannotRun(String),
    /// The source is damaged, holds what the destination cannot, or was not copied as it is.
    Wrong(String),
}

/// `Result` with a [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The operating system refused `doing` something with `path`.
    pub(crate) fn io(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
        Failure::CannotRun(format!("{doing} {} failed: {error}", path.display()))
    }

    /// What is wrong with a region.
    pub(crate) fn in_region(region: u64, why: impl fmt::Display) -> Failure {
        Failure::Wrong(format!("region {region}: {why}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::CannotRun(why) | Failure::Wrong(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}
