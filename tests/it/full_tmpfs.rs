//! A real file system without space: a small tmpfs, where one may be mounted.

use crate::support::entries;
use raftwood::{Background, Durability, Engine, ErrorKind, Lsn, Options, Pool, Purge, RegionId, WriteError};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

const R: RegionId = RegionId(7);
const PAYLOAD: usize = 100 << 10;

/// A file system of 40 MiB, for as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where this process may not mount.
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|out| out.status.success()).then_some(Small(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Another program takes what is left.
    fn take_the_rest(&self) {
        let mut file = File::create(self.path().join("ballast")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn open(small: &Small) -> Engine {
    Options::new()
        .segment_bytes(1 << 20)
        .pool(Pool::default().files_max(1))
        .purge(Purge::default().background(false))
        .background(Background::Manual)
        .open(small.path().join("store"))
        .unwrap()
}

fn append(engine: &Engine, index: u64) -> Result<Lsn, WriteError> {
    entries::append(engine, R, index, PAYLOAD)
}

#[track_caller]
fn holds(engine: &Engine, indexes: std::ops::RangeInclusive<u64>) {
    entries::holds(engine, R, indexes, PAYLOAD);
}

#[test]
fn a_full_file_system_fails_appends_by_name_and_opens_purges_and_goes_on() {
    let Some(small) = Small::mount() else {
        println!("no tmpfs may be mounted here: left to the simulated disk");
        return;
    };
    let engine = open(&small);
    let mut last = 0;
    let error = loop {
        match append(&engine, last + 1) {
            Ok(_) => last += 1,
            Err(e) => break e,
        }
        assert!(last < 1000, "40 MiB never fill");
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{:?}", error.error());
    assert!(last > 50);
    holds(&engine, 1..=last);
    // The batch came back. There is still no room for it, nor is there after a new open on a disk
    // without a byte.
    assert_eq!(
        engine.write(error.into_batch().unwrap(), Durability::Synced).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    small.take_the_rest();
    drop(engine);
    let engine = open(&small);
    holds(&engine, 1..=last);
    // What makes room needs none.
    let mut batch = engine.batch();
    batch.region(R).compact_through(last - 5).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.purge().unwrap();
    for index in last + 1..last + 20 {
        append(&engine, index).unwrap();
        engine.tick().unwrap();
    }
    holds(&engine, last - 4..=last + 19);
    drop(engine);
    holds(&open(&small), last - 4..=last + 19);
}
