//! One file: what is cached, what is durable, and what lies between.

use super::content::{Content, SectorBytes};
use crate::limits::{PAGE, SECTOR};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One change of a file that a crash may undo on its own.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A sector as it stood after a write; `span` are the bytes of it that the write touched.
    Sector { sector: u64, bytes: SectorBytes, span: Range<usize> },
    /// A new length.
    Len(u64),
    /// Blocks reserved up to here.
    Allocate(u64),
}

impl Change {
    /// Brings a durable content to where this change leaves it.
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Change::Sector { sector, bytes, .. } => content.put_sector(*sector, bytes),
            Change::Len(len) => content.set_len(*len),
            Change::Allocate(len) => {
                let old = content.len();
                content.allocate(*len);
                // The length is a change of its own; without it nothing stays reserved past the end.
                content.set_len(old);
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Sector { sector, span, .. } => {
                write!(f, "sector {sector}, bytes {}..{} of it written", span.start, span.end)
            }
            Change::Len(len) => write!(f, "length {len}"),
            Change::Allocate(len) => write!(f, "blocks reserved up to {len}"),
        }
    }
}

/// Where the sectors of a write really go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Landing {
    Home,
    /// Nowhere, though the device says otherwise.
    Nowhere,
    /// So many sectors away.
    Away(i64),
}

/// A file, with or without names.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// The name it was given last, for messages.
    pub(super) path: PathBuf,
    pub(super) cached: Content,
    pub(super) durable: Content,
    /// In the order made; the first number is the disk's count of changes.
    pub(super) pending: Vec<(u64, Change)>,
    /// Sectors that cannot be read.
    pub(super) bad: BTreeSet<u64>,
    /// Open handles.
    pub(super) handles: usize,
    /// Names, as the cache sees it.
    pub(super) links: usize,
    /// Failed syncs, each of which is reported once on every handle.
    pub(super) sync_errors: u64,
}

impl File {
    pub(super) fn new(path: PathBuf) -> File {
        File { path, ..File::default() }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, landing: Landing, seq: &mut u64) {
        let old_len = self.cached.len();
        let end = offset + bytes.len() as u64;
        self.cached.write(bytes, offset);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let home = sector * SECTOR;
            let span = offset.saturating_sub(home) as usize..(end - home).min(SECTOR) as usize;
            if span.len() == SECTOR as usize {
                // A device replaces a bad sector when it is written whole.
                self.bad.remove(&sector);
            }
            let target = match landing {
                Landing::Home => Some(sector),
                Landing::Nowhere => None,
                Landing::Away(by) => sector.checked_add_signed(by),
            };
            if let Some(target) = target {
                let bytes = self.cached.sector(sector);
                self.push(seq, Change::Sector { sector: target, bytes, span });
            }
        }
        if end > old_len {
            self.push(seq, Change::Len(end));
        }
    }

    pub(super) fn set_len(&mut self, len: u64, seq: &mut u64) {
        self.cached.set_len(len);
        self.push(seq, Change::Len(len));
    }

    pub(super) fn allocate(&mut self, len: u64, seq: &mut u64) {
        let old_len = self.cached.len();
        self.cached.allocate(len);
        if len > old_len {
            self.push(seq, Change::Len(len));
        }
        self.push(seq, Change::Allocate(len));
    }

    /// Makes durable what was changed up to `seq`.
    pub(super) fn sync(&mut self, seq: u64) {
        let upto = self.pending.partition_point(|(s, _)| *s <= seq);
        for (_, change) in self.pending.drain(..upto) {
            change.apply(&mut self.durable);
        }
        self.durable.trim();
    }

    /// A sync fails. If it cleans the pages, their bytes will not reach the disk by any later sync; lengths
    /// and blocks are in the journal and still will.
    pub(super) fn fail_sync(&mut self, cleans: bool) {
        self.sync_errors += 1;
        if cleans {
            self.pending.retain(|(_, change)| !matches!(change, Change::Sector { .. }));
        }
    }

    /// Lets the device have its say again about all clean pages that lie wholly in the range, the last page
    /// counting as whole at the end of the file.
    pub(super) fn drop_cache(&mut self, range: Range<u64>) {
        let mut dirty = BTreeSet::new();
        for (_, change) in &self.pending {
            match change {
                Change::Sector { sector, .. } => drop(dirty.insert(sector * SECTOR / PAGE)),
                Change::Len(_) | Change::Allocate(_) => {}
            }
        }
        let len = self.cached.len();
        let end = if range.end >= len { len.div_ceil(PAGE) } else { range.end / PAGE };
        for page in range.start.div_ceil(PAGE)..end {
            if !dirty.contains(&page) {
                self.cached.take_page(page, &self.durable);
            }
        }
        self.cached.trim();
    }

    /// How much of a read is possible before a sector that is bad.
    pub(super) fn readable(&self, offset: u64, len: u64) -> u64 {
        let first_bad = self.bad.range(offset / SECTOR..).next();
        first_bad.map_or(len, |bad| (bad * SECTOR).saturating_sub(offset).min(len))
    }

    fn push(&mut self, seq: &mut u64, change: Change) {
        *seq += 1;
        self.pending.push((*seq, change));
    }
}
