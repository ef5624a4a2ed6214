//! Region table to bytes.

use super::{
    CHECKPOINT_HEADERS_LEN, CHECKPOINT_MAGIC, CHUNK_HEADER_LEN, CheckpointHeader, RegionRecord, chunk_crc,
};
use crate::codec::checksum::crc32;
use crate::format::file_header::{FILE_HEADER_LEN, FORMAT_VERSION, FileHeader, FileKind};
use std::collections::VecDeque;

/// Makes a checkpoint, chunk by chunk.
///
/// The file starts with [`CHECKPOINT_HEADERS_LEN`] bytes of zeros; then come the chunks that
/// [`take_chunk`](CheckpointWriter::take_chunk) hands out and the last one, which
/// [`finish`](CheckpointWriter::finish) returns together with the headers that go over the zeros.
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

    /// How far the log was synced after the last region was captured.
    pub(crate) fn set_synced(&mut self, synced: crate::types::Lsn) {
        self.header.synced = synced;
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
            version: FORMAT_VERSION,
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
        // A store of which nothing is known may have ended in any way.
        let unclean_before = self.header.unclean_before.unwrap_or(self.header.next_file);
        body.extend_from_slice(&unclean_before.to_le_bytes());
        body.resize(CHECKPOINT_HEADERS_LEN - FILE_HEADER_LEN - 8, 0);
        let mut headers = file.encode().to_vec();
        headers.extend_from_slice(&CHECKPOINT_MAGIC);
        headers.extend_from_slice(&crc32(self.seed, &body).to_le_bytes());
        headers.extend_from_slice(&body);
        (Vec::from(self.full).concat(), headers)
    }

    /// The whole file at once, when no chunk was taken.
    #[cfg(any(test, feature = "internals"))]
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

/// A chunk is full once it has this many bytes; the record that fills it may go beyond.
const CHUNK_LEN: usize = 1 << 20;
