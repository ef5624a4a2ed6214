//! The leader's side: what goes directly, and what by an agent.

use super::broadcast::Refusal;
use super::broadcast::{Broadcast, NEIGHBOURS_MAX, Neighbour};
use super::delegated::Delegated;
use super::zones::{ZoneMap, Zones};
use raft::prelude::{Message, MessageType};
use raft::{Progress, ProgressState, RawNode, StateRole, Storage};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many ticks a neighbour may take to acknowledge anything of what was delegated for it. Then the detour
/// counts as lost. Let it be longer than a round trip: a tick should not be shorter than one.
pub const SLOW_TICKS: u64 = 4;

/// So many ticks an agent that was slow or could not be reached is not chosen, and a neighbour is sent to
/// directly that got nothing from one that was neither.
pub const DIRECT_TICKS: u64 = 20;

/// What a leader has to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// As it is, to the peer `message.to`.
    Direct(Message),
    /// To the agent, the peer `broadcast.to`.
    Broadcast(Broadcast),
}

/// Which way a group's messages go: it stands beside the replica's `RawNode`, and is driven by the same
/// thread. While the replica does not lead, everything goes directly.
///
/// - [`plan`](Self::plan) all messages that raft hands out, in its order;
/// - [`tick`](Self::tick) when the `RawNode` is ticked;
/// - [`unreachable`](Self::unreachable) where a connection breaks, and [`refused`](Self::refused) when a
///   [`Refusal`] comes: both call `report_unreachable`, for all followers that it concerns.
///
/// In each zone but the leader's own, the agent is the follower that has matched most. It stays the agent
/// while it replicates, by the leader's progress, has been sent what any other has, and nothing bad is known
/// of it: that it could not be reached, or had not acknowledged what its neighbours were waiting for. Such a
/// one is not chosen again for [`DIRECT_TICKS`], and its neighbours are sent to directly for [`SLOW_TICKS`].
/// Without an agent, everything goes directly.
///
/// It keeps nothing that has to be durable: a restart forgets who was slow.
///
/// # Both sides in one loop
///
/// A loop over one replica, which may come to be either; here with a store and a replica of the same number.
///
/// ```
/// use raft::prelude::{ConfState, Message};
/// use raft::{Config, RawNode};
/// use raftwood::raft_rs::{
///     Agent, Broadcast, HandedOn, Outgoing, ReadyBatch, Refusal, RegionStorage, Route, Zones,
/// };
/// use raftwood::{Engine, RegionId};
/// # use std::collections::VecDeque;
/// # use std::sync::mpsc::channel;
/// # type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
///
/// const GROUP: RegionId = RegionId(7);
///
/// /// What goes over a wire, encoded by the application, with the group.
/// enum Frame {
///     Raft(Message),
///     Broadcast(Broadcast),
///     Refusal(Refusal),
/// }
///
/// struct Replica {
///     engine: Engine,
///     node: RawNode<RegionStorage>,
///     route: Route, // while it leads
///     agent: Agent, // while it follows
/// }
///
/// impl Replica {
///     fn receive(&mut self, frame: Frame) -> Result<()> {
///         match frame {
///             Frame::Raft(message) => self.node.step(message)?,
///             Frame::Broadcast(broadcast) => {
///                 if let Some(own) = self.agent.receive(broadcast)? {
///                     self.node.step(own)?;
///                 }
///             }
///             Frame::Refusal(refusal) => self.route.refused(&mut self.node, &refusal),
///         }
///         Ok(())
///     }
///
///     /// Persists what raft needs persisted. Returns what is to be sent, and to which store.
///     fn pass(&mut self) -> Result<Vec<(u64, Frame)>> {
///         let mut messages = Vec::new();
///         if self.node.has_ready() {
///             let mut ready = self.node.ready();
///             let mut batch = ReadyBatch::new(&self.engine);
///             batch.add_as(GROUP, self.node.raft.id, &ready)?;
///             batch.write(&self.engine)?; // from here on, what it has can be handed on
///             messages.extend(ready.take_messages());
///             messages.extend(ready.take_persisted_messages());
///             messages.extend(self.node.advance(ready).take_messages());
///             self.node.advance_apply();
///         }
///         let mut out = Vec::new();
///         for outgoing in self.route.plan(&self.node, messages, |peer| Some(peer)) {
///             out.push(match outgoing {
///                 Outgoing::Direct(message) => (message.to, Frame::Raft(message)),
///                 Outgoing::Broadcast(broadcast) => (broadcast.to, Frame::Broadcast(broadcast)),
///             });
///         }
///         for handed_on in self.agent.poll() {
///             out.push(match handed_on {
///                 HandedOn::Append { store, message } => (store, Frame::Raft(message)),
///                 HandedOn::Refused(refusal) => (refusal.to, Frame::Refusal(refusal)),
///             });
///         }
///         Ok(out)
///     }
///
///     fn tick(&mut self) {
///         self.node.tick();
///         self.route.tick(&mut self.node);
///         self.agent.tick();
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let (updates, zones) = Zones::shared();
/// updates.replace([(1, "west"), (2, "east"), (3, "east")]);
/// # let dir = tempfile::tempdir()?;
/// # let (tell, told) = channel();
/// # let mut replicas = Vec::new();
/// # for id in 1..=3 {
/// #     let engine = Engine::open(dir.path().join(id.to_string()))?;
/// #     let storage = RegionStorage::new(&engine, GROUP);
/// #     let applied = storage.bootstrap(&ConfState::from((vec![1, 2, 3], vec![])))?.index;
/// #     let config = Config { id, applied, ..Config::default() };
/// #     let logger = slog::Logger::root(slog::Discard, slog::o!());
/// #     let node = RawNode::new(&config, storage.clone(), &logger)?;
/// #     let tell = tell.clone();
/// #     let (route, agent) = (Route::new(&zones, id), Agent::new(&storage, id, move |_| _ = tell.send(())));
/// #     replicas.push(Replica { engine, node, route, agent });
/// # }
/// # // Until nothing is under way: how many entries store 1 has sent, and how many store 3 has got.
/// # let run = |replicas: &mut Vec<Replica>| -> Result<(usize, usize)> {
/// #     let (mut sent, mut got) = (0, 0);
/// #     loop {
/// #         let mut wires = VecDeque::new();
/// #         for from in 1..=3 {
/// #             wires.extend(replicas[from - 1].pass()?.into_iter().map(|(to, frame)| (from, to, frame)));
/// #         }
/// #         if wires.is_empty() && !replicas.iter().any(|r| r.node.has_ready()) {
/// #             if replicas.iter().all(|r| r.agent.is_idle()) {
/// #                 return Ok((sent, got));
/// #             }
/// #             told.recv()?;
/// #         }
/// #         for (from, to, frame) in wires {
/// #             let own = match &frame {
/// #                 Frame::Raft(message) => Some(message),
/// #                 Frame::Broadcast(broadcast) => broadcast.append.as_ref(),
/// #                 Frame::Refusal(_) => None,
/// #             };
/// #             let entries = own.map_or(0, |message| message.get_entries().len());
/// #             sent += if from == 1 { entries } else { 0 };
/// #             got += if to == 3 { entries } else { 0 };
/// #             replicas[to as usize - 1].receive(frame)?;
/// #         }
/// #     }
/// # };
/// replicas[0].node.campaign()?;
/// # run(&mut replicas)?;
/// // ... and once it leads:
/// replicas[0].node.propose(vec![], b"crosses once".to_vec())?;
/// # replicas.iter_mut().for_each(Replica::tick);
/// # let (sent, got) = run(&mut replicas)?;
/// assert_eq!((sent, got), (1, 1)); // entries that left store 1, and that came to store 3
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Route {
    zones: Zones,
    store: u64,
    learner_agents: bool,
    /// In ticks.
    now: u64,
    /// That of the leader whose messages the following are about.
    term: u64,
    /// By zone.
    agents: BTreeMap<String, u64>,
    /// By neighbour.
    under_way: BTreeMap<u64, Detour>,
    /// By neighbour: a commit index that would arrive before the entries that it is of.
    owed: BTreeMap<u64, Message>,
    /// Peers that are not agents, until then.
    avoided: BTreeMap<u64, u64>,
    /// Peers that are sent to directly, until then.
    direct: BTreeMap<u64, u64>,
}

