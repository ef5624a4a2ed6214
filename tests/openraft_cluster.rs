//! Three nodes, each with a disk of its own: what a leader may do that lost the end of its log.

#![cfg(all(feature = "openraft-09", feature = "openraft-010", feature = "sim"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

#[path = "openraft/cluster_010.rs"]
mod cluster_010;
#[path = "openraft/cluster_09.rs"]
mod cluster_09;
#[allow(dead_code, reason = "what other tests need")]
#[path = "openraft/disk.rs"]
mod disk;
#[path = "openraft/machine_09.rs"]
mod machine;
