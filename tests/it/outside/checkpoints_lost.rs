//! All checkpoints are lost, while the log is there.
//!
//! The rule: the store is rebuilt where its records chain unbroken back to its first one. Where segments were
//! given back, in any order, a replay with gaps would bring rolled-back entries, destroyed regions and old
//! votes back: open refuses, and under `AcceptLoss` no such thing is answered.

use crate::support::engines::{DIR, kill};
use crate::support::files::{of_kind, wipe};
use crate::support::model::{Kind, Model, Rng, Writer};
use crate::support::oracle::{Named, compare, write_to_all};
use bytes::Bytes;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, RegionId, TailPolicy};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
enum Loss {
    Removed,
    Zeroed,
    Flipped,
}

fn lose_checkpoints(vfs: &SimVfs, loss: Loss) {
    let checkpoints = of_kind(vfs, "ckpt");
    for path in &checkpoints {
        let len = vfs.read_file(path).unwrap().len() as u64;
        match loss {
            Loss::Removed => vfs.remove_file(path).unwrap(),
            Loss::Zeroed => wipe(vfs, path, 0, len as usize),
            Loss::Flipped => {
                let mut rng = Rng::new(len);
                (0..64).for_each(|_| vfs.flip_bit(path, rng.below(len * 8)).unwrap());
            }
        }
    }
    assert!(!checkpoints.is_empty());
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Closed,
    Killed,
    Idle,
}

/// Nothing of it was ever given back.
fn young(seed: u64, end: End, lz4: bool, rotated: bool) -> (Writer, Kind) {
    let kind = Kind { lz4, pool_files: 1 };
    let mut w = Writer::new(seed, kind, false);
    let engine = w.open();
    w.write(&engine, 12);
    if rotated {
        w.rotate(&engine, 2);
    }
    let engine = if seed.is_multiple_of(2) {
        engine.close().unwrap();
        drop(engine);
        w.open()
    } else {
        engine
    };
    w.write(&engine, 6);
    match end {
        End::Closed => {
            engine.close().unwrap();
            drop(engine);
        }
        End::Killed => w.kill(engine),
        End::Idle => {
            w.idle(&engine);
            w.kill(engine);
        }
    }
    w.vfs.settle();
    (w, kind)
}

