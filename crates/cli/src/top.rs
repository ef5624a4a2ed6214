//! `raftwood top`: what is being written to a store, and by which regions, beside its engine.
//!
//! What is shown here is what the log itself says: it is followed, as `dump --follow` does, and the segments
//! are looked at once for each time that something is shown. The engine's own counters are in its process,
//! and are shown where that leaves them in a file.

use crate::figures::{Source, Window};
use crate::out::{Damage, as_json, aside, check_read, count, filled, number, say, size, table, with_causes};
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
    // Also what is not known to be durable yet: a rate is no promise.
    let options = Options::new().show_unproven(true);
    let reader = options.open_read_only(&args.dir)?;
    let mut tail = reader.follow(RecordOptions::new().from(reader.end()));
    let mut space = space(&reader);
    drop(reader);
    let redraws = !args.json && std::io::stdout().is_terminal();
    let mut looks = 0;
    while args.count.is_none_or(|count| looks < count) {
        let began = Instant::now();
        let seen = follow(&mut tail, args)?;
        let seconds = began.elapsed().as_secs_f64();
        match options.open_read_only(&args.dir) {
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
                say!("{}  {}", rates(&shown).join("  "), space_parts(&shown).join(", "))?;
                if let Some(engine) = &shown.engine {
                    say!("  {}", engine.parts().join(", "))?;
                }
            }
        }
        std::io::stdout().flush()?;
        looks += 1;
    }
    Ok(Outcome::Fine)
}

/// Follows the log until the next look.
fn follow(tail: &mut Follow, args: &Args) -> Result<Seen, Failure> {
    let (began, mut seen) = (Instant::now(), Seen::default());
    loop {
        let left = args.interval.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(seen);
        }
        match tail.next_within(left.min(PAUSE)) {
            Ok(Some(LogItem::Damaged(error))) => {
                let words = format!("raftwood: {}", with_causes(&error));
                aside(args.json, &Damage::of(&error), &words);
            }
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

fn garbage_percent(space: &Space) -> u64 {
    space.garbage_bytes * 100 / space.used_bytes.max(1)
}

/// What is written.
fn rates(s: &Shown) -> Vec<String> {
    let r = &s.per_second;
    vec![
        format!("{} batches/s", number(r.batches)),
        format!("{}/s", size(r.bytes as u64)),
        format!("{} entries/s", number(r.entries)),
        format!("durable {}", s.durable),
    ]
}

/// What it takes, and what was not seen of it.
fn space_parts(s: &Shown) -> Vec<String> {
    let mut parts = vec![
        count(s.space.segments, "segment"),
        size(s.space.file_bytes),
        format!("garbage {}%", garbage_percent(&s.space)),
    ];
    for (is, says) in [(s.gaps > 0, "gaps"), (s.taken_back > 0, "taken back")] {
        if is {
            parts.push(says.to_string());
        }
    }
    parts
}

/// What stands above the table.
fn head(s: &Shown) -> Vec<String> {
    let mut lines = filled(&rates(s));
    lines.extend(filled(&space_parts(s)));
    lines.extend(s.engine.iter().flat_map(|engine| filled(&engine.parts())));
    lines.push(format!("{} of {} written to", s.active_regions, count(s.space.regions, "region")));
    lines
}

/// The whole screen anew.
fn draw(args: &Args, s: &Shown) -> Result<(), Failure> {
    say!("\x1b[H\x1b[2J{}, over {:.1} s", args.dir.display(), s.seconds)?;
    head(s).iter().try_for_each(|line| say!("{line}"))?;
    say!()?;
    let titles = ["region", "batches/s", "bytes/s", "entries/s", ""].map(String::from);
    let row = |top: &Top| {
        let r = &top.per_second;
        let (batches, entries) = (number(r.batches), number(r.entries));
        [top.region.to_string(), batches, size(r.bytes as u64), entries, String::new()]
    };
    table(&std::iter::once(titles).chain(s.top.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::COLUMNS;

    #[test]
    fn what_stands_above_the_table_fits_a_terminal() {
        let shown = Shown {
            kind: "top",
            seconds: 2.0,
            durable: format!("{0}:{0}", u32::MAX),
            per_second: Rates { batches: 9_999_999.0, bytes: 1e15, entries: 999_999_999.0 },
            space: Space {
                regions: 10_000_000,
                segments: 1_000_000,
                file_bytes: 1023 << 40,
                used_bytes: 1023 << 40,
                live_bytes: 0,
                garbage_bytes: 1023 << 40,
            },
            top: Vec::new(),
            active_regions: 10_000_000,
            gaps: 1,
            taken_back: 1,
            engine: Some(Window::largest()),
        };
        let lines = head(&shown);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
        let all = lines.join(" ");
        let parts =
            ["9999999 batches/s", "durable", "1023.0 TiB", "taken back", "sync p50 999.9 ms p99 599.9 s"];
        assert!(parts.iter().all(|part| all.contains(part)) && all.contains("poisoned"), "{lines:#?}");
    }
}
