//! The decoders, one by one.

use super::{fixup, take};
use crate::codec::checksum::crc32;
use crate::codec::compress;
use crate::format::batch::{Batch, Install, locate};
use crate::format::checkpoint::{CheckpointWriter, read_checkpoint};
use crate::format::file_header::{FileHeader, Identity, StoreId};
use crate::format::footer::{Footer, FooterBuilder, Tail};
use crate::format::record::{RecordHeader, Shape};
use crate::types::Lsn;
use bytes::Bytes;

/// The file header, as it is and with its checksum right; of any file and of a segment.
pub fn file_header(data: &[u8]) {
    let mut bytes = data.to_vec();
    for _ in 0..2 {
        if let Ok(header) = FileHeader::decode(&bytes) {
            take();
            assert_eq!(&bytes[..128], header.encode(), "a header has one encoding");
        }
        if let Ok(header) = FileHeader::decode_segment(&bytes, &bytes) {
            assert_eq!(FileHeader::decode_segment(&header.encode_segment_block(), &[]), Ok(header));
        }
        fixup::file_header(&mut bytes, 0);
        fixup::file_header(&mut bytes, 2048);
    }
}

/// A record's header: 4 bytes of seed, the header, a description.
pub fn record(data: &[u8]) {
    let Some((seed, rest)) = data.split_first_chunk() else { return };
    let seed = u32::from_le_bytes(*seed);
    let mut bytes = rest.to_vec();
    for _ in 0..2 {
        let position = bytes.get(8..16).map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
        if let Ok((header, shape)) = RecordHeader::decode(&bytes, seed, Lsn::from_u64(position)) {
            take();
            let (again, same) = header.encode(seed);
            assert_eq!((&bytes[..64], shape), (&again[..], same), "a header has one encoding");
            assert!(shape.end().is_some_and(|end| end > header.position));
            assert!(RecordHeader::decode(&bytes, seed, Lsn::from_u64(position ^ 8)).is_err());
            rebuild(shape, &bytes[64..]);
        }
        fixup::record_header(&mut bytes, seed);
    }
}

fn rebuild(shape: Shape, desc: &[u8]) {
    let shape = Shape { desc_len: desc.len() as u32, desc_crc: crc32(0, desc), ..shape };
    if let Ok(header) = RecordHeader::rebuilt_from(shape, desc) {
        assert_eq!((header.position, header.payload_len), (shape.position, shape.payload_len));
    }
}

/// A description: 4 bytes of payload length, then the description, read as a batch's and as an install's.
/// What decodes goes through the footer of a segment.
pub fn batch(data: &[u8]) {
    let Some((payload_len, desc)) = data.split_first_chunk() else { return };
    let payload_len = u32::from_le_bytes(*payload_len);
    let desc = Bytes::copy_from_slice(desc);
    if let Ok(install) = Install::decode(&desc) {
        take();
        let mut again = Vec::new();
        install.encode(&mut again);
        assert_eq!(desc, again, "an install has one encoding");
    }
    let Ok((batch, blocks)) = Batch::decode_desc(&desc, payload_len) else { return };
    take();
    let mut again = Vec::new();
    batch.encode_desc(&blocks, &mut again);
    assert_eq!(desc, again, "a description has one encoding");

    let (mut ops, mut entries) = (0, 0);
    for step in batch.steps() {
        assert_eq!(step.entries_at, entries);
        (ops, entries) = (ops + 1, entries + step.entries.len());
        assert_eq!(step.runs.iter().map(|r| r.entries as usize).sum::<usize>(), step.entries.len());
    }
    assert_eq!((ops, entries), (batch.ops.len(), batch.entries.len()), "steps leave nothing out");

    let payload_pos = 4096 + 64 + desc.len() as u32;
    let mut behind = payload_pos;
    let placed = locate(&batch.entries, &blocks, payload_pos, |loc| {
        // An empty payload lies anywhere.
        if loc.len > 0 {
            assert!(loc.pos >= behind, "locations rise");
            behind = loc.pos;
        }
    });
    let identity = Identity { store: StoreId([7; 16]), file: 3, salt: 99 };
    let mut builder = FooterBuilder::new(identity);
    let taken = builder.batch(&batch, &blocks, payload_pos, payload_pos.saturating_add(payload_len));
    assert_eq!(taken.is_ok(), placed.is_ok(), "the footer takes every batch that has a place");
    if taken.is_ok() {
        let bytes = Bytes::from(builder.finish(Tail { end: 8192, ..Tail::default() }));
        let footer = Footer::open(bytes, &identity).expect("the reader accepts what the writer writes");
        assert_eq!(footer.verify_tables(), Ok(()));
        assert_eq!(look_up(&footer), footer.entry_count());
        let deltas = footer.deltas().expect("the reader accepts what the writer writes");
        assert!(deltas.iter().all(|d| d.range.is_none_or(|r| u64::from(r.count) <= footer.entry_count())));
    }
}

