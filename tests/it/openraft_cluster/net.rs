//! A network between nodes of one process: calls that are lost where either end is cut off, or is not the
//! process any more that it was when the call began.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// The running nodes, each with the number of its incarnation, and those that are cut off.
pub(crate) struct Net<Raft>(Arc<Mutex<State<Raft>>>);

struct State<Raft> {
    running: BTreeMap<u64, (u32, Raft)>,
    isolated: BTreeSet<u64>,
}

impl<Raft> Clone for Net<Raft> {
    fn clone(&self) -> Self {
        Net(self.0.clone())
    }
}

impl<Raft> Default for Net<Raft> {
    fn default() -> Self {
        Net(Arc::new(Mutex::new(State { running: BTreeMap::new(), isolated: BTreeSet::new() })))
    }
}

impl<Raft: Clone> Net<Raft> {
    fn state(&self) -> MutexGuard<'_, State<Raft>> {
        self.0.lock().unwrap()
    }

    pub(crate) fn join(&self, id: u64, incarnation: u32, raft: Raft) {
        self.state().running.insert(id, (incarnation, raft));
    }

    /// From here on nothing that the process says counts, what it is saying now included.
    pub(crate) fn leave(&self, id: u64) {
        self.state().running.remove(&id);
    }

    pub(crate) fn isolate(&self, id: u64) {
        self.state().isolated.insert(id);
    }

    pub(crate) fn reconnect_all(&self) {
        self.state().isolated.clear();
    }

    pub(crate) fn runs(&self, (id, incarnation): (u64, u32)) -> bool {
        self.state().running.get(&id).is_some_and(|(running, _)| *running == incarnation)
    }

    /// Calls `target`. `None` if the question or the answer is lost.
    pub(crate) async fn call<T, W>(
        &self,
        from: (u64, u32),
        target: u64,
        ask: impl FnOnce(Raft) -> W,
    ) -> Option<T>
    where
        W: Future<Output = T>,
    {
        let (incarnation, raft) = self.peer(from, target)?;
        let answer = ask(raft).await;
        self.peer(from, target).filter(|(now, _)| *now == incarnation).map(|_| answer)
    }

    fn peer(&self, from: (u64, u32), target: u64) -> Option<(u32, Raft)> {
        let state = self.state();
        let reached = !state.isolated.contains(&from.0) && !state.isolated.contains(&target);
        let from_runs = state.running.get(&from.0).is_some_and(|(running, _)| *running == from.1);
        state.running.get(&target).filter(|_| reached && from_runs).cloned()
    }
}
