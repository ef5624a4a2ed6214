//! A batch to the form in which it goes to the log.

use super::WriteBatch;
use super::memory::Remains;
use crate::codec::checksum::crc32;
use crate::codec::compress::compress;
use crate::format::batch::{Batch, Block, Encoded};
use crate::format::record::RecordKind;
use crate::limits::{BLOCK_BYTES_MAX, DESC_BYTES_MAX};
use crate::options::Compression;
use crate::planted::{Bug, planted};
use bytes::Bytes;

impl WriteBatch {
    /// To the form in which it goes to the log, without copying what goes there uncompressed.
    pub(crate) fn encode(mut self, compression: Compression) -> (Encoded, Remains) {
        let mut blocks = Vec::new();
        let mut compressed = None;
        if let Compression::Lz4 { min_batch_bytes } = compression
            && self.payload.len() >= min_batch_bytes.max(1)
            && !self.is_spoilt
        {
            // What is fine uncompressed is not refused for the blocks that its description would
            // have to list.
            let fits = |blocks: &Vec<Block>| self.desc_len_max() + blocks.len() * 10 <= DESC_BYTES_MAX;
            compressed = compress_blocks(&self.batch, &self.payload, &mut blocks).filter(|_| fits(&blocks));
            if compressed.is_none() {
                blocks.clear();
            }
        }
        let (mut body, raw) = match compressed {
            Some(payload) => (payload, Some(std::mem::take(&mut self.payload))),
            // Without its payloads it is refused.
            None if self.is_spoilt => (Vec::new(), Some(std::mem::take(&mut self.payload))),
            None => (std::mem::take(&mut self.payload), None),
        };
        // The description follows the payloads in memory, in the same buffer.
        let payload_len = body.len();
        self.batch.encode_desc(&blocks, &mut body);
        let desc_crc = crc32(0, &body[payload_len..]);
        let mut payload = Bytes::from(body);
        let desc = payload.split_off(payload_len);
        let batch = std::mem::take(&mut self.batch);
        let encoded = Encoded { kind: RecordKind::Batch, batch, blocks, desc, desc_crc, payload };
        let Self { table, values, inline_bytes, is_spoilt, .. } = self;
        (encoded, Remains { table, raw, values, inline_bytes, is_spoilt })
    }
}

/// Cuts the payloads into blocks at entry boundaries and compresses each that shrinks; `None` if none
/// does. A block holds entries of one region only: one flipped bit costs a whole block, and must not
/// cost another region anything.
fn compress_blocks(batch: &Batch, payload: &[u8], blocks: &mut Vec<Block>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len());
    let mut worth_it = false;
    let mut start = 0;
    let mut end = 0;
    let mut flush = |start: usize, end: usize, out: &mut Vec<u8>| {
        let raw = &payload[start..end];
        let raw_len = raw.len() as u32;
        let head = out.len();
        out.extend_from_slice(&[0; 8]);
        match compress(raw, out) {
            Some(stored) => {
                out[head..head + 4].copy_from_slice(&raw_len.to_le_bytes());
                out[head + 4..head + 8].copy_from_slice(&(stored as u32).to_le_bytes());
                blocks.push(Block { raw_len, stored_len: stored as u32 + 8, lz4: true });
                worth_it = true;
            }
            None => {
                out.truncate(head);
                out.extend_from_slice(raw);
                blocks.push(Block { raw_len, stored_len: raw_len, lz4: false });
            }
        }
    };
    let mut region = None;
    for step in batch.steps() {
        let another = region.replace(step.region) != Some(step.region) && !planted(Bug::BlockAcrossRegions);
        if another && end > start {
            flush(start, end, &mut out);
            start = end;
        }
        for entry in step.entries {
            let len = entry.len as usize;
            if end > start && end - start + len > BLOCK_BYTES_MAX {
                flush(start, end, &mut out);
                start = end;
            }
            end += len;
        }
    }
    if end > start {
        flush(start, end, &mut out);
    }
    worth_it.then_some(out)
}
