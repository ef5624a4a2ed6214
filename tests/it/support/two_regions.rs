//! Two small regions on a simulated disk, and where their bytes lie.

use super::stores::{DIR, options};
use raftwood::vfs::sim::SimVfs;
use raftwood::{
    Durability, Engine, EntryId, Event, EventListener, HardStateHealth, Health, Options, ReadLimit, RegionId,
};
use std::sync::{Arc, Mutex};

pub(crate) const R: RegionId = RegionId(7);
pub(crate) const OTHER: RegionId = RegionId(8);

/// Remembers what damage is delivered to it.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<String>>);

impl EventListener for Heard {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Damage { error } = event {
            self.0.lock().unwrap().push(error.to_string());
        }
    }
}

pub(crate) struct Fixture {
    pub(crate) vfs: SimVfs,
    pub(crate) heard: Arc<Heard>,
    pub(crate) life: u64,
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
        Fixture { vfs: SimVfs::new(5), heard: Arc::default(), life: 0 }
    }

    pub(crate) fn open_with(&mut self, change: impl FnOnce(Options) -> Options) -> Engine {
        self.life += 1;
        change(options(&self.vfs, self.life).listener(self.heard.clone())).open(DIR).unwrap()
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
        let wanted = payload(region, index);
        let mut found = None;
        for (path, len) in self.vfs.list() {
            if len > 0 && path.extension().is_some_and(|e| e == "log" || e == "cold") {
                let bytes = self.vfs.read_file(&path).unwrap();
                if let Some(at) = bytes.windows(wanted.len()).position(|w| w == wanted) {
                    found = found.max(Some((path, at as u64)));
                }
            }
        }
        found.unwrap()
    }

    pub(crate) fn rot(&self, region: RegionId, index: u64) {
        let (path, at) = self.find(region, index);
        self.vfs.flip_bit(&path, (at + 3) * 8).unwrap();
    }

    pub(crate) fn heard(&self) -> usize {
        self.heard.0.lock().unwrap().len()
    }
}

pub(crate) fn damaged(engine: &Engine, region: RegionId) -> Vec<(u64, u64)> {
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
