//! What the state machine's tasks do to its tables.

use crate::machine::{After, Task};
use crate::region::{Change, Outcome, Span, Standing, ended_by};
use crate::wire::{Command, Dump, Reply, Result};
use raft::prelude::{Entry, Snapshot};
use raftwood::raft_rs::{BOOTSTRAP, decode_conf_state, encode_conf_state};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;

/// Key to (version, value).
pub const REGISTERS: TableDefinition<u64, (u64, u64)> = TableDefinition::new("registers");
/// (key, version) to value: every write that ever was, for the check at the end.
pub const WRITES: TableDefinition<(u64, u64), u64> = TableDefinition::new("writes");
/// Group to what it owns. Those that were merged stay, as such: a split that is replayed must not bring them
/// back.
pub const SPANS: TableDefinition<u64, &[u8]> = TableDefinition::new("spans");
/// Group to (applied index, its term, hash of all that was applied).
pub const APPLIED: TableDefinition<u64, (u64, u64, u64)> = TableDefinition::new("applied");
/// Group to its conf state as of the applied index.
pub const CONF_STATES: TableDefinition<u64, &[u8]> = TableDefinition::new("conf_states");
/// Which incarnation of the store it all belongs to.
pub const INCARNATION: TableDefinition<(), u64> = TableDefinition::new("incarnation");

/// Does one of them within the transaction.
pub fn run_task(txn: &WriteTransaction, task: Task, after: &mut After) -> Result<()> {
    match task {
        Task::Apply { group, entry, conf_state, waiter, done } => {
            let reply = apply(txn, group, &entry, conf_state.as_deref(), after)?;
            after.replies.extend(waiter.map(|w| (w, reply)));
            after.awaited.extend(done);
        }
        Task::Read { group, key, by_lease, waiter } => {
            let reply = match span(txn, group)?.is_some_and(|s| s.serves(key)) {
                true => {
                    let (version, value) = register(txn, key)?;
                    Reply::Value { version, value, by_lease }
                }
                false => Reply::Moved,
            };
            after.replies.push((waiter, reply));
        }
        Task::Make { group } => {
            let dump = dump(txn, group)?;
            if dump.applied > 0 {
                after.made.push((group, to_snapshot(&dump)?));
            }
        }
        Task::Install { group, run, snapshot } => {
            install(txn, group, &serde_json::from_slice(&snapshot.data)?, after)?;
            after.installed.push((group, run));
        }
        Task::Dump { group, waiter } => after.replies.push((waiter, Reply::Dump(dump(txn, group)?))),
    }
    Ok(())
}

fn register(txn: &WriteTransaction, key: u64) -> Result<(u64, u64)> {
    Ok(txn.open_table(REGISTERS)?.get(key)?.map(|r| r.value()).unwrap_or_default())
}

fn span(txn: &WriteTransaction, group: u64) -> Result<Option<Span>> {
    let spans = txn.open_table(SPANS)?;
    let bytes = spans.get(group)?;
    Ok(bytes.map(|b| serde_json::from_slice(b.value())).transpose()?)
}

fn set_span(txn: &WriteTransaction, group: u64, span: &Span) -> Result<()> {
    txn.open_table(SPANS)?.insert(group, serde_json::to_vec(span)?.as_slice())?;
    Ok(())
}

/// A group that stands where its log begins.
pub fn begin(txn: &WriteTransaction, group: u64, span: &Span, conf_state: &[u8]) -> Result<()> {
    set_span(txn, group, span)?;
    txn.open_table(CONF_STATES)?.insert(group, conf_state)?;
    txn.open_table(APPLIED)?.insert(group, (BOOTSTRAP.index, BOOTSTRAP.term, 0))?;
    Ok(())
}

/// A group that was merged: nothing of it is left but that.
fn end(txn: &WriteTransaction, group: u64, owned: &Span, after: &mut After) -> Result<()> {
    set_span(txn, group, &Span { standing: Standing::Gone, ..owned.clone() })?;
    txn.open_table(CONF_STATES)?.remove(group)?;
    txn.open_table(APPLIED)?.remove(group)?;
    after.ended.push(group);
    Ok(())
}

