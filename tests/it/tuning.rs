//! What an operator may change of a running engine takes effect, and nothing else changes.

use crate::support::engines::{DIR, by_hand};
use crate::support::threads::{batch, begin, in_time, options};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Compression, Durability, EntryId, ReadLimit, RegionId};
use std::thread;
use std::time::Duration;

const R: RegionId = RegionId(7);

#[test]
fn compression_is_of_the_batches_from_then_on_and_all_can_be_read() {
    let vfs = SimVfs::new(80);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    let written = |index| {
        let before = engine.stats().batch_bytes;
        let mut batch = engine.batch();
        batch.region(R).append([(EntryId::new(1, index), &[7; 8192][..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        engine.stats().batch_bytes - before
    };
    assert!(written(1) > 8192);
    engine.set_compression(Compression::Lz4 { min_batch_bytes: 4096 });
    assert!(written(2) < 1024);
    engine.set_compression(Compression::Lz4 { min_batch_bytes: 1 << 20 });
    assert!(written(3) > 8192);
    engine.set_compression(Compression::None);
    assert!(written(4) > 8192);
    let all = engine.region(R).entries(.., ReadLimit::NONE).unwrap();
    assert!(all.len() == 4 && all.iter().all(|e| e.payload[..] == [7; 8192]));
}

#[test]
fn a_stall_is_what_takes_longer_than_was_said_last() {
    let vfs = SimVfs::new(81);
    let engine = options(&vfs).stall_after(Duration::from_secs(3600)).open(DIR).unwrap();
    in_time("a disk that hangs", move || {
        begin(&engine);
        vfs.block_syncs();
        let other = engine.clone();
        let writer = thread::spawn(move || other.write(batch(&other, 1, 1, 10), Durability::Synced).unwrap());
        vfs.wait_for_syncs(1);
        assert_eq!(engine.stats().stalls, 0);
        engine.set_stall_after(Duration::ZERO);
        assert!(engine.stats().stalls > 0);
        engine.set_stall_after(Duration::MAX);
        assert_eq!(engine.stats().stalls, 0);
        vfs.release_syncs();
        writer.join().unwrap();
        assert_eq!(engine.stats().stalls_ended, 0);
    });
}
