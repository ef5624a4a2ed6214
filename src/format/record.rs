//! The header of a record in a log segment.
//!
//! A record is a header of 64 bytes, a description and a payload area, padded to a multiple of 8. The header
//! is checksummed apart from the description and that apart from the payloads, so that a rotten payload
//! still says whose it is. Each header repeats its predecessor's [`Shape`], for two reasons: bytes of an
//! older generation of the file can never splice in after a newer record, and a header that rotted can be
//! rebuilt from the record after it.

use crate::codec::checksum::crc32;
use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::format::batch::{ANNOUNCEMENT_TAG, COPIES_TAG, INSTALL_TAG};
use crate::format::file_header::SEGMENT_HEADER_LEN;
use crate::format::zeros::Zeros;
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX};
use crate::planted::{Bug, planted};
use crate::types::Lsn;

/// What a record is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum RecordKind {
    /// A [`Batch`](super::batch::Batch): a description and its payloads.
    Batch = 1,
    /// An [`Install`](super::batch::Install): a description, no payload.
    Install = 2,
    /// Nothing but the watermark in its header.
    Watermark = 3,
    /// An [`Announcement`](super::batch::Announcement) of the records that recovery will copy: a
    /// description, no payload.
    Announcement = 4,
    /// [Copies](super::copies) of headers and descriptions that were written before: a description, no
    /// payload.
    Copies = 5,
}

impl RecordKind {
    pub(super) fn from_u8(kind: u8) -> Result<RecordKind, Malformed> {
        Ok(match kind {
            1 => RecordKind::Batch,
            2 => RecordKind::Install,
            3 => RecordKind::Watermark,
            4 => RecordKind::Announcement,
            5 => RecordKind::Copies,
            _ => return Err(Malformed("the kind of record is unknown")),
        })
    }
}

/// What a record looks like from outside: enough to find it, to walk over it, and to check its header.
///
/// The default, all zeros, means that there is none: no record lies at position 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Shape {
    /// Where the record starts.
    pub(crate) position: Lsn,
    /// The checksum of its header.
    pub(crate) header_crc: u32,
    /// The length of its description.
    pub(crate) desc_len: u32,
    /// The length of its payload area.
    pub(crate) payload_len: u32,
    /// The checksum of its description.
    pub(crate) desc_crc: u32,
}

impl Shape {
    /// Appends it with fields of fixed width: 24 bytes.
    pub(in crate::format) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_u64().to_le_bytes());
        for field in [self.header_crc, self.desc_len, self.payload_len, self.desc_crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    /// Reads what [`put`](Shape::put) wrote.
    pub(in crate::format) fn read(r: &mut Cursor<'_>) -> Result<Shape, Malformed> {
        Ok(Shape {
            position: Lsn::from_u64(r.u64()?),
            header_crc: r.u32()?,
            desc_len: r.u32()?,
            payload_len: r.u32()?,
            desc_crc: r.u32()?,
        })
    }

    /// Appends it with varints for what is not a checksum.
    pub(in crate::format) fn put_compact(&self, out: &mut Vec<u8>) {
        put_varint(out, self.position.to_u64());
        out.extend_from_slice(&self.header_crc.to_le_bytes());
        put_varint(out, u64::from(self.desc_len));
        put_varint(out, u64::from(self.payload_len));
        out.extend_from_slice(&self.desc_crc.to_le_bytes());
    }

    /// Reads what [`put_compact`](Shape::put_compact) wrote.
    pub(in crate::format) fn read_compact(r: &mut Cursor<'_>) -> Result<Shape, Malformed> {
        Ok(Shape {
            position: Lsn::from_u64(r.varint()?),
            header_crc: r.u32()?,
            desc_len: r.varint_u32()?,
            payload_len: r.varint_u32()?,
            desc_crc: r.u32()?,
        })
    }

    /// Whether this stands for "no predecessor".
    pub(crate) fn is_none(&self) -> bool {
        *self == Shape::default()
    }

    /// The bytes that the record takes, padding included.
    pub(crate) fn len(&self) -> u64 {
        record_len(self.desc_len, self.payload_len)
    }

    /// The position one past the record; `None` when there is no record, or when it would end
    /// beyond every segment.
    pub(crate) fn end(&self) -> Option<Lsn> {
        if self.is_none() {
            return None;
        }
        let end = u64::from(self.position.offset()).checked_add(self.len())?;
        Some(Lsn::new(self.position.segment(), u32::try_from(end).ok()?))
    }
}

