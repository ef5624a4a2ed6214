//! kill -9 at random moments, again and again on the same store.

use super::Plan;
use super::child::{KEPT, region_of};
use super::payload::{Page, Verified, verify};
use super::report::{Report, Row, Timings, disk_bytes};
use super::run::bar;
use crate::Failure;
use raftwood::RegionId;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts this program again as the one that is going to be killed.
pub(crate) fn spawn(plan: &Plan, dir: &Path, job: &str) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", "--job", job, "--store"]).arg(dir);
    command.args(["--seed", &plan.seed.to_string()]);
    command.args(["--regions", &plan.regions.to_string()]);
    command.args(["--entry-bytes", &plan.entry_bytes.to_string()]);
    command.args(["--batch-entries", &plan.batch_entries.to_string()]);
    command.args(["--bytes", &plan.bytes.to_string()]);
    command.args(["--segment-bytes", &plan.segment_bytes.to_string()]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// Kills, reopens, verifies.
pub(crate) fn measure(plan: &Plan, dir: &Path, report: &mut Report) -> Result<Vec<Row>, Failure> {
    let kills = plan.repeat.unwrap_or(50);
    let progress = bar("kill", Duration::from_millis(u64::from(kills)));
    let mut state = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (mut acked, mut total) = (0, Verified::default());
    let mut opens = Timings::new();
    let mut torn_or_lost = 0;
    for round in 0..kills {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = Duration::from_micros((state >> 33) % 120_000);
        acked = acked.max(run_and_kill(plan, dir, wait)?);

        let began = Instant::now();
        let engine = plan.options.open(dir)?;
        opens.record(began.elapsed());
        let counts: Vec<u64> = (0..64).map(|r| engine.region(RegionId(r + 1)).last_index() / 2).collect();
        let (even, odd) = (counts[0], counts[32]);
        // All 32 regions of a half moved together; the halves take turns; nothing acknowledged is missing.
        let whole = counts[..32].iter().all(|c| *c == even) && counts[32..].iter().all(|c| *c == odd);
        let ordered = even == odd || even == odd + 1;
        if !whole || !ordered || even + odd < acked {
            torn_or_lost += 1;
            eprintln!("kill {round}: {acked} acknowledged, {even} + {odd} recovered, counts {counts:?}");
        }
        let pages: Vec<Page> = (0..2u64)
            .flat_map(|half| (0..32).map(move |k| region_of(half, k)))
            .zip(&counts)
            .map(|(region, n)| Page { region, first: (n * 2).saturating_sub(KEPT) + 1, last: n * 2 })
            .collect();
        let seen = verify(&engine, plan, &pages);
        total.entries += seen.entries;
        total.wrong += seen.wrong;
        acked = even + odd;
        // Every other round leaves by the front door.
        if round % 2 == 0 {
            engine.close()?;
        }
        drop(engine);
        progress.inc(1);
    }
    progress.finish_and_clear();
    report.check(
        torn_or_lost == 0,
        format!("kill: {kills} kills, {acked} batches recovered, {torn_or_lost} lost or torn"),
    );
    let mut row = Row::new("kill", "raftwood", plan);
    row.timed(&opens);
    row.ops = Some(u64::from(kills));
    row.entries = Some(acked * 64);
    row.open_ms = Some(opens.micros(0.5) / 1000.0);
    row.disk_bytes = Some(disk_bytes(dir));
    row.verified = Some(total.entries);
    row.wrong = Some(total.wrong + torn_or_lost);
    Ok(vec![row])
}

/// Lets a child write for `wait` after its store is open, kills it, and returns the last acknowledgement.
fn run_and_kill(plan: &Plan, dir: &Path, wait: Duration) -> Result<u64, Failure> {
    let mut child = spawn(plan, dir, "stream")?;
    let Some(out) = child.stdout.take() else { return Err(Failure::new("the child has no output")) };
    let reader = std::thread::spawn(move || {
        let mut acked = 0;
        let mut lines = BufReader::new(out).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            // A line cut by the kill is not an acknowledgement that anybody heard; it may be a shorter number.
            acked = std::str::from_utf8(&line).ok().and_then(|l| l.parse().ok()).unwrap_or(0).max(acked);
        }
        acked
    });
    std::thread::sleep(Duration::from_millis(10) + wait);
    child.kill()?;
    child.wait()?;
    reader.join().map_err(|_| Failure::new("the reader of acknowledgements panicked"))
}
