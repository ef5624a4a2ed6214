//! What stands in the directory, by rule: ours, left over, or foreign.

use super::judge::refuse;
use crate::engine::options::{Options, ReadMode};
use crate::engine::report::OpenReport;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::CheckpointHeader;
use crate::format::file_header::{FileHeader, FileKind, HeaderError, Identity, SEGMENT_HEADER_LEN};
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use crate::vfs::io::read_up_to;
use crate::vfs::{FileType, OpenMode, VfsFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory, sorted by what the names say.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Ascending.
    pub(super) checkpoints: Vec<u32>,
    pub(super) checkpoint_bytes: BTreeMap<u32, u64>,
    logs: Vec<u32>,
    colds: Vec<u32>,
    pub(super) footers: Vec<u32>,
    pub(super) free: Vec<(u32, u64)>,
    pub(super) leftovers: Vec<PathBuf>,
    pub(super) foreign: Vec<String>,
    /// The highest segment number that any name bears.
    pub(super) highest: u32,
}

impl Listing {
    /// No store was ever finished here: the first checkpoint is made before the first segment.
    pub(super) fn is_fresh(&self) -> bool {
        self.checkpoints.is_empty() && self.logs.is_empty() && self.colds.is_empty()
    }
}

/// Reads the directory.
pub(super) fn list(dir: &Path, options: &Options) -> Result<Listing> {
    let mut l = Listing::default();
    let entries = options.vfs.read_dir(dir).map_err(|e| Error::io("listing the directory", dir, e))?;
    for entry in entries {
        let Some(name) = FileName::parse(&entry.name) else {
            match entry.name == CHECKPOINT_TEMP && entry.file_type == FileType::File {
                true => l.leftovers.push(dir.join(&entry.name)),
                false if planted(Bug::UnknownFileRemoved) => l.leftovers.push(dir.join(&entry.name)),
                false => l.foreign.push(entry.name),
            }
            continue;
        };
        if entry.file_type != FileType::File {
            return Err(Error::invalid(format!(
                "{} should be a file of the store and is a {}; it is not followed and not removed: move it away",
                entry.name,
                if entry.file_type == FileType::Dir { "directory" } else { "link or special file" }
            ))
            .at(&dir.join(&entry.name), None));
        }
        match name {
            FileName::Checkpoint(n) => {
                l.checkpoints.push(n);
                l.checkpoint_bytes.insert(n, entry.len);
            }
            FileName::Log(n) => l.logs.push(n),
            FileName::Cold(n) => l.colds.push(n),
            FileName::Footer(n) => l.footers.push(n),
            FileName::Free(n) => l.free.push((n, entry.len)),
            FileName::Temp(_) => l.leftovers.push(dir.join(&entry.name)),
            FileName::Lock => {}
        }
        if let FileName::Log(n) | FileName::Cold(n) | FileName::Temp(n) | FileName::Footer(n) = name {
            l.highest = l.highest.max(n);
        }
    }
    l.checkpoints.sort_unstable();
    l.logs.sort_unstable();
    l.free.sort_unstable();
    Ok(l)
}

/// The segments that take part.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Segments that are gone, and why: damage if anything that lives was in them.
    pub(super) lost: Vec<(u32, Error)>,
}

/// Opens every segment that the checkpoint names or that came after it.
pub(super) fn open_segments(
    dir: &Path,
    options: &Options,
    listing: &mut Listing,
    checkpoint: &CheckpointHeader,
    report: &mut OpenReport,
) -> Result<Opened> {
    let mut opened = Opened::default();
    let logs = listing.logs.iter().map(|n| (*n, FileKind::Log));
    let colds = listing.colds.iter().map(|n| (*n, FileKind::Cold));
    for (id, kind) in logs.chain(colds).collect::<Vec<_>>() {
        let named = checkpoint.segments.iter().find(|s| s.id == id);
        let name = match kind {
            FileKind::Cold => FileName::Cold(id),
            _ => FileName::Log(id),
        };
        let path = dir.join(name.to_string());
        // A name from before the checkpoint that it does not list: its removal was lost in a crash, unless the file was
        // never ours.
        if named.is_none() && id < checkpoint.start_segment {
            match leftover_is_ours(&path, options, checkpoint) {
                Some(true) => listing.leftovers.push(path),
                Some(false) => listing.foreign.push(name.to_string()),
                None => {}
            }
            continue;
        }
        // What comes before the replay is only read by index: its loss is that of the entries in it.
        let contained = named.is_some() && id < checkpoint.start_segment || kind == FileKind::Cold;
        let segment = match open_segment(&path, kind, id, options, checkpoint) {
            Ok(Some(segment)) => segment,
            Ok(None) if named.is_none() => {
                listing.foreign.push(name.to_string());
                continue;
            }
            Ok(None) => {
                let error = Error::damaged(
                    "the file under a segment's name belongs to another store; put the right one back",
                )
                .at(&path, None);
                // What it held of the log is gone, and nobody knows which regions that concerns.
                if !contained {
                    refuse(error.clone(), options, report)?;
                }
                listing.foreign.push(name.to_string());
                opened.lost.push((id, error));
                lost(checkpoint, id, kind, path)?
            }
            // Only what is wrong with the file itself: a lack of descriptors or permissions is no damage.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                if !contained {
                    refuse(e.clone(), options, report)?;
                }
                opened.lost.push((id, e));
                lost(checkpoint, id, kind, path)?
            }
            Err(e) => return Err(e),
        };
        if let Some(named) = named
            && named.sealed_end != 0
        {
            segment.set_sealed_end(named.sealed_end);
        }
        if segment.is_cut && !contained {
            refuse(cut_short(&segment), options, report)?;
        } else if segment.is_cut {
            report.damage.push(cut_short(&segment));
        }
        opened.segments.insert(id, Arc::new(segment));
    }
    for named in &checkpoint.segments {
        if !opened.segments.contains_key(&named.id) {
            let name = match named.kind {
                FileKind::Cold => FileName::Cold(named.id),
                _ => FileName::Log(named.id),
            };
            let path = dir.join(name.to_string());
            let error =
                Error::damaged("a segment is missing; put the file back, or restore the store from a backup");
            let error = error.at(&path, None);
            if named.kind == FileKind::Log && named.id >= checkpoint.start_segment {
                refuse(error.clone(), options, report)?;
            }
            opened.lost.push((named.id, error));
            opened.segments.insert(named.id, Arc::new(lost(checkpoint, named.id, named.kind, path)?));
        }
    }
    Ok(opened)
}

