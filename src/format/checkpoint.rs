//! A checkpoint: the region table as of one point of the log.
//!
//! ```text
//!   file header | checkpoint header | chunk | chunk | ...       chunk: length | ordinal | checksum | records
//!       128             128
//! ```
//!
//! The body is a row of chunks of about 1 MiB, so that a table of a million regions is streamed to its file and never
//! held twice. The headers are written last, over the zeros that stand in their place until then: a file whose writing
//! did not finish has no header and is no checkpoint.
//!
//! - A record never spans two chunks. Segments come first, then regions, in any order.
//! - The checkpoint header holds the number of chunks, their total length and a checksum over their checksums: no
//!   chunk can be missing, doubled or of another file.
//! - Reading verifies the whole body before it hands out the first region.

use crate::codec::checksum::crc32;
use crate::codec::varint::put_varint;
use crate::codec::{Malformed, Reader};
use crate::format::file_header::{FILE_HEADER_LEN, FileHeader, FileKind, HeaderError, Identity};
use crate::limits::{INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;

/// What a checkpoint says about the store as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CheckpointHeader {
    /// The store, the number of the checkpoint, and its salt.
    pub(crate) identity: Identity,
    /// Replay starts with this log segment: the effects of earlier ones are in the table.
    pub(crate) start_segment: u32,
    /// The log was durable up to here before the checkpoint became valid.
    pub(crate) synced: Lsn,
    /// The lowest number that no segment had.
    pub(crate) next_file: u32,
    /// How many regions follow. The writer counts them itself.
    pub(crate) regions: u64,
    /// The segments that existed.
    pub(crate) segments: Vec<SegmentRecord>,
}

/// One segment that existed when the checkpoint was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentRecord {
    /// Its number.
    pub(crate) id: u32,
    /// Whether it is one of the log or a cold one.
    pub(crate) kind: FileKind,
    /// Its salt: another life of the file is another segment.
    pub(crate) salt: u64,
    /// The offset behind its last record; 0 when it was not sealed yet.
    pub(crate) sealed_end: u32,
}

/// One region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RegionRecord {
    /// The region.
    pub(crate) region: RegionId,
    /// The log segment of the latest batch that is in this record.
    pub(crate) as_of: u32,
    /// Whether it exists. One that was destroyed is listed for as long as older segments may name it.
    pub(crate) exists: bool,
    /// The last entry that was compacted away, or that a reset put there.
    pub(crate) base: Option<EntryId>,
    /// The hard state.
    pub(crate) hard_state: Option<Bytes>,
    /// The key-values.
    pub(crate) kv: Vec<(Bytes, Bytes)>,
    /// Where the live entries are, in the order of their indexes.
    pub(crate) extents: Vec<ExtentRecord>,
    /// Index ranges that are known to be damaged, both ends included.
    pub(crate) damage: Vec<(u64, u64)>,
    /// Term and vote are lost: the region must not vote.
    pub(crate) hard_state_lost: bool,
}

/// Consecutive live entries of a region in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentRecord {
    /// The segment.
    pub(crate) segment: u32,
    /// The index of the first.
    pub(crate) first: u64,
    /// How many, at least one.
    pub(crate) count: u64,
    /// The term of the first.
    pub(crate) first_term: u64,
    /// The term of the last.
    pub(crate) last_term: u64,
    /// Their payloads' length.
    pub(crate) bytes: u64,
}

/// Why a checkpoint was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CheckpointError {
    /// The bytes behind the file header are no checkpoint.
    Malformed(Malformed),
    /// The file header is not right.
    Header(HeaderError),
}

