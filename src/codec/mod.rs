//! Varints, checksums and compression: pure functions over bytes.
//!
//! Nothing here knows what the bytes mean. What is decoded may have been written by anyone: every length is
//! checked before it is used, and whatever is wrong comes back as [`Malformed`], never as a panic.

pub(crate) mod checksum;
pub(crate) mod compress;
pub(crate) mod cursor;
pub(crate) mod mend;
pub(crate) mod varint;

pub(crate) use cursor::{Cursor, Malformed};
