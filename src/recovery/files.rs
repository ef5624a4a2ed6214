//! What stands in the directory, by rule: ours, left over, or foreign.

use crate::error::{Error, Result};
use crate::format::file_header::SegmentKind;
use crate::format::names::{CHECKPOINT_TEMP, FileName};
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use crate::vfs::{Dir, FileType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The directory, sorted by what the names say.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Ascending.
    pub(super) checkpoints: Vec<u32>,
    pub(super) checkpoint_bytes: BTreeMap<u32, u64>,
    pub(super) logs: Vec<u32>,
    colds: Vec<u32>,
    pub(super) footers: Vec<u32>,
    pub(super) free: Vec<FreeListed>,
    pub(super) leftovers: Vec<String>,
    pub(super) foreign: Vec<String>,
    /// The highest segment number that any name bears.
    pub(super) highest: u32,
}

impl Listing {
    /// No store was ever finished here: the first checkpoint is made before the first segment.
    pub(super) fn is_fresh(&self) -> bool {
        self.checkpoints.is_empty() && self.logs.is_empty() && self.colds.is_empty()
    }

    /// All segments: those of the log, then the cold ones.
    pub(super) fn segments(&self) -> impl Iterator<Item = (u32, SegmentKind)> + '_ {
        let logs = self.logs.iter().map(|id| (*id, SegmentKind::Log));
        logs.chain(self.colds.iter().map(|id| (*id, SegmentKind::Cold)))
    }
}

/// A file of the pool, as the directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FreeListed {
    pub(crate) number: u32,
    pub(crate) len: u64,
}

/// Reads the directory.
pub(super) fn list(dir: &Dir) -> Result<Listing> {
    let mut l = Listing::default();
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    for entry in entries {
        let name = FileName::parse(&entry.name);
        if name.is_none() && entry.name != CHECKPOINT_TEMP && !planted(Bug::UnknownFileRemoved) {
            l.foreign.push(entry.name);
            continue;
        }
        if entry.file_type != FileType::File {
            return Err(Error::invalid(format!(
                "{} should be a file of the store and is a {}; it is not followed and not removed: move it away",
                entry.name,
                if entry.file_type == FileType::Dir { "directory" } else { "link or special file" }
            ))
            .at(&dir.join(&entry.name), None));
        }
        let Some(name) = name else {
            l.leftovers.push(entry.name);
            continue;
        };
        match name {
            FileName::Checkpoint(n) => {
                l.checkpoints.push(n);
                l.checkpoint_bytes.insert(n, entry.len);
            }
            FileName::Log(n) => l.logs.push(n),
            FileName::Cold(n) => l.colds.push(n),
            FileName::Footer(n) => l.footers.push(n),
            FileName::Free(n) => l.free.push(FreeListed { number: n, len: entry.len }),
            FileName::Temp(_) => l.leftovers.push(entry.name),
            FileName::Lock | FileName::Mark => {}
        }
        if let FileName::Log(n) | FileName::Cold(n) | FileName::Temp(n) | FileName::Footer(n) = name {
            l.highest = l.highest.max(n);
        }
    }
    l.checkpoints.sort_unstable();
    l.logs.sort_unstable();
    l.free.sort_unstable();
    Ok(l)
}

/// Footers of segments that are not there are left over.
pub(super) fn stray_footers(listing: &mut Listing, segments: &BTreeMap<u32, Arc<Segment>>) {
    for id in std::mem::take(&mut listing.footers) {
        if !segments.contains_key(&id) {
            listing.leftovers.push(FileName::Footer(id).to_string());
        }
    }
}
