//! Why a batch was not written, in the sense that what happens next depends on.

use super::gate::Stopped;
use crate::error::Error;
use crate::segment::Unwritten;

/// A batch that is not on its way, or will not complete.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// Nothing of it was accepted: it would have to wait, and its caller does not.
    Busy(Error),
    /// Nothing of it was accepted, for what it is or for lack of a segment.
    Refused(Unwritten),
    /// All writing has stopped. What was accepted may survive a crash.
    Stopped(Stopped),
}

impl Unsent {
    /// For a reason that has nothing to do with space.
    pub(crate) fn refused(error: Error) -> Unsent {
        Unsent::Refused(Unwritten::Failed(error))
    }
}

impl From<Unwritten> for Unsent {
    fn from(unwritten: Unwritten) -> Unsent {
        Unsent::Refused(unwritten)
    }
}

impl From<Stopped> for Unsent {
    fn from(stopped: Stopped) -> Unsent {
        Unsent::Stopped(stopped)
    }
}

impl From<Stopped> for Unwritten {
    fn from(stopped: Stopped) -> Unwritten {
        Unwritten::Failed(stopped.into())
    }
}

impl From<Unsent> for Unwritten {
    fn from(unsent: Unsent) -> Unwritten {
        match unsent {
            Unsent::Refused(unwritten) => unwritten,
            Unsent::Busy(error) => Unwritten::Failed(error),
            Unsent::Stopped(stopped) => stopped.into(),
        }
    }
}

impl From<Unsent> for Error {
    fn from(unsent: Unsent) -> Error {
        Unwritten::from(unsent).into()
    }
}
