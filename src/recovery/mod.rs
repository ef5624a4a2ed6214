//! From files to an engine's state.
//!
//! ```text
//!  newest valid checkpoint ─▶ region table as of its capture
//!        │  + footers of the log segments from its start on, in order (net effects, idempotent)
//!        │  + the unsealed tail up to the watermark, read record by record
//!        ▼
//!  state as it was durable ─▶ + whole batches past the watermark, rewritten into a new segment and synced
//! ```
//!
//! What open costs: the checkpoint, one header a segment, the footers' net effects since the checkpoint, and
//! the bytes of the unsealed tail. Not the entries.
//!
//! Nothing that is read here is changed here. The old tail is never written again: where its content ends is
//! said by the first record of the segment that follows, which names the record it follows. So whatever lies
//! past a tear is cut off for good by the next write, without a truncate that could itself be lost. A crash
//! during recovery starts over from the same files.
//!
//! The page cache is not believed for anything past the watermark: after a failed sync a kernel may
//! show bytes that the disk does not have. That part of the file is synced, dropped from the cache,
//! and read again.

mod chain;
mod copies;
mod files;
mod finish;
mod judge;
mod link;
mod phases;
mod recognise;
mod replay;
mod serving;
mod tail;
mod thread;
mod unrecovered;

pub(crate) use files::FreeListed;
pub(crate) use finish::Unfinished;
pub(crate) use recognise::read_header;
pub(crate) use unrecovered::Unrecovered;

use crate::checkpoint::{Kept, Run};
use crate::format::mark::Mark;
use crate::format::record::Shape;
use crate::index::Table;
use crate::options::Options;
use crate::report::OpenReport;
use crate::segment::Segment;
use crate::sync::Arc;
use crate::types::Lsn;
use crate::vfs::Dir;
use phases::{Listed, Recovery};
use std::collections::BTreeMap;

/// Whether recovery prepares for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The caller holds the lock.
    Write,
    /// Nothing is changed, and a running engine may be changing the files.
    Inspect,
    /// The same, and what is not known to be durable is left out: nobody judges it.
    InspectDurable,
}

/// The state of a store as its files show it.
pub(crate) struct Recovered {
    pub(crate) run: Run,
    pub(crate) table: Arc<Table>,
    /// Every segment that is part of the store; those without a footer on disk have one on the heap.
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    /// What the next record follows.
    pub(crate) chain: Shape,
    /// The log was durable up to here; an inspection judges nothing of what follows.
    pub(crate) durable: Lsn,
    pub(crate) checkpoints: Kept,
    /// What the mark file holds.
    pub(crate) marks: Vec<Mark>,
    pub(crate) report: OpenReport,
    /// What is left to be done before anything is written, or answered.
    pub(crate) unfinished: Unfinished,
}

impl Recovered {
    /// Where the log ends.
    pub(crate) fn end(&self) -> Lsn {
        self.chain.end().unwrap_or(Lsn::ZERO)
    }
}

/// Reads the store in `dir`; `None` if there is none.
pub(crate) fn recover(
    dir: &Dir,
    options: &Options,
    purpose: Purpose,
) -> Result<Option<Recovered>, Unrecovered> {
    go(&mut Recovery { dir, options, purpose, report: OpenReport::default() })
}

/// The same, and where it does not come to its end, what it had found until then goes to `found`.
pub(crate) fn recover_and_report(
    dir: &Dir,
    options: &Options,
    purpose: Purpose,
    found: &mut OpenReport,
) -> Result<Option<Recovered>, Unrecovered> {
    let mut recovery = Recovery { dir, options, purpose, report: OpenReport::default() };
    let outcome = go(&mut recovery);
    *found = recovery.report;
    outcome
}

fn go(recovery: &mut Recovery<'_>) -> Result<Option<Recovered>, Unrecovered> {
    let listed = Listed::read(recovery.dir)?;
    let Some(served) = listed.choose_checkpoint(recovery)? else { return Ok(None) };
    let opened = served.open_segments(recovery)?;
    let followed = opened.follow(recovery)?;
    let indexed = followed.give_footers(recovery)?;
    let replayed = indexed.replay(recovery)?;
    Ok(Some(replayed.sort_out(recovery)))
}
