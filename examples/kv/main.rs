//! A replicated key-value store of many raft groups, and its tormentor.
//!
//! Three processes on this machine hold a replica of every group. Each has one Raftwood engine for all its logs, drives the groups with raft-rs,
//! and keeps its state machine in a database of its own. Under load, nodes are killed with SIGKILL and started again, cut off from the
//! others, made to hand over leadership and to leave and join the voters. In the end every acknowledged write must be there, on every node, once,
//! and what the clients saw must be what a single register could have shown them.
//!
//! `cargo run --release --example kv --features raft-rs-protobuf`
//!
//! Exit code 0: all is well; 1: something was lost or stale; 2: it could not run.
//!
//! | file | what |
//! |---|---|
//! | `node.rs` | a node: the loop that drives raft over the engine. Start reading here |
//! | `machine.rs` | the state machine, with its own applied index |
//! | `lease.rs` | the leader's lease, for reads without a round |
//! | `rollback.rs` | saves what a new leader makes a node discard |
//! | `net.rs`, `wire.rs` | sockets, and what goes over them |
//! | `cluster.rs`, `chaos.rs` | the processes, and what is done to them |
//! | `load.rs`, `history.rs` | clients, and the check of what they saw |

// Poisoned locks end an example; what is public here is public to its own files.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod chaos;
mod cluster;
mod history;
mod lease;
mod load;
mod machine;
mod net;
mod node;
mod rollback;
mod wire;

use chaos::Chaos;
use clap::{Parser, Subcommand};
use cluster::{Cluster, NODES};
use history::{Op, What};
use indicatif::{ProgressBar, ProgressStyle};
use load::Load;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use wire::{Dump, Reply, Request, Result, Via};

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
}

#[derive(clap::Args)]
struct Args {
    /// How long it goes on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Raft groups, each with a replica on every node.
    #[arg(long, default_value_t = 100)]
    groups: u64,
    /// Nodes killed with SIGKILL, spread over the time.
    #[arg(long, default_value_t = 22)]
    kills: u64,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 32)]
    clients: u64,
    /// All choices come from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the nodes keep their stores [default: a temporary directory, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Node(args)) => node::run(args).map(|()| true),
        None => torment(&cli.args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("kv: {e}");
            ExitCode::from(2)
        }
    }
}

/// What was done, and what came of it. The names are the JSON.
#[derive(Default, Serialize)]
struct Summary {
    seconds: f64,
    groups: u64,
    kills: u64,
    partitions: u64,
    leaders_moved: u64,
    configurations_changed: u64,
    writes_acknowledged: u64,
    writes_unknown: u64,
    reads_through_log: u64,
    reads_by_index: u64,
    reads_by_lease: u64,
    reads_covered_by_lease: u64,
    answers_after_the_lease: u64,
    replayed: u64,
    compactions: u64,
    snapshots_installed: u64,
    rolled_back: u64,
    rollbacks_refused: u64,
    replicas_that_differ: u64,
    twice: u64,
    lost: u64,
    stale: u64,
}

fn torment(args: &Args) -> Result<bool> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    let began = Instant::now();
    let mut cluster = Cluster::start(dir, args.groups)?;
    let load = Load::new(cluster.addrs.clone(), args.groups, args.seed);

    let (ops, chaos) = std::thread::scope(|scope| -> Result<_> {
        let load = &*load;
        let clients: Vec<_> = (0..args.clients).map(|n| scope.spawn(move || load.client(n))).collect();
        let mut chaos = Chaos::new(args.seed, Duration::from_secs(args.seconds), args.kills, args.groups);
        let bar = ProgressBar::new(args.seconds);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} s, {msg}") {
            bar.set_style(style);
        }
        let outcome = chaos.run(&mut cluster, load, &bar);
        bar.finish_and_clear();
        load.stop.store(true, Ordering::Relaxed);
        let ops: Vec<Op> = clients.into_iter().flat_map(|c| c.join().unwrap_or_default()).collect();
        outcome.map(|()| (ops, chaos))
    })?;

    let dumps = settle(&mut cluster, args.groups)?;
    let mut summary = Summary {
        seconds: began.elapsed().as_secs_f64(),
        groups: args.groups,
        kills: cluster.kills,
        replayed: cluster.replayed,
        partitions: chaos.partitions,
        leaders_moved: chaos.transfers,
        configurations_changed: chaos.changes,
        answers_after_the_lease: chaos.late_answers,
        rollbacks_refused: chaos.refused,
        compactions: chaos.compactions,
        snapshots_installed: chaos.snapshots_installed,
        reads_covered_by_lease: chaos.lease_reads,
        ..Summary::default()
    };
    check(&cluster, &ops, &dumps, &mut summary)?;
    match args.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => print(&summary),
    }
    let wrong = summary.lost
        + summary.stale
        + summary.twice
        + summary.replicas_that_differ
        + summary.answers_after_the_lease;
    Ok(wrong == 0)
}