impl From<Malformed> for CheckpointError {
    fn from(e: Malformed) -> CheckpointError {
        CheckpointError::Malformed(e)
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Malformed(e) => e.fmt(f),
            CheckpointError::Header(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// Makes a checkpoint, chunk by chunk.
///
/// The file starts with [`CHECKPOINT_HEADERS_LEN`] bytes of zeros; then come the chunks that
/// [`take_chunk`](CheckpointWriter::take_chunk) hands out and the last one, which [`finish`](CheckpointWriter::finish)
/// returns together with the headers that go over the zeros.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    header: CheckpointHeader,
    seed: u32,
    /// The chunk being filled, with room for its own header in front.
    open: Vec<u8>,
    full: VecDeque<Vec<u8>>,
    chunks: u32,
    chunks_crc: u32,
    body_len: u64,
}

impl CheckpointWriter {
    /// Starts with what is said about the store; `header.regions` is not looked at.
    pub(crate) fn new(header: CheckpointHeader) -> CheckpointWriter {
        let seed = header.identity.seed();
        let segments = header.segments.clone();
        let mut writer = CheckpointWriter {
            header: CheckpointHeader { regions: 0, ..header },
            seed,
            open: vec![0; CHUNK_HEADER_LEN],
            full: VecDeque::new(),
            chunks: 0,
            chunks_crc: 0,
            body_len: 0,
        };
        for segment in &segments {
            segment.put(&mut writer.open);
            writer.record_done();
        }
        writer
    }

    /// Adds a region.
    pub(crate) fn region(&mut self, region: &RegionRecord) {
        debug_assert!(region.check().is_ok(), "the reader would refuse {region:?}");
        region.put(&mut self.open);
        self.header.regions += 1;
        self.record_done();
    }

    /// The next chunk that is full, in the order of the file.
    pub(crate) fn take_chunk(&mut self) -> Option<Vec<u8>> {
        self.full.pop_front()
    }

    /// What is left of the body, to be appended to the file, and the headers, to be written at offset 0.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        if self.open.len() > CHUNK_HEADER_LEN {
            self.close_chunk();
        }
        let file = FileHeader {
            kind: FileKind::Checkpoint,
            identity: self.header.identity,
            len: CHECKPOINT_HEADERS_LEN as u64 + self.body_len,
            previous_salt: 0,
        };
        let mut body = Vec::with_capacity(CHECKPOINT_HEADERS_LEN - FILE_HEADER_LEN);
        body.extend_from_slice(&self.header.start_segment.to_le_bytes());
        body.extend_from_slice(&self.header.next_file.to_le_bytes());
        body.extend_from_slice(&self.header.synced.to_u64().to_le_bytes());
        body.extend_from_slice(&self.header.regions.to_le_bytes());
        body.extend_from_slice(&(self.header.segments.len() as u64).to_le_bytes());
        body.extend_from_slice(&self.body_len.to_le_bytes());
        body.extend_from_slice(&self.chunks.to_le_bytes());
        body.extend_from_slice(&self.chunks_crc.to_le_bytes());
        body.resize(CHECKPOINT_HEADERS_LEN - FILE_HEADER_LEN - 8, 0);
        let mut headers = file.encode().to_vec();
        headers.extend_from_slice(&CHECKPOINT_MAGIC);
        headers.extend_from_slice(&crc32(self.seed, &body).to_le_bytes());
        headers.extend_from_slice(&body);
        (Vec::from(self.full).concat(), headers)
    }

    /// The whole file at once, when no chunk was taken.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let (body, mut file) = self.finish();
        file.extend_from_slice(&body);
        file
    }

    fn record_done(&mut self) {
        if self.open.len() >= CHUNK_LEN {
            self.close_chunk();
        }
    }

    fn close_chunk(&mut self) {
        let mut chunk = std::mem::replace(&mut self.open, vec![0; CHUNK_HEADER_LEN]);
        let len = (chunk.len() - CHUNK_HEADER_LEN) as u64;
        let (front, records) = chunk.split_at_mut(CHUNK_HEADER_LEN);
        let crc = chunk_crc(self.seed, len, self.chunks, records);
        let (len_at, rest) = front.split_at_mut(8);
        let (ordinal_at, crc_at) = rest.split_at_mut(4);
        len_at.copy_from_slice(&len.to_le_bytes());
        ordinal_at.copy_from_slice(&self.chunks.to_le_bytes());
        crc_at.copy_from_slice(&crc.to_le_bytes());
        self.chunks += 1;
        self.chunks_crc = crc32(self.chunks_crc, &crc.to_le_bytes());
        self.body_len += chunk.len() as u64;
        self.full.push_back(chunk);
    }
}

