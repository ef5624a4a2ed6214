//! The engines, each with its settings in words, which the report prints.

#[cfg(feature = "fjall")]
mod fjall;
mod floor;
#[cfg(any(feature = "fjall", feature = "redb", feature = "rocksdb"))]
mod keys;
#[cfg(feature = "okaywal")]
mod okaywal;
#[cfg(feature = "raft-engine")]
mod raft_engine;
#[cfg(feature = "raft-log")]
mod raft_log;
pub(crate) mod raftwood;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::log::{PeerLog, Result};
use std::path::Path;

/// An engine with settings.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    /// The package that its version is looked up by; none for the floor.
    pub(crate) package: &'static str,
    /// Whether it can read a range of a region, and its store therefore be verified.
    pub(crate) reads: bool,
    /// Whether it can write without a sync, so that a killed process does not lose it.
    pub(crate) writes_only: bool,
    /// Settings other than the defaults, and what else has to be known to compare it.
    pub(crate) settings: &'static str,
    pub(crate) open: fn(&Path, writers: usize) -> Result<Box<dyn PeerLog>>,
}

/// The engine that the others are compared with.
pub(crate) const RAFTWOOD: &str = "raftwood";

/// What no engine can beat.
pub(crate) const FLOOR: &str = "floor";

/// All that were built in.
pub(crate) const ALL: &[Engine] = &[
    Engine {
        name: FLOOR,
        package: "",
        reads: false,
        writes_only: true,
        settings: "no store: each writer has a file of blocks that were written before, and calls pwrite and \
                   fdatasync; payloads and hard states only, no checksum, no index",
        open: floor::open,
    },
    Engine {
        name: RAFTWOOD,
        package: "raftwood",
        reads: true,
        writes_only: true,
        settings: "defaults",
        open: raftwood::open,
    },
    #[cfg(feature = "raft-engine")]
    Engine {
        name: "raft-engine",
        package: "raft-engine",
        reads: true,
        writes_only: true,
        settings: "defaults, but purge-threshold = 1 GiB (10 GiB); purge_expired_files every 100 ms",
        open: raft_engine::open_default,
    },
    #[cfg(feature = "raft-engine")]
    Engine {
        name: "raft-engine-best",
        package: "raft-engine",
        reads: true,
        writes_only: true,
        settings: "as raft-engine, with enable-log-recycle, prefill-for-recycle, prefill-limit = 1 GiB, \
                   batch-compression-threshold = 0; it fills its files while it is opened",
        open: raft_engine::open_best,
    },
    #[cfg(feature = "rocksdb")]
    Engine {
        name: "rocksdb",
        package: "rocksdb",
        reads: true,
        writes_only: true,
        settings: "the library of the system (7.8.3 in Debian 12); one column family, keys (region, kind, index), WriteOptions.sync, \
                   pipelined writes, 4 memtables of 128 MiB, recycle_log_file_num = 4, \
                   wal_bytes_per_sync = 512 KiB, no compression, 2 background jobs; compaction of a log is a DeleteRange",
        open: rocksdb::open,
    },
    #[cfg(feature = "fjall")]
    Engine {
        name: "fjall",
        package: "fjall",
        reads: true,
        writes_only: true,
        settings: "one keyspace, keys (region, kind, index), PersistMode::SyncData with each batch, no compression; \
                   compaction of a log is a removal of each key",
        open: fjall::open,
    },
    #[cfg(feature = "redb")]
    Engine {
        name: "redb",
        package: "redb",
        reads: true,
        writes_only: false,
        settings: "defaults, one table, keys (region, kind, index), Durability::Immediate; a commit with \
                   Durability::None is lost by a kill, and therefore no match for a write without a sync",
        open: redb::open,
    },
    #[cfg(feature = "okaywal")]
    Engine {
        name: "okaywal",
        package: "okaywal",
        reads: false,
        writes_only: false,
        settings: "files of 64 MiB, checkpoint after 60 MiB; a log without an index, and what a checkpoint ends is \
                   dropped instead of being kept elsewhere: it does less than a store",
        open: okaywal::open,
    },
    #[cfg(feature = "raft-log")]
    Engine {
        name: "raft-log",
        package: "raft-log",
        reads: false,
        writes_only: true,
        settings: "a log of one group: all regions share one, as (region, index) in each payload, and chunks end at \
                   64 MiB; every flush waits up to a millisecond for others, as it does by default",
        open: raft_log::open,
    },
];

/// The engines that were left out of this build, by the names of their features.
pub(crate) fn left_out() -> Vec<&'static str> {
    let features = [
        ("raft-engine", cfg!(feature = "raft-engine")),
        ("rocksdb", cfg!(feature = "rocksdb")),
        ("fjall", cfg!(feature = "fjall")),
        ("redb", cfg!(feature = "redb")),
        ("okaywal", cfg!(feature = "okaywal")),
        ("raft-log", cfg!(feature = "raft-log")),
    ];
    features.into_iter().filter(|(_, built)| !built).map(|(name, _)| name).collect()
}

/// The engine of this name.
pub(crate) fn named(name: &str) -> Result<&'static Engine> {
    ALL.iter().find(|e| e.name == name).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|e| e.name).collect();
        format!("there is no engine '{name}' in this build; there are {}", names.join(", ")).into()
    })
}
