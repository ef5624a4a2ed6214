//! The explorers: crashes at every operation, every loss at some of them, crashes inside recovery, errors at
//! every operation, and swarms.

use super::batch::{Batch, Op};
use super::driver::Driver;
use super::model::Model;
use super::oracle::{self, Depth, Recovered};
use super::policies::{EXHAUSTIVE_MAX, is_exhaustive, policies, thorough, thorough_cost};
use super::report::{Counts, Violation};
use super::setup::Setup;
use super::workload::{Act, Workload};
use bytes::Bytes;
use raftwood::TailPolicy;
use raftwood::random::Rng;
use raftwood::vfs::sim::{self, Fault, LossPolicy, Moment, Profile, SimVfs};
use raftwood::{Durability, EntryId};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How hard to look.
#[derive(Clone, Debug)]
pub struct Explorer {
    /// All chance comes from it.
    pub seed: u64,
    /// Runs side by side.
    pub threads: usize,
    /// Policies at one moment.
    pub policies_max: usize,
    /// Every so manieth recovery is checked in full.
    pub full_every: u64,
}

impl Default for Explorer {
    fn default() -> Self {
        Explorer { seed: 1, threads: 2, policies_max: 10, full_every: 8 }
    }
}

/// Recoveries of a crash inside recovery are crashed again down to here.
const DEPTH_MAX: u32 = 3;

/// Runs of recoveries are numbered from here, far from those of the runs before them.
pub(super) const RECOVERY_LIFE: u64 = 1000;

impl Explorer {
    /// A power cut at every operation that changes the disk, with many losses each.
    pub fn crashes(&self, workloads: &[Workload], setups: &[Setup]) -> Counts {
        let cases = workloads.len() * setups.len();
        self.spread(0..cases as u64, |n| {
            let workload = &workloads[n as usize % workloads.len()];
            self.crash_run(workload, &setups[n as usize / workloads.len()])
        })
    }

    /// A power cut at some operations, with every loss there is: all subsets of up to ten pending changes,
    /// and of more than that each one alone, prefixes and a sample. About `budget` recoveries in each run;
    /// moments with so few changes that [`crashes`](Explorer::crashes) takes them whole are left to it.
    pub fn subsets(&self, workloads: &[Workload], setups: &[Setup], budget: usize) -> Counts {
        let cases = workloads.len() * setups.len();
        self.spread(0..cases as u64, |n| {
            let workload = &workloads[n as usize % workloads.len()];
            self.subset_run(workload, &setups[n as usize / workloads.len()], budget)
        })
    }

    /// A power cut at every operation, on a device that leaves garbage in the sectors that it was writing.
    pub fn garbled(&self, workloads: &[Workload], setups: &[Setup]) -> Counts {
        let cases = workloads.len() * setups.len();
        self.spread(0..cases as u64, |n| {
            let workload = &workloads[n as usize % workloads.len()];
            self.garbled_run(workload, &setups[n as usize / workloads.len()])
        })
    }

    /// A power cut at every operation of a recovery from a power cut, and again inside the
    /// recovery from that.
    pub fn nested(&self, workloads: &[Workload], setups: &[Setup], roots_per_run: u64) -> Counts {
        let cases = workloads.len() * setups.len();
        self.spread(0..cases as u64, |n| {
            let workload = &workloads[n as usize % workloads.len()];
            self.nested_run(workload, &setups[n as usize / workloads.len()], roots_per_run)
        })
    }

    /// An error at every operation, once and forever; about `per_run` of them in each run.
    pub fn errors(&self, workloads: &[Workload], setups: &[Setup], per_run: u64) -> Counts {
        let cases = workloads.len() * setups.len();
        self.spread(0..cases as u64, |n| {
            let workload = &workloads[n as usize % workloads.len()];
            self.error_run(workload, &setups[n as usize / workloads.len()], per_run)
        })
    }

    /// Random workloads with random options, crashes and faults, one for each seed.
    pub fn swarm(&self, seeds: Range<u64>) -> Counts {
        self.spread(seeds, |seed| self.swarm_run(seed))
    }

