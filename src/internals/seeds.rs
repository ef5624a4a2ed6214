//! Valid inputs to start from: a fuzzer that must first invent a file header gets nowhere.

use crate::format::batch::{Batch, Block, EntryMeta, Install, Op, Section, TermRun};
use crate::format::file_header::{FORMAT_VERSION, FileHeader, FileKind, Identity, StoreId};
use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;

/// Target, name and content of the seeds of the decoders that need no store around them. The same in every
/// run, and none above 4 KiB.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| all.push((target, name.to_owned(), bytes));

    for (number, kind) in (1..=5).filter_map(|number| Some((number, FileKind::from_u32(number).ok()?))) {
        let identity = Identity { store: StoreId(*b"raftwood-example"), file: number, salt: 99 };
        let header = FileHeader { version: FORMAT_VERSION, kind, identity, len: 64 << 10, previous_salt: 7 };
        add("file_header", &format!("kind-{number}"), header.encode().to_vec());
    }

    for (name, batch, blocks, payload_len) in batches() {
        let mut bytes = u32::to_le_bytes(payload_len).to_vec();
        batch.encode_desc(&blocks, &mut bytes);
        add("batch", name, bytes);
    }
    let mut install = vec![0; 4];
    Install { cold: 9, sources: vec![1, 2, 300] }.encode(&mut install);
    add("batch", "install", install);

    for (name, raw) in [("text", b"the same again, the same again, ".repeat(20)), ("zeros", vec![0; 3000])] {
        let mut bytes = u32::to_le_bytes(raw.len() as u32).to_vec();
        crate::codec::compress::compress(&raw, &mut bytes);
        add("decompress", name, bytes);
        add("decompress", &format!("{name}-plain"), [&[0; 4], &raw[..]].concat());
    }

    all
}

fn batches() -> Vec<(&'static str, Batch, Vec<Block>, u32)> {
    let section = |region, ops| Section { region: RegionId(region), ops };
    let runs = |runs: &[(u64, u32)]| runs.iter().map(|&(term, entries)| TermRun { term, entries }).collect();
    let entries =
        |lens: &[u32]| lens.iter().map(|&len| EntryMeta { len, crc: len ^ 0x55 }).collect::<Vec<_>>();
    let every_op = vec![
        Op::Append { first: 5, entries: 3, runs: 2 },
        Op::TruncateFrom(7),
        Op::CompactThrough(EntryId::new(2, 5)),
        Op::SetHardState(Bytes::from_static(b"vote")),
        Op::Put { key: Bytes::from_static(b"key"), value: Bytes::from_static(b"value") },
        Op::Delete { key: Bytes::from_static(b"gone") },
        Op::Destroy,
        Op::Reset(EntryId::new(9, 1 << 40)),
        Op::CompactTo { incarnation: Lsn::new(1, 5000), id: EntryId::new(9, 1 << 40) },
        Op::ForgetLog,
        Op::AppendNext { first: 3, entries: 1, runs: 1 },
    ];
    let all = Batch {
        sections: vec![section(7, 11), section(u64::MAX, 0)],
        ops: every_op,
        runs: runs(&[(2, 1), (3, 2), (4, 1)]),
        entries: entries(&[10, 0, 300, 5]),
        ..Batch::default()
    };
    let append = Batch {
        sections: vec![section(0, 1), section(300, 1)],
        ops: vec![Op::Append { first: 0, entries: 2, runs: 1 }, Op::Append { first: 1, entries: 1, runs: 1 }],
        runs: runs(&[(1, 2), (1, 1)]),
        entries: entries(&[100, 60, 40]),
        ..Batch::default()
    };
    let blocks = vec![
        Block { raw_len: 160, stored_len: 60, lz4: true },
        Block { raw_len: 40, stored_len: 40, lz4: false },
    ];
    vec![
        ("every-operation", all, Vec::new(), 315),
        ("compressed", append, blocks, 100),
        ("empty", Batch::default(), Vec::new(), 0),
    ]
}
