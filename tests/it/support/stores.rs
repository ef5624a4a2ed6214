//! Small complete stores, and what was acknowledged in them.

use super::engines::{DIR, kill, of_run};
use bytes::Bytes;
use raftwood::vfs::sim::{LossPolicy, SimVfs, Snapshot};
use raftwood::{Durability, Engine, EntryId, RegionId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How many regions each store has.
pub(crate) const REGIONS: u64 = 100;

/// What was acknowledged of one region.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Acked {
    pub(crate) entries: Vec<(EntryId, Bytes)>,
    pub(crate) hard_state: Option<Bytes>,
}

pub(crate) type State = BTreeMap<u64, Acked>;

/// A store on a disk that nobody has open.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) disk: Snapshot,
    pub(crate) acked: State,
    /// The states without the last groups. Where what proves that a group was durable is erased along with
    /// it, a tear may look like that.
    pub(crate) prefixes: Vec<State>,
    /// Where in the log these groups begin; what lies before is proved.
    unproven_from: u64,
}

/// Writes stores and remembers.
pub(crate) struct Writer {
    pub(crate) vfs: SimVfs,
    pub(crate) acked: State,
    run: u64,
    /// End of the last batch in its file.
    end: u64,
}

impl Writer {
    pub(crate) fn new(seed: u64) -> Writer {
        Writer { vfs: SimVfs::new(seed), acked: State::new(), run: 0, end: 0 }
    }

    pub(crate) fn open(&mut self) -> Engine {
        self.run += 1;
        of_run(&self.vfs, self.run).open(DIR).unwrap()
    }

    /// One batch: one more entry and a new hard state for each of these regions.
    pub(crate) fn write(&mut self, engine: &Engine, regions: impl IntoIterator<Item = u64>) {
        let mut batch = engine.batch();
        for id in regions {
            let acked = self.acked.entry(id).or_default();
            let index = acked.entries.last().map_or(1 + id % 3, |e| e.0.index + 1);
            let entry = EntryId::new(1 + index / 2, index);
            // It ends in a byte that one flip makes zero.
            let payload = Bytes::from(format!("{id}:{index}@"));
            let hard = Bytes::from(vec![entry.term as u8, id as u8]);
            let mut region = batch.region(RegionId(id));
            region.append([(entry, &payload[..])]).unwrap();
            region.set_hard_state(&hard).unwrap();
            acked.entries.push((entry, payload));
            acked.hard_state = Some(hard);
        }
        self.end = u64::from(engine.write(batch, Durability::Synced).unwrap().offset());
    }

    pub(crate) fn finish(self, name: &'static str) -> Store {
        self.finish_unproven(name, Vec::new(), u64::MAX)
    }

    /// Killed in the midst of writing: nothing but the last groups themselves, from this offset on, says
    /// that they were acknowledged.
    fn finish_unproven(self, name: &'static str, prefixes: Vec<State>, unproven_from: u64) -> Store {
        let disk = self.vfs.crash(LossPolicy::KeepAll);
        disk.settle();
        Store { name, disk: disk.freeze(), acked: self.acked, prefixes, unproven_from }
    }
}

/// Closed cleanly; the first of its segments is sealed.
pub(crate) fn closed() -> Store {
    let mut w = Writer::new(1);
    let engine = w.open();
    w.write(&engine, 1..=REGIONS);
    engine.close().unwrap();
    drop(engine);
    let engine = w.open();
    engine.tick().unwrap();
    w.write(&engine, (1..=REGIONS).step_by(4));
    engine.close().unwrap();
    drop(engine);
    w.finish("closed, one segment sealed")
}

/// Killed with an unsealed tail, whose last record says that all before it is durable and has
/// nothing of its own.
pub(crate) fn proven_tail() -> Store {
    let mut w = Writer::new(2);
    let engine = w.open();
    for first in 1..=4 {
        w.write(&engine, (first..=REGIONS).step_by(4));
    }
    let (before, end) = (w.acked.clone(), w.end);
    w.write(&engine, [7, 8]);
    let between = w.acked.clone();
    w.write(&engine, [9]);
    let vfs = w.vfs.clone();
    kill(&vfs, engine);
    w.finish_unproven("killed, unsealed tail", vec![between, before], end)
}

/// Killed after its last group, which is half of the store and above the watermark.
pub(crate) fn unproven_group() -> Store {
    let mut w = Writer::new(3);
    let engine = w.open();
    w.write(&engine, 1..=REGIONS);
    let (before, end) = (w.acked.clone(), w.end);
    w.write(&engine, 1..=REGIONS);
    let vfs = w.vfs.clone();
    kill(&vfs, engine);
    // The header of the second group, which proves the first, shares a sector with it.
    w.finish_unproven("killed, last group above the watermark", vec![before, State::new()], end)
}

/// Killed after it had been idle.
pub(crate) fn idle() -> Store {
    let mut w = Writer::new(5);
    let engine = w.open();
    for first in 1..=4 {
        w.write(&engine, (first..=REGIONS).step_by(4));
    }
    engine.tick().unwrap();
    let vfs = w.vfs.clone();
    kill(&vfs, engine);
    w.finish("killed after it had been idle")
}

/// Closed cleanly; three segments are sealed, and each holds a third of the regions.
pub(crate) fn thirds() -> Store {
    let mut w = Writer::new(4);
    for third in 0..3 {
        let engine = w.open();
        w.write(&engine, third_of(third));
        engine.tick().unwrap();
        engine.close().unwrap();
    }
    let engine = w.open();
    engine.tick().unwrap();
    engine.close().unwrap();
    drop(engine);
    w.finish("closed, three segments sealed")
}

/// The regions whose entries lie in one of its segments.
pub(crate) fn third_of(third: u64) -> std::ops::RangeInclusive<u64> {
    [1..=33, 34..=66, 67..=REGIONS][third as usize].clone()
}

impl Store {
    /// The files with their lengths, without the empty ones.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let all = self.disk.crash(LossPolicy::KeepAll).list();
        all.into_iter().filter(|(_, len)| *len > 0).collect()
    }

    /// Whether what proves the bytes of this sector lies elsewhere.
    pub(crate) fn is_proven(&self, path: &Path, sector: u64) -> bool {
        path.extension().is_none_or(|e| e != "log") || (sector + 1) * 512 <= self.unproven_from
    }

    /// The bytes of a file that mean something: not what a segment has not used yet.
    pub(crate) fn used_bytes(&self, path: &Path) -> Vec<u64> {
        let bytes = self.disk.crash(LossPolicy::KeepAll).read_file(path).unwrap();
        let kind = path.extension().and_then(|e| e.to_str());
        let is_segment = matches!(kind, Some("log" | "cold" | "free"));
        let last_block = bytes.len().saturating_sub(4096);
        let end = match is_segment {
            true => bytes[..last_block].iter().rposition(|b| *b != 0).map_or(0, |at| at + 1),
            false => bytes.len(),
        };
        let second_header = if is_segment { last_block..(last_block + 128).min(bytes.len()) } else { 0..0 };
        let used = (0..end).filter(|at| !is_segment || *at >= 4096 || *at < 128);
        used.chain(second_header).map(|at| at as u64).collect()
    }
}
