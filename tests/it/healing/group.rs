//! A group of three replicas under raft-rs, by the library's rules: heal, then run what may run.

use super::image::{Disk, Images, R, TERM, data, id};
use crate::support::engines::{DIR, of_run};
use protobuf::Message as _;
use raft::prelude::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message, Snapshot};
use raft::{Config, RawNode, StateRole};
use raftwood::healing::{Healer, Standing, Taken};
use raftwood::raft_rs::{BOOTSTRAP, FencedVoter, ReadyBatch, RegionStorage};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Durability, Engine, EntryId, Health};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// How a case went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Every replica that may stay has every entry, and new ones are committed.
    Recovered,
    /// Nothing is committed, and nothing was lost.
    Unavailable,
    /// An entry that a majority had acknowledged is gone, or two replicas differ on a committed one.
    Unsafe,
    /// None of these.
    Stuck,
}

/// When the group begins to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// When everybody has asked everybody.
    Healed,
    /// At once: nobody asks before there is a leader.
    AtOnce,
}

pub(crate) struct Group {
    replicas: Vec<Replica>,
    messages: VecDeque<Message>,
    /// What is committed: before the run by what was acknowledged, and as it is applied.
    chosen: BTreeMap<u64, (u64, Vec<u8>)>,
    is_unsafe: bool,
}

struct Replica {
    id: u64,
    #[allow(dead_code, reason = "the disk is as old as its engine")]
    disk: SimVfs,
    engine: Engine,
    healer: Healer,
    runs: Runs,
    applied: u64,
    offered: Arc<Mutex<(EntryId, ConfState)>>,
}

/// What stands for the replica in the group.
enum Runs {
    Nothing,
    Voter(FencedVoter),
    Raft(Box<RawNode<RegionStorage>>),
}

impl Replica {
    fn new(id: u64, disk: SimVfs) -> Replica {
        let engine = of_run(&disk, 10 + id).open(DIR).unwrap();
        let mut healer = Healer::new(&engine, R);
        healer.look().unwrap();
        let offered = (BOOTSTRAP, ConfState::from((vec![1, 2, 3], vec![])));
        let offered = Arc::new(Mutex::new(offered));
        Replica { id, disk, engine, healer, runs: Runs::Nothing, applied: BOOTSTRAP.index, offered }
    }

    fn storage(&self) -> RegionStorage {
        let offered = self.offered.clone();
        RegionStorage::new(&self.engine, R).snapshots(move |_: u64, _: u64| {
            let (at, conf_state) = offered.lock().unwrap().clone();
            let mut snapshot = Snapshot::default();
            let meta = snapshot.mut_metadata();
            (meta.index, meta.term) = (at.index, at.term);
            meta.set_conf_state(conf_state);
            snapshot.set_data(b"the state".to_vec().into());
            Some(snapshot)
        })
    }

    /// Starts what the replica's standing allows, or goes over to more.
    fn start(&mut self) {
        match (self.healer.standing(), &self.runs) {
            (Standing::Whole, Runs::Nothing | Runs::Voter(_)) => {
                let storage = self.storage();
                self.applied = storage.recover(EntryId::new(5, self.applied), None).unwrap().index;
                self.begin(storage);
            }
            (Standing::Fenced, Runs::Nothing) => {
                self.runs = FencedVoter::new(self.storage(), self.id).map_or(Runs::Nothing, Runs::Voter);
            }
            _ => {}
        }
    }

