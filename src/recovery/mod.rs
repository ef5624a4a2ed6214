//! From files to an engine's state.
//!
//! ```text
//!  newest valid checkpoint ─▶ region table as of its capture
//!        │  + footers of the log segments from its start on, in order (net effects, idempotent)
//!        │  + the unsealed tail up to the watermark, read record by record
//!        ▼
//!  state as it was durable ─▶ + whole batches past the watermark, rewritten into a new segment and synced
//! ```
//!
//! What open costs: the checkpoint, one header a segment, the footers' net effects since the checkpoint, and
//! the bytes of the unsealed tail. Not the entries.
//!
//! Nothing that is read here is changed here. The old tail is never written again: where its content ends is
//! said by the first record of the segment that follows, which names the record it follows. So whatever lies
//! past a tear is cut off for good by the next write, without a truncate that could itself be lost. A crash
//! during recovery starts over from the same files.
//!
//! The page cache is not believed for anything past the watermark: after a failed sync a kernel may
//! show bytes that the disk does not have. That part of the file is synced, dropped from the cache,
//! and read again.

mod chain;
mod files;
mod judge;
mod tail;

pub(crate) use tail::{TailRecord, doubtful};

use crate::codec::Malformed;
use crate::engine::options::Options;
use crate::engine::report::OpenReport;
use crate::error::{Error, Result};
use crate::format::checkpoint::{
    CHECKPOINT_HEADERS_LEN, CheckpointError, CheckpointHeader, RegionView, read_checkpoint, read_proof,
};
use crate::format::file_header::{FileHeader, FileKind, HeaderError, Identity, StoreId};
use crate::format::footer::{Footer, RegionDelta};
use crate::format::mark::Mark;
use crate::format::names::FileName;
use crate::format::record::Shape;
use crate::index::{Damage, Extent, RegionState, Stretch, Table, Value};
use crate::planted::{Bug, planted};
use crate::segment::mark::read_marks;
use crate::segment::scan::{FIRST_RECORD, Scanner};
use crate::segment::{EIO, RetiredFile, Segment, load_footer, rebuild_footer};
use crate::store::{CHECKPOINTS_KEPT, CheckpointInfo, Checkpoints};
use crate::sync::atomic::Ordering;
use crate::types::{EntryId, Lsn, RegionId};
use crate::vfs::Dir;
use bytes::Bytes;
use files::Listing;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
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

/// The state of a store as its files show it.
pub(crate) struct Recovered {
    pub(crate) id: StoreId,
    pub(crate) table: Arc<Table>,
    /// Every segment that is part of the store; those without a footer on disk have one on the heap.
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    /// Segments whose footer is to be written, oldest first.
    pub(crate) unsealed: Vec<Arc<Segment>>,
    /// What the next record follows.
    pub(crate) chain: Shape,
    /// The log was durable up to here; an inspection judges nothing of what follows.
    pub(crate) durable: Lsn,
    pub(crate) next_file: u32,
    /// Runs with a lower number may have lost what was accepted and never acknowledged.
    pub(crate) unclean_before: u32,
    pub(crate) checkpoints: Checkpoints,
    /// Newer ones that cannot be believed: to be removed once there is one that can.
    pub(crate) bad_checkpoints: Vec<String>,
    /// What the mark file holds.
    pub(crate) marks: Vec<Mark>,
    /// The table was rebuilt from the log alone: no checkpoint was there that could be believed.
    pub(crate) rebuilt: bool,
    /// Nothing but `unused` shows that the run before did not end cleanly.
    pub(crate) last_witness: bool,
    /// Whole batches past the watermark, in order: to be re-persisted.
    pub(crate) tail: Vec<TailRecord>,
    /// Whether records that show in the files are no part of the log any more.
    pub(crate) cut: bool,
    /// Free files: number and length.
    pub(crate) free: Vec<(u32, u64)>,
    /// Log segments that hold no record of the log: they can be given back once the tail is durable.
    pub(crate) unused: Vec<RetiredFile>,
    /// Files that nothing needs, to be removed once the store is open.
    pub(crate) leftovers: Vec<String>,
    pub(crate) report: OpenReport,
}

