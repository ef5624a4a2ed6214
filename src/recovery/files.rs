//! What stands in the directory, by rule: ours, left over, or foreign.

use super::judge::refuse;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::CheckpointHeader;
use crate::format::file_header::{
    FileHeader, FileKind, HeaderError, Identity, SEGMENT_HEADER_LEN, SegmentKind, StoreId, second_copy_at,
};
use crate::format::footer::Footer;
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::options::{Options, ReadMode};
use crate::planted::{Bug, planted};
use crate::report::OpenReport;
use crate::segment::Segment;
use crate::segment::scan::{Found, Scanner};
use crate::vfs::io::{read_file, read_up_to};
use crate::vfs::{Dir, FileType, OpenMode, VfsFile};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory, sorted by what the names say.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Ascending.
    pub(super) checkpoints: Vec<u32>,
    pub(super) checkpoint_bytes: BTreeMap<u32, u64>,
    pub(super) logs: Vec<u32>,
    colds: Vec<u32>,
    pub(super) footers: Vec<u32>,
    pub(super) free: Vec<(u32, u64)>,
    pub(super) leftovers: Vec<String>,
    pub(super) foreign: Vec<String>,
    /// The highest segment number that any name bears.
    pub(super) highest: u32,
}

impl Listing {
    /// No store was ever finished here: the first checkpoint is made before the first segment.
    pub(super) fn is_fresh(&self) -> bool {
        self.checkpoints.is_empty() && self.logs.is_empty() && self.colds.is_empty()
    }

    /// All segments: those of the log, then the cold ones.
    fn segments(&self) -> impl Iterator<Item = (u32, SegmentKind)> + '_ {
        let logs = self.logs.iter().map(|id| (*id, SegmentKind::Log));
        logs.chain(self.colds.iter().map(|id| (*id, SegmentKind::Cold)))
    }
}

/// Reads the directory.
pub(super) fn list(dir: &Dir) -> Result<Listing> {
    let mut l = Listing::default();
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    for entry in entries {
        let name = FileName::parse(&entry.name);
        if name.is_none() && entry.name != CHECKPOINT_TEMP && !planted(Bug::UnknownFileRemoved) {
            l.foreign.push(entry.name);
            continue;
        }
        if entry.file_type != FileType::File {
            return Err(Error::invalid(format!(
                "{} should be a file of the store and is a {}; it is not followed and not removed: move it away",
                entry.name,
                if entry.file_type == FileType::Dir { "directory" } else { "link or special file" }
            ))
            .at(&dir.join(&entry.name), None));
        }
        let Some(name) = name else {
            l.leftovers.push(entry.name);
            continue;
        };
        match name {
            FileName::Checkpoint(n) => {
                l.checkpoints.push(n);
                l.checkpoint_bytes.insert(n, entry.len);
            }
            FileName::Log(n) => l.logs.push(n),
            FileName::Cold(n) => l.colds.push(n),
            FileName::Footer(n) => l.footers.push(n),
            FileName::Free(n) => l.free.push((n, entry.len)),
            FileName::Temp(_) => l.leftovers.push(entry.name),
            FileName::Lock | FileName::Mark => {}
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
    dir: &Dir,
    options: &Options,
    listing: &mut Listing,
    checkpoint: &CheckpointHeader,
    report: &mut OpenReport,
) -> Result<Opened> {
    let mut opened = Opened::default();
    for (id, kind) in listing.segments().collect::<Vec<_>>() {
        let named = checkpoint.segments.iter().find(|s| s.id == id);
        let name = FileName::segment(kind, id).to_string();
        let path = dir.join(&name);
        // A name from before the checkpoint that it does not list: its removal was lost in a crash,
        // unless the file was never ours.
        if named.is_none() && id < checkpoint.start_segment {
            match leftover_is_ours(dir, &name, checkpoint) {
                Some(true) => listing.leftovers.push(name),
                Some(false) => listing.foreign.push(name),
                None => {}
            }
            continue;
        }
        // What comes before the replay is only read by index: its loss is that of the entries in it.
        let contained = named.is_some() && id < checkpoint.start_segment || kind == SegmentKind::Cold;
        let segment = match open_segment(dir, &name, kind, id, options, checkpoint, contained) {
            Ok(Some(segment)) => segment,
            Ok(None) if named.is_none() => {
                listing.foreign.push(name);
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
                listing.foreign.push(name);
                opened.lost.push((id, error));
                hole(checkpoint, id, kind, path)
            }
            // Only what is wrong with the file itself: a lack of descriptors or permissions is no damage.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                if !contained {
                    refuse(e.clone(), options, report)?;
                }
                opened.lost.push((id, e));
                hole(checkpoint, id, kind, path)
            }
            Err(e) => return Err(e),
        };
        if let Some(named) = named
            && named.sealed_end != 0
        {
            segment.set_sealed_end(named.sealed_end);
        }
        // Of those that are replayed it counts where their records end.
        if segment.is_cut && contained {
            report.damage.push(cut_short(&segment));
        }
        opened.segments.insert(id, Arc::new(segment));
    }
    leave_holes(dir, options, &mut opened, checkpoint, report)?;
    Ok(opened)
}

