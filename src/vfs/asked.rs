//! Which pages of a mapping are in memory, as far as can be told without asking the kernel.
//!
//! A read through a mapping asks for its pages first, all at once: a fault waits for one page, or reads the
//! device's whole read-ahead around it. To ask costs a system call, which is as much as a read that finds
//! everything there. What was written or asked for of late is therefore remembered.

use crate::clock;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is known is forgotten after so long: pages that nobody touches leave the memory again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// One bit stands for so many bytes. Where pages are larger, several bits stand for one.
const PAGE: usize = crate::limits::PAGE as usize;

/// One bit a page, once the first of them is read or written.
pub(super) struct Asked {
    len: usize,
    words: OnceLock<Box<[AtomicU64]>>,
    born: Instant,
    /// When everything was forgotten, in milliseconds since `born`.
    forgotten: AtomicU64,
}

impl Asked {
    /// Of a mapping of `len` bytes, nothing of which is known.
    pub(super) fn new(len: usize) -> Asked {
        Asked { len, words: OnceLock::new(), born: clock::now(), forgotten: AtomicU64::new(0) }
    }

    fn words(&self) -> &[AtomicU64] {
        self.words.get_or_init(|| {
            let words = self.len.div_ceil(PAGE).div_ceil(64);
            (0..words).map(|_| AtomicU64::new(0)).collect()
        })
    }

    /// The bytes of `range` were written just now.
    pub(super) fn note(&self, range: Range<usize>) {
        for (at, mask) in masks(range) {
            if let Some(word) = self.words().get(at) {
                word.fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// The part of `range` that has to be asked for, in whole pages, and is taken to be asked for from here
    /// on. `None` if all of it was, or was written, of late.
    pub(super) fn missing(&self, range: Range<usize>) -> Option<Range<usize>> {
        self.forget(clock::since(self.born));
        let mut missing: Option<Range<usize>> = None;
        for (at, mask) in masks(range) {
            let Some(word) = self.words().get(at) else { break };
            if word.load(Ordering::Relaxed) & mask == mask {
                continue;
            }
            let new = mask & !word.fetch_or(mask, Ordering::Relaxed);
            if new == 0 {
                continue;
            }
            let first = (at * 64 + new.trailing_zeros() as usize) * PAGE;
            let end = (at * 64 + 64 - new.leading_zeros() as usize) * PAGE;
            missing = Some(missing.map_or(first, |m| m.start)..end);
        }
        missing
    }

    fn forget(&self, now: Duration) {
        let now = now.as_millis() as u64;
        let last = self.forgotten.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(last) > FORGOTTEN_AFTER.as_millis() as u64;
        // A thread that asks meanwhile may find a page forgotten that was asked for: it is asked for again.
        if is_due && self.forgotten.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }
}

/// The words and bits of the pages that `range` touches.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let first = range.start / PAGE;
    let end = if range.is_empty() { first } else { range.end.div_ceil(PAGE) };
    (first / 64..end.div_ceil(64)).map(move |word| {
        let from = first.saturating_sub(word * 64);
        let to = (end - word * 64).min(64);
        (word, u64::MAX << from & u64::MAX >> (64 - to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_or_asked_for_is_not_missing() {
        let asked = Asked::new(300 * PAGE);
        assert_eq!(asked.missing(5000..9000), Some(PAGE..3 * PAGE));
        assert_eq!(asked.missing(5000..9000), None);
        assert_eq!(asked.missing(0..3 * PAGE), Some(0..PAGE));
        asked.note(60 * PAGE..130 * PAGE);
        assert_eq!(asked.missing(59 * PAGE..131 * PAGE), Some(59 * PAGE..131 * PAGE));
        assert_eq!(asked.missing(60 * PAGE..131 * PAGE), None);
        assert_eq!(asked.missing(128 * PAGE..128 * PAGE + 1), None);
        assert_eq!(asked.missing(299 * PAGE..300 * PAGE), Some(299 * PAGE..300 * PAGE));
    }

    #[test]
    fn what_lies_outside_is_nobodys() {
        let asked = Asked::new(10 * PAGE);
        asked.note(9 * PAGE..900 * PAGE);
        assert_eq!(asked.missing(9 * PAGE..900 * PAGE), None);
        assert_eq!(asked.missing(5..5), None);
    }

    #[test]
    fn all_of_it_is_forgotten_after_a_while() {
        let asked = Asked::new(10 * PAGE);
        asked.note(0..10 * PAGE);
        asked.forget(FORGOTTEN_AFTER);
        assert_eq!(asked.missing(0..PAGE), None);
        asked.forget(FORGOTTEN_AFTER + Duration::from_millis(1));
        assert_eq!(asked.missing(0..PAGE), Some(0..PAGE));
    }
}
