//! Figures, as a table for people and as JSON for programs.

use super::Plan;
use crate::out::{aside, count, filled, remark, say, say_json, size};
use crate::{Failure, Outcome};
use hdrhistogram::Histogram;
use raftwood::Durability;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Latencies of one kind of operation.
#[derive(Clone)]
pub(crate) struct Timings {
    /// `None` if no histogram could be made, which its fixed bounds rule out.
    nanos: Option<Histogram<u64>>,
    pub(crate) elapsed: Duration,
}

impl Timings {
    pub(crate) fn new() -> Timings {
        Timings { nanos: Histogram::new_with_max(600_000_000_000, 3).ok(), elapsed: Duration::ZERO }
    }

    pub(crate) fn record(&mut self, one: Duration) {
        if let Some(h) = &mut self.nanos {
            h.saturating_record(u64::try_from(one.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn add(&mut self, other: &Timings) {
        if let (Some(mine), Some(theirs)) = (&mut self.nanos, &other.nanos) {
            // Same bounds: it fits.
            let _ = mine.add(theirs);
        }
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.nanos.as_ref().map_or(0, Histogram::len)
    }

    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.nanos.as_ref().map_or(0.0, |h| h.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

/// One run. The names of the fields are the JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) engine: String,
    pub(crate) threads: Option<u64>,
    pub(crate) regions: Option<u64>,
    pub(crate) entry_bytes: Option<u64>,
    pub(crate) batch_entries: Option<u64>,
    pub(crate) durability: Option<&'static str>,
    pub(crate) seconds: Option<f64>,
    pub(crate) ops: Option<u64>,
    pub(crate) entries: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    pub(crate) device_bytes: Option<u64>,
    /// Zeros with which new files were filled while it was measured: 0 once files are recycled.
    pub(crate) filled_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) live_bytes: Option<u64>,
    pub(crate) index_bytes: Option<u64>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) segments: Option<u64>,
    pub(crate) open_ms: Option<f64>,
    pub(crate) verified: Option<u64>,
    pub(crate) wrong: Option<u64>,
}

impl Row {
    pub(crate) fn new(workload: &str, engine: &str, plan: &Plan) -> Row {
        Row {
            workload: workload.to_string(),
            engine: engine.to_string(),
            threads: Some(plan.threads as u64),
            regions: Some(plan.regions),
            entry_bytes: Some(plan.entry_bytes as u64),
            batch_entries: Some(plan.batch_entries),
            durability: Some(if plan.durability == Durability::Synced { "synced" } else { "written" }),
            ..Row::default()
        }
    }

    pub(crate) fn timed(&mut self, t: &Timings) {
        self.seconds = Some(t.elapsed.as_secs_f64());
        self.ops = Some(t.count());
        self.p50_us = Some(t.micros(0.5));
        self.p99_us = Some(t.micros(0.99));
        self.p999_us = Some(t.micros(0.999));
        self.max_us = Some(t.micros(1.0));
    }

    /// Rates and latencies for people, as [`TITLES`] names them.
    fn figures(&self) -> [String; TITLES.len()] {
        let per_second = |n: Option<u64>| match (n, self.seconds) {
            (Some(n), Some(s)) if s > 0.0 => Some(n as f64 / s),
            _ => None,
        };
        let mib = per_second(self.bytes).map(|bytes| bytes / f64::from(1 << 20));
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
        let time = |micros: Option<f64>| known(micros.map(micros_text));
        [
            self.workload.clone(),
            known(self.threads.map(|n| n.to_string())),
            known(self.regions.map(|n| n.to_string())),
            known(per_second(self.ops).map(|rate| format!("{rate:.0}"))),
            known(mib.map(|rate| format!("{rate:.1}"))),
            time(self.p50_us),
            time(self.p99_us),
            time(self.p999_us),
            time(self.max_us),
        ]
    }

    /// What it took, as far as it is known.
    fn space(&self) -> Vec<String> {
        let bytes = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", size(bytes)));
        let opened = self.open_ms.map(|ms| format!("opened in {ms:.1} ms"));
        let all = [
            bytes("device", self.device_bytes),
            bytes("disk", self.disk_bytes),
            bytes("index", self.index_bytes),
            opened,
        ];
        all.into_iter().flatten().collect()
    }

    /// The median of each figure over the repetitions; anything wrong in any of them stays wrong.
    pub(crate) fn median(runs: &[&Row]) -> Row {
        let Some(first) = runs.first() else { return Row::default() };
        let mid = |f: &dyn Fn(&Row) -> Option<f64>| {
            let mut all: Vec<f64> = runs.iter().filter_map(|r| f(r)).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len().saturating_sub(1) / 2).copied()
        };
        let mid_u = |f: &dyn Fn(&Row) -> Option<u64>| mid(&|r| f(r).map(|v| v as f64)).map(|v| v as u64);
        Row {
            seconds: mid(&|r| r.seconds),
            ops: mid_u(&|r| r.ops),
            entries: mid_u(&|r| r.entries),
            bytes: mid_u(&|r| r.bytes),
            p50_us: mid(&|r| r.p50_us),
            p99_us: mid(&|r| r.p99_us),
            p999_us: mid(&|r| r.p999_us),
            max_us: mid(&|r| r.max_us),
            device_bytes: mid_u(&|r| r.device_bytes),
            filled_bytes: mid_u(&|r| r.filled_bytes),
            disk_bytes: mid_u(&|r| r.disk_bytes),
            live_bytes: mid_u(&|r| r.live_bytes),
            index_bytes: mid_u(&|r| r.index_bytes),
            rss_bytes: mid_u(&|r| r.rss_bytes),
            segments: mid_u(&|r| r.segments),
            open_ms: mid(&|r| r.open_ms),
            verified: mid_u(&|r| r.verified),
            wrong: runs.iter().map(|r| r.wrong).fold(None, |a, b| a.max(b)),
            ..(*first).clone()
        }
    }
}

/// A store that was left.
#[derive(Serialize)]
struct Kept<'a> {
    kind: &'static str,
    dir: &'a Path,
}

/// Collects what is found and prints it.
pub(crate) struct Report {
    json: bool,
    notes: Vec<String>,
    verified: u64,
    wrong: u64,
    violations: u64,
    kept: Vec<PathBuf>,
    headed: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Report {
        Report {
            json,
            notes: Vec::new(),
            verified: 0,
            wrong: 0,
            violations: 0,
            kept: Vec::new(),
            headed: false,
        }
    }

