//! The agent's side: fills in what it was asked to hand on.

use super::super::storage::RegionStorage;
use super::broadcast::{Broadcast, Neighbour, Refusal};
use crate::{Error, ErrorKind, RegionId, Result};
use raft::prelude::Message;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// So many ticks an append waits for entries that this log does not have yet. The agent's own append, which
/// brings them, came with it or is at most as late as the leader's window of appends is long.
pub const WAIT_TICKS: u64 = 2;

/// The most appends that one group's agent holds for its neighbours. One more is refused.
pub const WAITING_MAX: usize = 1024;

/// The most of them that are read or have been, so that they hold entries in memory: of
/// [`FILL_BYTES_MAX`](super::FILL_BYTES_MAX) each, at the very most.
pub const FILLS_MAX: usize = 4;

/// What an agent has to send.
#[derive(Clone, Debug, PartialEq)]
pub enum HandedOn {
    /// To a neighbour, in the leader's name, as any raft message. The follower compares `message.to` with its
    /// own peer id as always.
    Append {
        /// Where it goes.
        store: u64,
        /// The whole append.
        message: Message,
    },
    /// To the leader.
    Refused(Refusal),
}

/// What one replica hands on to its neighbours: it stands beside the replica's `RawNode`, and ends with it.
///
/// It is driven by the thread that drives the `RawNode`, and never blocks:
///
/// - a [`Broadcast`] arrives: [`receive`](Self::receive), and step what it returns;
/// - entries became readable (`write` or `submit` of a [`ReadyBatch`](super::super::ReadyBatch) returned), a
///   notice came, or time has passed ([`tick`](Self::tick)): [`poll`](Self::poll), and send what it returns.
///
/// Nothing of it is durable, nor needs to be. After a crash the neighbours have not been sent what was held
/// here, as if it had been lost on its way.
///
/// When the replica is destroyed, drop it: what it holds is not sent. What arrives late for the old replica
/// is refused by the next one's by the peer id.
pub struct Agent {
    storage: RegionStorage,
    peer: u64,
    notify: Arc<dyn Fn(RegionId) + Send + Sync>,
    /// In the order of arrival, which is that of sending for each neighbour.
    jobs: VecDeque<Job>,
    /// The number of the next job.
    next: u64,
    now: u64,
    fills: (Sender<Fill>, Receiver<Fill>),
    refused: Vec<HandedOn>,
}

struct Job {
    number: u64,
    neighbour: Neighbour,
    since: u64,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Waiting,
    Filling,
    Filled(Box<Message>),
}

