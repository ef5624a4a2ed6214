//! The segments that take part: which file is whose, and what is left of one that is damaged or missing.

use super::Unrecovered;
use super::files::Listing;
use super::judge::refuse;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{CheckpointHeader, SegmentRecord};
use crate::format::file_header::{
    FileHeader, FileKind, HeaderError, Identity, SEGMENT_HEADER_LEN, SegmentKind, StoreId, second_copy_at,
};
use crate::format::footer::Footer;
use crate::format::names::FileName;
use crate::options::{Options, ReadMode};
use crate::planted::{Bug, planted};
use crate::report::OpenReport;
use crate::segment::Segment;
use crate::segment::scan::{self, Scanner};
use crate::vfs::io::{read_file, read_up_to};
use crate::vfs::{Dir, OpenMode, VfsFile};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The segments that take part.
#[derive(Debug, Default)]
pub(super) struct SegmentFiles {
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Segments that are gone, and why: damage if anything that lives was in them.
    pub(super) lost: Vec<(u32, Error)>,
}

/// A segment as its name and the checkpoint have it.
struct Expected<'a> {
    checkpoint: &'a CheckpointHeader,
    id: u32,
    kind: SegmentKind,
    /// What the checkpoint says of it, if it names it.
    named: Option<&'a SegmentRecord>,
}

/// What a file turned out to be that bears a segment's name.
enum Found {
    Segment(Arc<Segment>),
    /// Another store's.
    Foreign,
    /// Its header is damaged, or is that of another segment. A lack of descriptors or permissions is none
    /// of this.
    Bad(Error),
}

/// Opens every segment that the checkpoint names or that came after it.
pub(super) fn open_segments(
    dir: &Dir,
    options: &Options,
    listing: &mut Listing,
    checkpoint: &CheckpointHeader,
    report: &mut OpenReport,
) -> Result<SegmentFiles, Unrecovered> {
    let mut opened = SegmentFiles::default();
    for (id, kind) in listing.segments().collect::<Vec<_>>() {
        let expected = Expected::by(checkpoint, id, kind);
        let name = FileName::segment(kind, id).to_string();
        // A name from before the checkpoint that it does not list: its removal was lost in a crash,
        // unless the file was never ours.
        if expected.named.is_none() && id < checkpoint.start_segment {
            match leftover_is_ours(dir, &name, checkpoint) {
                Some(true) => listing.leftovers.push(name),
                Some(false) => listing.foreign.push(name),
                None => {}
            }
            continue;
        }
        let lost = match open_segment(dir, &name, options, &expected)? {
            Found::Segment(segment) => {
                opened.add(segment, &expected, report);
                continue;
            }
            Found::Foreign => {
                listing.foreign.push(name.clone());
                if expected.named.is_none() {
                    continue;
                }
                let says = "the file under a segment's name belongs to another store; put the right one back";
                Error::damaged(says).at(&dir.join(&name), None)
            }
            Found::Bad(error) => error,
        };
        // What it held of the log is gone, and nobody knows which regions that concerns.
        if !expected.is_contained() {
            refuse(Unrecovered::Damaged(lost.clone()), options, report)?;
        }
        opened.leave_hole(&expected, dir.join(&name), lost);
    }
    for named in &checkpoint.segments {
        if opened.segments.contains_key(&named.id) {
            continue;
        }
        let path = dir.join(FileName::segment(named.kind, named.id).to_string());
        let says = "a segment is missing; put the file back, or restore the store from a backup";
        let error = Error::damaged(says).at(&path, None);
        let expected = Expected::by(checkpoint, named.id, named.kind);
        if !expected.is_contained() {
            refuse(Unrecovered::Damaged(error.clone()), options, report)?;
        }
        opened.leave_hole(&expected, path, error);
    }
    Ok(opened)
}

impl SegmentFiles {
    fn add(&mut self, segment: Arc<Segment>, expected: &Expected<'_>, report: &mut OpenReport) {
        if let Some(named) = expected.named
            && named.sealed_end != 0
        {
            segment.set_sealed_end(named.sealed_end);
        }
        // Of those that are replayed it counts where their records end.
        if segment.is_cut && expected.is_contained() {
            report.damage.push(cut_short(&segment));
        }
        self.segments.insert(segment.id, segment);
    }

    /// Nothing can be had of a segment but its place.
    fn leave_hole(&mut self, expected: &Expected<'_>, path: PathBuf, why: Error) {
        let Expected { checkpoint, id, kind, .. } = *expected;
        let identity =
            Identity { store: checkpoint.identity.store, file: id, salt: expected.salt().unwrap_or(0) };
        self.lost.push((id, why));
        self.segments.insert(id, Arc::new(Segment::hole(identity, kind, path)));
    }
}

