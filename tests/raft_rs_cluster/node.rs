//! A node: one engine on a simulated disk, a replica of every group, and a state machine that is a list.

use super::checker::{Checker, Fact, fact};
use super::machine::Machine;
use super::run::Counts;
use raft::prelude::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, Snapshot};
use raft::{Config, GetEntriesContext, RawNode, Ready, StateRole};
use raftwood::raft_rs::{
    BOOTSTRAP, Persisted, ReadyBatch, ReadyWriter, RegionStorage, decode_conf_state, encode_conf_state,
    may_send_first,
};
use raftwood::random::Rng;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, Engine, EntryId, Health, RegionId, Ticket};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

pub(crate) const NODES: u64 = 3;

/// A group's state: everything that was ever applied.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct State {
    pub(crate) applied: EntryId,
    pub(crate) log: BTreeMap<u64, Fact>,
    conf_state: Vec<u8>,
}

struct Group {
    raft: RawNode<RegionStorage>,
    state: State,
    /// What a crash leaves of the state.
    durable: State,
    /// What raft may send as a snapshot: the state as of some moment.
    offered: Arc<Mutex<State>>,
    held: VecDeque<(u64, Vec<Message>)>,
    installing: Option<(u64, u64)>,
    fetched: Arc<Mutex<Vec<GetEntriesContext>>>,
}

pub(crate) struct Node {
    pub(crate) id: u64,
    seed: u64,
    disk: SimVfs,
    machine: Machine,
    lives: u64,
    /// The call of the disk after which the power goes off.
    doomed_at: Option<u64>,
    /// Whether it goes on while batches are on their way to the disk.
    is_async: bool,
    up: Option<Up>,
    /// The state machines' disk, while the node is down.
    kept: BTreeMap<u64, State>,
}

struct Up {
    engine: Engine,
    groups: BTreeMap<u64, Group>,
    way: Way,
}

/// What was submitted and is not known to be durable.
enum Way {
    /// Oldest first. A node that waits for one does the work.
    Tickets(VecDeque<(Ticket, Vec<Persisted>)>),
    /// So many batches. The engine's threads work meanwhile, and the power goes off under their hands.
    Writer(ReadyWriter, Receiver<raftwood::Result<Vec<Persisted>>>, usize),
}

impl Way {
    fn len(&self) -> usize {
        match self {
            Way::Tickets(tickets) => tickets.len(),
            Way::Writer(_, _, on_their_way) => *on_their_way,
        }
    }
}

/// Whether the engine has threads, which write and sync, and read what is far back. When they are done is not
/// the seed's to say, so not in all runs.
pub(crate) fn has_threads(seed: u64) -> bool {
    seed % 4 == 3
}

/// Whether the groups begin with one voter, and learners.
fn begins_alone(seed: u64) -> bool {
    seed % 5 == 2
}

/// The power went off under the node's hands.
pub(crate) struct PowerCut;

