//! What an error of a [`Vfs`](super::Vfs) means to the engine: what happens next is decided by the types that
//! come out of here, and the error itself is only passed on.

use std::io::{Error, ErrorKind, Result};

/// The device cannot read a sector.
const EIO: i32 = 5;

/// What a call gave of a file or directory, and `None` where nothing bears its name.
pub(crate) fn if_there<T>(given: Result<T>) -> Result<Option<T>> {
    match given {
        Ok(given) => Ok(Some(given)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a read gave, and `None` where the device cannot read that.
pub(crate) fn if_readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if e.raw_os_error() == Some(EIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A call, repeated while signals interrupt it: network file systems and those in user space answer so.
pub(crate) fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Why a lock was not given.
pub(crate) enum Unlocked {
    /// Somebody else has it.
    Busy,
    /// There are no locks of this kind here.
    Unsupported(Error),
    /// Nothing bears the name of the file.
    Missing(Error),
    /// The file belongs to another user.
    Forbidden(Error),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Unlocked {
    fn from(e: Error) -> Unlocked {
        match e.kind() {
            ErrorKind::WouldBlock => Unlocked::Busy,
            ErrorKind::Unsupported => Unlocked::Unsupported(e),
            ErrorKind::NotFound => Unlocked::Missing(e),
            ErrorKind::PermissionDenied => Unlocked::Forbidden(e),
            _ => Unlocked::Failed(e),
        }
    }
}

/// Why bytes that were written were not read.
pub(crate) enum Unread {
    /// The device cannot give them, or does not have them.
    Lost(Error),
    /// The system failed in a way that says nothing of the bytes: no descriptor is left, say.
    Failed(Error),
}

impl From<Error> for Unread {
    fn from(e: Error) -> Unread {
        let is_gone = matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof);
        if is_gone || e.raw_os_error() == Some(EIO) { Unread::Lost(e) } else { Unread::Failed(e) }
    }
}
