//! A disk budget: appends stop before it is used up, and nothing else does.

use crate::support::engines::{DIR, by_hand, on, salts};
use crate::support::entries;
use crate::support::heard::Heard;
use raftwood::random::Rng;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{
    Durability, Engine, EntryId, ErrorKind, Event, Lsn, Options, ReadLimit, RegionId, WriteError,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const R: RegionId = RegionId(7);
const BUDGET: u64 = 2 << 20;

fn options(vfs: &SimVfs) -> Options {
    by_hand(vfs).disk_budget(BUDGET)
}

/// Appends entries of 10,000 bytes until one is refused.
fn fill(engine: &Engine, region: RegionId) -> WriteError {
    for index in engine.region(region).last_index() + 1..1000 {
        if let Err(refused) = entries::append(engine, region, index, 10_000) {
            assert_eq!(engine.region(region).last_index(), index - 1);
            return refused;
        }
    }
    panic!("the budget is never spent");
}

#[derive(Clone, PartialEq, Debug)]
enum Said {
    Low(Vec<RegionId>),
    Spent(Vec<RegionId>),
    Regained,
}

fn said() -> Arc<Heard<Said>> {
    Heard::new(|event| {
        let named = |pins: &[raftwood::Pin]| pins.iter().map(|pin| pin.region).collect();
        match event {
            Event::BudgetLow { pins, .. } => Some(Said::Low(named(pins))),
            Event::BudgetSpent { pins, .. } => Some(Said::Spent(named(pins))),
            Event::BudgetRegained { .. } => Some(Said::Regained),
            _ => None,
        }
    })
}

#[test]
fn appends_stop_within_the_budget_and_nothing_else_does() {
    let (vfs, said) = (SimVfs::new(1), said());
    let engine = options(&vfs).listener(said.clone()).open(DIR).unwrap();
    entries::append(&engine, RegionId(8), 1, 100).unwrap();
    let refused = loop {
        let next = engine.region(R).last_index() + 1;
        match entries::append(&engine, R, next, 10_000) {
            Ok(_) => engine.tick().unwrap(),
            Err(refused) => break refused,
        }
        assert!(next < 1000, "the budget is never spent");
    };
    engine.tick().unwrap();
    let last = engine.region(R).last_index();
    assert!(last > 60, "{last} entries of 10,000 bytes in a budget of {BUDGET}");
    assert!(vfs.allocated() <= BUDGET, "{} bytes are taken", vfs.allocated());
    let text = refused.to_string();
    assert_eq!((refused.kind(), refused.error().region()), (ErrorKind::NoSpace, Some(R)), "{text}");
    for word in ["disk_budget", "compact", "purge()", "pins()", &BUDGET.to_string()] {
        assert!(text.contains(word), "{word}: {text}");
    }
    // First a hint, which names who holds the space.
    let hinted = vec![R, RegionId(8)];
    assert_eq!(said.take(), [Said::Low(hinted.clone()), Said::Spent(hinted)]);

    // Small or not, an append is refused, also beside something else.
    let mut both = engine.batch();
    both.region(R).set_hard_state(b"lost").unwrap().append([(EntryId::new(1, last + 1), &b"x"[..])]).unwrap();
    assert_eq!(engine.write(both, Durability::Synced).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(engine.region(R).hard_state(), None);
    // What makes no entries is not, also where it needs segments of its own.
    for n in 0..20u8 {
        let mut batch = engine.batch();
        batch.region(R).set_hard_state(&[n; 9000]).unwrap();
        batch.region(RegionId(9)).put(b"key", &[n; 100]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    let mut batch = engine.batch();
    batch.region(R).truncate_from(last).compact_through(last - 2).unwrap();
    batch.region(RegionId(8)).destroy();
    batch.region(RegionId(9)).reset(EntryId::new(3, 50)).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    // A segment that they began is none for appends.
    assert_eq!(entries::append(&engine, R, last, 10).unwrap_err().kind(), ErrorKind::NoSpace);

    engine.purge().unwrap();
    assert_eq!(said.take(), [Said::Regained]);
    engine.write(refused.into_batch().unwrap(), Durability::Synced).unwrap_err(); // it leaves a gap by now
    entries::append(&engine, R, last, 10_000).unwrap();
    drop(engine);
    let after = options(&vfs.crash(LossPolicy::LoseAll)).open(DIR).unwrap();
    let region = after.region(R);
    assert_eq!((region.first_index(), region.last_index()), (last - 1, last));
    assert_eq!(region.hard_state().as_deref(), Some(&[19u8; 9000][..]));
}

/// The engine gives space back by itself as soon as there is any: a program that compacts need not purge.
#[test]
fn where_the_budget_is_spent_a_compaction_is_enough() {
    let vfs = SimVfs::new(2);
    let engine = on(&vfs).background(raftwood::Background::Manual).disk_budget(BUDGET).open(DIR).unwrap();
    for round in 0..5 {
        assert_eq!(fill(&engine, R).kind(), ErrorKind::NoSpace, "round {round}");
        let last = engine.region(R).last_index();
        entries::compact(&engine, R, last).unwrap();
        for _ in 0..4 {
            engine.tick().unwrap();
        }
        assert!(vfs.allocated() <= BUDGET, "{} bytes are taken", vfs.allocated());
    }
}

#[test]
fn a_store_that_is_over_its_budget_opens_and_makes_room() {
    let vfs = SimVfs::new(3);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    for index in 1..=300 {
        entries::append(&engine, R, index, 10_000).unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    let engine = options(&vfs).open(DIR).unwrap();
    assert_eq!(entries::append(&engine, R, 301, 10).unwrap_err().kind(), ErrorKind::NoSpace);
    entries::compact(&engine, R, 290).unwrap();
    engine.purge().unwrap();
    entries::append(&engine, R, 301, 10).unwrap();
    assert_eq!((engine.region(R).first_index(), engine.region(R).last_index()), (291, 301));
}

#[test]
fn a_budget_that_is_smaller_than_what_is_kept_of_it_is_refused() {
    let refused = on(&SimVfs::new(4)).disk_budget(64 << 10).open(DIR).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("disk_budget is 65536"), "{refused}");
    on(&SimVfs::new(5)).disk_budget(0).open(DIR).unwrap();
}

/// What a region must hold: its first and last index with the lengths between, and its vote.
#[derive(Clone, Default, Debug)]
struct Model {
    first: u64,
    entries: Vec<usize>,
    vote: Option<u64>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first.max(1) + self.entries.len() as u64
    }
}

#[track_caller]
fn compare(engine: &Engine, model: &BTreeMap<u64, Model>, seed: u64) {
    for (id, model) in model {
        let region = engine.region(RegionId(*id));
        let vote = region.hard_state().map(|v| u64::from_le_bytes(v[..].try_into().unwrap()));
        assert_eq!(vote, model.vote, "seed {seed}, region {id}");
        let read = region.entries(.., ReadLimit::NONE).unwrap();
        let lens: Vec<(u64, usize)> = read.iter().map(|e| (e.id.index, e.payload.len())).collect();
        let first = model.first.max(1);
        let expected: Vec<(u64, usize)> =
            model.entries.iter().enumerate().map(|(n, len)| (first + n as u64, *len)).collect();
        assert_eq!(lens, expected, "seed {seed}, region {id}");
    }
}

/// Around the end of the budget, with purges and crashes: what was acknowledged is there, what was refused
/// left no trace, and only appends are refused.
#[test]
fn around_the_budget_nothing_acknowledged_is_lost() {
    for seed in 0..30 {
        let (mut rng, mut vfs) = (Rng::new(seed), SimVfs::new(seed));
        let open = |vfs: &SimVfs, run: u64| {
            let options = options(vfs).disk_budget(1 << 20).salt_source(salts(seed << 32 | run << 16));
            options.open(DIR).unwrap_or_else(|e| panic!("seed {seed}, run {run}: {e:?}"))
        };
        let mut engine = open(&vfs, 0);
        let mut model = BTreeMap::<u64, Model>::new();
        let (mut refused, mut most, mut restarts) = (0, 0, 0);
        for step in 1..400u64 {
            let id = rng.below(4);
            let region = RegionId(id);
            let was = model.entry(id).or_default().clone();
            let mut is = was.clone();
            let mut batch = engine.batch();
            match rng.below(20) {
                0..=11 => {
                    let len = 1 + rng.below(20_000) as usize;
                    batch.region(region).append([(EntryId::new(1, was.next()), &vec![7; len][..])]).unwrap();
                    is.first = was.first.max(1);
                    is.entries.push(len);
                    if rng.below(3) == 0 {
                        batch.region(region).set_hard_state(&step.to_le_bytes()).unwrap();
                        is.vote = Some(step);
                    }
                }
                12 | 13 => {
                    batch.region(region).set_hard_state(&step.to_le_bytes()).unwrap();
                    is.vote = Some(step);
                }
                14 if !was.entries.is_empty() => {
                    let keep = rng.below(was.entries.len() as u64);
                    batch.region(region).truncate_from(was.first + keep);
                    is.entries.truncate(keep as usize);
                }
                15 | 16 if !was.entries.is_empty() => {
                    let gone = 1 + rng.below(was.entries.len() as u64);
                    batch.region(region).compact_through(was.first + gone - 1).unwrap();
                    is.first += gone;
                    is.entries.drain(..gone as usize);
                }
                17 if rng.below(4) == 0 => {
                    batch.region(region).destroy();
                    is = Model::default();
                }
                18 => drop(engine.purge().unwrap()),
                _ => engine.tick().unwrap(),
            }
            let appends = is.entries.len() > was.entries.len();
            if !batch.is_empty() {
                match engine.write(batch, Durability::Synced).map_err(raftwood::Error::from) {
                    Ok(lsn) => {
                        assert!(lsn > Lsn::ZERO);
                        model.insert(id, is);
                    }
                    Err(e) => {
                        assert!(appends && e.kind() == ErrorKind::NoSpace, "seed {seed}, step {step}: {e:?}");
                        refused += 1;
                    }
                }
            }
            most = most.max(engine.stats().disk_bytes);
            if rng.below(50) == 0 {
                let policy = LossPolicy::Subset(rng.below(u64::MAX));
                let after = vfs.crash(if rng.below(2) == 0 { LossPolicy::LoseAll } else { policy });
                vfs.power_off();
                drop(engine);
                vfs = after;
                engine = open(&vfs, step);
                restarts += 1;
                compare(&engine, &model, seed);
            }
        }
        compare(&engine, &model, seed);
        assert!(refused > 0, "seed {seed}: the budget was never spent");
        // Each restart begins a segment, as a vote may.
        assert!(most <= (1 << 20) + restarts * (64 << 10), "seed {seed}: {most} bytes, restarts: {restarts}");
    }
}
