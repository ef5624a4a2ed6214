//! Why a write was refused or failed.

use super::write_batch::WriteBatch;
use crate::error::{Error, ErrorKind};
use std::fmt;

/// A refused or failed write, with the batch to try again where it was refused.
pub struct WriteError {
    pub(super) error: Error,
    pub(super) batch: Option<Box<WriteBatch>>,
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
        self.batch.map(|b| *b)
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
        (self.error, self.batch.map(|batch| *batch))
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