impl Node {
    pub(crate) fn new(id: u64, groups: u64, seed: u64, rng: &mut Rng) -> Node {
        let machine = Machine::random(seed ^ id << 32, rng);
        let voters = if begins_alone(seed) { 1 } else { NODES };
        let everybody: Vec<_> = (1..=NODES).collect();
        let (voters, learners) = everybody.split_at(voters as usize);
        let conf_state = ConfState::from((voters.to_vec(), learners.to_vec()));
        let first = State {
            applied: BOOTSTRAP,
            conf_state: encode_conf_state(BOOTSTRAP.index, &conf_state),
            ..State::default()
        };
        Node {
            id,
            seed,
            disk: machine.disk(),
            machine,
            lives: 0,
            doomed_at: None,
            is_async: rng.one_in(2),
            up: None,
            kept: (1..=groups).map(|g| (g, first.clone())).collect(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Opens the store and starts the groups from what it holds.
    pub(crate) fn start(&mut self, checker: &Checker, counts: &mut Counts) {
        self.lives += 1;
        let mut options = self.machine.options(&self.disk, self.lives);
        if has_threads(self.seed) {
            options = options.background(Background::Threads);
        }
        let engine = options.open("/db").unwrap();
        let mut groups = BTreeMap::new();
        for (&id, state) in &self.kept {
            let region = engine.region(RegionId(id));
            assert_eq!(region.health(), Health::Healthy, "a power cut is not damage");
            let offered = Arc::new(Mutex::new(State::default()));
            let fetched = Arc::new(Mutex::new(Vec::new()));
            let (provider, fetches) = (offered.clone(), fetched.clone());
            let mut storage = RegionStorage::new(&engine, RegionId(id))
                .snapshots(move |_: u64, _: u64| Some(to_snapshot(&provider.lock().unwrap())));
            if has_threads(self.seed) {
                storage = storage.fetch_far(1, move |_, context| fetches.lock().unwrap().push(context));
            }
            let conf_state = decode_conf_state(&state.conf_state).unwrap().1;
            if !region.exists() {
                assert_eq!(storage.bootstrap(&conf_state).unwrap(), BOOTSTRAP);
            }
            counts.beyond += u64::from(state.applied.index > region.last_index());
            storage.recover(state.applied, Some(&conf_state)).unwrap();
            let (hard_state, last) = (storage.hard_state().unwrap(), region.last_index());
            checker.restarts(id, self.id, &hard_state, last, state.applied.index);
            let config = Config {
                id: self.id,
                applied: state.applied.index,
                // Elections are called by the run: raft's own clock draws its chance from elsewhere.
                election_tick: 1_000_000,
                heartbeat_tick: 1,
                max_size_per_msg: 300,
                max_inflight_msgs: 4,
                pre_vote: self.seed.is_multiple_of(2),
                ..Config::default()
            };
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            let raft = RawNode::new(&config, storage, &logger).unwrap();
            let (state, durable) = (state.clone(), state.clone());
            let held = VecDeque::new();
            groups.insert(id, Group { raft, state, durable, offered, held, installing: None, fetched });
        }
        let way = match has_threads(self.seed) {
            false => Way::Tickets(VecDeque::new()),
            true => {
                let (tell, told) = channel();
                let tell = Mutex::new(tell);
                let writer = ReadyWriter::new(&engine, move |persisted| {
                    let _ = tell.lock().unwrap().send(persisted);
                });
                Way::Writer(writer, told, 0)
            }
        };
        self.up = Some(Up { engine, groups, way });
    }

    /// The power goes off, now or at some later call of the disk that has been set before; or the
    /// process is killed there, and what it had written and not synced stays with the operating system,
    /// until the power goes off later.
    pub(crate) fn crash(&mut self, rng: &mut Rng, counts: &mut Counts) {
        let Some(up) = self.up.take() else { return };
        self.kept = up.groups.iter().map(|(&id, g)| (id, g.durable.clone())).collect();
        self.disk.power_off();
        self.doomed_at = None;
        if rng.one_in(5) {
            counts.kills += 1;
            // Nothing reaches the disk any more; but a read on another thread may have held on to the store.
            let _ = up.engine.close();
            drop(up);
            self.disk.halt_after(u64::MAX);
            return;
        }
        counts.power_cuts += 1;
        let policy = match rng.below(4) {
            0 => LossPolicy::LoseAll,
            1 => LossPolicy::KeepAll,
            _ => LossPolicy::Random(rng.next()),
        };
        let disk = self.disk.crash(policy);
        drop(up);
        self.disk = disk;
    }

    /// From now on the power may go off within so many calls of the disk.
    pub(crate) fn doom(&mut self, calls: u64) {
        let at = self.disk.ops() + calls;
        self.disk.halt_after(at);
        self.doomed_at = Some(at);
    }

    /// Whether the power has gone off meanwhile: whatever the node did since counts for nothing.
    pub(crate) fn is_off(&self) -> bool {
        self.doomed_at.is_some_and(|at| self.disk.ops() > at)
    }

    fn group(&mut self, group: u64) -> Option<&mut Group> {
        self.up.as_mut()?.groups.get_mut(&group).filter(|g| g.installing.is_none())
    }

    pub(crate) fn step(&mut self, group: u64, message: Message) {
        if let Some(group) = self.group(group) {
            let _ = group.raft.step(message);
        }
    }

    pub(crate) fn tick(&mut self) {
        for group in self.up.iter_mut().flat_map(|up| up.groups.values_mut()) {
            if group.installing.is_none() {
                group.raft.tick();
            }
        }
    }

    pub(crate) fn campaign(&mut self, group: u64) {
        // raft's own clock asks only a voter, and raft relies on that. It panics where the only voter is
        // asked while entries are on their way to its disk.
        let can = |g: &&mut Group| {
            let log = &g.raft.raft.raft_log;
            g.raft.raft.promotable() && (may_send_first(&g.raft) || log.persisted == log.last_index())
        };
        if let Some(group) = self.group(group).filter(can) {
            let _ = group.raft.campaign();
        }
    }

    pub(crate) fn propose(&mut self, group: u64, data: Vec<u8>) -> bool {
        self.group(group)
            .is_some_and(|g| g.raft.raft.state == StateRole::Leader && g.raft.propose(vec![], data).is_ok())
    }

    pub(crate) fn change_jointly(&mut self, group: u64, change: ConfChangeV2) {
        if let Some(group) = self.group(group) {
            let _ = group.raft.propose_conf_change(vec![], change);
        }
    }

    pub(crate) fn change(&mut self, group: u64, change: ConfChange) {
        if let Some(group) = self.group(group) {
            let _ = group.raft.propose_conf_change(vec![], change);
        }
    }

    pub(crate) fn transfer(&mut self, group: u64, to: u64) {
        if let Some(group) = self.group(group) {
            group.raft.transfer_leader(to);
        }
    }

    /// What a peer that could not be reached, or a snapshot that was lost, would do to the leader.
    pub(crate) fn unreachable(&mut self, group: u64, peer: u64) {
        if let Some(group) = self.group(group) {
            group.raft.report_unreachable(peer);
            group.raft.report_snapshot(peer, raft::SnapshotStatus::Failure);
        }
    }

    /// The state machine makes durable what it has; then the log may drop it.
    pub(crate) fn persist_state(&mut self, group: u64, compact: bool) -> Result<(), PowerCut> {
        let Some(up) = &mut self.up else { return Ok(()) };
        let Some(g) = up.groups.get_mut(&group) else { return Ok(()) };
        g.durable = g.state.clone();
        *g.offered.lock().unwrap() = g.state.clone();
        let index = g.durable.applied.index;
        if compact && index > 2 && g.installing.is_none() {
            let mut batch = ReadyBatch::new(&up.engine);
            // A far gap, or none at all, after it.
            let _ = batch.region(RegionId(group)).compact_through(index - index % 3);
            if !batch.is_empty() {
                batch.write(&up.engine).map_err(|_| PowerCut)?;
            }
        }
        Ok(())
    }

    /// What threads of the engine would do.
    pub(crate) fn upkeep(&mut self) -> Result<(), PowerCut> {
        match &self.up {
            Some(up) => up.engine.tick().map_err(|_| PowerCut),
            None => Ok(()),
        }
    }

    /// Gathers what all groups need done, and does it. Messages go to `out`.
    pub(crate) fn work(
        &mut self,
        checker: &mut Checker,
        out: &mut Vec<(u64, Message)>,
        counts: &mut Counts,
    ) -> Result<(), PowerCut> {
        let (id, is_async) = (self.id, self.is_async);
        let Some(up) = &mut self.up else { return Ok(()) };
        let mut batch = ReadyBatch::new(&up.engine);
        let mut readies: Vec<(u64, Ready)> = Vec::new();
        for (&group, g) in &mut up.groups {
            for context in std::mem::take(&mut *g.fetched.lock().unwrap()) {
                g.raft.on_entries_fetched(context);
            }
            if !g.raft.has_ready() {
                continue;
            }
            let log = &g.raft.raft.raft_log;
            // One that elected itself leads when its vote is durable: nobody learns of it before, and after a
            // crash there it has not voted. Its first entry of the term is written with the vote.
            let is_heard = || may_send_first(&g.raft) || log.term(log.persisted) == Ok(g.raft.raft.term);
            if g.raft.raft.state == StateRole::Leader && is_heard() {
                let has = |index| (index >= log.first_index()).then(|| log.term(index).unwrap());
                checker.leads(group, g.raft.raft.term, id, has);
            }
            let mut ready = g.raft.ready();
            if may_send_first(&g.raft) {
                out.extend(ready.take_messages().into_iter().map(|m| (group, m)));
            }
            if !ready.snapshot().is_empty() {
                // It may be shorter than a log that it discards: what was acknowledged of that was of a
                // leader whom no majority followed.
                checker.overwrites(group, id, ready.snapshot().get_metadata().index);
                g.install(ready.snapshot(), ready.number());
                counts.snapshots += 1;
            }
            if let (Some(first), Some(last)) = (ready.entries().first(), ready.entries().last())
                && up.engine.region(RegionId(group)).last_index() >= first.index
            {
                counts.rollbacks += 1;
                checker.overwrites(group, id, last.index);
            }
            batch.add_as(RegionId(group), self.id, &ready).unwrap();
            readies.push((group, ready));
        }
        if readies.is_empty() {
            return Ok(());
        }
        match is_async {
            false => {
                batch.write(&up.engine).map_err(|_| PowerCut)?;
                let mut commits = ReadyBatch::new(&up.engine);
                for (group, mut ready) in readies {
                    let Some(g) = up.groups.get_mut(&group) else { continue };
                    out.extend(waiting(&mut ready).into_iter().map(|m| (group, m)));
                    g.apply(group, ready.take_committed_entries(), checker);
                    let mut light = g.raft.advance_append(ready);
                    g.finish_installing(u64::MAX);
                    out.extend(light.take_messages().into_iter().map(|m| (group, m)));
                    g.apply(group, light.take_committed_entries(), checker);
                    g.raft.advance_apply_to(g.state.applied.index);
                    if light.commit_index().is_some() {
                        commits.set_hard_state(RegionId(group), &g.raft.raft.hard_state()).unwrap();
                    }
                }
                commits.write(&up.engine).map_err(|_| PowerCut)?;
            }
            true => {
                match &mut up.way {
                    Way::Tickets(tickets) => {
                        tickets.push_back(batch.submit(&up.engine).map_err(|_| PowerCut)?);
                    }
                    Way::Writer(writer, _, on_their_way) => {
                        writer.submit(batch).map_err(|_| PowerCut)?;
                        *on_their_way += 1;
                    }
                }
                for (group, mut ready) in readies {
                    let Some(g) = up.groups.get_mut(&group) else { continue };
                    g.held.push_back((ready.number(), waiting(&mut ready)));
                    g.apply(group, ready.take_committed_entries(), checker);
                    g.raft.advance_append_async(ready);
                    if g.installing.is_none() {
                        g.raft.advance_apply_to(g.state.applied.index);
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for the oldest batch that is on its way.
    pub(crate) fn complete(&mut self, out: &mut Vec<(u64, Message)>) -> Result<(), PowerCut> {
        let Some(up) = &mut self.up else { return Ok(()) };
        let persisted = match &mut up.way {
            Way::Tickets(tickets) => {
                let Some((ticket, persisted)) = tickets.pop_front() else { return Ok(()) };
                ticket.wait().map_err(|_| PowerCut)?;
                persisted
            }
            Way::Writer(_, told, on_their_way) => {
                let Ok(persisted) = told.try_recv() else { return Ok(()) };
                *on_their_way -= 1;
                persisted.map_err(|_| PowerCut)?
            }
        };
        for Persisted { region, tag, ready } in persisted {
            let of_replica = |g: &&mut Group| g.raft.raft.id == tag;
            let Some(g) = up.groups.get_mut(&region.0).filter(of_replica) else { continue };
            g.raft.on_persist_ready(ready);
            g.finish_installing(ready);
            while g.held.front().is_some_and(|h| h.0 <= ready) {
                let messages = g.held.pop_front().map(|h| h.1).unwrap_or_default();
                out.extend(messages.into_iter().map(|m| (region.0, m)));
            }
        }
        Ok(())
    }

    pub(crate) fn has_work(&self) -> bool {
        self.up.as_ref().is_some_and(|up| {
            up.way.len() > 0
                || up.groups.values().any(|g| g.raft.has_ready() || !g.fetched.lock().unwrap().is_empty())
        })
    }

    pub(crate) fn leads(&self, group: u64) -> bool {
        self.up.as_ref().is_some_and(|up| up.groups[&group].raft.raft.state == StateRole::Leader)
    }

    pub(crate) fn term(&self, group: u64) -> u64 {
        self.up.as_ref().map_or(0, |up| up.groups[&group].raft.raft.term)
    }

    /// For people.
    pub(crate) fn describe(&self, group: u64) -> String {
        let Some(up) = &self.up else { return format!("{} is down", self.id) };
        let (g, way) = (&up.groups[&group], up.way.len());
        let (raft, log) = (&g.raft.raft, &g.raft.raft.raft_log);
        let progress: Vec<_> =
            raft.prs().iter().map(|(id, p)| (*id, p.state, p.matched, p.next_idx)).collect();
        format!(
            "{}: {:?} in {}, leader {}, committed {}, persisted {}, applied {}, log {}..={}, installing {:?}, {way} on their way, {:?}, {progress:?}",
            self.id,
            raft.state,
            raft.term,
            raft.leader_id,
            log.committed,
            log.persisted,
            g.state.applied.index,
            log.first_index(),
            log.last_index(),
            g.installing,
            raft.prs().conf().to_conf_state(),
        )
    }

    pub(crate) fn conf_state(&self, group: u64) -> ConfState {
        let of = |up: &Up| up.groups[&group].raft.raft.prs().conf().to_conf_state();
        self.up.as_ref().map(of).unwrap_or_default()
    }

    /// Whether all are voters, and no change is under way.
    pub(crate) fn all_vote(&self, group: u64) -> bool {
        let state = self.conf_state(group);
        state.voters.len() as u64 == NODES && state.voters_outgoing.is_empty()
    }

    pub(crate) fn last_index(&self, group: u64) -> u64 {
        self.up.as_ref().map_or(0, |up| up.engine.region(RegionId(group)).last_index())
    }

    pub(crate) fn state(&self, group: u64) -> Option<&State> {
        self.up.as_ref().map(|up| &up.groups[&group].state)
    }

    /// The log as the store has it.
    pub(crate) fn log(&self, group: u64) -> BTreeMap<u64, Fact> {
        let Some(up) = &self.up else { return BTreeMap::new() };
        let region = up.engine.region(RegionId(group));
        let entries = region.entries(.., raftwood::ReadLimit::NONE).unwrap();
        entries.iter().map(|e| (e.id.index, fact(&raftwood::raft_rs::decode_entry(e).unwrap()))).collect()
    }
}

impl Group {
    fn apply(&mut self, group: u64, entries: Vec<Entry>, checker: &mut Checker) {
        for entry in entries {
            assert_eq!(entry.index, self.state.applied.index + 1, "group {group}: applied out of order");
            let what = fact(&entry);
            checker.applies(group, entry.index, &what, self.raft.raft.term);
            self.state.log.insert(entry.index, what);
            self.state.applied = EntryId::new(entry.term, entry.index);
            let changed = match entry.get_entry_type() {
                EntryType::EntryNormal => continue,
                EntryType::EntryConfChange => {
                    let change: ConfChange = protobuf::Message::parse_from_bytes(&entry.data).unwrap();
                    self.raft.apply_conf_change(&change)
                }
                EntryType::EntryConfChangeV2 => {
                    let change: ConfChangeV2 = protobuf::Message::parse_from_bytes(&entry.data).unwrap();
                    self.raft.apply_conf_change(&change)
                }
            };
            checker.changes(group, self.raft.raft.id, entry.index);
            self.state.conf_state = encode_conf_state(entry.index, &changed.unwrap());
        }
    }

    /// The state machine takes a snapshot, durably, before the log is given it.
    fn install(&mut self, snapshot: &Snapshot, ready: u64) {
        let meta = snapshot.get_metadata();
        self.state = from_bytes(&snapshot.data);
        assert_eq!(self.state.applied, EntryId::new(meta.term, meta.index));
        self.durable = self.state.clone();
        self.installing = Some((ready, meta.index));
    }

    fn finish_installing(&mut self, ready: u64) {
        if let Some((_, index)) = self.installing.take_if(|i| i.0 <= ready) {
            self.raft.advance_apply_to(index);
        }
    }
}

/// What may not leave before the `Ready` is persisted, if it has not left already.
fn waiting(ready: &mut Ready) -> Vec<Message> {
    let mut messages = ready.take_messages();
    messages.extend(ready.take_persisted_messages());
    messages
}

fn to_snapshot(state: &State) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let log: Vec<_> = state.log.iter().collect();
    let id = (state.applied.term, state.applied.index);
    snapshot.set_data(serde_json::to_vec(&(id, log, &state.conf_state)).unwrap().into());
    let meta = snapshot.mut_metadata();
    meta.set_index(state.applied.index);
    meta.set_term(state.applied.term);
    if !state.conf_state.is_empty() {
        meta.set_conf_state(decode_conf_state(&state.conf_state).unwrap().1);
    }
    snapshot
}

fn from_bytes(bytes: &[u8]) -> State {
    type Parts = ((u64, u64), Vec<(u64, Fact)>, Vec<u8>);
    let ((term, index), log, conf_state): Parts = serde_json::from_slice(bytes).unwrap();
    State { applied: EntryId::new(term, index), log: log.into_iter().collect(), conf_state }
}