    /// Says where this is measured.
    pub(crate) fn environment(&self, dir: &Path, segment_bytes: u64) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        say!(
            "raftwood {} on {cores} cores, kernel {}, {}, segments of {}, pre-written; figures of a shared machine are ratios",
            env!("CARGO_PKG_VERSION"),
            kernel.trim(),
            file_system(dir),
            size(segment_bytes)
        )
    }

    /// Something worth a sentence below the table.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Says so when new files were filled while a workload was measured: that is how a store
    /// begins, and not how it goes on.
    pub(crate) fn warn_if_young(&mut self, row: &Row) {
        if let Some(filled @ 1..) = row.filled_bytes {
            self.note(format!(
                "warning: {} measured a young store: {} of new files were filled with zeros meanwhile, for {} of batches. \
                 A store that has been at work recycles its files: have it write (longer) before with --warm-up SECONDS",
                row.workload,
                size(filled),
                size(row.bytes.unwrap_or(0))
            ));
        }
    }

    /// A store that is left for a look into it.
    pub(crate) fn kept(&mut self, dir: &Path) {
        if self.json {
            // Standard output has the rows.
            aside(true, &Kept { kind: "kept", dir }, "");
        }
        self.kept.push(dir.to_path_buf());
    }

    /// A line for each of these.
    pub(crate) fn all_kept(&self) -> String {
        let line = |dir: &PathBuf| format!("kept for a look into it: {}", dir.display());
        self.kept.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// A bound that was asked for and is broken.
    pub(crate) fn check(&mut self, holds: bool, text: String) {
        self.violations += u64::from(!holds);
        if self.json && !holds {
            remark(true, "violation", &text);
        }
        self.notes.push(format!("{} {text}", if holds { "ok      " } else { "VIOLATED" }));
    }

    /// How many bounds are broken.
    pub(crate) fn violations(&self) -> u64 {
        self.violations
    }

    pub(crate) fn row(&mut self, row: &Row) -> Result<(), Failure> {
        self.verified += row.verified.unwrap_or(0);
        self.wrong += row.wrong.unwrap_or(0);
        if self.json {
            say_json(row)?;
            return Ok(());
        }
        if !self.headed {
            self.headed = true;
            say!("\n{}", aligned(&TITLES.map(String::from)))?;
        }
        say!("{}", aligned(&row.figures()))?;
        match row.space() {
            space if space.is_empty() => Ok(()),
            space => filled(&space).iter().try_for_each(|line| say!("  {line}")),
        }
    }

    /// The last lines.
    pub(crate) fn summary(&self) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        say!()?;
        for note in &self.notes {
            say!("{note}")?;
        }
        if !self.kept.is_empty() {
            say!("{}", self.all_kept())?;
        }
        say!("verified {}, {} wrong", count(self.verified, "entry"), self.wrong)
    }

