//! The state machine: a table of versioned registers, in a database of its own, with its own applied index.
//!
//! One thread applies what the groups have committed, in order. Its transactions are made durable a few times
//! a second, not one by one: after a crash it stands somewhere behind the log, and what is missing is
//! replayed. The applied index is part of the transaction, so nothing is applied twice.

use crate::node::Input;
use crate::wire::{Command, Dump, Reply, Result};
use raft::prelude::{Entry, Snapshot};
use raftwood::EntryId;
use raftwood::raft_rs::{BOOTSTRAP, decode_conf_state};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// (group, key) to (version, value).
const REGISTERS: TableDefinition<(u64, u64), (u64, u64)> = TableDefinition::new("registers");
/// (group, key, version) to value: every write that ever was, for the check at the end.
const WRITES: TableDefinition<(u64, u64, u64), u64> = TableDefinition::new("writes");
/// Group to (applied index, its term, hash of all that was applied).
const APPLIED: TableDefinition<u64, (u64, u64, u64)> = TableDefinition::new("applied");
/// Group to its conf state as of the applied index.
const CONF_STATES: TableDefinition<u64, &[u8]> = TableDefinition::new("conf_states");

/// What is applied becomes durable at least this often.
const DURABLE_EVERY: Duration = Duration::from_millis(200);

/// Tasks of one transaction.
const TASKS_MAX: usize = 512;

/// Somebody who waits for an answer.
pub type Waiter = Sender<Reply>;

pub enum Task {
    /// A committed entry. A conf change comes with the configuration that it led to.
    Apply {
        group: u64,
        entry: Entry,
        conf_state: Option<Vec<u8>>,
        waiter: Option<Waiter>,
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
    /// A snapshot came: `done` is notified when it is durable here.
    Install {
        group: u64,
        snapshot: Snapshot,
        done: Sender<()>,
    },
    Dump {
        group: u64,
        waiter: Waiter,
    },
}

/// Snapshots that were made for raft to send, the newest of each group.
pub type Snapshots = Arc<Mutex<HashMap<u64, Snapshot>>>;

pub struct Machine {
    db: Database,
}

impl Machine {
    pub fn open(path: &Path) -> Result<Machine> {
        let db = Database::create(path)?;
        let txn = db.begin_write()?;
        txn.open_table(REGISTERS)?;
        txn.open_table(WRITES)?;
        txn.open_table(APPLIED)?;
        txn.open_table(CONF_STATES)?;
        txn.commit()?;
        Ok(Machine { db })
    }

    /// Where a group's state stands, durably: applied entry and configuration. A new group is given its first
    /// configuration, and stands where its log begins.
    pub fn start_group(&self, group: u64, first: &[u8]) -> Result<(EntryId, Vec<u8>)> {
        let txn = self.db.begin_read()?;
        let (index, term, _) = txn.open_table(APPLIED)?.get(group)?.map(|a| a.value()).unwrap_or_default();
        let conf_state = txn.open_table(CONF_STATES)?.get(group)?.map(|c| c.value().to_vec());
        if let Some(conf_state) = conf_state {
            return Ok((EntryId::new(term, index), conf_state));
        }
        let txn = self.db.begin_write()?;
        txn.open_table(CONF_STATES)?.insert(group, first)?;
        txn.open_table(APPLIED)?.insert(group, (BOOTSTRAP.index, BOOTSTRAP.term, 0))?;
        txn.commit()?;
        Ok((BOOTSTRAP, first.to_vec()))
    }

