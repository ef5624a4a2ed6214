//! Checkpoints against vandals.

use super::*;
use crate::format::file_header::{FORMAT_VERSION, SegmentKind, StoreId};
use crate::limits::{INDEX_MAX, VALUE_BYTES_MAX};
use proptest::prelude::*;

const IDENTITY: Identity = Identity { store: StoreId([7; 16]), file: 12, salt: 99 };

fn header(segments: Vec<SegmentRecord>) -> CheckpointHeader {
    let (start_segment, synced) = (5, Lsn::new(6, 4096));
    CheckpointHeader {
        identity: IDENTITY,
        start_segment,
        synced,
        next_file: 8,
        unclean_before: Some(4),
        regions: 0,
        segments,
    }
}

fn region(id: u64) -> RegionRecord {
    RegionRecord {
        region: RegionId(id),
        as_of: 6,
        exists: true,
        incarnation: Some(Lsn::new(3, 5000)),
        base: Some(EntryId::new(2, 9)),
        hard_state: Some("state".into()),
        kv: vec![("key".into(), "value".into()), ("other".into(), "".into())],
        extents: vec![
            ExtentRecord {
                segment: 3,
                first: 10,
                count: 5,
                first_term: Some(2),
                last_term: Some(3),
                bytes: 500,
            },
            ExtentRecord {
                segment: 6,
                first: 15,
                count: 1,
                first_term: Some(3),
                last_term: Some(3),
                bytes: 9,
            },
        ],
        damage: vec![(11, 12)],
        suspect: vec![(15, 15)],
        hard_state_lost: false,
    }
}

fn segment(id: u32) -> SegmentRecord {
    SegmentRecord { id, kind: SegmentKind::Cold, salt: 77, sealed_end: 8192 }
}

fn write(header: CheckpointHeader, regions: &[RegionRecord]) -> Bytes {
    let mut writer = CheckpointWriter::new(header);
    regions.iter().for_each(|region| writer.region(region));
    writer.into_bytes().into()
}

fn read(bytes: impl Into<Bytes>) -> Result<(CheckpointHeader, Vec<RegionRecord>), CheckpointError> {
    let mut regions = Vec::new();
    let header = read_checkpoint(&bytes.into(), |region| {
        regions.push(region.to_record());
        Ok(())
    })?;
    Ok((header, regions))
}

fn sample() -> Bytes {
    write(header(vec![segment(3), segment(6)]), &[region(1), region(0), region(u64::MAX)])
}

/// Makes all checksums right, as far as the chunks can be found.
fn reseal(bytes: &mut [u8]) {
    let seed = IDENTITY.seed();
    let (mut at, mut ordinal, mut chunks_crc) = (CHECKPOINT_HEADERS_LEN, 0, 0);
    while let Some(front) = bytes.get(at..at + CHUNK_HEADER_LEN) {
        let len = u64::from_le_bytes(front[..8].try_into().unwrap());
        let Some(end) = usize::try_from(len).ok().and_then(|len| (at + CHUNK_HEADER_LEN).checked_add(len))
        else {
            break;
        };
        let Some(records) = bytes.get(at + CHUNK_HEADER_LEN..end) else { break };
        let crc = chunk_crc(seed, len, ordinal, records).to_le_bytes();
        bytes[at + 12..at + 16].copy_from_slice(&crc);
        chunks_crc = crc32(chunks_crc, &crc);
        (at, ordinal) = (end, ordinal + 1);
    }
    bytes[180..184].copy_from_slice(&chunks_crc.to_le_bytes());
    let crc = crc32(seed, &bytes[136..256]);
    bytes[128..132].copy_from_slice(&CHECKPOINT_MAGIC);
    bytes[132..136].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn empty_checkpoint_round_trips() {
    let bytes = write(header(vec![]), &[]);
    assert_eq!(bytes.len(), CHECKPOINT_HEADERS_LEN);
    assert_eq!(read(bytes), Ok((header(vec![]), vec![])));
}

#[test]
fn every_flipped_bit_is_detected() {
    let good = sample();
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(bad).is_err(), "bit {bit}");
    }
}

#[test]
fn every_other_length_is_refused() {
    let good = sample();
    for len in (0..good.len()).chain([good.len() + 1]) {
        let mut bad = good.to_vec();
        bad.resize(len, 0);
        assert!(read(bad).is_err(), "length {len}");
    }
}

#[test]
fn nothing_is_handed_out_before_the_last_chunk_is_verified() {
    let big = RegionRecord { hard_state: Some(vec![1; VALUE_BYTES_MAX].into()), ..region(1) };
    let mut bytes = write(header(vec![]), &[big.clone(), big]).to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let outcome = read_checkpoint(&bytes, |_| panic!("a region of a rotten checkpoint"));
    assert!(matches!(outcome, Err(CheckpointError::Malformed(_))));
}

#[test]
fn streamed_chunks_make_the_same_file() {
    let big = |id| RegionRecord { hard_state: Some(vec![id as u8; 400 << 10].into()), ..region(id) };
    let regions: Vec<_> = (0..10).map(big).collect();
    let mut writer = CheckpointWriter::new(header(vec![segment(1)]));
    let mut file = vec![0; CHECKPOINT_HEADERS_LEN];
    let mut chunks = 0;
    for region in &regions {
        writer.region(region);
        while let Some(chunk) = writer.take_chunk() {
            file.extend_from_slice(&chunk);
            chunks += 1;
        }
    }
    assert!(read(file.clone()).is_err(), "without headers it is no checkpoint");
    let (last, headers) = writer.finish();
    file.extend_from_slice(&last);
    file[..CHECKPOINT_HEADERS_LEN].copy_from_slice(&headers);
    assert_eq!(chunks, 3);
    assert_eq!(file, write(header(vec![segment(1)]), &regions));
    assert_eq!(read(file).unwrap().1, regions);
}

