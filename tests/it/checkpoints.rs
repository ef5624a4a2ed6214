//! Three checkpoints are kept, and each of them is enough; and a log that is whole needs none.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::entries::{append, compact};
use crate::support::files::{is_a, newest, of_kind, remove_all, ruin};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, ErrorKind, Health, ReadLimit, RegionId};

/// Entries of a few regions, as text.
fn all(engine: &Engine) -> String {
    let regions = engine.regions();
    let of = |id: &RegionId| {
        let region = engine.region(*id);
        assert_eq!(region.health(), Health::Healthy);
        let read = region.entries(.., ReadLimit::NONE).unwrap();
        let ids: Vec<u64> = read.iter().map(|e| e.id.index).collect();
        assert!(read.iter().all(|e| e.payload.iter().all(|b| *b == e.id.index as u8)));
        format!("{id}: {:?} {ids:?}\n", region.state().base)
    };
    regions.iter().map(of).collect()
}

#[test]
fn the_newest_checkpoint_may_rot_after_a_purge_at_any_time() {
    let vfs = SimVfs::new(8);
    let engine = of_run(&vfs, 1).open(DIR).unwrap();
    let mut looked = 0;
    for round in 1..=6u64 {
        // Several segments' worth; a part of it stays.
        for index in (round - 1) * 12 + 1..=round * 12 {
            append(&engine, RegionId(1), index, 20 << 10).unwrap();
            append(&engine, RegionId(2 + index % 5), 1 + index / 5, 100).unwrap();
        }
        compact(&engine, RegionId(1), round * 12 - 1).unwrap();
        match round % 3 {
            0 => drop(engine.tick()),
            _ => drop(engine.purge().unwrap()),
        }
        let expected = all(&engine);
        let found = of_kind(&vfs, "ckpt");
        if found.len() < 2 {
            continue;
        }
        looked += 1;
        // Two or more flips, so that mending is out of the question.
        let cut = vfs.crash(LossPolicy::KeepAll);
        ruin(&cut, newest(&cut, "ckpt"), 130, 64);
        let after = of_run(&cut, 2).open(DIR).unwrap();
        assert_eq!(after.open_report().bad_checkpoints, 1);
        assert_eq!(all(&after), expected, "round {round}");
        // There are two good ones again: the next to rot may be the newest once more.
        kill(&cut, after);
        ruin(&cut, newest(&cut, "ckpt"), 130, 64);
        assert_eq!(all(&of_run(&cut, 3).open(DIR).unwrap()), expected, "round {round}, again");
    }
    assert!(looked >= 5, "{looked}");
}

/// Every checkpoint of a store was lost, and all of its log was there; the store did not open.
#[test]
fn a_whole_log_gives_back_a_store_that_has_lost_all_checkpoints() {
    for rotten in [false, true] {
        let vfs = SimVfs::new(9);
        let engine = of_run(&vfs, 1).open(DIR).unwrap();
        for index in 1..=20 {
            append(&engine, RegionId(1 + index % 3), 1 + index / 3, 10 << 10).unwrap();
            engine.tick().unwrap();
        }
        let mut batch = engine.batch();
        batch.region(RegionId(2)).destroy();
        batch.region(RegionId(1)).set_hard_state(b"vote").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        let expected = all(&engine);
        engine.close().unwrap();
        drop(engine);
        for path in of_kind(&vfs, "ckpt") {
            match rotten {
                true => ruin(&vfs, &path, 100, 64),
                false => vfs.remove_file(&path).unwrap(),
            }
        }
        for life in 2..4 {
            let engine = of_run(&vfs, life).open(DIR).unwrap();
            assert_eq!(all(&engine), expected);
            assert_eq!(engine.region(RegionId(1)).hard_state().as_deref(), Some(&b"vote"[..]));
            assert!(!of_kind(&vfs, "ckpt").is_empty());
            engine.close().unwrap();
        }
    }
}

/// Segments are given back in any order: a replay of what is left would bring back what was rolled back or
/// destroyed in one that is gone, and votes that were replaced there.
#[test]
fn without_a_checkpoint_a_log_with_a_gap_is_refused() {
    let vfs = SimVfs::new(10);
    let engine = of_run(&vfs, 1).open(DIR).unwrap();
    for index in 1..=12 {
        append(&engine, RegionId(1), index, 20 << 10).unwrap();
        engine.tick().unwrap();
    }
    kill(&vfs, engine);
    let logs = of_kind(&vfs, "log");
    remove_all(&vfs, "ckpt");
    for gone in &logs[..logs.len() - 2] {
        let harmed = vfs.crash(LossPolicy::KeepAll);
        harmed.remove_file(gone).unwrap();
        let refused = of_run(&harmed, 2).open(DIR).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Damaged, "without {}", gone.display());
    }
}

/// Both copies of a segment's header were lost with the blocks that hold them.
#[test]
fn a_segment_without_a_header_is_recognised_by_checkpoint_and_footer() {
    let vfs = SimVfs::new(11);
    let engine = of_run(&vfs, 1).open(DIR).unwrap();
    for index in 1..=6 {
        append(&engine, RegionId(1), index, 20 << 10).unwrap();
        engine.tick().unwrap();
    }
    let expected = all(&engine);
    engine.close().unwrap();
    drop(engine);
    let logs = vfs.list().into_iter().filter(|f| is_a(&f.0, "log"));
    let mut tried = 0;
    for (log, len) in logs {
        if vfs.read_file(&log).unwrap()[4096] == 0 {
            continue;
        }
        let harmed = vfs.crash(LossPolicy::KeepAll);
        for block in [0, len / 512 - 8] {
            (block..block + 8).for_each(|sector| harmed.zero_sector(&log, sector).unwrap());
        }
        assert_eq!(all(&of_run(&harmed, 2).open(DIR).unwrap()), expected, "{}", log.display());
        tried += 1;
    }
    assert!(tried >= 2);
}

/// A block with a segment's header held what stood there in an earlier generation of the file, whole and with
/// a right checksum: the device had lost the write. The other copy was right, and was not looked at: the
/// segment counted as another one's.
#[test]
fn a_stale_copy_of_a_segments_header_is_replaced_by_the_one_that_fits() {
    for close in [true, false] {
        let vfs = SimVfs::new(12);
        let engine = of_run(&vfs, 1).open(DIR).unwrap();
        for index in 1..=6 {
            append(&engine, RegionId(1), index, 20 << 10).unwrap();
            engine.tick().unwrap();
        }
        let expected = all(&engine);
        match close {
            true => engine.close().unwrap(),
            false => kill(&vfs, engine),
        }
        let logs = of_kind(&vfs, "log");
        assert!(logs.len() >= 2);
        for log in &logs {
            for other in logs.iter().filter(|other| *other != log) {
                let bytes = vfs.read_file(other).unwrap();
                for at in [0, bytes.len() - 4096] {
                    let harmed = vfs.crash(LossPolicy::KeepAll);
                    harmed.write_bytes(log, at as u64, &bytes[at..at + 4096]).unwrap();
                    let engine = of_run(&harmed, 2).open(DIR).unwrap();
                    assert_eq!(all(&engine), expected, "{} at {at}", log.display());
                    assert!(engine.open_report().damage.is_empty());
                    kill(&harmed, engine);
                }
            }
        }
    }
}
