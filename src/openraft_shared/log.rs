//! The log of one region, for a caller that must not be blocked.

use super::format::Format;
use super::stored::{self, Ids, SavedVote};
use super::submit::Submitter;
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX, ENTRY_BYTES_MAX};
use crate::planted::{Bug, planted};
use crate::{
    BoxError, Engine, Entry, EntryId, Error, ErrorKind, LogState, ReadLimit, Region, RegionId, RegionWriter,
    Result, WriteBatch,
};
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

const COMMITTED: &[u8] = b"openraft/committed";
const PURGED: &[u8] = b"openraft/purged";

/// What an entry's log id may take more than the one that it was checked with: it stands there twice.
const LOG_ID_SPARE: usize = 1 << 10;

/// An append larger than this is written in parts. The description of a part is smaller than the part, so it
/// fits, and so does a part that ends with the largest entry.
const PART_BYTES: usize = 16 << 20;
const _: () = assert!(PART_BYTES <= DESC_BYTES_MAX && 2 * (PART_BYTES + ENTRY_BYTES_MAX) <= BATCH_BYTES_MAX);

/// How much a limited read returns, unless told otherwise.
const READ_BYTES: u64 = 4 << 20;

/// How long a store waits for the one before it, unless told otherwise: openraft's tasks end in moments.
const WRITER_WAIT: Duration = Duration::from_secs(10);

/// One region and the format of what is in it. A clone is another handle onto the same.
pub(crate) struct RegionLog<F> {
    engine: Engine,
    region: Region,
    read_bytes: u64,
    writer: Arc<RegionWriter>,
    writer_wait: Duration,
    submitter: Submitter,
    format: PhantomData<fn() -> F>,
}

impl<F> Clone for RegionLog<F> {
    fn clone(&self) -> Self {
        RegionLog {
            engine: self.engine.clone(),
            region: self.region.clone(),
            read_bytes: self.read_bytes,
            writer: self.writer.clone(),
            writer_wait: self.writer_wait,
            submitter: self.submitter.clone(),
            format: PhantomData,
        }
    }
}

/// Keeps the region for the store that holds it.
pub(crate) struct Tenure(Arc<RegionWriter>);

