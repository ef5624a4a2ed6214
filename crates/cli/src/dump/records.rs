//! `raftwood dump --records` and `--follow`: the log as it was written.

use super::args::{Args, columns_after};
use crate::out::{Damage, check_read, count, hex, in_columns, say, say_json, size, with_causes};
use crate::{Failure, Outcome};
use raftwood::{
    ErrorKind, LogItem, LogOp, LogRecord, Lsn, RecordContent, RecordOptions, RegionId, RegionOps,
};
use serde::Serialize;
use std::time::Duration;

/// How long a tail waits before it looks whether anybody still reads it.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs `dump --records` or `dump --follow`.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let reader = args.look()?;
    let what = RecordOptions::new().payloads(args.entries).from(args.since.unwrap_or(Lsn::ZERO));
    let mut outcome = Outcome::Fine;
    if !args.follow {
        for item in reader.records(what) {
            show(args, &item?, &mut outcome)?;
        }
        return Ok(outcome);
    }
    let mut tail = reader.follow(what);
    drop(reader);
    loop {
        match tail.next_within(PAUSE) {
            Ok(Some(item)) => show(args, &item, &mut outcome)?,
            Ok(None) => check_read()?,
            // It looks again.
            Err(e) if e.kind() == ErrorKind::Locked => check_read()?,
            Err(e) => return Err(e.into()),
        }
    }
}

fn show(args: &Args, item: &LogItem, outcome: &mut Outcome) -> Result<(), Failure> {
    match item {
        LogItem::Record(record) => {
            if !record.damage.is_empty() {
                *outcome = Outcome::FoundWrong;
            }
            show_record(args, record)
        }
        LogItem::Gone { after, until } => {
            let line = Line::Gone { after: after.to_string(), until: until.to_string() };
            let from = if *after == Lsn::ZERO { "the beginning".to_string() } else { after.to_string() };
            aside(args, &line, || format!("GONE from {from} to {until}: its segments were given back"))
        }
        LogItem::TakenBack { from } => {
            let says = || format!("TAKEN BACK from {from} on: a restart of the engine cut it off");
            aside(args, &Line::TakenBack { from: from.to_string() }, says)
        }
        LogItem::Damaged(error) => {
            *outcome = Outcome::FoundWrong;
            aside(args, &Damage::of(error), || format!("DAMAGE {}", with_causes(error)))
        }
        other => say!("{other:?}"),
    }
}

fn aside(args: &Args, line: &impl Serialize, says: impl FnOnce() -> String) -> Result<(), Failure> {
    if args.is_json() { say_json(line) } else { say!("{}", says()) }
}

/// What a line of JSON is about.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Record {
        start: String,
        end: String,
        bytes: u64,
        durable: bool,
        mended: bool,
        content: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        regions: Vec<ShownRegion>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cold: Option<u32>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        sources: Vec<u32>,
    },
    Gone {
        after: String,
        until: String,
    },
    TakenBack {
        from: String,
    },
}