    pub(crate) fn outcome(&self) -> Outcome {
        if self.wrong > 0 || self.violations > 0 { Outcome::FoundWrong } else { Outcome::Fine }
    }
}

/// The columns of the table, and how wide they are: with a space before each they fill a terminal.
const TITLES: [&str; 9] = ["workload", "thr", "regions", "ops/s", "MiB/s", "p50", "p99", "p99.9", "max"];
const WIDTHS: [usize; 9] = [12, 3, 8, 9, 7, 8, 8, 8, 8];

fn aligned(cells: &[String; 9]) -> String {
    let mut line = format!("{:<width$}", cells[0], width = WIDTHS[0]);
    for (cell, width) in cells.iter().zip(WIDTHS).skip(1) {
        line.push_str(&format!(" {cell:>width$}"));
    }
    line
}

/// A latency for people.
fn micros_text(micros: f64) -> String {
    match micros {
        _ if micros < 1e3 => format!("{micros:.1} us"),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

/// The type of the file system that holds `dir`, as the system lists its mounts.
fn file_system(dir: &Path) -> String {
    let Ok(dir) = dir.canonicalize() else { return "unknown file system".to_string() };
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut best = ("", "unknown file system");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(kind)) = (words.next(), words.next())
            && dir.starts_with(point)
            && point.len() >= best.0.len()
        {
            best = (point, kind);
        }
    }
    best.1.to_string()
}

/// Bytes written to the device that holds `dir` since the system started, by anybody, where the
/// system shows it.
///
/// What the system says of this process alone will not do: it counts a large folio of the page cache as a
/// whole whenever a small write makes it dirty, many times what then goes to the device.
pub(crate) fn device_bytes(dir: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let dev = std::fs::metadata(dir).ok()?.dev();
    let (major, minor) = ((dev >> 8) & 0xfff | (dev >> 32) & !0xfff, dev & 0xff | (dev >> 12) & !0xff);
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// Resident memory of this process, where the system shows it.
pub(crate) fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|k| k * 1024)
}

/// Bytes that the files of a directory occupy.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::COLUMNS;

    #[test]
    fn a_row_fits_a_terminal_however_large_its_figures_are() {
        let row = Row {
            workload: "read.range64".to_string(),
            threads: Some(512),
            regions: Some(10_000_000),
            seconds: Some(1.0),
            ops: Some(100_000_000),
            bytes: Some(90_000 << 20),
            p50_us: Some(999.94),
            p99_us: Some(999_940.0),
            p999_us: Some(600e6),
            max_us: Some(600e6),
            device_bytes: Some(1023 << 40),
            disk_bytes: Some(1023 << 40),
            index_bytes: Some(1023 << 30),
            open_ms: Some(600_000.0),
            ..Row::default()
        };
        assert_eq!(
            aligned(&row.figures()),
            "read.range64 512 10000000 100000000 90000.0 999.9 us 999.9 ms  600.0 s  600.0 s"
        );
        let space = "device 1023.0 TiB, disk 1023.0 TiB, index 1023.0 GiB, opened in 600000.0 ms";
        assert_eq!(filled(&row.space()), [space]);
        let lines = [aligned(&row.figures()), aligned(&TITLES.map(String::from)), format!("  {space}")];
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
    }
}
