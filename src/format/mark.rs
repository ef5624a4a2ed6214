//! Up to where the log is durable, said in another file than the log.
//!
//! What proves that a record was durable must not lie in the block that it proves: both would be lost
//! together, without a word. The file has two slots, each in a block of its own, which are written in turn: a
//! block that is lost costs the newer or the older of them, never both. For the same reason a mark that is
//! written when the log comes to rest has [copies](super::copies) of the last records' descriptions, which no
//! later record has.

use crate::codec::checksum::crc32;
use crate::codec::{Cursor, Malformed};
use crate::format::file_header::{
    FILE_HEADER_LEN, FORMAT_VERSION, FileHeader, FileKind, HeaderError, Identity, StoreId,
};
use crate::format::record::Shape;
use crate::limits::PAGE;
use crate::types::Lsn;
use bytes::Bytes;

/// One slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// The store whose log it is.
    pub(crate) store: StoreId,
    /// Each mark has the number after the one before; even ones stand in the first slot.
    pub(crate) sequence: u64,
    /// The log is durable up to here: the end of a record.
    pub(crate) durable: Lsn,
    /// The run that wrote it.
    pub(crate) run: u32,
    /// The record that ends there; the default when it is not known.
    pub(crate) last: Shape,
    /// A list of copies, at most [`MARK_COPIES_MAX`] bytes; nothing when none was needed.
    pub(crate) copies: Bytes,
}

impl Mark {
    /// Where its slot stands in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.sequence % 2 * MARK_SLOT_LEN as u64
    }

    /// The slot, as it stands on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let identity = identity(self.store);
        let header = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Mark,
            identity,
            len: MARK_LEN,
            previous_salt: 0,
        };
        let mut body = Vec::with_capacity(BODY_LEN);
        body.extend_from_slice(&self.sequence.to_le_bytes());
        body.extend_from_slice(&self.durable.to_u64().to_le_bytes());
        body.extend_from_slice(&self.run.to_le_bytes());
        body.extend_from_slice(&(self.copies.len() as u32).to_le_bytes());
        self.last.put(&mut body);
        body.extend_from_slice(&crc32(identity.seed(), &self.copies).to_le_bytes());
        body.resize(BODY_LEN - 8, 0);
        let mut out = header.encode().to_vec();
        out.extend_from_slice(&MARK_MAGIC);
        out.extend_from_slice(&crc32(identity.seed(), &body).to_le_bytes());
        out.extend_from_slice(&body);
        out.extend_from_slice(&self.copies);
        out.resize(MARK_SLOT_LEN, 0);
        out
    }

    /// Reads the slot that stands at `offset` of the file.
    pub(crate) fn decode(slot: &[u8], offset: u64) -> Result<Mark, HeaderError> {
        let header = FileHeader::decode(slot)?;
        if header.kind != FileKind::Mark || header.identity != identity(header.identity.store) {
            return Err(Malformed("the file is no mark").into());
        }
        let mut r = Cursor::new(slot.get(FILE_HEADER_LEN..).unwrap_or_default());
        if r.array()? != MARK_MAGIC {
            return Err(Malformed("the mark has a bad magic").into());
        }
        let crc = r.u32()?;
        let body = r.bytes(BODY_LEN - 8)?;
        if crc != crc32(header.identity.seed(), body) {
            return Err(Malformed("the checksum of the mark is wrong").into());
        }
        let mut r = Cursor::new(body);
        let (sequence, durable, run, copies_len) = (r.u64()?, Lsn::from_u64(r.u64()?), r.u32()?, r.u32()?);
        let last = Shape::read(&mut r)?;
        // Before version 4 these were reserved, and zero.
        let copies_crc = if header.version < 4 { 0 } else { r.u32()? };
        if header.version < 4 && copies_len != 0 || r.bytes(r.remaining())?.iter().any(|b| *b != 0) {
            return Err(Malformed("reserved bytes of the mark are not zero").into());
        }
        let copies = slot.get(COPIES_AT..COPIES_AT + (copies_len as usize).min(MARK_COPIES_MAX + 1));
        // Copies that rotted are none: what the mark proves does not depend on them.
        let copies = copies.filter(|bytes| crc32(header.identity.seed(), bytes) == copies_crc);
        let copies = Bytes::copy_from_slice(copies.unwrap_or_default());
        let mark = Mark { store: header.identity.store, sequence, durable, run, last, copies };
        if mark.offset() != offset {
            return Err(Malformed("the mark stands in the other's slot").into());
        }
        Ok(mark)
    }
}

