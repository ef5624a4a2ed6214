//! The path of a write: accept, write, sync, complete.
//!
//! ```text
//!  caller: encode ──▶ accept ──▶ queue ──▶ write stage ──▶ awaiting ──▶ sync stage ──▶ complete
//!                    (short lock:          one at a time     up to SYNC_SLOTS       in order
//!                     check, place,        (headers chained) side by side
//!                     index)
//! ```
//!
//! Each stage is a type in a file of its own. What it keeps between two groups stands under the one lock of
//! the [`pipeline`]; what it does meanwhile is a value that a thread takes along without it (a `Group` is
//! written, a `SyncJob` is synced). None of them knows of threads: [`workers`] take the lock and call the
//! stages in turn; [`shared`] says how each ends; [`waking`] knows who sleeps where. [`rotation`] makes
//! segments beside all that. The [`committer`] puts them together, and decides where a batch has to wait
//! before it is [admitted](admission).
//!
//! There is no log thread that a write has to hop to. A thread that waits for a batch does the work that
//! stands between it and completion, for everybody's batches at once: takes the whole queue and writes it
//! with one call, then syncs everything written so far. The others sleep until they are completed, or until
//! they are promoted because the worker before them is done with its own batch and there is more to do. A
//! lone writer therefore pays one write and one sync on its own thread; many share them. Batches that nobody
//! waits for (tickets polled as futures, callbacks) are driven by a thread of the engine.
//!
//! What is accepted while a sync runs has to wait for the next one. Therefore it stays in the queue, and is
//! written with one call: when the sync ends, when there is enough of it to be worth a call beside the sync,
//! when something comes that is only to be written, or after a millisecond, whichever is first. The last is
//! for a sync that hangs: a kill then costs no more than that.
//!
//! When a sync ends, those whose batches it settled are about to come back, each with another one. The thread
//! that writes next therefore [gives up the processor](gather) a few times first, as long as that may make
//! its group larger. Until it writes it counts as writing: an end of that which no stage follows is
//! announced.
//!
//! A commit group is what one write stage takes, or several of them beside one sync. Its threads sleep in one
//! [place](sleepers) and are woken by one call. No thread is sent its outcome: it compares its position with
//! how far the log is written and durable, two numbers that only the end of a stage moves. A batch that
//! somebody waits for therefore has no state of its own.
//!
//! Invariants
//!
//! - Positions are given under the pipeline's lock, in the order of acceptance, and records are
//!   written in that order.
//! - The log never goes back: one thread at a time prepares segments, they become active in the order of
//!   their numbers, and a position at or below one that was given stops all writing.
//! - A thread that sleeps was counted under the pipeline's lock. The end of a stage, which moves the numbers
//!   under that lock, finds all that it concerns, and chooses under it which thread goes on.
//! - `durable` only ever moves to the target of the longest prefix of started syncs that have all succeeded:
//!   with two syncs in flight, the later one is not believed before the earlier one.
//! - A sync covers every segment that was written to since the last sync began, older ones first. Therefore
//!   no batch is acknowledged before every segment it may depend on is on the device.
//! - The first I/O error trips the gate for good. A failed sync is never repeated: the kernel has
//!   marked the pages clean, and the second answer would be a lie. Everything not yet
//!   acknowledged fails with the first cause.
//! - Tickets of one durability complete in the order of their positions. A `Written` ticket need not wait for
//!   the sync of a `Synced` one before it.

mod accept;
mod active;
mod admission;
mod approval;
mod budget;
mod committer;
mod completion;
mod counters;
mod gate;
mod gather;
mod hooks;
mod load;
mod pending;
mod pipeline;
mod progress;
mod queue;
mod room;
mod rotation;
mod settled;
mod shared;
mod sleepers;
mod sync_stage;
mod ticket;
mod turns;
mod uncopied;
mod unsent;
mod waking;
mod watch;
mod watchers;
mod workers;
mod write_stage;

pub(crate) use accept::{Accept, OnFull, Origin};
pub(crate) use budget::{Budget, Level};
pub(crate) use committer::Committer;
pub(crate) use hooks::Hooks;
pub use ticket::Ticket;
pub(crate) use unsent::Unsent;
pub use watch::Watch;
pub use watchers::Change;
