//! A hundred splits and a hundred merges in one store on a simulated disk, with a crash between any two of
//! their steps, over the code of `kv`: its state machine, and what it does to the logs. Each group has one
//! voter here, so that nothing but the disk decides what comes next.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "support/platter.rs"]
mod platter;

use platter::Platter;
use raft::prelude::{ConfState, Entry, HardState, Message, MessageType};
use raft::{Config, RawNode, StateRole};
use raftwood::raft_rs::{BOOTSTRAP, Creation, ReadyBatch, RegionStorage, Tombstones, encode_conf_state};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Background, Engine, EntryId, Options, RegionId};
use raftwood_kv::machine::{Machine, Stand, Task};
use raftwood_kv::nursery::{TOMBSTONES, begin_at, begin_child, keep_what_is_needed};
use raftwood_kv::region::{Change, KEYS, Outcome, Span, Standing};
use raftwood_kv::wire::{Command, Dump, Reply};
use redb::Database;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

const ME: u64 = 1;
const HOMES: u64 = 5;
/// The vote that a message from a replica elsewhere brings about, before the split is applied here.
const VOTE: (u64, u64) = (9, 2);

/// The steps of a split and of a merge: a crash comes after one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The entry is in the log and committed.
    SplitCommitted,
    /// The new group's log has begun.
    ChildBegun,
    /// The state machine has applied it, and would forget it in a crash.
    SplitApplied,
    SplitDurable,
    /// The new group runs, and its log has a first entry.
    ChildRuns,
    SourceFrozen,
    MergeCommitted,
    MergeApplied,
    MergeDurable,
    /// The source's log is gone, with a tombstone.
    SourceGone,
    /// All logs are as short as they may be.
    Compacted,
}

const SPLIT: [Step; 6] = [
    Step::SplitCommitted,
    Step::ChildBegun,
    Step::SplitApplied,
    Step::SplitDurable,
    Step::ChildRuns,
    Step::Compacted,
];
const MERGE: [Step; 6] = [
    Step::SourceFrozen,
    Step::MergeCommitted,
    Step::MergeApplied,
    Step::MergeDurable,
    Step::SourceGone,
    Step::Compacted,
];

/// The crash, on its way up.
#[derive(Debug)]
struct Crashed;

struct Group {
    node: RawNode<RegionStorage>,
    span: Span,
}

struct Store {
    disk: SimVfs,
    platter: Platter,
    engine: Engine,
    tombstones: Tombstones,
    machine: Machine,
    groups: BTreeMap<u64, Group>,
    /// Where the state machine stands durably.
    durable: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, u64>,
    ended: Vec<u64>,
    /// After which step it crashes.
    crash_after: Option<Step>,
    /// What the last entry of this thread was answered.
    answer: Option<Reply>,
}

/// What ought to be there.
#[derive(Default)]
struct Model {
    /// Key to version and value.
    held: BTreeMap<u64, (u64, u64)>,
    /// Groups that were merged.
    gone: Vec<u64>,
    values: u64,
}

fn conf_state() -> ConfState {
    ConfState::from((vec![ME], vec![]))
}

impl Store {
    fn open(disk: SimVfs, platter: Platter) -> Store {
        let options = Options::new().vfs(Arc::new(disk.clone())).background(Background::Manual);
        let engine = options.segment_bytes(1 << 20).open("/store").unwrap();
        let db = Database::builder().create_with_backend(platter.clone()).unwrap();
        let machine = Machine::over(db).unwrap();
        let tombstones = Tombstones::new(&engine, TOMBSTONES);
        let first = encode_conf_state(BOOTSTRAP.index, &conf_state());
        let stands = machine.stands(1..=HOMES, &first).unwrap();
        begin_at(&engine, &tombstones, ME, &stands).unwrap();
        let durable: BTreeMap<u64, u64> = stands.iter().map(|(id, s)| (*id, s.applied.index)).collect();
        let (applied, groups) = (durable.clone(), BTreeMap::new());
        let mut store = Store {
            disk,
            platter,
            engine,
            tombstones,
            machine,
            groups,
            durable,
            applied,
            ended: Vec::new(),
            crash_after: None,
            answer: None,
        };
        for (id, stand) in stands {
            if stand.span.standing != Standing::Gone {
                store.start(id, &stand);
            }
        }
        store
    }

