//! Why an open decides what it decides.

use super::reader::recover_beside;
use super::store_lock::StoreLock;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::recovery::{Purpose, Unrecovered, recover_and_report};
use crate::report::{Explanation, OpenReport};
use crate::types::Lsn;
use crate::vfs::Dir;
use std::path::Path;

impl Options {
    /// What an open of the store would find near the end of its log, and why it would decide as it would:
    /// recovery itself is run up to where it would begin to write. Nothing is changed. The tail policy of
    /// these options counts, as in an open.
    ///
    /// Beside a running engine the end of the log is being written, and is not judged
    /// ([`in_use`](Explanation::in_use)).
    ///
    /// # Errors
    /// `InvalidArgument` where there is no store, `Unsupported` for a newer format, `Locked` beside an
    /// engine that gives files back faster than they can be looked at, `Io` from the operating system. That
    /// the store would not open is no error: it is in what is returned.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # raftwood::Engine::open(dir.path())?.close()?;
    /// let why = raftwood::Options::new().explain(dir.path())?;
    /// assert!(why.refusal.is_none() && why.trail.judged.is_empty());
    /// println!("the log ends at {}, and is durable up to {}", why.end, why.trail.durable);
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain(&self, dir: impl AsRef<Path>) -> Result<Explanation> {
        let dir = dir.as_ref();
        let opened = self.vfs.open_dir(dir).map_err(|e| Error::io("opening the directory", dir, e))?;
        let dir = &Dir::new(opened, dir);
        let missing = || Error::invalid("there is no store in this directory").at(dir.path(), None);
        let lock = StoreLock::shared(dir)?;
        let in_use = lock.is_none();
        let mut found = OpenReport::default();
        let recovered = match &lock {
            Some(_) => recover_and_report(dir, self, Purpose::Write, &mut found),
            None => recover_beside(dir, self, Purpose::Inspect),
        };
        let (refusal, end, mut report) = match recovered {
            Ok(state) => {
                let state = state.ok_or_else(missing)?;
                // What is re-persisted stands past the last durable record.
                let kept = state.unfinished.tail.last().and_then(|record| record.original.end());
                (None, kept.unwrap_or(state.end()), state.report)
            }
            Err(Unrecovered::Damaged(e)) => (Some(e), found.trail.hole.unwrap_or(Lsn::ZERO), found),
            Err(Unrecovered::Failed(e)) => return Err(e),
        };
        let trail = std::mem::take(&mut report.trail);
        if in_use {
            // What is being written is not judged.
            (report.suspects, report.torn_bytes) = (Vec::new(), 0);
        }
        Ok(Explanation { in_use, refusal, end, trail, report })
    }
}
