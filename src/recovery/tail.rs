//! The end of the log behind the watermark: whole batches are kept and made durable anew, a tear ends them.

use crate::codec::checksum::entry_checksum;
use crate::codec::compress::decompress;
use crate::commit::Encoded;
use crate::engine::options::{Options, TailPolicy};
use crate::engine::report::OpenReport;
use crate::error::{Error, Result};
use crate::format::batch::{Batch, Block, Install, Loc, Op, locate};
use crate::format::record::{RECORD_HEADER_LEN, RecordKind, record_len};
use crate::segment::Segment;
use crate::segment::scan::{Found, Record, Scanner};
use crate::types::EntryId;
use bytes::Bytes;

const SECTOR: u32 = 512;

/// A whole record behind the watermark.
pub(super) struct TailRecord {
    pub(super) encoded: Encoded,
}

/// The install record among the tail's, if this is one.
pub(super) fn installs(encoded: &Encoded) -> Option<Install> {
    (encoded.kind == RecordKind::Install).then(|| Install::decode(&encoded.desc).ok()).flatten()
}

/// Hands the whole records of `from..until` to `each`. False when a tear ended them.
///
/// The range is synced, dropped from the page cache and read again first: what only the cache has was never durable.
pub(super) fn collect(
    segment: &Segment,
    from: u32,
    until: u32,
    options: &Options,
    report: &mut OpenReport,
    mut each: impl FnMut(TailRecord),
) -> Result<bool> {
    let range = u64::from(from)..u64::from(until);
    segment.file.sync_data().map_err(|e| Error::io("syncing the tail of the log", &segment.path, e))?;
    segment
        .file
        .drop_cache(range)
        .map_err(|e| Error::io("dropping the tail of the log from the cache", &segment.path, e))?;
    let mut scanner = Scanner::new(&*segment.file, &segment.path, &segment.identity, segment.len);
    let mut at = from;
    while at < until {
        let record = match scanner.look(at)? {
            Found::Record(record) => record,
            Found::BadDescription(header, _) => {
                let len = record_len(header.desc_len, header.payload_len);
                torn(segment, &mut scanner, at, len, options)?;
                report.torn_bytes += u64::from(until - at);
                return Ok(false);
            }
            Found::Nothing => {
                torn(segment, &mut scanner, at, u64::from(RECORD_HEADER_LEN), options)?;
                report.torn_bytes += u64::from(until - at);
                return Ok(false);
            }
        };
        let end = record.end();
        match whole(&mut scanner, &record)? {
            Some(encoded) => {
                if encoded.kind != RecordKind::Watermark {
                    report.rewritten_batches += 1;
                    each(TailRecord { encoded });
                }
            }
            None => {
                torn(segment, &mut scanner, at, u64::from(end - at), options)?;
                report.torn_bytes += u64::from(until - at);
                return Ok(false);
            }
        }
        at = end;
    }
    Ok(true)
}

/// The record with its payload, if every byte of it is right.
fn whole(scanner: &mut Scanner<'_>, record: &Record) -> Result<Option<Encoded>> {
    let payload = scanner.payload(record)?;
    if payload.len() < record.header.payload_len as usize {
        return Ok(None);
    }
    let (batch, blocks) = match record.header.kind {
        RecordKind::Batch => match Batch::decode_desc(&record.desc, record.header.payload_len) {
            Ok(parts) => parts,
            Err(_) => return Ok(None),
        },
        _ => (Batch::default(), Vec::new()),
    };
    if !payload_is_right(&batch, &blocks, &payload) {
        return Ok(None);
    }
    Ok(Some(Encoded {
        kind: record.header.kind,
        batch,
        blocks,
        desc: record.desc.clone(),
        desc_crc: record.header.desc_crc,
        payload,
    }))
}

/// Whether every entry matches its checksum.
fn payload_is_right(batch: &Batch, blocks: &[Block], payload: &Bytes) -> bool {
    let mut locs = Vec::with_capacity(batch.entries.len());
    if locate(&batch.entries, blocks, 0, |loc| locs.push(loc)).is_err() {
        return false;
    }
    let mut block: Option<(u32, Vec<u8>)> = None;
    for step in batch.steps() {
        let Op::Append { first, entries, .. } = step.op else { continue };
        let Some(own) = locs.get(step.entries_at..step.entries_at + *entries as usize) else { return false };
        let mut terms = step.runs.iter().flat_map(|r| std::iter::repeat_n(r.term, r.entries as usize));
        for (n, loc) in own.iter().enumerate() {
            let Some(term) = terms.next() else { return false };
            let id = EntryId::new(term, first + n as u64);
            let Some(bytes) = resolve(payload, *loc, &mut block) else { return false };
            if entry_checksum(step.region, id, &bytes) != loc.crc {
                return false;
            }
        }
    }
    true
}

fn resolve(payload: &Bytes, loc: Loc, block: &mut Option<(u32, Vec<u8>)>) -> Option<Bytes> {
    let (pos, len) = (loc.pos as usize, loc.len as usize);
    if loc.is_raw() {
        return (pos + len <= payload.len()).then(|| payload.slice(pos..pos + len));
    }
    if block.as_ref().is_none_or(|b| b.0 != loc.pos) {
        let head = payload.get(pos..pos + 8)?;
        let raw_len = u32::from_le_bytes(head[..4].try_into().ok()?);
        let stored_len = u32::from_le_bytes(head[4..].try_into().ok()?);
        let stored = payload.get(pos + 8..pos + 8 + stored_len as usize)?;
        *block = Some((loc.pos, decompress(stored, raw_len as usize).ok()?));
    }
    let raw = &block.as_ref()?.1;
    let inner = loc.inner as usize;
    raw.get(inner..inner + len).map(Bytes::copy_from_slice)
}

/// A tear is believed on evidence only: a sector of the record is still zero, or the file had a life before whose bytes
/// may show, or the record goes beyond the file. Otherwise the bytes may have been acknowledged and rotted since.
fn torn(segment: &Segment, scanner: &mut Scanner<'_>, at: u32, len: u64, options: &Options) -> Result<()> {
    if options.tail_policy == TailPolicy::AssumeTorn || segment.previous_salt != 0 {
        return Ok(());
    }
    let end = u64::from(at) + len;
    if end > segment.len {
        return Ok(());
    }
    let mut from = u64::from(at);
    while from < end {
        let to = (from + 1).next_multiple_of(u64::from(SECTOR));
        let bytes = scanner.read(from, (to - from) as usize)?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(());
        }
        from = to;
    }
    Err(Error::damaged(format!(
        "the last record of the log is wrong and nothing proves that it was torn: it may have been acknowledged; \
         open with TailPolicy::AssumeTorn if it was not, or restore the store; nothing was changed (record of {len} bytes)"
    ))
    .at(&segment.path, Some(u64::from(at))))
}
