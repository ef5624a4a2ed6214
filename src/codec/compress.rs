//! LZ4 blocks.

use super::Malformed;
use crate::limits::{BLOCK_BYTES_MAX, ENTRY_BYTES_MAX};
use crate::planted::{Bug, planted};
use lz4_flex::block;

/// The most bytes that one block may claim to hold: an entry of the largest size in a block that others
/// began.
pub(crate) const RAW_LEN_MAX: usize = ENTRY_BYTES_MAX + BLOCK_BYTES_MAX;

/// Appends `src` compressed to `out` and returns the bytes appended, or leaves `out` alone and
/// returns `None` when less than an eighth would be saved: a reader then pays for decompression
/// without the writer having gained.
pub(crate) fn compress(src: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.resize(start + block::get_maximum_output_size(src.len()), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let len = block::compress_into(src, room).ok().filter(|len| *len <= src.len() - src.len().div_ceil(8));
    out.truncate(start + len.unwrap_or(0));
    len
}

/// Whether `stored_len` bytes of LZ4 can hold `raw_len` bytes at all. Asked before anything is allocated: LZ4
/// gains at most 255 to 1, so a small block cannot claim a large result.
pub(crate) fn is_plausible(stored_len: usize, raw_len: usize) -> bool {
    planted(Bug::BombNotBounded)
        || raw_len <= RAW_LEN_MAX && raw_len <= stored_len.saturating_mul(255).saturating_add(64)
}

/// The `raw_len` bytes that `src` holds; any other length is malformed.
pub(crate) fn decompress(src: &[u8], raw_len: usize) -> Result<Vec<u8>, Malformed> {
    if !is_plausible(src.len(), raw_len) {
        return Err(Malformed("a compressed block claims more bytes than it can hold"));
    }
    let mut raw = vec![0; raw_len];
    match block::decompress_into(src, &mut raw) {
        Ok(len) if len == raw_len => Ok(raw),
        Ok(_) => Err(Malformed("a compressed block holds fewer bytes than it claims")),
        Err(_) => Err(Malformed("a compressed block does not decompress")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn incompressible_bytes_are_left_as_they_are() {
        let noise: Vec<u8> = (0..4096u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let mut out = b"before".to_vec();
        assert_eq!((compress(b"", &mut out), compress(b"a", &mut out)), (None, None));
        if let Some(len) = compress(&noise, &mut out) {
            assert!(len <= noise.len() * 7 / 8);
        }
        assert!(out.starts_with(b"before"));
    }

    #[test]
    fn compressed_bytes_are_appended() {
        let mut out = b"before".to_vec();
        let len = compress(&[7; 1000], &mut out).unwrap();
        assert_eq!(out.len(), 6 + len);
        assert_eq!(decompress(&out[6..], 1000).unwrap(), [7; 1000]);
    }

    #[test]
    fn wrong_length_is_refused() {
        let mut out = Vec::new();
        compress(&[7; 1000], &mut out).unwrap();
        assert!(decompress(&out, 999).is_err());
        assert!(decompress(&out, 1001).is_err());
    }

    #[test]
    fn decompression_bomb_is_refused_before_it_is_allocated_for() {
        assert!(decompress(&[0; 16], usize::MAX).is_err());
        assert!(decompress(&[0; 16], 16 * 255 + 65).is_err());
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(bytes in prop::collection::vec(0u8..4, 0..2000)) {
            let mut out = Vec::new();
            if compress(&bytes, &mut out).is_some() {
                prop_assert_eq!(decompress(&out, bytes.len()), Ok(bytes));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, raw_len in 0usize..100_000) {
            let _ = decompress(&bytes, raw_len);
        }
    }
}
