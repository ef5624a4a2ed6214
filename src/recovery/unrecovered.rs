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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_damaged(unrecovered: &Unrecovered) -> bool {
        matches!(unrecovered, Unrecovered::Damaged(_))
    }

    /// A check goes on to what is left of a damaged store, and `explain` names the refusal. Both give up over
    /// a store that could not be looked at.
    #[test]
    fn damage_is_told_from_other_errors_whichever_way_it_comes() {
        let damaged = || Error::damaged("rot");
        let failed = || Error::new(ErrorKind::Io, "no descriptor is left");
        assert!(is_damaged(&damaged().into()) && !is_damaged(&failed().into()));
        for kind in [ErrorKind::Locked, ErrorKind::Unsupported, ErrorKind::InvalidArgument] {
            assert!(!is_damaged(&Error::new(kind, "not of the bytes").into()), "{kind:?}");
        }
        for (unreadable, is_damage) in [
            (Unreadable::Wrong(damaged()), true),
            (Unreadable::Lost(damaged()), true),
            (Unreadable::Failed(failed()), false),
        ] {
            assert_eq!(is_damaged(&unreadable.into()), is_damage);
        }
        assert_eq!(Error::from(Unrecovered::from(damaged())).kind(), ErrorKind::Damaged);
        assert_eq!(Error::from(Unrecovered::from(failed())).kind(), ErrorKind::Io);
    }
}
