//! What the torture bench and the fuzz targets need of the insides. No part of the API: anything here changes
//! at any time, without a note.
//!
//! The decoders are reached by one function each, over any bytes at all, with bytes to begin with
//! ([`seeds()`]) and checksums that are set right before ([`fixup`]); upkeep by single steps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assertion is what a fuzz target is for"
)]

pub mod fixup;
mod formats;
mod probe;
mod seeds;

pub use formats::{batch, checkpoint as checkpoint_file, decompress, file_header, footer, record};
pub use probe::{checkpoint, clean, leaks};
pub use seeds::seeds;

use crate::types::{EntryId, RegionId};
use std::cell::Cell;

/// The checksum of an entry, which binds its payload to its identity.
pub fn entry_checksum(region: RegionId, id: EntryId, payload: &[u8]) -> u32 {
    crate::codec::checksum::entry_checksum(region, id, payload)
}

/// Appends `value` in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    crate::codec::varint::put_varint(out, value);
}

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// How often a target of this thread got past its decoder, or did something that was accepted: an input
/// that never does shows nothing.
pub fn taken() -> u64 {
    TAKEN.get()
}

/// The input was taken.
pub fn take() {
    TAKEN.set(TAKEN.get() + 1);
}