    fn begin(&mut self, storage: RegionStorage) {
        let config = Config {
            id: self.id,
            applied: self.applied,
            election_tick: 1_000_000,
            heartbeat_tick: 1,
            pre_vote: self.id == 2,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        self.runs = Runs::Raft(Box::new(RawNode::new(&config, storage, &logger).unwrap()));
    }

    fn raft(&mut self) -> Option<&mut RawNode<RegionStorage>> {
        match &mut self.runs {
            Runs::Raft(raft) => Some(raft),
            _ => None,
        }
    }

    fn leads(&mut self) -> bool {
        self.raft().is_some_and(|raft| raft.raft.state == StateRole::Leader)
    }
}

impl Group {
    pub(crate) fn new(disks: &[&Disk], images: &Images) -> Group {
        let held = |n: usize| disks.iter().filter(|disk| disk.held() > n).count();
        let committed = (0..).take_while(|&n| held(n) >= 2);
        let replicas = disks.iter().zip(1..).map(|(disk, id)| Replica::new(id, images.disk(disk)));
        Group {
            replicas: replicas.collect(),
            messages: VecDeque::new(),
            chosen: committed.map(|n| (id(n).index, (TERM, data(id(n).index)))).collect(),
            is_unsafe: false,
        }
    }

    /// Heals, elects, writes, and brings everybody up to date, as far as that goes.
    pub(crate) fn run(mut self, begin: Begin) -> Outcome {
        if begin == Begin::Healed {
            self.heal();
        }
        self.replicas.iter_mut().for_each(Replica::start);
        self.elect();
        let outcome = match self.leader() {
            None => Outcome::Unavailable,
            Some(_) if self.goes_on() => Outcome::Recovered,
            Some(_) => Outcome::Stuck,
        };
        if self.is_unsafe { Outcome::Unsafe } else { outcome }
    }

    /// Everybody asks everybody, until nothing comes back any more.
    fn heal(&mut self) {
        for asker in 0..self.replicas.len() {
            let Some(question) = self.replicas[asker].healer.question(Some(TERM)) else { continue };
            let mut answers = Vec::new();
            for peer in self.replicas.iter().filter(|peer| peer.id != asker as u64 + 1) {
                let term = peer.storage().hard_state().map_or(0, |state| state.term);
                let given = peer.healer.answer(&question, term).unwrap();
                answers.extend(given.into_iter().map(|answer| (peer.id, answer)));
            }
            for (peer, answer) in answers {
                let taken = self.replicas[asker].healer.take(peer, answer).unwrap();
                assert!(!matches!(taken, Taken::Refused | Taken::NeedsLeader), "{taken:?}");
            }
        }
    }

    /// Each that may lead stands for election, those with the shortest logs first.
    fn elect(&mut self) {
        for _ in 0..2 {
            let mut order: Vec<usize> = (0..self.replicas.len()).collect();
            order.sort_by_key(|&n| self.replicas[n].engine.region(R).last_index());
            for n in order {
                if self.leader().is_none()
                    && let Some(raft) = self.replicas[n].raft()
                {
                    raft.campaign().unwrap();
                    self.deliver();
                }
            }
        }
    }

    fn leader(&mut self) -> Option<usize> {
        (0..self.replicas.len()).find(|&n| self.replicas[n].leads())
    }

    /// New entries are committed, those without their votes are exchanged, and all have everything.
    fn goes_on(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        self.replicas[leader].raft().unwrap().propose(vec![], b"after".to_vec()).unwrap();
        if !self.settle(|group| group.has_applied_all(&group.that_stay())) {
            return false;
        }
        for n in 0..self.replicas.len() {
            if self.replicas[n].healer.standing() == Standing::HardStateLost && !self.replace(leader, n) {
                return false;
            }
        }
        let everybody: Vec<usize> = (0..self.replicas.len()).collect();
        self.settle(|group| group.has_applied_all(&everybody))
            && self.replicas.iter().all(|r| r.engine.region(R).health() == Health::Healthy)
    }

    fn that_stay(&self) -> Vec<usize> {
        let stays = |n: &usize| self.replicas[*n].healer.standing() != Standing::HardStateLost;
        (0..self.replicas.len()).filter(stays).collect()
    }

