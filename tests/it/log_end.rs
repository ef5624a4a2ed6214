//! What is gone past the end of a log that was not closed, or with the end of one of its files.
//!
//! A sector that could not be read anywhere past the last record refused the store, and so did a file of the
//! log that was a byte too short: nobody could say that nothing acknowledged had stood there. But records
//! stand side by side: the bytes in which the next one's header would be say it.

use crate::support::engines::{DIR, by_hand, kill};
use crate::support::files::of_kind;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, EntryId, ErrorKind, Lsn, RegionId, Result};
use std::path::{Path, PathBuf};

const R: RegionId = RegionId(1);
/// Of a header.
const HEADER: u64 = 64;

fn payload(index: u64, len: usize) -> Vec<u8> {
    vec![index as u8 | 1; len]
}

/// So many acknowledged batches of an entry of `len` bytes, and the process dies. Also where the log ends.
fn killed(batches: u64, len: usize, idle: bool) -> (SimVfs, Lsn) {
    let disk = SimVfs::new(batches);
    let engine = by_hand(&disk).open(DIR).unwrap();
    (1..=batches).for_each(|index| append(&engine, index, len));
    if idle {
        engine.tick().unwrap();
        engine.tick().unwrap();
    }
    let end = engine.stats().accepted;
    let after = disk.crash(LossPolicy::KeepAll);
    kill(&disk, engine);
    after.settle();
    (after, end)
}

