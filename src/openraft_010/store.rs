//! `RaftLogStorage` and `RaftLogReader` of openraft 0.10 for one region.

use super::notify::Notify;
use super::term::LeaderTerm;
use crate::openraft_shared::{
    Format, Ids, OnAnyThread, OnThisThread, Postcard, RegionLog, Tenure, Turn, io_error,
};
use crate::planted::{Bug, planted};
use crate::{Engine, EntryId, Error, ErrorKind, Region, RegionId, Result, Ticket};
use openraft010::entry::RaftEntry;
use openraft010::storage::{IOFlushed, RaftLogStorage};
use openraft010::type_config::alias::{CommittedLeaderIdOf, LogIdOf, VoteOf};
use openraft010::vote::RaftVote;
use openraft010::{AsyncRuntime, LogState, OptionalSend, RaftLogReader, RaftTypeConfig};
use std::fmt::{self, Debug};
use std::io;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::time::Duration;

/// The log, vote and committed id of one Raft group, in one region of an engine.
///
/// It is the region's only writer. Another one of the same region and engine waits, when openraft first asks
/// it for something, until this one is dropped, which `Raft::shutdown` does, and is refused after
/// [a while](Self::writer_wait); or it [takes over](Self::take_over). What is wanted for reading is a
/// [reader](RaftLogStorage::get_log_reader), which waits for nobody.
pub struct LogStore<C, F = Postcard, N = OnAnyThread> {
    log: RegionLog<F>,
    /// Whose callback is next.
    turn: Turn,
    tenure: Tenure,
    types: PhantomData<fn() -> (C, N)>,
}

impl<C, F, N> Debug for LogStore<C, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}

#[cfg(feature = "postcard")]
#[cfg_attr(docsrs, doc(cfg(feature = "postcard")))]
impl<C: RaftTypeConfig> LogStore<C> {
    /// The log of `region`, in the format [`Postcard`].
    pub fn new(engine: &Engine, region: RegionId) -> LogStore<C> {
        LogStore::with_format(engine, region)
    }
}

impl<C: RaftTypeConfig, F: 'static> LogStore<C, F> {
    /// The log of `region` in a format of your own: `LogStore::<TypeConfig,
    /// MyFormat>::with_format(&engine, region)`.
    pub fn with_format(engine: &Engine, region: RegionId) -> LogStore<C, F> {
        let log = RegionLog::new(engine, region);
        LogStore { tenure: log.tenure(), log, turn: Turn::default(), types: PhantomData }
    }

    /// The same, calling back on the thread that openraft runs on: see [`OnThisThread`].
    pub fn on_this_thread(self) -> LogStore<C, F, OnThisThread> {
        LogStore { log: self.log, turn: self.turn, tenure: self.tenure, types: PhantomData }
    }
}

impl<C: RaftTypeConfig, F: 'static, N> LogStore<C, F, N> {
    /// How many bytes of entries are sent to a follower at once, at least one entry
    /// ([`limited_get_log_entries`](RaftLogReader::limited_get_log_entries)). Default 4 MiB.
    pub fn read_bytes(mut self, bytes: u64) -> LogStore<C, F, N> {
        self.log.set_read_bytes(bytes);
        self
    }

    /// How long this store waits for another one of the same region to be dropped, before what is asked of it
    /// is refused (`Locked`). Default 10 s.
    pub fn writer_wait(mut self, wait: Duration) -> LogStore<C, F, N> {
        self.log.set_writer_wait(wait);
        self
    }

    /// How long a write that is refused for a reason that passes is asked for again, before openraft is
    /// answered with the error, which ends the group. Default zero: it is answered at once.
    ///
    /// Such reasons are a listener that refuses a [rollback](crate::EventListener::before_rollback), and want
    /// of space (a full disk; for appends, a spent [disk budget](crate::Options::disk_budget)). Pauses
    /// grow from 10 ms to one second. Listeners are notified of the beginning and of the end
    /// ([`Event::Retrying`](crate::Event::Retrying), [`Event::RetryingEnded`](crate::Event::RetryingEnded)).
    ///
    /// openraft's task of the group awaits the write: meanwhile the node sends nothing and answers nothing
    /// for this group, the others elect a leader, and `Raft::shutdown` waits too. Closing or poisoning the
    /// engine, and a store that [takes over](Self::take_over), end it within 50 ms.
    pub fn retry_for(mut self, bound: Duration) -> LogStore<C, F, N> {
        self.log.set_retry_for(bound);
        self
    }

    /// Takes the region over from a store that still has it, for instance in a Raft that cannot be shut down:
    /// from now on what that one is asked to write is refused (`Locked`). What it had begun to write comes
    /// before all that this one reads and writes. Its readers go on.
    pub fn take_over(self) -> LogStore<C, F, N> {
        self.tenure.take_over();
        self
    }

    /// The region.
    pub fn region(&self) -> &Region {
        self.log.region()
    }
}

