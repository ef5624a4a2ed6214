//! Batches are handed over, and come back where nothing of them was accepted.

use super::Engine;
use super::write_batch::{Remains, WriteBatch};
use super::write_error::WriteError;
use crate::clock;
use crate::commit::{Accept, OnFull, Origin, Ticket, Unsent};
use crate::error::{Error, Result};
use crate::format::batch::Encoded;
use crate::index::Discard;
use crate::planted::{Bug, planted};
use crate::report::Outcome;
use crate::types::{Durability, Lsn};

impl Engine {
    /// Writes a batch and returns when it is as durable as asked: after a crash all of it is there.
    ///
    /// The caller's own thread does the work, together with the other threads that are writing. An empty
    /// batch with `Durability::Synced` is a [`sync`](Engine::sync).
    ///
    /// # Errors
    /// Refused, nothing was written, and the batch comes back with the error:
    ///
    /// | kind              | because                                                                                 |
    /// |-------------------|-----------------------------------------------------------------------------------------|
    /// | `Gap`             | an append would leave a hole after the last entry                                       |
    /// | `Compacted`       | an append lies at or below the compaction point                                         |
    /// | `TermRegression`  | an append would lower the term                                                          |
    /// | `Unavailable`     | a compaction lies beyond the last entry: the log was cut since it was added (`compact_to` is never refused) |
    /// | `InvalidArgument` | a compaction was added to another log than there is now, a log is forgotten and not begun again, a closure spoilt the batch, it is one of another engine, or a listener writes to the region that it is asked about |
    /// | `TooLarge`        | the batch is larger than a [limit](crate::limits), or what is appended next is beyond the last index |
    /// | `Refused`         | a listener does not let entries be discarded                                            |
    /// | `Damaged`         | the term that has to be compared stands in an index that cannot be read                 |
    /// | `NoSpace`, `Io`   | the next segment could not be prepared                                                  |
    /// | `Closed`          | the engine is closed                                                                    |
    ///
    /// `Poisoned`: an I/O error stopped all writing. If that was before this batch, nothing of it
    /// was written; if it was this batch that met the error, whether it survives a crash is
    /// unknown. It does not come back.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
    /// batch.region(RegionId(9)).set_hard_state(b"term 1, voted for 3")?;
    /// let end = engine.write(batch, Durability::Synced)?;
    /// assert!(engine.durable_lsn() >= end); // the client may be answered
    /// # Ok(()) }
    /// ```
    ///
    /// # After a crash
    /// With `Durability::Synced` the whole batch is there once this has returned `Ok`. With
    /// `Durability::Written` it survives the end of the process, and a power cut may take it. A crash before
    /// this returns leaves all of it or nothing, and never a batch without those that were accepted before
    /// it.
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<Lsn, WriteError> {
        self.write_outcome(batch, durability).map(|outcome| outcome.lsn)
    }

    /// As [`write`](Engine::write), and returns what became of the batch beside its position: how many bytes
    /// it takes, and what was decided of the operations that leave something to acceptance. Of a batch that
    /// is submitted, [`Ticket::outcome`] says it.
    ///
    /// # Errors
    /// As [`write`](Engine::write).
    ///
    /// # After a crash
    /// As after [`write`](Engine::write): what was decided is part of the batch.
    pub fn write_outcome(&self, batch: WriteBatch, durability: Durability) -> Result<Outcome, WriteError> {
        self.send(
            batch,
            durability,
            OnFull::Wait,
            |encoded, how| self.store().committer.write(encoded, how),
            || {
                let lsn = match durability {
                    Durability::Synced => self.sync().map_err(Unsent::refused)?,
                    Durability::Written => {
                        let ticket = Ticket::barrier(&self.store().committer, durability, OnFull::Wait)?;
                        ticket.wait().map_err(Unsent::refused)?
                    }
                };
                Ok(Outcome { lsn, ..Outcome::default() })
            },
        )
    }

