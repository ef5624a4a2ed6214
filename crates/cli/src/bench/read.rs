//! Reading back: random single entries, ranges, terms.

use super::Plan;
use super::live::Live;
use super::payload::{Page, fill, verify};
use super::report::{Row, Timings, disk_bytes, rss_bytes};
use crate::Failure;
use raftwood::{Durability, Engine, EntryId, ReadLimit, RegionId};
use std::path::Path;
use std::time::{Duration, Instant};

const RANGE: u64 = 64;

/// Fills a store with `plan.bytes` of payload; the entries of a region lie batch by batch across the
/// segments.
pub(crate) fn fill_store(engine: &Engine, plan: &Plan, acked: impl Fn(u64)) -> Result<Vec<Page>, Failure> {
    let mut pages: Vec<Page> = (1..=plan.regions).map(Page::new).collect();
    let mut written = 0;
    while written < plan.bytes {
        for some in pages.chunks_mut(10) {
            let mut batch = engine.batch();
            for page in some {
                let mut region = batch.region(RegionId(page.region));
                for _ in 0..plan.batch_entries {
                    page.last += 1;
                    let (seed, r, index, len) = (plan.seed, page.region, page.last, plan.entry_bytes);
                    region.append_with(EntryId::new(1, index), |out| fill(seed, r, index, len, out))?;
                }
                written += plan.batch_entries * plan.entry_bytes as u64;
            }
            engine.write(batch, Durability::Written)?;
        }
        acked(written);
    }
    engine.sync()?;
    Ok(pages)
}

/// The three kinds of read.
pub(crate) fn measure(plan: &Plan, dir: &Path) -> Result<Vec<Row>, Failure> {
    let engine = plan.options.open(dir)?;
    let pages = fill_store(&engine, plan, |_| {})?;
    engine.close()?;
    drop(engine);
    let engine = plan.options.open(dir)?;
    let verified = if plan.verify { Some(verify(&engine, plan, &pages)) } else { None };
    let stats = engine.stats();
    let mut rows = Vec::new();
    for (name, per_op) in [("read.entry", 1), ("read.range64", RANGE), ("read.term", 0)] {
        let time = Duration::from_secs_f64(plan.seconds / 3.0);
        let mut live = Live::timed(plan, name, "reads", time);
        let timings = reads(&engine, plan, &pages, (per_op, time), &mut live)?;
        live.end();
        let mut row = Row::new(name, "raftwood", plan);
        row.timed(&timings);
        row.threads = Some(1);
        row.durability = None;
        row.entries = Some(timings.count() * per_op);
        row.bytes = Some(timings.count() * per_op * plan.entry_bytes as u64);
        row.disk_bytes = Some(disk_bytes(dir));
        row.live_bytes = Some(pages.iter().map(|p| p.entries() * plan.entry_bytes as u64).sum());
        row.index_bytes = Some(engine.index_bytes());
        row.rss_bytes = rss_bytes();
        row.segments = Some(stats.segments);
        if per_op == 1 {
            row.verified = verified.map(|v| v.entries);
            row.wrong = verified.map(|v| v.wrong);
        }
        rows.push(row);
    }
    engine.close()?;
    Ok(rows)
}

fn reads(
    engine: &Engine,
    plan: &Plan,
    pages: &[Page],
    (per_op, time): (u64, Duration),
    live: &mut Live,
) -> Result<Timings, Failure> {
    let mut timings = Timings::new();
    let mut state = plan.seed | 1;
    let began = Instant::now();
    while began.elapsed() < time {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let page = &pages[(state >> 40) as usize % pages.len()];
        let region = engine.region(RegionId(page.region));
        let index = 1 + (state >> 16) % page.last.saturating_sub(per_op).max(1);
        let one = Instant::now();
        match per_op {
            0 => drop(region.term(index)?),
            1 => drop(region.entry(index)?),
            n => drop(region.entries(index..(index + n).min(page.last + 1), ReadLimit::NONE)?),
        }
        timings.record(one.elapsed());
        live.rate(timings.count(), began.elapsed());
    }
    timings.elapsed = began.elapsed();
    Ok(timings)
}
