//! The engine from the outside, in one program: a module for each subject, and what they share in `support`.
//!
//! Tests run side by side in one process. What changes a process, or counts what a whole process does, runs
//! in one of its own (`support::process`), or stands in the program `process` beside this one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

#[cfg(feature = "sim")]
mod accept_loss;
mod api;
#[cfg(feature = "sim")]
mod backup;
mod basics;
#[cfg(feature = "sim")]
mod budget;
#[cfg(feature = "sim")]
mod callbacks;
#[cfg(feature = "sim")]
mod checkpoints;
#[cfg(feature = "sim")]
mod closing;
#[cfg(feature = "sim")]
mod concurrency;
#[cfg(feature = "serde")]
mod config;
#[cfg(feature = "sim")]
mod conformance;
#[cfg(feature = "sim")]
mod copies;
#[cfg(feature = "sim")]
mod damage;
#[cfg(feature = "sim")]
mod defects;
#[cfg(feature = "sim")]
mod deferred;
#[cfg(feature = "sim")]
mod events;
#[cfg(feature = "sim")]
mod evidence;
#[cfg(feature = "sim")]
mod flip;
#[cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
mod follower_replication;
#[cfg(feature = "sim")]
mod from_replica;
#[cfg(feature = "sim")]
mod full_disk;
#[cfg(target_os = "linux")]
mod full_tmpfs;
mod golden;
#[cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
mod healing;
#[cfg(feature = "sim")]
mod io_errors;
#[cfg(feature = "sim")]
mod kill_then_cut;
#[cfg(feature = "sim")]
mod log_end;
mod lost_votes;
#[cfg(feature = "sim")]
mod marks;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(all(feature = "openraft-010", feature = "sim"))]
mod openraft_010;
#[cfg(all(feature = "openraft-09", feature = "sim"))]
mod openraft_09;
#[cfg(all(feature = "openraft-09", feature = "openraft-010", feature = "sim"))]
mod openraft_cluster;
#[cfg(feature = "sim")]
mod outside;
#[cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
mod raft_rs;
#[cfg(all(feature = "raft-rs-protobuf", feature = "sim"))]
mod raft_rs_cluster;
mod reader;
mod records;
mod refused;
#[cfg(feature = "sim")]
mod reopening;
#[cfg(feature = "sim")]
mod restarts;
#[cfg(feature = "sim")]
mod restore;
mod rollback;
#[cfg(feature = "sim")]
mod rot_in_recovery;
#[cfg(feature = "sim")]
mod scrub;
mod sealing;
#[cfg(feature = "sim")]
mod stats;
#[cfg(feature = "sim")]
mod store_files;
#[cfg(feature = "sim")]
mod suspects;
#[cfg(feature = "sim")]
mod sweep;
#[cfg(feature = "sim")]
mod tasks;
#[cfg(feature = "sim")]
mod torn_copy;
#[cfg(all(feature = "tracing", feature = "sim"))]
mod traced;
#[cfg(feature = "sim")]
mod tuning;
mod two_processes;
#[cfg(feature = "sim")]
mod watching;
