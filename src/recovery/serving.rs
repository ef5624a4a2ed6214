//! Which checkpoint serves, and what it says of the log before any of it is read.

use super::Unrecovered;
use super::files::Listing;
use super::recognise::store_of_all_segments;
use crate::checkpoint::{CHECKPOINTS_KEPT, CheckpointInfo, Kept};
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{
    CHECKPOINT_HEADERS_LEN, CheckpointError, CheckpointHeader, Proof, read_checkpoint, read_proof,
};
use crate::format::file_header::{FileHeader, HeaderError, Identity, StoreId};
use crate::format::mark::Mark;
use crate::format::names::FileName;
use crate::planted::{Bug, planted};
use crate::report::OpenReport;
use crate::types::Lsn;
use crate::vfs::Dir;
use crate::vfs::meaning::Unread;
use bytes::Bytes;
use std::collections::VecDeque;

/// The checkpoint that serves.
pub(super) struct Serving {
    pub(super) header: CheckpointHeader,
    /// Its file; empty if the log is all that there is.
    pub(super) bytes: Bytes,
    pub(super) kept: Kept,
    /// Why another could not be read.
    pub(super) unread: Option<Error>,
}

/// The newest checkpoint that can be believed, read through once; without one, one of which a single bit has
/// flipped; and where only the segments are left, what stands in for one. `None` in a directory without a
/// store.
pub(super) fn choose(
    dir: &Dir,
    listing: &Listing,
    report: &mut OpenReport,
) -> Result<Option<Serving>, Unrecovered> {
    let mut passed = PassedOver::default();
    let right = newest_right(dir, listing, &mut passed)?;
    if right.is_none() && listing.is_fresh() {
        return Ok(None);
    }
    let mended = || {
        let mended = newest_mended(dir, listing)?;
        report.mended_records += 1;
        Some(mended)
    };
    if let Some(serving) = right.or_else(mended) {
        report.checkpoint = serving.header.identity.file;
        report.bad_checkpoints = passed.reasons.len() as u64;
        return Ok(Some(serving));
    }
    let unread = passed.unread.take().filter(|_| !planted(Bug::UnreadIsDamaged));
    if let Some(store) = store_of_all_segments(dir, listing) {
        report.bad_checkpoints = passed.reasons.len() as u64;
        return Ok(Some(Serving { unread, ..stand_in(listing, store, passed.synced(store)) }));
    }
    Err(unread.map_or_else(|| Unrecovered::Damaged(passed.error(dir)), Unrecovered::Failed))
}

/// Checkpoints that cannot be believed.
#[derive(Default)]
struct PassedOver {
    /// Why, for each of them.
    reasons: Vec<String>,
    /// The first that the device did not give.
    unread: Option<Error>,
    /// What is left of them, and right.
    proofs: Vec<Proof>,
}

impl PassedOver {
    /// Up to where they say that the log is on the device.
    fn synced(&self, store: StoreId) -> Lsn {
        let ours = self.proofs.iter().filter(|p| p.identity.store == store);
        ours.map(|p| p.synced).max().unwrap_or(Lsn::ZERO)
    }

    fn error(&self, dir: &Dir) -> Error {
        let why = match self.reasons.is_empty() {
            true => "there is none".to_string(),
            false => self.reasons.join("; "),
        };
        Error::damaged(format!(
            "no checkpoint of the store can be believed: {why}; run `raftwood check`, and restore the directory from a \
             backup or let the node join anew"
        ))
        .at(dir.path(), None)
    }
}

fn newest_right(dir: &Dir, listing: &Listing, passed: &mut PassedOver) -> Result<Option<Serving>> {
    for &sequence in listing.checkpoints.iter().rev() {
        let name = FileName::Checkpoint(sequence).to_string();
        let path = dir.join(&name);
        // The device is asked twice: it may have been the cable.
        let read = || crate::vfs::io::read_file(&**dir, &name).map(Bytes::from);
        let failed = |e| Error::io("reading a checkpoint", &path, e);
        let bytes = match read().or_else(|_| read()).map_err(Unread::from) {
            Ok(bytes) => bytes,
            Err(Unread::Lost(e)) => {
                let e = failed(e);
                passed.reasons.push(e.to_string());
                passed.unread.get_or_insert(e);
                continue;
            }
            // A lack of descriptors or permissions says nothing of its bytes: an older one is no
            // answer to that.
            Err(Unread::Failed(e)) => return Err(failed(e)),
        };
        match read_checkpoint(&bytes, |_| Ok(())) {
            Ok(mut header) if header.identity.file == sequence => {
                // A newer one that is rotten knew of files that this one does not, and that may be gone: the
                // end of the log must not be mistaken for where they began.
                header.synced = header.synced.max(passed.synced(header.identity.store));
                let kept = to_keep(listing, &header, bytes.len() as u64);
                return Ok(Some(Serving { header, bytes, kept, unread: None }));
            }
            Ok(_) => passed.reasons.push(format!("{}: it belongs under another name", path.display())),
            Err(CheckpointError::Header(
                e @ (HeaderError::NewerVersion(_) | HeaderError::UnknownFlags(_)),
            )) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the store was written by a newer release: {e}; open it with that release"),
                )
                .at(&path, None));
            }
            Err(e) => {
                passed.proofs.extend(read_proof(&bytes).filter(|p| p.identity.file == sequence));
                passed.reasons.push(format!("{}: {e}", path.display()));
            }
        }
    }
    Ok(None)
}

