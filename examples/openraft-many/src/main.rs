//! A thousand openraft groups on three nodes in one process, with one engine a node.
//!
//! `cargo run --release --example openraft_many -- --groups 1000 --seconds 10`
//!
//! Exit codes: 0 all is well, 1 an acknowledged write is missing or replicas differ, 2 it could not run.

use clap::Parser;
use raftwood_openraft_many::{Report, Size, run};
use std::process::ExitCode;

/// A thousand openraft groups on one engine a node, written to while nodes stop and start again.
#[derive(Parser)]
#[command(name = "openraft_many", max_term_width = 110)]
struct Args {
    /// Raft groups, each with a replica on each of three nodes.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    groups: u64,
    /// How long is written; a node is away for a third of it.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The figures as JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Args { groups, seconds, json } = Args::parse();
    let say = |line: &str| {
        if !json {
            println!("{line}");
        }
    };
    let report = match run(Size { groups, seconds }, say) {
        Ok(report) => report,
        Err(e) => {
            eprintln!("openraft_many: {e}");
            return ExitCode::from(2);
        }
    };
    match json {
        true => println!("{}", serde_json::json!(report)),
        false => print(&report),
    }
    ExitCode::from(u8::from(report.lost + report.differ > 0))
}

fn print(r: &Report) {
    println!(
        "\n{} writes to {} of {} groups by {} writers were acknowledged, {} a second; {} were not answered",
        r.writes, r.groups_written, r.groups, r.writers, r.writes_per_second, r.unanswered
    );
    let [all, away, back] = r.writes_per_second_by_phase;
    println!("writes a second with all nodes: {all}, with one away: {away}, from its return on: {back}");
    println!(
        "{} entries with {} syncs on 3 nodes, {:.1} a sync; {} requests over {} connections",
        r.entries, r.syncs, r.entries_per_sync, r.requests, r.connections
    );
    println!(
        "node 1 came back to {} groups in {:.0} ms, of which its engine opened in {:.1} ms",
        r.groups,
        r.restart.open_ms + r.restart.groups_ms as f64,
        r.restart.open_ms
    );
    println!("lost: {}, groups whose replicas differ: {}", r.lost, r.differ);
}
