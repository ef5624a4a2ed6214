//! `raftwood inspect`: what is in a store.

use crate::out::{count, say, size, with_causes};
use crate::{Failure, Outcome};
use raftwood::{Options, Reader};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    dir: PathBuf,
    /// List every region.
    #[arg(long)]
    regions: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
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
}

/// Runs `inspect`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let reader = Options::new().open_read_only(&args.dir)?;
    let shown = show(&reader, args.regions);
    match args.json {
        true => say!("{}", serde_json::to_string(&shown)?)?,
        false => print(&shown, &args.dir)?,
    }
    Ok(if shown.damage.is_empty() { Outcome::Fine } else { Outcome::FoundWrong })
}

fn show(reader: &Reader, list: bool) -> Shown {
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
    let regions = reader.regions();
    let region_list = regions.iter().filter(|_| list).map(|r| ShownRegion {
        id: r.id.0,
        first: r.log.first,
        last: r.log.last,
        last_term: r.log.last_term,
        entries: r.entries,
        bytes: r.bytes,
        segments: r.segments,
    });
    Shown {
        end: reader.end().to_string(),
        checkpoint: report.checkpoint,
        regions: regions.len() as u64,
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

fn print(s: &Shown, dir: &std::path::Path) -> Result<(), Failure> {
    say!("{}: {}, {}", dir.display(), count(s.regions, "region"), count(s.entries, "live entry"))?;
    say!(
        "  log ends at {}, checkpoint {}, {} in the unsealed tail",
        s.end,
        s.checkpoint,
        count(s.tail_batches, "batch")
    )?;
    say!("  live {}, dead {}, torn {}", size(s.live_bytes), size(s.dead_bytes), size(s.torn_bytes))?;
    say!("\n  segment  kind        file        used        live        dead  live entries")?;
    for g in &s.segments {
        say!(
            "  {:>7}  {:<4}  {:>10}  {:>10}  {:>10}  {:>10}  {:>12}",
            g.id,
            g.kind,
            size(g.bytes),
            size(g.used_bytes),
            size(g.live_bytes),
            size(g.dead_bytes),
            g.live_entries
        )?;
    }
    if !s.region_list.is_empty() {
        say!(
            "\n                region       first        last   last term     entries       bytes  segments"
        )?;
        for r in &s.region_list {
            say!(
                "  {:>20}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}",
                r.id,
                r.first,
                r.last,
                r.last_term.map_or("?".to_string(), |t| t.to_string()),
                r.entries,
                size(r.bytes),
                r.segments
            )?;
        }
    }
    for name in &s.foreign {
        say!("  not of this store: {name}")?;
    }
    for damage in &s.damage {
        say!("  DAMAGE {damage}")?;
    }
    Ok(())
}
