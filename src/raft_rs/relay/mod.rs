//! Follower replication: one follower of a zone hands the leader's entries on to its neighbours.
//!
//! Entries that go to several replicas in another zone need cross the zones' boundary once. The leader sends
//! them to one of the replicas there, the agent. With the agent's append goes what remains of the others'
//! appends without the entries: a [`Broadcast`]. The agent reads the entries from its own log and sends the
//! messages on, in the leader's name; the answers go to the leader directly. Raft sees messages that took a
//! detour, no more: a detour that fails is a message that was lost.
//!
//! ```text
//! leader's zone  │  other zone
//!                │
//! RawNode ─▶ Route ── Broadcast: append, ranges ──▶ Agent ── append ──▶ neighbours
//!   ▲  ▲         │                                    │                     │
//!   │  └─────────┼─────────── Refusal ────────────────┘                     │
//!   └────────────┼───────────────── acknowledgements ───────────────────────┘
//! ```
//!
//! - [`Zones`]: which store is in which zone, for all groups.
//! - [`Route`]: the leader's side. Which messages go by which agent, and which directly.
//! - [`Agent`]: the agent's side. Fills in and hands on, or refuses.
//! - [`Delegated`]: one append without its entries, and how it is filled in.
//!
//! What holds:
//!
//! - The entries that are filled in are those that the leader meant, whatever happened to the agent's log
//!   meanwhile: the terms before the first and at the last are compared before reading and after it.
//! - To one neighbour the appends go in the leader's order. None leaves before its entries are readable in
//!   the agent's log; they need not be durable there.
//! - What waits is bounded in number, bytes and ticks, on both sides.
//! - Heartbeats, votes, snapshots and appends without entries go directly; a commit index that would
//!   overtake the entries waits for them at the leader.
//! - A detour that fails, whether the agent says so or nothing comes, makes the leader send directly for
//!   [`DIRECT_TICKS`].
//!
//! Not here: sockets and encodings, which are the application's; snapshots by way of an agent.
//!
//! The idea is TiKV's follower replication (RFC 98 of tikv/rfcs); there it is part of the
//! consensus, here of the transport.

mod agent;
mod broadcast;
mod delegated;
mod route;
mod zones;

pub use agent::{Agent, FILLS_MAX, HandedOn, WAIT_TICKS, WAITING_MAX};
pub use broadcast::{Broadcast, NEIGHBOURS_MAX, Neighbour, Refusal};
pub use delegated::{Delegated, FILL_BYTES_MAX};
pub use route::{DIRECT_TICKS, Outgoing, Route, SLOW_TICKS};
pub use zones::{ZoneMap, ZoneUpdates, Zones};