    fn crash(self, policy: LossPolicy) -> Store {
        let (disk, platter) = (self.disk.crash(policy), self.platter.crash(policy));
        drop(self);
        Store::open(disk, platter)
    }

    fn pass(&self, step: Step) -> Result<(), Crashed> {
        if self.crash_after == Some(step) { Err(Crashed) } else { Ok(()) }
    }

    fn storage(&self, id: u64) -> RegionStorage {
        RegionStorage::new(&self.engine, RegionId(id))
    }

    fn start(&mut self, id: u64, stand: &Stand) {
        let storage = self.storage(id);
        storage.recover(stand.applied, Some(&conf_state())).unwrap();
        let config = Config { id: ME, applied: stand.applied.index, ..Config::default() };
        let node = RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!())).unwrap();
        self.groups.insert(id, Group { node, span: stand.span.clone() });
    }

    /// Everybody leads, and what was committed before is applied again.
    fn settle(&mut self) -> Result<(), Crashed> {
        while let Some(id) =
            self.groups.iter().find(|(_, g)| g.node.raft.state != StateRole::Leader).map(|(id, _)| *id)
        {
            self.groups.get_mut(&id).unwrap().node.campaign().unwrap();
            self.drive(id)?;
        }
        self.make_durable()
    }

    /// Does all that raft wants done for a group, as a node does it.
    fn drive(&mut self, id: u64) -> Result<(), Crashed> {
        while let Some(group) = self.groups.get_mut(&id).filter(|g| g.node.has_ready()) {
            let mut ready = group.node.ready();
            let mut batch = ReadyBatch::new(&self.engine);
            batch.add_as(RegionId(id), ME, &ready).unwrap();
            batch.write(&self.engine).unwrap();
            let mut committed = ready.take_committed_entries();
            let mut light = group.node.advance(ready);
            committed.extend(light.take_committed_entries());
            if light.commit_index().is_some() {
                let mut batch = ReadyBatch::new(&self.engine);
                batch.set_hard_state(RegionId(id), &group.node.raft.hard_state()).unwrap();
                batch.write(&self.engine).unwrap();
            }
            group.node.advance_apply();
            for entry in committed {
                self.apply(id, entry)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, id: u64, entry: Entry) -> Result<(), Crashed> {
        let Some(Command::Change(change)) = Command::of(&entry) else { return self.hand(id, entry, false) };
        let outcome = self.groups[&id].span.after(&change);
        match (outcome, change) {
            (Outcome::Split { left, right }, Change::Split { child, .. }) => {
                self.pass(Step::SplitCommitted)?;
                let found = begin_child(&self.engine, &self.tombstones, ME, child, &conf_state()).unwrap();
                self.pass(Step::ChildBegun)?;
                self.groups.get_mut(&id).unwrap().span = left;
                self.hand(id, entry, false)?;
                self.pass(Step::SplitApplied)?;
                self.make_durable()?;
                self.pass(Step::SplitDurable)?;
                if found != Creation::Gone && !self.groups.contains_key(&child) {
                    let conf_state = encode_conf_state(BOOTSTRAP.index, &conf_state());
                    self.start(child, &Stand { span: right, applied: BOOTSTRAP, conf_state });
                    self.groups.get_mut(&child).unwrap().node.campaign().unwrap();
                    self.drive(child)?;
                }
                self.pass(Step::ChildRuns)
            }
            (Outcome::Frozen(frozen), _) => {
                self.groups.get_mut(&id).unwrap().span = frozen;
                self.hand(id, entry, false)?;
                self.pass(Step::SourceFrozen)
            }
            (Outcome::Absorbed(wider), Change::Absorb { .. }) => {
                self.pass(Step::MergeCommitted)?;
                self.groups.get_mut(&id).unwrap().span = wider;
                self.hand(id, entry, false)?;
                self.pass(Step::MergeApplied)
            }
            _ => self.hand(id, entry, false),
        }
    }

    fn hand(&mut self, id: u64, entry: Entry, must_last: bool) -> Result<(), Crashed> {
        let (waiter, answer) = channel();
        let task = Task::Apply { group: id, entry, conf_state: None, waiter: Some(waiter), done: None };
        self.commit(Some(task), must_last)?;
        self.answer = answer.try_recv().ok();
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), Crashed> {
        self.commit(None, true)
    }

    /// The state machine's transaction, and what follows from it.
    fn commit(&mut self, task: Option<Task>, must_last: bool) -> Result<(), Crashed> {
        let after = self.machine.commit(task, must_last).unwrap();
        for (waiter, reply) in after.replies {
            let _ = waiter.send(reply);
        }
        self.applied.extend(after.applied);
        self.ended.extend(after.ended);
        if !after.is_durable {
            return Ok(());
        }
        self.durable.extend(self.applied.iter());
        let ended = std::mem::take(&mut self.ended);
        if ended.is_empty() {
            return Ok(());
        }
        self.pass(Step::MergeDurable)?;
        let mut batch = ReadyBatch::new(&self.engine);
        for id in ended {
            self.groups.remove(&id);
            self.tombstones.destroy(&mut batch, RegionId(id), ME).unwrap();
        }
        batch.write(&self.engine).unwrap();
        self.pass(Step::SourceGone)
    }

    fn propose(&mut self, id: u64, command: &Command) -> Result<Option<Reply>, Crashed> {
        self.answer = None;
        self.groups.get_mut(&id).unwrap().node.propose(vec![], command.encode().unwrap()).unwrap();
        self.drive(id)?;
        Ok(self.answer.take())
    }

    /// The group that owns the key.
    fn owner(&self, key: u64) -> u64 {
        let owns = |g: &Group| g.span.standing != Standing::Gone && g.span.contains(key);
        let mut owners = self.groups.iter().filter(|(_, g)| owns(g)).map(|(id, _)| *id);
        let owner = owners.next().unwrap_or_else(|| panic!("nobody has key {key}"));
        assert_eq!(owners.next(), None, "key {key} is {owner}'s, and another's");
        owner
    }

    /// A request for a vote, for a group that is not here yet.
    fn is_asked(&mut self, id: u64) {
        let mut batch = ReadyBatch::new(&self.engine);
        if batch.create(RegionId(id), ME, &self.tombstones).unwrap() == Creation::Gone {
            return;
        }
        let config = Config { id: ME, ..Config::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, self.storage(id), &logger).unwrap();
        let mut ask = Message::default();
        ask.set_msg_type(MessageType::MsgRequestVote);
        (ask.term, ask.from, ask.to, ask.index, ask.log_term) = (VOTE.0, VOTE.1, ME, 9, 8);
        node.step(ask).unwrap();
        let ready = node.ready();
        assert!(ready.persisted_messages().iter().any(|m| !m.reject));
        batch.add_as(RegionId(id), ME, &ready).unwrap();
        batch.write(&self.engine).unwrap();
    }

    fn dump(&self, id: u64) -> Dump {
        let (waiter, answer) = channel();
        let after = self.machine.commit([Task::Dump { group: id, waiter }], false).unwrap();
        for (waiter, reply) in after.replies {
            waiter.send(reply).unwrap();
        }
        match answer.recv().unwrap() {
            Reply::Dump(dump) => dump,
            other => panic!("{other:?}"),
        }
    }

    /// Compacts all logs as far as the state machine allows it.
    fn compact(&mut self) -> Result<(), Crashed> {
        let mut batch = ReadyBatch::new(&self.engine);
        for (&id, &durable) in self.durable.iter().filter(|(id, _)| self.groups.contains_key(id)) {
            keep_what_is_needed(&self.engine, &mut batch, RegionId(id), durable, 0);
        }
        batch.write(&self.engine).unwrap();
        self.pass(Step::Compacted)
    }

    /// The store is what the model says.
    fn check(&self, model: &Model) {
        let mut held = BTreeMap::new();
        for key in 0..HOMES * KEYS {
            let owner = self.owner(key);
            for &(at, version, value) in self.dump(owner).writes.iter().filter(|w| w.0 == key) {
                held.insert(at, (version, value));
            }
        }
        assert_eq!(held, model.held);
        let all: usize = self.groups.keys().map(|id| self.dump(*id).writes.len()).sum();
        let wanted: u64 = model.held.values().map(|(version, _)| version).sum();
        assert_eq!(all as u64, wanted, "a write is lost, or there twice");
        for &id in &model.gone {
            assert!(self.tombstones.is_gone(RegionId(id), ME).unwrap(), "group {id} was merged");
            assert!(
                !self.engine.region(RegionId(id)).exists() && !self.groups.contains_key(&id),
                "{id} is back"
            );
            let mut batch = ReadyBatch::new(&self.engine);
            assert_eq!(batch.create(RegionId(id), ME, &self.tombstones).unwrap(), Creation::Gone);
        }
        let logs = self.engine.regions().into_iter().filter(|r| *r != TOMBSTONES).count();
        assert_eq!(logs, self.groups.len(), "a log without a group");
    }

    fn write(&mut self, model: &mut Model, key: u64) {
        model.values += 1;
        let (version, value) = (model.held.get(&key).map_or(0, |h| h.0) + 1, model.values);
        let owner = self.owner(key);
        let reply = self.propose(owner, &Command::Write { key, value }).unwrap();
        assert!(matches!(reply, Some(Reply::Written { version: v }) if v == version), "{reply:?}");
        model.held.insert(key, (version, value));
    }
}

fn policy(round: u64) -> LossPolicy {
    match round % 3 {
        0 => LossPolicy::LoseAll,
        1 => LossPolicy::KeepAll,
        _ => LossPolicy::Random(round),
    }
}

/// Does it, with a crash after that step, and brings it to its end afterwards.
fn with_crash(
    mut store: Store,
    model: &Model,
    step: Option<Step>,
    policy: LossPolicy,
    mut what: impl FnMut(&mut Store) -> Result<(), Crashed>,
) -> Store {
    store.crash_after = step;
    let crashed = what(&mut store).is_err();
    assert_eq!(crashed, step.is_some(), "{step:?} was not passed");
    if crashed {
        store = store.crash(policy);
        store.settle().unwrap();
        // Whatever became of it, no key is lost, and none is there twice.
        let none_gone = Model { held: model.held.clone(), gone: model.gone.clone(), values: 0 };
        store.check(&none_gone);
        // The one that asked for it was not answered, and asks again.
        what(&mut store).unwrap();
    }
    store
}

fn hard_state(store: &Store, id: u64) -> HardState {
    store.storage(id).hard_state().unwrap()
}

fn split(store: Store, model: &mut Model, round: u64, step: Option<Step>) -> (Store, u64) {
    let (key, child) = (round * 7 % (HOMES * KEYS), HOMES + 1 + round);
    // The widest group that there is, at the key where it can be split.
    let (parent, at) = {
        let widest = store.groups.iter().max_by_key(|(id, g)| (g.span.end - g.span.start, **id)).unwrap();
        let span = &widest.1.span;
        (*widest.0, span.start + 1 + key % (span.end - span.start - 1))
    };
    let mut store = store;
    let voted = round.is_multiple_of(2);
    if voted {
        store.is_asked(child);
    }
    let version = store.groups[&parent].span.version;
    let store = with_crash(store, model, step, policy(round), |store| {
        if store.groups[&parent].span.version == version {
            store.propose(parent, &Command::Change(Change::Split { version, at, child }))?;
        }
        assert_eq!((store.owner(at), store.owner(at - 1)), (child, parent));
        store.compact()
    });
    let state = hard_state(&store, child);
    // It leads, so it has voted for itself since, in a later term than it had voted in before.
    assert!(state.term > if voted { VOTE.0 } else { BOOTSTRAP.term }, "round {round}: {state:?}");
    (store, child)
}

fn merge(store: Store, model: &mut Model, source: u64, round: u64, step: Option<Step>) -> Store {
    let start = store.groups[&source].span.start;
    let target = store.owner(start - 1);
    let store = with_crash(store, model, step, policy(round), |store| {
        if store.groups.contains_key(&source) {
            let reply = store.propose(source, &Command::Change(Change::Freeze))?;
            let Some(Reply::Frozen(state)) = reply else { panic!("{reply:?}") };
            // It holds no more writes: nothing is lost between the two.
            let late = store.propose(source, &Command::Write { key: start, value: u64::MAX })?;
            assert!(matches!(late, Some(Reply::Moved)), "{late:?}");
            let version = store.groups[&target].span.version;
            store.propose(target, &Command::Change(Change::Absorb { version, source, state }))?;
            store.make_durable()?;
        }
        assert_eq!(store.owner(start), target);
        store.compact()
    });
    model.gone.push(source);
    store
}

#[test]
fn a_hundred_splits_and_merges_with_a_crash_after_any_step_lose_and_double_nothing() {
    let rounds: u64 = std::env::var("RAFTWOOD_KV_ROUNDS").map_or(100, |n| n.parse().unwrap());
    let mut store = Store::open(SimVfs::new(1), Platter::default());
    let mut model = Model::default();
    store.settle().unwrap();
    for key in 0..HOMES * KEYS {
        store.write(&mut model, key);
    }
    for round in 0..rounds {
        // Every step in turn, and now and then none.
        let pick = |steps: &[Step]| steps.get(round as usize % (steps.len() + 1)).copied();
        let (split_off, child) = split(store, &mut model, round, pick(&SPLIT));
        store = split_off;
        for key in [round, round * 3 + 1, round * 5 + 2] {
            store.write(&mut model, key % (HOMES * KEYS));
        }
        store.check(&model);
        // The one that was split off, or one of the first groups, but for the leftmost.
        store = merge(store, &mut model, child, round, pick(&MERGE));
        store.write(&mut model, round % (HOMES * KEYS));
        store.check(&model);
    }
    assert_eq!(model.gone.len() as u64, rounds);
}

#[test]
fn a_replica_that_voted_before_its_split_keeps_its_vote_through_any_crash() {
    for step in [Step::SplitCommitted, Step::ChildBegun, Step::SplitApplied, Step::SplitDurable] {
        for policy in [LossPolicy::LoseAll, LossPolicy::KeepAll] {
            let mut store = Store::open(SimVfs::new(2), Platter::default());
            store.settle().unwrap();
            store.is_asked(77);
            store.crash_after = Some(step);
            let split = Command::Change(Change::Split { version: 1, at: 2, child: 77 });
            assert!(store.propose(1, &split).is_err());
            let (disk, platter) = (store.disk.crash(policy), store.platter.crash(policy));
            drop(store);
            let store = Store::open(disk, platter);
            let state = hard_state(&store, 77);
            assert_eq!((state.term, state.vote), VOTE, "after {step:?}, {policy:?}");
            // Its log has begun where the state machine knows of it, and nowhere else: a snapshot of the
            // group that was split could come in the place of the replay.
            let has_begun = store.engine.region(RegionId(77)).state().base.is_some();
            assert_eq!(has_begun, store.groups.contains_key(&77), "after {step:?}, {policy:?}");
        }
    }
}

#[test]
fn a_split_that_names_a_group_that_was_merged_begins_no_log() {
    let mut store = Store::open(SimVfs::new(4), Platter::default());
    let mut model = Model::default();
    store.settle().unwrap();
    let (store, child) = split(store, &mut model, 1, None);
    let mut store = merge(store, &mut model, child, 1, None);
    for _ in 0..2 {
        let begun = begin_child(&store.engine, &store.tombstones, ME, child, &conf_state()).unwrap();
        assert_eq!(begun, Creation::Gone);
        store.check(&model);
        store = store.crash(LossPolicy::LoseAll);
        store.settle().unwrap();
    }
}

#[test]
fn a_log_is_not_compacted_beyond_what_the_state_machine_would_keep() {
    let mut store = Store::open(SimVfs::new(3), Platter::default());
    let mut model = Model::default();
    store.settle().unwrap();
    let first = store.engine.region(RegionId(1)).first_index();
    for _ in 0..9 {
        store.write(&mut model, 0);
    }
    // Applied, and not durable: nothing of it may go.
    store.compact().unwrap();
    let durable = store.durable[&1];
    assert!(store.applied[&1] > durable);
    assert_eq!(store.engine.region(RegionId(1)).first_index(), (durable + 1).max(first));
    let mut batch = ReadyBatch::new(&store.engine);
    keep_what_is_needed(&store.engine, &mut batch, RegionId(1), EntryId::default().index, 0);
    assert!(batch.is_empty());
    let mut store = store.crash(LossPolicy::LoseAll);
    store.settle().unwrap();
    store.check(&model);
}
