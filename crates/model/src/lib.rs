//! A checked model of the log and its recovery.
//!
//! ```
//! use raftwood_model::{configs::named, explore::explore};
//!
//! let explored = explore(named("crashes").expect("it is one of them"), 2);
//! println!("{}", explored.line());
//! assert!(explored.broken.is_empty());
//! ```
//!
//! # The problem
//!
//! Raftwood's log survives crashes because of the order in which it writes, syncs, names and gives back, and
//! because recovery believes only what that order makes certain. Tests with a simulated disk crash the engine
//! itself, at every call, but along histories that somebody thought of. Here the history is not given: a
//! checker ([stateright](https://docs.rs/stateright)) tries every one within small bounds, with every subset
//! of what a power cut may take.
//!
//! # The model
//!
//! ```text
//!  world      disk, run and ghost, and the steps that concern more than one
//!    |
//!  ghost      what was accepted, acknowledged, synced; which sector a fault hit       the promises
//!    |
//!  run        accept -> write -> sync -> acknowledge; jobs: prepare, seal,            what a crash forgets
//!    |        checkpoint, purge, give back, mark, close, backup
//!  recovery   checkpoint, marks, chain, tail, judge; announcement, copy, mark         what an open does
//!    |
//!  disk       sectors, names, footers, checkpoints, marks: cached and durable         what a crash leaves
//! ```
//!
//! Every transition names the function of the engine that it follows, and decides by the same comparisons:
//! [`disk`] is `src/vfs/sim` in small; [`run`] and [`world`] are `src/commit`; the jobs are `src/upkeep`,
//! `src/checkpoint`, `src/segment/factory.rs` and `src/segment/mark_file.rs`; [`recovery`] is `src/recovery`
//! with its `chain`, `tail`, `judge` and `finish`, and `src/engine/open.rs`; [`backup`] is
//! `src/engine/backup.rs`. The model does not use the engine, so that a mistake of one is not one of the
//! other.
//!
//! # What is modelled
//!
//! Batches over two regions with appends, rollbacks, compactions and a destroyed region; groups; two syncs
//! under way at once, and one that fails and leaves the pages clean; the watermark in each record; rotation;
//! files of the pool with the bytes of their older generation; footers; three kept checkpoints, taken region
//! by region while batches go on; dead segments given back; the mark file with its two slots; closing; a
//! backup of links and a copied end; processes that die while the cache lives on; power cuts that take any
//! subset of sectors and names; recovery with its announcement and its copy, step by step, and crashes
//! between any two of them; one fault of a sector, a file, a footer, a checkpoint or the mark; the three tail
//! policies.
//!
//! # What is not
//!
//! - The bytes. A checksum is right or wrong; a record is two sectors, header with description and payload.
//!   Position, segment and salt are in every checksum, so that bytes of another place never verify: that they
//!   have to be is for the engine's own tests.
//! - A header that is gone is not rebuilt from its successor, and the two copies of a segment's header are
//!   one. One flipped bit in a header or description is always undone.
//! - The cleaner, cold segments, repair, scrubbing, health of a running store. Full disks, reserves, filling
//!   with zeros, short writes, error codes other than that of a sync. Locks, threads, tickets, callbacks: a
//!   stage is one step, and two stages interleave as two syncs do.
//! - A job is not interleaved with batches unless a configuration says so ([`Config::interleave`]). Reading
//!   the files is one step of an open.
//! - A store that is being made. What an accepted gap gives up, and what a caller does once a loss was
//!   accepted.
//! - More than one fault, more than three crashes, and histories that need more room than the arrays have:
//!   the checker fails if one of those is reached.
//!
//! # The promises
//!
//! [`ghost`] holds the store to them: what was acknowledged is there, or the open is refused, or it is named;
//! what is there is a prefix of what was accepted, over all regions, and nothing that was cut off, discarded
//! or destroyed returns; crashes alone refuse nothing and raise no alarm; a fault of a payload, a footer, a
//! slot of the mark or one of several checkpoints refuses no open; a doubt is not forgotten; a run that was
//! killed is known for one; recovery ends, and a second one finds the same; a backup is a store.
//!
//! Exempt is a batch of which nothing but its own bytes says that it was acknowledged, hit so that it looks
//! as if it had never been written: `docs/crash-safety.md` says so. One more exemption is of the engine as it
//! is ([`Config::strict_rebuild`]), and a finding where it is taken back: a store that loses the only
//! checkpoint that it has. Without the marks that lead to new segments a file may be lost with all that
//! proves its records; [`Config::strict_files`] is what that breaks.
//!
//! # What shows that it can fail
//!
//! [`mistakes`] has fifty-one mistakes of the protocol, under the names of the engine's `src/planted.rs`; for
//! each a test has the checker find a counterexample. Reachability properties show that every action and
//! every row of the decision table occurs. [`configs::findings`] has the counterexamples against the engine
//! as it is.
//!
//! [`Config::interleave`]: state::Config::interleave
//! [`Config::strict_files`]: state::Config::strict_files
//! [`Config::strict_rebuild`]: state::Config::strict_rebuild

pub mod backup;
pub mod bounds;
mod chain;
pub mod configs;
pub mod disk;
pub mod explore;
pub mod ghost;
mod jobs;
pub mod judge;
pub mod mistakes;
mod open;
pub mod recovery;
pub mod run;
pub mod state;
pub mod table;
mod tail;
mod tasks;
pub mod world;
