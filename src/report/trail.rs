//! What an open found near the end of the log, and what it decided.

use super::OpenReport;
use crate::error::Error;
use crate::types::Lsn;
use std::path::PathBuf;

/// Why an open decides what it decides: what it would find now, and by which proof.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Explanation {
    /// An engine has the store open, and the end of its log is being written: it is not judged.
    pub in_use: bool,
    /// Why the store would not open, if it would not.
    pub refusal: Option<Error>,
    /// Where the log ends. For a store that would not open: before what refuses it.
    pub end: Lsn,
    /// What the segments, records and marks showed.
    pub trail: Trail,
    /// What the open would report. Of a store that would not open: as far as it came.
    pub report: OpenReport,
}

/// What a recovery came across, in the order of the log.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Trail {
    /// Everything before this position was on the device.
    pub durable: Lsn,
    /// What says so.
    pub proof: Proof,
    /// The segments from which the log was replayed.
    pub segments: Vec<SegmentFinding>,
    /// Where no record follows the last one of the log. `None` if recovery did not come so far.
    pub hole: Option<Lsn>,
    /// Something past the hole proves that the log was durable up to here: what is missing was acknowledged.
    pub acknowledged: Option<Lsn>,
    /// What was judged past the durable position: records, and what stands at the ends of segments.
    pub judged: Vec<RecordFinding>,
}

impl Trail {
    pub(crate) fn proven(&mut self, durable: Lsn, proof: Proof) {
        if durable > self.durable {
            (self.durable, self.proof) = (durable, proof);
        }
    }
}

/// What says how far the log was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Proof {
    /// Nothing does.
    #[default]
    Nothing,
    /// The checkpoint: the log was synced before that got its name.
    Checkpoint,
    /// The mark, which is written when the log is at rest, and at close.
    Mark,
    /// This segment: the watermark of one of its records, or its footer.
    Segment(u32),
}

/// One segment of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentFinding {
    /// Its number.
    pub id: u32,
    /// It has a footer: all its records were on the device.
    pub sealed: bool,
    /// Its records; those of a sealed one are not counted.
    pub records: u64,
    /// Where its content ends.
    pub end: u32,
    /// The end of the record that its first one follows, if that is known.
    pub follows: Option<Lsn>,
    /// It is part of the log. One that is not follows a record that is not there, or was cut off by a later
    /// run.
    pub in_log: bool,
    /// Bytes of valid records past a place where none could be read.
    pub past_hole: u64,
}

/// What was judged at one place.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordFinding {
    /// The place.
    pub at: Lsn,
    /// The segment's file.
    pub path: PathBuf,
    /// How much of the record can be believed.
    pub state: RecordState,
    /// It is visibly torn: sectors of it were never written.
    pub torn: bool,
    /// The file was used before: a sector that was not written shows its older content.
    pub old_bytes: bool,
    /// One flipped bit explains what is wrong.
    pub one_flip: bool,
    /// A recovery that did not come to its end had found it whole: what is wrong now has rotted.
    pub was_whole: bool,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// How much of a record can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RecordState {
    /// Every byte matches.
    Right,
    /// It says what it is, and some of its payloads do not match.
    WrongInPayload,
    /// It does not even say what it is.
    Unreadable,
}

/// What becomes of a record past the durable position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It is re-persisted.
    Keep,
    /// It was never acknowledged; it and what follows are dropped.
    Torn,
    /// It is kept as it is, and its wrong entries are reported as damaged: they may have been acknowledged.
    Fence,
    /// Nothing says which regions it concerns or whether it was acknowledged: open refuses.
    Refuse,
    /// The caller decided to drop it, with what follows. It may have been acknowledged, and with it any
    /// region's vote.
    Lose,
}
