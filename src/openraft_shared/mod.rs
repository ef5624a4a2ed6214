//! What the adapters for both releases of openraft do with a region: they differ in openraft's
//! types, not in this.

mod format;
mod log;
mod notify;
mod stored;
mod submit;

pub use format::{Format, Postcard};
pub(crate) use log::{RegionLog, Tenure};
pub use notify::{OnAnyThread, OnThisThread};
pub(crate) use notify::{Sealed, Turn};
pub(crate) use stored::Ids;

use crate::{Error, ErrorKind};
use std::io;

/// The error as `std::io` knows it. The message names region, index, file and offset, as far as they are
/// known; the error itself is the source.
pub(crate) fn io_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Damaged | ErrorKind::HardStateLost => io::ErrorKind::InvalidData,
        ErrorKind::NoSpace => io::ErrorKind::StorageFull,
        ErrorKind::InvalidArgument | ErrorKind::Gap | ErrorKind::TermRegression | ErrorKind::TooLarge => {
            io::ErrorKind::InvalidInput
        }
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
