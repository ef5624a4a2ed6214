//! `docs/format.md` prints a record byte by byte. Here it is decoded, and made again.

use crate::codec::checksum::{crc32, entry_checksum};
use crate::format::batch::{Batch, COPIES_TAG, EntryMeta, Op, Section, TermRun};
use crate::format::copies::{Run, encode_copy};
use crate::format::file_header::{Identity, SEGMENT_HEADER_LEN, StoreId};
use crate::format::mark::Mark;
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, Shape, record_len};
use crate::format::zeros::Zeros;
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;

const DOCUMENT: &str = include_str!("../../docs/format.md");

const IDENTITY: Identity =
    Identity { store: StoreId(*b"raftwood-example"), file: 12, salt: 0x0123_4567_89ab_cdef };

const AT: Lsn = Lsn::new(12, SEGMENT_HEADER_LEN);

const PAYLOADS: [&[u8]; 3] = [b"first", b"second", b"other"];

/// Two regions: two entries and a hard state, and one entry.
fn batch() -> Batch {
    let ids = [(7, 2, 5), (7, 3, 6), (300, 1, 1)];
    let entry = |((region, term, index), payload): (_, &&[u8])| EntryMeta {
        len: payload.len() as u32,
        crc: entry_checksum(RegionId(region), EntryId::new(term, index), payload),
    };
    Batch {
        sections: vec![Section { region: RegionId(7), ops: 2 }, Section { region: RegionId(300), ops: 1 }],
        ops: vec![
            Op::Append { first: 5, entries: 2, runs: 2 },
            Op::SetHardState(Bytes::from_static(b"vote")),
            Op::Append { first: 1, entries: 1, runs: 1 },
        ],
        runs: [2, 3, 1].map(|term| TermRun { term, entries: 1 }).to_vec(),
        entries: ids.into_iter().zip(&PAYLOADS).map(entry).collect(),
        ..Batch::default()
    }
}

fn record() -> Vec<u8> {
    let mut desc = Vec::new();
    batch().encode_desc(&[], &mut desc);
    let payloads = PAYLOADS.concat();
    let header = RecordHeader {
        kind: RecordKind::Batch,
        position: AT,
        desc_len: desc.len() as u32,
        payload_len: payloads.len() as u32,
        desc_crc: crc32(0, &desc),
        watermark: Lsn::new(11, 0x2000),
        zeros: Zeros::of(u64::from(AT.offset()) + 64, [&desc, &payloads]),
        previous: Shape::default(),
    };
    let mut record = [&header.encode(IDENTITY.seed()).0[..], &desc, &payloads].concat();
    record.resize(record_len(header.desc_len, header.payload_len) as usize, 0);
    record
}

/// Sixteen bytes a line: the offset, the bytes, the bytes as text.
fn hexdump(bytes: &[u8]) -> String {
    let line = |(i, line): (usize, &[u8])| {
        let hex: String = line.iter().map(|b| format!(" {b:02x}")).collect();
        let text = line.iter().map(|&b| if b.is_ascii_graphic() { char::from(b) } else { '.' });
        format!("{:04x} {hex:48}  |{}|\n", SEGMENT_HEADER_LEN as usize + i * 16, text.collect::<String>())
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

/// The bytes of the hexdump with this number in the document.
fn documented(nth: usize) -> Vec<u8> {
    let block = DOCUMENT.split("```hexdump\n").nth(nth).unwrap().split("```").next().unwrap();
    let bytes = |line: &str| {
        let hex = line.split_once("  ").unwrap().1.split('|').next().unwrap();
        hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect::<Vec<_>>()
    };
    block.lines().flat_map(bytes).collect()
}

#[test]
fn documented_record_is_what_the_writer_writes() {
    let record = record();
    assert!(DOCUMENT.contains(&hexdump(&record)), "docs/format.md should print\n{}", hexdump(&record));
}

#[test]
fn documented_record_decodes_to_what_the_document_says() {
    let bytes = Bytes::from(documented(1));
    let (header, _) = RecordHeader::decode(&bytes, IDENTITY.seed(), AT).unwrap();
    assert_eq!(bytes.len() as u64, record_len(header.desc_len, header.payload_len));
    let desc_at = RECORD_HEADER_LEN as usize;
    let payloads_at = desc_at + header.desc_len as usize;
    let desc = bytes.slice(desc_at..payloads_at);
    assert_eq!(crc32(0, &desc), header.desc_crc);
    assert_eq!(Batch::decode_desc(&desc, header.payload_len), Ok((batch(), vec![])));
    assert!(bytes.slice(payloads_at..).starts_with(&PAYLOADS.concat()));
}

#[test]
fn documented_mark_is_what_the_writer_writes_and_the_reader_reads() {
    let record = record();
    let (header, shape) = RecordHeader::decode(&record, IDENTITY.seed(), AT).unwrap();
    let end = Lsn::new(AT.segment(), AT.offset() + record_len(header.desc_len, header.payload_len) as u32);
    let run = Run { position: AT, previous: Shape::default(), watermark: header.watermark, count: 1 };
    let mut copies = vec![COPIES_TAG];
    run.encode(&mut copies);
    encode_copy(&header, &record[64..64 + header.desc_len as usize], &mut copies);
    let used = 256 + copies.len();
    let (sequence, copies) = (7, Bytes::from(copies));
    let mark = Mark { store: IDENTITY.store, sequence, durable: end, run: 9, last: shape, copies };
    let slot = mark.encode();
    let shown = hexdump(&slot[..used]);
    assert!(DOCUMENT.contains(&shown), "docs/format.md should print\n{shown}");
    assert!(slot[used..].iter().all(|b| *b == 0));
    assert_eq!(Mark::decode(&documented(2), mark.offset()), Ok(mark));
}

#[test]
fn documented_seed_is_right() {
    assert!(DOCUMENT.contains(&format!("seed `{:08x}`", IDENTITY.seed())), "{:08x}", IDENTITY.seed());
}
