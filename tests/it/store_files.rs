//! The files of a store under a running engine: which directory they are in, whose they are, and whether they
//! are still there. What changes a whole process (its directory, a fork) happens in a process of its own.

#![allow(unsafe_code, reason = "fork() is: see in_a_fork")]

use crate::support::engines::{of_run, on, pool_of};
use crate::support::entries::compact;
use crate::support::files::{is_a, newest, of_kind};
use crate::support::process::ran_alone;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::vfs::{Map, OsVfs, Vfs, VfsDir, VfsFile};
use raftwood::{
    Background, Durability, Engine, EntryId, ErrorKind, Options, ReadLimit, RegionId, ScrubOptions, Ticket,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const R: RegionId = RegionId(1);

fn submit(engine: &Engine, region: RegionId, index: u64) -> Result<Ticket, raftwood::WriteError> {
    let mut b = engine.batch();
    b.region(region).append([(EntryId::new(1, index), &[7; 500][..])]).unwrap();
    engine.submit(b, Durability::Synced)
}

fn append(engine: &Engine, index: u64) -> Result<(), ErrorKind> {
    let mut b = engine.batch();
    b.region(R).append([(EntryId::new(1, index), &[7; 500][..])]).unwrap();
    engine.write(b, Durability::Synced).map(drop).map_err(|e| e.kind())
}

fn last(dir: &Path) -> u64 {
    Engine::open(dir).unwrap().region(R).last_index()
}

fn find(dir: &Path, ending: &str) -> PathBuf {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    names.filter(|p| p.to_str().unwrap().ends_with(ending)).max().unwrap()
}

/// Runs `child` in a fork of this process and returns what it exits with; `None` if it hangs.
fn in_a_fork(child: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child runs nothing but `child` and `_exit`. Other threads may have held locks of this
    // program: that is what is tested, and the standard library's own that it could meet (the allocator's, of
    // glibc) are given over by fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
        // SAFETY: ends the process without running anything else of it.
        unsafe { libc::_exit(code) }
    }
    let began = Instant::now();
    let mut status = 0;
    // SAFETY: `pid` is our child, and is waited for until it is gone; `status` is ours.
    while unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } == 0 {
        if began.elapsed() > Duration::from_secs(20) {
            // SAFETY: as above: it has not been waited for yet, and the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(libc::WEXITSTATUS(status))
}

/// A path was looked up again at each operation. After a `chdir`, a rename of the directory, or a link that
/// was turned, the engine went on, acknowledging, in the directory of another store, whose log it replaced.
#[test]
fn an_engine_stays_in_its_directory_whatever_becomes_of_the_path() {
    if ran_alone("store_files::an_engine_stays_in_its_directory_whatever_becomes_of_the_path") {
        return;
    }
    let options = || Options::new().segment_bytes(64 << 10);
    for mode in ["chdir", "rename", "symlink"] {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for dir in ["a", "b", "a/real", "a/other"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::env::set_current_dir(root.join("a")).unwrap();
        if mode == "symlink" {
            std::os::unix::fs::symlink("real", "data").unwrap();
        }
        let engine = options().open("data").unwrap();
        append(&engine, 1).unwrap();
        let (mine, theirs) = match mode {
            "chdir" => {
                std::env::set_current_dir(root.join("b")).unwrap();
                (root.join("a/data"), root.join("b/data"))
            }
            "rename" => {
                std::fs::rename("data", "moved").unwrap();
                (root.join("a/moved"), root.join("a/data"))
            }
            _ => {
                std::fs::remove_file("data").unwrap();
                std::os::unix::fs::symlink("other", "data").unwrap();
                (root.join("a/real"), root.join("a/other"))
            }
        };
        let other = options().open("data").unwrap();
        (1..100).for_each(|i| append(&other, i).unwrap());
        other.close().unwrap();
        (2..1000).for_each(|i| append(&engine, i).unwrap());
        engine.region(R).entry(2).unwrap();
        engine.purge().unwrap();
        engine.tick().unwrap();
        engine.close().unwrap();
        assert_eq!((last(&mine), last(&theirs)), (999, 99), "{mode}");
    }
    std::env::set_current_dir("/").unwrap();
}

/// The child of a fork wrote into its parent's log, or unlocked its parent's store when it dropped
/// its copy of the engine; and where a thread of the parent had held a lock at that moment, the
/// child waited for it forever.
#[test]
fn an_engine_in_a_fork_answers_closed_and_its_drop_changes_nothing() {
    if ran_alone("store_files::an_engine_in_a_fork_answers_closed_and_its_drop_changes_nothing") {
        return;
    }
    for background in [Background::Threads, Background::Manual] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().background(background).segment_bytes(64 << 10);
        let engine = options.clone().open(dir.path()).unwrap();
        append(&engine, 1).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        // Locks are held at the moment of the fork where there are threads to hold them.
        let regions = if background == Background::Threads { 2..5u64 } else { 2..2 };
        let writers: Vec<_> = regions
            .map(|region| {
                let (engine, stop) = (engine.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut index = 0;
                    while !stop.load(Ordering::Relaxed) {
                        index += 1;
                        submit(&engine, RegionId(region), index).unwrap().wait().unwrap();
                        engine.regions();
                        let _ = engine.region(RegionId(region)).entries(.., ReadLimit::entries(10));
                    }
                    index
                })
            })
            .collect();
        let before = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let ticket = submit(&engine, RegionId(9), round + 1).unwrap();
            let mut theirs = Some((engine.clone(), ticket));
            let code = in_a_fork(|| {
                let (engine, ticket) = theirs.take().unwrap();
                answers_closed(&engine, ticket, before.path())
            });
            assert_eq!(
                code,
                Some(0),
                "{background:?}, round {round}: the check of this number failed, or it hangs"
            );
            drop(theirs);
            let second = options.clone().open(dir.path());
            assert_eq!(second.map(drop).unwrap_err().kind(), ErrorKind::Locked);
            append(&engine, round + 2).unwrap();
        }
        // The last handle of the child's copy: its drop is what ends an engine.
        stop.store(true, Ordering::Relaxed);
        let written: Vec<u64> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        let mut engine = Some(engine);
        let code = in_a_fork(|| {
            drop(engine.take());
            0
        });
        assert_eq!(code, Some(0), "{background:?}: the drop in the child");
        assert_eq!(options.clone().open(dir.path()).map(drop).unwrap_err().kind(), ErrorKind::Locked);
        let engine = engine.unwrap();
        append(&engine, 22).unwrap();
        engine.close().unwrap();
        let engine = options.open(dir.path()).unwrap();
        assert_eq!(engine.region(R).last_index(), 22);
        for (region, last) in (2..).zip(written) {
            assert_eq!(engine.region(RegionId(region)).last_index(), last);
        }
    }
}

