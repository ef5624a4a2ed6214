//! Writes the region table as of one point of the log, while writes go on.
//!
//! Each region is captured under its own lock at some moment after the start position was taken, with the
//! segment of its latest batch. Replay applies, to each region, the segments from there on; applying a
//! segment to a state that was taken inside it is harmless. Before the file gets its name the log is synced
//! beyond everything captured, so a checkpoint never knows of anything that a crash could undo.

mod file;
mod kept;

pub(crate) use file::{write_checkpoint_of, write_first_checkpoint};
pub(crate) use kept::{CHECKPOINTS_KEPT, CheckpointInfo, Kept};

use crate::clock;
use crate::commit::Committer;
use crate::error::{Error, ErrorKind};
use crate::format::checkpoint::{CheckpointHeader, CheckpointWriter, SegmentRecord};
use crate::format::file_header::{Identity, StoreId};
use crate::format::names::FileName;
use crate::histogram::Times;
use crate::index::Table;
use crate::listener::{Event, Listeners};
use crate::planted::{Bug, planted};
use crate::salt::SaltSource;
use crate::segment::factory::SegmentFactory;
use crate::segment::mark_file::MarkFile;
use crate::segment::{Segment, SegmentSet, Unwritten};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::trace;
use crate::types::RegionId;
use crate::vfs::Dir;
use file::CheckpointFile;

/// A checkpoint is due when the log has grown by this many times its size, or by a segment if that is more.
const GROWTH_MIN: u64 = 4;

/// What a stall is reported by.
const WRITING: &str = "writing a checkpoint";

/// Writes the checkpoints of an open store, and knows which are kept. One thread at a time writes one: the
/// caller sees to that.
pub(crate) struct Checkpoints {
    pub(crate) parts: Parts,
    /// Bytes of records that earlier runs left to be replayed.
    pub(crate) replayed_bytes: u64,
    kept: Mutex<Kept>,
    written_bytes: AtomicU64,
    /// From the beginning of one to its end.
    pub(crate) times: Times,
}

/// One run of the engine over a store, from an open to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) store: StoreId,
    /// Its first file has the same number.
    pub(crate) number: u32,
    /// Runs with a lower number may have lost what was accepted and never acknowledged.
    pub(crate) unclean_before: u32,
}

/// What a checkpoint is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) dir: Dir,
    pub(crate) run: Run,
    pub(crate) segment_bytes: u64,
    pub(crate) salts: SaltSource,
    pub(crate) table: Arc<Table>,
    pub(crate) segments: Arc<SegmentSet>,
    pub(crate) factory: Arc<SegmentFactory>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) mark: Arc<MarkFile>,
    pub(crate) listeners: Arc<Listeners>,
}

/// What was written of the table.
#[derive(Default)]
struct Captured {
    regions: u64,
    /// Destroyed regions of which nothing needs to be known any more.
    forgotten: Vec<RegionId>,
}

impl Checkpoints {
    pub(crate) fn new(parts: Parts, kept: Kept, replayed_bytes: u64) -> Checkpoints {
        let (kept, written_bytes) = (Mutex::new(kept), AtomicU64::new(0));
        Checkpoints { parts, replayed_bytes, kept, written_bytes, times: Times::default() }
    }

