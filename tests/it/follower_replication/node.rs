//! A store: one engine, a replica of every group, and state machines that are lists.

use super::frame::Frame;
use crate::support::engines::on;
use raft::prelude::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, Snapshot};
use raft::{Config, GetEntriesContext, RawNode, SnapshotStatus, StateRole};
use raftwood::raft_rs::{
    Agent, BOOTSTRAP, HandedOn, Outgoing, ReadyBatch, RegionStorage, Route, Zones, may_send_first,
};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, Engine, EntryId, ReadLimit, Region, RegionId};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex};

/// The store of a peer, as a configuration would say it; the hundreds tell the replicas apart that a store
/// has had of a group.
pub(crate) fn store_of(peer: u64) -> Option<u64> {
    Some(peer % 100)
}

/// The first replica of any group on a store.
pub(crate) fn first_peer(store: u64) -> u64 {
    100 + store
}

pub(crate) fn digest(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// A state machine: terms and digests of all entries from the first on.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct State {
    pub(crate) applied: EntryId,
    pub(crate) log: Vec<(u64, u64)>,
    conf: ConfState,
}

pub(crate) struct Replica {
    pub(crate) peer: u64,
    pub(crate) raft: RawNode<RegionStorage>,
    pub(crate) route: Route,
    agent: Agent,
    pub(crate) state: State,
    /// What raft may send as a snapshot.
    offered: Arc<Mutex<State>>,
    fetched: Receiver<GetEntriesContext>,
}

pub(crate) struct Node {
    pub(crate) store: u64,
    disk: SimVfs,
    zones: Zones,
    max_size_per_msg: u64,
    engine: Option<Engine>,
    pub(crate) replicas: BTreeMap<u64, Replica>,
    /// On a disk that loses nothing, while the node is down: the peer, and its state machine.
    kept: BTreeMap<u64, (u64, State)>,
    pub(crate) seen: Seen,
}

/// What happened here that a test may ask for.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) handed_on: u64,
    pub(crate) refused: u64,
    pub(crate) fetched: u64,
    /// Broadcasts and messages for a replica that is not here.
    pub(crate) misdirected: u64,
    /// Acknowledgements that said no.
    pub(crate) rejections: u64,
}

/// What a node has done.
#[derive(Default)]
pub(crate) struct Done {
    /// Group, to which store, what.
    pub(crate) out: Vec<(u64, u64, Frame)>,
    /// Group, index, and what is there.
    pub(crate) applied: Vec<(u64, u64, (u64, u64))>,
}

impl Node {
    pub(crate) fn new(store: u64, zones: &Zones, max_size_per_msg: u64) -> Node {
        let (disk, replicas, kept) = (SimVfs::new(store), BTreeMap::new(), BTreeMap::new());
        let (zones, seen) = (zones.clone(), Seen::default());
        let mut node = Node { store, disk, zones, max_size_per_msg, engine: None, replicas, kept, seen };
        node.start();
        node
    }

