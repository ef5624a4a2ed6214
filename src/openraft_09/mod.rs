//! Log storage for [openraft 0.9](https://docs.rs/openraft/0.9): feature `openraft-09`.

mod store;

pub use crate::openraft_shared::{Format, Postcard};
pub use store::{LogReader, LogStore};