/// Asks for everything, in the child; returns the number of what was not answered as it should.
fn answers_closed(engine: &Engine, ticket: Ticket, elsewhere: &Path) -> i32 {
    let region = engine.region(R);
    let closed = |e: raftwood::Error| e.kind() == ErrorKind::Closed;
    let mut fetched = false;
    let seen = std::sync::mpsc::channel();
    let id = EntryId::new(1, 1);
    let checks = [
        append(engine, 100) == Err(ErrorKind::Closed),
        submit(engine, R, 100).is_err_and(|e| e.kind() == ErrorKind::Closed && e.into_batch().is_some()),
        ticket.wait().is_err_and(closed),
        engine.sync().is_err_and(closed),
        engine.write(engine.batch(), Durability::Synced).is_err_and(|e| e.kind() == ErrorKind::Closed),
        engine.tick().is_err_and(closed),
        engine.purge().map(drop).is_err_and(closed),
        engine.scrub(&ScrubOptions::default()).map(drop).is_err_and(closed),
        engine.backup(elsewhere.join("copy")).map(drop).is_err_and(closed),
        !elsewhere.join("copy").exists(),
        region.entry(1).is_err_and(closed),
        region.entries(.., ReadLimit::entries(1)).is_err_and(closed),
        region.entries_clamped(.., ReadLimit::entries(1)).is_err_and(closed),
        region.term(1).is_err_and(closed),
        region.checksum(..).map(drop).is_err_and(closed),
        region.hard_state_or_lost().is_err_and(closed),
        region.repair(id, b"").is_err_and(closed),
        region.lookup(id) == raftwood::Lookup::Unknown,
        (region.last_index(), region.exists(), region.hard_state()) == (0, false, None),
        engine.regions().is_empty() && engine.pins(1).is_empty() && engine.stats().segments == 0,
        {
            engine.fetch(R, 1..2, ReadLimit::entries(1), {
                let send = seen.0;
                move |result| send.send(result.is_err_and(|e| e.kind() == ErrorKind::Closed)).unwrap()
            });
            fetched |= seen.1.try_recv() == Ok(true);
            fetched
        },
        engine.close().is_err_and(closed),
        // What is opened after the fork works.
        Engine::open(elsewhere.join("own"))
            .is_ok_and(|own| append(&own, own.region(R).last_index() + 1).is_ok()),
    ];
    checks.iter().position(|ok| !ok).map_or(0, |n| n as i32 + 1)
}

