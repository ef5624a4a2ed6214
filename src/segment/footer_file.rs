//! A sealed segment's footer: built from its records, written beside it, loaded.

use super::content::read_patiently;
use super::notes::NotesReader;
use super::scan::{FIRST_RECORD, Found, Record};
use super::{Segment, Unreadable, Unwritten};
use crate::error::Error;
use crate::format::batch::{Batch, Install};
use crate::format::file_header::SegmentKind;
use crate::format::footer::{Footer, FooterBuilder, FooterFile, Tail};
use crate::format::names::FileName;
use crate::format::record::RecordKind;
use crate::vfs::io::write_parts_at;
use crate::vfs::{Dir, OpenMode, VfsFile};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Builds the footer of the records before `end`, which must all be whole, from the file.
pub(crate) fn build_footer(segment: &Segment, end: u32) -> Result<Vec<u8>, Unreadable> {
    let never = || Err(Unreadable::Failed(Error::closed()));
    from_file(segment, end, &mut || true)?.map_or_else(never, Ok)
}

/// The same of a segment that is full, from what is known of it if it was written just now. After each
/// record it asks whether to `go_on`: that may take its time, so that threads that write get the
/// processor. `None` if it should not.
pub(crate) fn build_footer_of_full(
    segment: &Segment,
    end: u32,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<u8>>, Unreadable> {
    let Some(chunks) = segment.notes.take(end) else { return from_file(segment, end, go_on) };
    let mut noted = NotesReader::new(chunks, segment.id, segment.seed);
    let next = |tail: &Tail| noted.next(tail.end).ok_or_else(|| damaged(segment, tail, "it is not known"));
    let Ok(built) = build(segment, end, next, go_on) else { return from_file(segment, end, go_on) };
    // Whatever it is built from, a footer is a function of the records, and an open builds it from the file.
    debug_assert!(
        built.is_none() || from_file(segment, end, &mut || true).map_or(true, |same| same == built)
    );
    Ok(built)
}

fn from_file(
    segment: &Segment,
    end: u32,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut scanner = segment.scanner(u64::from(end)).map_err(Unreadable::Wrong)?;
    let next = |tail: &Tail| match scanner.look_ahead(tail.end, tail.last).map_err(Unreadable::Failed)? {
        Found::Record(record) => Ok(record),
        Found::BadDescription(_) => Err(damaged(segment, tail, "the description of a batch is damaged")),
        Found::Nothing => Err(damaged(segment, tail, "a record below the end of its segment is damaged")),
    };
    build(segment, end, next, go_on)
}

fn damaged(segment: &Segment, tail: &Tail, what: &str) -> Unreadable {
    let error = Error::damaged(format!("{what}; run `raftwood check` on the store"));
    Unreadable::Wrong(error.at(&segment.path, Some(u64::from(tail.end))))
}

fn build(
    segment: &Segment,
    end: u32,
    mut next: impl FnMut(&Tail) -> Result<Record, Unreadable>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut builder = match segment.kind {
        SegmentKind::Cold => FooterBuilder::new_cold(segment.identity),
        SegmentKind::Log => FooterBuilder::new(segment.identity),
    };
    let mut tail = Tail { end: FIRST_RECORD, ..Tail::default() };
    while tail.end < end {
        let record = next(&tail)?;
        let damaged = |what: String| damaged(segment, &tail, &what);
        match record.header.kind {
            RecordKind::Batch => {
                let (batch, blocks) = Batch::decode_desc(&record.desc, record.header.payload_len)
                    .map_err(|e| damaged(format!("the description of a batch is malformed: {e}")))?;
                builder
                    .batch(&batch, &blocks, record.payload_at(), record.end())
                    .map_err(|e| damaged(format!("a batch is malformed: {e}")))?;
            }
            RecordKind::Install => {
                let install = Install::decode(&record.desc)
                    .map_err(|e| damaged(format!("a control record is malformed: {e}")))?;
                builder.install(&install);
            }
            RecordKind::Watermark | RecordKind::Announcement | RecordKind::Copies => {}
        }
        tail = Tail {
            end: record.end(),
            last: record.shape,
            watermark: tail.watermark.max(record.header.watermark),
            follows: if tail.end == FIRST_RECORD { record.header.previous } else { tail.follows },
        };
        if !go_on() {
            return Ok(None);
        }
    }
    Ok(Some(builder.finish(tail)))
}

/// What the footer of segment `id` is called.
pub(crate) fn footer_name(id: u32) -> String {
    FileName::Footer(id).to_string()
}

/// Writes a footer durably: a half-written one never gets the name.
pub(crate) fn write_footer(dir: &Dir, id: u32, bytes: &[u8]) -> Result<(), Unwritten> {
    let temp = FileName::Temp(id).to_string();
    let fail = |doing: &'static str| {
        let temp = dir.join(&temp);
        move |e| Unwritten::io(doing, &temp, e)
    };
    let file = dir.draft(&temp).map_err(fail("creating a footer"))?;
    write_parts_at(&*file, &[bytes], 0).map_err(fail("writing a footer"))?;
    file.sync_data().map_err(fail("syncing a footer"))?;
    dir.publish(&temp, &footer_name(id)).map_err(fail("naming a footer"))
}

/// The footer that is on disk for `segment`, or `None` when there is none that can be read and
/// believed: it is a cache.
///
/// Where the segment is mapped, readers get the locations from a mapping too. Everything else is
/// read from the file.
pub(crate) fn load_footer(dir: &Dir, segment: &Segment) -> Option<Arc<Footer>> {
    let name = footer_name(segment.id);
    let file = dir.open(&name, OpenMode::Read).ok()?;
    let len = usize::try_from(file.len().ok()?).ok()?;
    let map = match segment.content.is_mapped() && len > 0 {
        true => file.map(len as u64).ok()?.and_then(|map| map.slice(0..len)),
        false => None,
    };
    let named = OnDisk(dir.by_name(&name, &file).ok()?);
    let footer = Footer::open_file(Box::new(named), len, map, &segment.identity).ok()?;
    footer.verify_tables().ok()?;
    Some(Arc::new(footer))
}

/// The file of a footer.
#[derive(Debug)]
struct OnDisk(Arc<dyn VfsFile>);

impl FooterFile for OnDisk {
    fn read(&self, at: Range<usize>) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; at.len()];
        read_patiently(&*self.0, &mut bytes, at.start as u64)?;
        Ok(bytes)
    }
}

/// Rebuilds the footer and reads through the new one from here on.
pub(crate) fn rebuild_footer(segment: &Segment) -> Result<(), Unreadable> {
    let bytes = build_footer(segment, segment.sealed_end())?;
    segment.set_footer(open_built(segment, bytes)?);
    Ok(())
}

/// A footer of the segment that was just built, out of memory.
pub(crate) fn open_built(segment: &Segment, bytes: Vec<u8>) -> Result<Arc<Footer>, Unreadable> {
    let opened = Footer::open(Bytes::from(bytes), &segment.identity);
    opened.map(Arc::new).map_err(|e| {
        let error = Error::damaged(format!("a footer just built is malformed: {e}"));
        Unreadable::Wrong(error.at(&segment.path, None))
    })
}
