//! Rot in what holds the entries is found while it affects no entry, and made good before it does.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::files::{self, RECORD_HEADER, Record, is_a, newest, of_kind, remove_all, ruin};
use crate::support::heard::Heard;
use crate::support::threads::in_time;
use crate::support::two_regions::*;
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Background, Durability, Engine, EntryId, ErrorKind, Event, Health, Purge, ReadLimit, ReadMode, RegionId,
    ScrubOptions, ScrubReport,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn scrub(engine: &Engine) -> ScrubReport {
    engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap()
}

/// The records of the fixture's segment: one entry each.
fn records(f: &Fixture) -> Vec<Record> {
    let found = files::records(&f.vfs.read_file("/db/0000000001.log").unwrap());
    assert!(found.len() >= 16);
    found
}

#[track_caller]
fn all_whole(engine: &Engine) {
    for region in [R, OTHER] {
        is_whole(engine, region, 1..=8);
        assert_eq!(engine.region(region).health(), Health::Healthy);
    }
}

/// After a power cut, after a clean close, and with all footers gone.
#[track_caller]
fn survives(f: &Fixture, engine: Engine) {
    all_whole(&of_run(&f.vfs.crash(LossPolicy::LoseAll), 50).open(DIR).unwrap());
    engine.close().unwrap();
    drop(engine);
    remove_all(&f.vfs, "foot");
    let engine = of_run(&f.vfs, 51).open(DIR).unwrap();
    assert!(engine.open_report().damage.is_empty(), "{:?}", engine.open_report());
    all_whole(&engine);
    assert!(scrub(&engine).rot.is_empty());
}

#[test]
fn a_scrub_moves_what_lives_out_of_a_segment_with_a_rotten_description() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let at = records(&f)[3].at;
    ruin(&f.vfs, "/db/0000000001.log", at + RECORD_HEADER, 5);
    let report = scrub(&engine);
    assert_eq!((report.rot.len(), report.damage.len(), report.segments_moved), (1, 0, 1), "{report:?}");
    assert_eq!((report.rot[0].kind(), report.rot[0].offset()), (ErrorKind::Damaged, Some(at)));
    assert!(report.rot[0].path().unwrap().ends_with("0000000001.log"));
    assert_eq!((report.entries, f.heard()), (16, 1));
    all_whole(&engine);
    engine.tick().unwrap();
    assert!(!f.vfs.list().iter().any(|(p, _)| p.ends_with("0000000001.log")), "its file is given back");
    assert!(scrub(&engine).rot.is_empty());
    survives(&f, engine);
}

