//! A store that is opened again and again: nothing adds up, also on a full disk, and an error of the disk in
//! the middle of an open or a close loses nothing.
//!
//! `SWEEP=large` makes the runs on the real file system as many as those on the simulated disk.

use crate::support::engines::{DIR, kill};
use crate::support::entries;
use crate::support::model::{self, Kind, Writer};
use crate::support::oracle::{Named, compare, write_to_all};
use crate::support::process::ran_alone;
use raftwood::vfs::sim::{ENOSPC, EROFS, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Background, Durability, Engine, ErrorKind, Options, Pool, ReadLimit, RegionId, Result, WriteError,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const R: RegionId = RegionId(1);

/// What a run does between its open and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    Empty,
    OneVote,
    CompactsAllButOne,
    Killed,
    /// As the one before, and nothing was written.
    KilledEmpty,
    /// Killed after an upkeep that found nothing to do.
    KilledIdle,
    /// The power goes, and nothing stays but what was synced.
    CutOff,
    CutOffEmpty,
}

const RUNS: [Run; 8] = [
    Run::Empty,
    Run::OneVote,
    Run::CompactsAllButOne,
    Run::Killed,
    Run::KilledEmpty,
    Run::KilledIdle,
    Run::CutOff,
    Run::CutOffEmpty,
];

fn append(engine: &Engine, index: u64, len: usize) -> std::result::Result<(), WriteError> {
    entries::append(engine, R, index, len).map(drop)
}

fn compact(engine: &Engine, index: u64) -> std::result::Result<(), WriteError> {
    entries::compact(engine, R, index).map(drop)
}

fn vote(engine: &Engine, vote: u64) {
    entries::vote(engine, R, vote.to_le_bytes()).unwrap();
}

impl Run {
    /// One run; the last index and the last vote go up.
    fn act(self, engine: &Engine, number: u64, index: &mut u64) {
        if self.writes() {
            vote(engine, number);
        }
        if self == Run::CompactsAllButOne {
            for _ in 0..5 {
                *index += 1;
                append(engine, *index, 1000).unwrap();
            }
            compact(engine, *index - 1).unwrap();
        }
    }

    fn writes(self) -> bool {
        !matches!(self, Run::Empty | Run::KilledEmpty | Run::CutOffEmpty)
    }

    /// What a crash leaves of what was not synced; `None` for a run that is closed.
    fn crash(self) -> Option<LossPolicy> {
        match self {
            Run::Killed | Run::KilledEmpty | Run::KilledIdle => Some(LossPolicy::KeepAll),
            Run::CutOff | Run::CutOffEmpty => Some(LossPolicy::LoseAll),
            Run::Empty | Run::OneVote | Run::CompactsAllButOne => None,
        }
    }

    fn check(self, engine: &Engine, before: u64, index: u64) {
        let region = engine.region(R);
        let want = (self.writes() && before > 0).then(|| before.to_le_bytes().to_vec());
        assert_eq!(region.hard_state().map(|b| b.to_vec()), want, "{self:?}, run {before}");
        assert_eq!(region.last_index(), index, "{self:?}, run {before}");
    }
}

const FILES_MAX: usize = 30;
const BYTES_MAX: u64 = 64 << 20;

/// Files, and the bytes allocated for them.
fn usage(vfs: &SimVfs) -> (usize, u64) {
    (vfs.list().len(), vfs.allocated())
}

