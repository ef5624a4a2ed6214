//! The stores that are harmed.

use crate::support::engines::DIR;
use crate::support::files::{self, Files, is_a};
use crate::support::model::{Kind, Model, Record, Writer};
use raftwood::vfs::sim::{LossPolicy, Snapshot};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How its last run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// `close` returned: nothing may refuse it.
    Closed,
    /// It was idle, then killed or cut off: what was acknowledged is proved, and a lost
    /// description may refuse it.
    Idle,
    /// Killed at once: so many batches of the last group are proved by nothing.
    Unconfirmed(usize),
}

pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) end: End,
    pub(crate) disk: Snapshot,
    pub(crate) files: Files,
    /// The states that an unharmed open may answer, newest first; one but for groups that nothing proves.
    pub(crate) model: Model,
    pub(crate) before: Vec<Model>,
    /// All states that were acknowledged, oldest first.
    pub(crate) history: Vec<Model>,
    pub(crate) older: Vec<Files>,
    /// The live payloads that stand in each file.
    pub(crate) placed: BTreeMap<PathBuf, Vec<(Range<usize>, u64, u64)>>,
    /// The log in which the last group stands that nothing proves, and where it begins.
    pub(crate) group: Option<(PathBuf, usize)>,
    /// The newest segment and the end of what was written to it.
    pub(crate) tail: (u32, usize),
}

impl Store {
    pub(crate) fn is_segment(path: &Path) -> bool {
        matches!(path.extension().and_then(|e| e.to_str()), Some("log" | "cold"))
    }

    /// A log that has no footer.
    pub(crate) fn is_unsealed(&self, path: &Path) -> bool {
        is_a(path, "log") && !self.files.contains_key(&path.with_extension("foot"))
    }

    /// The bytes from here on of a file mean nothing.
    pub(crate) fn used(&self, path: &Path) -> usize {
        let bytes = &self.files[path];
        match path.extension().and_then(|e| e.to_str()) {
            Some("log") if number(path) == Some(self.tail.0) => self.tail.1.max(4096),
            _ => bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1),
        }
    }
}

