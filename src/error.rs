//! One error type for the whole crate: a kind for code, the particulars for people.

use crate::types::RegionId;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A boxed error of the caller's, as a listener returns it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the sense that code can act on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The index lies at or below the compaction point: ask for a snapshot.
    Compacted,
    /// The index lies beyond the last entry.
    Unavailable,
    /// The append would leave a hole between the last entry and its first.
    Gap,
    /// The append would lower the term from one entry to the next.
    TermRegression,
    /// A limit of [`limits`](crate::limits) is exceeded; the message names it.
    TooLarge,
    /// The call is inconsistent as it stands; nothing was changed.
    InvalidArgument,
    /// A listener refused the rollback; nothing was written.
    Refused,
    /// The bound on bytes in flight is reached and the caller chose not to wait, or that on
    /// [fetches](crate::Engine::fetch) that wait.
    WouldBlock,
    /// The disk has been at one operation on the log for longer than
    /// [`stall_after`](crate::Options::stall_after), or a wait has come to its deadline: nothing is wrong so
    /// far, and nothing goes on. A leader should give its leadership away.
    Stalled,
    /// The file system is full, or a quota is.
    NoSpace,
    /// Bytes that were acknowledged are wrong or missing.
    Damaged,
    /// The newest hard state is lost, or is older than the log it stands beside: in which term the replica
    /// voted, and for whom, is not known. It must not vote, nor be given a hard state from its peers, who
    /// cannot know either: it leaves the group, and comes back under a new peer id.
    HardStateLost,
    /// The operating system or the device reported an error, which says nothing of the bytes:
    /// the call may be tried again.
    Io,
    /// An I/O error stopped all writing; it is the [`source`](std::error::Error::source).
    Poisoned,
    /// The engine was closed.
    Closed,
    /// Another process, or another engine of this one, has the directory open (or, for a look at it,
    /// keeps it too busy). Of a region: another [`RegionWriter`](crate::RegionWriter) has it.
    Locked,
    /// A newer format, an unknown flag, or something this platform cannot do.
    Unsupported,
}

