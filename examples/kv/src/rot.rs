//! Rot in the log of a node that is down.

use crate::load::Rng;
use crate::wire::Result;
use raftwood::{Options, ReadLimit};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// So many groups at most lose something at once.
const GROUPS_MAX: usize = 3;

/// So many of a log's newest entries are chosen from: what the state machine holds durably is not missed.
const NEWEST: u64 = 8;

/// A shorter payload may stand elsewhere too, in what is no entry.
const BYTES_MIN: usize = 24;

/// Flips a bit of one of the newest entries in some groups of this log, wherever its bytes stand. Returns of
/// how many groups.
pub fn rot(log: &Path, rng: &mut Rng) -> Result<u64> {
    let reader = Options::new().open_read_only(log)?;
    let mut groups = reader.regions();
    let mut harmed = 0;
    while harmed < GROUPS_MAX as u64 && !groups.is_empty() {
        let group = groups.swap_remove(rng.below(groups.len() as u64) as usize);
        if group.log.is_empty() {
            continue;
        }
        let from = group.log.first.max(group.log.last.saturating_sub(NEWEST - 1));
        let newest = reader.entries(group.id, from.., ReadLimit::NONE)?;
        let long: Vec<_> = newest.iter().filter(|entry| entry.payload.len() >= BYTES_MIN).collect();
        if long.is_empty() {
            continue;
        }
        let entry = long[rng.below(long.len() as u64) as usize];
        harmed += u64::from(flip(log, &entry.payload, rng.below(entry.payload.len() as u64) as usize)?);
    }
    Ok(harmed)
}

/// Flips a bit of this byte of what is looked for, in each place. Says whether there was one.
fn flip(log: &Path, wanted: &[u8], byte: usize) -> Result<bool> {
    let mut found = false;
    for file in fs::read_dir(log)? {
        let path = file?.path();
        if path.extension().is_none_or(|ext| ext != "log") {
            continue;
        }
        let bytes = fs::read(&path)?;
        let file = File::options().write(true).open(&path)?;
        for at in
            (0..bytes.len().saturating_sub(wanted.len() - 1)).filter(|&at| bytes[at..].starts_with(wanted))
        {
            file.write_all_at(&[bytes[at + byte] ^ 0x10], (at + byte) as u64)?;
            found = true;
        }
    }
    Ok(found)
}
