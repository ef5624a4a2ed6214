//! Operations, crashes and crashes inside recovery, against a model.
//!
//! The model keeps the state after each accepted batch. After a crash the store must hold the state after one
//! of them, no older than the last that was acknowledged: a prefix of what was accepted, each batch whole.
//! Whatever the model would refuse the engine must refuse, and the other way round.

use super::directory::{DIR, options};
use arbitrary::{Result, Unstructured};
use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs, Snapshot};
use raftwood::{Durability, Engine, EntryId, EntryRef, ReadLimit, RegionBatch, RegionId, WriteBatch};
use std::collections::BTreeMap;

/// Does what the input says, and compares after every step that could have lost something.
pub fn operations(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut run = Run::new();
    // An input that ends early has said what it had to say.
    for _ in 0..STEPS_MAX {
        if u.is_empty() || run.step(&mut u).is_err() {
            break;
        }
        super::take();
    }
    run.finish();
}

const STEPS_MAX: usize = 60;

/// Regions, and the highest index that a first entry or a reset gets.
const REGIONS: u64 = 4;

type Model = BTreeMap<u64, RegionModel>;

#[derive(Clone, PartialEq, Default, Debug)]
struct RegionModel {
    base: Option<EntryId>,
    /// Index to term and payload; without gaps.
    entries: BTreeMap<u64, (u64, Vec<u8>)>,
    hard_state: Option<Vec<u8>>,
    kv: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One operation on one region.
#[derive(Clone, Debug)]
enum Step {
    Append { first: u64, entries: Vec<(u64, Vec<u8>)> },
    TruncateFrom(u64),
    CompactThrough(u64),
    Reset(EntryId),
    SetHardState(Vec<u8>),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Destroy,
}

impl RegionModel {
    /// The index that the next entry takes; `None` when any will do.
    fn next(&self) -> Option<u64> {
        self.entries.keys().next_back().copied().or(self.base.map(|b| b.index)).map(|last| last + 1)
    }

    /// False when the operation would break the log; the model is of no use then.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Append { first, entries } => {
                let compacted = self.base.is_some_and(|b| *first <= b.index);
                if compacted || self.next().is_some_and(|next| *first > next) {
                    return false;
                }
                let before = first.checked_sub(1).and_then(|i| match self.entries.get(&i) {
                    Some(entry) => Some(entry.0),
                    None => self.base.filter(|b| b.index == i).map(|b| b.term),
                });
                self.entries.split_off(first);
                let mut term = before.unwrap_or(0);
                for (index, entry) in (*first..).zip(entries) {
                    if entry.0 < term {
                        return false;
                    }
                    term = entry.0;
                    self.entries.insert(index, entry.clone());
                }
            }
            Step::TruncateFrom(index) => drop(self.entries.split_off(index)),
            Step::CompactThrough(index) => {
                let first = self.entries.keys().next().copied();
                if self.base.is_some_and(|b| *index <= b.index) || first.is_some_and(|first| *index < first) {
                    return true;
                }
                let Some(term) = self.entries.get(index).map(|e| e.0) else { return false };
                self.base = Some(EntryId::new(term, *index));
                self.entries = self.entries.split_off(&(index + 1));
            }
            Step::Reset(base) => {
                self.entries.clear();
                self.base = Some(*base);
            }
            Step::SetHardState(state) => self.hard_state = Some(state.clone()),
            Step::Put(key, value) => drop(self.kv.insert(key.clone(), value.clone())),
            Step::Delete(key) => drop(self.kv.remove(key)),
            Step::Destroy => {}
        }
        true
    }
}

/// Applies one step to the whole model.
fn apply(model: &mut Model, region: u64, step: &Step) -> bool {
    if let Step::Destroy = step {
        model.remove(&region);
        return true;
    }
    let mut state = model.get(&region).cloned().unwrap_or_default();
    if !state.apply(step) {
        return false;
    }
    // A compaction that does nothing is not an operation, and makes no region.
    if !matches!(step, Step::CompactThrough(_)) || model.contains_key(&region) {
        model.insert(region, state);
    }
    true
}

/// Adds one step to a batch.
fn add(mut r: RegionBatch<'_>, step: &Step) -> raftwood::Result<()> {
    match step {
        Step::Append { first, entries } => {
            let refs = (*first..)
                .zip(entries)
                .map(|(index, (term, payload))| EntryRef { id: EntryId::new(*term, index), payload });
            r.append(refs)?;
        }
        Step::TruncateFrom(index) => {
            r.truncate_from(*index);
        }
        Step::CompactThrough(index) => {
            r.compact_through(*index)?;
        }
        Step::Reset(base) => {
            r.reset(*base)?;
        }
        Step::SetHardState(state) => {
            r.set_hard_state(state)?;
        }
        Step::Put(key, value) => {
            r.put(key, value)?;
        }
        Step::Delete(key) => {
            r.delete(key)?;
        }
        Step::Destroy => {
            r.destroy();
        }
    }
    Ok(())
}

