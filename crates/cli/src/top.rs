//! `raftwood top`: what is being written to a store, and by which regions, beside its engine.
//!
//! What is shown here is what the log itself says: it is followed, as `dump --follow` does, and the segments
//! are looked at once for each time that something is shown. The engine's own counters are in its process,
//! and are shown where that leaves them in a file.

use crate::figures::{Source, Window};
use crate::out::{as_json, count, say, size, table, warn_of};
use crate::records::check_read;
use crate::{Failure, Outcome};
use raftwood::{ErrorKind, Follow, LogItem, LogOp, LogRecord, Options, Reader, RecordContent, RecordOptions};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long it follows before it looks whether anybody still reads what it shows.
const PAUSE: Duration = Duration::from_millis(200);

/// Arguments of `top`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    dir: PathBuf,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_interval)]
    interval: Duration,
    /// Show the busiest so many regions.
    #[arg(long, value_name = "N", default_value_t = 10)]
    regions: usize,
    /// End after so many looks.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Show what the engine's process leaves in this file of `Engine::figures`, too: latencies, waiting
    /// writers, stalls, the cleaner.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// One JSON object for each look.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.05..=86_400.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "seconds, from 0.05 to 86400".to_string())
}

/// What was seen of the log between two looks.
#[derive(Default)]
struct Seen {
    all: Written,
    regions: HashMap<u64, Written>,
    gaps: u64,
    taken_back: u64,
}

#[derive(Clone, Copy, Default)]
struct Written {
    batches: u64,
    bytes: u64,
    entries: u64,
}

/// Rates of a second.
#[derive(Clone, Copy, Serialize)]
struct Rates {
    batches: f64,
    bytes: f64,
    entries: f64,
}

impl Written {
    fn rates(self, seconds: f64) -> Rates {
        let each = |n: u64| n as f64 / seconds;
        Rates { batches: each(self.batches), bytes: each(self.bytes), entries: each(self.entries) }
    }
}

/// What the segments are, at the last look that succeeded.
#[derive(Clone, Copy, Default, Serialize)]
struct Space {
    regions: u64,
    segments: u64,
    file_bytes: u64,
    used_bytes: u64,
    live_bytes: u64,
    garbage_bytes: u64,
}

/// One look.
#[derive(Serialize)]
struct Shown {
    kind: &'static str,
    seconds: f64,
    durable: String,
    per_second: Rates,
    space: Space,
    /// The busiest regions, by bytes.
    top: Vec<Top>,
    active_regions: u64,
    gaps: u64,
    taken_back: u64,
    /// What the engine's process says, with `--metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<Window>,
}

#[derive(Serialize)]
struct Top {
    region: u64,
    #[serde(flatten)]
    per_second: Rates,
}

/// Runs `top`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mut metrics = args.metrics.clone().map(Source::open).transpose()?;
    let reader = Options::new().open_read_only(&args.dir)?;
    // From here on, also what is not known to be durable yet: a rate is no promise.
    let mut tail = reader.follow(RecordOptions::new().unproven(true).from(reader.end()));
    let mut space = space(&reader);
    drop(reader);
    let redraws = !args.json && std::io::stdout().is_terminal();
    let mut looks = 0;
    while args.count.is_none_or(|count| looks < count) {
        let began = Instant::now();
        let seen = follow(&mut tail, args.interval)?;
        let seconds = began.elapsed().as_secs_f64();
        match Options::new().open_read_only(&args.dir) {
            Ok(reader) => space = self::space(&reader),
            // Files come and go faster than they can be looked at.
            Err(e) if e.kind() == ErrorKind::Locked => {}
            Err(e) => return Err(e.into()),
        }
        let shown = Shown {
            kind: "top",
            seconds,
            durable: tail.durable().to_string(),
            per_second: seen.all.rates(seconds),
            space,
            top: busiest(&seen.regions, seconds, args.regions),
            active_regions: seen.regions.len() as u64,
            gaps: seen.gaps,
            taken_back: seen.taken_back,
            engine: metrics.as_mut().map(Source::look).transpose()?,
        };
        match (args.json, redraws) {
            (true, _) => say!("{}", as_json(&shown)?)?,
            (false, true) => draw(args, &shown)?,
            (false, false) => {
                say!("{}  {}", rates(&shown), space_line(&shown))?;
                if let Some(engine) = &shown.engine {
                    say!("  {engine}")?;
                }
            }
        }
        std::io::stdout().flush()?;
        looks += 1;
    }
    Ok(Outcome::Fine)
}