impl Tenure {
    /// Holds it from now on, in place of another that did.
    pub(crate) fn take_over(&self) {
        self.0.take_over();
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl<F: 'static> RegionLog<F> {
    pub(crate) fn new(engine: &Engine, region: RegionId) -> RegionLog<F> {
        let writer = Arc::new(engine.region_writer(region));
        RegionLog {
            engine: engine.clone(),
            region: engine.region(region),
            read_bytes: READ_BYTES,
            writer: writer.clone(),
            writer_wait: WRITER_WAIT,
            submitter: Submitter::new(engine, region, writer),
            format: PhantomData,
        }
    }

    pub(crate) fn set_read_bytes(&mut self, bytes: u64) {
        self.read_bytes = bytes;
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn set_writer_wait(&mut self, wait: Duration) {
        self.writer_wait = wait;
    }

    pub(crate) fn set_retry_for(&mut self, bound: Duration) {
        self.submitter.set_retry_for(bound);
    }

    /// What hands over batches of the region.
    pub(crate) fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    fn id(&self) -> RegionId {
        self.region.id()
    }

    // ---- holding the region -------------------------------------------------------------------------------

    /// What gives the region up when it is dropped. The store has it, and no reader.
    pub(crate) fn tenure(&self) -> Tenure {
        Tenure(self.writer.clone())
    }

    /// Waits until this store is the one that writes the region. `timeout` is the runtime's: it answers
    /// `None` when the time is over.
    pub(crate) async fn hold<T, W>(&self, timeout: T) -> Result<()>
    where
        T: FnOnce(Duration, Pin<Box<dyn Future<Output = ()> + Send>>) -> W,
        W: Future<Output = Option<()>>,
    {
        if self.writer.try_acquire().is_ok() {
            return Ok(());
        }
        let writer = self.writer.clone();
        let held = Box::pin(async move { writer.acquire().await });
        if timeout(self.writer_wait, held).await.is_some() {
            return Ok(());
        }
        self.writer.try_acquire().map_err(|in_the_way| {
            let why = format!(
                "another LogStore of this engine writes the region, and was not out of the way within {:?}: \
                 await Raft::shutdown of the group's former Raft and drop its store, or take the region over \
                 (LogStore::take_over)",
                self.writer_wait
            );
            Error::new(ErrorKind::Locked, why).in_region(self.id()).caused_by(in_the_way)
        })
    }

    // ---- writing ------------------------------------------------------------------------------------------

    /// The batches that append the entries, in order, without those that are compacted already: one, unless
    /// they are many or large. Each entry is read back from its bytes: what is accepted here is acknowledged
    /// later, and must not turn out unreadable then.
    pub(crate) fn append<I: Ids>(&self, entries: impl Iterator<Item = I::Entry>) -> Result<Vec<WriteBatch>>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        let purged = self.purged_through::<I>(&self.region.state())?;
        let (mut parts, mut batch) = (Vec::new(), self.engine.batch());
        let mut previous: Option<u64> = None;
        for entry in entries {
            let id = I::id(&I::log_id(&entry)).map_err(|e| e.in_region(self.id()))?;
            if let Some(previous) = previous.replace(id.index)
                && previous.checked_add(1) != Some(id.index)
            {
                let why = format!("append refused: entry {} follows entry {previous}", id.index);
                return Err(Error::new(ErrorKind::InvalidArgument, why).in_region(self.id()));
            }
            if purged.is_some_and(|purged| id.index <= purged.index) {
                continue;
            }
            if batch.encoded_len() > PART_BYTES {
                parts.push(std::mem::replace(&mut batch, self.engine.batch()));
            }
            let mut readable = Ok(());
            batch.region(self.id()).append_with(id, |out| {
                readable = Self::put_readable::<I>(&entry, id, out, "append refused");
            })?;
            readable.map_err(|e| e.in_region(self.id()))?;
        }
        parts.push(batch);
        Ok(parts)
    }

    /// Whether an append takes the entry, whatever log id it is given.
    pub(crate) fn check_entry<I: Ids>(entry: &I::Entry) -> Result<()>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        let mut out = Vec::new();
        let unplaced = I::id(&I::log_id(entry))?;
        Self::put_readable::<I>(entry, unplaced, &mut out, "it would be refused by an append")?;
        if out.len() > ENTRY_BYTES_MAX - LOG_ID_SPARE {
            let why = format!(
                "the entry takes {} bytes as it is stored, at most {ENTRY_BYTES_MAX} fit (ENTRY_BYTES_MAX), of which \
                 {LOG_ID_SPARE} are kept for its log id: divide the command",
                out.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, why));
        }
        Ok(())
    }

    /// Adds the entry's stored form to `out`, and reads it back. `refused` is what it means if that fails.
    fn put_readable<I: Ids>(entry: &I::Entry, id: EntryId, out: &mut Vec<u8>, refused: &str) -> Result<()>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        let before = out.len();
        stored::put_entry::<I, F>(entry, out).map_err(|e| {
            let why = format!("{refused}: entry {} cannot be encoded", id.index);
            Error::new(ErrorKind::InvalidArgument, why).naming(id.index..=id.index).caused_by(e)
        })?;
        if planted(Bug::UnreadableAppended) {
            return Ok(());
        }
        let written = out.get(before..).unwrap_or_default();
        let unreadable = |e: BoxError| {
            unreadable(&format!("{refused}: entry {}", id.index), e).naming(id.index..=id.index)
        };
        let (alone, bytes) = stored::split_entry::<I, F>(written, id);
        let back: I::Entry = F::decode(bytes).map_err(unreadable)?;
        let log_id = I::log_id(entry);
        if alone.is_some_and(|alone| alone == log_id) && I::log_id(&back) == log_id {
            Ok(())
        } else {
            Err(unreadable("its log id comes back as another".into()))
        }
    }

    /// Discards the entries from `first` on, durably: openraft truncates before it installs a snapshot that
    /// contradicts the log, and the state machine may have that durably at once. Should the truncation be
    /// lost in a crash then, the log would contradict what was applied.
    pub(crate) async fn truncate<I: Ids, W>(&self, first: u64, sleep: impl Fn(Duration) -> W) -> Result<()>
    where
        W: Future<Output = ()>,
        F: Format<I::LogId>,
    {
        let state = self.region.state();
        let mut batch = self.engine.batch();
        let mut region = batch.region(self.id());
        region.truncate_from(first);
        // A log that began after what was purged has no compaction point: cleared, it would not know
        // where it goes on.
        if state.base.is_none()
            && first <= state.first
            && let Some(purged) = self.purged_through::<I>(&state)?
        {
            region.reset(purged)?;
        }
        self.submitter.settle(batch, sleep).await
    }

    /// Up to where the log was purged. Where the log began after what was purged, only the log id
    /// that was noted knows it.
    fn purged_through<I: Ids>(&self, state: &LogState) -> Result<Option<EntryId>>
    where
        F: Format<I::LogId>,
    {
        match state.base {
            Some(base) => Ok(Some(base)),
            None => Ok(self.purged::<I>()?.map(|(_, id)| id)),
        }
    }

    /// The log id of the last purge, and what it says.
    fn purged<I: Ids>(&self) -> Result<Option<(I::LogId, EntryId)>>
    where
        F: Format<I::LogId>,
    {
        let Some(bytes) = self.region.get(PURGED) else { return Ok(None) };
        let purged = self.decode(&bytes, "purged log id")?;
        let id = I::id(&purged).map_err(|e| e.in_region(self.id()))?;
        Ok(Some((purged, id)))
    }

    /// Drops the entries up to and including `id`, which may lie beyond the last, and keeps `log_id` in the
    /// same batch. Refused where the log has another entry in its place.
    pub(crate) async fn purge<I: Ids, W>(
        &self,
        log_id: &I::LogId,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()>
    where
        W: Future<Output = ()>,
        F: Format<I::LogId>,
    {
        let id = I::id(log_id).map_err(|e| e.in_region(self.id()))?;
        let state = self.region.state();
        if self.purged_through::<I>(&state)?.is_some_and(|purged| id.index <= purged.index) {
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
            // The log begins after it, as one does that was never purged: nothing is to go.
            Some(here) if here.index > id.index && here.term >= id.term => {}
            // Of one that begins after it with an older term, nothing was ever committed.
            Some(here) if here.index > id.index => drop(region.reset(id)?),
            Some(here) => {
                let why = format!(
                    "purge through entry {id} refused: the log has entry {here} in its place, and does not belong to what \
                     was applied; what contradicts a snapshot is truncated before the snapshot is installed. If the \
                     replica cannot start, let it join anew"
                );
                return Err(Error::new(ErrorKind::InvalidArgument, why)
                    .in_region(self.id())
                    .naming(id.index..=id.index));
            }
            None => drop(region.reset(id)?),
        }
        region.put(PURGED, &self.encode(log_id, "log id")?)?;
        self.submitter.note(batch, sleep).await
    }

    /// Keeps the vote, and that it was saved in this run, durably.
    pub(crate) async fn save_vote<V: PartialEq, W>(
        &self,
        vote: &V,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()>
    where
        W: Future<Output = ()>,
        F: Format<V>,
    {
        let mut stored = stored::vote_head(self.engine.run());
        self.encode_after(&mut stored, vote, "vote")?;
        let mut batch = self.engine.batch();
        batch.region(self.id()).set_hard_state(&stored)?;
        self.submitter.settle(batch, sleep).await
    }

    /// Keeps the committed log id, without a sync.
    pub(crate) async fn save_committed<L: PartialEq, W>(
        &self,
        log_id: Option<&L>,
        sleep: impl Fn(Duration) -> W,
    ) -> Result<()>
    where
        W: Future<Output = ()>,
        F: Format<L>,
    {
        let mut batch = self.engine.batch();
        match log_id {
            Some(log_id) => batch.region(self.id()).put(COMMITTED, &self.encode(log_id, "log id")?)?,
            None => batch.region(self.id()).delete(COMMITTED)?,
        };
        self.submitter.note(batch, sleep).await
    }

    /// The value's bytes, seen to be read as that value again.
    fn encode<T: PartialEq>(&self, value: &T, what: &str) -> Result<Vec<u8>>
    where
        F: Format<T>,
    {
        let mut out = Vec::new();
        self.encode_after(&mut out, value, what)?;
        Ok(out)
    }

    fn encode_after<T: PartialEq>(&self, out: &mut Vec<u8>, value: &T, what: &str) -> Result<()>
    where
        F: Format<T>,
    {
        let before = out.len();
        F::encode(value, out).map_err(|e| {
            Error::new(ErrorKind::InvalidArgument, format!("the {what} cannot be encoded"))
                .in_region(self.id())
                .caused_by(e)
        })?;
        let unreadable = |e: BoxError| unreadable(&format!("{what} refused: it"), e).in_region(self.id());
        match F::decode(out.get(before..).unwrap_or_default()).map_err(unreadable)? {
            back if back == *value => Ok(()),
            _ => Err(unreadable("it comes back as another".into())),
        }
    }

    // ---- reading ------------------------------------------------------------------------------------------

    /// The vote as last saved.
    ///
    /// # Errors
    /// `Damaged` if it was lost: a node that forgot its vote must not cast another.
    pub(crate) fn vote<V>(&self) -> Result<Option<SavedVote<V>>>
    where
        F: Format<V>,
    {
        let Some(bytes) = self.region.hard_state_or_lost()? else { return Ok(None) };
        let (run, vote) = stored::split_vote(&bytes);
        let vote = self.decode(vote, "vote")?;
        Ok(Some(SavedVote { vote, before_unclean_end: run < self.engine.unclean_before() }))
    }

    /// The committed log id as last saved.
    pub(crate) fn committed<L>(&self) -> Result<Option<L>>
    where
        F: Format<L>,
    {
        self.region.get(COMMITTED).map(|bytes| self.decode(&bytes, "committed log id")).transpose()
    }

    /// The log ids of the last purge, and of the last entry if there is one.
    pub(crate) async fn ends<I: Ids>(&self) -> Result<(Option<I::LogId>, Option<I::LogId>)>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        // Log and metadata are looked at one after the other: nothing may be on its way.
        self.submitter.in_turn().await;
        let state = self.region.state();
        let (purged, noted) = self.purged::<I>()?.unzip();
        let begins_behind =
            |id: EntryId| state.base.is_none() && (state.is_empty() || id.index < state.first);
        if noted != state.base && !noted.is_some_and(begins_behind) {
            let text = |id: Option<EntryId>| id.map_or("nothing".to_string(), |id| id.to_string());
            return Err(Error::new(ErrorKind::Damaged, format!(
                "the log is compacted through {}, but the log id of the last purge is of {}: it was compacted by somebody else",
                text(state.base),
                text(noted)
            ))
            .in_region(self.id()));
        }
        if state.is_empty() {
            return Ok((purged, None));
        }
        let end = state.last.saturating_add(1);
        let mut last = self.read_within(state.last, end, ReadLimit::NONE, Self::decode_log_id::<I>).await?;
        match last.pop() {
            Some(log_id) => Ok((purged, Some(log_id))),
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
    pub(crate) async fn read<I: Ids>(&self, range: impl RangeBounds<u64>) -> Result<Vec<I::Entry>>
    where
        F: Format<I::Entry> + Format<I::LogId>,
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
        self.read_within(from, to, ReadLimit::NONE, Self::decode_entry::<I>).await
    }

    /// The first entries of `from..to`, as many as are allowed in one read, at least one. None if the first
    /// is not there: it was purged or truncated while the caller made up its mind, and what comes after
    /// must not be mistaken for it.
    pub(crate) async fn read_limited<I: Ids>(&self, from: u64, to: u64) -> Result<Vec<I::Entry>>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        let limit = ReadLimit::bytes(self.read_bytes);
        let entries = self.read_within(from, to, limit, Self::decode_entry::<I>).await?;
        match entries.first().map(|first| I::id(&I::log_id(first))).transpose()? {
            Some(first) if first.index != from => Ok(Vec::new()),
            _ => Ok(entries),
        }
    }

    /// One read, so that it is one moment's, wherever it is done. Decoded here: what the bytes become need
    /// not be able to go to another thread.
    async fn read_within<T>(
        &self,
        from: u64,
        to: u64,
        limit: ReadLimit,
        decode: fn(&RegionLog<F>, &Entry) -> Result<T>,
    ) -> Result<Vec<T>> {
        let LogState { first, last, .. } = self.region.state();
        let (from, to) = (from.max(first), to.min(last.saturating_add(1)));
        if from >= to {
            return Ok(Vec::new());
        }
        let stored = self.region.entries_clamped_async(from..to, limit).await?;
        stored.iter().map(|entry| decode(self, entry)).collect()
    }

    fn decode_entry<I: Ids>(&self, stored: &Entry) -> Result<I::Entry>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        let (_, bytes) = stored::split_entry::<I, F>(&stored.payload, stored.id);
        self.decode_whole::<I>(stored.id, bytes)
    }

    /// The log id alone, whatever the payload. An entry that was stored without one is decoded whole.
    fn decode_log_id<I: Ids>(&self, stored: &Entry) -> Result<I::LogId>
    where
        F: Format<I::Entry> + Format<I::LogId>,
    {
        match stored::split_entry::<I, F>(&stored.payload, stored.id) {
            (Some(log_id), _) => Ok(log_id),
            (None, bytes) => Ok(I::log_id(&self.decode_whole::<I>(stored.id, bytes)?)),
        }
    }

    fn decode_whole<I: Ids>(&self, stored: EntryId, bytes: &[u8]) -> Result<I::Entry>
    where
        F: Format<I::Entry>,
    {
        let entry = self.decode(bytes, &format!("entry {}", stored.index))?;
        let id = I::id(&I::log_id(&entry)).map_err(|e| e.in_region(self.id()))?;
        if id != stored {
            let why = format!("entry {stored} calls itself {id}");
            return Err(Error::new(ErrorKind::Damaged, why).in_region(self.id()));
        }
        Ok(entry)
    }

    /// The bytes are those that were stored, so what cannot be decoded was written in another
    /// format, or by another program.
    fn decode<T>(&self, bytes: &[u8], what: &str) -> Result<T>
    where
        F: Format<T>,
    {
        F::decode(bytes).map_err(|e| {
            let error = if stored::is_newer(bytes) {
                let why = format!(
                    "{what} was stored by a later release of raftwood, in a form that this one cannot read"
                );
                Error::new(ErrorKind::Unsupported, why)
            } else {
                Error::new(ErrorKind::Damaged, format!("{what} cannot be decoded ({} bytes)", bytes.len()))
            };
            error.in_region(self.id()).caused_by(e)
        })
    }
}

fn unreadable(what: &str, e: BoxError) -> Error {
    let why = format!(
        "{what} cannot be read back from the bytes that its format makes of it: \
         use types that this format can read, or another format"
    );
    Error::new(ErrorKind::InvalidArgument, why).caused_by(e)
}
