//! A device that lies: a write that is lost, or that lands elsewhere, though the sync said that all was well.
//!
//! Nobody can keep what the device threw away. But nothing else may be handed out in its place, and what
//! still proves that something is missing must be noticed: the log refuses, or names the damage, unless
//! what was lost is its very end.

use super::driver::Driver;
use super::explore::{Explorer, RECOVERY_LIFE, caught, run_acts};
use super::model::Model;
use super::oracle;
use super::report::{Counts, Violation};
use super::setup::Setup;
use super::workload::{Act, Workload};
use bytes::Bytes;
use raftwood::Engine;
use raftwood::ErrorKind;
use raftwood::random::Rng;
use raftwood::vfs::sim::{Effect, Fault, LossPolicy, SimVfs};
use raftwood::{EntryId, RegionId};
use std::collections::HashSet;

impl Explorer {
    /// Four lies at every write, or at the first `writes` of them; after it the power fails.
    pub fn lies(&self, workloads: &[Workload], setups: &[Setup], writes: u64) -> Counts {
        let cases = workloads.len() * setups.len();
        self.spread(0..cases as u64, |n| {
            let workload = &workloads[n as usize % workloads.len()];
            self.lie_run(workload, &setups[n as usize / workloads.len()], writes)
        })
    }

    fn lie_run(&self, workload: &Workload, setup: &Setup, writes: u64) -> Counts {
        let mut counts = Counts { runs: 1, ..Counts::default() };
        let mut rng = Rng::new(self.seed ^ setup.seed ^ 0x11e5);
        let mut workload = workload.clone();
        // What is opened again in the middle of a run may rightly be refused.
        workload.acts.retain(|a| !matches!(a, Act::Crash | Act::Kill | Act::CloseOpen));
        for n in 0..4 * writes {
            let effect = match n % 4 {
                0 => Effect::LoseWrite,
                1 => Effect::Misdirect(1),
                2 => Effect::Misdirect(1 + rng.below(20) as i64),
                _ => Effect::Misdirect(-1 - rng.below(20) as i64),
            };
            let fault = Fault::new(effect).skip(n / 4);
            let mut trace = Vec::new();
            match caught(|| lie(&workload, setup, fault.clone(), &mut rng, &mut trace)) {
                Ok(Told { struck: false, .. }) => break,
                Ok(told) => {
                    counts.lies += 1;
                    counts.lies_noticed += u64::from(told.noticed);
                    counts.crash_recoveries += 1;
                }
                Err(what) => counts.violations.push(Violation {
                    explorer: "a device that lies",
                    workload: workload.name.clone(),
                    seed: setup.seed,
                    at: format!("{fault:?}"),
                    what,
                    transcript: trace,
                }),
            }
            if counts.enough() {
                break;
            }
        }
        counts
    }
}

/// What came of a lie.
struct Told {
    struck: bool,
    /// The next open refused, or something was named as damaged, suspect or rotten.
    noticed: bool,
}

fn lie(
    workload: &Workload,
    setup: &Setup,
    fault: Fault,
    rng: &mut Rng,
    trace: &mut Vec<String>,
) -> Result<Told, String> {
    let disk = setup.disk();
    disk.set_fault(fault);
    let mut driver = Driver::start(setup.clone(), workload, true, disk, None)?;
    let outcome = run_acts(&mut driver, workload, false);
    *trace = driver.trace.clone();
    outcome?;
    let struck = driver.vfs.faults_struck() > 0;
    let policy = if rng.one_in(2) { LossPolicy::LoseAll } else { LossPolicy::KeepAll };
    let cut = driver.vfs.crash(policy);
    driver.kill();
    let noticed = examine(&cut, setup, &driver).map_err(|e| format!("after {policy:?}: {e}"))?;
    Ok(Told { struck, noticed })
}

/// Everything that is handed out was written in its place; and if nothing is said to be wrong, the state as a
/// whole is one that there was.
fn examine(vfs: &SimVfs, setup: &Setup, driver: &Driver) -> Result<bool, String> {
    let engine = match setup.open(vfs, driver.life + RECOVERY_LIFE) {
        Ok(engine) => engine,
        Err(e) if e.kind() == ErrorKind::Damaged => return Ok(true),
        Err(e) => return Err(format!("open failed with the wrong kind: {e:?}")),
    };
    let report = engine.open_report();
    let mut noticed = report.bad_checkpoints > 0 || report.mended_records > 0;
    noticed |= !report.damage.is_empty() || !report.suspects.is_empty() || !report.foreign.is_empty();
    let outcome = match Model::observe(&engine) {
        Ok(found) => match driver.states.contains(&found) {
            true => Ok(noticed),
            false => {
                Err("nothing is said to be wrong, and the state is none that there ever was".to_string())
            }
        },
        // An entry cannot be read: the others must be right.
        Err(_) => entries_are_right(&engine, &driver.states).map(|()| true),
    };
    oracle::kill(vfs, engine);
    outcome
}

fn entries_are_right(engine: &Engine, states: &[Model]) -> Result<(), String> {
    let written: HashSet<(u64, EntryId, Bytes)> = states
        .iter()
        .flat_map(|state| state.regions.iter())
        .flat_map(|(id, log)| log.entries.iter().map(|(entry, payload)| (*id, *entry, payload.clone())))
        .collect();
    for id in engine.regions() {
        let state = engine.region(id).state();
        if state.is_empty() {
            continue;
        }
        for index in state.first..=state.last {
            entry_is_right(engine, id, index, &written)?;
        }
    }
    Ok(())
}

fn entry_is_right(
    engine: &Engine,
    region: RegionId,
    index: u64,
    written: &HashSet<(u64, EntryId, Bytes)>,
) -> Result<(), String> {
    match engine.region(region).entry(index) {
        Ok(entry) if written.contains(&(region.0, entry.id, entry.payload.clone())) => Ok(()),
        Ok(entry) => Err(format!("region {region} hands out {entry:?}, which was never written")),
        Err(e) if e.kind() == ErrorKind::Damaged && e.region() == Some(region) => Ok(()),
        Err(e) => Err(format!("region {region}, entry {index}: {e:?}")),
    }
}
