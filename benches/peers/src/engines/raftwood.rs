//! Raftwood, as it comes.

use crate::log::{Batch, PeerLog, Result};
use ::raftwood::{Durability, Engine, EntryId, EntryRef, Options, ReadLimit, RegionId};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

/// The engine with any options.
pub(crate) struct Raftwood(pub(crate) Engine);

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    Ok(Box::new(Raftwood(Options::new().open(dir)?)))
}

impl PeerLog for Raftwood {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let mut write = self.0.batch();
        for part in batch.parts() {
            let mut region = write.region(RegionId(part.region));
            let entries = batch.entries(part);
            region
                .append(entries.map(|(index, payload)| EntryRef { id: EntryId::new(1, index), payload }))?;
            if let Some(state) = &part.hard_state {
                region.set_hard_state(state)?;
            }
            if !part.dropped.is_empty() {
                region.compact_through(part.dropped.end - 1)?;
            }
        }
        self.0.write(write, if synced { Durability::Synced } else { Durability::Written })?;
        Ok(())
    }

    fn read(&self, region: u64, range: Range<u64>, out: &mut Vec<Bytes>) -> Result<()> {
        let entries = self.0.region(RegionId(region)).entries(range, ReadLimit::NONE)?;
        out.extend(entries.into_iter().map(|entry| entry.payload));
        Ok(())
    }

    fn hard_state(&self, region: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.region(RegionId(region)).hard_state_or_lost()?.map(|state| state.to_vec()))
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}
