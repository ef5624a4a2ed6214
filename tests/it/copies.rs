//! A sector or a block of the log that is lost costs the entries that stood in it, and nobody else anything:
//! what ties a batch to its regions stands twice.
//!
//! In a segment that had no footer yet, a description stood in one place. One lost sector of a killed store
//! stopped every region of it.

use crate::support::engines::{DIR, by_hand, kill};
use crate::support::files::of_kind;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, EntryId, ErrorKind, RegionId};
use std::path::PathBuf;

const REGIONS: u64 = 3;
/// What the entries of a batch are long, one of each region.
type Lens = [usize; REGIONS as usize];

/// A batch reaches over several sectors, and over the end of a block.
const LARGE: Lens = [700, 60, 1900];
/// Many batches stand in one block.
const SMALL: Lens = [20, 1, 40];

fn open(disk: &SimVfs) -> Engine {
    by_hand(disk).open(DIR).unwrap()
}

fn payload(lens: Lens, region: u64, index: u64) -> Vec<u8> {
    vec![(region * 50 + index) as u8 | 1; lens[region as usize - 1]]
}

/// An entry and a hard state in each region.
fn append(engine: &Engine, lens: Lens, index: u64, durability: Durability) {
    let mut batch = engine.batch();
    for region in 1..=REGIONS {
        let payload = payload(lens, region, index);
        let mut region = batch.region(RegionId(region));
        region.append([(EntryId::new(1, index), &payload[..])]).unwrap();
        region.set_hard_state(&index.to_le_bytes()).unwrap();
    }
    engine.write(batch, durability).unwrap();
}

/// So many batches, then the process dies: idle, or amidst its work.
fn killed(lens: Lens, batches: u64, idle: bool) -> SimVfs {
    let disk = SimVfs::new(batches);
    let engine = open(&disk);
    (1..=batches).for_each(|index| append(&engine, lens, index, Durability::Synced));
    if idle {
        engine.tick().unwrap();
        engine.tick().unwrap();
    }
    let after = disk.crash(LossPolicy::KeepAll);
    kill(&disk, engine);
    after.settle();
    after
}

/// What of the store is there: everything but entries that stood in `lost` bytes in one piece.
fn all_else_is_there(engine: &Engine, lens: Lens, batches: u64, lost: usize, what: &str) {
    let mut gone = [0; REGIONS as usize];
    for id in 1..=REGIONS {
        let region = engine.region(RegionId(id));
        let state = region.state();
        assert_eq!((state.first, state.last), (1, batches), "{what}: region {id}");
        let vote = region.hard_state_or_lost().unwrap();
        assert_eq!(vote.as_deref(), Some(&batches.to_le_bytes()[..]), "{what}: region {id}");
        for index in 1..=batches {
            match region.entry(index) {
                Ok(entry) => {
                    assert_eq!(entry.payload, payload(lens, id, index), "{what}: region {id}, entry {index}")
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Damaged, "{what}: {e}");
                    assert_eq!(
                        (e.region(), e.entries()),
                        (Some(RegionId(id)), Some(index..=index)),
                        "{what}: {e}"
                    );
                    gone[id as usize - 1] += lens[id as usize - 1];
                }
            }
        }
    }
    // The first and the last of them may reach beyond.
    let most = lost + 2 * lens.iter().max().unwrap();
    assert!(gone.iter().sum::<usize>() <= most, "{what}: {gone:?} bytes of entries are gone");
}

/// The sectors of the logs in which records stand, `per` at a time.
fn places(disk: &SimVfs, per: u64) -> Vec<(PathBuf, u64)> {
    let mut places = Vec::new();
    for log in of_kind(disk, "log") {
        let bytes = disk.read_file(&log).unwrap();
        let end = bytes[..bytes.len() - 4096].iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1);
        places.extend((4096 / 512 / per..end.div_ceil(512 * per)).map(|n| (log.clone(), n * per)));
    }
    places
}

fn harm(disk: &SimVfs, log: &PathBuf, sector: u64, per: u64, unreadable: bool) -> SimVfs {
    let harmed = disk.crash(LossPolicy::KeepAll);
    for sector in sector..sector + per {
        match unreadable {
            true => harmed.add_bad_sector(log, sector).unwrap(),
            false => harmed.zero_sector(log, sector).unwrap(),
        }
    }
    harmed
}

