//! What the file system still keeps of files that were removed, because entries show their bytes.
//!
//! A payload that borrows a mapping has a share of it, and the blocks of a file live as long as its mapping.
//! That is known where a file loses its name, and costs the reads nothing: no entry is counted.

use super::RetiredFile;
use crate::sync::{Arc, Mutex, Weak};
use crate::vfs::Map;

/// Files that were removed while their mappings were shared.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Vec<Weak<Map>>>);

impl Held {
    /// The file has lost its name, and its mapping goes with the last entry that shows it.
    pub(super) fn note(&self, file: &RetiredFile) {
        let mut held = self.0.lock();
        held.retain(|map| map.strong_count() > 0);
        if let Some(map) = file.map.as_ref().filter(|_| !file.is_unseen()) {
            held.push(Arc::downgrade(map));
        }
    }

    /// Bytes of the files that are still shown.
    pub(super) fn bytes(&self) -> u64 {
        let mut held = self.0.lock();
        held.retain(|map| map.strong_count() > 0);
        held.iter().filter_map(Weak::upgrade).map(|map| map.len() as u64).sum()
    }
}
