//! What must hold after every crash and every fault.
//!
//! - A pure crash is survived: open succeeds and reports no damage.
//! - What is recovered is the model after some prefix of the accepted batches that holds all acknowledged
//!   ones. With the model comes the rest: batches are atomic over regions, logs contiguous, terms never fall,
//!   the hard state never goes back, and what was discarded, compacted or destroyed does not return.
//! - Recovering twice gives the same state, also if the power fails right after open returned.
//! - The store is writable, and what is written survives the next crash.
//! - No file is there that the engine does not know of, once it had the chance to tidy up.

use super::batch::{Batch, Op};
use super::broken::Broken;
use super::model::Model;
use super::setup::{DIR, Setup};
use bytes::Bytes;
use raftwood::Engine;
use raftwood::Error;
use raftwood::Health;
use raftwood::TailPolicy;
use raftwood::internals;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, EntryId};

/// A region that no workload uses: what is written after a recovery.
const PROBE: u64 = 0x7072_6f62;

/// How much is checked after a recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Open and compare.
    Quick,
    /// Also crash again, write, crash again, purge, and look for leaked files.
    Full,
}

/// What a recovery led to.
#[derive(Debug)]
pub struct Recovered {
    /// Which of the candidates it was.
    pub candidate: usize,
    /// How often a store was recovered on the way.
    pub recoveries: u64,
    /// The default policy could not tell a tear from rot, and said so; it was checked with the other one.
    pub doubtful: u64,
}

/// Opens the disk that a crash left and checks everything. `candidates` are the model's states from the last
/// acknowledged batch to the last accepted one.
///
/// # Errors
/// What does not hold, in words.
pub fn check(
    vfs: &SimVfs,
    setup: &Setup,
    run: u64,
    candidates: &[Model],
    depth: Depth,
) -> Result<Recovered, String> {
    let spare = vfs.crash(LossPolicy::KeepAll);
    match check_as_is(vfs, setup, run, candidates, depth) {
        // A lost sector may look like one flipped bit to a checksum of 32 bits: about once in 2^32 divided by
        // the bits of the entry. The default is to keep such an entry and to fence it.
        Err(e) if setup.tail_policy == TailPolicy::Prove && e.error().is_some_and(Error::is_suspect) => {
            let setup = Setup { tail_policy: TailPolicy::AssumeTorn, ..setup.clone() };
            let recovered = check_as_is(&spare, &setup, run, candidates, depth)?;
            Ok(Recovered { doubtful: 1, ..recovered })
        }
        outcome => outcome.map_err(String::from),
    }
}

/// A crash on a device that garbles the sectors it was writing: with the default policy the end
/// of the log may be in doubt, and then it is said to be; nothing that was acknowledged is lost,
/// and nothing is called damaged.
///
/// # Errors
/// What does not hold, in words.
pub fn check_garbled(
    vfs: &SimVfs,
    setup: &Setup,
    run: u64,
    candidates: &[Model],
) -> Result<Recovered, String> {
    let assume = Setup { tail_policy: TailPolicy::AssumeTorn, ..setup.clone() };
    let spare = vfs.crash(LossPolicy::KeepAll);
    let recovered = check_as_is(&spare, &assume, run, candidates, Depth::Quick)?;
    let doubtful = Recovered { candidate: recovered.candidate, recoveries: 2, doubtful: 1 };
    let engine = match setup.open(vfs, run) {
        Ok(engine) => engine,
        Err(e) if e.is_suspect() => return Ok(doubtful),
        Err(e) => return Err(format!("open failed: {e:?}")),
    };
    let report = engine.open_report().clone();
    if !report.damage.is_empty() || report.bad_checkpoints > 0 {
        return Err(format!("a crash alone is reported as damage: {report:?}"));
    }
    let outcome = match report.suspects.is_empty() {
        true => matching(&engine, candidates)
            .map(|candidate| Recovered { candidate, recoveries: 2, doubtful: 0 })
            .map_err(String::from),
        false => suspects_only(&engine).map(|()| doubtful),
    };
    kill(vfs, engine);
    outcome
}