/// `LOCK` was all that kept a second engine out: a person who removed it, as one that looked stale,
/// let one in.
#[test]
fn a_lock_file_that_was_removed_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().background(Background::Manual);
    let engine = options.clone().open(dir.path()).unwrap();
    append(&engine, 1).unwrap();
    std::fs::remove_file(dir.path().join("LOCK")).unwrap();
    let error = options.clone().open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("the lock on the directory is held"), "{error}");
    assert!(!dir.path().join("LOCK").exists(), "locked out before anything is made");
    drop(engine);
    // A release that knows of the file alone.
    let opened = OsVfs::new().open_dir(dir.path()).unwrap();
    let held = opened.lock_file("LOCK", raftwood::vfs::LockMode::Exclusive).unwrap();
    let error = options.clone().open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("the lock on the file is held"), "{error}");
    drop(held);
    assert_eq!(options.open(dir.path()).unwrap().region(R).last_index(), 1);
}

#[test]
fn those_that_look_at_a_store_do_not_lock_each_other_out() {
    let disk = SimVfs::new(1);
    let options = Options::new().background(Background::Manual).vfs(Arc::new(disk.clone()));
    let engine = options.clone().open("/db").unwrap();
    append(&engine, 1).unwrap();
    let check = || {
        let options = options.clone();
        options.check("/db", &ScrubOptions::default(), |_| {}).unwrap().in_use
    };
    assert!(check());
    engine.backup("/copy").unwrap();
    let copy = options.clone().open("/copy").unwrap();
    drop(copy);
    drop(engine);
    // A check inside of a check: the second runs while the first one has its locks.
    let mut seen = Vec::new();
    let report = options
        .check("/db", &ScrubOptions::default(), |_| {
            seen.push((check(), options.clone().open("/db").map(drop).map_err(|e| e.kind())));
        })
        .unwrap();
    assert!(!report.in_use && !seen.is_empty());
    assert!(seen.iter().all(|s| *s == (false, Err(ErrorKind::Locked))), "{seen:?}");
}

