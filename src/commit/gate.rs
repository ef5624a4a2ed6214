//! The one-way door that the first I/O error shuts.

use crate::error::{Error, ErrorKind};
use crate::segment::Unwritten;
use std::sync::OnceLock;

/// Open until something failed that writing cannot go on after.
#[derive(Debug, Default)]
pub(crate) struct Gate(OnceLock<Unwritten>);

/// Writing has stopped: what everybody is answered who asks for it from then on.
#[derive(Debug)]
pub(crate) struct Stopped(Error);

impl Gate {
    /// Fails with the first cause once there is one.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        match self.0.get() {
            None => Ok(()),
            Some(first) => Err(Stopped::by(first.error())),
        }
    }

    /// What it was shut for.
    pub(crate) fn cause(&self) -> Option<&Unwritten> {
        self.0.get()
    }

    /// Whether writing has stopped.
    pub(crate) fn is_shut(&self) -> bool {
        self.0.get().is_some()
    }

    /// Shuts the gate. True for the caller that was first.
    pub(crate) fn trip(&self, cause: Unwritten) -> bool {
        self.0.set(cause).is_ok()
    }
}

impl Stopped {
    pub(super) fn by(first: &Error) -> Stopped {
        let error = Error::new(
            ErrorKind::Poisoned,
            "writing stopped at the first I/O error; what is durable can still be read; repair the cause and open the store \
             again",
        )
        .caused_by(first.clone());
        Stopped(match first.path() {
            Some(path) => error.at(path, first.offset()),
            None => error,
        })
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Error {
        stopped.0
    }
}
