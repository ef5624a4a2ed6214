//! Log storage for [openraft 0.9](https://docs.rs/openraft/0.9): feature `openraft-09`.
//!
//! [`LogStore`] is `RaftLogStorage` for one group: one region of an engine that all groups of the
//! process share. Give it to `Raft::new`. Your own dependency needs `openraft = { version = "0.9",
//! features = ["serde", "storage-v2"] }`; commands and nodes derive `Serialize` and `Deserialize`,
//! and that is all there is to do. With a [format](Format) of your own, take the feature `openraft-09-bare`:
//! then no type of yours has to be known to serde.
//!
#![cfg_attr(feature = "postcard", doc = "```")]
#![cfg_attr(not(feature = "postcard"), doc = "```ignore")]
//! # use openraft09 as openraft;
//! use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
//! use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};
//! use raftwood::openraft_09::LogStore;
//! use raftwood::{Engine, RegionId};
//! use std::io::Cursor;
//!
//! openraft::declare_raft_types!(pub TypeConfig: D = String, R = ());
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let engine = Engine::open(dir.path())?;
//! let mut store = LogStore::<TypeConfig>::new(&engine, RegionId(7));
//! // Raft::new(node_id, config, network, store, state_machine).await?, or by hand:
//! store.save_vote(&Vote::new(1, 1)).await?;
//! let log_id = LogId::new(CommittedLeaderId::new(1, 1), 1);
//! let entry = Entry { log_id, payload: EntryPayload::Normal("set x 1".to_string()) };
//! store.blocking_append([entry.clone()]).await?;
//! assert_eq!(store.try_get_log_entries(1..).await?, [entry]);
//! assert_eq!(store.get_log_state().await?.last_log_id, Some(log_id));
//! # Ok(()) }
//! ```
//!
//! The example `openraft_kv` is a replicated store with three nodes and many groups.
//!
#![doc = include_str!("../openraft_shared/contract.md")]

mod notify;
mod store;

pub use crate::openraft_shared::{Format, OnAnyThread, OnThisThread, Postcard};
pub use notify::Notify;
pub use store::{LogReader, LogStore};
