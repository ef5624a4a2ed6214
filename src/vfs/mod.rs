//! The only door to the disk.
//!
//! Everything the engine asks of an operating system goes through three small object-safe traits, so that a
//! simulated disk can stand in for the real one and lose, tear, refuse or delay any operation. The traits are
//! as dumb as the system calls beneath them: a read or write may be short or interrupted. What is done about
//! that sits above them, in [`io`], and is therefore tested too. Every other call that a signal interrupts
//! the implementation repeats itself.
//!
//! ```text
//!  Vfs ──open_dir(path)──▶ VfsDir ──open(name)──▶ VfsFile
//!        looked up once             relative to the open directory
//! ```
//!
//! A path is looked up once, when the directory is opened. From then on the engine names files relative to
//! the open directory: a `chdir`, a directory that was moved, or a link that points elsewhere now, changes
//! nothing about which directory the engine works in.
//!
//! What an implementation must promise, and all that the engine relies on:
//!
//! - Bytes written are visible to every later read of the file, through any handle.
//! - After [`sync_data`](VfsFile::sync_data) returned Ok, all bytes written to the file before the call,
//!   through any handle, and the length needed to read them, survive a power cut. An error that concerns such
//!   bytes is reported on *every* handle that was open when it happened, once each.
//! - After [`sync`](VfsDir::sync) of a directory returned Ok, all creations, renames and removals in it
//!   before the call survive a power cut. Before, any subset of them may.
//! - A handle keeps meaning the file, or the directory, that it was opened on, whatever happens to the names.
//! - Nothing else: no order between unsynced writes, no atomicity beyond a sector of 512 bytes.
//!
//! With feature `sim` an implementation can be checked against all of this: `vfs::conformance`.

mod asked;
mod by_name;
#[cfg(any(test, feature = "sim"))]
pub mod conformance;
mod dir;
#[cfg(planted)]
mod faulty;
pub mod io;
mod map;
pub(crate) mod meaning;
mod origin;
mod os;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub(crate) use dir::Dir;
pub use map::Map;
pub use os::OsVfs;

use std::any::Any;
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

/// Who else may hold a lock at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockMode {
    /// Nobody.
    Exclusive,
    /// Other holders of a shared lock.
    Shared,
}

/// What a name or an open file refers to: equal for two of them exactly when they are the same file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
}

/// What [`VfsFile::allocate`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// The blocks are there: writing to them needs no space.
    Blocks,
    /// The file system cannot reserve: only the length is there, and any write may still fail for
    /// lack of space.
    Nothing,
}

/// A file system: the way to its directories.
///
/// # Errors
/// Of all calls of the three traits: the operating system's own, whole, with its
/// [`raw_os_error`](std::io::Error::raw_os_error). The engine looks for the kinds `NotFound`, `WouldBlock`
/// and `Unsupported` of a lock, `StorageFull`, `QuotaExceeded`, `UnexpectedEof`, and `Interrupted` of a read
/// or write, and for the numbers EIO, EMFILE and ENFILE. Any other is a failure that says nothing of the
/// bytes.
///
/// ```
/// use raftwood::vfs::{OsVfs, Vfs, VfsDir};
/// use raftwood::{Durability, Options, RegionId};
/// use std::io::Result;
/// use std::path::Path;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// /// Counts what is looked up, and leaves the rest to the one below.
/// #[derive(Debug)]
/// struct Counted(OsVfs, AtomicU64);
///
/// impl Vfs for Counted {
///     fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         self.0.open_dir(path)
///     }
///     fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         self.0.create_dir_all(path)
///     }
/// }
///
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let vfs = Arc::new(Counted(OsVfs::new(), AtomicU64::new(0)));
/// let engine = Options::new().vfs(vfs.clone()).open(dir.path())?;
/// engine.append_next(RegionId(7), ["a"], Durability::Synced)?;
/// assert_eq!(vfs.1.load(Ordering::Relaxed), 1); // a path is looked up once
/// # Ok(()) }
/// ```
pub trait Vfs: Send + Sync + Debug {
    /// Opens a directory. The path may lead through links, the directory itself may be one; it is
    /// not looked up again.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotADirectory` if it is something else; otherwise the system's.
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>>;
    /// Makes the directory with mode 0700, and those above it, makes their entries durable, and
    /// opens it. Fine if it exists.
    ///
    /// # Errors
    /// The system's. What was made by then stays.
    fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>>;
}

