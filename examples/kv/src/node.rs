//! One node: a replica of every group, one log engine, one thread that drives raft.
//!
//! The loop: take what came in, let raft think, gather the `Ready`s of all groups into one batch, submit it,
//! send what a leader may send at once. When the engine says that the batch is durable, send what had to wait
//! for that. The loop waits for a disk in two cases only: a snapshot must be in the state machine before it
//! is in the log, and what the listener refuses to let go of is tried again.

use crate::lease::{Lease, Moment, Ticks, Timing};
use crate::machine::{Machine, Snapshots, Task, Waiter};
use crate::net::{Peer, listen};
use crate::rollback::SaveRollbacks;
use crate::wire::{Command, Reply, Request, Result, Stats, Via};
use raft::prelude::{
    ConfChange, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType, Snapshot,
};
use raft::{Config, GetEntriesContext, ProgressState, RawNode, Ready, SnapshotStatus, StateRole};
use raftwood::raft_rs::{
    BOOTSTRAP, Persisted, ReadyBatch, ReadyWriter, RegionStorage, decode_conf_state, encode_conf_state,
    may_send_first,
};
use raftwood::{Engine, ErrorKind, Options, ReadLimit, RegionId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What comes to the thread that drives the groups.
pub enum Input {
    Message(u64, Message),
    Request(Request, Waiter),
    Persisted(raftwood::Result<Vec<Persisted>>),
    Applied(BTreeMap<u64, u64>),
    AppliedDurably(BTreeMap<u64, u64>),
    Fetched(u64, GetEntriesContext),
}

/// The arguments of a node.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// 1, 2 or 3.
    #[arg(long)]
    pub id: u64,
    #[arg(long)]
    pub dir: PathBuf,
    /// Addresses of all nodes, this one included, by id.
    #[arg(long, value_delimiter = ',')]
    pub nodes: Vec<SocketAddr>,
    #[arg(long)]
    pub groups: u64,
    /// Entries that a log keeps before it is compacted.
    #[arg(long, default_value_t = 40)]
    pub keep: u64,
    #[command(flatten)]
    pub timing: Timing,
}

/// Of what is compacted, so many entries stay for followers that are a little behind.
const SLACK: u64 = 10;

/// A read that nobody confirms in this time has failed.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// A snapshot that a follower has not answered in this time was lost on its way.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);

/// While a node is down somebody else may be using its port, for a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(10);

struct PendingRead {
    index: u64,
    key: u64,
    by_lease: bool,
    waiter: Waiter,
}

struct Asked {
    at: Moment,
    key: u64,
    waiter: Waiter,
}

struct Group {
    id: u64,
    node: RawNode<RegionStorage>,
    /// Proposals by index: their term, and who waits.
    proposals: BTreeMap<u64, (u64, Waiter)>,
    /// Reads whose index raft is finding out.
    asked: HashMap<Vec<u8>, Asked>,
    /// Reads that wait until their index has been handed to the state machine.
    reads: Vec<PendingRead>,
    /// Messages of a follower that wait for their `Ready` to be durable.
    held: VecDeque<(u64, Vec<Message>)>,
    /// The last entry that was handed to the state machine.
    handed: u64,
    /// A snapshot on its way into the log: the number of its `Ready`, and its index. Until it is there, raft
    /// would look for entries that are gone if it had to campaign, so it is notified of nothing.
    installing: Option<(u64, u64)>,
    /// Followers that were sent a snapshot, and when.
    sent: BTreeMap<u64, Moment>,
    lease: Lease,
}

impl Group {
    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }
}

pub struct Node {
    args: Args,
    engine: Engine,
    groups: BTreeMap<u64, Group>,
    writer: ReadyWriter,
    peers: HashMap<u64, Peer>,
    machine: Sender<Task>,
    rollbacks: Arc<SaveRollbacks>,
    cut_off: BTreeSet<u64>,
    started: Moment,
    asked: u64,
    stats: Stats,
}

