//! Saves what a new leader makes this node discard: entries that were proposed and never committed.

use crate::wire::Command;
use raftwood::raft_rs::decode_entry;
use raftwood::{BoxError, Entry, EventListener, RegionId, Rollback, RollbackCause};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What became of an entry that is not part of the log any more, or is about to leave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// Discarded by an append or a truncation, after it was saved.
    RolledBack,
    /// The listener was told to fail: it must still be in the log.
    Refused,
    /// Not known to be committed when a snapshot took the log's place. It may be in the snapshot.
    Displaced,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::RolledBack => "rolled-back",
            Fate::Refused => "refused",
            Fate::Displaced => "displaced",
        })
    }
}

impl FromStr for Fate {
    type Err = String;

    fn from_str(s: &str) -> Result<Fate, String> {
        let all = [Fate::RolledBack, Fate::Refused, Fate::Displaced];
        all.into_iter().find(|fate| fate.to_string() == s).ok_or_else(|| format!("{s} is no fate"))
    }
}

/// The writes of a file that [`SaveRollbacks`] wrote: fate and value.
pub fn read_saved(path: &Path) -> std::io::Result<Vec<(Fate, u64)>> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.parse().ok()?, words.next_back()?.parse().ok()?))
    };
    // The last line is without its end if a kill came between.
    Ok(std::fs::read_to_string(path)?
        .split_inclusive('\n')
        .filter_map(|l| line(l.strip_suffix('\n')?))
        .collect())
}

pub struct SaveRollbacks {
    file: Mutex<File>,
    /// Makes it fail, to show that nothing is lost then.
    pub fail: AtomicBool,
}

impl SaveRollbacks {
    pub fn open(path: &Path) -> std::io::Result<SaveRollbacks> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(SaveRollbacks { file: Mutex::new(file), fail: AtomicBool::new(false) })
    }

    /// Saves entries that a snapshot takes the place of, and that may not be part of it.
    pub fn save_displaced(&self, region: RegionId, entries: &[Entry]) -> Result<(), BoxError> {
        self.save(Fate::Displaced, region, entries.iter().cloned().map(Ok))
    }

    fn save(
        &self,
        fate: Fate,
        region: RegionId,
        entries: impl Iterator<Item = raftwood::Result<Entry>>,
    ) -> Result<(), BoxError> {
        let mut lines = String::new();
        for entry in entries {
            let entry = decode_entry(&entry?)?;
            if let Some(Command::Write { value, .. }) = Command::of(&entry) {
                lines.push_str(&format!("{fate} {region} {} {} {value}\n", entry.index, entry.term));
            }
        }
        let mut file = self.file.lock().unwrap();
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        Ok(())
    }
}

impl EventListener for SaveRollbacks {
    fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
        // What a snapshot or the end of a replica displaces may be committed elsewhere, and was saved before:
        // see `save_displaced`.
        if rollback.cause() != RollbackCause::Replaced {
            return Ok(());
        }
        if self.fail.load(Ordering::SeqCst) {
            self.save(Fate::Refused, rollback.region(), rollback.entries())?;
            return Err("told to fail".into());
        }
        self.save(Fate::RolledBack, rollback.region(), rollback.entries())
    }
}
