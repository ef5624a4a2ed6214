//! Every run is held to the order of calls that the model explores: see `raftwood_torture::protocol`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use raftwood::vfs::sim::{Op, OpKind};
use raftwood_torture::driver::Driver;
use raftwood_torture::protocol::{Protocol, Step};
use raftwood_torture::{Act, Setup, Workload};
use std::collections::BTreeMap;

/// The step that is refused, and why.
fn refusal(steps: &[Step]) -> Option<(usize, String)> {
    let mut protocol = Protocol::default();
    steps.iter().enumerate().find_map(|(at, step)| protocol.step(step).err().map(|why| (at, why)))
}

fn workloads() -> Vec<Workload> {
    let mut workloads = Workload::named();
    workloads.extend(Workload::pairs());
    workloads
}

fn run(n: usize, workload: &Workload, cuts_opens: bool) -> Run {
    let setup = Setup { compression: n % 3 == 1, ..Setup::plain(4_000 + n as u64) };
    let (steps, outcome) = Driver::steps_of(setup, workload, cuts_opens);
    Run { name: workload.name.clone(), steps, outcome }
}

fn runs() -> Vec<Run> {
    workloads().iter().enumerate().map(|(n, workload)| run(n, workload, false)).collect()
}

/// The same workloads, of which each third act or so is followed by a crash, and the crash by opens that die
/// at any of their calls.
fn runs_that_crash_in_opens() -> Vec<Run> {
    let mut runs = Vec::new();
    for (n, workload) in workloads().iter().enumerate() {
        for seed in 0..5 {
            let crash = if (n + seed) % 3 == 0 { Act::Kill } else { Act::Crash };
            let acts = workload.acts.iter().enumerate();
            let crashing = acts.flat_map(|(at, act)| match (at + n + seed) % 3 {
                0 => vec![*act, crash],
                _ => vec![*act],
            });
            let crashing = Workload { acts: crashing.collect(), ..workload.clone() };
            runs.push(run(10_000 * seed + n, &crashing, true));
        }
    }
    runs
}

struct Run {
    name: String,
    steps: Vec<Step>,
    /// What the model said.
    outcome: Result<(), String>,
}

#[test]
fn every_run_keeps_to_the_protocol() {
    keep_to_the_protocol(&runs());
}

#[test]
fn every_run_keeps_to_the_protocol_whose_opens_die_as_well() {
    let runs = runs_that_crash_in_opens();
    keep_to_the_protocol(&runs);
    let died =
        |run: &Run| run.steps.iter().filter(|step| matches!(step, Step::Killed | Step::Cut(_))).count();
    let died = runs.iter().map(died).sum::<usize>();
    println!("{died} kills and power cuts");
    assert!(died > 5_000, "{died}");
}

#[track_caller]
fn keep_to_the_protocol(runs: &[Run]) {
    let mut steps = 0;
    let mut answers = 0;
    for run in runs {
        if let Some((at, why)) = refusal(&run.steps) {
            let near = run.steps[at.saturating_sub(150)..=at]
                .iter()
                .filter(|s| !matches!(s, Step::Call(op) if !op.kind.changes_disk()))
                .map(|step| format!("{step:?}"));
            panic!("{}, step {at}: {why}\n{}", run.name, near.collect::<Vec<_>>().join("\n"));
        }
        steps += run.steps.len();
        answers += run.steps.iter().filter(|step| matches!(step, Step::Synced(_))).count();
    }
    println!("{} runs, {steps} steps, {answers} acknowledgements", runs.len());
    for run in runs {
        assert_eq!(run.outcome, Ok(()), "{}", run.name);
    }
    assert!(runs.len() > 150 && answers > 1_000, "{} runs, {answers} answers", runs.len());
}

/// Twists that change nothing: a sync is done twice, two writes to one file change places before it is
/// synced, or a file of the reserve, which nothing needs yet, is not synced after it was made.
fn is_harmless(way: usize, op: &Op, next: Option<&Op>) -> bool {
    let writes =
        |op: &Op| matches!(op.kind, OpKind::Write | OpKind::Create | OpKind::SetLen | OpKind::Allocate);
    match way {
        0 => op.kind == OpKind::SyncAll && op.path.extension().is_some_and(|ext| ext == "free"),
        1 => op.kind.is_sync(),
        // The directory has both names, or the file both writes, when the next sync comes.
        _ => writes(op) && next.is_some_and(writes),
    }
}

/// One call that changes the disk is taken out, done twice, or exchanged with the next one.
#[test]
fn a_run_with_one_step_out_of_place_is_refused() {
    let names = ["taken out", "doubled", "exchanged"];
    let (mut tried, mut refused, mut harmless) = ([0u64; 3], [0u64; 3], [0u64; 3]);
    let mut missed = BTreeMap::<String, u64>::new();
    for Run { steps: run, .. } in runs().iter().step_by(3) {
        let call = |at: usize| match &run[at] {
            Step::Call(op) => Some(op).filter(|op| op.kind.changes_disk() && op.error.is_none()),
            _ => None,
        };
        // Before each open the directory is made, which is there, and locked.
        let is_opening = |op: &Op| matches!(op.kind, OpKind::CreateDirAll | OpKind::Lock);
        let changes: Vec<usize> =
            (0..run.len()).filter(|&at| call(at).is_some_and(|op| !is_opening(op))).collect();
        // What concerns different files may be done in any order.
        let concern = |a: &Op, b: &Op| {
            a.path == b.path || a.to.as_ref() == Some(&b.path) || [a.kind, b.kind].contains(&OpKind::SyncDir)
        };
        for (n, &at) in changes.iter().enumerate().step_by(2) {
            let next =
                changes.get(n + 1).copied().filter(|&next| concern(call(at).unwrap(), call(next).unwrap()));
            for (way, name) in names.iter().enumerate() {
                let mut twisted = run.clone();
                match (way, next) {
                    (0, _) => drop(twisted.remove(at)),
                    (1, _) => twisted.insert(at, run[at].clone()),
                    (_, Some(next)) => twisted.swap(at, next),
                    (_, None) => continue,
                }
                let op = call(at).unwrap();
                if refusal(&twisted).is_some() {
                    tried[way] += 1;
                    refused[way] += 1;
                } else if is_harmless(way, op, next.and_then(call)) {
                    harmless[way] += 1;
                } else {
                    tried[way] += 1;
                    let file = op.path.extension().or(op.path.file_name()).unwrap_or_default();
                    let what = format!("{name}: {} {}", op.kind, file.display());
                    *missed.entry(what).or_default() += 1;
                }
            }
        }
    }
    for (way, name) in names.iter().enumerate() {
        let [refused, tried, harmless] = [refused, tried, harmless].map(|counts| counts[way]);
        println!("{name}: {refused} of {tried} refused, and {harmless} are harmless");
        assert!(
            refused * 100 >= tried * 95 && harmless * 4 < tried,
            "{name}: {refused} of {tried}, {missed:#?}"
        );
    }
    println!("not refused: {missed:#?}");
}
