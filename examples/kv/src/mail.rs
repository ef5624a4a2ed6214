//! What nodes say to each other, and which replica it is for.

use crate::clocks::Moment;
use crate::group::Group;
use crate::node::Node;
use crate::nursery::is_own;
use crate::peers::{is_before, node_of, peer_on};
use crate::region::{Span, ended_by};
use crate::wire::{Dump, Result, Said};
use raft::prelude::{Message, MessageType};
use raftwood::RegionId;
use raftwood::raft_rs::{Broadcast, Creation, HandedOn, Outgoing, ReadyBatch};
use std::collections::BTreeSet;

impl Node {
    pub fn message(&mut self, id: u64, message: Message, awake: &mut BTreeSet<u64>) -> Result<()> {
        let from = node_of(message.from);
        if self.cut_off.contains(&from) || self.deaf.contains(&id) || self.lost.contains(&id) {
            return Ok(());
        }
        if !self.is_here(id, from, message.to) {
            return Ok(());
        }
        if self.fenced.contains_key(&id) {
            return self.message_to_fenced(id, &message, awake);
        }
        if !self.groups.contains_key(&id) && !self.create(id, &message)? {
            return Ok(());
        }
        if self.groups.get(&id).is_none_or(Group::is_parked) {
            return Ok(());
        }
        let kind = message.get_msg_type();
        let is_vote = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        let mut offered = None;
        if kind == MessageType::MsgSnapshot {
            let Some(span) = self.expects(id, &message)? else { return Ok(()) };
            offered = Some((message.get_snapshot().get_metadata().index, span));
        }
        let vote_after = self.args.timing.vote_after();
        if let Some(group) = self.groups.get_mut(&id)
            && (!is_vote || Moment::now().is_beyond(group.started, vote_after))
        {
            awake.insert(id);
            // What is left of a peer that another has taken the place of: it has no say any more.
            if peer_on(from, &group.conf_state()).is_some_and(|now| is_before(message.from, now)) {
                return Ok(());
            }
            // Messages of peers that are no longer, or not yet, in the group are refused here.
            let _ = group.node.step(message);
            let taken = group.node.raft.raft_log.unstable_snapshot().as_ref().map(|s| s.get_metadata().index);
            if let Some((_, span)) = offered.filter(|(index, _)| taken == Some(*index)) {
                group.expected = Some(span);
            }
        }
        Ok(())
    }

    /// Makes the replica that a message is for: its group was split off where this node has not come to yet.
    fn create(&mut self, id: u64, message: &Message) -> Result<bool> {
        let makes = matches!(
            message.get_msg_type(),
            MessageType::MsgRequestVote
                | MessageType::MsgRequestPreVote
                | MessageType::MsgAppend
                | MessageType::MsgHeartbeat
                | MessageType::MsgSnapshot
        );
        if !makes || is_own(RegionId(id)) {
            return Ok(false);
        }
        let mut batch = ReadyBatch::new(&self.engine);
        if batch.create(RegionId(id), self.nursery.me, &self.nursery.tombstones)? == Creation::Gone {
            return Ok(false);
        }
        // What it says waits for a later batch, and so for this one.
        self.submit(batch)?;
        let group = self.nursery.start(id, None, self.started)?;
        self.groups.insert(id, group);
        Ok(true)
    }

    /// What a snapshot holds, if it can be taken: it must not be another group's here. If not, it is sent
    /// again.
    fn expects(&self, id: u64, message: &Message) -> Result<Option<Span>> {
        let dump: Dump = serde_json::from_slice(&message.get_snapshot().data)?;
        let spans = self.spans();
        Ok(dump.span.filter(|span| ended_by(id, span, &spans).is_some()))
    }

    /// Sends what may be sent now; entries for two nodes of another zone go to one of them, which hands them
    /// on.
    pub fn send(&mut self, id: u64, messages: Vec<Message>) {
        let outgoing = match self.groups.get_mut(&id) {
            Some(group) => group.route.plan(&group.node, messages, |peer| Some(node_of(peer))),
            None => messages.into_iter().map(Outgoing::Direct).collect(),
        };
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Direct(message) => self.say(id, node_of(message.to), Said::Raft(message)),
                Outgoing::Broadcast(broadcast) => {
                    self.say(id, node_of(broadcast.to), Said::Broadcast(broadcast))
                }
            }
        }
    }

    pub fn say(&self, group: u64, node: u64, said: Said) {
        if !self.cut_off.contains(&node)
            && !self.deaf.contains(&group)
            && let Some(peer) = self.peers.get(&node)
        {
            peer.send(group, said);
        }
    }

    /// The leader's entries, for this node and for its neighbours in the zone.
    pub fn broadcast(&mut self, id: u64, broadcast: Broadcast, awake: &mut BTreeSet<u64>) {
        let from = broadcast.neighbours.first().map_or(0, |n| node_of(n.append.message.from));
        let is_heard = !self.cut_off.contains(&from) && !self.deaf.contains(&id);
        // A fenced replica hands on nothing: the leader sends directly when nothing is acknowledged.
        let Some(group) = self.groups.get_mut(&id).filter(|g| is_heard && !g.is_parked()) else { return };
        // One that is for another replica, or that no leader makes, is dropped.
        if let Ok(Some(own)) = group.agent.receive(broadcast) {
            let _ = group.node.step(own);
        }
        awake.insert(id);
    }

    /// What the agent of this zone has for its neighbours by now, or for the leader.
    pub fn hand_on(&mut self, id: u64) {
        let Some(group) = self.groups.get_mut(&id).filter(|g| !g.is_parked()) else { return };
        for handed_on in group.agent.poll() {
            match handed_on {
                HandedOn::Append { store, message } => {
                    self.stats.handed_on += 1;
                    self.say(id, store, Said::Raft(message));
                }
                HandedOn::Refused(refusal) => {
                    self.stats.not_handed_on += 1;
                    self.say(id, node_of(refusal.to), Said::Refusal(refusal));
                }
            }
        }
    }
}
