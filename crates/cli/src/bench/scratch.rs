//! Where a benchmark has its stores.

use super::report::Report;
use crate::Failure;
use std::io;
use std::path::{Path, PathBuf};

/// A directory of our own, which is removed at the end unless a store in it is kept.
pub(crate) struct Scratch {
    dir: PathBuf,
    keeps: bool,
}

impl Scratch {
    pub(crate) fn new(parent: Option<&Path>) -> Result<Scratch, Failure> {
        let parent = parent.unwrap_or(Path::new("."));
        let dir = parent.join(format!("raftwood-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| {
            Failure::new(format!("cannot create {}: {e}; choose another --dir", dir.display()))
        })?;
        Ok(Scratch { dir, keeps: false })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A place for the next store: one that was kept stays as it is.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        let names = (2..).map(|n| format!("{name}-{n}"));
        let mut places = std::iter::once(name.to_string()).chain(names).map(|name| self.dir.join(name));
        places.find(|place| !place.exists()).unwrap_or_else(|| self.dir.join(name))
    }

    /// Leaves a store for a look into it.
    pub(crate) fn keep(&mut self, store: &Path, report: &mut Report) {
        self.keeps = true;
        report.kept(store);
    }

    /// Leaves that of a run that failed, and says so with the error.
    pub(crate) fn keep_failed(&mut self, store: &Path, failure: Failure, report: &mut Report) -> Failure {
        // Beside it is the file of the machine's floor, which says nothing of the store.
        let _ = remove_dir(&store.with_extension("floor"));
        let Failure::CannotRun(why) = failure else { return failure };
        if store.exists() {
            self.keep(store, report);
        }
        Failure::CannotRun(match report.all_kept() {
            kept if kept.is_empty() => why,
            kept => format!("{why}\n{kept}"),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keeps {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

pub(crate) fn remove_dir(dir: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}
