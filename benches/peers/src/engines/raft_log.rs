//! Databend's raft-log, a log of one group: here one that all regions share. It has no index by region, and
//! what is dropped goes when all that was written before has been dropped, too.

use crate::log::{Batch, PeerLog, Result};
use ::raft_log::api::raft_log_writer::RaftLogWriter;
use ::raft_log::{Config, RaftLog, Types};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const CHUNK_BYTES: usize = 64 << 20;

/// All of one term.
const TERM: u64 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shared;

impl Types for Shared {
    /// The term, and the place in the log that is shared.
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = Vec<u8>;
    type Callback = SyncSender<io::Result<()>>;
    type UserData = Vec<u8>;

    fn log_index(id: &(u64, u64)) -> u64 {
        id.1
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

struct Log {
    log: RaftLog<Shared>,
    next: u64,
    /// For each region the first index and the place of what one batch wrote, oldest first.
    regions: HashMap<u64, VecDeque<(u64, u64)>>,
}

struct RaftLogPeer(Mutex<Log>);

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    std::fs::create_dir_all(dir)?;
    let mut config = Config::new(dir.display());
    config.wal.chunk_max_size = Some(CHUNK_BYTES);
    // It is not read from: what it would keep in memory for reads is no part of the comparison.
    config.log_cache_capacity = Some(CHUNK_BYTES);
    let log = RaftLog::<Shared>::open(Arc::new(config))?;
    let next = log.log_state().last().map_or(0, |id| id.1 + 1);
    Ok(Box::new(RaftLogPeer(Mutex::new(Log { log, next, regions: HashMap::new() }))))
}

impl RaftLogPeer {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        for part in batch.parts() {
            let written = self.regions.entry(part.region).or_default();
            written.push_back((part.first, self.next));
            while written.get(1).is_some_and(|(first, _)| *first <= part.dropped.end) {
                written.pop_front();
            }
            let first = self.next;
            let new = batch.entries(part);
            self.next += new.len() as u64;
            let entries = new.zip(first..).map(|((index, payload), place)| {
                let mut bytes = Vec::with_capacity(16 + payload.len());
                bytes.extend_from_slice(&part.region.to_le_bytes());
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(payload);
                ((TERM, place), bytes)
            });
            self.log.append(entries)?;
            if let Some(state) = &part.hard_state {
                let vote = [&part.region.to_le_bytes()[..], state].concat();
                self.log.append([((TERM, self.next), vote)])?;
                self.next += 1;
            }
        }
        Ok(())
    }

    fn flush(&mut self, synced: bool) -> Result<impl FnOnce() -> Result<()> + use<>> {
        let (done, wait) = sync_channel(1);
        self.log.flush(synced, Some(done))?;
        Ok(move || Ok(wait.recv()??))
    }
}

impl PeerLog for RaftLogPeer {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let wait = {
            let mut log = self.lock();
            log.append(batch)?;
            log.flush(synced)?
        };
        wait()
    }

    fn read(&self, _: u64, _: Range<u64>, _: &mut Vec<Bytes>) -> Result<()> {
        Err("raft-log has no index of regions".into())
    }

    fn upkeep(&self) -> Result<()> {
        let mut log = self.lock();
        let oldest = log.regions.values().filter_map(|w| w.front()).map(|(_, place)| *place).min();
        if let Some(last) = oldest.and_then(|place| place.checked_sub(1)) {
            log.log.purge((TERM, last))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let wait = self.lock().flush(true)?;
        wait()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
