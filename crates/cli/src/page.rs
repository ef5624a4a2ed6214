//! `raftwood report`: a store on one page, for people who are sent it.
//!
//! The page needs nothing but itself: no script, no font, no address. It is light or dark as the reader's
//! system is, and well-formed as XML, so that programs can read it too.

mod terms;

use crate::figures::{Source, Window, named, short};
use crate::inspect::described;
use crate::out::{count, say, size, with_causes};
use crate::{Failure, Outcome};
use raftwood::{Health, Options, Reader, RegionInfo, ScrubOptions, SegmentInfo};
use std::cmp::Reverse;
use std::fmt::{self, Display, Write};
use std::path::PathBuf;

/// Arguments of `report`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    dir: PathBuf,
    /// The file to write; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Verify everything for it, as `check` does. Without it, damage is what a look at the indexes shows.
    #[arg(long)]
    check: bool,
    /// So many regions are listed by what they hold, and by what they keep.
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Show the latencies that the engine's process left in this file of `Engine::figures`.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

/// Runs `report`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let metrics = args.metrics.clone().map(Source::open).transpose()?;
    let reader = Options::new().show_unproven(true).open_read_only(&args.dir)?;
    let mut wrong: Vec<String> = reader.report().damage.iter().map(|e| with_causes(e)).collect();
    let mut rot = Vec::new();
    if args.check {
        let found = Options::new().check(&args.dir, &ScrubOptions::default().rate_bytes(0), |_| ())?;
        rot.extend(found.rot.iter().map(|e| with_causes(e)));
        let all = found.refusals.iter().chain(&found.damage).chain(&found.suspects);
        wrong.extend(
            all.map(|e| with_causes(e))
                .filter(|text| !reader.report().damage.iter().any(|e| *text == with_causes(e))),
        );
    }
    let unhealthy = reader.regions().into_iter().map(|r| (r.id, reader.health(r.id)));
    let unhealthy = unhealthy.filter(|(_, health)| *health != Health::Healthy);
    wrong.extend(unhealthy.map(|(id, health)| format!("region {id}: {}", described(&health))));
    let engine = metrics.as_ref().map(Source::run_so_far);
    let text = page(args, &reader, engine.as_ref(), (&wrong, &rot))?;
    match &args.output {
        Some(path) => {
            std::fs::write(path, text)
                .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
        }
        None => say!("{text}")?,
    }
    Ok(if wrong.is_empty() && rot.is_empty() { Outcome::Fine } else { Outcome::FoundWrong })
}

/// Text as it may stand between tags, and in quotes.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // No page may have them.
                c if c.is_control() && c != '\n' => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; --fg: #1d2129; --bg: #fff; --dim: #667; --line: #d8dce3;
  --l0: #e4e7ec; --l1: #c3dcf5; --l2: #8dbdec; --l3: #4f94d8; --l4: #1f5fa8; --bad: #b3261e; --cold: #7a4fbf; }
