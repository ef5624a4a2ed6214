//! The file system of the operating system.
//!
//! The path of a directory is looked up once; everything in it is reached through its descriptor (`openat`,
//! `renameat2`, `unlinkat`, `linkat`, `fstatat`). Nothing in it is followed and nothing foreign is touched:
//! files are opened with `O_NOFOLLOW | O_CLOEXEC`, and what turns out not to be a regular file is refused.
//! `O_NONBLOCK` makes the opening of a fifo fail or return instead of waiting for a writer; on a regular file
//! it means nothing. Files are made with mode 0600 and directories with 0700.
//!
//! Linux is the system this is made for. On others, what is missing is replaced by the nearest plain call.

use super::meaning::again;
use super::origin::Origin;
use super::{DirEntry, FileId, FileType, LockMode, Map, OpenMode, Reserved, Vfs, VfsDir, VfsFile};
use crate::planted::{Bug, planted};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::any::Any;
use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

/// The real file system.
#[derive(Clone, Debug)]
pub struct OsVfs {
    map: bool,
}

impl Default for OsVfs {
    fn default() -> OsVfs {
        OsVfs::new()
    }
}

impl OsVfs {
    /// The real file system, with memory mappings for reading.
    pub fn new() -> OsVfs {
        OsVfs { map: true }
    }

    /// The same without memory mappings: reads go through `pread` and copy. For network file
    /// systems, for 32-bit address spaces, and for those who would rather see an error than a SIGBUS
    /// when someone cuts our files.
    pub fn without_map() -> OsVfs {
        OsVfs { map: false }
    }
}

impl Vfs for OsVfs {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        Ok(Arc::new(OsDir { dir: open_dir(path)?, map: self.map }))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<Arc<dyn VfsDir>> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|d| !exists(d)).collect();
        // The lowest directory that stands may have been made by a process that died before it could sync the
        // entry above; then everything we sync below it would hang in the air. A parent that we may not open
        // was not made by us, and is not ours to sync.
        let standing = missing.last().map_or(Some(dir), |d| d.parent());
        if let Some(standing) = standing.filter(|d| !d.as_os_str().is_empty()) {
            if !again(|| std::fs::metadata(standing))?.is_dir() {
                return Err(Error::new(
                    ErrorKind::NotADirectory,
                    format!("{} is no directory", standing.display()),
                ));
            }
            if let Some(above) = standing.parent() {
                match sync_dir(or_here(above)) {
                    Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
                    result => result?,
                }
            }
        }
        // From the top, each entry durable before the next is made: a crash leaves a durable chain.
        for dir in missing.into_iter().rev() {
            match again(|| std::fs::DirBuilder::new().mode(0o700).create(dir)) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                result => result?,
            }
            if let Some(above) = dir.parent() {
                sync_dir(or_here(above))?;
            }
        }
        self.open_dir(or_here(dir))
    }
}

/// An open directory: every name is looked up relative to this descriptor.
#[derive(Debug)]
struct OsDir {
    dir: File,
    map: bool,
}

impl VfsDir for OsDir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        // A listing that was interrupted cannot be resumed.
        Ok(retry_on_intr(|| list(&self.dir))?)
    }

    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let flags = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        Ok(Arc::new(OsFile { file: open_regular(&self.dir, name, flags)?, map: self.map }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let name = one(name)?;
        refuse_irregular(&self.dir, name)?;
        Ok(retry_on_intr(|| rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()))?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (one(from)?, one(to)?);
        refuse_irregular(&self.dir, to)?;
        Ok(retry_on_intr(|| rustix::fs::renameat(&self.dir, from, &self.dir, to))?)
    }

    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        if rename_noreplace(&self.dir, one(from)?, one(to)?)? {
            return Ok(());
        }
        // Not in one step, then. Those against whom it would have to be one are kept out by the lock.
        match stat_at(&self.dir, to) {
            Err(Errno::NOENT) => self.rename(from, to),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Errno::EXIST.into()),
        }
    }

    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        let to = to.downcast_ref::<OsDir>().ok_or(Errno::XDEV)?;
        let (name, new) = (one(name)?, one(new)?);
        Ok(retry_on_intr(|| rustix::fs::linkat(&self.dir, name, &to.dir, new, AtFlags::empty()))?)
    }

    fn sync(&self) -> Result<()> {
        self.dir.sync_all()
    }

    fn lock(&self, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        // A description of its own: a lock belongs to that, and ours is shared with all that use the
        // directory.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = File::from(retry_on_intr(|| rustix::fs::openat(&self.dir, ".", flags, Mode::empty()))?);
        take_lock(own, mode).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => e,
            // NFS makes a lock of a range of bytes of it, which a directory does not have.
            _ => unsupported(&format!("locking a directory ({e})")),
        })
    }

    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        let flags = match mode {
            LockMode::Exclusive => OFlags::RDWR | OFlags::CREATE,
            LockMode::Shared => OFlags::RDONLY,
        };
        take_lock(open_regular(&self.dir, name, flags)?, mode)
    }

    fn free_space(&self) -> Result<u64> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.dir))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        Ok(Some(file_id(&stat_at(&self.dir, one(name)?)?)))
    }
}

