//! The reads of an open engine: each is counted and, where it meets damage, tried once more; what is still
//! damaged then is remembered, and what turns out to be right after all is forgotten.

use super::{Failed, doubtful};
use crate::clock;
use crate::error::Result;
use crate::histogram::Times;
use crate::index::RegionState;
use crate::listener::Event;
use crate::news::News;
use crate::segment::{Unreadable, rebuild_footer};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::RegionId;
use std::ops::Range;

/// Two looks at the clock are a tenth of a short read, so one in so many is timed.
const ONE_TIMED_IN: u64 = 16;

pub(crate) struct Reads {
    news: Arc<News>,
    /// Those that were answered with what was asked for.
    pub(crate) answered: AtomicU64,
    /// How long some of these took.
    pub(crate) times: Times,
    /// Those that met bytes which are wrong or cannot be read.
    pub(crate) errors: AtomicU64,
    /// Those that were tried once more for that.
    pub(crate) retries: AtomicU64,
}

impl Reads {
    pub(crate) fn new(news: Arc<News>) -> Reads {
        Reads {
            news,
            answered: AtomicU64::new(0),
            times: Times::default(),
            errors: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    /// A read with all that belongs to it: it is counted, or that it failed for what is on the disk. That an
    /// entry is not there is an answer, and neither. `indexes` says which entries a value holds.
    pub(crate) fn rescued<T>(
        &self,
        region: RegionId,
        read: impl Fn() -> Result<T, Failed>,
        indexes: impl Fn(&T) -> Range<u64>,
    ) -> Result<T, Failed> {
        let is_timed = self.answered.load(Ordering::Relaxed).is_multiple_of(ONE_TIMED_IN);
        let began = is_timed.then(clock::now);
        let outcome = self.read_or_rescue(region, || read().map_err(|e| e.of(region)), indexes);
        match &outcome {
            Ok(_) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                began.into_iter().for_each(|began| self.times.since(began));
            }
            Err(Failed::At(..)) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
            Err(Failed::Plainly(_)) => {}
        }
        outcome
    }

    /// Tries `read`; where it meets damage that is new, rebuilds the segment's footer, which may have been
    /// what was wrong, and tries once more.
    fn read_or_rescue<T>(
        &self,
        region: RegionId,
        read: impl Fn() -> Result<T, Failed>,
        indexes: impl Fn(&T) -> Range<u64>,
    ) -> Result<T, Failed> {
        let (index, segment, mut unreadable) = match read() {
            Ok(value) => {
                if self.with(region, |s| s.damage.is_some()) == Some(true) {
                    self.forget_damage(region, indexes(&value));
                }
                return Ok(value);
            }
            Err(Failed::At(index, segment, e @ (Unreadable::Wrong(_) | Unreadable::Lost(_)))) => {
                (index, segment, e)
            }
            Err(e) => return Err(e),
        };
        let known = |s: &RegionState| s.damage.as_deref().map(|d| (d.covers(index), d.suspect.covers(index)));
        match self.with(region, known).flatten() {
            Some((_, true)) => {
                let (doubtful, error) = (doubtful(region, index), unreadable.error());
                let doubtful = match error.path() {
                    Some(path) => doubtful.at(path, error.offset()),
                    None => doubtful,
                };
                return Err(Failed::At(index, segment, Unreadable::Wrong(doubtful)));
            }
            Some((true, _)) => return Err(Failed::At(index, segment, unreadable)),
            _ => {}
        }
        if segment.footer().is_some() && rebuild_footer(&segment).is_ok() {
            self.retries.fetch_add(1, Ordering::Relaxed);
            match read() {
                Ok(value) => return Ok(value),
                Err(Failed::At(_, _, e)) => unreadable = e,
                Err(plainly) => return Err(plainly),
            }
        }
        // What was read may be no part of the log any more; then it says nothing of what stands at
        // the index now.
        let is_there = |s: &RegionState| s.extent(index).is_some_and(|e| e.segment().id == segment.id);
        if self.with(region, is_there) == Some(true) {
            self.note_damage(region, index, &unreadable);
        }
        Err(Failed::At(index, segment, unreadable))
    }

    /// An entry was found damaged: listeners are notified, and it is fenced if its bytes were seen to be
    /// wrong. A read that failed may succeed the next time: the region's health shows it until it does,
    /// and the entry is not fenced.
    pub(crate) fn note_damage(&self, region: RegionId, index: u64, unreadable: &Unreadable) {
        let News { table, listeners } = &*self.news;
        let note = |note: &dyn Fn(&mut RegionState) -> bool| {
            table.get(region).is_none_or(|cell| note(&mut table.change(&cell)))
        };
        let is_new = match unreadable {
            Unreadable::Wrong(_) => note(&|state| {
                state.note_damage(index);
                true
            }),
            Unreadable::Lost(_) => note(&|state| state.note_unread(index)),
            Unreadable::Failed(_) => return,
        };
        if is_new {
            listeners.deliver(&Event::DamageFound { error: unreadable.error() });
        }
        self.news.deliver();
    }

    /// These entries were read and are right.
    pub(crate) fn forget_damage(&self, region: RegionId, indexes: Range<u64>) {
        let table = &self.news.table;
        if let Some(cell) = table.get(region) {
            table.change(&cell).forget_damage(indexes);
        }
        self.news.deliver();
    }

    /// `None` of a region that nothing is known of.
    fn with<T>(&self, region: RegionId, look: impl FnOnce(&RegionState) -> T) -> Option<T> {
        self.news.table.get(region).map(|cell| look(&cell.read()))
    }
}
