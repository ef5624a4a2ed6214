//! A batch was acknowledged, and the power went before its watermark was noted. Recovery copied it into the next segment; the
//! power went again and tore the copy. The next recovery read the batch from the old segment and made a third copy, whole.
//! While the store was closed the power went once more, with nothing lost: and the batch was gone, because the torn copy
//! still cut the old segment off.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test")]

use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs};
use raftwood::{Background, Durability, Engine, EntryId, EntryRef, Options, Pool, ReadLimit, RegionId};
use std::sync::Arc;

fn open(disk: &SimVfs) -> Engine {
    Options::new()
        .segment_bytes(64 << 10)
        .pool(Pool::default().prewrite(false))
        .background(Background::Manual)
        .vfs(Arc::new(disk.clone()))
        .open("/db")
        .unwrap()
}

fn entries(engine: &Engine) -> usize {
    engine.region(RegionId(1)).entries(.., ReadLimit::NONE).unwrap().len()
}

#[test]
fn torn_copy_of_an_acknowledged_tail_takes_nothing_with_it() {
    let disk = SimVfs::new(1);
    let engine = open(&disk);
    let mut batch = engine.batch();
    batch.region(RegionId(1)).append([EntryRef { id: EntryId::new(1, 1), payload: &[7; 9000] }]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();

    let disk = disk.crash(LossPolicy::KeepAll);
    disk.snapshot_every(Some(Moment::After));
    assert_eq!(entries(&open(&disk)), 1);
    let mut tried = 0;
    let mut wrong = Vec::new();
    for copying in disk.take_snapshots() {
        for kept in 0..=copying.pending_count() {
            let torn = copying.crash(LossPolicy::KeepFirst(kept));
            let engine = open(&torn);
            assert_eq!(entries(&engine), 1);
            torn.snapshot_every(Some(Moment::After));
            engine.close().unwrap();
            for closing in torn.take_snapshots() {
                let last = closing.crash(LossPolicy::KeepAll);
                tried += 1;
                if entries(&open(&last)) != 1 {
                    wrong.push(format!("{} with {kept} kept, then {}", copying.call(), closing.call()));
                }
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert!(wrong.is_empty(), "{} of {tried}: {:#?}", wrong.len(), &wrong[..wrong.len().min(8)]);
}
