//! Where in its file each payload of a batch lies.

use super::EntryMeta;
use crate::codec::Malformed;

/// A stretch of the payload area: either bytes as they are, or one LZ4 block with a header of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    /// The bytes of payload in it, at least one.
    pub(crate) raw_len: u32,
    /// The bytes that it takes in the file: as many when stored as is, else the LZ4 bytes and their header.
    pub(crate) stored_len: u32,
    /// Whether it is compressed.
    pub(crate) lz4: bool,
}

/// Where one payload lies, and what it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Loc {
    /// The offset in the file: of the payload itself, or of the LZ4 block that holds it.
    pub(crate) pos: u32,
    /// Its offset in the decompressed block, or [`Loc::RAW`].
    pub(crate) inner: u32,
    /// Its length.
    pub(crate) len: u32,
    /// Its checksum.
    pub(crate) crc: u32,
}

impl Loc {
    /// The value of [`inner`](Loc::inner) of a payload that is stored as it is. No block is as long.
    pub(crate) const RAW: u32 = u32::MAX;

    /// Whether the payload is stored as it is.
    pub(crate) fn is_raw(&self) -> bool {
        self.inner == Loc::RAW
    }
}

/// An LZ4 block starts with its raw length and the length of its LZ4 bytes, 32 bits each: a read that knows
/// only the block's position needs no other source.
pub(crate) const BLOCK_HEADER_LEN: u32 = 8;

/// Gives `each` the location of every entry, in order, when the payload area starts at `payload_pos`.
///
/// Entries lie back to back in the uncompressed stream, and none spans two blocks. Without blocks, the whole
/// area is stored as it is. An empty payload is never in a block: there is nothing to decompress.
pub(crate) fn locate(
    entries: &[EntryMeta],
    blocks: &[Block],
    payload_pos: u32,
    mut each: impl FnMut(Loc),
) -> Result<(), Malformed> {
    let mut pos = payload_pos;
    if blocks.is_empty() {
        for &EntryMeta { len, crc } in entries {
            each(Loc { pos, inner: Loc::RAW, len, crc });
            pos = pos.checked_add(len).ok_or(BEYOND)?;
        }
        return Ok(());
    }
    let mut ahead = blocks.iter();
    let mut block = Block { raw_len: 0, stored_len: 0, lz4: false };
    let mut inner = 0u32;
    for &EntryMeta { len, crc } in entries {
        if len == 0 {
            each(Loc { pos, inner: Loc::RAW, len, crc });
            continue;
        }
        while inner == block.raw_len {
            pos = pos.checked_add(block.stored_len).ok_or(BEYOND)?;
            block = *ahead.next().ok_or(Malformed("the blocks hold fewer bytes than the entries"))?;
            inner = 0;
        }
        let end = inner.checked_add(len).filter(|end| *end <= block.raw_len);
        let end = end.ok_or(Malformed("an entry spans two blocks"))?;
        if block.lz4 {
            each(Loc { pos, inner, len, crc });
        } else {
            each(Loc { pos: pos.checked_add(inner).ok_or(BEYOND)?, inner: Loc::RAW, len, crc });
        }
        inner = end;
    }
    if inner != block.raw_len || ahead.next().is_some() {
        return Err(Malformed("the blocks hold more bytes than the entries"));
    }
    Ok(())
}

const BEYOND: Malformed = Malformed("a payload lies beyond what 32 bits can address");

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lens: &[u32]) -> Vec<EntryMeta> {
        lens.iter().map(|&len| EntryMeta { len, crc: len + 1 }).collect()
    }

    fn raw(len: u32) -> Block {
        Block { raw_len: len, stored_len: len, lz4: false }
    }

    fn lz4(raw_len: u32, stored_len: u32) -> Block {
        Block { raw_len, stored_len, lz4: true }
    }

    fn places(lens: &[u32], blocks: &[Block], at: u32) -> Result<Vec<(u32, u32)>, Malformed> {
        let mut places = Vec::new();
        locate(&entries(lens), blocks, at, |loc| {
            assert_eq!(loc.crc, loc.len + 1);
            places.push((loc.pos, loc.inner));
        })?;
        Ok(places)
    }

    #[test]
    fn without_blocks_payloads_lie_back_to_back() {
        let raw = Loc::RAW;
        assert_eq!(places(&[3, 0, 5], &[], 100), Ok(vec![(100, raw), (103, raw), (103, raw)]));
    }

    #[test]
    fn compressed_payloads_name_their_block_and_their_place_in_it() {
        let blocks = [lz4(30, 20), raw(15), lz4(40, 25)];
        let found = places(&[10, 20, 0, 7, 8, 40], &blocks, 100);
        let r = Loc::RAW;
        assert_eq!(found, Ok(vec![(100, 0), (100, 10), (100, r), (120, r), (127, r), (135, 0)]));
    }

    #[test]
    fn entry_that_spans_two_blocks_is_refused() {
        assert!(places(&[10, 10], &[raw(15), raw(5)], 0).is_err());
    }

    #[test]
    fn blocks_must_hold_exactly_the_entries() {
        assert!(places(&[10], &[raw(9)], 0).is_err());
        assert!(places(&[10], &[raw(11)], 0).is_err());
        assert!(places(&[10], &[raw(10), raw(1)], 0).is_err());
        assert!(places(&[], &[raw(1)], 0).is_err());
        assert!(places(&[10, 0], &[raw(10)], 0).is_ok());
    }

    #[test]
    fn place_beyond_32_bits_is_refused() {
        assert!(places(&[1], &[], u32::MAX).is_err());
        assert!(places(&[2, 2], &[raw(2), raw(2)], u32::MAX - 1).is_err());
    }
}
