//! Log storage for [openraft 0.9](https://docs.rs/openraft/0.9): feature `openraft-09`.
//!
//! [`LogStore`] is `RaftLogStorage` for one group: one region of an engine that all groups of the
//! process share. Give it to `Raft::new`. Your own dependency needs `openraft = { version = "0.9",
//! features = ["serde", "storage-v2"] }`; commands and nodes derive `Serialize` and `Deserialize`,
//! and that is all there is to do. With a [format](Format) of your own, take the feature `openraft-09-bare`:
//! then no type of yours has to be known to serde.
//!
#![cfg_attr(feature = "postcard", doc = include_str!("example.md"))]
//!
//! The example `openraft_kv` is a replicated store with three nodes and many groups.
//!
#![doc = include_str!("../openraft_shared/contract.md")]

mod notify;
mod store;

pub use crate::openraft_shared::{Format, OnAnyThread, OnThisThread, Postcard};
pub use notify::Notify;
pub use store::{LogReader, LogStore};