    /// Takes a replica out of the group, and back in under an id that was never used.
    fn replace(&mut self, leader: usize, n: usize) -> bool {
        let (old, new) = (self.replicas[n].id, self.replicas[n].id + 3);
        for (kind, peer) in [(ConfChangeType::RemoveNode, old), (ConfChangeType::AddNode, new)] {
            let mut change = ConfChange::default();
            change.set_change_type(kind);
            change.node_id = peer;
            self.replicas[leader].raft().unwrap().propose_conf_change(vec![], change).unwrap();
            let stay = self.that_stay();
            if !self.settle(|group| group.has_applied_all(&stay)) {
                return false;
            }
            if kind == ConfChangeType::RemoveNode {
                let replica = &mut self.replicas[n];
                let mut batch = replica.engine.batch();
                batch.region(R).destroy();
                replica.engine.write(batch, Durability::Synced).unwrap();
                (replica.id, replica.applied) = (new, 0);
                replica.healer = Healer::new(&replica.engine, R);
                let storage = replica.storage();
                storage.recover(EntryId::default(), None).unwrap();
                replica.begin(storage);
            }
        }
        true
    }

    fn has_applied_all(&self, these: &[usize]) -> bool {
        let last = self.replicas.iter().map(|r| r.applied).max();
        let proposal = self.chosen.values().any(|(_, data)| data == b"after");
        proposal && these.iter().all(|&n| Some(self.replicas[n].applied) == last)
    }

    /// The leader's clock goes on, and fenced replicas ask, until `done`.
    fn settle(&mut self, done: impl Fn(&Group) -> bool) -> bool {
        for _ in 0..12 {
            self.deliver();
            if done(self) {
                return true;
            }
            self.heal();
            self.replicas.iter_mut().for_each(Replica::start);
            let leader = self.leader();
            leader.and_then(|n| self.replicas[n].raft()).into_iter().for_each(|raft| {
                raft.tick();
            });
        }
        done(self)
    }

    fn deliver(&mut self) {
        for _ in 0..1000 {
            (0..self.replicas.len()).for_each(|n| self.work(n));
            let Some(message) = self.messages.pop_front() else { return };
            let Some(to) = self.replicas.iter_mut().find(|r| r.id == message.to) else { continue };
            match &mut to.runs {
                Runs::Nothing => {}
                Runs::Voter(voter) => {
                    self.messages.extend(voter.step(&message).unwrap());
                    to.start();
                }
                Runs::Raft(raft) => drop(raft.step(message)),
            }
        }
    }

    /// One `Ready` after another of a replica: durable before anything is said of it.
    fn work(&mut self, n: usize) {
        loop {
            let engine = self.replicas[n].engine.clone();
            let id = self.replicas[n].id;
            let Some(raft) = self.replicas[n].raft().filter(|raft| raft.has_ready()) else { return };
            let mut ready = raft.ready();
            let mut batch = ReadyBatch::new(&engine);
            batch.add_as(R, id, &ready).unwrap();
            batch.write(&engine).unwrap();
            let mut out = ready.take_messages();
            out.extend(ready.take_persisted_messages());
            let snapshot = ready.snapshot().clone();
            let mut committed = ready.take_committed_entries();
            let mut light = raft.advance_append(ready);
            out.extend(light.take_messages());
            committed.extend(light.take_committed_entries());
            self.messages.extend(out);
            if !snapshot.is_empty() {
                let meta = snapshot.get_metadata();
                self.replicas[n].applied = meta.index;
            }
            committed.into_iter().for_each(|entry| self.apply(n, entry));
            let applied = self.replicas[n].applied;
            self.replicas[n].raft().unwrap().advance_apply_to(applied);
        }
    }

    fn apply(&mut self, n: usize, entry: Entry) {
        let replica = &mut self.replicas[n];
        replica.applied = entry.index;
        if entry.get_entry_type() == EntryType::EntryConfChange {
            let mut change = ConfChange::default();
            change.merge_from_bytes(entry.get_data()).unwrap();
            let conf_state = replica.raft().unwrap().apply_conf_change(&change).unwrap();
            replica.offered.lock().unwrap().1 = conf_state;
        }
        replica.offered.lock().unwrap().0 = EntryId::new(entry.term, entry.index);
        let fact = (entry.term, entry.get_data().to_vec());
        self.is_unsafe |= self.chosen.entry(entry.index).or_insert_with(|| fact.clone()) != &fact;
    }
}
