//! Where things stand in the file below: lengths, and the identity.
//!
//! The length above is said by the length below, so that both change, and survive a crash, together. Sectors
//! are whole below; of a length above that ends within one, as many zeros follow the last sector as it has
//! bytes. Of 700 bytes: two sectors, 1024 bytes, and 188 zeros.

/// The length of a sector: what a device writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

/// Two blocks with the identity, as much as a device may lose at once each, precede the first sector.
pub(crate) const BLOCK: u64 = 4096;
pub(crate) const FRONT: u64 = 2 * BLOCK;

/// The length above of a file that is so long below. What a crash has left of a file that was never synced
/// has some length.
pub(crate) fn len_above(below: u64) -> u64 {
    let body = below.saturating_sub(FRONT);
    match (body / SECTOR, body % SECTOR) {
        (sectors, 0) => sectors * SECTOR,
        (0, _) => 0,
        (sectors, rest) => (sectors - 1) * SECTOR + rest,
    }
}

/// The length below of a file that is so long above.
pub(crate) fn len_below(above: u64) -> u64 {
    sectors_end(above) + above % SECTOR
}

/// Where the last sector of a file ends that is so long above.
pub(crate) fn sectors_end(above: u64) -> u64 {
    FRONT + above.next_multiple_of(SECTOR)
}

/// Names a generation of a file; random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity(pub(crate) u128);

impl Identity {
    /// The tweak of a sector. Identities are far apart: that two files share a tweak is as improbable as that
    /// two random numbers of 128 bits are neighbours.
    pub(crate) fn tweak(self, sector: u64) -> [u8; 16] {
        self.0.wrapping_add(1).wrapping_add(u128::from(sector)).to_le_bytes()
    }

    /// The tweak of its own block, which no sector has.
    pub(crate) fn own_tweak(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// What a block with an identity begins with.
pub(crate) const MAGIC: [u8; 16] = *b"raftwood xts 1\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_above_has_one_below() {
        let mut seen = std::collections::BTreeSet::new();
        for above in 0..5000 {
            let below = len_below(above);
            assert_eq!(len_above(below), above);
            assert!(below >= sectors_end(above) && seen.insert(below));
        }
        // What only a crash leaves.
        assert_eq!([0, 1, FRONT, FRONT + 1, FRONT + 511].map(len_above), [0; 5]);
    }
}
