//! One node: a replica of every group, one log engine, one thread that drives raft.
//!
//! The loop: take what came in, let raft think, gather the `Ready`s of all groups into one batch, submit it,
//! send what a leader may send at once. When the engine says that the batch is durable, send what had to wait
//! for that. A group that is sent a snapshot is parked meanwhile: its `Ready` goes to the log only when the
//! state machine holds the snapshot durably, and until then raft is notified of nothing. The loop itself
//! waits for a disk in two cases only: a new group's log must begin before the state machine splits, and what
//! the listener refuses to let go of is tried again.

use crate::clocks::{self, Moment, Trust};
use crate::group::{Child, Effect, Group, Installing, Parked, PendingRead};
use crate::healing::{Fenced, readable};
use crate::lease::{Ticks, Timing};
use crate::machine::{Holds, Machine, Snapshots, Task, Waiter};
use crate::net::{Peer, listen};
use crate::nursery::{Nursery, Started, TOMBSTONES, keep_what_is_needed};
use crate::peers::{STRIDE, node_of, peer_of};
use crate::region::{Span, Standing, ended_by};
use crate::replace;
use crate::rollback::SaveRollbacks;
use crate::wire::{Dump, PAYLOAD, Reply, Request, Result, Said, Stats};
use raft::prelude::{ConfState, Message, Snapshot};
use raft::{GetEntriesContext, Ready};
use raftwood::raft_rs::{
    BOOTSTRAP, Persisted, ReadyBatch, ReadyWriter, Tombstones, Zones, encode_conf_state, may_send_first,
};
use raftwood::{Engine, ErrorKind, Options, ReadLimit, RegionId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    /// The state machine holds, durably, the snapshot that this run of the group was sent.
    Installed(u64, u64),
    /// What an agent was given is readable, or cannot be read.
    HandedOn(u64),
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
    /// The zones of all nodes, by id: entries for two nodes of another zone go there once.
    #[arg(long, value_delimiter = ',')]
    pub zones: Vec<String>,
    /// Writes that it proposes are no shorter than this, and do not compress.
    #[arg(long, default_value_t = 0)]
    pub payload: usize,
    /// The clocks that it goes by.
    #[arg(long, value_enum, default_value_t)]
    pub trust: Trust,
}

/// A read that nobody confirms in this time has failed.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// While a node is down somebody else may be using its port, for a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(10);

pub struct Node {
    pub args: Args,
    pub engine: Engine,
    pub groups: BTreeMap<u64, Group>,
    /// Replicas that have lost something, and those that do not come back under their id.
    pub fenced: BTreeMap<u64, Fenced>,
    pub lost: BTreeSet<u64>,
    writer: ReadyWriter,
    pub peers: HashMap<u64, Peer>,
    pub machine: Sender<Task>,
    pub nursery: Nursery,
    pub rollbacks: Arc<SaveRollbacks>,
    pub cut_off: BTreeSet<u64>,
    pub deaf: BTreeSet<u64>,
    pub started: Moment,
    pub asked: u64,
    pub stats: Stats,
}