#[test]
fn chunks_in_another_order_are_refused() {
    let big = |id| RegionRecord { hard_state: Some(vec![0; VALUE_BYTES_MAX].into()), ..region(id) };
    let good = write(header(vec![]), &[big(1), big(2)]);
    let (headers, body) = good.split_at(CHECKPOINT_HEADERS_LEN);
    let (one, two) = body.split_at(body.len() / 2);
    assert!(read([headers, two, one].concat()).is_err());
    assert!(read([headers, one, one].concat()).is_err());
}

#[test]
fn newer_release_is_told_from_rot() {
    let mut bytes = sample().to_vec();
    bytes[8] = FORMAT_VERSION as u8 + 1;
    let crc = crc32(0, &bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(read(bytes), Err(CheckpointError::Header(HeaderError::NewerVersion(FORMAT_VERSION + 1))));
}

/// The field was reserved before: then it says nothing, and has to be zero.
#[test]
fn older_checkpoint_says_nothing_of_unclean_ends() {
    let old = |unclean_before| {
        let header = CheckpointHeader { unclean_before: Some(unclean_before), ..header(vec![]) };
        let mut bytes = write(header, &[]).to_vec();
        bytes[8] = 2;
        let crc = crc32(0, &bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        read(bytes).map(|read| read.0.unclean_before)
    };
    assert_eq!(old(0), Ok(None));
    assert!(matches!(old(4), Err(CheckpointError::Malformed(_))));
}

#[test]
fn overlapping_extents_and_empty_ranges_are_refused() {
    let mut record = region(1);
    assert!(record.check().is_ok());
    record.extents[1].first = 14;
    assert!(record.check().is_err());
    let mut record = region(1);
    record.extents[0].count = 0;
    assert!(record.check().is_err());
    let mut record = region(1);
    record.extents[1].count = u64::MAX;
    assert!(record.check().is_err());
    assert!(RegionRecord { damage: vec![(2, 1)], ..region(1) }.check().is_err());
    assert!(RegionRecord { suspect: vec![(2, 1)], ..region(1) }.check().is_err());
}

fn any_region() -> impl Strategy<Value = RegionRecord> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let base =
        prop::option::of((0..=INDEX_MAX, any::<u64>()).prop_map(|(index, term)| EntryId { term, index }));
    let extents =
        prop::collection::vec((any::<u32>(), 0u64..1000, 1u64..1000, any::<(u64, u64, u64)>()), 0..4);
    let ranges =
        || prop::collection::vec((any::<u64>(), any::<u64>()).prop_map(|(a, b)| (a.min(b), a.max(b))), 0..3);
    let kv = prop::collection::vec((bytes(), bytes()), 0..4);
    let flags = any::<(u64, u32, bool, bool, Option<u64>)>();
    (flags, base, prop::option::of(bytes()), kv, extents, (ranges(), ranges())).prop_map(
        |(
            (region, as_of, exists, hard_state_lost, born),
            base,
            hard_state,
            kv,
            extents,
            (damage, suspect),
        )| {
            let mut at = 0;
            let extents = extents.into_iter().map(|(segment, gap, count, (first_term, last_term, bytes))| {
                let first = at + gap;
                at = first + count;
                let known = |term: u64| Some(term).filter(|term| *term != u64::MAX);
                let (first_term, last_term) = (known(first_term), known(last_term));
                ExtentRecord { segment, first, count, first_term, last_term, bytes }
            });
            let (region, extents) = (RegionId(region), extents.collect());
            let incarnation = born.map(Lsn::from_u64);
            RegionRecord {
                region,
                as_of,
                exists,
                incarnation,
                base,
                hard_state,
                kv,
                extents,
                damage,
                suspect,
                hard_state_lost,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_checkpoint_round_trips(
        regions in prop::collection::vec(any_region(), 0..6),
        segments in prop::collection::vec(any::<(u32, bool, u64, u32)>(), 0..6),
        start_segment: u32, synced: u64, next_file: u32, unclean_before: u32,
    ) {
        let segments = segments.into_iter().map(|(id, cold, salt, sealed_end)| {
            let kind = if cold { SegmentKind::Cold } else { SegmentKind::Log };
            SegmentRecord { id, kind, salt, sealed_end }
        });
        let synced = Lsn::from_u64(synced);
        let unclean_before = Some(unclean_before);
        let header = CheckpointHeader { start_segment, synced, next_file, unclean_before, ..header(segments.collect()) };
        let (header_back, regions_back) = read(write(header.clone(), &regions)).unwrap();
        prop_assert_eq!(header_back, CheckpointHeader { regions: regions.len() as u64, ..header });
        prop_assert_eq!(regions_back, regions);
    }

    #[test]
    fn vandalised_checkpoint_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sample().to_vec();
        for (at, value) in changes {
            let at = 128 + at.index(bytes.len() - 128);
            bytes[at] = value;
        }
        reseal(&mut bytes);
        let _ = read(bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = read(bytes);
    }
}
