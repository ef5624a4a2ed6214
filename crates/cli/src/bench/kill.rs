//! kill -9 at random moments and at chosen system calls, again and again on the same store.

use super::Plan;
use super::child::{KEPT, PID, region_of};
use super::live::Live;
use super::payload::{Page, Verified, verify};
use super::report::{Report, Row, Timings, disk_bytes};
use super::strace::{Call, Strace};
use crate::Failure;
use crate::out::remark;
use raftwood::RegionId;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Starts this program again as the one that is going to be killed.
pub(crate) fn spawn(plan: &Plan, dir: &Path, job: &str) -> Result<Child, Failure> {
    start(Command::new(std::env::current_exe()?), plan, dir, job)
}

fn start(mut command: Command, plan: &Plan, dir: &Path, job: &str) -> Result<Child, Failure> {
    command.args(["child", "--job", job, "--store"]).arg(dir);
    command.args(["--seed", &plan.seed.to_string()]);
    command.args(["--regions", &plan.regions.to_string()]);
    command.args(["--entry-bytes", &plan.entry_bytes.to_string()]);
    command.args(["--batch-entries", &plan.batch_entries.to_string()]);
    command.args(["--bytes", &plan.bytes.to_string()]);
    command.args(["--segment-bytes", &plan.segment_bytes.to_string()]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// How often it was killed, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kills {
    pub(crate) at_random: u32,
    /// By the name of the call.
    pub(crate) at_calls: BTreeMap<&'static str, u32>,
}

impl Kills {
    pub(crate) fn all_at_calls(&self) -> u32 {
        self.at_calls.values().sum()
    }
}

/// When the process is killed.
enum Blow {
    /// So long after its start.
    After(Duration),
    /// At this system call, the n-th of a thread; at the latest after [`PATIENCE_BATCHES`].
    At(Call, u64),
}

/// A process that has written so many batches and did not come to its call is killed then. Counted in work,
/// not in time: a loaded machine is slower, and what a process does before its call is the same.
const PATIENCE_BATCHES: u32 = 400;

/// One that does not get so far in this time hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a child says.
enum Heard {
    Pid(u32),
    Acknowledged,
}

/// Kills, reopens, verifies. Every other kill is at a system call, if there is something to do it with.
pub(crate) fn measure(
    plan: &Plan,
    dir: &Path,
    strace: Option<&Strace>,
    report: &mut Report,
) -> Result<(Vec<Row>, Kills), Failure> {
    let kills = plan.repeat.unwrap_or(50);
    let live = Live::counted(plan, "kill", "kill", kills);
    let mut state = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (mut acked, mut total) = (0, Verified::default());
    let mut opens = Timings::new();
    let mut torn_or_lost = 0;
    let mut done = Kills::default();
    for round in 0..kills {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = state >> 33;
        let blow = match strace.filter(|_| round % 2 == 1) {
            Some(_) => {
                let call = Call::ALL[(round / 2) as usize % Call::ALL.len()];
                Blow::At(call, 1 + chance % call.often())
            }
            None => Blow::After(Duration::from_micros(chance % 120_000)),
        };
        let (heard, struck) = run_and_kill(plan, dir, &blow, strace)?;
        acked = acked.max(heard);
        match struck {
            Some(call) => *done.at_calls.entry(call.name()).or_default() += 1,
            None => done.at_random += 1,
        }

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
            let found = format!("{acked} acknowledged, {even} + {odd} recovered, counts {counts:?}");
            remark(plan.json, "violation", &format!("kill {round}: {found}"));
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
        // What is there now is what is to be looked at.
        if torn_or_lost + total.wrong > 0 {
            break;
        }
        // Every other round leaves by the front door.
        if chance.is_multiple_of(2) {
            engine.close()?;
        }
        drop(engine);
        live.one_more();
    }
    live.end();
    report.check(
        torn_or_lost == 0,
        format!("kill: {} kills, {acked} batches recovered, {torn_or_lost} lost or torn", opens.count()),
    );
    let mut row = Row::new("kill", "raftwood", plan);
    row.timed(&opens);
    row.ops = Some(opens.count());
    row.entries = Some(acked * 64);
    row.open_ms = Some(opens.micros(0.5) / 1000.0);
    row.disk_bytes = Some(disk_bytes(dir));
    row.verified = Some(total.entries);
    row.wrong = Some(total.wrong + torn_or_lost);
    Ok((vec![row], done))
}

/// Lets a child write until the blow falls, and returns the last acknowledgement and the call at
/// which it was.
fn run_and_kill(
    plan: &Plan,
    dir: &Path,
    blow: &Blow,
    strace: Option<&Strace>,
) -> Result<(u64, Option<Call>), Failure> {
    let (mut child, wait) = match (blow, strace) {
        (Blow::At(call, nth), Some(strace)) => {
            let under = strace.kill_at(*call, *nth, std::env::current_exe()?.as_os_str());
            (start(under, plan, dir, "stream")?, PATIENCE)
        }
        (Blow::At(..), None) => (spawn(plan, dir, "stream")?, PATIENCE),
        (Blow::After(wait), _) => (spawn(plan, dir, "stream")?, Duration::from_millis(10) + *wait),
    };
    let Some(out) = child.stdout.take() else { return Err(Failure::new("the child has no output")) };
    let (tell, told) = mpsc::channel::<Heard>();
    let reader = std::thread::spawn(move || {
        let mut acked = 0;
        let mut lines = BufReader::new(out).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            let Ok(line) = std::str::from_utf8(&line) else { continue };
            if let Some(Ok(pid)) = line.strip_prefix(PID).map(str::parse) {
                let _ = tell.send(Heard::Pid(pid));
            }
            // A line cut by the kill is not an acknowledgement that anybody received; it may be a
            // shorter number.
            if let Ok(number) = line.parse::<u64>() {
                acked = acked.max(number);
                let _ = tell.send(Heard::Acknowledged);
            }
        }
        acked
    });
    // The process itself is killed, not the one that traces it: that would let it go on. Without its number
    // it has already died, or has not begun: then it has some more time.
    let began = Instant::now();
    let batches_max = if matches!(blow, Blow::At(..)) { PATIENCE_BATCHES } else { u32::MAX };
    let (mut pid, mut fell, mut batches) = (None, false, 0);
    while !fell && (began.elapsed() < wait && batches < batches_max || pid.is_none()) {
        match told.recv_timeout(wait.saturating_sub(began.elapsed()).max(Duration::from_millis(1))) {
            Ok(Heard::Pid(number)) => pid = Some(number),
            Ok(Heard::Acknowledged) => batches += 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => fell = true,
        }
    }
    if let Some(pid) = pid.filter(|_| !fell)
        && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
    {
        // It may have died this moment.
        let _ = kill_process(pid, Signal::KILL);
    }
    let status = child.wait()?;
    let acked = reader.join().map_err(|_| Failure::new("the reader of acknowledgements panicked"))?;
    if status.signal() != Some(Signal::KILL.as_raw()) {
        return Err(Failure::new(format!(
            "the writing process was not killed but ended by itself: {status}"
        )));
    }
    let struck = match blow {
        Blow::At(call, _) if fell => Some(*call),
        _ => None,
    };
    Ok((acked, struck))
}
