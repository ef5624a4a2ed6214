//! A file system that passes every call on to another one, and breaks one sentence of the contract.

use raftwood::vfs::io::{read_file, write_parts_at};
use raftwood::vfs::{DirEntry, FileId, FileType, LockMode, Map, OpenMode, Reserved, Vfs, VfsDir, VfsFile};
use std::any::Any;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type Lock = Box<dyn Send + Sync>;

/// Which sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Twist {
    None,
    EndReadsAsZeros,
    NeverEmpty,
    FirstSliceOnly,
    GapsAreFilled,
    LengthOnlyGrows,
    ReservationErases,
    ReservationIsNothing,
    ReaderKeepsACopy,
    SectorsAreWrittenWhole,
    SectorsAreWrittenWithoutALock,
    ReaderCannotSync,
    DroppedCacheIsZeros,
    GenerationBeginsEmpty,
    MappingIsShort,
    DirectoryIsNew,
    CreateOpens,
    NothingIsAnOtherError,
    ListWithoutLengths,
    DirectoryIsAFile,
    LinkIsFollowed,
    RenameRefuses,
    RenameNewReplaces,
    HandleIsAName,
    LinkIsACopy,
    AnywhereIsTheSameDevice,
    LockIsNotHeld,
    LockIsNotReleased,
    SharedLockIsExclusive,
    SharedLockMakesAFile,
    OneLockForBoth,
    NoSpace,
    HandlesHaveTheirOwnIds,
    NamesHaveNoIds,
    DirectorySyncFails,
    SyncDoesNothing,
    DirectorySyncDoesNothing,
    DirectoryIsForgotten,
}

/// Each with the check that has to find it.
pub(crate) const TWISTS: &[(Twist, &str)] = &[
    (Twist::EndReadsAsZeros, "a_read_at_the_end_gives_nothing"),
    (Twist::NeverEmpty, "a_new_file_is_empty"),
    (Twist::FirstSliceOnly, "a_write_takes_a_prefix"),
    (Twist::GapsAreFilled, "unwritten_bytes_are_zeros"),
    (Twist::LengthOnlyGrows, "a_length_cuts_or_extends_with_zeros"),
    (Twist::ReservationErases, "a_reservation_changes_no_byte"),
    (Twist::ReservationIsNothing, "a_reservation_changes_no_byte"),
    (Twist::ReaderKeepsACopy, "every_handle_sees_what_was_written"),
    (Twist::SectorsAreWrittenWhole, "writes_at_any_offset_leave_their_neighbours"),
    (Twist::SectorsAreWrittenWithoutALock, "writers_of_neighbouring_bytes_keep_apart"),
    (Twist::ReaderCannotSync, "a_sync_changes_nothing"),
    (Twist::DroppedCacheIsZeros, "a_dropped_cache_loses_nothing"),
    (Twist::GenerationBeginsEmpty, "a_generation_begins_in_place"),
    (Twist::MappingIsShort, "a_mapping_shows_what_was_written"),
    (Twist::DirectoryIsNew, "directories_are_made_with_those_above"),
    (Twist::CreateOpens, "create_new_is_exclusive"),
    (Twist::NothingIsAnOtherError, "what_is_not_there_is_not_found"),
    (Twist::ListWithoutLengths, "a_list_shows_names_types_and_lengths"),
    (Twist::DirectoryIsAFile, "what_is_no_file_is_refused_and_stays"),
    (Twist::LinkIsFollowed, "links_are_not_followed"),
    (Twist::RenameRefuses, "a_rename_replaces"),
    (Twist::RenameNewReplaces, "a_rename_to_a_new_name_refuses_what_is_there"),
    (Twist::HandleIsAName, "a_handle_keeps_meaning_its_file"),
    (Twist::LinkIsACopy, "a_hard_link_is_a_second_name"),
    (Twist::AnywhereIsTheSameDevice, "a_hard_link_to_elsewhere_crosses_devices"),
    (Twist::LockIsNotHeld, "a_lock_of_the_directory_excludes"),
    (Twist::LockIsNotReleased, "a_lock_of_the_directory_excludes"),
    (Twist::SharedLockIsExclusive, "a_lock_of_the_directory_excludes"),
    (Twist::SharedLockMakesAFile, "a_lock_of_a_file_excludes"),
    (Twist::OneLockForBoth, "the_two_locks_know_nothing_of_each_other"),
    (Twist::NoSpace, "free_space_is_known"),
    (Twist::HandlesHaveTheirOwnIds, "a_name_and_a_handle_agree_on_the_file"),
    (Twist::NamesHaveNoIds, "a_name_and_a_handle_agree_on_the_file"),
    (Twist::DirectorySyncFails, "a_directory_can_be_synced"),
    (Twist::SyncDoesNothing, "synced_bytes_survive"),
    (Twist::DirectorySyncDoesNothing, "synced_names_survive"),
    (Twist::DirectoryIsForgotten, "made_directories_survive"),
];