/// A lock that is held as long as its file is open. It is released by hand nonetheless: a child between fork
/// and exec may hold a copy of the descriptor a moment longer than we do. A child that drops its copy must
/// not: the lock is its parent's.
struct OsLock {
    file: File,
    origin: Origin,
}

fn take_lock(file: File, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
    // Fully qualified: newer standard libraries have methods of nearly these names.
    let take = || match mode {
        LockMode::Exclusive => fs2::FileExt::try_lock_exclusive(&file),
        LockMode::Shared => fs2::FileExt::try_lock_shared(&file),
    };
    again(take)?;
    Ok(Box::new(OsLock { file, origin: Origin::here() }))
}

impl Drop for OsLock {
    fn drop(&mut self) {
        if self.origin.is_here() || planted(Bug::ForkUnlocks) {
            // Closing releases it as well, so an error has nowhere to go.
            let _ = fs2::FileExt::unlock(&self.file);
        }
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    map: bool,
}

impl VfsFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        FileExt::read_at(&self.file, buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        match bufs {
            [] => Ok(0),
            [one] => FileExt::write_at(&self.file, one, offset),
            _ => write_vectored_at(&self.file, bufs, offset),
        }
    }

    fn allocate(&self, len: u64) -> Result<Reserved> {
        if len == 0 || fallocate(&self.file, len)? {
            return Ok(Reserved::Blocks);
        }
        // The file system cannot reserve. Writing zeros here would be slow where it is least expected, so
        // only the length is promised, and the pool's own pre-writing makes blocks of it.
        if self.len()? < len {
            self.file.set_len(len)?;
        }
        Ok(Reserved::Nothing)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> Result<u64> {
        Ok(again(|| self.file.metadata())?.len())
    }

    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() { Ok(()) } else { drop_cache(&self.file, range) }
    }

    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        if self.map { Ok(Some(Arc::new(Map::new(&self.file, len)?))) } else { Ok(None) }
    }

    fn id(&self) -> Result<Option<FileId>> {
        Ok(Some(file_id(&retry_on_intr(|| rustix::fs::fstat(&self.file))?)))
    }
}

fn open_regular(dir: &File, name: &str, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let (name, mode) = (one(name)?, Mode::RUSR | Mode::WUSR);
    let file = File::from(retry_on_intr(|| rustix::fs::openat(dir, name, flags, mode))?);
    if !again(|| file.metadata())?.is_file() {
        return Err(irregular(name));
    }
    Ok(file)
}

/// What is not a regular file is not ours, whatever it is called: a link that somebody put there is not
/// removed for a file.
fn refuse_irregular(dir: &File, name: &str) -> Result<()> {
    match stat_at(dir, name) {
        Ok(stat)
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile
                && !planted(Bug::LinkRemoved) =>
        {
            Err(irregular(name))
        }
        // That nothing is there is for the call itself to say.
        _ => Ok(()),
    }
}

fn irregular(name: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{name} is no regular file: it stays; move it away"))
}

/// What is in a directory; links are not followed.
fn list(dir: &File) -> rustix::io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match stat_at(dir, name) {
            Ok(stat) => stat,
            // Removed since it was listed.
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        };
        let (file_type, len) = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => (FileType::File, stat.st_size as u64),
            rustix::fs::FileType::Directory => (FileType::Dir, 0),
            _ => (FileType::Other, 0),
        };
        entries.push(DirEntry { name: name.to_string_lossy().into_owned(), file_type, len });
    }
    Ok(entries)
}

fn stat_at<N: rustix::path::Arg + Copy>(dir: &File, name: N) -> rustix::io::Result<rustix::fs::Stat> {
    retry_on_intr(|| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))
}

/// Follows links: this is the one time that a path is looked up.
fn open_dir(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?))
}

fn sync_dir(path: &Path) -> Result<()> {
    open_dir(path)?.sync_all()
}

/// A name that cannot lead out of its directory.
fn one(name: &str) -> Result<&str> {
    if name.contains('/') || matches!(name, "" | "." | "..") {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{name:?} is not the name of a file")));
    }
    Ok(name)
}

#[allow(clippy::unnecessary_cast, reason = "the fields' types differ from system to system")]
fn file_id(stat: &rustix::fs::Stat) -> FileId {
    FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
}

