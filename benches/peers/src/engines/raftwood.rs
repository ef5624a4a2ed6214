//! Raftwood, as it comes.

use crate::log::{Batch, Outcome, PeerLog, Result};
use ::raftwood::{Durability, Engine, EntryId, EntryRef, Options, ReadLimit, RegionId, WriteBatch};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

/// The engine with any options.
pub(crate) struct Raftwood(pub(crate) Engine);

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    Ok(Box::new(Raftwood(Options::new().open(dir)?)))
}

impl Raftwood {
    fn built(&self, batch: &Batch<'_>) -> Result<WriteBatch> {
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
        Ok(write)
    }
}

impl PeerLog for Raftwood {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let durability = if synced { Durability::Synced } else { Durability::Written };
        self.0.write(self.built(batch)?, durability)?;
        Ok(())
    }

    fn submit(&self, batch: &Batch<'_>) -> Result<Outcome> {
        let ticket = self.0.submit(self.built(batch)?, Durability::Synced)?;
        Ok(Box::new(move || Ok(ticket.wait().map(drop)?)))
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
