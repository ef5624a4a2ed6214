//! Raftwood's latency over time, with what the engine and the disk did meanwhile: every wait
//! above a bound gets its names.

use crate::child::Pace;
use crate::engines::raftwood::Raftwood;
use crate::load::{Load, Payloads, Script};
use crate::log::{Batch, PeerLog, Result};
use crate::measure::{histogram, nanos};
use crate::scratch::Scratch;
use crate::trace::{Kind, Notes, Span, TraceVfs};
use raftwood::{Event, EventListener, Options};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What was seen.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tail {
    pub(crate) writers: usize,
    /// Batches a second that were intended; none: as many as there can be.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) batches: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) longest_ms: f64,
    /// Second, and the longest latency in ms of the batches that ended there.
    pub(crate) points: Vec<(f64, f64)>,
    /// Second, and name.
    pub(crate) marks: Vec<(f64, String)>,
    /// Waits above the bound.
    pub(crate) bound_ms: f64,
    pub(crate) stalls: Vec<Stall>,
}

/// Batches that waited at the same time, and what went on meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stall {
    pub(crate) second: f64,
    pub(crate) longest_ms: f64,
    pub(crate) batches: usize,
    /// What took longest first.
    pub(crate) meanwhile: Vec<String>,
}

/// What to measure.
pub(crate) struct Ask {
    pub(crate) load: Load,
    pub(crate) seconds: f64,
    pub(crate) bound: Duration,
}

/// One batch.
#[derive(Clone, Copy)]
struct Wait {
    began: Instant,
    took: Duration,
}

impl Wait {
    fn ended(&self) -> Instant {
        self.began + self.took
    }
}

struct Listener(Arc<Notes>);

impl EventListener for Listener {
    fn on_event(&self, event: &Event<'_>) {
        let name = match event {
            Event::SegmentSealed { segment, .. } => format!("segment {segment} sealed"),
            Event::CheckpointTaken { bytes, .. } => format!("checkpoint of {} KiB", bytes >> 10),
            Event::Purged { segments, moved_bytes } => {
                format!("purge: {segments} files given back, {} KiB cleaned", moved_bytes >> 10)
            }
            Event::SyncStalled { operation, .. } => format!("the disk is slow: {operation}"),
            other => format!("{other:?}"),
        };
        self.0.happened(Kind::Event, name);
    }
}

