//! Saves what a new leader makes this node discard: entries that were proposed and never committed.

use crate::wire::Command;
use raftwood::raft_rs::decode_entry;
use raftwood::{BoxError, EventListener, Rollback};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

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
}

impl EventListener for SaveRollbacks {
    fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
        if self.fail.load(Ordering::SeqCst) {
            return Err("told to fail".into());
        }
        let mut lines = String::new();
        for entry in rollback.entries() {
            let entry = decode_entry(&entry?)?;
            if let Some(Command::Write { value, .. }) = Command::of(&entry) {
                lines.push_str(&format!("{} {} {} {value}\n", rollback.region(), entry.index, entry.term));
            }
        }
        let mut file = self.file.lock().unwrap();
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        Ok(())
    }
}