fn number(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Where the live payloads stand. Compressed ones are not to be seen: there it is the batch that they are in.
fn place(
    kind: Kind,
    files: &Files,
    model: &Model,
    records: &[Record],
) -> BTreeMap<PathBuf, Vec<(Range<usize>, u64, u64)>> {
    let mut placed: BTreeMap<PathBuf, Vec<(Range<usize>, u64, u64)>> = BTreeMap::new();
    if kind.lz4 {
        let live = |id: u64, index: u64| {
            model.get(&id).is_some_and(|l| l.entries.iter().any(|e| e.0.index == index))
        };
        for record in records {
            let path = PathBuf::from(format!("{DIR}/{:010}.log", record.segment));
            for (id, index) in record.entries.iter().filter(|(id, index)| live(*id, *index)) {
                let range = record.start as usize..record.end as usize;
                placed.entry(path.clone()).or_default().push((range, *id, *index));
            }
        }
        return placed;
    }
    let mut starts: BTreeMap<[u8; 8], (u64, u64, &[u8])> = BTreeMap::new();
    for (id, log) in model {
        for (entry, payload) in &log.entries {
            starts.insert(payload[..8].try_into().unwrap(), (*id, entry.index, payload));
        }
    }
    for (path, bytes) in files.iter().filter(|(path, _)| Store::is_segment(path)) {
        for (at, window) in bytes.windows(8).enumerate() {
            if window[0] == 0 && window[1] == 0 && window[2] == 0 {
                continue;
            }
            if let Some((id, index, payload)) = starts.get(window)
                && bytes[at..].starts_with(payload)
            {
                placed.entry(path.clone()).or_default().push((at..at + payload.len(), *id, *index));
            }
        }
    }
    placed
}

fn finish(w: Writer, name: &'static str, end: End) -> (Store, Vec<Snapshot>, Vec<Model>) {
    let mut w = w;
    w.vfs.settle();
    w.snapshots.extend(w.vfs.take_snapshots());
    w.vfs.snapshot_every(None);
    let files: Files = files::files(&w.vfs);
    let model = w.model().clone();
    let before = match end {
        End::Unconfirmed(n) => w.models.iter().rev().skip(1).take(n).cloned().collect(),
        _ => Vec::new(),
    };
    let group = match end {
        End::Unconfirmed(n) => {
            let first = &w.records[w.records.len() - n];
            Some((PathBuf::from(format!("{DIR}/{:010}.log", first.segment)), first.start as usize))
        }
        _ => None,
    };
    let placed = place(w.kind, &files, &model, &w.records);
    let newest = files.keys().rfind(|p| is_a(p, "log")).and_then(|p| number(p));
    let last = w.records.last().unwrap();
    let tail = match newest {
        Some(n) if n == last.segment => (n, last.end as usize),
        _ => (0, 0),
    };
    let disk = w.vfs.crash(LossPolicy::KeepAll).freeze();
    let store = Store {
        name,
        kind: w.kind,
        end,
        disk,
        files,
        model,
        before,
        history: w.models.clone(),
        older: w.stages,
        placed,
        group,
        tail,
    };
    (store, w.snapshots, w.models)
}

type Built = (Store, Vec<Snapshot>, Vec<Model>);
pub(crate) type Builder = fn(bool) -> Built;

const LZ4: Kind = Kind { lz4: true, pool_files: 1 };
const RECYCLING: Kind = Kind { lz4: false, pool_files: 3 };

fn closed(watched: bool) -> Built {
    let mut w = Writer::new(11, Kind::PLAIN, watched);
    let engine = w.open();
    w.write(&engine, 16);
    engine.close().unwrap();
    drop(engine);
    w.stage();
    let engine = w.open();
    w.write(&engine, 16);
    engine.close().unwrap();
    drop(engine);
    finish(w, "closed", End::Closed)
}

fn closed_rotated(watched: bool) -> Built {
    let mut w = Writer::new(12, Kind::PLAIN, watched);
    let engine = w.open();
    w.rotate(&engine, 2);
    w.write(&engine, 10);
    engine.close().unwrap();
    drop(engine);
    finish(w, "closed, rotated", End::Closed)
}

fn closed_lz4(watched: bool) -> Built {
    let mut w = Writer::new(13, LZ4, watched);
    let engine = w.open();
    w.write(&engine, 60);
    engine.close().unwrap();
    drop(engine);
    finish(w, "closed, compressed", End::Closed)
}

/// Fills segments, frees them, and goes on until it writes to a file that was full before.
fn recycled(seed: u64, watched: bool) -> (Writer, raftwood::Engine) {
    let mut w = Writer::new(seed, RECYCLING, watched);
    let engine = w.open();
    for _ in 0..12 {
        w.rotate(&engine, 1);
        w.compact_all(&engine);
        engine.purge().unwrap();
        engine.tick().unwrap();
        w.write(&engine, 6);
        let last = w.records.last().unwrap();
        let active = &files::files(&w.vfs)[&PathBuf::from(format!("{DIR}/{:010}.log", last.segment))];
        if active[last.end as usize + 4096..].iter().filter(|b| **b != 0).count() > 20_000 {
            return (w, engine);
        }
    }
    panic!("no file was used again");
}

fn closed_recycled(watched: bool) -> Built {
    let (w, engine) = recycled(14, watched);
    engine.close().unwrap();
    drop(engine);
    finish(w, "closed, recycled files", End::Closed)
}

fn closed_cleaned(watched: bool) -> Built {
    let mut w = Writer::new(21, Kind::PLAIN, watched);
    let engine = w.open();
    w.rotate(&engine, 2);
    w.compact_all(&engine);
    w.write(&engine, 4);
    engine.purge().unwrap();
    engine.close().unwrap();
    drop(engine);
    finish(w, "closed, cleaned", End::Closed)
}

fn idle_killed(watched: bool) -> Built {
    let mut w = Writer::new(15, Kind::PLAIN, watched);
    let engine = w.open();
    w.write(&engine, 24);
    w.idle(&engine);
    w.kill(engine);
    finish(w, "idle, killed", End::Idle)
}

fn idle_rotated_killed(watched: bool) -> Built {
    let mut w = Writer::new(16, Kind::PLAIN, watched);
    let engine = w.open();
    w.rotate(&engine, 1);
    w.write(&engine, 12);
    w.idle(&engine);
    w.kill(engine);
    finish(w, "idle, rotated, killed", End::Idle)
}

fn idle_cut(watched: bool) -> Built {
    let mut w = Writer::new(17, Kind::PLAIN, watched);
    let engine = w.open();
    w.write(&engine, 24);
    w.idle(&engine);
    w.cut(engine, LossPolicy::LoseAll);
    finish(w, "idle, cut off", End::Idle)
}

fn idle_recycled_killed(watched: bool) -> Built {
    let (mut w, engine) = recycled(18, watched);
    w.idle(&engine);
    w.kill(engine);
    finish(w, "idle, recycled files, killed", End::Idle)
}

fn idle_recycled_cut(watched: bool) -> Built {
    let (mut w, engine) = recycled(22, watched);
    w.idle(&engine);
    w.cut(engine, LossPolicy::LoseAll);
    finish(w, "idle, recycled files, cut off", End::Idle)
}

fn idle_lz4_killed(watched: bool) -> Built {
    let mut w = Writer::new(19, LZ4, watched);
    let engine = w.open();
    w.write(&engine, 40);
    w.idle(&engine);
    w.kill(engine);
    finish(w, "idle, compressed, killed", End::Idle)
}

/// The first run is killed with a group that nothing proves; the second one recovers it and is killed.
fn only_recovered(watched: bool) -> Built {
    let mut w = Writer::new(20, Kind::PLAIN, watched);
    let engine = w.open();
    w.write(&engine, 12);
    w.idle(&engine);
    w.write_group(&engine, 3);
    w.kill(engine);
    let engine = w.open();
    w.kill(engine);
    finish(w, "only recovered, killed", End::Idle)
}

fn only_recovered_cut(watched: bool) -> Built {
    let mut w = Writer::new(23, Kind::PLAIN, watched);
    let engine = w.open();
    w.write(&engine, 12);
    w.write_group(&engine, 3);
    w.cut(engine, LossPolicy::LoseAll);
    let engine = w.open();
    w.idle(&engine);
    w.cut(engine, LossPolicy::LoseAll);
    finish(w, "only recovered and idle, cut off", End::Idle)
}

fn recovered_on_recycled(watched: bool) -> Built {
    let (mut w, engine) = recycled(24, watched);
    w.idle(&engine);
    w.write_group(&engine, 3);
    w.cut(engine, LossPolicy::LoseAll);
    let engine = w.open();
    w.cut(engine, LossPolicy::LoseAll);
    finish(w, "only recovered, recycled files, cut off", End::Idle)
}

fn unconfirmed(watched: bool) -> Built {
    let mut w = Writer::new(25, Kind::PLAIN, watched);
    let engine = w.open();
    w.write(&engine, 16);
    w.idle(&engine);
    w.write_group(&engine, 3);
    w.kill(engine);
    finish(w, "killed with an unconfirmed group", End::Unconfirmed(3))
}

fn unconfirmed_recycled(watched: bool) -> Built {
    let (mut w, engine) = recycled(26, watched);
    w.idle(&engine);
    w.write_group(&engine, 3);
    w.kill(engine);
    finish(w, "killed with an unconfirmed group, recycled files", End::Unconfirmed(3))
}

pub(crate) const BUILDERS: &[(&str, Builder)] = &[
    ("closed", closed),
    ("closed_rotated", closed_rotated),
    ("closed_lz4", closed_lz4),
    ("closed_recycled", closed_recycled),
    ("closed_cleaned", closed_cleaned),
    ("idle_killed", idle_killed),
    ("idle_rotated_killed", idle_rotated_killed),
    ("idle_cut", idle_cut),
    ("idle_recycled_killed", idle_recycled_killed),
    ("idle_recycled_cut", idle_recycled_cut),
    ("idle_lz4_killed", idle_lz4_killed),
    ("only_recovered", only_recovered),
    ("only_recovered_cut", only_recovered_cut),
    ("recovered_on_recycled", recovered_on_recycled),
    ("unconfirmed", unconfirmed),
    ("unconfirmed_recycled", unconfirmed_recycled),
];
