//! Two replicated key-value stores, as examples of this package: see its README. Here is what the larger one
//! is made of, a replicated key-value store of many raft groups, and its tormentor.
//!
//! Three processes on this machine hold a replica of every group. Each has one Raftwood engine for all its
//! logs, drives the groups with raft-rs, and keeps its state machine in a database of its own. Under load,
//! nodes are killed with SIGKILL and started again, cut off from the others, made to hand over leadership and
//! to leave and join the voters; bits flip in the logs of nodes that are down, and the end of one is lost,
//! with all votes of its node. In the end every acknowledged write must be there, on every node, once, and
//! what the clients saw must be what a single register could have shown them.
//!
//! `cargo run --release --example kv` (`main.rs`)
//!
//! Exit code 0: all is well; 1: something is lost or stale, or a node ended or hung by itself, and the stores
//! are kept; 2: it could not run, or ended before everything that it is to show had happened.
//!
//! | file | what |
//! |---|---|
//! | `node.rs` | a node: the loop that drives raft over the engine. Start reading here |
//! | `group.rs`, `nursery.rs` | a group of it; how groups start, and how their logs begin and end |
//! | `machine.rs`, `apply.rs` | the state machine, with its own applied index |
//! | `region.rs` | what a group owns, and how splits and merges change it |
//! | `healing.rs` | replicas that have lost a part of their logs |
//! | `peers.rs`, `replace.rs` | peer ids; replicas that have lost their votes, and what comes in their places |
//! | `lease.rs`, `clocks.rs` | the leader's lease, for reads without a round, and the clocks that it is counted by |
//! | `rollback.rs` | saves what a new leader makes a node discard |
//! | `mail.rs`, `requests.rs` | what other nodes say to it, and what clients ask of it |
//! | `net.rs`, `wire.rs` | sockets, and what goes over them |
//! | `cluster.rs`, `chaos.rs`, `reshape.rs`, `rot.rs`, `skew.rs`, `janitor.rs` | the processes, what is done to them, and what is left behind |
//! | `load.rs`, `history.rs` | clients, and the check of what they saw |
//! | `verdict.rs` | what came of it |
//! | `relay.rs` | two zones instead of all that: what goes over the boundary between them |

// Poisoned locks end an example; what is public here is public to its own files.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod apply;
pub mod chaos;
pub mod clocks;
pub mod cluster;
pub mod group;
pub mod healing;
pub mod history;
pub mod janitor;
pub mod lease;
pub mod load;
pub mod machine;
pub mod mail;
pub mod net;
pub mod node;
pub mod nursery;
pub mod peers;
pub mod region;
pub mod relay;
pub mod replace;
pub mod requests;
pub mod reshape;
pub mod rollback;
pub mod rot;
pub mod skew;
pub mod verdict;
pub mod wire;
