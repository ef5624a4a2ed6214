//! Rot together with a crash inside recovery, and inside the recovery of that, at every point.
//!
//! The story: recovery copies the batches that nothing confirms into a new segment. A power cut interrupted
//! it; then the description of one of them rotted in the original. The next open took the unfinished copy for
//! a continuation of the log, did not judge the original's end any more, and acknowledged batches were gone
//! without a word, where the same rot without the interrupted copy was refused.
//!
//! The rule: an interrupted recovery proves nothing about the original. Whatever rots, an open after any
//! number of interrupted recoveries is silent about a loss only where an open without them is, too: where
//! nothing on the disk tells the rot from a tear, which is counted and printed. `SWEEP=large` tries more
//! policies and a third recovery.

use crate::support::engines::{DIR, kill};
use crate::support::files::{files, position};
use crate::support::model::{Kind, Rng};
use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs, Snapshot};
use raftwood::{Durability, Engine, EntryId, Health, ReadLimit, RegionId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const BATCHES: u64 = 3;

/// A disk with batches that nothing confirms: where each stands, and what it holds.
struct Scene {
    disk: Snapshot,
    kind: Kind,
    file: PathBuf,
    /// Header and description, then payload of each batch.
    places: Vec<(usize, usize, usize)>,
    /// What region 9 has, which was confirmed.
    settled: u64,
}

fn large() -> bool {
    std::env::var("SWEEP").is_ok_and(|tier| tier == "large")
}

fn payload(batch: u64, len: usize) -> Vec<u8> {
    Rng::new(0xa000 + batch).bytes(len)
}

fn len_of(batch: u64) -> usize {
    [0, 700, 3000, 90][batch as usize]
}

fn append(engine: &Engine, region: u64, index: u64, bytes: &[u8]) {
    let mut batch = engine.batch();
    batch.region(RegionId(region)).append([(EntryId::new(1, index), bytes)]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
}

fn scene(recycled: bool, ticked: bool, grouped: bool) -> Scene {
    let kind = Kind { lz4: false, pool_files: if recycled { 3 } else { 1 } };
    let disk = SimVfs::new(77);
    let engine = kind.options(&disk, 1).open(DIR).unwrap();
    let mut settled = 0;
    let mut filler = Rng::new(3);
    let used_before = |engine: &Engine| {
        let lsn = engine.durable_lsn();
        let active = files(&disk).remove(&PathBuf::from(format!("{DIR}/{:010}.log", lsn.segment())));
        let after = active.map_or(Vec::new(), |b| b[lsn.offset() as usize..].to_vec());
        after.iter().filter(|b| **b != 0).count() > 30_000
    };
    loop {
        settled += 1;
        append(&engine, 9, settled, &filler.bytes(2500));
        if !recycled || settled > 200 {
            break;
        }
        if settled % 10 == 0 {
            let mut batch = engine.batch();
            batch.region(RegionId(9)).compact_through(settled - 1).unwrap();
            engine.write(batch, Durability::Synced).unwrap();
            engine.purge().unwrap();
            engine.tick().unwrap();
            if used_before(&engine) {
                break;
            }
        }
        engine.tick().unwrap();
    }
    assert!(!recycled || used_before(&engine), "no file was used again");
    if ticked {
        engine.tick().unwrap();
        engine.tick().unwrap();
    }
    let submit = |index: u64| {
        let mut batch = engine.batch();
        let bytes = payload(index, len_of(index));
        batch.region(RegionId(1)).append([(EntryId::new(1, index), &bytes[..])]).unwrap();
        batch.region(RegionId(1)).set_hard_state(&[index as u8]).unwrap();
        engine.submit(batch, Durability::Synced).unwrap()
    };
    if grouped {
        let tickets: Vec<_> = (1..=BATCHES).map(submit).collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
    } else {
        for index in 1..=BATCHES {
            submit(index).wait().unwrap();
        }
    }
    let after = disk.crash(LossPolicy::LoseAll);
    kill(&disk, engine);
    let mut places = Vec::new();
    let mut found = None;
    for (path, bytes) in files(&after) {
        let mut from = None;
        for batch in 1..=BATCHES {
            let wanted = payload(batch, len_of(batch));
            if let Some(at) = position(&bytes, &wanted) {
                let at = at as usize;
                let start = from.unwrap_or(at - 60);
                places.push((start, at, at + wanted.len()));
                from = Some(at + wanted.len());
                found = Some(path.clone());
            }
        }
    }
    assert_eq!(places.len() as u64, BATCHES);
    Scene { disk: after.freeze(), kind, file: found.unwrap(), places, settled }
}

/// One way to rot.
#[derive(Clone, Debug)]
enum Rot {
    /// Bits of one batch's header or description, or of its payload.
    Bits { batch: usize, payload: bool, bits: u64, seed: u64 },
    /// A sector of the original, counted from that of the first batch, is zeros or anything.
    Sector { number: usize, random: bool },
}

fn rots(scene: &Scene) -> Vec<Rot> {
    let mut all = Vec::new();
    for batch in 0..BATCHES as usize {
        for (bits, seed) in [(1, 1), (3, 2), (3, 3), (16, 4)] {
            all.push(Rot::Bits { batch, payload: false, bits, seed });
        }
        all.push(Rot::Bits { batch, payload: true, bits: 3, seed: 5 });
    }
    let first = scene.places[0].0 / 512;
    let last = (scene.places.last().unwrap().2 - 1) / 512;
    for number in first..=last {
        all.extend([Rot::Sector { number, random: false }, Rot::Sector { number, random: true }]);
    }
    all
}

impl Rot {
    fn apply(&self, scene: &Scene, disk: &SimVfs) {
        match self {
            Rot::Bits { batch, payload, bits, seed } => {
                let (start, at, end) = scene.places[*batch];
                let (from, to) = if *payload { (at, end) } else { (start, at) };
                let mut rng = Rng::new(*seed);
                // Different bits, or two of them would heal.
                let mut chosen = BTreeSet::new();
                while (chosen.len() as u64) < *bits {
                    chosen.insert(from as u64 * 8 + rng.below((to - from) as u64 * 8));
                }
                chosen.iter().for_each(|bit| disk.flip_bit(&scene.file, *bit).unwrap());
            }
            Rot::Sector { number, random } => {
                let bytes = if *random { Rng::new(*number as u64).bytes(512) } else { vec![0; 512] };
                disk.write_bytes(&scene.file, *number as u64 * 512, &bytes).unwrap();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Whole,
    Said,
    Refused,
    Silent,
    Wrong,
}

fn look(scene: &Scene, disk: &SimVfs) -> Outcome {
    let Ok(engine) = scene.kind.options(disk, 90).open(DIR) else { return Outcome::Refused };
    let region = engine.region(RegionId(1));
    let mut right = 0;
    let mut outcome = None;
    for index in 1..=BATCHES {
        match region.entry(index) {
            Ok(entry) if entry.payload == payload(index, len_of(index)) => right += 1,
            Ok(_) => outcome = Some(Outcome::Wrong),
            Err(_) => {}
        }
    }
    let vote = region.hard_state().as_deref() == Some(&[BATCHES as u8][..]);
    let said = region.health() != Health::Healthy;
    let settled = engine.region(RegionId(9));
    if settled.last_index() != scene.settled || settled.entries_clamped(.., ReadLimit::NONE).is_err() {
        // That was confirmed, and nothing touched it: no doubt about the tail excuses its loss.
        outcome = Some(if settled.health() == Health::Healthy { Outcome::Wrong } else { Outcome::Said });
    }
    let outcome = outcome.unwrap_or(match (right == BATCHES && vote, said) {
        (true, false) => Outcome::Whole,
        (_, true) => Outcome::Said,
        (false, false) => Outcome::Silent,
    });
    kill(disk, engine);
    outcome
}

/// The disks that a crash may leave at each point of an open.
fn interrupted(
    scene: &Scene,
    disk: &SimVfs,
    run: u64,
    moments: &[Moment],
    policies: usize,
) -> Vec<(String, SimVfs)> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for moment in moments {
        let disk = disk.crash(LossPolicy::KeepAll);
        disk.snapshot_every(Some(*moment));
        let Ok(engine) = scene.kind.options(&disk, run).open(DIR) else { continue };
        let snapshots = disk.take_snapshots();
        kill(&disk, engine);
        for snapshot in snapshots {
            let pending = snapshot.pending_count();
            let mut ways = vec![LossPolicy::LoseAll, LossPolicy::KeepAll];
            for n in (0..pending).step_by(pending.div_ceil(policies).max(1)) {
                ways.extend([LossPolicy::KeepFirst(n), LossPolicy::LoseOnly(n), LossPolicy::KeepOnly(n)]);
            }
            for way in ways {
                let left = snapshot.crash(way);
                if seen.insert(left.digest()) {
                    all.push((format!("{moment:?} {} {way:?}", snapshot.call()), left));
                }
            }
        }
    }
    all
}

#[derive(Default)]
struct Tally {
    counts: BTreeMap<(Outcome, Outcome), u64>,
    worse: Vec<String>,
}

fn explore(scene: &Scene, name: &str) -> Tally {
    let every = [Moment::Before, Moment::Middle, Moment::After];
    let many = if large() { usize::MAX } else { 6 };
    let once = interrupted(scene, &scene.disk.crash(LossPolicy::KeepAll), 50, &every, many);
    let rots = rots(scene);
    let controls: Vec<Outcome> = rots
        .iter()
        .map(|rot| {
            let disk = scene.disk.crash(LossPolicy::KeepAll);
            rot.apply(scene, &disk);
            look(scene, &disk)
        })
        .collect();
    let tally = Mutex::new(Tally::default());
    let next = AtomicUsize::new(0);
    let holds = |disk: &SimVfs| disk.list().iter().any(|f| f.0 == scene.file);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some((how, left)) = once.get(n) else { return };
                    let mut cases: Vec<(String, SimVfs)> =
                        vec![(how.clone(), left.crash(LossPolicy::KeepAll))];
                    // The second recovery is interrupted too; of the third, which is like it, a few.
                    if large() || n.is_multiple_of(3) {
                        let again =
                            interrupted(scene, left, 60, &[Moment::After], if large() { 8 } else { 1 });
                        let step = if large() { 1 } else { again.len().div_ceil(8).max(1) };
                        for (then, twice) in again.into_iter().step_by(step) {
                            if large() && n.is_multiple_of(8) {
                                let more = interrupted(scene, &twice, 70, &[Moment::After], 1);
                                let third = more.into_iter().step_by(7);
                                cases
                                    .extend(third.map(|(x, d)| (format!("{how}, then {then}, then {x}"), d)));
                            }
                            cases.push((format!("{how}, then {then}"), twice));
                        }
                    }
                    for (how, left) in cases.iter().filter(|(_, disk)| holds(disk)) {
                        let whole = look(scene, &left.crash(LossPolicy::KeepAll));
                        assert_eq!(whole, Outcome::Whole, "{name}: crashes alone: {how}");
                        for (rot, control) in rots.iter().zip(&controls) {
                            let disk = left.crash(LossPolicy::KeepAll);
                            rot.apply(scene, &disk);
                            let found = look(scene, &disk);
                            let mut tally = tally.lock().unwrap();
                            *tally.counts.entry((*control, found)).or_default() += 1;
                            let silent = matches!(found, Outcome::Silent | Outcome::Wrong);
                            if silent && *control != found {
                                tally.worse.push(format!(
                                    "{name}: {rot:?}: {control:?} becomes {found:?} after {how}"
                                ));
                            }
                        }
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

fn explore_all(recycled: bool) {
    let mut worse = Vec::new();
    for ticked in [true, false] {
        for grouped in [true, false] {
            let name = format!("recycled {recycled}, idle before {ticked}, one group {grouped}");
            let tally = explore(&scene(recycled, ticked, grouped), &name);
            println!("{name}:");
            for ((control, found), count) in &tally.counts {
                println!("    {count:6}  {control:?} without an interrupted recovery, {found:?} with");
            }
            println!("    {:6}  of them lost without a word by the interruption", tally.worse.len());
            tally.worse.iter().take(4).for_each(|w| println!("        {w}"));
            worse.extend(tally.worse);
        }
    }
    let count = worse.len();
    worse.truncate(6);
    assert_eq!(count, 0, "{worse:#?}");
}

#[test]
fn an_interrupted_recovery_hides_no_rot_of_its_original() {
    explore_all(false);
}

#[test]
fn an_interrupted_recovery_hides_no_rot_of_its_original_on_recycled_files() {
    explore_all(true);
}
