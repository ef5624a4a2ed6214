//! Log storage for [openraft 0.10](https://docs.rs/openraft/0.10.0-alpha.37), as of its alpha 37:
//! feature `openraft-010`.
//!
//! [`LogStore`] is `RaftLogStorage` for one group: one region of an engine that all groups of the process
//! share. Give it to `Raft::new`. Your own dependency on openraft needs the feature `serde`; commands and
//! nodes derive `Serialize` and `Deserialize`, and that is all there is to do. A leader id of your own
//! type also needs [`LeaderTerm`]. With a [format](Format) of your own, take the feature `openraft-010-bare`:
//! then no type of yours has to be known to serde.
//!
#![cfg_attr(feature = "postcard", doc = include_str!("example.md"))]
//!
#![doc = include_str!("../openraft_shared/contract.md")]

mod notify;
mod store;
mod term;

pub use crate::openraft_shared::{Format, OnAnyThread, OnThisThread, Postcard};
pub use notify::Notify;
pub use store::{LogReader, LogStore};
pub use term::LeaderTerm;
