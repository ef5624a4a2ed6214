//! Which checkpoint serves, and what it says of the log before any of it is read.

use super::files::{Listing, store_of_all_segments};
use crate::checkpoint::{CHECKPOINTS_KEPT, CheckpointInfo, Kept};
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{
    CHECKPOINT_HEADERS_LEN, CheckpointError, CheckpointHeader, read_checkpoint, read_proof,
};
use crate::format::file_header::{FileHeader, HeaderError, Identity, StoreId};
use crate::format::mark::Mark;
use crate::format::names::FileName;
use crate::planted::{Bug, planted};
use crate::report::OpenReport;
use crate::segment::EIO;
use crate::types::Lsn;
use crate::vfs::Dir;
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

/// The newest checkpoint that can be believed, read through once. `None` in a directory without a store.
pub(super) fn choose(dir: &Dir, listing: &Listing, report: &mut OpenReport) -> Result<Option<Serving>> {
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
                let info = to_keep(listing, &header, bytes.len() as u64);
                return Ok(Some(Serving { header, bytes, kept: info, unread: None }));
            }
            Ok((
                Err(CheckpointError::Header(
                    e @ (HeaderError::NewerVersion(_) | HeaderError::UnknownFlags(_)),
                )),
                _,
            )) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
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
            let info = to_keep(listing, &header, bytes.len() as u64);
            return Ok(Some(Serving { header, bytes, kept: info, unread: None }));
        }
    }
    let unread = unread.filter(|_| !planted(Bug::UnreadIsDamaged));
    let why = match reasons.is_empty() {
        true => "there is none".to_string(),
        false => reasons.join("; "),
    };
    if let Some(store) = store_of_all_segments(dir, listing) {
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
        let kept = Kept { next_sequence, list: VecDeque::new() };
        return Ok(Some(Serving { header, bytes: Bytes::new(), kept, unread }));
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

/// Whether the store's mark has to be there, and to say how far the log reached: since format 3 it is made
/// before the first checkpoint. Of a store that was closed the checkpoint says that.
pub(super) fn has_mark(checkpoint: &CheckpointHeader, listing: &Listing) -> bool {
    let closed = !listing.logs.iter().any(|id| *id >= checkpoint.start_segment)
        && listing.checkpoints.last() == Some(&checkpoint.identity.file);
    checkpoint.unclean_before.is_some() && !closed
}

/// Whether a checkpoint that was passed over is one of this store's. One without a header that makes sense
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

/// Whether a read failed because the device cannot give the bytes, or does not have them.
fn is_lost(e: &std::io::Error) -> bool {
    e.raw_os_error() == Some(EIO)
        || matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof)
}

/// A small file as a whole.
pub(super) fn read_file(dir: &Dir, name: &str) -> Result<Bytes> {
    let bytes = crate::vfs::io::read_file(&**dir, name);
    bytes.map(Bytes::from).map_err(|e| Error::io("reading a file", &dir.join(name), e))
}
