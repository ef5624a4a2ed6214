//! Engines on a simulated disk, and waiting that ends.

use super::engines::{DIR, on, pool_of};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, Options, RegionId};
use std::future::Future;
use std::time::Duration;

pub(crate) const R: RegionId = RegionId(7);

pub(crate) fn options(vfs: &SimVfs) -> Options {
    pool_of(on(vfs), 1)
}

pub(crate) fn open(vfs: &SimVfs) -> Engine {
    options(vfs).open(DIR).unwrap()
}

/// Closes the engine and opens its store again.
pub(crate) fn closed_and_opened(vfs: &SimVfs, engine: Engine) -> Engine {
    engine.close().unwrap();
    drop(engine);
    open(vfs)
}

/// The engine that finds what a crash at this moment leaves, when all is lost that can be.
pub(crate) fn crashed(vfs: &SimVfs) -> Engine {
    open(&vfs.crash(LossPolicy::LoseAll))
}

/// Syncs get no further than its gate until it is opened or dropped: a test that fails opens it too, for no
/// engine ends before its syncs do.
pub(crate) struct Stalled(SimVfs);

impl Stalled {
    pub(crate) fn new(vfs: &SimVfs) -> Stalled {
        vfs.block_syncs();
        Stalled(vfs.clone())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.release_syncs();
    }
}

/// Fails the test instead of hanging it: what waits for something that cannot come ends here.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: still not done"),
    }
}

/// Waits until everything accepted is in the hands of the operating system: a killed process leaves that.
pub(crate) fn written(engine: &Engine) {
    engine.submit(engine.batch(), Durability::Written).unwrap().wait().unwrap();
}

/// Waits for a sync at the gate, on a thread that may block. Should none come, the thread is left to itself.
pub(crate) async fn sync_is_stuck(vfs: &SimVfs) {
    let vfs = vfs.clone();
    let (told, stuck) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        vfs.wait_for_syncs(1);
        let _ = told.send(());
    });
    soon("a sync at the gate", stuck).await.unwrap();
}
