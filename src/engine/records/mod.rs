//! The log as it was written: record by record, in its order, beside an engine that goes on.
//!
//! ```text
//!   links      segment 4 ......|  segment 5 ....|  segment 7 .............
//!   shown                          ^                                        what was handed out ends here
//!   durable                                              ^                  by the records after it, or the mark
//!   scouted                                                     ^           the last whole record
//! ```
//!
//! The writer knows nothing of readers. It recycles files in place, so nothing is mapped here: bytes are
//! copied by positional reads, and what was copied is compared with checksums that are bound to the store,
//! the segment, and the generation of its file. What stands there after a file was used again is therefore
//! never shown, and a file that was cut is no signal.
//!
//! Which records are the log is decided by recovery, and by nothing here: a look begins with one. From there
//! on a [`Follow`] goes from record to record as long as each names the one before it, across segments too.
//! Where that does not lead on (a file is gone, an engine was opened again and cut off the end of the log) it
//! looks again as a whole, and says what became of its place.
//!
//! A position is durable in the log that was followed, or not at all: a watermark counts only if it was read
//! from a record that this walk has come to, or lies in a segment that it has. After a restart the copies of
//! the cut records have higher positions, and would prove too much of the originals.

mod follow;
mod item;
mod walk;

pub use follow::Follow;
pub use item::{LogItem, LogOp, LogRecord, RecordContent, RecordOptions, RegionOps, TermRange};

use super::reader::Reader;
use crate::error::Result;
use walk::Walk;

impl Reader {
    /// The records of the log as this reader found it, in their order: of every segment that is still there,
    /// entries that were dropped since included. What the cleaner moved is not among them twice: its segments
    /// are no part of the log.
    ///
    /// Without [`show_unproven`](crate::Options::show_unproven) it ends where the log is known to be durable.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use raftwood::{Durability, EntryId, LogItem, LogOp, Options, RecordContent, RecordOptions, RegionId};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x"[..])])?;
    /// engine.write(batch, Durability::Synced)?;
    /// engine.close()?;
    ///
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// for item in reader.records(RecordOptions::new().payloads(true)) {
    ///     let LogItem::Record(record) = item? else { continue };
    ///     let RecordContent::Batch(regions) = &record.content else { continue };
    ///     assert_eq!(regions[0].region, RegionId(7));
    ///     let LogOp::Append { entries, .. } = &regions[0].ops[0] else { panic!() };
    ///     assert_eq!(entries[0].payload, "set x");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn records(&self, options: RecordOptions) -> Records {
        let mut walk = Walk::new(&self.dir, &self.state, options, self.options.show_unproven);
        walk.close_last();
        Records { walk, ended: false }
    }

    /// The same, and it goes on: a tail of the log that follows the writer across segments, restarts of the
    /// engine, and files that are given back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use raftwood::{Durability, EntryId, LogItem, Options, RecordOptions, RegionId};
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Options::new().open(dir.path())?;
    /// let all = Options::new().show_unproven(true);
    /// let mut tail = all.open_read_only(dir.path())?.follow(RecordOptions::new());
    /// assert!(tail.next_within(Duration::ZERO)?.is_none());
    ///
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x"[..])])?;
    /// engine.write(batch, Durability::Synced)?;
    /// let Some(LogItem::Record(record)) = tail.next_within(Duration::from_secs(5))? else { panic!() };
    /// assert_eq!(record.end, engine.durable_lsn());
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow(&self, options: RecordOptions) -> Follow {
        Follow::new(&self.dir, self.options.clone(), &self.state, options)
    }
}

/// The records of a log as a reader found it, in their order, as an iterator: what [`Reader::records`]
/// returns, where an example of its items is.
///
/// ```
/// use raftwood::{Durability, Engine, LogItem, Options, RecordOptions, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// engine.append_next(RegionId(7), ["a"], Durability::Synced)?;
/// engine.close()?;
/// let mut records = Options::new().open_read_only(dir.path())?.records(RecordOptions::new());
/// assert!(records.any(|item| matches!(item, Ok(LogItem::Record(_)))));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Records {
    walk: Walk,
    ended: bool,
}

impl Iterator for Records {
    type Item = Result<LogItem>;

    /// The next item. An error is one of the operating system: what is wrong with the log is an item. After
    /// an error there is no other.
    fn next(&mut self) -> Option<Result<LogItem>> {
        while !self.ended {
            if let Some(item) = self.walk.pop() {
                return Some(Ok(item));
            }
            match self.walk.refill() {
                Ok(true) => {}
                Ok(false) => {
                    self.ended = true;
                    return self.walk.last_words().map(Ok);
                }
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}