    // ---- one case each ------------------------------------------------------------------------------------

    fn crash_run(&self, workload: &Workload, setup: &Setup) -> Counts {
        let mut counts = Counts { runs: 1, ..Counts::default() };
        let mut rng = Rng::new(self.seed ^ setup.seed);
        let Some(mut driver) = record("crash", workload, setup, &mut counts) else { return counts };
        let snapshots = std::mem::take(&mut driver.snapshots);
        let scene = Scene { explorer: "crash", workload, setup, driver: &driver };
        for snapshot in &snapshots {
            counts.moments += 1;
            let pending = snapshot.pending_count();
            if is_exhaustive(pending, self.policies_max) {
                counts.exhaustive[pending] += 1;
            }
            let losses = policies(pending, self.policies_max, &mut rng);
            if !self.lose(&scene, snapshot, losses, &mut rng, &mut counts) {
                return counts;
            }
        }
        self.torn(&scene, &snapshots, &mut counts);
        counts
    }

    fn subset_run(&self, workload: &Workload, setup: &Setup, budget: usize) -> Counts {
        let mut counts = Counts { runs: 1, ..Counts::default() };
        let mut rng = Rng::new(self.seed ^ setup.seed ^ 0x5b5e);
        let Some(mut driver) = record("subsets", workload, setup, &mut counts) else { return counts };
        let mut snapshots = std::mem::take(&mut driver.snapshots);
        snapshots.retain(|s| !is_exhaustive(s.pending_count(), self.policies_max));
        let scene = Scene { explorer: "subsets", workload, setup, driver: &driver };
        let mut left = budget;
        // Every other run takes the moment with the most losses that can all be taken; the rest is by chance.
        let few = |s: &sim::Snapshot| s.pending_count() <= EXHAUSTIVE_MAX;
        let most = (0..snapshots.len())
            .filter(|&n| few(&snapshots[n]))
            .max_by_key(|&n| snapshots[n].pending_count());
        let mut next = most.filter(|_| rng.one_in(2));
        while !snapshots.is_empty() {
            let chance = rng.below(snapshots.len() as u64) as usize;
            let snapshot = snapshots.swap_remove(next.take().unwrap_or(chance));
            let pending = snapshot.pending_count();
            // What does not fit any more makes room for one that does.
            let Some(rest) = left.checked_sub(thorough_cost(pending)) else { continue };
            left = rest;
            counts.moments += 1;
            match pending {
                0..=EXHAUSTIVE_MAX => counts.exhaustive[pending] += 1,
                _ => counts.singled += 1,
            }
            let losses = thorough(pending, &mut rng);
            if !self.lose(&scene, &snapshot, losses, &mut rng, &mut counts) {
                break;
            }
        }
        counts
    }

    /// Recovers from each of the losses at one moment. False once enough is wrong.
    fn lose(
        &self,
        scene: &Scene<'_>,
        snapshot: &sim::Snapshot,
        losses: Vec<LossPolicy>,
        rng: &mut Rng,
        counts: &mut Counts,
    ) -> bool {
        losses.into_iter().all(|policy| {
            let process_only = policy == LossPolicy::KeepAll;
            let depth = if rng.one_in(self.full_every) { Depth::Full } else { Depth::Quick };
            scene.recover(snapshot, policy, process_only, counts, |disk, candidates| {
                oracle::check(disk, scene.setup, RECOVERY_LIFE, candidates, depth)
            })
        })
    }

    /// Sectors that are torn themselves: not promised by the default policy, survived by the other one.
    fn torn(&self, scene: &Scene<'_>, snapshots: &[sim::Snapshot], counts: &mut Counts) {
        let setup = Setup { tail_policy: TailPolicy::AssumeTorn, ..scene.setup.clone() };
        let scene = Scene { explorer: "torn sector", setup: &setup, ..*scene };
        let mut rng = Rng::new(self.seed ^ setup.seed ^ 0x7077);
        for snapshot in snapshots.iter().filter(|s| s.pending_count() > 0) {
            let n = rng.below(snapshot.pending_count() as u64) as usize;
            let policy = LossPolicy::Torn(n, 8 * rng.below(64) as usize);
            let go_on = scene.recover(snapshot, policy, false, counts, |disk, candidates| {
                oracle::check(disk, &setup, RECOVERY_LIFE, candidates, Depth::Quick)
            });
            if !go_on {
                return;
            }
        }
    }

