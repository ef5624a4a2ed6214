//! The write side: what raft needs persisted, of many groups at once.

use super::codec::{
    decode_conf_state, decode_hard_state, encode_conf_state, encode_entry, encode_hard_state, id_of,
};
use super::storage::{BOOTSTRAP, CONF_STATE, begin_log, exists_already, has_voters};
use crate::planted::{Bug, planted};
use crate::{
    Durability, Engine, EntryId, Error, ErrorKind, Lsn, RegionBatch, RegionId, RegionPreview, Result, Ticket,
    WriteBatch, WriteError,
};
use raft::prelude::{ConfState, Entry, HardState};
use raft::{RawNode, Ready, Storage};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A `Ready` that was written: `on_persist_ready(ready)` may be called for the replica with this tag,
/// and for no other.
///
/// A region can be destroyed and made again while a `Persisted` of it waits in a queue, and the
/// numbers of the new replica's `Ready`s begin at 1 like the old one's. Given to the new one, it
/// releases a vote that is not durable. Compare the tag with that of the replica that the region holds
/// now, and drop what is of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Persisted {
    /// The group.
    pub region: RegionId,
    /// What [`ReadyBatch::add_as`] was given: the peer id.
    pub tag: u64,
    /// The number of its `Ready`; 0 for its [destruction](Self::is_destruction), which raft
    /// takes for no `Ready` at all.
    pub ready: u64,
}

impl Persisted {
    /// Whether this is the end of the replica: [`ReadyBatch::destroy`] was written. Nothing of it
    /// comes after this.
    pub fn is_destruction(&self) -> bool {
        self.ready == DESTRUCTION
    }
}

/// In place of a number: those of raft begin at 1.
const DESTRUCTION: u64 = 0;

/// Whether the group's [`Ready::messages`] may be sent before they are persisted: unless this
/// replica alone is a quorum.
///
/// A leader may be ahead of its own disk with its entries, but not with its term and its vote. Where other
/// voters elected it, both were durable before it asked for their votes. A replica that is the only voter
/// elects itself within one step, and the messages of that very `Ready`, for the learners, speak of a term
/// that its disk has no trace of: after a crash it would elect itself into the same term again, and give
/// other entries the same names. Its messages wait until their `Ready` is persisted, as if they were
/// [`persisted_messages`](Ready::persisted_messages); it commits nothing sooner anyway.
pub fn may_send_first<T: Storage>(node: &RawNode<T>) -> bool {
    !node.raft.prs().has_quorum(&std::iter::once(node.raft.id).collect())
}

/// The `Ready`s of any number of groups on their way to the log: one atomic record, one sync.
///
/// It is synced if any of them asks for it ([`must_sync`](Ready::must_sync)); else it is only written.
#[derive(Clone, Debug)]
pub struct ReadyBatch {
    pub(super) batch: WriteBatch,
    readies: Vec<Persisted>,
    pub(super) must_sync: bool,
    configured_elsewhere: bool,
}

impl ReadyBatch {
    /// An empty one.
    pub fn new(engine: &Engine) -> ReadyBatch {
        ReadyBatch {
            batch: engine.batch(),
            readies: Vec::new(),
            must_sync: false,
            configured_elsewhere: false,
        }
    }

    /// For an application that keeps the configurations of its groups in its state machine and never gives
    /// them to this store, neither by `bootstrap` nor by [`set_conf_state`](Self::set_conf_state): logs may
    /// begin at index 1 without one. Without this call they are [refused](Self::add_as), for they are usually
    /// those of a replica that should have been sent a snapshot.
    ///
    /// Such an application has to see to it itself that a replica that joins later gets the configuration
    /// and not the log alone: its own `Storage::initial_state`, around
    /// [`RegionStorage`](super::RegionStorage)'s, gives raft the configuration as of the first entry, or its
    /// logs begin after a base, as `bootstrap`'s do.
    pub fn configured_elsewhere(mut self) -> ReadyBatch {
        self.configured_elsewhere = true;
        self
    }

    /// [`add_as`](Self::add_as) with the tag 0: for regions that are never destroyed and made
    /// again while the store is open.
    ///
    /// # Errors
    /// As there.
    pub fn add(&mut self, region: RegionId, ready: &Ready) -> Result<()> {
        self.add_as(region, 0, ready)
    }

