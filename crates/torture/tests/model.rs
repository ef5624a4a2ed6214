//! The engine against the model: histories that proptest makes up and shrinks, with crashes, on the simulated
//! disk; and on the real file system with the engine's own threads and concurrent writers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use raftwood::random::Rng;
use raftwood::vfs::sim::LossPolicy;
use raftwood::{Compression, Durability, Engine, EntryId, Options, Pool, Purge, ReadLimit, RegionId};
use raftwood_torture::batch::{Batch, Op};
use raftwood_torture::driver::Driver;
use raftwood_torture::model::Model;
use raftwood_torture::oracle::{self, Depth};
use raftwood_torture::workload::Maker;
use raftwood_torture::{Act, Setup, Workload};
use std::thread;

fn act() -> impl Strategy<Value = Act> {
    use Act::*;
    prop_oneof![
        6 => proptest::sample::select(vec![Append, MultiAppend, Rollback, HardState, Kv, Compact, Mixed]),
        3 => proptest::sample::select(vec![Submit, Written, Wait, Sync, Tick, Rotate, CompactAll, Reset]),
        2 => proptest::sample::select(vec![Destroy, Recreate, Refused, Checkpoint, Purge, Clean, Oversized]),
        1 => proptest::sample::select(vec![CloseOpen, Kill, Crash]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_back_as_the_model_says_and_survives_any_crash(
        acts in proptest::collection::vec(act(), 1..30),
        regions in 1usize..8,
        seed in any::<u64>(),
        loss in any::<u64>(),
    ) {
        let workload = Workload { name: "proptest".to_string(), acts, regions };
        let setup = Setup::random(seed, &mut Rng::new(seed));
        let checked = (|| {
            let mut driver = Driver::start(setup.clone(), &workload, false, setup.disk(), None)?;
            for act in &workload.acts {
                driver.act(*act)?;
                driver.compare()?;
            }
            let disk = driver.vfs.crash(LossPolicy::Random(loss));
            driver.kill();
            oracle::check(&disk, &setup, 1_000, driver.candidates(u64::MAX, false), Depth::Full)
        })();
        prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
    }
}

fn real(dir: &std::path::Path, seed: u64) -> Engine {
    Options::new()
        .segment_bytes(64 << 10)
        .pool(Pool::default().prewrite(seed.is_multiple_of(2)).files_max(2))
        .purge(Purge::default().garbage_percent_max(20))
        .compression(if seed.is_multiple_of(3) {
            Compression::Lz4 { min_batch_bytes: 200 }
        } else {
            Compression::None
        })
        .open(dir)
        .unwrap()
}

/// Acts that mean something to one writer among several.
const ACTS: [Act; 12] = [
    Act::Append,
    Act::Append,
    Act::MultiAppend,
    Act::Rollback,
    Act::HardState,
    Act::Kv,
    Act::Compact,
    Act::Mixed,
    Act::Reset,
    Act::Recreate,
    Act::Rotate,
    Act::CompactAll,
];

/// Writes on regions of its own and returns what they should hold.
fn writer(engine: &Engine, mut model: Model, regions: &[u64], seed: u64, acts: u64) -> Model {
    let mut rng = Rng::new(seed);
    let mut tickets = Vec::new();
    for _ in 0..acts {
        let act = rng.pick(&ACTS);
        let batches = Maker { model: &model, regions, rng: &mut rng }.batches(act);
        for batch in batches {
            let Ok(next) = model.after(&batch) else { continue };
            let built = batch.build(engine).unwrap();
            let durability = if rng.one_in(4) { Durability::Written } else { Durability::Synced };
            match rng.one_in(3) {
                true => tickets.push(engine.submit(built, durability).unwrap()),
                false => assert!(engine.write(built, durability).is_ok()),
            }
            model = next;
        }
        // Readers of a region see at once what its writer did.
        let region = rng.pick(regions);
        let log = model.log(region);
        assert_eq!(
            engine.region(RegionId(region)).last_index(),
            log.last().or(log.base.map(|b| b.index)).unwrap_or(0)
        );
    }
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    model
}

#[test]
fn concurrent_writers_of_their_own_regions_find_what_they_wrote_over_restarts() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let sets: [&[u64]; 3] = [&[0, 1, u64::MAX], &[10, 11], &[20, 21, 22]];
        let mut models = [Model::default(), Model::default(), Model::default()];
        for life in 0..3 {
            let engine = real(dir.path(), seed);
            assert!(engine.open_report().damage.is_empty());
            models = thread::scope(|s| {
                let mut handles = Vec::new();
                for (n, (model, regions)) in models.clone().into_iter().zip(sets).enumerate() {
                    let engine = &engine;
                    let seed = seed * 100 + life * 10 + n as u64;
                    handles.push(s.spawn(move || writer(engine, model, regions, seed, 120)));
                }
                handles.into_iter().map(|h| h.join().unwrap()).collect::<Vec<_>>().try_into().unwrap()
            });
            let mut all = Model::default();
            models.iter().for_each(|m| all.regions.extend(m.regions.clone()));
            oracle::compare(&engine, &all).unwrap();
            engine.purge().unwrap();
            oracle::compare(&engine, &all).unwrap();
            if life % 2 == 0 {
                engine.close().unwrap();
            }
            drop(engine);
            let engine = real(dir.path(), seed);
            oracle::compare(&engine, &all).unwrap();
        }
    }
}

#[test]
fn bytes_handed_out_stay_what_they_were_while_their_segment_is_purged_and_reused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = real(dir.path(), 1);
    let region = engine.region(RegionId(5));
    let mut held = Vec::new();
    for round in 0..40u64 {
        let mut batch = Batch::default();
        let entries = (1..=20).map(|n| {
            (EntryId::new(1, round * 20 + n), bytes::Bytes::from(vec![(round * 20 + n) as u8; 2000]))
        });
        batch.add(5, Op::Append(entries.collect()));
        engine.write(batch.build(&engine).unwrap(), Durability::Synced).unwrap();
        held.extend(region.entries(round * 20 + 1.., ReadLimit::entries(3)).unwrap());
        let mut batch = engine.batch();
        batch.region(RegionId(5)).compact_through(round * 20 + 19).unwrap();
        engine.write(batch, Durability::Written).unwrap();
        engine.purge().unwrap();
    }
    assert_eq!(held.len(), 120);
    for entry in held {
        assert!(entry.payload.len() == 2000 && entry.payload.iter().all(|b| *b == entry.id.index as u8));
    }
}
