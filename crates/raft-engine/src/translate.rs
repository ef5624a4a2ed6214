//! From raft-engine's operations to Raftwood's.
//!
//! Both append over what stands there, compact and drop regions. They differ in what an empty log is: in
//! raft-engine it is one that begins anywhere, Raftwood remembers where it was compacted. An append
//! elsewhere is a reset here. And Raftwood keeps a term beside each entry, which must not fall.

use crate::batch::{Command, LogBatch, Meta, Op};
use crate::error::Error;
use raftwood::{Engine, EntryId, RegionId, WriteBatch};
use std::collections::HashMap;

/// Why there is no batch for the engine.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// raft-engine would panic: an append that leaves a gap, or lies before the first entry.
    Here(Error),
    /// The engine refuses it, for the log as it is now.
    ByEngine(raftwood::Error),
}

type Result<T> = std::result::Result<T, Refusal>;

impl From<raftwood::Error> for Refusal {
    fn from(e: raftwood::Error) -> Refusal {
        Refusal::ByEngine(e)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Here(e) => e,
            Refusal::ByEngine(e) => e.into(),
        }
    }
}

/// A log as it is after the operations of the batch so far.
struct Log {
    /// The index of the last entry that was compacted away.
    base: Option<u64>,
    /// First and last index.
    span: Option<(u64, u64)>,
    /// The term of the last entry, or of the one that was compacted away.
    last_term: u64,
}

/// The batch for `engine`, with its logs as they are now.
pub(crate) fn translate(engine: &Engine, batch: &LogBatch) -> Result<WriteBatch> {
    let mut out = engine.batch();
    let mut logs = HashMap::new();
    let mut entries = batch.entries.as_slice();
    let mut payload = batch.payload.as_slice();
    for item in &batch.items {
        let id = RegionId(item.region);
        let mut region = out.region(id);
        match &item.op {
            Op::Put { key, value } => {
                region.put(key, value)?;
            }
            Op::Delete { key } => {
                region.delete(key)?;
            }
            Op::Command(Command::Clean) => {
                region.destroy();
                logs.insert(id, Log { base: None, span: None, last_term: 0 });
            }
            Op::Command(Command::Compact { index }) => {
                let log = log_of(&mut logs, engine, id)?;
                if let Some(through) = log.compact(*index) {
                    region.compact_through(through)?;
                }
            }
            Op::Append { first, count } => {
                let log = log_of(&mut logs, engine, id)?;
                let (mine, others) = entries.split_at(*count);
                entries = others;
                if let Some(base) = log.make_room(id, *first, mine)? {
                    region.reset(base)?;
                }
                let appended = mine.iter().zip(*first..).map(|(meta, index)| {
                    let (bytes, rest) = payload.split_at(meta.len);
                    payload = rest;
                    log.last_term = meta.term.unwrap_or(log.last_term);
                    (EntryId::new(log.last_term, index), bytes)
                });
                region.append(appended)?;
            }
        }
    }
    Ok(out)
}

fn log_of<'a>(logs: &'a mut HashMap<RegionId, Log>, engine: &Engine, id: RegionId) -> Result<&'a mut Log> {
    Ok(match logs.entry(id) {
        std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::hash_map::Entry::Vacant(new) => new.insert(Log::of(engine, id)?),
    })
}

impl Log {
    fn of(engine: &Engine, id: RegionId) -> Result<Log> {
        let region = engine.region(id);
        let state = region.state();
        let last_term = match state.last_term {
            Some(term) => term,
            None => region.term(state.last)?,
        };
        let span = (!state.is_empty()).then_some((state.first, state.last));
        Ok(Log { base: state.base.map(|base| base.index), span, last_term })
    }

    /// Drops the entries before `index`; answers through which.
    fn compact(&mut self, index: u64) -> Option<u64> {
        let (first, last) = self.span?;
        let through = index.checked_sub(1)?.min(last);
        if through < first {
            return None;
        }
        self.base = Some(through);
        self.span = (through < last).then_some((through + 1, last));
        Some(through)
    }

    /// Checks that `entries` may stand from `first` on, and answers after which entry the log has to begin
    /// for that, if that is not so already.
    fn make_room(&mut self, id: RegionId, first: u64, entries: &[Meta]) -> Result<Option<EntryId>> {
        let refuse = |why: String| {
            Err(Refusal::Here(Error::invalid(format!("region {id}: append at {first} refused: {why}"))))
        };
        let mut reset = None;
        match (self.span, self.base) {
            (Some((begin, _)), _) if first < begin => {
                return refuse(format!("the log begins at {begin}, what was before is compacted"));
            }
            (Some((_, last)), _) if first > last + 1 => {
                return refuse(format!("it would leave a gap, the last entry is {last}"));
            }
            (None, Some(base)) if first != base + 1 => {
                let Some(before) = first.checked_sub(1) else {
                    return refuse(format!(
                        "a log that was compacted, here through {base}, begins at 1 or later"
                    ));
                };
                let term = entries.first().and_then(|e| e.term).unwrap_or(u64::MAX);
                let base = EntryId::new(self.last_term.min(term), before);
                (self.base, reset) = (Some(before), Some(base));
            }
            _ => {}
        }
        let begin = self.span.map_or(first, |(begin, _)| begin);
        self.span = Some((begin, first + (entries.len() as u64 - 1)));
        Ok(reset)
    }
}
