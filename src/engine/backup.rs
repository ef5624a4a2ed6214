//! A consistent copy of a store that is being written to.
//!
//! Sealed segments never change, so the copy takes them as hard links; what is still being written is copied
//! up to where it is durable. The checkpoint comes last: until it has its name, the directory is no store,
//! and says so when it is opened.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::SEGMENT_HEADER_LEN;
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::listener::Event;
use crate::report::BackupReport;
use crate::segment::mark_file::MarkFile;
use crate::segment::{Segment, footer_name};
use crate::types::Lsn;
use crate::upkeep;
use crate::upkeep::Store;
use crate::vfs::io::{read_exact_at, read_file, write_parts_at};
use crate::vfs::meaning::if_there;
use crate::vfs::{Dir, OpenMode, VfsFile};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;

impl Engine {
    /// Copies the store into `dir`, which is made, or is empty, while writes go on: everything that was
    /// acknowledged before the call is in it, and is durable on return.
    ///
    /// The copy is a store: open it where it lies, or move its files elsewhere. Where `dir` is on the same
    /// file system, sealed segments are hard links, which cost no space until the store gives them back;
    /// neither store ever writes to such a file. Sealing, purging and checkpoints go on meanwhile, and the
    /// files that are being copied stay until they are.
    ///
    /// # Errors
    /// `InvalidArgument` if the directory has something in it, `NoSpace`, `Io`, `Poisoned`, `Closed` when the
    /// engine is closed meanwhile. A copy that failed or was cut short by a crash has no checkpoint, and
    /// opening it is refused: remove it.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path().join("store"))?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
    /// engine.write(batch, Durability::Synced)?;
    /// engine.backup(dir.path().join("copy"))?;
    ///
    /// let copy = Engine::open(dir.path().join("copy"))?;
    /// assert_eq!(copy.region(RegionId(7)).last_index(), 1);
    /// # Ok(()) }
    /// ```
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        let (store, dir) = (self.store(), dir.as_ref());
        store.check_process()?;
        store.committer.check_open()?;
        let opened = store.options.vfs.create_dir_all(dir);
        let opened = opened.map_err(|e| Error::io("creating the directory of the copy", dir, e))?;
        let dir = Dir::new(opened, dir);
        let there = dir.list();
        let there = there.map_err(|e| Error::io("listing the directory of the copy", dir.path(), e))?;
        if let Some(entry) = there.first() {
            return Err(Error::invalid(format!(
                "the directory of the copy is not empty: it has {}; name another one",
                entry.name
            ))
            .at(dir.path(), None));
        }
        let moment = Moment::of(store)?;
        let mut copy = Copy { store, dir, report: BackupReport::default() };
        for (segment, part) in &moment.segments {
            match part {
                Part::Whole => copy.sealed(segment)?,
                Part::Until(end) => copy.bytes(segment, *end)?,
            }
        }
        copy.sync_dir()?;
        copy.mark()?;
        copy.checkpoint(&moment)?;
        copy.report.durable = moment.durable;
        store.listeners.deliver(&Event::BackupMade { dir: copy.dir.path(), report: &copy.report });
        Ok(copy.report)
    }
}

/// The store at one moment. What it holds stays as it is while it is copied: a segment's file is given back
/// only when nobody holds the segment, and the bytes of a log before what is durable never change.
struct Moment {
    /// Everything before is in it.
    durable: Lsn,
    segments: Vec<(Arc<Segment>, Part)>,
    checkpoint: u32,
    /// It may lose its name meanwhile.
    checkpoint_file: Arc<dyn VfsFile>,
}

/// What of a segment is copied.
enum Part {
    /// It never changes any more.
    Whole,
    /// Its bytes before this offset.
    Until(u32),
}

impl Moment {
    fn of(store: &Store) -> Result<Moment> {
        // Between the checkpoint and the list nothing is sealed, moved or removed.
        let _one = store.turns.upkeep.lock()?;
        upkeep::seal_due(store)?;
        store.checkpoints.take()?;
        let durable = store.committer.durable();
        let segments = store.all_segments().into_iter().filter(|s| !s.is_hole());
        let parts = segments.map(|segment| {
            let part = match segment.known_end() {
                Some(end) if Lsn::new(segment.id, end) <= durable || segment.footer().is_some() => {
                    // Before the link is there: from now on the file is not used again for
                    // another generation.
                    segment.keep_as_it_is();
                    Part::Whole
                }
                _ if segment.id == durable.segment() => Part::Until(durable.offset()),
                _ => Part::Until(SEGMENT_HEADER_LEN),
            };
            (segment, part)
        });
        let segments = parts.collect();
        let newest = store.checkpoints.newest().map(|k| k.sequence);
        let checkpoint = newest.unwrap_or(1);
        let name = FileName::Checkpoint(checkpoint).to_string();
        let opened = store.dir.open(&name, OpenMode::Read);
        let checkpoint_file =
            opened.map_err(|e| Error::io("reading the checkpoint", &store.dir.join(&name), e))?;
        Ok(Moment { durable, segments, checkpoint, checkpoint_file })
    }
}

