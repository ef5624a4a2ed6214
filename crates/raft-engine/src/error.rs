//! What goes wrong, in the kinds that raft-engine has.

use raftwood::ErrorKind;
use std::io;

/// What went wrong. The texts name region, index, file and what to do, as far as they are known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call is refused as it stands, and nothing was changed: a key that is too long, an append that
    /// would leave a gap, a configuration that cannot be.
    #[error("Invalid Argument: {0}")]
    InvalidArgument(String),
    /// Bytes that were acknowledged are wrong or missing. The text names the entry; others can be read.
    #[error("Corruption: {0}")]
    Corruption(String),
    /// The operating system reported an error. One that was met while the log was written stops all writing
    /// until the engine is opened again.
    #[error("IO Error: {0:?}")]
    Io(#[from] io::Error),
    /// A message cannot be encoded, or the bytes are none of this type.
    #[error("Protobuf Error: {0}")]
    Protobuf(#[from] protobuf::ProtobufError),
    /// Never returned; it is here for programs that match on it.
    #[error("TryAgain Error: {0}")]
    TryAgain(String),
    /// The index lies before the first entry.
    #[error("Entry Compacted")]
    EntryCompacted,
    /// The index lies beyond the last entry, or there is none.
    #[error("Entry Not Found")]
    EntryNotFound,
    /// The batch would be larger than the engine takes: write it, and go on with an empty one.
    #[error("Full")]
    Full,
    /// Something else: the directory is in use, the engine belongs to another process.
    #[error("Other Error: {0}")]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Error {
        Error::InvalidArgument(text.into())
    }
}

impl From<raftwood::Error> for Error {
    fn from(e: raftwood::Error) -> Error {
        // With the chain of causes.
        let text = || format!("{e:?}");
        match e.kind() {
            ErrorKind::Compacted => Error::EntryCompacted,
            ErrorKind::Unavailable => Error::EntryNotFound,
            ErrorKind::Gap
            | ErrorKind::TermRegression
            | ErrorKind::InvalidArgument
            | ErrorKind::Unsupported => Error::InvalidArgument(text()),
            ErrorKind::TooLarge => Error::Full,
            ErrorKind::Damaged | ErrorKind::HardStateLost => Error::Corruption(text()),
            ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned => Error::Io(e.into()),
            _ => Error::Other(Box::new(e)),
        }
    }
}