/// The error of every operation.
///
/// It is cheap to clone: one first I/O error is delivered to every waiter. What is displayed does not
/// repeat the [`source`](std::error::Error::source): a program that shows it to people shows the chain of
/// sources too, as `{:?}` does.
///
/// ```
/// use raftwood::{Engine, Error, ErrorKind, ReadLimit, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// /// What a leader does for a follower that asks for more.
/// fn answer(engine: &Engine, from: u64) -> Result<String, Error> {
///     match engine.region(RegionId(7)).entries(from.., ReadLimit::bytes(1 << 20)) {
///         Ok(entries) => Ok(format!("{} entries", entries.len())),
///         Err(e) => match e.kind() {
///             ErrorKind::Compacted => Ok("a snapshot".into()),
///             ErrorKind::Unavailable => Ok("nothing yet".into()),
///             // Names region, entries, file and offset; a replica has them.
///             ErrorKind::Damaged => Ok(format!("heal {:?} of {:?}: {e}", e.entries(), e.path())),
///             _ => Err(e),
///         },
///     }
/// }
/// # let engine = Engine::open(dir.path())?;
/// assert_eq!(answer(&engine, 5)?, "nothing yet");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    region: Option<RegionId>,
    entries: Option<(u64, u64)>,
    is_suspect: bool,
    path: Option<PathBuf>,
    offset: Option<u64>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What code can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The region that the error is about, if it is about one.
    pub fn region(&self) -> Option<RegionId> {
        self.0.region
    }

    /// The indexes of the entries that the error is about, if it is about any: those that cannot be read,
    /// that are gone, or that were refused.
    pub fn entries(&self) -> Option<RangeInclusive<u64>> {
        self.0.entries.map(|(first, last)| first..=last)
    }

    /// Of [`Damaged`](ErrorKind::Damaged): whether nothing says that the bytes were ever acknowledged. They
    /// stand at the end of the log, and may be what a crash left of a batch. See
    /// [`Health::Suspect`](crate::Health::Suspect).
    pub fn is_suspect(&self) -> bool {
        self.0.is_suspect
    }

    /// The file that the error is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The offset in that file.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Whether the same call, as it was, may succeed later although this program repairs nothing:
    ///
    /// | kind         | once                                                                             |
    /// |--------------|----------------------------------------------------------------------------------|
    /// | `WouldBlock` | tickets have completed, the log can go on to a segment, or fetches were answered |
    /// | `Stalled`    | the disk goes on                                                                 |
    /// | `NoSpace`    | a purge, or somebody else, has given space back                                  |
    /// | `Refused`    | the listener that refused agrees: it is asked again                              |
    /// | `Locked`     | the other engine is closed                                                       |
    /// | `Io`         | the device or the operating system is well again                                 |
    ///
    /// Not `Poisoned`: the I/O error that is its source was met while the log was written, and only
    /// opening the store again ends that.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::WouldBlock
                | ErrorKind::Stalled
                | ErrorKind::NoSpace
                | ErrorKind::Refused
                | ErrorKind::Locked
                | ErrorKind::Io
        )
    }

    /// An error of code that is built on the engine, as an adapter for a consensus library, so that its
    /// callers act on one kind of error. `message` is for people: what was refused, and what to do.
    ///
    /// ```
    /// use raftwood::{Error, ErrorKind, RegionId};
    /// use std::error::Error as _;
    ///
    /// let cause = u64::from_str_radix("x", 10).unwrap_err();
    /// let error = Error::new(ErrorKind::Damaged, "entry 3 cannot be decoded")
    ///     .in_region(RegionId(7))
    ///     .naming(3..=3)
    ///     .caused_by(cause);
    /// assert_eq!((error.kind(), error.region(), error.entries()), (ErrorKind::Damaged, Some(RegionId(7)), Some(3..=3)));
    /// assert_eq!(error.to_string(), "region 7: entry 3 cannot be decoded");
    /// assert!(error.source().is_some());
    /// ```
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            region: None,
            entries: None,
            is_suspect: false,
            path: None,
            offset: None,
            source: None,
        }))
    }

    /// An operating system's error of `doing` something with `path`; full disks get their own kind.
    pub(crate) fn io(doing: &str, path: &Path, source: io::Error) -> Error {
        let (kind, advice) = match is_full(&source) {
            true => (ErrorKind::NoSpace, "; free space or call purge(), then try again"),
            false => (ErrorKind::Io, ""),
        };
        Error::new(kind, format!("{doing} failed{advice}")).at(path, None).caused_by(source)
    }

    pub(crate) fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the engine is closed")
    }

    /// The engine was opened by another process than the one that asks.
    pub(crate) fn forked() -> Error {
        Error::new(
            ErrorKind::Closed,
            "the engine belongs to the process that opened it, and a fork does not take it along: \
             open it in the process that uses it",
        )
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Damaged, message)
    }

    pub(crate) fn hard_state_lost(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::HardStateLost, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// The same, about this [`region`](Error::region), which the message begins with.
    pub fn in_region(self, region: RegionId) -> Error {
        self.edit(|e| e.region = Some(region))
    }

    /// The same, about these [`entries`](Error::entries), which the message speaks of.
    pub fn naming(self, entries: RangeInclusive<u64>) -> Error {
        self.edit(|e| e.entries = Some(entries.into_inner()))
    }

    /// Names the entry that could not be read, where nothing did yet.
    pub(crate) fn of_entry(self, region: RegionId, index: u64) -> Error {
        self.edit(|e| {
            e.region = Some(region);
            if e.entries.replace((index, index)).is_none() {
                e.message = format!("entry {index} cannot be read: {}", e.message);
            }
        })
    }

    /// Nothing says whether the bytes were acknowledged.
    pub(crate) fn suspect(self) -> Error {
        self.edit(|e| e.is_suspect = true)
    }

    pub(crate) fn at(self, path: &Path, offset: Option<u64>) -> Error {
        self.edit(|e| {
            e.path = Some(path.to_path_buf());
            e.offset = offset;
        })
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(std::error::Error::source(self), |cause| cause.source())
    }

    /// In one line, for a log.
    pub(crate) fn with_causes(&self) -> WithCauses<'_> {
        WithCauses(self)
    }

    /// The same, with this [`source`](std::error::Error::source).
    pub fn caused_by(self, source: impl Into<BoxError>) -> Error {
        self.edit(|e| e.source = Some(source.into().into()))
    }

    /// Clones of the error stay as they are.
    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        if let Some(region) = e.region {
            write!(f, "region {region}: ")?;
        }
        f.write_str(&e.message)?;
        match (&e.path, e.offset) {
            (Some(path), Some(offset)) => write!(f, " ({}, offset {offset})", path.display()),
            (Some(path), None) => write!(f, " ({})", path.display()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.with_causes())
    }
}

