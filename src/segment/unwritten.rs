//! Why a file was not made or written, in the sense that what happens next depends on.

use crate::error::{Error, is_full};
use std::io;
use std::path::Path;

/// A file that did not come to be, or not as it should.
#[derive(Clone, Debug)]
pub(crate) enum Unwritten {
    /// The file system has no room for it, or a quota none. There are ways to make some.
    NoSpace(Error),
    /// Anything else.
    Failed(Error),
}

impl Unwritten {
    /// An operating system's error of `doing` something with `path`.
    pub(crate) fn io(doing: &str, path: &Path, e: io::Error) -> Unwritten {
        let is_full = is_full(&e);
        let error = Error::io(doing, path, e);
        if is_full { Unwritten::NoSpace(error) } else { Unwritten::Failed(error) }
    }

    /// What is delivered.
    pub(crate) fn error(&self) -> &Error {
        match self {
            Unwritten::NoSpace(error) | Unwritten::Failed(error) => error,
        }
    }

    /// The lack of space, if it is that.
    pub(crate) fn no_space(&self) -> Option<&Error> {
        match self {
            Unwritten::NoSpace(error) => Some(error),
            Unwritten::Failed(_) => None,
        }
    }
}

impl From<Unwritten> for Error {
    fn from(unwritten: Unwritten) -> Error {
        match unwritten {
            Unwritten::NoSpace(error) | Unwritten::Failed(error) => error,
        }
    }
}
