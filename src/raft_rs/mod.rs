//! Storage for crate [`raft`](https://docs.rs/raft/0.7) (raft-rs): feature `raft-rs`.
//!
//! - [`RegionStorage`] is `raft::Storage` for one region: what a `RawNode` reads from.
//! - [`ReadyBatch`] gathers the `Ready`s of many groups and writes them as one atomic batch with
//!   one sync; [`ReadyWriter`] does so without blocking and delivers, in order, what may be
//!   passed to `on_persist_ready`.
//! - [`Route`] and [`Agent`] let a follower send entries on to its neighbours in the leader's place, from its
//!   own log: entries cross into another zone once.
//!
//! `raft` leaves it to the application which protobuf library encodes its messages: your own dependency on it
//! names the codec (`features = ["protobuf-codec"]` or `["prost-codec"]`; none or both do not compile; the
//! second needs a `protoc`, which the environment variable `PROTOC` may name). The feature `raft-rs-protobuf`
//! names the first. Entries are stored in a form of this crate's own, so a log outlives a change of the
//! codec; see [the format](#how-it-is-stored).
//!
//! ```
//! use raft::{Config, RawNode, prelude::ConfState};
//! use raftwood::raft_rs::{ReadyBatch, RegionStorage, may_send_first};
//! use raftwood::{Engine, RegionId};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let engine = Engine::open(dir.path())?;
//! let region = RegionId(7);
//! let storage = RegionStorage::new(&engine, region);
//! // Where the state machine stands; here, it begins.
//! let applied = storage.bootstrap(&ConfState::from((vec![1], vec![])))?;
//! let config =
//!     Config { id: 1, applied: applied.index, election_tick: 10, heartbeat_tick: 3, ..Config::default() };
//! let logger = slog::Logger::root(slog::Discard, slog::o!());
//! let mut node = RawNode::new(&config, storage, &logger)?;
//! node.campaign()?;
//!
//! while node.has_ready() {
//!     let mut ready = node.ready();
//!     if may_send_first(&node) {
//!         // A leader's messages may leave before its own disk is done; see below.
//!         send(ready.take_messages());
//!     }
//!     let mut batch = ReadyBatch::new(&engine);
//!     batch.add_as(region, node.raft.id, &ready)?; // ... and those of all other groups that are ready
//!     batch.write(&engine)?; // one record, one sync
//!     send(ready.take_messages());
//!     send(ready.take_persisted_messages());
//!     apply(ready.take_committed_entries());
//!     let mut light = node.advance(ready);
//!     if light.commit_index().is_some() {
//!         let mut batch = ReadyBatch::new(&engine);
//!         batch.set_hard_state(region, &node.raft.hard_state())?;
//!         batch.write(&engine)?; // not synced; it may go with the next batch, in front
//!     }
//!     send(light.take_messages());
//!     apply(light.take_committed_entries());
//!     node.advance_apply();
//! }
//! assert_eq!(node.raft.state, raft::StateRole::Leader);
//! # fn send(_: Vec<raft::prelude::Message>) {}
//! # fn apply(_: Vec<raft::prelude::Entry>) {}
//! # Ok(()) }
//! ```
//!
//! # In which order
//!
//! | what | when | why |
//! |---|---|---|
//! | `ready.messages()` (only a leader has any) | at once, before persisting, if [`may_send_first`]; else with the persisted ones | a leader counts itself towards the majority only after `on_persist_ready`, so followers may be faster than its own disk (Raft thesis, 10.2.1); but a replica that is a quorum by itself leads before its term and vote are durable |
//! | `ready.persisted_messages()` (followers, candidates) | when this `Ready` and all before it are durable | a vote or an acknowledgement is a promise about this node's disk; one that acknowledges an earlier `Ready` may be in a later one that needs no sync |
//! | `ready.committed_entries()` | at once | raft 0.7 hands out only entries that are both committed and persisted here: it never applies before it persists |
//! | a snapshot in a `Ready` | the state machine takes it durably first, then the batch is written | a log that starts after a snapshot which nobody has cannot be replayed; where the crash comes between the two, [`RegionStorage::recover`] makes the log fit |
//! | `advance_apply_to(snapshot index)` | when the `Ready` with the snapshot is persisted; until then, give that group neither messages nor ticks | raft 0.7 looks at the entries past the applied index when it campaigns, and panics if they are compacted |
//! | `compact_through` | up to what the state machine has durably applied and raft was informed of by `advance_apply`, not further | what is compacted cannot be applied again after a crash; and raft looks at it, as above |
//! | `advance_append_async` | after `submit` returned: what was submitted is readable | raft reads from the storage what it has handed out |
//! | `on_persist_ready(number)` | when [`ReadyWriter`] says so of this replica: region and tag | it means that all earlier ones are durable too, and plain tickets of unlike durability may overtake each other |
//! | `LightReady::commit_index` | with [`ReadyBatch::set_hard_state`], unsynced, ahead of the group's next `Ready` | raft lets it be lost. But a node that forgets that a configuration change was committed may campaign in the configuration before it; what was written earlier is not lost where something later is kept, so it never forgets two, and any quorum of one configuration meets those of the next |
//! | `apply_conf_change`, after a restart | for every change past the applied index that was given to `Config`, if [`RegionStorage::recover`] was given the conf state as of it; if the log keeps the conf state, only for those past [`RegionStorage::conf_state`]'s index | a change that is made twice is refused where it enters a joint configuration |
//!
//! # How a group begins, and how a replica joins
//!
//! [`RegionStorage::bootstrap`] gives each of the first replicas the same configuration and lets its log
//! begin after [`BOOTSTRAP`], index 5 of term 5, which counts as committed and as applied: the first entry is
//! 6, the first term of a leader 6. There the applied index of the state machine starts, with its first
//! state; a snapshot of that state is one as of `BOOTSTRAP`. A state machine that calls this index 0 may go
//! on doing so with [`RegionStorage::recover`], which says where it stands.
//!
//! A replica that joins later is not bootstrapped. Its log is empty and begins nowhere, no leader has entry 1
//! for it, and what it gets is a snapshot, with the configuration in it; only then does it take entries. From
//! a log that began at index 1 it could take all of them, its own addition included, and never learn who else
//! votes: it would be the only voter it knows, lead when it is cut off, and commit alone. Such a log is
//! refused by [`ReadyBatch::add_as`], unless the application [keeps configurations
//! itself](ReadyBatch::configured_elsewhere). Regions of earlier releases have such logs. They work as
//! before, and before a replica joins, their leader's log has to be compacted by an entry.
//!
//! # Regions that come back
//!
//! A replica may be removed from a store, and another of the same group come to it later. Give each a peer id
//! of its own, pass it to [`ReadyBatch::add_as`], and compare it when a [`Persisted`] comes; end a replica
//! with [`Tombstones::destroy`], which notes its id as gone in the same batch, and wait for the
//! [completion](Persisted::is_destruction) before another takes its place. A replica that a message makes
//! begins with [`ReadyBatch::create`], one that a split makes with [`ReadyBatch::split_off`].
//! `docs/consensus.md` has the rules and the reasons, in its chapters of this name and on splits and merges.
//!
//! # After a crash
//!
//! What was acknowledged is there; of what was not, a prefix. A `Ready` is there whole or not at all,
//! together with those of the other groups in its batch. Call [`RegionStorage::recover`] before making the
//! `RawNode`: the state machine may be ahead of the log (it applied what the log had not made durable, or
//! took a snapshot that the log had no trace of yet), and then the log starts again after it.
//!
//! # Damage
//!
//! An entry that is damaged is an error wherever raft asks for it, never a shorter log; raft then panics
//! (`fatal!`), for it cannot go on. The exception: when raft reads in order to send to a follower,
//! `Compacted` is answered, so that the follower gets a snapshot and the group lives on; the
//! [provider](SnapshotProvider) is asked for one that reaches beyond the damage. Look at
//! [`Region::health`](crate::Region::health) before starting a group. Replicas give each other back what is
//! lost with [`healing`](crate::healing); until a replica is whole, a [`FencedVoter`] stands in for its
//! `RawNode`.
//!
//! # How it is stored
//!
//! - An entry's payload: nothing at all for an empty normal entry; else one byte (bits 0 and 1: the entry's
//!   type; bit 2: a context follows; bit 3: `sync_log`), then the context as length (LEB128) and bytes if
//!   there is one, then the data.
//! - The hard state: a byte 1, then term, vote and commit as LEB128.
//! - The conf state: the metadata key `raft/conf_state`: a byte 1, the index as of which it
//!   holds, five fields.
//! - The peer id of a replica that [`create`](ReadyBatch::create) or [`split_off`](ReadyBatch::split_off)
//!   made: the metadata key `raft/peer`: a byte 1, the id as LEB128. A tombstone is the same, under the
//!   region's id in eight bytes, big-endian, in the region of the [`Tombstones`].
//! - A bootstrapped region: in one batch, a log that is reset to [`BOOTSTRAP`], a hard state of its term with
//!   its index as commit and no vote, and the conf state as of its index.

