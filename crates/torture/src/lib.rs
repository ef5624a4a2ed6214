//! Torture: the engine against a model, on a disk that fails in every way it may.
//!
//! A log store is chosen for what it never loses, and nobody believes a list of promises. So each promise is
//! put to a machine that tries to break it, and the machine is part of the crate: it runs in the tests, by
//! command, and in fuzz targets.
//!
//! ```text
//!  workload: acts ──▶ maker ──▶ batches ──▶ engine (one thread, simulated disk)
//!                       ▲          └──────▶ model  (plain vectors) ──▶ a state per accepted batch
//!                       └── state ─────────────┘                          │
//!  disk at every operation ──▶ crash, by policy ──▶ recover ──▶ oracle ◀──┘ candidates: acknowledged..=accepted
//! ```
//!
//! - [`model`] is what should be; [`oracle`] is what must hold after a crash or fault.
//! - [`workload`] says what is done; [`driver`] does it to both and keeps what a crash may leave.
//! - [`explore`] chooses the moments and the losses. The same seed gives the same run.
//! - [`protocol`] is the order of calls that each run is held to, step by step, without a crash.
//!
//! Deliberately absent: threads of the engine (they have tests of their own), damage that is no crash (bit
//! flips and the like), and disks that tear sectors beyond what was being written, which the default options
//! do not promise to survive. Violations are values, not panics: an explorer counts on.

pub mod batch;
mod broken;
pub mod driver;
pub mod explore;
pub mod fuzzing;
mod lies;
pub mod model;
pub mod oracle;
mod policies;
pub mod protocol;
pub mod report;
pub mod setup;
pub mod workload;

pub use explore::Explorer;
pub use report::{Counts, Violation};
pub use setup::Setup;
pub use workload::{Act, Workload};
