//! The files of segments that nobody needs any more: recycled once nobody sees their bytes, or removed.

use super::FileMaker;
use super::Unwritten;
use super::free_files::{FreeFile, FreeFiles, Holds};
use super::held::Held;
use crate::format::names::FileName;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Mutex};
use crate::vfs::Map;
use crate::vfs::meaning::if_there;
use std::sync::atomic::{Ordering, fence};

/// Takes the file of a segment that nobody can read any more.
pub(crate) trait Retire: Send + Sync {
    /// Called from whichever thread drops the last reference: must be quick and must not block.
    fn retire(&self, file: RetiredFile);
}

/// A file that waits to be recycled or removed.
#[derive(Debug)]
pub(crate) struct RetiredFile {
    pub(crate) name: String,
    pub(crate) len: u64,
    pub(crate) salt: u64,
    pub(crate) recyclable: bool,
    /// The mapping, which bytes that were handed out may still share: as long as they do, the file must not
    /// be written again. Without its name it lives until they are gone.
    pub(crate) map: Option<Arc<Map>>,
    /// It was a segment, and its footer goes with it: until now a reader may have needed that.
    pub(crate) has_footer: bool,
}

impl RetiredFile {
    /// Whether nobody can see the file's bytes any more.
    pub(super) fn is_unseen(&self) -> bool {
        // The segment is gone, so nobody can take a new share.
        let unseen = self.map.as_ref().is_none_or(|map| Arc::strong_count(map) == 1);
        // The count is read relaxed: whatever the last holder of a share read, it read before the
        // file is written again.
        fence(Ordering::Acquire);
        unseen || planted(Bug::MappedFileReused)
    }
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct RetiredFiles {
    waiting: Mutex<Vec<RetiredFile>>,
    /// Files without a name that entries of the caller's still show.
    held: Held,
}

impl RetiredFiles {
    pub(super) fn push(&self, file: RetiredFile) {
        self.waiting.lock().push(file);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Bytes of files without a name that entries of the caller's still show.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// Makes free files of them, or removes them when pool and reserve are full or they are of no use;
    /// `ready` files lie ready as segments. Returns how many bytes the file system got back.
    pub(super) fn absorb(&self, files: &FileMaker, free: &FreeFiles, ready: usize) -> Result<u64, Unwritten> {
        files.check_open()?;
        let files_max = free.freed();
        let mut waiting = std::mem::take(&mut *self.waiting.lock());
        let mut given_back = 0;
        let mut renamed: Vec<FreeFile> = Vec::new();
        let mut failed = None;
        while let Some(file) = waiting.pop() {
            let room = free.count() + renamed.len() + ready < files_max;
            let fits = room && free.suits(file.len) || free.lacks_reserve(file.len, &renamed);
            let keep = fits && file.recyclable && file.is_unseen();
            // First: a footer without its log would look like a log that was lost.
            let footer = if file.has_footer { remove_footer(files, &file.name) } else { Ok(()) };
            let done = footer.and_then(|()| match keep {
                true => {
                    let name = free.next_name();
                    files.dir.rename_new(&file.name, &name).map(|()| {
                        renamed.push(FreeFile {
                            name,
                            len: file.len,
                            holds: Holds::Generation(file.salt),
                            unwritten: false,
                        })
                    })
                }
                false => files.dir.remove_for_good(&file.name).map(|()| {
                    self.held.note(&file);
                    given_back += file.len;
                }),
            });
            // One that is gone takes no room.
            if let Err(e) = if_there(done) {
                failed = Some(Unwritten::io("giving back a segment", &files.dir.join(&file.name), e));
                waiting.push(file);
                break;
            }
        }
        // Before its new name is durable a file must not be formatted again: a crash could bring the old name
        // back, and under it the header of another segment.
        if !renamed.is_empty() {
            match files.sync_dir() {
                Ok(()) => renamed.into_iter().for_each(|file| free.keep(file)),
                Err(e) => {
                    waiting.extend(renamed.into_iter().map(RetiredFile::from));
                    failed = failed.or(Some(e));
                }
            }
        }
        self.waiting.lock().extend(waiting);
        failed.map_or(Ok(given_back), Err)
    }
}

/// One whose free name is not durable yet.
impl From<FreeFile> for RetiredFile {
    fn from(file: FreeFile) -> RetiredFile {
        RetiredFile {
            name: file.name,
            len: file.len,
            salt: file.holds.salt(),
            recyclable: true,
            map: None,
            has_footer: false,
        }
    }
}

/// Removes the footer of a segment of this name, which may have none.
fn remove_footer(files: &FileMaker, segment: &str) -> std::io::Result<()> {
    let Some(FileName::Log(id) | FileName::Cold(id)) = FileName::parse(segment) else { return Ok(()) };
    files.dir.remove_if_there(&FileName::Footer(id).to_string()).map(drop)
}
