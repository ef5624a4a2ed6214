//! Looks whether the files that the engine writes to still are those that the next open will find.
//!
//! A file that is removed, renamed, or renamed over goes on taking writes and syncs through its descriptor,
//! without an error and without a name: all that is acknowledged from then on is gone with the process. Only
//! the name and the descriptor side by side show it. (A link count does not: a backup is a second name, and a
//! file that was replaced may have one elsewhere.) They are compared twice a second, when a segment is
//! sealed, and at close; never on the path of a write.

use super::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::format::names::FileName;
use crate::segment::Segment;
use crate::sync::Mutex;
use crate::vfs::meaning::if_there;
use crate::vfs::{FileId, OpenMode};
use std::io;

/// What is known of the files that the engine holds no descriptor of.
#[derive(Debug)]
pub(crate) struct NameWatch {
    /// The file that is locked.
    lock: Option<FileId>,
    /// The newest checkpoint, by its number, as it was when it was first looked at.
    checkpoint: Mutex<Option<(u32, FileId)>>,
    /// Some file systems in user space give a file another identity at each look.
    reliable: bool,
}

impl NameWatch {
    /// For a store that was just opened.
    pub(crate) fn new(store: &Store) -> NameWatch {
        let lock_file = store.dir.id_of(&FileName::Lock.to_string());
        // The one file that is there before the first record, seen by descriptor and by name.
        let newest = store.checkpoints.newest().map(|c| FileName::Checkpoint(c.sequence).to_string());
        let reliable = newest.is_some_and(|name| {
            let by_descriptor = store.dir.open(&name, OpenMode::Read).and_then(|file| file.id());
            let by_name = store.dir.id_of(&name);
            matches!((by_descriptor, by_name), (Ok(Some(a)), Ok(Some(b))) if a == b)
        });
        NameWatch { lock: lock_file.ok().flatten(), checkpoint: Mutex::default(), reliable }
    }

    /// Compares names and files, and stops all writing once they differ.
    ///
    /// # Errors
    /// `Poisoned` when that happened now; `Io` when it cannot be seen.
    pub(crate) fn look(&self, store: &Store) -> Result<()> {
        if !self.reliable || store.committer.gate().is_shut() {
            return Ok(());
        }
        stop_if(store, self.lost(store)?)
    }

    fn lost(&self, store: &Store) -> Result<Option<Error>> {
        let mut segments: Vec<_> = store.segments.unsealed().into_iter().map(|u| u.segment).collect();
        segments.extend(store.committer.active().map(|(active, _)| active));
        // They are held here, so that none of them is given back, and loses its name for that, meanwhile.
        for segment in &segments {
            if let Some(lost) = lost_segment(store, segment)? {
                return Ok(Some(lost));
            }
        }
        if let Some(id) = self.lock
            && let Some(lost) = lost_name(store, &FileName::Lock.to_string(), id)?
        {
            return Ok(Some(lost));
        }
        self.lost_checkpoint(store)
    }

    fn lost_checkpoint(&self, store: &Store) -> Result<Option<Error>> {
        let newest = || store.checkpoints.newest().map(|c| c.sequence);
        let Some(sequence) = newest() else { return Ok(None) };
        let name = FileName::Checkpoint(sequence).to_string();
        let seen = self.checkpoint.lock().filter(|(of, _)| *of == sequence);
        let lost = match seen {
            Some((_, id)) => lost_name(store, &name, id)?,
            None => match if_there(store.dir.id_of(&name)).map_err(|e| unseen(store, &name, e))? {
                Some(id) => {
                    *self.checkpoint.lock() = id.map(|id| (sequence, id));
                    None
                }
                None => Some(gone(store, &name)),
            },
        };
        // It may have been replaced and removed since it was the newest.
        Ok(lost.filter(|_| newest() == Some(sequence)))
    }
}

/// Stops all writing if the segment's file is not the one that bears its name.
pub(super) fn check_name(store: &Store, segment: &Segment) -> Result<()> {
    stop_if(store, lost_segment(store, segment)?)
}

fn stop_if(store: &Store, lost: Option<Error>) -> Result<()> {
    match lost {
        Some(cause) => {
            store.committer.stop(cause);
            Ok(store.committer.gate().check()?)
        }
        None => Ok(()),
    }
}

fn lost_segment(store: &Store, segment: &Segment) -> Result<Option<Error>> {
    let id = segment.file()?.id();
    match id.map_err(|e| Error::io("looking at an open segment", &segment.path, e))? {
        Some(id) => lost_name(store, &segment.name(), id),
        None => Ok(None),
    }
}

/// What happened to the name of a file, if it is not the name of that file any more.
fn lost_name(store: &Store, name: &str, id: FileId) -> Result<Option<Error>> {
    Ok(match if_there(store.dir.id_of(name)).map_err(|e| unseen(store, name, e))? {
        None => Some(gone(store, name)),
        Some(Some(other)) if other != id => Some(not_ours(store, name, "another file has its name now")),
        Some(_) => None,
    })
}

fn gone(store: &Store, name: &str) -> Error {
    not_ours(store, name, "it was removed or renamed")
}

fn not_ours(store: &Store, name: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "a file of the running store is not in its place any more: {what}; what was acknowledged since then can be read \
             until the engine is closed, and may be gone with it: copy what is needed, and find out who changes the \
             directory"
        ),
    )
    .at(&store.dir.join(name), None)
}

fn unseen(store: &Store, name: &str, e: io::Error) -> Error {
    Error::io("looking whether a file is in its place", &store.dir.join(name), e)
}
