//! The state machine's thread, on a disk that a crash takes what was not synced from: what it says to be
//! durable is on that disk when it says so. Logs are compacted by its word, and those of merged groups go.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "support/platter.rs"]
mod platter;

use platter::Platter;
use raft::prelude::{ConfState, Entry, Snapshot};
use raftwood::raft_rs::{BOOTSTRAP, encode_conf_state};
use raftwood::vfs::sim::LossPolicy;
use raftwood_kv::machine::{Holds, Machine, Snapshots, Stand, Task};
use raftwood_kv::node::Input;
use raftwood_kv::region::{Change, Span, Standing};
use raftwood_kv::wire::{Command, Dump, Reply};
use redb::Database;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const TERM: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(60);
/// Whether a transaction is durable that need not be is up to the clock: not each of so many.
const ROUNDS: u64 = 8;

fn conf_state() -> Vec<u8> {
    encode_conf_state(BOOTSTRAP.index, &ConfState::from((vec![1], vec![])))
}

fn machine(platter: Platter) -> Machine {
    Machine::over(Database::builder().create_with_backend(platter).unwrap()).unwrap()
}

/// A state machine of two groups that are neighbours, and what its thread says.
struct Run {
    platter: Platter,
    tasks: Sender<Task>,
    said: Receiver<Input>,
    next: BTreeMap<u64, u64>,
}

impl Run {
    fn start() -> Run {
        let platter = Platter::default();
        let machine = machine(platter.clone());
        machine.stands([1, 2], &conf_state()).unwrap();
        let (send, said) = channel();
        let tasks = machine.start(send, Snapshots::default(), Arc::new(Holds::default()));
        Run { platter, tasks, said, next: BTreeMap::new() }
    }

    /// The group's next entry.
    fn apply(&mut self, group: u64, command: &Command, done: Option<Sender<()>>) -> Receiver<Reply> {
        let next = self.next.entry(group).or_insert(BOOTSTRAP.index);
        *next += 1;
        let mut entry = Entry::default();
        (entry.index, entry.term) = (*next, TERM);
        entry.set_data(command.encode().unwrap().into());
        let (waiter, answer) = channel();
        self.tasks.send(Task::Apply { group, entry, conf_state: None, waiter: Some(waiter), done }).unwrap();
        answer
    }

    /// What a power cut at this moment would leave.
    fn after_a_crash(&self) -> BTreeMap<u64, Stand> {
        machine(self.platter.crash(LossPolicy::LoseAll)).stands(None, &[]).unwrap()
    }

    fn until<T>(&self, mut is_it: impl FnMut(Input) -> Option<T>) -> T {
        loop {
            if let Some(found) = is_it(self.said.recv_timeout(PATIENCE).unwrap()) {
                return found;
            }
        }
    }
}

#[test]
fn a_group_is_said_to_have_ended_only_when_its_merge_is_on_the_disk() {
    for _ in 0..ROUNDS {
        let mut run = Run::start();
        let frozen = run.apply(2, &Command::Change(Change::Freeze), None).recv_timeout(PATIENCE).unwrap();
        let Reply::Frozen(state) = frozen else { panic!("{frozen:?}") };
        let merge = Change::Absorb { version: 1, source: 2, state };
        let answer = run.apply(1, &Command::Change(merge), None).recv_timeout(PATIENCE).unwrap();
        assert!(matches!(answer, Reply::Done), "{answer:?}");
        let ended = run.until(|input| match input {
            Input::AppliedDurably(_, ended) if !ended.is_empty() => Some(ended),
            _ => None,
        });
        // Its log goes now: what the target does not hold would be nowhere.
        let left = run.after_a_crash();
        assert_eq!((ended, left[&2].span.standing), (vec![2], Standing::Gone));
        assert_eq!(left[&1].span.end, Span::first(2).end);
    }
}

#[test]
fn an_index_is_said_to_be_applied_durably_only_when_it_is_on_the_disk() {
    let mut run = Run::start();
    for value in 0..ROUNDS * 20 {
        let answer = run.apply(1, &Command::Write { key: 0, value }, None);
        answer.recv_timeout(PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let last = run.next[&1];
    let mut said = 0;
    // The log may be compacted through this.
    while said < last {
        said = run.until(|input| match input {
            Input::AppliedDurably(applied, _) => applied.get(&1).copied(),
            _ => None,
        });
        let left = run.after_a_crash();
        assert!(left[&1].applied.index >= said, "{said}: {:?}", left[&1].applied);
    }
}

#[test]
fn a_split_is_said_to_be_done_only_when_the_new_group_is_on_the_disk() {
    for _ in 0..ROUNDS {
        let mut run = Run::start();
        let (done, is_done) = channel();
        run.apply(1, &Command::Change(Change::Split { version: 1, at: 2, child: 9 }), Some(done));
        is_done.recv_timeout(PATIENCE).unwrap();
        // The new group's log goes on now.
        let left = run.after_a_crash();
        assert_eq!((left[&9].applied, left[&9].span.start, left[&1].span.end), (BOOTSTRAP, 2, 2));
    }
}

#[test]
fn a_snapshot_is_said_to_be_installed_only_when_it_is_on_the_disk() {
    for round in 0..ROUNDS {
        let run = Run::start();
        let dump = Dump {
            span: Some(Span::first(2)),
            applied: 100 + round,
            term: TERM,
            conf_state: conf_state(),
            ..Dump::default()
        };
        let mut snapshot = Snapshot::default();
        snapshot.set_data(serde_json::to_vec(&dump).unwrap().into());
        run.tasks.send(Task::Install { group: 2, run: round, snapshot }).unwrap();
        let installed = run.until(|input| match input {
            Input::Installed(group, run) => Some((group, run)),
            _ => None,
        });
        // The log is reset now.
        assert_eq!((installed, run.after_a_crash()[&2].applied.index), ((2, round), 100 + round));
    }
}

#[test]
fn a_split_that_is_applied_where_its_group_was_merged_already_brings_nothing_back() {
    let mut run = Run::start();
    let split = |version, at| Command::Change(Change::Split { version, at, child: 9 });
    let mut ask = |group, command: &Command| run.apply(group, command, None).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(ask(1, &Command::Write { key: 3, value: 30 }), Reply::Written { version: 1 }));
    assert!(matches!(ask(1, &split(1, 2)), Reply::Done));
    assert!(matches!(ask(9, &Command::Write { key: 3, value: 31 }), Reply::Written { version: 2 }));
    // The same entry a second time, as of the version that it was proposed for: nothing is done.
    let again = ask(1, &split(1, 2));
    assert!(matches!(again, Reply::Failed { .. }), "{again:?}");
    let frozen = ask(9, &Command::Change(Change::Freeze));
    let Reply::Frozen(state) = frozen else { panic!("{frozen:?}") };
    assert_eq!(state.writes, [(3, 1, 30), (3, 2, 31)]);
    assert!(matches!(ask(1, &Command::Change(Change::Absorb { version: 2, source: 9, state })), Reply::Done));
    // One that names a group that is gone: that stays gone, whatever becomes of the range.
    ask(1, &split(3, 2));
    assert!(matches!(ask(9, &Command::Write { key: 3, value: 32 }), Reply::Gone));
}
