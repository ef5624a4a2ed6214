//! Raftwood: the storage engine for the logs of many Raft groups.
//!
//! All groups ("regions") of a process share one segmented log, one order, and one sync. See [`Engine`].

#![cfg_attr(docsrs, feature(doc_cfg))]

pub(crate) mod checkpoint;
pub(crate) mod codec;
pub(crate) mod commit;
pub(crate) mod engine;
pub(crate) mod error;
pub(crate) mod format;
pub(crate) mod index;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
pub(crate) mod latency;
pub mod limits;
pub(crate) mod listener;
#[cfg(feature = "openraft-010")]
pub mod openraft_010;
#[cfg(feature = "openraft-09")]
pub mod openraft_09;
#[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
mod openraft_shared;
pub(crate) mod options;
pub(crate) mod planted;
#[cfg(feature = "raft-rs")]
pub mod raft_rs;
#[cfg(any(test, feature = "sim"))]
#[doc(hidden)]
pub mod random;
pub(crate) mod read;
pub(crate) mod recovery;
pub(crate) mod report;
pub(crate) mod salt;
pub(crate) mod segment;
pub(crate) mod sync;
pub(crate) mod types;
pub(crate) mod upkeep;
pub mod vfs;
mod watch;

pub use commit::Ticket;
pub use engine::batch::{RegionBatch, WriteBatch};
pub use engine::digest::Digest;
pub use engine::reader::{Reader, RegionInfo, SegmentInfo};
pub use engine::region::Region;
pub use engine::{Engine, WriteError};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use latency::Latency;
pub use listener::{Event, EventListener, Rollback};
pub use options::{Background, Compression, Options, Pool, Purge, ReadMode, TailPolicy};
pub use report::{
    BackupReport, CheckReport, HardStateHealth, Health, Latencies, Lookup, Loss, OpenReport, OpenTimes, Pin,
    PurgeReport, RegionStats, ScrubOptions, ScrubReport, Stats,
};
pub use types::{Durability, Entry, EntryId, EntryRef, LogState, Lsn, ReadLimit, RegionId};
