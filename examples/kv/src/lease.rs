//! The leader's lease: for how long nobody else can have been elected.
//!
//! A follower that receives from its leader votes for nobody until an election timeout has passed
//! (`check_quorum` and `pre_vote` are on). So when a majority has answered something that the leader sent at
//! a moment `t` (it committed an entry proposed then, or confirmed a read index asked for then), there is no
//! other leader before `t` plus that timeout. The lease is shorter by a margin for ticks.
//!
//! Three things would break this, and are taken care of: a follower forgets in a restart whom it received
//! from (it answers no request for a vote until a timeout has passed, [`VOTE_AFTER`]); a leader that hands
//! over lets its successor be elected at once (it has no lease for the rest of its term); a clock that stops
//! while the machine sleeps (the clock here is the one that goes on).

use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::time::Duration;

/// One tick of raft's clock.
pub const TICK: Duration = Duration::from_millis(30);
/// Ticks without a leader before a follower may vote for another.
pub const ELECTION_TICKS: u32 = 20;
/// Shorter than [`ELECTION_TICKS`]: the first of them may be short, and clocks are not alike.
pub const LEASE: Duration = Duration::from_millis(480);
/// After a start, requests for votes are not answered for so long.
pub const VOTE_AFTER: Duration = Duration::from_millis(30 * (ELECTION_TICKS as u64 + 2));

/// Time since the machine was started, sleep included.
pub fn now() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}

#[derive(Default)]
pub struct Lease {
    term: u64,
    until: Duration,
    given_up: bool,
    /// Index and moment of this term's proposals that are not committed yet.
    proposed: VecDeque<(u64, Duration)>,
}

impl Lease {
    fn enter(&mut self, term: u64) {
        if term != self.term {
            *self = Lease { term, ..Lease::default() };
        }
    }

    /// An entry was proposed.
    pub fn proposed(&mut self, term: u64, index: u64, at: Duration) {
        self.enter(term);
        self.proposed.push_back((index, at));
    }

    /// Everything up to here is committed, seen by the leader of this term.
    pub fn committed(&mut self, term: u64, index: u64) {
        self.enter(term);
        while let Some((_, at)) = self.proposed.front().copied().filter(|p| p.0 <= index) {
            self.proposed.pop_front();
            self.until = self.until.max(at + LEASE);
        }
    }

    /// A majority has confirmed that it followed this leader after `at`.
    pub fn confirmed(&mut self, term: u64, at: Duration) {
        self.enter(term);
        self.until = self.until.max(at + LEASE);
    }

    /// Leadership is being handed over: no more lease in this term.
    pub fn give_up(&mut self, term: u64) {
        self.enter(term);
        self.given_up = true;
    }

    /// Whether a read may be answered from here.
    pub fn holds(&self, term: u64, at: Duration) -> bool {
        term == self.term && !self.given_up && at < self.until
    }
}
