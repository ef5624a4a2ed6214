//! The engine's own threads: none of them is on the path of a write that somebody waits for.

use crate::clock;
use crate::disk_watch::StallNews;
use crate::error::{Error, ErrorKind, Result};
use crate::listener::Event;
use crate::options::Background;
use crate::report::ScrubOptions;
use crate::sync::thread;
use crate::sync::thread::{JoinHandle, ThreadId};
use crate::sync::{Arc, Mutex};
use crate::types::Lsn;
use crate::upkeep::Store;
use crate::upkeep::{self, NameWatch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How often upkeep looks around when nothing wakes it.
const IDLE: Duration = Duration::from_millis(100);

/// How often somebody looks whether the files of the store are in their places.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Handles of the threads.
#[derive(Default)]
pub(crate) struct Threads {
    store: Option<Arc<Store>>,
    /// What writes checkpoints: ended before the last one is written.
    upkeep: Mutex<Vec<JoinHandle<()>>>,
    others: Mutex<Vec<JoinHandle<()>>>,
    /// Whether one of them scrubs: it is started when that is first wanted.
    scrubs: Mutex<bool>,
    /// All of the above, and the thread that closes the engine.
    awaited: Mutex<Vec<ThreadId>>,
}

impl Threads {
    /// Starts what a write may need: the preparer of segments and the driver of tickets nobody waits for.
    pub(crate) fn start(store: &Arc<Store>) -> Result<Threads> {
        let threads = Threads { store: Some(store.clone()), ..Threads::default() };
        if store.options.background == Background::Threads
            && let Err(error) = threads.start_others(store)
        {
            // Those that were started would keep the store alive forever.
            store.committer.close();
            threads.stop_all();
            return Err(error);
        }
        Ok(threads)
    }

    fn start_others(&self, store: &Arc<Store>) -> Result<()> {
        let s = store.clone();
        let commit = spawn("raftwood-commit", move || s.committer.run())?;
        self.add(&self.others, commit);
        let s = store.clone();
        let pool = spawn("raftwood-pool", move || {
            while s.signals.pool.wait(Duration::from_secs(60)) {
                unharmed(|| s.listeners.report(s.committer.prepare()));
            }
        })?;
        self.add(&self.others, pool);
        if store.listeners.is_heard() {
            let s = store.clone();
            let watcher = spawn("raftwood-watch", move || {
                while s.signals.watcher.wait(IDLE) {
                    unharmed(|| look_around(&s));
                }
            })?;
            self.add(&self.others, watcher);
        }
        Ok(())
    }

    /// Starts upkeep, once the store is whole.
    pub(crate) fn start_upkeep(&self, store: &Arc<Store>, names: &Arc<NameWatch>) -> Result<()> {
        if store.options.background == Background::Threads {
            let s = store.clone();
            let handle = spawn("raftwood-upkeep", move || upkeep(&s))?;
            self.add(&self.upkeep, handle);
            // Upkeep may be busy for longer than acknowledgements should go on.
            let (s, names) = (store.clone(), names.clone());
            let handle = spawn("raftwood-names", move || {
                while s.signals.names.wait(LOOK_EVERY) {
                    unharmed(|| s.listeners.report(names.look(&s)));
                }
            })?;
            self.add(&self.upkeep, handle);
        }
        if store.options.background == Background::Threads && store.options.purge.background {
            let s = store.clone();
            let handle = spawn("raftwood-clean", move || {
                while s.signals.clean.wait(Duration::from_secs(60)) {
                    unharmed(|| s.listeners.report(upkeep::clean_at_rate(&s)));
                }
            })?;
            self.add(&self.upkeep, handle);
        }
        if store.options.scrub.is_some() {
            self.start_scrub(store)?;
        }
        Ok(())
    }

    /// Starts the thread that scrubs, unless it runs already.
    pub(crate) fn start_scrub(&self, store: &Arc<Store>) -> Result<()> {
        let mut scrubs = self.scrubs.lock();
        if store.options.background == Background::Threads && !*scrubs {
            let s = store.clone();
            let handle = spawn("raftwood-scrub", move || scrub_at_times(&s))?;
            self.add(&self.upkeep, handle);
            *scrubs = true;
        }
        Ok(())
    }

    fn add(&self, to: &Mutex<Vec<JoinHandle<()>>>, thread: JoinHandle<()>) {
        self.awaited.lock().push(thread.thread().id());
        to.lock().push(thread);
    }

    /// The calling thread closes the engine.
    pub(crate) fn closing(&self) {
        self.awaited.lock().push(thread::current().id());
    }

    /// Whether the calling thread is one of these, or the one that closes the engine.
    pub(crate) fn is_mine(&self) -> bool {
        self.awaited.lock().contains(&thread::current().id())
    }

    /// Ends upkeep.
    pub(crate) fn stop_upkeep(&self) {
        if let Some(store) = &self.store {
            store.pauses.stop();
            store.signals.upkeep.stop();
            store.signals.clean.stop();
            store.signals.scrub.stop();
            store.signals.names.stop();
        }
        for thread in std::mem::take(&mut *self.upkeep.lock()) {
            join(thread);
        }
    }

    /// In a fork of their process there are no threads to end, and no handle of one that could be given back.
    pub(crate) fn forget(&mut self) {
        for threads in [&mut self.upkeep, &mut self.others] {
            let threads = threads.get_mut();
            std::mem::forget(std::mem::take(threads));
        }
    }

    /// Ends the rest.
    pub(crate) fn stop_all(&self) {
        if let Some(store) = &self.store {
            store.signals.pool.stop();
            store.signals.watcher.stop();
        }
        for thread in std::mem::take(&mut *self.others.lock()) {
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
    thread::Builder::new()
        .name(name.to_string())
        .spawn(f)
        .map_err(|e| Error::new(ErrorKind::Io, format!("starting the thread {name} failed")).caused_by(e))
}

/// Scrubs whenever the pause since the last scrub is over, as long as it is by then.
fn scrub_at_times(store: &Store) {
    let options = store.options.scrub.map_or_else(ScrubOptions::default, |(_, options)| options);
    let mut last = clock::now();
    let left = |last: Instant| store.tuned.scrub_pause().saturating_sub(clock::since(last));
    while store.signals.scrub.wait(left(last)) {
        // Woken because the pause is another one now, perhaps.
        if left(last).is_zero() {
            scrub(store, &options.rate_bytes(store.tuned.scrub_rate()));
            last = clock::now();
        }
    }
}

fn scrub(store: &Store, options: &ScrubOptions) {
    match upkeep::scrub(store, options) {
        Ok(report) => store.listeners.deliver(&Event::Scrubbed {
            entries: report.entries,
            damaged: report.damage.len() as u64,
            mended: report.rot.len() as u64 + report.footers_rebuilt,
        }),
        Err(e) => store.listeners.report(Err(e)),
    }
}

fn upkeep(store: &Arc<Store>) {
    let mut look = IndexLook { at: Lsn::ZERO, due: clock::now() };
    while store.signals.upkeep.wait(IDLE) {
        unharmed(|| look.take(store));
        unharmed(|| store.listeners.report(upkeep::seal_at_leisure(store)));
        unharmed(|| store.listeners.report(upkeep::upkeep(store)));
        unharmed(|| store.listeners.report(store.note_mark_when_idle()));
        if upkeep::is_cleaning_due(store) {
            store.signals.clean.raise();
        }
    }
}

/// Reports operations of the disk that take long, and writers that wait for others, and the ends of both.
/// Waits for no disk itself.
pub(crate) fn look_around(store: &Store) {
    let oldest = store.committer.oldest_io();
    let news = store.notified.stall.lock().look(oldest, store.factory.watch.stall_after(), clock::now());
    for news in news.into_iter().flatten() {
        store.listeners.deliver(&match news {
            StallNews::Stalled(operation, elapsed) => Event::SyncStalled { operation, elapsed },
            StallNews::Over(operation, elapsed) => Event::StallEnded { operation, elapsed },
        });
    }
    let (waiting, in_flight_bytes) = store.committer.waiting_for_room();
    let turned = store.notified.pressure.lock().look(waiting > 0);
    match turned {
        Some(true) => store.listeners.deliver(&Event::Throttled { waiting, in_flight_bytes }),
        Some(false) => store.listeners.deliver(&Event::ThrottlingEnded),
        None => {}
    }
}

/// A listener that panics ends what was being done, and not the thread: others wait for what it does next.
/// The panic has been reported by its hook.
fn unharmed(work: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(work)));
}

/// When the index of many regions was walked, for [`Stats::index_bytes`](crate::Stats::index_bytes).
struct IndexLook {
    /// Where the log ended.
    at: Lsn,
    /// Not before then again.
    due: Instant,
}

impl IndexLook {
    /// Walks it if something was written since, and so seldom that it takes a two-hundredth of a processor.
    fn take(&mut self, store: &Store) {
        let (began, at) = (clock::now(), store.committer.accepted());
        if self.at != at && self.due <= began && store.table.is_large() {
            store.table.heap_bytes();
            *self = IndexLook { at, due: began + (clock::since(began) * 200).max(Duration::from_secs(1)) };
        }
    }
}
