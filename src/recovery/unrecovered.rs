//! Why a store was not recovered, in the sense that what happens next depends on.

use crate::error::{Error, ErrorKind};
use crate::segment::Unreadable;

/// A recovery that did not come to its end.
#[derive(Debug)]
pub(crate) enum Unrecovered {
    /// What was acknowledged is wrong or missing, and cannot be tied to regions: refused.
    Damaged(Error),
    /// Anything else, which says nothing of the bytes.
    Failed(Error),
}

impl Unrecovered {
    /// What is delivered.
    pub(crate) fn error(&self) -> &Error {
        match self {
            Unrecovered::Damaged(error) | Unrecovered::Failed(error) => error,
        }
    }
}

/// Damage stays damage, whichever function found it.
impl From<Error> for Unrecovered {
    fn from(error: Error) -> Unrecovered {
        match error.kind() {
            ErrorKind::Damaged => Unrecovered::Damaged(error),
            _ => Unrecovered::Failed(error),
        }
    }
}

impl From<Unreadable> for Unrecovered {
    fn from(unreadable: Unreadable) -> Unrecovered {
        unreadable.damage().map_or_else(Unrecovered::Failed, Unrecovered::Damaged)
    }
}

impl From<Unrecovered> for Error {
    fn from(unrecovered: Unrecovered) -> Error {
        match unrecovered {
            Unrecovered::Damaged(error) | Unrecovered::Failed(error) => error,
        }
    }
}