    pub(crate) fn start(&mut self) {
        let options = on(&self.disk).segment_bytes(1 << 20).background(Background::Manual);
        self.engine = Some(options.open("/db").unwrap());
        for (group, (peer, state)) in std::mem::take(&mut self.kept) {
            self.begin(group, peer, state);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn region(&self, group: u64) -> Region {
        self.engine().region(RegionId(group))
    }

    /// One of the first replicas of a group.
    pub(crate) fn bootstrap(&mut self, group: u64, conf: &ConfState) {
        RegionStorage::new(self.engine(), RegionId(group)).bootstrap(conf).unwrap();
        let state = State { applied: BOOTSTRAP, log: Vec::new(), conf: conf.clone() };
        self.begin(group, first_peer(self.store), state);
    }

    /// One that joins, and waits for a snapshot.
    pub(crate) fn join(&mut self, group: u64, peer: u64) {
        self.begin(group, peer, State::default());
    }

    pub(crate) fn destroy(&mut self, group: u64) {
        let peer = self.replicas.remove(&group).unwrap().peer;
        let mut batch = ReadyBatch::new(self.engine());
        batch.destroy(RegionId(group), peer);
        batch.write(self.engine()).unwrap();
    }

    fn begin(&mut self, group: u64, peer: u64, state: State) {
        let offered = Arc::new(Mutex::new(state.clone()));
        let (tell, fetched) = channel();
        let (provider, tell) = (offered.clone(), Mutex::new(tell));
        let storage = RegionStorage::new(self.engine(), RegionId(group))
            .snapshots(move |_: u64, _: u64| Some(to_snapshot(&provider.lock().unwrap())))
            .fetch_far(1, move |_, context| _ = tell.lock().unwrap().send(context));
        storage.recover(state.applied, Some(&state.conf)).unwrap();
        let config = Config {
            id: peer,
            applied: state.applied.index,
            election_tick: 1_000_000,
            heartbeat_tick: 2,
            max_size_per_msg: self.max_size_per_msg,
            max_inflight_msgs: 8,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, storage.clone(), &logger).unwrap();
        let route = Route::new(&self.zones, self.store);
        let agent = Agent::new(&storage, peer, |_| ());
        self.replicas.insert(group, Replica { peer, raft, route, agent, state, offered, fetched });
    }

    pub(crate) fn power_cut(&mut self) {
        self.disk.power_off();
        let disk = self.disk.crash(LossPolicy::LoseAll);
        self.engine = None;
        let replicas = std::mem::take(&mut self.replicas);
        self.kept = replicas.into_iter().map(|(group, r)| (group, (r.peer, r.state))).collect();
        self.disk = disk;
    }

    pub(crate) fn tick(&mut self) {
        for replica in self.replicas.values_mut() {
            replica.raft.tick();
            replica.route.tick(&mut replica.raft);
            replica.agent.tick();
            *replica.offered.lock().unwrap() = replica.state.clone();
        }
        if let Some(engine) = &self.engine {
            engine.tick().unwrap();
        }
    }

    pub(crate) fn leads(&self, group: u64) -> Option<u64> {
        let raft = &self.replicas.get(&group)?.raft.raft;
        (raft.state == StateRole::Leader).then_some(raft.term)
    }

    pub(crate) fn arrive(&mut self, group: u64, bytes: &[u8]) {
        let frame = Frame::decode(bytes).unwrap();
        let Some(replica) = self.replicas.get_mut(&group) else {
            self.seen.misdirected += 1;
            return;
        };
        match frame {
            Frame::Raft(message) if message.to != replica.peer => self.seen.misdirected += 1,
            Frame::Raft(message) => {
                self.seen.rejections += u64::from(message.reject);
                let _ = replica.raft.step(message);
            }
            Frame::Broadcast(broadcast) => match replica.agent.receive(broadcast) {
                Ok(own) => _ = own.map(|own| replica.raft.step(own)),
                Err(_) => self.seen.misdirected += 1,
            },
            Frame::Refusal(refusal) => replica.route.refused(&mut replica.raft, &refusal),
        }
    }

    /// What was sent to a peer on this store has not arrived, and this node is notified.
    pub(crate) fn broke(&mut self, group: u64, store: u64) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        let ids: Vec<_> = replica.raft.raft.prs().iter().map(|(id, _)| *id).collect();
        for peer in ids.into_iter().filter(|id| store_of(*id) == Some(store)) {
            replica.route.unreachable(&mut replica.raft, peer);
        }
    }

    /// What became of a frame, if it was a snapshot.
    pub(crate) fn snapshot_sent(&mut self, group: u64, bytes: &[u8], status: SnapshotStatus) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        if let Some(Frame::Raft(message)) = Frame::decode(bytes)
            && !message.get_snapshot().is_empty()
        {
            replica.raft.report_snapshot(message.to, status);
        }
    }

    /// Until there is nothing left to do before something else arrives.
    pub(crate) fn work(&mut self) -> Done {
        let mut done = Done::default();
        let Some(engine) = self.engine.clone() else { return done };
        let mut waited = false;
        loop {
            let mut moved = false;
            for (group, replica) in &mut self.replicas {
                while replica.pass(*group, &engine, &mut self.seen, &mut done) {
                    moved = true;
                }
            }
            let held = self.replicas.values().any(|replica| !replica.agent.is_idle());
            if !moved && (!held || waited) {
                return done;
            }
            self.finish_reads();
            waited = !moved;
        }
    }

