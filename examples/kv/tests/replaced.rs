//! A node that has lost the votes of its replicas while it was down: none runs under its old id again, and
//! others come in their places.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "support/example.rs"]
mod example;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/say.rs"]
mod say;

use example::example;
use nodes::{TIMING, dump, stats, until};
use raft::prelude::{HardState, MessageType};
use raftwood::raft_rs::{RegionStorage, decode_conf_state, encode_hard_state};
use raftwood::{Durability, Engine, RegionId};
use raftwood_kv::clocks::Trust;
use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::load::Rng;
use raftwood_kv::peers::{nodes_of, peer_of};
use raftwood_kv::rot::lose_votes;
use raftwood_kv::wire::{Reply, Request, Said, read_frame};
use say::message;
use std::collections::BTreeSet;
use std::io::BufReader;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const GROUPS: u64 = 3;
const VICTIM: u64 = 3;

fn start(dir: &Path) -> Cluster {
    Cluster::start(example("kv"), dir, GROUPS, TIMING, Trust::Both).unwrap()
}

/// Writes the value, and comes back when it is acknowledged.
fn write(cluster: &Cluster, group: u64, value: u64) {
    let mut node = 1;
    until("a write", || {
        let request = Request::Write { group, key: value % 4, value };
        match cluster.ask(node, &request, Duration::from_secs(2)) {
            Ok(Reply::Written { .. }) => return true,
            Ok(Reply::NotLeader { leader }) if leader != 0 => node = leader,
            _ => node = node % NODES + 1,
        }
        false
    });
}

/// Writes to each group, and returns what was acknowledged.
fn write_some(cluster: &Cluster, round: u64) -> Vec<u64> {
    let values: Vec<u64> = (0..20).map(|n| 1 + round * 100 + n).collect();
    values.iter().for_each(|value| write(cluster, 1 + value % GROUPS, *value));
    values
}

/// The peers of a group, as this node's state machine has them: voters, and whether that is all.
fn voters(cluster: &Cluster, node: u64, group: u64) -> (Vec<u64>, bool) {
    let dump = dump(cluster, node, group);
    let Ok((_, mut state)) = decode_conf_state(&dump.conf_state) else { return (vec![], false) };
    state.voters.sort_unstable();
    let is_all = state.learners.is_empty() && state.voters_outgoing.is_empty();
    (state.voters, is_all)
}

/// Until all nodes have the same of each group, under these peer ids, and every write that was acknowledged.
fn equal(cluster: &Cluster, groups: &[u64], peers: &[u64], written: &[u64]) {
    for &group in groups {
        until("the peers", || (1..=NODES).all(|node| voters(cluster, node, group) == (peers.to_vec(), true)));
    }
    let written: BTreeSet<u64> = written.iter().copied().collect();
    until("equal replicas, with all that was acknowledged", || {
        let of = |node| groups.iter().map(move |group| dump(cluster, node, *group)).collect::<Vec<_>>();
        let first = of(1);
        let held: BTreeSet<u64> = first.iter().flat_map(|d| d.writes.iter().map(|w| w.2)).collect();
        held == written && (2..=NODES).all(|node| of(node) == first)
    });
}

/// A hard state of one group is replaced by one that is older than its log: an older vote came back.
fn forget_a_vote(log: &Path, group: u64) {
    let engine = Engine::open(log).unwrap();
    let storage = RegionStorage::new(&engine, RegionId(group));
    let known = storage.hard_state().unwrap();
    assert!(known.term > 5, "nobody was ever elected: {known:?}");
    let older = HardState { term: 1, vote: VICTIM, commit: known.commit, ..HardState::default() };
    let mut batch = engine.batch();
    batch.region(RegionId(group)).set_hard_state(&encode_hard_state(&older)).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
}

/// The ways to lose a vote.
type Loss = fn(&Path);

const LOSSES: [Loss; 2] = [
    |log| {
        let harm = lose_votes(log, &mut Rng(1)).unwrap();
        assert!(harm.groups > 0);
    },
    |log| forget_a_vote(log, 2),
];

