//! A replicated key-value store of many raft groups, and its tormentor: the program. What it is made of, and
//! what it says, stands in `lib.rs`.

#![allow(missing_docs, reason = "a program")]

use clap::{Parser, Subcommand, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use raftwood::raft_rs::decode_conf_state;
use raftwood_kv::chaos::{Chaos, Harms};
use raftwood_kv::clocks::Trust;
use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::history::Op;
use raftwood_kv::janitor::Temporary;
use raftwood_kv::lease::Timing;
use raftwood_kv::load::{Load, StopOnDrop};
use raftwood_kv::peers::is_joint;
use raftwood_kv::region::{KEYS, Span, Standing};
use raftwood_kv::skew::{ClockFaults, Skew};
use raftwood_kv::verdict::{Evidence, Verdict};
use raftwood_kv::wire::{Dump, Reply, Request, Result};
use raftwood_kv::{janitor, node, relay, verdict};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A replicated key-value store of many raft groups, and its tormentor.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: Args,
}

#[derive(Subcommand)]
enum Command {
    /// One node; started by the program itself.
    #[command(hide = true)]
    Node(node::Args),
    /// Cleans up; started by the program itself.
    #[command(hide = true)]
    Janitor(janitor::Args),
}

#[derive(clap::Args)]
struct Args {
    /// How long it goes on.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// Raft groups, each with a replica on every node.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u64).range(1..))]
    groups: u64,
    /// Nodes killed with SIGKILL, spread over the time; it takes longer where that is too short.
    #[arg(long, default_value_t = 22)]
    kills: u64,
    /// How often bits flip in the log of a killed node, in a few groups each time, before it comes back.
    #[arg(long, default_value_t = 4)]
    rots: u64,
    /// How often a killed node loses the end of its log, and with it the votes of all its replicas.
    #[arg(long, default_value_t = 0)]
    lost_votes: u64,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u64).range(1..))]
    clients: u64,
    #[command(flatten)]
    timing: Timing,
    /// What becomes of the nodes' clocks. Beyond what the lease allows for, reads must be seen to be stale
    #[arg(long, value_enum, default_value_t)]
    clock_faults: ClockFaults,
    /// The clocks that the nodes go by. With one alone, reads must be seen to be stale
    #[arg(long, value_enum, default_value_t)]
    trust: Trust,
    /// All choices come from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the nodes keep their stores, an empty directory or a new one [default: a temporary one,
    /// removed at the end if all is well]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Instead of all that: two nodes in one zone and the leaders in another, with follower replication and
    /// without. Counts what goes over the boundary. Of the other arguments only the clocks, `--seconds`,
    /// `--dir` and `--json` count.
    #[arg(long)]
    relay: bool,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Node(args)) => node::run(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Janitor(args)) => janitor::run(&args).map(|()| ExitCode::SUCCESS),
        None => run(&cli.args),
    };
    outcome.unwrap_or_else(|e| {
        eprintln!("kv: {e}");
        ExitCode::from(2)
    })
}

/// Finds a place for the stores, and leaves them there if there is something to look into.
fn run(args: &Args) -> Result<ExitCode> {
    args.timing.check()?;
    let temporary = match &args.dir {
        None => Some(Temporary::new()?),
        Some(_) => None,
    };
    let dir = match (&args.dir, &temporary) {
        (None, Some(temporary)) => temporary.path(),
        (dir, _) => dir.as_deref().unwrap_or(Path::new(".")),
    }
    .to_path_buf();
    let named = |e| format!("{}: {e}", dir.display());
    std::fs::create_dir_all(&dir).map_err(named)?;
    if std::fs::read_dir(&dir).map_err(named)?.next().is_some() {
        return Err(format!("{} is not empty: what it holds would be taken for lost", dir.display()).into());
    }
    if args.relay {
        let time = Duration::from_secs(args.seconds);
        let zones = relay::run(&std::env::current_exe()?, &dir, args.timing, time)?;
        match args.json {
            true => println!("{}", serde_json::to_string(&zones)?),
            false => zones.print(),
        }
        return Ok(ExitCode::from(zones.code()));
    }
    let cluster = Cluster::start(std::env::current_exe()?, &dir, args.groups, args.timing, args.trust)?;
    let verdict = torment(args, cluster);
    let code = match &verdict {
        Ok(verdict) => {
            match args.json {
                true => println!("{}", serde_json::to_string(verdict)?),
                false => verdict.print(),
            }
            verdict.code()
        }
        // It ran, so this is no fault of the caller's.
        Err(e) => {
            eprintln!("kv: {e}");
            1
        }
    };
    if code == 1 {
        temporary.map(Temporary::keep).transpose()?;
        eprintln!("kv: the stores are kept in {}", dir.display());
    }
    Ok(ExitCode::from(code))
}