    /// Adds what a `Ready` needs persisted: snapshot, then entries, then the hard state. `tag` comes back in
    /// [`Persisted`] and tells the replicas apart that a region has held one after the other: pass the peer
    /// id, `raft.id`, and never use one twice.
    ///
    /// Of a snapshot, the log takes the place (it is cleared and starts after it) and the conf state; its
    /// data is the state machine's, which must have made it durable before this batch is written. Entries of
    /// the log above the snapshot, and one at its index of another term, are rolled back: listeners are asked
    /// ([`before_rollback`](crate::EventListener::before_rollback)).
    ///
    /// # Errors
    /// As [`RegionBatch::append`]; the batch is then as it was before the call. `TooLarge`, when this batch
    /// is full: write it, and add to the next one; for a `Ready` that is larger than any batch there is
    /// [`add_in_parts`](Self::add_in_parts). `InvalidArgument` for entries that would begin a log at
    /// index 1 in a region without a configuration: stop that replica, it needs a snapshot, or see
    /// [`configured_elsewhere`](Self::configured_elsewhere).
    pub fn add_as(&mut self, region: RegionId, tag: u64, ready: &Ready) -> Result<()> {
        self.check_beginning(region, ready)?;
        self.batch.atomically(|batch| {
            add_snapshot(batch, region, ready)?;
            add_entries(batch, region, ready.entries())?;
            match ready.hs() {
                Some(state) => batch.region(region).set_hard_state(&encode_hard_state(state)).map(drop),
                None => Ok(()),
            }
        })?;
        self.note(ready.must_sync(), Persisted { region, tag, ready: ready.number() });
        Ok(())
    }

    /// When this batch is written, so is all of the `Ready`.
    pub(super) fn note(&mut self, must_sync: bool, persisted: Persisted) {
        self.must_sync |= must_sync;
        let tag = if planted(Bug::PersistedWithoutTag) { 0 } else { persisted.tag };
        self.readies.push(Persisted { tag, ..persisted });
    }

    /// An empty one of the same kind.
    pub(super) fn another(&self, engine: &Engine) -> ReadyBatch {
        ReadyBatch { configured_elsewhere: self.configured_elsewhere, ..ReadyBatch::new(engine) }
    }

