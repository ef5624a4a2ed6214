//! Who writes a region, among the stores of one engine that could.
//!
//! A consensus library may hold a group's store for a moment after it was shut down, while the next one is
//! made already. Two that write one log would each be wrong about it. Therefore a region has one writer at a
//! time, which holds it under an epoch: the next one waits until it has left, or takes the region over, and
//! then what the older one asks to be written is refused. In memory only: a writer does not outlast its
//! process.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::RegionId;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The writers of an engine's regions.
#[derive(Default)]
pub(super) struct Writers(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The last that was given away. No two writers have the same, of whatever region.
    epoch: u64,
    seats: HashMap<RegionId, Seat>,
}

#[derive(Default)]
struct Seat {
    holder: Option<u64>,
    /// The epochs of batches that are being accepted: those of a holder that left, or was taken over, come
    /// before all that the next one does.
    underway: Vec<u64>,
    waiting: Vec<Waker>,
}

impl Seat {
    fn wait(&mut self, waker: Option<&Waker>) {
        if let Some(waker) = waker
            && !self.waiting.iter().any(|known| known.will_wake(waker))
        {
            self.waiting.push(waker.clone());
        }
    }
}

impl Writers {
    /// Lets `change` change the seat of `region`, and wakes who waits for it.
    fn vacate(&self, region: RegionId, change: impl FnOnce(&mut Seat)) {
        let mut table = self.0.lock();
        let Some(seat) = table.seats.get_mut(&region) else { return };
        change(seat);
        let waiting = std::mem::take(&mut seat.waiting);
        if seat.holder.is_none() && seat.underway.is_empty() {
            table.seats.remove(&region);
        }
        drop(table);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// One of those that would write a region, of which one at a time may: for an adapter whose stores of one
/// group can overlap for a moment, since its library holds the former one while the next is made already.
///
/// Writers are held apart among themselves, and in this engine only; a batch that is written without a
/// [permit](Self::begin) is not refused. Of another process none is needed: it cannot open the store. Nothing
/// of this is on disk, and after a restart nobody holds anything. A writer does not keep the engine open.
///
/// Each time that a region is acquired, or taken over, begins an epoch. A batch is begun in the epoch of its
/// writer and refused in any later one; what an earlier one has begun comes before all that the next one
/// writes. Dropping a writer [releases](Self::release) the region.
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, ErrorKind, RegionId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let former = engine.region_writer(RegionId(7));
/// former.acquire().await;
///
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
/// let permit = former.begin()?;
/// let ticket = engine.submit(batch, Durability::Synced)?;
/// drop(permit); // accepted: the next writer sees it
///
/// let next = engine.region_writer(RegionId(7));
/// assert_eq!(next.try_acquire().unwrap_err().kind(), ErrorKind::Locked);
/// next.take_over(); // or drop the former one
/// next.acquire().await;
/// assert_eq!(former.begin().unwrap_err().kind(), ErrorKind::Locked);
/// drop(next.begin()?);
/// ticket.await?;
/// # Ok(()) }
/// ```
pub struct RegionWriter {
    writers: Arc<Writers>,
    region: RegionId,
    hold: Mutex<Hold>,
}

#[derive(Clone, Copy, Debug)]
enum Hold {
    NotYet,
    /// Nobody else begins to write; what others began may still be underway.
    Claimed(u64),
    Held(u64),
    Left,
}

/// What a writer has to wait for.
#[derive(Clone, Copy)]
enum InTheWay {
    Holder,
    Underway,
}

impl Engine {
    /// One more writer of the region, which does not hold it yet: see [`RegionWriter`].
    pub fn region_writer(&self, region: RegionId) -> RegionWriter {
        RegionWriter { writers: self.0.writers.clone(), region, hold: Mutex::new(Hold::NotYet) }
    }
}

impl RegionWriter {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.writers.0.lock()
    }

    /// What it has to wait for before it holds the region; then `waker` is woken when that may have changed.
    fn wait(&self, waker: Option<&Waker>) -> Option<InTheWay> {
        let mut hold = self.hold.lock();
        if let Hold::Held(_) | Hold::Left = *hold {
            return None;
        }
        let mut table = self.table();
        let Table { epoch, seats } = &mut *table;
        let seat = seats.entry(self.region).or_default();
        let mine = match *hold {
            Hold::Claimed(mine) => mine,
            _ if seat.holder.is_some() => {
                seat.wait(waker);
                return Some(InTheWay::Holder);
            }
            _ => {
                *epoch += 1;
                seat.holder = Some(*epoch);
                *epoch
            }
        };
        *hold = Hold::Claimed(mine);
        if seat.underway.iter().any(|other| *other != mine) {
            seat.wait(waker);
            return Some(InTheWay::Underway);
        }
        *hold = Hold::Held(mine);
        None
    }

    /// Acquires the region if nobody is in the way. One that was taken over, or has released the region, does
    /// not wait, and holds nothing: [`begin`](Self::begin) refuses it.
    ///
    /// # Errors
    /// `Locked` while another writer holds the region, or while a batch of one that did is not accepted yet;
    /// the message says which.
    pub fn try_acquire(&self) -> Result<()> {
        let why = match self.wait(None) {
            None => return Ok(()),
            Some(InTheWay::Holder) => {
                "another writer of this engine holds the region: drop it, or take the region over"
            }
            Some(InTheWay::Underway) => {
                "a batch of the writer before this one is not accepted yet: \
                 see whether the device hangs (Event::SyncStalled)"
            }
        };
        Err(Error::new(ErrorKind::Locked, why).in_region(self.region))
    }

    /// As [`try_acquire`](Self::try_acquire), and waits until nobody is in the way: bound it by a timeout of
    /// the runtime's. Where the future is dropped while only batches of a former holder are underway, the
    /// region stays claimed for this writer, until that is released.
    pub async fn acquire(&self) {
        poll_fn(|cx| match self.wait(Some(cx.waker())) {
            None => Poll::Ready(()),
            Some(_) => Poll::Pending,
        })
        .await
    }

    /// Begins an epoch of this writer, also where another one holds the region: what that one begins from now
    /// on is refused. [Acquire](Self::acquire) the region before writing: what it has begun comes first.
    pub fn take_over(&self) {
        let mut hold = self.hold.lock();
        let mut table = self.table();
        table.epoch += 1;
        let epoch = table.epoch;
        table.seats.entry(self.region).or_default().holder = Some(epoch);
        *hold = Hold::Claimed(epoch);
    }

    /// Begins a write. Keep the permit until the batch was accepted or refused: the next writer waits for it.
    ///
    /// # Errors
    /// `Locked` if another has taken the region over, or this one does not hold it.
    pub fn begin(&self) -> Result<WritePermit> {
        let hold = *self.hold.lock();
        let mut table = self.table();
        match (hold, table.seats.get_mut(&self.region)) {
            (Hold::Held(mine), Some(seat)) if seat.holder == Some(mine) || planted(Bug::TakenOverWrites) => {
                seat.underway.push(mine);
                Ok(WritePermit { writers: self.writers.clone(), region: self.region, epoch: mine })
            }
            (Hold::Held(_) | Hold::Claimed(_), _) => Err(Error::new(
                ErrorKind::Locked,
                "write refused: another writer has taken the region over; drop this one",
            )
            .in_region(self.region)),
            (Hold::NotYet | Hold::Left, _) => Err(Error::new(
                ErrorKind::Locked,
                "write refused: this writer does not hold the region; acquire it first",
            )
            .in_region(self.region)),
        }
    }

    /// Gives the region up, for good, as dropping the writer does.
    pub fn release(&self) {
        if let Hold::Claimed(mine) | Hold::Held(mine) = std::mem::replace(&mut *self.hold.lock(), Hold::Left)
        {
            self.writers.vacate(self.region, |seat| {
                seat.holder.take_if(|holder| *holder == mine);
            });
        }
    }
}

impl Drop for RegionWriter {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for RegionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionWriter")
            .field("region", &self.region)
            .field("hold", &*self.hold.lock())
            .finish_non_exhaustive()
    }
}