fn nothing_else_is_lost(disk: &SimVfs, lens: Lens, batches: u64, per: u64, unreadable: bool) -> usize {
    let mut all = places(disk, per);
    if unreadable {
        // The log ends in that one, and nobody knows what stands past the end.
        all.pop();
    }
    for (log, sector) in &all {
        let what = format!("{} batches, {} sector {sector}", batches, log.display());
        let harmed = harm(disk, log, *sector, per, unreadable);
        let engine = by_hand(&harmed).open(DIR).unwrap_or_else(|e| panic!("{what}: {e}"));
        all_else_is_there(&engine, lens, batches, per as usize * 512, &what);
        append(&engine, lens, batches + 1, Durability::Synced);
        // It is the same after the next kill, and after a close.
        let after = harmed.crash(LossPolicy::KeepAll);
        kill(&harmed, engine);
        let engine = by_hand(&after).open(DIR).unwrap_or_else(|e| panic!("{what}, again: {e}"));
        all_else_is_there(&engine, lens, batches + 1, per as usize * 512, &what);
        engine.close().unwrap();
        drop(engine);
        all_else_is_there(&open(&after), lens, batches + 1, per as usize * 512, &what);
    }
    all.len()
}

#[test]
fn a_lost_description_of_an_idle_store_affects_no_entry() {
    for batches in [1, 2, 9, 40] {
        let disk = killed(LARGE, batches, true);
        assert!(nothing_else_is_lost(&disk, LARGE, batches, 1, false) > batches as usize);
        nothing_else_is_lost(&disk, LARGE, batches, 8, false);
    }
}

#[test]
fn a_sector_of_an_idle_store_that_cannot_be_read_affects_no_entry() {
    nothing_else_is_lost(&killed(LARGE, 12, true), LARGE, 12, 1, true);
}

/// The run that recovers seals what the runs before left, before it rewrites the mark with their copies.
#[test]
fn a_store_that_only_recovered_has_two_of_everything() {
    for batches in [1, 9, 30] {
        let disk = killed(LARGE, batches, false);
        let engine = open(&disk);
        let after = disk.crash(LossPolicy::KeepAll);
        kill(&disk, engine);
        after.settle();
        nothing_else_is_lost(&after, LARGE, batches, 1, false);
        nothing_else_is_lost(&after, LARGE, batches, 8, false);
    }
}

/// Of the last batches, in so many `last` sectors, some stand in one place only: copies are written a KiB at
/// a time.
fn of_a_busy_store(lens: Lens, batches: u64, last: usize, per: u64) {
    let disk = killed(lens, batches, false);
    let all = places(&disk, per);
    let covered = all.len() - last / per as usize;
    assert!(covered > last / per as usize, "{covered} of {} places", all.len());
    for (log, sector) in &all[..covered] {
        let what = format!("{batches} batches, {} sector {sector}", log.display());
        let harmed = harm(&disk, log, *sector, per, false);
        let engine = by_hand(&harmed).open(DIR).unwrap_or_else(|e| panic!("{what}: {e}"));
        all_else_is_there(&engine, lens, batches, per as usize * 512, &what);
    }
}

#[test]
fn a_lost_description_of_a_busy_store_affects_no_entry() {
    of_a_busy_store(LARGE, 40, 80, 1);
    of_a_busy_store(LARGE, 60, 80, 1);
}

#[test]
fn a_lost_block_of_a_busy_store_affects_no_entry() {
    of_a_busy_store(LARGE, 60, 80, 8);
    of_a_busy_store(SMALL, 200, 24, 8);
}

/// Copies go along with what is written anyway. Where nobody waits for a sync, they ask for none.
#[test]
fn copies_of_what_is_only_written_ask_for_no_sync() {
    let engine = open(&SimVfs::new(1));
    append(&engine, SMALL, 1, Durability::Synced);
    let syncs = engine.stats().syncs;
    // In one segment: the end of one is synced.
    (2..=100).for_each(|index| append(&engine, SMALL, index, Durability::Written));
    // Whatever is due is done.
    engine.tick().unwrap();
    assert_eq!(engine.stats().syncs, syncs);
}

/// What is in flight is bounded: were lists counted for good, writers would come to wait forever.
#[test]
fn copies_are_in_flight_no_more_once_they_are_written() {
    for durability in [Durability::Synced, Durability::Written] {
        let engine = open(&SimVfs::new(1));
        (1..=100).for_each(|index| append(&engine, SMALL, index, durability));
        engine.tick().unwrap();
        assert_eq!(engine.stats().in_flight_bytes, 0, "{durability:?}");
    }
}

/// The open that a copy was needed for is killed too, and the marks are rewritten: what the copies held
/// is in the footer by then.
#[test]
fn what_copies_made_good_survives_the_next_kill() {
    let disk = killed(LARGE, 9, true);
    for (log, sector) in places(&disk, 1) {
        let mut harmed = harm(&disk, &log, sector, 1, false);
        for _ in 0..3 {
            let engine = open(&harmed);
            all_else_is_there(&engine, LARGE, 9, 512, &format!("{} sector {sector}", log.display()));
            let mut batch = engine.batch();
            batch.region(RegionId(9)).set_hard_state(b"of another region").unwrap();
            engine.write(batch, Durability::Synced).unwrap();
            engine.tick().unwrap();
            engine.tick().unwrap();
            let after = harmed.crash(LossPolicy::LoseAll);
            kill(&harmed, engine);
            harmed = after;
        }
    }
}
