//! Two processes and one directory: the test runs itself again as the second one.

use crate::support::entries::append;
use crate::support::process::{role, second_process, with_descriptors_max};
use raftwood::{Durability, Engine, EntryId, ErrorKind, Options, ReadMode, RegionId, ScrubOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write_one(engine: &Engine, index: u64) {
    let mut b = engine.batch();
    b.region(RegionId(1)).append([(EntryId::new(1, index), &b"one"[..])]).unwrap();
    engine.write(b, Durability::Synced).unwrap();
}

#[test]
fn a_second_process_is_locked_out_before_it_creates_anything() {
    if let Some(dir) = role() {
        assert_eq!(Engine::open(dir).unwrap_err().kind(), ErrorKind::Locked);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().background(raftwood::Background::Manual);
    let engine = options.open(dir.path()).unwrap();
    write_one(&engine, 1);
    let before = names(dir.path());
    second_process(
        "two_processes::a_second_process_is_locked_out_before_it_creates_anything",
        "writer",
        dir.path(),
    );
    assert_eq!(names(dir.path()), before);
    write_one(&engine, 2);
}

#[test]
fn a_lock_is_released_with_the_process_that_held_it() {
    if let Some(dir) = role() {
        let engine = Engine::open(dir).unwrap();
        write_one(&engine, 1);
        // As abrupt as it gets without a signal: nothing is dropped.
        std::process::exit(0);
    }
    let dir = tempfile::tempdir().unwrap();
    second_process("two_processes::a_lock_is_released_with_the_process_that_held_it", "writer", dir.path());
    let engine = Engine::open(dir.path()).unwrap();
    assert_eq!(engine.region(RegionId(1)).last_index(), 1);
    write_one(&engine, 2);
}

#[test]
fn a_read_only_reader_is_let_in_and_changes_nothing() {
    if let Some(dir) = role() {
        let reader = Options::new().open_read_only(&dir).unwrap();
        assert_eq!(reader.regions().len(), 1);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().background(raftwood::Background::Manual);
    let engine = options.open(dir.path()).unwrap();
    write_one(&engine, 1);
    engine.sync().unwrap();
    let before = names(dir.path());
    second_process("two_processes::a_read_only_reader_is_let_in_and_changes_nothing", "reader", dir.path());
    assert_eq!(names(dir.path()), before);
    write_one(&engine, 2);
}

/// One look in twenty at a store whose engine was purging met a segment or checkpoint that was gone since the
/// names were listed, and called the store damaged.
#[test]
fn a_reader_beside_a_purge_is_never_told_of_damage() {
    // Without mappings, a file that is looked at once more is opened by its name again.
    [ReadMode::Map, ReadMode::Pread].into_iter().for_each(reader_beside_a_purge);
}

fn reader_beside_a_purge(mode: ReadMode) {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().segment_bytes(64 << 10).read_mode(mode);
    let engine = options().open(dir.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (engine, stop) = (engine.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let (region, index) = (RegionId(n % 8), n / 8 + 1);
                let mut b = engine.batch();
                b.region(region).append([(EntryId::new(1, index), &[7; 6000][..])]).unwrap();
                if index > 20 {
                    b.region(region).compact_through(index - 10).unwrap();
                }
                engine.write(b, if n % 10 == 0 { Durability::Synced } else { Durability::Written }).unwrap();
            }
        })
    };
    for look in 0..300 {
        let reader = options().open_read_only(dir.path());
        let reader = reader.unwrap_or_else(|e| panic!("{mode:?}, look {look}: {e:?}"));
        assert!(reader.report().damage.is_empty(), "look {look}: {:?}", reader.report().damage);
        if look % 10 == 0 {
            let checked = options().check(dir.path(), &ScrubOptions::default().rate_bytes(0), |_| {});
            let checked = checked.unwrap_or_else(|e| panic!("{mode:?}, check {look}: {e:?}"));
            assert!(checked.in_use && checked.is_clean(), "check {look}: {checked:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

/// A check that met a batch half written called it damage: its description was there, and its
/// payload not yet.
#[test]
fn a_check_beside_an_engine_judges_what_was_durable_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Options::new().background(raftwood::Background::Manual).open(dir.path()).unwrap();
    let payloads: Vec<Vec<u8>> = (1..=3u8).map(|n| vec![0xA0 + n; 5000]).collect();
    for (index, durability) in [(1, Durability::Synced), (2, Durability::Synced), (3, Durability::Written)] {
        let mut b = engine.batch();
        b.region(RegionId(1)).append([(EntryId::new(1, index), &payloads[index as usize - 1][..])]).unwrap();
        engine.write(b, durability).unwrap();
    }
    let log = dir.path().join("0000000001.log");
    let erase = |payload: &[u8]| {
        let mut bytes = std::fs::read(&log).unwrap();
        let at = bytes.windows(payload.len()).position(|w| w == payload).unwrap();
        bytes[at + 100..at + 200].fill(0);
        let mut file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&bytes[at..at + payload.len()]).unwrap();
    };
    let check = || Options::new().check(dir.path(), &ScrubOptions::default().rate_bytes(0), |_| {}).unwrap();
    erase(&payloads[2]);
    let report = check();
    assert!(report.in_use && report.is_clean(), "{report:?}");
    erase(&payloads[0]);
    let damaged: Vec<_> = check().damage.iter().map(|e| e.entries()).collect();
    assert_eq!(damaged, [Some(1..=1)]);
}

#[test]
fn a_reader_of_nothing_is_told_so_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Options::new().open_read_only(dir.path()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(names(dir.path()).is_empty());
}

fn write_large(engine: &Engine, index: u64) {
    append(engine, RegionId(1), index, 8000).unwrap();
}

/// Each sealed segment kept a descriptor: at the limit of the process neither a write nor a purge nor a
/// restart came through, and the application could not open a socket.
#[test]
#[cfg(target_os = "linux")]
fn a_small_limit_of_descriptors_is_enough_for_any_number_of_segments() {
    let options = |mode| Options::new().segment_bytes(64 << 10).read_mode(mode);
    if let Some(dir) = role() {
        for (mode, entries) in [(ReadMode::Map, 1..=700), (ReadMode::Pread, 701..=1000)] {
            let engine = options(mode).open(&dir).unwrap();
            entries.clone().for_each(|index| write_large(&engine, index));
            assert!(engine.stats().segments > 90);
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
            assert!(open < 80, "{open} descriptors");
            for index in 1..=*entries.end() {
                assert_eq!(engine.region(RegionId(1)).entry(index).unwrap().payload[0], index as u8);
            }
            let scrubbed = engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap();
            assert!(scrubbed.damage.is_empty() && scrubbed.rot.is_empty(), "{scrubbed:?}");
            engine.close().unwrap();
        }
        let engine = options(ReadMode::Map).open(&dir).unwrap();
        let mut b = engine.batch();
        b.region(RegionId(1)).compact_through(900).unwrap();
        engine.write(b, Durability::Synced).unwrap();
        assert!(engine.purge().unwrap().segments_freed > 50);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "two_processes::a_small_limit_of_descriptors_is_enough_for_any_number_of_segments";
    with_descriptors_max(test, "96", dir.path());
}

/// A block of a footer, or of a compressed segment, that could not be read killed the process that
/// looked at it through a mapping: at open, in the cleaner, in a scrub. A file that was cut does the
/// same to a mapping as a bad sector.
#[test]
#[cfg(target_os = "linux")]
fn upkeep_of_files_that_cannot_be_read_through_their_mapping_goes_on() {
    let options = || {
        Options::new()
            .segment_bytes(128 << 10)
            .compression(raftwood::Compression::Lz4 { min_batch_bytes: 16 })
    };
    if let Some(dir) = role() {
        let engine = options().open(&dir).unwrap();
        for index in 1..=400 {
            let mut b = engine.batch();
            let payload = format!("{index:08}").repeat(500);
            b.region(RegionId(1)).append([(EntryId::new(1, index), payload.as_bytes())]).unwrap();
            engine.write(b, Durability::Synced).unwrap();
        }
        engine.close().unwrap();
        let engine = options().open(&dir).unwrap();
        let cut = |end: &str| {
            let name = names(&dir).into_iter().find(|name| name.ends_with(end)).unwrap();
            std::fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap().set_len(0).unwrap();
        };
        cut(".foot");
        let scrubbed = engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap();
        assert_eq!((scrubbed.footers_rebuilt, scrubbed.entries, scrubbed.damage.len()), (1, 400, 0));
        cut(".log");
        let scrubbed = engine.scrub(&ScrubOptions::default().rate_bytes(0)).unwrap();
        assert_eq!((scrubbed.entries, scrubbed.damage.len()), (0, 400));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "two_processes::upkeep_of_files_that_cannot_be_read_through_their_mapping_goes_on";
    second_process(test, "upkeep", dir.path());
}
