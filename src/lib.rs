//! Raftwood: the storage engine for the logs of many Raft groups.

pub mod error;
pub mod limits;
pub mod types;
pub mod vfs;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use types::{Durability, Entry, EntryId, EntryRef, LogState, Lsn, ReadLimit, RegionId};
