//! What became of a store, compared with all that the test knows of it.

use super::engines::{DIR, kill};
use super::model::{Kind, Log, Model};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{
    Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Lookup, ReadLimit, RegionId, TailPolicy,
};
use std::collections::BTreeSet;

/// Entries, by region and index.
pub(crate) type Entries = BTreeSet<(u64, u64)>;

/// What is harmed and says so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Named {
    pub(crate) entries: Entries,
    pub(crate) hard_states: BTreeSet<u64>,
}

/// What is wrong with an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// Something acknowledged is missing, or something wrong is handed out, and the region says nothing.
    Silent(String),
    /// The region says that something is wrong, and not what.
    Vague(String),
}

/// Compares every region; all that can be read is read.
pub(crate) fn compare(engine: &Engine, model: &Model) -> Result<Named, Wrong> {
    let mut named = Named::default();
    let mut vague = None;
    for id in engine.regions() {
        if !model.contains_key(&id.0) {
            return Err(Wrong::Silent(format!("region {id} was never acknowledged")));
        }
    }
    for (id, log) in model {
        match region(engine, *id, log, &mut named) {
            Ok(()) => {}
            Err(Wrong::Silent(why)) => return Err(Wrong::Silent(format!("region {id}: {why}"))),
            Err(Wrong::Vague(why)) => vague = Some(format!("region {id}: {why}")),
        }
    }
    match vague {
        Some(why) => Err(Wrong::Vague(why)),
        None => Ok(named),
    }
}

fn region(engine: &Engine, id: u64, log: &Log, named: &mut Named) -> Result<(), Wrong> {
    let region = engine.region(RegionId(id));
    // Read first: that is how damage is found.
    let read = region.entries(.., ReadLimit::NONE);
    let mut harmed = BTreeSet::new();
    if read.is_err() {
        for (entry, payload) in &log.entries {
            match region.entry(entry.index) {
                Ok(read) if read.id == *entry && read.payload == *payload => {}
                Ok(read) => return Err(Wrong::Silent(format!("entry {} is {:?}", entry.index, read.id))),
                Err(e) if e.kind() == ErrorKind::Damaged && e.region() == Some(RegionId(id)) => {
                    harmed.insert(entry.index);
                }
                Err(e) => return Err(said(&region.health(), format!("entry {}: {e}", entry.index))),
            }
        }
    }
    let health = region.health();
    let state = region.state();
    let last = log.last().map_or(0, |l| l.index);
    let last_term = log.last().map_or(0, |l| l.term);
    // Where the index of the last entry is lost, its term is too.
    let term_is_lost = state.last_term.is_none() && harmed.contains(&last);
    if (state.last, state.base) != (last, log.base) || (state.last_term != Some(last_term) && !term_is_lost) {
        let want = (log.base, last, last_term);
        return Err(said(&health, format!("it has {:?}, acknowledged was {want:?}", state)));
    }
    if let Ok(read) = read
        && !read.iter().map(|e| (e.id, &e.payload)).eq(log.entries.iter().map(|(id, p)| (*id, p)))
    {
        return Err(Wrong::Silent("other entries".to_string()));
    }
    for (entry, _) in &log.entries {
        match region.term(entry.index) {
            Ok(term) if term == entry.term => {}
            Ok(term) => return Err(Wrong::Silent(format!("entry {} has term {term}", entry.index))),
            Err(e) if e.kind() == ErrorKind::Damaged && harmed.contains(&entry.index) => {}
            Err(e) => return Err(said(&health, format!("term of entry {}: {e}", entry.index))),
        }
        match region.lookup(*entry) {
            Lookup::DontHave => return Err(Wrong::Silent(format!("lookup denies entry {}", entry.index))),
            Lookup::Have if harmed.contains(&entry.index) => {
                return Err(Wrong::Silent(format!("lookup answers for entry {}", entry.index)));
            }
            _ => {}
        }
    }
    let (ranges, lost) = match &health {
        Health::Damaged { ranges, hard_state } => (ranges.clone(), *hard_state == HardStateHealth::Lost),
        Health::Suspect { ranges } => (ranges.clone(), false),
        _ => (Vec::new(), false),
    };
    if !lost && region.hard_state() != log.hard_state {
        return Err(Wrong::Silent("its hard state is another one".to_string()));
    }
    if region.get(b"key") != log.value && !lost {
        return Err(Wrong::Silent("its metadata is other".to_string()));
    }
    let told: BTreeSet<u64> = ranges.iter().flat_map(|range| range.clone().take(10_000)).collect();
    if told != harmed {
        return Err(Wrong::Vague(format!("health says {ranges:?}, harmed are {harmed:?}")));
    }
    if lost {
        named.hard_states.insert(id);
    }
    named.entries.extend(harmed.into_iter().map(|index| (id, index)));
    Ok(())
}

