//! RocksDB, set up as the log of a store that keeps its entries for a short time.

use super::keys;
use crate::log::{Batch, PeerLog, Result};
use ::rocksdb::{DB, DBCompressionType, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

struct RocksDb(DB);

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::None);
    options.set_enable_pipelined_write(true);
    options.set_write_buffer_size(128 << 20);
    options.set_max_write_buffer_number(4);
    options.set_max_background_jobs(2);
    options.set_recycle_log_file_num(4);
    options.set_wal_bytes_per_sync(512 << 10);
    Ok(Box::new(RocksDb(DB::open(&options, dir)?)))
}

impl PeerLog for RocksDb {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let mut write = WriteBatch::default();
        for part in batch.parts() {
            for (index, payload) in batch.entries(part) {
                write.put(keys::entry(part.region, index), payload);
            }
            if let Some(state) = &part.hard_state {
                write.put(keys::hard_state(part.region), state);
            }
            if !part.dropped.is_empty() {
                let range = keys::entries(part.region, part.dropped.clone());
                write.delete_range(range.start, range.end);
            }
        }
        let mut how = WriteOptions::default();
        how.set_sync(synced);
        Ok(self.0.write_opt(write, &how)?)
    }

    fn read(&self, region: u64, range: Range<u64>, out: &mut Vec<Bytes>) -> Result<()> {
        let range = keys::entries(region, range);
        for entry in self.0.iterator(IteratorMode::From(&range.start, Direction::Forward)) {
            let (key, value) = entry?;
            if key[..] >= range.end[..] {
                break;
            }
            out.push(value.into_vec().into());
        }
        Ok(())
    }

    fn hard_state(&self, region: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(keys::hard_state(region))?)
    }

    fn sync(&self) -> Result<()> {
        let mut how = WriteOptions::default();
        how.set_sync(true);
        // An empty batch would not be written at all.
        Ok(self.0.put_opt(keys::hard_state(0), b"", &how)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
