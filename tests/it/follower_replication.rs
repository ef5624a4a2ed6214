//! Follower replication: the leader's entries cross into another zone once, and its followers
//! there have them all the same.

mod net;

use net::{GROUP, Net, Node};
use raft::prelude::{Entry, Message, MessageType};
use raftwood::raft_rs::{Delegated, FILL_BYTES_MAX, ReadyBatch, encode_entry};
use raftwood::{EntryId, ErrorKind, Result};
use std::sync::mpsc::channel;
use std::time::Duration;

/// So many proposals of `len` bytes, each another.
fn proposals(range: std::ops::Range<u64>, len: usize) -> Vec<Vec<u8>> {
    let one = |n: u64| (0..len).map(|at| (n as usize * 31 + at * 7) as u8).collect();
    range.map(one).collect()
}

fn bytes(of: &[Vec<u8>]) -> f64 {
    of.iter().map(Vec::len).sum::<usize>() as f64
}

/// Every node has the same log, and applied what was proposed, in that order.
fn agree(net: &mut Net, proposed: &[Vec<u8>]) {
    net.settle();
    let leader = &net.nodes[&1];
    let from = net.nodes.values().map(|n| n.region().first_index()).max().unwrap();
    let (last, digest) = (leader.region().last_index(), leader.region().checksum(from..).unwrap());
    for node in net.nodes.values() {
        assert_eq!(node.region().last_index(), last, "node {}", node.id);
        assert_eq!(node.region().checksum(from..).unwrap(), digest, "node {}", node.id);
        assert!(
            node.applied == proposed,
            "node {} applied {} of {}",
            node.id,
            node.applied.len(),
            proposed.len()
        );
    }
}

#[test]
fn entries_cross_into_a_zone_once_and_every_log_there_is_the_same() {
    let proposed = proposals(0..600, 6 << 10);
    let copies = [false, true].map(|delegate| {
        let mut net = Net::new(delegate);
        // Batches of several sizes, so that the messages are full and not.
        let mut rest = &proposed[..];
        for size in [1, 3, 17, 2, 40].into_iter().cycle() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            net.propose(now);
            net.round();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        agree(&mut net, &proposed);
        assert_eq!(net.filled > 0, delegate);
        assert_eq!(net.refused, 0, "the agent had every entry that it was asked for");
        net.crossed as f64 / bytes(&proposed)
    });
    println!("the leader sent {:.2} copies into the other zone, and {:.2} by an agent", copies[0], copies[1]);
    assert!(copies[0] > 2.8 && copies[1] < 1.2, "{copies:?}");
}

#[test]
fn an_agent_that_dies_gives_way_to_another_and_catches_up_when_it_is_back() {
    let proposed = proposals(0..300, 4 << 10);
    let mut net = Net::new(true);
    net.propose(&proposed[..100]);
    for _ in 0..3 {
        net.round();
    }
    // While messages are on their way to it, and while it holds some.
    let agent = net.agent(3).unwrap();
    net.power_cut(agent);
    net.propose(&proposed[100..200]);
    net.settle();
    for (id, node) in net.nodes.iter().filter(|(id, _)| **id != agent) {
        assert_eq!(node.applied, proposed[..200], "node {id}");
    }
    assert_ne!(net.agent(3).unwrap(), agent);
    net.restart(agent);
    net.propose(&proposed[200..]);
    agree(&mut net, &proposed);
    let copies = net.crossed as f64 / bytes(&proposed);
    println!("with an agent that died and came back: {copies:.2} copies");
    assert!(copies < 1.6, "{copies}");
}

#[test]
fn what_the_agent_no_longer_has_comes_from_the_leader() {
    let proposed = proposals(0..200, 2 << 10);
    let mut net = Net::new(true);
    net.power_cut(5);
    net.propose(&proposed[..150]);
    net.settle();
    // The agent drops what it has applied; the leader still has it.
    let agent = net.agent(5).unwrap();
    let node = net.nodes.get_mut(&agent).unwrap();
    let last = node.region().last_index();
    let mut batch = ReadyBatch::new(node.engine());
    batch.region(GROUP).compact_through(last).unwrap();
    batch.write(node.engine()).unwrap();
    net.restart(5);
    net.propose(&proposed[150..]);
    net.settle();
    assert!(net.refused > 0, "the agent was asked for what it has not");
    agree(&mut net, &proposed);
}

/// A node with entries 1 to 10 of term 1 in its log, and 11 to 20 of term 2.
fn with_log() -> Node {
    let mut node = Node::new(3);
    let mut batch = ReadyBatch::new(node.engine());
    batch.destroy(GROUP, 3);
    batch.write(node.engine()).unwrap();
    write(&mut node, (1..=20).map(|i| entry(i, 1 + u64::from(i > 10))));
    node
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: vec![index as u8; 100].into(), ..Entry::default() }
}