/// The files of a running store were removed, renamed or replaced, and it went on: 580 synced writes were
/// acknowledged into files without a name.
#[test]
fn a_log_that_loses_its_name_stops_the_engine_within_a_second() {
    type Vandalise = fn(&Path);
    let cases: [(&str, Vandalise); 5] = [
        ("removed", |dir| std::fs::remove_file(find(dir, ".log")).unwrap()),
        ("renamed", |dir| std::fs::rename(find(dir, ".log"), dir.join("old")).unwrap()),
        // Its link count stays what it was.
        ("replaced", |dir| {
            let log = find(dir, ".log");
            std::fs::hard_link(&log, dir.join("kept")).unwrap();
            std::fs::write(dir.join("new"), std::fs::read(&log).unwrap()).unwrap();
            std::fs::rename(dir.join("new"), log).unwrap();
        }),
        ("the lock", |dir| std::fs::remove_file(dir.join("LOCK")).unwrap()),
        ("the checkpoint", |dir| std::fs::remove_file(find(dir, ".ckpt")).unwrap()),
    ];
    for (what, vandalise) in cases {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        append(&engine, 1).unwrap();
        // Long enough for the first look, at the checkpoint for one.
        std::thread::sleep(Duration::from_millis(1100));
        append(&engine, 2).unwrap();
        vandalise(dir.path());
        let (began, mut index) = (Instant::now(), 2);
        let kind = loop {
            index += 1;
            if let Err(kind) = append(&engine, index) {
                break kind;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{what}: nobody noticed");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(kind, ErrorKind::Poisoned, "{what}");
        let error = engine.sync().unwrap_err();
        assert!(format!("{error:?}").contains("not in its place any more"), "{what}: {error:?}");
        // What was acknowledged can still be saved.
        assert_eq!(engine.region(R).entry(index - 1).unwrap().id.index, index - 1);
        assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Poisoned);
    }
}

#[test]
fn without_threads_tick_and_close_look_after_the_names() {
    let at = |ending: &'static str| {
        move |vfs: &SimVfs| {
            let all = vfs.list().into_iter().map(|(p, _)| p);
            all.filter(|p| p.starts_with("/db") && p.to_str().unwrap().ends_with(ending)).max().unwrap()
        }
    };
    for find in [at(".log"), at("LOCK"), at(".ckpt")] {
        for replaced in [false, true] {
            let disk = SimVfs::new(1);
            let options = Options::new().background(Background::Manual).vfs(Arc::new(disk.clone()));
            let engine = options.clone().open("/db").unwrap();
            append(&engine, 1).unwrap();
            engine.tick().unwrap();
            let path = find(&disk);
            let bytes = disk.read_file(&path).unwrap();
            disk.remove_file(&path).unwrap();
            if replaced {
                disk.write_file(&path, &bytes).unwrap();
            }
            let engine = match replaced {
                true => {
                    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Poisoned, "{path:?}");
                    continue;
                }
                false => engine,
            };
            assert_eq!(engine.tick().unwrap_err().kind(), ErrorKind::Poisoned, "{path:?}");
            assert_eq!(append(&engine, 2), Err(ErrorKind::Poisoned));
        }
    }
}

