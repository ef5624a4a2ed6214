//! okaywal: a write-ahead log and no more. What is dropped at its checkpoints would be in the store
//! that it is part of.

use crate::log::{Batch, PeerLog, Result};
use ::okaywal::{Configuration, LogVoid, WriteAheadLog};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

struct OkayWal(WriteAheadLog);

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    let how = Configuration::default_for(dir).preallocate_bytes(64 << 20).checkpoint_after_bytes(60 << 20);
    Ok(Box::new(OkayWal(how.open(LogVoid)?)))
}

impl PeerLog for OkayWal {
    /// There is no write of it without a sync.
    fn write(&self, batch: &Batch<'_>, _synced: bool) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        for part in batch.parts() {
            for (index, payload) in batch.entries(part) {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&part.region.to_le_bytes());
                id[8..].copy_from_slice(&index.to_le_bytes());
                entry.write_chunk(&id)?;
                entry.write_chunk(payload)?;
            }
            if let Some(state) = &part.hard_state {
                entry.write_chunk(state)?;
            }
        }
        entry.commit()?;
        Ok(())
    }

    fn read(&self, _: u64, _: Range<u64>, _: &mut Vec<Bytes>) -> Result<()> {
        Err("okaywal has no index of entries".into())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.shutdown()?)
    }
}