/// The header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHeader {
    /// What the record is for.
    pub(crate) kind: RecordKind,
    /// The position of its own first byte: a block that was written elsewhere does not verify.
    pub(crate) position: Lsn,
    /// The length of the description, which follows the header.
    pub(crate) desc_len: u32,
    /// The length of the payload area, which follows the description.
    pub(crate) payload_len: u32,
    /// The checksum of the description, seeded with 0: it is taken before the position is known, on the
    /// caller's thread, and this header, which is checksummed with the position, binds it to its place.
    pub(crate) desc_crc: u32,
    /// Up to where the log was known durable when the record was written. A bad record below any watermark
    /// that is found later was acknowledged: it is damaged, not torn.
    pub(crate) watermark: Lsn,
    /// The zeros of description and payload area: more were never written.
    pub(crate) zeros: Zeros,
    /// The record before.
    pub(crate) previous: Shape,
}

impl RecordHeader {
    /// The header as it stands on disk, in a file with this seed, and what its successor will repeat of it.
    pub(crate) fn encode(&self, seed: u32) -> ([u8; RECORD_HEADER_LEN as usize], Shape) {
        let mut out = [0u8; RECORD_HEADER_LEN as usize];
        let (head, body) = out.split_at_mut(CRC_COVERS_FROM);
        put(body, 0, &self.position.to_u64().to_le_bytes());
        put(body, 8, &self.desc_len.to_le_bytes());
        put(body, 12, &self.payload_len.to_le_bytes());
        put(body, 16, &self.desc_crc.to_le_bytes());
        put(body, 20, &[self.kind as u8, self.zeros.trailing]);
        put(body, 22, &self.zeros.sectors.to_le_bytes());
        put(body, 24, &self.watermark.to_u64().to_le_bytes());
        put(body, 32, &self.previous.position.to_u64().to_le_bytes());
        put(body, 40, &self.previous.header_crc.to_le_bytes());
        put(body, 44, &self.previous.desc_len.to_le_bytes());
        put(body, 48, &self.previous.payload_len.to_le_bytes());
        put(body, 52, &self.previous.desc_crc.to_le_bytes());
        let header_crc = crc32(seed, body);
        put(head, 0, &RECORD_MAGIC);
        put(head, 4, &header_crc.to_le_bytes());
        (out, self.shape(header_crc))
    }

    /// Reads the header that should start at position `at` of a file with this seed.
    pub(crate) fn decode(bytes: &[u8], seed: u32, at: Lsn) -> Result<(RecordHeader, Shape), Malformed> {
        let bytes: &[u8; RECORD_HEADER_LEN as usize] =
            bytes.first_chunk().ok_or(Malformed("the file ends inside a record's header"))?;
        let mut r = Cursor::new(bytes);
        if r.array()? != RECORD_MAGIC {
            return Err(Malformed("no record starts here"));
        }
        let header_crc = r.u32()?;
        let found = bytes.get(CRC_COVERS_FROM..).map(|body| crc32(seed, body));
        if found != Some(header_crc) && !planted(Bug::RecordNotVerified) {
            return Err(Malformed("the checksum of a record's header is wrong"));
        }
        let position = Lsn::from_u64(r.u64()?);
        let (desc_len, payload_len, desc_crc) = (r.u32()?, r.u32()?, r.u32()?);
        let kind = RecordKind::from_u8(r.u8()?);
        let zeros = Zeros { trailing: r.u8()?, sectors: u16::from_le_bytes(r.array()?) };
        let watermark = Lsn::from_u64(r.u64()?);
        let previous = Shape::read(&mut r)?;
        r.finish()?;
        let kind = kind?;
        if position != at && !planted(Bug::PositionNotChecked) {
            return Err(Malformed("a record was written for another position"));
        }
        let header =
            RecordHeader { kind, position, desc_len, payload_len, desc_crc, watermark, zeros, previous };
        let shape = header.shape(header_crc);
        header.check(&shape)?;
        Ok((header, shape))
    }

