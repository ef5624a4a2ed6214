//! Takes a store of raft-engine's, or TiKV's raftdb, into Raftwood, and one to raft-engine back.
//!
//! Exit codes: 0 it is done, 1 something was found wrong, 2 it could not run.

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood_migrate::{Failure, Layout, Progress, Report, RocksDir, export, import, import_raftdb};
use std::path::PathBuf;
use std::process::ExitCode;

/// Take a store of raft-engine's or RocksDB's into Raftwood, or one to raft-engine back. The program that
/// uses it must not run. The source is not changed; the destination appears when it is whole and verified. A
/// run that was killed is run again.
#[derive(Parser)]
#[command(name = "raftwood-migrate", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a store of Raftwood's.
    Import {
        /// What the source is of: raft-engine, or RocksDB as TiKV keeps its raftdb in it.
        #[arg(long)]
        from: Source,
        /// The `spill-dir` of a source of raft-engine's, if it has one.
        #[arg(long)]
        spill_dir: Option<PathBuf>,
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
    },
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

fn main() -> ExitCode {
    let bar = ProgressBar::new(0);
    let style = "{msg:10} {wide_bar} {human_pos}/{human_len} entries, {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let mut watch = |progress: Progress| {
        bar.set_message(if progress.is_verifying { "verifying" } else { "copying" });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let (src, dst, outcome) = match Cli::parse().command {
        Command::Import { from, spill_dir, kv_dir, wal_dir, kv_wal_dir, layout, src, dst } => {
            let layout = match layout {
                LayoutName::RaftEngine => Layout::RaftEngine,
                LayoutName::RaftRs => Layout::RaftRs,
            };
            let outcome = match from {
                Source::RaftEngine if kv_dir.is_some() || wal_dir.is_some() => {
                    Err(Failure::CannotRun("--kv-dir and --wal-dir are for --from rocksdb".to_owned()))
                }
                Source::Rocksdb if spill_dir.is_some() => {
                    Err(Failure::CannotRun("--spill-dir is for --from raft-engine".to_owned()))
                }
                Source::RaftEngine => import(&src, spill_dir.as_deref(), &dst, layout, &mut watch),
                Source::Rocksdb => {
                    let raftdb = RocksDir { dir: &src, wal_dir: wal_dir.as_deref() };
                    let kv = kv_dir.as_deref().map(|dir| RocksDir { dir, wal_dir: kv_wal_dir.as_deref() });
                    import_raftdb(raftdb, kv, &dst, layout, &mut watch)
                }
            };
            (src, dst, outcome)
        }
        Command::Export { to: Target::RaftEngine, src, dst } => {
            let outcome = export(&src, &dst, &mut watch);
            (src, dst, outcome)
        }
    };
    bar.finish_and_clear();
    match outcome {
        Ok(Report { regions, entries, pairs }) => {
            println!(
                "{regions} regions, {entries} entries, {pairs} key-values copied and verified: {}",
                dst.display()
            );
            println!(
                "Only one of the two stores may ever be used again: a replica that starts from the other has forgotten \
                 what it acknowledged meanwhile. Move {} out of the way before you start the program on {}.",
                src.display(),
                dst.display()
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("raftwood-migrate: {failure}");
            ExitCode::from(match failure {
                Failure::Wrong(_) => 1,
                Failure::CannotRun(_) => 2,
            })
        }
    }
}
