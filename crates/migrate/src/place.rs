//! Where a store is made: a directory beside its destination, which it leaves, whole and verified, by one
//! rename. A run that is killed leaves that directory, and the next one starts it over.

use crate::failure::{Failure, Result};
use crate::lock::Lock;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What is in that directory.
const SCRATCH: &str = "source";
const STORE: &str = "store";

pub(crate) struct Place {
    partial: PathBuf,
    to: PathBuf,
    _lock: Lock,
}

impl Place {
    /// Takes `to`, which must not exist, and what an earlier run has left of it.
    pub(crate) fn take(to: &Path) -> Result<Place> {
        let name =
            to.file_name().ok_or_else(|| Failure::CannotRun(format!("{} has no name", to.display())))?;
        let mut partial = OsString::from(name);
        partial.push(".partial");
        let partial = to.with_file_name(partial);
        if to.symlink_metadata().is_ok() {
            // Of a run that was killed between the rename and its end.
            let _ = fs::remove_dir(&partial);
            return Err(Failure::CannotRun(format!(
                "{} is there already. A store gets its name when it is whole and verified: if an earlier run ended \
                 without a word, this is what it made",
                to.display()
            )));
        }
        match fs::create_dir(&partial) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|e| Failure::io("making", &partial, &e))?,
        }
        let lock = Lock::of_place(&partial)?;
        let entries = fs::read_dir(&partial).map_err(|e| Failure::io("listing", &partial, &e))?;
        if entries.flatten().any(|entry| ![SCRATCH, STORE].iter().any(|name| entry.file_name() == *name)) {
            let why = "is there already, and is not of an earlier run: move it out of the way";
            return Err(Failure::CannotRun(format!("{} {why}", partial.display())));
        }
        let place = Place { partial, to: to.to_owned(), _lock: lock };
        for part in [place.scratch(), place.store()] {
            remove(&part)?;
        }
        Ok(place)
    }

    /// For what is not needed any more at the end.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.partial.join(SCRATCH)
    }

    /// The store, until it is whole.
    pub(crate) fn store(&self) -> PathBuf {
        self.partial.join(STORE)
    }

    /// Gives the store its name, durably.
    pub(crate) fn publish(self) -> Result<()> {
        remove(&self.scratch())?;
        let store = self.store();
        for (_, path) in crate::theirs::files(&store)? {
            sync(&path)?;
        }
        sync(&store)?;
        fs::rename(&store, &self.to).map_err(|e| Failure::io("renaming to", &self.to, &e))?;
        let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new(".")))
    }
}

/// Nothing is left of a run that failed.
impl Drop for Place {
    fn drop(&mut self) {
        let _ = remove(&self.scratch());
        let _ = remove(&self.store());
        let _ = fs::remove_dir(&self.partial);
    }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| Failure::io("syncing", path, &e))
}

/// Follows no link.
fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io("removing", dir, &e)),
        _ => Ok(()),
    }
}
