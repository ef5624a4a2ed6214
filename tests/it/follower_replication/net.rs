//! Five replicas of one group in two zones, and the wires between them, on which every byte is counted.

use crate::support::engines::on;
use protobuf::Message as _;
use raft::prelude::{ConfState, Message};
use raft::{Config, RawNode, StateRole};
use raftwood::raft_rs::{Delegated, ReadyBatch, RegionStorage};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, Engine, EntryId, ErrorKind, Region, RegionId, Result};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub(crate) const GROUP: RegionId = RegionId(9);

/// Node 1 leads.
const ZONES: [&[u64]; 2] = [&[1, 2], &[3, 4, 5]];

fn zone(node: u64) -> usize {
    ZONES.iter().position(|zone| zone.contains(&node)).unwrap()
}

/// What goes over a wire.
enum Frame {
    Raft(Message),
    /// To the agent: for its neighbour.
    Delegated(Delegated),
    /// To the leader: nothing was sent to this follower.
    NotFilled(u64),
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let message =
            |kind: u8, message: &Message| [&[kind], &message.write_to_bytes().unwrap()[..]].concat();
        match self {
            Frame::Raft(m) => message(0, m),
            Frame::Delegated(d) => {
                let last = [d.last.term.to_le_bytes(), d.last.index.to_le_bytes()].concat();
                [message(1, &d.message), last].concat()
            }
            Frame::NotFilled(to) => [&[2], &to.to_le_bytes()[..]].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Frame {
        let number = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
        let (kind, rest) = bytes.split_first().unwrap();
        match kind {
            0 => Frame::Raft(Message::parse_from_bytes(rest).unwrap()),
            1 => {
                let (message, last) = rest.split_at(rest.len() - 16);
                let last = EntryId::new(number(&last[..8]), number(&last[8..]));
                Frame::Delegated(Delegated { message: Message::parse_from_bytes(message).unwrap(), last })
            }
            _ => Frame::NotFilled(number(rest)),
        }
    }
}

/// A delegated message that is being filled, in the order of arrival.
type Fill = (u64, Delegated, Result<Message>);

pub(crate) struct Node {
    pub(crate) id: u64,
    disk: SimVfs,
    up: Option<Up>,
    /// The state machine, on a disk of its own that loses nothing.
    pub(crate) applied: Vec<Vec<u8>>,
    applied_id: EntryId,
}

struct Up {
    engine: Engine,
    storage: RegionStorage,
    raft: RawNode<RegionStorage>,
    /// Delegated to this node, and how often it has tried.
    delegated: Vec<(u32, Delegated)>,
    fills: (Sender<Fill>, Receiver<Fill>),
    /// Followers whose agent failed, and for how many rounds they are sent to directly.
    direct: BTreeMap<u64, u32>,
}

impl Node {
    pub(crate) fn new(id: u64) -> Node {
        let mut node =
            Node { id, disk: SimVfs::new(id), up: None, applied: Vec::new(), applied_id: EntryId::new(0, 0) };
        node.start();
        node
    }

    fn start(&mut self) {
        let options = on(&self.disk).segment_bytes(1 << 20).background(Background::Manual);
        let engine = options.open("/db").unwrap();
        let storage = RegionStorage::new(&engine, GROUP);
        if !storage.region().exists() {
            storage.bootstrap(&ConfState::from((ZONES.concat(), vec![]))).unwrap();
        }
        self.applied_id = storage.recover(self.applied_id, None).unwrap();
        let config = Config {
            id: self.id,
            applied: self.applied_id.index,
            election_tick: 1_000_000,
            heartbeat_tick: 1,
            max_size_per_msg: 64 << 10,
            max_inflight_msgs: 8,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, storage.clone(), &logger).unwrap();
        let (delegated, direct) = (Vec::new(), BTreeMap::new());
        self.up = Some(Up { engine, storage, raft, delegated, fills: channel(), direct });
    }

    fn up(&self) -> &Up {
        self.up.as_ref().unwrap()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.up().engine
    }

    pub(crate) fn storage(&self) -> &RegionStorage {
        &self.up().storage
    }

    pub(crate) fn region(&self) -> Region {
        self.engine().region(GROUP)
    }

