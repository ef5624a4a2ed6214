//! Vandalism: looking at the disk, and changing it, behind the engine's back. None of this is numbered,
//! struck by faults, or written down.

use super::content::Content;
use super::dir::DirChange;
use super::disk::{Disk, split};
use super::file::File;
use super::{SimVfs, os};
use crate::vfs::meaning::if_there;
use rustix::io::Errno;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Damage done by hand. Paths are absolute; each change is on the device and in the cache at once, and a file
/// that is changed so loses no bytes by a crash that were pending in it: they are made durable first.
///
/// ```
/// use raftwood::vfs::sim::SimVfs;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let disk = SimVfs::new(1);
/// disk.write_file("/notes", b"a")?;
/// disk.flip_bit("/notes", 1)?;
/// assert_eq!(disk.read_file("/notes")?, b"c");
/// disk.add_bad_sector("/notes", 0)?; // reads by the engine fail with EIO
/// assert_eq!(disk.remove_file("/other").unwrap_err().kind(), std::io::ErrorKind::NotFound);
/// # Ok(()) }
/// ```
impl SimVfs {
    /// All files, by path, with their lengths.
    pub fn list(&self) -> Vec<(PathBuf, u64)> {
        let state = self.shared.lock();
        let mut all = Vec::new();
        for (path, dir) in &state.disk.dirs {
            for (name, ino) in dir.cached.iter() {
                let len = state.disk.files.get(ino).map_or(0, |f| f.cached.len());
                all.push((path.join(&**name), len));
            }
        }
        all
    }

    /// How many handles of files are open.
    pub fn open_handles(&self) -> usize {
        self.shared.lock().disk.files.values().map(|f| f.handles).sum()
    }

    /// The bytes of a file, as every reader sees them.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.look(path.as_ref(), |f| bytes_of(&f.cached))
    }

    /// The bytes of a file that would survive if nothing unsynced did.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path.
    pub fn durable_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.look(path.as_ref(), |f| bytes_of(&f.durable))
    }

    /// Puts a file there, durable with its name, in place of what stood there.
    ///
    /// # Errors
    /// `NotFound` where the directory is missing, `IsADirectory` where one stands at the path.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let mut state = self.shared.lock();
        let disk = &mut state.disk;
        let ino = match if_there(disk.lookup(path))? {
            Some(ino) => ino,
            None => {
                let ino = disk.create(path)?;
                name_is_durable(disk, path, |name| DirChange::Create { name, ino })?;
                ino
            }
        };
        vandalise(disk.file(ino)?, |content| {
            content.set_len(0);
            content.write(bytes, 0);
        });
        Ok(())
    }

    /// Takes a file away for good, as someone with a shell would.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut state = self.shared.lock();
        let ino = state.disk.lookup(path)?;
        state.disk.remove(path)?;
        name_is_durable(&mut state.disk, path, |name| DirChange::Remove { name, ino })?;
        state.disk.collect(ino);
        Ok(())
    }

    /// Inverts one bit, counted from the start of the file, on the device and in the cache.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) -> Result<()> {
        self.change_file(path.as_ref(), |content| {
            let mut byte = [0];
            if content.read(&mut byte, bit / 8) == 1 {
                content.write(&[byte[0] ^ (1 << (bit % 8))], bit / 8);
            }
        })
    }

    /// Zeroes one sector of 512 bytes.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn zero_sector(&self, path: impl AsRef<Path>, sector: u64) -> Result<()> {
        self.change_file(path.as_ref(), |content| {
            content.put_sector(sector, &None);
            content.trim();
        })
    }

    /// Overwrites bytes in place.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn write_bytes(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> Result<()> {
        self.change_file(path.as_ref(), |content| content.write(bytes, offset))
    }

    /// Cuts or extends a file.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn set_file_len(&self, path: impl AsRef<Path>, len: u64) -> Result<()> {
        self.change_file(path.as_ref(), |content| content.set_len(len))
    }

    /// Reads of this sector of 512 bytes fail with EIO until it is written whole; crashes do not heal it.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn add_bad_sector(&self, path: impl AsRef<Path>, sector: u64) -> Result<()> {
        let mut state = self.shared.lock();
        let ino = state.disk.lookup(path.as_ref())?;
        state.disk.file(ino)?.bad.insert(sector);
        Ok(())
    }

    /// The device reads this sector again: it was the cable.
    ///
    /// # Errors
    /// `NotFound` where no file stands at the path; nothing is changed then.
    pub fn heal_sector(&self, path: impl AsRef<Path>, sector: u64) -> Result<()> {
        let mut state = self.shared.lock();
        let ino = state.disk.lookup(path.as_ref())?;
        state.disk.file(ino)?.bad.remove(&sector);
        Ok(())
    }

    /// Makes everything durable, as a long quiet time would: nothing is pending any more.
    pub fn settle(&self) {
        let mut state = self.shared.lock();
        state.disk.files.values_mut().for_each(|f| f.sync(u64::MAX));
        state.disk.dirs.values_mut().for_each(|d| d.sync());
    }

    /// A digest of all names and bytes as readers see them: equal disks have equal digests.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let state = self.shared.lock();
        for (path, dir) in &state.disk.dirs {
            path.hash(&mut hasher);
            for (name, ino) in dir.cached.iter() {
                name.hash(&mut hasher);
                if let Some(file) = state.disk.files.get(ino) {
                    bytes_of(&file.cached).hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }

    fn look<T>(&self, path: &Path, look: impl FnOnce(&File) -> T) -> Result<T> {
        let mut state = self.shared.lock();
        let ino = state.disk.lookup(path)?;
        state.disk.file(ino).map(|f| look(f))
    }

    fn change_file(&self, path: &Path, edit: impl Fn(&mut Content)) -> Result<()> {
        let mut state = self.shared.lock();
        let ino = state.disk.lookup(path)?;
        vandalise(state.disk.file(ino)?, edit);
        Ok(())
    }
}

/// Changes what is cached and what is durable alike. What was pending in this file is made durable first.
fn vandalise(file: &mut File, edit: impl Fn(&mut Content)) {
    file.sync(u64::MAX);
    edit(&mut file.durable);
    // The cache may hold what the device never got; that stays, changed in the same way.
    edit(&mut file.cached);
}

/// Makes one directory operation durable that was just made, and leaves the others pending.
fn name_is_durable(disk: &mut Disk, path: &Path, change: impl FnOnce(Arc<str>) -> DirChange) -> Result<()> {
    let (dir, name) = split(path)?;
    let dir = disk.dirs.get_mut(dir).ok_or_else(|| os(Errno::NOENT))?;
    dir.pending.pop();
    change(name).apply(&mut dir.durable);
    Ok(())
}

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = vec![0; content.len() as usize];
    content.read(&mut bytes, 0);
    bytes
}
