//! The library's own adapters for consensus libraries, as a package of somebody else's would have them:
//! against the public face of the library and nothing else. That they compile is the test.

#![allow(dead_code, unreachable_pub, reason = "nothing calls them here")]

// The library's root, as it is seen from outside, in the place of the crate's own.
pub use raftwood::*;

#[path = "../../../../src/healing/mod.rs"]
pub mod healing;
#[path = "../../../../src/metrics.rs"]
pub mod metrics;
#[path = "../../../../src/openraft_010/mod.rs"]
pub mod openraft_010;
#[path = "../../../../src/openraft_09/mod.rs"]
pub mod openraft_09;
#[path = "../../../../src/openraft_shared/mod.rs"]
mod openraft_shared;
#[path = "../../../../src/raft_rs/mod.rs"]
pub mod raft_rs;

/// Mistakes are planted in adapters too; here none is.
#[path = "../../../../src/planted.rs"]
mod planted;

fn main() {
    println!("the adapters need the public face alone");
}