    /// Stands in for a header that rotted, from what its successor repeats of it and the description that
    /// follows it. The description must have the checksum that the shape names. What the shape does not hold,
    /// the watermark, the zeros and the predecessor, is left as if nothing were known.
    pub(crate) fn rebuilt_from(shape: Shape, desc: &[u8]) -> Result<RecordHeader, Malformed> {
        if u32::try_from(desc.len()) != Ok(shape.desc_len) || crc32(0, desc) != shape.desc_crc {
            return Err(Malformed("the description is not the one that the next record names"));
        }
        // A description says what it is: see `INSTALL_TAG`.
        let kind = match (desc.first(), shape.payload_len) {
            (None, 0) => RecordKind::Watermark,
            (None, _) => return Err(Malformed("payloads without a description")),
            (Some(&INSTALL_TAG), 0) => RecordKind::Install,
            (Some(&ANNOUNCEMENT_TAG), 0) => RecordKind::Announcement,
            (Some(&COPIES_TAG), 0) => RecordKind::Copies,
            _ => RecordKind::Batch,
        };
        let header = RecordHeader {
            kind,
            position: shape.position,
            desc_len: shape.desc_len,
            payload_len: shape.payload_len,
            desc_crc: shape.desc_crc,
            watermark: Lsn::ZERO,
            zeros: Zeros::default(),
            previous: Shape::default(),
        };
        header.check(&shape)?;
        Ok(header)
    }

    fn shape(&self, header_crc: u32) -> Shape {
        Shape {
            position: self.position,
            header_crc,
            desc_len: self.desc_len,
            payload_len: self.payload_len,
            desc_crc: self.desc_crc,
        }
    }

    /// The rules that hold between fields.
    fn check(&self, shape: &Shape) -> Result<(), Malformed> {
        let offset = self.position.offset();
        if offset < SEGMENT_HEADER_LEN || !offset.is_multiple_of(RECORD_ALIGN) {
            return Err(Malformed("a record cannot start at this offset"));
        }
        if self.desc_len as usize > DESC_BYTES_MAX
            || shape.len() > BATCH_BYTES_MAX as u64
            || shape.end().is_none()
        {
            return Err(Malformed("a record is longer than the limit"));
        }
        let empty = match self.kind {
            RecordKind::Batch => false,
            RecordKind::Install | RecordKind::Announcement | RecordKind::Copies => self.payload_len > 0,
            RecordKind::Watermark => self.payload_len > 0 || self.desc_len > 0,
        };
        if empty {
            return Err(Malformed("a record has bytes that its kind does not have"));
        }
        Ok(())
    }
}

/// The bytes that a record takes: its header, its description, its payloads, and padding to a multiple of 8.
pub(crate) fn record_len(desc_len: u32, payload_len: u32) -> u64 {
    let len = u64::from(RECORD_HEADER_LEN) + u64::from(desc_len) + u64::from(payload_len);
    len.next_multiple_of(u64::from(RECORD_ALIGN))
}

/// The length of a record's header.
pub(crate) const RECORD_HEADER_LEN: u32 = 64;

/// Records start at multiples of this, so that recovery may look for one at an eighth of all offsets only.
pub(crate) const RECORD_ALIGN: u32 = 8;

/// The first bytes of every record. The high bit keeps text from looking like one.
pub(crate) const RECORD_MAGIC: [u8; 4] = [0xd7, b'r', b'e', b'c'];

/// Magic and checksum do not cover themselves.
const CRC_COVERS_FROM: usize = 8;

