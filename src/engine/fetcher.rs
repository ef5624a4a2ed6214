//! Reads, and what else must not hold up who asks for it, on threads of the engine.

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::mpsc::{Receiver, Sender, channel};
use crate::sync::thread;
use crate::sync::thread::{JoinHandle, ThreadId};
use crate::sync::{Arc, Mutex};

type Job = Box<dyn FnOnce() + Send + 'static>;

/// A few threads, started at the first job.
pub(crate) struct Fetcher {
    state: Mutex<State>,
    line: Arc<Line>,
}

/// How long the queue is.
struct Line {
    max: usize,
    len: AtomicUsize,
    refused: AtomicU64,
}

/// A place in the queue, to be dropped by the job when a thread begins with it.
pub(super) struct Place(Arc<Line>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.len.fetch_sub(1, Ordering::AcqRel);
    }
}

struct State {
    /// Of the threads.
    name: &'static str,
    wanted: usize,
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    ids: Vec<ThreadId>,
    stopped: bool,
}

impl Fetcher {
    /// For jobs that read: so many threads, and so many jobs that wait for one.
    pub(crate) fn reading(threads: usize, queue_max: usize) -> Fetcher {
        Fetcher::new("raftwood-read", threads, queue_max)
    }

    /// For batches that wait until they are accepted, one after the other: reads must not queue after them.
    pub(crate) fn admitting() -> Fetcher {
        Fetcher::new("raftwood-admit", 1, usize::MAX)
    }

    fn new(name: &'static str, wanted: usize, max: usize) -> Fetcher {
        let (threads, ids) = (Vec::new(), Vec::new());
        Fetcher {
            state: Mutex::new(State { name, wanted, jobs: None, threads, ids, stopped: false }),
            line: Arc::new(Line { max, len: AtomicUsize::new(0), refused: AtomicU64::new(0) }),
        }
    }

    /// A place for one more job, unless as many wait as may.
    pub(crate) fn reserve(&self) -> Option<Place> {
        let line = &self.line;
        let next = |len: usize| (len < line.max).then_some(len + 1);
        match line.len.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(_) => Some(Place(line.clone())),
            Err(_) => {
                line.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// A place for a job of a task that has no other on its way: the tasks are the bound.
    pub(crate) fn place(&self) -> Place {
        self.line.len.fetch_add(1, Ordering::AcqRel);
        Place(self.line.clone())
    }

    /// How many places are taken, and how many were refused so far.
    pub(crate) fn queued_and_refused(&self) -> (u64, u64) {
        (self.line.len.load(Ordering::Relaxed) as u64, self.line.refused.load(Ordering::Relaxed))
    }

    /// How many jobs may wait.
    pub(crate) fn queue_max(&self) -> usize {
        self.line.max
    }

    /// Runs `job` on a thread of the engine, or here when there is none to be had.
    pub(crate) fn run(&self, job: Job) {
        let mut state = self.state.lock();
        if state.jobs.is_none() && !state.stopped {
            state.start();
        }
        let rejected = match &state.jobs {
            Some(jobs) => jobs.send(job).err().map(|e| e.0),
            None => Some(job),
        };
        drop(state);
        if let Some(job) = rejected {
            job();
        }
    }

    /// Whether the calling thread is one of these.
    pub(crate) fn is_mine(&self) -> bool {
        let state = self.state.lock();
        state.ids.contains(&thread::current().id())
    }

    /// Ends the threads once they have done what was asked of them.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.jobs = None;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for thread in threads {
            // A job may hold the last handle of the engine, and then this runs on its thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }

    /// In a fork of their process: the threads are not there, and what they share may be locked
    /// by one of them forever.
    pub(crate) fn forget(&mut self) {
        let state = self.state.get_mut();
        std::mem::forget((state.jobs.take(), std::mem::take(&mut state.threads)));
    }
}

impl State {
    fn start(&mut self) {
        let (send, receive) = channel::<Job>();
        let receive = Arc::new(Mutex::new(receive));
        for n in 0..self.wanted {
            let receive = receive.clone();
            let name = format!("{}-{n}", self.name);
            if let Ok(thread) = thread::Builder::new().name(name).spawn(move || work(&receive)) {
                self.ids.push(thread.thread().id());
                self.threads.push(thread);
            }
        }
        if !self.threads.is_empty() {
            self.jobs = Some(send);
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().recv();
        match job {
            // A panic in a caller's closure ends that job, not the thread.
            Ok(job) => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))),
            Err(_) => return,
        }
    }
}
