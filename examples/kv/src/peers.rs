//! Peer ids: which replica of a group is meant, and on which node it is.
//!
//! A group's configuration holds peer ids. A node's store has an incarnation, 0 at first, and all its
//! replicas have the peer id that says both: `node + 1000 * incarnation`. So nothing has to be replicated
//! for a message to find its way: the node is the remainder.
//!
//! A hard state is never lost alone: what ends a log, and is given up, had those of all its groups, and
//! perhaps whole groups that nobody remembers. So the store comes back as a whole, in the next incarnation,
//! and empty (`replace.rs`). That is what keeps an id from being used twice:
//!
//! - The number is in the state machine's database and in the log, on two disks; where they differ, or the
//!   log says that it lost votes, the store takes a number that neither has seen. It is durable before a
//!   replica of it exists.
//! - It is the tombstone of all that was here before. A message to an id of an earlier incarnation is
//!   dropped, whichever group it is for, also one of which this store knows nothing any more; so no replica
//!   is made again that may have voted.
//! - A configuration has one peer of each node. Only the leader exchanges it, for a higher one, by one entry
//!   that takes the old one out and the new one in. What a group has come to, its number never goes back.
//!
//! The groups that a split makes have the parent's peers, which are ids of the same nodes: on each node the
//! id that its replicas have anyhow, unless the node came back and the parent has not exchanged its peer
//! yet; then the child exchanges its own later. A merge needs nothing of the source's replicas, so it does
//! not matter which peers those are.

use raft::prelude::ConfState;

/// From one incarnation's id to the next. There are fewer nodes.
pub const STRIDE: u64 = 1000;

/// The id that all replicas of a node have, in this incarnation of its store.
pub fn peer_of(node: u64, incarnation: u64) -> u64 {
    node + STRIDE * incarnation
}

/// Where a peer is. Raft's 0, which is nobody, is nowhere.
pub fn node_of(peer: u64) -> u64 {
    peer % STRIDE
}

/// Whether `old` is a replica of the same node, from an earlier incarnation of its store.
pub fn is_before(old: u64, new: u64) -> bool {
    node_of(old) == node_of(new) && old < new
}

/// The group's peer on a node: a voter, or a learner.
pub fn peer_on(node: u64, state: &ConfState) -> Option<u64> {
    let peers = state.get_voters().iter().chain(state.get_learners()).chain(state.get_learners_next());
    peers.copied().find(|peer| node_of(*peer) == node)
}

/// Whether it is a voter, or a learner.
pub fn has_peer(state: &ConfState, peer: u64) -> bool {
    peer_on(node_of(peer), state) == Some(peer)
}

/// Whether the configuration is on its way from one to another.
pub fn is_joint(state: &ConfState) -> bool {
    !state.get_voters_outgoing().is_empty()
}

/// The nodes of these peers, in order.
pub fn nodes_of(peers: &[u64]) -> Vec<u64> {
    let mut nodes: Vec<u64> = peers.iter().map(|peer| node_of(*peer)).collect();
    nodes.sort_unstable();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_found_by_its_node_in_whichever_incarnation() {
        assert_eq!((node_of(peer_of(3, 0)), node_of(peer_of(3, 7)), node_of(0)), (3, 3, 0));
        assert!(is_before(peer_of(3, 1), peer_of(3, 2)) && !is_before(peer_of(3, 2), peer_of(3, 2)));
        assert!(!is_before(peer_of(2, 0), peer_of(3, 1)));
        let mut state = ConfState::from((vec![1, 1003], vec![2002]));
        assert_eq!([1, 2, 3, 4].map(|node| peer_on(node, &state)), [Some(1), Some(2002), Some(1003), None]);
        // On its way out, it is not the one that is meant.
        state.set_voters_outgoing(vec![1, 3]);
        assert_eq!((peer_on(3, &state), is_joint(&state)), (Some(1003), true));
    }
}