/// Runs a node until it is killed.
pub fn run(args: Args) -> Result<()> {
    args.timing.check()?;
    // A thread that panics would leave a node that looks alive.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    std::thread::spawn(end_with_the_parent);
    std::fs::create_dir_all(&args.dir)?;
    let here = args.nodes.get(args.id as usize - 1).copied().ok_or("no address for this id")?;
    let listener = bind(here)?;
    let (send, inputs) = channel();

    let rollbacks = Arc::new(SaveRollbacks::open(&args.dir.join("discarded"))?);
    let engine =
        Options::new().segment_bytes(4 << 20).listener(rollbacks.clone()).open(args.dir.join("log"))?;
    let machine = Machine::open(&args.dir.join("state.redb"))?;
    let snapshots = Snapshots::default();
    let (tasks, first_tasks) = channel();

    let mut groups = BTreeMap::new();
    let mut replay = 0;
    for id in 1..=args.groups {
        let group = start_group(&args, &engine, &machine, id, &send, &tasks, &snapshots)?;
        replay += group.committed() - group.handed;
        groups.insert(id, group);
    }
    let machine = machine.start(send.clone(), snapshots);
    // Snapshots may be asked for from within raft, on whichever thread: through a channel that
    // outlives the start.
    let forward = machine.clone();
    std::thread::spawn(move || {
        for task in first_tasks {
            if forward.send(task).is_err() {
                return;
            }
        }
    });

    let persisted = send.clone();
    let writer = ReadyWriter::new(&engine, move |outcome| {
        let _ = persisted.send(Input::Persisted(outcome));
    });
    let others = (1..).zip(&args.nodes).filter(|(id, _)| *id != args.id);
    let peers = others.map(|(id, addr)| (id, Peer::new(*addr))).collect();
    let for_clients = rollbacks.clone();
    std::thread::spawn(move || listen(listener, send, for_clients));

    // The parent waits for this line, and reads from it how much is being applied again.
    println!("ready {replay}");
    std::io::stdout().flush()?;
    let node = Node {
        args,
        engine,
        groups,
        writer,
        peers,
        machine,
        rollbacks,
        cut_off: BTreeSet::new(),
        started: Moment::now(),
        asked: Moment::now().boot.as_nanos() as u64,
        stats: Stats::default(),
    };
    node.run(&inputs)
}

/// Standard input is a pipe that the parent holds: it ends when the parent does, however that came about.
fn end_with_the_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

fn bind(here: SocketAddr) -> Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(here) {
            Err(e) if e.kind() == IoErrorKind::AddrInUse && began.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(format!("{here}: {e}").into()),
            Ok(listener) => return Ok(listener),
        }
    }
}

fn start_group(
    args: &Args,
    engine: &Engine,
    machine: &Machine,
    id: u64,
    send: &Sender<Input>,
    tasks: &Sender<Task>,
    snapshots: &Snapshots,
) -> Result<Group> {
    let everybody = ConfState::from(((1..=args.nodes.len() as u64).collect::<Vec<_>>(), vec![]));
    let (applied, conf_state) = machine.start_group(id, &encode_conf_state(BOOTSTRAP.index, &everybody))?;
    let (fetched, tasks, snapshots) = (send.clone(), tasks.clone(), snapshots.clone());
    let region = engine.region(RegionId(id));
    let storage = RegionStorage::new(engine, RegionId(id))
        .fetch_far(1, move |region, context| {
            let _ = fetched.send(Input::Fetched(region.0, context));
        })
        .snapshots(move |request_index: u64, _to: u64| {
            let least = request_index.max(region.first_index().saturating_sub(1));
            let made =
                snapshots.lock().unwrap().get(&id).filter(|s| s.get_metadata().index >= least).cloned();
            if made.is_none() {
                let _ = tasks.send(Task::Make { group: id });
            }
            made
        });
    if !engine.region(RegionId(id)).exists() {
        storage.bootstrap(&everybody)?;
    }
    // The state machine may be ahead of the log: it took a snapshot, and the crash came before the
    // log had a trace of it.
    storage.recover(applied, Some(&decode_conf_state(&conf_state)?.1))?;
    let config = Config {
        id: args.id,
        applied: applied.index,
        election_tick: args.timing.election_ticks as usize,
        heartbeat_tick: args.timing.heartbeat_ticks as usize,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    };
    Ok(Group {
        id,
        node: RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!()))?,
        proposals: BTreeMap::new(),
        asked: HashMap::new(),
        reads: Vec::new(),
        held: VecDeque::new(),
        handed: applied.index,
        installing: None,
        sent: BTreeMap::new(),
        lease: Lease::new(&args.timing),
    })
}