fn said(health: &Health, what: String) -> Wrong {
    match health {
        Health::Healthy => Wrong::Silent(what),
        _ => Wrong::Vague(format!("{what}; {health:?}")),
    }
}

/// Every region takes one more entry and a new hard state.
pub(crate) fn write_to_all(engine: &Engine, model: &mut Model) -> Result<(), String> {
    let mut batch = engine.batch();
    for (id, log) in model.iter_mut() {
        let entry = log.last().map_or(EntryId::new(1, 1), |l| EntryId::new(l.term, l.index + 1));
        let payload = bytes::Bytes::from(format!("{id}:{} written later", entry.index));
        let hard = bytes::Bytes::from(format!("hard state {id}"));
        let mut region = batch.region(RegionId(*id));
        region.append([(entry, &payload[..])]).unwrap();
        region.set_hard_state(&hard).unwrap();
        log.entries.push((entry, payload));
        log.hard_state = Some(hard);
    }
    engine.write(batch, Durability::Synced).map(drop).map_err(|e| e.to_string())
}

/// How an open ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// As acknowledged, but for what is named.
    Open(Named),
    /// A state before the last groups, which nothing proves.
    Unproven,
    Refused(String),
    Silent(String),
    Vague(String),
    /// It cannot be written to, or the next open does not answer the same.
    Stuck(String),
}

/// Opens the store, reads and writes everything, and, if asked, does so once more after a kill.
pub(crate) fn examine(vfs: &SimVfs, kind: Kind, model: &Model, before: &[Model], again: bool) -> Outcome {
    let engine = match kind.options(vfs, 0xe_0000).open(DIR) {
        Ok(engine) => engine,
        Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
            return Outcome::Refused(e.to_string());
        }
        Err(e) => return Outcome::Refused(format!("with the wrong kind {:?}: {e}", e.kind())),
    };
    let (named, mut model) = match compare(&engine, model) {
        Ok(named) => (Some(named), model.clone()),
        Err(wrong) => match before.iter().find(|older| compare(&engine, older) == Ok(Named::default())) {
            Some(older) => (None, older.clone()),
            None => {
                kill(vfs, engine);
                return match wrong {
                    Wrong::Silent(why) => Outcome::Silent(why),
                    Wrong::Vague(why) => Outcome::Vague(why),
                };
            }
        },
    };
    if let Err(e) = write_to_all(&engine, &mut model) {
        kill(vfs, engine);
        return Outcome::Stuck(e);
    }
    if again {
        let cut = vfs.crash(LossPolicy::LoseAll);
        match kind.options(&cut, 0xf_0000).open(DIR) {
            Err(e) => return stuck(vfs, engine, format!("after a write and a power cut: {e}")),
            Ok(after) => {
                let found = compare(&after, &model);
                kill(&cut, after);
                // Setting a hard state makes it known again.
                let want = Named { hard_states: BTreeSet::new(), ..named.clone().unwrap_or_default() };
                match found {
                    Ok(found) if found == want => {}
                    Ok(found) => return stuck(vfs, engine, format!("named {want:?}, then {found:?}")),
                    Err(Wrong::Silent(why)) => {
                        kill(vfs, engine);
                        return Outcome::Silent(format!("after a write and a power cut: {why}"));
                    }
                    Err(Wrong::Vague(why)) => return stuck(vfs, engine, format!("next open: {why}")),
                }
            }
        }
    }
    kill(vfs, engine);
    named.map_or(Outcome::Unproven, Outcome::Open)
}

