//! Databend's raft-log under openraft, for which it was made: one log, one group. Entries are encoded by
//! postcard, as Raftwood's store does.

use super::group::Types;
use crate::log::Result;
use ::raft_log::api::raft_log_writer::RaftLogWriter;
use ::raft_log::{Callback, Config, RaftLog};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OneGroup;

impl ::raft_log::Types for OneGroup {
    /// Term and index.
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    /// The term, and the node with whether it is committed: ordered as votes of one node are.
    type Vote = (u64, u64);
    type Callback = Synced;
    type UserData = Vec<u8>;

    fn log_index(id: &(u64, u64)) -> u64 {
        id.1
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

/// Who waits for a sync.
enum Synced {
    Append(IOFlushed<Types>),
    Task(oneshot::Sender<io::Result<()>>),
}

impl Callback for Synced {
    fn send(self, result: io::Result<()>) {
        match self {
            Synced::Append(callback) => callback.io_completed(result),
            // A task that has gone waits for nothing.
            Synced::Task(task) => drop(task.send(result)),
        }
    }
}

#[derive(Clone)]
pub(super) struct RaftLogStore(Arc<Mutex<RaftLog<OneGroup>>>);

impl RaftLogStore {
    /// With the settings of its own, unless there is another wait before a sync: by default it waits a
    /// millisecond for more to come.
    pub(super) fn open(dir: &Path, batch_wait: Option<Duration>) -> Result<RaftLogStore> {
        std::fs::create_dir_all(dir)?;
        let mut config = Config::new(dir.display());
        config.wal.flush_batch_wait = batch_wait;
        Ok(RaftLogStore(Arc::new(Mutex::new(RaftLog::open(Arc::new(config))?))))
    }

    fn lock(&self) -> MutexGuard<'_, RaftLog<OneGroup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the log, and waits until it is synced.
    async fn synced<T>(
        &self,
        change: impl FnOnce(&mut RaftLog<OneGroup>) -> io::Result<T>,
    ) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        {
            let mut log = self.lock();
            change(&mut log)?;
            log.flush(true, Some(Synced::Task(done)))?;
        }
        wait.await.map_err(io::Error::other)?
    }
}

fn id(id: &LogIdOf<Types>) -> (u64, u64) {
    (**id.committed_leader_id(), id.index)
}

fn log_id((term, index): (u64, u64)) -> LogIdOf<Types> {
    LogIdOf::<Types>::new(CommittedLeaderId { term }, index)
}

impl RaftLogReader<Types> for RaftLogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        let from = match range.start_bound() {
            Bound::Included(n) => *n,
            Bound::Excluded(n) => n + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(n) => n + 1,
            Bound::Excluded(n) => *n,
            Bound::Unbounded => u64::MAX,
        };
        // Decoded outside of the lock: the writer does not wait for it.
        let read: io::Result<Vec<_>> = self.lock().read(from, to).collect();
        let decode = |(id, payload): ((u64, u64), Vec<u8>)| {
            let payload = postcard::from_bytes(&payload).map_err(io::Error::other)?;
            Ok(EntryOf::<Types> { log_id: log_id(id), payload })
        };
        read?.into_iter().map(decode).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        let vote = |&(term, node): &(u64, u64)| VoteOf::<Types> {
            committed: node & 1 == 1,
            ..VoteOf::<Types>::new(term, node >> 1)
        };
        Ok(self.lock().log_state().vote().map(vote))
    }
}

impl RaftLogStorage<Types> for RaftLogStore {
    type LogReader = RaftLogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let log = self.lock();
        let state = log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().copied().map(log_id),
            last_log_id: state.last().copied().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> RaftLogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let node = vote.leader_id.voted_for << 1 | u64::from(vote.committed);
        let vote = (vote.leader_id.term, node);
        self.synced(|log| log.save_vote(vote)).await
    }

    /// Without a sync, as its own documentation proposes.
    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let mut log = self.lock();
        log.commit(id(&committed))?;
        log.flush(false, None)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<Types>>> {
        Ok(self.lock().log_state().committed().copied().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: EntryOf<Types>| {
            let payload = postcard::to_stdvec(&entry.payload).map_err(io::Error::other)?;
            Ok((id(&entry.log_id), payload))
        };
        let entries: Vec<_> = entries.into_iter().map(encode).collect::<io::Result<_>>()?;
        let mut log = self.lock();
        log.append(entries)?;
        log.flush(true, Some(Synced::Append(callback)))
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.synced(|log| log.truncate(last.map_or(0, |id| id.index + 1))).await
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        self.synced(|log| log.purge(id(&upto))).await
    }
}