#[test]
fn a_thousand_restarts_leave_what_one_leaves() {
    let mut wrong = Vec::new();
    println!(
        "run                  files   MiB   descriptors first, last   calls of open first, last   time first, last"
    );
    for run in RUNS {
        let mut vfs = SimVfs::new(5);
        let mut index = 0;
        let mut first = None;
        let mut last = (0, 0, Duration::ZERO);
        let mut most = (0, 0);
        for number in 1..=1000u64 {
            let (ops, began) = (vfs.ops(), Instant::now());
            let engine = Options::new()
                .pool(Pool::default().prewrite(false))
                .background(Background::Manual)
                .vfs(Arc::new(vfs.clone()))
                .open(DIR)
                .unwrap();
            last = (vfs.open_handles(), vfs.ops() - ops, began.elapsed());
            // The first open makes the store: the second one is like the others.
            if number == 2 {
                first = Some(last);
            }
            run.check(&engine, number - 1, index);
            run.act(&engine, number, &mut index);
            if run == Run::KilledIdle {
                engine.tick().unwrap();
                engine.tick().unwrap();
            }
            match run.crash() {
                Some(policy) => {
                    let next = vfs.crash(policy);
                    kill(&vfs, engine);
                    vfs = next;
                }
                None => engine.close().unwrap(),
            }
            let now = usage(&vfs);
            most = (most.0.max(now.0), most.1.max(now.1));
            if now.0 > 4 * FILES_MAX {
                wrong.push(format!("{run:?}: {} files after {number} runs", now.0));
                break;
            }
        }
        let first = first.unwrap();
        println!(
            "{:20} {:5} {:5} {:>17}, {:<5} {:>19}, {:<5} {:>13} us, {} us",
            format!("{run:?}"),
            most.0,
            most.1 >> 20,
            first.0,
            last.0,
            first.1,
            last.1,
            first.2.as_micros(),
            last.2.as_micros()
        );
        if most.0 > FILES_MAX || most.1 > BYTES_MAX {
            wrong.push(format!("{run:?}: {} files, {} MiB", most.0, most.1 >> 20));
        }
        if last.0 > first.0 + 8 || last.1 > first.1 * 2 + 50 {
            wrong.push(format!("{run:?}: an open takes {last:?}, at first {first:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_open_and_close_without_a_write_leaves_the_directory_as_it_was() {
    // The first open makes the store, the second one finds it as each one after it does.
    let vfs = SimVfs::new(6);
    let mut digests = Vec::new();
    for number in 1..=6u64 {
        let engine = Kind::PLAIN.options(&vfs, number).open(DIR).unwrap();
        if number == 2 {
            append(&engine, 1, 2000).unwrap();
            vote(&engine, 1);
        }
        engine.close().unwrap();
        digests.push((number, vfs.list()));
    }
    let (_, wanted) = &digests[1];
    for (number, found) in &digests[2..] {
        assert_eq!(found, wanted, "after open {number}");
    }
}

#[test]
fn restarts_on_the_real_file_system_add_nothing_up() {
    // It counts the descriptors of the process.
    if ran_alone("restarts::restarts_on_the_real_file_system_add_nothing_up") {
        return;
    }
    let runs = if std::env::var("SWEEP").is_ok_and(|t| t == "large") { 1000 } else { 40 };
    let mut wrong = Vec::new();
    for run in [Run::Empty, Run::OneVote, Run::CompactsAllButOne, Run::Killed] {
        let dir = tempfile::tempdir().unwrap();
        let mut db = dir.path().join("0");
        let mut index = 0;
        let mut first = None;
        let mut last = (0, Duration::ZERO);
        for number in 1..=runs {
            let (open_before, began) = (descriptors(), Instant::now());
            let engine = Options::new().pool(Pool::default().prewrite(false)).open(&db).unwrap();
            last = (descriptors().saturating_sub(open_before), began.elapsed());
            if number == 2 {
                first = Some(last);
            }
            run.check(&engine, number - 1, index);
            run.act(&engine, number, &mut index);
            if run == Run::Killed {
                // As a kill leaves it: a copy of the files is taken while the engine runs, and opened next.
                let next = dir.path().join(number.to_string());
                copy(&db, &next);
                drop(engine);
                std::fs::remove_dir_all(&db).unwrap();
                db = next;
            } else {
                engine.close().unwrap();
            }
        }
        let (files, bytes) = du(&db);
        println!(
            "{run:?}: {runs} runs leave {files} files, {} MiB; descriptors and time of open {first:?}, {last:?}",
            bytes >> 20
        );
        if files > FILES_MAX || bytes > BYTES_MAX {
            wrong.push(format!("{run:?}: {files} files, {} MiB", bytes >> 20));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn du(dir: &Path) -> (usize, u64) {
    use std::os::unix::fs::MetadataExt;
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().metadata().unwrap().blocks() * 512);
    all.fold((0, 0), |(files, bytes), b| (files + 1, bytes + b))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        if let Err(e) = std::fs::copy(file.path(), to.join(file.file_name())) {
            // It got another name meanwhile.
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}");
        }
    }
}

// ------------------------------------------------------------------------------------------------- full disk

/// A disk that is full of one region's entries, but for this many bytes; the last index.
fn full_disk(segment_bytes: u64, left: u64, killed: bool) -> (SimVfs, u64) {
    let vfs = SimVfs::new(1);
    vfs.set_capacity(Some(if segment_bytes > 1 << 20 { 64 << 20 } else { 640 << 10 }));
    let engine = on_full(&vfs, segment_bytes).unwrap();
    engine.tick().unwrap();
    let len = if segment_bytes > 1 << 20 { 100_000 } else { 5000 };
    let mut last = 0;
    while append(&engine, last + 1, len).is_ok() {
        last += 1;
    }
    match killed {
        true => kill(&vfs, engine),
        false => drop(engine.close()),
    }
    vfs.settle();
    // Somebody else takes what is left.
    let used = usage(&vfs).1;
    vfs.set_capacity(Some(used + left));
    (vfs, last)
}

fn on_full(vfs: &SimVfs, segment_bytes: u64) -> Result<Engine> {
    Options::new()
        .segment_bytes(segment_bytes)
        .pool(Pool::default().prewrite(false))
        .background(Background::Manual)
        .vfs(Arc::new(vfs.clone()))
        .open(DIR)
}

#[test]
fn ten_restarts_on_a_full_disk_and_the_way_out() {
    // The story: each open named a segment of its own, and the second one on a full disk found no
    // space for it.
    let mut wrong = Vec::new();
    for segment_bytes in [64 << 10, 64 << 20] {
        for left in [0, 4096, 8192, 32 << 10] {
            for (killed, writes) in [(true, false), (true, true), (false, false), (false, true)] {
                let (vfs, last) = full_disk(segment_bytes, left, killed);
                let name = format!(
                    "segments of {segment_bytes}, {left} bytes left, killed {killed}, writes {writes}"
                );
                if let Err(why) = restarts_on_full(&vfs, segment_bytes, last, killed, writes) {
                    wrong.push(format!("{name}: {why}"));
                }
            }
        }
    }
    println!("{} of 32 full disks fail", wrong.len());
    wrong.iter().for_each(|w| println!("    {w}"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn restarts_on_full(
    vfs: &SimVfs,
    segment_bytes: u64,
    last: u64,
    killed: bool,
    writes: bool,
) -> std::result::Result<(), String> {
    for number in 1..=10 {
        let engine =
            on_full(vfs, segment_bytes).map_err(|e| format!("restart {number}: {:?} {e}", e.kind()))?;
        let read =
            engine.region(R).entries(.., ReadLimit::NONE).map_err(|e| format!("read {number}: {e}"))?;
        if read.len() as u64 != last {
            return Err(format!("restart {number}: {} of {last} entries", read.len()));
        }
        drop(read);
        if writes {
            let mut batch = engine.batch();
            batch.region(R).set_hard_state(&[number]).unwrap();
            if let Err(e) = engine.write(batch, Durability::Synced)
                && e.kind() != ErrorKind::NoSpace
            {
                return Err(format!("write {number}: {:?} {e}", e.kind()));
            }
            (0..3).for_each(|_| drop(engine.tick()));
        }
        if number == 10 {
            let out = compact(&engine, last - 1)
                .map_err(|e| format!("compact: {e}"))
                .and_then(|()| engine.purge().map(drop).map_err(|e| format!("purge: {e}")))
                .and_then(|()| append(&engine, last + 1, 1000).map_err(|e| format!("append: {e}")));
            out?;
        }
        match killed {
            true => kill(vfs, engine),
            false => drop(engine.close()),
        }
        vfs.settle();
    }
    Ok(())
}

// ------------------------------------------------------------------------------------ an error at every call

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Once,
    Forever,
    /// Until the engine that met it is gone. The next one opens while it is still there, and fails
    /// or not; then it goes.
    GoneAgain,
}

const SPACE: [OpKind; 9] = [
    OpKind::Create,
    OpKind::Write,
    OpKind::Allocate,
    OpKind::SetLen,
    OpKind::Rename,
    OpKind::HardLink,
    OpKind::SyncData,
    OpKind::SyncAll,
    OpKind::SyncDir,
];

fn fault(vfs: &SimVfs, errno: i32, how: How, at: u64) {
    let mut kinds = SPACE.to_vec();
    if errno == EROFS {
        kinds.push(OpKind::Remove);
    }
    for kind in kinds {
        let fault = Fault::error(errno).on(kind).at(at);
        vfs.set_fault(if how == How::Once { fault } else { fault.forever() });
    }
}

/// Stores to open: their names, disks and states.
fn openings() -> Vec<(&'static str, SimVfs, model::Model, bool)> {
    let mut all = Vec::new();
    let mut w = Writer::new(31, Kind::PLAIN, false);
    let engine = w.open();
    w.rotate(&engine, 1);
    w.write(&engine, 4);
    engine.close().unwrap();
    drop(engine);
    w.vfs.settle();
    all.push(("closed", w.vfs.crash(LossPolicy::KeepAll), w.model().clone(), true));

    let mut w = Writer::new(32, Kind::PLAIN, false);
    let engine = w.open();
    w.rotate(&engine, 1);
    w.write(&engine, 4);
    w.idle(&engine);
    w.write_group(&engine, 3);
    w.cut(engine, LossPolicy::LoseAll);
    all.push(("killed with a tail", w.vfs.crash(LossPolicy::KeepAll), w.model().clone(), false));

    // A recovery that was cut off, over a segment that has no footer yet.
    let mut w = Writer::new(33, Kind::PLAIN, false);
    let engine = w.open();
    let mut segments = 0;
    while segments < 2 {
        let before = w.records.last().map(|r| r.segment);
        w.write(&engine, 1);
        segments += u32::from(before != w.records.last().map(|r| r.segment));
    }
    w.write_group(&engine, 3);
    w.cut(engine, LossPolicy::LoseAll);
    let ops = w.vfs.ops();
    let probe = w.vfs.crash(LossPolicy::KeepAll);
    drop(Kind::PLAIN.options(&probe, 34).open(DIR));
    w.vfs.halt_after(ops + probe.ops() / 2);
    drop(Kind::PLAIN.options(&w.vfs, 34).open(DIR));
    w.vfs.halt_after(u64::MAX);
    let cut = w.vfs.crash(LossPolicy::LoseAll);
    all.push(("killed, and again in its recovery", cut, w.model().clone(), false));
    all
}

#[test]
fn no_space_and_a_read_only_disk_at_any_call_of_open_recovery_and_close_lose_nothing() {
    let mut wrong: Vec<String> = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (name, disk, model, closed) in openings() {
        // How many calls there are: with no fault.
        let probe = disk.crash(LossPolicy::KeepAll);
        let engine = Kind::PLAIN.options(&probe, 40).open(DIR).unwrap();
        let calls_of_open = probe.ops();
        let mut after = model.clone();
        write_to_all(&engine, &mut after).unwrap();
        engine.close().unwrap();
        let calls = probe.ops();
        for errno in [ENOSPC, EROFS] {
            for how in [How::Once, How::Forever, How::GoneAgain] {
                for at in 1..=calls {
                    let case =
                        || format!("{name}, errno {errno} {how:?} at call {at} of {calls_of_open}/{calls}");
                    let vfs = disk.crash(LossPolicy::KeepAll);
                    fault(&vfs, errno, how, at);
                    match one(&vfs, errno, how, closed, &model) {
                        Ok(what) => {
                            *counts.entry(format!("{name}: errno {errno} {how:?}: {what}")).or_default() += 1
                        }
                        Err(why) => wrong.push(format!("{}: {why}", case())),
                    }
                }
            }
        }
    }
    counts.iter().for_each(|(what, n)| println!("{n:6}  {what}"));
    println!("{} wrong", wrong.len());
    wrong.iter().take(60).for_each(|w| println!("    {w}"));
    let count = wrong.len();
    wrong.truncate(8);
    assert_eq!(count, 0, "{wrong:#?}");
}

fn typed(errno: i32, kind: ErrorKind) -> bool {
    match errno {
        ENOSPC => kind == ErrorKind::NoSpace,
        _ => kind == ErrorKind::Io,
    }
}

fn one(
    vfs: &SimVfs,
    errno: i32,
    how: How,
    must_open: bool,
    model: &model::Model,
) -> std::result::Result<String, String> {
    let mut legal = vec![model.clone()];
    let what = match Kind::PLAIN.options(vfs, 40).open(DIR) {
        Err(e) if !typed(errno, e.kind()) => return Err(format!("open: {:?} {e}", e.kind())),
        Err(e) if must_open && errno == ENOSPC => return Err(format!("a closed store without space: {e}")),
        Err(_) => "open fails",
        Ok(engine) => {
            match compare(&engine, model) {
                Ok(named) if named == Named::default() => {}
                other => return Err(format!("open with the fault: {other:?}")),
            }
            let mut after = model.clone();
            let written = write_to_all(&engine, &mut after);
            if written.is_ok() {
                legal = vec![after];
            } else {
                legal.push(after);
            }
            let closed = engine.close();
            if let Err(e) = &closed
                && !typed(errno, e.kind())
                && e.kind() != ErrorKind::Poisoned
            {
                return Err(format!("close: {:?} {e}", e.kind()));
            }
            match (written.is_ok(), closed.is_ok()) {
                (true, true) => "all well",
                (true, false) => "close fails",
                (false, _) => "a write fails",
            }
        }
    };
    if how == How::GoneAgain {
        // A supervisor tries again at once.
        if let Ok(engine) = Kind::PLAIN.options(vfs, 41).open(DIR) {
            if !legal.iter().any(|m| compare(&engine, m) == Ok(Named::default())) {
                return Err("the second open with the fault answers something else".to_string());
            }
            kill(vfs, engine);
        }
    }
    vfs.clear_faults();
    for policy in [LossPolicy::KeepAll, LossPolicy::LoseAll] {
        let left = vfs.crash(policy);
        let engine =
            Kind::PLAIN.options(&left, 42).open(DIR).map_err(|e| format!("a later open, {policy:?}: {e}"))?;
        let Some(found) = legal.iter().find(|m| compare(&engine, m) == Ok(Named::default())) else {
            return Err(format!("a later open, {policy:?}: {:?}", compare(&engine, &legal[0])));
        };
        let mut found = found.clone();
        write_to_all(&engine, &mut found)
            .map_err(|e| format!("a write after the later open, {policy:?}: {e}"))?;
        kill(&left, engine);
    }
    Ok(what.to_string())
}