/// Reads a checkpoint and hands each region to `each`, in the order in which they were written.
///
/// All checksums are verified before the first region is handed out. What is handed out owns its bytes, so that
/// `bytes` need not outlive the call. A body that is malformed although its checksums are right, which no writer of
/// ours makes, is an error too, but regions before the fault were handed out already: drop them.
pub(crate) fn read_checkpoint(
    bytes: &Bytes,
    mut each: impl FnMut(RegionRecord) -> Result<(), Malformed>,
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
    let fixed = Fixed::decode(fixed.get(FILE_HEADER_LEN..).unwrap_or_default(), seed)?;
    let mut chunks = verified_chunks(body, seed, &fixed)?.into_iter();

    // A segment takes at least four bytes of the body.
    if fixed.segments > body.len() as u64 / 4 {
        return Err(Malformed("a count exceeds what the bytes left can hold").into());
    }
    let mut r = Reader::new(&[]);
    let mut segments = Vec::new();
    for _ in 0..fixed.segments {
        segments.push(SegmentRecord::read(next_record(&mut r, &mut chunks)?)?);
    }
    for _ in 0..fixed.regions {
        each(RegionRecord::read(next_record(&mut r, &mut chunks)?)?)?;
    }
    r.finish()?;
    if chunks.next().is_some() {
        return Err(Malformed("chunks are left behind the last region").into());
    }
    Ok(CheckpointHeader {
        identity: file.identity,
        start_segment: fixed.start_segment,
        synced: fixed.synced,
        next_file: fixed.next_file,
        regions: fixed.regions,
        segments,
    })
}

/// The reader of the chunk that the next record starts in.
fn next_record<'r, 'a>(
    r: &'r mut Reader<'a>,
    chunks: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<&'r mut Reader<'a>, Malformed> {
    if r.remaining() == 0 {
        *r = Reader::new(chunks.next().ok_or(Malformed("the checkpoint holds fewer records than it says"))?);
    }
    Ok(r)
}

/// The records of each chunk, after every checksum was found right.
fn verified_chunks<'a>(body: &'a [u8], seed: u32, fixed: &Fixed) -> Result<Vec<&'a [u8]>, Malformed> {
    if fixed.body_len != body.len() as u64 {
        return Err(Malformed("the checkpoint's body is not as long as it should be"));
    }
    let mut r = Reader::new(body);
    let mut chunks = Vec::new();
    let mut chunks_crc = 0;
    for ordinal in 0..fixed.chunks {
        let (len, stored_ordinal, crc) = (r.u64()?, r.u32()?, r.u32()?);
        let records =
            r.bytes(usize::try_from(len).map_err(|_| Malformed("a chunk is longer than memory"))?)?;
        if records.is_empty() || stored_ordinal != ordinal || crc != chunk_crc(seed, len, ordinal, records) {
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
}

impl Fixed {
    fn decode(bytes: &[u8], seed: u32) -> Result<Fixed, Malformed> {
        let mut r = Reader::new(bytes);
        if r.array()? != CHECKPOINT_MAGIC {
            return Err(Malformed("the checkpoint's header does not begin as it should"));
        }
        let crc = r.u32()?;
        let mut r = Reader::new(r.bytes(r.remaining())?);
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
        };
        if r.bytes(r.remaining())?.iter().any(|b| *b != 0) {
            return Err(Malformed("reserved bytes of the checkpoint's header are not zero"));
        }
        Ok(fixed)
    }
}

impl SegmentRecord {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.id));
        put_varint(out, self.kind as u64);
        put_varint(out, self.salt);
        put_varint(out, u64::from(self.sealed_end));
    }

    fn read(r: &mut Reader<'_>) -> Result<SegmentRecord, Malformed> {
        let (id, kind) = (r.varint_u32()?, FileKind::from_u32(r.varint_u32()?)?);
        if !matches!(kind, FileKind::Log | FileKind::Cold) {
            return Err(Malformed("a segment is neither one of the log nor a cold one"));
        }
        Ok(SegmentRecord { id, kind, salt: r.varint()?, sealed_end: r.varint_u32()? })
    }
}

