//! What the lock of the pipeline guards: batches on their way, stages under way, and what is due.

use super::gather::Gathering;
use super::pending::{Pending, Record};
use crate::error::Error;
use crate::format::batch::Loc;
use crate::format::record::Shape;
use crate::index::Planned;
use crate::planted::{Bug, planted};
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{SYNC_SLOTS, Segment};
use crate::sync::Arc;
use crate::sync::thread::ThreadId;
use crate::types::{Durability, Lsn};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// While a sync runs, batches that have to wait for the next one are written together. So many
/// bytes of them are written at once: the device is busy anyway, and what is written now need not
/// be when the next sync could begin.
const DEFERRED_BYTES_MAX: usize = 256 << 10;

/// The longest that a batch is kept back for that: a kill while a sync hangs costs what was
/// accepted in this time, and no more.
const DEFERRED_MAX: Duration = Duration::from_millis(1);

/// Written bytes that no sync was asked for are synced anyway beyond this many: they would have to be
/// re-persisted by the next open.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// One fdatasync under way.
pub(super) struct SyncUnderWay {
    pub(super) target: Lsn,
    pub(super) slot: usize,
    pub(super) ok: bool,
    pub(super) started: Instant,
    /// Of the records that it covers and that none before it does.
    pub(super) bytes: u64,
    /// The last group of which it covers anything.
    pub(super) turn: u64,
}

/// Batches without tickets that follow one another, or one with a ticket, on the way to being durable.
pub(super) struct Awaiting {
    pub(super) end: Lsn,
    pub(super) bytes: usize,
    pub(super) ticket: Option<Arc<Pending>>,
}

/// Whom the end of a stage concerns: the groups of which something is settled, by durability.
#[derive(Default)]
pub(super) struct Settled {
    /// Somebody is to be called back.
    pub(super) tickets: bool,
    pub(super) written: Option<RangeInclusive<u64>>,
    pub(super) synced: Option<RangeInclusive<u64>>,
}

/// Everything that the pipeline's lock guards.
pub(super) struct Pipeline {
    /// The segment that is written to: none before the first record of the run, and none once it was
    /// ended in its place.
    pub(super) active: Option<Arc<Segment>>,
    /// Where the next record goes in `active`.
    pub(super) offset: u32,
    /// The lowest number that a segment may have that becomes active next.
    pub(super) next_id: u32,
    /// Prepared segments, in the order of their numbers.
    pub(super) ready: VecDeque<Arc<Segment>>,
    /// A segment of at least this length is waited for; 0 if none is.
    pub(super) wanted_len: u64,
    /// How many attempts to prepare one have ended, and why the last one failed if it did.
    pub(super) prepare_attempts: u64,
    pub(super) prepare_error: Option<(u64, Error)>,
    /// Accepted, not yet written.
    pub(super) queue: VecDeque<Record>,
    pub(super) queued_bytes: usize,
    /// Something in the queue may not wait for the sync under way to end.
    pub(super) urgent: bool,
    /// The group that is accepted into, counted from 1.
    pub(super) turn: u64,
    /// Something of it is written already, beside a sync.
    pub(super) half_written: bool,
    /// The last group of which a sync that began covers anything. Each sync that begins raises it, so that
    /// threads whose batches it does not cover sleep with a later group.
    pub(super) sync_turn: u64,
    /// The last group of which something is settled when written, and when synced.
    pub(super) settled_written: u64,
    pub(super) settled_synced: u64,
    /// A thread sleeps that will look at the queue after [`DEFERRED_MAX`]. Unknown once another stage has
    /// begun: then the next one does.
    pub(super) watched: bool,
    /// Written, waiting for a sync.
    pub(super) awaiting: VecDeque<Awaiting>,
    /// The thread that works for tickets sleeps.
    pub(super) driver_sleeps: bool,
    /// A thread is in the write stage, since then.
    pub(super) writing: Option<Instant>,
    /// Of the group that it writes.
    pub(super) writing_bytes: usize,
    /// Shape of the last written record.
    pub(super) chain: Shape,
    /// Everything before is in the operating system's hands.
    pub(super) written: Lsn,
    /// Segments written to since the last sync began, oldest first.
    pub(super) dirty: Vec<Arc<Segment>>,
    /// An empty vector with memory.
    pub(super) spare: Vec<Arc<Segment>>,
    pub(super) unsynced_bytes: u64,
    /// Batches written since the last sync began.
    pub(super) unsynced_batches: usize,
    pub(super) gathering: Gathering,
    /// What one sync covers, on a moving average.
    pub(super) synced_at_once: u64,
    /// Syncs under way, in the order in which they began.
    pub(super) syncs: VecDeque<SyncUnderWay>,
    /// Target of the sync that began last.
    pub(super) sync_target: Lsn,
    /// Somebody waits for everything before to be durable, and has no record of its own.
    pub(super) flush_to: Lsn,
    pub(super) in_flight_bytes: usize,
    /// How many threads wait for [`room`](Committer::room).
    pub(super) in_room: u32,
    /// Who waits for room, in the order in which they came: a large batch would wait forever if
    /// small ones went past it. A thread may stand here twice: it works while it waits, which may
    /// lead it to a callback that waits.
    pub(super) line: VecDeque<ThreadId>,
    pub(super) closed: bool,
    /// What accepting a batch needs memory for.
    pub(super) planned: Planned,
    pub(super) locs: Vec<Loc>,
}

