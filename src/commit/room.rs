//! The bound on bytes in flight, and who waits for room.

use crate::planted::{Bug, planted};
use crate::sync::thread::{self, ThreadId};
use std::collections::VecDeque;

/// How much is in flight: accepted and not complete.
pub(super) struct Room {
    bytes_max: usize,
    bytes: usize,
    /// Who waits, in the order in which they came: a large batch would wait forever if small ones went past
    /// it. A thread may stand here twice: it works while it waits, which may lead it to a callback that
    /// waits.
    line: VecDeque<ThreadId>,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Room {
        Room { bytes_max, bytes: 0, line: VecDeque::new() }
    }

    /// Whether a batch of `len` bytes has to wait: for room, or because others came first.
    pub(super) fn is_lacking(&self, len: usize) -> bool {
        let full = self.bytes > 0 && self.bytes + len > self.bytes_max;
        let others_first = self.line.front().is_some_and(|first| *first != thread::current().id());
        (full || others_first) && !planted(Bug::InFlightUnbounded)
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// The calling thread waits, after those that do already.
    pub(super) fn queue_up(&mut self) {
        self.line.push_back(thread::current().id());
    }

    /// The first of those that wait has its room.
    pub(super) fn leave_line(&mut self) {
        self.line.pop_front();
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }
}
