//! Bytes to region table.

use super::{
    CHECKPOINT_HEADERS_LEN, CHECKPOINT_MAGIC, CheckpointError, CheckpointHeader, RegionView, SegmentRecord,
    chunk_crc,
};
use crate::codec::checksum::crc32;
use crate::codec::{Cursor, Malformed};
use crate::format::file_header::{FILE_HEADER_LEN, FileHeader, FileKind, Identity};
use crate::planted::{Bug, planted};
use crate::types::Lsn;

/// Reads a checkpoint and hands each region to `each`, in the order in which they were written.
///
/// All checksums are verified before the first region is handed out. A body that is malformed although its
/// checksums are right, which no writer of ours makes, is an error too, but regions before the fault were
/// handed out already: drop them.
pub(crate) fn read_checkpoint(
    bytes: &[u8],
    mut each: impl FnMut(RegionView<'_>) -> Result<(), Malformed>,
) -> Result<CheckpointHeader, CheckpointError> {
    let file = FileHeader::decode(bytes).map_err(CheckpointError::Header)?;
    if file.kind != FileKind::Checkpoint {
        return Err(Malformed("the file is not a checkpoint").into());
    }
    if file.len != bytes.len() as u64 {
        return Err(Malformed("the checkpoint is not as long as it should be").into());
    }
    let seed = file.identity.seed();
    let (fixed, body) = bytes
        .split_at_checked(CHECKPOINT_HEADERS_LEN)
        .ok_or(Malformed("the checkpoint is too short for its headers"))?;
    let fixed = Fixed::decode(fixed.get(FILE_HEADER_LEN..).unwrap_or_default(), seed, file.version)?;
    let mut chunks = verified_chunks(body, seed, &fixed)?.into_iter();

    // A segment takes at least four bytes of the body.
    if fixed.segments > body.len() as u64 / 4 {
        return Err(Malformed("a count exceeds what the bytes left can hold").into());
    }
    let mut r = Cursor::new(&[]);
    let mut segments = Vec::new();
    for _ in 0..fixed.segments {
        segments.push(SegmentRecord::read(next_record(&mut r, &mut chunks)?)?);
    }
    for _ in 0..fixed.regions {
        each(RegionView::read(next_record(&mut r, &mut chunks)?)?)?;
    }
    r.finish()?;
    if chunks.next().is_some() {
        return Err(Malformed("chunks are left after the last region").into());
    }
    Ok(CheckpointHeader {
        identity: file.identity,
        start_segment: fixed.start_segment,
        synced: fixed.synced,
        next_file: fixed.next_file,
        unclean_before: fixed.unclean_before,
        regions: fixed.regions,
        segments,
    })
}

/// What a checkpoint whose body cannot be believed still proves, if its headers can be.
pub(crate) struct Proof {
    pub(crate) identity: Identity,
    /// Up to where the log was durable before it got its name.
    pub(crate) synced: Lsn,
    /// How many regions it says that it has.
    pub(crate) regions: u64,
}

/// What the headers of a checkpoint say.
pub(crate) fn read_proof(bytes: &[u8]) -> Option<Proof> {
    let file = FileHeader::decode(bytes).ok().filter(|f| f.kind == FileKind::Checkpoint)?;
    let fixed = bytes.get(FILE_HEADER_LEN..CHECKPOINT_HEADERS_LEN)?;
    let fixed = Fixed::decode(fixed, file.identity.seed(), file.version).ok()?;
    Some(Proof { identity: file.identity, synced: fixed.synced, regions: fixed.regions })
}

/// The reader of the chunk that the next record starts in.
fn next_record<'r, 'a>(
    r: &'r mut Cursor<'a>,
    chunks: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<&'r mut Cursor<'a>, Malformed> {
    if r.remaining() == 0 {
        *r = Cursor::new(chunks.next().ok_or(Malformed("the checkpoint holds fewer records than it says"))?);
    }
    Ok(r)
}

/// The records of each chunk, after every checksum was found right.
fn verified_chunks<'a>(body: &'a [u8], seed: u32, fixed: &Fixed) -> Result<Vec<&'a [u8]>, Malformed> {
    if fixed.body_len != body.len() as u64 {
        return Err(Malformed("the checkpoint's body is not as long as it should be"));
    }
    let mut r = Cursor::new(body);
    let mut chunks = Vec::new();
    let mut chunks_crc = 0;
    for ordinal in 0..fixed.chunks {
        let (len, stored_ordinal, crc) = (r.u64()?, r.u32()?, r.u32()?);
        let records =
            r.bytes(usize::try_from(len).map_err(|_| Malformed("a chunk is longer than memory"))?)?;
        let right = crc == chunk_crc(seed, len, ordinal, records) || planted(Bug::CheckpointNotVerified);
        if records.is_empty() || stored_ordinal != ordinal || !right {
            return Err(Malformed("the checksum of a chunk is wrong"));
        }
        chunks_crc = crc32(chunks_crc, &crc.to_le_bytes());
        chunks.push(records);
    }
    r.finish()?;
    if chunks_crc != fixed.chunks_crc {
        return Err(Malformed("the chunks are not those that the checkpoint was written with"));
    }
    Ok(chunks)
}

/// The checkpoint header proper.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    start_segment: u32,
    next_file: u32,
    synced: Lsn,
    regions: u64,
    segments: u64,
    body_len: u64,
    chunks: u32,
    chunks_crc: u32,
    unclean_before: Option<u32>,
}

impl Fixed {
    fn decode(bytes: &[u8], seed: u32, version: u32) -> Result<Fixed, Malformed> {
        let mut r = Cursor::new(bytes);
        if r.array()? != CHECKPOINT_MAGIC {
            return Err(Malformed("the checkpoint's header has a bad magic"));
        }
        let crc = r.u32()?;
        let mut r = Cursor::new(r.bytes(r.remaining())?);
        if crc != crc32(seed, r.clone().bytes(r.remaining())?) {
            return Err(Malformed("the checksum of the checkpoint's header is wrong"));
        }
        let fixed = Fixed {
            start_segment: r.u32()?,
            next_file: r.u32()?,
            synced: Lsn::from_u64(r.u64()?),
            regions: r.u64()?,
            segments: r.u64()?,
            body_len: r.u64()?,
            chunks: r.u32()?,
            chunks_crc: r.u32()?,
            unclean_before: (version >= 3).then(|| r.u32()).transpose()?,
        };
        if r.bytes(r.remaining())?.iter().any(|b| *b != 0) {
            return Err(Malformed("reserved bytes of the checkpoint's header are not zero"));
        }
        Ok(fixed)
    }
}
