//! The bound on bytes in flight, and who waits for room.

use crate::error::{Error, ErrorKind};
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

/// Bytes of what is in flight. Only [`Room::take`] makes them, once: who has them hands them on, and the end
/// of a stage [gives them back](Room::give_back).
#[must_use]
#[derive(Default)]
pub(super) struct Taken(usize);

impl Taken {
    pub(super) fn len(&self) -> usize {
        self.0
    }

    /// These are the other's too.
    pub(super) fn join(&mut self, other: Taken) {
        self.0 += other.0;
    }
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

    pub(super) fn take(&mut self, bytes: usize) -> Taken {
        self.bytes += bytes;
        Taken(bytes)
    }

    pub(super) fn give_back(&mut self, taken: Taken) {
        self.bytes -= taken.0;
    }

    /// The calling thread waits, after those that do already.
    pub(super) fn queue_up(&mut self) {
        self.line.push_back(thread::current().id());
    }

    /// The calling thread waits no more: it is the first and has its room, or is refused wherever it stands.
    pub(super) fn leave_line(&mut self) {
        let me = thread::current().id();
        let place = self.line.iter().position(|id| *id == me);
        if let Some(place) = place {
            self.line.remove(place);
        }
    }

    /// There is no room, and the caller does not wait.
    pub(super) fn refusal(&self) -> Error {
        Error::new(
            ErrorKind::WouldBlock,
            format!(
                "{} bytes are in flight and the bound is {} (in_flight_bytes_max); try again when tickets complete",
                self.bytes, self.bytes_max
            ),
        )
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }
}
