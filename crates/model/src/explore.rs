//! Runs the checker over a configuration.

use crate::state::{Action, Config, Log, State};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::time::{Duration, Instant};

/// What came of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// The configuration's name.
    pub name: &'static str,
    /// States that differ.
    pub states: usize,
    /// Steps of the longest path.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Promises that were found broken, each with a path there.
    pub broken: Vec<(&'static str, Steps)>,
    /// What happened on the way, of what ought to be reached.
    pub reached: Vec<&'static str>,
}

/// The way to a state: each state, and what was done next.
pub type Steps = Vec<(State, Option<Action>)>;

impl Explored {
    /// One line.
    pub fn line(&self) -> String {
        let seconds = self.elapsed.as_secs_f64();
        format!("{:<26} {:>9} states, depth {:>3}, {seconds:>6.1} s", self.name, self.states, self.depth)
    }

    /// What broke, and how to get there.
    pub fn story(&self) -> String {
        let mut story = String::new();
        for (what, path) in &self.broken {
            let wrong = path.last().map(|(state, _)| state.world.ghost.wrong);
            story += &format!("  broken: {what}: {wrong:?}\n");
            for (_, action) in path {
                story += &action.map_or(String::new(), |action| format!("    {action:?}\n"));
            }
        }
        story
    }
}

/// Explores everything within the configuration's bounds, breadth first, or up to the first broken promise:
/// then the path there is a shortest one.
pub fn explore(config: Config, threads: usize) -> Explored {
    let (name, began) = (config.name, Instant::now());
    let builder = Log::new(config).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    report(name, began, &builder.spawn_bfs().join())
}

/// The same depth first, which needs less memory.
pub fn explore_depth_first(config: Config, threads: usize) -> Explored {
    let (name, began) = (config.name, Instant::now());
    let builder = Log::new(config).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    report(name, began, &builder.spawn_dfs().join())
}

fn report(name: &'static str, began: Instant, checker: &impl Checker<Log>) -> Explored {
    let (mut broken, mut reached) = (Vec::new(), Vec::new());
    let expected = checker.model().properties();
    for (what, path) in checker.discoveries() {
        match expected.iter().find(|property| property.name == what).map(|property| &property.expectation) {
            Some(Expectation::Sometimes) => reached.push(what),
            _ => broken.push((what, path.into_vec())),
        }
    }
    Explored {
        name,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        elapsed: began.elapsed(),
        broken,
        reached,
    }
}