/// A batch of a [`RegionWriter`] on its way to being accepted, until this is dropped.
#[must_use = "dropped before the batch is accepted, it lets the next writer go ahead of it"]
pub struct WritePermit {
    writers: Arc<Writers>,
    region: RegionId,
    epoch: u64,
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        self.writers.vacate(self.region, |seat| {
            if let Some(at) = seat.underway.iter().position(|epoch| *epoch == self.epoch) {
                seat.underway.swap_remove(at);
            }
        });
    }
}

impl fmt::Debug for WritePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritePermit").field("region", &self.region).field("epoch", &self.epoch).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const R: RegionId = RegionId(7);

    fn writer(writers: &Arc<Writers>, region: RegionId) -> RegionWriter {
        RegionWriter { writers: writers.clone(), region, hold: Mutex::new(Hold::NotYet) }
    }

    fn holds(writer: &RegionWriter) -> bool {
        writer.try_acquire().is_ok()
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_next_writer_waits_until_the_one_before_has_left_and_what_it_began_is_over() {
        let writers = Arc::default();
        let (a, b, other) = (writer(&writers, R), writer(&writers, R), writer(&writers, RegionId(8)));
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        assert!(holds(&a) && holds(&other));
        let underway = a.begin().unwrap();
        assert!(b.wait(Some(&waker)).is_some() && b.wait(Some(&waker)).is_some());
        assert_eq!(b.begin().map(drop).unwrap_err().region(), Some(R));
        a.release();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(b.wait(Some(&waker)).is_some());
        drop(underway);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(holds(&b));
        drop(b.begin().unwrap());
        // One that left is not in the way, and holds nothing.
        assert!(holds(&a) && a.begin().is_err());
        b.release();
        other.release();
        assert!(writers.0.lock().seats.is_empty());
    }

    #[test]
    fn one_that_was_taken_over_writes_nothing_more_and_leaves_the_other_alone() {
        let writers = Arc::default();
        let (a, b) = (writer(&writers, R), writer(&writers, R));
        assert!(holds(&a));
        let underway = a.begin().unwrap();
        b.take_over();
        assert!(holds(&a) && a.begin().is_err());
        assert!(!holds(&b), "what the older one began is not over");
        drop(underway);
        a.release();
        assert!(holds(&b));
        drop(b.begin().unwrap());
    }
}