    /// Refuses entries without a snapshot before them where the log begins at index 1 and nothing says what
    /// its configuration was before that.
    pub(super) fn check_beginning(&self, id: RegionId, ready: &Ready) -> Result<()> {
        let first = match ready.entries().first() {
            Some(first) if ready.snapshot().is_empty() => first.get_index(),
            _ => return Ok(()),
        };
        if self.configured_elsewhere || planted(Bug::LogWithoutConfiguration) {
            return Ok(());
        }
        let now = self.batch.current(id, CONF_STATE);
        // Nearly always: the entries go on where the region's own log is. Only what may be a new log's is
        // worth a walk through the batch.
        if now.base.is_some_and(|b| b.index < first) || first > 1 && is_configured(id, &now)? {
            return Ok(());
        }
        let then = self.batch.preview(id, CONF_STATE);
        if then.base.is_some() || is_configured(id, &then)? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, format!(
            "entries from {first} on refused: the region has no configuration, and a log from index 1 on does not bring one; \
             a replica that joins needs a snapshot: compact the leader's log by an entry or more, and start this replica anew \
             (or say ReadyBatch::configured_elsewhere, if the state machine keeps the configuration)"
        ))
        .in_region(id))
    }

    /// Gives a region that does not exist yet its first configuration and the beginning of its log, as
    /// [`RegionStorage::bootstrap`](super::RegionStorage::bootstrap) does, as a part of this batch, which is
    /// synced. Its state machine starts at [`BOOTSTRAP`], which is returned.
    ///
    /// # Errors
    /// `InvalidArgument` if the region exists, or exists by what was added before, or the configuration has
    /// no voters. `TooLarge` when the batch is full.
    pub fn bootstrap(&mut self, region: RegionId, state: &ConfState) -> Result<EntryId> {
        if self.batch.preview(region, CONF_STATE).exists {
            return Err(exists_already(region));
        }
        self.batch.atomically(|batch| begin_log(batch, region, state, HardState::default()))?;
        self.must_sync = true;
        Ok(BOOTSTRAP)
    }

    /// Ends the replica that `tag` names: log, hard state and configuration of the region are forgotten,
    /// in this batch, which is synced. When that is durable, a [`Persisted`] of this region and tag
    /// [says so](Persisted::is_destruction). Until then nothing may be said of it, and no other
    /// replica be made in its place.
    ///
    /// Drop the replica's `RawNode` before, and what it wanted written. In the same batch, note in a region
    /// of your own that this peer id is gone, lest a late message bring it back without its vote:
    /// [`Tombstones::destroy`](super::Tombstones::destroy) does both. See `docs/consensus.md`, "Regions that
    /// come back".
    ///
    /// Listeners are asked for the entries above the commit index of its hard state, which may be nowhere
    /// else ([`before_rollback`](crate::EventListener::before_rollback)).
    pub fn destroy(&mut self, region: RegionId, tag: u64) {
        let committed = known_commit(&self.batch.preview(region, CONF_STATE));
        self.batch.region(region).committed(committed).destroy();
        self.must_sync = true;
        self.readies.push(Persisted { region, tag, ready: DESTRUCTION });
    }

    /// Adds a hard state by itself: after `advance` or `advance_append`, when `LightReady::commit_index`
    /// says that more is committed. Needs no sync, but its place is ahead of the group's next `Ready`: raft
    /// does not repeat it there, and without it a node that restarts may take a configuration for the
    /// present one that is two changes old.
    ///
    /// # Errors
    /// `TooLarge` when the batch is full.
    pub fn set_hard_state(&mut self, region: RegionId, state: &HardState) -> Result<()> {
        self.batch.region(region).set_hard_state(&encode_hard_state(state)).map(drop)
    }

    /// Adds the configuration that holds as of the entry at `index`, as `apply_conf_change` returned it: for
    /// state machines that do not keep it. Written with the batch; sync it
    /// ([`require_sync`](Self::require_sync)) before the state machine's applied index moves past the entry
    /// durably. A snapshot brings its own; but the state machine takes it before this log does, and must then
    /// have its conf state for [`recover`](super::RegionStorage::recover).
    ///
    /// A region that does not exist yet is [bootstrapped](Self::bootstrap) with it, if `index`
    /// is 0 or that of [`BOOTSTRAP`].
    ///
    /// # Errors
    /// `TooLarge` when the batch is full. `InvalidArgument` where the log would begin at index 1, or
    /// does, and there was no configuration before: only
    /// [`configured_elsewhere`](Self::configured_elsewhere) allows that.
    pub fn set_conf_state(&mut self, region: RegionId, index: u64, state: &ConfState) -> Result<()> {
        if !self.configured_elsewhere {
            let now = self.batch.current(region, CONF_STATE);
            if now.base.is_none() && !is_configured(region, &now)? {
                let then = self.batch.preview(region, CONF_STATE);
                if !then.exists && [0, BOOTSTRAP.index].contains(&index) {
                    return self.bootstrap(region, state).map(drop);
                }
                if then.base.is_none() && !is_configured(region, &then)? {
                    return Err(Error::new(ErrorKind::InvalidArgument, format!(
                        "the configuration as of entry {index} refused: the region has had none, nor a snapshot; \
                         bootstrap it, or let it wait for a snapshot"
                    ))
                    .in_region(region));
                }
            }
        }
        self.batch.region(region).put(CONF_STATE, &encode_conf_state(index, state)).map(drop)
    }

    /// Anything else that belongs to the same moment: compaction, metadata, destruction.
    pub fn region(&mut self, id: RegionId) -> RegionBatch<'_> {
        self.batch.region(id)
    }

    /// Syncs the batch whatever its `Ready`s ask for.
    pub fn require_sync(&mut self) {
        self.must_sync = true;
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.readies.is_empty()
    }

    /// Bytes that it would take in the log: a close upper bound.
    pub fn encoded_len(&self) -> usize {
        self.batch.encoded_len()
    }

    /// How durable it will be.
    pub fn durability(&self) -> Durability {
        if self.must_sync { Durability::Synced } else { Durability::Written }
    }

    /// Writes it and returns when it is as durable as its `Ready`s ask for: `advance` may be called for each
    /// of them, if no earlier `Ready` of the same group that was [submitted](Self::submit) is still on its
    /// way. `advance` speaks for those too, and a batch that need not be synced does not wait for them.
    ///
    /// # Errors
    /// As [`Engine::write`]; the batch comes back where nothing of it was written.
    pub fn write(self, engine: &Engine) -> Result<Vec<Persisted>, ReadyError> {
        let durability = self.durability();
        let ReadyBatch { batch, readies, must_sync, configured_elsewhere } = self;
        if batch.is_empty() && !must_sync {
            return Ok(readies);
        }
        match engine.write(batch, durability) {
            Ok(_) => Ok(readies),
            Err(e) => Err(ReadyError::new(e, readies, must_sync, configured_elsewhere)),
        }
    }

    /// Submits it: what it holds can be read on return, and the ticket says when it is durable. Tickets
    /// of unlike durability may overtake each other, so hand out the `Persisted` in the order of
    /// submission; [`ReadyWriter`] does.
    ///
    /// # Errors
    /// As [`Engine::submit`]; the batch comes back.
    pub fn submit(self, engine: &Engine) -> Result<(Ticket, Vec<Persisted>), ReadyError> {
        let durability = self.durability();
        let ReadyBatch { batch, readies, must_sync, configured_elsewhere } = self;
        match engine.submit(batch, durability) {
            Ok(ticket) => Ok((ticket, readies)),
            Err(e) => Err(ReadyError::new(e, readies, must_sync, configured_elsewhere)),
        }
    }
}