fn write(node: &mut Node, entries: impl Iterator<Item = Entry>) {
    let mut batch = ReadyBatch::new(node.engine());
    for e in entries {
        batch.region(GROUP).append_with(EntryId::new(e.term, e.index), |out| encode_entry(&e, out)).unwrap();
    }
    batch.require_sync();
    batch.write(node.engine()).unwrap();
}

fn message(before: EntryId, entries: Vec<Entry>) -> Message {
    let (index, log_term) = (before.index, before.term);
    let mut message = Message { index, log_term, from: 1, to: 4, term: 2, commit: 7, ..Message::default() };
    message.set_msg_type(MessageType::MsgAppend);
    message.set_entries(entries.into());
    message
}

fn fill(node: &Node, delegated: Delegated) -> Result<Message> {
    let (tell, told) = channel();
    delegated.fill(node.storage(), move |filled| tell.send(filled).unwrap());
    told.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn a_delegated_message_becomes_what_it_was() {
    let node = with_log();
    for (before, last) in [(0, 1), (0, 20), (9, 10), (10, 11), (5, 15), (19, 20)] {
        let term = |i: u64| [0, 1, 2][usize::from(i > 0) + usize::from(i > 10)];
        let entries = (before + 1..=last).map(|i| entry(i, term(i))).collect();
        let whole = message(EntryId::new(term(before), before), entries);
        let delegated = Delegated::new(whole.clone()).unwrap();
        assert!(delegated.message.entries.is_empty());
        assert_eq!(fill(&node, delegated).unwrap(), whole);
    }
}

#[test]
fn only_appends_with_entries_are_delegated() {
    let empty = message(EntryId::new(1, 5), vec![]);
    assert_eq!(Delegated::new(empty.clone()), Err(empty));
    let mut heartbeat = message(EntryId::new(1, 5), vec![entry(6, 1)]);
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    assert_eq!(Delegated::new(heartbeat.clone()), Err(heartbeat));
}

#[test]
fn an_agent_whose_log_is_not_the_leaders_fills_nothing_in() {
    let node = with_log();
    let refused = |before: EntryId, last: EntryId| {
        let mut delegated = Delegated::new(message(EntryId::new(0, 0), vec![entry(1, 1)])).unwrap();
        (delegated.message.index, delegated.message.log_term) = (before.index, before.term);
        delegated.last = last;
        fill(&node, delegated).unwrap_err().kind()
    };
    // Another leader's entries: at the end, and at the edge before the first.
    assert_eq!(refused(EntryId::new(1, 10), EntryId::new(3, 15)), ErrorKind::Unavailable);
    assert_eq!(refused(EntryId::new(1, 10), EntryId::new(1, 15)), ErrorKind::Unavailable);
    assert_eq!(refused(EntryId::new(1, 12), EntryId::new(2, 15)), ErrorKind::Unavailable);
    // Not there yet.
    assert_eq!(refused(EntryId::new(2, 18), EntryId::new(2, 21)), ErrorKind::Unavailable);
    // Nonsense off the wire.
    assert_eq!(refused(EntryId::new(2, 18), EntryId::new(2, 18)), ErrorKind::InvalidArgument);
    assert_eq!(refused(EntryId::new(2, u64::MAX), EntryId::new(2, 3)), ErrorKind::InvalidArgument);
}

#[test]
fn more_than_a_message_should_carry_is_not_filled_in() {
    // The wire says where it ends, and that may be anywhere in the log.
    let mut node = with_log();
    let (large, at_most) = (24 << 20, FILL_BYTES_MAX as usize / (24 << 20));
    for index in 21..=24 {
        write(
            &mut node,
            [Entry { index, term: 2, data: vec![7; large].into(), ..Entry::default() }].into_iter(),
        );
    }
    let to = |last| {
        let mut delegated = Delegated::new(message(EntryId::new(2, 20), vec![entry(21, 2)])).unwrap();
        delegated.last = EntryId::new(2, last);
        fill(&node, delegated)
    };
    assert_eq!(to(20 + at_most as u64).unwrap().entries.len(), at_most);
    assert_eq!(to(24).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn entries_that_are_overwritten_while_they_are_read_are_not_sent_on() {
    let mut node = with_log();
    let delegated = Delegated::new(message(EntryId::new(1, 10), vec![entry(11, 2), entry(12, 2)])).unwrap();
    // Both threads that read are busy until the log is another.
    let gates: Vec<_> = (0..2)
        .map(|_| {
            let (open, gate) = channel::<()>();
            node.engine().fetch(GROUP, 1..2, raftwood::ReadLimit::NONE, move |_| _ = gate.recv());
            open
        })
        .collect();
    let (tell, told) = channel();
    delegated.fill(node.storage(), move |filled| tell.send(filled).unwrap());
    write(&mut node, (11..=20).map(|i| entry(i, 3)));
    drop(gates);
    let filled = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(filled.unwrap_err().kind(), ErrorKind::Unavailable);
}
