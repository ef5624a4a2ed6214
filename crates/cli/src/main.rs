//! The command-line tool: benchmarks, a look into a store, its repair, and its torture.
//!
//! Exit codes: 0 all is well, 1 something was found wrong, 2 the command could not run, 141 (128 and
//! the number of SIGPIPE) nobody read what it printed: it ended there, without a word, and what it
//! would have found is not known.
//!
//! With `--json` every object has the version of its schema, and whatever is said beside them, on standard
//! error, is such an object too: `{"schema":1,"kind":"error","error":"..."}`.

mod backup;
mod bench;
mod check;
mod decode;
mod diff;
mod dump;
mod explain;
mod figures;
mod inspect;
mod like;
mod manual;
mod out;
mod page;
mod purge;
mod restore;
mod top;
mod torture;

use clap::{Parser, Subcommand};
use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Storage engine for the logs of many Raft groups: benchmarks and inspection.
#[derive(Parser)]
#[command(name = "raftwood", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure this machine and verify what was written. Without arguments: the machine's floor, a lone
    /// writer, and the raftstore workload, 15 seconds each.
    Bench(bench::Args),
    /// Show segments, regions and space of a store, without changing it. Works beside a running engine.
    Inspect(inspect::Args),
    /// Print the entries, hard states and keys of a store's regions, without changing it. Works beside a
    /// running engine.
    Dump(dump::Args),
    /// Show what is being written, and by which regions, again and again. Works beside a running engine.
    Top(top::Args),
    /// Say why an open would decide as it would: where the log ends, what was torn, damaged or suspect, and
    /// by which proof. Changes nothing.
    Explain(explain::Args),
    /// Say where the logs of two replicas first differ, region by region. Reads no payload.
    Diff(diff::Args),
    /// Give back what nothing needs of a store that no engine has open.
    Purge(purge::Args),
    /// Copy a store, with hard links where that can be.
    Backup(backup::Args),
    /// Make a store of a copy, verified, with an id of its own. Its regions must not vote before they have
    /// joined anew, unless the whole cluster is restored together (--whole-cluster).
    Restore(restore::Args),
    /// Verify everything in a store without changing it.
    Check(check::CheckArgs),
    /// Repair what can be repaired without a replica, and with --from-replica what it has of damaged entries,
    /// and say what cannot. Changes nothing without --apply.
    Repair(check::RepairArgs),
    /// Crash, fail and kill the engine a great many times, and count what it survived.
    Torture(torture::Args),
    /// Write one page for people: a map of the segments, the largest regions, what keeps what, and damage.
    Report(page::Args),
    /// Print the completions for a shell.
    Completions(manual::CompletionsArgs),
    /// Print the manual page.
    Man(manual::ManArgs),
    /// A process that the benchmarks kill.
    #[command(hide = true)]
    Child(bench::child::Args),
}

impl Command {
    /// Whether it prints JSON.
    fn is_json(&self) -> bool {
        match self {
            Command::Bench(args) => args.json,
            Command::Inspect(args) => args.json,
            Command::Dump(args) => args.is_json(),
            Command::Top(args) => args.json,
            Command::Explain(args) => args.json,
            Command::Diff(args) => args.json,
            Command::Purge(args) => args.json,
            Command::Backup(args) => args.json,
            Command::Restore(args) => args.json,
            Command::Check(args) => args.json,
            Command::Repair(args) => args.json,
            Command::Torture(args) => args.json,
            Command::Report(_) | Command::Completions(_) | Command::Man(_) | Command::Child(_) => false,
        }
    }
}

/// Why a command did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not run.
    CannotRun(String),
    /// Nobody reads what it prints.
    ClosedPipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::CannotRun(why) => f.write_str(why),
            Failure::ClosedPipe => f.write_str("the output was closed"),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(e: E) -> Failure {
        let io = (&e as &dyn Any).downcast_ref::<io::Error>();
        match io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            true => Failure::ClosedPipe,
            false => Failure::CannotRun(out::with_causes(&e)),
        }
    }
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure::CannotRun(text.into())
    }
}

/// What a command found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Fine,
    FoundWrong,
}

/// Whether JSON is asked for by arguments that are not understood otherwise.
fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    let args: Vec<OsString> = args.take_while(|arg| arg != "--").collect();
    let format = args.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    format || args.iter().any(|arg| arg == "--json" || arg == "--format=json")
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(misuse) if misuse.use_stderr() && asks_for_json(std::env::args_os()) => {
            out::misused(&misuse);
            return ExitCode::from(2);
        }
        // It exits with 2 when it does not understand the arguments.
        Err(shown) => shown.exit(),
    };
    let is_json = command.is_json();
    let outcome = match command {
        Command::Bench(args) => bench::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Repair(args) => check::repair(&args),
        Command::Torture(args) => torture::run(&args),
        Command::Report(args) => page::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Child(args) => bench::child::run(&args),
    };
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::FoundWrong) => ExitCode::from(1),
        Err(Failure::ClosedPipe) => ExitCode::from(141),
        Err(e) => {
            out::complain(is_json, &e.to_string());
            ExitCode::from(2)
        }
    }
}