#[derive(Serialize)]
struct ShownRegion {
    region: u64,
    ops: Vec<ShownOp>,
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum ShownOp {
    Append {
        first: u64,
        last: u64,
        terms: Vec<ShownTerms>,
        bytes: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        entries: Vec<ShownEntry>,
    },
    TruncateFrom {
        index: u64,
    },
    CompactThrough {
        index: u64,
        term: u64,
    },
    Reset {
        index: u64,
        term: u64,
    },
    SetHardState {
        value: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        decoded: Option<String>,
    },
    Put {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    Destroy,
    ForgetLog,
    Unknown,
}

#[derive(Serialize)]
struct ShownTerms {
    term: u64,
    first: u64,
    last: u64,
}

#[derive(Serialize)]
struct ShownEntry {
    index: u64,
    term: u64,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoded: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

fn shown_op(args: &Args, op: &LogOp) -> ShownOp {
    match op {
        LogOp::Append { first, last, terms, bytes, entries } => ShownOp::Append {
            first: *first,
            last: *last,
            bytes: *bytes,
            terms: terms.iter().map(|t| ShownTerms { term: t.term, first: t.first, last: t.last }).collect(),
            entries: entries
                .iter()
                .map(|e| ShownEntry {
                    index: e.id.index,
                    term: e.id.term,
                    bytes: e.payload.len(),
                    decoded: args.decode.entry(e).map(|d| d.words),
                    payload: args.payload(&e.payload),
                })
                .collect(),
        },
        LogOp::TruncateFrom(index) => ShownOp::TruncateFrom { index: *index },
        LogOp::CompactThrough(id) => ShownOp::CompactThrough { index: id.index, term: id.term },
        LogOp::Reset(id) => ShownOp::Reset { index: id.index, term: id.term },
        LogOp::SetHardState(value) => ShownOp::SetHardState {
            value: hex(value),
            decoded: args.decode.hard_state(value).map(|d| d.words),
        },
        LogOp::Put { key, value } => ShownOp::Put { key: hex(key), value: hex(value) },
        LogOp::Delete { key } => ShownOp::Delete { key: hex(key) },
        LogOp::Destroy => ShownOp::Destroy,
        LogOp::ForgetLog => ShownOp::ForgetLog,
        _ => ShownOp::Unknown,
    }
}

fn show_record(args: &Args, record: &LogRecord) -> Result<(), Failure> {
    let regions: Vec<&RegionOps> = match &record.content {
        RecordContent::Batch(regions) => regions.iter().filter(|r| args.shows(r.region)).collect(),
        _ => Vec::new(),
    };
    // Where regions are asked for, the rest of the log is not.
    if regions.is_empty() && !args.regions.is_empty() {
        return Ok(());
    }
    match args.is_json() {
        true => {
            let (content, cold, sources) = match &record.content {
                RecordContent::Batch(_) => ("batch", None, Vec::new()),
                RecordContent::Install { cold, sources } => ("install", Some(*cold), sources.clone()),
                RecordContent::Watermark => ("watermark", None, Vec::new()),
                RecordContent::Announcement { .. } => ("announcement", None, Vec::new()),
                RecordContent::Copies => ("copies", None, Vec::new()),
                _ => ("unknown", None, Vec::new()),
            };
            let ops = |r: &&RegionOps| r.ops.iter().map(|op| shown_op(args, op)).collect();
            say_json(&Line::Record {
                start: record.start.to_string(),
                end: record.end.to_string(),
                bytes: record.bytes(),
                durable: record.durable,
                mended: record.mended,
                content,
                regions: regions.iter().map(|r| ShownRegion { region: r.region.0, ops: ops(r) }).collect(),
                cold,
                sources,
            })?;
        }
        false => print(args, record, &regions)?,
    }
    for error in record.damage.iter().filter(|e| e.region().is_none_or(|r| args.shows(r))) {
        aside(args, &Damage::of(error), || format!("  DAMAGE {}", with_causes(error)))?;
    }
    Ok(())
}

fn print(args: &Args, record: &LogRecord, regions: &[&RegionOps]) -> Result<(), Failure> {
    let what = match &record.content {
        RecordContent::Batch(all) => format!("batch of {}", count(all.len() as u64, "region")),
        RecordContent::Install { cold, sources } => {
            format!("install of cold segment {cold} for {}", count(sources.len() as u64, "segment"))
        }
        RecordContent::Watermark => "watermark".to_string(),
        RecordContent::Copies => "copies of descriptions".to_string(),
        RecordContent::Announcement { records, .. } => {
            format!("announcement: a recovery copies {} from here on", count(*records, "record"))
        }
        other => format!("{other:?}"),
    };
    let unproven = if record.durable { "" } else { ", unproven" };
    let mended = if record.mended { ", mended" } else { "" };
    say!("{} {what}, {}{unproven}{mended}", record.start, size(record.bytes()))?;
    for RegionOps { region, ops, .. } in regions {
        for op in ops {
            print_op(args, *region, op)?;
        }
    }
    Ok(())
}

fn print_op(args: &Args, region: RegionId, op: &LogOp) -> Result<(), Failure> {
    let head = format!("  region {region} ");
    let left = |begin: &str| columns_after(&head).saturating_sub(1 + begin.chars().count());
    let line = match op {
        LogOp::Append { first, last, terms, bytes, .. } => {
            let terms: Vec<String> = match &terms[..] {
                [one] => vec![one.term.to_string()],
                all => all.iter().map(|t| format!("{} ({}..={})", t.term, t.first, t.last)).collect(),
            };
            format!("append {first}..={last} of term {}, {}", terms.join(", "), size(*bytes))
        }
        LogOp::TruncateFrom(index) => format!("truncate from {index}"),
        LogOp::CompactThrough(id) => format!("compact through {id}"),
        LogOp::Reset(id) => format!("reset to {id}"),
        LogOp::SetHardState(value) => {
            let begin = "hard state  ";
            format!("{begin}{}", args.hard_state_text(value, left(begin)))
        }
        LogOp::Put { key, value } => {
            let begin = format!("key  {} = ", args.bytes(key, None));
            format!("{begin}{}", args.bytes(value, Some(left(&begin))))
        }
        LogOp::Delete { key } => format!("delete key  {}", args.bytes(key, None)),
        LogOp::Destroy => "destroy".to_string(),
        LogOp::ForgetLog => "forget the log".to_string(),
        other => format!("{other:?}"),
    };
    say!("{}", in_columns(&head, &line))?;
    if let LogOp::Append { entries, .. } = op {
        for entry in entries {
            let begin = format!("    {:>10}  ", entry.id.index);
            say!("{begin}{}", args.entry_text(entry, columns_after(&begin)))?;
        }
    }
    Ok(())
}