impl<'a> Expected<'a> {
    fn by(checkpoint: &'a CheckpointHeader, id: u32, kind: SegmentKind) -> Expected<'a> {
        let named = checkpoint.segments.iter().find(|s| s.id == id);
        Expected { checkpoint, id, kind, named }
    }

    /// What comes before the replay is only read by index: its loss is that of the entries in it.
    fn is_contained(&self) -> bool {
        let is_before = self.named.is_some() && self.id < self.checkpoint.start_segment;
        is_before || self.kind == SegmentKind::Cold
    }

    fn salt(&self) -> Option<u64> {
        self.named.map(|s| s.salt)
    }

    fn fits(&self, header: &FileHeader) -> bool {
        let is_named = header.identity.file == self.id && header.kind == FileKind::Segment(self.kind);
        let salt = self.salt().is_none_or(|salt| salt == header.identity.salt);
        is_named && is_ours(header, self.checkpoint) && salt
    }
}

/// Of a segment whose file is shorter than it was made.
pub(super) fn cut_short(segment: &Segment) -> Error {
    Error::damaged(format!("the segment was cut short: {} bytes are left of it", segment.len))
        .at(&segment.path, Some(segment.len))
}

fn open_segment(dir: &Dir, name: &str, options: &Options, expected: &Expected<'_>) -> Result<Found> {
    let path = &*dir.join(name);
    let file = dir.open(name, OpenMode::Read).map_err(|e| Error::io("opening a segment", path, e))?;
    let header = match header_of(dir, &*file, path, expected)? {
        Ok(header) => header,
        Err(bad) => return Ok(Found::Bad(bad)),
    };
    if !is_ours(&header, expected.checkpoint) {
        return Ok(Found::Foreign);
    }
    if header.identity.file != expected.id || header.kind != FileKind::Segment(expected.kind) {
        let file = header.identity.file;
        let says = format!("the file is segment {file} under another name; put it back or move it away");
        return Ok(Found::Bad(Error::damaged(says).at(path, None)));
    }
    let len = file.len().map_err(|e| Error::io("reading the length of a segment", path, e))?;
    let mapped = options.read_mode == ReadMode::Map;
    // A file is as long as it was made for all its life.
    let len = len.min(header.len);
    // Nothing is written to it any more, and there may be thousands.
    let named = dir.by_name(name, &file).map_err(|e| Error::io("looking at a segment", path, e))?;
    let mut segment =
        Segment::new(expected.kind, &header, path.to_path_buf(), len, named, Vec::new(), mapped)?;
    segment.is_cut = len < header.len;
    segment.content.set_found();
    Ok(Found::Segment(Arc::new(segment)))
}

/// The header of a segment's file, or the damage that keeps it from being known.
fn header_of(
    dir: &Dir,
    file: &dyn VfsFile,
    path: &Path,
    expected: &Expected<'_>,
) -> Result<Result<FileHeader, Error>> {
    let read = read_header(file, path, |header| expected.fits(header));
    if matches!(read, Err(_) | Ok(Err(HeaderError::Malformed(_))))
        && let Some(known) = recognise(dir, file, path, expected)
    {
        return Ok(Ok(known));
    }
    match read {
        Ok(Ok(header)) => Ok(Ok(header)),
        Ok(Err(HeaderError::Malformed(e))) => {
            let says = format!("both copies of the segment's header are damaged: {e}; run `raftwood check`");
            Ok(Err(Error::damaged(says).at(path, Some(0))))
        }
        Ok(Err(e)) => {
            let says =
                format!("the segment was written by a newer release: {e}; open the store with that release");
            Err(Error::new(ErrorKind::Unsupported, says).at(path, None))
        }
        // Its entries cannot be read now, and everything else can.
        Err(e) if expected.is_contained() || planted(Bug::UnreadIsDamaged) => {
            let says = "the segment's header cannot be read";
            Ok(Err(Error::damaged(says).at(path, Some(0)).caused_by(e)))
        }
        Err(e) => Err(e),
    }
}

/// The identity of a segment whose header is gone, both copies of it, by what else knows it: the checkpoint,
/// or its footer. Its first record has to verify with that, or the file might be anything.
fn recognise(dir: &Dir, file: &dyn VfsFile, path: &Path, expected: &Expected<'_>) -> Option<FileHeader> {
    let Expected { checkpoint, id, kind, named } = *expected;
    let store = checkpoint.identity.store;
    let salt = named.filter(|s| s.kind == kind).map(|s| s.salt);
    let salt = salt.or_else(|| {
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
    (!matches!(first, scan::Found::Nothing) && !planted(Bug::SecondHeaderIgnored)).then_some(header)
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
/// now. One without a header that can be read bears a name that only this store gives.
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
