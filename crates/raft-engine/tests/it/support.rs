//! Entries as TiKV writes them, and an engine in a directory of its own.

use raft_proto::eraftpb::Entry;
use raftwood_raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, Result};
use std::path::Path;

/// As a program of raft-engine has it.
pub(crate) struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// The same, with its terms.
pub(crate) struct WithTerms;

impl MessageExt for WithTerms {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }

    fn term(entry: &Entry) -> Option<u64> {
        Some(entry.term)
    }
}

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_str().unwrap().to_owned(),
        target_file_size: ReadableSize::kb(256),
        purge_threshold: ReadableSize::mb(1),
        batch_compression_threshold: ReadableSize(0),
        ..Config::default()
    }
}

pub(crate) fn open(dir: &Path) -> Engine {
    Engine::open(config(dir)).unwrap()
}

pub(crate) fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { term, index, data: data.to_vec().into(), ..Entry::default() }
}

/// Those of `indexes`, each with its index as data.
pub(crate) fn entries(term: u64, indexes: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    indexes.into_iter().map(|index| entry(term, index, &index.to_le_bytes())).collect()
}

pub(crate) fn append(engine: &Engine, region: u64, entries: &[Entry]) -> Result<usize> {
    let mut batch = LogBatch::default();
    batch.add_entries::<Entries>(region, entries)?;
    engine.write(&mut batch, true)
}

pub(crate) fn command(engine: &Engine, region: u64, cmd: Command) {
    let mut batch = LogBatch::default();
    batch.add_command(region, cmd);
    engine.write(&mut batch, false).unwrap();
}

pub(crate) fn put(engine: &Engine, region: u64, key: &[u8], value: &[u8]) {
    let mut batch = LogBatch::default();
    batch.put(region, key.to_vec(), value.to_vec()).unwrap();
    engine.write(&mut batch, false).unwrap();
}

/// First and last index.
pub(crate) fn span(engine: &Engine, region: u64) -> Option<(u64, u64)> {
    engine.first_index(region).zip(engine.last_index(region))
}

/// All entries of a region.
pub(crate) fn all(engine: &Engine, region: u64) -> Vec<Entry> {
    let mut found = Vec::new();
    if let Some((first, last)) = span(engine, region) {
        engine.fetch_entries_to::<Entries>(region, first, last + 1, None, &mut found).unwrap();
    }
    found
}