/// A segment may fill up and be sealed between two looks.
#[test]
fn a_segment_that_lost_its_name_is_not_sealed() {
    let disk = SimVfs::new(1);
    let options =
        Options::new().segment_bytes(64 << 10).background(Background::Manual).vfs(Arc::new(disk.clone()));
    let engine = options.open("/db").unwrap();
    append(&engine, 1).unwrap();
    disk.remove_file(newest(&disk, "log")).unwrap();
    let mut index = 1;
    while of_kind(&disk, "log").len() < 2 {
        index += 1;
        append(&engine, index).unwrap();
    }
    assert_eq!(engine.purge().unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn what_the_engine_itself_does_to_its_files_is_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes(64 << 10);
    let engine = options.open(dir.path().join("db")).unwrap();
    let began = Instant::now();
    let (mut index, mut round) = (0, 0);
    while began.elapsed() < Duration::from_secs(3) {
        for _ in 0..200 {
            index += 1;
            append(&engine, index).unwrap();
        }
        round += 1;
        engine.backup(dir.path().join(format!("copy {round}"))).unwrap();
        compact(&engine, R, index - 50).unwrap();
        engine.purge().unwrap();
    }
    engine.close().unwrap();
}

/// A sector of a pool file could not be read, and nobody looked before the file was a log. What was written
/// there later was lost, and for a time the store was refused after a kill, as the log might have gone on.
#[test]
fn a_free_file_that_the_device_cannot_read_is_dropped_before_it_is_a_log() {
    let options = |vfs: &SimVfs| pool_of(on(vfs), 4).background(Background::Manual);
    let vfs = SimVfs::new(8);
    let engine = options(&vfs).open("/db").unwrap();
    (1..=1200).for_each(|i| append(&engine, i).unwrap());
    compact(&engine, R, 1190).unwrap();
    engine.purge().unwrap();
    engine.close().unwrap();
    drop(engine);
    vfs.settle();
    let free = |vfs: &SimVfs| of_kind(vfs, "free");
    let bad = free(&vfs);
    bad.iter().for_each(|path| vfs.add_bad_sector(path, 40).unwrap());
    let engine = options(&vfs).open("/db").unwrap();
    append(&engine, 1201).unwrap();
    let now = free(&vfs);
    assert!(bad.iter().any(|path| !now.contains(path)), "one was taken: {bad:?}, {now:?}");
    let dir = vfs.open_dir(Path::new("/db")).unwrap();
    for log in of_kind(&vfs, "log") {
        let file = dir.open(log.file_name().unwrap().to_str().unwrap(), OpenMode::Read).unwrap();
        for at in (0..file.len().unwrap()).step_by(512) {
            let read = file.read_at(&mut [0; 512], at);
            assert!(read.is_ok(), "{} cannot be read at {at}: {read:?}", log.display());
        }
    }
    let left = vfs.crash(LossPolicy::KeepAll);
    let after = options(&left).open("/db").unwrap();
    assert_eq!(after.region(R).last_index(), 1201);
    append(&after, 1202).unwrap();
}

/// Else a store that lives from one power cut to the next would never get rid of them.
#[test]
fn what_a_purge_removes_is_gone_after_a_power_cut_too() {
    let vfs = SimVfs::new(71);
    let engine = of_run(&vfs, 1).open("/db").unwrap();
    let mut removed = 0;
    for index in 1..=40 {
        let before = of_kind(&vfs, "log").len();
        let mut batch = engine.batch();
        batch.region(R).append([(EntryId::new(1, index), &vec![7; 20 << 10][..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        if index % 8 == 0 {
            compact(&engine, R, index).unwrap();
            engine.tick().unwrap();
            engine.purge().unwrap();
            removed += before.saturating_sub(of_kind(&vfs, "log").len());
            assert_eq!(of_kind(&vfs.crash(LossPolicy::LoseAll), "log"), of_kind(&vfs, "log"), "{index}");
        }
    }
    assert!(removed > 5, "{removed}");
}

/// A file system of the application's own can wrap ours, mappings included, but cannot look into a
/// mapping: a map is opaque to all but the engine. (A program without `unsafe` once changed the bytes
/// of a live `&[u8]`.) Segments become free many at a time; a pool of three gave the others back, and
/// made and filled as many again.
#[test]
fn a_store_in_its_steady_state_makes_no_files() {
    let vfs = SimVfs::new(1);
    let options = || on(&vfs).background(Background::Manual);
    let free = || vfs.list().iter().filter(|(p, len)| is_a(p, "free") && *len == 64 << 10).count();
    let engine = options().open("/db").unwrap();
    // Files for a full disk, which are as long here.
    const RESERVE: usize = 4;
    let mut index = 0;
    let mut round = |engine: &Engine, entries: u64| {
        for _ in 0..entries {
            index += 1;
            let mut b = engine.batch();
            b.region(R).append([(EntryId::new(1, index), &[7; 12 << 10][..])]).unwrap();
            engine.write(b, Durability::Synced).unwrap();
        }
        compact(engine, R, index).unwrap();
        engine.purge().unwrap();
    };
    for _ in 0..4 {
        round(&engine, 40);
    }
    let kept = free();
    assert!(kept >= 7 + RESERVE, "{kept} of the 8 that a round takes, and the reserve");
    engine.close().unwrap();
    drop(engine);
    assert!(free() <= 3 + RESERVE, "{:?}", vfs.list());
    // What a run that was killed leaves more is not for one to remove that writes nothing.
    let dir = vfs.open_dir(Path::new("/db")).unwrap();
    for n in 900..906 {
        let file = dir.open(&format!("{n:010}.free"), OpenMode::CreateNew).unwrap();
        file.set_len(64 << 10).unwrap();
    }
    let before = free();
    options().open("/db").unwrap().close().unwrap();
    assert_eq!(free(), before);
    let engine = options().open("/db").unwrap();
    round(&engine, 1);
    engine.close().unwrap();
    assert!(free() <= 3 + RESERVE, "{:?}", vfs.list());
}

#[test]
fn a_foreign_file_system_can_pass_on_what_ours_made() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().vfs(Arc::new(Wrapped(OsVfs::new()))).segment_bytes(64 << 10);
    let engine = options.clone().open(dir.path().join("db")).unwrap();
    (1..300).for_each(|i| append(&engine, i).unwrap());
    engine.backup(dir.path().join("copy")).unwrap();
    engine.close().unwrap();
    for name in ["db", "copy"] {
        let engine = options.clone().open(dir.path().join(name)).unwrap();
        assert_eq!(engine.region(R).entries(.., ReadLimit::bytes(1 << 20)).unwrap().len(), 299);
    }
}

/// What looks wrong beside an engine, while names change, is looked at again. What is wrong says the
/// same each time, and is reported.
#[test]
fn damage_is_told_also_where_names_change_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().vfs(Arc::new(Wrapped(OsVfs::new()))).segment_bytes(64 << 10);
    let engine = options.clone().open(dir.path()).unwrap();
    (1..300).for_each(|i| append(&engine, i).unwrap());
    engine.close().unwrap();
    std::fs::write(dir.path().join(RESTLESS), "").unwrap();
    assert!(options.open_read_only(dir.path()).unwrap().report().damage.is_empty());
    std::fs::remove_file(dir.path().join("0000000001.log")).unwrap();
    assert!(!options.open_read_only(dir.path()).unwrap().report().damage.is_empty());
}

/// A file of this name has another one in each list.
const RESTLESS: &str = "restless";

#[derive(Debug)]
struct Wrapped(OsVfs);

#[derive(Debug)]
struct WrappedDir(Arc<dyn VfsDir>);

#[derive(Debug)]
struct WrappedFile(Arc<dyn VfsFile>);

use raftwood::vfs::{DirEntry, FileId, LockMode, OpenMode, Reserved};
use std::io::{IoSlice, Result as IoResult};

impl Vfs for Wrapped {
    fn open_dir(&self, path: &Path) -> IoResult<Arc<dyn VfsDir>> {
        Ok(Arc::new(WrappedDir(self.0.open_dir(path)?)))
    }
    fn create_dir_all(&self, path: &Path) -> IoResult<Arc<dyn VfsDir>> {
        Ok(Arc::new(WrappedDir(self.0.create_dir_all(path)?)))
    }
}

impl VfsDir for WrappedDir {
    fn list(&self) -> IoResult<Vec<DirEntry>> {
        static LISTS: AtomicU64 = AtomicU64::new(0);
        let mut entries = self.0.list()?;
        for entry in entries.iter_mut().filter(|entry| entry.name == RESTLESS) {
            entry.name = format!("{RESTLESS}-{}", LISTS.fetch_add(1, Ordering::Relaxed));
        }
        Ok(entries)
    }
    fn open(&self, name: &str, mode: OpenMode) -> IoResult<Arc<dyn VfsFile>> {
        Ok(Arc::new(WrappedFile(self.0.open(name, mode)?)))
    }
    fn remove(&self, name: &str) -> IoResult<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        self.0.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> IoResult<()> {
        self.0.rename_new(from, to)
    }
    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> IoResult<()> {
        let to: &dyn std::any::Any = to;
        self.0.hard_link(name, &*to.downcast_ref::<WrappedDir>().unwrap().0, new)
    }
    fn sync(&self) -> IoResult<()> {
        self.0.sync()
    }
    fn lock(&self, mode: LockMode) -> IoResult<Box<dyn Send + Sync>> {
        self.0.lock(mode)
    }
    fn lock_file(&self, name: &str, mode: LockMode) -> IoResult<Box<dyn Send + Sync>> {
        self.0.lock_file(name, mode)
    }
    fn free_space(&self) -> IoResult<u64> {
        self.0.free_space()
    }
    fn id_of(&self, name: &str) -> IoResult<Option<FileId>> {
        self.0.id_of(name)
    }
}

impl VfsFile for WrappedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> IoResult<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> IoResult<usize> {
        self.0.write_at(bufs, offset)
    }
    fn allocate(&self, len: u64) -> IoResult<Reserved> {
        self.0.allocate(len)
    }
    fn set_len(&self, len: u64) -> IoResult<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> IoResult<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> IoResult<()> {
        self.0.sync_all()
    }
    fn len(&self) -> IoResult<u64> {
        self.0.len()
    }
    fn drop_cache(&self, range: std::ops::Range<u64>) -> IoResult<()> {
        self.0.drop_cache(range)
    }
    fn map(&self, len: u64) -> IoResult<Option<Arc<Map>>> {
        let map = self.0.map(len)?;
        assert_eq!(map.as_ref().map(|m| m.len() as u64), Some(len));
        Ok(map)
    }
    fn id(&self) -> IoResult<Option<FileId>> {
        self.0.id()
    }
}
