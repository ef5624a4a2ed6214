//! A leader that had better not lead.

use raft::{RawNode, StateRole, Storage};

/// Asks another voter to lead the group instead of this node, if this node leads it: when its
/// [disk hangs](crate::Engine::stall), before it is shut down, or while it restores something. It is the one
/// whose log has come furthest, of those that were heard from lately, or of all where none was; that is
/// returned, and `None` where there is no other voter, or this node does not lead.
///
/// Raft lets the new leader be elected at once, by a message of this node's; nothing of it waits for this
/// node's disk. Until then this node takes no proposals, for an election timeout at most: it leads on where
/// nobody else could. Calling this at each tick is fine; a transfer that is under way is left alone.
///
/// A lease of this node's ends with this call: reads by one must not be answered any more in this term.
///
/// ```
/// # use raft::{Config, RawNode, prelude::ConfState};
/// # use raftwood::raft_rs::{RegionStorage, give_leadership_away};
/// # use raftwood::{Engine, RegionId};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let engine = Engine::open(dir.path())?;
/// # let storage = RegionStorage::new(&engine, RegionId(7));
/// # let applied = storage.bootstrap(&ConfState::from((vec![1], vec![])))?.index;
/// # let config = Config { id: 1, applied, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
/// # let mut groups = [RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!()))?];
/// // At each tick.
/// if engine.stall().is_some() {
///     for group in &mut groups {
///         give_leadership_away(group);
///     }
/// }
/// # Ok(()) }
/// ```
pub fn give_leadership_away<T: Storage>(node: &mut RawNode<T>) -> Option<u64> {
    let raft = &node.raft;
    if raft.state != StateRole::Leader {
        return None;
    }
    if raft.lead_transferee.is_some() {
        return raft.lead_transferee;
    }
    let others =
        raft.prs().iter().filter(|(id, _)| **id != raft.id && raft.prs().conf().voters().contains(**id));
    let (&to, _) = others.max_by_key(|(_, progress)| (progress.recent_active, progress.matched))?;
    node.transfer_leader(to);
    node.raft.lead_transferee
}