impl Node {
    fn run(mut self, inputs: &Receiver<Input>) -> Result<()> {
        let mut ticks = Ticks::new(&self.args.timing, Moment::now());
        let mut awake: BTreeSet<u64> = self.groups.keys().copied().collect();
        loop {
            match inputs.recv_timeout(ticks.wait(Moment::now())) {
                Ok(input) => {
                    self.take(input, &mut awake)?;
                    for input in inputs.try_iter().take(4096) {
                        self.take(input, &mut awake)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now = Moment::now();
            // Never two at once: the lease counts on a tick being no shorter than it says.
            if ticks.is_due(now) {
                self.tick(now, &mut awake);
            }
            self.handle_ready(std::mem::take(&mut awake))?;
        }
    }

    fn tick(&mut self, now: Moment, awake: &mut BTreeSet<u64>) {
        for (id, group) in &mut self.groups {
            if group.installing.is_none() && group.node.tick() {
                awake.insert(*id);
            }
            if group.give_up_snapshots(now) {
                awake.insert(*id);
            }
            group.asked.retain(|_, asked| {
                let patient = now.is_within(asked.at, READ_PATIENCE);
                if !patient {
                    let _ = asked.waiter.send(Reply::Failed { why: "nobody confirmed it".to_string() });
                }
                patient
            });
        }
    }

    fn take(&mut self, input: Input, awake: &mut BTreeSet<u64>) -> Result<()> {
        match input {
            Input::Message(id, message) => {
                let is_vote = matches!(
                    message.get_msg_type(),
                    MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                );
                let may_vote = || Moment::now().is_beyond(self.started, self.args.timing.vote_after());
                if self.cut_off.contains(&message.from) || is_vote && !may_vote() {
                    return Ok(());
                }
                if let Some(group) = self.groups.get_mut(&id).filter(|g| g.installing.is_none()) {
                    awake.insert(id);
                    // Messages of peers that are no longer, or not yet, in the group are refused here.
                    let _ = group.node.step(message);
                }
            }
            Input::Request(request, waiter) => self.request(request, waiter, awake),
            Input::Persisted(outcome) => {
                for Persisted { region, tag, ready } in outcome? {
                    // These replicas stay for as long as the node runs. Where they come and go,
                    // this is what keeps them apart.
                    let is_of = |g: &&mut Group| g.node.raft.id == tag;
                    let Some(group) = self.groups.get_mut(&region.0).filter(is_of) else { continue };
                    group.node.on_persist_ready(ready);
                    if let Some((_, index)) = group.installing.take_if(|i| i.0 <= ready) {
                        group.node.advance_apply_to(index);
                    }
                    awake.insert(region.0);
                    let mut messages = Vec::new();
                    while group.held.front().is_some_and(|h| h.0 <= ready) {
                        messages.extend(group.held.pop_front().into_iter().flat_map(|h| h.1));
                    }
                    self.send(region.0, messages);
                }
            }
            Input::Applied(applied) => {
                for (id, index) in applied {
                    if let Some(group) = self.groups.get_mut(&id)
                        && index > group.node.raft.raft_log.applied()
                    {
                        group.node.advance_apply_to(index);
                        awake.insert(id);
                    }
                }
            }
            Input::AppliedDurably(applied) => self.compact(&applied)?,
            Input::Fetched(id, context) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.node.on_entries_fetched(context);
                    awake.insert(id);
                }
            }
        }
        Ok(())
    }

    /// What the state machine holds durably need not be kept in the log.
    fn compact(&mut self, applied: &BTreeMap<u64, u64>) -> Result<()> {
        let mut batch = ReadyBatch::new(&self.engine);
        for (&id, &index) in applied {
            let first = self.engine.region(RegionId(id)).first_index();
            if index >= first + self.args.keep {
                batch.region(RegionId(id)).compact_through(index - SLACK)?;
                self.stats.compactions += 1;
            }
        }
        if !batch.is_empty() {
            self.submit(batch)?;
        }
        Ok(())
    }

    fn send(&self, group: u64, messages: Vec<Message>) {
        for message in messages {
            if !self.cut_off.contains(&message.to)
                && let Some(peer) = self.peers.get(&message.to)
            {
                peer.send(group, message);
            }
        }
    }

    // ---- requests -----------------------------------------------------------------------------------------

    fn request(&mut self, request: Request, waiter: Waiter, awake: &mut BTreeSet<u64>) {
        let reply = match request {
            Request::Partition { from } => {
                self.cut_off = from.into_iter().collect();
                Reply::Done
            }
            Request::Stats => Reply::Stats(self.stats()),
            Request::Dump { group } => {
                let _ = self.machine.send(Task::Dump { group, waiter });
                return;
            }
            // It never comes here.
            Request::FailRollbacks { .. } => Reply::Done,
            Request::Write { group, .. }
            | Request::Propose { group, .. }
            | Request::Read { group, .. }
            | Request::Transfer { group, .. }
            | Request::Demote { group, .. }
            | Request::Promote { group, .. } => {
                awake.insert(group);
                match self.groups.get_mut(&group) {
                    Some(g) => {
                        g.request(request, waiter, &mut self.asked, self.args.id);
                        return;
                    }
                    None => Reply::Failed { why: format!("there is no group {group}") },
                }
            }
        };
        let _ = waiter.send(reply);
    }

    fn stats(&self) -> Stats {
        let leads = self.groups.values().filter(|g| g.is_leader()).map(|g| g.id).collect();
        let configurations = self.groups.values().map(|g| {
            let state = g.node.raft.prs().conf().to_conf_state();
            (g.id, state.voters, state.learners)
        });
        Stats { leads, configurations: configurations.collect(), ..self.stats.clone() }
    }

    // ---- what raft needs done -----------------------------------------------------------------------------

    fn handle_ready(&mut self, awake: BTreeSet<u64>) -> Result<()> {
        let mut readies: Vec<(u64, Ready)> = Vec::new();
        let mut batch = ReadyBatch::new(&self.engine);
        for id in awake {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if !group.node.has_ready() {
                continue;
            }
            let mut ready = group.node.ready();
            // A leader's messages need not wait for its own disk, unless nobody else elected it.
            let mut messages = ready.take_messages();
            let mut held = ready.take_persisted_messages();
            if !may_send_first(&group.node) {
                held.splice(..0, std::mem::take(&mut messages));
            }
            group.held.push_back((ready.number(), held));
            if !ready.snapshot().is_empty() {
                let (done, installed) = channel();
                let snapshot: Snapshot = ready.snapshot().clone();
                // The listener is notified of what an append or a truncation discards. What a
                // snapshot displaces is the application's to look after, for only it knows how
                // far the old log was committed.
                let region = self.engine.region(RegionId(id));
                let doubtful = region.entries_clamped(group.handed + 1.., ReadLimit::NONE)?;
                self.rollbacks.save_displaced(RegionId(id), &doubtful)?;
                group.handed = snapshot.get_metadata().index;
                group.installing = Some((ready.number(), group.handed));
                // Those that waited for entries that the snapshot covers will not learn what became of them.
                group.proposals.clear();
                self.stats.snapshots_installed += 1;
                // First the state machine, durably, then the log: see the documentation of the adapter.
                self.machine.send(Task::Install { group: id, snapshot, done })?;
                installed.recv()?;
            }
            if let Err(e) = batch.add_as(RegionId(id), self.args.id, &ready) {
                if e.kind() != ErrorKind::TooLarge || batch.is_empty() {
                    return Err(e.into());
                }
                self.submit(std::mem::replace(&mut batch, ReadyBatch::new(&self.engine)))?;
                batch.add_as(RegionId(id), self.args.id, &ready)?;
            }
            self.send(id, messages);
            readies.push((id, ready));
        }
        // It may all come to nothing that is to be written, but raft waits to be notified of each of
        // them, in order.
        if !readies.is_empty() {
            self.submit(batch)?;
        }
        for (id, mut ready) in readies {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let (committed, read_states) = (ready.take_committed_entries(), ready.take_read_states());
            group.node.advance_append_async(ready);
            let (term, is_leader) = (group.node.raft.term, group.is_leader());
            if is_leader {
                group.lease.committed(term, group.committed());
            }
            for read in read_states {
                if let Some(asked) = group.asked.remove(&read.request_ctx) {
                    if is_leader {
                        group.lease.confirmed(term, asked.at);
                    }
                    let (key, waiter) = (asked.key, asked.waiter);
                    group.reads.push(PendingRead { index: read.index, key, by_lease: false, waiter });
                }
            }
            for entry in committed {
                group.hand_over(entry, &self.machine)?;
            }
            group.lease.applied(group.handed, Moment::now());
            let handed = group.handed;
            for read in group.reads.extract_if(.., |r| r.index <= handed) {
                let PendingRead { key, by_lease, waiter, .. } = read;
                self.machine.send(Task::Read { group: id, key, by_lease, waiter })?;
            }
        }
        Ok(())
    }

    /// Writes a batch. A refusal of the listener is waited out: raft cannot take a `Ready` back.
    fn submit(&mut self, mut batch: ReadyBatch) -> Result<()> {
        loop {
            match self.writer.submit(batch) {
                Ok(()) => return Ok(()),
                Err(e) if e.error().is_retryable() => {
                    self.stats.refused += u64::from(e.kind() == ErrorKind::Refused);
                    let why = e.to_string();
                    batch = e.into_batch().ok_or(why)?;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Group {
    /// Raft sends nothing else to a follower that it has sent a snapshot, until it is notified of what became
    /// of it. No network reports all that it loses, so after a while it is taken for lost. True if one was.
    fn give_up_snapshots(&mut self, now: Moment) -> bool {
        let followers = self.node.raft.prs().iter();
        let waiting = followers.filter(|(_, p)| self.is_leader() && p.state == ProgressState::Snapshot);
        let waiting: BTreeSet<u64> = waiting.map(|(id, _)| *id).collect();
        self.sent.retain(|id, _| waiting.contains(id));
        for id in waiting {
            self.sent.entry(id).or_insert(now);
        }
        let is_lost = |at: Moment| !now.is_within(at, SNAPSHOT_PATIENCE);
        let lost: Vec<u64> = self.sent.iter().filter(|(_, at)| is_lost(**at)).map(|(id, _)| *id).collect();
        for id in &lost {
            self.sent.remove(id);
            self.node.report_snapshot(*id, SnapshotStatus::Failure);
        }
        !lost.is_empty()
    }

    fn request(&mut self, request: Request, waiter: Waiter, asked: &mut u64, id: u64) {
        let (term, at) = (self.node.raft.term, Moment::now());
        let by_index = matches!(request, Request::Read { via: Via::Index, .. });
        if self.installing.is_some() || !self.is_leader() && !by_index {
            let _ = waiter.send(Reply::NotLeader { leader: self.node.raft.leader_id });
            return;
        }
        let outcome = match request {
            Request::Write { key, value, .. } => {
                self.propose(Command::Write { key, value }, Some(&waiter), at)
            }
            Request::Read { key, via: Via::Log, .. } => {
                self.propose(Command::Read { key }, Some(&waiter), at)
            }
            Request::Propose { key, value, .. } => {
                self.propose(Command::Write { key, value }, None, at).map(|()| drop(waiter.send(Reply::Done)))
            }
            Request::Read { key, via, .. } => {
                let covered = self.lease.holds(term, at) && self.node.raft.commit_to_current_term();
                if via == Via::Lease && covered {
                    let index = self.committed();
                    self.reads.push(PendingRead { index, key, by_lease: true, waiter: waiter.clone() });
                } else {
                    // Unique over all nodes and all their runs.
                    *asked += 1;
                    let context = [id.to_le_bytes(), asked.to_le_bytes()].concat();
                    self.node.read_index(context.clone());
                    self.asked.insert(context, Asked { at, key, waiter: waiter.clone() });
                }
                Ok(())
            }
            Request::Transfer { to, .. } if to == id => Err(raft::Error::ProposalDropped),
            Request::Transfer { to, .. } => {
                self.lease.give_up(term);
                self.node.transfer_leader(to);
                let _ = waiter.send(Reply::Done);
                Ok(())
            }
            Request::Demote { node, .. } => self.change(ConfChangeType::AddLearnerNode, node, &waiter),
            Request::Promote { node, .. } => self.change(ConfChangeType::AddNode, node, &waiter),
            _ => Ok(()),
        };
        if let Err(e) = outcome {
            let _ = waiter.send(Reply::Failed { why: e.to_string() });
        }
    }

    fn propose(&mut self, command: Command, waiter: Option<&Waiter>, at: Moment) -> raft::Result<()> {
        self.node.propose(vec![], command.encode())?;
        let (term, index) = (self.node.raft.term, self.node.raft.raft_log.last_index());
        self.lease.proposed(term, index, at);
        if let Some(waiter) = waiter {
            self.proposals.insert(index, (term, waiter.clone()));
        }
        Ok(())
    }

    fn change(&mut self, kind: ConfChangeType, node: u64, waiter: &Waiter) -> raft::Result<()> {
        let mut change = ConfChange::default();
        change.set_change_type(kind);
        change.set_node_id(node);
        // Raft takes one at a time. Of a second it would make an empty entry, and committing that
        // changes nothing.
        if self.node.raft.has_pending_conf() {
            return Err(raft::Error::ProposalDropped);
        }
        self.node.propose_conf_change(vec![], change)?;
        let (term, index) = (self.node.raft.term, self.node.raft.raft_log.last_index());
        self.proposals.insert(index, (term, waiter.clone()));
        Ok(())
    }

    /// Gives a committed entry to the state machine, and a change of the configuration to raft.
    fn hand_over(&mut self, entry: Entry, machine: &Sender<Task>) -> Result<()> {
        self.handed = entry.index;
        let waiter = match self.proposals.remove(&entry.index) {
            Some((term, waiter)) if term == entry.term => Some(waiter),
            // Another leader's entry stands where ours stood: ours can never be committed.
            Some((_, waiter)) => {
                let _ =
                    waiter.send(Reply::Failed { why: "another leader's entry took its place".to_string() });
                None
            }
            None => None,
        };
        // Raft learns of a change of the configuration when it is applied; the state machine keeps the
        // outcome, so that after a restart both stand at the same entry.
        let changed = match entry.get_entry_type() {
            EntryType::EntryNormal => None,
            EntryType::EntryConfChange => {
                let change: ConfChange = protobuf::Message::parse_from_bytes(&entry.data)?;
                Some(self.node.apply_conf_change(&change)?)
            }
            EntryType::EntryConfChangeV2 => {
                let change: ConfChangeV2 = protobuf::Message::parse_from_bytes(&entry.data)?;
                Some(self.node.apply_conf_change(&change)?)
            }
        };
        let conf_state = changed.map(|state| encode_conf_state(entry.index, &state));
        machine.send(Task::Apply { group: self.id, entry, conf_state, waiter })?;
        Ok(())
    }
}
