//! Two small regions on a simulated disk, and where their bytes lie.

use super::engines::{DIR, of_run};
use super::files::{self, files, is_a, position};
use super::heard::Heard;
use raftwood::vfs::sim::SimVfs;
use raftwood::{Durability, Engine, EntryId, Event, HardStateHealth, Health, Options, ReadLimit, RegionId};
use std::sync::Arc;

pub(crate) const R: RegionId = RegionId(7);
pub(crate) const OTHER: RegionId = RegionId(8);

pub(crate) struct Fixture {
    pub(crate) vfs: SimVfs,
    pub(crate) run: u64,
    /// The damage that its engines notified their listener of.
    pub(crate) heard: Arc<Heard<String>>,
}

pub(crate) fn payload(region: RegionId, index: u64) -> Vec<u8> {
    format!("<region {region} entry {index}>{}", "=".repeat(40)).into_bytes()
}

pub(crate) fn term(index: u64) -> u64 {
    1 + index / 4
}

pub(crate) fn append(engine: &Engine, region: RegionId, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let mut batch = engine.batch();
        let bytes = payload(region, index);
        batch.region(region).append([(EntryId::new(term(index), index), &bytes[..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let heard = Heard::new(|event| match event {
            Event::DamageFound { error } => Some(error.to_string()),
            _ => None,
        });
        Fixture { vfs: SimVfs::new(5), run: 0, heard }
    }

    pub(crate) fn open_with(&mut self, change: impl FnOnce(Options) -> Options) -> Engine {
        self.run += 1;
        change(of_run(&self.vfs, self.run).listener(self.heard.clone())).open(DIR).unwrap()
    }

    pub(crate) fn open(&mut self) -> Engine {
        self.open_with(|o| o)
    }

    /// Entries 1 to 8 of two regions, in the active segment.
    pub(crate) fn active(&mut self) -> Engine {
        let engine = self.open();
        append(&engine, R, 1..=8);
        append(&engine, OTHER, 1..=8);
        engine
    }

    /// The same in a sealed segment.
    pub(crate) fn sealed(&mut self) -> Engine {
        self.active().close().unwrap();
        let engine = self.open();
        engine.tick().unwrap();
        engine
    }

    /// Where the bytes of an entry lie: file and offset. The newest copy, if there are several.
    pub(crate) fn find(&self, region: RegionId, index: u64) -> (std::path::PathBuf, u64) {
        let mut segments = files(&self.vfs);
        segments.retain(|path, _| is_a(path, "log") || is_a(path, "cold"));
        let found = |(path, bytes): (_, Vec<u8>)| Some((path, position(&bytes, &payload(region, index))?));
        segments.into_iter().filter_map(found).max().unwrap()
    }

    pub(crate) fn rot(&self, region: RegionId, index: u64) {
        let (path, at) = self.find(region, index);
        files::rot(&self.vfs, path, at + 3);
    }

    pub(crate) fn heard(&self) -> usize {
        self.heard.count()
    }
}

pub(crate) fn damaged(engine: &Engine, region: RegionId) -> Vec<std::ops::RangeInclusive<u64>> {
    match engine.region(region).health() {
        Health::Damaged { ranges, hard_state: HardStateHealth::Known } => ranges,
        Health::Healthy => Vec::new(),
        other => unreachable!("{other:?}"),
    }
}

/// Every entry of the region can be read, and is right.
pub(crate) fn is_whole(engine: &Engine, region: RegionId, indexes: std::ops::RangeInclusive<u64>) {
    let read = engine.region(region).entries(indexes.clone(), ReadLimit::NONE).unwrap();
    assert!(read.iter().map(|e| e.id.index).eq(indexes));
    for e in &read {
        assert_eq!((e.id.term, &e.payload[..]), (term(e.id.index), &payload(region, e.id.index)[..]));
    }
}