/// Measures.
pub(crate) fn measure(ask: &Ask, scratch: &Scratch) -> Result<Tail> {
    let notes = Arc::new(Notes::default());
    let options = Options::new()
        .vfs(Arc::new(TraceVfs::new(notes.clone())))
        .listener(Arc::new(Listener(notes.clone())));
    let log = Raftwood(options.open(scratch.store()?)?);
    let payloads = Payloads::new(ask.load.entry_bytes);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let mut waits: Vec<Wait> = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let (log, stop, payloads) = (&log, &stop, &payloads);
        let writers: Vec<_> = (0..ask.load.writers)
            .map(|n| scope.spawn(move || write(log, &ask.load, n, payloads, stop)))
            .collect();
        while began.elapsed().as_secs_f64() < ask.seconds && writers.iter().all(|w| !w.is_finished()) {
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            waits.extend(writer.join().map_err(|_| "a writer panicked")??);
        }
        Ok(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    Box::new(log).close()?;
    drop(scratch.store()?);
    let mut spans = notes.take();
    spans.retain(|span| span.began >= began);
    let mut tail = summary(&waits, began)?;
    tail.writers = ask.load.writers;
    tail.rate = ask.load.rate;
    tail.seconds = seconds;
    tail.bound_ms = millis(ask.bound);
    tail.stalls = stalls(waits, &spans, began, ask.bound);
    tail.marks = spans
        .iter()
        .filter(|span| matches!(span.kind, Kind::Event | Kind::Rotation))
        .map(|span| (second(span.began, began), span.name.clone()))
        .filter(|(at, _)| *at <= seconds)
        .collect();
    Ok(tail)
}

fn write(log: &Raftwood, load: &Load, n: usize, payloads: &Payloads, stop: &AtomicBool) -> Result<Vec<Wait>> {
    let mut script = Script::new(load, payloads, n, 0);
    let mut batch = Batch::of(n);
    let mut waits = Vec::new();
    let mut pace = load.rate.map(|rate| Pace::new(load.writers as f64 / rate));
    while !stop.load(Ordering::Relaxed) {
        script.next(&mut batch);
        let began = match &mut pace {
            Some(pace) => pace.next(),
            None => Instant::now(),
        };
        log.write(&batch, load.synced)?;
        waits.push(Wait { began, took: began.elapsed() });
    }
    Ok(waits)
}

fn second(at: Instant, began: Instant) -> f64 {
    at.saturating_duration_since(began).as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn summary(waits: &[Wait], began: Instant) -> Result<Tail> {
    // As many slices as a plot is wide.
    let end = waits.iter().map(Wait::ended).max().unwrap_or(began);
    let slice = (second(end, began) / 900.0).max(0.001);
    let mut latencies = histogram()?;
    let mut points: Vec<f64> = Vec::new();
    for wait in waits {
        latencies.saturating_record(nanos(wait.took));
        let at = (second(wait.ended(), began) / slice) as usize;
        if points.len() <= at {
            points.resize(at + 1, 0.0);
        }
        points[at] = points[at].max(millis(wait.took));
    }
    let quantile = |q: f64| latencies.value_at_quantile(q) as f64 / 1e6;
    // A slice in which nothing ended belongs to a wait that ended later.
    let points = points.into_iter().enumerate().filter(|(_, ms)| *ms > 0.0);
    Ok(Tail {
        batches: latencies.len(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        longest_ms: quantile(1.0),
        points: points.map(|(at, ms)| (at as f64 * slice, ms)).collect(),
        ..Tail::default()
    })
}

/// The waits above the bound, those that overlap as one, each with what overlaps it.
fn stalls(mut waits: Vec<Wait>, spans: &[Span], began: Instant, bound: Duration) -> Vec<Stall> {
    waits.retain(|wait| wait.took > bound);
    waits.sort_by_key(|wait| wait.began);
    let mut groups: Vec<(Wait, usize, Duration)> = Vec::new();
    for wait in waits {
        match groups.last_mut() {
            Some((all, count, longest)) if wait.began < all.ended() => {
                let end = all.ended().max(wait.ended());
                all.took = end - all.began;
                *count += 1;
                *longest = (*longest).max(wait.took);
            }
            _ => groups.push((wait, 1, wait.took)),
        }
    }
    let named = |(all, batches, longest): (Wait, usize, Duration)| Stall {
        second: second(all.began, began),
        longest_ms: millis(longest),
        batches,
        meanwhile: meanwhile(&all, spans),
    };
    groups.into_iter().map(named).collect()
}

/// What overlaps a wait: operations by the time that they took of it, then what happened at a moment.
fn meanwhile(wait: &Wait, spans: &[Span]) -> Vec<String> {
    /// A share of the wait below which an operation explains nothing.
    const SHARE: u32 = 20;
    /// An event is delivered when the work is finished: a wait for it may have ended before.
    const DELIVERED_WITHIN: Duration = Duration::from_millis(20);
    let mut operations: BTreeMap<(bool, &str), (u32, Duration, Duration)> = BTreeMap::new();
    let mut moments = Vec::new();
    for span in spans.iter().filter(|span| span.began + span.took >= wait.began) {
        let since = span.began.saturating_duration_since(wait.ended());
        match span.kind {
            Kind::Event | Kind::Rotation if since.is_zero() => moments.push(span.name.clone()),
            Kind::Event if since <= DELIVERED_WITHIN => {
                moments.push(format!("{} {:.1} ms later", span.name, millis(since)));
            }
            Kind::Log | Kind::Beside if since.is_zero() => {
                let shared = (span.began + span.took).min(wait.ended()) - span.began.max(wait.began);
                let (count, sum, longest) =
                    operations.entry((span.kind == Kind::Log, &span.name)).or_default();
                *count += 1;
                *sum += shared;
                *longest = span.took.max(*longest);
            }
            _ => {}
        }
    }
    let mut operations: Vec<_> = operations.into_iter().collect();
    operations.retain(|(_, (_, sum, _))| *sum * SHARE >= wait.took);
    operations.sort_by_key(|(_, (_, sum, _))| std::cmp::Reverse(*sum));
    let named = operations.into_iter().map(|((log, name), (count, _, longest))| {
        let whose = if log { "the log's " } else { "" };
        match count {
            1 => format!("{whose}{name}, {:.1} ms", millis(longest)),
            _ => format!("{count} x {whose}{name}, up to {:.1} ms", millis(longest)),
        }
    });
    let named: Vec<String> = named.chain(moments).collect();
    if named.is_empty() {
        return vec!["nothing on the disk: no processor was free, or a lock was held".into()];
    }
    named
}

/// For people.
pub(crate) fn text(tail: &Tail) -> String {
    let mut text = String::new();
    let rate =
        tail.rate.map_or("as fast as they can".to_owned(), |rate| format!("{rate:.0} batches a second"));
    let _ = writeln!(
        text,
        "{} writers, {rate}: {} batches in {:.1} s; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.1} ms",
        tail.writers, tail.batches, tail.seconds, tail.p50_ms, tail.p99_ms, tail.p999_ms, tail.longest_ms
    );
    let _ = writeln!(text, "{} above {} ms:", stalls_of(tail.stalls.len()), tail.bound_ms);
    for stall in &tail.stalls {
        let _ = writeln!(
            text,
            "  at {:7.3} s  {:6.1} ms  {:3} {}  {}",
            stall.second,
            stall.longest_ms,
            stall.batches,
            if stall.batches == 1 { "batch  " } else { "batches" },
            stall.meanwhile.join("; ")
        );
    }
    text
}

fn stalls_of(count: usize) -> String {
    if count == 1 { "1 stall".into() } else { format!("{count} stalls") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_stall_is_named_by_what_overlaps_it_and_by_nothing_else() {
        let start = Instant::now();
        let wait = |at: u32, took: u32| Wait { began: start + at * MS, took: took * MS };
        let span = |at: u32, took: u32, kind, name: &str| Span {
            began: start + at * MS,
            took: took * MS,
            name: name.into(),
            kind,
        };
        let spans = [
            span(0, 8, Kind::Beside, "before"),
            span(12, 3, Kind::Log, "sync of a.log"),
            span(16, 1, Kind::Log, "sync of a.log"),
            span(11, 20, Kind::Beside, "fill of b.free"),
            span(20, 0, Kind::Event, "segment 1 sealed"),
            span(33, 0, Kind::Event, "segment 2 sealed"),
            span(90, 0, Kind::Event, "after"),
        ];
        let waits = vec![wait(10, 12), wait(14, 16), wait(10, 2), wait(50, 9)];
        let found = stalls(waits, &spans, start, 5 * MS);
        assert_eq!(found.len(), 2, "those that overlap are one: {found:?}");
        assert_eq!((found[0].batches, found[0].longest_ms), (2, 16.0));
        assert_eq!(
            found[0].meanwhile,
            [
                "fill of b.free, 20.0 ms",
                "2 x the log's sync of a.log, up to 3.0 ms",
                "segment 1 sealed",
                "segment 2 sealed 3.0 ms later"
            ]
        );
        assert_eq!(found[1].meanwhile.len(), 1, "a stall without a cause says so: {found:?}");
        assert!(found[1].meanwhile[0].starts_with("nothing on the disk"));
    }
}
