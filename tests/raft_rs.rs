//! `raft::Storage` over a region: the contract, checked side by side with raft's own
//! `MemStorage`, and what is ours beyond it.

#![cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "raft_rs/beyond.rs"]
mod beyond;
#[path = "raft_rs/conformance.rs"]
mod conformance;
#[path = "raft_rs/far.rs"]
mod far;
#[path = "raft_rs/joining.rs"]
mod joining;
#[path = "raft_rs/recover.rs"]
mod recover;
#[path = "raft_rs/returning.rs"]
mod returning;
#[path = "raft_rs/stores.rs"]
mod stores;
#[path = "raft_rs/writer.rs"]
mod writer;
