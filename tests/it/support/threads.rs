//! A small engine on a simulated disk, and what the tests of threads do with it.

#![allow(dead_code, reason = "not every file of tests needs all of it")]

use raftwood::vfs::sim::SimVfs;
use raftwood::{Durability, Engine, EntryId, EntryRef, Options, Pool, RegionId, Ticket, WriteBatch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

pub(crate) fn options(vfs: &SimVfs) -> Options {
    let salt = Arc::new(AtomicU64::new(1));
    Options::new()
        .segment_bytes(64 << 10)
        .pool(Pool::default().prewrite(false))
        .salt_source(Arc::new(move || salt.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)))
        .vfs(Arc::new(vfs.clone()))
}

pub(crate) fn open(vfs: &SimVfs) -> Engine {
    options(vfs).open("/db").unwrap()
}

pub(crate) fn batch(engine: &Engine, region: u64, index: u64, len: usize) -> WriteBatch {
    let mut b = engine.batch();
    let payload = vec![index as u8; len];
    b.region(RegionId(region)).append([EntryRef { id: EntryId::new(1, index), payload: &payload }]).unwrap();
    b
}

pub(crate) fn submit(engine: &Engine, region: u64, index: u64) -> Ticket {
    engine.submit(batch(engine, region, index, 100), Durability::Synced).unwrap()
}

/// The first record of a run, for which a segment has to be made: what comes after it needs
/// nothing of the disk but its own.
pub(crate) fn begin(engine: &Engine) {
    let mut b = engine.batch();
    b.region(RegionId(u64::MAX)).set_hard_state(b"begun").unwrap();
    engine.write(b, Durability::Synced).unwrap();
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
