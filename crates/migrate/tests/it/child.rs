//! A process that ends without closing its engine.

use crate::program::Program;
use crate::sides::{Ours, Side, Theirs};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const VARIABLE: &str = "RAFTWOOD_MIGRATE_CHILD";

/// Starts a process that does the steps `from..to` of a program, and is gone then. It prints a line after
/// each.
fn start<S: Side>(dir: &Path, seed: u64, from: u64, to: u64) -> Child {
    let job = format!("{} {seed} {from} {to} {}", S::NAME, dir.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child::process", "--exact", "--nocapture"]).env(VARIABLE, job);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs one to its end.
pub(crate) fn run<S: Side>(dir: &Path, seed: u64, from: u64, to: u64) {
    let output = start::<S>(dir, seed, from, to).wait_with_output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() && lines.contains(&format!("step {to}\n")),
        "{:?}: {lines}",
        output.status
    );
}

/// Starts one that would run for long and kills it once it has done about `steps` steps.
pub(crate) fn kill_after<S: Side>(dir: &Path, seed: u64, steps: u64) {
    use std::io::{BufRead, BufReader};
    let mut child = start::<S>(dir, seed, 0, u64::MAX);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == format!("step {steps}")));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn work<S: Side>(dir: &Path, seed: u64, from: u64, to: u64) {
    let side = S::open(dir);
    let mut program = Program::after(seed, from);
    program.check_opened(&side, "in the child");
    for number in from..to {
        side.apply(&program.step());
        println!("step {}", number + 1);
    }
    std::io::stdout().flush().unwrap();
    // Nothing is dropped, nothing closed.
    std::process::abort();
}

/// Not a test: what [`start`] starts.
#[test]
fn process() {
    let Ok(job) = std::env::var(VARIABLE) else { return };
    let mut parts = job.splitn(5, ' ');
    let engine = parts.next().unwrap();
    let mut number = || parts.next().unwrap().parse().unwrap();
    let (seed, from, to) = (number(), number(), number());
    let dir = Path::new(parts.next().unwrap());
    match engine {
        Theirs::NAME => work::<Theirs>(dir, seed, from, to),
        _ => work::<Ours>(dir, seed, from, to),
    }
}
