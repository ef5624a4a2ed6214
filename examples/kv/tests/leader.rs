//! A group's leader between the proposal of what may bring about another leader (a split, a merge, a
//! transfer) and its end: it reads by no lease, and nothing renews one. The code of `kv`, without its loop:
//! nothing is committed but by the test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use raft::prelude::ConfState;
use raftwood::raft_rs::{BOOTSTRAP, ReadyBatch, Tombstones, Zones, encode_conf_state};
use raftwood::{Engine, RegionId};
use raftwood_kv::clocks::{Moment, Trust};
use raftwood_kv::group::Group;
use raftwood_kv::lease::Timing;
use raftwood_kv::machine::{Snapshots, Stand};
use raftwood_kv::node::Args;
use raftwood_kv::nursery::{Nursery, TOMBSTONES, begin_child};
use raftwood_kv::region::Span;
use raftwood_kv::wire::{Dump, Reply, Request, Via};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

const GROUP: u64 = 1;
const ME: u64 = 1;
const OTHER: u64 = 2;
/// Nothing here waits for it, and no lease is over before the test is.
const TIMING: Timing = Timing { tick_ms: 1000, election_ticks: 600, heartbeat_ticks: 4, lease_ms: 590_000 };

struct Leader {
    nursery: Nursery,
    group: Group,
    asked: u64,
}

impl Leader {
    /// The only voter of its group, with a learner.
    fn new(dir: &Path) -> Leader {
        let engine = Engine::open(dir).unwrap();
        let (inputs, tasks) = (channel().0, channel().0);
        let args = Args {
            id: ME,
            dir: dir.to_path_buf(),
            nodes: Vec::new(),
            groups: 1,
            keep: 40,
            timing: TIMING,
            zones: Vec::new(),
            payload: 0,
            trust: Trust::Both,
        };
        let mut nursery = Nursery {
            args,
            me: ME,
            tombstones: Tombstones::new(&engine, TOMBSTONES),
            engine,
            inputs,
            tasks,
            snapshots: Snapshots::default(),
            zones: Zones::shared().1,
            runs: 0,
        };
        let state = ConfState::from((vec![ME], vec![OTHER]));
        begin_child(&nursery.engine, &nursery.tombstones, ME, GROUP, &state).unwrap();
        let conf_state = encode_conf_state(BOOTSTRAP.index, &state);
        let stand = Stand { span: Span::first(GROUP), applied: BOOTSTRAP, conf_state };
        let mut group = nursery.start(GROUP, Some(&stand), Moment::now()).unwrap();
        group.node.campaign().unwrap();
        let mut leader = Leader { nursery, group, asked: 0 };
        leader.write_down();
        assert!(leader.group.is_leader() && !leader.reads_by_lease(), "a new leader has no lease");
        leader.group.asked.clear();
        leader
    }

    /// What was proposed becomes durable, and so committed. The leader learns of it as the loop tells it.
    fn write_down(&mut self) {
        while self.group.node.has_ready() {
            let ready = self.group.node.ready();
            let mut batch = ReadyBatch::new(&self.nursery.engine);
            batch.add_as(RegionId(GROUP), self.group.run, &ready).unwrap();
            batch.write(&self.nursery.engine).unwrap();
            let light = self.group.node.advance(ready);
            assert!(light.messages().is_empty() || self.group.is_leader());
            let (term, committed) = (self.group.node.raft.term, self.group.committed());
            self.group.lease.committed(term, committed);
        }
    }

    fn ask(&mut self, request: Request, key: u64) -> Receiver<Reply> {
        let (waiter, answer) = channel();
        self.group.request(request, key, waiter, &mut self.asked, ME);
        answer
    }

    /// Whether a read that may go by a lease would.
    fn reads_by_lease(&mut self) -> bool {
        self.group.reads.clear();
        let asked = self.group.asked.len();
        self.ask(Request::Read { group: GROUP, key: 0, via: Via::Lease }, 0);
        let (by_lease, by_index) = (self.group.reads.pop(), self.group.asked.len() - asked);
        assert_eq!(usize::from(by_lease.is_some()) + by_index, 1);
        by_lease.is_some_and(|read| read.by_lease)
    }

    fn write(&mut self) {
        self.ask(Request::Write { group: GROUP, key: 0, value: 1 }, 0);
    }
}

fn changes() -> Vec<Request> {
    let state = Dump { span: Some(Span::first(GROUP + 1)), ..Dump::default() };
    vec![
        Request::Split { group: GROUP, at: 2, child: 9 },
        Request::Freeze { group: GROUP },
        Request::Absorb { group: GROUP, source: GROUP + 1, state },
        Request::Transfer { group: GROUP, to: OTHER },
    ]
}

#[test]
fn from_the_proposal_of_a_split_a_merge_or_a_transfer_on_a_leader_reads_by_no_lease() {
    for change in changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut leader = Leader::new(dir.path());
        leader.write();
        assert!(!leader.reads_by_lease(), "proposed, and committed by nobody");
        leader.write_down();
        assert!(leader.reads_by_lease(), "a write renews it");
        // Another is under way, and the leader was given what it is to read by: that takes no lease away.
        leader.write();
        assert!(leader.reads_by_lease());
        let answer = leader.ask(change.clone(), 0);
        assert!(!leader.reads_by_lease(), "after the proposal of {change:?}");
        // The write comes to be committed, and the change with it. It is not applied here yet.
        leader.write_down();
        assert!(!leader.reads_by_lease(), "renewed by what came before {change:?}");
        leader.write();
        leader.write_down();
        let (term, now) = (leader.group.node.raft.term, Moment::now());
        leader.group.lease.confirmed(term, now);
        assert!(!leader.reads_by_lease(), "renewed before {change:?} is applied");
        let answer = answer.try_recv().ok();
        assert!(!matches!(answer, Some(Reply::Failed { .. } | Reply::NotLeader { .. })), "{answer:?}");
        // After it is applied there is one again, from then on; after a transfer there is none in this term.
        let index = leader.group.committed();
        leader.group.lease.applied(index, Moment::now());
        assert!(!leader.reads_by_lease(), "what was sent before {change:?} was applied does not count");
        leader.write();
        leader.write_down();
        let is_transfer = matches!(change, Request::Transfer { .. });
        assert_eq!(leader.reads_by_lease(), !is_transfer, "after {change:?}");
    }
}