/// Where the checkpoint names a segment that is missing, a hole is left.
fn leave_holes(
    dir: &Dir,
    options: &Options,
    opened: &mut Opened,
    checkpoint: &CheckpointHeader,
    report: &mut OpenReport,
) -> Result<()> {
    for named in &checkpoint.segments {
        if opened.segments.contains_key(&named.id) {
            continue;
        }
        let path = dir.join(FileName::segment(named.kind, named.id).to_string());
        let error =
            Error::damaged("a segment is missing; put the file back, or restore the store from a backup");
        let error = error.at(&path, None);
        if named.kind == SegmentKind::Log && named.id >= checkpoint.start_segment {
            refuse(error.clone(), options, report)?;
        }
        opened.lost.push((named.id, error));
        opened.segments.insert(named.id, Arc::new(hole(checkpoint, named.id, named.kind, path)));
    }
    Ok(())
}

fn hole(checkpoint: &CheckpointHeader, id: u32, kind: SegmentKind, path: PathBuf) -> Segment {
    let salt = checkpoint.segments.iter().find(|s| s.id == id).map_or(0, |s| s.salt);
    Segment::hole(Identity { store: checkpoint.identity.store, file: id, salt }, kind, path)
}

/// Of a segment whose file is shorter than it was made.
pub(super) fn cut_short(segment: &Segment) -> Error {
    Error::damaged(format!("the segment was cut short: {} bytes are left of it", segment.len))
        .at(&segment.path, Some(segment.len))
}

