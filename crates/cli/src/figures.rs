//! What an engine's process leaves of itself in a file: lines of JSON, `raftwood::Figures` each, the newest
//! last.
//!
//! Only the end of the file is read, however long it is. A line that is torn is passed over; a file without
//! any that can be read is refused, and says why.

use crate::Failure;
use crate::out::{number, size};
use raftwood::{FIGURES_SCHEMA, Figures, Latencies, Latency};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// So much of the end of a file is read: a line has some kilobytes.
const TAIL_BYTES: u64 = 256 << 10;

/// Older than this, figures are said to be old.
const OLD_AFTER: Duration = Duration::from_secs(60);

/// A file of figures.
pub(crate) struct Source {
    path: PathBuf,
    /// The newest figures, and those before them that they are compared with.
    newest: Figures,
    before: Option<Figures>,
}

impl Source {
    /// # Errors
    /// It cannot be read, has no figures, or has those of a later schema.
    pub(crate) fn open(path: PathBuf) -> Result<Source, Failure> {
        let mut last = read(&path)?;
        let Some(newest) = last.pop() else {
            return Err(Failure::new(format!("{} has no figures of an engine yet", path.display())));
        };
        Ok(Source { before: last.pop(), newest, path })
    }

    /// What has happened since the figures of the last look, or of the line before.
    ///
    /// # Errors
    /// As [`open`](Source::open); a file that was emptied keeps its last figures.
    pub(crate) fn look(&mut self) -> Result<Window, Failure> {
        if let Some(newest) = read(&self.path)?.pop().filter(|newest| *newest != self.newest) {
            self.before = Some(std::mem::replace(&mut self.newest, newest));
        }
        Ok(Window::between(self.before.as_ref(), &self.newest))
    }

    /// What has happened since the engine was opened.
    pub(crate) fn run_so_far(&self) -> Window {
        Window { seconds: None, ..Window::between(None, &self.newest) }
    }
}

/// The last two figures in the file, the newer last.
fn read(path: &Path) -> Result<Vec<Figures>, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot read {}: {e}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let start = len.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).map_err(failed)?;
    let mut lines: Vec<&[u8]> = tail.split(|byte| *byte == b'\n').collect();
    // The first may have begun before, and the last may not have ended.
    let torn_last = lines.pop().is_some_and(|last| !last.is_empty());
    if start > 0 && !lines.is_empty() {
        lines.remove(0);
    }
    let (mut found, mut wrong) = (Vec::new(), None);
    for line in lines.iter().rev().filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Figures>(line) {
            Ok(figures) if figures.schema > FIGURES_SCHEMA => {
                return Err(Failure::new(format!(
                    "{} has figures of schema {}, and this tool knows {FIGURES_SCHEMA}: use the tool of that version",
                    path.display(),
                    figures.schema
                )));
            }
            Ok(figures) => found.insert(0, figures),
            Err(e) => wrong = wrong.or(Some(e)),
        }
        if found.len() == 2 {
            break;
        }
    }
    match wrong {
        Some(e) if found.is_empty() => Err(Failure::new(format!(
            "{} is no file of Engine::figures, a line of JSON each: {e}",
            path.display()
        ))),
        None if found.is_empty() && torn_last && len > TAIL_BYTES / 2 => Err(Failure::new(format!(
            "{} is no file of Engine::figures, a line of JSON each: its lines have no end",
            path.display()
        ))),
        _ => Ok(found),
    }
}

/// What an engine did between two figures, or since it was opened.
#[derive(Serialize)]
pub(crate) struct Window {
    /// How old the newer figures are.
    age_seconds: f64,
    /// Between the two; without it what follows is since open, and there are no rates.
    seconds: Option<f64>,
    per_second: Option<EngineRates>,
    write: Quantiles,
    sync: Quantiles,
    queue: Quantiles,
    commit: Quantiles,
    waiting_writers: u64,
    in_flight_bytes: u64,
    undurable_bytes: u64,
    /// Since open.
    stalls: u64,
    stalls_under_way: u64,
    poisoned: bool,
    #[serde(skip)]
    pub(crate) latencies: Latencies,
}

#[derive(Serialize)]
struct EngineRates {
    batches: f64,
    batch_bytes: f64,
    syncs: f64,
    cleaned_bytes: f64,
}

