//! Which configuration finds which mistake.
use raftwood_model::configs::configs;
use raftwood_model::explore::explore;
use raftwood_model::mistakes::MISTAKES;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    for about in MISTAKES.iter().filter(|m| only.is_empty() || m.name == only) {
        let mut line = String::new();
        for mut config in configs() {
            config.bounds.mistake = about.mistake;
            let explored = explore(config, 2);
            if let Some((what, path)) = explored.broken.first() {
                let wrong = path.last().map(|l| l.0.world.ghost.wrong);
                line += &format!(
                    " {}({} states, {:?}, {})",
                    explored.name,
                    explored.states,
                    wrong.unwrap(),
                    &what[..4]
                );
            }
        }
        println!("{:<26}{}", about.name, if line.is_empty() { " -" } else { &line });
    }
}
