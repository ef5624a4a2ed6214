//! `raftwood inspect`: what is in a store.

use crate::out::{count, say, say_json, size, table, with_causes};
use crate::{Failure, Outcome};
use raftwood::{Health, Options, Reader, RegionInfo};
use serde::Serialize;
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    dir: PathBuf,
    /// List every region.
    #[arg(long)]
    regions: bool,
    /// List regions in this order.
    #[arg(long, value_enum, value_name = "BY")]
    sort: Option<Sort>,
    /// List the first so many of them only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// List regions with at least so many bytes of payload: 64K, 10M, 1G.
    #[arg(long, value_name = "SIZE", value_parser = crate::bench::parse_bytes)]
    min_bytes: Option<u64>,
    /// List regions that keep at least so many bytes of segments by themselves.
    #[arg(long, value_name = "SIZE", value_parser = crate::bench::parse_bytes)]
    min_pinned: Option<u64>,
    /// List regions with entries in this segment or an older one.
    #[arg(long, value_name = "SEGMENT")]
    older_than: Option<u32>,
    /// List regions that are damaged, suspect, or may have lost their hard state.
    #[arg(long)]
    unhealthy: bool,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Sort {
    /// The smallest first.
    Id,
    /// The one with the most payload first.
    Bytes,
    /// The one first that keeps the most bytes of segments by itself.
    Pins,
    /// The one with the oldest segment first.
    Age,
    /// The worst first.
    Health,
}

impl Args {
    fn lists(&self) -> bool {
        let filters = self.min_bytes.is_some() || self.min_pinned.is_some() || self.older_than.is_some();
        self.regions || self.sort.is_some() || self.limit.is_some() || filters || self.unhealthy
    }

    /// The regions that are asked for, in the order that is.
    fn choose(&self, reader: &Reader) -> Vec<(RegionInfo, Health)> {
        if !self.lists() {
            return Vec::new();
        }
        let all = reader.regions().into_iter().map(|r| (r, reader.health(r.id)));
        let mut chosen: Vec<(RegionInfo, Health)> = all
            .filter(|(r, health)| {
                r.bytes >= self.min_bytes.unwrap_or(0)
                    && r.pinned_bytes >= self.min_pinned.unwrap_or(0)
                    && self.older_than.is_none_or(|id| r.oldest_segment.is_some_and(|oldest| oldest <= id))
                    && (!self.unhealthy || *health != Health::Healthy)
            })
            .collect();
        match self.sort.unwrap_or(Sort::Id) {
            Sort::Id => {}
            Sort::Bytes => chosen.sort_by_key(|(r, _)| Reverse(r.bytes)),
            Sort::Pins => chosen.sort_by_key(|(r, _)| Reverse(r.pinned_bytes)),
            Sort::Age => chosen.sort_by_key(|(r, _)| r.oldest_segment.unwrap_or(u32::MAX)),
            Sort::Health => chosen.sort_by_key(|(_, health)| match health {
                Health::Healthy => 2,
                Health::Suspect { .. } => 1,
                _ => 0,
            }),
        }
        chosen.truncate(self.limit.unwrap_or(usize::MAX));
        chosen
    }
}

#[derive(Serialize)]
struct Shown {
    end: String,
    checkpoint: u32,
    segments: Vec<ShownSegment>,
    regions: u64,
    entries: u64,
    live_bytes: u64,
    dead_bytes: u64,
    torn_bytes: u64,
    tail_batches: u64,
    mended_records: u64,
    damage: Vec<String>,
    foreign: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    region_list: Vec<ShownRegion>,
}

#[derive(Serialize)]
struct ShownSegment {
    id: u32,
    kind: &'static str,
    bytes: u64,
    used_bytes: u64,
    live_entries: u64,
    live_bytes: u64,
    dead_bytes: u64,
    listed_entries: u64,
}

#[derive(Serialize)]
struct ShownRegion {
    id: u64,
    first: u64,
    last: u64,
    last_term: Option<u64>,
    entries: u64,
    bytes: u64,
    segments: u64,
    oldest_segment: Option<u32>,
    pinned_bytes: u64,
    health: String,
}

/// Runs `inspect`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let reader = Options::new().show_unproven(true).open_read_only(&args.dir)?;
    let shown = show(&reader, &args.choose(&reader));
    match args.json {
        true => say_json(&shown)?,
        false => print(&shown, &args.dir)?,
    }
    Ok(if shown.damage.is_empty() { Outcome::Fine } else { Outcome::FoundWrong })
}

