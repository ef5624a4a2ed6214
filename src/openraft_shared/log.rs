//! The log of one region, for a caller that must not be blocked.

use super::format::Format;
use super::later::{Later, elsewhere, elsewhere_waiting, promise};
use crate::commit::Ticket;
use crate::engine::Engine;
use crate::engine::batch::WriteBatch;
use crate::engine::region::Region;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Durability, Entry, EntryId, LogState, ReadLimit, RegionId};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

const COMMITTED: &[u8] = b"openraft/committed";
const PURGED: &[u8] = b"openraft/purged";

/// What is read on the spot is no more than this, and no further back than [`NEAR_SEGMENTS`].
const ON_THE_SPOT_BYTES: u64 = 256 << 10;

/// What lies so many segments behind the one that is being written was written moments ago and is in memory.
const NEAR_SEGMENTS: u32 = 1;

/// How much a limited read returns, unless told otherwise.
const READ_BYTES: u64 = 4 << 20;

/// Index and term of one of openraft's entries.
pub(crate) type IdOf<E> = fn(&E) -> Result<EntryId>;

/// One region and the format of what is in it. A clone is another handle onto the same.
pub(crate) struct RegionLog<F> {
    engine: Engine,
    region: Region,
    read_bytes: u64,
    /// A batch that waits for its acceptance on a thread of the engine. It stays here, not with the task that waits for it: should that
    /// task be dropped, whatever is submitted next goes behind the batch all the same.
    waiting: Arc<Mutex<Option<Later<()>>>>,
    format: PhantomData<fn() -> F>,
}

impl<F> Clone for RegionLog<F> {
    fn clone(&self) -> Self {
        RegionLog {
            engine: self.engine.clone(),
            region: self.region.clone(),
            read_bytes: self.read_bytes,
            waiting: self.waiting.clone(),
            format: PhantomData,
        }
    }
}

