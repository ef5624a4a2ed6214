//! Takes a store of TiKV's raft-engine into Raftwood, and one that was written through `raftwood-raft-engine`
//! back; and TiKV's `raftdb`, of RocksDB's, into Raftwood.
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
#[cfg(feature = "rocksdb")]
mod raftdb;
mod store;
mod theirs;
mod tikv;

pub use failure::{Failure, Result};
pub use ours::Layout;
pub use store::{Dropped, Progress, Report};

use ours::{Made, Ours};
use place::Place;
use std::path::Path;
use store::{Reads, copy, verify};
use theirs::Theirs;

/// A store of raft-engine's.
#[derive(Clone, Copy, Debug)]
pub struct RaftEngineDir<'a> {
    /// Where it is.
    pub dir: &'a Path,
    /// Its `spill-dir`, if it has one.
    pub spill_dir: Option<&'a Path>,
    /// Whether it is taken over without what follows damage at the end of its log. Without this such a store
    /// is refused.
    pub accepts_torn_tail: bool,
}

impl<'a> RaftEngineDir<'a> {
    /// The store in `dir`, whole.
    pub fn new(dir: &'a Path) -> RaftEngineDir<'a> {
        RaftEngineDir { dir, spill_dir: None, accepts_torn_tail: false }
    }
}

/// Makes a store of Raftwood's in `to`, which must not exist, of raft-engine's in `from`. `watch` is notified
/// of progress.
///
/// # Errors
/// `CannotRun` when the source is open elsewhere or is none, the destination exists, or the operating system
/// refuses something; `Wrong` when raft-engine finds damage, its log has a torn end that `from` does not
/// accept, entries are no `eraftpb::Entry`, terms fall, a key or value is larger than Raftwood takes, or the
/// copy differs.
pub fn import(
    from: RaftEngineDir<'_>,
    to: &Path,
    layout: Layout,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let place = Place::take(to)?;
    let source = Theirs::open_source(from, &place.scratch())?;
    let mut report = fill(place, &source, layout, watch)?;
    report.dropped = source.into_dropped();
    Ok(report)
}

/// A directory of RocksDB's.
#[derive(Clone, Copy, Debug)]
pub struct RocksDir<'a> {
    /// Where the store is.
    pub dir: &'a Path,
    /// Where its write-ahead log is, if not there.
    pub wal_dir: Option<&'a Path>,
}

/// Makes a store of Raftwood's in `to`, which must not exist, of TiKV's `raftdb`. With `kv`, the kv store
/// beside it, also of the apply states, region states and `StoreIdent` that are kept there; logs begin after
/// their truncated index then. `watch` is notified of progress.
///
/// # Errors
/// `CannotRun` as for [`import`], and when this program was built without feature `rocksdb`; `Wrong` when
/// RocksDB finds damage, a key is of no kind that is known, a log has not the entries that its states speak
/// of, a snapshot was being applied, terms fall, a value is larger than Raftwood takes, or the copy differs.
#[cfg_attr(not(feature = "rocksdb"), allow(unused_variables, reason = "they are for RocksDB"))]
pub fn import_raftdb(
    raftdb: RocksDir<'_>,
    kv: Option<RocksDir<'_>>,
    to: &Path,
    layout: Layout,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report> {
    #[cfg(not(feature = "rocksdb"))]
    return Err(Failure::CannotRun(
        "this program was built without RocksDB: build it with --features rocksdb, see crates/migrate/README.md"
            .to_owned(),
    ));
    #[cfg(feature = "rocksdb")]
    {
        let place = Place::take(to)?;
        let source = raftdb::RaftDb::open_source(raftdb, kv, layout)?;
        fill(place, &source, layout, watch)
    }
}

/// Copies, verifies, and gives the store its name.
fn fill(place: Place, source: &dyn Reads, layout: Layout, watch: &mut dyn FnMut(Progress)) -> Result<Report> {
    let mut made = Made::create(&place.store(), layout)?;
    let report = copy(source, &mut made, watch)?;
    made.close()?;
    verify(source, &Ours::open_own(&place.store(), layout)?, watch)?;
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
