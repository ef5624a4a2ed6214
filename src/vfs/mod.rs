//! The only door to the disk.
//!
//! Everything the engine asks of an operating system goes through two small object-safe traits, so that a simulated
//! disk can stand in for the real one and lose, tear, refuse or delay any operation. The traits are as dumb as the
//! system calls beneath them: a write may be short, a call may be interrupted. What is done about that sits above
//! them, in [`io`], and is therefore tested too.
//!
//! What an implementation must promise, and all that the engine relies on:
//!
//! - Bytes written are visible to every later read of the file, through any handle.
//! - After [`sync_data`](VfsFile::sync_data) returned Ok, all bytes written to the file before the call, through any
//!   handle, and the length needed to read them, survive a power cut. An error that concerns such bytes is reported
//!   on *every* handle that was open when it happened, once each.
//! - After [`sync_dir`](Vfs::sync_dir) returned Ok, all creations, renames and removals in that directory before the
//!   call survive a power cut. Before, any subset of them may.
//! - Nothing else: no order between unsynced writes, no atomicity beyond a sector of 512 bytes.

pub mod io;
mod map;
mod os;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use map::Map;
pub use os::OsVfs;

use std::fmt::Debug;
use std::io::{IoSlice, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What a directory entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, fifo, socket or device: never followed, never touched.
    Other,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name without the directory. Names that are not UTF-8 are given lossily; none of ours is.
    pub name: String,
    /// What it is, without following links.
    pub file_type: FileType,
    /// Length in bytes; 0 unless a file.
    pub len: u64,
}

/// How a file is opened. Links are never followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Must exist.
    Read,
    /// Must exist.
    ReadWrite,
    /// Must not exist; made with mode 0600.
    CreateNew,
}

/// A file system. Paths are whole; the engine only ever names files inside its own directory.
pub trait Vfs: Send + Sync + Debug {
    /// Makes the directory with mode 0700, and those above it, and makes their entries durable. Fine if it exists.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;
    /// All names in the directory, in any order.
    fn read_dir(&self, dir: &Path) -> Result<Vec<DirEntry>>;
    /// Opens a regular file; anything else is an error.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn VfsFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Renames a file, replacing what stands at `to`.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Gives a file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Takes the exclusive lock on `path`, creating the file if need be; `ErrorKind::WouldBlock` if it is held.
    /// Dropping the value releases it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>>;
    /// Bytes that the file system could still give to us.
    fn free_space(&self, dir: &Path) -> Result<u64>;
}

/// An open file, addressed by offset.
pub trait VfsFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes a prefix of the concatenated slices and returns its length.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize>;
    /// Reserves blocks for `0..len`, and makes the file at least that long.
    fn allocate(&self, len: u64) -> Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> Result<()>;
    /// `fdatasync`: the bytes, and what is needed to read them back.
    fn sync_data(&self) -> Result<()>;
    /// `fsync`.
    fn sync_all(&self) -> Result<()>;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Bytes that the file occupies on the device.
    fn allocated(&self) -> Result<u64>;
    /// Gives back the blocks of a range; it reads as zeros, the length stays. `ErrorKind::Unsupported` where it cannot.
    fn punch_hole(&self, range: Range<u64>) -> Result<()>;
    /// Forgets clean cached pages of the range, so that the next read comes from the device. Advisory.
    fn drop_cache(&self, range: Range<u64>) -> Result<()>;
    /// A read-only mapping of `0..len`, or `None` where reads should go through [`read_at`](VfsFile::read_at).
    fn map(&self, len: u64) -> Result<Option<Arc<Map>>>;
}
