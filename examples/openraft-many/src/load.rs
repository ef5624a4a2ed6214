//! Writers: some tens of tasks that write to all groups in turn.

use crate::machine::{GroupId, NodeId, Put};
use crate::wire::Network;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Tasks that write, one command each at a time.
pub(crate) const WRITERS: u64 = 64;

/// What was answered.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) acknowledged: HashMap<GroupId, Vec<Put>>,
    /// Writes that were refused or not answered. They may be there or not.
    pub(crate) unanswered: u64,
}

/// The writers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    /// Of each group.
    acknowledged: Arc<Vec<AtomicU64>>,
    writers: JoinSet<Answers>,
}

impl Load {
    pub(crate) fn begin(network: &Network, nodes: u64, groups: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..groups).map(|_| AtomicU64::new(0)).collect());
        // Where each group's leader was last, for all writers.
        let leaders: Arc<Vec<AtomicU64>> =
            Arc::new((0..groups).map(|g| AtomicU64::new(g % nodes + 1)).collect());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let view = View {
                network: network.clone(),
                leaders: leaders.clone(),
                nodes,
                acknowledged: acknowledged.clone(),
            };
            let stop = stop.clone();
            writers.spawn(async move { write(&view, writer, groups, &stop).await });
        }
        Load { stop, acknowledged, writers }
    }

    /// Writes that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|group| group.load(Ordering::Relaxed)).sum()
    }

    /// Whether each group has acknowledged a write.
    pub(crate) fn has_reached_all(&self) -> bool {
        self.acknowledged.iter().all(|group| group.load(Ordering::Relaxed) > 0)
    }

    /// Lets each writer finish what it has begun.
    pub(crate) async fn end(mut self) -> Result<Answers, tokio::task::JoinError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Answers::default();
        while let Some(answers) = self.writers.join_next().await {
            let answers = answers?;
            all.unanswered += answers.unanswered;
            for (group, puts) in answers.acknowledged {
                all.acknowledged.entry(group).or_default().extend(puts);
            }
        }
        Ok(all)
    }
}

struct View {
    network: Network,
    leaders: Arc<Vec<AtomicU64>>,
    nodes: u64,
    acknowledged: Arc<Vec<AtomicU64>>,
}

async fn write(view: &View, writer: u64, groups: u64, stop: &AtomicBool) -> Answers {
    let mut answers = Answers::default();
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let group = (writer + n * WRITERS) % groups + 1;
        let id = n * WRITERS + writer;
        let put = Put { id, value: format!("value {id} of writer {writer} for group {group}") };
        match view.put(group, put.clone()).await {
            true => answers.acknowledged.entry(group).or_default().push(put),
            false => {
                answers.unanswered += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    answers
}

impl View {
    /// Tries once, at the node that was the leader last. Whether it was acknowledged.
    async fn put(&self, group: GroupId, put: Put) -> bool {
        let hint = &self.leaders[(group - 1) as usize];
        let node: NodeId = hint.load(Ordering::Relaxed);
        let next = node % self.nodes + 1;
        let Some(raft) = self.network.group(node, group) else {
            hint.store(next, Ordering::Relaxed);
            return false;
        };
        let leader = match timeout(Duration::from_secs(2), raft.client_write(put)).await {
            Ok(Ok(_)) => {
                self.acknowledged[(group - 1) as usize].fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Ok(Err(e)) => e.forward_to_leader().and_then(|f| f.leader_id).unwrap_or(next),
            Err(_) => next,
        };
        hint.store(leader, Ordering::Relaxed);
        false
    }
}