/// The state as the engine reports it.
fn read(engine: &Engine) -> Model {
    let mut model = Model::new();
    for region in engine.regions() {
        let r = engine.region(region);
        let entries = r.entries_clamped(.., ReadLimit::NONE).expect("a crash alone damages nothing");
        let entries: BTreeMap<_, _> =
            entries.into_iter().map(|e| (e.id.index, (e.id.term, e.payload.to_vec()))).collect();
        for (index, (term, _)) in &entries {
            assert_eq!(r.term(*index).ok(), Some(*term));
        }
        let kv = r.scan(b"").into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        let state = r.state();
        let hard_state = r.hard_state().map(|s| s.to_vec());
        if let (Some(first), Some(last)) = (entries.keys().next(), entries.keys().next_back()) {
            assert_eq!((state.first, state.last), (*first, *last));
            assert_eq!(entries.len() as u64, last - first + 1, "no gaps");
        }
        model.insert(region.0, RegionModel { base: state.base, entries, hard_state, kv });
    }
    model
}

struct Run {
    disk: SimVfs,
    engine: Option<Engine>,
    /// The state after each accepted batch since the last recovery; the first is the state then.
    history: Vec<Model>,
    /// Which of these is acknowledged as durable.
    acked: usize,
    /// How often the store was opened: no two runs draw the same salts.
    lives: u64,
    /// Makes payloads differ.
    count: u8,
}

impl Run {
    fn new() -> Run {
        let disk = SimVfs::new(1);
        let engine = options(&disk, 0).open(DIR).expect("an empty disk can hold a store");
        Run { disk, engine: Some(engine), history: vec![Model::new()], acked: 0, lives: 0, count: 0 }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open between steps")
    }

    fn now(&self) -> &Model {
        self.history.last().expect("never empty")
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        // Some steps are watched, and the power goes off inside them.
        let watched = u.ratio(1, 5)?;
        let acked = self.acked;
        if watched {
            self.disk.snapshot_every(Some(*u.choose(&[Moment::Before, Moment::Middle, Moment::After])?));
        }
        let outcome = self.work(u);
        if watched {
            self.disk.snapshot_every(None);
            let snapshots = self.disk.take_snapshots();
            outcome?;
            if !snapshots.is_empty() {
                let snapshot = &snapshots[u.choose_index(snapshots.len())?];
                self.acked = acked;
                self.crash(u, snapshot)?;
            }
            return Ok(());
        }
        outcome
    }

