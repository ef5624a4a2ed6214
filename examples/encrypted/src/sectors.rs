//! The cipher: sectors in, sectors out.

use crate::Key;
use crate::layout::{BLOCK, Identity, MAGIC, SECTOR};
use aes::Aes256;
use aes::cipher::KeyInit;
use std::io::{Error, ErrorKind, Result};
use xts_mode::Xts128;

/// AES-256 in XTS mode.
pub(crate) struct Cipher(Xts128<Aes256>);

impl Cipher {
    /// `None` where both halves of the key are the same.
    pub(crate) fn new(key: &Key) -> Option<Cipher> {
        let (first, second) = key.split_at(32);
        let half = |bytes| Aes256::new_from_slice(bytes).ok();
        if first == second {
            return None;
        }
        Some(Cipher(Xts128::new(half(first)?, half(second)?)))
    }

    /// Encrypts whole sectors, of which the first has this number.
    ///
    /// # Errors
    /// `InvalidData` if a sector came out as zeros, which stand for one that was never written. That happens
    /// once in 2^4096 sectors.
    pub(crate) fn encrypt(&self, identity: Identity, first: u64, sectors: &mut [u8]) -> Result<()> {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR as usize)) {
            self.0.encrypt_sector(sector, identity.tweak(number).into());
            if is_zero(sector) {
                return Err(Error::new(ErrorKind::InvalidData, "a sector is encrypted as zeros"));
            }
        }
        Ok(())
    }

    /// Decrypts whole sectors. Those of zeros were never written. Of a file without an identity all are.
    ///
    /// # Errors
    /// `InvalidData` for what else is in a file without an identity.
    pub(crate) fn decrypt(&self, identity: Option<Identity>, first: u64, sectors: &mut [u8]) -> Result<()> {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR as usize)) {
            match identity {
                _ if is_zero(sector) => {}
                Some(identity) => self.0.decrypt_sector(sector, identity.tweak(number).into()),
                None => {
                    let says = "a file has bytes and no identity that they were encrypted under";
                    return Err(Error::new(ErrorKind::InvalidData, says));
                }
            }
        }
        Ok(())
    }

    /// The block that holds an identity: in clear, and encrypted beside it, which shows a wrong key and rot.
    pub(crate) fn block_of(&self, identity: Identity) -> Vec<u8> {
        let mut block = [&MAGIC[..], &identity.0.to_le_bytes()].concat();
        let mut check = block.clone();
        self.0.encrypt_sector(&mut check, identity.own_tweak().into());
        block.extend(check);
        block.resize(BLOCK as usize, 0);
        block
    }

    /// The identity that such a block holds, if it is right.
    pub(crate) fn identity_in(&self, block: &[u8]) -> Option<Identity> {
        let identity = Identity(u128::from_le_bytes(block.get(16..32)?.try_into().ok()?));
        (block == self.block_of(identity)).then_some(identity)
    }
}

/// Whether there is nothing in it.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(seed: u8) -> Cipher {
        Cipher::new(&std::array::from_fn(|n| n as u8 ^ seed)).unwrap_or_else(|| unreachable!())
    }

    #[test]
    fn what_is_encrypted_comes_back_and_only_under_its_identity_place_and_key() {
        let plain: Vec<u8> = (0..1024).map(|n| (n / 512) as u8).collect();
        let mut sectors = plain.clone();
        let (one, other) = (Identity(7), Identity(1 << 100));
        cipher(0).encrypt(one, 3, &mut sectors).unwrap_or_else(|e| unreachable!("{e}"));
        let read = |seed, identity, first| {
            let mut out = sectors.clone();
            cipher(seed).decrypt(Some(identity), first, &mut out).unwrap_or_else(|e| unreachable!("{e}"));
            out
        };
        assert_eq!(read(0, one, 3), plain);
        for wrong in [read(1, one, 3), read(0, other, 3), read(0, one, 4)] {
            assert!(wrong.chunks(16).zip(plain.chunks(16)).all(|(a, b)| a != b));
        }
        // Equal sectors do not look equal, nor equal blocks of one.
        let mut same = vec![7; 1024];
        cipher(0).encrypt(one, 0, &mut same).unwrap_or_else(|e| unreachable!("{e}"));
        let blocks: std::collections::BTreeSet<&[u8]> = same.chunks(16).collect();
        assert_eq!(blocks.len(), 64);
    }

    /// Vector 10 of the annex of IEEE 1619: AES-256, data unit 0xff, of 512 bytes.
    #[test]
    fn it_is_xts_as_the_standard_has_it() {
        let hex = |text: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap_or_else(|_| unreachable!());
            (0..text.len()).step_by(2).map(byte).collect()
        };
        let key = hex(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592"
        ));
        let mut sector: Vec<u8> = (0..512).map(|n| n as u8).collect();
        let cipher =
            Cipher::new(&key.try_into().unwrap_or_else(|_| unreachable!())).unwrap_or_else(|| unreachable!());
        // The sector of this number has the tweak 0xff.
        cipher.encrypt(Identity(0), 0xfe, &mut sector).unwrap_or_else(|e| unreachable!("{e}"));
        assert_eq!(sector[..16], hex("1c3b3a102f770386e4836c99e370cf9b"));
        assert_eq!(sector[16..32], hex("ea00803f5e482357a4ae12d414a3e63b"));
    }

    #[test]
    fn a_block_shows_a_wrong_key_and_rot() {
        let good = cipher(0).block_of(Identity(42));
        assert_eq!(cipher(0).identity_in(&good), Some(Identity(42)));
        assert_eq!(cipher(1).identity_in(&good), None);
        for bit in 0..65 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(cipher(0).identity_in(&bad), None, "bit {bit}");
        }
    }
}