/// A footer file.
pub fn footer(data: &[u8]) {
    let mut bytes = data.to_vec();
    for _ in 0..2 {
        if let Ok(header) = FileHeader::decode(&bytes)
            && let Ok(footer) = Footer::open(Bytes::copy_from_slice(&bytes), &header.identity)
        {
            take();
            assert_eq!(footer.len(), bytes.len() as u64);
            // Before the tables are known to be good it is merely safe to ask.
            for at in 0..footer.range_count().min(64) {
                if let Some(range) = footer.range(at) {
                    let _ = (range.last(), range.first_term(), range.last_term(), range.verify_locs());
                    let _ = (range.loc(range.first()), range.loc(range.last()), range.term(range.last()));
                    let _ = range.runs().count();
                }
            }
            if footer.verify_tables().is_ok() {
                assert_eq!(look_up(&footer), footer.entry_count());
            } else {
                assert!(footer.verify_tables().is_err(), "the outcome is kept");
            }
            let _ = (footer.deltas(), footer.installs(), footer.tail());
        }
        fixup::footer(&mut bytes);
    }
}

/// Looks every range up, by its ends and by its middle, and returns how many entries there are.
fn look_up(footer: &Footer) -> u64 {
    let mut entries = 0;
    for at in 0..footer.range_count() {
        let range = footer.range(at).expect("the tables are good");
        let (region, first, last) = (range.region(), range.first(), range.last());
        for index in [first, first + (last - first) / 2, last] {
            let found = footer.find(region, index).expect("the tables are good").expect("it is there");
            assert_eq!((found.region(), found.first(), found.last()), (region, first, last));
            assert!(range.loc(index).is_some() && range.term(index).is_some());
        }
        let mut runs = range.runs();
        assert_eq!(runs.next(), Some((first, range.first_term())));
        assert_eq!(range.term(last), Some(range.last_term()));
        assert!(range.loc(last + 1).is_none() && range.term(last + 1).is_none());
        if let Ok(Some(next)) = footer.find(region, last + 1) {
            assert_eq!(next.first(), last + 1, "ranges are disjoint");
        }
        entries += u64::from(range.count());
    }
    entries
}

/// A checkpoint file.
pub fn checkpoint(data: &[u8]) {
    let mut bytes = data.to_vec();
    for _ in 0..2 {
        if let Some((mut header, regions)) = read(&bytes) {
            take();
            // Where nothing is known the writer says the most that can be.
            header.unclean_before = header.unclean_before.or(Some(header.next_file));
            let mut writer = CheckpointWriter::new(header.clone());
            for region in &regions {
                writer.region(region);
            }
            let again = writer.into_bytes();
            assert_eq!(read(&again), Some((header, regions)), "what the writer writes the reader accepts");
        }
        fixup::checkpoint(&mut bytes);
    }
}

type Checkpoint = (crate::format::checkpoint::CheckpointHeader, Vec<crate::format::checkpoint::RegionRecord>);

fn read(bytes: &[u8]) -> Option<Checkpoint> {
    let mut regions = Vec::new();
    let header = read_checkpoint(bytes, |region| {
        regions.push(region.to_record());
        Ok(())
    });
    header.ok().map(|header| (header, regions))
}

/// An LZ4 block: 4 bytes of raw length, then the block; and the same bytes as something to compress.
pub fn decompress(data: &[u8]) {
    let Some((raw_len, src)) = data.split_first_chunk() else { return };
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    if let Ok(raw) = compress::decompress(src, raw_len) {
        take();
        assert_eq!(raw.len(), raw_len);
        assert!(compress::is_plausible(src.len(), raw_len));
    }
    let mut out = b"before".to_vec();
    match compress::compress(src, &mut out) {
        Some(len) => {
            assert_eq!(out.len(), 6 + len);
            assert_eq!(compress::decompress(&out[6..], src.len()).as_deref(), Ok(src));
        }
        None => assert_eq!(out, b"before"),
    }
}
