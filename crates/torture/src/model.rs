//! The reference: what the engine should hold, as plain vectors.
//!
//! It is slow, obvious, and shares no code with the engine. A clone costs a count per region, so a copy is
//! kept for every batch that was ever accepted.

use super::batch::{Batch, Op};
use super::broken::Broken;
use bytes::Bytes;
use raftwood::Engine;
use raftwood::limits::{INDEX_MAX, TERM_MAX};
use raftwood::{EntryId, ReadLimit, RegionId};
use raftwood::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One region.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// The last entry compacted away, or the base of a reset.
    pub base: Option<EntryId>,
    /// The live entries, consecutive.
    pub entries: Vec<(EntryId, Bytes)>,
    /// As last set.
    pub hard_state: Option<Bytes>,
    /// The metadata.
    pub kv: BTreeMap<Bytes, Bytes>,
}

impl Log {
    /// The first live index.
    pub fn first(&self) -> Option<u64> {
        self.entries.first().map(|e| e.0.index)
    }

    /// The last live index.
    pub fn last(&self) -> Option<u64> {
        self.entries.last().map(|e| e.0.index)
    }

    /// The index that the next append takes; `None` while any will do.
    pub fn next(&self) -> Option<u64> {
        self.last().or(self.base.map(|b| b.index)).map(|i| i + 1)
    }

    /// The term of the last entry, or of the base.
    pub fn last_term(&self) -> u64 {
        self.entries.last().map(|e| e.0.term).or(self.base.map(|b| b.term)).unwrap_or(0)
    }

    /// The term of an index that is live or the base.
    pub fn term(&self, index: u64) -> Option<u64> {
        if let Some(base) = self.base.filter(|b| b.index == index) {
            return Some(base.term);
        }
        let at = index.checked_sub(self.first()?)?;
        self.entries.get(usize::try_from(at).ok()?).map(|e| e.0.term)
    }

    fn truncate_from(&mut self, index: u64) {
        self.entries.retain(|e| e.0.index < index);
    }
}

/// All regions that exist.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    /// By id.
    pub regions: BTreeMap<u64, Arc<Log>>,
}

impl Model {
    /// The region, an empty one if it does not exist.
    pub fn log(&self, region: u64) -> Arc<Log> {
        self.regions.get(&region).cloned().unwrap_or_default()
    }

    /// The state after a batch.
    ///
    /// # Errors
    /// The kinds of all refusals that the batch earns, of which the engine reports one.
    pub fn after(&self, batch: &Batch) -> Result<Model, Vec<ErrorKind>> {
        let mut next = self.clone();
        let mut refusals = Vec::new();
        for (n, (region, op)) in batch.0.iter().enumerate() {
            if let Err(kind) = next.apply(*region, op) {
                refusals.push(kind);
            }
            let begins = |op: &Op| match op {
                Op::Append(entries) => !entries.is_empty(),
                Op::AppendNext(_, payloads) => !payloads.is_empty(),
                Op::Reset(_) | Op::Destroy => true,
                _ => false,
            };
            if *op == Op::ForgetLog && !batch.0[n..].iter().any(|(other, op)| other == region && begins(op)) {
                refusals.push(ErrorKind::InvalidArgument);
            }
        }
        if refusals.is_empty() { Ok(next) } else { Err(refusals) }
    }

    fn apply(&mut self, region: u64, op: &Op) -> Result<(), ErrorKind> {
        match op {
            Op::Append(entries) if entries.is_empty() => return Ok(()),
            Op::Append(entries) => {
                check_append(&self.log(region), entries)?;
                let log = self.edit(region);
                log.truncate_from(entries[0].0.index);
                log.entries.extend_from_slice(entries);
            }
            Op::AppendNext(term, payloads) => {
                let next = self.log(region).next().unwrap_or(1);
                let ids = (0..).map(|n| EntryId::new(*term, next.saturating_add(n)));
                return self.apply(region, &Op::Append(ids.zip(payloads.iter().cloned()).collect()));
            }
            Op::TruncateFrom(index) => self.edit(region).truncate_from(*index),
            Op::CompactThrough(index) => {
                let log = self.log(region);
                let below =
                    log.base.is_some_and(|b| *index <= b.index) || log.first().is_some_and(|f| *index < f);
                if below {
                    return Ok(());
                }
                let term = log.entries.iter().find(|e| e.0.index == *index).map(|e| e.0.term);
                let term = term.ok_or(ErrorKind::Unavailable)?;
                let log = self.edit(region);
                log.entries.retain(|e| e.0.index > *index);
                log.base = Some(EntryId::new(term, *index));
            }
            Op::CompactTo(index) => {
                let Some(last) = self.log(region).last() else { return Ok(()) };
                let log = self.edit(region);
                let dropped = log.entries.iter().rfind(|e| e.0.index <= *index.min(&last)).map(|e| e.0);
                log.entries.retain(|e| e.0.index > *index);
                log.base = dropped.or(log.base);
            }
            Op::Reset(base) => {
                if base.index > INDEX_MAX || base.term > TERM_MAX {
                    return Err(ErrorKind::TooLarge);
                }
                let log = self.edit(region);
                log.entries.clear();
                log.base = Some(*base);
            }
            Op::ForgetLog => {
                let log = self.edit(region);
                log.entries.clear();
                log.base = None;
            }
            Op::HardState(value) => self.edit(region).hard_state = Some(value.clone()),
            Op::Put(key, value) => drop(self.edit(region).kv.insert(key.clone(), value.clone())),
            Op::Delete(key) => drop(self.edit(region).kv.remove(key)),
            Op::Destroy => drop(self.regions.remove(&region)),
        }
        Ok(())
    }

