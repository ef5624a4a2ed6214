//! Directories, links and pipes in the place of the store's files, on the real file system.
//!
//! The rule: what is no regular file is never followed, never waited for, never changed and never deleted.
//! The store then opens without it, naming what it lacks, or refuses; it is never silent.

use crate::support::engines::{pool_of, small};
use raftwood::{Durability, Engine, EntryId, Health, Options, ReadLimit, RegionId};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

const ENTRIES: u64 = 40;

fn options() -> Options {
    pool_of(small(), 1)
}

fn write(engine: &Engine, index: u64) {
    let mut batch = engine.batch();
    let payload = vec![index as u8; 3000];
    batch.region(RegionId(1)).append([(EntryId::new(1, index), &payload[..])]).unwrap();
    batch.region(RegionId(1)).set_hard_state(&index.to_le_bytes()).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
}

/// Each of the store's names, with all its files in `from`.
fn store(from: &Path) -> Vec<String> {
    let engine = options().open(from).unwrap();
    (1..=ENTRIES).for_each(|index| write(&engine, index));
    engine.close().unwrap();
    drop(engine);
    let mut names: Vec<String> =
        fs::read_dir(from).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    // Names that the store would make next, or of a file that it does not have yet.
    for next in ["MARK", "LOCK", "checkpoint.tmp", "0000000099.log", "0000000099.free", "0000000099.tmp"] {
        if !names.iter().any(|n| n == next) {
            names.push(next.to_string());
        }
    }
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Opens it and looks; an error when something is missing without a word.
fn look(dir: &Path) -> Result<&'static str, String> {
    let Ok(engine) = options().open(dir) else { return Ok("refused") };
    let region = engine.region(RegionId(1));
    let read = region.entries_clamped(.., ReadLimit::NONE);
    let whole = read.as_ref().is_ok_and(|r| r.len() as u64 == ENTRIES)
        && region.hard_state().as_deref() == Some(&ENTRIES.to_le_bytes()[..]);
    let healthy = region.health() == Health::Healthy;
    if !whole && healthy {
        return Err(format!("it has {} entries and says nothing", read.map_or(0, |r| r.len())));
    }
    if healthy {
        write(&engine, ENTRIES + 1);
    }
    engine.close().map_err(|e| format!("close: {e}"))?;
    Ok(if whole { "whole" } else { "named" })
}

#[test]
fn what_is_no_regular_file_is_never_followed_changed_or_deleted() {
    let home = tempfile::tempdir().unwrap();
    let original = home.path().join("original");
    let names = store(&original);
    let mut wrong = Vec::new();
    for how in ["directory", "full directory", "link", "dangling link", "pipe"] {
        let mut counts = std::collections::BTreeMap::<&str, u64>::new();
        for (n, name) in names.iter().enumerate() {
            let dir = home.path().join(format!("{how} {n}"));
            copy(&original, &dir);
            let place = dir.join(name);
            let target = home.path().join(format!("target of {how} {n}"));
            let bytes = fs::read(&place).unwrap_or_else(|_| b"another's".to_vec());
            let _ = fs::remove_file(&place);
            match how {
                "directory" => fs::create_dir(&place).unwrap(),
                "full directory" => {
                    fs::create_dir(&place).unwrap();
                    fs::write(place.join("precious"), b"precious").unwrap();
                }
                "link" => {
                    fs::write(&target, &bytes).unwrap();
                    symlink(&target, &place).unwrap();
                }
                "dangling link" => symlink(&target, &place).unwrap(),
                _ => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &place,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::from_raw_mode(0o600),
                    0,
                )
                .unwrap(),
            }
            match timed(dir.clone()) {
                Ok(what) => *counts.entry(what).or_default() += 1,
                Err(why) => wrong.push(format!("{name} is a {how}: {why}")),
            }
            let kept = match how {
                "directory" => place.is_dir(),
                "full directory" => fs::read(place.join("precious")).is_ok_and(|b| b == b"precious"),
                "link" => fs::read(&target).is_ok_and(|b| b == bytes) && place.is_symlink(),
                "dangling link" => !target.exists() && place.is_symlink(),
                _ => place.symlink_metadata().is_ok_and(|m| !m.is_file()),
            };
            if !kept {
                wrong.push(format!("{name} is a {how}: it was changed"));
            }
        }
        println!("{how}: {counts:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Not waited for: an open of a pipe hangs until somebody writes.
fn timed(dir: PathBuf) -> Result<&'static str, String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(look(&dir)));
    receive.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| Err("it hangs, or panics".to_string()))
}
