//! Writes the region table as of one point of the log, while writes go on.
//!
//! Each region is captured under its own lock at some moment after the start position was taken, with the
//! segment of its latest batch. Replay applies, to each region, the segments from there on; applying a
//! segment to a state that was taken inside it is harmless. Before the file gets its name the log is synced
//! beyond everything captured, so a checkpoint never knows of anything that a crash could undo.

use crate::engine::listener::Event;
use crate::engine::options::Options;
use crate::error::{Error, Result};
use crate::format::checkpoint::{CHECKPOINT_HEADERS_LEN, CheckpointHeader, CheckpointWriter, SegmentRecord};
use crate::format::file_header::{Identity, StoreId};
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::planted::{Bug, planted};
use crate::store::{CHECKPOINTS_KEPT, CheckpointInfo, Checkpoints, Store, lock};
use crate::sync::atomic::Ordering;
use crate::types::Lsn;
use crate::vfs::io::write_parts_at;
use crate::vfs::{Dir, OpenMode, VfsFile};
use std::path::PathBuf;
use std::sync::Arc;

/// A checkpoint is due when the log has grown by this many times its size, or by a segment if that is more.
const GROWTH_MIN: u64 = 4;

/// What a stall is reported by.
const WRITING: &str = "writing a checkpoint";

/// Writes a checkpoint if enough was logged since the last.
pub(crate) fn checkpoint_if_due(store: &Store) -> Result<()> {
    let due = {
        let kept = lock(&store.checkpoints);
        let grown = store.log_bytes() - kept.kept.back().map_or(0, |c| c.log_bytes.min(store.log_bytes()));
        let size = kept.kept.back().map_or(0, |c| c.bytes);
        grown >= store.options.segment_bytes.max(size * GROWTH_MIN)
    };
    if due && !store.committer.gate().is_shut() {
        checkpoint(store)?;
    }
    Ok(())
}

/// Writes a checkpoint now. The caller holds the upkeep lock.
pub(crate) fn checkpoint(store: &Store) -> Result<()> {
    let log_bytes = store.log_bytes();
    let active = store.committer.active().map(|(active, _)| active);
    // Full segments without a footer are replayed too: recovery builds it. So the start is simply
    // where writing is, or would be.
    let start_segment = active.as_ref().map_or_else(|| store.committer.active_id(), |active| active.id);
    let accepted = store.committer.accepted();
    let sequence = lock(&store.checkpoints).next_sequence;
    // Found by fuzzing: a file of that name need only lie in the directory.
    let next_sequence = sequence.checked_add(1).ok_or_else(|| {
        Error::new(
            crate::ErrorKind::Unsupported,
            "all 2^32 checkpoint numbers are used up; is there a stray file?",
        )
    })?;

    let mut segments: Vec<SegmentRecord> = store
        .shared
        .segments()
        .iter()
        .map(|s| SegmentRecord { id: s.id, kind: s.kind, salt: s.identity.salt, sealed_end: s.sealed_end() })
        .collect();
    if let Some(active) = active.filter(|active| !segments.iter().any(|s| s.id == active.id)) {
        segments.push(SegmentRecord {
            id: active.id,
            kind: active.kind,
            salt: active.identity.salt,
            sealed_end: 0,
        });
    }
    let identity = Identity { store: store.id, file: sequence, salt: store.options.salts.next() };
    let header = CheckpointHeader {
        identity,
        start_segment,
        synced: store.committer.durable_record(),
        next_file: store.factory.next_file(),
        unclean_before: Some(store.unclean_before),
        regions: 0,
        segments,
    };

    store.factory.check_open()?;
    store.mark.ensure()?;
    let mut out = Output::create(&store.dir)?;
    let mut writer = CheckpointWriter::new(header);
    let mut regions = 0;
    let mut forgotten = Vec::new();
    for cell in store.table.cells() {
        let state = cell.read();
        // A tombstone keeps older operations from being replayed onto nothing. This checkpoint's replay
        // starts past its last operation: it has done its duty.
        if !state.exists && state.touched.segment() < start_segment {
            forgotten.push(cell.id);
            continue;
        }
        let record = state.record(cell.id);
        drop(state);
        writer.region(&record);
        regions += 1;
        while let Some(chunk) = writer.take_chunk() {
            store.factory.watch.during(WRITING, || out.append(&chunk))?;
        }
    }
    if !planted(Bug::CheckpointBeforeLogSync) {
        store.committer.flush()?;
    }
    writer.set_synced(store.committer.durable_record());
    store.factory.check_open()?;
    let bytes = store.factory.watch.during(WRITING, || out.finish(writer, sequence))?;

    let mut kept = lock(&store.checkpoints);
    kept.next_sequence = next_sequence;
    kept.kept.push_back(CheckpointInfo { sequence, start_segment, accepted, bytes, log_bytes });
    while kept.kept.len() > if planted(Bug::OneCheckpointKept) { 1 } else { CHECKPOINTS_KEPT } {
        if let Some(old) = kept.kept.pop_front() {
            let name = FileName::Checkpoint(old.sequence).to_string();
            let remove = || store.dir.remove(&name);
            match store.factory.watch.during("removing an old checkpoint", remove) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("removing an old checkpoint", &store.dir.join(&name), e));
                }
                _ => {}
            }
        }
    }
    drop(kept);
    let any = !forgotten.is_empty();
    for id in forgotten {
        store.committer.forget_region(id, start_segment);
    }
    if any {
        store.table.shrink();
    }
    store.upkeep_bytes.fetch_add(bytes, Ordering::Relaxed);
    store.shared.tell(&Event::Checkpoint { start_segment, bytes, regions });
    Ok(())
}