#[test]
fn rot_anywhere_in_a_header_or_description_of_the_active_segment_is_made_good_by_a_scrub() {
    let places = {
        let mut f = Fixture::new();
        let engine = f.active();
        let places: Vec<u64> =
            records(&f).iter().flat_map(|r| r.at..r.at + RECORD_HEADER + r.description - 4).collect();
        drop(engine);
        places
    };
    let mut refused = 0;
    for at in places.into_iter().step_by(7) {
        let mut f = Fixture::new();
        let engine = f.active();
        ruin(&f.vfs, "/db/0000000001.log", at, 5);
        f.vfs.settle();
        // Without the scrub the store would not open, or the last batch would be in doubt.
        let unscrubbed = of_run(&f.vfs.crash(LossPolicy::LoseAll), 50).open(DIR);
        refused += usize::from(unscrubbed.is_err());
        let report = scrub(&engine);
        assert!(!report.rot.is_empty() && report.damage.is_empty(), "{at}: {report:?}");
        assert_eq!((report.segments_moved, report.checkpoints_written), (1, 3), "{at}");
        all_whole(&engine);
        survives(&f, engine);
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_rotten_copy_of_a_segments_header_is_found() {
    for copy in [0, (64 << 10) - 4096] {
        let mut f = Fixture::new();
        let engine = f.sealed();
        ruin(&f.vfs, "/db/0000000001.log", copy + 40, 5);
        let report = scrub(&engine);
        assert_eq!((report.rot.len(), report.rot[0].offset()), (1, Some(copy)), "{report:?}");
        survives(&f, engine);
    }
}

#[test]
fn a_bad_sector_among_descriptions_is_rot_and_not_the_end_of_the_scrub() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    f.vfs.add_bad_sector("/db/0000000001.log", 8).unwrap();
    let report = scrub(&engine);
    assert!(!report.rot.is_empty(), "{report:?}");
    // The entries of that sector cannot be read now, the others were moved.
    assert!(!report.damage.is_empty());
    assert_eq!(report.entries as usize + report.damage.len(), 16);
    is_whole(&engine, OTHER, 5..=8);
}

#[test]
fn a_rotten_checkpoint_is_replaced_by_good_ones() {
    for newest in [true, false] {
        let mut f = Fixture::new();
        let engine = f.sealed();
        let mut checkpoints = of_kind(&f.vfs, "ckpt");
        let path = if newest { checkpoints.pop().unwrap() } else { checkpoints.remove(0) };
        ruin(&f.vfs, &path, 150, 5);
        let report = scrub(&engine);
        assert_eq!((report.rot.len(), report.checkpoints_written), (1, 3), "{report:?}");
        assert_eq!(report.rot[0].path(), Some(path.as_path()));
        assert!(scrub(&engine).rot.is_empty());
        let after = of_run(&f.vfs.crash(LossPolicy::LoseAll), 50).open(DIR).unwrap();
        assert_eq!(after.open_report().bad_checkpoints, 0);
        survives(&f, engine);
    }
}

#[test]
fn a_damaged_entry_stays_in_its_rotten_segment_and_can_still_be_repaired() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let at = records(&f)[3].at;
    ruin(&f.vfs, "/db/0000000001.log", at + RECORD_HEADER, 5);
    f.rot(R, 6);
    let report = scrub(&engine);
    assert_eq!((report.rot.len(), report.damage.len()), (1, 1), "{report:?}");
    assert_eq!(damaged(&engine, R), [6..=6]);
    is_whole(&engine, R, 1..=5);
    is_whole(&engine, R, 7..=8);
    is_whole(&engine, OTHER, 1..=8);
    // Nothing more can be done: another scrub does not write the same checkpoints forever.
    let again = scrub(&engine);
    assert_eq!((again.rot.len(), again.segments_moved, again.checkpoints_written), (1, 0, 0), "{again:?}");
    engine.region(R).repair(EntryId::new(term(6), 6), &payload(R, 6)).unwrap();
    all_whole(&engine);
    scrub(&engine);
    survives(&f, engine);
}

#[test]
fn a_scrub_of_a_store_that_stopped_writing_reports_and_changes_nothing() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let at = records(&f)[3].at;
    ruin(&f.vfs, "/db/0000000001.log", at + RECORD_HEADER, 5);
    f.vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log"));
    engine.sync().ok();
    let mut batch = engine.batch();
    batch.region(R).put(b"k", b"v").unwrap();
    assert_eq!(engine.write(batch, raftwood::Durability::Synced).unwrap_err().kind(), ErrorKind::Poisoned);
    let before = f.vfs.list();
    let report = scrub(&engine);
    assert_eq!((report.rot.len(), report.segments_moved, report.checkpoints_written), (1, 0, 0));
    assert_eq!(f.vfs.list(), before);
    assert!(engine.region(R).entries(.., ReadLimit::NONE).is_ok());
}