    fn edit(&mut self, region: u64) -> &mut Log {
        Arc::make_mut(self.regions.entry(region).or_default())
    }

    /// Reads everything that an engine holds.
    ///
    /// # Errors
    /// What reading failed with, or says of itself in two ways.
    pub fn observe(engine: &Engine) -> Result<Model, Broken> {
        let mut model = Model::default();
        for id in engine.regions() {
            let log = observe_region(engine, id).map_err(|e| e.when(&format!("region {id}")))?;
            model.regions.insert(id.0, Arc::new(log));
        }
        Ok(model)
    }

    /// The first difference, in words.
    pub fn difference(&self, other: &Model) -> Option<String> {
        let ids: std::collections::BTreeSet<u64> =
            self.regions.keys().chain(other.regions.keys()).copied().collect();
        ids.into_iter().find_map(|id| {
            let (a, b) = (self.regions.get(&id), other.regions.get(&id));
            (a != b).then(|| format!("region {id}: {} / {}", describe(a), describe(b)))
        })
    }
}

fn check_append(log: &Log, entries: &[(EntryId, Bytes)]) -> Result<(), ErrorKind> {
    let first = entries[0].0;
    if entries.iter().any(|e| e.0.index > INDEX_MAX || e.0.term > TERM_MAX) {
        return Err(ErrorKind::TooLarge);
    }
    for pair in entries.windows(2) {
        if pair[0].0.index + 1 != pair[1].0.index {
            return Err(ErrorKind::InvalidArgument);
        }
        if pair[0].0.term > pair[1].0.term {
            return Err(ErrorKind::TermRegression);
        }
    }
    if log.base.is_some_and(|b| first.index <= b.index) {
        return Err(ErrorKind::Compacted);
    }
    if log.next().is_some_and(|next| first.index > next) {
        return Err(ErrorKind::Gap);
    }
    let before = first.index.checked_sub(1).and_then(|i| log.term(i));
    if before.is_some_and(|before| first.term < before) {
        return Err(ErrorKind::TermRegression);
    }
    Ok(())
}

fn describe(log: Option<&Arc<Log>>) -> String {
    let Some(log) = log else { return "absent".to_string() };
    let digest = |bytes: &[u8]| crc32fast::hash(bytes);
    let entries: Vec<u8> = log.entries.iter().flat_map(|e| digest(&e.1).to_le_bytes()).collect();
    format!(
        "base {:?} entries {:?}..={:?} (last term {}, digest {:08x}) hard state {:?} kv {}",
        log.base.map(|b| (b.term, b.index)),
        log.first(),
        log.last(),
        log.last_term(),
        digest(&entries),
        log.hard_state.as_ref().map(|h| digest(h)),
        log.kv.len()
    )
}

fn observe_region(engine: &Engine, id: RegionId) -> Result<Log, Broken> {
    let region = engine.region(id);
    let state = region.state();
    let said = |e: Error| Broken::by("reading failed", e);
    let mut log = Log { base: state.base, hard_state: region.hard_state(), ..Log::default() };
    log.kv = region.scan(b"").into_iter().collect();
    if !state.is_empty() {
        // A read stops short of known damage, and starts at it with an error.
        let mut from = Some(state.first);
        while let Some(at) = from.filter(|at| *at <= state.last) {
            let read = region.entries(at..=state.last, ReadLimit::NONE).map_err(said)?;
            from = read.last().and_then(|e| e.id.index.checked_add(1));
            log.entries.extend(read.into_iter().map(|e| (e.id, e.payload)));
        }
    }
    if let (Some(base), Some(first)) = (state.base, log.first())
        && base.index + 1 != first
    {
        return Err(format!("the log starts at {first} after base {}", base.index).into());
    }
    // What it says of itself agrees with what it hands out.
    let mut previous = state.base.map_or(0, |b| b.term);
    for (n, (entry, _)) in log.entries.iter().enumerate() {
        let expected = state.first.saturating_add(n as u64);
        if entry.index != expected {
            return Err(format!("entry {} stands where {expected} should", entry.index).into());
        }
        if entry.term < previous {
            return Err(format!("the term falls to {} at {expected}", entry.term).into());
        }
        previous = entry.term;
    }
    if !state.is_empty() && log.last() != Some(state.last) {
        return Err(format!("the state says {state:?}, the log ends at {:?}", log.last()).into());
    }
    for index in [log.first(), log.last(), state.base.map(|b| b.index)].into_iter().flatten() {
        let term = region.term(index).map_err(said)?;
        if Some(term) != log.term(index) {
            return Err(format!("term({index}) says {term}, the log {:?}", log.term(index)).into());
        }
    }
    if state.last_term != Some(log.last_term()) {
        return Err(
            format!("the state says last term {:?}, the log {}", state.last_term, log.last_term()).into()
        );
    }
    Ok(log)
}
