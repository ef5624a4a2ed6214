//! raft-engine and `raftwood-raft-engine` beside each other, and stores of the one made into the other's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod child;
mod doors;
mod export;
mod import;
mod program;
#[cfg(feature = "rocksdb")]
mod raftdb;
mod sides;
mod stores;
mod stress;
mod theirs;
