//! The engine's own threads: none of them is on the path of a write that somebody waits for.

use crate::engine::listener::Event;
use crate::engine::options::Background;
use crate::engine::report::ScrubOptions;
use crate::error::{Error, Result};
use crate::purge;
use crate::store::{Store, lock};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Mutex};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How often upkeep looks around when nothing wakes it.
const IDLE: Duration = Duration::from_millis(100);

/// Handles of the threads.
#[derive(Default)]
pub(crate) struct Threads {
    store: Option<Arc<Store>>,
    /// What writes checkpoints: ended before the last one is written.
    upkeep: Mutex<Vec<JoinHandle<()>>>,
    others: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicBool,
}

impl Threads {
    /// Starts what a write may need: the preparer of segments and the driver of tickets nobody waits for.
    pub(crate) fn start(store: &Arc<Store>) -> Result<Threads> {
        let threads = Threads { store: Some(store.clone()), ..Threads::default() };
        if store.options.background == Background::Threads
            && let Err(error) = threads.start_others(store)
        {
            // Those that were started would keep the store alive for ever.
            store.committer.close();
            threads.stop_all();
            return Err(error);
        }
        Ok(threads)
    }

    fn start_others(&self, store: &Arc<Store>) -> Result<()> {
        let s = store.clone();
        let commit = spawn("raftwood-commit", move || s.committer.run())?;
        lock(&self.others).push(commit);
        let s = store.clone();
        let pool = spawn("raftwood-pool", move || {
            while s.shared.pool.wait(Duration::from_secs(60)) {
                unharmed(|| s.report(prepare_segments(&s)));
            }
        })?;
        lock(&self.others).push(pool);
        Ok(())
    }

    /// Starts upkeep, once the store is whole.
    pub(crate) fn start_upkeep(&self, store: &Arc<Store>) -> Result<()> {
        if store.options.background == Background::Threads {
            let s = store.clone();
            let handle = spawn("raftwood-upkeep", move || upkeep(&s))?;
            lock(&self.upkeep).push(handle);
        }
        if let (Background::Threads, Some((pause, options))) = (store.options.background, store.options.scrub)
        {
            let s = store.clone();
            let handle = spawn("raftwood-scrub", move || {
                while s.shared.scrub.wait(pause) {
                    scrub(&s, &options);
                }
            })?;
            lock(&self.upkeep).push(handle);
        }
        Ok(())
    }

    /// Ends upkeep. False when that was done before.
    pub(crate) fn stop_upkeep(&self) -> bool {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(store) = &self.store {
            store.shared.upkeep.stop();
            store.shared.scrub.stop();
        }
        for thread in std::mem::take(&mut *lock(&self.upkeep)) {
            join(thread);
        }
        true
    }

    /// Ends the rest.
    pub(crate) fn stop_all(&self) {
        if let Some(store) = &self.store {
            store.shared.pool.stop();
        }
        for thread in std::mem::take(&mut *lock(&self.others)) {
            join(thread);
        }
    }
}

/// The last handle may be dropped on one of our own threads, by a callback: that one cannot wait for itself.
fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() {
        let _ = thread.join();
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_string()).spawn(f).map_err(|e| {
        Error::new(crate::ErrorKind::Io, format!("starting the thread {name} failed: {e}")).caused_by(e)
    })
}

fn scrub(store: &Store, options: &ScrubOptions) {
    match purge::scrub(store, options) {
        Ok(report) => store.shared.tell(&Event::Scrubbed {
            entries: report.entries,
            damaged: report.damage.len() as u64,
            mended: report.rot.len() as u64 + report.footers_rebuilt,
        }),
        Err(e) => store.report(Err(e)),
    }
}

fn upkeep(store: &Arc<Store>) {
    while store.shared.upkeep.wait(IDLE) {
        unharmed(|| store.report(purge::upkeep(store)));
        unharmed(|| store.report(store.committer.note_watermark()));
        let stalled = |running: &Duration| *running >= store.options.stall_after;
        if let Some(elapsed) = store.committer.sync_running_for().filter(stalled) {
            unharmed(|| store.shared.tell(&Event::SyncStalled { elapsed }));
        }
    }
}

/// A listener that panics ends what was being done, and not the thread: others wait for what it does next. The panic has been
/// reported by its hook.
fn unharmed(work: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(work)));
}

/// Makes the next segment ready well before the active one is full: from a recycled file where there is one, else from
/// a new one. Files are not made ahead of that need: in the steady state every segment comes from the pool of recycled
/// ones, and filling more with zeros would double what the device has to write.
pub(crate) fn prepare_segments(store: &Store) -> Result<()> {
    loop {
        let (ready, wanted) = store.committer.ready();
        let (active, offset) = store.committer.active();
        let soon = ready == 0 && u64::from(offset) > active.len / 8;
        if wanted == 0 && !soon {
            return Ok(());
        }
        let prepare = || store.factory.prepare(store.factory.next_len(active.len).max(wanted));
        // Somebody may be waiting for it, and has to hear of it in any case.
        let prepared = catch_unwind(AssertUnwindSafe(prepare))
            .unwrap_or_else(|_| Err(Error::new(crate::ErrorKind::Io, "preparing a segment panicked")));
        let failed = prepared.as_ref().err().cloned();
        store.committer.put_ready(prepared);
        match failed {
            Some(e) if wanted == 0 => return Err(e),
            // Whoever waits for it has been told.
            Some(_) => return Ok(()),
            None => {}
        }
    }
}
