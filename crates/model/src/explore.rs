//! Runs the checker over a configuration.

use crate::state::{Action, Config, Log, Seen, State};
use stateright::{Checker, HasDiscoveries, Model};
use std::sync::Arc;
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
    pub broken: Vec<(&'static str, Vec<(State, Option<Action>)>)>,
    /// What happened on the way.
    pub seen: Arc<Seen>,
}

impl Explored {
    /// One line.
    pub fn line(&self) -> String {
        let per_second = self.states as f64 / self.elapsed.as_secs_f64().max(0.001);
        format!(
            "{:<14} {:>9} states, depth {:>3}, {:>6.2} s ({:.0} states/s)",
            self.name,
            self.states,
            self.depth,
            self.elapsed.as_secs_f64(),
            per_second
        )
    }
}

/// Explores everything within the configuration's bounds, breadth first, or up to the first broken promise.
pub fn explore(config: Config, threads: usize) -> Explored {
    let (name, began) = (config.name, Instant::now());
    let model = Log::new(config);
    let seen = model.seen.clone();
    let checker =
        model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let broken = checker.discoveries();
    let broken = broken.into_iter().map(|(name, path)| (name, path.into_vec())).collect();
    Explored {
        name,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        elapsed: began.elapsed(),
        broken,
        seen,
    }
}