    fn work(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let kind = u.int_in_range(0..=15)?;
        trace(|| {
            ["batch", "sync", "tick", "purge", "close", "crash"][usize::from(kind.clamp(9, 14) - 9u8)]
                .to_owned()
        });
        match kind {
            0..=9 => self.write(u)?,
            10 => {
                self.engine().sync().expect("the disk is well");
                self.acked = self.history.len() - 1;
            }
            11 => self.engine().tick().expect("the disk is well"),
            12 => drop(self.engine().purge().expect("the disk is well")),
            13 => {
                self.engine().close().expect("the disk is well");
                self.acked = self.history.len() - 1;
                self.reopen(self.disk.clone());
            }
            _ => {
                let frozen = self.disk.freeze();
                self.crash(u, &frozen)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let mut batch = self.engine().batch();
        let mut model = self.now().clone();
        let durability = if u.arbitrary()? { Durability::Synced } else { Durability::Written };
        for _ in 0..u.int_in_range(1..=4)? {
            let region = u.int_in_range(0..=REGIONS - 1)?;
            let step = self.any_step(u, model.get(&region))?;
            let valid = apply(&mut model, region, &step);
            trace(|| format!("  region {region}: {}", brief(&step)));
            if let Err(e) = add(batch.region(RegionId(region)), &step) {
                assert!(!valid, "{step:?} was refused: {e}");
                return Ok(());
            }
            if !valid {
                self.refused(batch, durability, &step);
                return Ok(());
            }
        }
        self.engine().write(batch, durability).expect("the model took it");
        assert_eq!(read(self.engine()), model, "what was accepted can be read");
        self.history.push(model);
        if durability == Durability::Synced {
            self.acked = self.history.len() - 1;
        }
        Ok(())
    }

    fn refused(&self, batch: WriteBatch, durability: Durability, step: &Step) {
        assert!(self.engine().write(batch, durability).is_err(), "{step:?} should have been refused");
        assert_eq!(read(self.engine()), *self.now(), "a refusal leaves no trace");
    }

    fn any_step(&mut self, u: &mut Unstructured<'_>, region: Option<&RegionModel>) -> Result<Step> {
        let known = region.cloned().unwrap_or_default();
        let next = known.next().unwrap_or(1);
        let last_term = known.entries.values().next_back().map_or(0, |e| e.0);
        let last_term = last_term.max(known.base.map_or(0, |b| b.term));
        // Mostly around the end of the log, at times beyond.
        let near = |u: &mut Unstructured<'_>| Ok((next + 1).saturating_sub(u.int_in_range(0..=6)?));
        Ok(match u.int_in_range(0..=15)? {
            0..=7 => {
                let first = if u.ratio(1, 3)? { near(u)? } else { next };
                let mut term = (last_term + u.int_in_range(0..=2)?).saturating_sub(u64::from(u.ratio(1, 9)?));
                let mut entries = Vec::new();
                for _ in 0..u.int_in_range(1..=5)? {
                    term += u64::from(u.ratio(1, 6)?);
                    self.count = self.count.wrapping_add(1);
                    let len = match u.int_in_range(0..=9)? {
                        0 => 0,
                        9 => u.int_in_range(0..=40_000)?,
                        _ => u.int_in_range(0..=200)?,
                    };
                    let mut x = u32::from(self.count).wrapping_mul(0x9e37_79b9) | 1;
                    // Every other payload compresses.
                    let payload = (0..len).map(|_| {
                        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223 * u32::from(self.count % 2));
                        if self.count.is_multiple_of(2) { self.count } else { (x >> 24) as u8 }
                    });
                    entries.push((term, payload.collect()));
                }
                Step::Append { first, entries }
            }
            8 => Step::TruncateFrom(near(u)?),
            9..=10 => Step::CompactThrough(near(u)?),
            11 => Step::Reset(EntryId::new(last_term + 1, u.int_in_range(0..=20)?)),
            12 => Step::SetHardState(u.bytes(3.min(u.len()))?.to_vec()),
            13 => Step::Put(vec![u.int_in_range(0..=3)?], u.bytes(2.min(u.len()))?.to_vec()),
            14 => Step::Delete(vec![u.int_in_range(0..=3)?]),
            _ => Step::Destroy,
        })
    }

    /// The power goes off, perhaps again while the store recovers.
    fn crash(&mut self, u: &mut Unstructured<'_>, at: &Snapshot) -> Result<()> {
        let loss = any_loss(u, at)?;
        trace(|| {
            format!("crash at {:?} {} with {} pending, {loss:?}", at.moment(), at.call(), at.pending_count())
        });
        let mut disk = at.crash(loss);
        for _ in 0..u.int_in_range(0..=2)? {
            disk.snapshot_every(Some(Moment::After));
            // What this recovery made durable is not yet durable at a crash inside it.
            let acked = self.acked;
            self.reopen(disk.clone());
            self.acked = acked;
            disk.snapshot_every(None);
            let snapshots = disk.take_snapshots();
            if snapshots.is_empty() {
                break;
            }
            let at = &snapshots[u.choose_index(snapshots.len())?];
            let loss = any_loss(u, at)?;
            trace(|| format!("  again at {} with {} pending, {loss:?}", at.call(), at.pending_count()));
            disk = at.crash(loss);
        }
        self.reopen(disk);
        Ok(())
    }

    /// Opens the disk, and finds the accepted batch whose state it holds.
    fn reopen(&mut self, disk: SimVfs) {
        self.lives += 1;
        self.engine = None;
        self.disk = disk;
        let engine = options(&self.disk, self.lives).open(DIR).expect("a crash alone damages nothing");
        let found = read(&engine);
        let at = (self.acked..self.history.len()).rev().find(|at| self.history[*at] == found);
        let Some(at) = at else {
            panic!(
                "recovered neither what was acknowledged nor what was accepted after it\nrecovered: {found:?}\nacked: {:?}\naccepted: {:?}",
                self.history[self.acked],
                self.now()
            );
        };
        self.engine = Some(engine);
        // What was recovered was made durable before anybody could read it.
        self.acked = at;
        self.history.truncate(at + 1);
    }

    fn finish(mut self) {
        self.engine().close().expect("the disk is well");
        self.acked = self.history.len() - 1;
        self.reopen(self.disk.clone());
    }
}

fn any_loss(u: &mut Unstructured<'_>, at: &Snapshot) -> Result<LossPolicy> {
    let pending = at.pending_count();
    Ok(match u.int_in_range(0..=5)? {
        0 => LossPolicy::KeepAll,
        1 => LossPolicy::LoseAll,
        2 => LossPolicy::KeepFirst(u.choose_index(pending + 1)?),
        3 => LossPolicy::LoseOnly(u.choose_index(pending + 1)?),
        4 => LossPolicy::Subset(u.arbitrary()?),
        _ => LossPolicy::Random(u.arbitrary()?),
    })
}

/// With `RAFTWOOD_TRACE` set a run prints what it does: the way from an input to a bug.
fn trace(line: impl FnOnce() -> String) {
    if std::env::var_os("RAFTWOOD_TRACE").is_some() {
        eprintln!("{}", line());
    }
}

/// A step without its payloads.
fn brief(step: &Step) -> String {
    match step {
        Step::Append { first, entries } => {
            let parts: Vec<_> =
                entries.iter().map(|(term, payload)| format!("{term}/{}B", payload.len())).collect();
            format!("append at {first}: {}", parts.join(" "))
        }
        other => format!("{other:?}"),
    }
}
