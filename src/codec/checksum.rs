//! CRC-32 (the one of zlib and Ethernet), seeded.
//!
//! A seed is the checksum of what precedes: bytes that are right but stand in the wrong file, or belong to
//! another entry, fail. CRC is linear, so two different seeds never give the same sum for the same bytes.

use crate::types::{EntryId, RegionId};
use crc32fast::Hasher;

/// The checksum of `bytes` following whatever gave `seed`; 0 when nothing precedes.
#[inline]
pub(crate) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// The checksum that goes with an entry for life: through compression, cleaning and reading.
///
/// It binds the payload to its identity. A location that leads to another entry's bytes, a zeroed index
/// record, or a payload moved to another region, index or term does not verify.
#[inline]
pub(crate) fn entry_checksum(region: RegionId, id: EntryId, payload: &[u8]) -> u32 {
    let mut identity = [0u8; 24];
    let (r, rest) = identity.split_at_mut(8);
    let (i, t) = rest.split_at_mut(8);
    r.copy_from_slice(&region.0.to_le_bytes());
    i.copy_from_slice(&id.index.to_le_bytes());
    t.copy_from_slice(&id.term.to_le_bytes());
    let mut hasher = Hasher::new();
    hasher.update(&identity);
    hasher.update(payload);
    hasher.finalize()
}

/// What the [`entry_checksum`] of a payload that belongs to `was` is when it belongs to `is`, without the
/// payload: the sum is linear, so it changes by what the identities differ in, moved past the payload.
pub(crate) fn moved_checksum(sum: u32, region: RegionId, was: EntryId, is: EntryId, payload_len: u32) -> u32 {
    let differ = entry_checksum(region, was, b"") ^ entry_checksum(region, is, b"");
    let mut moved = Hasher::new_with_initial(differ);
    moved.combine(&Hasher::new_with_initial_len(0, u64::from(payload_len)));
    sum ^ moved.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_vector_holds() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"12345"), b"6789"), 0xcbf4_3926);
    }

    #[test]
    fn zeroed_index_record_never_verifies_as_an_empty_entry() {
        assert_ne!(entry_checksum(RegionId(0), EntryId::new(0, 0), b""), 0);
        assert_ne!(entry_checksum(RegionId(1), EntryId::new(1, 1), b""), 0);
    }

    proptest! {
        #[test]
        fn each_part_of_the_identity_counts(region: u64, term: u64, index: u64, bit in 0u32..64, payload: Vec<u8>) {
            let sum = entry_checksum(RegionId(region), EntryId::new(term, index), &payload);
            let flip = 1u64 << bit;
            prop_assert_ne!(sum, entry_checksum(RegionId(region ^ flip), EntryId::new(term, index), &payload));
            prop_assert_ne!(sum, entry_checksum(RegionId(region), EntryId::new(term ^ flip, index), &payload));
            prop_assert_ne!(sum, entry_checksum(RegionId(region), EntryId::new(term, index ^ flip), &payload));
        }

        #[test]
        fn a_sum_is_moved_to_another_identity_without_the_payload(
            region: u64, was: (u64, u64), is: (u64, u64), payload: Vec<u8>,
        ) {
            let id = |(term, index)| EntryId::new(term, index);
            let region = RegionId(region);
            let sum = |at| entry_checksum(region, id(at), &payload);
            let moved = moved_checksum(sum(was), region, id(was), id(is), payload.len() as u32);
            prop_assert_eq!(moved, sum(is));
        }

        #[test]
        fn another_seed_gives_another_sum(seed: u32, other: u32, bytes: Vec<u8>) {
            prop_assert_eq!(seed == other, crc32(seed, &bytes) == crc32(other, &bytes));
        }
    }
}