#[derive(Serialize)]
struct Quantiles {
    count: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

impl Quantiles {
    fn of(latency: &Latency) -> Quantiles {
        let micros = |q| latency.quantile(q).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Quantiles { count: latency.count(), p50_us: micros(0.5), p99_us: micros(0.99) }
    }
}

impl Window {
    fn between(before: Option<&Figures>, newest: &Figures) -> Window {
        let s = &newest.stats;
        // Counters that have fallen, or a clock that was set back: of another run.
        let is_of_run = |before: &&Figures| {
            let b = &before.stats;
            before.unix_millis < newest.unix_millis
                && b.batches <= s.batches
                && b.writes <= s.writes
                && b.syncs <= s.syncs
        };
        let before = before.filter(is_of_run);
        let seconds = before.map(|b| (newest.unix_millis - b.unix_millis) as f64 / 1000.0);
        let per_second = before.zip(seconds).map(|(before, seconds)| {
            let b = &before.stats;
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            EngineRates {
                batches: rate(s.batches, b.batches),
                batch_bytes: rate(s.batch_bytes, b.batch_bytes),
                syncs: rate(s.syncs, b.syncs),
                cleaned_bytes: rate(s.cleaned_bytes, b.cleaned_bytes),
            }
        });
        let since = |of: fn(&Latencies) -> &Latency| {
            let now = of(&newest.latencies);
            Quantiles::of(&before.map_or_else(|| now.clone(), |before| now.since(of(&before.latencies))))
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_millis(newest.unix_millis));
        Window {
            age_seconds: age.as_secs_f64(),
            seconds,
            per_second,
            write: since(|l| &l.write),
            sync: since(|l| &l.sync),
            queue: since(|l| &l.queue),
            commit: since(|l| &l.commit),
            waiting_writers: s.waiting_writers,
            in_flight_bytes: s.in_flight_bytes,
            undurable_bytes: s.undurable_bytes,
            stalls: s.stalls,
            stalls_under_way: s.stalls.saturating_sub(s.stalls_ended),
            poisoned: s.poisoned,
            latencies: newest.latencies.clone(),
        }
    }
}

impl Window {
    /// What it says, part by part.
    pub(crate) fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if let Some(r) = &self.per_second {
            parts.push(format!("{} batches/s", number(r.batches)));
            parts.push(format!("{}/s", size(r.batch_bytes as u64)));
            parts.push(format!("{} syncs/s", number(r.syncs)));
            parts.push(format!("cleaner {}/s", size(r.cleaned_bytes as u64)));
        }
        for (name, q) in
            [("commit", &self.commit), ("queue", &self.queue), ("write", &self.write), ("sync", &self.sync)]
        {
            let at = |micros: Option<u64>| short(micros.map(Duration::from_micros));
            parts.push(format!("{name} p50 {} p99 {}", at(q.p50_us), at(q.p99_us)));
        }
        parts.push(format!("{} waiting", self.waiting_writers));
        parts.push(format!("{} in flight", size(self.in_flight_bytes)));
        parts.push(format!("{} stalls", self.stalls));
        if self.stalls_under_way > 0 {
            parts.push("the disk hangs".to_string());
        }
        if self.poisoned {
            parts.push("poisoned: nothing is written any more".to_string());
        }
        if self.age_seconds > OLD_AFTER.as_secs_f64() {
            parts.push(format!("{:.0} s old", self.age_seconds));
        }
        let of = if self.per_second.is_some() { "engine:" } else { "engine since open:" };
        if let Some(first) = parts.first_mut() {
            *first = format!("{of} {first}");
        }
        parts
    }
}

/// All histograms, with their names.
pub(crate) fn named(l: &Latencies) -> [(&'static str, &Latency); 7] {
    [
        ("commit", &l.commit),
        ("queue", &l.queue),
        ("write", &l.write),
        ("sync", &l.sync),
        ("seal", &l.seal),
        ("checkpoint", &l.checkpoint),
        ("read", &l.read),
    ]
}

/// A duration for people.
pub(crate) fn short(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < Duration::from_millis(1) => format!("{} us", time.as_micros()),
        Some(time) if time < Duration::from_secs(1) => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
impl Window {
    /// One with the largest figures that a machine may come to.
    pub(crate) fn largest() -> Window {
        let quantiles = || Quantiles { count: 1, p50_us: Some(999_940), p99_us: Some(599_900_000) };
        Window {
            age_seconds: 86_400.0,
            seconds: Some(1.0),
            per_second: Some(EngineRates {
                batches: 9_999_999.0,
                batch_bytes: 1023.0 * (1u64 << 30) as f64,
                syncs: 9_999_999.0,
                cleaned_bytes: 1023.0 * (1u64 << 30) as f64,
            }),
            write: quantiles(),
            sync: quantiles(),
            queue: quantiles(),
            commit: quantiles(),
            waiting_writers: 100_000,
            in_flight_bytes: 1023 << 30,
            undurable_bytes: 0,
            stalls: 1_000_000,
            stalls_under_way: 1,
            poisoned: true,
            latencies: Latencies::default(),
        }
    }
}
