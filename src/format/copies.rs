//! Headers and descriptions once more, in another block than the first time.
//!
//! A description is all that ties the bytes of a batch to regions. In a segment that has its footer yet to
//! come it would stand in one place only, and a sector that the device loses would take it from everybody.
//! Therefore what was written is said again: by a record of a later group, and by the mark once the log
//! is at rest.
//!
//! A copy is complete: header and description can be made again from it, bit by bit.

use crate::codec::checksum::crc32;
use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::format::batch::COPIES_TAG;
use crate::format::record::{RecordHeader, RecordKind, Shape};
use crate::format::zeros::Zeros;
use crate::types::Lsn;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The header and the description of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordCopy {
    pub(crate) header: RecordHeader,
    pub(crate) shape: Shape,
    /// `None` where it was left out.
    pub(crate) desc: Option<Bytes>,
}

/// Copies of one segment's records, by offset.
pub(crate) type Copies = BTreeMap<u32, RecordCopy>;

/// Records that follow one another in a segment, with one watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// Where the first one starts.
    pub(crate) position: Lsn,
    /// The record before.
    pub(crate) previous: Shape,
    pub(crate) watermark: Lsn,
    /// How many there are.
    pub(crate) count: u64,
}

impl Run {
    /// Appends what stands before the records of the run.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.position.to_u64());
        self.previous.put_compact(out);
        put_varint(out, self.watermark.to_u64());
        put_varint(out, self.count);
    }

    fn decode(r: &mut Cursor<'_>) -> Result<Run, Malformed> {
        Ok(Run {
            position: Lsn::from_u64(r.varint()?),
            previous: Shape::read_compact(r)?,
            watermark: Lsn::from_u64(r.varint()?),
            count: r.count(RECORD_LEN_MIN)? as u64,
        })
    }
}

/// Appends the copy of one record of a [`Run`]. The description of a list of copies is left out, and one that
/// is longer than [`COPIED_BYTES_MAX`].
pub(crate) fn encode_copy(header: &RecordHeader, desc: &[u8], out: &mut Vec<u8>) {
    let left_out = header.kind == RecordKind::Copies || desc.len() > COPIED_BYTES_MAX;
    out.push(header.kind as u8 | if left_out { LEFT_OUT } else { 0 });
    out.push(header.zeros.trailing);
    put_varint(out, u64::from(header.zeros.sectors));
    put_varint(out, u64::from(header.desc_len));
    put_varint(out, u64::from(header.payload_len));
    out.extend_from_slice(&header.desc_crc.to_le_bytes());
    if !left_out {
        out.extend_from_slice(desc);
    }
}

/// Reads a list of copies. Those of segments whose seed is not known are passed over.
pub(crate) fn decode_copies(
    list: &Bytes,
    seed: impl Fn(u32) -> Option<u32>,
    mut each: impl FnMut(RecordCopy),
) -> Result<(), Malformed> {
    let mut r = Cursor::new(list);
    if r.u8()? != COPIES_TAG {
        return Err(Malformed("the description is not that of a list of copies"));
    }
    while r.remaining() > 0 {
        let run = Run::decode(&mut r)?;
        if run.count == 0 {
            return Err(Malformed("a run of copies is empty"));
        }
        let seed = seed(run.position.segment());
        let (mut position, mut previous) = (run.position, run.previous);
        for _ in 0..run.count {
            let flags = r.u8()?;
            let kind = RecordKind::from_u8(flags & !LEFT_OUT)?;
            let zeros = Zeros {
                trailing: r.u8()?,
                sectors: u16::try_from(r.varint()?)
                    .map_err(|_| Malformed("a record has too many sectors"))?,
            };
            let (desc_len, payload_len, desc_crc) = (r.varint_u32()?, r.varint_u32()?, r.u32()?);
            let header = RecordHeader {
                kind,
                position,
                desc_len,
                payload_len,
                desc_crc,
                watermark: run.watermark,
                zeros,
                previous,
            };
            let desc = match flags & LEFT_OUT {
                0 => {
                    let at = r.position();
                    let desc = list.slice(at..at + r.bytes(desc_len as usize)?.len());
                    if crc32(0, &desc) != desc_crc {
                        return Err(Malformed("the copy of a description is not the description"));
                    }
                    Some(desc)
                }
                _ => None,
            };
            let (bytes, shape) = header.encode(seed.unwrap_or_default());
            // It obeys the rules of a header that is read.
            RecordHeader::decode(&bytes, seed.unwrap_or_default(), position)?;
            position = shape.end().ok_or(Malformed("a record ends beyond every segment"))?;
            previous = shape;
            if seed.is_some() {
                each(RecordCopy { header, shape, desc });
            }
        }
    }
    Ok(())
}