    /// Those that there are at the moment.
    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().clone()
    }

    pub(crate) fn newest(&self) -> Option<CheckpointInfo> {
        self.kept.lock().newest()
    }

    /// Bytes that this run wrote to checkpoints.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of records since the checkpoint that this run began with.
    fn log_bytes(&self) -> u64 {
        self.replayed_bytes + self.parts.committer.counters().record_bytes.load(Ordering::Relaxed)
    }

    /// Writes one if enough was logged since the last. One of many regions takes its time: between its parts
    /// there is time for something else, `meanwhile`, with the same turn.
    pub(crate) fn take_if_due(&self, meanwhile: impl FnMut()) -> Result<(), Unwritten> {
        let newest = self.newest();
        let log_bytes = self.log_bytes();
        let grown = log_bytes - newest.map_or(0, |c| c.log_bytes.min(log_bytes));
        let size = newest.map_or(0, |c| c.bytes);
        let due = grown >= self.parts.segment_bytes.max(size * GROWTH_MIN);
        if due && !self.parts.committer.gate().is_shut() { self.write(meanwhile) } else { Ok(()) }
    }

    /// Writes one now.
    pub(crate) fn take(&self) -> Result<(), Unwritten> {
        self.write(|| ())
    }

    fn write(&self, meanwhile: impl FnMut()) -> Result<(), Unwritten> {
        let Parts { dir, committer, factory, table, .. } = &self.parts;
        let began = clock::now();
        let log_bytes = self.log_bytes();
        let active = committer.active().map(|(active, _)| active);
        // Full segments without a footer are replayed too: recovery builds it. Therefore the start is simply
        // where writing is, or would be.
        let start_segment = active.as_ref().map_or_else(|| committer.active_id(), |active| active.id);
        let accepted = committer.accepted();
        let sequence = self.kept.lock().next_sequence;
        // Found by fuzzing: a file of that name need only lie in the directory.
        let next_sequence = sequence.checked_add(1).ok_or_else(|| {
            let used_up = "all 2^32 checkpoint numbers are used up; is there a stray file?";
            Unwritten::Failed(Error::new(ErrorKind::Unsupported, used_up))
        })?;
        let _span = trace::checkpoint(sequence);
        let header = self.header(sequence, start_segment, active);

        factory.files.check_open()?;
        self.parts.mark.ensure()?;
        let mut out = CheckpointFile::create(dir)?;
        let mut writer = CheckpointWriter::new(header);
        let Captured { regions, forgotten } =
            self.capture(start_segment, &mut writer, &mut out, meanwhile)?;
        if !planted(Bug::CheckpointBeforeLogSync) {
            committer.flush()?;
        }
        writer.set_synced(committer.durable_record());
        factory.files.check_open()?;
        let bytes = factory.watch.during(WRITING, || out.finish(writer, sequence))?;

        self.keep(CheckpointInfo { sequence, start_segment, accepted, bytes, log_bytes }, next_sequence)?;
        let any = !forgotten.is_empty();
        for id in forgotten {
            committer.forget_region(id, start_segment);
        }
        if any {
            table.shrink();
        }
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.times.since(began);
        self.parts.listeners.deliver(&Event::CheckpointTaken { start_segment, bytes, regions });
        Ok(())
    }

    /// Writes the regions as they are, one after the other.
    fn capture(
        &self,
        start_segment: u32,
        writer: &mut CheckpointWriter,
        out: &mut CheckpointFile,
        mut meanwhile: impl FnMut(),
    ) -> Result<Captured, Unwritten> {
        let mut captured = Captured::default();
        for cell in self.parts.table.cells() {
            let state = cell.read();
            // A tombstone keeps older operations from being replayed onto nothing. This checkpoint's replay
            // starts past its last operation: it has done its duty.
            if !state.exists && state.touched.segment() < start_segment {
                captured.forgotten.push(cell.id);
                continue;
            }
            let record = state.record(cell.id);
            drop(state);
            writer.region(&record);
            captured.regions += 1;
            while let Some(chunk) = writer.take_chunk() {
                self.parts.factory.watch.during(WRITING, || out.append(&chunk))?;
                meanwhile();
            }
        }
        Ok(captured)
    }

    /// The active segment was asked for first: one that is full meanwhile is among the others.
    fn header(&self, sequence: u32, start_segment: u32, active: Option<Arc<Segment>>) -> CheckpointHeader {
        let Parts { run, salts, committer, factory, segments, .. } = &self.parts;
        let all = segments.all();
        let mut named: Vec<SegmentRecord> = all
            .iter()
            .map(|s| SegmentRecord {
                id: s.id,
                kind: s.kind,
                salt: s.identity.salt,
                sealed_end: s.sealed_end(),
            })
            .collect();
        if let Some(active) = active.filter(|active| !all.iter().any(|s| s.id == active.id)) {
            named.push(SegmentRecord {
                id: active.id,
                kind: active.kind,
                salt: active.identity.salt,
                sealed_end: 0,
            });
        }
        CheckpointHeader {
            identity: Identity { store: run.store, file: sequence, salt: salts.next() },
            start_segment,
            synced: committer.durable_record(),
            next_file: factory.next_file(),
            unclean_before: Some(run.unclean_before),
            regions: 0,
            segments: named,
        }
    }

    /// Keeps one that was written, and removes what is too old.
    fn keep(&self, written: CheckpointInfo, next_sequence: u32) -> Result<(), Unwritten> {
        let Parts { dir, factory, .. } = &self.parts;
        let mut kept = self.kept.lock();
        kept.next_sequence = next_sequence;
        kept.list.push_back(written);
        while kept.list.len() > if planted(Bug::OneCheckpointKept) { 1 } else { CHECKPOINTS_KEPT } {
            if let Some(old) = kept.list.pop_front() {
                let name = FileName::Checkpoint(old.sequence).to_string();
                let remove = || dir.remove_if_there(&name);
                let removed = factory.watch.during("removing an old checkpoint", remove);
                removed.map_err(|e| Unwritten::io("removing an old checkpoint", &dir.join(&name), e))?;
            }
        }
        Ok(())
    }
}
