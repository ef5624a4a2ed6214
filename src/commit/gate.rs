//! The one-way door that the first I/O error shuts.

use crate::error::{Error, ErrorKind, Result};
use std::sync::OnceLock;

/// Open until something failed that writing cannot go on after.
#[derive(Debug, Default)]
pub(crate) struct Gate(OnceLock<Error>);

impl Gate {
    /// Fails with the first cause once there is one.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(first) => Err(Gate::poisoned(first)),
        }
    }

    /// What it was shut for.
    pub(crate) fn cause(&self) -> Option<&Error> {
        self.0.get()
    }

    /// Whether writing has stopped.
    pub(crate) fn is_shut(&self) -> bool {
        self.0.get().is_some()
    }

    /// Shuts the gate. True for the caller that was first.
    pub(crate) fn trip(&self, cause: Error) -> bool {
        self.0.set(cause).is_ok()
    }

    fn poisoned(first: &Error) -> Error {
        let error = Error::new(
            ErrorKind::Poisoned,
            "writing stopped at the first I/O error; what is durable can still be read; repair the cause and open the store \
             again",
        )
        .caused_by(first.clone());
        match first.path() {
            Some(path) => error.at(path, first.offset()),
            None => error,
        }
    }
}
