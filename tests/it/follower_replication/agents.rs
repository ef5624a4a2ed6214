//! What an agent is sent, by a leader and by others.

use super::delegated::{GROUP, Log, entry, message, with_log, write};
use raft::prelude::{Entry, Message, MessageType};
use raftwood::raft_rs::{
    Agent, Broadcast, Delegated, FILLS_MAX, HandedOn, NEIGHBOURS_MAX, Neighbour, Refusal, WAIT_TICKS,
    WAITING_MAX,
};
use raftwood::{EntryId, ErrorKind, ReadLimit};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const SELF: u64 = 3;

fn agent(log: &Log) -> (Agent, Receiver<()>) {
    let (tell, told) = channel();
    let agent = Agent::new(&log.storage(), SELF, move |region| {
        assert_eq!(region, GROUP);
        let _ = tell.send(());
    });
    (agent, told)
}

fn term(index: u64) -> u64 {
    [0, 1, 2][usize::from(index > 0) + usize::from(index > 10)]
}

/// For `to`: entries of the log after `before`, up to `last`.
fn neighbour(to: u64, before: u64, last: u64) -> Neighbour {
    let whole = message(EntryId::new(term(before), before), vec![entry(last, term(last))]);
    let append = Delegated::new(Message { to, ..whole }).unwrap();
    Neighbour { store: to + 1000, append }
}

fn broadcast(neighbours: Vec<Neighbour>) -> Broadcast {
    Broadcast { to: SELF, append: None, neighbours }
}

/// All that comes of it, until nothing is read any more.
fn all(agent: &mut Agent, told: &Receiver<()>) -> Vec<HandedOn> {
    let mut out = agent.poll();
    while told.recv_timeout(Duration::from_millis(50)).is_ok() {
        out.extend(agent.poll());
    }
    out
}

/// To whom, the index before, and how many; a refusal has none.
fn brief(out: &[HandedOn]) -> Vec<(u64, u64, usize)> {
    let one = |handed_on: &HandedOn| match handed_on {
        HandedOn::Append { store, message } => {
            assert_eq!(*store, message.to + 1000);
            (message.to, message.index, message.entries.len())
        }
        HandedOn::Refused(refusal) => (refusal.neighbour, 0, 0),
    };
    out.iter().map(one).collect()
}

#[test]
fn each_neighbour_gets_its_entries_in_the_leaders_order() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    let neighbours = (0..10).flat_map(|n| [neighbour(4, 2 * n, 2 * n + 2), neighbour(5, n, n + 1)]).collect();
    assert_eq!(agent.receive(broadcast(neighbours)).unwrap(), None);
    let out = all(&mut agent, &told);
    assert!(agent.is_idle());
    let of = |to: u64| brief(&out).into_iter().filter(|brief| brief.0 == to).collect::<Vec<_>>();
    assert_eq!(of(4), (0..10).map(|n| (4, 2 * n, 2)).collect::<Vec<_>>());
    assert_eq!(of(5), (0..10).map(|n| (5, n, 1)).collect::<Vec<_>>());
}

#[test]
fn a_large_append_is_not_overtaken_by_a_small_one_that_is_read_sooner() {
    let log = with_log();
    let large = Entry { data: vec![7; 24 << 20].into(), ..entry(21, 2) };
    write(&log, [large, entry(22, 2)].into_iter());
    let (mut agent, told) = agent(&log);
    agent.receive(broadcast(vec![neighbour(4, 20, 21), neighbour(4, 21, 22)])).unwrap();
    let mut out = agent.poll();
    while !agent.is_idle() {
        told.recv_timeout(Duration::from_secs(30)).unwrap();
        out.extend(agent.poll());
    }
    assert_eq!(brief(&out), [(4, 20, 1), (4, 21, 1)]);
}

#[test]
fn what_is_for_the_agent_itself_comes_back_to_be_stepped() {
    let log = with_log();
    let (mut agent, _) = agent(&log);
    let own = Message { to: SELF, ..message(EntryId::new(2, 20), vec![entry(21, 2)]) };
    let broadcast = Broadcast { append: Some(own.clone()), ..broadcast(vec![neighbour(4, 19, 20)]) };
    assert_eq!(agent.receive(broadcast).unwrap(), Some(own));
}

#[test]
fn entries_that_are_not_there_yet_are_waited_for() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    let ahead = neighbour(4, 18, 22);
    agent.receive(broadcast(vec![ahead, neighbour(4, 22, 23), neighbour(5, 3, 9)])).unwrap();
    assert_eq!(brief(&all(&mut agent, &told)), [(5, 3, 6)], "another neighbour does not wait for it");
    agent.tick();
    write(&log, (21..=22).map(|i| entry(i, 2)));
    assert_eq!(brief(&all(&mut agent, &told)), [(4, 18, 4)]);
    write(&log, std::iter::once(entry(23, 2)));
    assert_eq!(brief(&all(&mut agent, &told)), [(4, 22, 1)]);
}

#[test]
fn entries_that_do_not_come_are_refused_once_for_each_neighbour() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    // Another leader's, beyond the end, at the end of numbers.
    let mut other = neighbour(6, 10, 15);
    other.append.last.term = 3;
    let beyond = [neighbour(4, 18, 22), neighbour(4, 22, 23), neighbour(5, u64::MAX - 1, u64::MAX)];
    agent.receive(broadcast([&beyond[..], &[other]].concat())).unwrap();
    for _ in 0..WAIT_TICKS {
        assert_eq!(all(&mut agent, &told), []);
        agent.tick();
    }
    let refused = |neighbour| HandedOn::Refused(Refusal { from: SELF, to: 1, term: 2, neighbour });
    assert_eq!(all(&mut agent, &told), [4, 5, 6].map(refused));
    assert!(agent.is_idle());
}

