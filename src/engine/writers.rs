//! Who writes a region, among the stores of one engine that could.
//!
//! A consensus library may hold a group's store for a moment after it was shut down, while the next one is
//! made already. Two that write one log would each be wrong about it. So a region has one writer at a time,
//! which holds it under an epoch: the next one waits until it has left, or takes the region over, and then
//! what the older one asks to be written is refused. In memory only: a writer does not outlast its process.

use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::RegionId;
use std::collections::HashMap;
use std::task::Waker;

/// The writers of an engine's regions.
#[derive(Default)]
pub(crate) struct Writers(Mutex<Table>);

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

/// One that would write a region, and may once it holds it.
pub(crate) struct Writer {
    writers: Arc<Writers>,
    region: RegionId,
    hold: Mutex<Hold>,
}

#[derive(Clone, Copy)]
enum Hold {
    NotYet,
    /// Nobody else begins to write; what others began may still be underway.
    Claimed(u64),
    Held(u64),
    Left,
}

impl Writer {
    pub(crate) fn new(writers: &Arc<Writers>, region: RegionId) -> Writer {
        Writer { writers: writers.clone(), region, hold: Mutex::new(Hold::NotYet) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.writers.0.lock()
    }

    /// Whether it holds the region now; if not, `waker` is woken when that may have changed. One that was
    /// taken over does not wait: [`begin`](Writer::begin) refuses it. Nor does one that left.
    pub(crate) fn try_hold(&self, waker: Option<&Waker>) -> bool {
        let mut hold = self.hold.lock();
        if let Hold::Held(_) | Hold::Left = *hold {
            return true;
        }
        let mut table = self.table();
        let Table { epoch, seats } = &mut *table;
        let seat = seats.entry(self.region).or_default();
        let mine = match *hold {
            Hold::Claimed(mine) => mine,
            _ if seat.holder.is_some() => {
                seat.wait(waker);
                return false;
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
            return false;
        }
        *hold = Hold::Held(mine);
        true
    }

    /// Claims the region, also from one that holds it, whose later writes are refused.
    pub(crate) fn take_over(&self) {
        let mut hold = self.hold.lock();
        let mut table = self.table();
        table.epoch += 1;
        let epoch = table.epoch;
        table.seats.entry(self.region).or_default().holder = Some(epoch);
        *hold = Hold::Claimed(epoch);
    }

    /// Begins a write, which is underway until what is returned is dropped.
    ///
    /// # Errors
    /// `Locked` if another has taken the region over.
    pub(crate) fn begin(&self) -> Result<Underway> {
        let hold = *self.hold.lock();
        let mut table = self.table();
        match (hold, table.seats.get_mut(&self.region)) {
            (Hold::Held(mine), Some(seat)) if seat.holder == Some(mine) || planted(Bug::TakenOverWrites) => {
                seat.underway.push(mine);
                Ok(Underway { writers: self.writers.clone(), region: self.region, epoch: mine })
            }
            _ => Err(Error::new(
                ErrorKind::Locked,
                "write refused: another LogStore has taken the region over; drop this one and its Raft",
            )
            .in_region(self.region)),
        }
    }

    /// The error of one that has waited for `how_long` in vain.
    pub(crate) fn still_waiting(&self, how_long: std::time::Duration) -> Error {
        let why = match *self.hold.lock() {
            Hold::Claimed(_) => format!(
                "a write of the LogStore before this one is not accepted after {how_long:?}: \
                 see whether the device hangs (Event::SyncStalled)"
            ),
            _ => format!(
                "another LogStore of this engine writes the region, and was not dropped within {how_long:?}: \
                 await Raft::shutdown of the group's former Raft and drop its store, or take the region over \
                 (LogStore::take_over)"
            ),
        };
        Error::new(ErrorKind::Locked, why).in_region(self.region)
    }

    /// Gives the region up, for good.
    pub(crate) fn leave(&self) {
        if let Hold::Claimed(mine) | Hold::Held(mine) = std::mem::replace(&mut *self.hold.lock(), Hold::Left)
        {
            self.writers.vacate(self.region, |seat| {
                seat.holder.take_if(|holder| *holder == mine);
            });
        }
    }
}

/// A batch on its way to being accepted.
pub(crate) struct Underway {
    writers: Arc<Writers>,
    region: RegionId,
    epoch: u64,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.writers.vacate(self.region, |seat| {
            if let Some(at) = seat.underway.iter().position(|epoch| *epoch == self.epoch) {
                seat.underway.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const R: RegionId = RegionId(7);

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
        let (a, b, other) =
            (Writer::new(&writers, R), Writer::new(&writers, R), Writer::new(&writers, RegionId(8)));
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        assert!(a.try_hold(None) && other.try_hold(None));
        let underway = a.begin().unwrap();
        assert!(!b.try_hold(Some(&waker)) && !b.try_hold(Some(&waker)));
        assert_eq!(b.begin().map(drop).unwrap_err().region(), Some(R));
        a.leave();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(!b.try_hold(Some(&waker)));
        drop(underway);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(b.try_hold(None));
        drop(b.begin().unwrap());
        // One that left is not in the way, and holds nothing.
        assert!(a.try_hold(None) && a.begin().is_err());
        b.leave();
        other.leave();
        assert!(writers.0.lock().seats.is_empty());
    }

    #[test]
    fn one_that_was_taken_over_writes_nothing_more_and_leaves_the_other_alone() {
        let writers = Arc::default();
        let (a, b) = (Writer::new(&writers, R), Writer::new(&writers, R));
        assert!(a.try_hold(None));
        let underway = a.begin().unwrap();
        b.take_over();
        assert!(a.try_hold(None) && a.begin().is_err());
        assert!(!b.try_hold(None), "what the older one began is not over");
        drop(underway);
        a.leave();
        assert!(b.try_hold(None));
        drop(b.begin().unwrap());
    }
}
