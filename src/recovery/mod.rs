//! From files to an engine's state.
//!
//! ```text
//!  newest valid checkpoint ─▶ region table as of its capture
//!        │  + footers of the log segments from its start on, in order (net effects, idempotent)
//!        │  + the unsealed tail up to the watermark, read record by record
//!        ▼
//!  state as it was durable ─▶ + whole batches behind the watermark, written anew into a new segment and synced
//! ```
//!
//! What open costs: the checkpoint, one header a segment, the footers' net effects since the checkpoint, and the bytes
//! of the unsealed tail. Not the entries.
//!
//! Nothing that is read here is changed here. The old tail is never written again: where its content ends is said by
//! the first record of the segment that follows, which names the record it follows. So whatever lies behind a tear is
//! cut off for good by the next write, without a truncate that could itself be lost. A crash during recovery starts
//! over from the same files.
//!
//! The page cache is not believed for anything behind the watermark: after a failed sync a kernel may show bytes that
//! the disk does not have. That part of the file is synced, dropped from the cache, and read again.

mod chain;
mod files;
mod judge;
mod tail;

pub(crate) use tail::{TailRecord, doubt};

use crate::engine::options::Options;
use crate::engine::report::OpenReport;
use crate::error::{Error, Result};
use crate::format::checkpoint::{
    CHECKPOINT_HEADERS_LEN, CheckpointError, CheckpointHeader, RegionRecord, read_checkpoint, read_proof,
};
use crate::format::file_header::{FileHeader, FileKind, HeaderError, StoreId};
use crate::format::footer::Footer;
use crate::format::names::FileName;
use crate::format::record::Shape;
use crate::index::{Damage, Extent, RegionState, Table};
use crate::planted::{Bug, planted};
use crate::purge::relocate;
use crate::segment::scan::{FIRST_RECORD, Scanner};
use crate::segment::{RetiredFile, Segment, load_footer, rebuild_footer};
use crate::store::{CheckpointInfo, Checkpoints};
use crate::sync::atomic::Ordering;
use crate::types::{Lsn, RegionId};
use bytes::Bytes;
use files::Listing;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Whether recovery prepares for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The caller holds the lock.
    Write,
    /// Nothing is changed, and a running engine may be changing the files.
    Inspect,
}

/// The state of a store as its files tell it.
pub(crate) struct Recovered {
    pub(crate) id: StoreId,
    pub(crate) table: Arc<Table>,
    /// Every segment that is part of the store; those without a footer on disk have one on the heap.
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    /// Segments whose footer is to be written, oldest first.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    /// What the next record follows.
    pub(crate) chain: Shape,
    pub(crate) next_file: u32,
    pub(crate) checkpoints: Checkpoints,
    /// Newer ones that cannot be believed: to be removed once there is one that can.
    pub(crate) bad_checkpoints: Vec<PathBuf>,
    /// Whole batches behind the watermark, in order: to be written anew.
    pub(crate) tail: Vec<TailRecord>,
    /// Whether records that show in the files are no part of the log any more.
    pub(crate) cut: bool,
    /// Free files: number and length.
    pub(crate) free: Vec<(u32, u64)>,
    /// Log segments that hold no record of the log: they can be given back once the tail is durable.
    pub(crate) unused: Vec<RetiredFile>,
    /// Files that nothing needs, to be removed once the store is open.
    pub(crate) leftovers: Vec<PathBuf>,
    pub(crate) report: OpenReport,
}

