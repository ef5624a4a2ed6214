//! What a segment's bytes stand in: its file, or nothing any more.
//!
//! Of a segment whose file is gone or cannot be recognised a hole is left. The region table still knows which
//! entries lay in it. They answer for their terms where those are known, and any read of them is an error
//! that names the file; every other region goes on.

use crate::error::{Error, Result};
use crate::vfs::VfsFile;
use std::path::Path;
use std::sync::Arc;

/// What a segment's bytes stand in.
#[derive(Debug)]
pub(super) enum Body {
    /// Opened by name once the segment is sealed: then it holds no descriptor. The name stays as long as the
    /// segment.
    File(Arc<dyn VfsFile>),
    /// The file is missing, or cannot be recognised.
    Hole,
}

impl Body {
    /// The file of the segment that should stand at `path`.
    pub(super) fn file(&self, path: &Path) -> Result<&Arc<dyn VfsFile>> {
        match self {
            Body::File(file) => Ok(file),
            Body::Hole => Err(Error::damaged(
                "the segment is missing; put its file back, or restore the store from a backup",
            )
            .at(path, None)),
        }
    }
}
