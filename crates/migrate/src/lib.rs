//! Takes a store of TiKV's raft-engine into Raftwood, and one that was written through `raftwood-raft-engine`
//! back.
//!
//! Offline: the source is locked and not changed by a byte, and the destination gets its name when it is
//! whole, durable, and compared with the source entry by entry. A run that is killed is run again.
//!
//! Once a program has written to one of the two stores, the other is of the past: a replica that starts from
//! it has forgotten entries and votes that it acknowledged.

mod failure;
mod lock;
mod ours;
mod place;
mod store;
mod theirs;
mod tikv;

pub use failure::{Failure, Result};
pub use ours::Layout;
pub use store::{Progress, Report};

use ours::{Made, Ours};
use place::Place;
use std::path::Path;
use store::{copy, verify};
use theirs::Theirs;

/// Makes a store of Raftwood's in `to`, which must not exist, of raft-engine's in `from`. `spill` is its
/// `spill-dir`. `watch` is notified of progress.
///
/// # Errors
/// `CannotRun` when the source is open elsewhere or is none, the destination exists, or the operating system
/// refuses something; `Wrong` when raft-engine finds damage, entries are no `eraftpb::Entry`, terms fall, a
/// key or value is larger than Raftwood takes, or the copy differs.
pub fn import(
    from: &Path,
    spill: Option<&Path>,
    to: &Path,
    layout: Layout,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let place = Place::take(to)?;
    let source = Theirs::open_source(from, spill, &place.scratch())?;
    let mut made = Made::create(&place.store(), layout)?;
    let report = copy(&source, &mut made, watch)?;
    made.close()?;
    verify(&source, &Ours::open_own(&place.store(), layout)?, watch)?;
    place.publish()?;
    Ok(report)
}

/// Makes a store of raft-engine's in `to`, which must not exist, of Raftwood's in `from`, which programs
/// wrote through `raftwood-raft-engine`. `watch` is notified of progress.
///
/// # Errors
/// `CannotRun` as for [`import`]; `Wrong` when the source is damaged, a region has a hard state of Raftwood's
/// own, its entries are not those of `raftwood-raft-engine`, or the copy differs.
pub fn export(from: &Path, to: &Path, watch: &mut dyn FnMut(Progress)) -> Result<Report> {
    let place = Place::take(to)?;
    let source = Ours::open_source(from)?;
    let mut made = Theirs::open_own(&place.store())?;
    let report = copy(&source, &mut made, watch)?;
    drop(made);
    let copied = Theirs::open_own(&place.store())?;
    verify(&source, &copied, watch)?;
    drop(copied);
    place.publish()?;
    Ok(report)
}
