//! A digest of a range of entries.

use crate::codec::checksum::entry_checksum;
use crate::types::{Entry, EntryId, RegionId};
use std::fmt;

/// Stands for a range of entries: equal on two replicas exactly if their entries are, but for chance.
///
/// It is made of the entries' own checksums, so it finds what rot and bugs do, not what an adversary can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest {
    entries: u64,
    hash: u64,
}

impl Digest {
    /// How many entries it covers.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// As one number, for the wire. The count is not part of it.
    pub fn to_u64(&self) -> u64 {
        self.hash
    }

    /// Adds the next entry.
    pub(crate) fn add(&mut self, region: RegionId, e: &Entry) {
        self.add_sum(e.id, e.payload.len() as u64, entry_checksum(region, e.id, &e.payload));
    }

    /// Adds an entry of which this is known: its payload's length, and its checksum.
    pub(crate) fn add_sum(&mut self, id: EntryId, len: u64, sum: u32) {
        let word = u64::from(sum) << 32 | (len & 0xffff_ffff);
        for word in [word, id.index, id.term] {
            // The finalizer of splitmix64 over the running sum: order matters, and every bit
            // reaches every other.
            let mut z = self.hash.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.hash = z ^ (z >> 31);
        }
        self.entries += 1;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}
