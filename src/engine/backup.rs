//! A consistent copy of a store that is being written to.
//!
//! Sealed segments never change, so the copy takes them as hard links; what is still being written is copied up to where it is
//! durable. The checkpoint comes last: until it has its name, the directory is no store, and says so when it is opened.

use super::Engine;
use crate::engine::report::BackupReport;
use crate::error::{Error, Result};
use crate::format::file_header::SEGMENT_HEADER_LEN;
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::planted::{Bug, planted};
use crate::purge;
use crate::segment::{Segment, footer_path};
use crate::store::{Store, lock};
use crate::types::Lsn;
use crate::vfs::io::{read_exact_at, read_file, write_parts_at};
use crate::vfs::{OpenMode, VfsFile};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;

impl Engine {
    /// Copies the store into `dir`, which is made, or is empty, while writes go on: everything that was acknowledged before the
    /// call is in it, and is durable on return.
    ///
    /// The copy is a store: open it where it lies, or move its files elsewhere. Where `dir` is on the same file system, sealed
    /// segments are hard links, which cost no space until the store gives them back; neither store ever writes to such a file.
    /// Sealing, purging and checkpoints wait meanwhile.
    ///
    /// # Errors
    /// `InvalidArgument` if the directory has something in it, `NoSpace`, `Io`, `Poisoned`. A copy that failed or was cut short by a
    /// crash has no checkpoint, and opening it is refused: remove it.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        let (store, dir) = (self.store(), dir.as_ref());
        let vfs = &*store.options.vfs;
        vfs.create_dir_all(dir).map_err(|e| Error::io("creating the directory of the copy", dir, e))?;
        let there = vfs.read_dir(dir).map_err(|e| Error::io("listing the directory of the copy", dir, e))?;
        if let Some(entry) = there.first() {
            return Err(Error::invalid(format!(
                "the directory of the copy is not empty: it has {}; name another one",
                entry.name
            ))
            .at(dir, None));
        }
        // Nothing is sealed, moved or removed meanwhile.
        let _one = store.upkeep.lock()?;
        purge::seal_due(store)?;
        purge::checkpoint(store)?;
        let mut copy =
            Copy { store, dir, durable: store.committer.durable(), report: BackupReport::default() };
        let (active, _) = store.committer.active();
        let mut segments = store.shared.segments();
        if !segments.iter().any(|s| s.id == active.id) {
            segments.push(active);
        }
        for segment in segments.iter().filter(|s| !s.is_lost) {
            copy.segment(segment)?;
        }
        copy.sync_dir()?;
        copy.checkpoint()?;
        copy.report.durable = copy.durable;
        Ok(copy.report)
    }
}

struct Copy<'a> {
    store: &'a Store,
    dir: &'a Path,
    /// Everything before is copied.
    durable: Lsn,
    report: BackupReport,
}

impl Copy<'_> {
    fn place(&self, path: &Path) -> PathBuf {
        path.file_name().map_or_else(|| self.dir.to_path_buf(), |name| self.dir.join(name))
    }

    fn segment(&mut self, segment: &Arc<Segment>) -> Result<()> {
        let end = match segment.sealed_end() {
            0 if segment.id == self.durable.segment() => self.durable.offset(),
            0 => SEGMENT_HEADER_LEN,
            end if Lsn::new(segment.id, end) <= self.durable || segment.footer().is_some() => {
                return self.sealed(segment);
            }
            _ if segment.id == self.durable.segment() => self.durable.offset(),
            _ => SEGMENT_HEADER_LEN,
        };
        self.bytes(segment, end)
    }

    fn sealed(&mut self, segment: &Arc<Segment>) -> Result<()> {
        // Before the link is there: from now on the file is not used again for another life.
        segment.keep_as_it_is();
        let vfs = &*self.store.options.vfs;
        match vfs.hard_link(&segment.path, &self.place(&segment.path)) {
            Ok(()) => {
                self.report.linked_segments += 1;
                self.report.linked_bytes += segment.len;
            }
            // Another file system, or one that has no links.
            Err(_) => self.bytes(segment, segment.sealed_end())?,
        }
        let footer = footer_path(&self.store.dir, segment.id);
        match read_file(vfs, &footer) {
            Ok(bytes) => {
                let path = self.place(&footer);
                self.write(&path, |file| write_parts_at(file, &[&bytes], 0))?;
                self.report.copied_bytes += bytes.len() as u64;
            }
            // A cache: whoever opens the copy builds it again.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("reading a footer", &footer, e)),
        }
        Ok(())
    }

    /// Copies the first bytes; the copy is as long as the file was made.
    fn bytes(&mut self, segment: &Segment, end: u32) -> Result<()> {
        let path = self.place(&segment.path);
        let mut buf = vec![0; COPY_BYTES];
        self.write(&path, |file| {
            file.set_len(segment.len)?;
            let (mut at, end) = (0, u64::from(end).min(segment.len));
            while at < end {
                let part = &mut buf[..COPY_BYTES.min((end - at) as usize)];
                read_exact_at(&*segment.file, part, at)?;
                write_parts_at(file, &[part], at)?;
                at += part.len() as u64;
            }
            Ok(())
        })?;
        self.report.copied_segments += 1;
        self.report.copied_bytes += u64::from(end);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        let newest = lock(&self.store.checkpoints).kept.back().map(|k| k.sequence);
        let name = FileName::Checkpoint(newest.unwrap_or(1)).to_string();
        let from = self.store.dir.join(&name);
        let vfs = &*self.store.options.vfs;
        let bytes = read_file(vfs, &from).map_err(|e| Error::io("reading the checkpoint", &from, e))?;
        let temp = self.dir.join(CHECKPOINT_TEMP);
        self.write(&temp, |file| write_parts_at(file, &[&bytes], 0))?;
        self.report.copied_bytes += bytes.len() as u64;
        let path = self.dir.join(&name);
        vfs.rename(&temp, &path).map_err(|e| Error::io("naming the checkpoint of the copy", &path, e))?;
        self.sync_dir()
    }

    /// A new file, durable.
    fn write(&self, path: &Path, fill: impl FnOnce(&dyn VfsFile) -> std::io::Result<()>) -> Result<()> {
        let vfs = &*self.store.options.vfs;
        let file = vfs
            .open(path, OpenMode::CreateNew)
            .map_err(|e| Error::io("creating a file of the copy", path, e))?;
        fill(&*file)
            .and_then(|()| if planted(Bug::BackupNotSynced) { Ok(()) } else { file.sync_all() })
            .map_err(|e| Error::io("writing a file of the copy", path, e))
    }

    fn sync_dir(&self) -> Result<()> {
        let synced = self.store.options.vfs.sync_dir(self.dir);
        synced.map_err(|e| Error::io("syncing the directory of the copy", self.dir, e))
    }
}
