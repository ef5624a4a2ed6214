//! Whole files lost, or in the place of others: all checkpoints gone, files of another store, of
//! another segment.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

#[path = "outside/checkpoints_lost.rs"]
mod checkpoints_lost;
#[path = "outside/files.rs"]
mod files;
#[path = "sweep/model.rs"]
#[allow(dead_code, reason = "made for the sweep")]
mod model;
#[path = "outside/names.rs"]
mod names;
#[path = "sweep/oracle.rs"]
#[allow(dead_code, reason = "made for the sweep")]
mod oracle;