fn lost(checkpoint: &CheckpointHeader, id: u32, kind: FileKind, path: PathBuf) -> Result<Segment> {
    let salt = checkpoint.segments.iter().find(|s| s.id == id).map_or(0, |s| s.salt);
    Segment::lost(Identity { store: checkpoint.identity.store, file: id, salt }, kind, path)
}

fn cut_short(segment: &Segment) -> Error {
    Error::damaged(format!("the segment was cut short: {} bytes are left of it", segment.len))
        .at(&segment.path, Some(segment.len))
}

fn open_segment(
    path: &Path,
    kind: FileKind,
    id: u32,
    options: &Options,
    checkpoint: &CheckpointHeader,
) -> Result<Option<Segment>> {
    let file = options.vfs.open(path, OpenMode::Read).map_err(|e| Error::io("opening a segment", path, e))?;
    let header = match read_header(&*file, path)? {
        Ok(header) => header,
        Err(HeaderError::Malformed(e)) => {
            return Err(Error::damaged(format!(
                "both copies of the segment's header are damaged: {e}; run `raftwood check`"
            ))
            .at(path, Some(0)));
        }
        Err(e) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the segment was written by a newer release: {e}; open the store with that release"),
            )
            .at(path, None));
        }
    };
    if !is_ours(&header, checkpoint) {
        return Ok(None);
    }
    if header.identity.file != id || header.kind != kind {
        return Err(Error::damaged(format!(
            "the file is segment {} under another name; put it back or move it away",
            header.identity.file
        ))
        .at(path, None));
    }
    let len = file.len().map_err(|e| Error::io("reading the length of a segment", path, e))?;
    let mapped = options.read_mode == ReadMode::Map;
    // A file is as long as it was made for all its life.
    let len = len.min(header.len);
    let mut segment = Segment::new(&header, path.to_path_buf(), len, file, Vec::new(), mapped)?;
    segment.is_cut = len < header.len;
    segment.advance_written(u32::try_from(len).unwrap_or(u32::MAX));
    Ok(Some(segment))
}

fn is_ours(header: &FileHeader, checkpoint: &CheckpointHeader) -> bool {
    header.identity.store == checkpoint.identity.store || planted(Bug::StoreNotChecked)
}

/// Whether a file that nothing needs is one of this store, and may be removed; `None` when it cannot be read now. One
/// without a header that makes sense bears a name that only this store gives.
fn leftover_is_ours(path: &Path, options: &Options, checkpoint: &CheckpointHeader) -> Option<bool> {
    let file = options.vfs.open(path, OpenMode::Read).ok()?;
    let header = read_header(&*file, path).ok()?;
    Some(header.map_or(true, |header| is_ours(&header, checkpoint)))
}

/// The header of a segment file, from either copy.
pub(crate) fn read_header(
    file: &dyn VfsFile,
    path: &Path,
) -> Result<std::result::Result<FileHeader, HeaderError>> {
    let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
    let got = read_up_to(file, &mut block, 0).map_err(|e| {
        Error::damaged(format!("reading the segment's header failed: {e}")).at(path, Some(0)).caused_by(e)
    })?;
    block.truncate(got);
    Ok(FileHeader::decode_segment_block(&block))
}

/// Footers of segments that are not there are left over.
pub(super) fn stray_footers(dir: &Path, listing: &mut Listing, segments: &BTreeMap<u32, Arc<Segment>>) {
    for id in std::mem::take(&mut listing.footers) {
        if !segments.contains_key(&id) {
            listing.leftovers.push(dir.join(FileName::Footer(id).to_string()));
        }
    }
}