/// Reads the store in `dir`; `None` if there is none.
pub(crate) fn recover(dir: &Dir, options: &Options, purpose: Purpose) -> Result<Option<Recovered>> {
    let began = Instant::now();
    let mut report = OpenReport::default();
    // Before the list, and that before the log: a running engine may go on beside an inspection.
    let mut marks = read_marks(dir)?;
    let mut listing = files::list(dir)?;
    let Some((mut header, checkpoint, info, unread)) = newest_checkpoint(dir, &listing, &mut report)? else {
        // A mark is all that a crash leaves of a store that was being made, and it proves nothing then.
        return match marks.iter().any(|mark| mark.durable > Lsn::ZERO) {
            true => Err(all_but_the_mark_is_missing(dir)),
            false => Ok(None),
        };
    };
    report.times.checkpoint = began.elapsed();

    let phase = Instant::now();
    let id = header.identity.store;
    let mut opened = files::open_segments(dir, options, &mut listing, &header, &mut report)?;
    if let Some(error) = missing_behind_its_footer(dir, &listing, &opened, &header) {
        judge::refuse(error, options, &mut report)?;
    }
    let is_marked = |marks: &[Mark]| marks.iter().any(|mark| mark.store == id);
    if !is_marked(&marks) && has_mark(&header, &listing) {
        // It is the first file of all, but an inspection may have looked before that was there.
        marks = read_marks(dir)?;
        if !is_marked(&marks) && !planted(Bug::MissingMarkUnheeded) {
            judge::refuse(mark_is_missing(dir), options, &mut report)?;
        }
    }
    let durable = known_durable(&header, &marks);
    let evidence = chain::Evidence { durable, marked: is_marked(&marks), unread };
    let chain = chain::follow(dir, &mut opened, &header, evidence, options, purpose, &mut report)?;
    let began_at = header.start_segment;
    header.start_segment = chain.gap.unwrap_or(began_at);
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
    let loaded = load(&table, checkpoint, &opened.segments, dir.path())?;
    let mut installed = Vec::new();
    if let Some(gap) = chain.gap {
        installed =
            replay(&table, opened.segments.range(began_at..gap), &opened.segments, true, &mut report)?;
        give_up_before_gap(&table, &opened.segments, gap, &mut report);
    }
    let rest = opened.segments.range(header.start_segment..);
    installed.extend(replay(&table, rest, &opened.segments, chain.gap.is_some(), &mut report)?);
    if report.accepted_loss {
        truncate_what_was_lost(&table, &mut report);
    }
    report.times.replay = phase.elapsed();

    let harmed = unsealable.into_iter().filter(|(segment, _)| segment.live_entries() > 0);
    report.damage.extend(harmed.map(|(_, e)| e));
    // What is gone and held nothing that lives had been given back: a crash undid no more than the
    // removal of its name from the list.
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
            listing.leftovers.push(segment.name());
            unsealed.retain(|s| s.id != id);
        }
    }
    let newest_file = opened.segments.keys().next_back().copied().unwrap_or(0).max(listing.highest);
    let unclean_before = unclean_before(&header, &opened.segments, &listing);
    let unused = take_unused(&mut opened.segments, &header);
    let is_log = |s: &Arc<Segment>| s.kind == FileKind::Log;
    let last_witness = header.unclean_before != Some(unclean_before)
        && !unused.is_empty()
        && !opened.segments.range(header.start_segment..).any(|(_, s)| is_log(s));
    unsealed.retain(|s| opened.segments.contains_key(&s.id));
    files::stray_footers(&mut listing, &opened.segments);
    // A checkpoint older than the two that are kept: its removal was lost in a crash.
    let serving = header.identity.file;
    let newer = listing.checkpoints.iter().filter(|s| **s > serving);
    let names = newer.map(|sequence| FileName::Checkpoint(*sequence).to_string());
    let bad_checkpoints = names.filter(|name| is_ours_and_bad(dir, name, id)).collect();
    let oldest = info.kept.front().map_or(0, |c| c.sequence);
    for &sequence in listing.checkpoints.iter().filter(|s| **s < oldest) {
        listing.leftovers.push(FileName::Checkpoint(sequence).to_string());
    }

    report.segments = opened.segments.len() as u64;
    report.regions = match report.replayed_segments {
        0 if chain.gap.is_none() => loaded,
        _ => table.count(),
    };
    report.foreign = std::mem::take(&mut listing.foreign);
    let next_file = header.next_file.max(newest_file.saturating_add(1));
    Ok(Some(Recovered {
        id,
        table,
        segments: opened.segments,
        unsealed,
        chain: chain.last,
        durable: chain.durable,
        next_file,
        unclean_before,
        marks,
        last_witness,
        rebuilt: is_rebuilt(&header),
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

/// Up to where the log is known to have been durable, before any of it is read: by the checkpoint, before
/// whose naming it was synced, and by the mark. The records' own watermarks are added as they are read.
fn known_durable(checkpoint: &CheckpointHeader, marks: &[Mark]) -> Lsn {
    let ours = marks.iter().filter(|mark| mark.store == checkpoint.identity.store);
    let marked = ours.map(|mark| mark.durable).max().filter(|_| !planted(Bug::MarkNotBelieved));
    checkpoint.synced.max(marked.unwrap_or(Lsn::ZERO))
}

/// Whether the store's mark has to be there, and to say how far the log reached: since format 3 it is made
/// before the first checkpoint. Of a store that was closed the checkpoint says that.
fn has_mark(checkpoint: &CheckpointHeader, listing: &Listing) -> bool {
    let closed = !listing.logs.iter().any(|id| *id >= checkpoint.start_segment)
        && listing.checkpoints.last() == Some(&checkpoint.identity.file);
    checkpoint.unclean_before.is_some() && !closed
}

fn all_but_the_mark_is_missing(dir: &Dir) -> Error {
    Error::damaged(
        "the store's log and checkpoints are missing, and its mark says that there was a log; put the files back, or remove the mark to \
         begin with an empty store",
    )
    .at(&dir.join(FileName::Mark.to_string()), None)
}

fn mark_is_missing(dir: &Dir) -> Error {
    Error::damaged(
        "the store was not closed, and its mark is missing or cannot be read: how far its log reached is not known, and segments may \
         be missing too; put the file back, or open with TailPolicy::AcceptLoss (`raftwood repair --accept-loss --apply`) if losing \
         the end of the log is acceptable",
    )
    .at(&dir.join(FileName::Mark.to_string()), None)
}

/// The number of the first run that no unclean end came after. A close leaves a checkpoint whose replay
/// begins past all segments. A segment, even an empty one, or a newer checkpoint that is no good, says that
/// the run after it was not closed: a batch is accepted only once the name of its segment is durable.
fn unclean_before(
    checkpoint: &CheckpointHeader,
    segments: &BTreeMap<u32, Arc<Segment>>,
    listing: &Listing,
) -> u32 {
    let replayed = segments.range(checkpoint.start_segment..).any(|(_, s)| s.kind == FileKind::Log);
    let newer = listing.checkpoints.iter().any(|sequence| *sequence > checkpoint.identity.file);
    match checkpoint.unclean_before {
        Some(before) if !replayed && !newer => before,
        _ => checkpoint.next_file.max(listing.highest.saturating_add(1)),
    }
}

/// Takes out the log segments that were prepared and hold nothing, or nothing but what was cut off. Those
/// that the checkpoint names stay until the next one does not.
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
            // Bytes that were accepted and never acknowledged may have been handed out by an engine
            // of this process.
            let mut scanner = Scanner::new(&*s.file, &s.path, &s.identity, s.len);
            let blank = scanner.read(u64::from(FIRST_RECORD), 512).is_ok_and(|b| b.iter().all(|b| *b == 0));
            RetiredFile {
                name: s.name(),
                len: s.len,
                salt: s.identity.salt,
                recyclable: blank,
                map: None,
                has_footer: false,
            }
        })
        .collect()
}