    /// Persists and applies what raft needs, and returns what it sends.
    fn work(&mut self) -> Vec<Message> {
        let Some(up) = &mut self.up else { return Vec::new() };
        let mut out = Vec::new();
        while up.raft.has_ready() {
            let mut ready = up.raft.ready();
            out.extend(ready.take_messages());
            let mut batch = ReadyBatch::new(&up.engine);
            batch.add_as(GROUP, self.id, &ready).unwrap();
            batch.write(&up.engine).unwrap();
            up.engine.tick().unwrap();
            out.extend(ready.take_persisted_messages());
            let mut committed = ready.take_committed_entries();
            let mut light = up.raft.advance(ready);
            out.extend(light.take_messages());
            committed.extend(light.take_committed_entries());
            for entry in committed {
                self.applied_id = EntryId::new(entry.term, entry.index);
                self.applied.extend(Some(entry.data.to_vec()).filter(|data| !data.is_empty()));
            }
            up.raft.advance_apply_to(self.applied_id.index);
        }
        out
    }
}

pub(crate) struct Net {
    pub(crate) nodes: BTreeMap<u64, Node>,
    /// From, to, bytes.
    wires: VecDeque<(u64, u64, Vec<u8>)>,
    delegate: bool,
    /// Bytes that the leader has sent into the other zone.
    pub(crate) crossed: u64,
    /// Delegated messages that were filled and sent on, and that were not.
    pub(crate) filled: u64,
    pub(crate) refused: u64,
}

/// So many rounds a follower is sent to directly, after its agent failed.
const DIRECT_ROUNDS: u32 = 12;

/// So often an agent tries to fill a message before it gives up: what comes before it may be on its way.
const TRIES: u32 = 3;

impl Net {
    /// Node 1 leads, and has a first entry committed.
    pub(crate) fn new(delegate: bool) -> Net {
        let nodes = ZONES.concat().into_iter().map(|id| (id, Node::new(id))).collect();
        let mut net = Net { nodes, wires: VecDeque::new(), delegate, crossed: 0, filled: 0, refused: 0 };
        let up = net.nodes.get_mut(&1).and_then(|n| n.up.as_mut()).unwrap();
        up.raft.campaign().unwrap();
        net.settle();
        assert_eq!(net.nodes[&1].up().raft.raft.state, StateRole::Leader);
        net
    }

    pub(crate) fn propose(&mut self, data: &[Vec<u8>]) {
        let up = self.nodes.get_mut(&1).and_then(|n| n.up.as_mut()).unwrap();
        data.iter().for_each(|d| up.raft.propose(vec![], d.clone()).unwrap());
    }

    /// Who hands on what is for `follower`: of those in its zone that are up, the one that has
    /// most, and the first of these.
    pub(crate) fn agent(&self, follower: u64) -> Option<u64> {
        let progress = self.nodes[&1].up().raft.raft.prs();
        let matched = |id: u64| progress.get(id).map_or(0, |p| p.matched);
        let up = ZONES[zone(follower)].iter().copied().filter(|id| self.nodes[id].up.is_some());
        up.max_by_key(|id| (matched(*id), Reverse(*id)))
    }

    pub(crate) fn power_cut(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk.power_off();
        let disk = node.disk.crash(LossPolicy::LoseAll);
        node.up = None;
        node.disk = disk;
    }

    pub(crate) fn restart(&mut self, id: u64) {
        self.nodes.get_mut(&id).unwrap().start();
    }

    /// Rounds until nothing is on its way and all that are up have the leader's log.
    pub(crate) fn settle(&mut self) {
        for _ in 0..400 {
            while self.round() > 0 {}
            let lasts = self.nodes.values().filter(|n| n.up.is_some());
            let lasts: Vec<_> = lasts.map(|n| (n.region().last_index(), n.applied_id)).collect();
            if lasts.windows(2).all(|w| w[0] == w[1]) {
                return;
            }
            self.heartbeat();
        }
        unreachable!("the group does not come to rest");
    }

    fn heartbeat(&mut self) {
        self.nodes.get_mut(&1).and_then(|n| n.up.as_mut()).unwrap().raft.tick();
    }

