//! What the engine keeps on the heap, counted byte by byte. It does not depend on the machine.
//!
//! Regions are many and most have little: so what one takes counts, and what an entry of it takes where
//! that is alone in its segment.

use crate::allocator::{alone, live, peak_during};
use raftwood::{
    Background, Durability, Engine, Entry, EntryId, Options, Pool, ReadLimit, ReadMode, RegionId,
};
use std::path::Path;

fn open(dir: &Path, segment_bytes: u64) -> Engine {
    let pool = Pool::default().prewrite(false);
    Options::new().segment_bytes(segment_bytes).pool(pool).background(Background::Manual).open(dir).unwrap()
}

/// Gives each region its entry `index`, and a hard state with the first.
fn append(engine: &Engine, regions: u64, index: u64) {
    for some in (0..regions).step_by(100) {
        let mut batch = engine.batch();
        for region in some..regions.min(some + 100) {
            let mut region = batch.region(RegionId(region));
            region.append([(EntryId::new(5, index), &[7; 100][..])]).unwrap();
            if index == 1 {
                region.set_hard_state(&[3; 24]).unwrap();
            }
        }
        engine.write(batch, Durability::Written).unwrap();
    }
}

/// Bytes for each of `n` since `before`.
fn each(before: i64, n: u64) -> f64 {
    (live() - before) as f64 / n as f64
}

/// A region took 410 bytes here, and 370 when the store was opened again.
#[test]
fn a_region_with_one_entry_and_a_hard_state_takes_few_bytes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let regions = 20_000;
    let before = live();
    let engine = open(dir.path(), 16 << 20);
    append(&engine, regions, 1);
    let unsealed = each(before, regions);
    engine.close().unwrap();
    drop(engine);
    let engine = open(dir.path(), 16 << 20);
    let sealed = each(before, regions);
    // The active segment's locations are on the heap, and its footer's tables are not there yet.
    assert!(unsealed <= 255.0, "{unsealed:.1} bytes a region whose segment is active");
    assert!(sealed <= 225.0, "{sealed:.1} bytes a region whose segment is sealed");
    assert_eq!(engine.stats().regions, regions);
}

/// Where each region has one entry in a segment, there is little that many entries could share: an entry
/// took 143 bytes, 56 of the region's list of extents, and 80 of the tables of its segment's footer. Later
/// that was 36 bytes, 24 of the list.
#[test]
fn an_entry_that_is_alone_in_its_segment_takes_few_bytes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (regions, rounds) = (2_000, 60);
    let before = live();
    let engine = open(dir.path(), 256 << 10);
    for index in 1..=rounds {
        append(&engine, regions, index);
        engine.tick().unwrap();
    }
    let bytes = each(before, regions * rounds);
    let segments = engine.stats().segments;
    assert!(segments * 4 > rounds * 3, "{segments} segments for {rounds} rounds");
    assert!(bytes <= 22.0, "{bytes:.1} bytes an entry");
}

/// A footer is built when the disk is done with its segment. An entry took 78 bytes until then, and building
/// the footer 524 more for each that the segment has (twice what it takes without debug assertions).
#[test]
fn an_entry_that_waits_for_its_footer_takes_few_bytes_and_so_does_building_that() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (regions, rounds) = (2_000, 30);
    let before = live();
    let engine = open(dir.path(), 256 << 10);
    (1..=rounds).for_each(|index| append(&engine, regions, index));
    let waiting = each(before, regions * rounds);
    let with = live();
    let segments = engine.stats().segments as i64;
    let building = peak_during(|| engine.tick().unwrap()) - with;
    let each_built = building as f64 / (regions * rounds) as f64 * segments as f64;
    assert!(waiting <= 54.0, "{waiting:.1} bytes an entry");
    assert!(each_built <= 480.0, "{each_built:.1} more while its footer is built");
}

/// A region that was destroyed was remembered until the segment in which that happened was full, and another
/// checkpoint due, which on an idle node is never.
#[test]
fn what_was_destroyed_leaves_the_heap_with_the_next_purge() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let regions = 20_000;
    let engine = open(dir.path(), 16 << 20);
    append(&engine, 1, 1);
    let before = (live(), engine.index_bytes());
    append(&engine, regions, 1);
    for some in (1..regions).step_by(100) {
        let mut batch = engine.batch();
        for region in some..regions.min(some + 100) {
            batch.region(RegionId(region)).destroy();
        }
        engine.write(batch, Durability::Written).unwrap();
    }
    engine.purge().unwrap();
    let (live, index) = (live() - before.0, engine.index_bytes());
    assert!(
        live < 128 << 10 && index < before.1 + 4096,
        "{live} bytes are left on the heap, {index} of them of the index"
    );
    assert_eq!((engine.stats().regions, engine.regions()), (1, vec![RegionId(0)]));
    engine.close().unwrap();
    drop(engine);
    let engine = open(dir.path(), 16 << 20);
    assert_eq!(engine.regions(), [RegionId(0)]);
    // They can come back, and are new.
    append(&engine, 3, 1);
    assert_eq!(engine.region(RegionId(2)).last_index(), 1);
}

/// Bytes of the files in `dir` that this process has mapped.
#[cfg(target_os = "linux")]
fn mapped(dir: &Path) -> i64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains(dir.to_str().unwrap()));
    let len = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some(i64::from_str_radix(to, 16).ok()? - i64::from_str_radix(from, 16).ok()?)
    };
    ours.map(|line| len(line).unwrap()).sum()
}

/// A cache of a few entries once held what they were read from.
#[test]
#[cfg(target_os = "linux")]
fn a_detached_entry_holds_its_own_bytes_and_no_buffer_and_no_mapping() {
    let _alone = alone();
    for mode in [ReadMode::Pread, ReadMode::Map] {
        let (before, dir) = (live(), tempfile::tempdir().unwrap());
        let pool = Pool::default().prewrite(false);
        let options = Options::new().segment_bytes(1 << 20).pool(pool).read_mode(mode);
        let engine = options.background(Background::Manual).open(dir.path()).unwrap();
        let region = RegionId(7);
        engine.append_next(region, vec![[7; 1000]; 500], Durability::Synced).unwrap();
        // Out of the files, and not out of the batch that was just written.
        engine.close().unwrap();
        drop(engine);
        let engine = Options::new().read_mode(mode).open(dir.path()).unwrap();
        let read = engine.region(region).entries(.., ReadLimit::NONE).unwrap();
        let few: Vec<Entry> = read.iter().step_by(100).cloned().collect();
        drop(read);
        engine.close().unwrap();
        drop(engine);
        let held = || live() - before + mapped(dir.path());
        let borrowed = held();
        let kept: Vec<Entry> = few.iter().map(Entry::detached).collect();
        assert_eq!(kept, few);
        drop(few);
        let own = held();
        assert!(borrowed > 400 << 10, "{mode:?}: {borrowed} bytes are held by what was read");
        assert!(own < 32 << 10, "{mode:?}: {own} bytes are held by what was detached");
    }
}