#[test]
fn a_replica_that_lost_its_vote_comes_back_under_a_new_id_and_nothing_is_lost() {
    for lose in LOSSES {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = start(dir.path());
        let mut written = write_some(&cluster, 0);
        let groups: Vec<u64> = (1..=GROUPS).collect();
        equal(&cluster, &groups, &[1, 2, VICTIM], &written);
        // Twice: the second time its peers are those that came in the places of the first.
        for incarnation in 1..=2 {
            let new = peer_of(VICTIM, incarnation);
            (1..=NODES).for_each(|node| cluster.kill(node).unwrap());
            lose(&cluster.dir_of(VICTIM).join("log"));
            // Alone, it has nothing, and is nobody.
            cluster.start_node(VICTIM).unwrap();
            std::thread::sleep(TIMING.election() * 3);
            let alone = stats(&cluster, VICTIM);
            assert_eq!((alone.peer, alone.leads, alone.lost, alone.fenced), (new, vec![], vec![], vec![]));
            assert!(alone.configurations.is_empty() && alone.spans.is_empty());
            // With one other there is no majority: the one that lost its vote has none.
            cluster.start_node(1).unwrap();
            until("messages to those that are no more", || stats(&cluster, VICTIM).late > 0);
            std::thread::sleep(TIMING.election() * 4);
            assert!(stats(&cluster, 1).leads.is_empty(), "a vote under an id that is no more");
            assert!(stats(&cluster, VICTIM).configurations.is_empty());
            // With two there is, and they let the new ones in.
            cluster.start_node(2).unwrap();
            written.extend(write_some(&cluster, incarnation));
            equal(&cluster, &groups, &[1, 2, new], &written);
            let replaced: u64 = (1..=NODES).map(|node| stats(&cluster, node).replaced).sum();
            assert!(replaced > 0);
            // They are replicas like any other: with them, and without node 1, writes go on.
            cluster.kill(1).unwrap();
            written.extend(write_some(&cluster, 10 + incarnation));
            cluster.start_node(1).unwrap();
            equal(&cluster, &groups, &[1, 2, new], &written);
        }
        // No more changes: the number stands, and a restart does not raise it.
        cluster.kill(VICTIM).unwrap();
        cluster.start_node(VICTIM).unwrap();
        assert_eq!(stats(&cluster, VICTIM).peer, peer_of(VICTIM, 2));
        equal(&cluster, &groups, &[1, 2, peer_of(VICTIM, 2)], &written);
        cluster.check().unwrap();
    }
}

#[test]
fn a_group_that_was_split_while_its_store_was_lost_exchanges_its_peer_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let mut written = write_some(&cluster, 0);
    cluster.kill(VICTIM).unwrap();
    assert!(lose_votes(&cluster.dir_of(VICTIM).join("log"), &mut Rng(2)).unwrap().groups > 0);
    // While it is away a group is split, and another is merged: the store has no trace of either.
    let patience = Duration::from_secs(30);
    let done = |group, request| cluster.ask_leader(group, &request, patience).unwrap().1;
    assert!(matches!(done(1, Request::Split { group: 1, at: 2, child: 9 }), Reply::Done));
    let Reply::Frozen(state) = done(3, Request::Freeze { group: 3 }) else { panic!("not frozen") };
    assert!(matches!(done(2, Request::Absorb { group: 2, source: 3, state }), Reply::Done));
    cluster.start_node(VICTIM).unwrap();
    // The child's configuration has the old peer, of which that store knows nothing at all.
    until("three groups", || stats(&cluster, VICTIM).spans.len() == 3);
    // And again, with peers that are exchanged.
    let split = |group, at, child| {
        until("another split", || {
            let split = Request::Split { group, at, child };
            matches!(cluster.ask_leader(group, &split, patience), Some((_, Reply::Done)))
        });
    };
    split(9, 3, 10);
    let groups = [1, 2, 9, 10];
    until("four groups", || (1..=NODES).all(|node| stats(&cluster, node).spans.len() == 4));
    written.extend(write_some(&cluster, 1));
    equal(&cluster, &groups, &[1, 2, peer_of(VICTIM, 1)], &written);
    for node in 1..=NODES {
        for (group, voters, learners) in stats(&cluster, node).configurations {
            assert_eq!((nodes_of(&voters), learners), (vec![1, 2, 3], vec![]), "group {group}");
        }
    }
    cluster.check().unwrap();
}

/// What comes to an address, as if a node were there.
fn overhear(cluster: &Cluster, node: u64) -> Receiver<(u64, Said)> {
    let listener = TcpListener::bind(cluster.addrs[node as usize - 1]).unwrap();
    let (send, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let send = send.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let _ = std::io::Read::read_exact(&mut reader, &mut [0]);
                while let Ok(frame) = read_frame(&mut reader) {
                    let _ = send.send(frame);
                }
            });
        }
    });
    heard
}

