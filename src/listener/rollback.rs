//! What is about to be discarded, and what a listener that is asked about it may add to the batch.

use crate::error::Result;
use crate::sync::Mutex;
use crate::sync::thread::{self, ThreadId};
use crate::types::{Entry, Lsn, RegionId, RollbackCause};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Takes what a listener adds to a batch.
pub(crate) trait Collect {
    fn put(&mut self, region: RegionId, key: &[u8], value: &[u8]) -> Result<()>;
    fn append_next(&mut self, region: RegionId, payload: &[u8], term: u64) -> Result<()>;
}

/// What a listener adds to the batch that rolls entries back, in other regions than those that lose entries.
/// It comes after the batch's own operations, can discard nothing, and is gone if the batch is refused or the
/// listener asked again. Of appends, [`Outcome::appends`](crate::Outcome::appends) lists it last.
///
/// The batch is refused as a whole where this part of it would be: by a spent
/// [disk budget](crate::Options::disk_budget) if there is an append in it, or because its term is below that
/// of the last entry there.
pub struct Evidence<'a> {
    to: &'a mut dyn Collect,
}

impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence").finish_non_exhaustive()
    }
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(to: &'a mut dyn Collect) -> Evidence<'a> {
        Evidence { to }
    }

    /// Sets a key of the metadata of `region`.
    ///
    /// # Errors
    /// Nothing is added then. `InvalidArgument` for a region that the batch rolls back. `TooLarge` beyond the
    /// limits of a key, a value or, together with what the batch has, a batch.
    pub fn put(&mut self, region: RegionId, key: &[u8], value: &[u8]) -> Result<&mut Self> {
        self.to.put(region, key, value)?;
        Ok(self)
    }

    /// Appends an entry to `region`, after the last one that is there when the batch is accepted.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn append_next(&mut self, region: RegionId, payload: &[u8], term: u64) -> Result<&mut Self> {
        self.to.append_next(region, payload, term)?;
        Ok(self)
    }
}

/// The regions that listeners are being asked about, each time with the thread on which they are.
#[derive(Default)]
pub(crate) struct AskedAbout {
    now: Mutex<Vec<(ThreadId, Vec<RegionId>)>>,
    /// How many there are: a writer that nobody asks takes no lock.
    count: AtomicUsize,
}

impl AskedAbout {
    /// Until what is returned is dropped, on this thread.
    pub(crate) fn begin(&self, regions: Vec<RegionId>) -> Asking<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.now.lock().push((thread::current().id(), regions));
        Asking(self)
    }

    /// The first of these regions that a listener is being asked about on this thread.
    pub(crate) fn find(&self, mut regions: impl Iterator<Item = RegionId>) -> Option<RegionId> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let (now, here) = (self.now.lock(), thread::current().id());
        let is_asked =
            |region: &RegionId| now.iter().any(|(on, about)| *on == here && about.contains(region));
        regions.find(is_asked)
    }
}

/// See [`AskedAbout::begin`].
pub(crate) struct Asking<'a>(&'a AskedAbout);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let (mut now, here) = (self.0.now.lock(), thread::current().id());
        // One thread's end in the reverse order.
        if let Some(at) = now.iter().rposition(|(on, _)| *on == here) {
            now.remove(at);
        }
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Entries that are about to be discarded.
///
/// ```
/// use raftwood::{BoxError, Durability, EventListener, Options, RegionId, Rollback};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// /// Nothing that was applied is to be discarded.
/// struct Applied(u64);
///
/// impl EventListener for Applied {
///     fn before_rollback(&self, rollback: &Rollback<'_>) -> Result<(), BoxError> {
///         match rollback.entries().next() {
///             Some(first) if rollback.first() <= self.0 => {
///                 Err(format!("region {} has applied {:?}", rollback.region(), first?.id).into())
///             }
///             _ => Ok(()),
///         }
///     }
/// }
///
/// let engine = Options::new().listener(Arc::new(Applied(1))).open(dir.path())?;
/// engine.append_next(RegionId(7), ["a", "b"], Durability::Synced)?;
/// for (index, is_refused) in [(2, false), (1, true)] {
///     let mut batch = engine.batch();
///     batch.region(RegionId(7)).truncate_from(index);
///     assert_eq!(engine.write(batch, Durability::Synced).is_err(), is_refused);
/// }
/// # Ok(()) }
/// ```
pub struct Rollback<'a> {
    pub(crate) region: RegionId,
    pub(crate) incarnation: Lsn,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) cause: RollbackCause,
    /// Reads one of them.
    pub(crate) entry: &'a (dyn Fn(u64) -> Result<Entry> + Send + Sync),
}

impl fmt::Debug for Rollback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rollback(region {}, {}..={})", self.region, self.first, self.last)
    }
}

impl Rollback<'_> {
    /// The region that loses entries.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// Which of the regions that had this id one after the other: the position of the end of the batch that
    /// made it. Region, incarnation, term and index name an entry, and no other one, also where the region
    /// is destroyed and made again.
    ///
    /// A region that was made before format 3 has the lowest position that there is. A recovery that moves
    /// the end of a log that was not closed gives the regions that were made there a new one, which no other
    /// ever had.
    pub fn incarnation(&self) -> Lsn {
        self.incarnation
    }

    /// The first index to be discarded.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The last index to be discarded.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What discards them. Of those that a leader replaces it is certain that they are not committed; of
    /// others nobody knows here.
    pub fn cause(&self) -> RollbackCause {
        self.cause
    }

    /// The entries to be discarded, in order. One that cannot be read is an error in its place.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        (self.first..=self.last).map(self.entry)
    }
}
