//! What must hold of a store that was tampered with.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::stores::{Acked, REGIONS, State, Store};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Engine, ErrorKind, HardStateHealth, Health, ReadLimit, RegionId};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What became of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Open failed and named a file.
    Refused(String),
    /// These regions have an entry that cannot be read, or do not know their hard state.
    Open { damaged: Vec<u64> },
}

impl Outcome {
    /// How many regions stopped serving.
    pub(crate) fn stopped(&self) -> usize {
        match self {
            Outcome::Refused(_) => REGIONS as usize,
            Outcome::Open { damaged } => damaged.len(),
        }
    }
}

/// Opens the store and compares it with what was acknowledged. `torn_is_fine`: the last groups may be gone
/// where nothing is left that proves that they were acknowledged.
pub(crate) fn examine(vfs: &SimVfs, store: &Store, torn_is_fine: bool) -> Result<Outcome, String> {
    let engine = match of_run(vfs, 99).open(DIR) {
        Ok(engine) => engine,
        Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
            return match e.path() {
                Some(_) => Ok(Outcome::Refused(e.to_string())),
                None => Err(format!("open fails and names no file: {e:?}")),
            };
        }
        Err(e) => return Err(format!("open fails with the wrong kind: {e:?}")),
    };
    let mut outcome = compare(&engine, &store.acked);
    for before in store.prefixes.iter().filter(|_| torn_is_fine) {
        if let Err(why) = outcome {
            outcome = compare(&engine, before).map_err(|e| format!("{why}; without the last groups: {e}"));
        }
    }
    kill(vfs, engine);
    outcome.map(|damaged| Outcome::Open { damaged })
}

fn compare(engine: &Engine, acked: &State) -> Result<Vec<u64>, String> {
    let mut damaged = Vec::new();
    for (id, acked) in acked {
        if !serves(engine, *id, acked).map_err(|e| format!("region {id}: {e}"))? {
            damaged.push(*id);
        }
    }
    if engine.regions().len() != acked.len() {
        return Err(format!("{} regions, {} were acknowledged", engine.regions().len(), acked.len()));
    }
    Ok(damaged)
}

/// Whether the region is all there; an error when it is not and does not say so.
fn serves(engine: &Engine, id: u64, acked: &Acked) -> Result<bool, String> {
    let region = engine.region(RegionId(id));
    let (Some(first), Some(last)) = (acked.entries.first(), acked.entries.last()) else { return Ok(true) };
    let state = region.state();
    if (state.first, state.last) != (first.0.index, last.0.index) {
        return Err(format!("its log is {}..={}", state.first, state.last));
    }
    let mut all = true;
    match region.entries(.., ReadLimit::NONE) {
        Ok(read) => {
            if !read.iter().map(|e| (e.id, &e.payload)).eq(acked.entries.iter().map(|(id, p)| (*id, p))) {
                return Err(format!("wrong bytes: {read:?}"));
            }
        }
        Err(_) => {
            for (entry, payload) in &acked.entries {
                match region.entry(entry.index) {
                    Ok(read) if read.id == *entry && read.payload == *payload => {}
                    Ok(read) => return Err(format!("wrong bytes: {read:?}")),
                    Err(e) => {
                        let named = e.entries() == Some(entry.index..=entry.index);
                        if e.kind() != ErrorKind::Damaged || e.region() != Some(RegionId(id)) || !named {
                            return Err(format!("entry {}: {e:?}", entry.index));
                        }
                        all = false;
                    }
                }
            }
            if all {
                return Err("a range fails, and each of its entries can be read".to_string());
            }
        }
    }
    for (entry, _) in &acked.entries {
        match region.term(entry.index) {
            Ok(term) if term == entry.term => {}
            Ok(term) => return Err(format!("entry {} has term {term}", entry.index)),
            Err(e) if e.kind() == ErrorKind::Damaged && !all => {}
            Err(e) => return Err(format!("term of entry {}: {e:?}", entry.index)),
        }
    }
    if matches!(region.health(), Health::Damaged { hard_state: HardStateHealth::Lost, .. }) {
        return Ok(false);
    }
    match region.hard_state() == acked.hard_state {
        true => Ok(all),
        false => Err(format!("its hard state is {:?}", region.hard_state())),
    }
}

/// What many harms did.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) tried: usize,
    pub(crate) stopped: usize,
    pub(crate) refused: usize,
    pub(crate) damaged: usize,
    /// Refusals, digits left out.
    pub(crate) reasons: BTreeMap<String, usize>,
    pub(crate) violations: Vec<String>,
}

impl Tally {
    pub(crate) fn mean(&self) -> f64 {
        self.stopped as f64 / self.tried.max(1) as f64
    }

    pub(crate) fn check(&self, name: &str) {
        println!(
            "{name}: {} tried, {} opens refused, {} with damaged regions, {:.4} regions stopped on average",
            self.tried,
            self.refused,
            self.damaged,
            self.mean()
        );
        for (reason, count) in &self.reasons {
            println!("    {count} x {reason}");
        }
        let shown: Vec<&String> = self.violations.iter().take(12).collect();
        assert!(self.violations.is_empty(), "{name}: {} violations: {shown:#?}", self.violations.len());
    }
}

/// Does each harm to a copy of the store and examines it, on two threads.
pub(crate) fn sweep<H: Sync + std::fmt::Debug>(
    store: &Store,
    harms: &[H],
    torn_is_fine: bool,
    harm: impl Fn(&SimVfs, &H) + Sync,
) -> (Tally, Vec<(usize, Outcome)>) {
    let next = AtomicUsize::new(0);
    let sum = Mutex::new((Tally::default(), Vec::new()));
    const CHUNK: usize = 64;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let from = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if from >= harms.len() {
                        return;
                    }
                    for (n, h) in harms.iter().enumerate().skip(from).take(CHUNK) {
                        let vfs = store.disk.crash(LossPolicy::KeepAll);
                        harm(&vfs, h);
                        let examined = catch_unwind(AssertUnwindSafe(|| examine(&vfs, store, torn_is_fine)));
                        let examined = examined.unwrap_or_else(|_| Err("a panic".to_string()));
                        let (tally, outcomes) = &mut *sum.lock().unwrap();
                        tally.tried += 1;
                        match examined {
                            Ok(outcome) => {
                                tally.stopped += outcome.stopped();
                                match &outcome {
                                    Outcome::Refused(why) => {
                                        tally.refused += 1;
                                        let plain: String =
                                            why.chars().filter(|c| !c.is_ascii_digit()).collect();
                                        *tally.reasons.entry(plain).or_default() += 1;
                                    }
                                    Outcome::Open { damaged } => {
                                        tally.damaged += usize::from(!damaged.is_empty())
                                    }
                                }
                                outcomes.push((n, outcome));
                            }
                            Err(e) => tally.violations.push(format!("{h:?}: {e}")),
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap()
}