    /// Accepts a batch and returns: it can be read at once, and its ticket says when it is as durable as
    /// asked. Blocks while more than `in_flight_bytes_max` are on their way.
    ///
    /// # Errors
    /// As [`write`](Engine::write); errors after acceptance come through the ticket.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut tickets = Vec::new();
    /// for group in 1..=3 {
    ///     let mut batch = engine.batch();
    ///     batch.region(RegionId(group)).append_next(["set x 1"], 1)?;
    ///     tickets.push(engine.submit(batch, Durability::Synced)?);
    /// }
    /// assert_eq!(engine.regions().len(), 3); // what was submitted can be read
    /// for ticket in tickets {
    ///     ticket.wait()?; // and is safe from here on
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # After a crash
    /// As after [`write`](Engine::write), with the completion of the ticket in the place of the return:
    /// before that all of the batch or nothing is there, although it could be read.
    pub fn submit(&self, batch: WriteBatch, durability: Durability) -> Result<Ticket, WriteError> {
        self.submit_how(batch, durability, OnFull::Wait)
    }

    /// As [`submit`](Engine::submit), but `WouldBlock` instead of waiting for bytes in flight, for the next
    /// segment to be prepared, or for a full one to get its footer; and `Stalled` while the [disk
    /// hangs](Engine::stall), though the batch could be accepted: nobody knows when it would be durable.
    ///
    /// [`WriteError`] shows what to do then.
    ///
    /// # Errors
    /// As [`submit`](Engine::submit), and `WouldBlock` and `Stalled`: nothing was written, the batch comes
    /// back, and the same call succeeds later.
    pub fn try_submit(&self, batch: WriteBatch, durability: Durability) -> Result<Ticket, WriteError> {
        match self.stall() {
            Some(stall) if self.store().check_process().is_ok() && !planted(Bug::StallNotSaid) => {
                Err(WriteError::refused(stall.refusal(), batch))
            }
            _ => self.submit_at_once(batch, durability),
        }
    }

    /// Accepts a batch at once, or answers `WouldBlock`.
    pub(super) fn submit_at_once(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> Result<Ticket, WriteError> {
        self.submit_how(batch, durability, OnFull::Fail)
    }

    fn submit_how(
        &self,
        batch: WriteBatch,
        durability: Durability,
        on_full: OnFull,
    ) -> Result<Ticket, WriteError> {
        let committer = &self.store().committer;
        self.send(
            batch,
            durability,
            on_full,
            |encoded, how| Ticket::submit(committer, encoded, how),
            || Ticket::barrier(committer, durability, on_full),
        )
    }

    fn send<T>(
        &self,
        batch: WriteBatch,
        durability: Durability,
        on_full: OnFull,
        send: impl FnOnce(&mut Encoded, &Accept<'_>) -> Result<T, Unsent>,
        empty: impl FnOnce() -> Result<T, Unsent>,
    ) -> Result<T, WriteError> {
        if let Err(error) = self.check_is_ours(&batch).and_then(|()| self.check_not_asked_about(&batch)) {
            return Err(WriteError::refused(error, batch));
        }
        if batch.is_empty() {
            // It comes back in any case: there is nothing in it that could be written twice.
            return empty().map_err(|unsent| match unsent {
                Unsent::Stopped(stopped) => WriteError::refused(stopped.into(), batch),
                unsent => WriteError::of(unsent, || batch),
            });
        }
        let (mut encoded, remains): (Encoded, Remains) = batch.encode(self.store().tuned.compression());
        let ask = |discards: &[Discard], encoded: &Encoded| self.before_rollback(discards, encoded);
        let listened = !self.store().listeners.is_empty();
        let how = Accept {
            durability,
            on_full,
            began: clock::now(),
            origin: Origin::Caller {
                before_rollback: if listened { Some(&ask) } else { None },
                scope: self.store().options.rollback_scope,
            },
        };
        let sent = send(&mut encoded, &how);
        if !planted(Bug::RotationKept) {
            self.store().news.deliver();
        }
        match sent {
            Ok(sent) => {
                remains.recycle(encoded);
                Ok(sent)
            }
            Err(unsent) => Err(WriteError::of(unsent, || remains.restore(encoded))),
        }
    }

    /// Of a fork of the process that opened the engine nothing is accepted, nor is a batch of another engine.
    fn check_is_ours(&self, batch: &WriteBatch) -> Result<()> {
        self.store().check_process()?;
        match batch.is_for(&self.store().table) || planted(Bug::ForeignBatchTaken) {
            true => Ok(()),
            false => Err(Error::invalid(
                "the batch was made by another engine, or by one that was closed since: make it with this engine's batch()",
            )),
        }
    }
}
