//! Keys for engines that keep keys and values: those of a region stand together, its entries in order.

use std::ops::Range;

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 0;

pub(super) type Key = [u8; 17];

/// The key of an entry.
pub(super) fn entry(region: u64, index: u64) -> Key {
    key(region, ENTRY, index)
}

/// The key of a hard state.
pub(super) fn hard_state(region: u64) -> Key {
    key(region, HARD_STATE, 0)
}

/// The keys of a range of entries.
pub(super) fn entries(region: u64, range: Range<u64>) -> Range<Key> {
    entry(region, range.start)..entry(region, range.end)
}

fn key(region: u64, kind: u8, index: u64) -> Key {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&region.to_be_bytes());
    key[8] = kind;
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}