/// Reads the store in `dir`; `None` if there is none.
pub(crate) fn recover(dir: &Path, options: &Options, purpose: Purpose) -> Result<Option<Recovered>> {
    let began = Instant::now();
    let mut report = OpenReport::default();
    let mut listing = files::list(dir, options)?;
    let Some((header, regions, info)) = newest_checkpoint(dir, options, &listing, &mut report)? else {
        return Ok(None);
    };
    report.times.checkpoint = began.elapsed();

    let phase = Instant::now();
    let id = header.identity.store;
    let mut opened = files::open_segments(dir, options, &mut listing, &header, &mut report)?;
    if let Some(error) = missing_behind_its_footer(dir, options, &listing, &opened, &header) {
        judge::refuse(error, options, &mut report)?;
    }
    let chain = chain::follow(&mut opened, &header, options, purpose, &mut report)?;
    let mut unsealed = Vec::new();
    let mut unsealable = Vec::new();
    let mut failed: Option<Error> = None;
    for segment in opened.segments.values() {
        if segment.footer().is_none() && !segment.is_lost {
            unsealed.push(segment.clone());
        }
    }
    unsealed.retain(|segment| match give_footer(segment, &mut report) {
        Ok(()) => true,
        // Its entries answer with an error, one by one; the rest of the store goes on.
        Err(e) if segment.id < header.start_segment || segment.kind == FileKind::Cold => {
            segment.unsealable.store(true, Ordering::Release);
            unsealable.push((segment.clone(), e));
            false
        }
        Err(e) => {
            failed.get_or_insert(e);
            false
        }
    });
    if let Some(e) = failed {
        return Err(e);
    }
    report.times.segments = phase.elapsed();

    let phase = Instant::now();
    let table = Arc::new(Table::default());
    for region in regions {
        load_region(&table, region, &opened.segments, dir)?;
    }
    let start = header.start_segment;
    let installed = replay(&table, &opened.segments, start, &mut report)?;
    if report.accepted_loss {
        truncate_what_was_lost(&table, &mut report);
    }
    report.times.replay = phase.elapsed();

    let harmed = unsealable.into_iter().filter(|(segment, _)| segment.live_entries() > 0);
    report.damage.extend(harmed.map(|(_, e)| e));
    // What is gone and held nothing that lives had been given back: a crash undid no more than the removal of its name
    // from the list.
    for (id, error) in std::mem::take(&mut opened.lost) {
        match opened.segments.get(&id).is_some_and(|s| s.live_entries() > 0) {
            true => report.damage.push(error),
            false => drop(opened.segments.remove(&id)),
        }
    }

    // A cold segment that neither the checkpoint nor an install record names was never installed.
    let named = |id: &u32| header.segments.iter().any(|s| s.id == *id) || installed.contains(id);
    let tail_installs = chain.tail.iter().filter_map(tail::installs);
    let awaited: Vec<u32> = tail_installs.map(|i| i.cold).collect();
    let orphans: Vec<u32> = opened
        .segments
        .values()
        .filter(|s| s.kind == FileKind::Cold && !named(&s.id) && !awaited.contains(&s.id))
        .map(|s| s.id)
        .collect();
    for id in orphans {
        if let Some(segment) = opened.segments.remove(&id) {
            listing.leftovers.push(segment.path.clone());
            unsealed.retain(|s| s.id != id);
        }
    }
    let newest_file = opened.segments.keys().next_back().copied().unwrap_or(0).max(listing.highest);
    let unused = take_unused(&mut opened.segments, &header);
    unsealed.retain(|s| opened.segments.contains_key(&s.id));
    files::stray_footers(dir, &mut listing, &opened.segments);
    // A checkpoint older than the two that are kept: its removal was lost in a crash.
    let serving = header.identity.file;
    let newer = listing.checkpoints.iter().filter(|s| **s > serving);
    let paths = newer.map(|sequence| dir.join(FileName::Checkpoint(*sequence).to_string()));
    let bad_checkpoints = paths.filter(|path| is_ours_and_bad(options, path, id)).collect();
    let oldest = info.kept.front().map_or(0, |c| c.sequence);
    for &sequence in listing.checkpoints.iter().filter(|s| **s < oldest) {
        listing.leftovers.push(dir.join(FileName::Checkpoint(sequence).to_string()));
    }

    report.segments = opened.segments.len() as u64;
    report.regions = table.cells().filter(|c| c.read().exists).count() as u64;
    report.foreign = std::mem::take(&mut listing.foreign);
    let next_file = header.next_file.max(newest_file.saturating_add(1));
    Ok(Some(Recovered {
        id,
        table,
        segments: opened.segments,
        unsealed,
        chain: chain.last,
        next_file,
        checkpoints: info,
        bad_checkpoints,
        tail: chain.tail,
        cut: chain.cut,
        free: listing.free,
        unused,
        leftovers: listing.leftovers,
        report,
    }))
}

