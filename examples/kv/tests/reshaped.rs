//! Splits and merges on three nodes, stopped between two of their steps, and what must not come of them: a
//! vote that is forgotten, a group that comes back, a log that goes too early, a read by a lease that another
//! leader knows nothing of.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/example.rs"]
mod example;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/say.rs"]
mod say;

use disk::{extent, hard_state, log, stands};
use example::example;
use nodes::{PATIENCE, TIMING, dump, is_equal, lead, stats, until};
use raft::prelude::MessageType;
use raftwood::raft_rs::BOOTSTRAP;
use raftwood_kv::clocks::Trust;
use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::lease::Timing;
use raftwood_kv::region::Standing;
use raftwood_kv::wire::{Client, Dump, Reply, Request, Via};
use say::{message, say};
use std::path::Path;
use std::time::{Duration, Instant};

const GROUPS: u64 = 2;
/// Leads both groups.
const LEADER: u64 = 1;
/// Comes to it later than the others.
const LATE: u64 = 3;
/// A lease that is longer than a new group takes to begin.
const SLOW: Timing = Timing { tick_ms: 30, election_ticks: 80, heartbeat_ticks: 4, lease_ms: 2300 };
/// What is split off the first group.
const CHILD: u64 = 9;

fn start(dir: &Path) -> Cluster {
    start_with(dir, TIMING)
}

fn start_with(dir: &Path, timing: Timing) -> Cluster {
    let cluster = Cluster::start(example("kv"), dir, GROUPS, timing, Trust::Both).unwrap();
    for group in 1..=GROUPS {
        lead(&cluster, LEADER, group);
        for key in 0..4 {
            write(&cluster, group, key, 10 * group + key);
        }
        until("equal replicas", || is_equal(&cluster, group));
    }
    cluster
}

/// Asks until a leader has done it.
fn write(cluster: &Cluster, group: u64, key: u64, value: u64) {
    until("a write", || {
        let request = Request::Write { group, key, value };
        (1..=NODES).any(|node| matches!(cluster.ask(node, &request, PATIENCE), Ok(Reply::Written { .. })))
    });
}

fn tell(cluster: &Cluster, node: u64, request: &Request) {
    cluster.ask(node, request, Duration::from_secs(5)).unwrap();
}

fn split(cluster: &Cluster) {
    let split = Request::Split { group: 1, at: 2, child: CHILD };
    let done = cluster.ask_leader(1, &split, PATIENCE);
    assert!(matches!(done, Some((_, Reply::Done))), "{done:?}");
}

fn freeze(cluster: &Cluster, group: u64) -> Dump {
    match cluster.ask_leader(group, &Request::Freeze { group }, PATIENCE) {
        Some((_, Reply::Frozen(state))) => state,
        other => panic!("{other:?}"),
    }
}

fn absorb(cluster: &Cluster, group: u64, source: u64, state: Dump) {
    let done = cluster.ask_leader(group, &Request::Absorb { group, source, state }, PATIENCE);
    assert!(matches!(done, Some((_, Reply::Done))), "{done:?}");
}

fn values(cluster: &Cluster, node: u64, group: u64) -> Vec<u64> {
    dump(cluster, node, group).writes.iter().map(|write| write.2).collect()
}

#[test]
fn a_vote_that_was_given_before_the_split_is_kept_by_a_split_that_is_done_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    std::thread::sleep(TIMING.vote_after());
    // This node learns of the new group by its candidate.
    tell(&cluster, LATE, &Request::Deafen { groups: vec![1] });
    split(&cluster);
    let vote = || hard_state(&log(&cluster, LATE), CHILD).map_or((0, 0), |state| (state.term, state.vote));
    until("a vote", || vote().1 != 0);
    let given = vote();
    assert_eq!(extent(&log(&cluster, LATE), CHILD).unwrap().base, None, "its log has begun");
    // The split comes: the log begins, and the state machine does not come to it.
    tell(&cluster, LATE, &Request::HoldApplies { hold: true });
    tell(&cluster, LATE, &Request::Deafen { groups: vec![] });
    let has_begun = |log| extent(&log, CHILD).is_some_and(|extent| extent.base.is_some());
    until("the beginning of the log", || has_begun(log(&cluster, LATE)));
    assert_eq!(vote(), given, "the first time");
    cluster.kill(LATE).unwrap();
    assert!(!stands(&cluster, LATE).contains_key(&CHILD));
    // A later term, in which it votes again, may not hide what the start makes of it.
    (1..LATE).for_each(|node| cluster.kill(node).unwrap());
    cluster.start_node(LATE).unwrap();
    let vote = || hard_state(&log(&cluster, LATE), CHILD).map_or((0, 0), |state| (state.term, state.vote));
    assert_eq!(vote(), given, "what has begun is taken back at the start");
    // The second time, with the entry of a leader that is there again.
    (1..LATE).for_each(|node| cluster.start_node(node).unwrap());
    for group in [1, CHILD] {
        until("equal replicas", || is_equal(&cluster, group));
    }
    let kept = hard_state(&log(&cluster, LATE), CHILD).unwrap();
    assert!((kept.term, kept.vote) == given || kept.term > given.0, "{kept:?}, and it had voted {given:?}");
    assert_eq!(values(&cluster, LATE, CHILD), [12, 13]);
    cluster.check().unwrap();
}