fn open_segment(
    dir: &Dir,
    name: &str,
    kind: SegmentKind,
    id: u32,
    options: &Options,
    checkpoint: &CheckpointHeader,
    contained: bool,
) -> Result<Option<Segment>> {
    let path = &*dir.join(name);
    let file = dir.open(name, OpenMode::Read).map_err(|e| Error::io("opening a segment", path, e))?;
    let salt = checkpoint.segments.iter().find(|s| s.id == id).map(|s| s.salt);
    let fits = |header: &FileHeader| {
        let named = header.identity.file == id && header.kind == FileKind::Segment(kind);
        named && is_ours(header, checkpoint) && salt.is_none_or(|salt| salt == header.identity.salt)
    };
    let read =
        read_header(&*file, path, fits).map_err(|e| match contained || planted(Bug::UnreadIsDamaged) {
            // Its entries cannot be read now, and everything else can.
            true => Error::damaged("the segment's header cannot be read").at(path, Some(0)).caused_by(e),
            false => e,
        });
    let gone = matches!(read, Err(_) | Ok(Err(HeaderError::Malformed(_))));
    let known = if gone { recognise(dir, &*file, path, kind, id, checkpoint) } else { None };
    let header = match known.map_or(read, |known| Ok(Ok(known)))? {
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
    if header.identity.file != id || header.kind != FileKind::Segment(kind) {
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
    // Nothing is written to it any more, and there may be thousands.
    let named = dir.by_name(name, &file).map_err(|e| Error::io("looking at a segment", path, e))?;
    let mut segment = Segment::new(kind, &header, path.to_path_buf(), len, named, Vec::new(), mapped)?;
    segment.is_cut = len < header.len;
    segment.set_found();
    Ok(Some(segment))
}

/// The identity of a segment whose header is gone, both copies of it, by what else knows it: the checkpoint,
/// or its footer. Its first record has to verify with that, or the file might be anything.
fn recognise(
    dir: &Dir,
    file: &dyn VfsFile,
    path: &Path,
    kind: SegmentKind,
    id: u32,
    checkpoint: &CheckpointHeader,
) -> Option<FileHeader> {
    let store = checkpoint.identity.store;
    let named = checkpoint.segments.iter().find(|s| s.id == id && s.kind == kind).map(|s| s.salt);
    let salt = named.or_else(|| {
        let bytes = Bytes::from(read_file(&**dir, &FileName::Footer(id).to_string()).ok()?);
        let identity = FileHeader::decode(&bytes).ok()?.identity;
        let ours = identity.store == store && identity.file == id;
        (ours && Footer::open(bytes, &identity).is_ok()).then_some(identity.salt)
    })?;
    let identity = Identity { store, file: id, salt };
    let len = file.len().ok()?;
    let first = Scanner::new(file, path, &identity, len).look(SEGMENT_HEADER_LEN).ok()?;
    // Where its records end is not known any more: in an older segment, anywhere in the file.
    let header = FileHeader { version: 1, kind: FileKind::Segment(kind), identity, len, previous_salt: 0 };
    (!matches!(first, Found::Nothing) && !planted(Bug::SecondHeaderIgnored)).then_some(header)
}

/// The store that every segment in the directory belongs to, if they all say so and their release notes in
/// the log what a table that is rebuilt from it has to know.
pub(super) fn store_of_all_segments(dir: &Dir, listing: &Listing) -> Option<StoreId> {
    let mut store = None;
    for (id, kind) in listing.segments() {
        let name = FileName::segment(kind, id).to_string();
        let file = dir.open(&name, OpenMode::Read).ok()?;
        let named =
            |header: &FileHeader| header.identity.file == id && header.kind == FileKind::Segment(kind);
        let header = read_header(&*file, &dir.join(&name), named).ok()?.ok()?;
        if header.version < 3 || *store.get_or_insert(header.identity.store) != header.identity.store {
            return None;
        }
    }
    store
}

fn is_ours(header: &FileHeader, checkpoint: &CheckpointHeader) -> bool {
    header.identity.store == checkpoint.identity.store || planted(Bug::StoreNotChecked)
}

/// Whether a file that nothing needs is one of this store, and may be removed; `None` when it cannot be read
/// now. One without a header that makes sense bears a name that only this store gives.
fn leftover_is_ours(dir: &Dir, name: &str, checkpoint: &CheckpointHeader) -> Option<bool> {
    let file = dir.open(name, OpenMode::Read).ok()?;
    let header = read_header(&*file, &dir.join(name), |header| is_ours(header, checkpoint)).ok()?;
    Some(header.map_or(true, |header| is_ours(&header, checkpoint)))
}

/// The header of a segment file, from the copy that `fits` what else is known of the file, or else from
/// any: a copy may be whole and stale, where the device lost a write. A block that the device cannot read
/// is a bad copy like any other.
pub(crate) fn read_header(
    file: &dyn VfsFile,
    path: &Path,
    fits: impl Fn(&FileHeader) -> bool,
) -> Result<std::result::Result<FileHeader, HeaderError>> {
    let failed = |e| Error::io("reading the segment's header", path, e).at(path, Some(0));
    let mut unread = None;
    let mut block = |at: u64| {
        let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
        // The device is asked twice: it may have been the cable.
        match read_up_to(file, &mut block, at).or_else(|_| read_up_to(file, &mut block, at)) {
            Ok(got) => block.truncate(got),
            Err(e) => {
                unread.get_or_insert(e);
                // Before version 3 both copies stood in the first block, and one of them is enough.
                let half = block.len() / 2;
                for (copy, at) in block.chunks_mut(half).zip([at, at + half as u64]) {
                    copy.fill(0);
                    if read_up_to(file, copy, at).is_err() {
                        copy.fill(0);
                    }
                }
            }
        }
        block
    };
    let first = block(0);
    if let Ok(header) = FileHeader::decode(&first)
        && (fits(&header) || planted(Bug::StaleHeaderBelieved))
    {
        return Ok(Ok(header));
    }
    let last = block(second_copy_at(file.len().map_err(failed)?));
    if let Some(header) = FileHeader::segment_copies(&first, &last).into_iter().flatten().find(|h| fits(h))
        && !planted(Bug::SecondHeaderIgnored)
    {
        return Ok(Ok(header));
    }
    match (FileHeader::decode_segment(&first, &last), unread) {
        (Err(HeaderError::Malformed(_)), Some(e)) => Err(failed(e)),
        (decoded, _) => Ok(decoded),
    }
}

/// Footers of segments that are not there are left over.
pub(super) fn stray_footers(listing: &mut Listing, segments: &BTreeMap<u32, Arc<Segment>>) {
    for id in std::mem::take(&mut listing.footers) {
        if !segments.contains_key(&id) {
            listing.leftovers.push(FileName::Footer(id).to_string());
        }
    }
}
