//! Looks at every byte of a store that matters, and changes none.

use super::lock_path;
use crate::engine::options::{Options, TailPolicy};
use crate::engine::report::{CheckReport, ScrubOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::read_checkpoint;
use crate::format::names::FileName;
use crate::index::Extent;
use crate::purge::{Pace, verify};
use crate::recovery::{Purpose, Recovered, recover};
use crate::segment::{Segment, audit, footer_path, load_footer};
use crate::types::RegionId;
use crate::vfs::io::read_file;
use std::path::Path;

impl Options {
    /// Verifies a store without changing it: every live entry, every header, description, footer and checkpoint, and whether it
    /// can be opened. `progress` hears of the bytes read so far, and of all there are to read.
    ///
    /// It may stand beside a running engine. Then the end of the log, which is being written, is not judged, and what is
    /// purged meanwhile may look like damage: [`Engine::scrub`](crate::Engine::scrub) is the better way there.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no store, `Unsupported` for a newer format, `Io` from the operating system. Damage is no
    /// error: it is in the report.
    pub fn check(
        &self,
        dir: impl AsRef<Path>,
        scrub: &ScrubOptions,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<CheckReport> {
        let dir = dir.as_ref();
        let mut report = CheckReport::default();
        let lock = self.lock_if_idle(dir)?;
        report.in_use = lock.is_none();
        let purpose = if report.in_use { Purpose::Inspect } else { Purpose::Write };
        let missing = || Error::invalid("there is no store in this directory").at(dir, None);
        let state = match recover(dir, self, purpose) {
            Ok(state) => state.ok_or_else(missing)?,
            Err(e) if e.kind() == ErrorKind::Damaged => {
                report.refusals.push(e);
                // The rest of it may be seen nonetheless.
                match recover(dir, &self.clone().tail_policy(TailPolicy::AcceptLoss), purpose) {
                    Ok(state) => state.ok_or_else(missing)?,
                    Err(e) if e.kind() == ErrorKind::Damaged => return Ok(report),
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        };
        self.look_at(dir, &state, scrub, &mut progress, &mut report)?;
        Ok(report)
    }

    /// The lock of a store that no engine has open. A store without a lock file was never opened where it lies now.
    fn lock_if_idle(&self, dir: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        let path = lock_path(dir);
        let names = self.vfs.read_dir(dir).map_err(|e| Error::io("listing the directory", dir, e))?;
        if !names.iter().any(|n| FileName::parse(&n.name) == Some(FileName::Lock)) {
            return Ok(Some(Box::new(())));
        }
        match self.vfs.lock(&path) {
            Ok(lock) => Ok(Some(lock)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            // Nobody can be writing to it.
            Err(e) if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(Some(Box::new(()))),
            Err(e) => Err(Error::io("locking the store", &path, e)),
        }
    }

    fn look_at(
        &self,
        dir: &Path,
        state: &Recovered,
        scrub: &ScrubOptions,
        progress: &mut dyn FnMut(u64, u64),
        report: &mut CheckReport,
    ) -> Result<()> {
        report.regions = state.report.regions;
        report.segments = state.segments.len() as u64;
        report.torn_bytes = state.report.torn_bytes;
        report.foreign = state.report.foreign.clone();
        report.damage = state.report.damage.clone();
        report.suspects = state.report.suspects.clone();
        let segments: Vec<&Segment> = state.segments.values().map(|s| &**s).filter(|s| !s.is_lost).collect();
        let records: u64 = segments.iter().map(|s| u64::from(s.sealed_end())).sum();
        let total = records + segments.iter().map(|s| s.live_bytes()).sum::<u64>();
        let (mut pace, mut done) = (Pace::new(scrub.rate_bytes), 0);
        let mut step = |bytes| {
            pace.spend(bytes);
            done += bytes;
            progress(done.min(total), total);
        };
        for segment in segments {
            let end = u64::from(segment.sealed_end()).min(segment.len) as u32;
            let found = audit(segment, end, &mut step)?;
            report.records += found.records;
            report.rot.extend(found.rot);
            self.check_footer(dir, segment, report);
        }
        self.check_checkpoints(dir, report)?;
        for cell in state.table.cells() {
            let extents: Vec<Extent> = cell.read().extents.clone();
            for extent in &extents {
                // What is lost as a whole was named as a whole.
                if extent.segment.is_lost {
                    continue;
                }
                self.check_entries(cell.id, extent, &mut step, report);
            }
        }
        Ok(())
    }

    fn check_entries(
        &self,
        region: RegionId,
        extent: &Extent,
        step: &mut dyn FnMut(u64),
        report: &mut CheckReport,
    ) {
        verify(region, extent, |_, outcome| match outcome {
            Ok(bytes) => {
                report.entries += 1;
                report.bytes += bytes;
                step(bytes);
            }
            Err(error) => report.damage.push(error),
        });
    }

    fn check_footer(&self, dir: &Path, segment: &Segment, report: &mut CheckReport) {
        let path = footer_path(dir, segment.id);
        let is_there = self.vfs.open(&path, crate::vfs::OpenMode::Read).is_ok();
        let right = || load_footer(&*self.vfs, dir, &segment.identity).is_some_and(|f| f.is_right());
        if is_there && !right() {
            let error = Error::damaged("a footer is damaged: it is a cache, and will be built anew");
            report.rot.push(error.at(&path, None));
        }
    }

    fn check_checkpoints(&self, dir: &Path, report: &mut CheckReport) -> Result<()> {
        let names = self.vfs.read_dir(dir).map_err(|e| Error::io("listing the directory", dir, e))?;
        for entry in names {
            if !matches!(FileName::parse(&entry.name), Some(FileName::Checkpoint(_))) {
                continue;
            }
            let path = dir.join(&entry.name);
            let read = read_file(&*self.vfs, &path).map(|bytes| read_checkpoint(&bytes.into(), |_| Ok(())));
            let why = match read {
                Ok(Ok(_)) => continue,
                Ok(Err(e)) => e.to_string(),
                // A running engine has replaced it.
                Err(e) if report.in_use && e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => e.to_string(),
            };
            report.rot.push(Error::damaged(format!("a checkpoint is damaged: {why}")).at(&path, None));
        }
        Ok(())
    }
}
