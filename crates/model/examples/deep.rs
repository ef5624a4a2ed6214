//! Explores the configurations.

use raftwood_model::configs::{configs, findings};
use raftwood_model::explore::explore;
use raftwood_model::mistakes::{MISTAKES, Mistake};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let pick = args.first().cloned().unwrap_or_default();
    let name = args.get(1).cloned().unwrap_or_default();
    let mistake = MISTAKES.iter().find(|m| m.name == name).map_or(Mistake::None, |m| m.mistake);
    let all: Vec<_> = match pick.as_str() {
        "findings" => findings().into_iter().map(|f| f.config).collect(),
        _ => configs(),
    };
    for mut config in all {
        if !pick.is_empty() && pick != "all" && pick != config.name && pick != "findings" {
            continue;
        }
        config.bounds.mistake = mistake;
        let explored = explore(config, 2);
        println!("{}", explored.line());
        for (what, path) in &explored.broken {
            println!("  BROKEN: {what}");
            for (_, action) in path {
                println!("    {action:?}");
            }
            if let Some((state, _)) = path.last() {
                println!("    {:?}", state.world.ghost.wrong);
                if args.len() > 2 {
                    println!("{:#?}", state);
                }
            }
        }
    }
}