impl RegionRecord {
    fn put(&self, out: &mut Vec<u8>) {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        put_varint(out, self.region.0);
        put_varint(out, u64::from(self.as_of));
        out.push(
            flag(EXISTS, self.exists)
                | flag(HAS_BASE, self.base.is_some())
                | flag(HAS_HARD_STATE, self.hard_state.is_some())
                | flag(HARD_STATE_LOST, self.hard_state_lost),
        );
        if let Some(base) = self.base {
            put_varint(out, base.index);
            put_varint(out, base.term);
        }
        if let Some(state) = &self.hard_state {
            put_bytes(out, state);
        }
        put_varint(out, self.kv.len() as u64);
        for (key, value) in &self.kv {
            put_bytes(out, key);
            put_bytes(out, value);
        }
        put_varint(out, self.extents.len() as u64);
        for extent in &self.extents {
            put_varint(out, u64::from(extent.segment));
            put_varint(out, extent.first);
            put_varint(out, extent.count);
            put_varint(out, extent.first_term);
            put_varint(out, extent.last_term);
            put_varint(out, extent.bytes);
        }
        put_varint(out, self.damage.len() as u64);
        for (first, last) in &self.damage {
            put_varint(out, *first);
            put_varint(out, *last);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<RegionRecord, Malformed> {
        let region = RegionId(r.varint()?);
        let as_of = r.varint_u32()?;
        let flags = r.u8()?;
        if flags & !(EXISTS | HAS_BASE | HAS_HARD_STATE | HARD_STATE_LOST) != 0 {
            return Err(Malformed("a region has flags that this release does not know"));
        }
        let has = |bit: u8| flags & bit != 0;
        let base = match has(HAS_BASE) {
            true => {
                let (index, term) = (r.varint()?, r.varint()?);
                Some(EntryId { term, index })
            }
            false => None,
        };
        let hard_state = has(HAS_HARD_STATE).then(|| read_bytes(r, VALUE_BYTES_MAX)).transpose()?;
        let kv = read_list(r, 2, |r| Ok((read_bytes(r, KEY_BYTES_MAX)?, read_bytes(r, VALUE_BYTES_MAX)?)))?;
        let extents = read_list(r, 6, |r| {
            Ok(ExtentRecord {
                segment: r.varint_u32()?,
                first: r.varint()?,
                count: r.varint()?,
                first_term: r.varint()?,
                last_term: r.varint()?,
                bytes: r.varint()?,
            })
        })?;
        let damage = read_list(r, 2, |r| Ok((r.varint()?, r.varint()?)))?;
        let hard_state_lost = has(HARD_STATE_LOST);
        let exists = has(EXISTS);
        let record =
            RegionRecord { region, as_of, exists, base, hard_state, kv, extents, damage, hard_state_lost };
        record.check()?;
        Ok(record)
    }

    /// The rules that hold between fields: indexes are numbers that can be, extents rise and do not overlap, and
    /// neither they nor damaged ranges are empty.
    fn check(&self) -> Result<(), Malformed> {
        if self.base.is_some_and(|base| base.index > INDEX_MAX) {
            return Err(Malformed("an index is beyond the highest"));
        }
        let mut free_from = 0;
        for extent in &self.extents {
            let end = extent.first.checked_add(extent.count).filter(|_| extent.count > 0);
            let end = end.ok_or(Malformed("an extent is empty or goes beyond the highest index"))?;
            if extent.first < free_from {
                return Err(Malformed("the extents of a region overlap, or are not sorted"));
            }
            free_from = end;
        }
        if self.damage.iter().any(|(first, last)| first > last) {
            return Err(Malformed("a damaged range is empty"));
        }
        Ok(())
    }
}

/// The length of what is written last: the file header and the checkpoint header.
pub(crate) const CHECKPOINT_HEADERS_LEN: usize = 256;

/// A chunk is full once it has this many bytes; the record that fills it may go beyond.
const CHUNK_LEN: usize = 1 << 20;

/// Length (64 bits: one region's key-values have no limit in sum), ordinal, checksum.
const CHUNK_HEADER_LEN: usize = 16;

const CHECKPOINT_MAGIC: [u8; 4] = [0xd7, b'c', b'k', b'p'];

const EXISTS: u8 = 1;
const HAS_BASE: u8 = 2;
const HAS_HARD_STATE: u8 = 4;
const HARD_STATE_LOST: u8 = 8;

/// Items are larger in memory than on disk: beyond this many, the list grows as they come.
const RESERVE_MAX: usize = 64;

fn chunk_crc(seed: u32, len: u64, ordinal: u32, records: &[u8]) -> u32 {
    crc32(crc32(crc32(seed, &len.to_le_bytes()), &ordinal.to_le_bytes()), records)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn read_bytes(r: &mut Reader<'_>, len_max: usize) -> Result<Bytes, Malformed> {
    let len = r.varint_u32()? as usize;
    if len > len_max {
        return Err(Malformed("a key or value is longer than the limit"));
    }
    Ok(Bytes::copy_from_slice(r.bytes(len)?))
}

fn read_list<'a, T>(
    r: &mut Reader<'a>,
    item_len_min: usize,
    mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = r.count(item_len_min)?;
    let mut list = Vec::with_capacity(count.min(RESERVE_MAX));
    for _ in 0..count {
        list.push(item(r)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests;
