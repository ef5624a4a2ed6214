//! Reads, and what else must not hold up who asks for it, on threads of the engine.

use crate::sync::mpsc::{Receiver, Sender, channel};
use crate::sync::thread;
use crate::sync::thread::{JoinHandle, ThreadId};
use crate::sync::{Arc, Mutex};

type Job = Box<dyn FnOnce() + Send + 'static>;

/// A few threads, started at the first job.
pub(crate) struct Fetcher(Mutex<State>);

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
    /// For jobs that read.
    pub(crate) fn reading() -> Fetcher {
        Fetcher::new("raftwood-read", 2)
    }

    /// For batches that wait until they are accepted, one after the other.
    pub(crate) fn admitting() -> Fetcher {
        Fetcher::new("raftwood-admit", 1)
    }

    /// For jobs that may wait for the device. Reads must not queue after them.
    #[cfg(any(feature = "openraft-09-bare", feature = "openraft-010-bare"))]
    pub(crate) fn waiting() -> Fetcher {
        Fetcher::new("raftwood-wait", 1)
    }

    fn new(name: &'static str, wanted: usize) -> Fetcher {
        Fetcher(Mutex::new(State {
            name,
            wanted,
            jobs: None,
            threads: Vec::new(),
            ids: Vec::new(),
            stopped: false,
        }))
    }

    /// Runs `job` on a thread of the engine, or here when there is none to be had.
    pub(crate) fn run(&self, job: Job) {
        let mut state = self.0.lock();
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
        let state = self.0.lock();
        state.ids.contains(&thread::current().id())
    }

    /// Ends the threads once they have done what was asked of them.
    pub(crate) fn stop(&self) {
        let mut state = self.0.lock();
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
        let state = self.0.get_mut();
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
