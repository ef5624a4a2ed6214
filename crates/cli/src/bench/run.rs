//! Runs the writing workloads: writers on threads, a sampler beside them, then close, reopen, verify.

use super::limit::{Floor, TURN};
use super::live::Live;
use super::payload::{Page, Verified, verify};
use super::report::{Report, Row, Timings, device_bytes, disk_bytes, rss_bytes};
use super::scratch::remove_dir;
use super::writers::Writer;
use super::{Plan, Workload};
use crate::Failure;
use crate::out::size;
use raftwood::{Engine, Stats};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A lone writer, in turns with the machine's floor for writes of the size that its batches take in the log.
pub(crate) fn against_the_floor(plan: &Plan, dir: &Path, report: &mut Report) -> Result<Vec<Row>, Failure> {
    let engine = plan.options.open(dir)?;
    let mut writers = Writer::all(plan);
    let Some(writer) = writers.first_mut() else { return Err(Failure::new("no writer")) };
    writer.warm_up(&engine, Duration::from_secs_f64(plan.warm_up))?;
    let floor_dir = dir.with_extension("floor");
    let mut floor = Floor::new(&floor_dir, plan.entry_bytes * plan.batch_entries as usize)?;
    let before = (device_bytes(dir), engine.stats());
    let total = Duration::from_secs_f64(plan.seconds);
    let mut live = Live::timed(plan, "append", "batches", total * 2);
    let mut device = 0;
    while writer.timings.elapsed < total {
        floor.run(TURN.min(total))?;
        let start = device_bytes(dir);
        writer.run(&engine, TURN.min(total))?;
        device += device_bytes(dir).zip(start).map_or(0, |(b, a)| b - a);
        live.rate(writer.timings.count(), writer.timings.elapsed);
    }
    live.end();
    let timings = writer.timings.clone();
    let mut row = finish(plan, "append", dir, engine, &writers, &timings, before)?;
    row.device_bytes = row.device_bytes.map(|_| device);
    let ratio = timings.micros(0.5) / floor.timings.micros(0.5).max(0.001);
    let beside = |quantile| {
        format!("{:.1} us against {:.1} us", timings.micros(quantile), floor.timings.micros(quantile))
    };
    report.note(format!(
        "a lone writer's median is {ratio:.3} x the floor's ({}), its p99.9 {}, its longest {}; measured in turns of {} ms",
        beside(0.5),
        beside(0.999),
        beside(1.0),
        TURN.as_millis()
    ));
    report.warn_if_young(&row);
    remove_dir(&floor_dir)?;
    Ok(vec![floor.row(plan), row])
}

/// Several writers on one engine.
pub(crate) fn writes(plan: &Plan, dir: &Path, report: &mut Report) -> Result<Vec<Row>, Failure> {
    let name = match plan.workload {
        Workload::Append => "append",
        Workload::Steady => "steady",
        _ => "raftstore",
    };
    let engine = plan.options.open(dir)?;
    let mut writers = Writer::all(plan);
    for writer in &mut writers {
        writer.prepare(&engine)?;
    }
    let warm_up = Duration::from_secs_f64(plan.warm_up);
    at_once(&mut writers, |writer| writer.warm_up(&engine, warm_up))?;
    let before = (device_bytes(dir), engine.stats());
    let time = Duration::from_secs_f64(plan.seconds);
    let stop = AtomicBool::new(false);
    let (outcome, sampled) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(Live::timed(plan, name, "batches", time), dir, &engine, &stop));
        let outcome = at_once(&mut writers, |writer| writer.run(&engine, time));
        stop.store(true, Ordering::Release);
        (outcome, sampler.join().unwrap_or_default())
    });
    outcome?;
    let mut timings = Timings::new();
    writers.iter().for_each(|w| timings.add(&w.timings));
    let row = finish(plan, name, dir, engine, &writers, &timings, before)?;
    report.warn_if_young(&row);
    if plan.workload == Workload::Steady {
        check_steady(plan, &row, &sampled, report);
    }
    Ok(vec![row])
}

