//! Replicas of one group heal each other.
//!
//! A replica that has lost entries asks the others for them, and puts back what is identical: the index and
//! the term, and the length and the checksum that were recorded here when the entry was appended. What the
//! others do not have says nothing by itself: nothing is discarded, and nothing replaced, on a peer's word.
//! That is for a leader of the current term, by an append or a snapshot.
//!
//! ```text
//!   Healer here                                   Healer of a peer
//!   look() ── reads every entry ──▶ Standing
//!   question(term) ─────────── Question ────────▶ answer(question, durable term)
//!   take(peer, answer) ◀──────── Answers ───────
//!   standing(): Whole ──▶ the group runs
//! ```
//!
//! The messages are the application's to carry: [`Question`] and [`Answer`] are plain values, with serde's
//! traits under the feature `serde`. A [`Healer`] starts no thread, and keeps nothing that a restart would
//! miss. The rules, and where they come from, stand in `docs/consensus.md`, "Replicas that heal each other".
//!
//! # The fence
//!
//! | [`Standing`] | what it is | votes | acknowledges, leads, serves reads, denies |
//! |---|---|---|---|
//! | `Whole` | nothing is known to be wrong | yes | yes |
//! | `Fenced` | payloads are damaged or suspect; each entry's index and term are certain | yes | no |
//! | `Unsure` | of some entry not even the term is known | no | no |
//! | `HardStateLost` | a vote or a term may be forgotten, and acknowledged entries with it | no, never again | no |
//!
//! - A replica that is fenced gives the entries that it can read, and to all other questions it answers
//!   `Unknown`.
//! - A lost hard state cannot be had back: no majority knows in which terms the replica has voted. Remove it
//!   from its group, destroy the region, and let it come back under a peer id that was never used.
//! - With raft-rs, [`FencedVoter`](crate::raft_rs::FencedVoter) does what a fenced replica may do, for a
//!   `RawNode` may not be started over it: raft would read what cannot be read. It also asks for the snapshot
//!   that helps where no peer has a copy. With openraft, do not start the group before the replica is whole;
//!   it then does not vote either.
//! - What the state machine has durably applied need not come back: compacting the log through it ends the
//!   damage.
//!
//! # Deliberately absent
//!
//! When to ask, whom, and how often, for the application knows its peers. Whether a peer is what it says:
//! the checksum is one of 32 bits and shows rot and mistakes, not malice.
//!
//! ```
//! use raftwood::healing::{Healer, Standing, Taken};
//! use raftwood::{Durability, Engine, EntryId, RegionId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dirs = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let (here, there) = (Engine::open(dirs.0.path())?, Engine::open(dirs.1.path())?);
//! # for engine in [&here, &there] {
//! #     let mut batch = engine.batch();
//! #     batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
//! #     engine.write(batch, Durability::Synced)?;
//! # }
//! let (mut healer, peer) = (Healer::new(&here, RegionId(7)), Healer::new(&there, RegionId(7)));
//! healer.look()?;
//! while let Some(question) = healer.question(None) {
//!     let mut healed = 0;
//!     for answer in peer.answer(&question, 0)? {
//!         healed += u64::from(matches!(healer.take(2, answer)?, Taken::PutBack));
//!     }
//!     if healed == 0 {
//!         break; // ask another peer, or wait for a leader
//!     }
//! }
//! assert_eq!(healer.standing(), Standing::Whole);
//! # Ok(()) }
//! ```

mod healer;
mod message;
mod standing;

pub use healer::{Healer, Taken};
pub use message::{Answer, Question, Says};
pub use standing::Standing;