fn exists(dir: &Path) -> bool {
    // The parent of a relative name of one part is empty and means the working directory.
    dir.as_os_str().is_empty() || again(|| std::fs::symlink_metadata(dir)).is_ok()
}

fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} is not supported by this file system"))
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn write_vectored_at(file: &File, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
    let bufs = &bufs[..bufs.len().min(super::io::SLICES_MAX)];
    Ok(rustix::io::pwritev(file, bufs, offset)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn write_vectored_at(file: &File, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
    // A short write, as far as the caller can tell.
    bufs.iter().find(|b| !b.is_empty()).map_or(Ok(0), |b| FileExt::write_at(file, b, offset))
}

/// Renames without replacing; false where the kernel or the file system cannot.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn rename_noreplace(dir: &File, from: &str, to: &str) -> Result<bool> {
    use rustix::fs::RenameFlags;
    match retry_on_intr(|| rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn rename_noreplace(_: &File, _: &str, _: &str) -> Result<bool> {
    Ok(false)
}

/// Reserves blocks; false where the file system cannot.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn fallocate(file: &File, len: u64) -> Result<bool> {
    use rustix::fs::FallocateFlags;
    match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn fallocate(_: &File, _: u64) -> Result<bool> {
    Ok(false)
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn drop_cache(file: &File, range: Range<u64>) -> Result<()> {
    use rustix::fs::Advice;
    let len = std::num::NonZeroU64::new(range.end - range.start);
    Ok(retry_on_intr(|| rustix::fs::fadvise(file, range.start, len, Advice::DontNeed))?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn drop_cache(_: &File, _: Range<u64>) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::io::{read_exact_at, write_parts_at};
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::fs::PermissionsExt;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_interrupted_call_is_repeated_and_no_other() {
        let mut left = 3;
        let outcome = again(|| {
            left -= 1;
            if left > 0 { Err(ErrorKind::Interrupted.into()) } else { Ok(left) }
        });
        assert_eq!(outcome.unwrap(), 0);
        let mut calls = 0;
        let outcome: Result<()> = again(|| {
            calls += 1;
            Err(ErrorKind::NotFound.into())
        });
        assert_eq!((outcome.unwrap_err().kind(), calls), (ErrorKind::NotFound, 1));
    }

    fn open(dir: &Path) -> Arc<dyn VfsDir> {
        OsVfs::new().open_dir(dir).unwrap()
    }

    fn create(dir: &Path, name: &str) -> Arc<dyn VfsFile> {
        open(dir).open(name, OpenMode::CreateNew).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), "a");
        write_parts_at(&*file, &[b"abc", b"", b"def"], 10).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        let mut buf = [0; 6];
        read_exact_at(&*file, &mut buf, 10).unwrap();
        assert_eq!(&buf, b"abcdef");
        assert_eq!(file.len().unwrap(), 16);
        file.drop_cache(0..16).unwrap();
        assert_eq!(file.map(16).unwrap().unwrap().read(9..13), Some(&b"\0abc"[..]));
        assert!(file.map(17).is_err());
        let plain = OsVfs::without_map().open_dir(dir.path()).unwrap().open("a", OpenMode::Read).unwrap();
        assert!(plain.map(16).unwrap().is_none());
        assert!(plain.write_at(&[IoSlice::new(b"x")], 0).is_err());
    }

    #[test]
    fn directories_are_private_and_made_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        OsVfs::new().create_dir_all(&deep).unwrap();
        OsVfs::new().create_dir_all(&deep).unwrap();
        assert_eq!(mode_of(&deep), 0o700);
        assert_eq!(mode_of(&dir.path().join("a")), 0o700);
        let file = deep.join("f");
        drop(create(&deep, "f"));
        assert_eq!(mode_of(&file), 0o600);
        assert!(OsVfs::new().create_dir_all(&file).is_err());
        assert!(OsVfs::new().create_dir_all(&file.join("g")).is_err());
        assert!(OsVfs::new().open_dir(&file).is_err());
        open(&deep).sync().unwrap();
        assert!(open(&deep).free_space().unwrap() > 0);
    }

    #[test]
    fn create_new_refuses_what_exists_and_the_others_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = open(dir.path());
        assert_eq!(vfs.open("a", OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(vfs.open("a", OpenMode::ReadWrite).unwrap_err().kind(), ErrorKind::NotFound);
        drop(create(dir.path(), "a"));
        assert_eq!(vfs.open("a", OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn links_fifos_and_directories_are_never_opened_removed_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link, fifo) = (dir.path().join("real"), dir.path().join("link"), dir.path().join("fifo"));
        drop(create(dir.path(), "real"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::fs::create_dir(dir.path().join("below")).unwrap();
        let opened = open(dir.path());
        // A path would be looked up again: only names are taken.
        for name in ["link", "fifo", "below", ".", "..", "", "below/../real", "./real"] {
            for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew] {
                assert!(opened.open(name, mode).is_err(), "{name:?} {mode:?}");
            }
            assert!(opened.lock_file(name, LockMode::Exclusive).is_err());
            assert!(opened.remove(name).is_err(), "{name:?}");
            assert!(opened.rename("real", name).is_err(), "{name:?}");
        }
        std::fs::remove_dir(dir.path().join("below")).unwrap();
        let mut kinds: Vec<_> = opened.list().unwrap().into_iter().map(|e| (e.name, e.file_type)).collect();
        kinds.sort_by(|a, b| a.0.cmp(&b.0));
        let other = FileType::Other;
        assert_eq!(kinds, [("fifo".into(), other), ("link".into(), other), ("real".into(), FileType::File)]);
    }

    #[test]
    fn names_can_be_linked_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path());
        write_parts_at(&*create(dir.path(), "a"), &[b"a"], 0).unwrap();
        drop(create(dir.path(), "c"));
        opened.hard_link("a", &*opened, "b").unwrap();
        let taken = |r: Result<()>| assert_eq!(r.unwrap_err().kind(), ErrorKind::AlreadyExists);
        taken(opened.hard_link("a", &*opened, "b"));
        taken(opened.rename_new("a", "c"));
        opened.rename("a", "c").unwrap();
        opened.remove("b").unwrap();
        let entry = DirEntry { name: "c".into(), file_type: FileType::File, len: 1 };
        assert_eq!(opened.list().unwrap(), [entry]);
        assert_eq!(opened.remove("b").unwrap_err().kind(), ErrorKind::NotFound);
        opened.rename_new("c", "a").unwrap();
        assert_eq!(opened.rename_new("c", "b").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_directory_that_was_moved_or_whose_path_leads_elsewhere_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, link] = ["a", "b", "link"].map(|n| dir.path().join(n));
        std::fs::create_dir(&a).unwrap();
        std::os::unix::fs::symlink(&a, &link).unwrap();
        let opened = open(&link);
        std::fs::remove_file(&link).unwrap();
        std::fs::rename(&a, &b).unwrap();
        std::fs::create_dir(&a).unwrap();
        drop(opened.open("f", OpenMode::CreateNew).unwrap());
        opened.rename("f", "g").unwrap();
        opened.sync().unwrap();
        assert!(b.join("g").exists() && !a.join("g").exists());
        assert_eq!(opened.list().unwrap().len(), 1);
        let far = open(&a);
        opened.hard_link("g", &*far, "h").unwrap();
        assert!(a.join("h").exists());
    }

    #[test]
    fn a_name_and_a_handle_are_the_same_file_until_one_of_them_changes() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path());
        let file = create(dir.path(), "a");
        let id = file.id().unwrap().unwrap();
        opened.hard_link("a", &*opened, "b").unwrap();
        assert_eq!((opened.id_of("a").unwrap(), opened.id_of("b").unwrap()), (Some(id), Some(id)));
        drop(create(dir.path(), "c"));
        opened.rename("c", "a").unwrap();
        assert_ne!(opened.id_of("a").unwrap(), Some(id));
        assert_eq!(file.id().unwrap(), Some(id));
        opened.remove("b").unwrap();
        assert_eq!(opened.id_of("b").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn space_is_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(dir.path(), "a");
        let blocks = || std::fs::metadata(dir.path().join("a")).unwrap().blocks() * 512;
        file.allocate(0).unwrap();
        let reserved = file.allocate(1 << 20).unwrap();
        assert_eq!(reserved == Reserved::Blocks, blocks() >= 1 << 20);
        assert_eq!(file.len().unwrap(), 1 << 20);
        file.allocate(1 << 10).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        file.set_len(5).unwrap();
        assert_eq!(file.len().unwrap(), 5);
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        type Lock = Box<dyn Send + Sync>;
        type Take = fn(&dyn VfsDir, LockMode) -> Result<Lock>;
        let takes: [Take; 2] = [|dir, mode| dir.lock(mode), |dir, mode| dir.lock_file("LOCK", mode)];
        let busy = |lock: Result<Lock>| assert_eq!(lock.err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        let mut held = Vec::new();
        for take in takes {
            let take = |mode| take(&*open(dir.path()), mode);
            let lock = take(LockMode::Exclusive).unwrap();
            busy(take(LockMode::Exclusive));
            busy(take(LockMode::Shared));
            drop(lock);
            let two = [take(LockMode::Shared).unwrap(), take(LockMode::Shared).unwrap()];
            busy(take(LockMode::Exclusive));
            drop(two);
            held.push(take(LockMode::Exclusive).unwrap());
        }
    }

    #[test]
    fn a_shared_lock_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = open(dir.path()).lock_file("LOCK", LockMode::Shared);
        assert_eq!(lock.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    }
}
