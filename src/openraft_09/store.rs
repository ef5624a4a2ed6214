//! `RaftLogStorage` and `RaftLogReader` of openraft 0.9 for one region.

use super::notify::Notify;
use crate::openraft_shared::{Format, Ids, OnAnyThread, OnThisThread, Postcard, RegionLog, Tenure, Turn};
use crate::{Engine, EntryId, Error, Region, RegionId, Result, Ticket};
use openraft09::log_id::RaftLogId;
use openraft09::storage::{LogFlushed, RaftLogStorage};
use openraft09::{
    AnyError, AsyncRuntime, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader,
    RaftTypeConfig, StorageError, StorageIOError, Vote,
};
use std::fmt::{self, Debug};
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
    F: Format<C::Entry> + Format<LogId<C::NodeId>>,
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
    F: Format<C::Entry> + Format<LogId<C::NodeId>>,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.log.read::<Of<C>>(range).await.map_err(reading)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.log.read_limited::<Of<C>>(start, end).await.map_err(reading)
    }
}

impl<C, F, N> RaftLogReader<C> for LogStore<C, F, N>
where
    N: 'static,
    C: RaftTypeConfig,
    F: Format<C::Entry> + Format<LogId<C::NodeId>>,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.log.read::<Of<C>>(range).await.map_err(reading)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.log.read_limited::<Of<C>>(start, end).await.map_err(reading)
    }
}

impl<C, F, N> RaftLogStorage<C> for LogStore<C, F, N>
where
    N: Notify<C>,
    C: RaftTypeConfig,
    F: Format<C::Entry> + Format<Vote<C::NodeId>> + Format<LogId<C::NodeId>>,
{
    type LogReader = LogReader<C, F>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        hold::<C, F>(&self.log).await.map_err(reading)?;
        let (last_purged_log_id, last) = self.log.ends::<Of<C>>().await.map_err(reading)?;
        let last_log_id = last.or_else(|| last_purged_log_id.clone());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader<C, F> {
        LogReader { log: self.log.clone(), types: PhantomData }
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        hold::<C, F>(&self.log).await.map_err(|e| storage_error(ErrorSubject::Vote, ErrorVerb::Write, e))?;
        self.log
            .save_vote(vote, C::AsyncRuntime::sleep)
            .await
            .map_err(|e| storage_error(ErrorSubject::Vote, ErrorVerb::Write, e))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        hold::<C, F>(&self.log).await.map_err(|e| storage_error(ErrorSubject::Vote, ErrorVerb::Read, e))?;
        let saved = self.log.vote().map_err(|e| storage_error(ErrorSubject::Vote, ErrorVerb::Read, e))?;
        // A leader that was killed may lead on: this release of openraft sends an entry to others
        // only once it is durable here.
        Ok(saved.map(|saved| saved.vote))
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        hold::<C, F>(&self.log).await.map_err(|e| storage_error(ErrorSubject::Store, ErrorVerb::Write, e))?;
        let saved = self.log.save_committed(committed.as_ref(), C::AsyncRuntime::sleep).await;
        saved.map_err(|e| storage_error(ErrorSubject::Store, ErrorVerb::Write, e))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        hold::<C, F>(&self.log).await.map_err(|e| storage_error(ErrorSubject::Store, ErrorVerb::Read, e))?;
        self.log.committed().map_err(|e| storage_error(ErrorSubject::Store, ErrorVerb::Read, e))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let writing = |e| of_entries(ErrorVerb::Write, e);
        hold::<C, F>(&self.log).await.map_err(writing)?;
        let parts = self.log.append::<Of<C>>(entries.into_iter()).map_err(writing)?;
        let durable = N::hand_over(callback, &mut self.turn);
        let accepted = |ticket: Ticket| ticket.on_complete(|outcome| durable(outcome.map(drop)));
        let submitter = self.log.submitter();
        submitter.submit_append(parts, accepted, C::AsyncRuntime::sleep).await.map_err(writing)
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let held = hold::<C, F>(&self.log).await;
        held.map_err(|e| storage_error(ErrorSubject::Log(log_id.clone()), ErrorVerb::Delete, e))?;
        let truncated = self.log.truncate::<Of<C>, _>(log_id.index, C::AsyncRuntime::sleep).await;
        truncated.map_err(|e| storage_error(ErrorSubject::Log(log_id), ErrorVerb::Delete, e))
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let held = hold::<C, F>(&self.log).await;
        held.map_err(|e| storage_error(ErrorSubject::Log(log_id.clone()), ErrorVerb::Delete, e))?;
        let purged = self.log.purge::<Of<C>, _>(&log_id, C::AsyncRuntime::sleep).await;
        purged.map_err(|e| storage_error(ErrorSubject::Log(log_id), ErrorVerb::Delete, e))
    }
}

/// Waits until the store is the region's writer.
async fn hold<C: RaftTypeConfig, F: 'static>(log: &RegionLog<F>) -> Result<()> {
    log.hold(|time, held| async move { C::AsyncRuntime::timeout(time, held).await.ok() }).await
}

/// The ids of one application's types.
struct Of<C>(PhantomData<fn() -> C>);

impl<C: RaftTypeConfig> Ids for Of<C> {
    type Entry = C::Entry;
    type LogId = LogId<C::NodeId>;

    fn log_id(entry: &C::Entry) -> LogId<C::NodeId> {
        entry.get_log_id().clone()
    }

    fn id(log_id: &LogId<C::NodeId>) -> Result<EntryId> {
        Ok(EntryId::new(log_id.leader_id.term, log_id.index))
    }
}

fn reading<NID: openraft09::NodeId>(error: Error) -> StorageError<NID> {
    of_entries(ErrorVerb::Read, error)
}

/// About the first of the entries that the error names, if it names any.
fn of_entries<NID: openraft09::NodeId>(verb: ErrorVerb, error: Error) -> StorageError<NID> {
    let subject = error.entries().map_or(ErrorSubject::Logs, |e| ErrorSubject::LogIndex(*e.start()));
    storage_error(subject, verb, error)
}

fn storage_error<NID: openraft09::NodeId>(
    subject: ErrorSubject<NID>,
    verb: ErrorVerb,
    error: Error,
) -> StorageError<NID> {
    StorageIOError::new(subject, verb, AnyError::new(&error)).into()
}