#[test]
fn a_new_group_does_not_run_before_the_state_machine_holds_its_split() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    // The leader: where it applies the split, its replica of the new group stands for election at once.
    lead(&cluster, LATE, 1);
    tell(&cluster, LATE, &Request::HoldApplies { hold: true });
    let mut client = Client::connect(cluster.addrs[LATE as usize - 1], PATIENCE).unwrap();
    client.send(&Request::Split { group: 1, at: 2, child: CHILD }).unwrap();
    let child = |log| extent(&log, CHILD);
    until("the beginning of the log", || child(log(&cluster, LATE)).is_some_and(|log| log.base.is_some()));
    // After a crash there would be no state to apply its entries to.
    std::thread::sleep(TIMING.election() * 2);
    assert!(child(log(&cluster, LATE)).unwrap().is_empty(), "its log goes on");
    cluster.kill(LATE).unwrap();
    assert!(!stands(&cluster, LATE).contains_key(&CHILD));
    let answer = client.receive();
    assert!(answer.is_err(), "not applied where it was asked for, and answered {answer:?}");
    cluster.start_node(LATE).unwrap();
    for (group, held) in [(1, [10, 11]), (CHILD, [12, 13])] {
        until("equal replicas", || is_equal(&cluster, group));
        assert_eq!(values(&cluster, LATE, group), held);
    }
    cluster.check().unwrap();
}

#[test]
fn a_replica_that_was_there_before_its_split_votes_for_nobody_for_an_election_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    std::thread::sleep(TIMING.vote_after());
    tell(&cluster, LATE, &Request::Deafen { groups: vec![1] });
    split(&cluster);
    until("a replica by message", || hard_state(&log(&cluster, LATE), CHILD).is_some_and(|s| s.vote != 0));
    tell(&cluster, LATE, &Request::HoldApplies { hold: true });
    tell(&cluster, LATE, &Request::Deafen { groups: vec![] });
    let has_begun = |log| extent(&log, CHILD).is_some_and(|extent| extent.base.is_some());
    until("the beginning of the log", || has_begun(log(&cluster, LATE)));
    // Its leader may have read by lease until now, for it was answered. From here on only the test talks.
    (1..LATE).for_each(|node| cluster.kill(node).unwrap());
    const TERM: u64 = 1000;
    let before = Instant::now();
    tell(&cluster, LATE, &Request::HoldApplies { hold: false });
    until("the new replica", || stats(&cluster, LATE).spans.iter().any(|(group, _)| *group == CHILD));
    until("a vote", || {
        say(&cluster, LATE, &[(CHILD, message(MessageType::MsgRequestVote, LEADER, LATE, TERM))]);
        hard_state(&log(&cluster, LATE), CHILD).is_some_and(|state| state.term == TERM)
    });
    assert!(before.elapsed() >= TIMING.vote_after(), "after {:?}", before.elapsed());
}

#[test]
fn a_message_that_comes_late_for_a_merged_group_makes_no_replica_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let state = freeze(&cluster, 2);
    absorb(&cluster, 1, 2, state);
    until("its end, everywhere", || (1..=NODES).all(|node| stats(&cluster, node).buried > 0));
    let kinds = [
        MessageType::MsgRequestVote,
        MessageType::MsgRequestPreVote,
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
        MessageType::MsgSnapshot,
    ];
    // The second time after a start.
    for unheard in [77, 78] {
        for node in 1..=NODES {
            let from = node % NODES + 1;
            let late = kinds.map(|kind| message(kind, from, node, 1000));
            // The last one makes a replica of a group that was never here: then all others have been taken.
            let last = message(MessageType::MsgHeartbeat, from, node, 1000);
            let late = late.into_iter().map(|said| (2, said)).chain([(unheard, last)]);
            say(&cluster, node, &late.collect::<Vec<_>>());
        }
        for node in 1..=NODES {
            let groups = || stats(&cluster, node).configurations.iter().map(|c| c.0).collect::<Vec<_>>();
            until("a replica by message", || groups().contains(&unheard));
            assert!(!groups().contains(&2), "a message brought it back on node {node}");
            assert!(extent(&log(&cluster, node), 2).is_none(), "node {node} has a log of it");
            let asked = cluster.ask(node, &Request::Freeze { group: 2 }, PATIENCE).unwrap();
            assert!(matches!(asked, Reply::Gone), "{asked:?}");
        }
        (1..=NODES).for_each(|node| cluster.kill(node).unwrap());
        (1..=NODES).for_each(|node| cluster.start_node(node).unwrap());
    }
    write(&cluster, 2, 0, 99);
    until("equal replicas", || is_equal(&cluster, 1));
    assert_eq!(values(&cluster, LATE, 1), [10, 11, 12, 13, 20, 99, 21, 22, 23]);
    cluster.check().unwrap();
}

