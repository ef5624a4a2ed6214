//! What a batch costs, counted and not timed: system calls, wake-ups, allocations and bytes. None of it
//! depends on how fast the machine is today.
//!
//! Two shapes: `small` is one region and 4 entries of 1 KiB a batch, `raftstore` is 32 regions with 2
//! entries of 512 bytes and a hard state each. The disk is the real one, but for its sync, which
//! takes [`SYNC`] and does nothing.

mod disk;

use crate::allocator::{allocations, alone};
use disk::Counted;
use raftwood::{Durability, Engine, EntryId, Options, Pool, RegionId, WriteBatch};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// As on a fast drive.
const SYNC: Duration = Duration::from_micros(300);

/// Batches of each writer that are not counted, and that are. All lie in one segment.
const WARM: u64 = 20;
const BATCHES: u64 = 60;

/// Adds the `n`th batch of a writer.
type Shape = fn(&mut WriteBatch, writer: u64, n: u64);

fn small(batch: &mut WriteBatch, writer: u64, n: u64) {
    let payload = [n as u8 + 1; 1024];
    let (region, first) = (writer * 4 + n % 4, 4 * (n / 4) + 1);
    batch
        .region(RegionId(region))
        .append((first..first + 4).map(|index| (EntryId::new(1, index), &payload[..])))
        .unwrap();
}

fn raftstore(batch: &mut WriteBatch, writer: u64, n: u64) {
    let payload = [n as u8 + 1; 512];
    for region in writer * 32..writer * 32 + 32 {
        let mut region = batch.region(RegionId(region));
        let first = 2 * n + 1;
        region.append((first..first + 2).map(|index| (EntryId::new(1, index), &payload[..]))).unwrap();
        region.set_hard_state(&[n as u8; 24]).unwrap();
    }
}

/// What one batch took.
#[derive(Debug)]
struct Cost {
    writes: f64,
    syncs: f64,
    wakes: f64,
    allocations: f64,
    /// Bytes written for one of payload.
    written: f64,
    other_calls: f64,
}

fn cost(writers: u64, shape: Shape, durability: Durability) -> Cost {
    let dir = tempfile::tempdir().unwrap();
    let disk = Counted::new(SYNC);
    let pool = Pool::default().prewrite(false);
    let engine = Options::new().pool(pool).vfs(Arc::new(disk.clone())).open(dir.path()).unwrap();
    let write = |engine: &Engine, writer, n| {
        let mut batch = engine.batch();
        shape(&mut batch, writer, n);
        engine.write(batch, durability).unwrap();
    };
    // Beyond the small segments that a young store begins with, and the next one is prepared.
    for index in 1..=40 {
        let mut batch = engine.batch();
        batch.region(RegionId(u64::MAX)).append([(EntryId::new(1, index), &[7; 1 << 20][..])]).unwrap();
        engine.write(batch, Durability::Written).unwrap();
    }
    engine.sync().unwrap();
    wait_for_upkeep(&disk);
    let (barrier, allocated) = (Barrier::new(writers as usize + 1), AtomicU64::new(0));
    let before = thread::scope(|s| {
        for writer in 0..writers {
            let (engine, barrier, allocated) = (&engine, &barrier, &allocated);
            s.spawn(move || {
                (0..WARM).for_each(|n| write(engine, writer, n));
                barrier.wait();
                barrier.wait();
                let before = allocations();
                (WARM..WARM + BATCHES).for_each(|n| write(engine, writer, n));
                allocated.fetch_add(allocations() - before, Relaxed);
            });
        }
        barrier.wait();
        let before = (disk.calls(), engine.stats());
        barrier.wait();
        before
    });
    let (calls, stats) = (disk.calls(), engine.stats());
    let batches = (writers * BATCHES) as f64;
    Cost {
        writes: (calls.writes - before.0.writes) as f64 / batches,
        syncs: (calls.syncs - before.0.syncs) as f64 / batches,
        wakes: (stats.wakes - before.1.wakes) as f64 / batches,
        allocations: allocated.load(Relaxed) as f64 / batches,
        written: (calls.bytes - before.0.bytes) as f64
            / (stats.payload_bytes - before.1.payload_bytes) as f64,
        other_calls: (calls.others - before.0.others) as f64 / batches,
    }
}

/// Until the footers of the segments before are written.
fn wait_for_upkeep(disk: &Counted) {
    let mut last = u64::MAX;
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(200));
        let writes = disk.calls().writes;
        if std::mem::replace(&mut last, writes) == writes {
            break;
        }
    }
}

/// What is measured, its bound, and what breaks it: each was seen to.
fn at_most(cost: &Cost, bounds: &[(&str, f64, f64)]) {
    for (what, is, bound) in bounds {
        assert!(is <= bound, "{what}: {is:.3} a batch, and {bound} is the bound: {cost:?}");
    }
}

/// A lone writer had 20 allocations a batch, and 170 of the second shape. It makes one write and
/// one sync, and wakes nobody: where condition variables were notified with nobody at them, that
/// were two system calls more.
#[test]
fn a_lone_writer_makes_two_calls_a_batch_and_few_allocations() {
    let _alone = alone();
    // The counter of references to the batch's buffer, the list of slices of the write, and the copies of
    // what was written before; the index grows now and then.
    for (shape, allocations) in [(small as Shape, 3.5), (raftstore, 8.0)] {
        let cost = cost(1, shape, Durability::Synced);
        assert!(cost.writes >= 1.0 && cost.syncs >= 1.0, "{cost:?}");
        at_most(
            &cost,
            &[
                // Upkeep may write its mark or a footer meanwhile.
                ("writes", cost.writes, 1.15),
                ("syncs", cost.syncs, 1.15),
                ("wakes", cost.wakes, 0.1),
                ("allocations", cost.allocations, allocations),
                ("calls but writes and syncs", cost.other_calls, 0.1),
                // The page in which it ends is written again by the next one.
                ("bytes written for one", cost.written, 2.1),
            ],
        );
    }
}

/// Batches that had to wait for the sync under way were once written one by one, and the threads of a
/// group woken one after the other.
#[test]
fn many_writers_share_writes_syncs_and_wakes() {
    let _alone = alone();
    for (shape, writes, allocations) in [(small as Shape, 0.4, 3.0), (raftstore, 0.6, 8.0)] {
        let cost = cost(16, shape, Durability::Synced);
        at_most(
            &cost,
            &[
                ("writes", cost.writes, writes),
                ("syncs", cost.syncs, 0.35),
                // One for the group, and one for the thread that goes on.
                ("wakes", cost.wakes, 0.6),
                ("allocations", cost.allocations, allocations),
                ("calls but writes and syncs", cost.other_calls, 0.1),
                ("bytes written for one", cost.written, 1.5),
            ],
        );
    }
}

/// What is only to be written is written by the thread that wrote it.
#[test]
fn what_is_only_written_takes_one_call_at_most() {
    let _alone = alone();
    for writers in [1, 16] {
        let cost = cost(writers, small, Durability::Written);
        at_most(
            &cost,
            &[
                ("writes", cost.writes, 1.1),
                // One each 8 MiB, so that little has to be read again by the next open.
                ("syncs", cost.syncs, 0.05),
                ("allocations", cost.allocations, 3.5),
                ("bytes written for one", cost.written, 2.1),
            ],
        );
    }
}
