//! What the files of a store are called.

use crate::format::file_header::SegmentKind;
use std::fmt;

/// A file of the store. Names are made from our own counters only, never from anything a caller says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum FileName {
    /// A segment of the log.
    Log(u32),
    /// A segment that the cleaner wrote.
    Cold(u32),
    /// The footer of the segment with the same number.
    Footer(u32),
    /// A checkpoint.
    Checkpoint(u32),
    /// A file of the pool: allocated, not yet a segment.
    Free(u32),
    /// A file whose creation did not finish; deleted at open.
    Temp(u32),
    /// Held by the process that has the store open.
    Lock,
    /// Says up to where the log is durable: see [`mark`](super::mark).
    Mark,
}

impl FileName {
    /// The file of a segment.
    pub(crate) fn segment(kind: SegmentKind, id: u32) -> FileName {
        match kind {
            SegmentKind::Log => FileName::Log(id),
            SegmentKind::Cold => FileName::Cold(id),
        }
    }

    /// The file that `name` is, or `None` when it is none of ours. Strict: `parse` accepts exactly what
    /// `Display` prints, so that no two names mean one file.
    pub(crate) fn parse(name: &str) -> Option<FileName> {
        if name == LOCK {
            return Some(FileName::Lock);
        }
        if name == MARK {
            return Some(FileName::Mark);
        }
        let (digits, kind) = name.split_once('.')?;
        if digits.len() != DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let id = digits.parse().ok()?;
        Some(match kind {
            "log" => FileName::Log(id),
            "cold" => FileName::Cold(id),
            "foot" => FileName::Footer(id),
            "ckpt" => FileName::Checkpoint(id),
            "free" => FileName::Free(id),
            "tmp" => FileName::Temp(id),
            _ => return None,
        })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, kind) = match self {
            FileName::Log(id) => (id, "log"),
            FileName::Cold(id) => (id, "cold"),
            FileName::Footer(id) => (id, "foot"),
            FileName::Checkpoint(id) => (id, "ckpt"),
            FileName::Free(id) => (id, "free"),
            FileName::Temp(id) => (id, "tmp"),
            FileName::Lock => return f.write_str(LOCK),
            FileName::Mark => return f.write_str(MARK),
        };
        write!(f, "{id:0DIGITS$}.{kind}")
    }
}

/// As many digits as `u32::MAX` has, so that names sort as their numbers do.
const DIGITS: usize = 10;

const LOCK: &str = "LOCK";
const MARK: &str = "MARK";

/// The name that a checkpoint has while it is written.
pub(crate) const CHECKPOINT_TEMP: &str = "checkpoint.tmp";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_as_documented() {
        assert_eq!(FileName::Log(12).to_string(), "0000000012.log");
        assert_eq!(FileName::Footer(u32::MAX).to_string(), "4294967295.foot");
        assert_eq!(FileName::Lock.to_string(), "LOCK");
        assert_eq!(FileName::Mark.to_string(), "MARK");
    }

    #[test]
    fn anything_else_is_not_ours() {
        for name in [
            "",
            "lock",
            "mark",
            "12.log",
            "00000000012.log",
            "+000000012.log",
            "4294967296.log",
            "0000000012.LOG",
            "0000000012.log.",
            "0000000012",
            "0000000012.",
            ".log",
            "0000000012.tmp.log",
            "００００００００１２.log",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_name_round_trips(id: u32) {
            for make in [FileName::Log, FileName::Cold, FileName::Footer, FileName::Checkpoint, FileName::Free, FileName::Temp] {
                prop_assert_eq!(FileName::parse(&make(id).to_string()), Some(make(id)));
            }
        }

        #[test]
        fn what_parses_prints_the_same(name in "[0-9]{9,11}\\.(log|cold|foot|ckpt|free|tmp|bak)|LOCK|MARK|.{0,16}") {
            if let Some(file) = FileName::parse(&name) {
                prop_assert_eq!(file.to_string(), name);
            }
        }
    }
}