impl<F: 'static> RegionLog<F> {
    pub(crate) fn new(engine: &Engine, region: RegionId) -> RegionLog<F> {
        RegionLog {
            engine: engine.clone(),
            region: engine.region(region),
            read_bytes: READ_BYTES,
            waiting: Arc::default(),
            format: PhantomData,
        }
    }

    pub(crate) fn set_read_bytes(&mut self, bytes: u64) {
        self.read_bytes = bytes;
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    fn id(&self) -> RegionId {
        self.region.id()
    }

    // ---- writing -----------------------------------------------------------------------------------------------

    /// Accepts the batch: what it says can be read when this is done. Where that takes waiting (for room among the bytes in
    /// flight, for the next segment), a thread of the engine waits. `accepted` gets the ticket, also when nobody awaits this any more.
    pub(crate) async fn submit(
        &self,
        batch: WriteBatch,
        durability: Durability,
        accepted: impl FnOnce(Ticket) + Send + 'static,
    ) -> Result<()> {
        // What a task that was dropped had submitted is accepted first. If it was refused, the task would have been told.
        self.in_turn().await;
        let batch = if batch.is_empty() {
            batch
        } else {
            match self.engine.try_submit(batch, durability) {
                Ok(ticket) => {
                    accepted(ticket);
                    return Ok(());
                }
                Err(refused) if refused.kind() == ErrorKind::WouldBlock => {
                    let error = refused.error().clone();
                    refused.into_batch().ok_or(error)?
                }
                Err(refused) => return Err(refused.into_error()),
            }
        };
        let engine = self.engine.clone();
        let later = elsewhere_waiting(&self.engine, move || {
            accepted(engine.submit(batch, durability)?);
            Ok(())
        });
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(later);
        self.in_turn().await.unwrap_or(Ok(()))
    }

    /// Waits until nothing waits for acceptance, and returns the outcome of what did.
    async fn in_turn(&self) -> Option<Result<()>> {
        poll_fn(|cx| {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(later) = waiting.as_mut() else { return Poll::Ready(None) };
            let outcome = Pin::new(later).poll(cx);
            outcome.map(|outcome| {
                *waiting = None;
                Some(outcome)
            })
        })
        .await
    }

    /// Accepts a batch that nobody waits for: it is written behind all that came before, and before all that comes after. To wait
    /// until that is done would mean to wait for a sync that is running, now and then.
    async fn note(&self, batch: WriteBatch) -> Result<()> {
        self.submit(batch, Durability::Written, |ticket| ticket.on_complete(drop)).await
    }

    /// The batch that appends the entries, without those that are compacted already.
    pub(crate) fn append<E, L>(
        &self,
        entries: impl Iterator<Item = E>,
        id_of: IdOf<E>,
        log_id: IdOf<L>,
    ) -> Result<WriteBatch>
    where
        F: Format<E> + Format<L>,
    {
        let purged = self.purged_through(&self.region.state(), log_id)?;
        let mut batch = self.engine.batch();
        let mut region = batch.region(self.id());
        let mut previous: Option<u64> = None;
        for entry in entries {
            let id = id_of(&entry).map_err(|e| e.in_region(self.id()))?;
            if let Some(previous) = previous.replace(id.index)
                && previous.checked_add(1) != Some(id.index)
            {
                let why = format!("append refused: entry {} follows entry {previous}", id.index);
                return Err(Error::invalid(why).in_region(self.id()));
            }
            if purged.is_some_and(|purged| id.index <= purged.index) {
                continue;
            }
            let mut encoded = Ok(());
            region.append_with(id, |out| encoded = F::encode(&entry, out))?;
            encoded.map_err(|e| {
                let why = format!("entry {} cannot be encoded: {e}", id.index);
                Error::invalid(why).in_region(self.id()).caused_by(e)
            })?;
        }
        Ok(batch)
    }

    /// Discards the entries from `first` on. Not synced: whatever is synced later is so behind it in the log.
    pub(crate) async fn truncate<L>(&self, first: u64, log_id: IdOf<L>) -> Result<()>
    where
        F: Format<L>,
    {
        let state = self.region.state();
        let mut batch = self.engine.batch();
        let mut region = batch.region(self.id());
        region.truncate_from(first);
        // A log that began behind what was purged has no compaction point: emptied, it would not know where it goes on.
        if state.base.is_none()
            && first <= state.first
            && let Some(purged) = self.purged_through(&state, log_id)?
        {
            region.reset(purged)?;
        }
        self.note(batch).await
    }

    /// Up to where the log was purged. Where the log began behind what was purged, only the log id that was noted knows it.
    fn purged_through<L>(&self, state: &LogState, log_id: IdOf<L>) -> Result<Option<EntryId>>
    where
        F: Format<L>,
    {
        match state.base {
            Some(base) => Ok(Some(base)),
            None => Ok(self.purged(log_id)?.map(|(_, id)| id)),
        }
    }

    /// The log id of the last purge, and what it says.
    fn purged<L>(&self, log_id: IdOf<L>) -> Result<Option<(L, EntryId)>>
    where
        F: Format<L>,
    {
        let Some(bytes) = self.region.get(PURGED) else { return Ok(None) };
        let purged = self.decode(&bytes, "purged log id")?;
        let id = log_id(&purged).map_err(|e| e.in_region(self.id()))?;
        Ok(Some((purged, id)))
    }

    /// Drops the entries up to and including `id`, which may lie beyond the last, and keeps `log_id` in the same batch. Entries that
    /// contradict `id` go too.
    pub(crate) async fn purge<L>(&self, log_id: &L, id_of: IdOf<L>) -> Result<()>
    where
        F: Format<L>,
    {
        let id = id_of(log_id).map_err(|e| e.in_region(self.id()))?;
        let state = self.region.state();
        if self.purged_through(&state, id_of)?.is_some_and(|purged| id.index <= purged.index) {
            return Ok(());
        }
        let mut batch = self.engine.batch();
        let mut region = batch.region(self.id());
        let nearest = id.index.max(state.first);
        let here = match nearest > state.last {
            true => None,
            false => Some(EntryId::new(self.region.term(nearest)?, nearest)),
        };
        match here {
            Some(here) if here == id => drop(region.compact_through(id.index)?),
            // The log begins behind it, as one does that was never purged: nothing is to go.
            Some(here) if here.index > id.index && here.term >= id.term => {}
            Some(here) if here.term >= id.term => {
                let why =
                    format!("purge through entry {id} refused: entry {here} is here, and was not truncated");
                return Err(Error::invalid(why).in_region(self.id()));
            }
            // A snapshot that goes beyond the log, or that contradicts it: what is purged was committed, so an entry of an older
            // term that stands in its place, or behind it, was not.
            _ => drop(region.reset(id)?),
        }
        region.put(PURGED, &self.encode(log_id, "log id")?)?;
        self.note(batch).await
    }

    /// Keeps the vote, durably.
    pub(crate) async fn save_vote<V>(&self, vote: &V) -> Result<()>
    where
        F: Format<V>,
    {
        let mut batch = self.engine.batch();
        batch.region(self.id()).set_hard_state(&self.encode(vote, "vote")?)?;
        let (durable, later) = promise();
        let accepted = |ticket: Ticket| ticket.on_complete(|outcome| durable.keep(outcome.map(drop)));
        self.submit(batch, Durability::Synced, accepted).await?;
        later.await
    }

    /// Keeps the committed log id, without a sync.
    pub(crate) async fn save_committed<L>(&self, log_id: Option<&L>) -> Result<()>
    where
        F: Format<L>,
    {
        let mut batch = self.engine.batch();
        match log_id {
            Some(log_id) => batch.region(self.id()).put(COMMITTED, &self.encode(log_id, "log id")?)?,
            None => batch.region(self.id()).delete(COMMITTED)?,
        };
        self.note(batch).await
    }

    fn encode<T>(&self, value: &T, what: &str) -> Result<Vec<u8>>
    where
        F: Format<T>,
    {
        let mut out = Vec::new();
        F::encode(value, &mut out).map_err(|e| {
            Error::invalid(format!("the {what} cannot be encoded: {e}")).in_region(self.id()).caused_by(e)
        })?;
        Ok(out)
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// The vote as last saved.
    ///
    /// # Errors
    /// `Damaged` if it was lost: a node that forgot its vote must not cast another.
    pub(crate) fn vote<V>(&self) -> Result<Option<V>>
    where
        F: Format<V>,
    {
        self.region.hard_state_or_lost()?.map(|bytes| self.decode(&bytes, "vote")).transpose()
    }

    /// The committed log id as last saved.
    pub(crate) fn committed<L>(&self) -> Result<Option<L>>
    where
        F: Format<L>,
    {
        self.region.get(COMMITTED).map(|bytes| self.decode(&bytes, "committed log id")).transpose()
    }

    /// The log id of the last purge, and the last entry if there is one.
    pub(crate) async fn ends<E, L>(
        &self,
        entry_id: IdOf<E>,
        log_id: IdOf<L>,
    ) -> Result<(Option<L>, Option<E>)>
    where
        F: Format<E> + Format<L>,
        E: Send + 'static,
    {
        // Log and metadata are looked at one after the other: nothing may be on its way.
        self.in_turn().await;
        let state = self.region.state();
        let (purged, noted) = self.purged(log_id)?.unzip();
        let begins_behind =
            |id: EntryId| state.base.is_none() && (state.is_empty() || id.index < state.first);
        if noted != state.base && !noted.is_some_and(begins_behind) {
            let text = |id: Option<EntryId>| id.map_or("nothing".to_string(), |id| id.to_string());
            return Err(Error::damaged(format!(
                "the log is compacted through {}, but the log id of the last purge is of {}: it was compacted by somebody else",
                text(state.base),
                text(noted)
            ))
            .in_region(self.id()));
        }
        if state.is_empty() {
            return Ok((purged, None));
        }
        let mut last = self.read(state.last..=state.last, entry_id).await?;
        match last.pop() {
            Some(entry) => Ok((purged, Some(entry))),
            None => {
                let why = format!("entry {}, the last, went away while it was read", state.last);
                Err(Error::new(ErrorKind::Unavailable, why).in_region(self.id()))
            }
        }
    }

    /// The entries of the range that are there, all of them and as of one moment.
    ///
    /// # Errors
    /// `Damaged` if any of them is: the others may be read by themselves.
    pub(crate) async fn read<E>(&self, range: impl RangeBounds<u64>, id_of: IdOf<E>) -> Result<Vec<E>>
    where
        F: Format<E>,
        E: Send + 'static,
    {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&to) => to,
            Bound::Unbounded => u64::MAX,
        };
        self.read_within(from, to, ReadLimit::NONE, id_of).await
    }

    /// The first entries of `from..to`, as many as are allowed in one read, at least one. None if the first is not there: it was
    /// purged or truncated while the caller made up its mind, and what comes behind must not be taken for it.
    pub(crate) async fn read_limited<E>(&self, from: u64, to: u64, id_of: IdOf<E>) -> Result<Vec<E>>
    where
        F: Format<E>,
        E: Send + 'static,
    {
        let limit = ReadLimit::bytes(self.read_bytes);
        let entries = self.read_within(from, to, limit, id_of).await?;
        match entries.first().map(id_of).transpose()? {
            Some(first) if first.index != from => Ok(Vec::new()),
            _ => Ok(entries),
        }
    }

    /// One read, so that it is one moment's, wherever it is done.
    async fn read_within<E>(&self, from: u64, to: u64, limit: ReadLimit, id_of: IdOf<E>) -> Result<Vec<E>>
    where
        F: Format<E>,
        E: Send + 'static,
    {
        let LogState { first, last, .. } = self.region.state();
        let (from, to) = (from.max(first), to.min(last.saturating_add(1)));
        if from >= to {
            return Ok(Vec::new());
        }
        let active = self.engine.store().committer.active().0.id;
        if self.region.is_quick(from, to, ON_THE_SPOT_BYTES, active.saturating_sub(NEAR_SEGMENTS)) {
            return self.decode_all(&self.region.entries_clamped(from..to, limit)?, id_of);
        }
        let log = self.clone();
        elsewhere(&self.engine, move || log.decode_all(&log.region.entries_clamped(from..to, limit)?, id_of))
            .await
    }

    fn decode_all<E>(&self, stored: &[Entry], id_of: IdOf<E>) -> Result<Vec<E>>
    where
        F: Format<E>,
    {
        stored.iter().map(|entry| self.decode_entry(entry, id_of)).collect()
    }

    fn decode_entry<E>(&self, stored: &Entry, id_of: IdOf<E>) -> Result<E>
    where
        F: Format<E>,
    {
        let entry = self.decode(&stored.payload, &format!("entry {}", stored.id.index))?;
        let id = id_of(&entry).map_err(|e| e.in_region(self.id()))?;
        if id != stored.id {
            let why = format!("entry {} calls itself {id}", stored.id);
            return Err(Error::damaged(why).in_region(self.id()));
        }
        Ok(entry)
    }

    /// The bytes are those that were stored, so what cannot be decoded was written in another format, or by another program.
    fn decode<T>(&self, bytes: &[u8], what: &str) -> Result<T>
    where
        F: Format<T>,
    {
        F::decode(bytes).map_err(|e| {
            let why = format!("{what} cannot be decoded ({} bytes): {e}", bytes.len());
            Error::damaged(why).in_region(self.id()).caused_by(e)
        })
    }
}