/// The length of a slot: as much as a device may lose at once.
pub(crate) const MARK_SLOT_LEN: usize = PAGE as usize;

/// The length of the file.
pub(crate) const MARK_LEN: u64 = 2 * MARK_SLOT_LEN as u64;

/// The longest list of copies that fits into a slot.
pub(crate) const MARK_COPIES_MAX: usize = MARK_SLOT_LEN - COPIES_AT;

const COPIES_AT: usize = FILE_HEADER_LEN + BODY_LEN;

/// The file is never recycled: it has no number and no salt.
fn identity(store: StoreId) -> Identity {
    Identity { store, file: 0, salt: 0 }
}

const BODY_LEN: usize = 128;

const MARK_MAGIC: [u8; 4] = [0xd7, b'm', b'r', b'k'];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(sequence: u64) -> Mark {
        let last =
            Shape { position: Lsn::new(3, 4096), header_crc: 1, desc_len: 2, payload_len: 3, desc_crc: 4 };
        let (store, durable) = (StoreId(*b"0123456789abcdef"), Lsn::new(3, 4168));
        Mark { store, sequence, durable, run: 2, last, copies: Bytes::from_static(&[3; 50]) }
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let good = mark(7).encode();
        assert_eq!(good.len(), MARK_SLOT_LEN);
        for bit in 0..256 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Mark::decode(&bad, 4096).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_mark_proves_what_it_does_without_its_copies() {
        let mut slot = mark(6).encode();
        slot[COPIES_AT + 7] ^= 1;
        assert_eq!(Mark::decode(&slot, 0), Ok(Mark { copies: Bytes::new(), ..mark(6) }));
        let full = Mark { copies: Bytes::from(vec![3; MARK_COPIES_MAX]), ..mark(6) };
        assert_eq!(Mark::decode(&full.encode(), 0), Ok(full));
    }

    #[test]
    fn marks_stand_in_turn_in_the_first_slot_and_the_second() {
        assert_eq!([mark(6).offset(), mark(7).offset(), mark(8).offset()], [0, 4096, 0]);
        assert!(Mark::decode(&mark(6).encode(), 4096).is_err());
    }

    #[test]
    fn a_newer_release_is_told_from_rot() {
        let mut slot = mark(6).encode();
        slot[8] = FORMAT_VERSION as u8 + 1;
        let crc = crc32(0, &slot[..124]);
        slot[124..128].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Mark::decode(&slot, 0), Err(HeaderError::NewerVersion(FORMAT_VERSION + 1)));
    }

    proptest! {
        #[test]
        fn every_mark_round_trips(store: [u8; 16], sequence: u64, durable: u64, run: u32, last: (u64, u32, u32, u32, u32), copies in prop::collection::vec(any::<u8>(), 0..300)) {
            let (position, header_crc, desc_len, payload_len, desc_crc) = last;
            let last = Shape { position: Lsn::from_u64(position), header_crc, desc_len, payload_len, desc_crc };
            let mark = Mark { store: StoreId(store), sequence, durable: Lsn::from_u64(durable), run, last, copies: copies.into() };
            prop_assert_eq!(Mark::decode(&mark.encode(), mark.offset()), Ok(mark));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, at: prop::sample::Index) {
            let _ = Mark::decode(&bytes, 0);
            let mut slot = mark(6).encode();
            let at = at.index(slot.len());
            slot.truncate(at);
            slot.extend(bytes);
            let _ = Mark::decode(&slot, 0);
        }
    }
}
