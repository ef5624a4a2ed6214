//! Replicas that are destroyed, and made again under another peer id, while something is on its way to them.

use super::frame::Frame;
use super::net::{MAJORITY_AWAY, Net};
use super::node::first_peer;
use super::proposals;
use raft::prelude::{Entry, Message, MessageType};
use raftwood::EntryId;
use raftwood::raft_rs::{Broadcast, Delegated, Neighbour};

/// What a leader would send to store 5: an entry that all have.
pub(super) fn append(net: &Net) -> Message {
    let region = net.nodes[&1].region(1);
    let last = region.last_index();
    let entry = Entry { index: last, term: region.term(last).unwrap(), ..Entry::default() };
    let mut message =
        Message { from: first_peer(1), to: first_peer(5), term: entry.term, ..Message::default() };
    (message.index, message.log_term) = (last - 1, region.term(last - 1).unwrap());
    message.set_msg_type(MessageType::MsgAppend);
    message.set_entries(vec![entry].into());
    message
}

/// The same by store 4.
fn late(net: &Net) -> Broadcast {
    let append = Delegated::new(append(net)).unwrap();
    Broadcast { to: first_peer(4), append: None, neighbours: vec![Neighbour { store: 5, append }] }
}

pub(super) fn settled() -> Net {
    let mut net = Net::new(&MAJORITY_AWAY, true);
    net.load(1, proposals(1, 50, 1 << 10), 1, 1_000);
    net.settle();
    net
}

#[test]
fn an_append_for_a_destroyed_neighbour_does_not_reach_the_one_that_comes_after_it() {
    let mut net = settled();
    let broadcast = late(&net);
    net.node(5).destroy(1);
    net.node(5).join(1, 205);
    let before = net.seen();
    net.send(1, 4, 1, &Frame::Broadcast(broadcast));
    net.run_for(40_000);
    assert_eq!(net.seen().handed_on, before.handed_on + 1, "the agent does not know");
    assert_eq!(net.nodes[&5].seen.misdirected, 1);
    assert_eq!(net.nodes[&5].region(1).last_index(), 0, "nothing came into the new one's log");
}

#[test]
fn a_broadcast_for_a_destroyed_agent_is_refused_by_the_one_that_comes_after_it() {
    let mut net = settled();
    let broadcast = late(&net);
    net.node(4).destroy(1);
    let before = net.seen();
    net.send(1, 4, 1, &Frame::Broadcast(broadcast.clone()));
    net.run_for(20_000);
    net.node(4).join(1, 204);
    net.send(1, 4, 1, &Frame::Broadcast(broadcast));
    net.run_for(20_000);
    assert_eq!(net.nodes[&4].seen.misdirected, 2);
    assert_eq!((net.seen().handed_on, net.seen().refused), (before.handed_on, before.refused));
    assert_eq!(EntryId::new(0, net.nodes[&4].region(1).last_index()), EntryId::default());
}

/// The region's id is another group's by mistake, or its log another one's: the terms say so.
#[test]
fn a_log_that_is_gone_fills_nothing_in() {
    let mut net = settled();
    let mut broadcast = late(&net);
    net.node(4).destroy(1);
    net.node(4).join(1, 204);
    broadcast.to = 204;
    let before = net.nodes[&4].seen;
    net.send(1, 4, 1, &Frame::Broadcast(broadcast));
    net.run_for(500_000);
    let after = net.nodes[&4].seen;
    assert_eq!((after.handed_on, after.refused), (before.handed_on, before.refused + 1));
}