/// Runs a node until it is killed.
pub fn run(args: Args) -> Result<()> {
    args.timing.check()?;
    clocks::trust(args.trust);
    PAYLOAD.store(args.payload, Ordering::Relaxed);
    // A thread that panics would leave a node that looks alive.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    std::thread::spawn(end_with_the_parent);
    std::fs::create_dir_all(&args.dir)?;
    if args.nodes.len() as u64 >= STRIDE {
        return Err(format!("{} nodes are too many for the ids of their replicas", args.nodes.len()).into());
    }
    let place = (args.id as usize).checked_sub(1).ok_or("no node has the id 0")?;
    let here = args.nodes.get(place).copied().ok_or("no address for this id")?;
    let listener = bind(here)?;
    let (send, inputs) = channel();

    let rollbacks = Arc::new(SaveRollbacks::open(&args.dir.join("discarded"))?);
    let engine =
        Options::new().segment_bytes(4 << 20).listener(rollbacks.clone()).open(args.dir.join("log"))?;
    let machine = Machine::open(&args.dir.join("state.redb"))?;
    let snapshots = Snapshots::default();
    let (tasks, first_tasks) = channel();

    let everybody = ConfState::from(((1..=args.nodes.len() as u64).collect::<Vec<_>>(), vec![]));
    let incarnation = replace::incarnation(&engine, &machine, &rollbacks)?;
    let first = (1..=args.groups).filter(|_| incarnation == 0);
    let stands = machine.stands(first, &encode_conf_state(BOOTSTRAP.index, &everybody))?;
    let (zone_updates, zones) = Zones::shared();
    zone_updates.replace((1..).zip(args.zones.iter().map(String::as_str)));
    let mut nursery = Nursery {
        zones,
        args: args.clone(),
        me: peer_of(args.id, incarnation),
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
    let holds = Arc::new(Holds::default());
    let machine = machine.start(send.clone(), snapshots, holds.clone());
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
    std::thread::spawn(move || listen(listener, send, for_clients, holds));

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
        deaf: BTreeSet::new(),
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
            if !group.is_parked() {
                let ticked = group.node.tick() | group.give_up_snapshots(now);
                group.route.tick(&mut group.node);
                group.agent.tick();
                if ticked || group.is_leader() || !group.agent.is_idle() {
                    awake.insert(*id);
                }
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
            Input::Said(id, Said::Broadcast(broadcast)) => self.broadcast(id, broadcast, awake),
            Input::Said(id, Said::Refusal(refusal)) => {
                let is_heard = !self.cut_off.contains(&node_of(refusal.from)) && !self.deaf.contains(&id);
                if let Some(group) = self.groups.get_mut(&id).filter(|g| is_heard && !g.is_parked()) {
                    group.route.refused(&mut group.node, &refusal);
                    awake.insert(id);
                }
            }
            Input::Said(id, Said::Replaced { old, new }) => {
                if !self.cut_off.contains(&node_of(new)) && !self.deaf.contains(&id) {
                    self.replaced(id, old, new);
                    awake.insert(id);
                }
            }
            Input::HandedOn(id) => _ = awake.insert(id),
            Input::Said(_, Said::Question(from, question)) => self.answer(from, &question)?,
            Input::Said(id, Said::Answers(from, answers)) => self.take_answers(id, from, answers, awake)?,
            Input::Request(request, waiter) => self.request(request, waiter, awake),
            Input::Persisted(outcome) => {
                for Persisted { region, tag, ready } in outcome? {
                    self.persisted(region.0, tag, ready, awake);
                }
            }
            Input::Applied(applied) => {
                for (id, index) in applied {
                    if let Some(group) = self.groups.get_mut(&id).filter(|g| !g.is_parked())
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
                if let Some(group) = self.groups.get_mut(&id).filter(|g| !g.is_parked()) {
                    group.node.on_entries_fetched(context);
                    awake.insert(id);
                }
            }
            Input::Installed(id, run) => self.installed(id, run, awake)?,
        }
        Ok(())
    }

    /// A `Ready` is durable, and all before it.
    fn persisted(&mut self, id: u64, run: u64, ready: u64, awake: &mut BTreeSet<u64>) {
        // The group may be another `RawNode` by now, or gone.
        let is_of = |g: &&mut Group| g.run == run && !g.is_ended();
        let Some(group) = self.groups.get_mut(&id).filter(is_of) else { return };
        if let Some(Installing { parked: Some(parked), .. }) = &mut group.installing {
            parked.persisted = Some(ready);
            return;
        }
        group.node.on_persist_ready(ready);
        if let Some(Installing { index, .. }) = group.installing.take_if(|i| i.number <= ready) {
            group.node.advance_apply_to(index);
        }
        awake.insert(id);
        let mut messages = Vec::new();
        while group.held.front().is_some_and(|h| h.0 <= ready) {
            messages.extend(group.held.pop_front().into_iter().flat_map(|h| h.1));
        }
        self.send(id, messages);
    }

    /// The log's turn, if the replica that was sent the snapshot is still there.
    fn installed(&mut self, id: u64, run: u64, awake: &mut BTreeSet<u64>) -> Result<()> {
        if self.fenced.contains_key(&id) {
            return self.installed_in_fenced(id, run, awake);
        }
        if let Some(group) = self.groups.get_mut(&id).filter(|g| g.run == run)
            && let Some(Installing { parked: Some(parked), since, .. }) = &mut group.installing
        {
            parked.is_in_machine = true;
            self.stats.installs.push((*since, clocks::nanos()));
            awake.insert(id);
        }
        Ok(())
    }

    /// What the groups own once the state machine has done all that it was given, and once the snapshots that
    /// they have been given are installed.
    pub fn spans(&self) -> BTreeMap<u64, Span> {
        let spans =
            self.groups.values().filter_map(|g| Some((g.id, g.expected.as_ref().or(g.span.as_ref())?)));
        let fenced = self.fenced.iter().map(|(id, fenced)| (*id, &fenced.stand.span));
        spans.chain(fenced).map(|(id, span)| (id, span.clone())).collect()
    }

    /// Parks the groups that the state machine ends when it comes to what it was given last.
    pub fn end(&mut self, ended: &[u64]) {
        for id in ended {
            if let Some(group) = self.groups.get_mut(id) {
                group.end();
            }
            if let Some(fenced) = self.fenced.get_mut(id) {
                fenced.stand.span.standing = Standing::Gone;
            }
        }
    }

    /// Ends a group that was merged. Its log may have entries that were never committed, of a leader that was
    /// cut off. The listener would be asked for those above the log's own commit index; what the machine has
    /// applied, which may be less, is known here: they are saved here.
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
            self.nursery.tombstones.destroy(&mut batch, RegionId(*id), self.nursery.me)?;
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
            let compacted = keep_what_is_needed(&self.engine, &mut batch, RegionId(id), index, kept);
            self.stats.compactions += u64::from(compacted);
        }
        if !batch.is_empty() {
            self.submit(batch)?;
        }
        Ok(())
    }

    /// Returns the groups that are to be looked at again.
    fn handle_ready(&mut self, awake: BTreeSet<u64>) -> Result<BTreeSet<u64>> {
        let mut readies: Vec<(u64, u64, Ready)> = Vec::new();
        let mut late: Vec<(u64, u64, u64)> = Vec::new();
        let mut batch = ReadyBatch::new(&self.engine);
        for &id in &awake {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let run = group.run;
            let (ready, messages) = if let Some(parked) = group.unpark() {
                self.stats.snapshots_installed += 1;
                late.extend(parked.persisted.map(|number| (id, run, number)));
                (parked.ready, parked.messages)
            } else if group.is_parked() || !group.node.has_ready() {
                continue;
            } else {
                let mut ready = group.node.ready();
                // A leader's messages need not wait for its own disk, unless nobody else elected it.
                let mut messages = ready.take_messages();
                let mut held = ready.take_persisted_messages();
                if !may_send_first(&group.node) {
                    held.splice(..0, std::mem::take(&mut messages));
                }
                group.held.push_back((ready.number(), held));
                if !ready.snapshot().is_empty() {
                    self.park(id, ready, messages)?;
                    continue;
                }
                (ready, messages)
            };
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
        // What was written can be handed on, and what was acknowledged may let others follow.
        for id in awake {
            self.hand_on(id);
            self.send(id, Vec::new());
        }
        let mut again = BTreeSet::new();
        for (id, run, mut ready) in readies {
            // A split of this round may have put another in its place, a snapshot or a merge have ended it.
            let is_of = |g: &&mut Group| g.run == run && !g.is_ended();
            let Some(group) = self.groups.get_mut(&id).filter(is_of) else { continue };
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
            let (mut children, mut merged) = (Vec::new(), Vec::new());
            for entry in committed {
                match group.hand_over(entry, &self.machine, &self.nursery)? {
                    Some(Effect::Split(child)) => children.push(child),
                    Some(Effect::Merged(source)) => merged.push(source),
                    Some(Effect::Exchanged) => self.stats.replaced += u64::from(is_leader),
                    None => {}
                }
            }
            group.expected = None;
            group.lease.applied(group.handed, Moment::now());
            let handed = group.handed;
            for read in group.reads.extract_if(.., |r| r.index <= handed) {
                let PendingRead { key, by_lease, waiter, .. } = read;
                self.machine.send(Task::Read { group: id, key, by_lease, waiter })?;
            }
            self.end(&merged);
            for child in children {
                again.insert(child.id);
                self.adopt(child, is_leader)?;
            }
        }
        for (id, run, number) in late {
            self.persisted(id, run, number, &mut again);
        }
        Ok(again)
    }

    /// First the state machine, durably, then the log: see the documentation of the adapter. The `Ready`
    /// waits until the state machine says so, and nothing else of the group goes on.
    fn park(&mut self, id: u64, ready: Ready, messages: Vec<Message>) -> Result<()> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let snapshot: Snapshot = ready.snapshot().clone();
        let (number, index) = (ready.number(), snapshot.get_metadata().index);
        // The listener is asked for what an append or a truncation discards. What a snapshot displaces may
        // lie below its index: only the application knows how far the old log was committed.
        let region = self.engine.region(RegionId(id));
        let doubtful = region.entries_clamped(group.handed + 1.., ReadLimit::NONE)?;
        self.rollbacks.save_displaced(RegionId(id), &doubtful)?;
        let dump: Dump = serde_json::from_slice(&snapshot.data)?;
        // What the state machine is given, in this order, is what the groups own here from now on.
        (group.span, group.expected, group.handed) = (dump.span, None, index);
        let parked = Parked { ready, messages, persisted: None, is_in_machine: false };
        group.installing = Some(Installing { number, index, parked: Some(parked), since: clocks::nanos() });
        // Those that waited for entries that the snapshot covers will not learn what became of them.
        group.proposals.clear();
        self.machine.send(Task::Install { group: id, run: group.run, snapshot })?;
        let spans = self.spans();
        let ended = spans.get(&id).and_then(|span| ended_by(id, span, &spans));
        self.end(&ended.unwrap_or_default());
        Ok(())
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
    pub fn submit(&mut self, mut batch: ReadyBatch) -> Result<()> {
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
