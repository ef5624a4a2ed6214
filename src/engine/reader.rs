//! Looking at a store without opening it for writing.

use crate::engine::options::Options;
use crate::engine::report::OpenReport;
use crate::error::{Error, Result};
use crate::index::RegionState;
use crate::recovery::{Purpose, Recovered, recover};
use crate::types::{Lsn, RegionId};
use std::fmt;
use std::path::{Path, PathBuf};

/// A store as its files show it at the moment of opening. It holds no lock and has changed nothing.
pub struct Reader {
    dir: PathBuf,
    state: Recovered,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// One segment of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number.
    pub id: u32,
    /// Whether the cleaner made it.
    pub cold: bool,
    /// Length of its file.
    pub bytes: u64,
    /// Bytes up to the end of its records.
    pub used_bytes: u64,
    /// Entries that are live.
    pub live_entries: u64,
    /// Their payload bytes; an estimate for trimmed ranges.
    pub live_bytes: u64,
    /// Entries that its footer lists, dead ones included.
    pub listed_entries: u64,
}

/// One region of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RegionInfo {
    /// Its id.
    pub id: RegionId,
    /// Its log.
    pub log: crate::types::LogState,
    /// Live entries.
    pub entries: u64,
    /// Their payload bytes; an estimate for trimmed ranges.
    pub bytes: u64,
    /// Segments that hold some of them.
    pub segments: u64,
}

impl Reader {
    pub(crate) fn open_with(dir: &Path, options: Options) -> Result<Reader> {
        match recover(dir, &options, Purpose::Inspect)? {
            Some(state) => Ok(Reader { dir: dir.to_path_buf(), state }),
            None => Err(Error::invalid("there is no store in this directory").at(dir, None)),
        }
    }

    /// What was found.
    pub fn report(&self) -> &OpenReport {
        &self.state.report
    }

    /// Everything before is known to have been durable; what lies behind may not have been acknowledged.
    pub fn end(&self) -> Lsn {
        self.state.chain.end().unwrap_or(Lsn::ZERO)
    }

    /// The segments, by number.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.state.segments.values();
        segments
            .map(|s| SegmentInfo {
                id: s.id,
                cold: s.kind == crate::format::file_header::FileKind::Cold,
                bytes: s.len,
                used_bytes: u64::from(s.sealed_end()),
                live_entries: s.live_entries(),
                live_bytes: s.live_bytes(),
                listed_entries: s.footer().map_or(0, |f| f.entry_count()),
            })
            .collect()
    }

    /// The regions that exist, sorted.
    pub fn regions(&self) -> Vec<RegionInfo> {
        let info = |id: RegionId, s: &RegionState| RegionInfo {
            id,
            log: s.log_state(id, Lsn::from_u64(u64::MAX)),
            entries: s.extents.iter().map(|e| e.count()).sum(),
            bytes: s.extents.iter().map(|e| e.bytes).sum(),
            segments: s.extents.len() as u64,
        };
        let cells = self.state.table.cells();
        let mut all: Vec<RegionInfo> = cells
            .filter_map(|c| {
                let s = c.read();
                s.exists.then(|| info(c.id, &s))
            })
            .collect();
        all.sort_by_key(|r| r.id);
        all
    }
}
