//! What the tool makes of a file of figures that an engine's process leaves.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop
#![cfg(feature = "cli")]

use raftwood::{Durability, Engine, EntryId, RegionId};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Fixture {
    dir: TempDir,
    engine: Engine,
    written: u64,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path().join("store")).unwrap();
        Fixture { dir, engine, written: 0 }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("figures")
    }

    /// Writes so many batches, each synced, and answers the figures after them.
    fn write(&mut self, batches: u64) -> Value {
        for _ in 0..batches {
            self.written += 1;
            let mut batch = self.engine.batch();
            batch.region(RegionId(5)).append([(EntryId::new(1, self.written), &b"set a"[..])]).unwrap();
            self.engine.write(batch, Durability::Synced).unwrap();
        }
        serde_json::to_value(self.engine.figures()).unwrap()
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_raftwood"));
        tool.args([command, "store", "--metrics", "figures"]).args(more).current_dir(self.dir.path());
        tool.output().unwrap()
    }

    /// One look of `top`.
    fn top(&self) -> Value {
        let out = self.run("top", &["--count", "1", "--interval", "0.05", "--json"]);
        let engine = serde_json::from_str::<Value>(&printed(&out)).unwrap()["engine"].take();
        assert!(engine.is_object(), "{engine}");
        engine
    }

    fn is_refused(&self, text: &str) {
        for (command, more) in [("top", &["--count", "1", "--interval", "0.05"][..]), ("report", &[])] {
            let out = self.run(command, more);
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.code() == Some(2) && said.contains(text), "{text}: {said}");
        }
    }
}

