//! A sealed segment's footer: built from its records, written beside it, loaded through a mapping.

use super::Segment;
use super::scan::{FIRST_RECORD, Found, Scanner};
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Install};
use crate::format::file_header::{FileKind, Identity};
use crate::format::footer::{Footer, FooterBuilder, Tail};
use crate::format::names::FileName;
use crate::format::record::{RecordKind, Shape};
use crate::types::Lsn;
use crate::vfs::io::{read_exact_at, write_parts_at};
use crate::vfs::{OpenMode, Vfs};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Builds the footer of the records before `end`, which must all be whole.
pub(crate) fn build_footer(segment: &Segment, end: u32) -> Result<Vec<u8>> {
    let mut builder = match segment.kind {
        FileKind::Cold => FooterBuilder::new_cold(segment.identity),
        _ => FooterBuilder::new(segment.identity),
    };
    let mut scanner = Scanner::new(&*segment.file, &segment.path, &segment.identity, u64::from(end));
    let mut tail = Tail { end: FIRST_RECORD, last: Shape::default(), watermark: Lsn::ZERO };
    while tail.end < end {
        let damaged = |what: &str| {
            Error::damaged(format!("{what}; run `raftwood check` on the store"))
                .at(&segment.path, Some(u64::from(tail.end)))
        };
        let record = match scanner.look_behind(tail.end, tail.last)? {
            Found::Record(record) => record,
            Found::BadDescription(_) => return Err(damaged("the description of a batch is damaged")),
            Found::Nothing => return Err(damaged("a record below the end of its segment is damaged")),
        };
        match record.header.kind {
            RecordKind::Batch => {
                let (batch, blocks) = Batch::decode_desc(&record.desc, record.header.payload_len)
                    .map_err(|e| damaged(&format!("the description of a batch makes no sense: {e}")))?;
                builder
                    .batch(&batch, &blocks, record.payload_at())
                    .map_err(|e| damaged(&format!("a batch makes no sense: {e}")))?;
            }
            RecordKind::Install => {
                let install = Install::decode(&record.desc)
                    .map_err(|e| damaged(&format!("a control record makes no sense: {e}")))?;
                builder.install(&install);
            }
            RecordKind::Watermark => {}
        }
        tail = Tail {
            end: record.end(),
            last: record.shape,
            watermark: tail.watermark.max(record.header.watermark),
        };
    }
    Ok(builder.finish(tail))
}

/// Where the footer of segment `id` stands.
pub(crate) fn footer_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(FileName::Footer(id).to_string())
}

/// Writes a footer durably: a half-written one never gets the name.
pub(crate) fn write_footer(vfs: &dyn Vfs, dir: &Path, id: u32, bytes: &[u8]) -> Result<()> {
    let temp = dir.join(FileName::Temp(id).to_string());
    let fail = |doing: &'static str| {
        let temp = temp.clone();
        move |e| Error::io(doing, &temp, e)
    };
    match vfs.remove(&temp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail("removing a stale file")(e)),
        _ => {}
    }
    let file = vfs.open(&temp, OpenMode::CreateNew).map_err(fail("creating a footer"))?;
    write_parts_at(&*file, &[bytes], 0).map_err(fail("writing a footer"))?;
    file.sync_data().map_err(fail("syncing a footer"))?;
    vfs.rename(&temp, &footer_path(dir, id)).map_err(fail("renaming a footer"))?;
    vfs.sync_dir(dir).map_err(|e| Error::io("syncing the directory", dir, e))
}

/// The footer of segment `id`, or `None` when there is none that can be believed: it is a cache.
pub(crate) fn load_footer(vfs: &dyn Vfs, dir: &Path, identity: &Identity) -> Option<Arc<Footer>> {
    let path = footer_path(dir, identity.file);
    let file = vfs.open(&path, OpenMode::Read).ok()?;
    let len = file.len().ok()?;
    let bytes = match file.map(len).ok()? {
        Some(map) => map.slice(0..len as usize)?,
        None => {
            let mut buf = vec![0; usize::try_from(len).ok()?];
            read_exact_at(&*file, &mut buf, 0).ok()?;
            Bytes::from(buf)
        }
    };
    let footer = Footer::open(bytes, identity).ok()?;
    footer.verify_tables().ok()?;
    Some(Arc::new(footer))
}

/// Builds the footer anew and reads through the new one from here on.
pub(crate) fn rebuild_footer(segment: &Segment) -> Result<()> {
    let bytes = build_footer(segment, segment.sealed_end())?;
    let footer = Footer::open(Bytes::from(bytes), &segment.identity).map_err(|e| {
        Error::damaged(format!("a footer just built makes no sense: {e}")).at(&segment.path, None)
    })?;
    segment.set_footer(Arc::new(footer));
    Ok(())
}
