//! Raftwood: the storage engine for the logs of many Raft groups.
//!
//! All groups ("regions") of a process share one segmented log, one order, and one sync: a node that hosts a
//! thousand of them pays for one `fdatasync` where each would have had its own.
//!
//! # Open, write, read
//!
//! ```
//! use raftwood::{Durability, Engine, EntryId, ReadLimit, RegionId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let engine = Engine::open(dir.path())?;
//!
//! // One batch, any number of regions: after a crash all of it is there, or none.
//! let mut batch = engine.batch();
//! batch
//!     .region(RegionId(7))
//!     .append([(EntryId::new(1, 1), &b"set x 1"[..]), (EntryId::new(1, 2), b"set x 2")])?
//!     .set_hard_state(b"term 1, voted for 3")?;
//! batch.region(RegionId(9)).append([(EntryId::new(4, 1), &b"set y 1"[..])])?;
//! engine.write(batch, Durability::Synced)?; // on the device when this returns
//!
//! let region = engine.region(RegionId(7));
//! let tail = region.entries(1.., ReadLimit::bytes(1 << 20))?;
//! assert_eq!(&tail[1].payload[..], b"set x 2");
//! # Ok(()) }
//! ```
//!
//! # A Ready loop
//!
//! What a step of the consensus library says for all groups goes into one batch, is submitted, and what may
//! only be sent once it is durable waits for the ticket. Meanwhile the groups go on: what was submitted can
//! be read.
//!
//! ```
//! # use raftwood::{Durability, Engine, EntryId, RegionId};
//! struct Ready {
//!     region: RegionId,
//!     entries: Vec<(EntryId, Vec<u8>)>,
//!     hard_state: Vec<u8>,
//! }
//!
//! fn step(engine: &Engine, all: &[Ready]) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut batch = engine.batch();
//!     for ready in all {
//!         let entries = ready.entries.iter().map(|(id, payload)| (*id, &payload[..]));
//!         batch.region(ready.region).append(entries)?.set_hard_state(&ready.hard_state)?;
//!     }
//!     let ticket = engine.submit(batch, Durability::Synced)?;
//!     ticket.on_complete(|outcome| match outcome {
//!         Ok(_) => println!("send the acknowledgements and votes"),
//!         Err(error) => eprintln!("this node stops: {error}"),
//!     });
//!     Ok(())
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let engine = Engine::open(dir.path())?;
//! # let hard_state = b"term 1".to_vec();
//! # step(&engine, &[Ready { region: RegionId(7), entries: vec![(EntryId::new(1, 1), vec![1])], hard_state }])
//! # }
//! ```
//!
//! The adapters do that for raft-rs (`raft_rs::ReadyWriter`) and openraft (`openraft_09::LogStore`,
//! `openraft_010::LogStore`), each behind a feature.
//!
//! # Where to go on
//!
//! - [`WriteBatch`] and [`RegionBatch`]: what can be written. [`Region`]: what can be read.
//! - [`Durability`] and [`Ticket`]: when something is safe. [`Error`] and [`ErrorKind`]: what went wrong, and
//!   what to do.
//! - [`Options`], [`EventListener`], [`Engine::stats`], [`Engine::latencies`], [`Engine::group_sizes`]: how
//!   it is run.
//! - [`Engine::backup`], [`Engine::scrub`], [`Region::repair`], [`Reader`]: when something has to be looked
//!   after.
//! - [`Engine::submit_then`], [`Region::entries_clamped_async`], [`RegionWriter`], [`Retry`],
//!   [`WriteBatch::atomically`]: what an adapter for another consensus library needs beside that.
//! - [`healing`]: replicas that give each other back what one of them has lost.
//! - `vfs::sim` (feature `sim`): the simulated disk, and one call by which a program tests itself on it;
//!   `vfs::conformance`: one by which a `Vfs` of your own is checked.

// Time, and numbers on disk: `clippy.toml`.
#![warn(clippy::disallowed_methods)]
#![warn(missing_debug_implementations)]
// The public face says of each call how it fails.
#![warn(clippy::missing_errors_doc)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!(
    "raftwood runs on Unix systems: it needs descriptors of directories, fdatasync and renames that can be made durable"
);

pub(crate) mod checkpoint;
pub(crate) mod clock;
pub(crate) mod codec;
pub(crate) mod commit;
pub(crate) mod disk_watch;
pub(crate) mod engine;
pub(crate) mod error;
pub(crate) mod format;
pub mod healing;
pub(crate) mod histogram;
pub(crate) mod index;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
pub mod limits;
pub(crate) mod listener;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
pub(crate) mod news;
#[cfg(feature = "openraft-010-bare")]
pub mod openraft_010;
#[cfg(feature = "openraft-09-bare")]
pub mod openraft_09;
#[cfg(any(feature = "openraft-09-bare", feature = "openraft-010-bare"))]
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
mod trace;
pub(crate) mod types;
pub(crate) mod upkeep;
pub mod vfs;

/// The README's programs are compiled with the examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What payloads, hard states and values are read as: of the crate `bytes`, for programs that do not name it.
pub use bytes::Bytes;
pub use commit::{Change, Ticket, Watch};
pub use engine::digest::Digest;
#[cfg(feature = "serde")]
pub use engine::figures::{FIGURES_SCHEMA, Figures};
pub use engine::reader::{Reader, RegionInfo, SegmentInfo};
pub use engine::records::{
    Follow, LogItem, LogOp, LogRecord, RecordContent, RecordOptions, Records, RegionOps, TermRange,
};
pub use engine::region::Region;
pub use engine::retry::{Retry, RetryStep};
pub use engine::stall::Stall;
pub use engine::tasks::Opening;
pub use engine::write_batch::{RegionBatch, RegionPreview, WriteBatch};
pub use engine::writers::{RegionWriter, WritePermit};
pub use engine::{Engine, WriteError};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use histogram::{Latency, Sizes};
pub use listener::{Event, EventListener, Evidence, Rollback};
pub use options::{Background, Compression, Options, Pool, Purge, ReadMode, TailPolicy};
pub use report::{
    Appended, BackupReport, CheckReport, Compacted, Compaction, Explanation, HardStateHealth, Health,
    Latencies, Lookup, Loss, OpenReport, OpenTimes, Outcome, Pin, Progress, Proof, PurgeReport,
    RecordFinding, RecordState, RegionStats, RepairReport, RestoreOptions, RestoreReport, ScrubOptions,
    ScrubReport, SegmentFinding, Stats, Trail, Verdict,
};
pub use types::{
    Durability, Entry, EntryId, EntryRef, KeyOrder, LogState, Lsn, ReadLimit, RegionId, RollbackCause,
    RollbackScope,
};
