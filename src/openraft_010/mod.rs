//! Log storage for [openraft 0.10](https://docs.rs/openraft/0.10.0-alpha.37), as of its alpha 37:
//! feature `openraft-010`.
//!
//! [`LogStore`] is `RaftLogStorage` for one group: one region of an engine that all groups of the process
//! share. Give it to `Raft::new`. Your own dependency on openraft needs the feature `serde`; commands and
//! nodes derive `Serialize` and `Deserialize`, and that is all there is to do. A leader id of your own
//! type also needs [`LeaderTerm`]. With a [format](Format) of your own, take the feature `openraft-010-bare`:
//! then no type of yours has to be known to serde.
//!
#![cfg_attr(feature = "postcard", doc = "```")]
#![cfg_attr(not(feature = "postcard"), doc = "```ignore")]
//! # use openraft010 as openraft;
//! use openraft::entry::RaftEntry;
//! use openraft::impls::leader_id_std;
//! use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
//! use openraft::type_config::alias::{EntryOf, VoteOf};
//! use openraft::{EntryPayload, LogId, RaftLogReader};
//! use openraft_rt_tokio::TokioRuntime;
//! use raftwood::openraft_010::LogStore;
//! use raftwood::{Engine, RegionId};
//!
//! openraft::declare_raft_types!(
//!     pub TypeConfig:
//!         D = String,
//!         R = (),
//!         LeaderId = leader_id_std::LeaderId<u64, u64>,
//!         AsyncRuntime = TokioRuntime,
//! );
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let engine = Engine::open(dir.path())?;
//! let mut store = LogStore::<TypeConfig>::new(&engine, RegionId(7));
//! // Raft::new(node_id, config, network, store, state_machine).await?, or by hand:
//! store.save_vote(&VoteOf::<TypeConfig>::new(1, 1)).await?;
//! let log_id = LogId::new_term_index(1, 1);
//! let entry = EntryOf::<TypeConfig>::new(log_id, EntryPayload::Normal("set x 1".to_string()));
//! store.blocking_append([entry.clone()]).await?;
//! let mut reader = store.get_log_reader().await;
//! assert_eq!(reader.try_get_log_entries(1..).await?, [entry]);
//! assert_eq!(store.get_log_state().await?.last_log_id, Some(log_id));
//! # Ok(()) }
//! ```
//!
#![doc = include_str!("../openraft_shared/contract.md")]

mod notify;
mod store;
mod term;

pub use crate::openraft_shared::{Format, OnAnyThread, OnThisThread, Postcard};
pub use notify::Notify;
pub use store::{LogReader, LogStore};
pub use term::LeaderTerm;
