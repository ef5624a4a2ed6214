//! What the fuzz targets under `fuzz/` call: one function a target, over any bytes at all.
//!
//! Each function holds the promise that hostile bytes give an error: no panic, no unbounded allocation; and
//! beyond it the invariants that make a decoder right: what was decoded encodes to the same bytes, what the
//! writer makes the reader accepts, an entry that is handed out is one that was written.
//!
//! A checksum would stop a fuzzer at the door: no mutation gets past it by chance. So the checksums are
//! set right before the bytes are looked at (`fixup`), from the offsets in `docs/format.md` and not
//! with the crate's own encoders, which makes it a second reading of that document. What is found so
//! can only be met when someone forges files; but the same code decides on the one corruption in four
//! billion that CRC lets through.
//!
//! `crates/torture/tests/fuzz_corpus.rs` replays the kept corpora on stable. Deliberately absent: anything
//! that a user of the crate should call.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assertion is what a fuzz target is for"
)]

mod directory;
mod operations;
mod seeds;

pub use directory::directory;
pub use operations::operations;
pub use raftwood::internals::{
    batch, checkpoint_file as checkpoint, decompress, file_header, footer, record, taken,
};
pub use seeds::seeds;

use raftwood::internals::take;

/// One target: its name, which is that of its corpus too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("file_header", file_header),
    ("record", record),
    ("batch", batch),
    ("footer", footer),
    ("checkpoint", checkpoint),
    ("decompress", decompress),
    ("directory", directory),
    ("operations", operations),
];