/// What there is of checkpoints: the header and the file of the one that serves, those to keep, and
/// why another could not be read.
type Serving = (CheckpointHeader, Bytes, Checkpoints, Option<Error>);

/// The newest checkpoint that can be believed, read through once. `None` in a directory without a store.
fn newest_checkpoint(dir: &Dir, listing: &Listing, report: &mut OpenReport) -> Result<Option<Serving>> {
    let mut reasons: Vec<String> = Vec::new();
    let mut unread: Option<Error> = None;
    let mut proofs = Vec::new();
    for &sequence in listing.checkpoints.iter().rev() {
        let name = FileName::Checkpoint(sequence).to_string();
        let path = dir.join(&name);
        // The device is asked twice: it may have been the cable.
        let read = || crate::vfs::io::read_file(&**dir, &name).map(Bytes::from);
        let failed = |e| Error::io("reading a checkpoint", &path, e);
        let outcome = match read().or_else(|_| read()) {
            // A lack of descriptors or permissions says nothing of its bytes: an older one is no
            // answer to that.
            Err(e) if !is_lost(&e) => return Err(failed(e)),
            read => read.map_err(failed),
        };
        let outcome = outcome.map(|bytes| {
            let header = read_checkpoint(&bytes, |_| Ok(()));
            if header.is_err() {
                proofs.extend(read_proof(&bytes).filter(|p| p.identity.file == sequence));
            }
            (header, bytes)
        });
        match outcome {
            Ok((Ok(mut header), bytes)) if header.identity.file == sequence => {
                report.checkpoint = sequence;
                report.bad_checkpoints = reasons.len() as u64;
                // A newer one that is rotten knew of files that this one does not, and that may be gone: the
                // end of the log must not be mistaken for where they began.
                let ours = proofs.iter().filter(|p| p.identity.store == header.identity.store);
                header.synced = ours.fold(header.synced, |synced, p| synced.max(p.synced));
                let info = kept(listing, &header, bytes.len() as u64);
                return Ok(Some((header, bytes, info, None)));
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
            Err(e) => {
                reasons.push(e.to_string());
                unread.get_or_insert(e);
            }
        }
    }
    if listing.is_fresh() {
        return Ok(None);
    }
    for &sequence in listing.checkpoints.iter().rev() {
        let Ok(bytes) = read_file(dir, &FileName::Checkpoint(sequence).to_string()) else {
            continue;
        };
        if let Some((header, bytes)) = mend_checkpoint(&bytes).filter(|c| c.0.identity.file == sequence) {
            report.checkpoint = sequence;
            report.bad_checkpoints = reasons.len() as u64;
            report.mended_records += 1;
            let info = kept(listing, &header, bytes.len() as u64);
            return Ok(Some((header, bytes, info, None)));
        }
    }
    let unread = unread.filter(|_| !planted(Bug::UnreadIsDamaged));
    let why = match reasons.is_empty() {
        true => "there is none".to_string(),
        false => reasons.join("; "),
    };
    if let Some(store) = files::store_of_all_segments(dir, listing) {
        report.bad_checkpoints = reasons.len() as u64;
        let ours = proofs.iter().filter(|p| p.identity.store == store);
        let header = CheckpointHeader {
            identity: Identity { store, file: NO_CHECKPOINT, salt: 0 },
            start_segment: FIRST_SEGMENT,
            synced: ours.map(|p| p.synced).max().unwrap_or(Lsn::ZERO),
            next_file: listing.highest.saturating_add(1),
            unclean_before: None,
            regions: 0,
            segments: Vec::new(),
        };
        let next_sequence = listing.checkpoints.last().map_or(1, |newest| newest.saturating_add(1));
        let checkpoints = Checkpoints { next_sequence, kept: VecDeque::new() };
        return Ok(Some((header, Bytes::new(), checkpoints, unread)));
    }
    if let Some(e) = unread {
        return Err(e);
    }
    Err(Error::damaged(format!(
        "no checkpoint of the store can be believed: {why}; run `raftwood check`, and restore the directory from a backup \
         or let the node join anew"
    ))
    .at(dir.path(), None))
}

/// Stands in for the number of a checkpoint where there is none, and the table is rebuilt from
/// the log alone: see [`chain`].
const NO_CHECKPOINT: u32 = 0;

/// The first segment that a store ever has.
const FIRST_SEGMENT: u32 = 1;

/// Whether the log is all that there is.
fn is_rebuilt(header: &CheckpointHeader) -> bool {
    header.identity.file == NO_CHECKPOINT
}

/// Whether a checkpoint that was passed over is one of this store's. One without a header that makes sense
/// bears a name that only this store gives.
fn is_ours_and_bad(dir: &Dir, name: &str, id: StoreId) -> bool {
    let Ok(bytes) = read_file(dir, name) else { return false };
    FileHeader::decode(&bytes).map_or_else(
        |e| matches!(e, HeaderError::Malformed(_)),
        |header| header.identity.store == id && read_checkpoint(&bytes, |_| Ok(())).is_err(),
    )
}

/// The checkpoint with one bit of its headers flipped back, if that makes it right. A young store has but
/// one, and nothing in it but headers. Magic, lengths and all checksums of the chunks have to agree.
fn mend_checkpoint(bytes: &Bytes) -> Option<(CheckpointHeader, Bytes)> {
    let mut tried = bytes.to_vec();
    for bit in 0..CHECKPOINT_HEADERS_LEN.min(tried.len()) * 8 {
        tried[bit / 8] ^= 1 << (bit % 8);
        if let Ok(header) = read_checkpoint(&tried, |_| Ok(())) {
            return Some((header, tried.into()));
        }
        tried[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

/// The checkpoints to keep from here on. Those before the chosen are known by name only, so nothing that
/// their replay might need is purged before they have been replaced.
fn kept(listing: &Listing, header: &CheckpointHeader, bytes: u64) -> Checkpoints {
    let sequence = header.identity.file;
    let older = listing.checkpoints.iter().rev().filter(|s| **s < sequence).take(CHECKPOINTS_KEPT - 1);
    let mut kept: VecDeque<CheckpointInfo> = older
        .map(|&before| CheckpointInfo {
            sequence: before,
            start_segment: 0,
            accepted: Lsn::ZERO,
            bytes: listing.checkpoint_bytes.get(&before).copied().unwrap_or(0),
            log_bytes: 0,
        })
        .collect();
    kept.make_contiguous().reverse();
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

/// Whether a read failed because the device cannot give the bytes, or does not have them.
fn is_lost(e: &std::io::Error) -> bool {
    e.raw_os_error() == Some(EIO)
        || matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof)
}

/// A small file as a whole.
fn read_file(dir: &Dir, name: &str) -> Result<Bytes> {
    let bytes = crate::vfs::io::read_file(&**dir, name);
    bytes.map(Bytes::from).map_err(|e| Error::io("reading a file", &dir.join(name), e))
}

/// Finds a log whose segment is gone while its footer is there: what nothing else names was acknowledged all
/// the same. A segment is given back only once no replay needs it.
fn missing_behind_its_footer(
    dir: &Dir,
    listing: &Listing,
    opened: &files::Opened,
    checkpoint: &CheckpointHeader,
) -> Option<Error> {
    let replayed = listing.footers.iter().filter(|id| **id >= checkpoint.start_segment);
    for &id in replayed.filter(|id| !opened.segments.contains_key(id)) {
        let Ok(bytes) = read_file(dir, &FileName::Footer(id).to_string()) else { continue };
        let Ok(header) = FileHeader::decode(&bytes) else { continue };
        let ours = header.identity.store == checkpoint.identity.store && header.identity.file == id;
        let Some(footer) = Footer::open(bytes, &header.identity).ok().filter(|_| ours) else { continue };
        // A cold segment has no operations, and goes when it is dead.
        if footer.has_deltas().is_ok_and(|any| any) {
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
pub(super) fn footer_on_disk(dir: &Dir, segment: &Segment) -> Option<Arc<Footer>> {
    load_footer(dir, segment)
}

/// Fills the table with the regions of a checkpoint that was read through before, and returns how many of
/// them exist. Without one there are none.
fn load(table: &Table, checkpoint: Bytes, segments: &BTreeMap<u32, Arc<Segment>>, dir: &Path) -> Result<u64> {
    if checkpoint.is_empty() {
        return Ok(0);
    }
    let regions = read_proof(&checkpoint).map_or(0, |proof| proof.regions);
    // A record of a region takes at least seven bytes.
    table.reserve(regions.min(checkpoint.len() as u64 / 7) as usize);
    let (mut refused, mut existing) = (None, 0);
    let read = read_checkpoint(&checkpoint, |view| {
        existing += u64::from(view.exists);
        load_region(table, &view, segments, dir).map_err(|e| {
            refused = Some(e);
            Malformed("a region is inconsistent")
        })
    });
    match (refused, read) {
        (Some(e), _) => Err(e),
        (None, Err(e)) => Err(Error::damaged(format!("the checkpoint is damaged: {e}")).at(dir, None)),
        (None, Ok(_)) => Ok(existing),
    }
}

fn load_region(
    table: &Table,
    view: &RegionView<'_>,
    segments: &BTreeMap<u32, Arc<Segment>>,
    dir: &Path,
) -> Result<()> {
    let mut state = RegionState::default();
    for (key, value) in view.kv.clone() {
        state.put(&Bytes::copy_from_slice(key), &Bytes::copy_from_slice(value));
    }
    state.exists = view.exists;
    state.set_incarnation(view.incarnation);
    state.base = view.base;
    state.hard_state = view.hard_state.map(Value::from);
    state.touched = Lsn::new(view.as_of, 0);
    let mut damage = Damage { hard_state_lost: view.hard_state_lost, ..Damage::default() };
    if view.damage.len() + view.suspect.len() > 0 {
        damage.proven = view.damage.clone().collect();
        damage.suspect = view.suspect.clone().collect();
    }
    state.extents.reserve(view.extents.len());
    for extent in view.extents.clone() {
        let last = extent.first + (extent.count - 1);
        let Some(segment) = segments.get(&extent.segment) else {
            return Err(Error::damaged(format!(
                "the checkpoint names segment {} for entries {}..={last}, and does not list it",
                extent.segment, extent.first
            ))
            .in_region(view.region)
            .naming(extent.first..=last)
            .at(dir, None));
        };
        if segment.is_lost {
            damage.proven.insert(extent.first, last);
        }
        state.extents.push(Extent::sealed(&extent, segment));
    }
    state.damage = Some(damage).filter(|d| !d.is_none()).map(Box::new);
    makes_sense(&state, view.region, dir)?;
    match table.insert(view.region, state) {
        true => Ok(()),
        false => {
            Err(Error::damaged("the checkpoint has the region twice").in_region(view.region).at(dir, None))
        }
    }
}

/// Refuses a region whose parts do not go together. Found by fuzzing, with checksums that were right.
fn makes_sense(state: &RegionState, region: RegionId, path: &Path) -> Result<()> {
    state.check().map_err(|e| {
        Error::damaged(format!("the log of the region is inconsistent: {e}; run `raftwood check`"))
            .in_region(region)
            .at(path, None)
    })
}

/// A checkpoint may know of entries in records past the place where the log was ended.
fn truncate_what_was_lost(table: &Table, report: &mut OpenReport) {
    for cell in table.cells() {
        let mut state = cell.write();
        let gone = |e: &Stretch<'_>| {
            !e.segment().is_lost && (e.first()..=e.last()).any(|i| !e.is_listed(cell.id, i))
        };
        let Some(extent) = state.extents.iter().find(gone) else { continue };
        let mut indexes = extent.first()..=extent.last();
        let (Some(first), Some(last)) = (indexes.find(|i| !extent.is_listed(cell.id, *i)), state.last())
        else {
            continue;
        };
        let error = Error::damaged(format!("entries {first}..={last} are gone with the end of the log"));
        report.damage.push(error.in_region(cell.id).naming(first..=last).at(&extent.segment().path, None));
        state.truncate_from(first);
    }
}

/// Gives up what stood before a gap of the log that the caller accepted: what is gone with it may have rolled
/// entries back, or destroyed their region. Of entries that the cleaner moved, the regions alone are kept.
/// That all hard states are lost is noted once the store is open.
fn give_up_before_gap(
    table: &Table,
    segments: &BTreeMap<u32, Arc<Segment>>,
    gap: u32,
    report: &mut OpenReport,
) {
    for cell in table.cells() {
        let mut state = cell.write();
        if let (Some(first), Some(last), Some(extent)) = (state.first(), state.last(), state.extents.first())
        {
            let error = Error::damaged(format!(
                "entries {first}..={last} stand before a gap of the log, which ends at segment {gap}: they may have been taken back \
                 since, and are given up; reset the region, or let the replica join anew"
            ));
            report
                .damage
                .push(error.in_region(cell.id).naming(first..=last).at(&extent.segment().path, None));
            state.give_up();
        }
    }
    for segment in segments.values().filter(|s| s.kind == FileKind::Cold) {
        let Some(footer) = segment.footer() else { continue };
        for range in footer.ranges() {
            let cell = table.get_or_create(range.region());
            let mut state = cell.write();
            let known = state.last().or(state.base.map(|base| base.index));
            if state.touched == Lsn::ZERO && known.is_none_or(|known| known < range.last()) {
                state.reset(EntryId::new(0, range.last()));
            }
        }
    }
}

/// Applies the log segments of `part`. With `gaps`, some before them may be gone. Returns the cold
/// segments that install records named.
fn replay<'a>(
    table: &Table,
    part: impl Iterator<Item = (&'a u32, &'a Arc<Segment>)>,
    segments: &BTreeMap<u32, Arc<Segment>>,
    gaps: bool,
    report: &mut OpenReport,
) -> Result<Vec<u32>> {
    let mut installed = Vec::new();
    for segment in part.map(|(_, s)| s).filter(|s| s.kind == FileKind::Log) {
        let Some(footer) = segment.footer() else { continue };
        let bad = |e: Malformed| {
            Error::damaged(format!("the footer of the segment is damaged: {e}")).at(&segment.path, None)
        };
        report.replayed_segments += 1;
        let only_one = planted(Bug::OnlyFirstRegionReplayed);
        let mut first = true;
        let replayed = footer.each_delta(|delta| {
            if only_one && !std::mem::take(&mut first) {
                return Ok(());
            }
            replay_delta(table, &delta, segment, gaps).map_err(Replayed::Refused)
        });
        replayed.map_err(|e| match e {
            Replayed::Refused(e) => e,
            Replayed::Malformed(e) => bad(e),
        })?;
        for install in footer.installs().map_err(bad)? {
            installed.push(install.cold);
            // Gone again already: then nothing refers to its sources any more either.
            if let Some(cold) = segments.get(&install.cold) {
                table.relocate(cold, &install.sources);
            }
        }
    }
    Ok(installed)
}

/// Why replay ended.
enum Replayed {
    Malformed(Malformed),
    Refused(Error),
}

impl From<Malformed> for Replayed {
    fn from(e: Malformed) -> Replayed {
        Replayed::Malformed(e)
    }
}

fn replay_delta(table: &Table, delta: &RegionDelta, segment: &Arc<Segment>, gaps: bool) -> Result<()> {
    let cell = table.get_or_create(delta.region);
    let mut state = cell.write();
    // Captured in a later segment: this one is in it.
    if state.touched.segment() > segment.id {
        return Ok(());
    }
    if gaps {
        state.yield_base(delta);
    }
    state.apply_delta(delta, segment);
    if gaps {
        state.close_gap();
    }
    makes_sense(&state, delta.region, &segment.path)?;
    state.touched = Lsn::new(segment.id, segment.sealed_end());
    Ok(())
}
