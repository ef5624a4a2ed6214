//! What can be made to go wrong, and when.

use super::op::{Op, OpKind};
use rustix::io::Errno;

/// The device failed.
pub const EIO: i32 = Errno::IO.raw_os_error();
/// The file system is full.
pub const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
/// The quota is used up.
pub const EDQUOT: i32 = Errno::DQUOT.raw_os_error();
/// Too many open files.
pub const EMFILE: i32 = Errno::MFILE.raw_os_error();
/// The file system is mounted read-only, perhaps since a moment ago.
pub const EROFS: i32 = Errno::ROFS.raw_os_error();
/// Not allowed.
pub const EACCES: i32 = Errno::ACCESS.raw_os_error();
/// The file would become too long.
pub const EFBIG: i32 = Errno::FBIG.raw_os_error();
/// A signal came first.
pub const EINTR: i32 = Errno::INTR.raw_os_error();

/// What happens instead of the call, or to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing is done, and this error number returned. A failed sync may clean the pages, as the
    /// profile has it.
    Error(i32),
    /// The call is done whole, and this error number returned nonetheless.
    ErrorAfter(i32),
    /// A read or write transfers at most so many bytes.
    Short(usize),
    /// A write is seen by the cache and never reaches the device, though syncs say that it did.
    LoseWrite,
    /// A write is seen by the cache where it belongs, and reaches the device so many sectors further on.
    Misdirect(i64),
    /// A sync returns Ok and makes nothing durable; a later, honest one does.
    LieSync,
}

impl Effect {
    fn concerns(self, kind: OpKind) -> bool {
        match self {
            Effect::Error(_) | Effect::ErrorAfter(_) => true,
            Effect::Short(_) => matches!(kind, OpKind::Read | OpKind::Write),
            Effect::LoseWrite | Effect::Misdirect(_) => kind == OpKind::Write,
            Effect::LieSync => kind.is_sync(),
        }
    }
}

/// An effect, and the calls it strikes: those that match all that is asked for, once unless said otherwise.
///
/// `Fault::error(EIO).on(OpKind::SyncData).path(".seg").skip(2)` fails the third sync of a segment.
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    number: Option<u64>,
    kind: Option<OpKind>,
    path: Option<String>,
    skip: u64,
    forever: bool,
    spent: bool,
}

impl Fault {
    /// The effect on the next call that it can concern.
    pub fn new(effect: Effect) -> Fault {
        Fault { effect, number: None, kind: None, path: None, skip: 0, forever: false, spent: false }
    }

    /// [`Effect::Error`].
    pub fn error(errno: i32) -> Fault {
        Fault::new(Effect::Error(errno))
    }

    /// Only on the call of this number, or from it on if [`forever`](Fault::forever); calls are
    /// counted from 1.
    pub fn at(mut self, number: u64) -> Fault {
        self.number = Some(number);
        self
    }

    /// Only on this kind of call.
    pub fn on(mut self, kind: OpKind) -> Fault {
        self.kind = Some(kind);
        self
    }

    /// Only on paths that contain this.
    pub fn path(mut self, part: impl Into<String>) -> Fault {
        self.path = Some(part.into());
        self
    }

    /// Not on the first so many calls that would match.
    pub fn skip(mut self, calls: u64) -> Fault {
        self.skip = calls;
        self
    }

    /// On every call from there on, instead of once.
    pub fn forever(mut self) -> Fault {
        self.forever = true;
        self
    }

    /// The effect, if this is a call to strike. Counts.
    pub(super) fn strike(&mut self, op: &Op) -> Option<Effect> {
        let path = |part: &String| {
            let has = |p: &std::path::Path| p.to_string_lossy().contains(part.as_str());
            has(&op.path) || op.to.as_deref().is_some_and(has)
        };
        let matches = !self.spent
            && self.effect.concerns(op.kind)
            && self.number.is_none_or(|n| if self.forever { op.number >= n } else { op.number == n })
            && self.kind.is_none_or(|k| k == op.kind)
            && self.path.as_ref().is_none_or(path);
        if !matches {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.spent = !self.forever;
        Some(self.effect)
    }
}
