//! fjall, a log-structured merge tree in Rust.

use super::keys;
use crate::log::{Batch, PeerLog, Result};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    let database = Database::builder(dir).open()?;
    let keyspace = database.keyspace("log", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, keyspace }))
}

impl PeerLog for Fjall {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let how = if synced { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut write = self.database.batch().durability(Some(how));
        for part in batch.parts() {
            for (index, payload) in batch.entries(part) {
                write.insert(&self.keyspace, keys::entry(part.region, index), &payload[..]);
            }
            if let Some(state) = &part.hard_state {
                write.insert(&self.keyspace, keys::hard_state(part.region), &state[..]);
            }
            for index in part.dropped.clone() {
                write.remove(&self.keyspace, keys::entry(part.region, index));
            }
        }
        Ok(write.commit()?)
    }

    fn read(&self, region: u64, range: Range<u64>, out: &mut Vec<Bytes>) -> Result<()> {
        for entry in self.keyspace.range(keys::entries(region, range)) {
            out.push(Bytes::copy_from_slice(&entry.value()?));
        }
        Ok(())
    }

    fn hard_state(&self, region: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.keyspace.get(keys::hard_state(region))?.map(|state| state.to_vec()))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
