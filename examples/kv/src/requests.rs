//! What clients ask of a node.

use crate::clocks;
use crate::group::Group;
use crate::machine::{Task, Waiter};
use crate::node::Node;
use crate::peers::is_joint;
use crate::region::place;
use crate::wire::{Reply, Request, Stats};
use raftwood::RegionId;
use std::collections::BTreeSet;

impl Node {
    pub fn request(&mut self, request: Request, waiter: Waiter, awake: &mut BTreeSet<u64>) {
        let reply = match request {
            Request::Partition { from } => {
                self.cut_off = from.into_iter().collect();
                Reply::Done
            }
            Request::Deafen { groups } => {
                self.deaf = groups.into_iter().collect();
                Reply::Done
            }
            Request::Stats => Reply::Stats(self.stats()),
            Request::Dump { group } => {
                let _ = self.machine.send(Task::Dump { group, waiter });
                return;
            }
            // They never come here.
            Request::FailRollbacks { .. } | Request::HoldInstalls { .. } | Request::HoldApplies { .. } => {
                Reply::Done
            }
            Request::Disturb { clocks } => {
                clocks::disturb(clocks);
                Reply::Done
            }
            Request::Write { group, key, .. }
            | Request::Propose { group, key, .. }
            | Request::Read { group, key, .. } => {
                let at = place(group, key);
                let owns = |g: &&Group| g.span.as_ref().is_some_and(|s| s.contains(at));
                match self.groups.values().find(owns).map(|g| g.id) {
                    Some(id) => return self.group_request(id, at, request, waiter, awake),
                    None if self.fenced.values().any(|f| f.stand.span.contains(at)) => {
                        Reply::NotLeader { leader: 0 }
                    }
                    None => Reply::Moved,
                }
            }
            Request::Transfer { group, .. }
            | Request::Demote { group, .. }
            | Request::Promote { group, .. }
            | Request::Split { group, .. }
            | Request::Freeze { group }
            | Request::Absorb { group, .. } => {
                if self.groups.contains_key(&group) {
                    return self.group_request(group, 0, request, waiter, awake);
                }
                match self.nursery.tombstones.is_gone(RegionId(group), self.nursery.me) {
                    _ if self.fenced.contains_key(&group) => Reply::NotLeader { leader: 0 },
                    Ok(true) => Reply::Gone,
                    _ => Reply::Failed { why: format!("there is no group {group}") },
                }
            }
        };
        let _ = waiter.send(reply);
    }

    fn group_request(
        &mut self,
        id: u64,
        at: u64,
        request: Request,
        waiter: Waiter,
        awake: &mut BTreeSet<u64>,
    ) {
        awake.insert(id);
        if let Some(group) = self.groups.get_mut(&id) {
            group.request(request, at, waiter, &mut self.asked, self.args.id);
        }
    }

    fn stats(&self) -> Stats {
        let leads = self.groups.values().filter(|g| g.is_leader()).map(|g| g.id).collect();
        let configurations = self.groups.values().map(|g| {
            let state = g.conf_state();
            (g.id, state.voters, state.learners)
        });
        let owned = self.groups.values().filter(|g| !g.is_ended());
        let owned = owned.filter_map(|g| Some((g.id, g.span.clone()?)));
        let half_done = self.groups.values().filter(|g| is_joint(&g.conf_state()));
        let installing = self.groups.values().filter(|g| g.installing.is_some()).map(|g| g.id);
        let fenced = self.fenced.iter().filter(|(_, f)| f.is_installing()).map(|(id, _)| *id);
        Stats {
            leads,
            peer: self.nursery.me,
            half_done: half_done.count() as u64,
            configurations: configurations.collect(),
            spans: owned.collect(),
            installing: installing.chain(fenced).collect(),
            sent: self.peers.iter().map(|(id, peer)| (*id, peer.sent())).collect(),
            fenced: self.fenced.keys().copied().collect(),
            lost: self.lost.iter().copied().collect(),
            ..self.stats.clone()
        }
    }
}