/// The checkpoint of an empty store: the first file of all, so that a store always has a name.
pub(crate) fn first_checkpoint(dir: &Dir, options: &Options, id: StoreId) -> Result<()> {
    let header = CheckpointHeader {
        identity: Identity { store: id, file: 1, salt: options.salts.next() },
        start_segment: 1,
        synced: Lsn::ZERO,
        next_file: 1,
        unclean_before: Some(0),
        regions: 0,
        segments: Vec::new(),
    };
    Output::create(dir)?.finish(CheckpointWriter::new(header), 1).map(drop)
}

/// What is known of it.
pub(crate) fn first_checkpoint_info() -> Checkpoints {
    let first =
        CheckpointInfo { sequence: 1, start_segment: 1, accepted: Lsn::ZERO, bytes: 256, log_bytes: 0 };
    Checkpoints { next_sequence: 2, kept: [first].into() }
}

/// A checkpoint being written: chunk by chunk, so that a million regions need no more memory than a few.
struct Output {
    dir: Dir,
    /// For messages.
    temp: PathBuf,
    file: Arc<dyn VfsFile>,
    len: u64,
}

impl Output {
    /// Under a temporary name, with room for the headers, which come last.
    fn create(dir: &Dir) -> Result<Output> {
        let temp = dir.join(CHECKPOINT_TEMP);
        match dir.remove(CHECKPOINT_TEMP) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing a stale file", &temp, e));
            }
            _ => {}
        }
        let file = dir
            .open(CHECKPOINT_TEMP, OpenMode::CreateNew)
            .map_err(|e| Error::io("creating a checkpoint", &temp, e))?;
        Ok(Output { dir: dir.clone(), temp, file, len: CHECKPOINT_HEADERS_LEN as u64 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        write_parts_at(&*self.file, &[bytes], at)
            .map_err(|e| Error::io("writing a checkpoint", &self.temp, e))
    }

    /// Writes the rest and the headers, and gives the file its name, durably. Returns its length.
    fn finish(mut self, writer: CheckpointWriter, sequence: u32) -> Result<u64> {
        let (rest, headers) = writer.finish();
        self.append(&rest)?;
        self.write(&headers, 0)?;
        let name = FileName::Checkpoint(sequence).to_string();
        if !planted(Bug::CheckpointNotSynced) {
            self.file.sync_all().map_err(|e| Error::io("syncing a checkpoint", &self.temp, e))?;
        }
        let dir = &self.dir;
        // Replacing: one of this number is there if this failed before, after the rename.
        let named = dir.rename(CHECKPOINT_TEMP, &name);
        named.map_err(|e| Error::io("naming a checkpoint", &dir.join(&name), e))?;
        dir.sync().map_err(|e| Error::io("syncing the directory", dir.path(), e))?;
        Ok(self.len)
    }
}
