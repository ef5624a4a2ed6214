//! redb, a copy-on-write B-tree in one file.

use super::keys;
use crate::log::{Batch, PeerLog, Result};
use ::redb::{Database, Durability, ReadableDatabase, TableDefinition};
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;

struct Redb(Database);

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");

pub(super) fn open(dir: &Path, _writers: usize) -> Result<Box<dyn PeerLog>> {
    std::fs::create_dir_all(dir)?;
    let database = Database::create(dir.join("log.redb"))?;
    let create = database.begin_write()?;
    create.open_table(LOG)?;
    create.commit()?;
    Ok(Box::new(Redb(database)))
}

impl PeerLog for Redb {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let mut write = self.0.begin_write()?;
        write.set_durability(if synced { Durability::Immediate } else { Durability::None })?;
        {
            let mut table = write.open_table(LOG)?;
            for part in batch.parts() {
                for (index, payload) in batch.entries(part) {
                    table.insert(&keys::entry(part.region, index)[..], &payload[..])?;
                }
                if let Some(state) = &part.hard_state {
                    table.insert(&keys::hard_state(part.region)[..], &state[..])?;
                }
                if !part.dropped.is_empty() {
                    let range = keys::entries(part.region, part.dropped.clone());
                    table.retain_in(&range.start[..]..&range.end[..], |_, _| false)?;
                }
            }
        }
        Ok(write.commit()?)
    }

    fn read(&self, region: u64, range: Range<u64>, out: &mut Vec<Bytes>) -> Result<()> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        let range = keys::entries(region, range);
        for entry in table.range(&range.start[..]..&range.end[..])? {
            out.push(Bytes::copy_from_slice(entry?.1.value()));
        }
        Ok(())
    }

    fn hard_state(&self, region: u64) -> Result<Option<Vec<u8>>> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        Ok(table.get(&keys::hard_state(region)[..])?.map(|state| state.value().to_vec()))
    }

    fn sync(&self) -> Result<()> {
        // A commit that is durable makes those before it durable, too.
        Ok(self.0.begin_write()?.commit()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