    fn garbled_run(&self, workload: &Workload, setup: &Setup) -> Counts {
        let mut counts = Counts { runs: 1, ..Counts::default() };
        let mut rng = Rng::new(self.seed ^ setup.seed ^ 0x6a4b);
        // What the run itself loses is another matter.
        let mut workload = workload.clone();
        workload.acts.retain(|a| *a != Act::Crash);
        let setup = Setup { profile: Profile::GarbageOnTear, ..setup.clone() };
        let Some(mut driver) = record("garbled", &workload, &setup, &mut counts) else { return counts };
        let snapshots = std::mem::take(&mut driver.snapshots);
        let scene = Scene { explorer: "garbled", workload: &workload, setup: &setup, driver: &driver };
        for snapshot in snapshots.iter().filter(|s| s.pending_count() > 0) {
            counts.moments += 1;
            for policy in
                [LossPolicy::LoseAll, LossPolicy::Random(rng.next()), LossPolicy::Random(rng.next())]
            {
                let go_on = scene.recover(snapshot, policy, false, &mut counts, |disk, candidates| {
                    oracle::check_garbled(disk, &setup, RECOVERY_LIFE, candidates)
                });
                if !go_on {
                    return counts;
                }
            }
        }
        counts
    }

    fn nested_run(&self, workload: &Workload, setup: &Setup, roots: u64) -> Counts {
        let mut counts = Counts { runs: 1, ..Counts::default() };
        let mut rng = Rng::new(self.seed ^ setup.seed ^ 0x9e57);
        let Some(mut driver) = record("nested", workload, setup, &mut counts) else { return counts };
        let snapshots = std::mem::take(&mut driver.snapshots);
        for _ in 0..roots {
            let snapshot = &snapshots[rng.below(snapshots.len() as u64) as usize];
            let policy = match rng.below(3) {
                0 => LossPolicy::KeepAll,
                _ => LossPolicy::Random(rng.next()),
            };
            let candidates = driver.candidates(snapshot.mark(), policy == LossPolicy::KeepAll);
            let mut path = vec![place(snapshot, policy)];
            let disk = snapshot.crash(policy);
            if let Err(what) = self.descend(&disk, setup, 1, candidates, &mut path, &mut rng, &mut counts) {
                counts.violations.push(Violation {
                    explorer: "crash inside recovery",
                    workload: workload.name.clone(),
                    seed: setup.seed,
                    at: path.join("\n  then "),
                    what,
                    transcript: driver.trace.clone(),
                });
                if counts.enough() {
                    return counts;
                }
            }
        }
        counts
    }

    /// Recovers, seals, writes; photographs all of it; and recovers from the photographs.
    #[allow(clippy::too_many_arguments, reason = "a recursion carries its state")]
    fn descend(
        &self,
        disk: &SimVfs,
        setup: &Setup,
        depth: u32,
        candidates: &[Model],
        path: &mut Vec<String>,
        rng: &mut Rng,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let life = RECOVERY_LIFE * u64::from(depth);
        disk.set_mark(0);
        if depth < DEPTH_MAX {
            disk.snapshot_every(Some(Moment::Before));
        }
        let states = caught(|| recover_and_write(disk, setup, life, candidates, depth))?;
        counts.crash_recoveries += 1;
        let mut snapshots = disk.take_snapshots();
        if depth >= DEPTH_MAX {
            return Ok(());
        }
        disk.snapshot_every(None);
        snapshots.push(disk.freeze());
        counts.moments += snapshots.len() as u64;
        for snapshot in &snapshots {
            // Below the first level a sample: the tree is wide.
            if depth > 1 && !rng.one_in(4) {
                continue;
            }
            let expected = match snapshot.mark() {
                0 => candidates,
                1 => &states[..],
                _ => &states[1..],
            };
            for policy in policies(snapshot.pending_count(), if depth == 1 { 4 } else { 2 }, rng) {
                path.push(place(snapshot, policy));
                let next = snapshot.crash(policy);
                self.descend(&next, setup, depth + 1, expected, path, rng, counts)?;
                path.pop();
            }
        }
        Ok(())
    }