/// Every entry that cannot be read is one that the region calls suspect.
fn suspects_only(engine: &Engine) -> Result<(), String> {
    for id in engine.regions() {
        let region = engine.region(id);
        let state = region.state();
        let health = region.health();
        let suspect = |index: u64| {
            let Health::Suspect { ranges } = &health else { return false };
            ranges.iter().any(|range| range.contains(&index))
        };
        if state.is_empty() {
            continue;
        }
        for index in state.first..=state.last {
            match region.entry(index) {
                Err(e) if !suspect(index) => {
                    return Err(format!("region {id}: entry {index} is not suspect: {e:?}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_as_is(
    vfs: &SimVfs,
    setup: &Setup,
    run: u64,
    candidates: &[Model],
    depth: Depth,
) -> Result<Recovered, Broken> {
    let (engine, candidate) = open_and_match(vfs, setup, run, candidates)?;
    let mut recovered = Recovered { candidate, recoveries: 1, doubtful: 0 };
    if depth == Depth::Quick {
        kill(vfs, engine);
        return Ok(recovered);
    }
    let state = candidates[candidate].clone();
    // Recovering twice: at once, and after a power cut that takes all that is not durable.
    let twice = vfs.crash(LossPolicy::LoseAll);
    kill(vfs, engine);
    let same = std::slice::from_ref(&state);
    let (again, _) = open_and_match(vfs, setup, run + 1, same).map_err(|e| e.when("recovering twice"))?;
    let after_cut = open_and_match(&twice, setup, run + 1, same);
    let (engine, _) = after_cut.map_err(|e| e.when("recovering after a crash right after open"))?;
    recovered.recoveries += 2;
    kill(vfs, again);

    // Writable, and durably so.
    let mut state = state;
    let probe = |round: u64| {
        let mut b = Batch::default();
        let id = EntryId::new(7, round);
        b.add(PROBE, Op::Append(vec![(id, Bytes::from(format!("after recovery {round}")))]));
        b.add(PROBE, Op::HardState(Bytes::from_static(b"probe")));
        b
    };
    for round in 1..=2 {
        state = state.after(&probe(round)).map_err(|k| format!("the model refuses the probe: {k:?}"))?;
        write(&engine, &probe(round))?;
    }
    let cut = twice.crash(LossPolicy::LoseAll);
    kill(&twice, engine);
    let same = std::slice::from_ref(&state);
    let (engine, _) = open_and_match(&cut, setup, run + 2, same)
        .map_err(|e| e.when("what was written after recovery does not survive a crash"))?;
    recovered.recoveries += 1;

    // Tidy.
    engine.tick().map_err(|e| format!("tick after recovery: {e:?}"))?;
    engine.purge().map_err(|e| format!("purge after recovery: {e:?}"))?;
    compare(&engine, &state).map_err(|e| format!("after a purge: {e}"))?;
    leaks(&cut, &engine)?;
    engine.close().map_err(|e| format!("close after recovery: {e:?}"))?;
    drop(engine);
    let (engine, _) =
        open_and_match(&cut, setup, run + 3, same).map_err(|e| e.when("after a clean close"))?;
    if engine.open_report().rewritten_batches > 0 {
        return Err("a clean close left batches to be re-persisted".to_string().into());
    }
    kill(&cut, engine);
    Ok(recovered)
}

/// Opens and finds out which of the candidates is there.
///
/// # Errors
/// Open failed, reported damage, or none of the candidates is there.
pub fn open_and_match(
    vfs: &SimVfs,
    setup: &Setup,
    run: u64,
    candidates: &[Model],
) -> Result<(Engine, usize), Broken> {
    let engine = setup.open(vfs, run).map_err(|e| Broken::by("open failed", e))?;
    let report = engine.open_report();
    let doubtful = setup.tail_policy == TailPolicy::Prove && !report.suspects.is_empty();
    if doubtful || !report.damage.is_empty() || report.bad_checkpoints > 0 || !report.foreign.is_empty() {
        let words = format!("a crash alone is reported as damage: {report:?}");
        return Err(match report.suspects.first().filter(|_| doubtful) {
            Some(suspect) => Broken::by(&words, suspect.clone()),
            None => words.into(),
        });
    }
    match matching(&engine, candidates) {
        Ok(at) => Ok((engine, at)),
        Err(e) => {
            kill(vfs, engine);
            Err(e)
        }
    }
}

/// The newest candidate that the engine equals.
///
/// # Errors
/// There is none.
pub fn matching(engine: &Engine, candidates: &[Model]) -> Result<usize, Broken> {
    let found = Model::observe(engine)?;
    if let Some(at) = candidates.iter().rposition(|c| *c == found) {
        return Ok(at);
    }
    let mut text = format!("what was recovered is none of the {} possible states:", candidates.len());
    for (name, candidate) in [("acknowledged", candidates.first()), ("accepted", candidates.last())] {
        if let Some(difference) = candidate.and_then(|c| found.difference(c)) {
            text.push_str(&format!("\n  found / last {name}: {difference}"));
        }
    }
    Err(text.into())
}

/// Compares an open engine with the model.
///
/// # Errors
/// The first difference.
pub fn compare(engine: &Engine, model: &Model) -> Result<(), String> {
    match Model::observe(engine)?.difference(model) {
        None => Ok(()),
        Some(d) => Err(format!("the engine differs from the model: found / expected: {d}")),
    }
}

/// Every file is one that the engine knows of, and no segment is kept for nothing. Meaningful after a purge.
///
/// # Errors
/// Names the files.
pub fn leaks(vfs: &SimVfs, engine: &Engine) -> Result<(), String> {
    let names = vfs.list().iter().map(|(p, _)| p.to_string_lossy().into_owned()).collect();
    internals::leaks(engine, names)
}

/// Ends a process: nothing that dropping the engine would do reaches the disk.
pub fn kill(vfs: &SimVfs, engine: Engine) {
    vfs.halt_after(0);
    drop(engine);
    vfs.halt_after(u64::MAX);
}

/// Where the store lies.
pub fn dir() -> &'static str {
    DIR
}

fn write(engine: &Engine, batch: &Batch) -> Result<(), String> {
    let built = batch.build(engine).map_err(|e| format!("building a batch after recovery: {e:?}"))?;
    engine.write(built, Durability::Synced).map(drop).map_err(|e| format!("writing after recovery: {e:?}"))
}