#[test]
fn the_log_of_a_merged_group_goes_only_when_the_state_machine_holds_the_merge_durably() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let state = freeze(&cluster, 2);
    until("the freeze, everywhere", || is_equal(&cluster, 2));
    tell(&cluster, LATE, &Request::HoldApplies { hold: true });
    absorb(&cluster, 1, 2, state);
    // It is committed here too, and the source is parked.
    until("a merge that is committed", || stats(&cluster, LATE).spans.iter().all(|(group, _)| *group != 2));
    // What was written after that is in the log: so would be the end of the source's.
    write(&cluster, 1, 0, 60);
    let last = |node| extent(&log(&cluster, node), 1).unwrap().last;
    let written = last(LEADER);
    until("a later write", || last(LATE) >= written);
    let before = extent(&log(&cluster, LATE), 2).expect("its log went before the merge is applied");
    cluster.kill(LATE).unwrap();
    assert_ne!(stands(&cluster, LATE)[&2].span.standing, Standing::Gone, "it is applied");
    assert_eq!(extent(&log(&cluster, LATE), 2), Some(before), "its log went before the merge is durable");
    cluster.start_node(LATE).unwrap();
    until("its end", || stats(&cluster, LATE).buried > 0);
    until("equal replicas", || is_equal(&cluster, 1));
    assert_eq!(values(&cluster, LATE, 1), [10, 60, 11, 12, 13, 20, 21, 22, 23]);
    until("the end of its log", || extent(&log(&cluster, LATE), 2).is_none());
    cluster.check().unwrap();
}

/// The first answer to a read that may go by a lease: whether it did.
fn reads_by_lease(cluster: &Cluster, group: u64, key: u64) -> bool {
    let mut by = None;
    until("a read", || {
        by = (1..=NODES).filter(|node| cluster.is_up(*node)).find_map(|node| {
            let request = Request::Read { group, key, via: Via::Lease };
            match cluster.ask(node, &request, PATIENCE) {
                Ok(Reply::Value { by_lease, .. }) => Some(by_lease),
                _ => None,
            }
        });
        by.is_some()
    });
    by.unwrap()
}

/// A write renews the lease, and the next read goes by it.
fn has_lease(cluster: &Cluster, group: u64, key: u64) {
    until("a lease", || {
        write(cluster, group, key, 50);
        reads_by_lease(cluster, group, key)
    });
}

#[test]
fn the_first_read_after_a_split_a_merge_or_a_transfer_goes_by_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start_with(dir.path(), SLOW);
    has_lease(&cluster, 1, 0);
    split(&cluster);
    assert!(!reads_by_lease(&cluster, 1, 0), "of the group that was split");
    // Before its leader has committed anything, no read is answered at all.
    until("a new group that can be read", || {
        let (at, _) = leader(&cluster, CHILD);
        at != 0 && dump(&cluster, at, CHILD).applied > BOOTSTRAP.index
    });
    assert!(!reads_by_lease(&cluster, 1, 2), "a new group has its parent's");
    has_lease(&cluster, 1, 2);
    let state = freeze(&cluster, 2);
    has_lease(&cluster, 1, 2);
    absorb(&cluster, CHILD, 2, state);
    assert!(!reads_by_lease(&cluster, 2, 0), "of the group that took another over");
    has_lease(&cluster, 2, 0);
    // To a node that is not there: the leader leads on, and its term has no lease any more.
    cluster.kill(LATE).unwrap();
    until("a leader that leads on", || {
        has_lease(&cluster, 1, 0);
        let (leader, term) = leader(&cluster, 1);
        tell(&cluster, leader, &Request::Transfer { group: 1, to: LATE });
        let first = reads_by_lease(&cluster, 1, 0);
        std::thread::sleep(SLOW.election() + SLOW.tick() * 4);
        let later = (0..5).any(|value| {
            write(&cluster, 1, 0, value);
            reads_by_lease(&cluster, 1, 0)
        });
        // In another term there may be one.
        let is_over = self::leader(&cluster, 1) != (leader, term);
        assert!(is_over || !first && !later, "a lease after a transfer, in its term");
        !is_over
    });
}

/// Who leads, and in which term something was applied last.
fn leader(cluster: &Cluster, group: u64) -> (u64, u64) {
    let leads = |node: &u64| cluster.is_up(*node) && stats(cluster, *node).leads.contains(&group);
    let leader = (1..=NODES).find(leads).unwrap_or_default();
    (leader, if leader == 0 { 0 } else { dump(cluster, leader, group).term })
}
