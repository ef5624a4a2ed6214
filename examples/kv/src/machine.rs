//! The state machine: a table of versioned registers, in a database of its own, with its own applied index.
//!
//! One thread applies what the groups have committed, in order. Its transactions are made durable a few times
//! a second, not one by one: after a crash it stands somewhere behind the log, and what is missing is
//! replayed. The applied index is part of the transaction, so nothing is applied twice.

use crate::apply::{APPLIED, CONF_STATES, INCARNATION, REGISTERS, SPANS, WRITES, begin, run_task};
use crate::node::Input;
use crate::region::Span;
use crate::wire::{Reply, Result};
use raft::prelude::{Entry, Snapshot};
use raftwood::EntryId;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is applied becomes durable at least this often.
const DURABLE_EVERY: Duration = Duration::from_millis(200);

/// Tasks of one transaction.
const TASKS_MAX: usize = 512;

/// Somebody who waits for an answer.
pub type Waiter = Sender<Reply>;

pub enum Task {
    /// A committed entry. A conf change comes with the configuration that it led to. A split comes with
    /// somebody who is notified when it is durable here.
    Apply {
        group: u64,
        entry: Entry,
        conf_state: Option<Vec<u8>>,
        waiter: Option<Waiter>,
        done: Option<Sender<()>>,
    },
    /// A read whose index has been handed to this thread already.
    Read {
        group: u64,
        key: u64,
        by_lease: bool,
        waiter: Waiter,
    },
    /// A snapshot is wanted.
    Make {
        group: u64,
    },
    /// A snapshot came, for this run of the group's replica: the node is notified when it is durable here.
    Install {
        group: u64,
        run: u64,
        snapshot: Snapshot,
    },
    Dump {
        group: u64,
        waiter: Waiter,
    },
}

/// Snapshots that were made for raft to send, the newest of each group.
pub type Snapshots = Arc<Mutex<HashMap<u64, Snapshot>>>;

/// Where a group's state stands, durably.
#[derive(Clone)]
pub struct Stand {
    pub span: Span,
    pub applied: EntryId,
    pub conf_state: Vec<u8>,
}

pub struct Machine {
    db: Database,
}

impl Machine {
    pub fn open(path: &Path) -> Result<Machine> {
        Machine::over(Database::create(path)?)
    }

    pub fn over(db: Database) -> Result<Machine> {
        let txn = db.begin_write()?;
        txn.open_table(REGISTERS)?;
        txn.open_table(WRITES)?;
        txn.open_table(SPANS)?;
        txn.open_table(APPLIED)?;
        txn.open_table(CONF_STATES)?;
        txn.open_table(INCARNATION)?;
        txn.commit()?;
        Ok(Machine { db })
    }

    /// Which incarnation of the store it belongs to; `None` if it is new.
    pub fn incarnation(&self) -> Result<Option<u64>> {
        Ok(self.db.begin_read()?.open_table(INCARNATION)?.get(())?.map(|n| n.value()))
    }

    /// Nothing is left of the one before, durably.
    pub fn begin_incarnation(&self, incarnation: u64) -> Result<()> {
        let txn = self.db.begin_write()?;
        txn.open_table(REGISTERS)?.retain(|_, _| false)?;
        txn.open_table(WRITES)?.retain(|_, _| false)?;
        txn.open_table(SPANS)?.retain(|_, _| false)?;
        txn.open_table(APPLIED)?.retain(|_, _| false)?;
        txn.open_table(CONF_STATES)?.retain(|_, _| false)?;
        txn.open_table(INCARNATION)?.insert((), incarnation)?;
        txn.commit()?;
        Ok(())
    }

    /// Where the groups stand. A new state machine is given its first groups, with their first configuration;
    /// they stand where their logs begin. One of a later incarnation is not: all that it holds
    /// comes by snapshots.
    pub fn stands(
        &self,
        first: impl IntoIterator<Item = u64>,
        conf_state: &[u8],
    ) -> Result<BTreeMap<u64, Stand>> {
        let txn = self.db.begin_write()?;
        if txn.open_table(SPANS)?.is_empty()? {
            for group in first {
                begin(&txn, group, &Span::first(group), conf_state)?;
            }
        }
        txn.commit()?;
        let txn = self.db.begin_read()?;
        let (applied, conf_states) = (txn.open_table(APPLIED)?, txn.open_table(CONF_STATES)?);
        let mut stands = BTreeMap::new();
        for row in txn.open_table(SPANS)?.iter()? {
            let (group, span) = row?;
            let group = group.value();
            let (index, term, _) = applied.get(group)?.map(|a| a.value()).unwrap_or_default();
            let conf_state = conf_states.get(group)?.map(|c| c.value().to_vec()).unwrap_or_default();
            let span = serde_json::from_slice(span.value())?;
            stands.insert(group, Stand { span, applied: EntryId::new(term, index), conf_state });
        }
        Ok(stands)
    }

