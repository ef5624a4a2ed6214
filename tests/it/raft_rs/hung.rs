//! A disk that hangs: who will not wait is told, and a leader gives its leadership away.

use super::stores::{Ours, REGION, logger, options};
use crate::support::openraft::Stalled;
use raft::eraftpb::{EntryType, Message};
use raft::prelude::ConfState;
use raft::{Config, RawNode, StateRole};
use raftwood::raft_rs::{ReadyBatch, ReadyWriter, RegionStorage, give_leadership_away};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Background, Durability, Engine, EntryId, ErrorKind, WriteBatch};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const BOUND: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(60);

fn of_one_entry(engine: &Engine, index: u64) -> WriteBatch {
    let mut batch = engine.batch();
    batch.region(REGION).append([(EntryId::new(1, index), &b"set x"[..])]).unwrap();
    batch
}

#[test]
fn a_batch_is_not_accepted_without_waiting_while_the_disk_hangs() {
    let disk = SimVfs::new(3);
    let store = Ours::open(disk.clone(), Background::Threads);
    store.engine.set_stall_after(BOUND);
    assert_eq!(store.engine.stall(), None);
    store.engine.write(of_one_entry(&store.engine, 1), Durability::Synced).unwrap();
    let hangs = Stalled::new(&disk);
    let mut ticket = store.engine.submit(of_one_entry(&store.engine, 2), Durability::Synced).unwrap();
    disk.wait_for_syncs(1);
    let late = ticket.wait_within(Duration::from_millis(1)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Stalled, "{late}");
    while store.engine.stall().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stall = store.engine.stall().unwrap();
    assert!(stall.elapsed >= BOUND && stall.operation == "syncing the log", "{stall}");

    let refused = store.engine.try_submit(of_one_entry(&store.engine, 3), Durability::Synced).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stalled, "{refused}");
    assert!(refused.error().is_retryable());
    let batch = refused.into_batch().unwrap();
    // Who will wait is not refused.
    let waits = store.engine.submit(batch, Durability::Synced).unwrap();
    drop(hangs);
    assert!(ticket.wait_within(LONG).unwrap() < waits.wait().unwrap());
    assert_eq!(store.engine.stall(), None);
    store.engine.try_submit(of_one_entry(&store.engine, 4), Durability::Synced).unwrap().wait().unwrap();
}

/// One of three replicas, each with a disk of its own.
struct Node {
    store: Ours,
    raft: RawNode<RegionStorage>,
    writer: ReadyWriter,
    persisted: Receiver<u64>,
    /// What may be sent once the `Ready` of that number is persisted.
    held: VecDeque<(u64, Vec<Message>)>,
    applied: Vec<Vec<u8>>,
}

const ELECTION: usize = 1000;

impl Node {
    fn new(id: u64) -> Node {
        let disk = SimVfs::new(id);
        // The log stays in one segment: where the next one has to be made, a submission waits for the disk.
        let on = options(&disk).background(Background::Threads).segment_bytes(4 << 20).stall_after(BOUND);
        let store = Ours { engine: on.open("/db").unwrap(), disk };
        let storage = RegionStorage::new(&store.engine, REGION);
        let applied = storage.bootstrap(&ConfState::from((vec![1, 2, 3], vec![]))).unwrap().index;
        let config = Config {
            id,
            applied,
            election_tick: ELECTION,
            heartbeat_tick: 2,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let (tell, persisted) = channel();
        let tell = Mutex::new(tell);
        let writer = ReadyWriter::new(&store.engine, move |outcome| {
            for ready in outcome.into_iter().flatten() {
                let _ = tell.lock().unwrap().send(ready.ready);
            }
        });
        let raft = RawNode::new(&config, storage, &logger()).unwrap();
        Node { store, raft, writer, persisted, held: VecDeque::new(), applied: Vec::new() }
    }

    /// Does what there is to do, and returns what is to be sent.
    fn step(&mut self) -> Vec<Message> {
        let mut out = Vec::new();
        while let Ok(number) = self.persisted.try_recv() {
            self.raft.on_persist_ready(number);
            while self.held.front().is_some_and(|(of, _)| *of <= number) {
                out.extend(self.held.pop_front().unwrap().1);
            }
        }
        while self.raft.has_ready() {
            let mut ready = self.raft.ready();
            out.extend(ready.take_messages());
            self.held.push_back((ready.number(), ready.take_persisted_messages()));
            for entry in ready.take_committed_entries() {
                if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                    self.applied.push(entry.data.to_vec());
                }
            }
            let mut batch = ReadyBatch::new(&self.store.engine);
            batch.add_as(REGION, self.raft.raft.id, &ready).unwrap();
            self.writer.submit(batch).unwrap();
            self.raft.advance_append_async(ready);
            self.raft.advance_apply();
        }
        out
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }
}