/// What was delegated for a neighbour and not acknowledged.
#[derive(Debug)]
struct Detour {
    agent: u64,
    /// When the neighbour last acknowledged any of it, and how much.
    since: u64,
    matched: u64,
    /// The last entry that was delegated by then, which the agent itself should have by now.
    due: u64,
    /// The last entry that was delegated.
    last: u64,
}

/// Where the peers are.
struct Places<'a> {
    zones: Arc<ZoneMap>,
    own: u64,
    store_of: &'a dyn Fn(u64) -> Option<u64>,
}

impl Places<'_> {
    /// The zone of a peer, if it is not the leader's.
    fn other_zone(&self, peer: u64) -> Option<&str> {
        let own = self.zones.zone_of(self.own)?;
        self.zones.zone_of((self.store_of)(peer)?).filter(|zone| *zone != own)
    }
}

impl Route {
    /// For a group's replica on `store`.
    pub fn new(zones: &Zones, store: u64) -> Route {
        Route {
            zones: zones.clone(),
            store,
            learner_agents: false,
            now: 0,
            term: 0,
            agents: BTreeMap::new(),
            under_way: BTreeMap::new(),
            owed: BTreeMap::new(),
            avoided: BTreeMap::new(),
            direct: BTreeMap::new(),
        }
    }

