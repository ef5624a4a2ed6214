//! Why bytes of a segment cannot be had, in the sense that what happens next depends on.

use crate::error::{Error, ErrorKind};
use crate::types::RegionId;
use crate::vfs::meaning::Unread;
use std::io;

/// Bytes that were written, and that a read does not give. The first two are damage.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// What is there was looked at, and is wrong.
    Wrong(Error),
    /// The device cannot give the bytes, or does not have them. The next time it may.
    Lost(Error),
    /// The system failed in a way that says nothing of the bytes: no descriptor is left, say.
    Failed(Error),
}

impl Unreadable {
    /// A read that failed: never a shorter log.
    pub(super) fn read(what: &str, e: io::Error) -> Unreadable {
        match e.into() {
            Unread::Lost(e) => Unreadable::Lost(Error::damaged(what).caused_by(e)),
            Unread::Failed(e) => Unreadable::Failed(Error::new(ErrorKind::Io, what).caused_by(e)),
        }
    }

    /// The damage, or else the failure that is none.
    pub(crate) fn damage(self) -> Result<Error, Error> {
        match self {
            Unreadable::Wrong(e) | Unreadable::Lost(e) => Ok(e),
            Unreadable::Failed(e) => Err(e),
        }
    }

    /// What is delivered.
    pub(crate) fn error(&self) -> &Error {
        match self {
            Unreadable::Wrong(e) | Unreadable::Lost(e) | Unreadable::Failed(e) => e,
        }
    }

    /// The same with other particulars.
    pub(crate) fn map(self, change: impl FnOnce(Error) -> Error) -> Unreadable {
        match self {
            Unreadable::Wrong(e) => Unreadable::Wrong(change(e)),
            Unreadable::Lost(e) => Unreadable::Lost(change(e)),
            Unreadable::Failed(e) => Unreadable::Failed(change(e)),
        }
    }

    /// Names the entry that could not be read, where nothing did yet.
    pub(crate) fn of_entry(self, region: RegionId, index: u64) -> Unreadable {
        self.map(|e| e.of_entry(region, index))
    }
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Error {
        match unreadable {
            Unreadable::Wrong(e) | Unreadable::Lost(e) | Unreadable::Failed(e) => e,
        }
    }
}