mod bounds;
mod codec;
mod far_reads;
mod fenced;
mod leadership;
mod lifecycle;
mod parts;
mod ready;
mod relay;
mod storage;
mod varint;

pub use bounds::{PROPOSAL_BYTES_MAX, check_config, check_proposal};
pub use codec::{decode_conf_state, decode_entry, decode_hard_state};
pub use codec::{encode_conf_state, encode_entry, encode_hard_state};
pub use fenced::FencedVoter;
pub use leadership::give_leadership_away;
pub use lifecycle::{Creation, Tombstones};
pub use ready::{Persisted, ReadyBatch, ReadyError, ReadyWriter, may_send_first};
pub use relay::{Agent, FILLS_MAX, HandedOn, WAIT_TICKS, WAITING_MAX};
pub use relay::{Broadcast, Delegated, FILL_BYTES_MAX, NEIGHBOURS_MAX, Neighbour, Refusal};
pub use relay::{DIRECT_TICKS, Outgoing, Route, SLOW_TICKS, ZoneMap, ZoneUpdates, Zones};
pub use storage::{BOOTSTRAP, RegionStorage, SnapshotProvider};

use crate::{Error, ErrorKind};
use raft::StorageError;

/// As raft knows it.
fn store_error(error: Error) -> raft::Error {
    raft::Error::Store(match error.kind() {
        ErrorKind::Compacted => StorageError::Compacted,
        ErrorKind::Unavailable => StorageError::Unavailable,
        _ => StorageError::Other(Box::new(error)),
    })
}