/// Adds what of a `Ready` comes before its entries.
pub(super) fn add_snapshot(batch: &mut WriteBatch, id: RegionId, ready: &Ready) -> Result<()> {
    if !ready.snapshot().is_empty() {
        let meta = ready.snapshot().get_metadata();
        let mut region = batch.region(id);
        region.reset(EntryId::new(meta.get_term(), meta.get_index()))?;
        region.put(CONF_STATE, &encode_conf_state(meta.get_index(), meta.get_conf_state()))?;
    }
    Ok(())
}

pub(super) fn add_entries(batch: &mut WriteBatch, id: RegionId, entries: &[Entry]) -> Result<()> {
    let mut region = batch.region(id);
    for entry in entries {
        region.append_with(id_of(entry), |out| encode_entry(entry, out))?;
    }
    Ok(())
}

/// The last entry that the replica itself knows to be committed. Where its hard state is lost, little is.
fn known_commit(there: &RegionPreview) -> u64 {
    let state = there.hard_state.as_deref().and_then(|bytes| decode_hard_state(bytes).ok());
    let noted = state.filter(|_| !there.hard_state_lost).map_or(0, |state| state.get_commit());
    noted.max(there.base.map_or(0, |base| base.index))
}

/// Whether the region has a configuration that raft can start from.
pub(super) fn is_configured(id: RegionId, region: &RegionPreview) -> Result<bool> {
    let Some(bytes) = &region.value else { return Ok(false) };
    let (_, state) = decode_conf_state(bytes).map_err(|e| e.in_region(id))?;
    Ok(has_voters(&state))
}

/// A refused batch of `Ready`s.
///
/// raft cannot take a `Ready` back: write the batch again when the cause is gone
/// ([`Error::is_retryable`]), or stop the groups in it. Write nothing else of its regions
/// before, their [destruction](ReadyBatch::destroy) included: what comes back would be put into
/// the log of the next replica.
pub struct ReadyError {
    error: Error,
    batch: Option<Box<ReadyBatch>>,
}

impl ReadyError {
    fn new(
        e: WriteError,
        readies: Vec<Persisted>,
        must_sync: bool,
        configured_elsewhere: bool,
    ) -> ReadyError {
        let error = e.error().clone();
        let back = |batch| Box::new(ReadyBatch { batch, readies, must_sync, configured_elsewhere });
        ReadyError { error, batch: e.into_batch().map(back) }
    }

    /// Why.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What code can act on.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The batch, as it was, if it was refused before anything of it was accepted.
    pub fn into_batch(self) -> Option<ReadyBatch> {
        self.batch.map(|b| *b)
    }
}

impl fmt::Debug for ReadyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for ReadyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for ReadyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<ReadyError> for Error {
    fn from(e: ReadyError) -> Error {
        e.error
    }
}

/// Writes `Ready`s without blocking, for groups driven with `advance_append_async`.
///
/// Each batch is readable when [`submit`](ReadyWriter::submit) returns. When it is durable, and all that were
/// submitted before it are, the outcome is delivered to the sink: once for each batch, in the order of
/// submission. That is what `on_persist_ready` needs, for it means "and all before it".
///
/// A replica that is the only voter ([`may_send_first`] says no) must not campaign, nor be ticked into it,
/// while entries of it are on their way: raft 0.7 takes them for persisted there, and panics.
pub struct ReadyWriter {
    engine: Engine,
    line: Arc<Line>,
}

