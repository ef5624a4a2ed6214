//! Two checkpoints are kept, and either of them is enough.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "flip/stores.rs"]
#[allow(dead_code, reason = "made for the sweeps")]
mod stores;

use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, EntryId, Health, ReadLimit, RegionId};
use std::path::PathBuf;
use stores::{DIR, options};

fn append(engine: &Engine, region: u64, index: u64, len: usize) {
    let mut batch = engine.batch();
    let payload = vec![index as u8; len];
    batch.region(RegionId(region)).append([(EntryId::new(1, index), &payload[..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
}

fn checkpoints(vfs: &SimVfs) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = vfs.list().into_iter().map(|f| f.0).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "ckpt"));
    found.sort();
    found
}

/// Entries of a few regions, as text.
fn all(engine: &Engine) -> String {
    let regions = engine.regions();
    let of = |id: &RegionId| {
        let region = engine.region(*id);
        assert_eq!(region.health(), Health::Healthy);
        let read = region.entries(.., ReadLimit::NONE).unwrap();
        let ids: Vec<u64> = read.iter().map(|e| e.id.index).collect();
        assert!(read.iter().all(|e| e.payload.iter().all(|b| *b == e.id.index as u8)));
        format!("{id}: {:?} {ids:?}\n", region.state().base)
    };
    regions.iter().map(of).collect()
}

#[test]
fn the_newest_checkpoint_may_rot_after_a_purge_at_any_time() {
    let vfs = SimVfs::new(8);
    let engine = options(&vfs, 1).open(DIR).unwrap();
    let mut looked = 0;
    for round in 1..=6u64 {
        // Several segments' worth; a part of it stays.
        for index in (round - 1) * 12 + 1..=round * 12 {
            append(&engine, 1, index, 20 << 10);
            append(&engine, 2 + index % 5, 1 + index / 5, 100);
        }
        let mut batch = engine.batch();
        batch.region(RegionId(1)).compact_through(round * 12 - 1).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        match round % 3 {
            0 => drop(engine.tick()),
            _ => drop(engine.purge().unwrap()),
        }
        let expected = all(&engine);
        let found = checkpoints(&vfs);
        if found.len() < 2 {
            continue;
        }
        looked += 1;
        // Two or more flips, so that mending is out of the question.
        let cut = vfs.crash(LossPolicy::KeepAll);
        let newest = found.last().unwrap();
        cut.write_bytes(newest, 130, &[0xa5; 64]).unwrap();
        let after = options(&cut, 2).open(DIR).unwrap();
        assert_eq!(after.open_report().bad_checkpoints, 1);
        assert_eq!(all(&after), expected, "round {round}");
        // There are two good ones again: the next to rot may be the newest once more.
        stores::kill(&cut, after);
        let newest = checkpoints(&cut).pop().unwrap();
        cut.write_bytes(&newest, 130, &[0xa5; 64]).unwrap();
        assert_eq!(all(&options(&cut, 3).open(DIR).unwrap()), expected, "round {round}, again");
    }
    assert!(looked >= 5, "{looked}");
}
