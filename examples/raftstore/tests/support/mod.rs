//! Stores on a simulated disk, and entries of a hundred bytes.

use raftwood::vfs::sim::SimVfs;
use raftwood::{Background, Entry, EntryId, Options, RegionId};
use raftwood_raftstore::{LogBatch, RaftLog};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Opens the store on `disk`; every run of a test does the same calls.
pub(crate) fn open(disk: &SimVfs) -> RaftLog {
    let salts = AtomicU64::new(disk.ops() << 20 | 0x5a17);
    let salts = Arc::new(move || salts.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
    let options = Options::new().background(Background::Manual).segment_bytes(64 << 10).salt_source(salts);
    RaftLog::open_with(&options.vfs(Arc::new(disk.clone())), "/raft").unwrap()
}

/// Appends entries of one term.
pub(crate) fn put(batch: &mut LogBatch, region: RegionId, term: u64, range: RangeInclusive<u64>) {
    let payload = [term as u8; 100];
    batch.append(region, range.map(|index| (EntryId::new(term, index), &payload[..]))).unwrap();
}

/// Which entries they are.
#[allow(dead_code, reason = "not every test reads entries")]
pub(crate) fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.id.index).collect()
}
