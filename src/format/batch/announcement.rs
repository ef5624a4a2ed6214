//! The record that recovery begins its copy of the tail with.

use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};
use crate::format::record::Shape;
use crate::limits::DESC_BYTES_MAX;

/// The records at the end of the log that a recovery found whole, and is about to copy: if the copy is
/// never finished, the next recovery knows by it which records of the original were right once. One of
/// those that is wrong now has rotted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Announcement {
    /// Records were dropped that may have been acknowledged, because the caller accepted that: the newest
    /// hard state of any region may have been among them.
    pub(crate) loss: bool,
    /// In the order of the log.
    pub(crate) records: Vec<Shape>,
}

impl Announcement {
    /// Appends the description. Records that do not fit are left out: of those nothing is proved.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let records = self.records.get(..RECORDS_MAX).unwrap_or(&self.records);
        out.extend_from_slice(&[ANNOUNCEMENT_TAG, u8::from(self.loss)]);
        put_varint(out, records.len() as u64);
        for record in records {
            record.put_compact(out);
        }
    }

    /// Reads a description.
    pub(crate) fn decode(desc: &[u8]) -> Result<Announcement, Malformed> {
        let mut r = Cursor::new(desc);
        if r.u8()? != ANNOUNCEMENT_TAG {
            return Err(Malformed("the description is not that of an announcement"));
        }
        let loss = match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("an announcement has flags that this release does not know")),
        };
        let count = r.count(RECORD_LEN_MIN)?;
        let mut records: Vec<Shape> = Vec::with_capacity(count);
        for _ in 0..count {
            let record = Shape::read_compact(&mut r)?;
            if records.last().is_some_and(|before| before.position >= record.position) {
                return Err(Malformed("the records of an announcement are not in the order of the log"));
            }
            records.push(record);
        }
        r.finish()?;
        Ok(Announcement { loss, records })
    }
}

/// What the description of an announcement starts with: see [`INSTALL_TAG`](super::INSTALL_TAG).
pub(crate) const ANNOUNCEMENT_TAG: u8 = 2;

/// A position, two lengths, two checksums.
const RECORD_LEN_MIN: usize = 11;

/// The longest record of an announcement has 28 bytes.
const RECORDS_MAX: usize = (DESC_BYTES_MAX - 16) / 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Lsn;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_announcement_round_trips(loss: bool, mut records: Vec<(u64, u32, u32, u32, u32)>) {
            records.sort_unstable();
            records.dedup_by_key(|r| r.0);
            let shape = |r: (u64, u32, u32, u32, u32)| Shape {
                position: Lsn::from_u64(r.0),
                header_crc: r.1,
                desc_len: r.2,
                payload_len: r.3,
                desc_crc: r.4,
            };
            let announcement = Announcement { loss, records: records.into_iter().map(shape).collect() };
            let mut out = Vec::new();
            announcement.encode(&mut out);
            prop_assert_eq!(Announcement::decode(&out), Ok(announcement));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>) {
            let _ = Announcement::decode(&bytes);
            bytes.insert(0, ANNOUNCEMENT_TAG);
            let _ = Announcement::decode(&bytes);
        }
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let record = |offset| Shape { position: Lsn::new(3, offset), ..Shape::default() };
        let mut out = Vec::new();
        Announcement { loss: false, records: vec![record(8192), record(4096)] }.encode(&mut out);
        assert!(Announcement::decode(&out).is_err());
    }

    #[test]
    fn more_records_than_a_description_holds_are_left_out() {
        let longest = Shape {
            position: Lsn::ZERO,
            header_crc: 0,
            desc_len: u32::MAX,
            payload_len: u32::MAX,
            desc_crc: 0,
        };
        let record = |n: u64| Shape { position: Lsn::from_u64(1 << 63 | n), ..longest };
        let mut out = Vec::new();
        Announcement { loss: false, records: (0..RECORDS_MAX as u64 + 5).map(record).collect() }
            .encode(&mut out);
        assert!(out.len() <= DESC_BYTES_MAX);
        assert_eq!(Announcement::decode(&out).unwrap().records.len(), RECORDS_MAX);
    }
}