/// Opens a store that refuses, with its loss accepted, and once more after a power cut as any other. It is as
/// it was acknowledged at one moment, but for what is named; if that is not the last one, no region may vote.
pub(crate) fn examine_accepted(vfs: &SimVfs, kind: Kind, history: &[Model]) -> Result<(), String> {
    let accepting = kind.options(vfs, 0xe_0001).tail_policy(TailPolicy::AcceptLoss);
    let engine = accepting.open(DIR).map_err(|e| format!("refused though its loss was accepted: {e}"))?;
    let history: Vec<Model> = history.iter().map(|model| without_what_is_gone(&engine, model)).collect();
    let found = as_of_one_moment(&engine, &history);
    let cut = vfs.crash(LossPolicy::LoseAll);
    kill(vfs, engine);
    let (moment, named) = found?;
    let again = kind.options(&cut, 0xe_0002).open(DIR);
    let again = again.map_err(|e| format!("its loss was accepted, and the next open refuses: {e}"))?;
    let then = compare(&again, &history[moment]);
    kill(&cut, again);
    match then {
        Ok(then) if then == named => Ok(()),
        other => Err(format!("its loss was accepted with {named:?}, and the next open has {other:?}")),
    }
}

/// A checkpoint may know of entries past the end of the log: the open names them, and cuts them off.
fn without_what_is_gone(engine: &Engine, model: &Model) -> Model {
    let mut model = model.clone();
    for damage in &engine.open_report().damage {
        if let (Some(region), Some(gone)) = (damage.region(), damage.entries())
            && let Some(log) = model.get_mut(&region.0)
        {
            log.entries.retain(|(id, _)| id.index < *gone.start());
        }
    }
    model
}

/// The newest moment that the store is as of, and what is named.
fn as_of_one_moment(engine: &Engine, history: &[Model]) -> Result<(usize, Named), String> {
    let moments = history.iter().enumerate().rev();
    let fits = |(n, model): (usize, &Model)| compare(engine, model).ok().map(|named| (n, named));
    let Some((moment, named)) = moments.filter_map(fits).next() else {
        let newest = history.last().map(|model| compare(engine, model));
        return Err(format!("it is as it was at no moment; beside the last one: {newest:?}"));
    };
    let voters = history[moment].keys().filter(|id| !named.hard_states.contains(id)).count();
    match moment + 1 == history.len() || voters == 0 {
        true => Ok((moment, named)),
        false => Err(format!(
            "it is as it was {} batches before, and {voters} regions may vote",
            history.len() - 1 - moment
        )),
    }
}

fn stuck(vfs: &SimVfs, engine: Engine, why: String) -> Outcome {
    kill(vfs, engine);
    Outcome::Stuck(why)
}

/// What an open that follows nothing but crashes has to be: one of these states, and not a word of damage.
pub(crate) fn is_quiet(vfs: &SimVfs, kind: Kind, legal: &[Model]) -> Result<(), String> {
    let engine = kind.options(vfs, 0xd_0000).open(DIR).map_err(|e| format!("refused: {e}"))?;
    let report = engine.open_report();
    let mut verdict = Err("no state fits".to_string());
    if !report.damage.is_empty() || !report.suspects.is_empty() {
        verdict = Err(format!("alarm: {:?} {:?}", report.damage, report.suspects));
    } else {
        for model in legal.iter().rev() {
            match compare(&engine, model) {
                Ok(named) if named == Named::default() => {
                    verdict = Ok(());
                    break;
                }
                Ok(named) => verdict = Err(format!("alarm: {named:?}")),
                Err(wrong) => verdict = Err(format!("{wrong:?}")),
            }
        }
    }
    kill(vfs, engine);
    verdict
}