#[derive(Debug)]
pub(crate) struct Twisted {
    inner: Arc<dyn Vfs>,
    twist: Twist,
}

impl Twisted {
    pub(crate) fn new(inner: Arc<dyn Vfs>, twist: Twist) -> Twisted {
        Twisted { inner, twist }
    }

    fn wrap(&self, inner: Arc<dyn VfsDir>, path: &Path) -> Arc<dyn VfsDir> {
        Arc::new(TwistedDir { inner, twist: self.twist, path: path.to_path_buf() })
    }
}

impl Vfs for Twisted {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        if self.twist == Twist::DirectoryIsForgotten && path.ends_with("made_directories_survive/a/b") {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(self.wrap(self.inner.open_dir(path)?, path))
    }
    fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        if self.twist == Twist::DirectoryIsNew && self.inner.open_dir(path).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(self.wrap(self.inner.create_dir_all(path)?, path))
    }
}

#[derive(Debug)]
struct TwistedDir {
    inner: Arc<dyn VfsDir>,
    twist: Twist,
    path: PathBuf,
}

impl TwistedDir {
    fn is(&self, twist: Twist) -> bool {
        self.twist == twist
    }

    fn file_at(&self, name: &str) -> bool {
        self.inner.list().unwrap().iter().any(|e| e.name == name && e.file_type == FileType::File)
    }

    fn twisted_lock(&self, take: impl Fn(LockMode) -> Result<Lock>, mode: LockMode) -> Result<Lock> {
        match self.twist {
            Twist::LockIsNotHeld => take(mode).map(|_| Box::new(()) as Lock),
            Twist::LockIsNotReleased => take(mode).map(|lock| {
                std::mem::forget(lock);
                Box::new(()) as Lock
            }),
            Twist::SharedLockIsExclusive => take(LockMode::Exclusive),
            _ => take(mode),
        }
    }
}

impl VfsDir for TwistedDir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        let mut entries = self.inner.list()?;
        if self.is(Twist::ListWithoutLengths) {
            entries.iter_mut().for_each(|e| e.len = 0);
        }
        Ok(entries)
    }
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let linked = std::fs::read_link(self.path.join(name));
        let opened = match (self.twist, mode) {
            (Twist::CreateOpens, OpenMode::CreateNew) if self.file_at(name) => {
                self.inner.open(name, OpenMode::ReadWrite)
            }
            (Twist::LinkIsFollowed, OpenMode::Read) if linked.is_ok() => {
                self.inner.open(linked.unwrap().to_str().unwrap(), mode)
            }
            (Twist::DirectoryIsAFile, OpenMode::Read) if name == "inner" => {
                self.inner.open("as a file", OpenMode::CreateNew)
            }
            _ => self.inner.open(name, mode),
        };
        let inner = opened.map_err(|e| match self.twist {
            Twist::NothingIsAnOtherError if e.kind() == ErrorKind::NotFound => Error::other(e),
            _ => e,
        })?;
        let copy = match (self.twist, mode) {
            (Twist::ReaderKeepsACopy, OpenMode::Read) => Some(read_file(&*self.inner, name)?),
            _ => None,
        };
        let by_name = self.is(Twist::HandleIsAName).then(|| (self.inner.clone(), name.to_string()));
        Ok(Arc::new(TwistedFile { inner, twist: self.twist, mode, copy, by_name }))
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        if self.is(Twist::RenameRefuses) {
            return self.inner.rename_new(from, to);
        }
        self.inner.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        if self.is(Twist::RenameNewReplaces) {
            return self.inner.rename(from, to);
        }
        self.inner.rename_new(from, to)
    }
    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        let Some(to) = to.downcast_ref::<TwistedDir>() else {
            if self.is(Twist::AnywhereIsTheSameDevice) {
                return Ok(());
            }
            return Err(ErrorKind::CrossesDevices.into());
        };
        if self.is(Twist::LinkIsACopy) {
            let bytes = read_file(&*self.inner, name)?;
            return write_parts_at(&*to.inner.open(new, OpenMode::CreateNew)?, &[&bytes], 0);
        }
        self.inner.hard_link(name, &*to.inner, new)
    }
    fn sync(&self) -> Result<()> {
        match self.twist {
            Twist::DirectorySyncFails => Err(ErrorKind::Unsupported.into()),
            Twist::DirectorySyncDoesNothing if self.path.ends_with("synced_names_survive") => Ok(()),
            _ => self.inner.sync(),
        }
    }
    fn lock(&self, mode: LockMode) -> Result<Lock> {
        if self.is(Twist::OneLockForBoth) {
            return self.lock_file("LOCK", mode);
        }
        self.twisted_lock(|mode| self.inner.lock(mode), mode)
    }
    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Lock> {
        if self.is(Twist::SharedLockMakesAFile) {
            drop(self.inner.lock_file(name, LockMode::Exclusive)?);
        }
        self.twisted_lock(|mode| self.inner.lock_file(name, mode), mode)
    }
    fn free_space(&self) -> Result<u64> {
        if self.is(Twist::NoSpace) { Ok(0) } else { self.inner.free_space() }
    }
    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        if self.is(Twist::NamesHaveNoIds) {
            return Ok(None);
        }
        self.inner.id_of(name)
    }
}

