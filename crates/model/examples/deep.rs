//! The configurations with wider bounds than the tests have time for.
//!
//! `cargo run --release -p raftwood-model --example deep [CONFIGURATION]...`; `tests` as the tests explore
//! them, `findings` for what the engine does not keep, with the shortest way there.

use raftwood_model::configs::{configs, deep, findings};
use raftwood_model::explore::{explore, explore_depth_first};
use std::process::ExitCode;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let is_picked = |name: &str| names.is_empty() || names.iter().any(|picked| picked == name);
    let mut is_whole = true;
    let (mut states, mut seconds) = (0, 0.0);
    let of = |group: &str| names.iter().any(|name| name == group);
    let chosen: Vec<_> = match () {
        () if of("findings") => findings().into_iter().map(|finding| (finding.config, true)).collect(),
        () if of("tests") => configs().into_iter().map(|config| (config, true)).collect(),
        () => deep().into_iter().filter(|c| is_picked(c.name)).map(|config| (config, false)).collect(),
    };
    for (config, shortest) in chosen {
        let explored = if shortest { explore(config, threads) } else { explore_depth_first(config, threads) };
        println!("{}", explored.line());
        print!("{}", explored.story());
        is_whole &= explored.broken.is_empty();
        states += explored.states;
        seconds += explored.elapsed.as_secs_f64();
    }
    println!("{states} states in {seconds:.0} s");
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