    /// Every node works; then what they sent arrives. Returns how much that was, and is held back.
    pub(crate) fn round(&mut self) -> usize {
        for id in ZONES.concat() {
            let out = self.nodes.get_mut(&id).unwrap().work();
            for message in out {
                self.send_message(id, message);
            }
            self.hand_on(id);
        }
        let arriving = std::mem::take(&mut self.wires);
        let held = self.nodes.values().filter_map(|n| n.up.as_ref()).map(|up| up.delegated.len());
        let moved = arriving.len() + held.sum::<usize>();
        for (from, to, bytes) in arriving {
            self.arrive(from, to, &bytes);
        }
        let leader = self.nodes.get_mut(&1).and_then(|n| n.up.as_mut()).unwrap();
        leader.direct.retain(|_, rounds| {
            *rounds -= 1;
            *rounds > 0
        });
        moved
    }

    /// To the follower, or by its zone's agent.
    fn send_message(&mut self, from: u64, message: Message) {
        let to = message.to;
        let detour =
            self.delegate && zone(from) != zone(to) && !self.nodes[&from].up().direct.contains_key(&to);
        let agent = self.agent(to).filter(|agent| detour && *agent != to);
        match agent.map(|agent| (agent, Delegated::new(message.clone()))) {
            Some((agent, Ok(delegated))) => self.send(from, agent, &Frame::Delegated(delegated)),
            _ => self.send(from, to, &Frame::Raft(message)),
        }
    }

    fn send(&mut self, from: u64, to: u64, frame: &Frame) {
        let bytes = frame.encode();
        if from == 1 && zone(to) != zone(from) {
            self.crossed += bytes.len() as u64;
        }
        self.wires.push_back((from, to, bytes));
    }

    fn arrive(&mut self, from: u64, to: u64, bytes: &[u8]) {
        let frame = Frame::decode(bytes);
        let Some(up) = self.nodes.get_mut(&to).and_then(|n| n.up.as_mut()) else {
            // The sender's connection broke. What was for a neighbour of the lost node has not come
            // through either.
            let for_whom = match frame {
                Frame::Delegated(d) => d.message.to,
                _ => to,
            };
            if let Some(up) = self.nodes.get_mut(&from).and_then(|n| n.up.as_mut()) {
                up.raft.report_unreachable(for_whom);
            }
            return;
        };
        match frame {
            Frame::Raft(message) => _ = up.raft.step(message),
            Frame::Delegated(delegated) => up.delegated.push((0, delegated)),
            Frame::NotFilled(follower) => {
                up.raft.report_unreachable(follower);
                up.direct.insert(follower, DIRECT_ROUNDS);
            }
        }
    }

    /// Fills what was delegated to a node, and sends it on in the order in which it came.
    fn hand_on(&mut self, id: u64) {
        let Some(up) = self.nodes.get_mut(&id).and_then(|n| n.up.as_mut()) else { return };
        let jobs = std::mem::take(&mut up.delegated);
        for (n, (_, delegated)) in (0..).zip(&jobs) {
            let (tell, copy) = (up.fills.0.clone(), delegated.clone());
            delegated.clone().fill(&up.storage, move |filled| tell.send((n, copy, filled)).unwrap());
        }
        let soon = Duration::from_secs(30);
        let mut fills: Vec<Fill> = jobs.iter().map(|_| up.fills.1.recv_timeout(soon).unwrap()).collect();
        fills.sort_by_key(|(n, ..)| *n);
        let mut out = Vec::new();
        for ((tries, _), (_, delegated, filled)) in jobs.into_iter().zip(fills) {
            let (leader, follower) = (delegated.message.from, delegated.message.to);
            match filled {
                Ok(message) => {
                    self.filled += 1;
                    out.push((follower, Frame::Raft(message)));
                }
                Err(e) if e.kind() == ErrorKind::Unavailable && tries + 1 < TRIES => {
                    up.delegated.push((tries + 1, delegated));
                }
                Err(e) => {
                    assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Compacted), "{e}");
                    self.refused += 1;
                    out.push((leader, Frame::NotFilled(follower)));
                }
            }
        }
        out.iter().for_each(|(to, frame)| self.send(id, *to, frame));
    }
}
