//! Why a write was refused or failed.

use super::write_batch::WriteBatch;
use crate::commit::Unsent;
use crate::error::{Error, ErrorKind};
use std::fmt;

/// A refused or failed write, with the batch to try again where it was refused.
///
/// ```
/// use raftwood::{Durability, Engine, Error, ErrorKind, Ticket, WriteBatch};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// /// Takes what else there is to do meanwhile, where the batch would have to wait.
/// fn submit(engine: &Engine, batch: WriteBatch) -> Result<Ticket, Error> {
///     let refused = match engine.try_submit(batch, Durability::Synced) {
///         Ok(ticket) => return Ok(ticket),
///         Err(refused) => refused,
///     };
///     match refused.into_parts() {
///         // Nothing of it was written.
///         (error, Some(batch)) if error.kind() == ErrorKind::WouldBlock => {
///             println!("other work is done here");
///             Ok(engine.submit(batch, Durability::Synced)?)
///         }
///         // It is refused for what it is, or writing has stopped and whether it survives a crash is unknown.
///         (error, _) => Err(error),
///     }
/// }
/// # let engine = Engine::open(dir.path())?;
/// submit(&engine, engine.batch())?.wait()?;
/// # Ok(()) }
/// ```
pub struct WriteError {
    pub(super) error: Error,
    pub(super) batch: Returned,
}

/// What comes back of a batch that is not on its way.
pub(super) enum Returned {
    /// All of it: it would have had to wait, and the caller does not.
    Busy(Box<WriteBatch>),
    /// All of it: it was refused for another reason.
    Refused(Box<WriteBatch>),
    /// Nothing: whether it survives a crash is unknown.
    Nothing,
}

impl WriteError {
    /// Why.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What code can act on.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The batch, as it was, if it was refused before anything of it was accepted.
    pub fn into_batch(self) -> Option<WriteBatch> {
        self.batch.into_batch()
    }

    /// Why, without the batch.
    pub fn into_error(self) -> Error {
        self.error
    }

    /// Both: why, and the batch, as it was, if it was refused before anything of it was accepted.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, EntryId, ErrorKind, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// engine.append_next(RegionId(7), ["set x 1"], Durability::Written)?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 3), &b"set x 3"[..])])?;
    /// let (error, batch) = engine.write(batch, Durability::Synced).unwrap_err().into_parts();
    /// assert_eq!(error.kind(), ErrorKind::Gap);
    /// assert_eq!(batch.map(|batch| batch.is_empty()), Some(false));
    /// # Ok(()) }
    /// ```
    pub fn into_parts(self) -> (Error, Option<WriteBatch>) {
        (self.error, self.batch.into_batch())
    }

    /// Of a batch that is handed over.
    pub(super) fn of(unsent: Unsent, batch: impl FnOnce() -> WriteBatch) -> WriteError {
        let batch = match &unsent {
            Unsent::Busy(_) => Returned::Busy(Box::new(batch())),
            Unsent::Refused(_) => Returned::Refused(Box::new(batch())),
            Unsent::Stopped(_) => Returned::Nothing,
        };
        WriteError { error: unsent.into(), batch }
    }

    /// Refused before it was handed over.
    pub(super) fn refused(error: Error, batch: WriteBatch) -> WriteError {
        WriteError { error, batch: Returned::Refused(Box::new(batch)) }
    }

    /// Nothing comes back.
    pub(super) fn lost(error: Error) -> WriteError {
        WriteError { error, batch: Returned::Nothing }
    }

    /// The batch, if all that it lacks is a caller that waits.
    pub(super) fn into_busy(self) -> Result<WriteBatch, WriteError> {
        match self.batch {
            Returned::Busy(batch) => Ok(*batch),
            batch => Err(WriteError { batch, ..self }),
        }
    }
}

impl Returned {
    fn into_batch(self) -> Option<WriteBatch> {
        match self {
            Returned::Busy(batch) | Returned::Refused(batch) => Some(*batch),
            Returned::Nothing => None,
        }
    }
}

impl fmt::Debug for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<WriteError> for Error {
    fn from(e: WriteError) -> Error {
        e.error
    }
}