fn torment(args: &Args, mut cluster: Cluster) -> Result<Verdict> {
    let began = Instant::now();
    let load = Load::new(cluster.addrs.clone(), args.groups, args.seed);
    let bar = ProgressBar::new(args.seconds);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_bar} {pos} of {len} s, {msg}") {
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    let time = Duration::from_secs(args.seconds);
    let skew = Skew::new(args.clock_faults, args.timing, args.trust);
    let harms = Harms { kills: args.kills, rots: args.rots, lost_votes: args.lost_votes };
    let mut chaos = Chaos::new(args.seed, time, harms, args.groups, args.timing, skew);
    let ops = std::thread::scope(|scope| -> Result<Vec<Op>> {
        let load = &*load;
        let clients: Vec<_> = (0..args.clients).map(|n| scope.spawn(move || load.client(n))).collect();
        let stop = StopOnDrop(load);
        chaos.run(&mut cluster, load, &bar)?;
        drop(stop);
        clients.into_iter().map(|c| c.join().map_err(|_| "a client panicked".into())).try_fold(
            std::mem::take(&mut chaos.ops),
            |mut all, ops: Result<Vec<Op>>| {
                all.extend(ops?);
                Ok(all)
            },
        )
    })?;
    let dumps = settle(&mut cluster, args.groups)?;
    bar.set_message("was anything lost or stale?");
    let verdict = verdict::reach(&Evidence {
        cluster: &cluster,
        chaos: &chaos,
        ops: &ops,
        dumps: &dumps,
        seconds: began.elapsed().as_secs_f64(),
        reads_covered_by_lease: load.covered.load(Ordering::Relaxed),
        wanted: harms,
    });
    bar.finish_and_clear();
    verdict
}

/// Waits until all nodes have the same groups, which own every key once, and all replicas of every group have
/// applied the same. Returns what they hold: by group, then by node.
fn settle(cluster: &mut Cluster, groups: u64) -> Result<BTreeMap<u64, Vec<Dump>>> {
    let until = Instant::now() + Duration::from_secs(120);
    let patience = Duration::from_secs(5);
    let mut settled: BTreeMap<u64, Vec<Dump>> = BTreeMap::new();
    loop {
        cluster.check()?;
        let spans: Vec<_> = (1..=NODES)
            .filter_map(|id| match cluster.ask(id, &Request::Stats, patience) {
                Ok(Reply::Stats(stats)) => Some(stats.spans),
                _ => None,
            })
            .collect();
        let agreed = spans.first().filter(|s| spans.len() == NODES as usize && spans.iter().all(|o| o == *s));
        let owned = agreed.filter(|spans| own_all(spans, groups));
        for &(group, _) in owned.into_iter().flatten() {
            if settled.contains_key(&group) {
                continue;
            }
            let dumps: Vec<Dump> = (1..=NODES)
                .filter_map(|id| match cluster.ask(id, &Request::Dump { group }, patience) {
                    Ok(Reply::Dump(dump)) => Some(dump),
                    _ => None,
                })
                .collect();
            if dumps.len() == NODES as usize
                && dumps.iter().all(|d| d.applied == dumps[0].applied && !is_half_done(d))
            {
                settled.insert(group, dumps);
            }
        }
        if owned.is_some_and(|spans| spans.len() == settled.len()) {
            return Ok(settled);
        }
        if Instant::now() > until {
            return Err(format!("not settled: {} groups have, of {spans:?}", settled.len()).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether its configuration is on its way from one to another.
fn is_half_done(dump: &Dump) -> bool {
    decode_conf_state(&dump.conf_state).is_ok_and(|(_, state)| is_joint(&state))
}

/// Whether these own each key of that many first groups, once.
fn own_all(spans: &[(u64, Span)], groups: u64) -> bool {
    let mut ranges: Vec<_> = spans.iter().map(|(_, s)| (s.start, s.end)).collect();
    ranges.sort_unstable();
    let ends = ranges.iter().map(|r| r.1);
    let starts = ranges.iter().map(|r| r.0).chain([groups * KEYS]);
    std::iter::once(0).chain(ends).eq(starts) && spans.iter().all(|(_, s)| s.standing == Standing::Serving)
}