impl Pipeline {
    /// Of a run that begins at `start`, after a log whose last record has the shape `chain`.
    pub(super) fn new(start: Lsn, chain: Shape) -> Pipeline {
        Pipeline {
            active: None,
            offset: FIRST_RECORD,
            next_id: start.segment(),
            ready: VecDeque::new(),
            wanted_len: 0,
            prepare_attempts: 0,
            prepare_error: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            urgent: false,
            turn: 1,
            half_written: false,
            sync_turn: 0,
            settled_written: 0,
            settled_synced: 0,
            watched: false,
            awaiting: VecDeque::new(),
            driver_sleeps: false,
            writing: None,
            writing_bytes: 0,
            chain,
            written: start,
            dirty: Vec::new(),
            spare: Vec::new(),
            unsynced_bytes: 0,
            unsynced_batches: 0,
            gathering: Gathering::default(),
            synced_at_once: 0,
            syncs: VecDeque::new(),
            sync_target: start,
            flush_to: start,
            in_flight_bytes: 0,
            in_room: 0,
            line: VecDeque::new(),
            closed: false,
            planned: Planned::default(),
            locs: Vec::new(),
        }
    }

    /// Whether there is work that no thread is doing.
    pub(super) fn has_work(&self) -> bool {
        self.can_write() || self.can_sync()
    }

    /// While a sync runs, the queue grows: what is in it has to wait for the next one, and is written with
    /// one call. But for what may not wait, and what is worth a call of its own.
    pub(super) fn can_write(&self) -> bool {
        let deferred = !self.syncs.is_empty() && !self.urgent && self.queued_bytes < DEFERRED_BYTES_MAX;
        self.writing.is_none() && !self.queue.is_empty() && !deferred
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

    /// The last group that is settled as far as this durability goes.
    pub(super) fn settled(&self, durability: Durability) -> u64 {
        match durability {
            Durability::Written => self.settled_written,
            Durability::Synced => self.settled_synced,
        }
    }

    pub(super) fn await_sync(&mut self, record: Record) {
        let (end, bytes) = (record.end, record.len());
        match self.awaiting.back_mut() {
            Some(last) if last.ticket.is_none() && record.ticket.is_none() => {
                last.end = end;
                last.bytes += bytes;
            }
            _ => self.awaiting.push_back(Awaiting { end, bytes, ticket: record.ticket }),
        }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.awaiting.is_empty() && self.syncs.is_empty() && self.writing.is_none()
    }

    pub(super) fn can_sync(&self) -> bool {
        let asked = self.awaiting.back().is_some_and(|b| b.end > self.sync_target);
        let asked = asked || self.flush_to > self.sync_target && self.written > self.sync_target;
        (asked || self.unsynced_bytes > UNSYNCED_BYTES_MAX) && self.syncs.len() < SYNC_SLOTS
    }
}
