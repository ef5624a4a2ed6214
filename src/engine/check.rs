//! Looks at every byte of a store that matters, and changes none.

mod look;

use self::look::Look;
use super::reader::recover_beside;
use super::store_lock::StoreLock;
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Block, Op};
use crate::format::checkpoint::read_checkpoint;
use crate::format::file_header::{Identity, SegmentKind};
use crate::format::names::FileName;
use crate::format::record::{RecordKind, record_len};
use crate::index::Part;
use crate::options::{Background, Options, TailPolicy};
use crate::recovery::{Purpose, Recovered, Unrecovered, recover};
use crate::report::{CheckReport, Loss, Progress, ScrubOptions};
use crate::segment::Segment;
use crate::segment::scan::{FIRST_RECORD, Found, Scanner};
use crate::types::RegionId;
use crate::upkeep::{Pace, Pauses};
use crate::vfs::io::read_file;
use crate::vfs::meaning::if_there;
use crate::vfs::{Dir, OpenMode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;

impl Options {
    /// Verifies a store without changing it: every live entry, every header, description, footer and
    /// checkpoint, and whether it can be opened. `progress` is called again and again, on this thread.
    ///
    /// It may stand beside a running engine. Then the end of the log, which is being written, is not judged,
    /// and what is purged meanwhile is passed over: [`Engine::scrub`](crate::Engine::scrub) is the better way
    /// there. It needs no permission to write.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no store, `Unsupported` for a newer format, `Locked` beside an
    /// engine that gives files back faster than they can be looked at, `Io` from the operating system.
    /// Damage is no error: it is in the report.
    pub fn check(
        &self,
        dir: impl AsRef<Path>,
        scrub: &ScrubOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<CheckReport> {
        let dir = dir.as_ref();
        let opened = self.vfs.open_dir(dir).map_err(|e| Error::io("opening the directory", dir, e))?;
        let dir = &Dir::new(opened, dir);
        let mut report = CheckReport::default();
        let lock = StoreLock::shared(dir)?;
        report.in_use = lock.is_none();
        let recover = |options: &Options| match &lock {
            Some(_) => recover(dir, options, Purpose::Write),
            None => recover_beside(dir, options, Purpose::Inspect),
        };
        let missing = || Error::invalid("there is no store in this directory").at(dir.path(), None);
        let state = match recover(self) {
            Ok(state) => state.ok_or_else(missing)?,
            Err(Unrecovered::Damaged(e)) => {
                report.refusals.push(e);
                // The rest of it may be seen nonetheless.
                match recover(&self.clone().tail_policy(TailPolicy::AcceptLoss)) {
                    Ok(state) => state.ok_or_else(missing)?,
                    Err(Unrecovered::Damaged(_)) => return Ok(report),
                    Err(Unrecovered::Failed(e)) => return Err(e),
                }
            }
            Err(Unrecovered::Failed(e)) => return Err(e),
        };
        if state.report.accepted_loss || state.report.assumed_torn {
            report.loss = Some(loss(dir, &state)?);
        }
        self.look_at(dir, &state, scrub, &mut progress, &mut report)?;
        Ok(report)
    }

    fn look_at(
        &self,
        dir: &Dir,
        state: &Recovered,
        scrub: &ScrubOptions,
        progress: &mut dyn FnMut(Progress),
        report: &mut CheckReport,
    ) -> Result<()> {
        report.regions = state.report.regions;
        report.segments = state.segments.len() as u64;
        // Of what may have been acknowledged the loss speaks.
        let is_judged = report.loss.is_none() && !report.in_use;
        report.torn_bytes = if is_judged { state.report.torn_bytes } else { 0 };
        report.foreign = state.report.foreign.clone();
        report.damage = state.report.damage.clone();
        if !report.in_use {
            // What is being written is not judged.
            report.suspects = state.report.suspects.clone();
        }
        let mut parts: BTreeMap<u32, Vec<(RegionId, Part)>> = BTreeMap::new();
        for cell in state.table.cells() {
            let whole: Vec<Part> = cell.read().extents.iter().map(|e| e.whole()).collect();
            // What is lost as a whole was named as a whole.
            for part in whole.into_iter().filter(|part| !part.segment().is_hole()) {
                parts.entry(part.segment().id).or_default().push((cell.id, part));
            }
        }
        let segments: Vec<&Segment> =
            state.segments.values().map(|s| &**s).filter(|s| !s.is_hole()).collect();
        let total_bytes =
            segments.iter().map(|s| u64::from(s.sealed_end().saturating_sub(FIRST_RECORD))).sum();
        let pauses = Pauses::default();
        let (mut pace, mut done) = (Pace::new(scrub.rate_bytes, &pauses), 0);
        let look = Look { dir, durable: state.durable, in_use: report.in_use, segments, parts };
        let found = look.at_all(self.look_threads(), |bytes| {
            done += bytes;
            progress(Progress { done_bytes: done.min(total_bytes), total_bytes });
            pace.spend(bytes)
        })?;
        let mut damage = Vec::new();
        for found in found {
            report.records += found.records;
            report.entries += found.entries;
            report.bytes += found.bytes;
            report.rot.extend(found.rot);
            damage.extend(found.damage);
        }
        damage.sort_by_key(|e: &Error| (e.region(), e.entries().map(|entries| *entries.start())));
        report.damage.extend(damage);
        self.check_checkpoints(dir, report)
    }

    /// How many threads look: where nothing happens but what the caller does, one.
    fn look_threads(&self) -> usize {
        match self.background {
            Background::Manual => 1,
            _ => thread::available_parallelism().map_or(1, usize::from),
        }
    }

    fn check_checkpoints(&self, dir: &Dir, report: &mut CheckReport) -> Result<()> {
        let names = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
        for entry in names {
            if !matches!(FileName::parse(&entry.name), Some(FileName::Checkpoint(_))) {
                continue;
            }
            let why = match if_there(read_file(&**dir, &entry.name)) {
                Ok(Some(bytes)) => match read_checkpoint(&bytes, |_| Ok(())) {
                    Ok(_) => continue,
                    Err(e) => e.to_string(),
                },
                // A running engine has replaced it.
                Ok(None) if report.in_use => continue,
                Ok(None) => "it was removed meanwhile".to_string(),
                Err(e) => e.to_string(),
            };
            let path = dir.join(&entry.name);
            report.rot.push(Error::damaged(format!("a checkpoint is damaged: {why}")).at(&path, None));
        }
        Ok(())
    }
}

/// What stands in the files past the end of the log in `state`, which ends it before the first
/// record that cannot be read.
fn loss(dir: &Dir, state: &Recovered) -> Result<Loss> {
    let end = state.end();
    // What open re-persists stands there too, first, and is not lost.
    let mut seen = Seen { kept: state.unfinished.tail.len(), ..Seen::default() };
    let kept = state.segments.values().filter(|s| s.kind == SegmentKind::Log && !s.is_hole());
    for s in kept.filter(|s| s.id >= end.segment()) {
        let mut scanner = s.scanner(s.len)?;
        seen.read(&mut scanner, s.sealed_end().max(FIRST_RECORD))?;
    }
    for file in &state.unfinished.unused {
        let Some(FileName::Log(id)) = FileName::parse(&file.name) else { continue };
        let path = dir.join(&file.name);
        let open = dir.open(&file.name, OpenMode::Read);
        let open = open.map_err(|e| Error::io("opening a segment", &path, e))?;
        let identity = Identity { store: state.run.store, file: id, salt: file.salt };
        seen.read(&mut Scanner::new(&*open, &path, &identity, file.len), FIRST_RECORD)?;
    }
    Ok(Loss { regions: seen.regions.len() as u64, hard_states: seen.hard_states.len() as u64, ..seen.loss })
}

/// What records were seen to hold.
#[derive(Default)]
struct Seen {
    loss: Loss,
    regions: BTreeSet<RegionId>,
    hard_states: BTreeSet<RegionId>,
    /// So many of the next are not lost.
    kept: usize,
}

impl Seen {
    /// Counts the records from `at` on, however far apart.
    fn read(&mut self, scanner: &mut Scanner<'_>, mut at: u32) -> Result<()> {
        loop {
            at = match scanner.look(at)? {
                Found::Record(record) if self.kept > 0 => {
                    self.kept -=
                        usize::from(matches!(record.header.kind, RecordKind::Batch | RecordKind::Install));
                    record.end()
                }
                Found::Record(record) => {
                    if record.header.kind == RecordKind::Batch {
                        self.count(&Batch::decode_desc(&record.desc, record.header.payload_len).ok());
                        self.loss.bytes += u64::from(record.end() - record.offset);
                    }
                    record.end()
                }
                Found::BadDescription(header) => {
                    let len = record_len(header.desc_len, header.payload_len);
                    self.count(&None);
                    self.loss.bytes += len;
                    u32::try_from(u64::from(at) + len).unwrap_or(u32::MAX)
                }
                Found::Nothing => match scanner.seek(at.saturating_add(8))? {
                    Some(next) => next.offset,
                    None => return Ok(()),
                },
            };
        }
    }

    fn count(&mut self, decoded: &Option<(Batch, Vec<Block>)>) {
        self.loss.batches += 1;
        let Some((batch, _)) = decoded else {
            self.loss.unreadable_batches += 1;
            return;
        };
        self.loss.entries += batch.entries.len() as u64;
        for step in batch.steps() {
            self.regions.insert(step.region);
            if matches!(step.op, Op::SetHardState(_)) {
                self.hard_states.insert(step.region);
            }
        }
    }
}
