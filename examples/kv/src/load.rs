//! Clients: each asks for one thing at a time, and writes down what it was answered.

use crate::history::{Op, What};
use crate::region::KEYS;
use crate::wire::{Client, Reply, Request, Via};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Every so manyth group is quiet: a follower that was away for long catches up by entries there,
/// and by a snapshot elsewhere.
pub const QUIET: u64 = 4;

const PATIENCE: Duration = Duration::from_millis(1500);

pub struct Load {
    pub addrs: Vec<SocketAddr>,
    /// Which node is believed to lead each group.
    pub leaders: Vec<AtomicU64>,
    pub stop: AtomicBool,
    /// Reads that a lease answered without a round.
    pub covered: AtomicU64,
    pub began: Instant,
    pub seed: u64,
}

impl Load {
    pub fn new(addrs: Vec<SocketAddr>, groups: u64, seed: u64) -> Arc<Load> {
        let leaders = (0..groups).map(|g| AtomicU64::new(g % addrs.len() as u64 + 1)).collect();
        Arc::new(Load {
            addrs,
            leaders,
            stop: AtomicBool::new(false),
            covered: AtomicU64::new(0),
            began: Instant::now(),
            seed,
        })
    }

    pub fn nanos(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Runs client number `n` until it is stopped.
    pub fn client(&self, n: u64) -> Vec<Op> {
        let mut rng = Rng(self.seed ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut connections: Vec<Option<Client>> = self.addrs.iter().map(|_| None).collect();
        let mut ops = Vec::new();
        let mut written = 0;
        while !self.stop.load(Ordering::Relaxed) {
            // The first group gets more than its share, so that there is always one that moves fast.
            let group = match rng.below(8) {
                0 => 1,
                _ => 1 + rng.below(self.leaders.len() as u64),
            };
            if group.is_multiple_of(QUIET) && rng.below(16) > 0 {
                continue;
            }
            let key = rng.below(KEYS);
            let leader = &self.leaders[group as usize - 1];
            let mut node = leader.load(Ordering::Relaxed);
            let request = match rng.below(10) {
                0..5 => {
                    written += 1;
                    Request::Write { group, key, value: n << 40 | written }
                }
                5 => Request::Read { group, key, via: Via::Log },
                6..8 => {
                    // Any node can find out the index.
                    node = 1 + rng.below(self.addrs.len() as u64);
                    Request::Read { group, key, via: Via::Index }
                }
                _ => Request::Read { group, key, via: Via::Lease },
            };
            let connection = &mut connections[node as usize - 1];
            if connection.is_none() {
                *connection = Client::connect(self.addrs[node as usize - 1], PATIENCE).ok();
            }
            let next = node % self.addrs.len() as u64 + 1;
            let Some(client) = connection else {
                leader.store(next, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let start = self.nanos();
            let reply = client.call(&request);
            let end = self.nanos();
            let done = |what| Op { group, key, start, end, what };
            match (&request, reply) {
                (Request::Write { value, .. }, Ok(Reply::Written { version })) => {
                    ops.push(done(What::Write { value: *value, version: Some(version) }));
                }
                (Request::Read { via, .. }, Ok(Reply::Value { version, value, by_lease })) => {
                    self.covered.fetch_add(u64::from(by_lease), Ordering::Relaxed);
                    ops.push(done(What::Read { via: *via, version, value }));
                }
                (_, Ok(Reply::NotLeader { leader: other })) => {
                    leader.store(if other == 0 { next } else { other }, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
                (_, Ok(Reply::Failed { .. })) => {}
                // A split or a merge is under way.
                (_, Ok(Reply::Moved | Reply::Gone)) => std::thread::sleep(Duration::from_millis(5)),
                (request, outcome) => {
                    if let Request::Write { value, .. } = request {
                        ops.push(done(What::Write { value: *value, version: None }));
                    }
                    if outcome.is_err() {
                        // An answer may still come, to a question that is no longer asked.
                        *connection = None;
                        leader.store(next, Ordering::Relaxed);
                    }
                }
            }
        }
        ops
    }
}

/// Stops the clients when it is dropped: they must not go on if the thread that torments the nodes
/// has given up.
pub struct StopOnDrop<'a>(pub &'a Load);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// A small generator of numbers: the same seed gives the same run, as far as threads allow.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n.max(1)
    }
}