@media (prefers-color-scheme: dark) { :root { --fg: #e3e6eb; --bg: #14171c; --dim: #98a0ac; --line: #333a45;
  --l0: #272c35; --l1: #21405f; --l2: #2c669c; --l3: #4b96dd; --l4: #9fcfff; --bad: #ff8a80; --cold: #c3a6ff; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 60em;
  margin: 2em auto; padding: 0 1em; }
h1, p, li { overflow-wrap: anywhere; } h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
p.dim, ul.dim { color: var(--dim); } .bad { color: var(--bad); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15em .8em; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } .wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
.l0 { fill: var(--l0); } .l1 { fill: var(--l1); } .l2 { fill: var(--l2); } .l3 { fill: var(--l3); } .l4 { fill: var(--l4); }
.cold { stroke: var(--cold); stroke-width: 2; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
.bar { fill: var(--l3); } .track { fill: var(--l0); }
.t0 { fill: var(--l1); } .t1 { fill: var(--l2); }
.terms { max-width: none; } svg .term { fill: var(--fg); } svg .bad { fill: var(--bad); }
";

fn page(
    args: &Args,
    reader: &Reader,
    engine: Option<&Window>,
    (wrong, rot): (&[String], &[String]),
) -> Result<String, fmt::Error> {
    let (segments, mut regions) = (reader.segments(), reader.regions());
    let mut p = String::new();
    let name = Escaped(args.dir.display());
    writeln!(p, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>")?;
    writeln!(p, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>")?;
    writeln!(p, "<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>")?;
    let used: u64 = segments.iter().map(|s| s.used_bytes).sum();
    let live: u64 = segments.iter().map(|s| s.live_bytes).sum();
    let entries: u64 = segments.iter().map(|s| s.live_entries).sum();
    writeln!(
        p,
        "<p>{}, {} in {}; {} live, {} dead. The log ends at {}; checkpoint {} serves. Raftwood {}.</p>",
        count(regions.len() as u64, "region"),
        count(entries, "live entry"),
        count(segments.len() as u64, "segment"),
        size(live),
        size(used.saturating_sub(live)),
        reader.end(),
        reader.report().checkpoint,
        env!("CARGO_PKG_VERSION"),
    )?;

    writeln!(p, "<h2>Damage</h2>")?;
    if wrong.is_empty() {
        let how = if args.check { "Everything was read and verified." } else { "Entries were not read." };
        writeln!(p, "<p>None is known. {how}</p>")?;
    } else {
        findings(&mut p, "bad", wrong)?;
    }
    if !rot.is_empty() {
        writeln!(
            p,
            "<details>\n<summary>{} of rot, which affects no entry: <code>raftwood repair --apply</code> repairs it</summary>",
            count(rot.len() as u64, "place")
        )?;
        findings(&mut p, "dim", rot)?;
        writeln!(p, "</details>")?;
    }
    for name in &reader.report().foreign {
        writeln!(p, "<p>Not of this store: {}</p>", Escaped(name))?;
    }

    if let Some(engine) = engine {
        latencies(&mut p, engine)?;
    }
    writeln!(p, "<h2>Segments</h2>")?;
    map(&mut p, &segments)?;
    regions.sort_by_key(|r| Reverse(r.bytes));
    list(&mut p, "Regions by what they hold", &regions, args.limit, |r| r.bytes)?;
    terms::timelines(&mut p, reader, &regions, args.limit)?;
    regions.sort_by_key(|r| Reverse(r.pinned_bytes));
    let keep: Vec<RegionInfo> = regions.into_iter().filter(|r| r.pinned_bytes > 0).collect();
    list(&mut p, "Regions by what they keep", &keep, args.limit, |r| r.pinned_bytes)?;
    writeln!(
        p,
        "<p class=\"dim\">A region keeps a segment by itself where nothing else lives in it: compacting the region gives it back.</p>"
    )?;
    writeln!(p, "</body>\n</html>")?;
    Ok(p)
}

/// What the engine's process left of itself.
fn latencies(p: &mut String, engine: &Window) -> fmt::Result {
    writeln!(p, "<h2>The engine</h2>\n<p>{}</p>", Escaped(engine.parts().join(", ")))?;
    writeln!(
        p,
        "<div class=\"wide\"><table>\n<tr><th></th><th>operations</th><th>p50</th><th>p99</th><th>p99.9</th><th>longest</th></tr>"
    )?;
    for (name, latency) in named(&engine.latencies).into_iter().filter(|(_, latency)| latency.count() > 0) {
        write!(p, "<tr><td>{name}</td><td>{}</td>", latency.count())?;
        for q in [0.5, 0.99, 0.999, 1.0] {
            write!(p, "<td>{}</td>", short(latency.quantile(q)))?;
        }
        writeln!(p, "</tr>")?;
    }
    writeln!(p, "</table></div>")
}

fn findings(p: &mut String, class: &str, texts: &[String]) -> fmt::Result {
    writeln!(p, "<ul class=\"{class}\">")?;
    for text in texts.iter().take(WRONG_MAX) {
        writeln!(p, "<li>{}</li>", Escaped(text))?;
    }
    if texts.len() > WRONG_MAX {
        writeln!(p, "<li>and {} more</li>", texts.len() - WRONG_MAX)?;
    }
    writeln!(p, "</ul>")
}

/// More findings than this say no more.
const WRONG_MAX: usize = 100;

/// A field for each segment, so many in a row.
const ROW: usize = 48;
const CELL: usize = 18;

/// The segments in the order of their age, each as dark as it is alive.
fn map(p: &mut String, segments: &[SegmentInfo]) -> fmt::Result {
    if segments.is_empty() {
        return writeln!(p, "<p>There is none.</p>");
    }
    let (width, height) = (ROW * CELL, segments.len().div_ceil(ROW) * CELL + 44);
    writeln!(
        p,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"segments by age and live share\">"
    )?;
    writeln!(p, "<text x=\"0\" y=\"12\">oldest: segment {}</text>", segments[0].id)?;
    for (n, s) in segments.iter().enumerate() {
        let (x, y) = (n % ROW * CELL + 1, n / ROW * CELL + 20);
        let cold = if s.cold { " cold" } else { "" };
        writeln!(
            p,
            "<rect class=\"{}{cold}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"2\"><title>segment {}{}: {} of {} live, {}</title></rect>",
            class(s),
            s.id,
            cold,
            size(s.live_bytes),
            size(s.used_bytes),
            count(s.live_entries, "entry"),
            side = CELL - 3,
        )?;
    }
    let y = height - 16;
    for (n, label) in ["dead", "to 25%", "to 50%", "to 75%", "more is live"].iter().enumerate() {
        let x = n * 110;
        writeln!(p, "<rect class=\"l{n}\" x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" rx=\"2\"/>")?;
        writeln!(p, "<text x=\"{}\" y=\"{}\">{label}</text>", x + 18, y + 10)?;
    }
    writeln!(p, "<rect class=\"l0 cold\" x=\"551\" y=\"{y}\" width=\"12\" height=\"12\" rx=\"2\"/>")?;
    writeln!(p, "<text x=\"570\" y=\"{}\">made by the cleaner</text>\n</svg>", y + 10)
}

fn class(s: &SegmentInfo) -> &'static str {
    match s.live_bytes.saturating_mul(100).checked_div(s.used_bytes).unwrap_or(0) {
        _ if s.live_entries == 0 => "l0",
        0..=25 => "l1",
        26..=50 => "l2",
        51..=75 => "l3",
        _ => "l4",
    }
}

fn list(
    p: &mut String,
    title: &str,
    regions: &[RegionInfo],
    limit: usize,
    of: impl Fn(&RegionInfo) -> u64,
) -> fmt::Result {
    writeln!(p, "<h2>{}</h2>", Escaped(title))?;
    if regions.is_empty() {
        return writeln!(p, "<p>There is none.</p>");
    }
    writeln!(
        p,
        "<div class=\"wide\"><table>\n<tr><th>region</th><th>log</th><th>bytes</th><th>keeps</th><th>oldest segment</th><th></th></tr>"
    )?;
    let most = regions.iter().map(&of).max().unwrap_or(0).max(1);
    for r in regions.iter().take(limit) {
        let log = if r.entries == 0 { "-".to_string() } else { format!("{} to {}", r.log.first, r.log.last) };
        let keeps = if r.pinned_bytes == 0 { "-".to_string() } else { size(r.pinned_bytes) };
        let oldest = r.oldest_segment.map_or("-".to_string(), |id| id.to_string());
        let bar = u128::from(of(r)) * 120 / u128::from(most);
        writeln!(
            p,
            "<tr><td>{}</td><td>{log}</td><td>{}</td><td>{keeps}</td><td>{oldest}</td><td><svg width=\"120\" height=\"10\" \
             aria-hidden=\"true\"><rect class=\"track\" width=\"120\" height=\"10\"/><rect class=\"bar\" width=\"{bar}\" \
             height=\"10\"/></svg></td></tr>",
            r.id,
            size(r.bytes),
        )?;
    }
    writeln!(p, "</table></div>")?;
    match regions.len().saturating_sub(limit) {
        0 => Ok(()),
        more => writeln!(p, "<p class=\"dim\">and {}</p>", count(more as u64, "other region")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_becomes_a_tag() {
        let text = Escaped("<b a=\"1\" b='2'>&\u{1}\u{7f}é").to_string();
        assert_eq!(text, "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;\\u{1}\\u{7f}é");
    }
}