/// About one group.
fn say(cluster: &Cluster, node: u64, group: u64, said: impl IntoIterator<Item = Said>) {
    say::say(cluster, node, &said.into_iter().map(|said| (group, said)).collect::<Vec<_>>());
}

const TERM: u64 = 1000;

#[test]
fn what_comes_late_for_an_old_id_gets_no_answer_and_makes_no_replica() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    write_some(&cluster, 0);
    (1..=NODES).for_each(|node| cluster.kill(node).unwrap());
    lose_votes(&cluster.dir_of(VICTIM).join("log"), &mut Rng(3)).unwrap();
    cluster.start_node(VICTIM).unwrap();
    let heard = overhear(&cluster, 1);
    let (old, new) = (VICTIM, peer_of(VICTIM, 1));
    std::thread::sleep(TIMING.vote_after());
    // A group that it had, and one that it may have had.
    let groups = [1, 77];
    let kinds = [
        MessageType::MsgRequestVote,
        MessageType::MsgRequestPreVote,
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
        MessageType::MsgSnapshot,
    ];
    for group in groups {
        say(&cluster, VICTIM, group, kinds.map(|kind| message(kind, 1, old, TERM)));
        for _ in kinds {
            let (of, said) = heard.recv_timeout(Duration::from_secs(10)).unwrap();
            let Said::Replaced { old: was, new: is } = said else { panic!("an answer of group {of}") };
            assert_eq!((of, was, is), (group, old, new));
        }
    }
    // One that was not given out yet is nobody's either.
    say(&cluster, VICTIM, 1, [message(MessageType::MsgRequestVote, 1, peer_of(VICTIM, 2), TERM)]);
    say(&cluster, VICTIM, 1, [message(MessageType::MsgRequestVote, 1, 2, TERM)]);
    assert!(heard.recv_timeout(TIMING.election()).is_err());
    let after = stats(&cluster, VICTIM);
    assert!(after.configurations.is_empty() && after.late == 10, "{after:?}");
    // The same question to the one that is there is answered: the ear works.
    say(&cluster, VICTIM, 1, [message(MessageType::MsgRequestVote, 1, new, TERM)]);
    let (_, said) = heard.recv_timeout(Duration::from_secs(10)).unwrap();
    let Said::Raft(vote) = said else { panic!("no vote") };
    assert_eq!((vote.get_msg_type(), vote.reject), (MessageType::MsgRequestVoteResponse, false));
    assert_eq!((vote.from, vote.term), (new, TERM));
}

#[test]
fn a_peer_whose_place_was_taken_has_no_say_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let written = write_some(&cluster, 0);
    cluster.kill(VICTIM).unwrap();
    lose_votes(&cluster.dir_of(VICTIM).join("log"), &mut Rng(4)).unwrap();
    cluster.start_node(VICTIM).unwrap();
    let groups: Vec<u64> = (1..=GROUPS).collect();
    equal(&cluster, &groups, &[1, 2, peer_of(VICTIM, 1)], &written);
    // Once more, while the others go on, which have made a snapshot for the one that is gone by now.
    cluster.kill(VICTIM).unwrap();
    lose_votes(&cluster.dir_of(VICTIM).join("log"), &mut Rng(5)).unwrap();
    cluster.start_node(VICTIM).unwrap();
    let now = peer_of(VICTIM, 2);
    equal(&cluster, &groups, &[1, 2, now], &written);
    for node in 1..VICTIM {
        let kinds = [MessageType::MsgRequestVote, MessageType::MsgAppend, MessageType::MsgHeartbeat];
        for old in [VICTIM, peer_of(VICTIM, 1)] {
            say(&cluster, node, 1, kinds.map(|kind| message(kind, old, node, TERM)));
        }
        // One id for another that is older, or another node's, is no exchange.
        say(
            &cluster,
            node,
            1,
            [
                Said::Replaced { old: now, new: VICTIM },
                Said::Replaced { old: now, new: peer_of(2, 3) },
                Said::Replaced { old: VICTIM, new: peer_of(VICTIM, 3) },
            ],
        );
    }
    std::thread::sleep(TIMING.election() * 2);
    let value = 500;
    write(&cluster, 1, value);
    assert!(dump(&cluster, 1, 1).term < TERM);
    assert_eq!(voters(&cluster, 1, 1), (vec![1, 2, now], true));
}