/// Of the job with this number.
type Fill = (u64, Result<Message>);

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Agent { storage, peer, jobs, .. } = self;
        let region = storage.region().id();
        f.debug_struct("Agent")
            .field("region", &region)
            .field("peer", peer)
            .field("held", &jobs.len())
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// For the replica `peer` of the storage's region.
    ///
    /// `notify` is called when there is something to [`poll`](Self::poll), on a thread of the engine, and now
    /// and then from within `poll`: let it send a note to the thread that drives the group.
    pub fn new(
        storage: &RegionStorage,
        peer: u64,
        notify: impl Fn(RegionId) + Send + Sync + 'static,
    ) -> Agent {
        Agent {
            storage: storage.clone(),
            peer,
            notify: Arc::new(notify),
            jobs: VecDeque::new(),
            next: 0,
            now: 0,
            fills: channel(),
            refused: Vec::new(),
        }
    }

    /// Takes a broadcast. What comes back is this replica's own append: step it, persist it, then
    /// [`poll`](Self::poll).
    ///
    /// # Errors
    /// Those of [`Broadcast::check`], and `InvalidArgument` for one that is for another replica: this region
    /// has been destroyed and made again, or the sender is mistaken. Drop it as a whole.
    pub fn receive(&mut self, broadcast: Broadcast) -> Result<Option<Message>> {
        let region = self.storage.region().id();
        broadcast.check().map_err(|e| e.in_region(region))?;
        if broadcast.to != self.peer {
            let why = format!(
                "the broadcast is for peer {}, and this store holds peer {}: drop it",
                broadcast.to, self.peer
            );
            return Err(Error::new(ErrorKind::InvalidArgument, why).in_region(region));
        }
        for neighbour in broadcast.neighbours {
            if self.jobs.len() >= WAITING_MAX {
                self.refuse(&neighbour);
                continue;
            }
            let (number, since) = (self.next, self.now);
            self.next += 1;
            self.jobs.push_back(Job { number, neighbour, since, stage: Stage::Waiting });
        }
        Ok(broadcast.append)
    }

    /// A tick of the group, as `RawNode::tick`: what waits grows older. Poll after it.
    pub fn tick(&mut self) {
        self.now += 1;
    }

    /// Starts to read what can be read by now, and returns what can be sent: to each neighbour in the
    /// leader's order. It reads nothing itself.
    pub fn poll(&mut self) -> Vec<HandedOn> {
        while let Ok((number, filled)) = self.fills.1.try_recv() {
            self.filled(number, filled);
        }
        self.start_fills();
        let mut out = std::mem::take(&mut self.refused);
        let mut earlier = BTreeSet::new();
        for job in std::mem::take(&mut self.jobs) {
            match job.stage {
                Stage::Filled(message) if !earlier.contains(&job.neighbour.peer()) => {
                    out.push(HandedOn::Append { store: job.neighbour.store, message: *message });
                }
                _ => {
                    earlier.insert(job.neighbour.peer());
                    self.jobs.push_back(job);
                }
            }
        }
        out
    }

    /// Whether nothing is held for a neighbour, and nothing is left to poll.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.refused.is_empty()
    }

    fn filled(&mut self, number: u64, filled: Result<Message>) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.number == number) else { return };
        match filled {
            Ok(message) => job.stage = Stage::Filled(Box::new(message)),
            Err(_) => {
                let neighbour = job.neighbour.clone();
                self.refuse(&neighbour);
            }
        }
    }

    /// In the order of arrival, as far as the entries are there and memory allows.
    fn start_fills(&mut self) {
        let mut room =
            FILLS_MAX.saturating_sub(self.jobs.iter().filter(|j| j.stage != Stage::Waiting).count());
        let (mut held_up, mut refused) = (BTreeSet::new(), Vec::new());
        for job in self.jobs.iter_mut().filter(|job| job.stage == Stage::Waiting) {
            let to = job.neighbour.peer();
            if held_up.contains(&to) {
                continue;
            }
            match job.neighbour.append.check(&self.storage) {
                Ok(()) if room > 0 => {
                    room -= 1;
                    job.stage = Stage::Filling;
                    let (number, done) = (job.number, self.fills.0.clone());
                    let (notify, region) = (self.notify.clone(), self.storage.region().id());
                    job.neighbour.append.clone().fill(&self.storage, move |filled| {
                        // Nobody asks any more where the agent was dropped.
                        if done.send((number, filled)).is_ok() {
                            notify(region);
                        }
                    });
                    continue;
                }
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Unavailable && self.now - job.since < WAIT_TICKS => {}
                Err(_) => refused.push(job.neighbour.clone()),
            }
            held_up.insert(to);
        }
        refused.iter().for_each(|neighbour| self.refuse(neighbour));
    }

    /// What else is held for that neighbour would not meet its log: it goes too, and the leader is notified
    /// once.
    fn refuse(&mut self, neighbour: &Neighbour) {
        let (to, message) = (neighbour.peer(), &neighbour.append.message);
        self.jobs.retain(|job| job.neighbour.peer() != to);
        let refusal = Refusal { from: self.peer, to: message.from, term: message.term, neighbour: to };
        if !self.refused.contains(&HandedOn::Refused(refusal)) {
            self.refused.push(HandedOn::Refused(refusal));
        }
    }
}
