//! Two processes and one directory: the test runs itself again as the second one.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on should stop

use raftwood::{Durability, Engine, EntryId, ErrorKind, Options, RegionId};
use std::path::Path;
use std::process::{Command, ExitStatus};

const ROLE: &str = "RAFTWOOD_TEST_ROLE";
const DIR: &str = "RAFTWOOD_TEST_DIR";

/// Runs the test of this name in another process, in a role.
fn second_process(test: &str, role: &str, dir: &Path) -> ExitStatus {
    let me = std::env::current_exe().unwrap();
    Command::new(me).args(["--exact", test]).env(ROLE, role).env(DIR, dir).status().unwrap()
}

fn role() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(DIR)?.into()))
}

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
    if let Some((_, dir)) = role() {
        assert_eq!(Engine::open(dir).unwrap_err().kind(), ErrorKind::Locked);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().background(raftwood::Background::Manual);
    let engine = options.open(dir.path()).unwrap();
    write_one(&engine, 1);
    let before = names(dir.path());
    let status =
        second_process("a_second_process_is_locked_out_before_it_creates_anything", "writer", dir.path());
    assert!(status.success());
    assert_eq!(names(dir.path()), before);
    write_one(&engine, 2);
}

#[test]
fn a_lock_is_released_with_the_process_that_held_it() {
    if let Some((_, dir)) = role() {
        let engine = Engine::open(dir).unwrap();
        write_one(&engine, 1);
        // As abrupt as it gets without a signal: nothing is dropped.
        std::process::exit(0);
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(
        second_process("a_lock_is_released_with_the_process_that_held_it", "writer", dir.path()).success()
    );
    let engine = Engine::open(dir.path()).unwrap();
    assert_eq!(engine.region(RegionId(1)).last_index(), 1);
    write_one(&engine, 2);
}

#[test]
fn a_read_only_reader_is_let_in_and_changes_nothing() {
    if let Some((_, dir)) = role() {
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
    let status = second_process("a_read_only_reader_is_let_in_and_changes_nothing", "reader", dir.path());
    assert!(status.success());
    assert_eq!(names(dir.path()), before);
    write_one(&engine, 2);
}

#[test]
fn a_reader_of_nothing_is_told_so_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Options::new().open_read_only(dir.path()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(names(dir.path()).is_empty());
}
