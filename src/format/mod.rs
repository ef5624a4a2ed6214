//! What the files contain: bytes to types and back, without any I/O.
//!
//! `docs/format.md` is the contract; this module is its only implementation.

pub mod batch;
pub mod checkpoint;
pub mod file_header;
pub mod footer;
pub mod names;
pub mod record;
