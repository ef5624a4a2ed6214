//! Takes a store of raft-engine's, or TiKV's raftdb, into Raftwood, and one to raft-engine back.
//!
//! Exit codes: 0 it is done, 1 something was found wrong, 2 it could not run, 141 (128 and the number of
//! SIGPIPE) it is done, and nobody read what it printed of that.
//!
//! With `--json` the report is an object with the version of its schema, and so is an error, on standard
//! error: `{"schema":1,"kind":"error","error":"..."}`.

mod out;

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood_migrate::{
    Failure, Layout, Progress, RaftEngineDir, Report, RocksDir, export, import, import_raftdb,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Take a store of raft-engine's or RocksDB's into Raftwood, or one to raft-engine back. The program that
/// uses it must not run. The source is not changed; the destination appears when it is whole and verified. A
/// run that was killed is run again.
#[derive(Parser)]
#[command(name = "raftwood-migrate", version, about, max_term_width = 110)]
struct Cli {
    /// The report, or the error, as one JSON object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a store of Raftwood's.
    Import(ImportArgs),
    /// Make a store for another engine of one of Raftwood's that was written through raftwood-raft-engine.
    Export {
        /// What to make.
        #[arg(long)]
        to: Target,
        /// The directory of the source.
        src: PathBuf,
        /// The directory to make; it must not exist.
        dst: PathBuf,
    },
}

#[derive(clap::Args)]
struct ImportArgs {
    /// What the source is of: raft-engine, or RocksDB as TiKV keeps its raftdb in it.
    #[arg(long)]
    from: Source,
    /// The `spill-dir` of a source of raft-engine's, if it has one.
    #[arg(long)]
    spill_dir: Option<PathBuf>,
    /// Take a source of raft-engine's over without what follows the first record that cannot be read at
    /// the end of its log. A program that was killed leaves such an end, and then nothing is missing
    /// that it had synced; a disk that lost or changed bytes leaves one too, and then records may be
    /// missing that were acknowledged. Without this such a source is refused, and the message says where
    /// its log ends.
    #[arg(long)]
    accept_torn_tail: bool,
    /// The kv store beside a raftdb, whose apply states, region states and StoreIdent are to be taken
    /// over too.
    #[arg(long)]
    kv_dir: Option<PathBuf>,
    /// Where the write-ahead log of a raftdb is, if not in its directory.
    #[arg(long)]
    wal_dir: Option<PathBuf>,
    /// Where that of the kv store is, if not in its directory.
    #[arg(long, requires = "kv_dir")]
    kv_wal_dir: Option<PathBuf>,
    /// What the program that goes on with it uses: raftwood-raft-engine, or raftwood::raft_rs.
    #[arg(long, value_enum, default_value = "raft-engine")]
    layout: LayoutName,
    /// The directory of the source.
    src: PathBuf,
    /// The directory to make; it must not exist.
    dst: PathBuf,
}

/// The engines that stores come from.
#[derive(Clone, Copy, ValueEnum)]
enum Source {
    RaftEngine,
    Rocksdb,
}

/// The engines that stores go to.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    RaftEngine,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutName {
    RaftEngine,
    RaftRs,
}

impl From<LayoutName> for Layout {
    fn from(name: LayoutName) -> Layout {
        match name {
            LayoutName::RaftEngine => Layout::RaftEngine,
            LayoutName::RaftRs => Layout::RaftRs,
        }
    }
}

impl Command {
    fn run(&self, watch: &mut dyn FnMut(Progress)) -> Result<Report, Failure> {
        match self {
            Command::Import(args) => args.run(watch),
            Command::Export { to: Target::RaftEngine, src, dst } => export(src, dst, watch),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Command::Import(_) => "import",
            Command::Export { .. } => "export",
        }
    }

    /// Source and destination.
    fn dirs(&self) -> (&Path, &Path) {
        match self {
            Command::Import(ImportArgs { src, dst, .. }) | Command::Export { src, dst, .. } => (src, dst),
        }
    }
}

impl ImportArgs {
    fn run(&self, watch: &mut dyn FnMut(Progress)) -> Result<Report, Failure> {
        let layout = self.layout.into();
        match self.from {
            Source::RaftEngine if self.kv_dir.is_some() || self.wal_dir.is_some() => {
                Err(Failure::CannotRun("--kv-dir and --wal-dir are for --from rocksdb".to_owned()))
            }
            Source::Rocksdb if self.spill_dir.is_some() || self.accept_torn_tail => Err(Failure::CannotRun(
                "--spill-dir and --accept-torn-tail are for --from raft-engine".to_owned(),
            )),
            Source::RaftEngine => {
                let from = RaftEngineDir {
                    dir: &self.src,
                    spill_dir: self.spill_dir.as_deref(),
                    accepts_torn_tail: self.accept_torn_tail,
                };
                import(from, &self.dst, layout, watch)
            }
            Source::Rocksdb => {
                let raftdb = RocksDir { dir: &self.src, wal_dir: self.wal_dir.as_deref() };
                let wal_dir = self.kv_wal_dir.as_deref();
                let kv = self.kv_dir.as_deref().map(|dir| RocksDir { dir, wal_dir });
                import_raftdb(raftdb, kv, &self.dst, layout, watch)
            }
        }
    }
}

/// Draws on a terminal only, and never with `--json`.
fn progress_bar(is_json: bool) -> ProgressBar {
    if is_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = "{msg:10} {wide_bar} {human_pos}/{human_len} entries, {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

fn main() -> ExitCode {
    let Cli { json, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(misuse) if misuse.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            out::misused(&misuse);
            return ExitCode::from(2);
        }
        Err(shown) => shown.exit(),
    };
    let bar = progress_bar(json);
    let outcome = command.run(&mut |progress| {
        bar.set_message(if progress.is_verifying { "verifying" } else { "copying" });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let failure = match outcome {
        Ok(report) => match out::done(json, command.name(), command.dirs(), &report) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return ExitCode::from(141),
            Err(e) => Failure::CannotRun(format!(
                "{} was made and verified, and the report of it cannot be written: {e}",
                command.dirs().1.display()
            )),
        },
        Err(failure) => failure,
    };
    out::failed(json, &failure);
    ExitCode::from(match failure {
        Failure::Wrong(_) => 1,
        Failure::CannotRun(_) => 2,
    })
}
