//! Finds the one flipped bit that explains a wrong checksum.
//!
//! A CRC is linear: flipping a bit of the message changes the checksum by a value that depends only on the
//! distance of the bit from the end. Up to 2^31 bits these values all differ, so a single flipped bit, in the
//! message or in the stored checksum, is not only detected but located. It is the commonest rot there is, and
//! the descriptions of batches are too precious to lose to it. Anything else explains a wrong checksum by
//! chance once in 2^32 over the number of bits; code that mends must check the result by other means too.

const POLYNOMIAL: u32 = 0xedb8_8320;

/// The bit of `message` (byte and mask) whose flip turns the checksum `found` into `stored`, or `None` when
/// there is no such bit. A flip in the stored checksum itself is reported as [`Flip::Checksum`].
pub(crate) fn find_flip(message_len: usize, found: u32, stored: u32) -> Option<Flip> {
    let syndrome = found ^ stored;
    if syndrome == 0 {
        return None;
    }
    if syndrome.count_ones() == 1 {
        return Some(Flip::Checksum);
    }
    // The effect on the checksum of each bit of the last byte, moved towards the front byte by byte.
    let mut effects = [0u32; 8];
    for (bit, effect) in effects.iter_mut().enumerate() {
        *effect = advance(1 << bit);
    }
    for byte in (0..message_len).rev() {
        if let Some(bit) = effects.iter().position(|e| *e == syndrome) {
            return Some(Flip::Message { byte, mask: 1 << bit });
        }
        effects.iter_mut().for_each(|e| *e = advance(*e & 0xff) ^ (*e >> 8));
    }
    None
}

/// Where the flipped bit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flip {
    /// In the message.
    Message { byte: usize, mask: u8 },
    /// In the stored checksum: the message is right.
    Checksum,
}

/// What eight zero bits make of a register whose low byte is `low` and the rest zero.
fn advance(low: u32) -> u32 {
    (0..8).fold(low, |r, _| if r & 1 == 1 { (r >> 1) ^ POLYNOMIAL } else { r >> 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::checksum::crc32;

    #[test]
    fn every_single_flip_is_found() {
        let message: Vec<u8> = (0..97u8).map(|i| i.wrapping_mul(37)).collect();
        let stored = crc32(5, &message);
        for byte in 0..message.len() {
            for bit in 0..8 {
                let mut bad = message.clone();
                bad[byte] ^= 1 << bit;
                let flip = find_flip(bad.len(), crc32(5, &bad), stored);
                assert_eq!(flip, Some(Flip::Message { byte, mask: 1 << bit }));
            }
        }
        for bit in 0..32 {
            assert_eq!(find_flip(message.len(), stored, stored ^ (1 << bit)), Some(Flip::Checksum));
        }
    }

    #[test]
    fn two_flips_are_not_taken_for_one() {
        let message = vec![0x5au8; 200];
        let stored = crc32(0, &message);
        for other in 1..1600 {
            let mut bad = message.clone();
            bad[0] ^= 1;
            bad[other / 8] ^= 1 << (other % 8);
            assert_eq!(find_flip(bad.len(), crc32(0, &bad), stored), None, "bits 0 and {other}");
        }
    }
}
