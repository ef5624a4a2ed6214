//! A cold segment in the making: a file under a temporary name, which gets its own when it is whole.

use super::factory::{SegmentFactory, segment_len_for, write_headers};
use super::{Segment, Unwritten};
use crate::format::file_header::{
    FORMAT_VERSION, FileHeader, FileKind, Identity, SEGMENT_HEADER_LEN, SegmentKind,
};
use crate::format::names::FileName;
use crate::planted::{Bug, planted};
use crate::sync::Arc;
use crate::vfs::VfsFile;

/// The file of a cold segment that is written.
#[derive(Debug)]
pub(crate) struct ColdFile {
    pub(crate) identity: Identity,
    pub(crate) temp: String,
    pub(crate) file: Arc<dyn VfsFile>,
}

impl ColdFile {
    /// For at most `len` bytes.
    pub(crate) fn create(factory: &SegmentFactory, len: u64) -> Result<ColdFile, Unwritten> {
        let identity = factory.next_identity().map_err(Unwritten::Failed)?;
        let temp = FileName::Temp(identity.file).to_string();
        let (file, _) = factory.files.create(&temp, len)?;
        Ok(ColdFile { identity, temp, file })
    }

    /// Finishes it: its header, the length it came to, its name.
    pub(crate) fn finish(&self, factory: &SegmentFactory, end: u32) -> Result<Arc<Segment>, Unwritten> {
        let files = &factory.files;
        files.check_open()?;
        let len = segment_len_for(u64::from(end) - u64::from(SEGMENT_HEADER_LEN));
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(SegmentKind::Cold),
            identity: self.identity,
            len,
            previous_salt: 0,
        };
        let temp = files.dir.join(&self.temp);
        self.file.set_len(len).map_err(|e| Unwritten::io("trimming a cold segment", &temp, e))?;
        write_headers(&*self.file, &header)
            .map_err(|e| Unwritten::io("writing a segment header", &temp, e))?;
        if !planted(Bug::ColdNotSynced) {
            self.file.sync_all().map_err(|e| Unwritten::io("syncing a cold segment", &temp, e))?;
        }
        let name = FileName::Cold(self.identity.file).to_string();
        let path = files.dir.join(&name);
        let named = files.dir.rename_new(&self.temp, &name);
        named.map_err(|e| Unwritten::io("naming a cold segment", &path, e))?;
        files.sync_dir()?;
        let named = files.dir.by_name(&name, &self.file);
        let named = named.map_err(|e| Unwritten::io("looking at a cold segment", &path, e))?;
        let mapped = factory.mapped;
        let segment = Segment::new(SegmentKind::Cold, &header, path, len, named, Vec::new(), mapped)
            .map_err(Unwritten::Failed)?;
        segment.content.advance_written(end);
        segment.set_sealed_end(end);
        Ok(Arc::new(segment))
    }

    /// Gives up one that did not come to be.
    pub(crate) fn give_up(&self, factory: &SegmentFactory) {
        // A leftover is removed by the next open.
        let _ = factory.files.dir.remove(&self.temp);
    }
}