/// Takes out the log segments that were prepared and hold nothing, or nothing but what was cut off. Those that the
/// checkpoint names stay until the next one does not.
fn take_unused(
    segments: &mut BTreeMap<u32, Arc<Segment>>,
    checkpoint: &CheckpointHeader,
) -> Vec<RetiredFile> {
    let named = |id: u32| checkpoint.segments.iter().any(|s| s.id == id);
    let empty = |s: &&Arc<Segment>| s.kind == FileKind::Log && s.sealed_end() == FIRST_RECORD && !s.is_lost;
    let ids: Vec<u32> = segments.values().filter(empty).map(|s| s.id).filter(|id| !named(*id)).collect();
    let taken = ids.iter().filter_map(|id| segments.remove(id));
    taken
        .map(|s| {
            // Bytes that were accepted and never acknowledged may have been handed out by an engine of this process.
            let mut scanner = Scanner::new(&*s.file, &s.path, &s.identity, s.len);
            let blank = scanner.read(u64::from(FIRST_RECORD), 512).is_ok_and(|b| b.iter().all(|b| *b == 0));
            RetiredFile {
                path: s.path.clone(),
                len: s.len,
                salt: s.identity.salt,
                recyclable: blank,
                map: None,
            }
        })
        .collect()
}

/// The newest checkpoint that can be believed, with its regions. `None` in a directory without a store.
fn newest_checkpoint(
    dir: &Path,
    options: &Options,
    listing: &Listing,
    report: &mut OpenReport,
) -> Result<Option<(CheckpointHeader, Vec<RegionRecord>, Checkpoints)>> {
    let mut reasons: Vec<String> = Vec::new();
    let mut proofs = Vec::new();
    for &sequence in listing.checkpoints.iter().rev() {
        let path = dir.join(FileName::Checkpoint(sequence).to_string());
        let mut regions = Vec::new();
        let outcome = read_file(options, &path).map(|bytes| {
            let header = read_checkpoint(&bytes, |region| {
                regions.push(region);
                Ok(())
            });
            if header.is_err() {
                proofs.extend(read_proof(&bytes).filter(|p| p.0.file == sequence));
            }
            (header, bytes.len() as u64)
        });
        match outcome {
            Ok((Ok(mut header), bytes)) if header.identity.file == sequence => {
                report.checkpoint = sequence;
                report.bad_checkpoints = reasons.len() as u64;
                // A newer one that is rotten knew of files that this one does not, and that may be gone: the end of the
                // log must not be taken for where they began.
                let ours = proofs.iter().filter(|p| p.0.store == header.identity.store);
                header.synced = ours.fold(header.synced, |synced, p| synced.max(p.1));
                return Ok(Some((header.clone(), regions, kept(listing, &header, bytes))));
            }
            Ok((
                Err(CheckpointError::Header(
                    e @ (HeaderError::NewerVersion(_) | HeaderError::UnknownFlags(_)),
                )),
                _,
            )) => {
                return Err(Error::new(
                    crate::ErrorKind::Unsupported,
                    format!("the store was written by a newer release: {e}; open it with that release"),
                )
                .at(&path, None));
            }
            Ok((Err(e), _)) => reasons.push(format!("{}: {e}", path.display())),
            Ok((Ok(_), _)) => reasons.push(format!("{}: it belongs under another name", path.display())),
            Err(e) => reasons.push(e.to_string()),
        }
    }
    if listing.is_fresh() {
        return Ok(None);
    }
    for &sequence in listing.checkpoints.iter().rev() {
        let Ok(bytes) = read_file(options, &dir.join(FileName::Checkpoint(sequence).to_string())) else {
            continue;
        };
        if let Some((header, regions)) = mend_checkpoint(&bytes).filter(|c| c.0.identity.file == sequence) {
            report.checkpoint = sequence;
            report.bad_checkpoints = reasons.len() as u64;
            report.mended_records += 1;
            let info = kept(listing, &header, bytes.len() as u64);
            return Ok(Some((header, regions, info)));
        }
    }
    let why = match reasons.is_empty() {
        true => "there is none".to_string(),
        false => reasons.join("; "),
    };
    Err(Error::damaged(format!(
        "no checkpoint of the store can be believed: {why}; run `raftwood check`, and restore the directory from a backup \
         or let the node join anew"
    ))
    .at(dir, None))
}

