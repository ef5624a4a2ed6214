//! One node: a replica of every group, one log engine, one thread that drives raft.
//!
//! The loop: take what came in, let raft think, gather the `Ready`s of all groups into one batch, submit it,
//! send what a leader may send at once. When the engine says that the batch is durable, send what had to wait
//! for that. The loop waits for a disk in three cases only: a snapshot must be in the state machine before it
//! is in the log, a new group's log must begin before the state machine splits, and what the listener refuses
//! to let go of is tried again.

use crate::group::{Child, Group, PendingRead};
use crate::healing::{Fenced, readable};
use crate::lease::{Moment, Ticks, Timing};
use crate::machine::{Machine, Snapshots, Task, Waiter};
use crate::net::{Peer, listen};
use crate::nursery::{Nursery, Started, TOMBSTONES, keep_what_is_needed};
use crate::region::{Span, Standing, ended_by, place};
use crate::rollback::SaveRollbacks;
use crate::wire::{Dump, Reply, Request, Result, Said, Stats};
use raft::prelude::{ConfState, Message, MessageType, Snapshot};
use raft::{GetEntriesContext, Ready};
use raftwood::raft_rs::{
    BOOTSTRAP, Creation, Persisted, ReadyBatch, ReadyWriter, Tombstones, encode_conf_state, may_send_first,
};
use raftwood::{Engine, ErrorKind, Options, ReadLimit, RegionId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What comes to the thread that drives the groups.
pub enum Input {
    Said(u64, Said),
    Request(Request, Waiter),
    Persisted(raftwood::Result<Vec<Persisted>>),
    Applied(BTreeMap<u64, u64>),
    /// Up to where, and the groups that have been merged.
    AppliedDurably(BTreeMap<u64, u64>, Vec<u64>),
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

/// A read that nobody confirms in this time has failed.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// While a node is down somebody else may be using its port, for a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(10);

pub struct Node {
    pub args: Args,
    pub engine: Engine,
    pub groups: BTreeMap<u64, Group>,
    /// Replicas that have lost something, and those that do not come back.
    pub fenced: BTreeMap<u64, Fenced>,
    pub lost: BTreeSet<u64>,
    writer: ReadyWriter,
    pub peers: HashMap<u64, Peer>,
    pub machine: Sender<Task>,
    pub nursery: Nursery,
    pub rollbacks: Arc<SaveRollbacks>,
    pub cut_off: BTreeSet<u64>,
    started: Moment,
    asked: u64,
    pub stats: Stats,
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

    let everybody = ConfState::from(((1..=args.nodes.len() as u64).collect::<Vec<_>>(), vec![]));
    let stands = machine.stands(1..=args.groups, &encode_conf_state(BOOTSTRAP.index, &everybody))?;
    let mut nursery = Nursery {
        args: args.clone(),
        tombstones: Tombstones::new(&engine, TOMBSTONES),
        engine: engine.clone(),
        inputs: send.clone(),
        tasks,
        snapshots: snapshots.clone(),
        runs: 0,
    };
    // A crash came before the logs of groups that were merged were gone; see `Node::dismiss`.
    for (&id, _) in stands.iter().filter(|(_, s)| s.span.standing == Standing::Gone) {
        let left = readable(&engine.region(RegionId(id)), 0)?;
        rollbacks.save_displaced(RegionId(id), &left)?;
    }
    let Started { groups, fenced, lost } = nursery.start_all(stands)?;
    let replay: u64 = groups.values().map(|g| g.committed().saturating_sub(g.handed)).sum();
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
        fenced,
        lost,
        writer,
        peers,
        machine,
        nursery,
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
                self.ask_for_copies();
                self.tick(now, &mut awake);
            }
            awake = self.handle_ready(std::mem::take(&mut awake))?;
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
            Input::Said(id, Said::Raft(message)) => self.message(id, message, awake)?,
            Input::Said(_, Said::Question(from, question)) => self.answer(from, &question)?,
            Input::Said(id, Said::Answers(from, answers)) => self.take_answers(id, from, answers, awake)?,
            Input::Request(request, waiter) => self.request(request, waiter, awake),
            Input::Persisted(outcome) => {
                for Persisted { region, tag, ready } in outcome? {
                    // The group may be another `RawNode` by now, or gone.
                    let is_of = |g: &&mut Group| g.run == tag;
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
            Input::AppliedDurably(applied, ended) => {
                self.compact(&applied)?;
                self.bury(&ended)?;
            }
            Input::Fetched(id, context) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.node.on_entries_fetched(context);
                    awake.insert(id);
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, id: u64, message: Message, awake: &mut BTreeSet<u64>) -> Result<()> {
        if self.cut_off.contains(&message.from) || self.lost.contains(&id) {
            return Ok(());
        }
        if self.fenced.contains_key(&id) {
            return self.message_to_fenced(id, &message, awake);
        }
        if !self.groups.contains_key(&id) && !self.create(id, &message)? {
            return Ok(());
        }
        let kind = message.get_msg_type();
        let is_vote = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if kind == MessageType::MsgSnapshot && !self.expects(id, &message)? {
            return Ok(());
        }
        let vote_after = self.args.timing.vote_after();
        if let Some(group) = self.groups.get_mut(&id).filter(|g| g.installing.is_none())
            && (!is_vote || Moment::now().is_beyond(group.started, vote_after))
        {
            awake.insert(id);
            // Messages of peers that are no longer, or not yet, in the group are refused here.
            let _ = group.node.step(message);
        }
        Ok(())
    }

    /// Makes the replica that a message is for: its group was split off where this node has not come to yet.
    fn create(&mut self, id: u64, message: &Message) -> Result<bool> {
        let makes = matches!(
            message.get_msg_type(),
            MessageType::MsgRequestVote
                | MessageType::MsgRequestPreVote
                | MessageType::MsgAppend
                | MessageType::MsgHeartbeat
                | MessageType::MsgSnapshot
        );
        if !makes || message.to != self.args.id || RegionId(id) == TOMBSTONES {
            return Ok(false);
        }
        let mut batch = ReadyBatch::new(&self.engine);
        if batch.create(RegionId(id), self.args.id, &self.nursery.tombstones)? == Creation::Gone {
            return Ok(false);
        }
        // What it says waits for a later batch, and so for this one.
        self.submit(batch)?;
        let group = self.nursery.start(id, None, self.started)?;
        self.groups.insert(id, group);
        Ok(true)
    }

    /// Whether a snapshot can be taken: what it holds must not be another group's here. If not, it is sent
    /// again.
    fn expects(&mut self, id: u64, message: &Message) -> Result<bool> {
        let dump: Dump = serde_json::from_slice(&message.get_snapshot().data)?;
        let Some(span) = dump.span else { return Ok(false) };
        if ended_by(id, &span, &self.spans()).is_none() {
            return Ok(false);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.expected = Some(span);
        }
        Ok(true)
    }

    /// What the groups own, or will own once their snapshots are installed.
    pub fn spans(&self) -> BTreeMap<u64, Span> {
        let spans =
            self.groups.values().filter_map(|g| Some((g.id, g.expected.as_ref().or(g.span.as_ref())?)));
        let fenced = self.fenced.iter().map(|(id, fenced)| (*id, &fenced.stand.span));
        spans.chain(fenced).map(|(id, span)| (id, span.clone())).collect()
    }

    /// Ends a group that was merged. Its log may have entries that were never committed, of a leader that was
    /// cut off: no listener is asked about a log that is destroyed, so they are saved here.
    fn dismiss(&mut self, id: u64) -> Result<()> {
        let handed = self.groups.remove(&id).map(|group| group.handed);
        if let Some(applied) = handed.or(self.fenced.remove(&id).map(|f| f.stand.applied.index)) {
            let doubtful = readable(&self.engine.region(RegionId(id)), applied + 1)?;
            self.rollbacks.save_displaced(RegionId(id), &doubtful)?;
        }
        Ok(())
    }

    /// Groups that the state machine has merged, durably: their logs go, and none comes back.
    pub fn bury(&mut self, ended: &[u64]) -> Result<()> {
        let mut batch = ReadyBatch::new(&self.engine);
        for id in ended {
            self.dismiss(*id)?;
            self.nursery.tombstones.destroy(&mut batch, RegionId(*id), self.args.id)?;
            self.stats.buried += 1;
        }
        if !batch.is_empty() {
            self.submit(batch)?;
        }
        Ok(())
    }

    /// What the state machine holds durably need not be kept in the log.
    fn compact(&mut self, durable: &BTreeMap<u64, u64>) -> Result<()> {
        let mut batch = ReadyBatch::new(&self.engine);
        for (&id, &index) in durable.iter().filter(|(id, _)| self.groups.contains_key(id)) {
            let kept = self.args.keep;
            let compacted = keep_what_is_needed(&self.engine, &mut batch, RegionId(id), index, kept)?;
            self.stats.compactions += u64::from(compacted);
        }
        if !batch.is_empty() {
            self.submit(batch)?;
        }
        Ok(())
    }

    pub fn send(&self, group: u64, messages: Vec<Message>) {
        for message in messages {
            if !self.cut_off.contains(&message.to)
                && let Some(peer) = self.peers.get(&message.to)
            {
                peer.send(group, Said::Raft(message));
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
            Request::Write { group, key, .. }
            | Request::Propose { group, key, .. }
            | Request::Read { group, key, .. } => {
                let at = place(group, key);
                let owns = |g: &&Group| g.span.as_ref().is_some_and(|s| s.contains(at));
                match self.groups.values().find(owns).map(|g| g.id) {
                    Some(id) => return self.group_request(id, at, request, waiter, awake),
                    None if self.fenced.values().any(|f| f.stand.span.contains(at)) => {
                        Reply::NotLeader { leader: 0 }
                    }
                    None => Reply::Moved,
                }
            }
            Request::Transfer { group, .. }
            | Request::Demote { group, .. }
            | Request::Promote { group, .. }
            | Request::Split { group, .. }
            | Request::Freeze { group }
            | Request::Absorb { group, .. } => {
                if self.groups.contains_key(&group) {
                    return self.group_request(group, 0, request, waiter, awake);
                }
                match self.nursery.tombstones.is_gone(RegionId(group), self.args.id) {
                    _ if self.fenced.contains_key(&group) => Reply::NotLeader { leader: 0 },
                    Ok(true) => Reply::Gone,
                    _ => Reply::Failed { why: format!("there is no group {group}") },
                }
            }
        };
        let _ = waiter.send(reply);
    }

    fn group_request(
        &mut self,
        id: u64,
        at: u64,
        request: Request,
        waiter: Waiter,
        awake: &mut BTreeSet<u64>,
    ) {
        awake.insert(id);
        if let Some(group) = self.groups.get_mut(&id) {
            group.request(request, at, waiter, &mut self.asked, self.args.id);
        }
    }

    fn stats(&self) -> Stats {
        let leads = self.groups.values().filter(|g| g.is_leader()).map(|g| g.id).collect();
        let configurations = self.groups.values().map(|g| {
            let state = g.node.raft.prs().conf().to_conf_state();
            (g.id, state.voters, state.learners)
        });
        let owned = self.groups.values().filter_map(|g| Some((g.id, g.span.clone()?)));
        Stats {
            leads,
            configurations: configurations.collect(),
            spans: owned.collect(),
            fenced: self.fenced.keys().copied().collect(),
            lost: self.lost.iter().copied().collect(),
            ..self.stats.clone()
        }
    }

    // ---- what raft needs done -----------------------------------------------------------------------------

    /// Returns the groups that are to be looked at again.
    fn handle_ready(&mut self, awake: BTreeSet<u64>) -> Result<BTreeSet<u64>> {
        let mut readies: Vec<(u64, u64, Ready)> = Vec::new();
        let mut ended: Vec<u64> = Vec::new();
        let mut batch = ReadyBatch::new(&self.engine);
        for id in awake {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if !group.node.has_ready() {
                continue;
            }
            let (run, mut ready) = (group.run, group.node.ready());
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
                let dump: Dump = serde_json::from_slice(&snapshot.data)?;
                group.span = dump.span;
                group.handed = snapshot.get_metadata().index;
                group.installing = Some((ready.number(), group.handed));
                // Those that waited for entries that the snapshot covers will not learn what became of them.
                group.proposals.clear();
                self.stats.snapshots_installed += 1;
                // First the state machine, durably, then the log: see the documentation of the adapter.
                self.machine.send(Task::Install { group: id, snapshot, done })?;
                installed.recv()?;
                let spans = self.spans();
                ended.extend(ended_by(id, &spans[&id], &spans).unwrap_or_default());
                ended.iter().try_for_each(|id| self.dismiss(*id))?;
            }
            if let Err(e) = batch.add_as(RegionId(id), run, &ready) {
                if e.kind() != ErrorKind::TooLarge || batch.is_empty() {
                    return Err(e.into());
                }
                self.submit(std::mem::replace(&mut batch, ReadyBatch::new(&self.engine)))?;
                batch.add_as(RegionId(id), run, &ready)?;
            }
            self.send(id, messages);
            readies.push((id, run, ready));
        }
        // It may all come to nothing that is to be written, but raft waits to be notified of each of
        // them, in order.
        if !readies.is_empty() {
            self.submit(batch)?;
        }
        // A snapshot ended them, and is durable in the state machine.
        self.bury(&ended)?;
        let mut again = BTreeSet::new();
        for (id, run, mut ready) in readies {
            // A split or a snapshot of this round may have put another in its place, or none.
            let Some(group) = self.groups.get_mut(&id).filter(|g| g.run == run) else { continue };
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
            let mut children = Vec::new();
            for entry in committed {
                children.extend(group.hand_over(entry, &self.machine, &self.nursery)?);
            }
            group.expected = None;
            group.lease.applied(group.handed, Moment::now());
            let handed = group.handed;
            for read in group.reads.extract_if(.., |r| r.index <= handed) {
                let PendingRead { key, by_lease, waiter, .. } = read;
                self.machine.send(Task::Read { group: id, key, by_lease, waiter })?;
            }
            for child in children {
                again.insert(child.id);
                self.adopt(child, is_leader)?;
            }
        }
        Ok(again)
    }

    /// Starts the group that a split has made, unless it is here by a snapshot and further on.
    fn adopt(&mut self, child: Child, campaigns: bool) -> Result<()> {
        let Child { id, stand, existed } = child;
        let is_here = self.groups.get(&id).is_some_and(|g| g.span.is_some());
        if is_here || self.fenced.contains_key(&id) || self.lost.contains(&id) {
            return Ok(());
        }
        // One that a message made is dropped first, with the messages that it holds back. The new one does
        // not know whom that one has received from.
        self.groups.remove(&id);
        let started = if existed { Moment::now() } else { self.started };
        let mut group = self.nursery.start(id, Some(&stand), started)?;
        // It has just heard from everybody, and need not wait for a timeout.
        if campaigns {
            group.node.campaign()?;
        }
        self.groups.insert(id, group);
        self.stats.splits += 1;
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