impl fmt::Debug for ReadyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyWriter").field("waiting", &self.line.lock().slots.len()).finish_non_exhaustive()
    }
}

impl ReadyWriter {
    /// A writer for `engine`. `sink` is called on whichever thread completes a batch, so it should be quick:
    /// typically it sends to the thread that drives the groups. It must not wait for the engine, which may be
    /// waiting for it, nor panic, which stops all writing.
    ///
    /// An error means that the engine has stopped writing (`Poisoned`, `Closed`): nothing of that batch may
    /// be passed to raft. All later batches are delivered with the same error, also those that needed no sync
    /// and were written all the same: `on_persist_ready` would speak for the lost one too.
    pub fn new(
        engine: &Engine,
        sink: impl Fn(Result<Vec<Persisted>>) + Send + Sync + 'static,
    ) -> ReadyWriter {
        let state =
            Mutex::new(State { slots: VecDeque::new(), first: 0, is_delivering: false, failed: None });
        ReadyWriter { engine: engine.clone(), line: Arc::new(Line { state, sink: Box::new(sink) }) }
    }

    /// Accepts a batch. One that is empty completes in its turn.
    ///
    /// Only one thread should submit for a group, as only one drives it.
    ///
    /// # Errors
    /// As [`Engine::submit`]: the batch comes back, nothing of it was written, and the sink will not be
    /// called for it.
    pub fn submit(&self, batch: ReadyBatch) -> Result<(), ReadyError> {
        // The place in line is taken first: a later batch must not be delivered before this one is
        // known to be refused.
        let at = self.line.enter();
        // A listener of the engine is asked on the way, and may panic.
        match catch_unwind(AssertUnwindSafe(|| batch.submit(&self.engine))) {
            Ok(Ok((ticket, readies))) => {
                let line = self.line.clone();
                ticket.on_complete(move |outcome| line.done(at, Some(outcome.map(|_: Lsn| readies))));
                Ok(())
            }
            Ok(Err(e)) => {
                self.line.done(at, None);
                Err(e)
            }
            Err(panic) => {
                self.line.done(at, None);
                resume_unwind(panic)
            }
        }
    }
}

/// Completions waiting for their turn.
struct Line {
    state: Mutex<State>,
    sink: Box<dyn Fn(Result<Vec<Persisted>>) + Send + Sync>,
}

struct State {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// A thread is handing out completions; others leave theirs to it, so that the order holds.
    is_delivering: bool,
    /// The first error. A batch after it that needed no sync may have been written, and yet must
    /// not be delivered as persisted.
    failed: Option<Error>,
}

enum Slot {
    Waiting,
    Done(Result<Vec<Persisted>>),
    /// Refused: there is nothing to deliver.
    Gone,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> u64 {
        let mut s = self.lock();
        s.slots.push_back(Slot::Waiting);
        s.first + s.slots.len() as u64 - 1
    }

    fn done(&self, at: u64, outcome: Option<Result<Vec<Persisted>>>) {
        let mut s = self.lock();
        let place = (at - s.first) as usize;
        if let Some(slot) = s.slots.get_mut(place) {
            *slot = outcome.map_or(Slot::Gone, Slot::Done);
        }
        if s.is_delivering {
            return;
        }
        s.is_delivering = true;
        drop(s);
        let mut panicked = None;
        while let Some(outcome) = self.next_due() {
            // A sink that panics over one batch is still owed the others, and the line must not
            // stand still after it.
            let told = catch_unwind(AssertUnwindSafe(|| (self.sink)(outcome)));
            panicked = panicked.or(told.err());
        }
        if let Some(panic) = panicked {
            resume_unwind(panic);
        }
    }

    /// Takes what may be delivered now. With the last of it, the delivery is over: a thread that completes a
    /// batch from then on delivers it.
    fn next_due(&self) -> Option<Result<Vec<Persisted>>> {
        let mut s = self.lock();
        while matches!(s.slots.front(), Some(Slot::Done(_) | Slot::Gone)) {
            let slot = s.slots.pop_front();
            s.first += 1;
            if let Some(Slot::Done(outcome)) = slot {
                let outcome = s.failed.clone().map_or(outcome, Err);
                s.failed = outcome.as_ref().err().cloned();
                return Some(outcome);
            }
        }
        s.is_delivering = false;
        None
    }
}