struct Copy<'a> {
    store: &'a Store,
    dir: Dir,
    report: BackupReport,
}

impl Copy<'_> {
    fn sealed(&mut self, segment: &Arc<Segment>) -> Result<()> {
        self.go_on()?;
        let (from, name) = (&self.store.dir, segment.name());
        match from.hard_link(&name, &*self.dir, &name) {
            Ok(()) => {
                self.report.linked_segments += 1;
                self.report.linked_bytes += segment.len;
            }
            // Another file system, or one that has no links.
            Err(_) => self.bytes(segment, segment.sealed_end())?,
        }
        let footer = footer_name(segment.id);
        let read = if_there(read_file(&**from, &footer));
        // A cache: where there is none, the first open of the copy rebuilds it.
        if let Some(bytes) = read.map_err(|e| Error::io("reading a footer", &from.join(&footer), e))? {
            let file = self.create(&footer)?;
            let written = write_parts_at(&*file, &[&bytes], 0);
            written.map_err(|e| Error::io("writing a file of the copy", &self.dir.join(&footer), e))?;
            self.sync(&footer, &*file)?;
            self.report.copied_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Copies the first bytes; the copy is as long as the file was made.
    fn bytes(&mut self, segment: &Segment, end: u32) -> Result<()> {
        let end = u64::from(end).min(segment.len);
        // The second copy of the header, where it is not among these bytes.
        let [_, header] = segment.header_copies_at;
        let header = header..header + u64::from(SEGMENT_HEADER_LEN);
        let apart = header.start >= end && header.end <= segment.len;
        let parts = [0..end, if apart { header } else { 0..0 }];
        self.file(&segment.name(), &**segment.file()?, &parts, segment.len)?;
        self.report.copied_segments += 1;
        Ok(())
    }

    /// Copies these parts to a file of `len` bytes.
    fn file(&mut self, name: &str, from: &dyn VfsFile, parts: &[Range<u64>], len: u64) -> Result<()> {
        let path = self.dir.join(name);
        let copied = |e| Error::io("writing a file of the copy", &path, e);
        let file = self.create(name)?;
        file.set_len(len).map_err(copied)?;
        let mut buf = Vec::new();
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                self.go_on()?;
                buf.resize(COPY_BYTES.min((part.end - at) as usize), 0);
                read_exact_at(from, &mut buf, at)
                    .and_then(|()| write_parts_at(&*file, &[&buf], at))
                    .map_err(copied)?;
                at += buf.len() as u64;
            }
            self.report.copied_bytes += part.end - part.start;
        }
        self.sync(name, &*file)
    }

    /// Fails once the engine is closed.
    fn go_on(&self) -> Result<()> {
        match self.store.pauses.is_stopped() {
            true => Err(Error::new(ErrorKind::Closed, "the engine was closed before the copy was complete")),
            false => Ok(()),
        }
    }

    /// Before the checkpoint, as in every store. It proves nothing: what was copied of the log
    /// may end earlier.
    fn mark(&self) -> Result<()> {
        Ok(MarkFile::new(self.dir.clone(), self.store.run.store, self.store.run.number, &[]).ensure()?)
    }

    fn checkpoint(&mut self, moment: &Moment) -> Result<()> {
        let name = FileName::Checkpoint(moment.checkpoint).to_string();
        let path = self.dir.join(&name);
        let len = moment.checkpoint_file.len();
        let len = len.map_err(|e| Error::io("reading the checkpoint", &path, e))?;
        self.file(CHECKPOINT_TEMP, &*moment.checkpoint_file, std::slice::from_ref(&(0..len)), len)?;
        let named = self.dir.rename_new(CHECKPOINT_TEMP, &name);
        named.map_err(|e| Error::io("naming the checkpoint of the copy", &path, e))?;
        self.sync_dir()
    }

    fn create(&self, name: &str) -> Result<Arc<dyn VfsFile>> {
        let created = self.dir.open(name, OpenMode::CreateNew);
        created.map_err(|e| Error::io("creating a file of the copy", &self.dir.join(name), e))
    }

    fn sync(&self, name: &str, file: &dyn VfsFile) -> Result<()> {
        file.sync_all().map_err(|e| Error::io("writing a file of the copy", &self.dir.join(name), e))
    }

    fn sync_dir(&self) -> Result<()> {
        let synced = self.dir.sync();
        synced.map_err(|e| Error::io("syncing the directory of the copy", self.dir.path(), e))
    }
}
