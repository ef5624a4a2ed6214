//! Explores the configurations.

use raftwood_model::configs::configs;
use raftwood_model::explore::explore;
use raftwood_model::mistakes::{MISTAKES, Mistake};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let pick = args.first().cloned().unwrap_or_default();
    let name = args.get(1).cloned().unwrap_or_default();
    let mistake = MISTAKES.iter().find(|m| m.name == name).map_or(Mistake::None, |m| m.mistake);
    for mut config in configs() {
        if !pick.is_empty() && pick != "all" && pick != config.name {
            continue;
        }
        config.bounds.mistake = mistake;
        if std::env::var("CHANGED").is_ok_and(|c| !c.is_empty()) {
            config.bounds.changes = raftwood_model::run::Changes {
                mark_synced_at_open: true,
                copy_marked_twice: true,
                unfinished_copy_is_no_gap: true,
            };
        }
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
