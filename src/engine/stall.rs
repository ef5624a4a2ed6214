//! A disk that hangs, as a program can act on it.

use super::Engine;
use crate::clock;
use crate::error::{Error, ErrorKind};
use std::fmt;
use std::time::Duration;

/// An operation on the log that the disk has been at for longer than
/// [`Options::stall_after`](crate::Options::stall_after). Nothing has failed: the operating system has not
/// answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stall {
    /// What the disk is at.
    pub operation: &'static str,
    /// For how long by now.
    pub elapsed: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk has been at it for {:.1?}: {}", self.elapsed, self.operation)
    }
}

impl Engine {
    /// Whether the log stands still, because the disk does: then nothing that is written becomes durable, and
    /// nobody knows for how long. A leader that sees this gives its leadership away, so that its group goes
    /// on with the disks of the others (under raft-rs with `raft_rs::give_leadership_away`). Costs a lock;
    /// ask at each tick. [`Event::SyncStalled`](crate::Event::SyncStalled) says the same once, and that of
    /// other operations too.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = raftwood::Engine::open(dir.path())?;
    /// // At each tick of the groups' clock.
    /// if let Some(stall) = engine.stall() {
    ///     eprintln!("{stall}; this node leads nothing until that is over");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stall(&self) -> Option<Stall> {
        let (operation, since) = self.store().committer.oldest_log_io()?;
        let elapsed = clock::since(since);
        (elapsed >= self.store().factory.watch.stall_after()).then_some(Stall { operation, elapsed })
    }
}

impl Stall {
    pub(super) fn refusal(self) -> Error {
        Error::new(
            ErrorKind::Stalled,
            format!(
                "the batch was not accepted: {self}; try again when that is over, and let others lead meanwhile"
            ),
        )
    }
}
