//! The disk: files by number, directories by path, and the rules of a file system over them. No faults here,
//! no locks and no threads: those are the business of the calls.

use super::dir::{Dir, DirChange, Ino};
use super::file::File;
use super::{Profile, os};
use crate::limits::PAGE;
use crate::random::Rng;
use crate::vfs::meaning::if_there;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reported as free where no capacity is set.
const UNLIMITED: u64 = 1 << 50;

/// Everything that a crash acts upon.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) profile: Profile,
    pub(super) capacity: Option<u64>,
    pub(super) files: BTreeMap<Ino, File>,
    pub(super) dirs: BTreeMap<PathBuf, Dir>,
    pub(super) last_ino: Ino,
    /// Changes ever made: the order in which all pending ones stand.
    pub(super) seq: u64,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Disk {
        Disk {
            seed,
            rng: Rng::at(seed),
            profile: Profile::default(),
            capacity: None,
            files: BTreeMap::new(),
            dirs: BTreeMap::new(),
            last_ino: 0,
            seq: 0,
        }
    }

    /// Directories are durable at once: that is what the call promises, and the only thing ever
    /// asked of them.
    pub(super) fn create_dir_all(&mut self, dir: &Path) -> Result<()> {
        for dir in dir.ancestors() {
            if self.lookup(dir).is_ok() {
                return Err(os(Errno::NOTDIR));
            }
            self.dirs.entry(dir.to_path_buf()).or_default();
        }
        Ok(())
    }

    pub(super) fn dir(&mut self, dir: &Path) -> Result<&mut Dir> {
        self.dirs.get_mut(dir).ok_or_else(|| os(Errno::NOENT))
    }

    /// The file that has this name now.
    pub(super) fn lookup(&self, path: &Path) -> Result<Ino> {
        if self.dirs.contains_key(path) {
            return Err(os(Errno::ISDIR));
        }
        let (dir, name) = split(path)?;
        let dir = self.dirs.get(dir).ok_or_else(|| os(Errno::NOENT))?;
        dir.cached.get(&name).copied().ok_or_else(|| os(Errno::NOENT))
    }

    /// Refuses a name that is in use.
    pub(super) fn nothing_at(&self, path: &Path) -> Result<()> {
        match if_there(self.lookup(path))? {
            None => Ok(()),
            Some(_) => Err(os(Errno::EXIST)),
        }
    }

    pub(super) fn file(&mut self, ino: Ino) -> Result<&mut File> {
        self.files.get_mut(&ino).ok_or_else(|| os(Errno::BADF))
    }

    /// The file, and the count of changes to number its next ones by.
    pub(super) fn file_and_seq(&mut self, ino: Ino) -> Result<(&mut File, &mut u64)> {
        let file = self.files.get_mut(&ino).ok_or_else(|| os(Errno::BADF))?;
        Ok((file, &mut self.seq))
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<Ino> {
        self.nothing_at(path)?;
        let ino = self.last_ino + 1;
        self.change(path, |name| DirChange::Create { name, ino })?;
        self.last_ino = ino;
        self.files.insert(ino, File { links: 1, ..File::new(path.to_path_buf()) });
        Ok(ino)
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<()> {
        let ino = self.lookup(path)?;
        self.change(path, |name| DirChange::Remove { name, ino })?;
        self.unlink(ino);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let ino = self.lookup(from)?;
        let replaced = if_there(self.lookup(to))?;
        if replaced == Some(ino) {
            // Two names of one file: nothing happens, says POSIX.
            return Ok(());
        }
        let (_, from) = split(from)?;
        self.change(to, |to| DirChange::Rename { from, to, ino })?;
        self.file(ino)?.path = to.to_path_buf();
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let ino = self.lookup(from)?;
        self.nothing_at(to)?;
        self.change(to, |name| DirChange::Link { name, ino })?;
        self.file(ino)?.links += 1;
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> Result<()> {
        self.dir(dir)?.sync();
        let forgotten: Vec<Ino> =
            self.files.iter().filter(|(_, f)| f.links == 0).map(|(ino, _)| *ino).collect();
        for ino in forgotten {
            self.collect(ino);
        }
        Ok(())
    }

    /// Bytes that can still be allocated.
    pub(super) fn room(&self) -> u64 {
        let Some(capacity) = self.capacity else { return UNLIMITED };
        capacity.saturating_sub(self.allocated()) / PAGE * PAGE
    }

    /// Bytes that the files take. A removed file keeps its blocks as long as it is open.
    pub(super) fn allocated(&self) -> u64 {
        let live = self.files.values().filter(|f| f.links > 0 || f.handles > 0);
        live.map(|f| f.cached.allocated()).sum()
    }

    /// Forgets a file that nobody can reach any more, by a name, by a handle, or by a crash.
    pub(super) fn collect(&mut self, ino: Ino) {
        let gone = |f: &File| f.links == 0 && f.handles == 0;
        if self.files.get(&ino).is_some_and(gone) && !self.dirs.values().any(|d| d.may_hold(ino)) {
            self.files.remove(&ino);
        }
    }

    fn unlink(&mut self, ino: Ino) {
        if let Some(file) = self.files.get_mut(&ino) {
            file.links = file.links.saturating_sub(1);
        }
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(Arc<str>) -> DirChange) -> Result<()> {
        let (dir, name) = split(path)?;
        let dir = self.dirs.get_mut(dir).ok_or_else(|| os(Errno::NOENT))?;
        dir.change(&mut self.seq, change(name));
        Ok(())
    }
}

/// The directory of a path, and the name in it.
pub(super) fn split(path: &Path) -> Result<(&Path, Arc<str>)> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir, Arc::from(name.to_string_lossy()))),
        _ => Err(os(Errno::INVAL)),
    }
}
