//! A batch was acknowledged, and the power went before its watermark was noted. Recovery copied it into the next segment; the
//! power went again and tore the copy. The next recovery read the batch from the old segment and made a third copy, whole.
//! While the store was closed the power went once more, with nothing lost: and the batch was gone, because the torn copy
//! still cut the old segment off.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test")]

use raftwood::vfs::sim::{LossPolicy, Moment, OpKind, SimVfs};
use raftwood::{Background, Durability, Engine, EntryId, EntryRef, Options, Pool, ReadLimit, RegionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn options(disk: &SimVfs) -> Options {
    Options::new()
        .segment_bytes(64 << 10)
        .pool(Pool::default().prewrite(false))
        .background(Background::Manual)
        .vfs(Arc::new(disk.clone()))
}

fn open(disk: &SimVfs) -> Engine {
    options(disk).open("/db").unwrap()
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

/// A tail of more than 8 MiB is synced while it is still being copied, by a thread of the engine. The records that are copied
/// after that must not say so: a watermark inside the copy is what the next recovery believes a complete copy by.
#[test]
fn a_copy_that_is_synced_half_way_does_not_count_as_complete() {
    const SMALL: u64 = 200;
    let disk = SimVfs::new(2);
    let engine = open(&disk);
    let large = vec![7; 9 << 20];
    let tickets: Vec<_> = (1..=1 + SMALL)
        .map(|index| {
            let mut batch = engine.batch();
            let payload = if index == 1 { &large[..] } else { &[7; 100] };
            batch.region(RegionId(1)).append([EntryRef { id: EntryId::new(1, index), payload }]).unwrap();
            engine.submit(batch, Durability::Synced).unwrap()
        })
        .collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }

    // The process dies. In the next life the copy waits for the sync of its first part.
    let disk = disk.crash(LossPolicy::KeepAll);
    let (syncs, writes) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let seen = syncs.clone();
    disk.set_hook(Some(Arc::new(move |op| {
        let log = op.path.extension().is_some_and(|e| e == "log");
        match op.kind {
            OpKind::SyncData if log && writes.load(Ordering::Acquire) > 0 => {
                seen.fetch_add(1, Ordering::AcqRel);
            }
            OpKind::Write if log && writes.fetch_add(1, Ordering::AcqRel) > 0 => {
                let patience = Instant::now();
                while seen.load(Ordering::Acquire) == 0 && patience.elapsed() < Duration::from_secs(5) {
                    std::thread::yield_now();
                }
                // Time for that sync to end, and to be believed, before all is copied.
                (0..200).for_each(|_| std::thread::yield_now());
            }
            _ => {}
        }
    })));
    disk.snapshot_every(Some(Moment::After));
    let engine = options(&disk).background(Background::Threads).open("/db").unwrap();
    assert_eq!(entries(&engine) as u64, 1 + SMALL);
    assert!(syncs.load(Ordering::Acquire) > 0, "the copy was never synced on its way");
    let copying = disk.take_snapshots();
    disk.set_hook(None);
    let writes = copying.iter().filter(|s| s.call().contains(".log") && s.call().contains("write"));
    let mut tried = 0;
    for moment in writes.step_by(8) {
        tried += 1;
        let cut = moment.crash(LossPolicy::KeepAll);
        assert_eq!(entries(&open(&cut)) as u64, 1 + SMALL, "killed behind {}", moment.call());
    }
    assert!(tried > SMALL / 8, "{tried}");
}
