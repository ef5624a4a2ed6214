//! raft-engine's API as its programs use it, and where it does something else here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod api;
mod differences;
mod support;
