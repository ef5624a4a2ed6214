//! Micro-benchmarks of single operations. `raftwood bench` measures whole workloads.

#![allow(clippy::expect_used)] // a benchmark that cannot go on should stop

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use raftwood::{Durability, Engine, EntryId, Options, ReadLimit, RegionId, WriteBatch};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

const ENTRY: [u8; 1024] = [7; 1024];

fn open(dir: &Path) -> Engine {
    Options::new().open(dir).expect("the store opens")
}

/// A batch for `regions` regions, `entries` each, after what is there.
fn batch(engine: &Engine, regions: u64, entries: u64, bytes: usize) -> WriteBatch {
    let mut batch = engine.batch();
    for r in 1..=regions {
        let next = engine.region(RegionId(r)).last_index() + 1;
        let mut region = batch.region(RegionId(r));
        for i in next..next + entries {
            region
                .append_with(EntryId::new(1, i), |out| out.extend_from_slice(&ENTRY[..bytes]))
                .expect("it fits");
        }
        if next > 2_000 {
            region.compact_through(next - 1_000).expect("it is there");
        }
    }
    batch
}

fn writes(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(".").expect("a directory here");
    let engine = open(dir.path());
    let mut group = c.benchmark_group("write");
    for (name, regions, entries, bytes, durability) in [
        ("1x1x1024 synced", 1, 1, 1024, Durability::Synced),
        ("1x1x1024 written", 1, 1, 1024, Durability::Written),
        ("32x2x512 synced", 32, 2, 512, Durability::Synced),
        ("32x2x512 written", 32, 2, 512, Durability::Written),
    ] {
        group.throughput(Throughput::Bytes(regions * entries * bytes as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || batch(&engine, regions, entries, bytes),
                |batch| engine.write(batch, durability).expect("it is written"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// The same entries in the active segment and in sealed ones.
fn reads(c: &mut Criterion) {
    for place in ["active", "sealed"] {
        let dir = tempfile::tempdir_in(".").expect("a directory here");
        let mut engine = open(dir.path());
        for _ in 0..1_000 {
            engine.write(batch(&engine, 1, 4, 1024), Durability::Written).expect("it is written");
        }
        if place == "sealed" {
            engine.close().expect("it closes");
            engine = open(dir.path());
        }
        let region = engine.region(RegionId(1));
        let (first, last) = (region.first_index(), region.last_index());
        let mut index = first;
        let mut next = move || {
            index = first + (index * 7_919) % (last - first - 64);
            index
        };
        let mut group = c.benchmark_group(format!("read {place}"));
        group.bench_function("entry", |b| b.iter(|| black_box(region.entry(next()).expect("it is there"))));
        group.bench_function("term", |b| b.iter(|| black_box(region.term(next()).expect("it is there"))));
        group.bench_function("64 entries", |b| {
            b.iter(|| {
                let from = next();
                black_box(region.entries(from..from + 64, ReadLimit::NONE).expect("they are there"))
            });
        });
        group.finish();
    }
}

fn reopens(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(".").expect("a directory here");
    let engine = open(dir.path());
    for _ in 0..200 {
        engine.write(batch(&engine, 100, 2, 512), Durability::Written).expect("it is written");
    }
    engine.close().expect("it closes");
    drop(engine);
    c.bench_function("open, 100 regions, 20 MiB, after close", |b| {
        b.iter_with_large_drop(|| open(dir.path()));
    });
}

/// What an open costs that finds many regions, each with little.
fn reopens_of_many_regions(c: &mut Criterion) {
    const REGIONS: u64 = 20_000;
    let dir = tempfile::tempdir_in(".").expect("a directory here");
    let engine = open(dir.path());
    for some in (0..REGIONS).step_by(100) {
        let mut batch = engine.batch();
        for r in some..some + 100 {
            let mut region = batch.region(RegionId(r));
            region.append([(EntryId::new(1, 1), &ENTRY[..100])]).expect("it fits");
            region.set_hard_state(&ENTRY[..24]).expect("it fits");
        }
        engine.write(batch, Durability::Written).expect("it is written");
    }
    engine.close().expect("it closes");
    drop(engine);
    let mut group = c.benchmark_group("open, 20,000 regions");
    group.throughput(Throughput::Elements(REGIONS));
    group.bench_function("after close", |b| b.iter_with_large_drop(|| open(dir.path())));
    group.finish();
}

/// What an operator asks of a store of many regions, of which most are in its oldest segments.
fn figures_of_many_regions(c: &mut Criterion) {
    const REGIONS: u64 = 100_000;
    let dir = tempfile::tempdir_in(".").expect("a directory here");
    let engine = open(dir.path());
    for round in 0..4 {
        for some in (0..REGIONS).step_by(1000) {
            let mut batch = engine.batch();
            for r in some..some + 1000 {
                let entry = (EntryId::new(1, round + 1), &ENTRY[..300]);
                batch.region(RegionId(r)).append([entry]).expect("it fits");
            }
            engine.write(batch, Durability::Written).expect("it is written");
        }
    }
    engine.sync().expect("it is synced");
    engine.purge().expect("it is purged");
    let mut group = c.benchmark_group("100,000 regions");
    group.bench_function("stats", |b| b.iter(|| black_box(engine.stats())));
    group.bench_function("pins(16)", |b| b.iter(|| black_box(engine.pins(16))));
    group.bench_function("pins(usize::MAX)", |b| b.iter(|| black_box(engine.pins(usize::MAX))));
    group.bench_function("regions", |b| b.iter(|| black_box(engine.regions())));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = writes, reads, reopens, reopens_of_many_regions, figures_of_many_regions
}
criterion_main!(benches);