fn show(reader: &Reader, list: &[(RegionInfo, Health)]) -> Shown {
    let report = reader.report();
    let segments: Vec<ShownSegment> = reader
        .segments()
        .iter()
        .map(|s| ShownSegment {
            id: s.id,
            kind: if s.cold { "cold" } else { "log" },
            bytes: s.bytes,
            used_bytes: s.used_bytes,
            live_entries: s.live_entries,
            live_bytes: s.live_bytes,
            dead_bytes: s.used_bytes.saturating_sub(s.live_bytes),
            listed_entries: s.listed_entries,
        })
        .collect();
    let region_list = list.iter().map(|(r, health)| ShownRegion {
        id: r.id.0,
        first: r.log.first,
        last: r.log.last,
        last_term: r.log.last_term,
        entries: r.entries,
        bytes: r.bytes,
        segments: r.segments,
        oldest_segment: r.oldest_segment,
        pinned_bytes: r.pinned_bytes,
        health: described(health),
    });
    Shown {
        end: reader.end().to_string(),
        checkpoint: report.checkpoint,
        regions: reader.regions().len() as u64,
        entries: segments.iter().map(|s| s.live_entries).sum(),
        live_bytes: segments.iter().map(|s| s.live_bytes).sum(),
        dead_bytes: segments.iter().map(|s| s.dead_bytes).sum(),
        torn_bytes: report.torn_bytes,
        tail_batches: report.tail_batches,
        mended_records: report.mended_records,
        damage: report.damage.iter().map(|e| with_causes(e)).collect(),
        foreign: report.foreign.clone(),
        region_list: region_list.collect(),
        segments,
    }
}

fn print(s: &Shown, dir: &Path) -> Result<(), Failure> {
    say!("{}: {}, {}", dir.display(), count(s.regions, "region"), count(s.entries, "live entry"))?;
    say!(
        "  log ends at {}, checkpoint {}, {} in the unsealed tail",
        s.end,
        s.checkpoint,
        count(s.tail_batches, "batch")
    )?;
    say!("  live {}, dead {}, torn {}", size(s.live_bytes), size(s.dead_bytes), size(s.torn_bytes))?;
    say!()?;
    let titles = ["segment", "kind", "file", "used", "live", "dead", "entries", ""].map(String::from);
    let row = |g: &ShownSegment| {
        let [file, used] = [g.bytes, g.used_bytes].map(size);
        let (live, dead, entries) = (size(g.live_bytes), size(g.dead_bytes), g.live_entries.to_string());
        [g.id.to_string(), g.kind.into(), file, used, live, dead, entries, String::new()]
    };
    table(&std::iter::once(titles).chain(s.segments.iter().map(row)).collect::<Vec<_>>())?;
    if !s.region_list.is_empty() {
        say!()?;
        let titles = ["region", "log", "term", "bytes", "segments", "oldest", "pins", ""].map(String::from);
        let row = |r: &ShownRegion| {
            let log = if r.entries == 0 { "-".into() } else { format!("{}..={}", r.first, r.last) };
            let term = r.last_term.map_or("?".into(), |t| t.to_string());
            let oldest = r.oldest_segment.map_or("-".into(), |id| id.to_string());
            let health = if r.health == HEALTHY { String::new() } else { r.health.to_uppercase() };
            let (bytes, pins) = (size(r.bytes), size(r.pinned_bytes));
            [r.id.to_string(), log, term, bytes, r.segments.to_string(), oldest, pins, health]
        };
        table(&std::iter::once(titles).chain(s.region_list.iter().map(row)).collect::<Vec<_>>())?;
    }
    for name in &s.foreign {
        say!("  not of this store: {name}")?;
    }
    for damage in &s.damage {
        say!("  DAMAGE {damage}")?;
    }
    Ok(())
}

const HEALTHY: &str = "healthy";

/// A region's health in words.
pub(crate) fn described(health: &Health) -> String {
    match health {
        Health::Healthy => HEALTHY.to_string(),
        Health::Suspect { ranges } => format!("suspect: entries {}", listed(ranges)),
        Health::Damaged { ranges, hard_state } => {
            let hard_state = format!("{hard_state:?}").to_lowercase();
            format!("damaged: entries {}, hard state {hard_state}", listed(ranges))
        }
        other => format!("{other:?}"),
    }
}

fn listed(ranges: &[RangeInclusive<u64>]) -> String {
    let all: Vec<String> = ranges.iter().map(|range| format!("{range:?}")).collect();
    if all.is_empty() { "none".to_string() } else { all.join(", ") }
}
