//! What is written and settled together, beside a sync and after it.

use crate::support::threads::*;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, Durability, RegionId};
use std::thread;
use std::time::{Duration, Instant};

/// What waits for the next sync is kept back while one is under way, to be written with one call. What is
/// only to be written is not: its writer writes it, and what came before it.
#[test]
fn what_is_only_to_be_written_is_not_kept_back_by_a_sync() {
    let vfs = SimVfs::new(14);
    let engine = open(&vfs);
    begin(&engine);
    vfs.block_syncs();
    let stuck = submit(&engine, 1, 1);
    vfs.wait_for_syncs(1);
    let kept_back = submit(&engine, 1, 2);
    // The quickest tells: the machine may be busy with something else now and then.
    let quickest = (1..=50).map(|index| {
        let started = Instant::now();
        engine.write(batch(&engine, 2, index, 100), Durability::Written).unwrap();
        started.elapsed()
    });
    let quickest = quickest.min().unwrap();
    vfs.release_syncs();
    assert!(quickest < Duration::from_micros(900), "{quickest:?}");
    assert!(stuck.wait().unwrap() < kept_back.wait().unwrap());
}

/// A kill while a sync hangs costs what was accepted in the last millisecond, and not all that came
/// since the sync began.
#[test]
fn what_waits_for_the_next_sync_is_written_while_the_one_under_way_hangs() {
    let vfs = SimVfs::new(15);
    let engine = open(&vfs);
    begin(&engine);
    vfs.block_syncs();
    thread::scope(|s| {
        let write = |region| {
            let engine = &engine;
            s.spawn(move || engine.write(batch(engine, region, 1, 10), Durability::Synced).unwrap())
        };
        write(1);
        vfs.wait_for_syncs(1);
        write(2);
        let survives_a_kill = |region| {
            let disk = vfs.crash(LossPolicy::KeepAll);
            options(&disk).open("/db").unwrap().region(RegionId(region)).last_index() == 1
        };
        let in_time = |region| {
            let looks = (0..500).map(|_| survives_a_kill(region));
            looks.inspect(|_| thread::sleep(Duration::from_millis(5))).any(|survives| survives)
        };
        let by_its_thread = in_time(2);
        let ticket = submit(&engine, 3, 1);
        let by_the_engine = in_time(3);
        vfs.release_syncs();
        ticket.wait().unwrap();
        assert!(by_its_thread && by_the_engine);
    });
}

/// A batch that is written beside a sync waits for the next one.
#[test]
fn a_sync_covers_nothing_that_was_written_after_it_began() {
    let vfs = SimVfs::new(16);
    // Without upkeep, which may sync by itself.
    let engine = options(&vfs).background(Background::Manual).open("/db").unwrap();
    begin(&engine);
    vfs.block_syncs();
    thread::scope(|s| {
        let synced = s.spawn(|| engine.write(batch(&engine, 1, 1, 10), Durability::Synced).unwrap());
        vfs.wait_for_syncs(1);
        let written = engine.write(batch(&engine, 2, 1, 10), Durability::Written).unwrap();
        vfs.release_syncs();
        let synced = synced.join().unwrap();
        assert!(synced < written);
        assert_eq!(engine.durable_lsn(), synced);
        assert_eq!(engine.region(RegionId(2)).state().durable, 0);
    });
}

/// The threads of what a write leaves in the queue sleep with a group that is settled without them.
#[test]
fn nobody_sleeps_on_when_a_write_takes_a_part_of_the_queue() {
    const LEN: usize = 3 << 20;
    let vfs = SimVfs::new(17);
    let engine = options(&vfs).segment_bytes(32 << 20).in_flight_bytes_max(64 << 20).open("/db").unwrap();
    begin(&engine);
    for round in 1..=3 {
        let engine = engine.clone();
        let disk = vfs.clone();
        in_time("more than one write takes", move || {
            disk.block_syncs();
            thread::scope(|s| {
                for region in 1..=9 {
                    let engine = &engine;
                    let durability = if region % 3 == 0 { Durability::Written } else { Durability::Synced };
                    s.spawn(move || engine.write(batch(engine, region, round, LEN), durability).unwrap());
                }
                disk.wait_for_syncs(1);
                disk.release_syncs();
            });
        });
    }
    assert!((1..=9).all(|region| engine.region(RegionId(region)).last_index() == 3));
}
