//! What is on a node's disk, with the node or without it.

use raft::prelude::HardState;
use raftwood::raft_rs::decode_hard_state;
use raftwood::{LogState, Options, Reader, RegionId};
use raftwood_kv::cluster::Cluster;
use raftwood_kv::machine::{Machine, Stand};
use std::collections::BTreeMap;

/// The node's log. What a kill leaves is all that was written, and no less.
pub(crate) fn log(cluster: &Cluster, node: u64) -> Reader {
    Options::new().show_unproven(true).open_read_only(cluster.dir_of(node).join("log")).unwrap()
}

pub(crate) fn hard_state(log: &Reader, group: u64) -> Option<HardState> {
    Some(decode_hard_state(&log.hard_state(RegionId(group))?).unwrap())
}

/// How far a group's log goes, if there is one.
#[allow(dead_code, reason = "not of every test")]
pub(crate) fn extent(log: &Reader, group: u64) -> Option<LogState> {
    log.regions().into_iter().find(|region| region.id == RegionId(group)).map(|region| region.log)
}

/// Where the groups of a node that was killed stand, in its state machine.
pub(crate) fn stands(cluster: &Cluster, node: u64) -> BTreeMap<u64, Stand> {
    let machine = Machine::open(&cluster.dir_of(node).join("state.redb")).unwrap();
    machine.stands(None, &[]).unwrap()
}