    /// Learners are agents in zones without a voter that could be. It is as safe, and off by default: a
    /// learner is often one because it is slow, and nobody waits for it.
    pub fn learner_agents(mut self) -> Route {
        self.learner_agents = true;
        self
    }

    /// The agent of a zone, if it has one now.
    pub fn agent(&self, zone: &str) -> Option<u64> {
        self.agents.get(zone).copied()
    }

    /// Says where each message goes: those of `Ready::take_messages`, `take_persisted_messages` and
    /// `LightReady::take_messages`, each list when it may be sent. `store_of` says on which store a peer is,
    /// as the group's configuration has it.
    ///
    /// Appends with entries for other zones go by an agent; all else directly. An append without entries, for
    /// the commit index, that would overtake delegated ones is held back until they are acknowledged (the
    /// follower would refuse it, and raft send all of them once more). Therefore call this after every step
    /// of the `RawNode`, with no messages where it has none.
    pub fn plan<T: Storage>(
        &mut self,
        node: &RawNode<T>,
        messages: Vec<Message>,
        store_of: impl Fn(u64) -> Option<u64>,
    ) -> Vec<Outgoing> {
        let is_leader = node.raft.state == StateRole::Leader;
        if !is_leader || node.raft.term != self.term {
            (self.agents, self.under_way, self.owed) = Default::default();
            self.term = node.raft.term;
        }
        if !is_leader {
            return messages.into_iter().map(Outgoing::Direct).collect();
        }
        let mut out = self.settle(node);
        let places = Places { zones: self.zones.snapshot(), own: self.store, store_of: &store_of };
        let mut delegated = Vec::new();
        for message in messages {
            let (to, is_append) = (message.to, message.get_msg_type() == MessageType::MsgAppend);
            if is_append && message.get_entries().is_empty() && self.overtakes(node, &message) {
                self.owed.insert(to, message);
                continue;
            }
            if is_append {
                self.owed.remove(&to);
            }
            match self.detour(node, &places, message) {
                Ok((agent, neighbour)) => delegated.push((agent, neighbour)),
                Err(message) => out.push(Outgoing::Direct(message)),
            }
        }
        for (agent, neighbour) in delegated {
            self.note(node, agent, &neighbour);
            attach(&mut out, agent, neighbour);
        }
        out
    }

    /// A tick of the group. Detours that took too long have failed.
    pub fn tick<T: Storage>(&mut self, node: &mut RawNode<T>) {
        self.now += 1;
        let now = self.now;
        self.avoided.retain(|_, until| *until > now);
        self.direct.retain(|_, until| *until > now);
        self.look(node);
        let slow = self.under_way.iter().filter(|(_, d)| now - d.since >= SLOW_TICKS);
        for to in slow.map(|(to, _)| *to).collect::<Vec<_>>() {
            self.fail(node, to);
        }
    }