/// An open directory. Names are those of files in it: one component each, never a path. Links
/// are never followed.
///
/// An implementation that wraps another one gets its own type back in [`hard_link`](VfsDir::hard_link).
///
/// ```
/// use raftwood::vfs::{OpenMode, OsVfs, Vfs, io};
///
/// # fn main() -> std::io::Result<()> {
/// # let scratch = tempfile::tempdir()?;
/// let dir = OsVfs::new().open_dir(scratch.path())?;
/// let file = dir.open("notes", OpenMode::CreateNew)?;
/// io::write_parts_at(&*file, &[b"set x ", b"1"], 0)?;
/// file.sync_data()?; // the bytes survive a power cut,
/// dir.sync()?; // and their name does
/// assert_eq!(io::read_file(&*dir, "notes")?, b"set x 1");
/// # Ok(()) }
/// ```
pub trait VfsDir: Any + Send + Sync + Debug {
    /// All names, in any order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self) -> Result<Vec<DirEntry>>;
    /// Opens a regular file; anything else is an error.
    ///
    /// # Errors
    /// `NotFound`, or `AlreadyExists` of [`CreateNew`](OpenMode::CreateNew); otherwise the system's.
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>>;
    /// Removes a regular file; anything else is an error, and stays.
    ///
    /// # Errors
    /// `NotFound`; otherwise the system's. A removal that failed may have happened.
    fn remove(&self, name: &str) -> Result<()>;
    /// Renames a file, replacing the regular file at `to` if there is one; anything else there is
    /// an error, and stays.
    ///
    /// # Errors
    /// `NotFound`; otherwise the system's. Both names are then as they were, or as they should be.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Renames a file; `ErrorKind::AlreadyExists` if something stands at `to`.
    ///
    /// # Errors
    /// As [`rename`](VfsDir::rename), and `AlreadyExists`: both names are then as they were.
    fn rename_new(&self, from: &str, to: &str) -> Result<()>;
    /// Gives the file `name` the name `new` in another directory, `ErrorKind::CrossesDevices` where that is
    /// none of the same file system.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `CrossesDevices`; otherwise the system's.
    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()>;
    /// Makes creations, renames and removals in the directory durable.
    ///
    /// # Errors
    /// The system's: which names survive a power cut is then unknown.
    fn sync(&self) -> Result<()>;
    /// Locks the directory itself; `ErrorKind::WouldBlock` if somebody else has, `ErrorKind::Unsupported`
    /// where that cannot be done. Dropping the value releases it.
    ///
    /// # Errors
    /// `WouldBlock`, `Unsupported`; otherwise the system's. Nothing is locked then.
    fn lock(&self, mode: LockMode) -> Result<Box<dyn Send + Sync>>;
    /// Locks the file `name`, which is made if need be if the mode is [`Exclusive`](LockMode::Exclusive);
    /// otherwise as [`lock`](VfsDir::lock). The two locks know nothing of each other.
    ///
    /// # Errors
    /// As [`lock`](VfsDir::lock), and `NotFound` if the mode is [`Shared`](LockMode::Shared).
    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Box<dyn Send + Sync>>;
    /// Bytes that the file system could still give to us.
    ///
    /// # Errors
    /// The system's.
    fn free_space(&self) -> Result<u64>;
    /// What `name` refers to now, without following links; `ErrorKind::NotFound` if nothing has this name.
    /// `None` from a file system that cannot tell.
    ///
    /// # Errors
    /// `NotFound`; otherwise the system's.
    fn id_of(&self, _name: &str) -> Result<Option<FileId>> {
        Ok(None)
    }
}

/// An open file, addressed by offset.
///
/// ```
/// use raftwood::vfs::{OpenMode, OsVfs, Vfs, VfsFile, io};
///
/// /// What the engine does with a file that it is going to write over and over.
/// fn prepare(file: &dyn VfsFile, len: u64) -> std::io::Result<()> {
///     file.allocate(len)?;
///     io::write_parts_at(file, &[&vec![0; len as usize]], 0)?;
///     file.sync_all()
/// }
///
/// # fn main() -> std::io::Result<()> {
/// # let scratch = tempfile::tempdir()?;
/// let file = OsVfs::new().open_dir(scratch.path())?.open("1.log", OpenMode::CreateNew)?;
/// prepare(&*file, 4096)?;
/// let mut end = [1; 16];
/// assert_eq!((file.len()?, io::read_up_to(&*file, &mut end, 4090)?), (4096, 6));
/// # Ok(()) }
/// ```
pub trait VfsFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes; 0 at the end of the file.
    ///
    /// # Errors
    /// `Interrupted`: nothing was read, and the call is repeated. Any other: the bytes cannot be read now.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes a prefix of the concatenated slices and returns its length.
    ///
    /// # Errors
    /// `Interrupted`: nothing was written, and the call is repeated. `StorageFull`, `QuotaExceeded`. After
    /// any other what the range holds is unknown.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize>;
    /// Makes the file at least `len` bytes long, and reserves blocks for them where the file system can.
    ///
    /// # Errors
    /// `StorageFull`, `QuotaExceeded`; otherwise the system's. That the file system cannot reserve is none:
    /// [`Reserved::Nothing`].
    fn allocate(&self, len: u64) -> Result<Reserved>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len: u64) -> Result<()>;
    /// `fdatasync`: the bytes, and what is needed to read them back.
    ///
    /// # Errors
    /// The system's: what was not durable before may be lost, and is not made durable by another sync.
    fn sync_data(&self) -> Result<()>;
    /// `fsync`.
    ///
    /// # Errors
    /// As [`sync_data`](VfsFile::sync_data).
    fn sync_all(&self) -> Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn len(&self) -> Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`len`](VfsFile::len).
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Forgets clean cached pages of the range, so that the next read comes from the device. Advisory.
    ///
    /// # Errors
    /// The system's.
    fn drop_cache(&self, range: Range<u64>) -> Result<()>;
    /// A read-only mapping of `0..len`, or `None` where reads should go through
    /// [`read_at`](VfsFile::read_at).
    ///
    /// A [`Map`] is made by [`OsVfs`] only. An implementation that wraps it passes on what that returned, for
    /// the file that it was called on, and does not write to that file by itself.
    ///
    /// # Errors
    /// The system's: the file is not opened as a segment then. Where no mapping is possible, `None` is the
    /// answer.
    fn map(&self, len: u64) -> Result<Option<Arc<Map>>>;
    /// Which file this is. `None` from a file system that cannot tell.
    ///
    /// # Errors
    /// The system's.
    fn id(&self) -> Result<Option<FileId>> {
        Ok(None)
    }
    /// The file begins another generation: nothing that it holds is needed any more, and it is written over
    /// in place. The engine calls this before it writes the first byte of a segment to a file that was one
    /// before, and to no other. The length stays; what reads give of bytes that were not written since is
    /// left open from here on. A file system that encrypts takes a new identity here, durably, before it
    /// returns; others have nothing to do.
    ///
    /// # Errors
    /// The system's: the file is not used then.
    fn begin_generation(&self) -> Result<()> {
        Ok(())
    }
}
