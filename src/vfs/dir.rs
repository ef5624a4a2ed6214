//! An open directory, with the path by which it was opened.

use super::by_name::{self, ByName, OpenFiles};
use super::meaning::if_there;
use super::origin::Origin;
use super::{OpenMode, VfsDir, VfsFile};
use crate::planted::{Bug, planted};
use std::fmt;
use std::io::Result;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The directory of a store, as the engine hands it around. The path is for messages: nothing is
/// looked up by it again.
#[derive(Clone)]
pub(crate) struct Dir {
    handle: Arc<dyn VfsDir>,
    path: Arc<Path>,
    origin: Arc<Origin>,
    files: Arc<OpenFiles>,
    /// A file was removed for good, and the directory was not synced since.
    owes_removal: Arc<AtomicBool>,
}

impl Dir {
    pub(crate) fn new(handle: Arc<dyn VfsDir>, path: &Path) -> Dir {
        #[cfg(planted)]
        let handle = super::faulty::faulty(handle, path);
        let (origin, owes_removal) = (Arc::new(Origin::here()), Arc::default());
        Dir { handle, path: path.into(), origin, files: Arc::default(), owes_removal }
    }

    /// As [`VfsDir::open`]; without a descriptor left, those that are only kept for the next call
    /// are given up for it.
    pub(crate) fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        by_name::open(&*self.handle, &self.files, name, mode)
    }

    /// `file`, which has this name: for as long as it has it, it can be read without a descriptor of its own.
    /// `file` itself is used while somebody else holds it.
    pub(crate) fn by_name(&self, name: &str, file: &Arc<dyn VfsFile>) -> Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(ByName::new(self.handle.clone(), self.files.clone(), name, file)?))
    }

    /// Removes a regular file. False if nothing has this name.
    pub(crate) fn remove_if_there(&self, name: &str) -> Result<bool> {
        Ok(if_there(self.handle.remove(name))?.is_some())
    }

    /// A new file under a temporary name, in place of what an earlier attempt left.
    pub(crate) fn draft(&self, temp: &str) -> Result<Arc<dyn VfsFile>> {
        self.remove_if_there(temp)?;
        self.open(temp, OpenMode::CreateNew)
    }

    /// Gives a draft, which is complete and durable, its name, durably, in place of what has it: a half
    /// written file never has the name.
    pub(crate) fn publish(&self, temp: &str, name: &str) -> Result<()> {
        self.handle.rename(temp, name)?;
        self.sync()
    }

    /// As [`VfsDir::sync`].
    pub(crate) fn sync(&self) -> Result<()> {
        // First: of a file that is removed meanwhile nothing is known.
        let owed = self.owes_removal.swap(false, Ordering::AcqRel);
        self.handle.sync().inspect_err(|_| {
            self.owes_removal.fetch_or(owed, Ordering::AcqRel);
        })
    }

    /// Removes a file whose name must not come back with a power cut: it takes a sync.
    pub(crate) fn remove_for_good(&self, name: &str) -> Result<()> {
        self.handle.remove(name)?;
        self.owes_removal.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether no sync has come after what was removed for good.
    pub(crate) fn owes_removal(&self) -> bool {
        self.owes_removal.load(Ordering::Acquire)
    }

    /// What it was called when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the process that opened it. In a fork of that nothing may be done with it.
    pub(crate) fn is_here(&self) -> bool {
        self.origin.is_here() || planted(Bug::ForkGoesOn)
    }

    /// The path of a file in it, for messages.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Deref for Dir {
    type Target = dyn VfsDir;

    fn deref(&self) -> &dyn VfsDir {
        &*self.handle
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