    /// An agent has handed on nothing to this neighbour: it is sent to directly for a while. A
    /// refusal of something else than what is under way is ignored.
    pub fn refused<T: Storage>(&mut self, node: &mut RawNode<T>, refusal: &Refusal) {
        let is_ours =
            node.raft.id == refusal.to && node.raft.term == refusal.term && self.term == refusal.term;
        let detour = self.under_way.get(&refusal.neighbour);
        if is_ours && detour.is_some_and(|d| d.agent == refusal.from) {
            self.fail(node, refusal.neighbour);
        }
    }

    /// A peer cannot be reached: what went by way of it has not arrived either, and it is no agent for
    /// [`DIRECT_TICKS`].
    pub fn unreachable<T: Storage>(&mut self, node: &mut RawNode<T>, peer: u64) {
        node.report_unreachable(peer);
        self.avoid(peer);
        // That it does not acknowledge is nobody else's fault.
        (_, _) = (self.under_way.remove(&peer), self.owed.remove(&peer));
        let by_it = self.under_way.iter().filter(|(_, d)| d.agent == peer);
        for to in by_it.map(|(to, _)| *to).collect::<Vec<_>>() {
            self.fail(node, to);
        }
    }

    /// The agent for a message, and what is left of it; or the message, if it goes directly.
    #[allow(clippy::result_large_err, reason = "the message comes back, it is no error")]
    fn detour<T: Storage>(
        &mut self,
        node: &RawNode<T>,
        places: &Places<'_>,
        message: Message,
    ) -> Result<(u64, Neighbour), Message> {
        let to = message.to;
        let (Some(zone), Some(store)) = (places.other_zone(to), (places.store_of)(to)) else {
            return Err(message);
        };
        if self.direct.contains_key(&to) {
            return Err(message);
        }
        let Some(agent) = self.agent_for(node, places, zone).filter(|agent| *agent != to) else {
            return Err(message);
        };
        // What comes before has been sent to the agent, or to the neighbour by way of it and must not be
        // overtaken. The entries may be on their way, or follow as soon as raft's window allows it.
        let is_sent = node.raft.prs().get(agent).is_some_and(|p| p.next_idx > message.index);
        if !is_sent && self.under_way.get(&to).is_none_or(|detour| detour.agent != agent) {
            return Err(message);
        }
        Delegated::new(message).map(|append| (agent, Neighbour { store, append }))
    }

    fn agent_for<T: Storage>(&mut self, node: &RawNode<T>, places: &Places<'_>, zone: &str) -> Option<u64> {
        let is_good = |(id, progress): &(u64, &Progress)| {
            *id != node.raft.id
                && progress.state == ProgressState::Replicate
                && !self.avoided.contains_key(id)
                && (self.learner_agents || is_voter(node, *id))
                && places.other_zone(*id) == Some(zone)
        };
        let progress = node.raft.prs();
        let good = progress.iter().map(|(id, progress)| (*id, progress)).filter(is_good);
        let best = good.max_by_key(|(id, progress)| (is_voter(node, *id), progress.matched, Reverse(*id)));
        let present = self.agents.get(zone).and_then(|id| Some((*id, progress.get(*id)?)));
        // One that has yet to be sent what another one has is no help to the others.
        let keeps_up =
            |(_, progress): &(u64, &Progress)| best.is_none_or(|(_, b)| progress.next_idx > b.matched);
        let best = present.filter(is_good).filter(keeps_up).or(best).map(|(id, _)| id);
        match best {
            Some(agent) => _ = self.agents.insert(zone.to_owned(), agent),
            None => _ = self.agents.remove(zone),
        }
        best
    }

    /// Whether an append without entries would arrive before what was delegated.
    fn overtakes<T: Storage>(&self, node: &RawNode<T>, message: &Message) -> bool {
        self.under_way.contains_key(&message.to) && matched(node, message.to) < message.index
    }

