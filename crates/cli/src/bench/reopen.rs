//! How long a store takes to open after a kill.

use super::payload::Page;
use super::report::{Report, Row, disk_bytes, rss_bytes};
use super::{Plan, kill, run};
use crate::Failure;
use crate::out::size;
use indicatif::ProgressBar;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

/// Opens of one filled store; the median counts.
const OPENS: usize = 5;

/// Fills in a child, kills it, opens, verifies.
pub(crate) fn measure(plan: &Plan, dir: &Path, report: &mut Report) -> Result<Vec<Row>, Failure> {
    let mut child = kill::spawn(plan, dir, "fill")?;
    let Some(out) = child.stdout.take() else { return Err(Failure::new("the child has no output")) };
    let progress = if plan.json { ProgressBar::hidden() } else { ProgressBar::new(plan.bytes) };
    progress.set_prefix("fill");
    let mut lines = BufReader::new(out).lines();
    let mut filled = false;
    while let Some(Ok(line)) = lines.next() {
        let mut words = line.split(' ');
        match (words.next(), words.next().and_then(|w| w.parse::<u64>().ok())) {
            (Some("filled"), Some(bytes)) => progress.set_position(bytes),
            (Some("done"), _) => {
                filled = true;
                break;
            }
            _ => {}
        }
    }
    progress.finish_and_clear();
    // It goes on writing: the kill hits a log in motion.
    std::thread::sleep(std::time::Duration::from_millis(200));
    child.kill()?;
    child.wait()?;
    if !filled {
        return Err(Failure::new("the filling process failed"));
    }

    let mut opens = Vec::new();
    let mut last = None;
    for _ in 0..OPENS {
        drop(last.take());
        let began = Instant::now();
        let engine = plan.options.open(dir)?;
        opens.push(began.elapsed().as_secs_f64() * 1000.0);
        last = Some(engine);
    }
    let Some(engine) = last else { return Err(Failure::new("nothing was opened")) };
    let first = opens.first().copied().unwrap_or_default();
    opens.sort_by(f64::total_cmp);
    let stats = engine.stats();
    let mut row = Row::new("reopen", "raftwood", plan);
    row.open_ms = Some(first);
    row.entries = Some(stats.live_entries);
    row.bytes = Some(stats.live_bytes);
    row.live_bytes = Some(stats.live_bytes);
    let index_bytes = engine.index_bytes();
    row.index_bytes = Some(index_bytes);
    row.segments = Some(stats.segments);
    row.rss_bytes = rss_bytes();
    row.disk_bytes = Some(disk_bytes(dir));
    report.note(format!(
        "reopen: {first:.1} ms after the kill, {:.1} ms in the median of {OPENS}; {} in {} entries and {} segments; {:.2} bytes of index an entry",
        opens[opens.len() / 2],
        size(stats.live_bytes),
        stats.live_entries,
        stats.segments,
        index_bytes as f64 / stats.live_entries.max(1) as f64
    ));
    let rounds = plan.bytes.div_ceil(plan.regions * plan.batch_entries * plan.entry_bytes as u64);
    engine.close()?;
    drop(engine);
    // The filler stops in the middle of a round of regions.
    let pages: Vec<Page> = {
        let engine = plan.options.open(dir)?;
        let pages = (1..=plan.regions)
            .map(|r| Page { region: r, first: 1, last: engine.region(raftwood::RegionId(r)).last_index() })
            .collect();
        engine.close()?;
        pages
    };
    let short =
        pages.iter().filter(|p| p.last < (rounds.saturating_sub(1)) * plan.batch_entries).count() as u64;
    let (_, verified) = run::reopen_and_verify(plan, dir, &pages)?;
    if plan.verify {
        row.verified = Some(verified.entries);
        row.wrong = Some(verified.wrong + short);
    }
    Ok(vec![row])
}
