//! What the lock of the pipeline guards: the stages, and what lies between them.

use super::accept::Accept;
use super::active::{Placement, Segments};
use super::admission::Admission;
use super::gather::Gathering;
use super::pending::{Pending, Record, Waiting};
use super::queue::Queue;
use super::room::Room;
use super::sync_stage::SyncStage;
use super::turns::Turns;
use super::write_stage::WriteStage;
use crate::clock;
use crate::codec::checksum::crc32;
use crate::error::{Error, Result};
use crate::format::batch::Encoded;
use crate::format::record::{RECORD_HEADER_LEN, RecordKind, Shape, record_len};
use crate::index::Table;
use crate::planted::{Bug, planted};
use crate::segment::Segment;
use crate::sync::Arc;
use crate::types::{Durability, Lsn};
use bytes::Bytes;
use std::time::Duration;

/// The longest that a batch is kept back to be written with others: a kill while a sync hangs costs what was
/// accepted in this time, and no more.
const DEFERRED_MAX: Duration = Duration::from_millis(1);

/// Everything that the pipeline's lock guards.
pub(super) struct Pipeline {
    pub(super) room: Room,
    pub(super) admission: Admission,
    pub(super) segments: Segments,
    pub(super) queue: Queue,
    pub(super) gathering: Gathering,
    pub(super) write: WriteStage,
    pub(super) sync: SyncStage,
    pub(super) turns: Turns,
    /// A thread sleeps that will look at the queue after [`DEFERRED_MAX`]. Unknown once another stage has
    /// begun: then the next one does.
    pub(super) watched: bool,
    /// The thread that works for tickets sleeps.
    pub(super) driver_sleeps: bool,
    /// How many threads wait for the end of a stage.
    pub(super) awaiting_change: u32,
    pub(super) closed: bool,
}

impl Pipeline {
    /// Of a run that begins at `start`, after a log whose last record has the shape `chain`.
    pub(super) fn new(table: Arc<Table>, start: Lsn, chain: Shape, in_flight_max: usize) -> Pipeline {
        Pipeline {
            room: Room::new(in_flight_max),
            admission: Admission::new(table),
            segments: Segments::new(start.segment()),
            queue: Queue::default(),
            gathering: Gathering::default(),
            write: WriteStage::new(chain),
            sync: SyncStage::new(start),
            turns: Turns::new(),
            watched: false,
            driver_sleeps: false,
            awaiting_change: 0,
            closed: false,
        }
    }

    /// Fails once the engine is closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::closed()) } else { Ok(()) }
    }

    /// Queues a batch that was admitted. Returns it as a thread knows it that waits, and as a ticket does.
    pub(super) fn push(
        &mut self,
        place: Placement,
        encoded: &Encoded,
        how: &Accept<'_>,
        has_ticket: bool,
    ) -> (Waiting, Option<Arc<Pending>>) {
        let Placement { segment, offset, end } = place;
        let durability = how.durability;
        let waiting = Waiting { end, durability, turn: self.turns.now(), began: how.began };
        let ticket = has_ticket.then(|| Arc::new(Pending::new(waiting)));
        let taken = self.room.take((end.offset() - offset) as usize);
        self.queue.push(Record {
            end,
            taken,
            durability,
            ticket: ticket.clone(),
            began: how.began,
            kind: encoded.kind,
            segment,
            offset,
            header: [0; RECORD_HEADER_LEN as usize],
            desc: encoded.desc.clone(),
            desc_crc: encoded.desc_crc,
            payload: encoded.payload.clone(),
        });
        self.segments.advance(end.offset());
        (waiting, ticket)
    }

    /// Queues copies of what was written before, if some would stand in another block than what they are
    /// copies of; `all`: wherever they would stand. Nobody waits for them. Returns where they end.
    pub(super) fn push_copies(&mut self, all: bool) -> Option<Lsn> {
        let (segment, offset) = self.segments.active()?;
        let uncopied = &mut self.write.uncopied;
        let count = if all { uncopied.len() } else { uncopied.due_at(Lsn::new(segment.id, offset)) };
        if count == 0 {
            return None;
        }
        let list = uncopied.list(count);
        let Placement { segment, offset, end } = self.segments.place_for(record_len(list.len() as u32, 0))?;
        uncopied.forget(count);
        let taken = self.room.take((end.offset() - offset) as usize);
        self.queue.push(Record {
            end,
            taken,
            durability: Durability::Synced,
            ticket: None,
            began: clock::now(),
            kind: RecordKind::Copies,
            segment,
            offset,
            header: [0; RECORD_HEADER_LEN as usize],
            desc_crc: crc32(0, &list),
            desc: list,
            payload: Bytes::new(),
        });
        self.segments.advance(end.offset());
        Some(end)
    }

    /// The segment that comes next, if it should be filled further by now.
    pub(super) fn due_for_filling(&self) -> Option<&Arc<Segment>> {
        self.segments.due_for_filling(self.sync.at_once())
    }

    /// Whether there is work that no thread is doing.
    pub(super) fn has_work(&self) -> bool {
        self.can_write() || self.sync.can_begin()
    }

    pub(super) fn can_write(&self) -> bool {
        let deferred = self.sync.is_busy() && self.queue.may_wait();
        self.write.since().is_none() && !self.queue.is_empty() && !deferred
    }

    /// Whether no batch is left that a stage has to take.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.sync.is_empty()
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.is_drained() && !self.sync.is_busy() && self.write.since().is_none()
    }

    /// How long a thread may sleep that found others at work: one of them looks after a while
    /// whether what is queued is written.
    pub(super) fn watch(&mut self) -> Option<Duration> {
        let unwatched = !self.queue.is_empty() && !self.watched && !planted(Bug::DeferredForLong);
        // It would find the work that was not handed on, too.
        let unwatched = unwatched && !planted(Bug::WorkNotHandedOn);
        self.watched |= unwatched;
        unwatched.then_some(DEFERRED_MAX)
    }

    /// A thread does not sleep any more. If it was the one that [watches](Pipeline::watch), nobody does now.
    pub(super) fn end_watch(&mut self, watched: bool, timed_out: bool) {
        self.watched &= !watched;
        if timed_out {
            self.queue.hurry();
        }
    }
}