/// The longest description that is copied. Longer ones hold keys and values by the megabyte, which would be
/// written twice.
pub(crate) const COPIED_BYTES_MAX: usize = 64 << 10;

/// The description is not there.
const LEFT_OUT: u8 = 0x80;

/// A kind, zeros, two lengths, a checksum.
const RECORD_LEN_MIN: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u32 = 0x5eed;

    /// Records that follow one another from `position` on, as they are written, and the list of their copies.
    fn written(position: Lsn, descs: &[Vec<u8>], payload_len: u32) -> (Vec<RecordCopy>, Bytes) {
        let watermark = Lsn::new(2, 4096);
        let (mut copies, mut records): (Vec<RecordCopy>, _) = (Vec::new(), Vec::new());
        let mut at = position;
        for desc in descs {
            let header = RecordHeader {
                kind: RecordKind::Batch,
                position: at,
                desc_len: desc.len() as u32,
                payload_len,
                desc_crc: crc32(0, desc),
                watermark,
                zeros: Zeros { trailing: 3, sectors: 1 },
                previous: copies.last().map_or(Shape::default(), |c| c.shape),
            };
            let shape = header.encode(SEED).1;
            encode_copy(&header, desc, &mut records);
            let desc = (desc.len() <= COPIED_BYTES_MAX).then(|| Bytes::from(desc.clone()));
            copies.push(RecordCopy { header, shape, desc });
            at = shape.end().unwrap();
        }
        let mut list = vec![COPIES_TAG];
        Run { position, previous: Shape::default(), watermark, count: descs.len() as u64 }.encode(&mut list);
        list.extend(records);
        (copies, Bytes::from(list))
    }

    fn read(list: &Bytes) -> Result<Vec<RecordCopy>, Malformed> {
        let mut copies = Vec::new();
        decode_copies(list, |segment| (segment == 3).then_some(SEED), |copy| copies.push(copy))?;
        Ok(copies)
    }

    #[test]
    fn a_long_description_is_left_out_and_the_record_can_be_walked_over() {
        let (copies, list) = written(Lsn::new(3, 4096), &[vec![7; COPIED_BYTES_MAX + 1], vec![8; 30]], 9);
        assert!(list.len() < 200);
        assert_eq!(read(&list), Ok(copies));
    }

    #[test]
    fn records_of_a_segment_that_is_gone_are_passed_over() {
        assert_eq!(read(&written(Lsn::new(4, 4096), &[vec![1; 30]], 9).1), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn every_list_round_trips(
            descs in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..9), payload_len in 0u32..5000,
        ) {
            let (copies, list) = written(Lsn::new(3, 8192), &descs, payload_len);
            prop_assert_eq!(read(&list), Ok(copies));
        }

        #[test]
        fn what_is_cut_or_changed_never_panics(
            cut in 0usize..600, at in 0usize..600, mask in 1u8.., bytes: Vec<u8>,
        ) {
            let (_, list) = written(Lsn::new(3, 8192), &[vec![1; 100], vec![2; 150]], 77);
            let mut bad = list[..cut.min(list.len())].to_vec();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= mask;
            }
            bad.extend(bytes);
            let _ = read(&Bytes::from(bad));
        }
    }
}