impl<C, F> LogStore<C, F>
where
    C: RaftTypeConfig,
    CommittedLeaderIdOf<C>: LeaderTerm,
    F: Format<C::Entry> + Format<LogIdOf<C>>,
{
    /// Whether an append takes this entry, whatever log id it is given: to be asked before a command is
    /// proposed, where the client can still be refused. An append that refuses is a storage error, which ends
    /// the group on the leader, and on the next leader where the client tries again.
    ///
    /// It encodes the entry and reads it back, as the append does. Nothing is written.
    ///
    /// # Errors
    /// `TooLarge` where its stored form comes within 1 KiB of
    /// [`ENTRY_BYTES_MAX`](crate::limits::ENTRY_BYTES_MAX); `InvalidArgument` where the format cannot write
    /// it, or not read it again.
    ///
    #[cfg_attr(feature = "postcard", doc = include_str!("check_entry.md"))]
    pub fn check_entry(entry: &C::Entry) -> Result<()> {
        RegionLog::<F>::check_entry::<Of<C>>(entry)
    }
}

/// Reads one group's log, beside the task that writes it. Cheap to clone; each call answers as of now.
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
    F: Format<C::Entry> + Format<VoteOf<C>> + Format<LogIdOf<C>>,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<C::Entry>> {
        self.log.read::<Of<C>>(range).await.map_err(io_error)
    }

    /// The vote as last saved; not committed, though it was saved as committed, if an unclean
    /// end of the store came after.
    ///
    /// openraft lets a node that finds a committed vote of its own lead on in that term, and a leader's
    /// entries are sent to others while they are being written here. What such an end took from the log may
    /// therefore be committed, and a leader that went on would give the same log ids to other entries.
    /// Without the word committed it stands for election, and is elected if its log is as long as those of
    /// the others. For a vote for another node nothing changes: that node's next message commits it again.
    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        let saved = self.log.vote::<VoteOf<C>>().map_err(io_error)?;
        Ok(saved.map(|saved| {
            if saved.before_unclean_end && !planted(Bug::OldLeaderBelieved) {
                VoteOf::<C>::from_leader_id(saved.vote.leader_id().clone(), false)
            } else {
                saved.vote
            }
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<C::Entry>> {
        self.log.read_limited::<Of<C>>(start, end).await.map_err(io_error)
    }
}

impl<C, F, N> RaftLogStorage<C> for LogStore<C, F, N>
where
    N: Notify<C>,
    C: RaftTypeConfig,
    CommittedLeaderIdOf<C>: LeaderTerm,
    F: Format<C::Entry> + Format<VoteOf<C>> + Format<LogIdOf<C>>,
{
    type LogReader = LogReader<C, F>;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        let (last_purged_log_id, last) = self.log.ends::<Of<C>>().await.map_err(io_error)?;
        let last_log_id = last.or_else(|| last_purged_log_id.clone());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader<C, F> {
        LogReader { log: self.log.clone(), types: PhantomData }
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        self.log.save_vote(vote, C::AsyncRuntime::sleep).await.map_err(io_error)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        self.log.save_committed(committed.as_ref(), C::AsyncRuntime::sleep).await.map_err(io_error)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        self.log.committed().map_err(io_error)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        let parts = self.log.append::<Of<C>>(entries.into_iter()).map_err(io_error)?;
        let durable = N::hand_over(callback, &mut self.turn);
        let accepted = |ticket: Ticket| ticket.on_complete(|outcome| durable(outcome.map(drop)));
        let submitter = self.log.submitter();
        submitter.submit_append(parts, accepted, C::AsyncRuntime::sleep).await.map_err(io_error)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        let first = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        self.log.truncate::<Of<C>, _>(first, C::AsyncRuntime::sleep).await.map_err(io_error)
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        hold::<C, F>(&self.log).await.map_err(io_error)?;
        self.log.purge::<Of<C>, _>(&log_id, C::AsyncRuntime::sleep).await.map_err(io_error)
    }
}

/// Waits until the store is the region's writer.
async fn hold<C: RaftTypeConfig, F: 'static>(log: &RegionLog<F>) -> Result<()> {
    log.hold(|time, held| async move { C::AsyncRuntime::timeout(time, held).await.ok() }).await
}

/// The ids of one application's types.
struct Of<C>(PhantomData<fn() -> C>);

impl<C> Ids for Of<C>
where
    C: RaftTypeConfig,
    CommittedLeaderIdOf<C>: LeaderTerm,
{
    type Entry = C::Entry;
    type LogId = LogIdOf<C>;

    fn log_id(entry: &C::Entry) -> LogIdOf<C> {
        let (leader, index) = entry.log_id_parts();
        LogIdOf::<C>::new(leader.clone(), index)
    }

    fn id(log_id: &LogIdOf<C>) -> Result<EntryId> {
        let (leader, index) = (log_id.committed_leader_id(), log_id.index);
        match leader.leader_term() {
            Some(term) => Ok(EntryId::new(term, index)),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("entry {index} of leader {leader}: the term is no u64"),
            )),
        }
    }
}
