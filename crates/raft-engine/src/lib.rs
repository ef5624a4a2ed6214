//! The API of TiKV's [raft-engine](https://docs.rs/raft-engine/0.4.2) over [Raftwood](raftwood): a program
//! that uses raft-engine changes one line of its Cargo.toml.
//!
//! ```toml
//! raft-engine = { package = "raftwood-raft-engine", version = "0.1" }
//! ```
//!
//! The store on disk is another: `raftwood-migrate` imports one of raft-engine's, and exports one to go back.
//! What is accepted, refused or done differently is a table in the crate's README, each row with a test.
//!
//! An entry of the log is stored as the bytes of its protobuf message; a region's key-values are the region's
//! key-values in Raftwood, with no key of this crate's own among them. Raftwood's hard state is not used:
//! programs of raft-engine keep theirs under a key.
//!
//! ```
//! use protobuf::well_known_types::UInt64Value;
//! use raftwood_raft_engine::{Command, Config, Engine, LogBatch, MessageExt};
//!
//! // A message that has an index; most programs have `eraftpb::Entry` here.
//! struct Indexes;
//! impl MessageExt for Indexes {
//!     type Entry = UInt64Value;
//!     fn index(entry: &UInt64Value) -> u64 {
//!         entry.value
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().to_str().ok_or("not UTF-8")?.to_owned();
//! let engine = Engine::open(Config { dir, ..Config::default() })?;
//! let entries: Vec<UInt64Value> =
//!     (1..=5).map(|value| UInt64Value { value, ..UInt64Value::default() }).collect();
//! let mut batch = LogBatch::default();
//! batch.add_entries::<Indexes>(7, &entries)?;
//! batch.add_command(7, Command::Compact { index: 2 });
//! engine.write(&mut batch, true)?;
//!
//! let mut tail = Vec::new();
//! engine.fetch_entries_to::<Indexes>(7, 2, 6, None, &mut tail)?;
//! assert_eq!(tail, entries[1..]);
//! # Ok(()) }
//! ```

mod batch;
mod config;
mod engine;
mod error;
mod size;
mod translate;

pub use batch::{Command, LogBatch, MessageExt};
pub use config::{Config, RecoveryMode, Version};
pub use engine::Engine;
pub use error::{Error, Result};
pub use raftwood::EventListener;
pub use size::ReadableSize;
