//! A [`Vfs`] that encrypts what is written through it, with AES-256 in XTS mode, over any other.
//!
//! ```text
//!  engine ──▶ EncryptedVfs ──▶ OsVfs
//!             │ file as the engine sees it:            sector 0 │ sector 1 │ ...
//!             └ file below:      identity │ identity │ sector 0 │ sector 1 │ ... │ zeros
//!                                4096       4096       each 512 bytes, encrypted
//! ```
//!
//! - A sector of 512 bytes is encrypted by itself, under a tweak that no other sector of any file has: the
//!   random identity of the file's generation, plus the sector's number. Nothing of a sector depends on
//!   another one, so a crash tears what the engine expects to be torn, and no more.
//! - The identity stands in the file: renames, links and removals take it along, whatever a crash leaves of
//!   them. It is durable before the first byte that is encrypted under it.
//! - A sector below that is all zeros was never written, and reads as zeros.
//!
//! What this protects and what it does not is in `README.md`. In this crate: [`EncryptedVfs`] and its
//! directories here, `file.rs` a file, `sectors.rs` the cipher, `layout.rs` lengths and the identity.

mod file;
mod layout;
mod sectors;

use file::{EncryptedFile, Inode};
use raftwood::vfs::{DirEntry, FileId, FileType, LockMode, OpenMode, Vfs, VfsDir, VfsFile};
use sectors::Cipher;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Two keys of AES-256: the one that encrypts, and the one that makes the tweaks.
pub type Key = [u8; 64];

/// A file system whose files are encrypted in the one below.
///
/// ```
/// use raftwood::vfs::OsVfs;
/// use raftwood::{Durability, Options, RegionId};
/// use raftwood_encrypted::EncryptedVfs;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// // From where the application keeps its keys, and never from the disk that is encrypted.
/// let mut key = [0; 64];
/// getrandom::fill(&mut key).map_err(std::io::Error::other)?;
/// let vfs = EncryptedVfs::new(Arc::new(OsVfs::new()), &key)?;
///
/// let engine = Options::new().vfs(Arc::new(vfs)).open(dir.path())?;
/// engine.append_next(RegionId(7), ["nobody reads this on the disk"], Durability::Synced)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EncryptedVfs {
    below: Arc<dyn Vfs>,
    shared: Arc<Shared>,
}

/// What all directories and files of one file system have in common.
pub(crate) struct Shared {
    pub(crate) cipher: Cipher,
    /// The files that are open: all handles of a file share one.
    inodes: Mutex<HashMap<FileId, Weak<Inode>>>,
}

impl EncryptedVfs {
    /// Over `below`, whose files can be told apart by their [`id`](VfsFile::id).
    ///
    /// # Errors
    /// `InvalidInput` if both halves of the key are equal, which would make the tweaks worthless.
    pub fn new(below: Arc<dyn Vfs>, key: &Key) -> Result<EncryptedVfs> {
        let cipher = Cipher::new(key)
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "both halves of the key are the same"))?;
        Ok(EncryptedVfs { below, shared: Arc::new(Shared { cipher, inodes: Mutex::default() }) })
    }

    fn dir(&self, below: Arc<dyn VfsDir>) -> Arc<dyn VfsDir> {
        Arc::new(EncryptedDir { below, shared: self.shared.clone() })
    }
}

impl fmt::Debug for EncryptedVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedVfs").field("below", &self.below).finish_non_exhaustive()
    }
}

impl Shared {
    /// What the handles of this file share.
    fn inode(&self, id: FileId) -> Arc<Inode> {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = inodes.get(&id).and_then(Weak::upgrade) {
            return open;
        }
        // Its number may be another file's next.
        inodes.retain(|_, inode| inode.strong_count() > 0);
        let inode = Arc::new(Inode::default());
        inodes.insert(id, Arc::downgrade(&inode));
        inode
    }
}

impl Vfs for EncryptedVfs {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(self.dir(self.below.open_dir(path)?))
    }
    fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(self.dir(self.below.create_dir_all(path)?))
    }
}

struct EncryptedDir {
    below: Arc<dyn VfsDir>,
    shared: Arc<Shared>,
}

impl fmt::Debug for EncryptedDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.below.fmt(f)
    }
}

impl VfsDir for EncryptedDir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        let mut entries = self.below.list()?;
        for entry in entries.iter_mut().filter(|entry| entry.file_type == FileType::File) {
            entry.len = layout::len_above(entry.len);
        }
        Ok(entries)
    }
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let below = self.below.open(name, mode)?;
        let untold =
            || Error::new(ErrorKind::Unsupported, "the file system below cannot tell its files apart");
        let inode = self.shared.inode(below.id()?.ok_or_else(untold)?);
        Ok(Arc::new(EncryptedFile::new(below, inode, self.shared.clone())?))
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.below.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.below.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.below.rename_new(from, to)
    }
    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        match to.downcast_ref::<EncryptedDir>() {
            // Under another key it could not be read there.
            Some(to) if Arc::ptr_eq(&to.shared, &self.shared) => self.below.hard_link(name, &*to.below, new),
            _ => Err(ErrorKind::CrossesDevices.into()),
        }
    }
    fn sync(&self) -> Result<()> {
        self.below.sync()
    }
    fn lock(&self, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.below.lock(mode)
    }
    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.below.lock_file(name, mode)
    }
    fn free_space(&self) -> Result<u64> {
        self.below.free_space()
    }
    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        self.below.id_of(name)
    }
}
