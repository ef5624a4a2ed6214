//! Stands in for a segment whose file is gone or cannot be recognised.
//!
//! The region table still knows which entries lay in it. They answer for their terms where those are known,
//! and any read of them is an error that names the file; every other region goes on.

use super::Segment;
use crate::format::file_header::{FORMAT_VERSION, FileHeader, FileKind, Identity, SegmentKind};
use crate::vfs::{Map, Reserved, VfsFile};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

impl Segment {
    /// A segment without a file.
    pub(crate) fn lost(identity: Identity, kind: SegmentKind, path: PathBuf) -> crate::Result<Segment> {
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(kind),
            identity,
            len: 0,
            previous_salt: 0,
        };
        let mut segment = Segment::new(kind, &header, path, 0, Arc::new(LostFile), Vec::new(), false)?;
        segment.is_lost = true;
        Ok(segment)
    }
}

/// Every operation fails.
#[derive(Debug)]
struct LostFile;

fn lost<T>() -> Result<T> {
    Err(Error::new(ErrorKind::NotFound, "the segment is missing"))
}

impl VfsFile for LostFile {
    fn read_at(&self, _: &mut [u8], _: u64) -> Result<usize> {
        lost()
    }
    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> Result<usize> {
        lost()
    }
    fn allocate(&self, _: u64) -> Result<Reserved> {
        lost()
    }
    fn set_len(&self, _: u64) -> Result<()> {
        lost()
    }
    fn sync_data(&self) -> Result<()> {
        lost()
    }
    fn sync_all(&self) -> Result<()> {
        lost()
    }
    fn len(&self) -> Result<u64> {
        lost()
    }
    fn drop_cache(&self, _: Range<u64>) -> Result<()> {
        lost()
    }
    fn map(&self, _: u64) -> Result<Option<Arc<Map>>> {
        lost()
    }
}