/// Waits until all replicas of every group have applied the same, and returns what they hold: by group, then by node.
fn settle(cluster: &mut Cluster, groups: u64) -> Result<BTreeMap<u64, Vec<Dump>>> {
    let until = Instant::now() + Duration::from_secs(120);
    let mut settled = BTreeMap::new();
    loop {
        cluster.check()?;
        for group in 1..=groups {
            if settled.contains_key(&group) {
                continue;
            }
            let dumps: Vec<Dump> = (1..=NODES)
                .filter_map(|id| match cluster.ask(id, &Request::Dump { group }, Duration::from_secs(5)) {
                    Ok(Reply::Dump(dump)) => Some(dump),
                    _ => None,
                })
                .collect();
            if dumps.len() == NODES as usize && dumps.iter().all(|d| d.applied == dumps[0].applied) {
                settled.insert(group, dumps);
            }
        }
        if settled.len() as u64 == groups {
            return Ok(settled);
        }
        if Instant::now() > until {
            return Err(format!("{} groups have not settled", groups - settled.len() as u64).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn check(cluster: &Cluster, ops: &[Op], dumps: &BTreeMap<u64, Vec<Dump>>, s: &mut Summary) -> Result<()> {
    // What was rolled back, on any node, must never have been acknowledged.
    let mut rolled_back = BTreeSet::new();
    for id in 1..=NODES {
        let text = std::fs::read_to_string(cluster.dir_of(id).join("rolled-back"))?;
        rolled_back.extend(text.lines().filter_map(|l| l.split(' ').next_back()?.parse::<u64>().ok()));
    }
    s.rolled_back = rolled_back.len() as u64;
    // By group: the writes each replica holds.
    let held: BTreeMap<u64, Vec<BTreeSet<_>>> = dumps
        .iter()
        .map(|(&group, replicas)| {
            (group, replicas.iter().map(|d| d.writes.iter().copied().collect()).collect())
        })
        .collect();
    for replicas in dumps.values() {
        s.replicas_that_differ +=
            u64::from(replicas.iter().any(|d| d.hash != replicas[0].hash || d.writes != replicas[0].writes));
        let values: BTreeSet<u64> = replicas[0].writes.iter().map(|w| w.2).collect();
        s.twice += (replicas[0].writes.len() - values.len()) as u64;
    }
    for op in ops {
        match op.what {
            What::Write { value, version: Some(version) } => {
                s.writes_acknowledged += 1;
                let everywhere = held.get(&op.group).is_some_and(|replicas| {
                    replicas.iter().all(|writes| writes.contains(&(op.key, version, value)))
                });
                s.lost += u64::from(!everywhere || rolled_back.contains(&value));
            }
            What::Write { version: None, .. } => s.writes_unknown += 1,
            What::Read { via: Via::Log, .. } => s.reads_through_log += 1,
            What::Read { via: Via::Index, .. } => s.reads_by_index += 1,
            What::Read { via: Via::Lease, .. } => s.reads_by_lease += 1,
        }
    }
    let violations = history::violations(ops);
    for (group, key) in &violations {
        eprintln!("group {group}, key {key}: no order of its operations explains what was seen");
    }
    s.stale = violations.len() as u64;
    Ok(())
}

fn print(s: &Summary) {
    println!("{NODES} nodes, {} groups, {:.0} s", s.groups, s.seconds);
    for (what, n) in [
        ("nodes killed (SIGKILL)", s.kills),
        ("nodes cut off", s.partitions),
        ("leaders moved", s.leaders_moved),
        ("configurations changed", s.configurations_changed),
        ("writes acknowledged", s.writes_acknowledged),
        ("writes without an answer", s.writes_unknown),
        ("reads through the log", s.reads_through_log),
        ("reads by read index", s.reads_by_index),
        ("reads by lease", s.reads_by_lease),
        ("  covered by it, no round needed", s.reads_covered_by_lease),
        ("  answered after it was over", s.answers_after_the_lease),
        ("committed entries replayed", s.replayed),
        ("logs compacted", s.compactions),
        ("snapshots installed", s.snapshots_installed),
        ("writes rolled back, and saved", s.rolled_back),
        ("rollbacks refused by the listener", s.rollbacks_refused),
        ("groups whose replicas differ", s.replicas_that_differ),
        ("writes applied twice", s.twice),
    ] {
        println!("{what:<36} {n:>10}");
    }
    println!("{} lost, {} stale", s.lost, s.stale);
}