fn apply(
    txn: &WriteTransaction,
    group: u64,
    entry: &Entry,
    conf_state: Option<&[u8]>,
    after: &mut After,
) -> Result<Reply> {
    let owned = span(txn, group)?.ok_or_else(|| format!("group {group} owns nothing"))?;
    if owned.standing == Standing::Gone {
        return Ok(Reply::Gone);
    }
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
    if let Some(conf_state) = conf_state {
        txn.open_table(CONF_STATES)?.insert(group, conf_state)?;
    }
    after.applied.insert(group, entry.index);
    Ok(match Command::of(entry) {
        Some(Command::Write { key, .. } | Command::Read { key }) if !owned.serves(key) => Reply::Moved,
        Some(Command::Write { key, value }) => {
            let version = register(txn, key)?.0 + 1;
            txn.open_table(REGISTERS)?.insert(key, (version, value))?;
            txn.open_table(WRITES)?.insert((key, version), value)?;
            Reply::Written { version }
        }
        Some(Command::Read { key }) => {
            let (version, value) = register(txn, key)?;
            Reply::Value { version, value, by_lease: false }
        }
        Some(Command::Change(change)) => apply_change(txn, group, &owned, &change, after)?,
        None => Reply::Done,
    })
}

fn apply_change(
    txn: &WriteTransaction,
    group: u64,
    owned: &Span,
    change: &Change,
    after: &mut After,
) -> Result<Reply> {
    match (owned.after(change), change) {
        (Outcome::Split { left, right }, &Change::Split { child, .. }) => {
            set_span(txn, group, &left)?;
            // It may be there already, further on or gone again.
            if span(txn, child)?.is_none() {
                let conf_states = txn.open_table(CONF_STATES)?;
                let conf_state = conf_states.get(group)?.map(|c| c.value().to_vec()).unwrap_or_default();
                drop(conf_states);
                let conf_state = encode_conf_state(BOOTSTRAP.index, &decode_conf_state(&conf_state)?.1);
                begin(txn, child, &right, &conf_state)?;
            }
            Ok(Reply::Done)
        }
        (Outcome::Frozen(frozen), _) => {
            set_span(txn, group, &frozen)?;
            Ok(Reply::Frozen(dump(txn, group)?))
        }
        (Outcome::Absorbed(wider), Change::Absorb { source, state, .. }) => {
            let theirs = state.span.clone().ok_or("a state without a range")?;
            // The source's own replica here may not have come so far.
            replace(txn, &theirs, &state.writes)?;
            set_span(txn, group, &wider)?;
            end(txn, *source, &theirs, after)?;
            Ok(Reply::Done)
        }
        _ => Ok(Reply::Failed { why: "the group has changed in the meantime".to_string() }),
    }
}

fn dump(txn: &WriteTransaction, group: u64) -> Result<Dump> {
    let (applied, term, hash) = txn.open_table(APPLIED)?.get(group)?.map(|a| a.value()).unwrap_or_default();
    let conf_state = txn.open_table(CONF_STATES)?.get(group)?.map(|c| c.value().to_vec()).unwrap_or_default();
    let span = span(txn, group)?;
    let mut writes = Vec::new();
    if let Some(Span { start, end, .. }) = span.as_ref().filter(|s| s.standing != Standing::Gone) {
        for row in txn.open_table(WRITES)?.range((*start, 0)..(*end, 0))? {
            let (at, value) = row?;
            let (key, version) = at.value();
            writes.push((key, version, value.value()));
        }
    }
    Ok(Dump { span, applied, term, hash, conf_state, writes })
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

/// What these keys hold becomes this, whatever it was.
fn replace(txn: &WriteTransaction, span: &Span, held: &[(u64, u64, u64)]) -> Result<()> {
    let mut registers = txn.open_table(REGISTERS)?;
    let mut writes = txn.open_table(WRITES)?;
    registers.retain_in(span.start..span.end, |_, _| false)?;
    writes.retain_in((span.start, 0)..(span.end, 0), |_, _| false)?;
    // In order of version: the last one stays.
    for &(key, version, value) in held {
        writes.insert((key, version), value)?;
        registers.insert(key, (version, value))?;
    }
    Ok(())
}

fn install(txn: &WriteTransaction, group: u64, dump: &Dump, after: &mut After) -> Result<()> {
    let owned = dump.span.clone().ok_or("a snapshot without a range")?;
    let spans = all_spans(txn)?;
    let ended = ended_by(group, &owned, &spans)
        .ok_or_else(|| format!("a snapshot of group {group} overlaps another group's keys"))?;
    for other in ended {
        end(txn, other, &spans[&other], after)?;
    }
    replace(txn, &owned, &dump.writes)?;
    set_span(txn, group, &owned)?;
    txn.open_table(APPLIED)?.insert(group, (dump.applied, dump.term, dump.hash))?;
    txn.open_table(CONF_STATES)?.insert(group, dump.conf_state.as_slice())?;
    Ok(())
}

fn all_spans(txn: &WriteTransaction) -> Result<BTreeMap<u64, Span>> {
    let spans = txn.open_table(SPANS)?;
    let rows = spans.iter()?.map(|row| {
        let (group, span) = row?;
        Ok((group.value(), serde_json::from_slice(span.value())?))
    });
    rows.collect()
}