/// All writers at once, each on a thread of its own.
fn at_once(
    writers: &mut [Writer],
    each: impl Fn(&mut Writer) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let each = &each;
        let threads: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(move || each(writer))).collect();
        let ended = threads.into_iter().map(|t| t.join());
        let outcomes: Vec<Result<(), Failure>> =
            ended.map(|end| end.unwrap_or_else(|_| Err(Failure::new("a writer panicked")))).collect();
        outcomes.into_iter().collect()
    })
}

/// What was seen while the writers ran.
#[derive(Clone, Copy, Default)]
struct Sample {
    disk_max: u64,
    pool_max: u64,
}

fn sample(mut live: Live, dir: &Path, engine: &Engine, stop: &AtomicBool) -> Sample {
    let (began, before) = (Instant::now(), engine.stats().batches);
    let mut seen = Sample::default();
    while !stop.load(Ordering::Acquire) {
        seen.disk_max = seen.disk_max.max(disk_bytes(dir));
        let stats = engine.stats();
        seen.pool_max = seen.pool_max.max(stats.pool_bytes);
        live.rate(stats.batches - before, began.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    live.end();
    seen
}

fn check_steady(plan: &Plan, row: &Row, seen: &Sample, report: &mut Report) {
    let live = row.live_bytes.unwrap_or(0);
    let bound = 3 * live + 6 * plan.segment_bytes + seen.pool_max;
    report.check(
        seen.disk_max <= bound,
        format!(
            "steady: at most {} on disk; the bound 3 x live + 6 segments + pool is {} ({} live, pool {})",
            size(seen.disk_max),
            size(bound),
            size(live),
            size(seen.pool_max)
        ),
    );
    if let (Some(device), Some(bytes)) = (row.device_bytes, row.bytes) {
        let ratio = device as f64 / bytes.max(1) as f64;
        report.check(
            ratio < 1.3,
            format!(
                "steady: {} written to the device for {} of batches: {ratio:.3}, the bound is 1.3",
                size(device),
                size(bytes)
            ),
        );
    }
}

/// Closes, reopens, verifies, and fills in a row.
fn finish(
    plan: &Plan,
    name: &str,
    dir: &Path,
    engine: Engine,
    writers: &[Writer],
    timings: &Timings,
    before: (Option<u64>, Stats),
) -> Result<Row, Failure> {
    let device = device_bytes(dir).zip(before.0).map(|(b, a)| b - a);
    let stats = engine.stats();
    let mut row = Row::new(name, "raftwood", plan);
    row.timed(timings);
    row.entries = Some(writers.iter().map(|w| w.entries).sum());
    row.bytes = Some(stats.batch_bytes - before.1.batch_bytes);
    row.device_bytes = device;
    row.filled_bytes = Some(stats.filled_bytes - before.1.filled_bytes);
    row.disk_bytes = Some(disk_bytes(dir));
    row.live_bytes = Some(writers.iter().map(Writer::live_bytes).sum());
    row.index_bytes = Some(engine.index_bytes());
    row.rss_bytes = rss_bytes();
    row.segments = Some(stats.segments);
    engine.close()?;
    drop(engine);
    let pages: Vec<Page> = writers.iter().flat_map(|w| w.pages().iter().copied()).collect();
    let (open_ms, verified) = reopen_and_verify(plan, dir, &pages)?;
    row.open_ms = Some(open_ms);
    if plan.verify {
        row.verified = Some(verified.entries);
        row.wrong = Some(verified.wrong);
    }
    Ok(row)
}

/// Opens the store and reads everything back.
pub(crate) fn reopen_and_verify(plan: &Plan, dir: &Path, pages: &[Page]) -> Result<(f64, Verified), Failure> {
    let began = Instant::now();
    let engine = plan.options.open(dir)?;
    let open_ms = began.elapsed().as_secs_f64() * 1000.0;
    let verified = if plan.verify { verify(&engine, plan, pages) } else { Verified::default() };
    engine.close()?;
    Ok((open_ms, verified))
}