/// Whether the operating system's error says that the disk is full, or a quota.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error and all that caused it, nearest first.
pub(crate) struct WithCauses<'a>(&'a Error);

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        self.0.causes().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// The kind is the nearest that the standard library has; the error itself is what it wraps, so region,
/// entries, file and offset are still there.
///
/// ```
/// use raftwood::{Engine, Error, ErrorKind};
///
/// fn open() -> std::io::Result<Engine> {
///     Ok(Engine::open("/proc/no/such/place")?)
/// }
/// let error = open().unwrap_err();
/// let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>()).unwrap();
/// assert_eq!(inner.kind(), ErrorKind::Io);
/// ```
impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::Compacted | ErrorKind::Unavailable => Io::NotFound,
            ErrorKind::Gap | ErrorKind::TermRegression | ErrorKind::TooLarge | ErrorKind::InvalidArgument => {
                Io::InvalidInput
            }
            ErrorKind::WouldBlock => Io::WouldBlock,
            ErrorKind::Stalled => Io::TimedOut,
            ErrorKind::NoSpace => Io::StorageFull,
            ErrorKind::Damaged | ErrorKind::HardStateLost => Io::InvalidData,
            ErrorKind::Locked => Io::ResourceBusy,
            ErrorKind::Unsupported => Io::Unsupported,
            ErrorKind::Io | ErrorKind::Poisoned => os_kind(&error).unwrap_or(Io::Other),
            ErrorKind::Refused | ErrorKind::Closed => Io::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// What the operating system called it, if it was the one to say so.
fn os_kind(error: &Error) -> Option<std::io::ErrorKind> {
    error.causes().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_has_the_nearest_kind_and_loses_nothing() {
        use std::io::ErrorKind as Io;
        let first = std::io::Error::from(Io::PermissionDenied);
        let ours = Error::io("syncing the log", Path::new("/db/1.log"), first);
        let stopped = Error::new(ErrorKind::Poisoned, "writing stopped").caused_by(ours.clone());
        for (error, kind) in [
            (ours, Io::PermissionDenied),
            (stopped, Io::PermissionDenied),
            (Error::damaged("rotten").in_region(RegionId(7)), Io::InvalidData),
            (Error::new(ErrorKind::Unavailable, "beyond the last"), Io::NotFound),
            (Error::new(ErrorKind::Closed, "closed"), Io::Other),
        ] {
            let said = error.to_string();
            let io = std::io::Error::from(error.clone());
            assert_eq!((io.kind(), io.to_string()), (kind, said));
            let inner = io.get_ref().and_then(|e| e.downcast_ref::<Error>());
            assert_eq!(inner.map(|e| (e.kind(), e.region())), Some((error.kind(), error.region())));
        }
    }
}
