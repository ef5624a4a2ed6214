//! Log storage for [openraft 0.10](https://docs.rs/openraft/0.10.0-alpha.37): feature `openraft-010`.

mod store;
mod term;

pub use crate::openraft_shared::{Format, Postcard};
pub use store::{LogReader, LogStore};
pub use term::LeaderTerm;