    fn error_run(&self, workload: &Workload, setup: &Setup, per_run: u64) -> Counts {
        let mut counts = Counts { runs: 1, ..Counts::default() };
        let mut rng = Rng::new(self.seed ^ setup.seed ^ 0xe440);
        let mut workload = workload.clone();
        // The fault is set on one disk.
        workload.acts.retain(|a| *a != Act::Crash);
        // A run without faults says how many operations there are.
        let ops = match caught(|| {
            let mut driver = Driver::start(setup.clone(), &workload, false, setup.disk(), None)?;
            run_acts(&mut driver, &workload, false)?;
            Ok(driver.vfs.ops())
        }) {
            Ok(ops) => ops,
            Err(what) => {
                counts.violations.push(Violation {
                    explorer: "error",
                    workload: workload.name.clone(),
                    seed: setup.seed,
                    at: "before any error".to_string(),
                    what,
                    transcript: Vec::new(),
                });
                return counts;
            }
        };
        for n in 0..per_run.min(ops * 2) {
            // Spread over the run, and over all of it when there are enough.
            let at = 1 + if per_run >= ops { n % ops } else { n * ops / per_run };
            let errno = rng.pick(&ERRNOS);
            let after = rng.one_in(6);
            let mut fault =
                Fault::new(if after { sim::Effect::ErrorAfter(errno) } else { sim::Effect::Error(errno) });
            fault = fault.at(at);
            if rng.one_in(3) {
                fault = fault.forever();
            }
            let mut trace = Vec::new();
            match caught(|| self.error_case(&workload, setup, fault.clone(), &mut rng, &mut trace)) {
                Ok((struck, recoveries)) => {
                    counts.errors_injected += struck;
                    counts.crash_recoveries += recoveries;
                }
                Err(what) => counts.violations.push(Violation {
                    explorer: "error",
                    workload: workload.name.clone(),
                    seed: setup.seed,
                    at: format!("op {at}, {fault:?}, {:?}", setup.profile),
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

    fn error_case(
        &self,
        workload: &Workload,
        setup: &Setup,
        fault: Fault,
        rng: &mut Rng,
        trace: &mut Vec<String>,
    ) -> Result<(u64, u64), String> {
        let disk = setup.disk();
        disk.set_fault(fault);
        disk.transcript_start();
        let mut driver = Driver::start(setup.clone(), workload, true, disk, None)?;
        let outcome = run_acts(&mut driver, workload, false).and_then(|()| after_error(&mut driver));
        let depth = if rng.one_in(self.full_every) { Depth::Full } else { Depth::Quick };
        let mut recoveries = 0;
        let outcome = outcome.and_then(|()| {
            // The power fails, and the disk is well again.
            let policy = if rng.one_in(2) { LossPolicy::LoseAll } else { LossPolicy::Random(rng.next()) };
            let cut = driver.vfs.crash(policy);
            driver.kill();
            driver.vfs.clear_faults();
            let candidates = driver.candidates(u64::MAX, false);
            let life = driver.life + RECOVERY_LIFE;
            let r = oracle::check(&cut, setup, life, candidates, depth)
                .map_err(|e| format!("after {policy:?}: {e}"))?;
            recoveries += r.recoveries;
            // Only the process dies: the cache may know more than the disk.
            let r = oracle::check(&driver.vfs, setup, life, candidates, depth)
                .map_err(|e| format!("after the process died: {e}"))?;
            recoveries += r.recoveries;
            Ok(())
        });
        if outcome.is_err() {
            *trace = driver.trace.clone();
            trace.extend(driver.vfs.take_transcript());
        }
        outcome.map(|()| (u64::from(driver.vfs.faults_struck() > 0), recoveries))
    }

    fn swarm_run(&self, seed: u64) -> Counts {
        let mut counts = Counts { runs: 1, seeds: 1, ..Counts::default() };
        let mut rng = Rng::new(seed ^ self.seed.rotate_left(32));
        let mut setup = Setup::random(seed, &mut rng);
        let workload = Workload::random(&mut rng);
        let faulty = rng.one_in(3);
        let disk = setup.disk();
        if faulty {
            if rng.one_in(2) {
                setup.profile = Profile::FailedSyncCleansPages;
                disk.set_profile(setup.profile);
            }
            let mut fault = Fault::error(rng.pick(&ERRNOS)).skip(rng.below(90));
            if rng.one_in(2) {
                fault = fault.on(rng.pick(&FAULTED));
            }
            disk.set_fault(if rng.one_in(2) { fault.forever() } else { fault });
        }
        disk.set_short_io(rng.one_in(3).then_some(5));
        if faulty {
            disk.transcript_start();
        }
        let mut trace = Vec::new();
        let outcome = caught(|| {
            let mut driver = Driver::start(setup.clone(), &workload, faulty, disk, None)?;
            let mut finish = || {
                // A read may be what an error strikes.
                run_acts(&mut driver, &workload, !faulty)?;
                if faulty {
                    after_error(&mut driver)?;
                }
                let policy = LossPolicy::Random(rng.next());
                let disk = driver.vfs.crash(policy);
                driver.kill();
                let candidates = driver.candidates(u64::MAX, false);
                let depth = if rng.one_in(4) { Depth::Full } else { Depth::Quick };
                let life = driver.life + RECOVERY_LIFE;
                let end = oracle::check(&disk, &setup, life, candidates, depth)
                    .map_err(|e| format!("at the end, {policy:?}: {e}"))?;
                Ok((driver.recoveries + end.recoveries, u64::from(driver.vfs.faults_struck() > 0)))
            };
            let result = finish();
            trace = driver.trace.clone();
            if result.is_err() {
                trace.extend(driver.vfs.take_transcript());
            }
            result
        });
        match outcome {
            Ok((recoveries, errors)) => {
                counts.crash_recoveries += recoveries;
                counts.errors_injected += errors;
            }
            Err(what) => counts.violations.push(Violation {
                explorer: "swarm",
                workload: format!("{:?}", workload.acts),
                seed,
                at: format!("{setup:?}, faulty: {faulty}"),
                what,
                transcript: trace,
            }),
        }
        counts
    }

    /// Spreads cases over the threads; stops early once enough is wrong.
    pub(super) fn spread(&self, cases: Range<u64>, run: impl Fn(u64) -> Counts + Sync) -> Counts {
        let next = AtomicU64::new(cases.start);
        let total = Mutex::new(Counts::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= cases.end {
                            return;
                        }
                        let counts = run(n);
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        total.add(counts);
                        if total.enough() {
                            return;
                        }
                    }
                });
            }
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that was photographed, and what a violation has to name of it.
#[derive(Clone, Copy)]
struct Scene<'a> {
    explorer: &'static str,
    workload: &'a Workload,
    setup: &'a Setup,
    driver: &'a Driver,
}

impl Scene<'_> {
    /// Checks what a crash at this moment leaves. False once enough is wrong. `process_only`:
    /// nothing written is lost.
    fn recover(
        &self,
        snapshot: &sim::Snapshot,
        policy: LossPolicy,
        process_only: bool,
        counts: &mut Counts,
        check: impl FnOnce(&SimVfs, &[Model]) -> Result<Recovered, String>,
    ) -> bool {
        let candidates = self.driver.candidates(snapshot.mark(), process_only);
        let disk = snapshot.crash(policy);
        match caught(|| check(&disk, candidates)) {
            Ok(recovered) => {
                counts.crash_recoveries += recovered.recoveries;
                counts.doubtful += recovered.doubtful;
            }
            Err(what) => counts.violations.push(Violation {
                explorer: self.explorer,
                workload: self.workload.name.clone(),
                seed: self.setup.seed,
                at: place(snapshot, policy),
                what,
                transcript: self.driver.trace.clone(),
            }),
        }
        !counts.enough()
    }
}

/// A crash, for people.
fn place(snapshot: &sim::Snapshot, policy: LossPolicy) -> String {
    format!(
        "op {} ({:?} {}), {policy:?} of {:?}",
        snapshot.op(),
        snapshot.moment(),
        snapshot.call(),
        snapshot.pending()
    )
}

/// What a call may fail with.
const ERRNOS: [i32; 7] = [sim::EIO, sim::EIO, sim::EIO, sim::ENOSPC, sim::EDQUOT, sim::EMFILE, sim::EROFS];

/// Calls whose failure is worth a special look.
const FAULTED: [sim::OpKind; 6] = [
    sim::OpKind::SyncData,
    sim::OpKind::Write,
    sim::OpKind::SyncDir,
    sim::OpKind::Rename,
    sim::OpKind::Create,
    sim::OpKind::Remove,
];

/// Runs a workload on a healthy disk and photographs it.
fn record(explorer: &'static str, workload: &Workload, setup: &Setup, counts: &mut Counts) -> Option<Driver> {
    let mut trace = Vec::new();
    let outcome = caught(|| {
        let mut driver = Driver::start(setup.clone(), workload, false, setup.disk(), Some(Moment::Before))?;
        let outcome = run_acts(&mut driver, workload, true).and_then(|()| driver.finish());
        trace = driver.trace.clone();
        outcome.map(|()| driver)
    });
    match outcome {
        Ok(driver) => Some(driver),
        Err(what) => {
            counts.violations.push(Violation {
                explorer,
                workload: workload.name.clone(),
                seed: setup.seed,
                at: "in the run itself".to_string(),
                what,
                transcript: trace,
            });
            None
        }
    }
}

/// `compare` reads everything after every act, which is part of the run: two runs are only the same
/// if both do.
pub(super) fn run_acts(driver: &mut Driver, workload: &Workload, compare: bool) -> Result<(), String> {
    for act in &workload.acts {
        driver.act(*act)?;
        if driver.stuck() {
            return Ok(());
        }
        if compare {
            driver.compare()?;
        }
    }
    Ok(())
}

/// What must hold in a run that met an error, before it ends.
fn after_error(driver: &mut Driver) -> Result<(), String> {
    match driver.poisoned {
        true => driver.check_poisoned(),
        false => {
            driver.vfs.clear_faults();
            driver.finish()
        }
    }
}

/// One run after a crash: recover, tidy, write one batch. Returns the states before and after that batch, and
/// marks the disk with 0 while it recovers, 1 from then on, 2 once the batch is acknowledged.
fn recover_and_write(
    disk: &SimVfs,
    setup: &Setup,
    life: u64,
    candidates: &[Model],
    depth: u32,
) -> Result<Vec<Model>, String> {
    let (engine, at) = oracle::open_and_match(disk, setup, life, candidates)?;
    let before = candidates[at].clone();
    let mut batch = Batch::default();
    let id = EntryId::new(3, u64::from(depth));
    for region in [0xde97_u64, 1] {
        batch.add(region, Op::Reset(EntryId::new(id.term, id.index - 1)));
        batch.add(region, Op::Append(vec![(id, Bytes::from(format!("depth {depth}")))]));
    }
    let after = before.after(&batch).map_err(|k| format!("the model refuses {batch:?}: {k:?}"))?;
    disk.set_mark(1);
    // Sometimes before the tidying, sometimes after it.
    let early = life.wrapping_add(before.regions.len() as u64).is_multiple_of(2);
    if !early {
        engine.tick().map_err(|e| format!("tick: {e:?}"))?;
    }
    let built = batch.build(&engine).map_err(|e| format!("building: {e:?}"))?;
    engine.write(built, Durability::Synced).map_err(|e| format!("writing: {e:?}"))?;
    disk.set_mark(2);
    if early {
        engine.tick().map_err(|e| format!("tick: {e:?}"))?;
    }
    oracle::kill(disk, engine);
    Ok(vec![before, after])
}

/// A panic is a violation like any other.
pub(super) fn caught<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("of some kind");
        Err(format!("a panic: {text}"))
    })
}
