//! Where stores stand while they are measured.

use crate::log::Result;
use crate::measure::settle;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory of our own, removed at the end, also of a failed run. A process that is interrupted
/// leaves it, and nothing else.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(parent: &Path) -> Result<Scratch> {
        let dir = parent.join(format!("raftwood-peers-{}", std::process::id()));
        fs::create_dir_all(&dir)
            .map_err(|e| format!("cannot create {}: {e}; choose another --dir", dir.display()))?;
        Ok(Scratch(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The name of a store in it, where nothing stands.
    pub(crate) fn store(&self) -> Result<PathBuf> {
        fs::remove_dir_all(&self.0)?;
        fs::create_dir_all(&self.0)?;
        settle(&self.0)?;
        Ok(self.0.join("store"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An error has nowhere to go.
        let _ = fs::remove_dir_all(&self.0);
    }
}