    /// Does these, in this order, in one transaction. What comes of it may be given away once this returns.
    pub fn commit(&self, tasks: impl IntoIterator<Item = Task>, must_last: bool) -> Result<After> {
        let mut txn = self.db.begin_write()?;
        let mut after = After::default();
        for task in tasks {
            run_task(&txn, task, &mut after)?;
        }
        after.is_durable = must_last || !after.awaited.is_empty() || !after.installed.is_empty();
        txn.set_durability(if after.is_durable { Durability::Immediate } else { Durability::None })?;
        txn.commit()?;
        Ok(after)
    }

    /// Starts the thread; tasks go to the sender that is returned, what was done is delivered to `node`.
    pub fn start(self, node: Sender<Input>, snapshots: Snapshots, holds: Arc<Holds>) -> Sender<Task> {
        let (send, tasks) = channel();
        std::thread::spawn(move || {
            let worker = Worker { machine: self, node, snapshots, holds };
            if let Err(e) = worker.run(&tasks) {
                eprintln!("the state machine failed: {e}");
                std::process::abort();
            }
        });
        send
    }
}

/// What the state machine is told to hold back, so that a node can be killed between two of its steps.
#[derive(Default)]
pub struct Holds {
    /// It says nothing of snapshots that it has taken.
    pub installs: AtomicBool,
    /// It does nothing of what it is given, in whichever order that comes, but says what it holds.
    pub applies: AtomicBool,
}

struct Worker {
    machine: Machine,
    node: Sender<Input>,
    snapshots: Snapshots,
    holds: Arc<Holds>,
}

impl Worker {
    fn run(&self, tasks: &Receiver<Task>) -> Result<()> {
        let mut durable_at = Instant::now();
        // Groups that moved since the last durable transaction, and those that ended.
        let mut moved: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ended: Vec<u64> = Vec::new();
        let mut installed: Vec<(u64, u64)> = Vec::new();
        // More than one transaction's only where they were held back.
        let mut waiting: Vec<Task> = Vec::new();
        loop {
            match tasks.recv_timeout(DURABLE_EVERY) {
                Ok(task) => waiting.push(task),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            waiting.extend(tasks.try_iter().take(TASKS_MAX));
            // After the task was taken: one that was sent when the hold was on already is not done.
            let is_held = self.holds.applies.load(Ordering::SeqCst);
            let may_be_done = |task: &mut Task| !is_held || matches!(task, Task::Dump { .. });
            let todo: Vec<Task> = waiting.extract_if(.., may_be_done).collect();
            let after = self.machine.commit(todo, durable_at.elapsed() >= DURABLE_EVERY)?;
            // Only what is committed is answered to anybody.
            self.snapshots.lock().unwrap().extend(after.made);
            for (waiter, reply) in after.replies {
                let _ = waiter.send(reply);
            }
            for done in after.awaited {
                let _ = done.send(());
            }
            // Before anybody is notified of what ended: that of a group which has taken one comes later.
            installed.extend(after.installed);
            if !self.holds.installs.load(Ordering::SeqCst) {
                for (group, run) in installed.drain(..) {
                    let _ = self.node.send(Input::Installed(group, run));
                }
            }
            moved.extend(after.applied.iter().map(|(&g, &i)| (g, i)));
            ended.extend(after.ended);
            if !after.applied.is_empty() && self.node.send(Input::Applied(after.applied)).is_err() {
                return Ok(());
            }
            if after.is_durable {
                durable_at = Instant::now();
                let (moved, ended) = (std::mem::take(&mut moved), std::mem::take(&mut ended));
                let is_news = !moved.is_empty() || !ended.is_empty();
                if is_news && self.node.send(Input::AppliedDurably(moved, ended)).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// What is to be done once the transaction is committed.
#[derive(Default)]
pub struct After {
    pub replies: Vec<(Waiter, Reply)>,
    pub applied: BTreeMap<u64, u64>,
    pub made: Vec<(u64, Snapshot)>,
    /// Those who wait for this to be durable.
    pub awaited: Vec<Sender<()>>,
    /// Groups that took a snapshot, and for which run.
    pub installed: Vec<(u64, u64)>,
    /// Groups that were merged: their logs may go once this is durable.
    pub ended: Vec<u64>,
    /// It is, and all that was before.
    pub is_durable: bool,
}