fn append(engine: &Engine, index: u64, len: usize) {
    let mut batch = engine.batch();
    let payload = payload(index, len);
    batch.region(R).append([(EntryId::new(1, index), &payload[..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
}

/// The entries that cannot be read; every other one is there.
fn named(engine: &Engine, batches: u64, len: usize, what: &str) -> Vec<u64> {
    let region = engine.region(R);
    assert_eq!(region.state().last, batches, "{what}: acknowledged entries are gone");
    let is_gone = |index: &u64| match region.entry(*index) {
        Ok(entry) => {
            assert_eq!(entry.payload, payload(*index, len), "{what}: entry {index}");
            false
        }
        Err(e) => {
            assert_eq!((e.kind(), e.entries()), (ErrorKind::Damaged, Some(*index..=*index)), "{what}: {e}");
            true
        }
    };
    (1..=batches).filter(is_gone).collect()
}

fn log(end: Lsn) -> PathBuf {
    Path::new(DIR).join(format!("{:010}.log", end.segment()))
}

fn len_of(disk: &SimVfs, path: &Path) -> u64 {
    disk.read_file(path).unwrap().len() as u64
}

/// It opens, nothing is lost, and it goes on; or it is refused, which changes nothing.
fn look(disk: &SimVfs, batches: u64, len: usize, what: &str) -> Result<Vec<u64>> {
    let found = by_hand(disk).open_read_only(DIR).map(drop);
    let engine = match by_hand(disk).open(DIR) {
        Ok(engine) => engine,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Damaged, "{what}: {e}");
            return Err(e);
        }
    };
    found.unwrap_or_else(|e| panic!("{what}: refused for reading: {e}"));
    let gone = named(&engine, batches, len, what);
    append(&engine, batches + 1, len);
    let after = disk.crash(LossPolicy::KeepAll);
    kill(disk, engine);
    let engine = by_hand(&after).open(DIR).unwrap_or_else(|e| panic!("{what}, again: {e}"));
    assert_eq!(named(&engine, batches + 1, len, what), gone, "{what}, again");
    Ok(gone)
}

fn harmed(disk: &SimVfs, harm: impl Fn(&SimVfs)) -> SimVfs {
    let harmed = disk.crash(LossPolicy::KeepAll);
    harm(&harmed);
    harmed
}

#[test]
fn a_sector_that_cannot_be_read_past_the_end_affects_no_entry() {
    let mut tried = 0;
    for (batches, len, idle) in [(1, 20, false), (3, 700, true), (5, 1111, false), (9, 9000, true)] {
        let (disk, end) = killed(batches, len, idle);
        for path in of_kind(&disk, "log") {
            // In files that are prepared for later nothing stands at all.
            let is_last = path == log(end);
            let from = if is_last { u64::from(end.offset()) } else { 4096 };
            let next = (from + HEADER).div_ceil(512);
            for sector in (next..len_of(&disk, &path) / 512).step_by(7) {
                if !is_last && path < log(end) {
                    continue;
                }
                let what = format!("{batches} of {len}: {} sector {sector}", path.display());
                let bad = harmed(&disk, |d| d.add_bad_sector(&path, sector).unwrap());
                let gone = look(&bad, batches, len, &what).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(gone.is_empty(), "{what}: {gone:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 50, "{tried}");
}

/// Whatever sector it is, of a store that died right after its last acknowledgement: that batch may have
/// stood in it alone.
#[test]
fn no_sector_that_cannot_be_read_hides_what_was_acknowledged() {
    let mut refused = 0;
    for (batches, len) in [(1, 20), (2, 300), (3, 150), (4, 429), (7, 1500)] {
        let (disk, end) = killed(batches, len, false);
        let (path, last) = (log(end), u64::from(end.offset()));
        for sector in 8..=last.div_ceil(512) {
            let what = format!("{batches} of {len}: sector {sector}");
            let bad = harmed(&disk, |d| d.add_bad_sector(&path, sector).unwrap());
            refused += u64::from(look(&bad, batches, len, &what).is_err());
        }
        // Also where the next header would stand: that it never did is not to be seen.
        let bad = harmed(&disk, |d| d.add_bad_sector(&path, last / 512).unwrap());
        assert!(by_hand(&bad).open(DIR).is_err(), "{batches} of {len}");
        assert!(by_hand(&bad).open_read_only(DIR).is_err(), "{batches} of {len}, for reading");
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_file_of_the_log_that_is_cut_past_the_end_affects_no_entry_and_never_hides_what_was_acknowledged() {
    let (mut opened, mut refused) = (0, 0);
    for (batches, len, idle) in [(1, 20, false), (3, 700, true), (5, 1111, false), (6, 333, true)] {
        let (disk, end) = killed(batches, len, idle);
        let (path, end) = (log(end), u64::from(end.offset()));
        let near =
            [end - len as u64, end - 9, end - 1, end, end + 1, end + HEADER - 1, end + HEADER, end + 512];
        for cut in near.into_iter().chain((4096..len_of(&disk, &path)).step_by(4096)) {
            let what = format!("{batches} of {len}: cut to {cut}, the log ends at {end}");
            let short = harmed(&disk, |d| d.set_file_len(&path, cut).unwrap());
            match look(&short, batches, len, &what) {
                Ok(gone) => {
                    assert!(gone.is_empty() && cut >= end + HEADER, "{what}: {gone:?}");
                    opened += 1;
                }
                Err(e) => {
                    assert!(cut < end + HEADER, "{what}: {e}");
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > 20 && refused > 20, "{opened} {refused}");
}

/// A segment that is replayed and has its footer is read by that.
#[test]
fn a_full_segment_that_is_cut_costs_the_entries_past_the_cut() {
    const BATCHES: u64 = 12;
    const LEN: usize = 20 << 10;
    let (disk, end) = killed(BATCHES, LEN, true);
    let sealed = of_kind(&disk, "log").into_iter().filter(|p| p.with_extension("foot") < log(end));
    let sealed: Vec<PathBuf> = sealed.filter(|p| disk.read_file(p.with_extension("foot")).is_ok()).collect();
    assert!(!sealed.is_empty());
    let mut named_in_all = 0;
    for path in &sealed {
        let mut fewer = BATCHES as usize;
        for cut in (8192..len_of(&disk, path)).step_by(8192) {
            let what = format!("{} cut to {cut}", path.display());
            let short = harmed(&disk, |d| d.set_file_len(path, cut).unwrap());
            let gone = look(&short, BATCHES, LEN, &what).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(gone.len() <= fewer, "{what}: {gone:?}");
            fewer = gone.len();
            named_in_all += gone.len();
        }
    }
    assert!(named_in_all > 5, "{named_in_all}");
}
