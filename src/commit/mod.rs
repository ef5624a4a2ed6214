//! The path of a write: accept, write, sync, complete.
//!
//! ```text
//!  caller: encode ──▶ accept ──▶ queue ──▶ write stage ──▶ awaiting ──▶ sync stage ──▶ complete
//!                    (short lock:          one at a time     up to SYNC_SLOTS       in order
//!                     check, place,        (headers chained) side by side
//!                     index)
//! ```
//!
//! There is no log thread that a write has to hop to. Whoever waits for a batch does the work that stands between it
//! and completion, for everybody's batches at once: takes the whole queue and writes it with one call, then syncs
//! everything written so far. The others sleep until they are completed, or until they are promoted because the worker
//! before them is done with its own batch and there is more to do. A lone writer so pays one write and one sync on its
//! own thread; many share them. Batches that nobody waits for (tickets polled as futures, callbacks) are driven by a
//! thread of the engine.
//!
//! Invariants
//!
//! - Positions are given under the pipeline's lock, in the order of acceptance, and records are written in that order.
//! - `durable` only ever moves to the target of the longest prefix of started syncs that have all succeeded: with two
//!   syncs in flight, the later one is not believed before the earlier one.
//! - A sync covers every segment that was written to since the last sync began, older ones first. So no batch is
//!   acknowledged before every segment it may depend on is on the device.
//! - The first I/O error trips the gate for good. A failed sync is never repeated: the kernel has marked the pages
//!   clean, and the second answer would be a lie. Everything not yet acknowledged fails with the first cause.
//! - Tickets of one durability complete in the order of their positions. A `Written` ticket need not wait for the sync
//!   of a `Synced` one before it.

mod accept;
mod completion;
mod gate;
mod pipeline;
mod ticket;

pub(crate) use pipeline::{Accept, Committer, Encoded, Hooks, OnFull};
pub use ticket::Ticket;