    /// Waits until all that was read by now has been delivered: two threads read, in the order of asking.
    fn finish_reads(&self) {
        let barrier = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let here = barrier.clone();
            self.engine().fetch(RegionId(u64::MAX), 1..2, ReadLimit::NONE, move |_| _ = here.wait());
        }
        barrier.wait();
    }
}

impl Replica {
    /// One pass of the loop over a group, as an application writes it. Whether there was anything to do.
    fn pass(&mut self, group: u64, engine: &Engine, seen: &mut Seen, done: &mut Done) -> bool {
        let mut moved = false;
        for context in self.fetched.try_iter() {
            self.raft.on_entries_fetched(context);
            (seen.fetched, moved) = (seen.fetched + 1, true);
        }
        if self.raft.has_ready() {
            moved = true;
            self.ready(group, engine, done);
        }
        self.send(group, Vec::new(), done);
        for handed_on in self.agent.poll() {
            moved = true;
            done.out.push(match handed_on {
                HandedOn::Append { store, message } => {
                    seen.handed_on += 1;
                    (group, store, Frame::Raft(message))
                }
                HandedOn::Refused(refusal) => {
                    seen.refused += 1;
                    (group, store_of(refusal.to).unwrap(), Frame::Refusal(refusal))
                }
            });
        }
        moved
    }

    fn ready(&mut self, group: u64, engine: &Engine, done: &mut Done) {
        let mut ready = self.raft.ready();
        if may_send_first(&self.raft) {
            self.send(group, ready.take_messages(), done);
        }
        if !ready.snapshot().is_empty() {
            self.state = of_snapshot(ready.snapshot());
        }
        let mut batch = ReadyBatch::new(engine);
        batch.add_as(RegionId(group), self.peer, &ready).unwrap();
        batch.write(engine).unwrap();
        self.send(group, ready.take_messages(), done);
        self.send(group, ready.take_persisted_messages(), done);
        let mut committed = ready.take_committed_entries();
        let mut light = self.raft.advance_append(ready);
        if light.commit_index().is_some() {
            let mut batch = ReadyBatch::new(engine);
            batch.set_hard_state(RegionId(group), &self.raft.raft.hard_state()).unwrap();
            batch.write(engine).unwrap();
        }
        self.send(group, light.take_messages(), done);
        committed.extend(light.take_committed_entries());
        for entry in committed {
            self.apply(group, &entry, done);
        }
        self.raft.advance_apply_to(self.state.applied.index);
    }

    fn send(&mut self, group: u64, messages: Vec<Message>, done: &mut Done) {
        for outgoing in self.route.plan(&self.raft, messages, store_of) {
            let (to, frame) = match outgoing {
                Outgoing::Direct(message) => (message.to, Frame::Raft(message)),
                Outgoing::Broadcast(broadcast) => (broadcast.to, Frame::Broadcast(broadcast)),
            };
            done.out.push((group, store_of(to).unwrap(), frame));
        }
    }

    fn apply(&mut self, group: u64, entry: &Entry, done: &mut Done) {
        assert_eq!(entry.index, self.state.applied.index + 1, "group {group}: applied out of order");
        let what = (entry.term, digest(&entry.data));
        self.state.applied = EntryId::new(entry.term, entry.index);
        self.state.log.push(what);
        done.applied.push((group, entry.index, what));
        let changed = match entry.get_entry_type() {
            EntryType::EntryNormal => return,
            EntryType::EntryConfChange => {
                let change: ConfChange = protobuf::Message::parse_from_bytes(&entry.data).unwrap();
                self.raft.apply_conf_change(&change)
            }
            EntryType::EntryConfChangeV2 => {
                let change: ConfChangeV2 = protobuf::Message::parse_from_bytes(&entry.data).unwrap();
                self.raft.apply_conf_change(&change)
            }
        };
        self.state.conf = changed.unwrap();
    }
}

fn to_snapshot(state: &State) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.set_data(serde_json::to_vec(&state.log).unwrap().into());
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (state.applied.index, state.applied.term);
    meta.set_conf_state(state.conf.clone());
    snapshot
}

fn of_snapshot(snapshot: &Snapshot) -> State {
    let meta = snapshot.get_metadata();
    let applied = EntryId::new(meta.term, meta.index);
    let log = serde_json::from_slice(&snapshot.data).unwrap();
    State { applied, log, conf: meta.get_conf_state().clone() }
}