/// Follows the log for so long.
fn follow(tail: &mut Follow, for_long: Duration) -> Result<Seen, Failure> {
    let (began, mut seen) = (Instant::now(), Seen::default());
    loop {
        let left = for_long.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(seen);
        }
        match tail.next_within(left.min(PAUSE)) {
            Ok(Some(item)) => seen.note(&item),
            Ok(None) => check_read()?,
            // It looks again.
            Err(e) if e.kind() == ErrorKind::Locked => check_read()?,
            Err(e) => return Err(e.into()),
        }
    }
}

impl Seen {
    fn note(&mut self, item: &LogItem) {
        match item {
            LogItem::Record(record) => self.record(record),
            LogItem::Gone { .. } => self.gaps += 1,
            LogItem::TakenBack { .. } => self.taken_back += 1,
            LogItem::Damaged(error) => warn_of!("raftwood: {}", crate::out::with_causes(error)),
            _ => {}
        }
    }

    fn record(&mut self, record: &LogRecord) {
        self.all.bytes += record.bytes();
        let RecordContent::Batch(regions) = &record.content else { return };
        self.all.batches += 1;
        // A batch may come back to a region.
        let mut before = None;
        for ops in regions {
            let written = self.regions.entry(ops.region.0).or_default();
            written.batches += u64::from(before.replace(ops.region) != Some(ops.region));
            for op in &ops.ops {
                if let LogOp::Append { first, last, bytes, .. } = op {
                    let entries = last - first + 1;
                    written.entries += entries;
                    written.bytes += bytes;
                    self.all.entries += entries;
                }
            }
        }
    }
}

fn busiest(regions: &HashMap<u64, Written>, seconds: f64, most: usize) -> Vec<Top> {
    let mut all: Vec<(u64, Written)> = regions.iter().map(|(region, written)| (*region, *written)).collect();
    all.sort_by_key(|(region, w)| (Reverse((w.bytes, w.entries, w.batches)), *region));
    all.truncate(most);
    all.into_iter().map(|(region, w)| Top { region, per_second: w.rates(seconds) }).collect()
}

fn space(reader: &Reader) -> Space {
    let segments = reader.segments();
    let sum = |of: fn(&raftwood::SegmentInfo) -> u64| segments.iter().map(of).sum::<u64>();
    let (used_bytes, live_bytes) = (sum(|s| s.used_bytes), sum(|s| s.live_bytes));
    Space {
        regions: reader.regions().len() as u64,
        segments: segments.len() as u64,
        file_bytes: sum(|s| s.bytes),
        used_bytes,
        live_bytes,
        garbage_bytes: used_bytes.saturating_sub(live_bytes),
    }
}

/// A rate as a whole number, but for one that is small.
pub(crate) fn number(rate: f64) -> String {
    if rate >= 10.0 || rate == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

fn garbage_percent(space: &Space) -> u64 {
    space.garbage_bytes * 100 / space.used_bytes.max(1)
}

/// What is written.
fn rates(s: &Shown) -> String {
    let r = &s.per_second;
    let (batches, bytes, entries) = (number(r.batches), size(r.bytes as u64), number(r.entries));
    format!("{batches} batches/s  {bytes}/s  {entries} entries/s  durable {}", s.durable)
}

/// What it takes, and what was not seen of it.
fn space_line(s: &Shown) -> String {
    let mut line = format!(
        "{}, {}, garbage {}%",
        count(s.space.segments, "segment"),
        size(s.space.file_bytes),
        garbage_percent(&s.space)
    );
    for (is, says) in [(s.gaps > 0, "gaps"), (s.taken_back > 0, "taken back")] {
        if is {
            line.push_str("  ");
            line.push_str(says);
        }
    }
    line
}

/// The whole screen anew.
fn draw(args: &Args, s: &Shown) -> Result<(), Failure> {
    say!("\x1b[H\x1b[2J{}, over {:.1} s", args.dir.display(), s.seconds)?;
    say!("{}", rates(s))?;
    say!("{}", space_line(s))?;
    if let Some(engine) = &s.engine {
        say!("{engine}")?;
    }
    say!("{} of {} written to", s.active_regions, count(s.space.regions, "region"))?;
    say!()?;
    let titles = ["region", "batches/s", "bytes/s", "entries/s", ""].map(String::from);
    let row = |top: &Top| {
        let r = &top.per_second;
        let (batches, entries) = (number(r.batches), number(r.entries));
        [top.region.to_string(), batches, size(r.bytes as u64), entries, String::new()]
    };
    table(&std::iter::once(titles).chain(s.top.iter().map(row)).collect::<Vec<_>>())
}
