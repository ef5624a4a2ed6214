//! What a walk over the log shows.

use crate::error::Error;
use crate::types::{Entry, EntryId, Lsn, RegionId};
use bytes::Bytes;

/// What [`Reader::records`](crate::Reader::records) and [`Reader::follow`](crate::Reader::follow) show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecordOptions {
    pub(super) from: Lsn,
    pub(super) payloads: bool,
}

impl RecordOptions {
    /// From the first record that is there, and without payloads.
    pub fn new() -> RecordOptions {
        RecordOptions::default()
    }

    /// Begin with the first record that starts at this position or after it: the
    /// [`end`](LogRecord::end) of the last one that was seen, or [`Reader::end`](crate::Reader::end)
    /// for what is still to come. Default: [`Lsn::ZERO`].
    pub fn from(mut self, position: Lsn) -> RecordOptions {
        self.from = position;
        self
    }

    /// Also read the payloads of entries, and verify each. Without it they are not read. Default: no.
    pub fn payloads(mut self, yes: bool) -> RecordOptions {
        self.payloads = yes;
        self
    }
}

/// One step through the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LogItem {
    /// The next record.
    Record(LogRecord),
    /// What stood between these positions is not there any more. Its segments were given back to the pool:
    /// nothing lived in them any more, or the cleaner had moved it. The next record is the first at or past
    /// `until`.
    Gone {
        /// The end of the record before, or [`Lsn::ZERO`] where the log does not begin with its first record.
        after: Lsn,
        /// Where it goes on.
        until: Lsn,
    },
    /// What was shown from here on is no part of the log any more: an engine was opened, and cut it off.
    /// Records that it kept come again, at higher positions. Only records that were shown as not known to be
    /// durable can be taken back, unless the device lost what it had confirmed.
    TakenBack {
        /// Where the log ended for the engine that was opened.
        from: Lsn,
    },
    /// A record that was durable cannot be read; the error names file and offset. What follows it is shown.
    Damaged(Error),
}

/// A record: what one write did, to any number of regions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogRecord {
    /// Where it starts.
    pub start: Lsn,
    /// One past its end: what the write returned.
    pub end: Lsn,
    /// Whether it is known to be on the device.
    pub durable: bool,
    /// A bit of its header or description had flipped, and was set right.
    pub mended: bool,
    /// What it holds.
    pub content: RecordContent,
    /// Entries whose payloads are wrong, each named; they are left out of their append. Found only where
    /// payloads are read.
    pub damage: Vec<Error>,
}

impl LogRecord {
    /// Bytes that it takes in its segment.
    pub fn bytes(&self) -> u64 {
        u64::from(self.end.offset().saturating_sub(self.start.offset()))
    }
}

/// What a record is for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RecordContent {
    /// Operations, in their order. A region may occur more than once.
    Batch(Vec<RegionOps>),
    /// The cleaner moved what lived in some segments: from here on it is read from a cold one.
    Install {
        /// The number of the cold segment.
        cold: u32,
        /// The segments that it stands for.
        sources: Vec<u32>,
    },
    /// Nothing but how far the log is durable.
    Watermark,
    /// A recovery began to copy the end of the log here.
    Announcement {
        /// How many records it had found whole.
        records: u64,
        /// Records were dropped that may have been acknowledged, because the caller accepted that.
        loss: bool,
    },
    /// Headers and descriptions of records before this one, once more: for a sector that is lost.
    Copies,
}

/// Operations on one region.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RegionOps {
    /// The region.
    pub region: RegionId,
    /// What was done to it, in order.
    pub ops: Vec<LogOp>,
}

/// One operation on a region.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LogOp {
    /// Entries were appended. Those that the region had at `first` and above were discarded.
    Append {
        /// Index of the first.
        first: u64,
        /// Index of the last.
        last: u64,
        /// Their terms, in order.
        terms: Vec<TermRange>,
        /// Bytes of their payloads.
        bytes: u64,
        /// The entries themselves, if payloads were asked for.
        entries: Vec<Entry>,
    },
    /// Entries at this index and above were discarded.
    TruncateFrom(u64),
    /// Entries up to this one were dropped.
    CompactThrough(EntryId),
    /// All entries were discarded; the log goes on after this one.
    Reset(EntryId),
    /// The hard state was set.
    SetHardState(Bytes),
    /// A key was set.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// A key was removed.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// The region was removed.
    Destroy,
    /// All entries and the base were discarded.
    ForgetLog,
}

/// Entries in a row of one term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TermRange {
    /// The term.
    pub term: u64,
    /// Index of the first.
    pub first: u64,
    /// Index of the last.
    pub last: u64,
}
