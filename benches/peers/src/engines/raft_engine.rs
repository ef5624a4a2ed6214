//! TiKV's raft-engine, as TiKV uses it: a batch is reused by its thread, entries are protobuf messages.

use crate::log::{Batch, PeerLog, Result};
use ::raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use bytes::Bytes;
use raft_proto::eraftpb::Entry;
use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

struct RaftEngine(Engine);

#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

const PURGE_THRESHOLD: ReadableSize = ReadableSize::gb(1);

/// The hard state is one key of a region.
const HARD_STATE: &[u8] = b"s";

thread_local! {
    static SCRATCH: RefCell<(LogBatch, Vec<Entry>)> = RefCell::default();
}

pub(super) fn open_default(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    open(dir, Config::default())
}

pub(super) fn open_best(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    open(
        dir,
        Config {
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(PURGE_THRESHOLD),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        },
    )
}

fn open(dir: &Path, config: Config) -> Result<Box<dyn PeerLog>> {
    let dir = dir.to_str().ok_or("the directory has a name that is not UTF-8")?.to_owned();
    let engine = Engine::open(Config { dir, purge_threshold: PURGE_THRESHOLD, ..config })?;
    Ok(Box::new(RaftEngine(engine)))
}

impl PeerLog for RaftEngine {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        SCRATCH.with_borrow_mut(|(write, entries)| {
            for part in batch.parts() {
                let new = batch.entries(part);
                let count = new.len();
                if entries.len() < count {
                    entries.resize_with(count, Entry::default);
                }
                for (entry, (index, payload)) in entries.iter_mut().zip(new) {
                    (entry.index, entry.term, entry.data) = (index, 1, payload.clone());
                }
                write.add_entries::<Entries>(part.region, &entries[..count])?;
                if let Some(state) = part.hard_state {
                    write.put(part.region, HARD_STATE.to_vec(), state.to_vec())?;
                }
                if !part.dropped.is_empty() {
                    write.add_command(part.region, Command::Compact { index: part.dropped.end });
                }
            }
            self.0.write(write, synced)?;
            Ok(())
        })
    }

    fn read(&self, region: u64, range: Range<u64>, out: &mut Vec<Bytes>) -> Result<()> {
        let (first, last) = (self.0.first_index(region), self.0.last_index(region));
        let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
        let range = range.start.max(first)..range.end.min(last + 1);
        if range.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::with_capacity((range.end - range.start) as usize);
        self.0.fetch_entries_to::<Entries>(region, range.start, range.end, None, &mut entries)?;
        out.extend(entries.into_iter().map(|mut entry| std::mem::take(&mut entry.data)));
        Ok(())
    }

    fn hard_state(&self, region: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(region, HARD_STATE))
    }

    fn upkeep(&self) -> Result<()> {
        self.0.purge_expired_files()?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.0.sync()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.sync()?)
    }
}
