//! Clocks of nodes that go wrong while the clients write and read.

use crate::clocks::{Fault, Trust};
use crate::cluster::{Cluster, NODES};
use crate::lease::Timing;
use crate::load::Rng;
use crate::wire::{Reply, Request};
use std::time::{Duration, Instant};

/// How wrong they go.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClockFaults {
    /// Not at all.
    None,
    /// Both clocks of a node by no more than the lease allows for, or one of them by as much as it likes.
    #[default]
    Within,
    /// Both clocks of a leader, when it is cut off, are much too slow.
    Beyond,
}

/// What both clocks of a node may gain or lose, in hundredths: a leader that loses this much and followers
/// that gain it are apart by less than the election timeout and the lease are.
const DRIFT: u64 = 4;
/// A clock that hardly goes: a lease by it lasts four times as long.
const HARDLY: u32 = 25;
/// From one fault to the next.
const EVERY: Duration = Duration::from_millis(400);

pub struct Skew {
    faults: ClockFaults,
    timing: Timing,
    trust: Trust,
    next: Instant,
    /// Faults that nodes took.
    pub done: u64,
}

impl Skew {
    pub fn new(faults: ClockFaults, timing: Timing, trust: Trust) -> Skew {
        Skew { faults, timing, trust, next: Instant::now() + EVERY, done: 0 }
    }

    /// How long a lease may last, by clocks that are right.
    pub fn longest_lease(&self) -> Duration {
        let slowest = if self.faults == ClockFaults::None { 100 } else { 100 - DRIFT as u32 };
        self.timing.lease() * 100 / slowest
    }

    /// Now and then the clocks of a node go wrong, or another way.
    pub fn any(&mut self, cluster: &Cluster, rng: &mut Rng) {
        let now = Instant::now();
        if self.faults != ClockFaults::Within || now < self.next {
            return;
        }
        self.next = now + EVERY;
        let drift = |rng: &mut Rng| (100 - DRIFT + rng.below(2 * DRIFT + 1)) as u32;
        let raw_percent = drift(rng);
        let fault = match rng.below(4) {
            // Crystals are not alike.
            0 => Fault { raw_percent, boot_percent: raw_percent, slept_ms: 0 },
            // NTP slews.
            1 => Fault { raw_percent, boot_percent: HARDLY + rng.below(200) as u32, slept_ms: 0 },
            // The machine sleeps.
            2 => Fault { raw_percent, boot_percent: drift(rng), slept_ms: 200 + rng.below(3000) },
            _ => Fault::NONE,
        };
        self.disturb(cluster, 1 + rng.below(NODES), fault);
    }

    /// A leader is about to be cut off: what may make it believe that it leads for longer.
    pub fn of_a_leader(&mut self, cluster: &Cluster, node: u64, rng: &mut Rng) {
        let slow = |raw_percent, boot_percent| Fault { raw_percent, boot_percent, slept_ms: 0 };
        let fault = match self.faults {
            ClockFaults::None => return,
            // Of nodes that go by one clock alone it is that one.
            ClockFaults::Within => match self.trust {
                Trust::Raw => slow(HARDLY, 100),
                Trust::Boot => slow(100, HARDLY),
                Trust::Both if rng.below(2) == 0 => slow(HARDLY, 100),
                Trust::Both => slow(100, HARDLY),
            },
            ClockFaults::Beyond => slow(HARDLY, HARDLY),
        };
        self.disturb(cluster, node, fault);
        // While it is cut off, it stays like that.
        self.next = Instant::now() + self.timing.lease() * 5;
    }

    /// It is no longer cut off.
    pub fn end(&mut self, cluster: &Cluster, node: u64) {
        if self.faults != ClockFaults::None {
            self.disturb(cluster, node, Fault::NONE);
        }
    }

    fn disturb(&mut self, cluster: &Cluster, node: u64, clocks: Fault) {
        let asked = cluster.ask(node, &Request::Disturb { clocks }, Duration::from_secs(2));
        self.done += u64::from(matches!(asked, Ok(Reply::Done)));
    }
}