/// Copies a field to its place in a header of fixed size.
fn put(out: &mut [u8], at: usize, field: &[u8]) {
    if let Some(to) = out.get_mut(at..at + field.len()) {
        to.copy_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u32 = 0x5eed;

    fn header() -> RecordHeader {
        let first = RecordHeader {
            kind: RecordKind::Batch,
            position: Lsn::new(3, SEGMENT_HEADER_LEN),
            desc_len: 17,
            payload_len: 300,
            desc_crc: 0xabcd,
            watermark: Lsn::new(2, 9000),
            zeros: Zeros { trailing: 3, sectors: 2 },
            previous: Shape::default(),
        };
        let shape = first.encode(SEED).1;
        RecordHeader { position: shape.end().unwrap(), previous: shape, ..first }
    }

    fn check(header: RecordHeader) -> Result<(RecordHeader, Shape), Malformed> {
        RecordHeader::decode(&header.encode(SEED).0, SEED, header.position)
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let header = header();
        let good = header.encode(SEED).0;
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::decode(&bad, SEED, header.position).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn record_of_another_life_or_place_is_refused() {
        let header = header();
        let bytes = header.encode(SEED).0;
        assert!(RecordHeader::decode(&bytes, SEED + 1, header.position).is_err());
        assert!(RecordHeader::decode(&bytes, SEED, Lsn::new(3, 8192)).is_err());
        assert!(RecordHeader::decode(&bytes, SEED, Lsn::new(4, header.position.offset())).is_err());
    }

    #[test]
    fn impossible_fields_are_refused_though_the_checksum_is_right() {
        let good = header();
        assert!(check(good).is_ok());
        assert!(check(RecordHeader { position: Lsn::new(3, 4100), ..good }).is_err());
        assert!(check(RecordHeader { position: Lsn::new(3, 64), ..good }).is_err());
        assert!(check(RecordHeader { position: Lsn::new(3, u32::MAX - 7), ..good }).is_err());
        assert!(check(RecordHeader { desc_len: DESC_BYTES_MAX as u32 + 1, ..good }).is_err());
        assert!(check(RecordHeader { payload_len: BATCH_BYTES_MAX as u32, ..good }).is_err());
        assert!(check(RecordHeader { kind: RecordKind::Install, ..good }).is_err());
        assert!(check(RecordHeader { kind: RecordKind::Announcement, ..good }).is_err());
        assert!(check(RecordHeader { kind: RecordKind::Watermark, payload_len: 0, ..good }).is_err());
    }

    #[test]
    fn unknown_kind_is_refused() {
        let header = header();
        let mut bytes = header.encode(SEED).0;
        bytes[28] = 0x7f;
        let crc = crc32(SEED, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(RecordHeader::decode(&bytes, SEED, header.position).is_err());
    }

    #[test]
    fn length_is_padded_to_eight() {
        assert_eq!(
            [record_len(0, 0), record_len(1, 0), record_len(4, 4), record_len(8, 1)],
            [64, 72, 72, 80]
        );
        assert_eq!(record_len(u32::MAX, u32::MAX), 64 + 2 * u64::from(u32::MAX) + 2);
    }

    #[test]
    fn no_predecessor_has_no_end() {
        assert_eq!(Shape::default().end(), None);
        assert!(Shape::default().is_none());
    }

    #[test]
    fn rotten_header_is_rebuilt_from_its_successor() {
        let desc = b"\x00\x00";
        let header = RecordHeader { desc_len: 2, payload_len: 0, desc_crc: crc32(0, desc), ..header() };
        let shape = header.encode(SEED).1;
        let rebuilt = RecordHeader::rebuilt_from(shape, desc).unwrap();
        let unknown = Zeros::default();
        assert_eq!(
            rebuilt,
            RecordHeader { watermark: Lsn::ZERO, zeros: unknown, previous: Shape::default(), ..header }
        );
        assert!(RecordHeader::rebuilt_from(shape, b"\x00\x01").is_err());
        assert!(RecordHeader::rebuilt_from(Shape::default(), b"").is_err());
    }

    proptest! {
        #[test]
        fn every_header_round_trips(
            segment: u32, slot in 512u32..1 << 28, desc_len in 0u32..1 << 24, payload_len in 0u32..1 << 29,
            desc_crc: u32, watermark: u64, trailing: u8, sectors: u16, before: (u64, u32, u32, u32, u32),
            seed: u32,
        ) {
            let header = RecordHeader {
                kind: RecordKind::Batch,
                position: Lsn::new(segment, slot * 8),
                desc_len,
                payload_len,
                desc_crc,
                watermark: Lsn::from_u64(watermark),
                zeros: Zeros { trailing, sectors },
                previous: Shape {
                    position: Lsn::from_u64(before.0),
                    header_crc: before.1,
                    desc_len: before.2,
                    payload_len: before.3,
                    desc_crc: before.4,
                },
            };
            let (bytes, shape) = header.encode(seed);
            prop_assert_eq!(RecordHeader::decode(&bytes, seed, header.position), Ok((header, shape)));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), seed: u32, at: u64) {
            let _ = RecordHeader::decode(&bytes, seed, Lsn::from_u64(at));
            if bytes.len() >= 64 {
                let crc = crc32(seed, &bytes[8..64]);
                bytes[..4].copy_from_slice(&RECORD_MAGIC);
                bytes[4..8].copy_from_slice(&crc.to_le_bytes());
                let at = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
                let _ = RecordHeader::decode(&bytes, seed, Lsn::from_u64(at));
            }
        }
    }
}