/// A tick of every clock, and what follows from it.
fn tick(nodes: &mut [Node]) {
    for node in nodes.iter_mut() {
        node.raft.tick();
    }
    let mut on_their_way: VecDeque<Message> = nodes.iter_mut().flat_map(Node::step).collect();
    while let Some(message) = on_their_way.pop_front() {
        let to = &mut nodes[message.to as usize - 1];
        let _ = to.raft.step(message);
        on_their_way.extend(to.step());
    }
    std::thread::sleep(Duration::from_millis(1));
}

/// Three nodes, of which the first leads, and then its disk hangs. For how many ticks nothing that is
/// proposed is applied where it was proposed; at most three elections.
fn without_writes(gives_away: bool) -> usize {
    let mut nodes: Vec<Node> = (1..=3).map(Node::new).collect();
    nodes[0].raft.campaign().unwrap();
    while !nodes[0].leads() {
        tick(&mut nodes);
    }
    nodes[0].raft.propose(vec![], b"before".to_vec()).unwrap();
    while nodes.iter().any(|n| n.applied.is_empty()) {
        tick(&mut nodes);
    }
    let _hangs = Stalled::new(&nodes[0].store.disk);
    let mut ticks = 0;
    loop {
        if let Some(leader) =
            nodes.iter_mut().find(|n| n.leads() && n.raft.raft.id != 1 || n.leads() && ticks == 0)
        {
            let _ = leader.raft.propose(vec![], ticks.to_string().into_bytes());
        }
        tick(&mut nodes);
        ticks += 1;
        let first = &mut nodes[0];
        if gives_away && first.store.engine.stall().is_some() && first.leads() {
            assert!(give_leadership_away(&mut first.raft).is_some());
        }
        let goes_on = nodes.iter().any(|n| n.leads() && n.applied.len() > 1);
        if goes_on || ticks > 3 * ELECTION {
            return ticks;
        }
    }
}

#[test]
fn with_one_hung_disk_of_three_writes_go_on_within_an_election_timeout() {
    let ticks = without_writes(true);
    assert!(ticks < ELECTION, "{ticks}");
    assert!(without_writes(false) > ELECTION, "it would have gone on anyway");
}

#[test]
fn who_does_not_lead_or_is_alone_gives_nothing_away() {
    let mut nodes: Vec<Node> = (1..=3).map(Node::new).collect();
    assert_eq!(give_leadership_away(&mut nodes[0].raft), None);
    let store = Ours::open(SimVfs::new(9), Background::Manual);
    let mut alone = super::stores::group(&store, 1);
    alone.campaign().unwrap();
    assert_eq!(give_leadership_away(&mut alone), None);
}

/// Who was not heard from may have hung as well, and a learner cannot lead: then nobody takes proposals for
/// an election timeout, however far the log of that one has come.
#[test]
fn leadership_goes_to_the_voter_that_has_come_furthest_of_those_that_were_heard_from() {
    // Three voters and a learner: how far each has come, and whether it was heard from.
    for (others, to) in [
        ([(2, 1, true), (3, 2, true), (4, 9, false), (5, 9, true)], 3),
        ([(2, 2, true), (3, 1, true), (4, 9, false), (5, 9, true)], 2),
        ([(2, 2, true), (3, 1, true), (4, 9, true), (5, 9, false)], 4),
        // Of none it is known that it lives, and one may.
        ([(2, 1, false), (3, 2, false), (4, 0, false), (5, 9, true)], 3),
    ] {
        let store = Ours::open(SimVfs::new(10), Background::Manual);
        let storage = RegionStorage::new(&store.engine, REGION);
        let applied = storage.bootstrap(&ConfState::from((vec![1, 2, 3, 4], vec![5]))).unwrap().index;
        let config = Config { id: 1, applied, ..Config::default() };
        let mut leader = RawNode::new(&config, storage, &logger()).unwrap();
        leader.raft.become_candidate();
        leader.raft.become_leader();
        for (id, matched, heard_from) in others {
            let progress = leader.raft.mut_prs().get_mut(id).unwrap();
            (progress.matched, progress.recent_active) = (matched, heard_from);
        }
        assert_eq!(give_leadership_away(&mut leader), Some(to), "{others:?}");
        // Meanwhile another one comes further: what is under way is left alone.
        for id in [2, 3, 4] {
            let progress = leader.raft.mut_prs().get_mut(id).unwrap();
            (progress.matched, progress.recent_active) = (if id == to { 0 } else { 9 }, true);
        }
        assert_eq!(give_leadership_away(&mut leader), Some(to), "{others:?}");
    }
}
