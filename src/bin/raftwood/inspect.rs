//! `raftwood inspect`: what is in a store.

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
    last_term: u64,
    entries: u64,
    bytes: u64,
    segments: u64,
}

/// Runs `inspect`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let reader = Options::new().open_read_only(&args.dir)?;
    let shown = show(&reader, args.regions);
    match args.json {
        true => println!("{}", serde_json::to_string(&shown)?),
        false => print(&shown, &args.dir),
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
        damage: report.damage.iter().map(ToString::to_string).collect(),
        foreign: report.foreign.clone(),
        region_list: region_list.collect(),
        segments,
    }
}

fn print(s: &Shown, dir: &std::path::Path) {
    println!("{}: {} regions, {} live entries", dir.display(), s.regions, s.entries);
    println!(
        "  log ends at {}, checkpoint {}, {} batches in the unsealed tail",
        s.end, s.checkpoint, s.tail_batches
    );
    println!("  live {}, dead {}, torn {}", size(s.live_bytes), size(s.dead_bytes), size(s.torn_bytes));
    println!("\n  segment  kind        file        used        live        dead  live entries");
    for g in &s.segments {
        println!(
            "  {:>7}  {:<4}  {:>10}  {:>10}  {:>10}  {:>10}  {:>12}",
            g.id,
            g.kind,
            size(g.bytes),
            size(g.used_bytes),
            size(g.live_bytes),
            size(g.dead_bytes),
            g.live_entries
        );
    }
    if !s.region_list.is_empty() {
        println!(
            "\n                region       first        last   last term     entries       bytes  segments"
        );
        for r in &s.region_list {
            println!(
                "  {:>20}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}",
                r.id,
                r.first,
                r.last,
                r.last_term,
                r.entries,
                size(r.bytes),
                r.segments
            );
        }
    }
    for name in &s.foreign {
        println!("  not of this store: {name}");
    }
    for damage in &s.damage {
        println!("  DAMAGE {damage}");
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
