//! Looking at a store without opening it for writing.

use crate::engine::options::Options;
use crate::engine::report::OpenReport;
use crate::error::{Error, ErrorKind, Result};
use crate::index::RegionState;
use crate::planted::{Bug, planted};
use crate::recovery::{Purpose, Recovered, recover};
use crate::types::{Lsn, RegionId};
use crate::vfs::Dir;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Recovers beside an engine that may be running. It gives files back meanwhile: what looks missing or wrong
/// is looked at again as long as names changed. What is truly wrong says the same at every look; what a purge
/// made of it says something else each time.
pub(super) fn recover_beside(dir: &Dir, options: &Options) -> Result<Option<Recovered>> {
    let began = Instant::now();
    let mut before = names(dir)?;
    let mut last = String::new();
    let mut alike = 0;
    loop {
        let found = recover(dir, options, Purpose::Inspect);
        let Some(complaint) = complaint(&found) else { return found };
        alike = if complaint == last { alike + 1 } else { 1 };
        if alike == ALIKE_MAX || planted(Bug::ReaderLooksOnce) {
            return found;
        }
        let now = names(dir)?;
        if now == before {
            return found;
        }
        if began.elapsed() > LOOK_AT_MOST {
            let says = "the engine that has this store open gives files back faster than they can be read: look again when it does less";
            return Err(Error::new(ErrorKind::Locked, says).at(dir.path(), None));
        }
        (before, last) = (now, complaint);
    }
}

/// What is wrong with what a look found, if something is.
fn complaint(found: &Result<Option<Recovered>>) -> Option<String> {
    match found {
        Ok(Some(state)) if state.report.damage.is_empty() && state.report.bad_checkpoints == 0 => None,
        Ok(Some(state)) => Some(format!("{:?} {}", state.report.damage, state.report.bad_checkpoints)),
        Ok(None) => Some(String::from("no store")),
        Err(e) => Some(format!("{e:?}")),
    }
}

/// A complaint that as many looks in a row make is not made by files that come and go.
const ALIKE_MAX: u32 = 3;

/// A look of a slow reader may well meet a purge each time: a bound by time lets it try as often as it takes.
const LOOK_AT_MOST: Duration = Duration::from_secs(30);

/// The names in the directory. A number is given once: a name that is still there stands for the same file.
fn names(dir: &Dir) -> Result<BTreeSet<String>> {
    let entries = dir.list().map_err(|e| Error::io("listing the directory", dir.path(), e))?;
    Ok(entries.into_iter().map(|e| e.name).collect())
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
        let opened = options.vfs.open_dir(dir).map_err(|e| Error::io("opening the directory", dir, e))?;
        match recover_beside(&Dir::new(opened, dir), &options)? {
            Some(state) => Ok(Reader { dir: dir.to_path_buf(), state }),
            None => Err(Error::invalid("there is no store in this directory").at(dir, None)),
        }
    }

    /// What was found.
    pub fn report(&self) -> &OpenReport {
        &self.state.report
    }

    /// Where the log ends. What its newest records hold may not have been acknowledged.
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
            bytes: s.extents.iter().map(|e| e.bytes()).sum(),
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