/// Whether a checkpoint that was passed over is one of this store's. One without a header that makes sense bears a name that
/// only this store gives.
fn is_ours_and_bad(options: &Options, path: &Path, id: StoreId) -> bool {
    let Ok(bytes) = read_file(options, path) else { return false };
    FileHeader::decode(&bytes).map_or_else(
        |e| matches!(e, HeaderError::Malformed(_)),
        |header| header.identity.store == id && read_checkpoint(&bytes, |_| Ok(())).is_err(),
    )
}

/// The checkpoint with one bit of its headers flipped back, if that makes it right. A young store has but one, and
/// nothing in it but headers. Magic, lengths and all checksums of the chunks have to agree.
fn mend_checkpoint(bytes: &Bytes) -> Option<(CheckpointHeader, Vec<RegionRecord>)> {
    let mut tried = bytes.to_vec();
    for bit in 0..CHECKPOINT_HEADERS_LEN.min(tried.len()) * 8 {
        tried[bit / 8] ^= 1 << (bit % 8);
        let candidate = Bytes::from(std::mem::take(&mut tried));
        let mut regions = Vec::new();
        let read = read_checkpoint(&candidate, |region| {
            regions.push(region);
            Ok(())
        });
        if let Ok(header) = read {
            return Some((header, regions));
        }
        tried = candidate.into();
        tried[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

/// The checkpoints to keep from here on. The one before the chosen is known by name only, so nothing that its replay
/// might need is purged before it has been replaced.
fn kept(listing: &Listing, header: &CheckpointHeader, bytes: u64) -> Checkpoints {
    let sequence = header.identity.file;
    let mut kept = VecDeque::new();
    if let Some(&before) = listing.checkpoints.iter().rev().find(|s| **s < sequence) {
        kept.push_back(CheckpointInfo {
            sequence: before,
            start_segment: 0,
            accepted: Lsn::ZERO,
            bytes: listing.checkpoint_bytes.get(&before).copied().unwrap_or(0),
            log_bytes: 0,
        });
    }
    kept.push_back(CheckpointInfo {
        sequence,
        start_segment: header.start_segment,
        accepted: Lsn::new(header.start_segment, 0),
        bytes,
        log_bytes: 0,
    });
    let newest = listing.checkpoints.last().copied().unwrap_or(sequence);
    Checkpoints { next_sequence: newest.max(sequence).saturating_add(1), kept }
}

/// A small file as a whole.
fn read_file(options: &Options, path: &Path) -> Result<Bytes> {
    let bytes = crate::vfs::io::read_file(&*options.vfs, path);
    bytes.map(Bytes::from).map_err(|e| Error::io("reading a file", path, e))
}

/// Finds a log whose segment is gone while its footer is there: what nothing else names was acknowledged all the same. A
/// segment is given back only once no replay needs it.
fn missing_behind_its_footer(
    dir: &Path,
    options: &Options,
    listing: &Listing,
    opened: &files::Opened,
    checkpoint: &CheckpointHeader,
) -> Option<Error> {
    let replayed = listing.footers.iter().filter(|id| **id >= checkpoint.start_segment);
    for &id in replayed.filter(|id| !opened.segments.contains_key(id)) {
        let Ok(bytes) = read_file(options, &dir.join(FileName::Footer(id).to_string())) else { continue };
        let Ok(header) = FileHeader::decode(&bytes) else { continue };
        let ours = header.identity.store == checkpoint.identity.store && header.identity.file == id;
        let Some(footer) = Footer::open(bytes, &header.identity).ok().filter(|_| ours) else { continue };
        // A cold segment has no operations, and goes when it is dead.
        if footer.deltas().is_ok_and(|deltas| !deltas.is_empty()) {
            let error = Error::damaged("a segment is missing, and its footer is there; put the file back");
            return Some(error.at(&dir.join(FileName::Log(id).to_string()), None));
        }
    }
    None
}

/// Builds the footer of a segment that has none, on the heap; it is written later.
fn give_footer(segment: &Arc<Segment>, report: &mut OpenReport) -> Result<()> {
    let end = segment.sealed_end();
    rebuild_footer(segment)?;
    report.scanned_segments += 1;
    report.scanned_bytes += u64::from(end);
    Ok(())
}

/// The footer that is on disk for `segment`, if it can be believed.
pub(super) fn footer_on_disk(options: &Options, segment: &Segment) -> Option<Arc<Footer>> {
    load_footer(&*options.vfs, segment.dir(), &segment.identity)
}

fn load_region(
    table: &Table,
    record: RegionRecord,
    segments: &BTreeMap<u32, Arc<Segment>>,
    dir: &Path,
) -> Result<()> {
    let cell = table.get_or_create(record.region);
    let mut state = cell.write();
    if !state.extents.is_empty() {
        return Err(Error::damaged("the checkpoint has the region twice")
            .in_region(record.region)
            .at(dir, None));
    }
    state.exists = record.exists;
    state.base = record.base;
    state.hard_state = record.hard_state;
    state.touched = Lsn::new(record.as_of, 0);
    state.kv = record.kv.into_iter().collect();
    let mut damage = Damage {
        proven: record.damage.into_iter().collect(),
        suspect: record.suspect.into_iter().collect(),
        hard_state_lost: record.hard_state_lost,
    };
    state.extents.reserve_exact(record.extents.len());
    for extent in &record.extents {
        let last = extent.first + (extent.count - 1);
        let Some(segment) = segments.get(&extent.segment) else {
            return Err(Error::damaged(format!(
                "the checkpoint names segment {} for entries {}..={last}, and does not list it",
                extent.segment, extent.first
            ))
            .in_region(record.region)
            .at(dir, None));
        };
        if segment.is_lost {
            damage.proven.insert(extent.first, last);
        }
        state.extents.push(Extent::sealed(extent, segment));
    }
    state.damage = Some(damage).filter(|d| !d.is_none()).map(Box::new);
    makes_sense(&state, record.region, dir)
}

/// Refuses a region whose parts do not go together. Found by fuzzing, with checksums that were right.
fn makes_sense(state: &RegionState, region: RegionId, path: &Path) -> Result<()> {
    state.check().map_err(|e| {
        Error::damaged(format!("the log of the region makes no sense: {e}; run `raftwood check`"))
            .in_region(region)
            .at(path, None)
    })
}

/// A checkpoint may know of entries in records behind the place where the log was ended.
fn truncate_what_was_lost(table: &Table, report: &mut OpenReport) {
    for cell in table.cells() {
        let mut state = cell.write();
        let gone = |e: &&Extent| !e.segment.is_lost && (e.first..=e.last).any(|i| e.loc(cell.id, i).is_err());
        let Some(extent) = state.extents.iter().find(gone) else { continue };
        let mut indexes = extent.first..=extent.last;
        let (Some(first), Some(last)) = (indexes.find(|i| extent.loc(cell.id, *i).is_err()), state.last())
        else {
            continue;
        };
        let error = Error::damaged(format!("entries {first}..={last} are gone with the end of the log"));
        report.damage.push(error.in_region(cell.id).at(&extent.segment.path, None));
        state.truncate_from(first);
    }
}

/// Applies the segments from `start` on. Returns the cold segments that install records named.
fn replay(
    table: &Table,
    segments: &BTreeMap<u32, Arc<Segment>>,
    start: u32,
    report: &mut OpenReport,
) -> Result<Vec<u32>> {
    let mut installed = Vec::new();
    for segment in segments.range(start..).map(|(_, s)| s).filter(|s| s.kind == FileKind::Log) {
        let Some(footer) = segment.footer() else { continue };
        let bad = |e: crate::codec::Malformed| {
            Error::damaged(format!("the footer of the segment is damaged: {e}")).at(&segment.path, None)
        };
        report.replayed_segments += 1;
        let sections = if planted(Bug::OnlyFirstRegionReplayed) { 1 } else { usize::MAX };
        for delta in footer.deltas().map_err(bad)?.into_iter().take(sections) {
            let cell = table.get_or_create(delta.region);
            let mut state = cell.write();
            // Captured in a later segment: this one is in it.
            if state.touched.segment() > segment.id {
                continue;
            }
            state.apply_delta(&delta, segment);
            makes_sense(&state, delta.region, &segment.path)?;
            state.touched = Lsn::new(segment.id, segment.sealed_end());
        }
        for install in footer.installs().map_err(bad)? {
            installed.push(install.cold);
            // Gone again already: then nothing refers to its sources any more either.
            if let Some(cold) = segments.get(&install.cold) {
                relocate(table, cold, &install.sources);
            }
        }
    }
    Ok(installed)
}