#[test]
fn what_is_compacted_is_refused_at_once() {
    let log = with_log();
    let mut batch = log.engine.batch();
    batch.region(GROUP).compact_through(12).unwrap();
    log.engine.write(batch, raftwood::Durability::Written).unwrap();
    let (mut agent, told) = agent(&log);
    agent.receive(broadcast(vec![neighbour(4, 5, 15), neighbour(5, 12, 15)])).unwrap();
    assert_eq!(brief(&all(&mut agent, &told)), [(4, 0, 0), (5, 12, 3)]);
}

#[test]
fn a_broadcast_that_no_leader_makes_is_an_error_and_nothing_is_held_of_it() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    let mut check = |broadcast: Broadcast, says: &str| {
        let error = agent.receive(broadcast).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().contains("region 9"), "{error}");
        assert!(agent.is_idle());
        error.kind()
    };
    let invalid = ErrorKind::InvalidArgument;
    let with = |change: &dyn Fn(&mut Message)| {
        let mut changed = neighbour(4, 5, 9);
        change(&mut changed.append.message);
        broadcast(vec![neighbour(5, 5, 9), changed])
    };
    assert_eq!(check(broadcast(vec![]), "no neighbours"), invalid);
    assert_eq!(check(with(&|m| m.to = SELF), "no neighbour, but the agent"), invalid);
    assert_eq!(check(with(&|m| m.to = 1), "no neighbour, but the agent or the leader"), invalid);
    assert_eq!(check(with(&|m| m.index = 9), "no entries to fill in"), invalid);
    assert_eq!(check(with(&|m| m.index = u64::MAX), "no entries to fill in"), invalid);
    assert_eq!(check(with(&|m| m.term = 3), "another leader or term"), invalid);
    assert_eq!(check(with(&|m| m.from = 7), "another leader or term"), invalid);
    assert_eq!(check(with(&|m| m.set_msg_type(MessageType::MsgHeartbeat)), "is no append"), invalid);
    assert_eq!(check(with(&|m| m.set_entries(vec![entry(6, 1)].into())), "has entries"), invalid);
    let twice = vec![neighbour(4, 5, 9), neighbour(5, 5, 9), neighbour(4, 5, 9)];
    assert_eq!(check(broadcast(twice), "overlaps"), invalid);
    assert_eq!(check(broadcast(vec![neighbour(4, 5, 9), neighbour(4, 8, 12)]), "overlaps"), invalid);
    let many = (0..=NEIGHBOURS_MAX as u64).map(|n| neighbour(10 + n, 5, 9)).collect();
    assert_eq!(check(broadcast(many), "NEIGHBOURS_MAX"), ErrorKind::TooLarge);
    let own = |own: Message| Broadcast { append: Some(own), ..broadcast(vec![neighbour(4, 5, 9)]) };
    let mut vote = message(EntryId::new(2, 20), vec![]);
    vote.to = SELF;
    assert_eq!(check(own(Message { to: 8, ..vote.clone() }), "for another peer"), invalid);
    vote.set_msg_type(MessageType::MsgRequestVote);
    assert_eq!(check(own(vote), "its own message is a MsgRequestVote"), invalid);
    let other = Broadcast { to: 8, ..broadcast(vec![neighbour(4, 5, 9)]) };
    assert_eq!(check(other, "is for peer 8, and this store holds peer 3"), invalid);
    assert_eq!(all(&mut agent, &told), []);
}

/// Keeps both threads that read busy, until it is dropped.
fn busy(log: &Log) -> Vec<Sender<()>> {
    let gated = |_| {
        let (open, gate) = channel::<()>();
        log.engine.fetch(GROUP, 1..2, ReadLimit::NONE, move |_| _ = gate.recv());
        open
    };
    (0..2).map(gated).collect()
}

#[test]
fn what_is_held_is_bounded_in_number_and_in_reads() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    let gates = busy(&log);
    let mut sent = 0;
    while sent < WAITING_MAX + NEIGHBOURS_MAX {
        let neighbours = (0..NEIGHBOURS_MAX).map(|n| neighbour(10 + (sent + n) as u64, 0, 20)).collect();
        agent.receive(broadcast(neighbours)).unwrap();
        sent += NEIGHBOURS_MAX;
    }
    let refused = agent.poll();
    assert_eq!(refused.len(), NEIGHBOURS_MAX, "what is too much");
    assert!(refused.iter().all(|handed_on| matches!(handed_on, HandedOn::Refused(_))));
    drop(gates);
    // Each time as many as may be read.
    let mut filled = 0;
    while filled < WAITING_MAX {
        told.recv_timeout(Duration::from_secs(30)).unwrap();
        let now = agent.poll();
        assert!(now.len() <= FILLS_MAX, "{}", now.len());
        filled += now.len();
    }
    assert!(agent.is_idle());
}

#[test]
fn entries_that_are_overwritten_while_they_are_read_are_refused() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    let gates = busy(&log);
    agent.receive(broadcast(vec![neighbour(4, 10, 12)])).unwrap();
    assert_eq!(agent.poll(), []);
    write(&log, (11..=20).map(|i| entry(i, 3)));
    drop(gates);
    assert_eq!(brief(&all(&mut agent, &told)), [(4, 0, 0)]);
}

#[test]
fn an_agent_that_is_dropped_sends_nothing() {
    let log = with_log();
    let (mut agent, told) = agent(&log);
    let gates = busy(&log);
    agent.receive(broadcast(vec![neighbour(4, 10, 12)])).unwrap();
    assert_eq!(agent.poll(), []);
    drop(agent);
    drop(gates);
    assert!(told.recv_timeout(Duration::from_secs(30)).is_err(), "no notice, and nobody to give one");
}
