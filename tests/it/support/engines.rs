//! How engines are opened here, and how they end.

use raftwood::{Options, Pool};

/// Small segments, of which a few entries make many, and no file that is filled in advance.
pub(crate) fn small() -> Options {
    Options::new().segment_bytes(64 << 10).pool(Pool::default().prewrite(false))
}

#[cfg(feature = "sim")]
pub(crate) use simulated::*;

#[cfg(feature = "sim")]
mod simulated {
    use super::small;
    use raftwood::vfs::sim::SimVfs;
    use raftwood::{Background, Engine, Options, Pool, Purge};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Where stores lie on simulated disks.
    pub(crate) const DIR: &str = "/db";

    /// [`small`] on this disk.
    pub(crate) fn on(vfs: &SimVfs) -> Options {
        small().vfs(Arc::new(vfs.clone()))
    }

    /// As [`on`], and nothing happens that the test does not call for.
    pub(crate) fn by_hand(vfs: &SimVfs) -> Options {
        on(vfs).background(Background::Manual).purge(Purge::default().background(false))
    }

    /// As [`by_hand`], one file in the pool, for the run of this number: the bytes that it writes repeat for
    /// the same number and for no other.
    pub(crate) fn of_run(vfs: &SimVfs, run: u64) -> Options {
        pool_of(by_hand(vfs), 1).salt_source(salts(run << 32 | 0x5a17))
    }

    /// With so many files in the pool.
    pub(crate) fn pool_of(options: Options, files: usize) -> Options {
        options.pool(Pool::default().files_max(files).prewrite(false))
    }

    /// Salts that are counted instead of drawn.
    pub(crate) fn salts(first: u64) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let salt = AtomicU64::new(first);
        Arc::new(move || salt.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    /// Ends the process: nothing that dropping the engine would do reaches the disk.
    pub(crate) fn kill(vfs: &SimVfs, engine: Engine) {
        vfs.halt_after(0);
        drop(engine);
        vfs.halt_after(u64::MAX);
    }
}
