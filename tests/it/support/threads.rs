//! An engine with its threads on a simulated disk, and what tests of threads do with it.

use super::engines::{DIR, on, salts};
use super::entries;
use raftwood::vfs::sim::SimVfs;
use raftwood::{Durability, Engine, Options, RegionId, Ticket, WriteBatch};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

pub(crate) fn options(vfs: &SimVfs) -> Options {
    on(vfs).salt_source(salts(1))
}

pub(crate) fn open(vfs: &SimVfs) -> Engine {
    options(vfs).open(DIR).unwrap()
}

pub(crate) fn batch(engine: &Engine, region: u64, index: u64, len: usize) -> WriteBatch {
    entries::batch(engine, RegionId(region), index, len)
}

pub(crate) fn submit(engine: &Engine, region: u64, index: u64) -> Ticket {
    engine.submit(batch(engine, region, index, 100), Durability::Synced).unwrap()
}

/// The first record of a run, for which a segment has to be made: what comes after it needs
/// nothing of the disk but its own.
pub(crate) fn begin(engine: &Engine) {
    entries::vote(engine, RegionId(u64::MAX), b"begun").unwrap();
}

/// Runs `work` on a thread of its own; a deadlock fails the test instead of standing still.
pub(crate) fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    let thread = thread::spawn(move || send.send(work()));
    match receive.recv_timeout(Duration::from_secs(20)) {
        Ok(value) => value,
        Err(_) if thread.is_finished() => panic!("{what}: panicked"),
        Err(_) => panic!("{what}: nothing has happened for 20 seconds"),
    }
}