#[test]
fn a_store_is_scrubbed_in_the_background_again_and_again_until_it_is_closed() {
    let mut f = Fixture::new();
    f.sealed().close().unwrap();
    let ends = Heard::new(|event| match event {
        Event::Scrubbed { entries, damaged, mended, .. } => Some((*entries, *damaged, *mended)),
        _ => None,
    });
    let every = ScrubOptions::default().rate_bytes(0);
    let engine = of_run(&f.vfs, 60)
        .background(Background::Threads)
        .scrub_every(Duration::from_millis(5), every)
        .listener(ends.clone())
        .open(DIR)
        .unwrap();
    assert_eq!(ends.next(), (16, 0, 0));
    f.rot(R, 3);
    while ends.next() != (15, 1, 0) {}
    assert_eq!(damaged(&engine, R), [3..=3]);
    engine.region(R).repair(EntryId::new(term(3), 3), &payload(R, 3)).unwrap();
    while ends.next() != (16, 0, 0) {}
    engine.close().unwrap();
    let after = ends.count();
    assert_eq!(engine.scrub(&ScrubOptions::default()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ends.count(), after);
}

#[test]
fn how_often_a_running_engine_scrubs_can_be_changed() {
    for from_the_start in [Some(Duration::from_secs(86400)), None] {
        let mut f = Fixture::new();
        f.sealed().close().unwrap();
        let ends = Heard::new(|event| matches!(event, Event::Scrubbed { .. }).then_some(()));
        let mut options = of_run(&f.vfs, 60).background(Background::Threads).listener(ends.clone());
        if let Some(pause) = from_the_start {
            options = options.scrub_every(pause, ScrubOptions::default());
        }
        let engine = options.open(DIR).unwrap();
        let three_end = |ends: &Arc<Heard<()>>| {
            let ends = ends.clone();
            in_time("three scrubs", move || (0..3).for_each(|_| ends.next()));
        };
        assert_eq!(ends.count(), 0);
        engine.set_scrub_every(Some(Duration::from_millis(1))).unwrap();
        three_end(&ends);
        engine.set_scrub_every(None).unwrap();
        engine.set_scrub_every(Some(Duration::ZERO)).unwrap();
        three_end(&ends);
        engine.set_scrub_every(None).unwrap();
        engine.close().unwrap();
        assert_eq!(engine.set_scrub_every(None).unwrap_err().kind(), ErrorKind::Closed);
    }
}

/// The thread might not have begun when the store was closed, and the test could not fail; so it
/// waits until the scrub reads.
#[test]
fn a_slow_scrub_does_not_hold_up_a_close() {
    for by_hand in [false, true] {
        let mut f = Fixture::new();
        f.sealed().close().unwrap();
        // At this rate it would take hours.
        let rate = ScrubOptions::default().rate_bytes(1);
        let every = if by_hand { Duration::from_secs(3600) } else { Duration::ZERO };
        let engine =
            of_run(&f.vfs, 60).background(Background::Threads).scrub_every(every, rate).open(DIR).unwrap();
        let reads = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = reads.clone();
        f.vfs.set_hook(Some(Arc::new(move |op| {
            if op.kind == OpKind::Read {
                seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        })));
        let scrubber = by_hand.then(|| {
            let engine = engine.clone();
            std::thread::spawn(move || engine.scrub(&rate).map(drop).map_err(|e| e.kind()))
        });
        while reads.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // It sleeps: a purge that needs the turn of upkeep does not wait for it.
        std::thread::sleep(Duration::from_millis(30));
        let begun = Instant::now();
        engine.purge().unwrap();
        let read = reads.load(std::sync::atomic::Ordering::Relaxed);
        engine.close().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        if let Some(scrubber) = scrubber {
            assert_eq!(scrubber.join().unwrap(), Err(ErrorKind::Closed));
        }
        assert!(reads.load(std::sync::atomic::Ordering::Relaxed) < read + 100, "it reads on without a limit");
        f.vfs.set_hook(None);
        drop(engine);
        all_whole(&of_run(&f.vfs, 61).open(DIR).unwrap());
    }
}

/// The cleaner slept its rate with the lock of all upkeep in its hands: a close or a purge waited
/// for it, 16 seconds and more.
#[test]
fn a_slow_cleaner_holds_up_neither_a_purge_nor_a_checkpoint_nor_a_close() {
    let vfs = SimVfs::new(70);
    let cleans = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let engine = of_run(&vfs, 70)
        .background(Background::Threads)
        .segment_bytes(4 << 20)
        // The slowest there is, and seconds to copy.
        .purge(Purge::default().background(true).garbage_percent_max(10).rate_bytes(1 << 20))
        .open(DIR)
        .unwrap();
    let seen = cleans.clone();
    vfs.set_hook(Some(Arc::new(move |op| {
        // Of what has a temporary name, only the cleaner's copy is given its length first.
        if op.kind == OpKind::Allocate && is_a(&op.path, "tmp") {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    })));
    let big = vec![7u8; 100 << 10];
    let write = |index: u64| {
        let mut b = engine.batch();
        for region in 1..=4 {
            b.region(RegionId(region)).append([(EntryId::new(1, index), &big[..])]).unwrap();
        }
        // Three of four are garbage at once.
        if index > 1 {
            for region in 1..=2 {
                b.region(RegionId(region)).compact_through(index - 1).unwrap();
            }
        }
        engine.write(b, Durability::Written).unwrap();
    };
    let mut index = 0;
    while cleans.load(std::sync::atomic::Ordering::Relaxed) == 0 && index < 400 {
        index += 1;
        write(index);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(index < 400, "the cleaner never began");
    let begun = Instant::now();
    engine.backup("/copy").unwrap();
    assert!(begun.elapsed() < Duration::from_millis(800), "a backup: {:?}", begun.elapsed());
    engine.purge().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "a purge: {:?}", begun.elapsed());
    for more in index + 1..index + 40 {
        write(more);
    }
    std::thread::sleep(Duration::from_millis(150));
    let begun = Instant::now();
    engine.close().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "a close: {:?}", begun.elapsed());
    assert_eq!(engine.purge().unwrap_err().kind(), ErrorKind::Closed);
    vfs.set_hook(None);
    drop(engine);
    let temporary = vfs.list().into_iter().filter(|(p, _)| p.starts_with(DIR) && is_a(p, "tmp"));
    assert_eq!(temporary.count(), 0, "nothing is left half done");
    let engine = of_run(&vfs, 71).open(DIR).unwrap();
    assert_eq!(engine.region(RegionId(4)).entries(.., ReadLimit::NONE).unwrap().len() as u64, index + 39);
}

/// The rows of the fixture's sealed segments as the store is opened without its newest
/// checkpoint: all of them are replayed.
#[test]
fn a_sealed_segment_is_replayed_from_its_footer_whatever_is_wrong_with_its_records() {
    for at in [4096, 4096 + RECORD_HEADER, 4096 + 600] {
        let mut f = Fixture::new();
        f.sealed().close().unwrap();
        ruin(&f.vfs, newest(&f.vfs, "ckpt"), 150, 5);
        ruin(&f.vfs, "/db/0000000001.log", at, 5);
        let engine = of_run(&f.vfs, 50).open(DIR).unwrap();
        assert_eq!(engine.open_report().bad_checkpoints, 1);
        let whole = |region| engine.region(region).entries(.., ReadLimit::NONE).is_ok();
        assert!(whole(R) || at == 4096 + 600, "{at}");
        assert!(whole(OTHER), "{at}");
    }
}

#[test]
fn a_missing_segment_is_missed_also_before_one_whose_first_record_is_unreadable() {
    let mut f = Fixture::new();
    let engine = f.active();
    kill(&f.vfs, engine);
    // Three segments that one checkpoint does not know of; the second one has a vote that nothing else has.
    for life in 0..2 {
        let engine = f.open();
        let mut batch = engine.batch();
        batch.region(R).set_hard_state(format!("vote {life}").as_bytes()).unwrap();
        engine.write(batch, raftwood::Durability::Synced).unwrap();
        engine.tick().unwrap();
        kill(&f.vfs, engine);
    }
    let engine = f.open();
    engine.tick().unwrap();
    kill(&f.vfs, engine);
    f.vfs.settle();
    let logs = of_kind(&f.vfs, "log");
    assert!(logs.len() >= 3, "{logs:?}");
    ruin(&f.vfs, &logs[2], 4096, 5);
    let whole = of_run(&f.vfs.crash(LossPolicy::KeepAll), 50).open(DIR).unwrap();
    assert_eq!(whole.region(R).hard_state().as_deref(), Some(&b"vote 1"[..]));
    f.vfs.remove_file(&logs[1]).unwrap();
    f.vfs.remove_file(logs[1].with_extension("foot")).unwrap();
    let error = of_run(&f.vfs, 51).open(DIR).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

/// A footer that the device could not read killed the process in one read mode and the other, by a look
/// through its mapping.
#[test]
fn bad_sectors_anywhere_in_a_footer_are_a_missing_footer() {
    [ReadMode::Map, ReadMode::Pread].into_iter().for_each(bad_sectors_in_a_footer);
}

fn bad_sectors_in_a_footer(mode: ReadMode) {
    let name = "/db/0000000001.foot";
    for sector in 0.. {
        // Met by the open, and by what comes after it.
        for before in [true, false] {
            let mut f = Fixture::new();
            f.sealed().close().unwrap();
            if sector * 512 >= f.vfs.read_file(name).unwrap().len() as u64 {
                assert!(sector > 1);
                return;
            }
            if before {
                f.vfs.add_bad_sector(name, sector).unwrap();
            }
            let engine = f.open_with(|o| o.read_mode(mode));
            if !before {
                f.vfs.add_bad_sector(name, sector).unwrap();
            }
            all_whole(&engine);
            let report = scrub(&engine);
            assert!(report.damage.is_empty() && report.rot.is_empty(), "{report:?}");
            all_whole(&engine);
        }
    }
}