#[derive(Debug)]
struct TwistedFile {
    inner: Arc<dyn VfsFile>,
    twist: Twist,
    mode: OpenMode,
    copy: Option<Vec<u8>>,
    by_name: Option<(Arc<dyn VfsDir>, String)>,
}

impl TwistedFile {
    fn is(&self, twist: Twist) -> bool {
        self.twist == twist
    }
}

impl VfsFile for TwistedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        if let Some((dir, name)) = &self.by_name {
            return dir.open(name, OpenMode::Read)?.read_at(buf, offset);
        }
        if let Some(copy) = &self.copy {
            let rest = copy.get(offset as usize..).unwrap_or_default();
            let n = rest.len().min(buf.len());
            buf[..n].copy_from_slice(&rest[..n]);
            return Ok(n);
        }
        let read = self.inner.read_at(buf, offset)?;
        if read == 0 && self.is(Twist::EndReadsAsZeros) {
            buf.fill(0);
            return Ok(buf.len());
        }
        Ok(read)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        let end = offset + all.len() as u64;
        match self.twist {
            Twist::FirstSliceOnly if bufs.len() > 1 => {
                self.inner.write_at(&bufs[..1], offset)?;
                return Ok(all.len());
            }
            Twist::GapsAreFilled if !all.is_empty() && self.inner.len()? < offset => {
                let gap = vec![0xFF; (offset - self.inner.len()?) as usize];
                write_parts_at(&*self.inner, &[&gap], self.inner.len()?)?;
            }
            // Zeros to the end of the sector, where the file has that many bytes.
            Twist::SectorsAreWrittenWhole => {
                let rest = end.next_multiple_of(512).min(self.inner.len()?).saturating_sub(end);
                // The simpler checks write in one piece; this one shows only where a write has several.
                if bufs.len() > 1 && rest > 0 {
                    write_parts_at(&*self.inner, &[&vec![0; rest as usize]], end)?;
                }
            }
            Twist::SectorsAreWrittenWithoutALock if all.len() == 100 => {
                let start = offset / 512 * 512;
                let mut sectors = vec![0; (end.next_multiple_of(512) - start) as usize];
                let there = self.inner.read_at(&mut sectors, start)?.max((end - start) as usize);
                std::thread::sleep(Duration::from_micros(300));
                let at = (offset - start) as usize;
                sectors[at..at + all.len()].copy_from_slice(&all);
                write_parts_at(&*self.inner, &[&sectors[..there]], start)?;
                return Ok(all.len());
            }
            _ => {}
        }
        self.inner.write_at(bufs, offset)
    }
    fn allocate(&self, len: u64) -> Result<Reserved> {
        match self.twist {
            Twist::ReservationErases => write_parts_at(&*self.inner, &[&vec![0; len as usize]], 0)?,
            Twist::ReservationIsNothing => return Ok(Reserved::Nothing),
            _ => {}
        }
        self.inner.allocate(len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        if self.is(Twist::LengthOnlyGrows) && len < self.inner.len()? {
            return Ok(());
        }
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> Result<()> {
        match self.twist {
            Twist::ReaderCannotSync if self.mode == OpenMode::Read => Err(ErrorKind::PermissionDenied.into()),
            Twist::SyncDoesNothing => Ok(()),
            _ => self.inner.sync_data(),
        }
    }
    fn sync_all(&self) -> Result<()> {
        if self.is(Twist::SyncDoesNothing) { Ok(()) } else { self.inner.sync_all() }
    }
    fn len(&self) -> Result<u64> {
        self.copy.as_ref().map_or_else(|| self.inner.len(), |copy| Ok(copy.len() as u64))
    }
    fn is_empty(&self) -> Result<bool> {
        Ok(!self.is(Twist::NeverEmpty) && self.inner.is_empty()?)
    }
    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        if self.is(Twist::DroppedCacheIsZeros) {
            let len = range.end.min(self.inner.len()?).saturating_sub(range.start);
            write_parts_at(&*self.inner, &[&vec![0; len as usize]], range.start)?;
        }
        self.inner.drop_cache(range)
    }
    fn begin_generation(&self) -> Result<()> {
        if self.is(Twist::GenerationBeginsEmpty) {
            return self.inner.set_len(0);
        }
        self.inner.begin_generation()
    }
    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        self.inner.map(if self.is(Twist::MappingIsShort) { len / 2 } else { len })
    }
    fn id(&self) -> Result<Option<FileId>> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        if self.is(Twist::HandlesHaveTheirOwnIds) {
            return Ok(Some(FileId { device: 0, inode: IDS.fetch_add(1, Ordering::Relaxed) }));
        }
        self.inner.id()
    }
}