    /// Starts the thread; tasks go to the sender that is returned, what was done is delivered to `node`.
    pub fn start(self, node: Sender<Input>, snapshots: Snapshots) -> Sender<Task> {
        let (send, tasks) = channel();
        std::thread::spawn(move || {
            let worker = Worker { db: self.db, node, snapshots };
            if let Err(e) = worker.run(&tasks) {
                eprintln!("the state machine failed: {e}");
                std::process::abort();
            }
        });
        send
    }
}

struct Worker {
    db: Database,
    node: Sender<Input>,
    snapshots: Snapshots,
}

impl Worker {
    fn run(&self, tasks: &Receiver<Task>) -> Result<()> {
        let mut durable_at = Instant::now();
        // Groups that moved since the last durable transaction.
        let mut moved: BTreeMap<u64, u64> = BTreeMap::new();
        loop {
            let mut todo = Vec::new();
            match tasks.recv_timeout(DURABLE_EVERY) {
                Ok(task) => todo.push(task),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            todo.extend(tasks.try_iter().take(TASKS_MAX));
            let mut txn = self.db.begin_write()?;
            let mut after = After::default();
            for task in todo {
                run_task(&txn, task, &mut after)?;
            }
            let durable = !after.installed.is_empty() || durable_at.elapsed() >= DURABLE_EVERY;
            txn.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
            txn.commit()?;
            // Only what is committed is answered to anybody.
            self.snapshots.lock().unwrap().extend(after.made);
            for (waiter, reply) in after.replies {
                let _ = waiter.send(reply);
            }
            for done in after.installed {
                let _ = done.send(());
            }
            moved.extend(after.applied.iter().map(|(&g, &i)| (g, i)));
            if !after.applied.is_empty() && self.node.send(Input::Applied(after.applied)).is_err() {
                return Ok(());
            }
            if durable {
                durable_at = Instant::now();
                let moved = std::mem::take(&mut moved);
                if !moved.is_empty() && self.node.send(Input::AppliedDurably(moved)).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// What is to be done once the transaction is committed.
#[derive(Default)]
struct After {
    replies: Vec<(Waiter, Reply)>,
    applied: BTreeMap<u64, u64>,
    made: Vec<(u64, Snapshot)>,
    installed: Vec<Sender<()>>,
}

fn run_task(txn: &WriteTransaction, task: Task, after: &mut After) -> Result<()> {
    match task {
        Task::Apply { group, entry, conf_state, waiter } => {
            let reply = apply(txn, group, &entry)?;
            if let Some(conf_state) = conf_state {
                txn.open_table(CONF_STATES)?.insert(group, conf_state.as_slice())?;
            }
            after.applied.insert(group, entry.index);
            after.replies.extend(waiter.map(|w| (w, reply)));
        }
        Task::Read { group, key, by_lease, waiter } => {
            let (version, value) = register(txn, group, key)?;
            after.replies.push((waiter, Reply::Value { version, value, by_lease }));
        }
        Task::Make { group } => {
            let dump = dump(txn, group)?;
            if dump.applied > 0 {
                after.made.push((group, to_snapshot(&dump)?));
            }
        }
        Task::Install { group, snapshot, done } => {
            install(txn, group, &serde_json::from_slice(&snapshot.data)?)?;
            after.installed.push(done);
        }
        Task::Dump { group, waiter } => after.replies.push((waiter, Reply::Dump(dump(txn, group)?))),
    }
    Ok(())
}

fn register(txn: &WriteTransaction, group: u64, key: u64) -> Result<(u64, u64)> {
    Ok(txn.open_table(REGISTERS)?.get((group, key))?.map(|r| r.value()).unwrap_or_default())
}

fn apply(txn: &WriteTransaction, group: u64, entry: &Entry) -> Result<Reply> {
    let mut applied = txn.open_table(APPLIED)?;
    let (index, _, hash) = applied.get(group)?.map(|a| a.value()).unwrap_or_default();
    if entry.index != index + 1 {
        return Err(format!("group {group}: entry {} is to be applied after {index}", entry.index).into());
    }
    let mut next = hash ^ entry.index ^ entry.term.rotate_left(32);
    for byte in entry.data.iter() {
        next = (next ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    applied.insert(group, (entry.index, entry.term, next))?;
    drop(applied);
    Ok(match Command::of(entry) {
        Some(Command::Write { key, value }) => {
            let version = register(txn, group, key)?.0 + 1;
            txn.open_table(REGISTERS)?.insert((group, key), (version, value))?;
            txn.open_table(WRITES)?.insert((group, key, version), value)?;
            Reply::Written { version }
        }
        Some(Command::Read { key }) => {
            let (version, value) = register(txn, group, key)?;
            Reply::Value { version, value, by_lease: false }
        }
        None => Reply::Done,
    })
}

fn dump(txn: &WriteTransaction, group: u64) -> Result<Dump> {
    let (applied, term, hash) = txn.open_table(APPLIED)?.get(group)?.map(|a| a.value()).unwrap_or_default();
    let conf_state = txn.open_table(CONF_STATES)?.get(group)?.map(|c| c.value().to_vec()).unwrap_or_default();
    let mut writes = Vec::new();
    for row in txn.open_table(WRITES)?.range((group, 0, 0)..=(group, u64::MAX, u64::MAX))? {
        let (at, value) = row?;
        let (_, key, version) = at.value();
        writes.push((key, version, value.value()));
    }
    Ok(Dump { applied, term, hash, conf_state, writes })
}

fn to_snapshot(dump: &Dump) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    snapshot.set_data(serde_json::to_vec(dump)?.into());
    let meta = snapshot.mut_metadata();
    meta.set_index(dump.applied);
    meta.set_term(dump.term);
    meta.set_conf_state(decode_conf_state(&dump.conf_state)?.1);
    Ok(snapshot)
}

fn install(txn: &WriteTransaction, group: u64, dump: &Dump) -> Result<()> {
    let mut registers = txn.open_table(REGISTERS)?;
    let mut writes = txn.open_table(WRITES)?;
    registers.retain_in((group, 0)..=(group, u64::MAX), |_, _| false)?;
    writes.retain_in((group, 0, 0)..=(group, u64::MAX, u64::MAX), |_, _| false)?;
    // In order of version: the last one stays.
    for &(key, version, value) in &dump.writes {
        writes.insert((group, key, version), value)?;
        registers.insert((group, key), (version, value))?;
    }
    txn.open_table(APPLIED)?.insert(group, (dump.applied, dump.term, dump.hash))?;
    txn.open_table(CONF_STATES)?.insert(group, dump.conf_state.as_slice())?;
    Ok(())
}
