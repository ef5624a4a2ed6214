//! Raftwood: the storage engine for the logs of many Raft groups.

// The layers above call what is unused until they stand.
#![cfg_attr(not(test), allow(dead_code, unused_imports))]

pub(crate) mod codec;
pub mod error;
pub(crate) mod format;
pub mod limits;
pub mod types;
pub mod vfs;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use types::{Durability, Entry, EntryId, EntryRef, LogState, Lsn, ReadLimit, RegionId};