fn printed(out: &Output) -> String {
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// Figures as of `millis`, one a line.
fn put(path: &Path, figures: &[(u64, &Value)]) {
    let mut text = String::new();
    for (millis, figures) in figures {
        let mut figures = (*figures).clone();
        figures["unix_millis"] = (*millis).into();
        text.push_str(&format!("{figures}\n"));
    }
    fs::write(path, text).unwrap();
}

#[test]
fn rates_and_latencies_are_those_between_the_last_two_lines() {
    let mut fixture = Fixture::new();
    let (first, second, third) = (fixture.write(5), fixture.write(7), fixture.write(20));
    put(&fixture.file(), &[(1000, &first), (2000, &second), (6000, &third)]);
    let engine = fixture.top();
    assert_eq!(
        (&engine["seconds"], &engine["per_second"]["batches"]),
        (&4.0.into(), &5.0.into()),
        "{engine}"
    );
    assert_eq!((&engine["commit"]["count"], &engine["sync"]["count"]), (&20.into(), &20.into()), "{engine}");
    assert!(
        engine["sync"]["p50_us"].as_u64() <= engine["sync"]["p99_us"].as_u64()
            && engine["sync"]["p99_us"].is_u64()
    );
    // For people it is one line more, which says that the figures are old.
    let text = printed(&fixture.run("top", &["--count", "1", "--interval", "0.05"]));
    assert!(
        text.contains("engine: 5.0 batches/s") && text.contains(" sync p50 ") && text.contains(" s old"),
        "{text}"
    );
    // One line has no rates, and is of the whole run.
    put(&fixture.file(), &[(6000, &third)]);
    let engine = fixture.top();
    assert!(engine["seconds"].is_null() && engine["per_second"].is_null(), "{engine}");
    assert_eq!(engine["commit"]["count"], 32);
}

#[test]
fn figures_of_another_run_are_not_compared_with() {
    let mut fixture = Fixture::new();
    let (early, late) = (fixture.write(3), fixture.write(4));
    put(&fixture.file(), &[(1000, &late), (2000, &early)]);
    let engine = fixture.top();
    assert!(engine["seconds"].is_null(), "{engine}");
    assert_eq!(engine["commit"]["count"], 3);
    // Nor is a clock that was set back.
    put(&fixture.file(), &[(2000, &early), (1000, &late)]);
    assert!(fixture.top()["seconds"].is_null());
}

#[test]
fn a_torn_line_is_passed_over() {
    let mut fixture = Fixture::new();
    let (first, second) = (fixture.write(5), fixture.write(7));
    put(&fixture.file(), &[(1000, &first), (2000, &second), (3000, &second)]);
    let whole = fs::read(fixture.file()).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    // The end of a line is what makes it whole; without it, the two lines before count.
    for len in [last, last + 1, (last + whole.len()) / 2, whole.len() - 1] {
        fs::write(fixture.file(), &whole[..len]).unwrap();
        assert_eq!(fixture.top()["per_second"]["batches"], 7.0, "{len}");
    }
    // One in the middle: of a program that was killed and started again.
    let torn = [&whole[..last - 40], b"\n", &whole[last..]].concat();
    fs::write(fixture.file(), torn).unwrap();
    assert_eq!(fixture.top()["per_second"]["batches"], 3.5);
}

#[test]
fn a_long_file_is_read_at_its_end() {
    let mut fixture = Fixture::new();
    let (first, second) = (fixture.write(5), fixture.write(8));
    let old: Vec<(u64, &Value)> = (0..2000).map(|millis| (millis, &first)).collect();
    put(&fixture.file(), &[&old[..], &[(1000, &first), (3000, &second)]].concat());
    assert!(fs::metadata(fixture.file()).unwrap().len() > 512 << 10);
    assert_eq!(fixture.top()["per_second"]["batches"], 4.0);
}

#[test]
fn figures_of_other_versions_are_read_or_refused_by_their_schema() {
    let mut fixture = Fixture::new();
    let (mut old, mut new) = (fixture.write(5), fixture.write(5));
    // An older one lacks what was not counted yet, a newer one has more.
    old["stats"].as_object_mut().unwrap().remove("cleaned_bytes").unwrap();
    old["latencies"].as_object_mut().unwrap().remove("queue").unwrap();
    new["stats"]["of_tomorrow"] = 7.into();
    put(&fixture.file(), &[(1000, &old), (2000, &new)]);
    let engine = fixture.top();
    assert_eq!(
        (&engine["per_second"]["batches"], &engine["queue"]["count"]),
        (&5.0.into(), &10.into()),
        "{engine}"
    );
    new["schema"] = 2.into();
    put(&fixture.file(), &[(1000, &old), (2000, &new)]);
    fixture.is_refused("schema 2");
}

#[test]
fn what_is_no_file_of_figures_is_refused() {
    let fixture = Fixture::new();
    fixture.is_refused("cannot read");
    let foreign: [(&[u8], &str); 7] = [
        (b"", "no figures"),
        (b"{\"schema\":1", "no figures"),
        (b"{}\n", "no file of Engine::figures"),
        (b"# HELP raftwood_batches_total\nraftwood_batches_total 7\n", "no file of Engine::figures"),
        (b"\xff\xfe\x00\n\n", "no file of Engine::figures"),
        (b"{\"schema\":1,\"unix_millis\":1,\"stats\":7,\"latencies\":{}}\n", "no file of Engine::figures"),
        (&[7; 300 << 10], "no file of Engine::figures"),
    ];
    for (bytes, text) in foreign {
        fs::write(fixture.file(), bytes).unwrap();
        fixture.is_refused(text);
    }
}

#[test]
fn a_report_has_the_latencies_of_the_run() {
    let mut fixture = Fixture::new();
    let figures = fixture.write(30);
    put(&fixture.file(), &[(1000, &figures), (2000, &figures)]);
    let page = printed(&fixture.run("report", &[]));
    assert!(page.contains("<h2>The engine</h2>") && page.contains("engine since open:"), "{page}");
    assert!(page.contains("<tr><td>commit</td><td>30</td>") && page.contains("<td>sync</td>"), "{page}");
    assert!(!page.contains("<td>checkpoint</td>"), "nothing of what did not happen: {page}");
}