    fn note<T: Storage>(&mut self, node: &RawNode<T>, agent: u64, neighbour: &Neighbour) {
        let (to, last, since) = (neighbour.peer(), neighbour.append.last.index, self.now);
        let matched = matched(node, to);
        let detour = self.under_way.entry(to).or_insert(Detour { agent, since, matched, due: last, last });
        if detour.agent != agent {
            *detour = Detour { agent, since, matched, due: last, last };
        }
        detour.last = detour.last.max(last);
    }

    /// What has been acknowledged is no longer under way.
    fn look<T: Storage>(&mut self, node: &RawNode<T>) {
        let now = self.now;
        self.under_way.retain(|to, detour| {
            let Some(progress) = node.raft.prs().get(*to) else { return false };
            if progress.matched > detour.matched {
                (detour.matched, detour.since, detour.due) = (progress.matched, now, detour.last);
            }
            progress.matched < detour.last
        });
    }

    /// The commit indexes that overtake nothing any more.
    fn settle<T: Storage>(&mut self, node: &RawNode<T>) -> Vec<Outgoing> {
        self.look(node);
        let (now, owed): (BTreeMap<_, _>, _) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|(_, message)| !self.overtakes(node, message));
        self.owed = owed;
        now.into_values().map(Outgoing::Direct).collect()
    }

    /// Sends what is missing directly. Where it was the agent that failed, another one follows soon.
    fn fail<T: Storage>(&mut self, node: &mut RawNode<T>, to: u64) {
        let Some(detour) = self.under_way.remove(&to) else { return };
        let is_agents = matched(node, detour.agent) < detour.due || self.avoided.contains_key(&detour.agent);
        if is_agents {
            self.avoid(detour.agent);
        }
        self.direct.insert(to, self.now + if is_agents { SLOW_TICKS } else { DIRECT_TICKS });
        self.owed.remove(&to);
        node.report_unreachable(to);
    }

    fn avoid(&mut self, peer: u64) {
        self.avoided.insert(peer, self.now + DIRECT_TICKS);
        self.agents.retain(|_, agent| *agent != peer);
    }
}

/// Puts an append for a neighbour after the agent's own that brings the entries, or by itself if the agent
/// has been sent them before.
fn attach(out: &mut Vec<Outgoing>, agent: u64, neighbour: Neighbour) {
    let last = neighbour.append.last.index;
    for outgoing in out.iter_mut() {
        match outgoing {
            Outgoing::Direct(own) if own.to == agent && last_of(own).is_some_and(|end| end >= last) => {
                let append = Some(std::mem::take(own));
                *outgoing = Outgoing::Broadcast(Broadcast { to: agent, append, neighbours: vec![neighbour] });
                return;
            }
            Outgoing::Broadcast(Broadcast { to, append, neighbours })
                if *to == agent
                    && neighbours.len() < NEIGHBOURS_MAX
                    && follows(neighbours, &neighbour)
                    && append.as_ref().is_none_or(|own| last_of(own).is_some_and(|end| end >= last)) =>
            {
                return neighbours.push(neighbour);
            }
            _ => {}
        }
    }
    let neighbours = vec![neighbour];
    out.push(Outgoing::Broadcast(Broadcast { to: agent, append: None, neighbours }));
}

/// Whether it goes on where the last one for the same neighbour ends. Where raft sends the same entries
/// again, another broadcast has them.
fn follows(neighbours: &[Neighbour], next: &Neighbour) -> bool {
    let before = neighbours.iter().rfind(|n| n.peer() == next.peer());
    before.is_none_or(|n| n.append.last.index <= next.append.message.index)
}

/// The last entry of an append that has any.
fn last_of(message: &Message) -> Option<u64> {
    let is_append = message.get_msg_type() == MessageType::MsgAppend;
    message.get_entries().last().filter(|_| is_append).map(|entry| entry.index)
}

fn matched<T: Storage>(node: &RawNode<T>, peer: u64) -> u64 {
    node.raft.prs().get(peer).map_or(0, |progress| progress.matched)
}

fn is_voter<T: Storage>(node: &RawNode<T>, peer: u64) -> bool {
    node.raft.prs().conf().voters().contains(peer)
}
