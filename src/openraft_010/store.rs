//! `RaftLogStorage` and `RaftLogReader` of openraft 0.10 for one region.

use super::term::LeaderTerm;
use crate::commit::Ticket;
use crate::engine::Engine;
use crate::engine::region::Region;
use crate::error::{Error, Result};
use crate::openraft_shared::{Format, Postcard, RegionLog, io_error};
use crate::types::{Durability, EntryId, Lsn, RegionId};
use openraft010::entry::RaftEntry;
use openraft010::storage::{IOFlushed, RaftLogStorage};
use openraft010::type_config::alias::{CommittedLeaderIdOf, LogIdOf, VoteOf};
use openraft010::{LogState, OptionalSend, RaftLogReader, RaftTypeConfig};
use std::fmt::{self, Debug};
use std::io;
use std::marker::PhantomData;
use std::ops::RangeBounds;

/// The log, vote and committed id of one Raft group, in one region of an engine.
///
/// It is the region's only writer: make one for each group, and one only. What is wanted for reading is a
/// [reader](RaftLogStorage::get_log_reader).
pub struct LogStore<C, F = Postcard> {
    log: RegionLog<F>,
    types: PhantomData<fn() -> C>,
}

impl<C, F> Debug for LogStore<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig> LogStore<C> {
    /// The log of `region`, in the format [`Postcard`].
    pub fn new(engine: &Engine, region: RegionId) -> LogStore<C> {
        LogStore::with_format(engine, region)
    }
}

impl<C: RaftTypeConfig, F: 'static> LogStore<C, F> {
    /// The log of `region` in a format of your own: `LogStore::<TypeConfig, MyFormat>::with_format(&engine, region)`.
    pub fn with_format(engine: &Engine, region: RegionId) -> LogStore<C, F> {
        LogStore { log: RegionLog::new(engine, region), types: PhantomData }
    }

    /// How many bytes of entries are sent to a follower at once, at least one entry
    /// ([`limited_get_log_entries`](RaftLogReader::limited_get_log_entries)). Default 4 MiB.
    pub fn read_bytes(mut self, bytes: u64) -> LogStore<C, F> {
        self.log.set_read_bytes(bytes);
        self
    }

    /// The region.
    pub fn region(&self) -> &Region {
        self.log.region()
    }
}

/// Reads one group's log, beside whoever writes it. Cheap to clone; each call answers as of now.
pub struct LogReader<C, F = Postcard> {
    log: RegionLog<F>,
    types: PhantomData<fn() -> C>,
}

impl<C, F> Clone for LogReader<C, F> {
    fn clone(&self) -> Self {
        LogReader { log: self.log.clone(), types: PhantomData }
    }
}

impl<C, F> Debug for LogReader<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl<C, F> RaftLogReader<C> for LogReader<C, F>
where
    C: RaftTypeConfig,
    CommittedLeaderIdOf<C>: LeaderTerm,
    F: Format<C::Entry> + Format<VoteOf<C>>,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<C::Entry>> {
        self.log.read(range, entry_id::<C>).await.map_err(io_error)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        self.log.vote().map_err(io_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        self.log.read_limited(start, end, entry_id::<C>).await.map_err(io_error)
    }
}

impl<C, F> RaftLogStorage<C> for LogStore<C, F>
where
    C: RaftTypeConfig,
    CommittedLeaderIdOf<C>: LeaderTerm,
    F: Format<C::Entry> + Format<VoteOf<C>> + Format<LogIdOf<C>>,
{
    type LogReader = LogReader<C, F>;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let ends = self.log.ends(entry_id::<C>, log_id_of::<C>).await;
        let (last_purged_log_id, last) = ends.map_err(io_error)?;
        let last_log_id = match last {
            Some(entry) => {
                let (leader, index) = entry.log_id_parts();
                Some(LogIdOf::<C>::new(leader.clone(), index))
            }
            None => last_purged_log_id.clone(),
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader<C, F> {
        LogReader { log: self.log.clone(), types: PhantomData }
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        self.log.save_vote(vote).await.map_err(io_error)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        self.log.save_committed(committed.as_ref()).await.map_err(io_error)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        self.log.committed().map_err(io_error)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let batch = self.log.append(entries.into_iter(), entry_id::<C>, log_id_of::<C>).map_err(io_error)?;
        let durable = |outcome: Result<Lsn>| callback.io_completed(outcome.map(drop).map_err(io_error));
        let accepted = |ticket: Ticket| ticket.on_complete(durable);
        self.log.submit(batch, Durability::Synced, accepted).await.map_err(io_error)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        let first = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        self.log.truncate(first, log_id_of::<C>).await.map_err(io_error)
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        self.log.purge(&log_id, log_id_of::<C>).await.map_err(io_error)
    }
}

fn id_of<L: LeaderTerm + fmt::Display>(leader: &L, index: u64) -> Result<EntryId> {
    match leader.leader_term() {
        Some(term) => Ok(EntryId::new(term, index)),
        None => Err(Error::invalid(format!("entry {index} of leader {leader}: the term is no u64"))),
    }
}

fn log_id_of<C: RaftTypeConfig>(log_id: &LogIdOf<C>) -> Result<EntryId>
where
    CommittedLeaderIdOf<C>: LeaderTerm,
{
    id_of(log_id.committed_leader_id(), log_id.index)
}

fn entry_id<C: RaftTypeConfig>(entry: &C::Entry) -> Result<EntryId>
where
    CommittedLeaderIdOf<C>: LeaderTerm,
{
    let (leader, index) = entry.log_id_parts();
    id_of(leader, index)
}