#[test]
fn a_young_store_is_rebuilt_with_everything_from_its_log_alone() {
    let mut wrong = Vec::new();
    let mut tried = 0;
    for seed in 1..=6 {
        for end in [End::Closed, End::Killed, End::Idle] {
            for (lz4, rotated) in [(false, false), (false, true), (true, false)] {
                for loss in [Loss::Removed, Loss::Zeroed, Loss::Flipped] {
                    let (w, kind) = young(seed, end, lz4, rotated);
                    let vfs = w.vfs.crash(LossPolicy::KeepAll);
                    lose_checkpoints(&vfs, loss);
                    tried += 1;
                    let name = format!("seed {seed}, {end:?}, compressed {lz4}, rotated {rotated}, {loss:?}");
                    if let Err(why) = rebuilt(&vfs, kind, w.model()) {
                        wrong.push(format!("{name}: {why}"));
                    }
                }
            }
        }
    }
    println!("{} of {tried} young stores are not rebuilt", wrong.len());
    wrong.truncate(8);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn rebuilt(vfs: &SimVfs, kind: Kind, model: &Model) -> Result<(), String> {
    let mut model = model.clone();
    for open in 1..=2 {
        let engine = kind.options(vfs, 70 + open).open(DIR).map_err(|e| format!("open {open}: {e}"))?;
        match compare(&engine, &model) {
            Ok(named) if named == Named::default() => {}
            other => return Err(format!("open {open}: {other:?}")),
        }
        write_to_all(&engine, &mut model)?;
        kill(vfs, engine);
    }
    Ok(())
}

/// What was once said and must never be said again.
#[derive(Default)]
struct Past {
    /// Payloads that were rolled back, or belonged to a region that was destroyed, by region.
    entries: BTreeMap<u64, BTreeSet<Bytes>>,
    /// Hard states that were replaced.
    votes: BTreeMap<u64, BTreeSet<Bytes>>,
    model: Model,
}

impl Past {
    fn set_vote(&mut self, id: u64, vote: Bytes) {
        if let Some(old) = self.model.entry(id).or_default().hard_state.replace(vote) {
            self.votes.entry(id).or_default().insert(old);
        }
    }

    fn discard(&mut self, id: u64, from: u64) {
        let log = self.model.entry(id).or_default();
        let at = log.entries.iter().position(|e| e.0.index >= from).unwrap_or(log.entries.len());
        let gone = log.entries.split_off(at);
        self.entries.entry(id).or_default().extend(gone.into_iter().map(|e| e.1));
    }
}

/// A store that purged, rolled back, destroyed and voted: ten regions, in segments of which some
/// were given back.
fn old(seed: u64, end: End) -> (SimVfs, Past) {
    let kind = Kind::PLAIN;
    let vfs = SimVfs::new(seed);
    let mut past = Past::default();
    let mut rng = Rng::new(seed);
    let engine = kind.options(&vfs, seed << 8).open(DIR).unwrap();
    let index_of = |past: &Past, id: u64| past.model.get(&id).and_then(|l| l.last()).map_or(0, |l| l.index);
    for round in 0..140u64 {
        let id = 1 + rng.below(10);
        let mut batch = engine.batch();
        let mut region = batch.region(RegionId(id));
        let last = index_of(&past, id);
        match rng.below(12) {
            0 if last > 2 => {
                past.discard(id, last);
            }
            1 if last > 0 && id > 7 => {
                region.destroy();
                past.discard(id, 0);
                let log = past.model.remove(&id).unwrap();
                past.votes.entry(id).or_default().extend(log.hard_state);
            }
            2 | 3 if last > 3 && id != 2 => {
                let log = past.model.get_mut(&id).unwrap();
                let Some(through) = log.entries.iter().rev().nth(1).map(|e| e.0) else { continue };
                region.compact_through(through.index).unwrap();
                log.entries.retain(|e| e.0.index > through.index);
                log.base = Some(through);
            }
            _ => {}
        }
        let next = EntryId::new(round + 1, index_of(&past, id) + 1);
        let payload = Bytes::from(rng.bytes(2200));
        region.append([(next, &payload[..])]).unwrap();
        past.model.entry(id).or_default().entries.push((next, payload));
        let vote = Bytes::from(format!("vote {round} of {id}"));
        region.set_hard_state(&vote).unwrap();
        past.set_vote(id, vote);
        engine.write(batch, Durability::Synced).unwrap();
        engine.tick().unwrap();
        if round % 35 == 34 {
            engine.purge().unwrap();
        }
    }
    end_of(&vfs, engine, end);
    (vfs, past)
}

fn end_of(vfs: &SimVfs, engine: Engine, end: End) {
    match end {
        End::Closed => engine.close().unwrap(),
        End::Killed => kill(vfs, engine),
        End::Idle => {
            engine.tick().unwrap();
            engine.tick().unwrap();
            kill(vfs, engine);
        }
    }
    vfs.settle();
}

#[test]
fn a_store_whose_log_has_gaps_is_refused_and_never_answers_what_was_taken_back() {
    let mut wrong = Vec::new();
    let (mut tried, mut opened) = (0, 0);
    for seed in 1..=8 {
        for end in [End::Closed, End::Killed, End::Idle] {
            for loss in [Loss::Removed, Loss::Flipped] {
                let (vfs, past) = old(seed, end);
                lose_checkpoints(&vfs, loss);
                tried += 1;
                let mut say = |why: String| wrong.push(format!("seed {seed}, {end:?}, {loss:?}: {why}"));
                let files = vfs.list();
                match Kind::PLAIN.options(&vfs, 80).open(DIR) {
                    Err(e) if e.kind() == ErrorKind::Damaged => {}
                    Err(e) => say(format!("refused as {:?}: {e}", e.kind())),
                    Ok(engine) => {
                        // Its log is whole after all, as none of its first segments was dead yet.
                        match compare(&engine, &past.model) {
                            Ok(named) if named.entries.is_empty() && named.hard_states.is_empty() => {}
                            _ => say("it opens, and has not everything".to_string()),
                        }
                        kill(&vfs, engine);
                        continue;
                    }
                }
                if vfs.list() != files {
                    say("a refused open changed the directory".to_string());
                }
                let accept = Kind::PLAIN.options(&vfs, 81).tail_policy(TailPolicy::AcceptLoss);
                let Ok(engine) = accept.open(DIR) else {
                    say("AcceptLoss does not open it".to_string());
                    continue;
                };
                opened += 1;
                if let Err(why) = answers_nothing_old(&engine, &past) {
                    say(why);
                }
                kill(&vfs, engine);
                // What was fenced can be written over, and is no other in the next run.
                let next = Kind::PLAIN.options(&vfs, 82).open(DIR);
                match next {
                    Err(e) => say(format!("the open after AcceptLoss: {e}")),
                    Ok(engine) => {
                        if let Err(why) = answers_nothing_old(&engine, &past) {
                            say(format!("in the next run, {why}"));
                        }
                        kill(&vfs, engine);
                    }
                }
            }
        }
    }
    println!("{tried} stores with gaps, {opened} opened by AcceptLoss, {} wrong", wrong.len());
    wrong.truncate(8);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn answers_nothing_old(engine: &Engine, past: &Past) -> Result<(), String> {
    for id in 1..=10u64 {
        let region = engine.region(RegionId(id));
        let lost = matches!(region.health(), Health::Damaged { hard_state: HardStateHealth::Lost, .. });
        if let Ok(Some(vote)) = region.hard_state_or_lost() {
            let newest = past.model.get(&id).and_then(|l| l.hard_state.clone());
            if Some(&vote) != newest.as_ref() {
                return Err(format!("region {id} answers an old vote, {vote:?} for {newest:?}"));
            }
        }
        if region.exists() && !lost {
            return Err(format!("region {id} is sure of its hard state"));
        }
        let state = region.state();
        for index in state.first..=state.last {
            if let Ok(entry) = region.entry(index)
                && past.entries.get(&id).is_some_and(|old| old.contains(&entry.payload))
            {
                return Err(format!("region {id} answers entry {index}, which was taken back"));
            }
        }
    }
    Ok(())
}
