//! The leader's lease: for how long nobody else can have been elected.
//!
//! A follower that receives from its leader votes for nobody until an election timeout has passed
//! (`check_quorum` and `pre_vote` are on). So when a majority has answered something that the leader sent at
//! a moment `t` (it committed an entry proposed then, or confirmed a read index asked for then), there is no
//! other leader before `t` plus that timeout. The lease is shorter by a margin: the first tick after a
//! message may be a short one, and clocks are not alike.
//!
//! No clock can be relied on alone. `CLOCK_BOOTTIME` goes on while the machine sleeps, but NTP slows it down
//! and speeds it up; `CLOCK_MONOTONIC_RAW` knows nothing of NTP, but stands still in a sleep. Each may err in
//! one direction, and which one is dangerous depends on who asks: a lease is over as soon as either clock
//! says so, and a tick towards a vote has passed only when both do.
//!
//! What neither clock counts is beyond this: a virtual machine that is paused, or moved, and does not see the
//! time. When it wakes up it takes its lease for valid until it has received from the others. On such a
//! machine, read by index (`Via::Index`), which asks a majority each time.
//!
//! What else would break it, and is taken care of: a follower forgets in a restart whom it received from (it
//! answers no request for a vote until a timeout has passed, [`Timing::vote_after`]); a leader that hands
//! over lets its successor be elected at once (it has no lease for the rest of its term); another store may
//! have applied a split or a merge, and lead what came of it, before this one has (from its proposal until it
//! is applied here there is no lease, nor is one renewed, and a new region begins without one).

use crate::clocks::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// How fast raft's clock ticks, and what follows from it. All nodes are started with the same.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Timing {
    /// One tick of raft's clock, in milliseconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub tick_ms: u64,
    /// Ticks without a leader before a follower may vote for another.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    pub election_ticks: u32,
    /// Ticks from one heartbeat to the next.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub heartbeat_ticks: u32,
    /// For how long a leader reads without asking, in milliseconds: less than the election ticks.
    #[arg(long, default_value_t = 480)]
    pub lease_ms: u64,
}

impl Timing {
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    pub fn election(&self) -> Duration {
        self.tick() * self.election_ticks
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// After a start, requests for votes are not answered for so long.
    pub fn vote_after(&self) -> Duration {
        self.tick() * (self.election_ticks + 2)
    }

    /// # Errors
    /// A lease that the first tick, which may be short, could outlive.
    pub fn check(&self) -> Result<(), String> {
        match self.lease() <= self.tick() * (self.election_ticks - 1) {
            true => Ok(()),
            false => Err(format!(
                "a lease of {} ms is too long for {} ticks of {} ms, of which the first may be short",
                self.lease_ms, self.election_ticks, self.tick_ms
            )),
        }
    }
}

/// When raft's clock ticks: never two ticks at once, and none that is short by either clock.
pub struct Ticks {
    tick: Duration,
    last: Moment,
}

impl Ticks {
    pub fn new(timing: &Timing, now: Moment) -> Ticks {
        Ticks { tick: timing.tick(), last: now }
    }

    /// Whether a tick is due; if so, the next one is a tick away.
    pub fn is_due(&mut self, now: Moment) -> bool {
        let due = now.is_beyond(self.last, self.tick);
        if due {
            self.last = now;
        }
        due
    }

    /// How long to wait for the next one.
    pub fn wait(&self, now: Moment) -> Duration {
        let left = |now: Duration, last: Duration| (last + self.tick).saturating_sub(now);
        left(now.raw, self.last.raw).max(left(now.boot, self.last.boot))
    }
}

pub struct Lease {
    span: Duration,
    term: u64,
    /// The latest moment after which a majority is known to have followed this leader.
    since: Option<Moment>,
    given_up: bool,
    /// Until this entry is applied, there is no lease.
    suspended: Option<u64>,
    /// What was sent before this moment does not count.
    not_before: Moment,
    /// Index and moment of this term's proposals that are not committed yet.
    proposed: VecDeque<(u64, Moment)>,
}

impl Lease {
    /// None yet.
    pub fn new(timing: &Timing) -> Lease {
        Lease {
            span: timing.lease(),
            term: 0,
            since: None,
            given_up: false,
            suspended: None,
            not_before: Moment::default(),
            proposed: VecDeque::new(),
        }
    }

    fn enter(&mut self, term: u64) {
        if term != self.term {
            self.term = term;
            (self.since, self.given_up, self.suspended) = (None, false, None);
            self.proposed.clear();
        }
    }

    /// An entry was proposed.
    pub fn proposed(&mut self, term: u64, index: u64, at: Moment) {
        self.enter(term);
        self.proposed.push_back((index, at));
    }

    /// Everything up to here is committed, seen by the leader of this term.
    pub fn committed(&mut self, term: u64, index: u64) {
        self.enter(term);
        while let Some((_, at)) = self.proposed.front().copied().filter(|p| p.0 <= index) {
            self.proposed.pop_front();
            self.confirmed(term, at);
        }
    }

    /// A majority has confirmed that it followed this leader after `at`.
    pub fn confirmed(&mut self, term: u64, at: Moment) {
        self.enter(term);
        let is_since = |earlier: Moment| at.raw >= earlier.raw && at.boot >= earlier.boot;
        if self.suspended.is_none() && is_since(self.not_before) && self.since.is_none_or(is_since) {
            self.since = Some(at);
        }
    }

    /// A split or a merge was proposed at `index`: no lease until it is applied here. What was asked of the
    /// others before that does not count afterwards either.
    pub fn suspend(&mut self, term: u64, index: u64) {
        self.enter(term);
        self.since = None;
        self.suspended = self.suspended.max(Some(index));
    }

    /// Entries up to `index` are applied here, at this moment.
    pub fn applied(&mut self, index: u64, at: Moment) {
        if self.suspended.take_if(|until| *until <= index).is_some() {
            self.not_before = at;
        }
    }

    /// Leadership is being handed over: no more lease in this term.
    pub fn give_up(&mut self, term: u64) {
        self.enter(term);
        self.given_up = true;
    }

    /// Whether a read may be answered from here.
    pub fn holds(&self, term: u64, at: Moment) -> bool {
        let is_free = term == self.term && !self.given_up && self.suspended.is_none();
        is_free && self.since.is_some_and(|since| at.is_within(since, self.span))
    }
}
