//! What `raftwood bench` leaves of a run that failed, and what it draws while it runs.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on should stop
#![cfg(feature = "cli")]

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const TOOL: &str = env!("CARGO_BIN_EXE_raftwood");

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A bench that may write no file of more than so many KiB.
fn limited(dir: &Path, kib: u64, args: &str) -> Output {
    // The signal is ignored, so that the write fails.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec {TOOL} bench {args}", kib * 2);
    Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap()
}

/// The stores that are named, which are all that is left.
fn kept(dir: &Path, said: &str) -> Vec<PathBuf> {
    let mut named: Vec<PathBuf> = said
        .lines()
        .filter_map(|l| l.strip_prefix("kept for a look into it: "))
        .map(|l| dir.join(l))
        .collect();
    named.sort();
    let scratch = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut left: Vec<PathBuf> = scratch
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    left.sort();
    assert_eq!(left.is_empty(), scratch.is_empty());
    assert_eq!(named, left, "{said}");
    named
}

#[test]
fn a_run_that_fails_keeps_its_store_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = limited(dir.path(), 512, "raftstore --seconds 1 --segment-bytes 1M");
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert_eq!(kept(dir.path(), &text(&out.stderr)).len(), 1);
}

/// The file of the machine's floor, which has 64 MiB, is what fails: that is no store.
#[test]
fn a_store_that_was_kept_before_a_run_that_fails_is_named_too() {
    let dir = tempfile::tempdir().unwrap();
    let out = limited(dir.path(), 16 << 10, "raftstore append --seconds 0.2 --segment-bytes 1M --keep");
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    let kept = kept(dir.path(), &text(&out.stderr));
    let names: Vec<_> = kept.iter().map(|store| store.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["append", "raftstore"]);
    let check = Command::new(TOOL).arg("check").arg(&kept[1]).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
}

#[test]
fn a_run_that_finds_something_wrong_keeps_its_store_and_one_that_does_not_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let args = ["bench", "append", "--threads", "2", "--seconds", "1", "--segment-bytes", "1M"];
        let mut command = Command::new(TOOL);
        command.args(args).args(more).current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let out = run(&[]).wait_with_output().unwrap();
    assert_eq!((out.status.code(), kept(dir.path(), &text(&out.stdout)).len()), (Some(0), 0));
    let child = run(&[]);
    harm(dir.path());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(kept(dir.path(), &text(&out.stdout)).len(), 1);
    // For programs, all of that is JSON.
    fs::read_dir(dir.path())
        .unwrap()
        .for_each(|scratch| fs::remove_dir_all(scratch.unwrap().path()).unwrap());
    let child = run(&["--json"]);
    harm(dir.path());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    let lines =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>();
    assert!(lines.iter().all(|line| line["schema"] == 1), "{said}");
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert!(!of("violation").is_empty(), "{said}");
    let [left] = of("kept")[..] else { panic!("{said}") };
    kept(dir.path(), &format!("kept for a look into it: {}", left["dir"].as_str().unwrap()));
}

/// Changes payloads on the disk while a bench of appends writes.
fn harm(dir: &Path) {
    let began = Instant::now();
    let mut log = loop {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
        let scratch = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).next();
        let third = scratch.map(|scratch| scratch.join("append/0000000003.log")).filter(|path| path.exists());
        // A store that has come to its third file has filled the first.
        if let Some(path) = third {
            let first = path.with_file_name("0000000001.log");
            break OpenOptions::new().read(true).write(true).open(first).unwrap();
        }
    };
    for at in (100_000..900_000).step_by(50_000) {
        log.seek(SeekFrom::Start(at)).unwrap();
        log.write_all(&[0xa5; 16]).unwrap();
    }
}

/// A terminal of so many columns, and what is drawn on it.
fn on_a_terminal(dir: &Path, columns: u16, args: &[&str]) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = text(ptsname(&terminal, Vec::new()).unwrap().to_bytes());
    let end = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = Command::new(TOOL)
        .args(args)
        .current_dir(dir)
        .env("TERM", "xterm")
        .stdout(end.try_clone().unwrap())
        .stderr(end)
        .spawn()
        .unwrap();
    // Ends with an error once nobody has the other end open any more.
    let reader = std::thread::spawn(move || {
        let (mut drawn, mut some) = (Vec::new(), [0; 4096]);
        let mut terminal = File::from(terminal);
        while let Ok(n @ 1..) = terminal.read(&mut some) {
            drawn.extend_from_slice(&some[..n]);
        }
        drawn
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    String::from_utf8_lossy(&reader.join().unwrap()).into_owned()
}

#[test]
fn on_a_terminal_the_live_line_has_a_rate_and_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        |args: &[&str]| on_a_terminal(dir.path(), 80, &[&["bench", "--segment-bytes", "1M"], args].concat());
    let drawn = run(&["raftstore", "append", "limit", "--seconds", "1"]);
    for line in ["raftstore ", "append ", "limit "] {
        let unit = if line == "limit " { "writes/s" } else { "batches/s" };
        let has = |part: &str| part.contains(line) && part.contains(unit) && part.contains(" of ");
        assert!(drawn.split('\r').any(has), "{drawn}");
    }
    // It is counted, and not only timed.
    let rates = drawn.split(" batches/s, ").filter_map(|part| part.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(rates.filter(|rate| *rate > 0.0).count() > 2, "{drawn}");
    assert!(run(&["kill", "--repeat", "2"]).contains("1 of 2 kills"));
    // JSON is for programs.
    let drawn = run(&["append", "reopen", "--seconds", "1", "--bytes", "8M", "--json"]);
    let torture = ["torture", "--sim", "0", "--kills", "2", "--json"];
    for line in (drawn + &on_a_terminal(dir.path(), 80, &torture)).lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}
