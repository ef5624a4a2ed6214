//! Whether a batch's payloads are the ones its description speaks of.

use crate::codec::checksum::entry_checksum;
use crate::codec::compress::decompress;
use crate::format::batch::{Batch, Block, Loc, locate};
use crate::types::{Entry, EntryId, RegionId};
use bytes::Bytes;
use std::ops::Range;

/// An entry of a batch, as its payload has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StoredEntry {
    pub(crate) region: RegionId,
    pub(crate) id: EntryId,
    /// Where its bytes stand in the payload: those of its block if it is compressed.
    pub(crate) at: Range<u32>,
    /// Its bytes, unless they could not even be decompressed, and the checksum they should have.
    pub(crate) bytes: Option<Bytes>,
    pub(crate) crc: u32,
}

impl StoredEntry {
    /// The entry, if its bytes match its checksum.
    pub(crate) fn right(self) -> Result<Entry, StoredEntry> {
        match &self.bytes {
            Some(bytes) if entry_checksum(self.region, self.id, bytes) == self.crc => {
                Ok(Entry { id: self.id, payload: bytes.clone() })
            }
            _ => Err(self),
        }
    }
}

/// The entries of a batch that do not match their checksums. `None` when the description does not
/// fit the payload.
pub(crate) fn wrong_entries(batch: &Batch, blocks: &[Block], payload: &Bytes) -> Option<Vec<StoredEntry>> {
    let mut wrong = Vec::new();
    each_entry(batch, blocks, payload, |entry| wrong.extend(entry.right().err()))?;
    Some(wrong)
}

/// Hands over the entries of a batch, in order. `None` when the description does not fit the payload.
pub(crate) fn each_entry(
    batch: &Batch,
    blocks: &[Block],
    payload: &Bytes,
    mut each: impl FnMut(StoredEntry),
) -> Option<()> {
    let mut locs = Vec::with_capacity(batch.entries.len());
    locate(&batch.entries, blocks, 0, |loc| locs.push(loc)).ok()?;
    let mut block: Option<(u32, Option<Bytes>)> = None;
    for step in batch.steps() {
        let Some((first, entries, _)) = step.op.as_append() else { continue };
        let own = locs.get(step.entries_at..step.entries_at + entries as usize)?;
        let mut terms = step.runs.iter().flat_map(|r| std::iter::repeat_n(r.term, r.entries as usize));
        for (n, loc) in own.iter().enumerate() {
            let id = EntryId::new(terms.next()?, first + n as u64);
            let (bytes, at) = resolve(payload, *loc, &mut block)?;
            each(StoredEntry { region: step.region, id, at, bytes, crc: loc.crc });
        }
    }
    Some(())
}

type Resolved = (Option<Bytes>, Range<u32>);

fn resolve(payload: &Bytes, loc: Loc, block: &mut Option<(u32, Option<Bytes>)>) -> Option<Resolved> {
    let (pos, len) = (loc.pos as usize, loc.len as usize);
    if loc.is_raw() {
        let end = pos.checked_add(len).filter(|end| *end <= payload.len())?;
        return Some((Some(payload.slice(pos..end)), loc.pos..end as u32));
    }
    let head = payload.get(pos..pos.checked_add(8)?)?;
    let raw_len = u32::from_le_bytes(head[..4].try_into().ok()?);
    let stored_len = u32::from_le_bytes(head[4..].try_into().ok()?);
    let at = loc.pos..(loc.pos.saturating_add(8).saturating_add(stored_len)).min(payload.len() as u32);
    if block.as_ref().is_none_or(|b| b.0 != loc.pos) {
        let stored = payload.get(pos + 8..at.end as usize);
        let raw = stored.and_then(|s| decompress(s, raw_len as usize).ok()).map(Bytes::from);
        *block = Some((loc.pos, raw));
    }
    let inner = loc.inner as usize;
    let raw = block.as_ref().and_then(|b| b.1.as_ref());
    let bytes = raw.filter(|r| inner + len <= r.len()).map(|r| r.slice(inner..inner + len));
    Some((bytes, at))
}
