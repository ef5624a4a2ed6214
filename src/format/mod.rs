//! What the files contain: bytes to types and back, without any I/O.
//!
//! `docs/format.md` is the contract; this module is its only implementation, and a test holds
//! the two together.
//!
//! ```text
//!   0000000012.log     header block | record | record | record | zeros or an older generation | header block
//!   0000000012.foot    header | footer header | deltas | installs | ranges | runs | locations
//!   0000000007.ckpt    header | checkpoint header | chunk | chunk
//!   MARK               slot | slot
//! ```
//!
//! Invariants:
//!
//! - Every byte that means something is covered by a checksum, and every checksum of a file is seeded with
//!   the file's [`Identity`](file_header::Identity): right bytes in the wrong file do not verify.
//! - Decoding never panics, and never allocates more than a constant times the bytes it was given.
//! - Encoding and decoding are inverse: what the writer can write, the reader accepts; and a value
//!   has one encoding.
//!
//! Deliberately absent: files, offsets in a page cache, and any notion of what is torn or damaged. This layer
//! says only whether bytes are what they claim to be.

pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod copies;
pub(crate) mod file_header;
pub(crate) mod footer;
pub(crate) mod mark;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod zeros;

#[cfg(test)]
mod tests;
