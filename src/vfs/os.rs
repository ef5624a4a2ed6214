//! The file system of the operating system.
//!
//! Nothing is followed and nothing foreign is touched: files are opened with `O_NOFOLLOW | O_CLOEXEC`, and what turns
//! out not to be a regular file is refused. `O_NONBLOCK` makes the opening of a fifo fail or return instead of waiting
//! for a writer; on a regular file it means nothing. Files are made with mode 0600 and directories with 0700.
//!
//! Linux is the system this is made for. On others, what is missing is replaced by the nearest plain call.

use super::{DirEntry, FileType, Map, OpenMode, Vfs, VfsFile};
use crate::planted::{Bug, planted};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
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

    /// The same without memory mappings: reads go through `pread` and copy. For network file systems, for 32-bit
    /// address spaces, and for those who would rather see an error than a SIGBUS when someone cuts our files.
    pub fn without_map() -> OsVfs {
        OsVfs { map: false }
    }
}

impl Vfs for OsVfs {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|d| !exists(d)).collect();
        // The lowest directory that stands may have been made by a process that died before it could sync the entry
        // above; then everything we sync below it would hang in the air. A parent that we may not open was not made
        // by us, and is not ours to sync.
        let standing = missing.last().map_or(Some(dir), |d| d.parent());
        if let Some(standing) = standing.filter(|d| !d.as_os_str().is_empty()) {
            if !std::fs::metadata(standing)?.is_dir() {
                return Err(Error::new(
                    ErrorKind::NotADirectory,
                    format!("{} is no directory", standing.display()),
                ));
            }
            if let Some(above) = standing.parent() {
                match self.sync_dir(or_here(above)) {
                    Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
                    result => result?,
                }
            }
        }
        // From the top, each entry durable before the next is made: a crash leaves a durable chain.
        for dir in missing.into_iter().rev() {
            match std::fs::DirBuilder::new().mode(0o700).create(dir) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                result => result?,
            }
            if let Some(above) = dir.parent() {
                self.sync_dir(or_here(above))?;
            }
        }
        Ok(())
    }

    fn read_dir(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (file_type, len) = match entry.metadata() {
                Ok(meta) if meta.is_file() => (FileType::File, meta.len()),
                Ok(meta) if meta.is_dir() => (FileType::Dir, 0),
                Ok(_) => (FileType::Other, 0),
                // Removed since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            entries.push(DirEntry { name, file_type, len });
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let file = match mode {
            OpenMode::Read => open_regular(path, OFlags::RDONLY),
            OpenMode::ReadWrite => open_regular(path, OFlags::RDWR),
            OpenMode::CreateNew => open_regular(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL),
        }?;
        Ok(Arc::new(OsFile { file, map: self.map }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        File::from(retry_on_intr(|| rustix::fs::open(dir, flags, Mode::empty()))?).sync_all()
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        let file = open_regular(path, OFlags::RDWR | OFlags::CREATE)?;
        // Fully qualified: newer standard libraries have a method of nearly this name.
        if !planted(Bug::LockNotTaken) {
            fs2::FileExt::try_lock_exclusive(&file)?;
        }
        Ok(Box::new(OsLock(file)))
    }

    fn free_space(&self, dir: &Path) -> Result<u64> {
        fs2::available_space(dir)
    }
}

/// A lock that lives as long as its file is open. It is released by hand nonetheless: a child between fork and exec
/// may hold a copy of the descriptor a moment longer than we do.
struct OsLock(File);

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing releases it as well, so there is nobody to tell of an error.
        let _ = fs2::FileExt::unlock(&self.0);
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

    fn allocate(&self, len: u64) -> Result<()> {
        if len == 0 || fallocate(&self.file, len)? {
            return Ok(());
        }
        // The file system cannot reserve. Writing zeros here would be slow where it is least expected, so only the
        // length is promised, and the pool's own pre-writing makes blocks of it.
        if self.len()? < len { self.file.set_len(len) } else { Ok(()) }
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
        Ok(self.file.metadata()?.len())
    }

    fn allocated(&self) -> Result<u64> {
        // Blocks of 512 bytes, whatever the file system's own block is.
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() { Ok(()) } else { punch_hole(&self.file, range) }
    }

    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() { Ok(()) } else { drop_cache(&self.file, range) }
    }

    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        if self.map { Ok(Some(Arc::new(Map::new(&self.file, len)?))) } else { Ok(None) }
    }
}

fn open_regular(path: &Path, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = File::from(retry_on_intr(|| rustix::fs::open(path, flags, mode))?);
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{} is no regular file", path.display())));
    }
    Ok(file)
}

