//! The file of a checkpoint while it is written.

use crate::format::checkpoint::{CHECKPOINT_HEADERS_LEN, CheckpointHeader, CheckpointWriter};
use crate::format::file_header::{Identity, StoreId};
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::index::Table;
use crate::salt::SaltSource;
use crate::segment::Unwritten;
use crate::sync::Arc;
use crate::types::Lsn;
use crate::vfs::io::write_parts_at;
use crate::vfs::{Dir, VfsFile};
use std::path::PathBuf;

/// The checkpoint of an empty store: the first file of all, so that a store always has a name.
pub(crate) fn write_first_checkpoint(dir: &Dir, salts: &SaltSource, id: StoreId) -> Result<(), Unwritten> {
    let header = CheckpointHeader {
        identity: Identity { store: id, file: 1, salt: salts.next() },
        start_segment: 1,
        synced: Lsn::ZERO,
        next_file: 1,
        unclean_before: Some(0),
        regions: 0,
        segments: Vec::new(),
    };
    CheckpointFile::create(dir)?.finish(CheckpointWriter::new(header), 1).map(drop)
}

/// The first checkpoint of a store that is made whole at once, of all that `table` has. From when it has its
/// name, durably, there is a store.
pub(crate) fn write_checkpoint_of(
    dir: &Dir,
    header: CheckpointHeader,
    table: &Table,
) -> Result<u64, Unwritten> {
    let sequence = header.identity.file;
    let mut out = CheckpointFile::create(dir)?;
    let mut writer = CheckpointWriter::new(header);
    for cell in table.cells() {
        let state = cell.read();
        if state.exists {
            writer.region(&state.record(cell.id));
        }
        drop(state);
        while let Some(chunk) = writer.take_chunk() {
            out.append(&chunk)?;
        }
    }
    out.finish(writer, sequence)
}

/// A checkpoint being written: chunk by chunk, so that a million regions need no more memory than a few.
pub(super) struct CheckpointFile {
    dir: Dir,
    /// For messages.
    temp: PathBuf,
    file: Arc<dyn VfsFile>,
    len: u64,
}

impl CheckpointFile {
    /// Under a temporary name, with room for the headers, which come last.
    pub(super) fn create(dir: &Dir) -> Result<CheckpointFile, Unwritten> {
        let temp = dir.join(CHECKPOINT_TEMP);
        let file =
            dir.draft(CHECKPOINT_TEMP).map_err(|e| Unwritten::io("creating a checkpoint", &temp, e))?;
        Ok(CheckpointFile { dir: dir.clone(), temp, file, len: CHECKPOINT_HEADERS_LEN as u64 })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        self.write(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Unwritten> {
        write_parts_at(&*self.file, &[bytes], at)
            .map_err(|e| Unwritten::io("writing a checkpoint", &self.temp, e))
    }

    /// Writes the rest and the headers, and gives the file its name, durably. Returns its length.
    pub(super) fn finish(mut self, writer: CheckpointWriter, sequence: u32) -> Result<u64, Unwritten> {
        let (rest, headers) = writer.finish();
        self.append(&rest)?;
        self.write(&headers, 0)?;
        let name = FileName::Checkpoint(sequence).to_string();
        self.file.sync_all().map_err(|e| Unwritten::io("syncing a checkpoint", &self.temp, e))?;
        let dir = &self.dir;
        // Replacing: one of this number is there if this failed before, after the rename.
        let named = dir.publish(CHECKPOINT_TEMP, &name);
        named.map_err(|e| Unwritten::io("naming a checkpoint", &dir.join(&name), e))?;
        Ok(self.len)
    }
}