fn newest_mended(dir: &Dir, listing: &Listing) -> Option<Serving> {
    listing.checkpoints.iter().rev().find_map(|&sequence| {
        let bytes = read_file(dir, &FileName::Checkpoint(sequence).to_string()).ok()?;
        let (header, bytes) = mend_checkpoint(&bytes).filter(|c| c.0.identity.file == sequence)?;
        let kept = to_keep(listing, &header, bytes.len() as u64);
        Some(Serving { header, bytes, kept, unread: None })
    })
}

/// For a store of which the segments are left: it begins with its first one, and is empty.
fn stand_in(listing: &Listing, store: StoreId, synced: Lsn) -> Serving {
    let header = CheckpointHeader {
        identity: Identity { store, file: NO_CHECKPOINT, salt: 0 },
        start_segment: FIRST_SEGMENT,
        synced,
        next_file: listing.highest.saturating_add(1),
        unclean_before: None,
        regions: 0,
        segments: Vec::new(),
    };
    let next_sequence = listing.checkpoints.last().map_or(1, |newest| newest.saturating_add(1));
    let kept = Kept { next_sequence, list: VecDeque::new() };
    Serving { header, bytes: Bytes::new(), kept, unread: None }
}

/// Stands in for the number of a checkpoint where there is none, and the table is rebuilt from
/// the log alone: see [`chain`](super::chain).
const NO_CHECKPOINT: u32 = 0;

/// The first segment that a store ever has.
pub(super) const FIRST_SEGMENT: u32 = 1;

/// Whether the log is all that there is.
pub(super) fn is_rebuilt(header: &CheckpointHeader) -> bool {
    header.identity.file == NO_CHECKPOINT
}

/// Up to where the log is known to have been durable, before any of it is read: by the checkpoint, before
/// whose naming it was synced, and by the mark. The records' own watermarks are added as they are read.
pub(super) fn known_durable(checkpoint: &CheckpointHeader, marks: &[Mark]) -> Lsn {
    let ours = marks.iter().filter(|mark| mark.store == checkpoint.identity.store);
    let marked = ours.map(|mark| mark.durable).max().filter(|_| !planted(Bug::MarkNotBelieved));
    checkpoint.synced.max(marked.unwrap_or(Lsn::ZERO))
}

/// Whether the store was closed: nothing is to be replayed, and the checkpoint is the newest.
pub(super) fn is_closed(checkpoint: &CheckpointHeader, listing: &Listing) -> bool {
    !listing.logs.iter().any(|id| *id >= checkpoint.start_segment)
        && listing.checkpoints.last() == Some(&checkpoint.identity.file)
}

/// Whether the store's mark has to be there, and to say how far the log reached: since format 3 it is made
/// before the first checkpoint. Of a store that was closed the checkpoint says that.
pub(super) fn has_mark(checkpoint: &CheckpointHeader, listing: &Listing) -> bool {
    checkpoint.unclean_before.is_some() && !is_closed(checkpoint, listing)
}

pub(super) fn all_but_the_mark_is_missing(dir: &Dir) -> Error {
    Error::damaged(
        "the store's log and checkpoints are missing, and its mark says that there was a log; put the files back, or remove the mark to \
         begin with an empty store",
    )
    .at(&dir.join(FileName::Mark.to_string()), None)
}

pub(super) fn mark_is_missing(dir: &Dir) -> Error {
    Error::damaged(
        "the store was not closed, and its mark is missing or cannot be read: how far its log reached is not known, and segments may \
         be missing too; put the file back, or open with TailPolicy::AcceptLoss (`raftwood repair --accept-loss --apply`) if losing \
         the end of the log is acceptable",
    )
    .at(&dir.join(FileName::Mark.to_string()), None)
}

/// Whether a checkpoint that was passed over is one of this store's. One without a header that can be read
/// bears a name that only this store gives.
pub(super) fn is_ours_and_bad(dir: &Dir, name: &str, id: StoreId) -> bool {
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
fn to_keep(listing: &Listing, header: &CheckpointHeader, bytes: u64) -> Kept {
    let sequence = header.identity.file;
    let older = listing.checkpoints.iter().rev().filter(|s| **s < sequence).take(CHECKPOINTS_KEPT - 1);
    let mut list: VecDeque<CheckpointInfo> = older
        .map(|&before| CheckpointInfo {
            sequence: before,
            start_segment: 0,
            accepted: Lsn::ZERO,
            bytes: listing.checkpoint_bytes.get(&before).copied().unwrap_or(0),
            log_bytes: 0,
        })
        .collect();
    list.make_contiguous().reverse();
    list.push_back(CheckpointInfo {
        sequence,
        start_segment: header.start_segment,
        accepted: Lsn::new(header.start_segment, 0),
        bytes,
        log_bytes: 0,
    });
    let newest = listing.checkpoints.last().copied().unwrap_or(sequence);
    Kept { next_sequence: newest.max(sequence).saturating_add(1), list }
}

/// A small file as a whole.
pub(super) fn read_file(dir: &Dir, name: &str) -> Result<Bytes> {
    let bytes = crate::vfs::io::read_file(&**dir, name);
    bytes.map(Bytes::from).map_err(|e| Error::io("reading a file", &dir.join(name), e))
}