fn exists(dir: &Path) -> bool {
    // The parent of a relative name of one part is empty and means the working directory.
    dir.as_os_str().is_empty() || std::fs::symlink_metadata(dir).is_ok()
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

/// Reserves blocks; false where the file system cannot.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn fallocate(file: &File, len: u64) -> Result<bool> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
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

#[cfg(any(target_os = "linux", target_os = "android"))]
fn punch_hole(file: &File, range: Range<u64>) -> Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match retry_on_intr(|| rustix::fs::fallocate(file, flags, range.start, range.end - range.start)) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(unsupported("punching holes")),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn punch_hole(_: &File, _: Range<u64>) -> Result<()> {
    Err(unsupported("punching holes"))
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn drop_cache(file: &File, range: Range<u64>) -> Result<()> {
    use rustix::fs::Advice;
    let len = std::num::NonZeroU64::new(range.end - range.start);
    Ok(rustix::fs::fadvise(file, range.start, len, Advice::DontNeed)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn drop_cache(_: &File, _: Range<u64>) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::io::{read_exact_at, write_parts_at};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn create(path: &Path) -> Arc<dyn VfsFile> {
        OsVfs::new().open(path, OpenMode::CreateNew).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(&dir.path().join("a"));
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
        let plain = OsVfs::without_map().open(&dir.path().join("a"), OpenMode::Read).unwrap();
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
        drop(create(&file));
        assert_eq!(mode_of(&file), 0o600);
        assert!(OsVfs::new().create_dir_all(&file).is_err());
        assert!(OsVfs::new().create_dir_all(&file.join("g")).is_err());
        OsVfs::new().sync_dir(&deep).unwrap();
        assert!(OsVfs::new().sync_dir(&file).is_err());
        assert!(OsVfs::new().free_space(&deep).unwrap() > 0);
    }

    #[test]
    fn create_new_refuses_what_exists_and_the_others_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let vfs = OsVfs::new();
        assert_eq!(vfs.open(&path, OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(vfs.open(&path, OpenMode::ReadWrite).unwrap_err().kind(), ErrorKind::NotFound);
        drop(create(&path));
        assert_eq!(vfs.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn links_fifos_and_directories_are_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link, fifo) = (dir.path().join("real"), dir.path().join("link"), dir.path().join("fifo"));
        drop(create(&real));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let vfs = OsVfs::new();
        for path in [&link, &fifo, &dir.path().to_path_buf()] {
            for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew] {
                assert!(vfs.open(path, mode).is_err(), "{path:?} {mode:?}");
            }
            assert!(vfs.lock(path).is_err());
        }
        let mut kinds: Vec<_> =
            vfs.read_dir(dir.path()).unwrap().into_iter().map(|e| (e.name, e.file_type)).collect();
        kinds.sort_by(|a, b| a.0.cmp(&b.0));
        let other = FileType::Other;
        assert_eq!(kinds, [("fifo".into(), other), ("link".into(), other), ("real".into(), FileType::File)]);
    }

    #[test]
    fn names_can_be_linked_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|n| dir.path().join(n));
        let vfs = OsVfs::new();
        write_parts_at(&*create(&a), &[b"a"], 0).unwrap();
        drop(create(&c));
        vfs.hard_link(&a, &b).unwrap();
        assert_eq!(vfs.hard_link(&a, &b).unwrap_err().kind(), ErrorKind::AlreadyExists);
        vfs.rename(&a, &c).unwrap();
        vfs.remove(&b).unwrap();
        let entry = DirEntry { name: "c".into(), file_type: FileType::File, len: 1 };
        assert_eq!(vfs.read_dir(dir.path()).unwrap(), [entry]);
        assert_eq!(vfs.remove(&b).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn space_is_reserved_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(&dir.path().join("a"));
        file.allocate(0).unwrap();
        file.allocate(1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        file.allocate(1 << 10).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        write_parts_at(&*file, &[&[7; 8192]], 0).unwrap();
        file.sync_all().unwrap();
        let before = file.allocated().unwrap();
        match file.punch_hole(0..4096) {
            Ok(()) => {
                assert!(file.allocated().unwrap() < before);
                let mut buf = [1; 4097];
                read_exact_at(&*file, &mut buf, 0).unwrap();
                assert_eq!((buf[4095], buf[4096]), (0, 7));
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unsupported),
        }
        file.set_len(5).unwrap();
        assert_eq!(file.len().unwrap(), 5);
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = OsVfs::new().lock(&path).unwrap();
        assert_eq!(OsVfs::new().lock(&path).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        drop(lock);
        drop(OsVfs::new().lock(&path).unwrap());
    }
}
